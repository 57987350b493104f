"""The report of a fine-tuning: every arm at each recorded epoch, over all its networks.

    finetunes/NAME/report.json   all numbers, of every network; equal runs write equal bytes
    finetunes/NAME/report.md     the tables;  report.html: one page with the figure in it

Test images are in these files alone: steps are counted on validation images.

Shape suffixes: E epochs recorded, L looks, N networks of an arm.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwf.evaluation.measure import CONFIDENCE
from dwf.evaluation.report import markdown_table
from dwf.files import read_json, told_by
from dwf.plain import Json, for_markdown
from dwf.run_folder import write_json, write_text
from dwf.transfer.config import Origin

FILE = "report.json"

WORDS = (
    "All networks of an arm count, those that diverged with an accuracy of 0. +- is their standard "
    "deviation, not the error of the mean.",
    "Network i of every arm sees the same images in the same order, and has the same new head, "
    "where heads are new.",
    "Steps to reach: the first look at validation images at which a network has the accuracy; the "
    "median over all networks, and how many came there.",
    "Ensemble: mean of the logits of the first networks of an arm; soup: one network of the mean "
    "of their weights. Both as many networks for each arm.",
    "Nearest originals: network i is the training network nearest to generated network i. Where "
    "generated networks transfer no better than these, or than averages and noise, the generator "
    "has added nothing for this task.",
)


@dataclass(frozen=True)
class ArmResult:
    """Outcome of the networks of an arm; accuracies are float64, from 0 to 1."""

    family: Origin
    title: str
    train_EN: np.ndarray
    val_EN: np.ndarray
    test_EN: np.ndarray
    looks_LN: np.ndarray
    """Accuracies on validation images at each look."""
    diverged_N: np.ndarray
    """The step at which each diverged, or -1."""
    ensemble_E: tuple[float, ...] = ()
    """Test accuracy of the ensemble of the first `members`; empty where there are not so many."""
    soup_E: tuple[float, ...] = ()
    """Test accuracy of their soup."""

    @property
    def n(self) -> int:
        """N: how many networks there are."""
        return self.test_EN.shape[1]

    def steps_to(self, reach: float, steps_L: np.ndarray) -> np.ndarray:
        """Return the step at which each network first has an accuracy, float64_N; or infinity."""
        there_LN = self.looks_LN >= reach
        return np.where(there_LN.any(0), steps_L[there_LN.argmax(0)], np.inf)

    def to_json(self) -> dict[str, Json]:
        """Return plain data; `of_json` is the inverse."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def of_json(cls, told: dict[str, Json]) -> "ArmResult":
        """Return what `to_json` told."""
        arrays = {k: np.array(v) for k, v in told.items() if k.endswith(("_EN", "_LN", "_N"))}
        rest = {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}
        return cls(**(rest | arrays))


