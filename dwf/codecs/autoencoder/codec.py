"""Networks as vectors of latents, by an autoencoder that learns (codecs `conv_autoencoder`, `vae`).

    codec.npz            template, shift and scale, means of running variances
    codec.safetensors    the autoencoder

Modules are in evaluation mode whenever networks are coded: a network's latents are its own,
whatever it is coded with (the published p-diff codes by the statistics of the batch).

With `chunk` a network is coded in chunks of like size by one autoencoder, which is told which chunk
it sees. A single chunk is the whole network, coded as without.

Sources: p-diff (arXiv 2402.13144); VAE-Diffusion of CIFAR-10 TinyCNN.

Shape suffixes: N networks, D numbers of a network, K numbers that are covered, C chunks, S numbers
of a chunk, E chunks of all networks, L latents of a chunk.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from dwf.backbones.vector_autoencoder import LatentNoise, VectorAutoencoder, build_autoencoder
from dwf.codecs.autoencoder.numbers import Numbers, chosen
from dwf.codecs.autoencoder.task import AutoencoderTask, Networks
from dwf.codecs.codec import codec_folder
from dwf.codecs.codes import Codes, CodeShape, Judge
from dwf.codecs.config import AutoencoderSettings
from dwf.codecs.trained import TrainedCodec, load_module, save_module
from dwf.devices import find_device
from dwf.errors import ConfigError
from dwf.randomness import seed_of, seeded, torch_stream
from dwf.ranks import world
from dwf.room import within_memory
from dwf.run_folder import RunFolder, RunPart
from dwf.training.loop import train as train_module
from dwf.training.memory import saved_bytes
from dwf.training.task import Share
from dwf.zoo.layout import Layout, Span, spans_of
from dwf.zoo.moments import Sources, common_layout, count_networks

CODED_NUMBERS = 2**24
"""Numbers of the widest layer of the networks, or chunks, that are coded at once."""


class AutoencoderCodec(TrainedCodec):
    """Codes are vectors of latents; what is lost on the way back is what was not learnt."""

    config: AutoencoderSettings
    module: VectorAutoencoder

    @classmethod
    def planned_shape(
        cls, config: AutoencoderSettings, layouts: Sequence[Layout], *, num_train: int
    ) -> CodeShape:
        """Return vectors of the latents, or a token for each chunk; see `Codec.planned_shape`.

        Raises:
            ConfigError: see `numbers.chosen`.
        """
        (layout,) = layouts
        shape = config.shape_of(_count(layout, config))
        if shape.sections is None:
            return CodeShape.vectors(layout.digest, shape.size)
        ((chunks, latents),) = shape.sections
        number_C = torch.arange(chunks)
        positions_C3 = torch.stack([number_C, torch.zeros_like(number_C), number_C], 1)
        mask = torch.ones(chunks, latents, dtype=torch.bool)
        return CodeShape.sequences([layout.digest], positions_C3, mask=mask)

    @property
    def shape(self) -> CodeShape:
        """Vectors of the latents, or a token for each chunk."""
        return self.planned_shape(self.config, [self.layout], num_train=0)

    @classmethod
    def planned_module(
        cls, config: AutoencoderSettings, layouts: Sequence[Layout]
    ) -> VectorAutoencoder:
        """Return the autoencoder without memory; see the base.

        Raises:
            ConfigError: without a layout its size is not known; or as `numbers.chosen`.
        """
        if not layouts:
            raise ConfigError("no zoo is there to take the networks' size from: train it first")
        with torch.device("meta"):
            return _autoencoder(config, layouts[0])

    @classmethod
    def activation_bytes(
        cls, config: AutoencoderSettings, module: VectorAutoencoder, *, share: Share
    ) -> int:
        """Return what the backward needs of a micro-batch of networks, or chunks; see the base."""
        num = max(share.micro, 2)  # BatchNorm takes no single number
        with torch.device("meta"):
            x_BK = torch.empty(num, module.numbers)
            drawn_BL, added_BL = torch.empty(2, num, module.num_latents)
            noise = LatentNoise(drawn_BL, added_BL, torch.empty(()))
            chunk_B = torch.zeros(num, dtype=torch.int64)
        return saved_bytes(lambda: module(x_BK, noise, chunk_B), but=module.parameters())

    def spans_of(self, layout: Layout) -> list[Span]:
        """Return the stretches of a row that it covers; see `Codec.spans_of`."""
        self._refuse_other(layout.digest)
        return spans_of(chosen(layout, self.config))

    def fit(
        self,
        train: Sources,
        val: Sources,
        *,
        run: RunFolder,
        seed: int = 0,
        judge: Judge | None = None,
    ) -> "AutoencoderCodec":
        """Learn from the training networks; see `Codec.fit`.

        Raises:
            ConfigError: see `numbers.chosen`; or a running variance is below 0.
            TrainingDiverged: the loss is not finite; names zoos and rows.
        """
        config, self.layout = self.config, common_layout(train)
        for zoo, _ in val:
            self._refuse_other(zoo.layout.digest)
        train = [source for source in train if len(source[1])]
        self.numbers, moments = Numbers.fit(train, chosen(self.layout, config), config=config)
        self.arrays = {
            "template_D": moments.mean_D.astype(np.float32),
            "shift_K": self.numbers.shift_K.numpy(),
            "scale_K": self.numbers.scale_K.numpy(),
            "variances": np.array(self.numbers.variances),
        }
        self._refuse_no_room(train)
        self.module = self._new_module(seed)
        self.facts = {
            "networks": count_networks(train),
            "parameters": sum(p.numel() for p in self.module.parameters()),
            "code_size": self.shape.size,
        }
        task = self._task(train, val, seed)
        outcome = train_module(
            task,
            config.training,
            seed=seed,
            run=RunPart(codec_folder(run)),
            what=config.kind,
            look=partial(self._look, judge, seed) if judge else None,
        )
        self.module = task.module
        if world().is_first:  # elsewhere it may be in pieces
            self.facts |= {"training": vars(outcome), "val": task.measure(self.module)}
        return self

    def _new_module(self, seed: int) -> VectorAutoencoder:
        with seeded(seed, "initialisation"):
            return _autoencoder(self.config, self.layout)

    def _task(self, train: Sources, val: Sources, seed: int) -> AutoencoderTask:
        chunks = self.config.chunks(self.numbers.size)
        return AutoencoderTask(
            self.config,
            self.module,
            train=Networks(train, self.numbers, chunks=chunks),
            val=Networks(val, self.numbers, chunks=chunks),
            device=find_device(self.config.training.compute.device),
            seed=seed_of(seed, "training"),
        )

    def _look(self, judge: Judge, seed: int, module: VectorAutoencoder) -> dict[str, float]:
        """Return what the judge says of latents of the prior, as the module decodes them now.

        From the same latents at each look.
        """
        trained, self.module = self.module, module
        try:
            size = (self.config.training.sample_count, self.shape.size)
            drawn_NL = torch.randn(size, generator=torch_stream(seed, "look"))
            return judge(Codes(drawn_NL, self.shape))
        finally:
            self.module = trained

    def save(self, folder: Path) -> None:
        """Write it to a folder; `Codec.load` reads it, on any machine."""
        self.arrays["module_checksum"] = save_module(self.module, folder)
        super().save(folder)

    def _open(self, folder: Path) -> None:
        entries = chosen(self.layout, self.config)
        shift_K, scale_K = (torch.from_numpy(self.arrays[n]) for n in ("shift_K", "scale_K"))
        self.numbers = Numbers(
            entries,
            self.config.log_variances,
            shift_K,
            scale_K=scale_K,
            variances=tuple(self.arrays["variances"].tolist()),
        )
        self.module = _autoencoder(self.config, self.layout)
        self.module.load_state_dict(load_module(folder, int(self.arrays["module_checksum"])))
        device = "cpu" if self.config.training.compute.device == "cpu" else "auto"
        self.module.eval().to(find_device(device))  # not the GPU of another machine

    def _encode(self, weights_ND: torch.Tensor) -> torch.Tensor:
        x_NK, chunks, size = self.numbers.take(weights_ND), self._chunks, self.module.numbers
        if missing := chunks * size - x_NK.shape[1]:
            x_NK = functional.pad(x_NK, (0, missing))
        out_EL = torch.empty(len(x_NK) * chunks, self.module.num_latents)
        self._through(self.module.encode, x_NK.view(-1, size), out_EL)
        return out_EL.view(len(x_NK), *self.shape.of_code)

    def _decode_into(self, values: torch.Tensor, weights_ND: torch.Tensor) -> None:
        latent_EL = values.reshape(-1, self.module.num_latents)
        made_ES = torch.empty(len(latent_EL), self.module.numbers)
        self._through(self.module.decode, latent_EL, made_ES)
        made_NK = made_ES.view(len(weights_ND), self._chunks * self.module.numbers)
        self.numbers.put(made_NK[:, : self.numbers.size], weights_ND)

    @torch.no_grad()
    def _through(
        self, half: Callable[..., torch.Tensor], given_E: torch.Tensor, out_E: torch.Tensor
    ) -> None:
        """Fill in what one half of the autoencoder makes of chunks, some at a time."""
        most = max(1, CODED_NUMBERS // self.config.backbone.widest(self.module.numbers))
        chunks, device = self._chunks, next(self.module.parameters()).device
        for start in range(0, len(given_E), most):
            part = slice(start, start + most)
            told = given_E[part].to(device)
            if chunks > 1:
                number_B = torch.arange(start, start + len(told), device=device) % chunks
                out_E[part] = half(told, number_B)
            else:
                out_E[part] = half(told)

    @property
    def _chunks(self) -> int:
        return self.config.chunks(self.numbers.size)


def _count(layout: Layout, config: AutoencoderSettings) -> int:
    return sum(entry.size for entry in chosen(layout, config))


def _autoencoder(config: AutoencoderSettings, layout: Layout) -> VectorAutoencoder:
    count = _count(layout, config)
    return within_memory(
        lambda: build_autoencoder(
            config.backbone,
            config.chunk_size(count),
            variational=config.kl > 0,
            chunks=config.chunks(count) > 1,
        ),
        config.backbone,
        key="codec.backbone",
    )
