"""Run and score N networks at once, as they lie in `weights_ND`.

`layout.unflatten(weights_ND)` gives their state without copying.

Shape suffixes: N networks, B images of a batch, M images of a part, K classes.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeGuard, runtime_checkable

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _NormBase

from dwf.datasets.dataset import Dataset, Part
from dwf.errors import ConfigError
from dwf.networks.checks import check_state, evaluating
from dwf.networks.config import NETWORKS, NetworkConfig
from dwf.networks.watched import watched
from dwf.room import whole_numbers, within_memory
from dwf.settings import find

# Inputs and activations of one batch: past the cache every layer would be a trip to memory.
# Measured with convolutions too: the largest tensor of a batch is best at about this size.
_ACTIVATION_BYTES = 8 * 2**20
_FEWEST_IMAGES, _MOST_IMAGES = 16, 256
# On a GPU: what the activations of all networks run at once may take, and the batch to start from.
_DEVICE_BYTES = 2 * 2**30
_DEVICE_IMAGES = 256
# Settings whose whole numbers make so little together describe no network of gigabytes.
_SMALL_SUM = 1000
# A layer's input, its output and a shortcut or concatenation lie in memory at the same time.
_LIVE_TENSORS = 3


@runtime_checkable
class Stacked(Protocol):
    """An architecture whose module runs N networks as one program of its own."""

    def run_stacked(
        self,
        state: Mapping[str, torch.Tensor],
        inputs: torch.Tensor,
        *,
        own_inputs: bool = False,
        drop: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return logits_NBK of N networks; arguments as of `run_networks`."""


def is_stacked(network: nn.Module) -> TypeGuard[Stacked]:
    """Whether networks of this architecture run as one program of its own; others are batched."""
    return isinstance(network, Stacked)


def build_network(config: NetworkConfig) -> nn.Module:
    """Return one network of an architecture, in evaluation mode.

    Raises:
        TooLarge: this machine's memory does not hold it; of dwf's own architectures.
    """
    kind = find(NETWORKS, config.kind)
    if config.is_foreign or sum(n for _, n in whole_numbers(config, "network")) < _SMALL_SUM:
        return kind(config).eval()
    return within_memory(lambda: kind(config), config, key="network").eval()


def run_networks(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    *,
    inputs: torch.Tensor,
    own_inputs: bool = False,
    drop: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return logits_NBK of N networks.

    An architecture with `run_stacked` runs all of them as one program. Others run one after the
    other on the CPU, where batched convolutions gain nothing, and under `vmap` on a GPU.

    The network's own `training` flags decide on dropout, drawn from torch's global generator
    (`dwf.randomness.seeded` sets it), and on BatchNorm: in training mode the running statistics
    in `state` are updated in place.

    Args:
        network: the architecture; its own weights take no part.
        state: name -> tensor of shape [N, *shape], as `Layout.unflatten` gives it.
        inputs: [B, *shape], shared by all networks, or, `own_inputs`, [N, B, *shape].
        own_inputs: whether each network has inputs of its own.
        drop: dropout on hidden activations; of architectures with `run_stacked` alone.

    Raises:
        ConfigError: `drop` for an architecture that has dropout as a setting of its own.
    """
    if is_stacked(network):
        return network.run_stacked(state, inputs, own_inputs=own_inputs, drop=drop)
    if drop is not None:
        raise ConfigError(
            f"{type(network).__name__} takes no dropout from the recipe: set recipe.dropout to 0, "
            "and network.dropout where the architecture has it"
        )
    several = len(next(iter(state.values()))) > 1
    run = run_under_vmap if several and inputs.is_cuda else run_one_by_one
    return run(network, state, inputs=inputs, own_inputs=own_inputs)


def run_one_by_one(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    *,
    inputs: torch.Tensor,
    own_inputs: bool = False,
) -> torch.Tensor:
    """Return logits_NBK of networks run in turn; arguments as of `run_networks`."""
    num = len(next(iter(state.values())))
    if num == 1:  # a view: its gradient needs no copy
        states = [{name: tensor.squeeze(0) for name, tensor in state.items()}]
    else:
        parts = {name: tensor.unbind(0) for name, tensor in state.items()}
        states = [{name: part[i] for name, part in parts.items()} for i in range(num)]
    logits = [
        functional_call(network, one, (inputs[i] if own_inputs else inputs,))
        for i, one in enumerate(states)
    ]
    return torch.stack(logits)


def run_under_vmap(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    *,
    inputs: torch.Tensor,
    own_inputs: bool = False,
) -> torch.Tensor:
    """Return logits_NBK of networks run as one program; arguments as of `run_networks`."""

    def run_one(one_state: dict[str, torch.Tensor], one_input: torch.Tensor) -> torch.Tensor:
        return functional_call(network, one_state, (one_input,))

    run_all = vmap(run_one, in_dims=(0, 0 if own_inputs else None), randomness="different")
    with plain_attention(inputs.is_cuda):
        return run_all(dict(state), inputs)


@contextlib.contextmanager
def plain_attention(on_gpu: bool) -> Iterator[None]:
    """Within the block attention does without fused kernels that `vmap` cannot batch."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    batched = contextlib.nullcontext() if on_gpu else sdpa_kernel(SDPBackend.MATH)
    try:
        with batched:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def batchnorm_layers(network: nn.Module) -> dict[str, _NormBase]:
    """Return the layers that keep running statistics, by name.

    These are BatchNorm, and InstanceNorm where it was told to track them.
    """
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _NormBase) and module.running_mean is not None
    }


