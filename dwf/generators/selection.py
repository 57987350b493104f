"""Selection: draw many networks, keep those that do best on validation images.

`subsample` draws once. `bootstrap` draws in rounds: the codes of a round's best networks are the
anchors of the next round's density. Test images are never read. What is not kept is not stored:
memory is one block of networks, and the kept ones lie on disk until the zoo is written.

Source: Schuerholt et al., SANE, ICML 2024 (arXiv 2406.09997), tables 3 and 4.

Shape suffixes: S networks kept, B networks of a block, D numbers of a network.
"""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dwf import preemption
from dwf.codecs.codes import gather
from dwf.densities.density import Setting
from dwf.errors import ConfigError
from dwf.generators.config import SampleConfig
from dwf.generators.examiner import Examiner
from dwf.generators.generator import Generator
from dwf.generators.unusable import Unusable
from dwf.metrics import Progress
from dwf.plain import Json

Key = tuple[float, float, int]
"""Key that orders networks: accuracy (negated), then loss, then the number of the draw."""


_ANCHORS = "anchors.npy"


class Best:
    """The best networks so far, on disk in a file without a name.

    Args:
        count: S, how many.
        num_weights: D.
        folder: on whose disk.
    """

    def __init__(self, count: int, num_weights: int, *, folder: Path):
        self.keys: list[Key] = []
        self.count, self._num_weights = count, num_weights
        # Written, not mapped: a full disk is then an error and no bus fault.
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  held for its life

    def offer(self, key: Key, weights_D: np.ndarray) -> None:
        """Take a network, in the place of the worst if there are enough."""
        if len(self.keys) < self.count:
            place = len(self.keys)
            self.keys.append(key)
        else:
            place = max(range(self.count), key=self.keys.__getitem__)
            if key >= self.keys[place]:
                return
            self.keys[place] = key
        self._file.seek(4 * self._num_weights * place)
        self._file.write(np.ascontiguousarray(weights_D, "<f4").tobytes())

    def ordered(self) -> list[int]:
        """Return the places of the networks, the best first."""
        return sorted(range(len(self.keys)), key=self.keys.__getitem__)

    def read(self, places: list[int]) -> torch.Tensor:
        """Return weights_BD at some places."""
        self._file.flush()
        weights_BD = np.empty((len(places), self._num_weights), np.float32)
        for row_D, place in zip(weights_BD, places, strict=True):
            self._file.seek(4 * self._num_weights * place)
            self._file.readinto(row_D.data.cast("B"))
        return torch.from_numpy(weights_BD)


@dataclass(frozen=True)
class Selected:
    """The networks kept, in order of their score, and what was seen of all that were drawn."""

    best: Best
    facts: dict[str, Json]
    """Plain data: `kind`, `drawn`, `kept`, `drawn_per_kept`, `rounds`, `unusable` (not finite, or
    with variances below zero), `val_accuracy_drawn` (mean of each round), `val_accuracy_kept`."""

    def blocks(self, size: int) -> Iterator[tuple[list[Key], torch.Tensor]]:
        """Yield (keys, weights_BD) of the networks, the best first, `size` at a time."""
        order = self.best.ordered()
        for start in range(0, len(order), size):
            places = order[start : start + size]
            yield [self.best.keys[place] for place in places], self.best.read(places)


def select(
    generator: Generator,
    config: SampleConfig,
    *,
    how: dict[str, Setting],
    unusable: Unusable,
    folder: Path,
) -> Selected:
    """Draw networks and keep the best `config.count`.

    Draws are numbered through all rounds; a draw depends on the seed, its number and, after the
    first round, on the anchors. The same settings keep the same networks. A selection that
    was interrupted begins anew.

    Args:
        generator: draws.
        config: selection, count and seed.
        how: settings of the density's solver other than its own, and what it is asked for.
        unusable: tells and counts the draws that cannot be kept.
        folder: on whose disk the kept networks lie meanwhile.

    Raises:
        ConfigError: no validation images; or bootstrap, and the density has no anchors.
        WorkFailed: too few of the draws can be used.
    """
    chosen, rounds = config.selection, config.selection.rounds
    size = config.drawn // rounds
    if chosen.anchors:
        _refuse_without_anchors(generator, config)
    examiner = Examiner(
        generator.subject,
        generator.layout,
        batchnorm_images=config.batchnorm_images,
        wanted_by=f"selection.kind = {chosen.kind!r} chooses by",
    )
    num_weights = generator.layout.size
    means, drawing = [], generator
    with Progress(f"select from {config.generator}", config.drawn, unit="networks") as progress:
        for number in range(rounds):
            is_last = number == rounds - 1
            best = Best(config.count if is_last else chosen.anchors, num_weights, folder=folder)
            stream = drawing.stream(size, config.seed, first=number * size, **how)
            means.append(_draw_round(stream, best, examiner, unusable, progress))
            unusable.refuse_fewer(len(best.keys), best.count, drawn=size)
            if not is_last:
                drawing = _around(drawing, best, folder)
    kept = float(np.mean([-key[0] for key in best.keys]))
    facts = {
        "kind": chosen.kind,
        "drawn": config.drawn,
        "kept": config.count,
        "drawn_per_kept": config.drawn // config.count,
        "rounds": rounds,
        "unusable": unusable.count,
        "val_accuracy_drawn": means,
        "val_accuracy_kept": kept,
    }
    return Selected(best, facts)


def _refuse_without_anchors(generator: Generator, config: SampleConfig) -> None:
    density = generator.density.config
    if not density.has_anchors:
        raise ConfigError(
            f"selection.kind = {config.selection.kind!r}: the density of {config.generator} is "
            f"{density.words}, which has no anchors: "
            "choose subsample, or a generator with density.kind kde and mode token, joint or "
            "individual"
        )


def _draw_round(
    stream: Iterator[tuple[int, torch.Tensor]],
    best: Best,
    examiner: Examiner,
    unusable: Unusable,
    progress: Progress,
) -> float:
    """Offer every usable network; return the mean validation accuracy of these."""
    total, num = 0.0, 0
    for first, weights_BD in stream:
        usable_B = ~unusable.find(first, weights_BD)
        numbers = first + np.flatnonzero(usable_B)
        if len(numbers):
            kept_BD = weights_BD[torch.from_numpy(usable_B)]
            accuracy_B, loss_B = examiner.score(kept_BD)
            loss_B = np.where(np.isfinite(loss_B), loss_B, np.inf)
            total, num = total + accuracy_B.sum(), num + len(numbers)
            keys = zip((-accuracy_B).tolist(), loss_B.tolist(), numbers.tolist(), strict=True)
            for key, weights_D in zip(keys, kept_BD.numpy(), strict=True):
                best.offer(key, weights_D)
        progress.update(progress.done + len(weights_BD))
        if preemption.is_asked():
            preemption.stop()
    return float(total / num) if num else math.nan


def _around(generator: Generator, best: Best, folder: Path) -> Generator:
    """Return a generator whose density has the best networks' codes as anchors.

    Networks are coded block by block, and many codes lie in a file that goes when it is used no
    more.
    """
    order, size, file = best.ordered(), generator.block_size, folder / _ANCHORS
    codes = gather(
        (
            generator.codec.encode(best.read(order[start : start + size]), generator.layout)
            for start in range(0, len(order), size)
        ),
        len(order),
        file=file,
    )
    file.unlink(missing_ok=True)  # what is mapped stays good
    return Generator(
        generator.codec, generator.density.with_anchors(codes), origin=generator.origin
    )
