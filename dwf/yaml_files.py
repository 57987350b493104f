"""Settings files: YAML of one mapping, each perhaps laid over another that it extends.

What their keys mean is said in `dwf.settings`, which alone reads them.
"""

import difflib
import os
import re
import reprlib
from dataclasses import dataclass
from pathlib import Path

import yaml

from dwf.errors import ConfigError, DwfError
from dwf.files import MOST_INTEGER, read_text
from dwf.names import expanded
from dwf.plain import Json

_DEEP = re.compile(r"(?:[\[{]\s*){200}")
_MOST_VALUES = 1_000_000  # of one file, with its aliases written out
_SHOWN = 200  # characters of an error
_SCALARS = (ValueError, TypeError, OverflowError, AttributeError, KeyError, IndexError)


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
        base = expanded(base)
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
    data, node = _read(path)
    lines, twice = _places(node)
    if twice:
        raise ConfigError("\n".join(f"{path}:{line}: {key} twice" for key, line in twice))
    if data is None:
        return Said(path, {}, {})
    return Said(path, _mapping(data, path), lines)


def read_mapping(path: Path) -> dict[str, Json]:
    """Return the settings of one file as they stand, as of a run's record; none of an empty file.

    Raises:
        ConfigError: it is no YAML of one mapping; see `load_yaml`.
        OSError: it is not there, or cannot be read.
    """
    data, _ = _read(path)
    return {} if data is None else _mapping(data, path)


def load_yaml(text: str) -> Json:
    """Return what a text says in YAML, as plain data.

    Raises:
        ConfigError: it is no YAML; or an alias multiplies it, it is nested without end, or holds a
            value that JSON cannot, as a date or a whole number of more than 64 bits.
    """
    return _load(text)[0]


def _read(path: Path) -> tuple[Json, yaml.Node | None]:
    try:
        return _load(read_text(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except DwfError as error:  # a pipe, or no text
        raise ConfigError(str(error)) from None


def _mapping(data: Json, path: Path) -> dict[str, Json]:
    if not isinstance(data, dict):
        found = reprlib.repr(data)
        raise ConfigError(f"{path}: expected settings as `key: value`, found {found}")
    return data


def _load(text: str) -> tuple[Json, yaml.Node | None]:
    """Return data and the node that they were made of."""
    if _DEEP.search(text):  # it would take PyYAML seconds to find out
        raise ConfigError("not YAML: nested too deeply")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, None
        if (size := _size(node, {})) > _MOST_VALUES:
            raise ConfigError(f"its aliases make {size:,} values of it: write them out")
        data: Json = loader.construct_document(node)
        _refuse_foreign(data)
    except RecursionError:
        raise ConfigError("not YAML: nested too deeply") from None
    except (yaml.YAMLError, *_SCALARS) as error:  # a scalar that its own tag does not fit
        raise ConfigError(f"not YAML: {' '.join(str(error).split())[:_SHOWN]}") from None
    return data, node


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node is with all its aliases written out.

    Raises:
        ConfigError: an alias holds itself.
    """
    if id(node) in known:
        if not known[id(node)]:
            raise ConfigError("an alias holds itself: write out what is meant")
        return known[id(node)]
    known[id(node)] = 0
    inner = []
    if isinstance(node, yaml.MappingNode):
        inner = [one for pair in node.value for one in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    known[id(node)] = 1 + sum(_size(one, known) for one in inner)
    return known[id(node)]


def _refuse_foreign(data: object, key: str = "") -> None:
    """Raise where data hold what no setting can be."""
    if isinstance(data, dict):
        for name, value in data.items():
            _refuse_foreign(name, key)
            _refuse_foreign(value, f"{key}.{name}" if key else str(name))
    elif isinstance(data, list):
        for one in data:
            _refuse_foreign(one, key)
    elif isinstance(data, (int, float, str, type(None))):
        if isinstance(data, int) and not -MOST_INTEGER <= data < MOST_INTEGER:
            raise ConfigError(f"{key} is a whole number of more than 64 bits")
    else:
        quoted = f"{str(data)[:_SHOWN]!r}"
        raise ConfigError(
            f"{key} is of the type {type(data).__name__}, which no setting is: as text it is "
            f"written {quoted}"
        )


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
