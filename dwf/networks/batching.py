"""Whether networks of an architecture can be run as one program under `torch.func.vmap`.

Control flow that depends on numbers, writing into what is not batched and some operations cannot.

Shape suffixes: B images.
"""

import copy

import torch
from torch import nn

from dwf.networks.functional import run_one_by_one, run_under_vmap
from dwf.networks.held import floats_of

_TOLERANCE = 1e-4  # of the largest logit: batched sums have another order


def why_not_batched(
    network: nn.Module, images: torch.Tensor, *, own_inputs: bool = True
) -> str | None:
    """Return why two networks do not run as one program as they do alone; None if they do.

    Args:
        network: the architecture, in evaluation mode; left as it is.
        images: [B, *shape], float32.
        own_inputs: whether each network is given images of its own in training.
    """
    tried, stream = copy.deepcopy(network), torch.Generator().manual_seed(0)
    floats = floats_of(tried)
    parameters = dict(tried.named_parameters())
    state = {name: torch.stack([tensor.detach()] * 2) for name, tensor in floats.items()}
    for name in parameters:
        state[name] += 0.01 * torch.randn(state[name].shape, generator=stream)
    try:
        with torch.no_grad():
            alone = run_one_by_one(tried, state, inputs=images)
            batched = run_under_vmap(tried, state, inputs=images)
        largest = alone.abs().max().item()
        if not torch.allclose(alone, batched, rtol=0, atol=_TOLERANCE * largest, equal_nan=True):
            return "batched they answer otherwise than one by one"
        learnt = {name: state[name].requires_grad_() for name in parameters}
        inputs = torch.stack([images, images]) if own_inputs else images
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            logits = run_under_vmap(
                tried.train(), state | learnt, inputs=inputs, own_inputs=own_inputs
            )
            logits.logsumexp(-1).sum().backward()
    except Exception as error:  # the user's code and torch's rules: any error means that it cannot
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None
