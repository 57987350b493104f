"""Tiny zoos of random networks for the predictors that look at networks, and the same, moved."""

import numpy as np
import torch

from dwf.align.groups import permute, random_orders, scale_units
from dwf.align.symmetry import zoo_symmetry
from dwf.networks.config import NetworkConfig
from dwf.networks.functional import build_network, network_logits
from dwf.predictors.examples import Examples
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo
from tests.zoos import facts_of, write_rows


def random_zoo(folder, network: NetworkConfig, *, count: int, seed: int = 0, shape=None) -> Zoo:
    """Networks whose weights have a size of their own: He's times e^x, x from -1 to 1."""
    layout, random = Layout.of(build_network(network)), np.random.default_rng(seed)
    weights = random.normal(size=(count, layout.size)).astype(np.float32)
    tensors, gain = layout.unflatten(weights), np.exp(random.uniform(-1, 1, count))
    for entry in layout.entries:
        tensor = tensors[entry.name]
        if len(entry.shape) > 1:
            per_network = gain.reshape(-1, *[1] * len(entry.shape))
            tensor *= per_network * (2 / np.prod(entry.shape[1:])) ** 0.5
        elif entry.role == "buffer" and "var" in entry.name:
            np.abs(tensor, out=tensor)
            tensor += 0.5
        else:
            tensor *= 0.3
            tensor += entry.role == "norm" and "weight" in entry.name
    told = {} if shape is None else {"input_shape": shape}
    return write_rows(folder, facts_of(layout, network, **told), weights)


def moved(zoo: Zoo, folder, *, seed: int = 1, how=("permutations", "scales", "signs")) -> Zoo:
    """The same functions: units of every traced group in another order, scale and sign."""
    groups, random = zoo_symmetry(zoo), torch.Generator().manual_seed(seed)
    weights = torch.from_numpy(zoo.read()).double()
    if "permutations" in how:
        orders = random_orders(groups, len(zoo), seed=seed)
        weights = permute(weights, zoo.layout, groups=groups, orders=orders)
    tensors = zoo.layout.unflatten(weights)
    for group in groups:
        factor_NU = torch.ones(len(zoo), group.size, dtype=torch.float64)
        if group.scales and "scales" in how:
            factor_NU *= (2 * torch.rand(factor_NU.shape, generator=random) - 1).exp()
        if group.signs and "signs" in how:
            factor_NU *= torch.randint(2, factor_NU.shape, generator=random) * 2 - 1
        scale_units(tensors, group, factor_NU=factor_NU)
    return write_rows(folder, zoo.facts, weights.float().numpy())


def answers(zoo: Zoo) -> torch.Tensor:
    """Logits of each network on 64 random inputs."""
    inputs = torch.randn(64, *zoo.input_shape, generator=torch.Generator().manual_seed(5))
    state = zoo.layout.unflatten(torch.from_numpy(zoo.read()))
    return network_logits(zoo.build_network(), state, images_MX=inputs).double()


def logit_sizes(zoo: Zoo) -> np.ndarray:
    """Logarithm of each network's mean absolute logit, float64_N."""
    return answers(zoo).abs().mean((1, 2)).log().numpy()


def first_class(zoo: Zoo) -> np.ndarray:
    """Mean probability that each network gives the first class, float64_N."""
    return answers(zoo).softmax(2)[:, :, 0].mean(1).numpy()


def examples_of(*zoos: Zoo, planted=logit_sizes) -> Examples:
    values_N = np.concatenate([planted(zoo) for zoo in zoos])
    sources = [(zoo, np.arange(len(zoo))) for zoo in zoos]
    return Examples(sources, ("planted", "minus"), np.stack([values_N, 1 - values_N], 1))


def spread(values: np.ndarray) -> float:
    """Root mean square deviation: what the constant gets wrong."""
    return float(values.std())
