"""Roster of a zoo: each network's hyper-parameters, seed, shard and cohort.

All of it follows from the settings: a shard can be trained anywhere, in any order.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from dwf import __version__
from dwf.randomness import numpy_stream, seed_of
from dwf.zoo.config import RangeConfig, RecipeConfig, ZooConfig
from dwf.zoo.facts import BLOCKS_OF_STEPS, Facts, Method, Sound
from dwf.zoo.layout import Layout
from dwf.zoo.provenance import Trained
from dwf.zoo.shard import Columns

_ALWAYS = (
    "learning_rate",
    "weight_decay",
    "momentum",
    "dropout",
    "optimizer",
    "initialisation",
)
_AUGMENTED = ("flip", "pad", "jitter")
_IF_GIVEN = ("initialisation_scale", "data_share")

# What a cohort's step touches should stay in a core's share of the last-level cache: measured on
# 784-32-32-10 networks, 8 at a time train 1.1 to 1.4 times as fast each as 64 at a time.
CACHE_BYTES = 5 * 2**20
"""Memory that a step of a cohort of MLPs touches, unless a caller gives another."""
_LARGEST_COHORT = 128

# Not told by `zoo.json`, or there as what was made of them (`method`).
_OF_THE_MACHINE = ("shard", "compute")


def hyper_parameter_names(config: ZooConfig) -> tuple[str, ...]:
    """Return what is told of each network: a column of the zoo each."""
    names = _ALWAYS + _AUGMENTED * (config.recipe.augment is not None)
    given = vars(config.recipe), vars(config.vary)
    names += tuple(n for n in _IF_GIVEN if any(each[n] is not None for each in given))
    return names + ("prune_share",) * (config.recipe.prune is not None)


def cohort_size(
    config: ZooConfig, num_weights: int, *, num_inputs: int, cache_bytes: int = CACHE_BYTES
) -> int:
    """Return how many MLPs are trained together on a core.

    Args:
        config: the zoo's settings; `cohort` decides where it is set.
        num_weights: D, of one network.
        num_inputs: numbers of one prepared image.
        cache_bytes: what their step may touch.
    """
    if config.cohort is not None:
        return min(config.cohort, config.shard_size)
    weights = 4 * num_weights  # and gradient and two moments
    step_bytes = 4 * (weights + config.recipe.batch_size * num_inputs)
    return max(1, min(cache_bytes // step_bytes, _LARGEST_COHORT, config.shard_size))


def networks_of_shard(config: ZooConfig, index: int) -> range:
    """Return the networks of a shard."""
    return _from_first(config, _whole_shard(config, index))


def _whole_shard(config: ZooConfig, index: int) -> range:
    """The networks that are trained for a shard: those of it in a zoo of all from 0."""
    size = config.shard_size
    place = (config.first or 0) // size + index
    return range(place * size, min((place + 1) * size, config.count))


def _from_first(config: ZooConfig, networks: range) -> range:
    return range(max(networks.start, config.first or 0), networks.stop)


def cohorts_of_shard(config: ZooConfig, index: int, *, size: int) -> list[range]:
    """Return the networks of each cohort of a shard.

    A cohort is whole, as in a zoo of all networks from 0, though some of it may lie before
    `config.first`: bytes of a network depend on which others are trained beside it.
    """
    networks = _whole_shard(config, index)
    every = [networks[i : i + size] for i in range(0, len(networks), size)]
    return [cohort for cohort in every if cohort.stop > (config.first or 0)]


def hyper_parameters(config: ZooConfig, networks: Sequence[int]) -> Columns:
    """Return each network's hyper-parameters: name -> array of shape [len(networks)].

    Lists are a grid: network i takes its combination i (modulo the number of combinations), the
    last list turning fastest. Ranges are drawn from a stream of the network's own.
    """
    names = hyper_parameter_names(config)
    grid = {name: _listed(config, name) for name in names}
    sizes = [len(values) for values in grid.values()]
    combinations = math.prod(sizes)
    places = [np.unravel_index(i % combinations, sizes) for i in networks]
    table = {name: [grid[name][place[axis]] for place in places] for axis, name in enumerate(grid)}
    for name, spec in ((n, getattr(config.vary, n)) for n in names):
        if isinstance(spec, RangeConfig):
            table[name] = [_drawn(config.seed, name, spec, i) for i in networks]
    return {name: np.array(values) for name, values in table.items()}


def _listed(config: ZooConfig, name: str) -> tuple[float | str, ...]:
    values = getattr(config.vary, name)
    fixed = values is None or isinstance(values, RangeConfig)
    return (_fixed(config.recipe, name),) if fixed else values


def _fixed(recipe: RecipeConfig, name: str) -> float | str:
    if name in _AUGMENTED:
        return getattr(recipe.augment, name)
    return recipe.prune.share if name == "prune_share" else getattr(recipe, name)


def _drawn(seed: int, name: str, spec: RangeConfig, network: int) -> float:
    uniform = numpy_stream(seed, name, network).uniform()
    if spec.scale == "log":
        return math.exp(math.log(spec.low) + uniform * math.log(spec.high / spec.low))
    return spec.low + uniform * (spec.high - spec.low)


def network_seed(config: ZooConfig, network: int) -> int:
    """Return the seed of a network's initial weights."""
    return seed_of(config.seed, "network", network)


def equal_runs(table: Columns, names: Sequence[str]) -> list[slice]:
    """Return the runs of neighbouring rows that agree in the named columns."""
    keys = list(zip(*(table[name].tolist() for name in names), strict=True))
    ends = list(itertools.accumulate(len(list(run)) for _, run in itertools.groupby(keys)))
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def split_rule(config: ZooConfig) -> Literal["networks", "blocks of steps"]:
    """Return in words how rows are split into train, val and test."""
    return BLOCKS_OF_STEPS if config.count == 1 else "networks"


def facts(
    config: ZooConfig,
    layout: Layout,
    *,
    method: Method,
    input_shape: tuple[int, ...],
    sound: Sound | None = None,
) -> Facts:
    """Return what a zoo that is trained so says of itself.

    Args:
        config: the zoo's settings.
        layout: of its networks.
        method: how its cohorts are computed.
        input_shape: of one prepared input.
        sound: the trial of networks that dwf did not write.
    """
    told = {name: value for name, value in vars(config).items() if name not in _OF_THE_MACHINE}
    told = told if config.first else {n: v for n, v in told.items() if n != "first"}
    told |= {"cohort": method.cohort, "method": method, "input_shape": input_shape}
    told["split_by"] = split_rule(config)
    told |= {"sound": sound} if sound else {}
    told["provenance"] = Trained(f"dwf {__version__}")
    return Facts(layout=layout, num_shards=config.num_shards, said=tuple(told), **told)
