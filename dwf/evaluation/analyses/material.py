"""Material of analyses: a report's numbers, and what its networks answer, scored when asked for.

Shape suffixes: S networks of a set, B of a block, D numbers of one network, M images of the split,
V images on which logits are compared, K classes, F = V K logits of a network.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import softmax

from dwf import preemption
from dwf.evaluation.measure import Rows, Source, Yardstick, behaviour_images
from dwf.evaluation.report import Report
from dwf.metrics import Progress
from dwf.zoo.store import Zoo

_LOGIT_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Scored:
    """A set of networks, and what each of them answers."""

    title: str
    family: str
    """`originals`, `held-out` or `samples`."""
    answers_SM: np.ndarray
    """The class of the largest logit, int16; -1 where logits are not finite."""
    confidence_SM: np.ndarray
    """Softmax of that logit, float32; NaN where logits are not finite."""
    logits_SF: np.ndarray
    """Logits on the compared images, float32."""

    def __len__(self) -> int:
        return len(self.answers_SM)


class Material:
    """Numbers, networks and images that analyses look at.

    Args:
        report: the numbers of all sets.
        yardstick: all training networks, with data and scorer.
        samples: zoos of generated networks, opened.
        root: folder that holds runs/, the generators.
    """

    def __init__(self, report: Report, yardstick: Yardstick, *, samples: Sequence[Zoo], root: Path):
        self.report, self.yardstick, self.samples, self.root = report, yardstick, samples, root
        self.split = yardstick.split
        self.part = yardstick.data.part(self.split)
        self.num_classes = yardstick.data.num_classes

    @cached_property
    def labels_M(self) -> np.ndarray:  # noqa: N802  a shape, not a word
        """Labels of the split's images, int64."""
        return self.part.labels[self.part.index].numpy()

    @cached_property
    def num_compared(self) -> int:
        """V: images on which logits are compared: of validation, where the zoo has any."""
        return len(self._compared_VX)

    @cached_property
    def scored(self) -> tuple[Scored, ...]:
        """All training networks, held-out networks and samples, in the order of the report."""
        total, done, found = sum(len(rows) for *_, rows in self._sets), 0, []
        with Progress(f"answers of {self.yardstick.zoo.name}", total, unit="networks") as progress:
            for title, family, zoo, rows in self._sets:
                parts = []
                for part in self._score(zoo, rows):
                    parts.append(part)
                    done += len(part[0])
                    progress.update(done)
                found.append(Scored(title, family, *map(np.concatenate, zip(*parts, strict=True))))
        return tuple(found)

    def wrong_SM(self, one: Scored) -> np.ndarray:  # noqa: N802
        """Return which of the split's images each network of a set gets wrong, bool."""
        return one.answers_SM != self.labels_M

    def title_of(self, samples: Zoo) -> str:
        """Return what the report calls a zoo of samples."""
        titles = {one.source: one.title for one in self.report.of("samples")}
        return titles.get(samples.name, samples.name)

    @cached_property
    def _sets(self) -> list[tuple[str, str, Zoo, np.ndarray]]:
        """(title, family, zoo, rows) of the sets whose networks lie in zoos."""
        yardstick, report = self.yardstick, self.report
        own = {
            "originals": yardstick.training.rows,
            "held-out": yardstick.zoo.rows(split=self.split, epoch="last"),
        }
        sets = [
            (report.of(family)[0].title, family, yardstick.zoo, rows)
            for family, rows in own.items()
            if report.of(family)
        ]
        return sets + [
            (self.title_of(zoo), "samples", zoo, np.arange(len(zoo))) for zoo in self.samples
        ]

    @cached_property
    def _compared_VX(self) -> torch.Tensor:  # noqa: N802
        count = sum(len(rows) for *_, rows in self._sets)
        return behaviour_images(self.yardstick.data, num_networks=count)

    @cached_property
    def _images(self) -> torch.Tensor:
        """Prepared images of the split, and behind them those on which logits are compared."""
        stored, _ = self.part.batch(torch.arange(len(self.part)))
        return torch.cat([self.yardstick.data.prepare(stored), self._compared_VX])

    def accuracy_of(self, weights_BD: np.ndarray) -> np.ndarray:
        """Return the accuracy of generated networks on the split's images, float64_B."""
        images_MX, source = self._images[: len(self.part)], self.yardstick.batchnorm.score
        logits = self._logits(weights_BD, source, images_MX)
        right = [_answers(logits_BMK)[0] == self.labels_M for logits_BMK in logits]
        return np.concatenate(right).mean(1)

    def _score(self, zoo: Zoo, rows: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield (answers_BM, confidence_BM, logits_BF) of a few networks at a time."""
        yardstick, num = self.yardstick, len(self.part)
        source = "own" if zoo is yardstick.zoo else yardstick.batchnorm.score
        for _, weights_BD in Rows(zoo, rows):
            for logits_BIK in self._logits(weights_BD, source, self._images):
                compared_BF = logits_BIK[:, num:].reshape(len(logits_BIK), -1)
                yield *_answers(logits_BIK[:, :num]), compared_BF

    def _logits(
        self, weights_BD: np.ndarray, source: Source, images_MX: torch.Tensor
    ) -> Iterator[np.ndarray]:
        """Yield logits_BMK of a few networks at a time."""
        step = max(1, _LOGIT_BYTES // (4 * len(images_MX) * self.num_classes))
        for first in range(0, len(weights_BD), step):
            some_BD = weights_BD[first : first + step]
            yield self.yardstick.scorer.logits(some_BD, source, images_MX=images_MX)
            if preemption.is_asked():
                preemption.stop()


def _answers(logits_BMK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return answers_BM and confidence_BM, see `Scored`."""
    given_BMK = torch.from_numpy(logits_BMK)
    finite_BM = given_BMK.isfinite().all(2)
    confidence_BM, answers_BM = softmax(given_BMK, 2).max(2)
    answers_BM = answers_BM.masked_fill(~finite_BM, -1).to(torch.int16)
    return answers_BM.numpy(), confidence_BM.masked_fill(~finite_BM, torch.nan).numpy()
