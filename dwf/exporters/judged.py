"""Judgements of a report on the networks that are exported."""

from dwf.errors import ConfigError
from dwf.evaluation.report import NetworkSet, Report
from dwf.files import read_json
from dwf.flags import name_and_root
from dwf.metrics import logger
from dwf.names import folders_in
from dwf.zoo.store import Zoo


def newest_on(zoo: Zoo) -> str:
    """Return the name of the newest report on a zoo's networks, which has their accuracies.

    Raises:
        ConfigError: there is none.
    """
    reports = name_and_root(zoo.path, "zoos")[1] / "reports"
    files = {str(one.relative_to(reports)): one / "done.json" for one in folders_in(reports)}
    done = {name: file for name, file in files.items() if file.exists()}
    told = {name: read_json(file) for name, file in done.items()}
    own = (zoo.name, zoo.fingerprint)
    on_it = [name for name, one in told.items() if own in one.get("fingerprints", {}).items()]
    if not on_it:
        there = f"; reports there: {', '.join(done)}" if done else ""
        raise ConfigError(
            f"best: {zoo.path} has no accuracies on validation images, and no report in {reports} "
            f"is on it as it is now{there}. Make one with dwf evaluate --samples {zoo.name}"
        )
    newest = max(on_it, key=lambda name: done[name].stat().st_mtime_ns)
    logger.info("the best are those of report %s (%s)", newest, ", ".join(on_it))
    return newest


def judged(report: str, zoo: Zoo) -> NetworkSet:
    """Return what a report beside a zoo says of its networks, which are samples there.

    Raises:
        ConfigError: there is no such report, or it is not on these networks as they are now.
    """
    folder = name_and_root(zoo.path, "zoos")[1] / "reports" / report
    if not (folder / "done.json").exists():
        raise ConfigError(
            f"report = {report!r}: {folder} holds no finished report: make it with dwf evaluate"
        )
    fingerprints = read_json(folder / "done.json", keys=("fingerprints",))["fingerprints"]
    samples = Report.load(folder).of("samples")
    for one in samples:
        if one.source == zoo.name and fingerprints.get(zoo.name) == zoo.fingerprint:
            return one
    names = ", ".join(one.source for one in samples) or "no samples"
    raise ConfigError(
        f"report = {report!r}: it is on {names}, not on {zoo.name} as it is now: evaluate that "
        f"with dwf evaluate --samples {zoo.name}"
    )
