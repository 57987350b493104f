"""Whether a fitted predictor says the same of networks that compute the same.

Units of every traced group are permuted at random, scaled by powers of two where all between maker
and taker is positively homogeneous, and changed in sign where it is odd. All three move or change
the numbers without rounding, so what a prediction changes by is the predictor's own doing.

Shape suffixes: N networks, D numbers of one network, P properties, U units of a group.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from dwf.align.groups import Group, Orders, permute, random_orders, scale_units
from dwf.align.symmetry import zoo_symmetry
from dwf.plain import Json
from dwf.predictors.config import Symmetry
from dwf.predictors.predictor import Predictor
from dwf.randomness import numpy_stream
from dwf.zoo.layout import Layout
from dwf.zoo.moments import Source
from dwf.zoo.store import Zoo, write_zoo

TOLERANCE = 1e-5
"""Largest change of a prediction, in the property's unit, of a predictor that is invariant."""
_POWERS = (-2, -1, 1, 2)


def largest_changes(
    predictor: Predictor, source: Source, *, unit_P: np.ndarray, seed: int = 0
) -> dict[str, Json]:
    """Return by how much each symmetry of the networks changes what a predictor says of them.

    Args:
        predictor: fitted; knows the layout.
        source: a zoo, and a few of its rows.
        unit_P: unit of each property: its standard deviation over the training networks.
        seed: of orders, scales and signs.

    Returns:
        Symmetry -> `largest`, the largest change of a prediction over its unit, and `claimed`,
        whether the predictor's settings claim that there is none. Of a symmetry that these networks
        do not have there is no entry; of networks whose symmetries nobody knows there is none.

    Raises:
        ConfigError: the network cannot be traced.
    """
    zoo, rows = source
    if not zoo.facts.network.is_known and zoo.facts.permutations is None:
        return {}
    groups = zoo_symmetry(zoo)
    before_NP = predictor.predict([source])
    unit_P = np.where(unit_P > 0, unit_P, 1.0)  # of a constant
    claimed, found = predictor.config.invariances, dict[str, Json]()
    weights_ND = torch.from_numpy(zoo.read(rows))
    for symmetry, changed_ND in changed_networks(weights_ND, zoo.layout, groups=groups, seed=seed):
        with tempfile.TemporaryDirectory() as folder:
            other = _with_weights(zoo, rows, weights_ND=changed_ND, folder=Path(folder))
            after_NP = predictor.predict([(other, np.arange(len(other)))])
        largest = float((np.abs(after_NP - before_NP) / unit_P).max(initial=0.0))
        found[symmetry] = {"largest": float(f"{largest:.2g}"), "claimed": symmetry in claimed}
    return found


def changed_networks(
    weights_ND: torch.Tensor, layout: Layout, *, groups: Sequence[Group], seed: int
) -> Iterator[tuple[Symmetry, torch.Tensor]]:
    """Yield each symmetry that networks have, and the networks changed by it; no function changes.

    Args:
        weights_ND: the networks, float32; they are left as they are.
        layout: their layout.
        groups: the groups of their architecture.
        seed: of what is drawn.
    """
    has = {
        "permutations": any(group.size > 1 for group in groups),
        "scales": any(group.scales for group in groups),
        "signs": any(group.signs for group in groups),
    }
    for symmetry in get_args(Symmetry):
        if not has[symmetry]:
            continue
        if symmetry == "permutations":
            orders = _random_orders(groups, len(weights_ND), seed)
            yield symmetry, permute(weights_ND, layout, groups=groups, orders=orders)
        else:
            yield symmetry, _scaled(weights_ND, layout, groups, symmetry, seed)


def _random_orders(groups: Sequence[Group], count: int, seed: int) -> Orders:
    """Return random orders, of each network another; none leaves all units where they are."""
    orders = random_orders(groups, count, seed=seed)
    for order_NU in orders:
        if order_NU.shape[1] > 1:
            still_N = (order_NU == torch.arange(order_NU.shape[1])).all(1)
            order_NU[still_N] = order_NU[still_N].roll(1, dims=1)
    return orders


def _scaled(
    weights_ND: torch.Tensor, layout: Layout, groups: Sequence[Group], symmetry: str, seed: int
) -> torch.Tensor:
    changed_ND = weights_ND.clone()
    tensors, stream = layout.unflatten(changed_ND), numpy_stream(seed, symmetry)
    for group in groups:
        shape = (len(weights_ND), group.size)
        if symmetry == "scales" and group.scales:
            factor_NU = 2.0 ** stream.choice(_POWERS, size=shape)
        elif symmetry == "signs" and group.signs:
            factor_NU = stream.choice((-1.0, 1.0), size=shape)
        else:
            continue
        scale_units(tensors, group, factor_NU=torch.from_numpy(factor_NU).float())
    return changed_ND


def _with_weights(zoo: Zoo, rows: np.ndarray, *, weights_ND: torch.Tensor, folder: Path) -> Zoo:
    """Write rows of a zoo with other weights; the table says of them what it said."""
    facts = replace(zoo.facts, num_shards=1)
    own = ("checksum",)  # which the shard makes itself
    columns = {name: values_N[rows] for name, values_N in zoo.columns.items() if name not in own}
    blocks = [(columns, weights_ND.numpy())]
    return write_zoo(folder / zoo.name, facts, num_rows=len(rows), blocks=blocks)
