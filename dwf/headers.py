"""Presets that are shipped, with what their headers and settings say of them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

from dwf.plain import Json
from dwf.settings import read_yaml
from dwf.shipped import CONFIGS

FOLDERS = {
    "pipeline": "the whole way, with one command",
    "zoo": "zoos of networks",
    "zoo/families": "zoos of several architectures at once",
    "import": "zoos of networks that others trained",
    "align": "one symmetry frame for a zoo",
    "generator": "codec and density",
    "sample": "drawing networks",
    "evaluate": "the report",
    "measure": "properties of a zoo's networks",
    "export": "networks for other tools",
    "finetune": "further training on another task",
    "predictor": "properties told from weights",
    "sweep": "many settings",
    "audit": "many generators under one budget",
    "cluster": "a site, for --cluster FILE or $DWF_CLUSTER",
}
"""Folder of presets -> what its files are for."""
_COMMANDS = ("python launch/", "dwf ", "make demo")
_TIME = re.compile(
    r"\d[\d.,]*(?: to [\d.]+)? (?:m \d+ s|min \d+ s|s|seconds|minutes?|hours?|core-hours)\b"
    r"(?: (?:a network|in bf16|of processor time))*(?: on (?:one|two|\d+)(?: \w+)? cores?)?"
)
_IN_PARTS = ("not ", "(not yet)")  # times of stages, not of the whole


@dataclass(frozen=True)
class Preset:
    """A settings file that is shipped, with what its header and its settings say of it."""

    file: Path
    folder: str
    """Its folder, one of `FOLDERS`."""

    @property
    def said(self) -> tuple[str, str]:
        """A sentence on it, and the measurement of it; `-` where there is none."""
        told, _, measured = header(self.file).partition("Measured")
        sentences = re.split(r"(?<=\.)\s+(?=[A-Z`])", told.strip())
        if not measured:  # a file that was not run says so in a sentence of its own
            measured = " ".join(each for each in sentences[1:] if "not run" in each.lower())
        return sentences[0], measured.removeprefix(":").strip() or "-"

    @property
    def time(self) -> str:
        """The first time that was measured, with the cores; `-` where there is none."""
        measured = self.said[1]
        found = None if measured.startswith(_IN_PARTS) else _TIME.search(measured)
        return found.group() if found else "-"

    @property
    def size(self) -> str:
        """How much it makes or does, where its settings say so at once; else `-`."""
        ask = _SIZES.get(self.folder)
        return (ask(read_yaml(self.file)) if ask else "") or "-"


def header(file: Path) -> str:
    """Return a file's header as one line of text, without its commands."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        if not line.startswith("#") or text.startswith(_COMMANDS):
            break
        lines.append(text)
    text = re.sub(r"(?<=[a-z][-/])\n", "", "\n".join(lines))  # a word that goes on in the next line
    return text.replace("\n", " ")


def presets_of(folder: str) -> list[Preset]:
    """Return the presets of one of `FOLDERS`, by name."""
    return [Preset(file, folder) for file in sorted((CONFIGS / folder).glob("*.yaml"))]


def _networks(data: dict[str, Json]) -> str:
    count = data.get("count")
    return f"{count:,} network{'s' * (count > 1)}" if count else ""


def _family(data: dict[str, Json]) -> str:
    members = data["zoos"].values()
    counts = [member.get("count", data["shared"].get("count", 0)) for member in members]
    return f"{len(counts)} zoos, {sum(counts):,} networks"


def _zoo_of(data: dict[str, Json]) -> str:
    file = CONFIGS / "zoo" / f"{Path(data.get('zoo') or '').stem}.yaml"
    return _networks(read_yaml(file)) if file.exists() else ""


def _steps(data: dict[str, Json]) -> str:
    parts = {part: data.get(part, {}).get("training") or {} for part in ("codec", "density")}
    told = [f"{part} {each['steps']:,}" for part, each in parts.items() if "steps" in each]
    return " + ".join(told) + " steps" if told else ""


def _trials(data: dict[str, Json]) -> str:
    grids = [axis.get("grid") for axis in data.get("space", {}).values()]
    count = data.get("trials", 0) if None in grids else prod(map(len, grids))
    return f"{count:,} trials" if count else ""


def _rows(data: dict[str, Json]) -> str:
    return f"{len(data['rows'])} rows" if "rows" in data else ""


_SIZES: dict[str, Callable[[dict[str, Json]], str]] = {
    "pipeline": _zoo_of,
    "zoo": _networks,
    "zoo/families": _family,
    "generator": _steps,
    "sample": _networks,
    "sweep": _trials,
    "predictor": _rows,
    "audit": _rows,
}
