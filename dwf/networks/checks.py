"""Whether a state belongs to a network, and the mode it is run in."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from dwf.errors import ShapeMismatch
from dwf.networks.held import floats_of

_MOST_NAMED = 4


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Within the block the network is in evaluation mode; after it each module is as before."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def breaks_with_channels_last(network: nn.Module, device: str) -> bool:
    """Whether training a network with channels last in memory would corrupt memory here.

    Without AVX-512, oneDNN takes the gradient of a strided 1 x 1 filter by a kernel that writes
    beyond its buffer for fewer than eight channels (torch 2.14.1): the process dies, or goes on.

    Args:
        network: the architecture.
        device: `cpu` or `cuda`.
    """
    if device != "cpu" or torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    filters = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    return any(
        one.kernel_size == (1, 1) and max(one.stride) > 1 and one.in_channels // one.groups < 8
        for one in filters
    )


def check_state(network: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Refuse a state that is not the network's: the network's own weights would stand in.

    Args:
        network: the architecture.
        state: name -> tensor of shape [N, *shape].

    Raises:
        ShapeMismatch: tensors are missing, too many or of another shape; names the first of them.
    """
    owned = floats_of(network)
    missing, extra = [n for n in owned if n not in state], [n for n in state if n not in owned]
    wrong = [
        f"{n} {list(state[n].shape[1:])} instead of {list(t.shape)}"
        for n, t in owned.items()
        if n in state and state[n].shape[1:] != t.shape
    ]
    parts = (("lacks", missing), ("has no use for", extra), ("has of another shape", wrong))
    found = [f"{word} {_some(names)}" for word, names in parts if names]
    if found:
        raise ShapeMismatch(
            f"the weights are not those of a {type(network).__name__}: the state "
            f"{' and '.join(found)}; take the layout of the zoo that the weights came from"
        )


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
