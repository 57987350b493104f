"""The task of an autoencoder of networks: to give back what it sees, through noise.

Loss: the mean squared error of standardised numbers, plus, of a variational one, the divergence of
the latents from a standard normal, in nats for each of these numbers.

Examples are numbered: batch s takes the next networks, or chunks of them, of an order that is drawn
anew whenever all have had their turn. So any number of ranks sees the same ones. Behind the last
number a chunk has zeros, fewer in all than there are chunks, which are learnt too.

Shape suffixes: B examples of a micro-batch, K numbers of one, S of a chunk, L latents.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from dwf.backbones.vector_autoencoder import LatentNoise, VectorAutoencoder
from dwf.codecs.autoencoder.numbers import Numbers
from dwf.codecs.config import AutoencoderSettings
from dwf.randomness import numpy_stream
from dwf.training.task import Share, Task
from dwf.zoo.moments import Sources, count_networks
from dwf.zoo.store import Zoo

MOST_HELD = 2**28
"""Bytes of networks that are held in memory; more are read at each step."""
_BLOCK = 64


class Networks:
    """Networks of zoos, or chunks of them, by number, standardised.

    Args:
        sources: their zoos and rows, of one layout.
        numbers: what is taken of them.
        chunks: C, in how many chunks each network is seen.
    """

    def __init__(self, sources: Sources, numbers: Numbers, *, chunks: int = 1):
        self.sources, self.numbers = [source for source in sources if len(source[1])], numbers
        self.chunks, self.size = chunks, -(-numbers.size // chunks)
        self.count = count_networks(sources) * chunks
        """How many examples there are: a network's chunks follow each other."""
        self._starts = np.cumsum([0, *(len(rows) for _, rows in self.sources)])
        self._held: torch.Tensor | None = None
        if self.count and 4 * self.count * self.size <= MOST_HELD:
            self._held = torch.cat(list(self.blocks()))

    def take(self, places: np.ndarray) -> torch.Tensor:
        """Return examples by their numbers, float32 on the CPU, [B, S]; 0 past the last weight."""
        if self._held is not None:
            return self._held[torch.from_numpy(places)]
        out_BS = torch.zeros(len(places), self.size)
        for zoo, rows, at in self._found(places):
            chunk_B = places[at] % self.chunks
            for chunk in np.unique(chunk_B):
                mine, start = chunk_B == chunk, int(chunk) * self.size
                stop = min(start + self.size, self.numbers.size)
                found = self.numbers.read(zoo, rows[mine], start=start, stop=stop)
                out_BS[torch.from_numpy(at[mine]), : stop - start] = found
        return out_BS

    def chunk_of(self, places: np.ndarray) -> torch.Tensor | None:
        """Return which chunk of its network each example is, int64; None where each is whole."""
        return None if self.chunks == 1 else torch.from_numpy(places % self.chunks)

    def blocks(self) -> Iterator[torch.Tensor]:
        """Yield all examples, some at a time."""
        yield from map(self.take, self.places())

    def places(self) -> Iterator[np.ndarray]:
        """Yield the numbers of all examples, some at a time."""
        for start in range(0, self.count, _BLOCK):
            yield np.arange(start, min(start + _BLOCK, self.count))

    def describe(self, places: np.ndarray) -> str:
        """Return of which rows of which zoos examples are."""
        return "; ".join(
            f"rows {', '.join(map(str, np.unique(rows)))} of {zoo.path}"
            for zoo, rows, _ in self._found(places)
        )

    def _found(self, places: np.ndarray) -> Iterator[tuple[Zoo, np.ndarray, np.ndarray]]:
        """Yield (zoo, rows, which of the places) of each source that has some."""
        network_B = places // self.chunks
        source_B = np.searchsorted(self._starts, network_B, side="right") - 1
        for i in np.unique(source_B):
            zoo, rows = self.sources[i]
            at = np.flatnonzero(source_B == i)
            yield zoo, rows[network_B[at] - self._starts[i]], at


