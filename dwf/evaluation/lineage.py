"""Where a report's networks come from: the commands that make all of it anew, and the folders."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from dwf.errors import DwfError
from dwf.evaluation.report import INDEX
from dwf.flags import making_again
from dwf.names import why_no_name
from dwf.settings import read_yaml
from dwf.zoo.facts import Facts


def commands_of(root: Path, name: str, *, zoo: str, samples: Sequence[str]) -> list[str]:
    """Return the commands that make a report's zoos, generators, samples, and the report.

    Each takes the settings that its stage recorded. What was made elsewhere has no command.

    Args:
        root: folder that holds zoos/, runs/ and reports/; the commands are run in it.
        name: of the report.
        zoo: what samples are held against.
        samples: names of the zoos of samples, and files.
    """
    found: dict[str, None] = {}
    for each in (zoo, *samples):
        found |= dict.fromkeys(_of_zoo(Path(root), each))
    return [*found, making_again("evaluate", Path(root) / "reports" / name, parent="reports")]


def links_of(root: Path, *, zoo: str, samples: Sequence[str]) -> list[tuple[str, Path]]:
    """Return words for a report's page, and the folders that they lead to: what it is about."""
    root = Path(root)
    found = {"all reports": root / INDEX, f"zoo {zoo}": root / "zoos" / zoo}
    for each in samples:
        if not (root / "zoos" / each / "zoo.json").exists():
            continue
        found[f"samples {each}"] = root / "zoos" / each
        generator = _drawn_by(root, each)
        if generator:
            found[f"generator {generator}"] = root / "runs" / generator
    return list(found.items())


def _of_zoo(root: Path, name: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the commands that make a zoo, from the first on; a zoo made of itself has none."""
    folder = root / "zoos" / name
    if name in above or why_no_name(name):  # a path is of networks' files
        return
    above = (*above, name)
    if not (folder / "run" / "config.yaml").exists():
        return
    facts = _facts(folder)
    if facts is None or facts.provenance is None or not facts.provenance.command:
        return
    if facts.sampled and (root / "runs" / facts.sampled.generator / "config.yaml").exists():
        yield from _of_generator(root, facts.sampled.generator, above)
    if facts.aligned:
        yield from _of_zoo(root, facts.aligned.aligned_from, above)
    yield making_again(facts.provenance.command, folder, parent="zoos", records="run")


def _of_generator(root: Path, name: str, above: tuple[str, ...]) -> Iterator[str]:
    folder = root / "runs" / name
    settings = read_yaml(folder / "config.yaml")
    for key in ("zoo", "more_zoos", "codec_zoos"):
        # Not built: a generator may be of kinds that are registered in its own script alone.
        named = settings.get(key)
        for zoo in named if isinstance(named, list) else [named]:
            if isinstance(zoo, str):
                yield from _of_zoo(root, zoo, above)
    yield making_again("generator", folder, parent="runs")


def _drawn_by(root: Path, samples: str) -> str | None:
    facts = _facts(root / "zoos" / samples)
    drawn = facts.sampled if facts else None
    known = drawn and (root / "runs" / drawn.generator).exists()
    return drawn.generator if known else None


def _facts(folder: Path) -> Facts | None:
    try:
        return Facts.read(folder)
    except DwfError:
        return None
