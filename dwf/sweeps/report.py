"""Report of a sweep: one table of all trials, the best one's settings, a figure.

sweeps/NAME/table.csv, table.json   a row for each trial: `val_...` columns are what the best is
                                    chosen by; `test_...` columns chose nothing
sweeps/NAME/sweep.html              all of it on one page, see `page`
sweeps/NAME/trials.png              the chosen metric and test accuracy over the space
sweeps/NAME/curves.png, curves.md   of a grid over numbers: good and novel samples along each,
                                    beside baselines and held-out networks
sweeps/NAME/best/STAGE.yaml         the best trial's settings, for `--config`
sweeps/NAME/reports/test-...        the report on test images, one for each frame of weights; of a
                                    sweep that was widened, those of before, too
"""

import csv
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from dwf.files import read_json, told_by
from dwf.flags import name_and_root, words_naming
from dwf.metrics import cell_of
from dwf.plain import Json
from dwf.run_folder import write_json, write_text
from dwf.settings import to_dict
from dwf.sweeps.config import SweepConfig, in_yaml
from dwf.sweeps.trial import summarise
from dwf.sweeps.trials import Trial, name_of, report_config

if TYPE_CHECKING:
    from rich.table import Table

if TYPE_CHECKING:
    from dwf.evaluation.report import NetworkSet

Row = dict[str, Json]


