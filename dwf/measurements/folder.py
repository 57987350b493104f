"""Folder of measured columns, beside a zoo's shards; these never change.

    zoos/ZOO/measured/NAME/measured.json     which columns, of which images, by which settings
    zoos/ZOO/measured/NAME/block-00003.npz   values of some rows, with their numbers and checksums
    zoos/ZOO/measured/NAME/run/              records

Where the zoo's folder cannot be written it is runs/ZOO-measured/NAME.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dwf.errors import ConfigError, CorruptCheckpoint
from dwf.files import read_json
from dwf.flags import flag_of
from dwf.names import expanded, name_said
from dwf.run_folder import write_json
from dwf.settings import build, to_dict

FILE, FORMAT, VERSION = "measured.json", "dwf-measured", 1
BESIDE = "measured"


@dataclass(frozen=True)
class Column:
    """One number of each network, and the images behind it."""

    measure: str
    """Name of the measure that it is of."""
    part: Literal["train", "val", "test"] | None = None
    """Images; None of what no image tells."""
    images: int | None = None
    """How many images."""
    is_share: bool = False
    """Whether it is a share of these images, whose noise is that of counting."""


@dataclass(frozen=True)
class Measured:
    """Facts of measured columns: `measured.json`."""

    zoo: str
    """Name of the zoo."""
    fingerprint: str
    """Its weights."""
    rows: int
    """How many of its rows are measured."""
    block: int
    """Rows of a file of values."""
    device: str
    """`cpu` or `cuda`."""
    seed: int
    """Seed of the choice of images, of noise and of random starts."""
    data: dict[str, Any] | None
    """Dataset of the images, as in `zoo.json`."""
    image_split: str | None
    """Split of its images, as in `zoo.json`."""
    measures: dict[str, dict[str, Any]]
    """Measure -> its settings."""
    columns: dict[str, Column]
    """Columns by name."""

    @classmethod
    def read(cls, folder: Path) -> "Measured":
        """Return what the `measured.json` of a folder says.

        Raises:
            CorruptCheckpoint: it is damaged, or of another version.
        """
        file = folder / FILE
        try:
            told = read_json(file, keys=("format", "version"))
            found = (told.pop("format"), told.pop("version"))
            if found == (FORMAT, VERSION):
                return build(cls, told, source=str(file))
            why = f"format {found[0]} {found[1]}, this dwf reads {FORMAT} {VERSION}"
        except (CorruptCheckpoint, ConfigError) as error:
            why = f"it is damaged: {error}"
        raise CorruptCheckpoint(f"{file}: {why}: remove {folder} and measure again")

    def write(self, folder: Path) -> None:
        """Write `measured.json`."""
        write_json(folder / FILE, {"format": FORMAT, "version": VERSION} | to_dict(self))

    @property
    def num_blocks(self) -> int:
        """How many files of values make it whole."""
        return -(-self.rows // self.block)


def block_file(folder: Path, index: int) -> Path:
    """Return the file of a block of rows."""
    return folder / f"block-{index:05d}.npz"


def finished_blocks(folder: Path) -> set[int]:
    """Return which blocks are whole."""
    return {int(file.stem.split("-")[1]) for file in folder.glob("block-*.npz")}


def is_whole(folder: Path) -> bool:
    """Whether all blocks are there."""
    if not (folder / FILE).exists():
        return False
    return finished_blocks(folder) >= set(range(Measured.read(folder).num_blocks))


def places(root: Path, zoo: Path) -> tuple[Path, Path]:
    """Return the folders in which measured columns of a zoo may lie: beside it, and apart.

    Args:
        root: folder that holds zoos/ and runs/.
        zoo: the zoo's folder.
    """
    zoos, own = (Path(root) / "zoos").absolute(), zoo.absolute()
    name = own.relative_to(zoos) if own.is_relative_to(zoos) else own.name
    return zoo / BESIDE, Path(root) / "runs" / f"{name}-{BESIDE}"


def folder_of(root: Path, zoo: str, *, name: str) -> Path:
    """Return the folder of a measurement: where it was begun, else beside the zoo if it can be.

    Args:
        root: folder that holds zoos/ and runs/.
        zoo: name of the zoo.
        name: of the measurement.
    """
    path = (Path(root) / "zoos" / zoo).absolute()
    beside, apart = (place / name for place in places(Path(root).absolute(), path))
    for folder in (beside, apart):
        if (folder / "run").exists():
            return folder
    return beside if _is_writable(path) else apart


def root_of(folder: Path) -> Path:
    """Return the root of a measurement's folder."""
    return next(one for one in folder.parents if one.name in ("zoos", "runs")).parent


def resumed_under(argv: Sequence[str]) -> str:
    """Return the folder below the root that `--resume --zoo ZOO --name NAME` looks in."""
    zoo, name = flag_of(argv, "--zoo") or "", flag_of(argv, "--name") or ""
    root = expanded(flag_of(argv, "--root") or "")
    zoo = name_said(zoo, root / "zoos", key="--zoo")
    return str(folder_of(root, zoo, name=name).parent.relative_to(root.absolute()))


def _is_writable(zoo: Path) -> bool:
    """Whether files can be written beside a zoo's; changes nothing."""
    beside = zoo / BESIDE
    return os.access(beside if beside.exists() else zoo, os.W_OK)
