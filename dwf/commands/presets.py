"""Presets that are shipped, by stage: `dwf list`, `dwf list zoo`."""

import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Annotated

from dwf.arguments import Argument
from dwf.errors import ConfigError
from dwf.headers import FOLDERS, Preset, presets_of
from dwf.shipped import CONFIGS, SLURM
from dwf.yaml_files import nearest

_NARROW = 120  # columns, below which what a preset is stands in lines of its own

Stages = Annotated[tuple[str, ...], Argument(is_positional=True, metavar="STAGE")]


def presets(stages: Stages = ()) -> None:
    """Show the presets that are shipped: name, size, measured time, and what each is.

    Sizes are what a file's settings say at once; times are those of its header, on the machine that
    it names, and `-` stands where none was measured.

    Args:
        stages: stages whose presets are shown, as zoo or generator; default: all.
    """
    for stage in stages:
        if stage not in FOLDERS:
            raise ConfigError(
                f"{stage}: no such stage{nearest(stage, list(FOLDERS))}; presets are there for "
                f"{', '.join(FOLDERS)}"
            )
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for folder, words in FOLDERS.items():
        if not stages or folder in stages or folder.split("/")[0] in stages:
            print(f"{folder}: {words}", *_lines(presets_of(folder), width), "", sep="\n")
    print(f"presets lie in {CONFIGS}, scripts for sbatch in {SLURM}")


def _lines(found: list[Preset], width: int | None) -> Iterator[str]:
    """Yield the lines of some presets: one each, unless a terminal of that width is too narrow."""
    rows = [(preset.file.stem, preset.size, preset.time) for preset in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for preset, row in zip(found, rows, strict=True):
        cells = (f"{cell:<{wide}}" for cell, wide in zip(row, widths, strict=True))
        head, what = "  " + "  ".join(cells), preset.said[0]
        if width is None:
            yield f"{head}  {what}"
        elif width < _NARROW:
            yield head.rstrip()
            yield textwrap.fill(what, width, initial_indent="      ", subsequent_indent="      ")
        else:
            under = " " * (len(head) + 2)
            yield textwrap.fill(f"{head}  {what}", width, subsequent_indent=under, tabsize=1)
