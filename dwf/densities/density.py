"""The base of every density: fitted to codes, it draws codes and says how likely some are.

What a kind can do its settings say; see `base_config.DensitySettings`.

Shape suffixes: N codes, B codes of a chunk.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from dwf.codecs.codes import Codes, CodeShape
from dwf.densities.asked import Asked, Guidance, Wanted
from dwf.densities.base_config import DensitySettings
from dwf.errors import ConfigError
from dwf.plain import Json
from dwf.run_folder import RunFolder

Setting = str | int | float | Sequence[str]
"""Value of what `sample` may be told beside how many: of a condition, or of a solver's setting."""


class Density:
    """Base of the densities.

    Args:
        config: its settings.
    """

    files: ClassVar[tuple[str, ...]]
    """Files that `save` writes."""
    shape: CodeShape
    """Shape of the codes it was fitted to."""
    networks: tuple[nn.Module, ...] = ()
    """Networks that a draw evaluates, each time the one after the other."""

    def __init__(self, config: DensitySettings):
        self.config = config

    @property
    def facts(self) -> dict[str, Json]:
        """Plain data that is known of it before it is fitted, for the summary of a fit."""
        return {}

    def fit(self, train_codes: Codes, val_codes: Codes, *, run: RunFolder, seed: int = 0) -> object:
        """Learn from codes, or go on where the run stopped.

        Args:
            train_codes: to learn from.
            val_codes: held-out ones; may be empty.
            run: takes checkpoints and metrics; of this density alone.
            seed: of initialisation, batches and noise.

        One whose settings say `takes_condition` also takes `train_conditions` and
        `val_conditions`, one that `takes_metric` a `metric`, one that `looks_at_samples` a
        `judge`, one with `answers` an `ask`; see `LearntDensity.fit`.

        Returns:
            What was measured: an object whose `vars` are plain data; or None.

        Raises:
            TooFewNetworks: too few training codes.
            ShapeMismatch: the codes are not of one shape.
            ConfigError: these codes are not for this density.
        """
        raise NotImplementedError

    def sample(self, count: int, seed: int, *, first: int = 0) -> Codes:
        """Draw codes; sample i of a seed is the same whatever `count`.

        Args:
            count: how many.
            seed: of the draw.
            first: number of the first sample.

        One whose settings say so also takes: `condition` and `guidance` (`takes_condition`),
        `temperature` (`has_temperature`), `autoguidance`, `kind`, the number of the architecture
        (`mixes`), and settings of its `solver`; see `LearntDensity.sample`.

        Returns:
            Codes on the CPU, in the shape of the training codes.
        """
        raise NotImplementedError

    def sample_tokens(
        self, tokens_S: torch.Tensor, count: int, *, seed: int, first: int = 0
    ) -> torch.Tensor:
        """Draw sequences of tokens, each drawn by itself; of one whose settings say `draws_tokens`.

        Args:
            tokens_S: number of each token in the codes that it was fitted to, int64; any may stand
                there more than once.
            count: how many sequences.
            seed: of the draw.
            first: number of the first sample; sample i of a seed is the same whatever `count`.

        Returns:
            values_NSC, float32, on the CPU.
        """
        raise NotImplementedError

    def log_prob(self, codes: Codes, *, seed: int = 0, probes: int = 8) -> torch.Tensor:
        """Return the log density of codes in nats, shape [N].

        Args:
            codes: in the shape of the training codes.
            seed: of the random signs of an estimate; without effect where it is exact.
            probes: random signs that an estimate is the mean of.

        Raises:
            ShapeMismatch: the codes are not of the shape of the training codes.
            ConfigError: its settings say that it has no likelihood.
        """
        raise NotImplementedError

    def ask(self, condition: Wanted, guidance: Guidance = 1.0) -> Asked | None:
        """Return what samples are asked for, refusing what was not learnt; None: nothing.

        Args:
            condition: values of conditions; None: none.
            guidance: how strongly they count; 1: as learnt.

        Raises:
            ConfigError: so it is.
        """
        if condition is not None or guidance != 1:
            raise ConfigError(
                f"condition = {condition}, guidance = {guidance}: this {self.config.kind} was "
                "fitted with density.condition = none and knows no conditions: leave both out, or "
                "fit one with density.condition = val_accuracy"
            )
        return None

    def with_anchors(self, codes: Codes) -> "Density":
        """Return one around other codes; of one whose settings say `has_anchors`.

        Raises:
            ConfigError: it has none.
            ShapeMismatch: the codes are not of the shape of the training codes.
        """
        raise ConfigError(f"the density {self.config.words} has no anchors to replace")

    def save(self, folder: Path) -> None:
        """Write the fitted density to a folder; `load` reads it."""
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> "Density":
        """Read what `save` wrote.

        Raises:
            CorruptCheckpoint: a file is damaged.
        """
        raise NotImplementedError
