"""Points between noise and codes, and the regression of what a network is to say at them.

Flow matching and diffusion share this: random batches, conditions that are left out, architectures
with numbers of their own, errors in a metric, and a validation with the same noise each time.

Source of leaving out conditions: Ho and Salimans, arXiv 2207.12598, algorithm 1.

Shape suffixes: B codes of a batch, C numbers of a token, or conditions, K numbers of a code, P
numbers of all conditions.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import mse_loss

from dwf.backbones.shape import Shape
from dwf.codecs.codes import tokens_of
from dwf.densities.base_config import LearntSettings
from dwf.densities.examples import ALL, Examples, Learnable
from dwf.densities.pairing import PairedSections
from dwf.randomness import torch_stream
from dwf.training.task import Share, Task

_VALIDATION_DRAWS = 512
_VALIDATION_NUMBERS = 2**24


@dataclass(frozen=True)
class Paths:
    """Points on the paths of a batch, and what the network is to say there."""

    xt_BK: torch.Tensor
    """Points, float32."""
    t_B: torch.Tensor
    """Their times in [0, 1]."""
    wanted_BK: torch.Tensor
    """Answers that `prediction` names."""
    condition_BP: torch.Tensor | None
    """Standardised conditions, NaN for none; None where the density is told nothing."""
    present_BK: torch.Tensor | None
    """bool, of several architectures: numbers that each code has."""
    moves_BK: torch.Tensor | None = None
    """bool: numbers that are asked about; None: all. See `course`."""
    places_M: torch.Tensor | None = None
    """Places in [0, 1) of training images that networks are asked about, the same for all; None:
    they are not. See `answers`."""

    def take(self, part: slice) -> "Paths":
        """Return those of some places, as views."""
        return Paths(
            xt_BK=self.xt_BK[part],
            t_B=self.t_B[part],
            wanted_BK=self.wanted_BK[part],
            condition_BP=None if self.condition_BP is None else self.condition_BP[part],
            present_BK=None if self.present_BK is None else self.present_BK[part],
            moves_BK=None if self.moves_BK is None else self.moves_BK[part],
            places_M=self.places_M,
        )


class PathTask(Task):
    """Base of the tasks of regressing something at random points; a kind gives `draw_paths`.

    Args:
        config: settings of the density.
        module: the backbone.
        train: training codes.
        val: held-out codes; may be empty.
        seed: of noise that is drawn once, and of validation.
        sections: of sequences, for `metric` and for pairings.
        metric: of each section, what the errors of a token count, [C, C]; of `behaviour`.
    """

    draws_whole_rounds = True

    def __init__(
        self,
        config: LearntSettings,
        module: nn.Module,
        *,
        train: Learnable,
        val: Learnable,
        seed: int,
        sections: PairedSections = (),
        metric: Sequence[torch.Tensor] = (),
    ):
        self.config, self.module, self.seed = config, module, seed
        self.metric = metric
        self.train, self.val, self.sections = train, val, sections
        self.share = Share()
        self.early_share = config.autoguidance and config.autoguidance.after

    def draw_paths(
        self,
        batch: Examples,
        generator: torch.Generator,
        *,
        learns: bool = False,
        read: slice = ALL,
    ) -> Paths:
        """Return random points of a batch.

        Args:
            batch: codes.
            generator: the only source of chance.
            learns: whether it is for learning: then conditions are left out of a share.
            read: places in the batch whose points are needed; those of the others may be any.
        """
        raise NotImplementedError

    def start(self, step: int, share: Share) -> None:
        """Take note of which examples of a batch are this rank's; see `Task.start`."""
        self.share = share

    def loss(
        self, module: nn.Module, batch_size: int, *, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the mean squared error over a random batch.

        Noise may be paired with codes over the batch of all ranks, so each draws all of it.
        """
        rows_B = self.draw_rows(batch_size * self.share.world, generator)
        mine = self.share.of_round(batch_size)
        begun = time.perf_counter()
        read = ALL if self.pairs_batches else mine
        batch = self.train.take(rows_B, read)
        self.seconds_waited += time.perf_counter() - begun
        paths = self.draw_paths(batch, generator, learns=True, read=read)
        return self._error(module, paths, mine)

    @property
    def pairs_batches(self) -> bool:
        """Whether a point on a path depends on the codes of a batch's other points."""
        return False

    def validate(self, module: nn.Module) -> float | None:
        """Return the error over held-out codes, at the same noise and times each call."""
        if not len(self.val):
            return None
        device = self.val.device
        generator = torch_stream(self.seed, "validation", device=device.type)
        repeats = -(-_VALIDATION_DRAWS // len(self.val))
        rows = torch.arange(len(self.val), device=device).repeat(repeats)
        total = torch.zeros((), dtype=torch.float64, device=device)
        for rows_B in rows.split(self.validation_rows()):
            paths = self.draw_paths(self.val.take(rows_B), generator)
            total += self._error(module, paths) * len(rows_B)
        return total.item() / len(rows)

    def validation_rows(self) -> int:
        """Return how many held-out codes are looked at at once."""
        sections = tuple((count, size) for count, size, _ in self.sections)
        shape = Shape(self.val.size, sections or None)
        return max(1, _VALIDATION_NUMBERS // self.config.backbone.widest(shape))

    def draw_rows(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return the places of random training codes, int64, [count]."""
        device = self.train.device
        return torch.randint(len(self.train), (count,), generator=generator, device=device)

    def draw_conditions(
        self, batch: Examples, generator: torch.Generator, *, learns: bool
    ) -> torch.Tensor | None:
        """Return what the network is told of a batch, condition_BP; None: nothing."""
        if batch.condition_NP is None:
            return None
        share = self.config.drop_condition if learns else 0.0
        return forget(batch.condition_NP, share, generator=generator, sizes=batch.sizes)

    def _error(self, module: nn.Module, paths: Paths, part: slice = ALL) -> torch.Tensor:
        """Return the mean squared error over a part of the paths; parts' mean is that of all."""
        mine, told = paths.take(part), {}
        if mine.condition_BP is not None:
            told["condition_BP"] = mine.condition_BP
        count = mine.wanted_BK.numel()
        if mine.present_BK is not None:
            # The share of all numbers that count, not of these: parts have more of them or fewer.
            count = paths.present_BK.sum() * (len(mine.t_B) / len(paths.t_B))
            told["present_BK"] = mine.present_BK
        return self.error(module(mine.xt_BK, mine.t_B, **told), mine, count=count)

    def error(
        self, said_BK: torch.Tensor, paths: Paths, *, count: int | torch.Tensor
    ) -> torch.Tensor:
        """Return the squared error of answers, over `count` numbers, a scalar.

        Args:
            said_BK: what the network answers.
            paths: where.
            count: numbers that count.
        """
        wanted_BK, behaviour = paths.wanted_BK, self.config.behaviour
        if paths.present_BK is None:
            plain = mse_loss(said_BK, wanted_BK)
        else:
            wanted_BK = wanted_BK * paths.present_BK
            plain = mse_loss(said_BK, wanted_BK, reduction="sum") / count
        if not behaviour:
            return plain
        return torch.lerp(plain, self._weighed(said_BK - wanted_BK) / count, behaviour)

    def _weighed(self, error_BK: torch.Tensor) -> torch.Tensor:
        """Return the sum of squared errors of all tokens, in the metric of their layer; float32."""
        squares = []
        # Autocast would round the metric, and errors, to bf16.
        with torch.autocast(error_BK.device.type, enabled=False):
            layers = tokens_of(error_BK.float(), self.sections)
            for layer_BUC, metric_CC in zip(layers, self.metric, strict=True):
                tokens = layer_BUC.flatten(0, 1)
                squares.append((tokens * (tokens @ metric_CC)).sum())
        return sum(squares)


def forget(
    condition_BP: torch.Tensor,
    share: float,
    *,
    generator: torch.Generator,
    sizes: Sequence[int] = (1,),
) -> torch.Tensor:
    """Return conditions of which a random share is NaN, for none.

    A share of the codes loses all conditions. With several conditions, each of the other codes also
    loses each condition by itself with that share, so that the network learns every selection.

    Args:
        condition_BP: conditions.
        share: which.
        generator: source of chance.
        sizes: numbers of each condition.
    """
    if not share:
        return condition_BP
    chance = {"generator": generator, "device": condition_BP.device}
    lost_B1 = torch.rand(len(condition_BP), **chance).unsqueeze(1) < share
    if len(sizes) < 2:
        return condition_BP.masked_fill(lost_B1, math.nan)
    lost_BC = torch.rand(len(condition_BP), len(sizes), **chance) < share
    each_P = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(lost_BC.device)
    return condition_BP.masked_fill(lost_B1 | lost_BC[:, each_P], math.nan)


def draw_source(like_BK: torch.Tensor, std: float, *, generator: torch.Generator) -> torch.Tensor:
    """Return Gaussian noise of a standard deviation, in the shape and place of `like_BK`."""
    return torch.empty_like(like_BK).normal_(0, std, generator=generator)
