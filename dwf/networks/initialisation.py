"""Initial weights of zoo members, each network from a seed of its own.

`default` is PyTorch's own. The others are those of DeepWeightFlow's Iris zoo (arXiv 2601.05052):
Kaiming-uniform (`he`), Xavier-uniform, uniform in +-0.1, normal with deviation 0.02; biases 0.
"""

import torch
from torch import nn

_WEIGHTS = {
    "he": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "xavier": nn.init.xavier_uniform_,
    "uniform": lambda weight: nn.init.uniform_(weight, -0.1, 0.1),
    "normal": lambda weight: nn.init.normal_(weight, 0.0, 0.02),
}


@torch.no_grad()
def initialise(network: nn.Module, kind: str, seed: int) -> None:
    """Set a network's weights to their initial values, in place.

    Args:
        network: any module whose layers have `reset_parameters`.
        kind: `default`, `he`, `xavier`, `uniform` or `normal`.
        seed: of this network; the process's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        if kind == "default":
            return
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.dim() > 1:
                _WEIGHTS[kind](parameter)
