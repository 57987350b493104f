"""Judgements of a report on the networks that are exported."""

from dwf.errors import ConfigError
from dwf.evaluation.report import NetworkSet, Report
from dwf.files import read_json
from dwf.zoo.store import Zoo


def judged(report: str, zoo: Zoo) -> NetworkSet:
    """Return what a report beside a zoo says of its networks, which are samples there.

    Raises:
        ConfigError: there is no such report, or it is not on these networks as they are now.
    """
    folder = zoo.path.parent.parent / "reports" / report
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
