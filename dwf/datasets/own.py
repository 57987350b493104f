"""Data of the user's own: found, held to their digest, decoded once, found again without a path.

    $DWF_DATA/own/SHA256-READING/   decoded arrays as in cache.py, `labels.npy` and `source.json`

The first part of the folder's name is the digest of the bytes, the second that of the settings by
which they were read. So whoever knows both needs no path: a zoo records them.

Shape suffixes: A rows or images of a stored array.
"""

import dataclasses
import hashlib
import json
import logging
import shlex
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from dwf.data_paths import given_data
from dwf.datasets.cache import data_folder, is_whole, open_or_make, resized
from dwf.datasets.config import OWN, TEST_SHARE, AnyDataConfig, Label, OwnSettings
from dwf.datasets.formats import Arrays
from dwf.datasets.sources import Known
from dwf.datasets.tree import digest_of
from dwf.errors import ConfigError, DataUnavailable
from dwf.names import expanded
from dwf.run_folder import write_json
from dwf.settings import find, to_dict

logger = logging.getLogger("dwf")

Data = TypeVar("Data", bound=AnyDataConfig | None)

_KEY_DIGITS = 16


@dataclass(frozen=True)
class Decoded:
    """Data as a reader gives them: arrays as formats.py describes, and what their labels were."""

    arrays: Arrays
    """`x_train`, `y_train` and, where there is a test part, `x_test`, `y_test`."""
    labels: tuple[Label, ...]
    """Labels in the source, in the order of the classes 0, 1, ..."""


def identified(config: Data) -> Data:
    """Return settings by which data are found again on any machine: without a path.

    Own data are read and prepared; their settings then have name and digest. Published data are
    found by their name as they are, and so is None, no data. Each stage begins with this, so that
    no record of it has a path.

    Raises:
        ConfigError, DataUnavailable: as `open_own`.
    """
    if not isinstance(config, OwnSettings):
        return config
    found = dataclasses.replace(config, name=config.source, sha256=_digest(config))
    _open(found)
    return dataclasses.replace(found, path=None)


def open_own(config: OwnSettings) -> Arrays:
    """Return the arrays of own data, memory-mapped; decode them first where that was never done.

    Raises:
        DataUnavailable: they are nowhere, or of another digest.
        ConfigError: they are not what their kind of data must be.
    """
    return _open(dataclasses.replace(config, sha256=_digest(config)))


def is_prepared(config: OwnSettings) -> bool:
    """Whether own data were decoded on this machine, so that nothing need be made."""
    return is_whole(_folder(dataclasses.replace(config, sha256=_digest(config))))


def facts_of_own(config: OwnSettings) -> Known:
    """Return what is known of own data; nothing is written where they were never decoded."""
    config = dataclasses.replace(config, sha256=_digest(config))
    if is_whole(_folder(config)):
        return facts_of_arrays(config, _open(config))
    return _facts_of_unprepared(config)


@lru_cache(maxsize=16)  # a launch asks several times: they are decoded, and their labels told, once
def _facts_of_unprepared(config: OwnSettings) -> Known:
    return facts_of_arrays(config, _read(config))


def facts_of_arrays(config: OwnSettings, arrays: Arrays) -> Known:
    """Return the facts of own data from their arrays."""
    shape, rows = arrays["x_train"].shape[1:], len(arrays["x_train"])
    return Known(
        shape,
        rows if "x_test" in arrays else round(rows * (1 - TEST_SHARE)),
        num_classes=len(arrays["labels"]),
        largest=config.largest_value if len(shape) == 3 else None,
        names=tuple(arrays["labels"].tolist()),
    )


def _open(config: OwnSettings) -> Arrays:
    return open_or_make(_folder(config), lambda: _make(config))


def _folder(config: OwnSettings) -> Path:
    text = json.dumps(config.reading, sort_keys=True)
    reading = hashlib.sha256(text.encode()).hexdigest()
    return data_folder() / "own" / f"{config.sha256[:_KEY_DIGITS]}-{reading[:_KEY_DIGITS]}"


