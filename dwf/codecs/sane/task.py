"""The task of the token autoencoder: to reconstruct windows, and to tell them apart.

Loss (SANE, arXiv 2406.09997, section 3): contrast * NT-Xent + (1 - contrast) * squared error. All
views of a micro-batch are one call of the module.

Shape suffixes: V views, B windows of a micro-batch, W tokens of a window, C numbers of a token.
"""

from collections.abc import Sequence

import torch
from torch import nn

from dwf.backbones.token_autoencoder import TokenAutoencoder
from dwf.codecs.config import SaneConfig
from dwf.codecs.sane.behaviour import Behaviour
from dwf.codecs.sane.losses import add_noise, erase, masked_variance, nt_xent, squared_error
from dwf.codecs.windows import (
    NamedTensors,
    WindowBatch,
    WindowLoader,
    WindowSampler,
    tensors_of,
    to_device,
)
from dwf.errors import ConfigError
from dwf.training.task import Share, Task


class SaneTask(Task):
    """The task of a token autoencoder.

    Args:
        config: losses, views, noise, how many steps.
        module: learns.
        sampler: cuts windows of the training networks.
        val_batches: fixed windows of held-out networks; may be none.
        device: where the module learns.
        behaviour: compares reconstructed networks with the originals; None: not done.
    """

    def __init__(
        self,
        config: SaneConfig,
        module: TokenAutoencoder,
        *,
        sampler: WindowSampler,
        val_batches: Sequence[WindowBatch],
        device: torch.device,
        behaviour: Behaviour | None = None,
    ):
        self.config, self.module, self.sampler = config, module, sampler
        self.val_batches = [tensors_of(batch) for batch in val_batches]
        self.device, self.behaviour = device, behaviour
        self.tokens_per_example = num_views(config) * sampler.num_tokens
        self.flops_per_example = num_views(config) * module.flops(sampler.num_tokens)
        self._loader: WindowLoader | None = None

    def start(self, step: int, share: Share) -> None:
        """Begin to cut windows at a step.

        Raises:
            ConfigError: micro-batches of one window, and a contrast to be made.
        """
        if num_views(self.config) > 1 and share.micro < 2:
            raise ConfigError(
                f"contrast = {self.config.contrast}: {share.batch_size} windows over {share.world} "
                f"ranks in {share.accumulate} micro-batches each leave 1 window to a micro-batch, "
                "and it takes 2 to tell them apart: set a larger training.batch_size, or contrast 0"
            )
        training = self.config.training
        steps, workers = training.steps, training.compute.workers
        self._loader = WindowLoader(
            self.sampler, share, first_step=step, steps=steps, workers=workers, device=self.device
        )

    @property
    def seconds_waited(self) -> float:
        """Time that `loss` waited for windows since this was set to 0."""
        return self._loader.seconds_waited if self._loader else 0.0

    @seconds_waited.setter
    def seconds_waited(self, seconds: float) -> None:
        if self._loader:
            self._loader.seconds_waited = seconds

    def loss(
        self, module: nn.Module, batch_size: int, *, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the loss of the next micro-batch; see `Task.loss`."""
        batch = self._loader.next()
        seen, parts = self._forward(module, batch, generator)
        loss = self._combine(**parts)
        if self.behaviour is None:
            return loss
        first = self.behaviour.loss(
            seen[: len(batch["row_B"])],
            batch["places_VBWC"][0],
            layer_BW=batch["positions_BW3"][..., 1],
            source_B=batch["source_B"],
            row_B=batch["row_B"],
        )
        return loss + self.config.behaviour.weight * first

    def _forward(
        self, module: nn.Module, batch: NamedTensors, generator: torch.Generator | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return (what was made of all views, losses by name); without a generator no noise."""
        config, num = self.config, num_views(self.config)
        clean = batch["tokens_VBWC"].flatten(0, 1)
        mask = batch["mask_BWC"].repeat(num, 1, 1)
        valid = batch["valid_BW"]
        valid = None if valid is None else valid.repeat(num, 1)
        tokens = clean if generator is None else self._disturb(clean, mask, generator)
        positions = batch["positions_BW3"].repeat(num, 1, 1)
        made, projections = module(tokens, positions, valid, num > 1)
        target = clean if config.clean_target else tokens
        count = mask.sum()
        if config.padding_in_loss:
            count = mask.numel() if valid is None else valid.sum() * mask.shape[2]
        parts = {"reconstruction": squared_error(made, target, counted_BWC=mask) / count}
        if config.tokens.standardise == "run_time":
            parts["reconstruction"] = parts["reconstruction"] / masked_variance(target, mask)
        if num > 1:
            parts["contrast"] = nt_xent(projections, config.temperature)
        return made, parts

    def _disturb(
        self, tokens: torch.Tensor, mask: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Return what the module sees of views in training: with noise, and some erased."""
        config = self.config
        if config.noise:
            multiplicative = config.noise_kind == "multiplicative"
            tokens = add_noise(
                tokens,
                mask,
                deviation=config.noise,
                multiplicative=multiplicative,
                generator=generator,
            )
        if config.erase:
            tokens = erase(tokens, config.erase, area=config.erase_area, generator=generator)
        return tokens

    def _combine(
        self, reconstruction: torch.Tensor, contrast: torch.Tensor | float = 0.0
    ) -> torch.Tensor:
        share = self.config.contrast
        return share * contrast + (1 - share) * reconstruction

    def validate(self, module: nn.Module) -> float | None:
        """Return the loss on fixed windows of held-out networks, without noise."""
        measured = self.measure(module)
        return measured["loss"] if measured else None

    @torch.no_grad()
    def measure(self, module: nn.Module) -> dict[str, float]:
        """Return mean losses of the held-out windows, by name; nothing where there are none.

        `explained`: the share of the variance of standardised numbers that is reconstructed.
        """
        sums, count = dict[str, float](), 0
        for stored in self.val_batches:
            batch = to_device(stored, self.device)
            made, parts = self._forward(module, batch, None)
            clean = batch["tokens_VBWC"].flatten(0, 1)
            mask = batch["mask_BWC"].repeat(num_views(self.config), 1, 1)
            error = squared_error(made, clean, counted_BWC=mask) / mask.sum()
            found = {"loss": self._combine(**parts)} | parts
            found["explained"] = 1 - error / masked_variance(clean, mask)
            num = len(batch["row_B"])
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + num * value.item()
            count += num
        return {name: value / count for name, value in sums.items()}

    def describe(self, step: int) -> str:
        """Return which rows of which shards the windows of a step are of."""
        return self.sampler.describe(step, self.config.training.batch_size)


def num_views(config: SaneConfig) -> int:
    """Return V: one where there is no contrast to be made."""
    return 2 if config.contrast else 1
