"""Which networks rows learn from, are chosen by, and are judged by.

Shape suffixes: N rows of a zoo, G groups of networks.
"""

from collections.abc import Callable, Sequence

import numpy as np

from dwf.errors import ConfigError
from dwf.predictors.experiment_config import PartsConfig
from dwf.randomness import numpy_stream
from dwf.zoo.config import split_sizes
from dwf.zoo.store import Zoo

PARTS = ("train", "val", "test")


def architecture_of(zoo: Zoo) -> str:
    """Return what networks of a zoo are, in a word: their kind and how many weights they have."""
    return f"{zoo.facts.network.kind}-{zoo.layout.size}"


def data_of(zoo: Zoo) -> str:
    """Return the name of a zoo's data."""
    return "none" if zoo.facts.data is None else zoo.facts.data.title


GROUPS: dict[str, Callable[[Zoo], str]] = {
    "zoo": lambda zoo: zoo.name,
    "architecture": architecture_of,
    "data": data_of,
}
"""Rule of a split -> name of the group that a zoo is in."""


def parts_of(config: PartsConfig, zoos: Sequence[Zoo], *, seed: int) -> list[np.ndarray]:
    """Return the part of each row of each zoo: `train`, `val`, `test`, or another that is left out.

    Args:
        config: the rule.
        zoos: all zoos of an experiment.
        seed: of what is drawn.

    Raises:
        ConfigError: the zoos cannot be split by this rule; says which can.
    """
    if config.by in GROUPS:
        return _by_group(config, zoos)
    if config.by == "network":
        return [_by_network(config, zoo, seed) for zoo in zoos]
    if config.by == "draw":
        return _by_draw(config, zoos, seed)
    return [_own(zoo) for zoo in zoos]


def _own(zoo: Zoo) -> np.ndarray:
    split_N = zoo.columns.get("split", np.zeros(len(zoo), "U1"))
    if missing := sorted({"train", "val", "test"} - set(split_N.tolist())):
        raise ConfigError(
            f"split.by = 'own': {zoo.path} has no networks held apart as {', '.join(missing)}: "
            "give --split.by network to draw them anew"
        )
    return split_N


def _by_group(config: PartsConfig, zoos: Sequence[Zoo]) -> list[np.ndarray]:
    """Hold whole groups out; what others hold out for the test is judged by nobody."""
    groups = [GROUPS[config.by](zoo) for zoo in zoos]
    if unknown := [name for name in config.held_out if name not in groups]:
        raise ConfigError(
            f"split.held_out = {unknown}: the zoos, by {config.by}, are "
            f"{', '.join(dict.fromkeys(groups))}"
        )
    parts = []
    for zoo, group in zip(zoos, groups, strict=True):
        if group in config.held_out:
            parts.append(np.full(len(zoo), "test"))
        else:
            own_N = _own(zoo)
            parts.append(np.where(own_N == "test", "", own_N))
    return parts


def _by_network(config: PartsConfig, zoo: Zoo, seed: int) -> np.ndarray:
    _, group_N = np.unique(zoo.columns["network"], return_inverse=True)
    return _drawn(config, int(group_N.max(initial=-1)) + 1, seed, zoo.name)[group_N]


def _by_draw(config: PartsConfig, zoos: Sequence[Zoo], seed: int) -> list[np.ndarray]:
    """Keep networks of one draw together, over all zoos, whose draws may be the same."""
    keys = [_draws_of(zoo) for zoo in zoos]
    number = {key: i for i, key in enumerate(dict.fromkeys(k for each in keys for k in each))}
    part_G = _drawn(config, len(number), seed, "draws")
    return [part_G[[number[key] for key in each]] for each in keys]


def _draws_of(zoo: Zoo) -> list[tuple[str, ...]]:
    """Return the hyper-parameters of each row, as words."""
    vary = zoo.facts.vary
    names = (
        [] if vary is None else [name for name, value in vars(vary).items() if value is not None]
    )
    names = [name for name in names if name in zoo.columns]
    if not names:
        raise ConfigError(
            f"split.by = 'draw': {zoo.path} varies no hyper-parameter: give --split.by network"
        )
    columns = [zoo.columns[name].tolist() for name in names]
    return [
        tuple(f"{n}={v}" for n, v in zip(names, row, strict=True))
        for row in zip(*columns, strict=True)
    ]


def _drawn(config: PartsConfig, count: int, seed: int, what: str) -> np.ndarray:
    """Draw the part of each of some groups."""
    part_G = np.full(count, "train", "U5")
    order_G = numpy_stream(seed, "predictors", "split", what).permutation(count)
    _, num_val, num_test = split_sizes(count, config.val, test=config.test)
    part_G[order_G[:num_val]] = "val"
    part_G[order_G[num_val : num_val + num_test]] = "test"
    return part_G
