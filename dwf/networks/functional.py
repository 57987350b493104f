"""Run and score N networks at once, as they lie in `weights_ND`.

`layout.unflatten(weights_ND)` gives their state without copying.

Shape suffixes: N networks, B images of a batch, M images of a part, K classes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dwf.datasets.dataset import Dataset, Part
from dwf.networks.config import NETWORKS, NetworkConfig
from dwf.settings import find

# Inputs and activations of one batch: past the cache every layer would be a trip to memory.
_ACTIVATION_BYTES = 8 * 2**20


def build_network(config: NetworkConfig) -> nn.Module:
    """Return one network of an architecture, in evaluation mode."""
    return find(NETWORKS, config.kind)(config).eval()


def run_networks(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    inputs: torch.Tensor,
    own_inputs: bool = False,
    drop: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return logits_NBK of N networks.

    Args:
        network: the architecture; its own weights take no part.
        state: name -> tensor of shape [N, *shape], as `Layout.unflatten` gives it.
        inputs: [B, *shape], shared by all networks, or, `own_inputs`, [N, B, *shape].
        own_inputs: whether each network has inputs of its own.
        drop: dropout on hidden activations; of architectures with `run_stacked` alone.
    """
    if hasattr(network, "run_stacked"):
        return network.run_stacked(state, inputs, own_inputs, drop)

    def run_one(one_state: dict[str, torch.Tensor], one_input: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(network, one_state, (one_input,))

    return torch.func.vmap(run_one, in_dims=(0, 0 if own_inputs else None))(dict(state), inputs)


@dataclass(frozen=True)
class Scores:
    """How good N networks are on the images of one part."""

    accuracy_N: np.ndarray
    """Share of images classified rightly, float64."""
    loss_N: np.ndarray
    """Mean cross-entropy in nats, float64."""
    wrong_NM: np.ndarray | None
    """Which images each network gets wrong, bool; None unless asked for."""


@torch.no_grad()
def score_networks(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    data: Dataset,
    part: Part,
    keep_wrong: bool = False,
    device: str = "cpu",
) -> Scores:
    """Score N networks on every image of a part.

    Args:
        network: the architecture, on `device`.
        state: name -> tensor of shape [N, *shape], as `Layout.unflatten(weights_ND)` gives it.
        data: prepares the images as the zoo's recipe says.
        part: `data.train`, `data.val` or `data.test`.
        keep_wrong: also return which images each network gets wrong.
        device: where to compute.

    Networks whose logits are not finite count as wrong on those images.
    """
    state = {name: tensor.to(device) for name, tensor in state.items()}
    num = len(next(iter(state.values())))
    widest = max(tensor[0].numel() for tensor in state.values() if tensor.dim() == 2)
    per_image = 4 * (math.prod(data.shape) + widest * num)
    num_images = len(part)
    loss_N = torch.zeros(num, dtype=torch.float64, device=device)
    wrong_NM = torch.empty(num, num_images, dtype=torch.bool, device=device)
    batch = max(64, min(num_images, _ACTIVATION_BYTES // per_image))
    for start in range(0, num_images, batch):
        images, labels = part.batch(torch.arange(start, min(start + batch, num_images)))
        labels = labels.to(device)
        logits_NBK = run_networks(network, state, data.prepare(images.to(device)))
        logits_NKB = logits_NBK.transpose(1, 2)
        labels_NB = labels.expand(num, -1)
        loss_N += cross_entropy(logits_NKB, labels_NB, reduction="none").double().sum(1)
        best_NB = logits_NKB.argmax(1)
        finite_NB = logits_NKB.isfinite().all(1)
        wrong_NM[:, start : start + batch] = (best_NB != labels_NB) | ~finite_NB
    accuracy_N = 1 - wrong_NM.double().mean(1)
    return Scores(
        accuracy_N.cpu().numpy(),
        (loss_N / num_images).cpu().numpy(),
        wrong_NM.cpu().numpy() if keep_wrong else None,
    )
