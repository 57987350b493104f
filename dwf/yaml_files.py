"""Settings files: YAML of one mapping, each perhaps laid over another that it extends.

What their keys mean is said in `dwf.settings`, which alone reads them.
"""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from dwf.errors import ConfigError
from dwf.plain import Json


@dataclass(frozen=True)
class Said:
    """One settings file."""

    file: Path
    data: dict[str, Json]
    """Its settings, without `extends`."""
    lines: dict[str, int]
    """Dotted key, also `key[0]` -> the line that it stands in, the first being 1."""


def read_chain(path: Path) -> list[Said]:
    """Return a file and those that it extends, each extending the next."""
    chain: list[Said] = []
    by = ""
    while True:
        said = _read_mapping(path, by)
        base = said.data.pop("extends", None)
        chain.append(said)
        if base is None:
            return chain
        if not isinstance(base, str):
            raise ConfigError(f"{path}: extends = {base!r}: expected the name of one file")
        base = Path(base).expanduser()
        by, path = f", which {path} extends", Path(os.path.normpath(path.parent / base))
        circle = [said.file for said in chain]
        if path in circle:
            names = " -> ".join(map(str, (*circle[circle.index(path) :], path)))
            raise ConfigError(f"files extend each other: {names}: remove one `extends`")


def laid_over(base: dict[str, Json], data: dict[str, Json]) -> dict[str, Json]:
    """Return the settings of one file over those of the file that it extends."""
    merged = dict(base)
    for key, value in data.items():
        old = base.get(key)
        are_parts = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = laid_over(old, value) if are_parts and _may_mix(old, value) else value
    return merged


def _may_mix(one: dict[str, Json], other: dict[str, Json]) -> bool:
    """Whether two parts are of one kind, as far as both say theirs."""
    return "kind" not in one or "kind" not in other or one["kind"] == other["kind"]


def _read_mapping(path: Path, by: str) -> Said:
    if not path.is_file():
        siblings = [str(p) for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise ConfigError(f"{path}{by}: no such file{nearest(str(path), siblings)}")
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        lines, twice = _places(node)
        data = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if twice:
        raise ConfigError("\n".join(f"{path}:{line}: {key} twice" for key, line in twice))
    if data is None:
        return Said(path, {}, {})
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected settings as `key: value`, found {data!r}")
    return Said(path, data, lines)


def _places(node: yaml.Node | None) -> tuple[dict[str, int], list[tuple[str, int]]]:
    """Return the line of each dotted key, and the keys that are given twice, with their lines.

    YAML would silently take the last of two.
    """
    lines: dict[str, int] = {}
    twice: list[tuple[str, int]] = []
    todo, seen = [("", node)], set()  # an alias may hold itself
    while todo:
        key, one = todo.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, yaml.MappingNode):
            for name, value in one.value:
                at = f"{key}.{name.value}" if key else str(name.value)
                line = name.start_mark.line + 1
                if at in lines:
                    twice.append((at, line))
                lines[at] = line
                todo.append((at, value))
        elif isinstance(one, yaml.SequenceNode):
            for index, value in enumerate(one.value):
                lines[f"{key}[{index}]"] = value.start_mark.line + 1
                todo.append((f"{key}[{index}]", value))
    return lines, twice


def nearest(word: str, words: list[str]) -> str:
    """Return a hint at the word that looks most like another; empty where none does."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
