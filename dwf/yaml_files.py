"""Settings files: YAML of one mapping, each perhaps laid over another that it extends.

What their keys mean is said in `dwf.settings`, which alone reads them.
"""

import difflib
import os
from pathlib import Path

import yaml

from dwf.errors import ConfigError
from dwf.plain import Json


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                place = f"line {key.start_mark.line + 1}"
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} twice, {place}")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_chain(path: Path) -> list[tuple[Path, dict[str, Json]]]:
    """Return (file, what it says itself), each extending the next."""
    chain: list[tuple[Path, dict[str, Json]]] = []
    by = ""
    while True:
        data = _read_mapping(path, by)
        base = data.pop("extends", None)
        chain.append((path, data))
        if base is None:
            return chain
        if not isinstance(base, str):
            raise ConfigError(f"{path}: extends = {base!r}: expected the name of one file")
        by, path = f", which {path} extends", Path(os.path.normpath(path.parent / base))
        circle = [file for file, _ in chain]
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


def _read_mapping(path: Path, by: str) -> dict[str, Json]:
    if not path.is_file():
        siblings = [str(p) for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise ConfigError(f"{path}{by}: no such file{nearest(str(path), siblings)}")
    try:
        data = yaml.load(path.read_text(), _StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected settings as `key: value`, found {data!r}")
    return data


def nearest(word: str, words: list[str]) -> str:
    """Return a hint at the word that looks most like another; empty where none does."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
