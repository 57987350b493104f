"""A report as rows of a summary of several pipelines."""

from collections.abc import Iterator
from pathlib import Path

from dwf.evaluation.report import NetworkSet, Report, SeedGroup, seed_groups
from dwf.plain import Json


def rows(root: Path, name: str) -> Iterator[dict[str, Json]]:
    """Yield the rows of a finished report: its sets, then the means over seeds; else none.

    Args:
        root: folder that holds reports/.
        name: of the report.
    """
    folder = root / "reports" / name
    if not (folder / "done.json").exists():
        return
    report = Report.load(folder)
    for one in report.sets:
        yield {"report": name} | _of_set(one)
    for group in seed_groups(report.sets, report.facts):
        yield {"report": name} | _over_seeds(group)


def _of_set(one: NetworkSet) -> dict[str, Json]:
    accuracy = {key: _percent(one.accuracy[key]) for key in ("mean", "std", "median", "max", "min")}
    return {
        "networks": one.label,
        "family": one.family,
        "n": one.n,
        "accuracy (%)": accuracy["mean"],
        "+- (%)": accuracy["std"],
        "median (%)": accuracy["median"],
        "best (%)": accuracy["max"],
        "worst (%)": accuracy["min"],
        "distance": one.figure("distance_ratio"),
        "behaviour": one.figure("behaviour_ratio"),
        "units": one.figure("units_ratio"),
        "overlap": one.figure("overlap"),
        "dispersion": one.figure("dispersion"),
        "good and novel (%)": _percent(one.share),
        "mark": one.mark,
    }


def _over_seeds(group: SeedGroup) -> dict[str, Json]:
    """Return means over seeds, and as `+- (%)` the deviation of the seeds' mean accuracies."""
    measures = {"distance": "distance_ratio", "behaviour": "behaviour_ratio"}
    measures |= {"units": "units_ratio", "overlap": "overlap", "dispersion": "dispersion"}
    means = {name: group.over_seeds(measure) for name, measure in measures.items()}
    mean, std = group.over_seeds(group.sets[0].scored)
    share, _ = group.over_seeds("good_and_novel")
    return {
        "networks": f"{group.title}, mean over {len(group.sets)} seeds",
        "family": "seeds",
        "n": sum(one.n for one in group.sets),
        "accuracy (%)": _percent(mean),
        "+- (%)": _percent(std),
        **{name: found and found[0] for name, found in means.items()},
        "good and novel (%)": _percent(share),
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
