"""Which rows of which zoos a generator learns from, and how that is told.

The density learns from the training networks of the zoo and of `more_zoos` (or a part of each, see
`subset`), or the best of these; the codec from all of these and from those of `codec_zoos`. Rows of
a network never straddle training and held-out networks; those of a zoo of one network are cut apart
by blocks of its steps.

Shape suffixes: N networks.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

from dwf.codecs.config import CodecConfig
from dwf.codecs.neurons import read_layers
from dwf.densities.conditions import Conditions, Told
from dwf.densities.config import DensityConfig
from dwf.errors import ConfigError
from dwf.generators.config import GeneratorConfig
from dwf.generators.facts import conditions_of, refuse_untold
from dwf.generators.subset import Subset
from dwf.plain import Json
from dwf.zoo.layout import Layout
from dwf.zoo.manifest import zoos_named
from dwf.zoo.moments import Sources
from dwf.zoo.store import Zoo

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Learning:
    """Networks to learn from, and those held out for choices."""

    train: Sources
    val: Sources
    conditions: tuple[Told, Told] | None = None
    """For a density that learns under conditions: those of each training network, and of each
    held-out one."""


def with_zoos_named(config: GeneratorConfig, zoos: Path) -> GeneratorConfig:
    """Return settings with the zoos that its names stand for, where some are of manifests.

    Args:
        config: the generator's settings.
        zoos: folder of the zoos.

    Raises:
        NotAZoo: see `manifest.read_manifest`.
    """
    first, *more = zoos_named(zoos, (config.zoo, *config.more_zoos))
    widened = zoos_named(zoos, config.codec_zoos)
    return replace(config, zoo=first, more_zoos=tuple(more), codec_zoos=widened)


def open_more(config: GeneratorConfig, zoo: Zoo, *, zoos: Path) -> list[Zoo]:
    """Return `more_zoos`, opened.

    Args:
        config: the generator's settings.
        zoo: its first zoo.
        zoos: folder of the others.

    Raises:
        ConfigError: two of the zoos are of one architecture, and the density is not told which data
            each is of; or see `refuse_wrong_zoos`, `refuse_unmixed` and `refuse_no_graphs`.
        NotAZoo, IncompleteZoo, CorruptShard: one of them cannot be read.
    """
    refuse_wrong_zoos(config)
    opened = [zoo]
    for name in config.more_zoos:
        other = Zoo.open(zoos / name)
        for like in (one for one in opened if one.layout.digest == other.layout.digest):
            refuse_untold(config, (like, other))
        opened.append(other)
    refuse_unmixed(config, [one.layout for one in opened])
    refuse_no_graphs(config, [one.layout for one in opened])
    return opened[1:]


def refuse_wrong_zoos(config: GeneratorConfig) -> None:
    """Refuse a zoo named twice.

    Raises:
        ConfigError: so it is.
    """
    names = (config.zoo, *config.more_zoos, *config.codec_zoos)
    if len(set(names)) < len(names):
        raise ConfigError(
            f"more_zoos = {list(config.more_zoos)}, codec_zoos = {list(config.codec_zoos)} beside "
            f"zoo = {config.zoo!r}: each zoo once"
        )


def refuse_unmixed(config: GeneratorConfig, layouts: Sequence[Layout]) -> None:
    """Refuse several architectures where codec or density takes one.

    Raises:
        ConfigError: so it is.
    """
    if len({layout.digest for layout in layouts}) == 1:
        return
    parts = {
        "codec": (config.codec, get_args(CodecConfig)),
        "density": (config.density, get_args(DensityConfig)),
    }
    for part, (chosen, kinds) in parts.items():
        if not chosen.mixes:
            able = [each.kind for each in kinds if each.mixes]
            raise ConfigError(
                f"more_zoos = {list(config.more_zoos)} with {part}.kind = {chosen.kind!r}, which "
                f"has no masks and so takes one architecture: set {part}.kind to "
                f"{' or '.join(able)}, or learn from one zoo"
            )


def refuse_no_graphs(config: GeneratorConfig, layouts: Sequence[Layout]) -> None:
    """Refuse networks that the backbone `neural_graph` would misread; others take all.

    Raises:
        ConfigError: a layer is none of an MLP with biases; names its tensor.
    """
    if not config.density.reads_graph:
        return
    for layer in (layer for layout in layouts for layer in read_layers(layout)):
        roles = [entry.role for entry in layer.own]
        if len(layer.weight.shape) != 2 or roles != ["bias"]:
            raise ConfigError(
                f"density.backbone.kind = {config.density.backbone.kind!r} takes linear layers "
                f"with a bias alone, and {layer.weight.name} has shape {tuple(layer.weight.shape)} "
                f"and beside it {', '.join(roles) or 'nothing'}: choose the backbone transformer"
            )


def learning_of_codec(
    config: GeneratorConfig, zoo: Zoo, *, zoos: Path, more: Sequence[Zoo] = ()
) -> Learning:
    """Return what the codec learns from: the generator's zoo first.

    Args:
        config: the generator's settings.
        zoo: its zoo.
        zoos: folder of `codec_zoos`.
        more: `more_zoos`, see `open_more`.

    Raises:
        ConfigError: a zoo has no such epoch, or see `Subset.rows_of`; or one of `codec_zoos` is of
            another architecture, and the codec makes sequences that all of its architectures share.
        NotAZoo, IncompleteZoo, CorruptShard: one of `codec_zoos` cannot be read.
    """
    others = [Zoo.open(zoos / name) for name in config.codec_zoos]
    _refuse_wider(config, (zoo, *more), others)
    train, val = (
        [
            *((one, rows_of(one, split, config=config)) for one in (zoo, *more)),
            *((one, one.rows(split, "last")) for one in others),
        ]
        for split in SPLITS
    )
    return Learning(train, val)


def _refuse_wider(config: GeneratorConfig, zoos: Sequence[Zoo], others: Sequence[Zoo]) -> None:
    """Refuse to widen a shared sequence by tokens that the density never sees."""
    if not config.codec.mixes:
        return
    known = {zoo.layout.digest for zoo in zoos}
    for other in others:
        if other.layout.digest not in known:
            raise ConfigError(
                f"codec_zoos = {list(config.codec_zoos)}: {other.path} has another architecture "
                f"(layout {other.layout.digest}) than the networks that the density learns from, "
                f"and codec.kind = {config.codec.kind!r} would make one sequence for both: name it "
                "in more_zoos, which the density learns from too, or leave it out"
            )


def learning_of_density(config: GeneratorConfig, zoo: Zoo, *, more: Sequence[Zoo] = ()) -> Learning:
    """Return what the density learns from: the best share of each zoo's training rows.

    Args:
        config: the generator's settings.
        zoo: its zoo.
        more: `more_zoos`, see `open_more`.

    Raises:
        ConfigError: see `Subset.rows_of`; or a zoo has no such epoch, or no `val_accuracy` to say
            which are best, or lacks a condition, or all networks have the same.
    """
    train, val = (
        [(one, rows_of(one, split, config=config)) for one in (zoo, *more)] for split in SPLITS
    )
    if config.best < 1:
        train = [(one, _best(one, rows, config.best)) for one, rows in train]
    if not config.density.takes_condition:
        return Learning(train, val)
    names = config.density.conditions
    told = [{name: conditions_of(sources, name) for name in names} for sources in (train, val)]
    Conditions.fit(names, told[0])  # refuses what cannot be learnt before anything is trained
    return Learning(train, val, conditions=(told[0], told[1]))


def rows_of(zoo: Zoo, split: str, *, config: GeneratorConfig) -> np.ndarray:
    """Return the rows of a split, `train` or `val`, that are learnt from, but for `best`.

    Raises:
        ConfigError: the zoo has no such epoch, or see `Subset.rows_of`.
    """
    rows, subset = _rows_at_epochs(zoo, split, config), Subset.of(config)
    return subset.among(zoo, rows) if subset and split == "train" else rows


def _rows_at_epochs(zoo: Zoo, split: str, config: GeneratorConfig) -> np.ndarray:
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


def origin_facts(zoo: Zoo, seed: int, *, more: Sequence[Zoo] = ()) -> dict[str, Json]:
    """Return what a generator learns from, plain data, so that its samples can be traced.

    Args:
        zoo: its zoo.
        seed: of the fit.
        more: `more_zoos`, see `open_more`.

    Returns:
        `zoo` (its name), `layout` (digest), `fingerprint` (of the checksums of its training and
        validation rows), `networks`, `seed`, and the `facts` that a zoo of samples inherits; where
        there are more zoos, `more_zoos`: the same of each.
    """
    others = {"more_zoos": [origin_facts(one, seed) for one in more]} if more else {}
    rows = {split: zoo.rows(split, "last") for split in SPLITS}
    return {
        "zoo": zoo.name,
        "layout": zoo.layout.digest,
        "fingerprint": _fingerprint([(zoo, rows[split]) for split in SPLITS]),
        "networks": {split: len(indices) for split, indices in rows.items()},
        "seed": seed,
        "facts": zoo.facts.subject.to_json(),
    } | others


def choice_facts(
    config: GeneratorConfig, codec: Learning, *, density: Learning
) -> dict[str, dict[str, Json]]:
    """Return what to add to the origin where not just the zoo's last rows are learnt from.

    Returns:
        Nothing where they are; else `learnt`: for the codec and the density, zoo -> fingerprint
        of the rows; and `subset`, where not all training networks are learnt from.
    """
    subset = Subset.of(config)
    if (config.epochs, config.best, config.codec_zoos, subset) == ("last", 1.0, (), None):
        return {}

    def told(learning: Learning) -> dict[str, str]:
        pairs = zip(learning.train, learning.val, strict=True)
        return {train[0].name: _fingerprint([train, val]) for train, val in pairs}

    learnt = {"learnt": {"codec": told(codec), "density": told(density)}}
    return learnt | ({"subset": subset.to_json()} if subset else {})


def _fingerprint(parts: Sources) -> str:
    """A short name of the weights of training rows and of validation rows."""
    digest = hashlib.sha256()
    for split, (zoo, rows) in zip(SPLITS, parts, strict=True):
        digest.update(split.encode())
        if len(rows):
            digest.update(zoo.columns["checksum"][rows].astype("<u4").tobytes())
    return digest.hexdigest()[:16]