@dataclass(frozen=True)
class SweepReport:
    """All trials of a sweep."""

    name: str
    metric: str
    """Metric that chose the best trial, on validation networks and images."""
    axes: tuple[str, ...]
    """The settings that were tried."""
    best: int | None
    """Number of the best trial; None where none was finished."""
    rows: tuple[Row, ...]
    """One for each trial, in order; a trial that was stopped or failed has no samples."""
    reports: tuple[str, ...]
    """The reports on test images."""
    logarithmic: tuple[str, ...] = ()
    """The axes whose space is logarithmic."""
    references: dict[str, tuple[Row, ...]] = field(default_factory=dict)
    """Report -> what it says of held-out networks and baselines: `title`, `family`, `mark`, the
    numbers of `trial.summarise`, and `subset`, which training networks a baseline is made of, where
    these are not all."""

    @property
    def chosen(self) -> str:
        """The column of the metric."""
        return column_of(self.metric)

    @property
    def tried(self) -> list[str]:
        """The axes that differ between trials."""
        return [axis for axis in self.axes if len({str(row[axis]) for row in self.rows}) > 1]

    def save(self, folder: Path) -> None:
        """Write `table.json` and `table.csv`."""
        text = io.StringIO()
        columns = list(dict.fromkeys(column for row in self.rows for column in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(folder / "table.csv", text.getvalue())
        write_json(folder / "table.json", vars(self))

    @classmethod
    def load(cls, folder: Path) -> "SweepReport":
        """Return what `save` wrote."""
        file = folder / "table.json"
        content = read_json(file)
        with told_by(file):
            for name in ("axes", "rows", "reports", "logarithmic"):
                content[name] = tuple(content[name])
            references = content.pop("references", {})
            return cls(**content, references={name: tuple(r) for name, r in references.items()})

    def table(self) -> "Table":
        """Return the table for a terminal; the best trial stands out."""
        from rich.box import SIMPLE
        from rich.table import Table

        tried = self.tried
        scores = ("accuracy (%)", "good and\nnovel", "distance")
        heading = [f"{split}\n{score}" for split in ("val", "test") for score in scores]
        title = f"sweep {self.name}: best by {self.metric}; nothing is chosen by test columns"
        table = Table(title=cell_of(title), box=SIMPLE, padding=(0, 1))
        for column in ("trial", *short_names(tried).values(), *heading, "seconds"):
            table.add_column(cell_of(column), justify="right", no_wrap=True)
        for row in self.rows:
            point = [in_short(row.get(axis)) for axis in tried]
            cells = [str(row["trial"]), *point, *_scores(row, "val"), *_scores(row, "test")]
            style = "bold" if row["trial"] == self.best else None
            table.add_row(*map(cell_of, cells), f"{row['seconds']:.1f}", style=style)
        return table


def column_of(metric: str) -> str:
    """The table's column of a metric that a trial can be judged by."""
    return metric if metric.startswith("val_") else f"val_{metric}"


def in_short(value: Json) -> str:
    """A value of an axis in few letters: of a settings file, its stem."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool):
        return in_yaml(value)
    return Path(value).stem if str(value).endswith((".yaml", ".yml")) else str(value)


def short_names(axes: Sequence[str]) -> dict[str, str]:
    """Return each axis by its last word, where no other ends in it."""
    last = [axis.rpartition(".")[2] for axis in axes]
    return {a: word if last.count(word) == 1 else a for a, word in zip(axes, last, strict=True)}


def write_report(
    config: SweepConfig,
    name: str,
    *,
    folder: Path,
    finished: list[Trial],
    records: dict[int, dict[str, Json]],
) -> SweepReport:
    """Score all finished trials on test images, and write table and best settings.

    Args:
        config: the sweep.
        name: its name.
        folder: its folder.
        finished: its finished trials.
        records: of all trials that are over.
    """
    tested, references = _test(finished, folder)
    rows = tuple(_row(records[number], tested.get(number, {})) for number in sorted(records))
    report = SweepReport(
        name=name,
        metric=config.metric,
        axes=tuple(config.axes),
        best=_best(config, records),
        rows=rows,
        reports=tuple(references),
        logarithmic=tuple(a for a, space in config.space.items() if space.is_logarithmic),
        references=references,
    )
    report.save(folder)
    for trial in finished:
        if trial.number == report.best:
            score = records[trial.number]["metrics"][config.metric]
            _write_best(trial, report, folder / "best", score)
    return report


def _best(config: SweepConfig, records: dict[int, dict[str, Json]]) -> int | None:
    """The number of the best trial by the metric; of equal ones the first."""
    scores = {n: one.get("metrics", {}).get(config.metric) for n, one in records.items()}
    scores = {number: score for number, score in scores.items() if score is not None}
    return max(scores, key=lambda n: (config.sign * scores[n], -n), default=None)


def _test(finished: list[Trial], folder: Path) -> tuple[dict[int, Row], dict[str, tuple[Row, ...]]]:
    """Report on test images: trials of one frame in one report, none left out.

    Returns:
        What is said of each trial, and `SweepReport.references`.
    """
    from dwf.evaluation.stage import evaluate

    of_frames: dict[str, list[Trial]] = {}
    for trial in finished:
        of_frames.setdefault(name_of("frame", trial.report), []).append(trial)
    rows: dict[int, Row] = {}
    references = {}
    for trials in of_frames.values():
        config = report_config(trials)
        name = name_of("test", config)  # of these samples: a sweep that is widened has more
        config = replace(config, label=tuple(f"trial {trial.number}" for trial in trials))
        report = evaluate(config, folder, name=name)
        generated = {one.source: one for one in report.of("samples")}
        (originals,) = report.of("originals")
        for trial in trials:
            numbers = _summarise(generated[trial.samples_name])
            rows[trial.number] = {
                key if key.startswith("test_") else f"test_{key}": value
                for key, value in numbers.items()
                if key != "n"
            } | {"train_networks": originals.n, "report": name}
        references[name] = tuple(
            {"title": one.bare_title, "family": one.family} | _summarise(one)
            for one in report.sets
            if one.family not in ("originals", "samples", "nearest")
        )
    return rows, references


def _summarise(one: "NetworkSet") -> Row:
    """Return what the table keeps of a row of a report on test images, with mark and subset."""
    return summarise(one) | {"mark": one.mark} | ({"subset": one.subset} if one.subset else {})


def _row(record: dict[str, Json], tested: Row) -> Row:
    metrics = dict(record.get("metrics", {}))
    row = {"trial": record["number"], "state": record["state"]} | record["point"]
    row |= {"n": metrics.pop("n", None)}
    row |= {column_of(name): value for name, value in metrics.items()} | tested
    if "stopped" in record:
        row |= {"stopped_at_step": record["stopped"]["step"]}
        row |= {"val_loss": record["stopped"]["val_loss"]}
    names = record.get("names", {})  # `generator` alone may be an axis
    row |= {f"{stage}_name": names.get(stage) for stage in ("generator", "samples")}
    row |= {"seconds": record["seconds"]["trial"]}
    return row | ({"reason": record["reason"]} if "reason" in record else {})


def _write_best(trial: Trial, report: SweepReport, folder: Path, score: float) -> None:
    """Write the best trial's settings, linked by names of the user's own."""
    name = f"{report.name}-best"
    frame = f"{name}-aligned" if trial.align is not None else name
    point = ", ".join(f"{key} = {value}" for key, value in trial.point.items())
    why = (
        f"# Best of {len(report.rows)} trials of sweep {report.name} by {report.metric} on "
        f"validation images ({score:.6g}):\n# trial {trial.number}, {point}\n"
    )
    samples = f"{name}-samples"
    root = name_and_root(folder, "sweeps")[1]

    def naming(parent: str, made: str) -> str:
        return words_naming(root / parent / made, parent)

    stages = {
        "zoo": (trial.zoo, {}, naming("zoos", name)),
        "align": (trial.align, {"zoo": name}, naming("zoos", frame)),
        "generator": (trial.generator, {"zoo": frame}, naming("runs", name)),
        "sample": (trial.sample, {"generator": name}, naming("zoos", samples)),
        "evaluate": (trial.report, {"zoo": frame, "samples": [samples]}, naming("reports", name)),
    }
    for stage, (settings, links, flags) in stages.items():
        file = folder / f"{stage}.yaml"
        if settings is None:
            file.unlink(missing_ok=True)
            continue
        command = f"# dwf {stage} --config {shlex.quote(str(file))} {flags}\n"
        body = yaml.safe_dump(to_dict(settings) | links, sort_keys=False)
        write_text(file, why + command + body)


def _scores(row: Row, split: str) -> list[str]:
    from dwf.evaluation.report import accuracy_cell, number_cell, share_cell

    mean, std = row.get(f"{split}_accuracy"), row.get(f"{split}_accuracy_std")
    if mean is None:
        return [row["state"] if split == "val" else "-", "-", "-"]
    share, ratio = row[f"{split}_good_and_novel"], row[f"{split}_distance_ratio"]
    return [accuracy_cell({"mean": mean, "std": std}), share_cell(share), number_cell(ratio)]
