"""Which rows of which zoos a generator learns from, and how that is told.

The codec learns from the zoo's training networks and those of `codec_zoos`, the density from the
zoo's alone, or the best of them. Rows of a network never straddle training and held-out networks;
those of a zoo of one network are cut apart by blocks of its steps.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dwf.codecs.moments import Sources
from dwf.errors import ConfigError
from dwf.generators.config import GeneratorConfig
from dwf.zoo.store import Zoo

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Learning:
    """Networks to learn from, and those held out for choices."""

    train: Sources
    val: Sources


def learning_of_codec(config: GeneratorConfig, zoo: Zoo, zoos: Path) -> Learning:
    """Return what the codec learns from: the generator's zoo first.

    Args:
        config: the generator's settings.
        zoo: its zoo.
        zoos: folder of `codec_zoos`.

    Raises:
        ConfigError: a zoo is named twice, or the zoo has no such epoch.
        NotAZoo, IncompleteZoo, CorruptShard: one of `codec_zoos` cannot be read.
    """
    names = (config.zoo, *config.codec_zoos)
    if len(set(names)) < len(names):
        raise ConfigError(
            f"codec_zoos = {list(config.codec_zoos)} beside zoo = {config.zoo!r}: each zoo once"
        )
    others = [Zoo.open(zoos / name) for name in config.codec_zoos]
    train, val = (
        [(zoo, _rows(zoo, split, config)), *((one, one.rows(split, "last")) for one in others)]
        for split in SPLITS
    )
    return Learning(train, val)


def learning_of_density(config: GeneratorConfig, zoo: Zoo) -> Learning:
    """Return what the density learns from: the best share of the zoo's training rows.

    Raises:
        ConfigError: the zoo has no such epoch, or no `val_accuracy` to say which are best.
    """
    train, val = (_rows(zoo, split, config) for split in SPLITS)
    if config.best < 1:
        train = _best(zoo, train, config.best)
    return Learning([(zoo, train)], [(zoo, val)])


def _rows(zoo: Zoo, split: str, config: GeneratorConfig) -> np.ndarray:
    if isinstance(config.epochs, str):
        return zoo.rows(split, "last" if config.epochs == "last" else None)
    train = zoo.rows("train")
    there = np.unique(zoo.columns["epoch"][train]) if len(train) else config.epochs
    if not config.epochs or not set(config.epochs) <= set(there):
        raise ConfigError(
            f"epochs = {list(config.epochs)}: the training networks of {zoo.path} have the epochs "
            f"{', '.join(map(str, there))}: name some of these, or last, or all"
        )
    return np.sort(np.concatenate([zoo.rows(split, epoch) for epoch in set(config.epochs)]))


def _best(zoo: Zoo, rows: np.ndarray, share: float) -> np.ndarray:
    """Return the best of some rows by accuracy on validation images; of equals, the first."""
    if "val_accuracy" not in zoo.columns:
        raise ConfigError(
            f"best = {share:g}: {zoo.path} has no column val_accuracy, so nothing tells which "
            "networks are best: leave it out, or train the zoo with data.validation above 0"
        )
    accuracy = zoo.columns["val_accuracy"][rows]
    if len(rows) and np.isnan(accuracy).all():
        raise ConfigError(
            f"best = {share:g}: no row of {zoo.path} to learn from has a val_accuracy that is a "
            "number, so nothing tells which networks are best: leave it out, or train the zoo with "
            "data.validation above 0"
        )
    order = np.argsort(-np.where(np.isnan(accuracy), -np.inf, accuracy), kind="stable")
    return np.sort(rows[order[: math.ceil(share * len(rows))]])


def describe_origin(zoo: Zoo, seed: int) -> dict[str, Any]:
    """Return what a generator learns from, plain data, so that its samples can be traced.

    Returns:
        `zoo` (its name), `layout` (digest), `fingerprint` (of the checksums of its training and
        validation rows), `networks`, `seed`, and the `facts` that a zoo of samples inherits.
    """
    rows = {split: zoo.rows(split, "last") for split in SPLITS}
    inherited = ("network", "data", "input_shape", "recipe", "seed")
    return {
        "zoo": zoo.name,
        "layout": zoo.layout.digest,
        "fingerprint": _fingerprint([(zoo, rows[split]) for split in SPLITS]),
        "networks": {split: len(indices) for split, indices in rows.items()},
        "seed": seed,
        "facts": {key: zoo.facts[key] for key in inherited if key in zoo.facts},
    }


def describe_choice(
    config: GeneratorConfig, codec: Learning, density: Learning
) -> dict[str, dict[str, Any]]:
    """Return what to add to the origin where not just the zoo's last rows are learnt from.

    Returns:
        Nothing where they are; else `learnt`: for the codec and the density, zoo -> fingerprint
        of the rows.
    """
    if (config.epochs, config.best, config.codec_zoos) == ("last", 1.0, ()):
        return {}

    def told(learning: Learning) -> dict[str, str]:
        pairs = zip(learning.train, learning.val, strict=True)
        return {train[0].name: _fingerprint([train, val]) for train, val in pairs}

    return {"learnt": {"codec": told(codec), "density": told(density)}}


def _fingerprint(parts: Sources) -> str:
    """A short name of the weights of training rows and of validation rows."""
    digest = hashlib.sha256()
    for split, (zoo, rows) in zip(SPLITS, parts, strict=True):
        digest.update(split.encode())
        if len(rows):
            digest.update(zoo.columns["checksum"][rows].astype("<u4").tobytes())
    return digest.hexdigest()[:16]
