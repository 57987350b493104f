"""Measured columns of a zoo, read: in the order of its rows, whichever measurement they are of.

Shape suffixes: R rows of the zoo, N rows of a block.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dwf.errors import ConfigError, DataUnavailable
from dwf.files import reading_arrays
from dwf.measurements.folder import FILE, Measured, block_file, finished_blocks, places
from dwf.metrics import logger
from dwf.zoo.store import Zoo

_PARTS = ("train", "val", "test")
GAP = "generalisation_gap"
"""Training accuracy less test accuracy, of any zoo whose own table has both."""
OF_GAP = ("train_accuracy", "test_accuracy")
_WHICH_IMAGES = ("parts", "images", "train_images")


def measured(zoo: Zoo, root: Path) -> dict[str, np.ndarray]:
    """Return all measured columns of a zoo: name -> float64_R.

    Values belong to a row by its number and its checksum. A row that was not measured, or has other
    weights than when it was, is NaN.

    Args:
        zoo: the zoo.
        root: folder that holds zoos/ and runs/, where columns lie of a zoo that cannot be written.

    Raises:
        CorruptCheckpoint: a file of values is damaged.
        ConfigError: two measurements have a column of one name.
    """
    found: dict[str, np.ndarray] = {}
    for folder, told in measurements(zoo, root):
        for name in told.columns:
            if name in found:
                raise ConfigError(
                    f"{name} is measured twice for {zoo.path}, once in {folder}: remove one folder"
                )
            found[name] = np.full(len(zoo), np.nan)
        _fill(found, folder, zoo=zoo)
    return found


def images_of(zoo: Zoo, root: Path, *, column: str) -> int | None:
    """Return how many images a column is a share of; None where it is no share.

    The accuracies in the zoo's own table count too, where its data are here.

    Args:
        zoo: the zoo.
        root: see `measured`.
        column: its name.
    """
    for _, told in measurements(zoo, root):
        if column in told.columns:
            one = told.columns[column]
            return one.images if one.is_share else None
    part, _, what = column.partition("_")
    if what != "accuracy" or part not in _PARTS or column not in zoo.columns:
        return None
    images = _images_in(zoo, part)
    if images is None or part != "train":
        return images
    return min(images, zoo.facts.train_scores or images)


def _images_in(zoo: Zoo, part: str) -> int | None:
    """Return how many images a part of the zoo's data has; None where they are not here."""
    try:
        return len(zoo.load_data().part(part))
    except (ConfigError, DataUnavailable):
        return None


def stand_ins(zoo: Zoo, root: Path) -> dict[str, str]:
    """Return score -> measured column that is the same number, of scores the zoo's table lacks.

    A zoo's accuracy and loss are those of all validation or test images, and so is a measured one
    of all of them: samples have no others.
    """
    found = dict[str, str]()
    for _, told in measurements(zoo, root):
        for name, column in told.columns.items():
            score = f"{column.part}_{name.rpartition('_')[2]}"
            is_score = told.measures[column.measure]["kind"] == "accuracy"
            if not is_score or column.part == "train" or score in zoo.columns:
                continue
            if column.images == _images_in(zoo, str(column.part)):
                found.setdefault(score, name)
    return found


def settings_behind(zoo: Zoo, root: Path, *, column: str) -> tuple[dict[str, Any], int | None]:
    """Return the settings that a column was measured by, and on how many images.

    Settings without parts and numbers of images, which may differ between data sets; none of a
    column of the zoo's own.
    """
    for _, told in measurements(zoo, root):
        if column in told.columns:
            one = told.columns[column]
            settings = told.measures[one.measure]
            kept = {key: value for key, value in settings.items() if key not in _WHICH_IMAGES}
            return kept, one.images
    return {}, images_of(zoo, root, column=column)


def measurements(zoo: Zoo, root: Path) -> Iterator[tuple[Path, Measured]]:
    """Yield (folder, what it says) of each measurement of a zoo, by name."""
    for place in places(root, zoo.path):
        for file in sorted(place.glob(f"*/{FILE}")):
            yield file.parent, Measured.read(file.parent)


def _fill(found: dict[str, np.ndarray], folder: Path, *, zoo: Zoo) -> None:
    """Put the values of all blocks into their rows."""
    checksum_R, strangers = zoo.columns["checksum"], 0
    told = Measured.read(folder)
    for index in sorted(finished_blocks(folder)):
        file = block_file(folder, index)
        with reading_arrays(file), np.load(file, allow_pickle=False) as held:
            row_N, own_N = held["row"], held["checksum"]
            there_N = row_N < len(zoo)
            there_N[there_N] = checksum_R[row_N[there_N]] == own_N[there_N]
            strangers += int((~there_N).sum())
            for name in told.columns:
                found[name][row_N[there_N]] = held[name][there_N]
    if strangers:
        logger.warning(
            "%s: %d rows have other weights than when they were measured and are left out: remove "
            "the folder and measure again",
            folder,
            strangers,
        )
