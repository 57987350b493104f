"""Zoos of random networks for the tests of predictors, and their units in another order."""

from collections.abc import Sequence

import numpy as np
import torch

from dwf.align.groups import Group, permute, random_orders, scale_units
from dwf.align.symmetry import zoo_symmetry
from dwf.datasets.config import DataConfig
from dwf.networks.functional import build_network
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo
from tests.zoos import facts_of, write_rows


def zoo_of_networks(folder, network, *, count: int, seed: int, data: str = "digits") -> Zoo:
    """Networks whose tensors are normal, with variances of 2 over fan-in; statistics positive."""
    layout = Layout.of(build_network(network))
    random = np.random.default_rng(seed)
    weights_ND = random.normal(size=(count, layout.size))
    spread_N1 = random.uniform(0.5, 1.5, (count, 1))
    for entry in layout.entries:
        part = weights_ND[:, entry.offset : entry.stop]
        if len(entry.shape) > 1:
            part *= spread_N1 * (2 * entry.shape[0] / entry.size) ** 0.5
        elif entry.name.endswith("running_var"):
            part[:] = 0.5 + np.abs(part)
        elif entry.role == "norm" and entry.name.endswith("weight"):
            part[:] = 1 + 0.1 * part
        else:
            part *= 0.2
    facts = facts_of(layout, network, data=DataConfig(data))
    return write_rows(folder, facts, weights_ND)


def changed(folder, zoo: Zoo, symmetry: str, *, seed: int = 5) -> Zoo:
    """The same networks, the units of every traced group in another order, scale or sign."""
    groups = zoo_symmetry(zoo)
    weights_ND = torch.from_numpy(zoo.read()).double()
    if symmetry == "permutations":
        orders = random_orders(groups, len(zoo), seed=seed)
        weights_ND = permute(weights_ND, zoo.layout, groups=groups, orders=orders)
    else:
        _rescale(zoo.layout.unflatten(weights_ND), groups, len(zoo), symmetry, seed)
    return write_rows(folder, zoo.facts, weights_ND.float().numpy())


def _rescale(tensors, groups: Sequence[Group], count: int, symmetry: str, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    able = [group for group in groups if getattr(group, symmetry)]
    assert able, f"no unit of these networks has {symmetry}"
    for group in able:
        drawn_NU = torch.rand(count, group.size, generator=random, dtype=torch.float64)
        factor_NU = drawn_NU + 0.5 if symmetry == "scales" else (drawn_NU < 0.5) * 2.0 - 1
        scale_units(tensors, group, factor_NU=factor_NU)
