"""Rows laid into a network as it is, random states, and what modules give on the way.

Shape suffixes: B images, K classes.
"""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from dwf.networks.held import floats_of
from dwf.networks.watched import watched

State = dict[str, torch.Tensor]
_TOLERANCE = 1e-5  # of the largest logit: processes may differ in the last bits of sums


def agree(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two results are equal but for the last bits of sums; NaN equals NaN."""
    if one.shape != other.shape:
        return False
    one, other = one.double(), other.double()
    finite = one[one.isfinite()]
    largest = finite.abs().max().item() if finite.numel() else 0.0
    return torch.allclose(one, other, rtol=0.0, atol=_TOLERANCE * largest, equal_nan=True)


def beside(network: nn.Module, row: State) -> State:
    """Return copies of the buffers that a row does not hold: counters, tables of integers."""
    return {n: buffer.clone() for n, buffer in network.named_buffers() if n not in row}


@torch.no_grad()
def lay(network: nn.Module, state: State) -> None:
    """Copy tensors into a network, in place."""
    held = dict(network.named_parameters()) | dict(network.named_buffers())
    for name, tensor in state.items():
        held[name].copy_(tensor)


@torch.no_grad()
def shaken_row(network: nn.Module, images: torch.Tensor) -> State:
    """Return a row in which everything counts: a layer that begins with zeros hides all before it.

    The network's own first numbers, where others give logits that are not finite.

    Args:
        network: as it begins; left so.
        images: [B, *shape].
    """
    begun = {name: tensor.clone() for name, tensor in floats_of(network).items()}
    stream = torch.Generator().manual_seed(0)
    row = dict(begun)
    for name, parameter in network.named_parameters():
        if name in begun:
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 25
            row[name] = begun[name] + 0.5 * fan_in**-0.5 * torch.randn(
                parameter.shape, generator=stream
            )
    lay(network, row)
    try:
        logits = network(images.clone())
    except Exception:  # told where it is run in earnest
        return begun
    finally:
        lay(network, begun)
    is_good = isinstance(logits, torch.Tensor) and bool(logits.isfinite().all())
    return row if is_good else begun


def seed_all(torch_seed: int, others: int) -> None:
    """Seed torch's global generator, and those of NumPy and `random`."""
    torch.manual_seed(torch_seed)
    np.random.seed(others)
    random.seed(others)


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """After the block global random numbers go on as if it had not been."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


@contextlib.contextmanager
def outputs_of(network: nn.Module) -> Iterator[list[tuple[str, torch.Tensor]]]:
    """Yield a list that gets (name, output) of each module as it ends; the network is `forward`."""
    told: list[tuple[str, torch.Tensor]] = []

    def note(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            told.append((name or "forward", output.detach().clone()))

    modules = {
        name: module
        for name, module in network.named_modules()
        if not isinstance(module, torch.jit.ScriptModule)  # which takes no hooks
    }
    with watched(modules, note):
        yield told
