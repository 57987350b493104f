"""Conditions of a zoo's networks: columns of its table, and facts that all its networks share.

Shape suffix: N networks.
"""

from collections.abc import Callable

import numpy as np

from dwf.datasets.known import known
from dwf.densities.conditions import CLASSES, are_words
from dwf.errors import ConfigError
from dwf.generators.config import GeneratorConfig
from dwf.settings import flatten, to_dict
from dwf.zoo.checkpoint import CHECKPOINT, told_of
from dwf.zoo.config import is_test_score
from dwf.zoo.facts import Subject
from dwf.zoo.moments import Sources
from dwf.zoo.store import Zoo


def _data(subject: Subject) -> str:
    return "" if subject.data is None else subject.data.source


def _classes(subject: Subject) -> str:
    """Return the labels of the classes, joined by `+`."""
    if subject.data is None:
        return ""
    labels = subject.data.classes or known(subject.data).labels
    return "+".join(map(str, labels))


def _architecture(subject: Subject) -> str:
    """Return the architecture's kind and what it sets, one word: `mlp-64x16x10-relu`."""
    told = flatten(to_dict(subject.network))
    values = [v for name, v in told.items() if name != "kind"]
    words = ["x".join(map(str, v)) if isinstance(v, list) else str(v) for v in values]
    return "-".join([str(told["kind"]), *words])


FACTS: dict[str, Callable[[Subject], str]] = {
    "data": _data,
    CLASSES: _classes,
    "architecture": _architecture,
}
"""Name of a condition that is no column -> what says it of a zoo's networks."""


def conditions_of(sources: Sources, name: str) -> np.ndarray:
    """Return one condition of all networks: numbers, float64_N, or words.

    Raises:
        ConfigError: a zoo has no such column, or rows without a value of it.
    """
    if name == CHECKPOINT and len(sources) > 1:
        raise ConfigError(
            f"density.condition = '{CHECKPOINT}': {', '.join(zoo.name for zoo, _ in sources)} "
            "count their networks alike, so that some have one name: learn from one zoo"
        )
    parts = [_values(zoo, rows, name) for zoo, rows in sources]
    if len({are_words(part) for part in parts if len(part)}) > 1:
        raise ConfigError(
            f"density.condition = {name!r}: it is a number in some of the zoos "
            f"{', '.join(zoo.name for zoo, _ in sources)} and a word in others: leave it out"
        )
    return np.concatenate(parts)


def _values(zoo: Zoo, rows: np.ndarray, name: str) -> np.ndarray:
    if name not in zoo.columns and name in FACTS:
        return np.full(len(rows), FACTS[name](zoo.facts))
    found = told_of(zoo, name, rows=rows)
    if found is None:
        raise ConfigError(
            f"density.condition = {name!r}: {zoo.path} has no column {name}: set it to none, or "
            f"to some of {', '.join(sorted(_may_be_told(zoo)))}; val_accuracy is there where the "
            "zoo is trained with data.validation above 0"
        )
    if are_words(found):
        return found
    found = found.astype(np.float64)
    if num_bad := int((~np.isfinite(found)).sum()):
        raise ConfigError(
            f"density.condition = {name!r}: {num_bad} of {len(found)} rows of {zoo.path} to "
            f"learn from have a {name} that is no number: set it to none, or train the zoo "
            "with data.validation above 0"
        )
    return found


def _may_be_told(zoo: Zoo) -> set[str]:
    """Return what networks of a zoo can be told apart by."""
    columns = {name for name in zoo.columns if not is_test_score(name)}
    return (columns | set(FACTS) | {CHECKPOINT}) - {"checksum", "split"}


def refuse_untold(config: GeneratorConfig, pair: tuple[Zoo, Zoo]) -> None:
    """Refuse two zoos of one architecture that the density is not told apart by their data.

    Raises:
        ConfigError: so it is; or they are of the same data.
    """
    names, (one, other) = [zoo.name for zoo in pair], (zoo.facts for zoo in pair)
    differ = [name for name in ("data", CLASSES) if FACTS[name](one) != FACTS[name](other)]
    if not differ:
        raise ConfigError(
            f"more_zoos = {list(config.more_zoos)}: {names[1]} has the architecture of "
            f"{names[0]}, and its data: put the two together with dwf merge, and "
            "learn from that zoo"
        )
    if not set(differ) & set(config.density.conditions):
        raise ConfigError(
            f"more_zoos = {list(config.more_zoos)}: {names[1]} has the architecture of {names[0]} "
            f"and other {' and '.join(differ)}, which the density is not told: set "
            f"density.condition to {differ[0]}, so that each can be asked for"
        )
