"""The reference that a zoo's networks are matched to, found from its training networks alone.

Shape suffixes: D numbers of one network.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dwf.align.config import WITHOUT_REFERENCE, AlignConfig
from dwf.align.frame import Match
from dwf.align.groups import Group, permute
from dwf.align.shards import read_chunks
from dwf.errors import ConfigError, ShapeMismatch, TooFewNetworks
from dwf.metrics import Progress, logger
from dwf.ranks import world
from dwf.run_folder import load_state, save_state
from dwf.zoo.store import Zoo

# A round costs as much as aligning the zoo: below this relative gain another one is not worth it.
_LEAST_GAIN = 1e-4


def find_reference(
    zoo: Zoo,
    source: Zoo,
    *,
    groups: Sequence[Group],
    match: Match,
    config: AlignConfig,
    file: Path,
) -> torch.Tensor:
    """Return the reference that the settings ask for, float64, shape [D].

    Args:
        zoo: the zoo to align.
        source: the zoo that holds the network which is, or begins, the reference.
        groups: the groups of its architecture.
        match: how networks are matched.
        config: which reference, and how many rounds.
        file: where the rounds of an iterated mean are kept, so that an interrupted search goes on.

    Raises:
        ConfigError: the chosen network is no training network of this zoo.
        TooFewNetworks: the zoo has no training networks.
        CorruptShard: a training network is damaged.
        CorruptCheckpoint: what was kept of the rounds is damaged.
    """

    def read_start() -> torch.Tensor:
        row = reference_row(source, config)
        _, start_1D = next(read_chunks(source, np.array([row]), groups=groups))
        if config.method in WITHOUT_REFERENCE:
            orders = match(start_1D, start_1D[0])
            start_1D = permute(start_1D, zoo.layout, groups=groups, orders=orders)
        return start_1D[0].double()

    start_D = world().on_first(read_start)
    if config.reference == "network":
        return start_D
    return _iterated_mean(zoo, groups, match, start_D, config.max_rounds, file)


def refuse_other_architecture(zoo: Zoo, source: Zoo) -> None:
    """Raise unless a reference out of `source` can be one for `zoo`.

    Raises:
        ShapeMismatch: the zoos have other layouts.
    """
    if source.layout.digest == zoo.layout.digest:
        return
    shapes = [{e.name: list(e.shape) for e in z.layout.entries} for z in (zoo, source)]
    names = [name for name in shapes[0] | shapes[1] if shapes[0].get(name) != shapes[1].get(name)]
    told = ", ".join(
        f"{name} {shapes[0].get(name, 'absent')} and {shapes[1].get(name, 'absent')}"
        for name in names[:3]
    )
    raise ShapeMismatch(
        f"reference_zoo = {source.name!r} has the layout {source.layout.digest} of "
        f"{source.layout.size:,} numbers, {zoo.path} {zoo.layout.digest} of {zoo.layout.size:,} "
        f"({told}): take a reference from a zoo of the same architecture and width"
    )


def reference_row(zoo: Zoo, config: AlignConfig) -> int:
    """Return the row of the network that is, or begins, the reference; errors as above."""
    rows = zoo.rows(split="train", epoch="last")
    if not len(rows):
        raise TooFewNetworks(
            f"{zoo.path} has no training networks among its {len(zoo)}, and a reference is found "
            "from those alone: make a zoo with a smaller share of val and test networks"
        )
    if config.reference_network is None:
        return int(rows[0])
    networks = zoo.columns["network"][rows]
    if config.reference_network not in networks:
        raise ConfigError(
            f"reference_network = {config.reference_network}: not a training network of "
            f"{zoo.path}; it has {len(networks)} of them, from {networks.min()} to {networks.max()}"
        )
    return int(rows[networks == config.reference_network][0])


def _iterated_mean(
    zoo: Zoo,
    groups: Sequence[Group],
    match: Match,
    start_D: torch.Tensor,
    max_rounds: int,
    file: Path,
) -> torch.Tensor:
    """Match all training networks to the reference, take their mean as the next, and so on.

    Every round matches each network from its own order, as the held-out ones will be in the end.
    A mean is kept while its round brings the networks closer to each other: closeness is the
    squared norm of their mean, which is the mean inner product over all pairs.
    """
    ours = world()
    state = {"closeness": [], "best": start_D, "next": start_D}
    state = ours.on_first(lambda: load_state(file) if file.exists() else state)
    done, what = len(state["closeness"]), f"reference of {zoo.name}"
    with Progress(what, max_rounds, unit="rounds", done=done, bar=ours.is_first) as progress:
        while state["next"] is not None and len(state["closeness"]) < max_rounds:
            mean_D = _mean_of_aligned(zoo, groups, match, state["next"])
            # One rank decides: on other hardware the last bit of a product may differ.
            last = ours.on_first(_squared_norm, zoo.layout.learnt(mean_D))
            *before, _ = closeness = [*state["closeness"], last]
            if not before or last > before[-1] * (1 + _LEAST_GAIN):
                state = {"closeness": closeness, "best": state["next"], "next": mean_D}
            else:
                state = {"closeness": closeness, "best": state["best"], "next": None}
            ours.on_first(save_state, file, state)
            progress.update(len(closeness), **{"mean inner product": f"{last:.5g}"})
        progress.stop_here()
    told = state["closeness"][0], max(state["closeness"])
    logger.info("%s: mean inner product %.5g in the first round, %.5g in the best", what, *told)
    return state["best"] if state["next"] is None else state["next"]


def _squared_norm(mean_K: torch.Tensor) -> float:
    return float(mean_K @ mean_K)


def _mean_of_aligned(
    zoo: Zoo, groups: Sequence[Group], match: Match, reference_D: torch.Tensor
) -> torch.Tensor:
    """Sums of shards, added in their order: the same bits for any number of ranks."""
    rows = zoo.rows(split="train", epoch="last")
    ends = np.cumsum([shard.num_rows for shard in zoo.shards])
    of_shards = np.split(rows, np.searchsorted(rows, ends[:-1]))

    def sum_shard(index: int) -> np.ndarray:
        sum_D = torch.zeros_like(reference_D)
        for _, weights_BD in read_chunks(zoo, of_shards[index], groups=groups):
            orders = match(weights_BD, reference_D)
            sum_D += permute(weights_BD, zoo.layout, groups=groups, orders=orders).sum(
                0, dtype=torch.float64
            )
        return sum_D.numpy()

    sum_D = world().add_up(len(of_shards), sum_shard, shape=tuple(reference_D.shape))
    return torch.from_numpy(sum_D) / len(rows)