def _make(config: OwnSettings) -> Arrays:
    arrays = _read(config)
    told = {"name": config.source, "sha256": config.sha256, "read_as": to_dict(config.reading)}
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    labels = arrays["labels"].tolist()
    write_json(_folder(config) / "source.json", told | {"shapes": shapes, "labels": labels})
    return arrays


def _read(config: OwnSettings) -> Arrays:
    """Decode the source, in memory; what the user did not point at now is held to its digest."""
    path = _find(config)
    decoded = _decode(config, path)
    arrays = decoded.arrays
    if _given(config) is None:
        _refuse_other(config, path, found=digest_of(path) if path else _digest_of(arrays))
    if config.size:
        arrays = resized(arrays, config.size, what=config.source)
    _refuse_few(config, arrays)
    _tell_labels(config, decoded.labels)
    return arrays | {"labels": np.array(decoded.labels)}


def _decode(config: OwnSettings, path: Path | None) -> Decoded:
    with np.errstate(over="ignore"):  # told as an error below
        decoded = find(OWN, config.kind)(config, path)
    for name, array in decoded.arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ConfigError(
                f"{config.source}: {name} has numbers beyond float32's largest, 3.4e38: scale them"
            )
    return decoded


def _tell_labels(config: OwnSettings, labels: tuple[Label, ...]) -> None:
    if labels != tuple(range(len(labels))):
        pairs = ", ".join(f"{label} -> {place}" for place, label in enumerate(labels))
        logger.info("%s: its labels become 0, 1, ...: %s", config.source, pairs)


def _refuse_few(config: OwnSettings, arrays: Arrays) -> None:
    """Raise where a class is too small to be cut into a training and a test part."""
    counts = np.bincount(arrays["y_train"])
    if len(counts) < 2:
        raise ConfigError(f"{config.source} has one class alone: there is nothing to learn")
    if "x_test" not in arrays and counts.min() < 2:
        raise ConfigError(
            f"{config.source} has no test part, and a class of one row, of which none can be cut: "
            "give a test part, or more rows of it"
        )


# --- where they are ----------------------------------------------------------------------------


def _digest(config: OwnSettings) -> str:
    """The digest of what the user points at, else that of the settings, else of what is found."""
    if config.sha256 and _given(config) is None:
        return config.sha256
    path = _find(config)
    found = digest_of(path) if path else _digest_of(_decode(config, None).arrays)
    _refuse_other(config, path, found=found)
    return found


def _refuse_other(config: OwnSettings, path: Path | None, *, found: str) -> None:
    if config.sha256 not in (None, found):
        raise DataUnavailable(
            f"{path or config.source} has sha256 {found}, expected {config.sha256} of "
            f"{config.source}: {_cure(config)}"
        )


def _given(config: OwnSettings) -> Path | None:
    """Where the user says that the data lie, by flag or in the settings; None if not there."""
    if not config.has_file:
        return None
    path = given_data().get(config.source, config.path)
    if path is None:
        return None
    places = (expanded(path), data_folder() / path)
    return next((place for place in places if place.exists()), None)


def _find(config: OwnSettings) -> Path | None:
    """Where the data lie; None of those without a file."""
    if not config.has_file:
        return None
    path = _given(config)
    by_name = data_folder() / config.source
    if path is None and not by_name.exists():
        raise DataUnavailable(
            f"{config.path or config.source} is not there, nor in {data_folder()}: {_cure(config)}"
        )
    return path or by_name


def _cure(config: OwnSettings) -> str:
    return f"give its file by --data-path {shlex.quote(f'{config.source}=FILE')}"


def _digest_of(arrays: Arrays) -> str:
    """The SHA-256 of the arrays' bytes, of data without a file."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]))
    return digest.hexdigest()
