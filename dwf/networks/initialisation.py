"""Initial weights of zoo members, each network from a seed of its own.

`default` is the architecture's own: PyTorch's for layers, torchvision's for its networks. The
others are those of DeepWeightFlow's Iris zoo (arXiv 2601.05052): Kaiming-uniform (`he`),
Xavier-uniform, uniform in +-0.1, normal with deviation 0.02; and those that Unterthiner et al.
(arXiv 2002.11448) draw from beside them: `he_normal`, `xavier_normal`, `orthogonal` and
`truncated_normal` (deviation 0.02, cut at two deviations); biases 0. They set linear, convolution
and attention layers; norm layers, class tokens and position embeddings keep `default`.
"""

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from dwf.networks.config import NetworkConfig
from dwf.networks.functional import build_network

_WEIGHTS = {
    "he": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "he_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "xavier": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "orthogonal": nn.init.orthogonal_,
    "uniform": lambda weight: nn.init.uniform_(weight, -0.1, 0.1),
    "normal": lambda weight: nn.init.normal_(weight, 0.0, 0.02),
    "truncated_normal": lambda weight: nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04),
}


@torch.no_grad()
def initialise(
    network: nn.Module, config: NetworkConfig, *, kind: str, seed: int, scale: float = 1.0
) -> None:
    """Set a network's weights and running statistics to their initial values, in place.

    Another is built under the seed, as its class alone may know how it begins.

    Args:
        network: of `build_network`.
        config: its architecture.
        kind: `default`, or another of the table.
        seed: of this network; the process's random state is left as it was.
        scale: factor of the layers' weights, biases left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.load_state_dict(build_network(config).state_dict())
        for name, parameter in layer_parameters(network).items():
            is_bias = name.endswith("bias")
            if kind != "default":
                parameter.zero_() if is_bias else _WEIGHTS[kind](parameter)
            if not is_bias:
                parameter.mul_(scale)  # by 1: not a bit changes


def layer_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return what linear, convolution and attention layers own, by name."""
    kinds = (nn.Linear, _ConvNd, nn.MultiheadAttention)
    layers = (module for module in network.modules() if isinstance(module, kinds))
    owned = {id(p) for layer in layers for p in layer.parameters(recurse=False)}
    return {name: one for name, one in network.named_parameters() if id(one) in owned}