class AutoencoderTask(Task):
    """The task of an autoencoder of networks.

    Args:
        config: noise, divergence, how many steps.
        module: learns.
        train: networks to learn from.
        val: held-out networks; may be none.
        device: where the module learns.
        seed: of the order of the networks.
    """

    def __init__(
        self,
        config: AutoencoderSettings,
        module: VectorAutoencoder,
        *,
        train: Networks,
        val: Networks,
        device: torch.device,
        seed: int,
    ):
        self.config, self.module, self.train, self.val = config, module, train, val
        self.num_numbers, self.num_latents = module.numbers, module.num_latents
        self.device, self.seed = device, seed
        self._order = lru_cache(maxsize=2)(self._draw_order)
        self._step, self._micro, self._share = 0, 0, Share()

    def start(self, step: int, share: Share) -> None:
        """Begin at a step."""
        self._step, self._micro, self._share = step, 0, share

    def loss(
        self, module: nn.Module, batch_size: int, *, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the loss of the next micro-batch; see `Task.loss`."""
        config, share = self.config, self._share
        start, stop = share.examples(self._micro)
        first = self._step * share.batch_size
        places = self._places(first + start, first + stop)
        x_BK, chunk_B = self._seen(self.train, places)
        weight = self._kl_at(self._step)
        self._micro += 1
        if self._micro == share.accumulate:
            self._step, self._micro = self._step + 1, 0
        noise_BK, kept = self._noise(x_BK.shape, config.input_noise, generator)
        latent_shape = (len(x_BK), self.num_latents)
        drawn_BL = torch.randn(latent_shape, generator=generator, device=self.device)
        noise = LatentNoise(drawn_BL, *self._noise(latent_shape, config.latent_noise, generator))
        made_BK, mean_BL, log_variance_BL = module(x_BK * kept + noise_BK, noise, chunk_B)
        loss = (made_BK - x_BK).square().mean()
        if log_variance_BL is None:
            return loss
        nats = divergence(mean_BL, log_variance_BL).mean()
        return loss + weight * nats / self.num_numbers

    def _seen(
        self, networks: Networks, places: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return examples, and which chunks they are, where the module learns."""
        chunk_B = networks.chunk_of(places)
        chunk_B = None if chunk_B is None else chunk_B.to(self.device)
        return networks.take(places).to(self.device), chunk_B

    def _noise(
        self, shape: tuple[int, ...], deviations: tuple[float, ...], generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return noise, and the share of the numbers that is left beside it."""
        low, high = deviations[0], deviations[-1]
        options = {"generator": generator, "device": self.device}
        deviation = low + (high - low) * torch.rand((), **options)
        kept = 1 - deviation if self.config.noise_kind == "mixed" else torch.ones_like(deviation)
        return deviation * torch.randn(shape, **options), kept

    def _kl_at(self, step: int) -> float:
        steps = self.config.kl_steps
        return self.config.kl * min(1.0, (step + 1) / steps if steps else 1.0)

    def _places(self, start: int, stop: int) -> np.ndarray:
        """Return the numbers of the networks that are examples [start, stop) of the training."""
        turn, place = np.divmod(np.arange(start, stop), self.train.count)
        return np.array([self._order(int(t))[p] for t, p in zip(turn, place, strict=True)])

    def _draw_order(self, turn: int) -> np.ndarray:
        return numpy_stream(self.seed, "order", turn).permutation(self.train.count)

    def validate(self, module: nn.Module) -> float | None:
        """Return the mean squared error of held-out networks, without noise."""
        return self.measure(module).get("loss")

    @torch.no_grad()
    def measure(self, module: nn.Module) -> dict[str, float]:
        """Return the mean squared error of held-out networks as `loss`; nothing without any."""
        if not self.val.count:
            return {}
        total = 0.0
        for places in self.val.places():
            x_BK, chunk_B = self._seen(self.val, places)
            made_BK, *_ = module(x_BK, None, chunk_B)
            total += (made_BK - x_BK).square().mean(1).sum().item()
        return {"loss": total / self.val.count}

    def describe(self, step: int) -> str:
        """Return which rows of which zoos the networks of a step are."""
        size = self.config.training.batch_size
        return self.train.describe(self._places((step - 1) * size, step * size))


def divergence(mean_BL: torch.Tensor, log_variance_BL: torch.Tensor) -> torch.Tensor:
    """Return the divergence of latents from a standard normal, in nats, [B].

    Kingma and Welling, Auto-encoding variational Bayes (arXiv 1312.6114), appendix B.
    """
    return 0.5 * (mean_BL**2 + log_variance_BL.exp() - 1 - log_variance_BL).sum(1)