@dataclass(frozen=True)
class TransferReport:
    """The outcome of a fine-tuning."""

    name: str
    config: dict[str, Json]
    """Settings."""
    epochs: tuple[int, ...]
    """Epochs recorded."""
    steps: tuple[int, ...]
    """Steps after which validation images were looked at."""
    steps_per_epoch: int
    reach: float | None
    """Validation accuracy that steps are counted to; None where nothing says which."""
    frozen: tuple[str, ...]
    """Parameters that stayed as they were."""
    head: tuple[str, ...]
    """Tensors that began anew."""
    arms: tuple[ArmResult, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The main table's heading."""
        epochs = (f"test accuracy (%), epoch {epoch}" for epoch in self.epochs)
        reach = () if self.reach is None else (f"steps to {100 * self.reach:.2f} % (val)",)
        return ("arm", "n", *epochs, *reach, "diverged")

    @property
    def table(self) -> list[tuple[str, ...]]:
        """The main table's cells."""
        rows = []
        for arm in self.arms:
            accuracies = (_mean_std(test_N) for test_N in arm.test_EN)
            reach = () if self.reach is None else (self._reached(arm),)
            lost = str(int((arm.diverged_N >= 0).sum()))
            rows.append((arm.title, str(arm.n), *accuracies, *reach, lost))
        return rows

    @property
    def together_columns(self) -> tuple[str, ...]:
        """The heading of the table of ensembles and soups."""
        kinds = ("ensemble", "soup")
        return ("arm", *(f"{kind}, epoch {epoch}" for kind in kinds for epoch in self.epochs))

    @property
    def together_table(self) -> list[tuple[str, ...]]:
        """Test accuracies of ensembles and soups (%), of the arms that have enough networks."""
        return [
            (arm.title, *(f"{100 * one:.2f}" for one in (*arm.ensemble_E, *arm.soup_E)))
            for arm in self.arms
            if arm.ensemble_E
        ]

    @property
    def headline(self) -> tuple[str, ...]:
        """Sentences on what the numbers say: each generated arm against each other, paired."""
        generated = [arm for arm in self.arms if arm.family == "generated"]
        others = [arm for arm in self.arms if arm.family != "generated"]
        said = tuple(self._compared(arm, others) for arm in generated if others)
        return said or ("No generated networks were trained: these are the scales for them.",)

    def _compared(self, arm: ArmResult, others: list[ArmResult]) -> str:
        first = next((e for e, epoch in enumerate(self.epochs) if epoch > 0), 0)
        said = []
        for e in sorted({first, len(self.epochs) - 1}):
            words = ", ".join(_difference(arm, other, e) for other in others)
            said.append(
                f"After epoch {self.epochs[e]} {arm.title} have {_mean_std(arm.test_EN[e])} % test "
                f"accuracy (n = {arm.n}); against other arms, in points: {words}."
            )
        return " ".join(said)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what learnt, and from how much."""
        frozen = f"{len(self.frozen)} parameters stayed as they were" if self.frozen else ""
        head = f"new heads: {', '.join(self.head)}" if self.head else "networks kept their heads"
        shots = self.config["images_per_class"]
        images = f"{shots} training images of each class" if shots else "All training images"
        steps = f"{self.steps_per_epoch} steps an epoch"
        return ("; ".join(part for part in (images, steps, head, frozen) if part) + ".",)

    @property
    def markdown(self) -> str:
        """The report without its figure."""
        together = []
        if self.together_table:
            title = f"## Ensembles and soups of {self.config['members']}: test accuracy (%)"
            together = [title, markdown_table(self.together_columns, self.together_table)]
        words = "\n".join(f"- {line}" for line in WORDS)
        parts = [f"# Fine-tuning {self.name}", *self.headline, *self.notes]
        parts += [markdown_table(self.columns, self.table), *together, "## How to read this", words]
        return "\n\n".join(parts) + "\n"

    def to_json(self) -> dict[str, Json]:
        """Return plain data, what `report.json` holds."""
        return vars(self) | {"arms": [arm.to_json() for arm in self.arms]}

    def save(self, folder: Path) -> None:
        """Write `report.json` and `report.md`."""
        write_text(folder / "report.md", for_markdown(self.markdown))
        write_json(folder / FILE, self.to_json())

    @classmethod
    def load(cls, folder: Path) -> "TransferReport":
        """Return the report that a folder holds."""
        told = read_json(folder / FILE)
        with told_by(folder / FILE):
            arms = tuple(ArmResult.of_json(arm) for arm in told.pop("arms"))
            lists = {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}
            return cls(**lists, arms=arms)

    def _reached(self, arm: ArmResult) -> str:
        steps_N = arm.steps_to(self.reach, np.array(self.steps, float))
        median = np.quantile(steps_N, 0.5, method="higher")  # a look's step, or infinity
        words = f"{median:.0f}" if np.isfinite(median) else f"> {self.steps[-1]}"
        return f"{words} ({int(np.isfinite(steps_N).sum())} of {arm.n})"


def _mean_std(accuracy_N: np.ndarray) -> str:
    return f"{100 * accuracy_N.mean():.2f} +- {100 * accuracy_N.std():.2f}"


def _difference(one: ArmResult, other: ArmResult, epoch: int) -> str:
    """Say how far one arm is ahead of another, with the interval of the mean difference.

    Network by network, as far as both have them: what shuffles and heads do falls out of it.
    """
    num = min(one.n, other.n)
    apart_N = 100 * (one.test_EN[epoch, :num] - other.test_EN[epoch, :num])
    if num < 2:
        return f"{other.title} {apart_N.mean():+.2f}"
    error = CONFIDENCE * apart_N.std(ddof=1) / np.sqrt(num)
    return f"{other.title} {apart_N.mean():+.2f} (+- {error:.2f})"