def has_batchnorm(network: nn.Module) -> bool:
    """Return whether a network has BatchNorm layers with running statistics."""
    return bool(batchnorm_layers(network))


def batchnorm_buffers(network: nn.Module) -> tuple[str, ...]:
    """Return the names of all running means and variances."""
    return tuple(
        f"{name}.{leaf}" if name else leaf
        for name in batchnorm_layers(network)
        for leaf in ("running_mean", "running_var")
    )


@torch.no_grad()
def activation_bytes(network: nn.Module, shape: tuple[int, ...], *, device: str = "cpu") -> int:
    """Return the bytes of the largest tensor one image of shape [*shape] makes, as measured."""
    largest = math.prod(shape) * 4

    def note(_name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, torch.Tensor):
            largest = max(largest, output.numel() * output.element_size() // 2)

    dtype = next(network.parameters()).dtype
    with evaluating(network), watched(dict(network.named_modules()), note):
        network(torch.zeros(2, *shape, dtype=dtype, device=device))
    return largest


@dataclass(frozen=True)
class Portion:
    """How much of a task is computed at once, so that activations stay within a bound."""

    networks: int
    """Networks at once, N."""
    images: int
    """Images of a batch, B."""


def portion(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    *,
    shape: tuple[int, ...],
    device: str = "cpu",
) -> Portion:
    """Return how many networks and images fit at once for inputs of shape [*shape].

    On the CPU as many images as the cache holds activations of; on a GPU what fits 2 GiB.
    """
    num = len(next(iter(state.values())))
    if is_stacked(network):
        widest = max(tensor[0].numel() for tensor in state.values() if tensor.dim() == 2)
        per_image = 4 * (math.prod(shape) + widest * num)
        return Portion(num, max(64, _ACTIVATION_BYTES // per_image))
    per_image = activation_bytes(network, shape, device=device)
    if not str(device).startswith("cuda"):
        images = max(_FEWEST_IMAGES, min(_MOST_IMAGES, _ACTIVATION_BYTES // per_image))
        return Portion(num, images)
    fitting = max(1, _DEVICE_BYTES // (_LIVE_TENSORS * per_image))
    networks = max(1, min(num, fitting // _DEVICE_IMAGES))
    return Portion(networks, max(_FEWEST_IMAGES, fitting // networks))


@dataclass(frozen=True)
class Scores:
    """How good N networks are on the images of one part."""

    accuracy_N: np.ndarray
    """Share of images classified rightly, float64."""
    loss_N: np.ndarray
    """Mean cross-entropy in nats, float64."""
    wrong_NM: np.ndarray | None
    """Which images each network gets wrong, bool; None unless asked for."""
    answers_NM: np.ndarray | None = None
    """The class each network answers, int16, -1 where its logits are not finite; None unless asked
    for."""
    votes_MK: np.ndarray | None = None
    """Sum of the logits of the networks that vote, float64; None where none does."""


@torch.no_grad()
def score_networks(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    *,
    data: Dataset,
    part: Part,
    keep_wrong: bool = False,
    device: str = "cpu",
    keep_answers: bool = False,
    voting_N: np.ndarray | None = None,
    counted_NM: torch.Tensor | None = None,
) -> Scores:
    """Score N networks on every image of a part.

    Args:
        network: the architecture, on `device`.
        state: name -> tensor of shape [N, *shape], as `Layout.unflatten(weights_ND)` gives it.
        data: prepares the images as the zoo's recipe says.
        part: `data.train`, `data.val` or `data.test`.
        keep_wrong: also return which images each network gets wrong.
        device: where to compute.
        keep_answers: also return which class each network answers.
        voting_N: networks whose logits are also returned, summed, bool.
        counted_NM: images that each network is scored on, bool; default: all.

    Networks whose logits are not finite count as wrong on those images. Scored in evaluation
    mode, with the running statistics in `state`.

    Raises:
        ShapeMismatch: the state is not of this network.
    """
    check_state(network, state)
    num, num_images = len(next(iter(state.values()))), len(part)
    at_once = portion(network, state, shape=data.shape, device=device)
    tally = _Tally.of(num, num_images, device=device, keep_answers=keep_answers)
    tally = replace(tally, counted_NM=None if counted_NM is None else counted_NM.to(device))
    for first in range(0, num, at_once.networks):
        rows = slice(first, first + at_once.networks)
        some = {name: tensor[rows].to(device) for name, tensor in state.items()}
        voting = np.flatnonzero(voting_N[rows]) if voting_N is not None else []
        with evaluating(network):
            _score_some(network, some, data, part, at_once.images, tally.of_rows(rows, voting))
    accuracy_N, loss_N = tally.means()
    return Scores(
        accuracy_N.cpu().numpy(),
        loss_N.cpu().numpy(),
        wrong_NM=tally.wrong_NM.cpu().numpy() if keep_wrong else None,
        answers_NM=tally.answers_NM.cpu().numpy() if keep_answers else None,
        votes_MK=torch.cat(list(tally.votes.values())).cpu().numpy() if tally.votes else None,
    )


@torch.no_grad()
def network_logits(
    network: nn.Module, state: Mapping[str, torch.Tensor], *, images_MX: torch.Tensor
) -> torch.Tensor:
    """Return logits_NMK of N networks on prepared images, in evaluation mode.

    Args:
        network: the architecture, on the device of the images.
        state: name -> tensor of shape [N, *shape], there too.
        images_MX: prepared images, as many as memory holds.
    """
    num, device = len(next(iter(state.values()))), str(images_MX.device)
    at_once = portion(network, state, shape=tuple(images_MX.shape[1:]), device=device)
    parts = []
    with evaluating(network):
        for first in range(0, num, at_once.networks):
            some = {
                name: tensor[first : first + at_once.networks] for name, tensor in state.items()
            }
            batches = images_MX.split(at_once.images)
            logits = [run_networks(network, some, inputs=images_BX) for images_BX in batches]
            parts.append(torch.cat(logits, 1))
    return torch.cat(parts)


@dataclass(frozen=True)
class _Tally:
    """Results that are filled in, in place, while images are run."""

    loss_N: torch.Tensor
    wrong_NM: torch.Tensor
    answers_NM: torch.Tensor | None
    votes: dict[int, torch.Tensor]
    """Number of a batch's first image -> votes_BK."""
    voting: Sequence[int] = ()
    """Which of the networks vote."""
    counted_NM: torch.Tensor | None = None
    """Images that each network is scored on; None: all."""

    @classmethod
    def of(cls, num: int, num_images: int, *, device: str, keep_answers: bool) -> "_Tally":
        size, answers_NM = (num, num_images), None
        if keep_answers:
            answers_NM = torch.empty(size, dtype=torch.int16, device=device)
        loss_N = torch.zeros(num, dtype=torch.float64, device=device)
        wrong_NM = torch.empty(size, dtype=torch.bool, device=device)
        return cls(loss_N, wrong_NM, answers_NM=answers_NM, votes={})

    def of_rows(self, rows: slice, voting: Sequence[int]) -> "_Tally":
        answers_NM = None if self.answers_NM is None else self.answers_NM[rows]
        return _Tally(
            self.loss_N[rows],
            self.wrong_NM[rows],
            answers_NM=answers_NM,
            votes=self.votes,
            voting=voting,
            counted_NM=None if self.counted_NM is None else self.counted_NM[rows],
        )

    def means(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return accuracy_N and the mean loss_N of the images that count."""
        if self.counted_NM is None:
            num_images = self.wrong_NM.shape[1]
            return 1 - self.wrong_NM.double().mean(1), self.loss_N / num_images
        num_N = self.counted_NM.sum(1)
        right_N = (self.counted_NM & ~self.wrong_NM).sum(1)
        return right_N.double() / num_N, self.loss_N / num_N


def _score_some(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    data: Dataset,
    part: Part,
    batch: int,
    tally: _Tally,
) -> None:
    """Run networks on all images, batch by batch."""
    (num, num_images), device = tally.wrong_NM.shape, tally.loss_N.device
    for start in range(0, num_images, batch):
        images, labels = part.batch(torch.arange(start, min(start + batch, num_images)))
        logits_NBK = run_networks(network, state, inputs=data.prepare(images.to(device)))
        logits_NKB = logits_NBK.transpose(1, 2)
        labels_NB = labels.to(device).expand(num, -1)
        losses_NB = cross_entropy(logits_NKB, labels_NB, reduction="none").double()
        if tally.counted_NM is not None:
            losses_NB = losses_NB * tally.counted_NM[:, start : start + batch]
        tally.loss_N.add_(losses_NB.sum(1))
        best_NB = logits_NKB.argmax(1)
        finite_NB = logits_NKB.isfinite().all(1)
        tally.wrong_NM[:, start : start + batch] = (best_NB != labels_NB) | ~finite_NB
        if tally.answers_NM is not None:
            tally.answers_NM[:, start : start + batch] = best_NB.masked_fill(~finite_NB, -1)
        if len(tally.voting):
            votes_BK = logits_NBK[torch.as_tensor(tally.voting)].double().sum(0)
            tally.votes[start] = votes_BK + tally.votes.get(start, 0)
