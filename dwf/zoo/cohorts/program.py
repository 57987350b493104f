"""The program that trains N networks of a cohort: forward, loss, gradients, update.

One network is trained as a module, by itself; MLPs are stacked; others are batched by `vmap`.

Shape suffixes: N networks of the cohort, B images of a batch, K classes.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dwf.errors import ConfigError
from dwf.networks.checks import breaks_with_channels_last
from dwf.networks.functional import (
    batchnorm_layers,
    build_network,
    is_stacked,
    run_under_vmap,
)
from dwf.networks.held import floats_of
from dwf.networks.initialisation import initialise
from dwf.plain import Json
from dwf.randomness import seed_of
from dwf.zoo import roster
from dwf.zoo.cohorts import prune
from dwf.zoo.config import KeepSteps, ZooConfig
from dwf.zoo.facts import Method
from dwf.zoo.layout import Layout
from dwf.zoo.shard import Columns


@dataclass(frozen=True)
class Start:
    """Networks that training goes on from, in place of initial weights."""

    weights_ND: torch.Tensor
    """Rows of the cohort's networks, in the order of their numbers; float32."""
    frozen: tuple[str, ...] = ()
    """Names of parameters that stay as they are."""
    look_every: int | None = None
    """Steps between two looks at each network's accuracy on validation images, beside those after
    each epoch; None: none."""


OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
"""Makers of the optimisers that recipes name."""
GROUPED_BY = ("optimizer", "learning_rate", "weight_decay", "momentum")
Drop = Callable[[torch.Tensor], torch.Tensor]


class Program:
    """N networks with recipes of their own, and the arithmetic of a step.

    Args:
        config: the zoo's settings.
        method: how it is computed.
        table: the networks' hyper-parameters, see `roster.hyper_parameters`; networks with equal
            settings of the optimiser side by side.
        frozen: names of parameters that stay as they are.
    """

    def __init__(
        self, config: ZooConfig, method: Method, *, table: Columns, frozen: Sequence[str] = ()
    ):
        self.config, self.recipe, self.method = config, config.recipe, method
        self.table = table
        self.num = len(table["learning_rate"])
        self.network = build_network(config.network).train()
        freeze(self.network, frozen)
        self.layout = Layout.of(self.network)
        self.is_stacked = is_stacked(self.network)
        self.is_alone = self.num == 1 and not self.is_stacked
        self.masks: prune.Masks = {}
        self._set_dropout()

    def start(self, networks: Sequence[int], weights_ND: torch.Tensor | None = None) -> None:
        """Give the networks their initial weights, and make their optimisers.

        Args:
            networks: their indices in the zoo, in the table's order.
            weights_ND: their weights, in that order; None: a new initialisation of each.
        """
        self._place(self._initial(networks) if weights_ND is None else self._given(weights_ND))
        table = {name: self.table[name] for name in GROUPED_BY}
        self._make_optimizers(table)
        forward = self._alone if self.is_alone else self._batched
        self._forward = torch.compile(forward) if self.method.compile else forward

    def _initial(self, networks: Sequence[int]) -> list[torch.Tensor]:
        """Return initial rows; of a network alone none, since the module holds them."""
        rows, kinds = [], self.table["initialisation"]
        scales = self.table.get("initialisation_scale", np.ones(self.num))
        for network, kind, scale in zip(networks, kinds, scales, strict=True):
            seed = roster.network_seed(self.config, int(network))
            initialise(
                self.network, self.config.network, kind=str(kind), seed=seed, scale=float(scale)
            )
            if not self.is_alone:
                rows.append(self.layout.flatten(floats_of(self.network)))
        return rows

    @torch.no_grad()
    def _given(self, weights_ND: torch.Tensor) -> list[torch.Tensor]:
        """Return given rows; a network alone takes them into its module."""
        if not self.is_alone:
            return list(weights_ND)
        held = self.network.state_dict()  # shares memory with the module
        for name, tensor in self.layout.unflatten(weights_ND[0]).items():
            held[name].copy_(tensor)
        return []

    def _place(self, rows: list[torch.Tensor]) -> None:
        """Make `state`, name -> [N, *shape], and `learnt`, the leaves by name."""
        if self.is_alone:
            self._refuse_broken_order()
            order = torch.channels_last if self.method.channels_last else torch.preserve_format
            self.network.to(device=self.method.device, memory_format=order)
            held = self.network.state_dict()  # shares memory with the module
            self.state = {e.name: held[e.name].unsqueeze(0) for e in self.layout.entries}
            self.learnt = learnable(self.network)
            return
        views = self.layout.unflatten(torch.stack(rows))
        self.network.to(self.method.device)
        self.state = {n: view.contiguous().to(self.method.device) for n, view in views.items()}
        names = learnable(self.network)
        self.learnt = {n: t.requires_grad_() for n, t in self.state.items() if n in names}

    def _refuse_broken_order(self) -> None:
        method = self.method
        if method.channels_last and breaks_with_channels_last(self.network, method.device):
            raise ConfigError(
                "compute.channels_last = true: on a processor without AVX-512 torch corrupts "
                "memory where a strided 1 x 1 convolution takes fewer than eight channels, as this "
                "network's does: set it to false, or train it on another machine"
            )

    def _make_optimizers(self, table: Columns) -> None:
        """One optimiser of each kind, with `param_groups`: runs of networks with equal settings."""
        self.slices: list[tuple[torch.Tensor, torch.Tensor, slice]] = []
        param_groups: dict[str, list[dict[str, Json]]] = {}
        for rows in roster.equal_runs(table, GROUPED_BY):
            first = {name: table[name][rows.start].item() for name in GROUPED_BY}
            kind, parts = first["optimizer"], list(self.learnt.values())
            if not self.is_alone:
                parts = [tensor.detach()[rows] for tensor in parts]
                self.slices += [
                    (p, t, rows) for p, t in zip(parts, self.learnt.values(), strict=True)
                ]
            group = {"params": parts, "lr": first["learning_rate"], "base": first["learning_rate"]}
            group["weight_decay"] = first["weight_decay"]
            if kind == "sgd":
                group |= {"momentum": first["momentum"], "nesterov": self.recipe.nesterov}
            param_groups.setdefault(kind, []).append(group)
        self.optimizers = {
            kind: OPTIMIZERS[kind](parts, lr=1e-3, fused=True)
            for kind, parts in param_groups.items()
        }

    @property
    def counters(self) -> dict[str, torch.Tensor]:
        """Buffers that no row holds, by name, as training moves them: BatchNorm's steps."""
        buffers = self.network.named_buffers()
        return {name: buffer for name, buffer in buffers if name not in self.state}

    def learn_only(self, keep: KeepSteps) -> None:
        """Go on with some layers, and an optimiser of their own."""
        chosen = names_found(self.learnt, keep.layers)
        for name, tensor in self.learnt.items():
            tensor.grad = None
            tensor.requires_grad_(name in chosen)
        self.learnt = {name: self.learnt[name] for name in chosen}
        given = (keep.optimizer, keep.learning_rate, keep.weight_decay, self.recipe.momentum)
        pairs = zip(GROUPED_BY, given, strict=True)
        self._make_optimizers({name: np.full(self.num, value) for name, value in pairs})

    def set_rate(self, factor: float, momentum: float | None) -> None:
        """Set the learning rate to its base times a factor, and perhaps the momentum."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * factor
                if momentum is not None and group.get("momentum"):
                    group["momentum"] = momentum
                elif momentum is not None and "betas" in group:
                    group["betas"] = (momentum, group["betas"][1])

    def step(
        self,
        inputs: torch.Tensor,
        labels_NB: torch.Tensor,
        *,
        own_inputs: bool,
        drop: Drop | None,
        stream: tuple[int | str, ...],
    ) -> torch.Tensor:
        """Take a step and return loss_N.

        Args:
            inputs: [N, B, *shape] of `own_inputs`, else [B, *shape].
            labels_NB: int64.
            own_inputs: whether each network has inputs of its own.
            drop: dropout of stacked networks.
            stream: names the random stream of what other networks drop.
        """
        with self._drawn_from(stream), self._autocast():
            logits_NBK = self._forward(inputs, own_inputs, drop)
        loss_N = self._losses(logits_NBK.float(), labels_NB)
        for tensor in self.learnt.values():
            tensor.grad = None
        loss_N.sum().backward()  # each network's gradient is its own: the sum mixes nothing
        self._clip()
        for part, whole, rows in self.slices:
            part.grad = None if whole.grad is None else whole.grad[rows]  # of one that is not used
        for optimizer in self.optimizers.values():
            optimizer.step()
        prune.enforce(self.state, self.masks)
        return loss_N.detach()

    @contextlib.contextmanager
    def _drawn_from(self, stream: tuple[int | str, ...]) -> Iterator[None]:
        """Within the block layers of the network draw from a named stream.

        Not by `torch.manual_seed`, which keeps a record of every call for GPUs not yet used.
        """
        if self.is_stacked:
            yield
            return
        on_gpu = self.method.device == "cuda"
        generator = (
            torch.cuda.default_generators[torch.cuda.current_device()]
            if on_gpu
            else torch.default_generator
        )
        before = generator.get_state()
        generator.manual_seed(seed_of(self.config.seed, *stream))
        yield
        generator.set_state(before)

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.method.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.method.device, torch.bfloat16)

    def _losses(self, logits_NBK: torch.Tensor, labels_NB: torch.Tensor) -> torch.Tensor:
        how = {"reduction": "none", "label_smoothing": self.recipe.label_smoothing}
        if self.is_alone:  # the kernel for rows is the faster one
            return cross_entropy(logits_NBK[0], labels_NB[0], **how).mean().unsqueeze(0)
        return cross_entropy(logits_NBK.transpose(1, 2), labels_NB, **how).mean(1)

    def _alone(self, inputs: torch.Tensor, own_inputs: bool, drop: Drop | None) -> torch.Tensor:
        return self.network(inputs[0] if own_inputs else inputs).unsqueeze(0)

    def _batched(self, inputs: torch.Tensor, own_inputs: bool, drop: Drop | None) -> torch.Tensor:
        if self.is_stacked:
            return self.network.run_stacked(self.state, inputs, own_inputs=own_inputs, drop=drop)
        return run_under_vmap(self.network, self.state, inputs=inputs, own_inputs=own_inputs)

    def _clip(self) -> None:
        """Scale each network's gradient down to the largest norm allowed."""
        if self.recipe.clip_norm is None:
            return
        grads = [tensor.grad for tensor in self.learnt.values() if tensor.grad is not None]
        if self.is_alone:
            grads = [grad.unsqueeze(0) for grad in grads]
        squares_N = sum(grad.flatten(1).square().sum(1) for grad in grads)
        scale_N = (self.recipe.clip_norm / (squares_N.sqrt() + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(scale_N.view(-1, *[1] * (grad.dim() - 1)))

    def prune(self, share_done: float) -> None:
        """Prune each network's share, or that part of it which is due."""
        shares_N = self.table["prune_share"] * share_done
        self.masks = prune.masks_of(self.state, self.layout, shares_N=shares_N.tolist())
        prune.enforce(self.state, self.masks)

    def _set_dropout(self) -> None:
        rates = np.unique(self.table["dropout"])
        if self.is_stacked or not rates.any():
            return
        layers = dropout_layers(self.network)
        if len(rates) > 1 or not layers:
            raise ConfigError(
                f"recipe.dropout = {rates.tolist()}: networks of kind "
                f"{self.config.network.kind!r} have {len(layers)} dropout layers, which take one "
                "rate: give `cohort: 1`, and a network that has some"
            )
        for layer in layers:
            layer.p = float(rates[0])


def names_found(names: Iterable[str], pattern: str) -> list[str]:
    """Return the names in which a regular expression is found."""
    return [name for name in names if re.search(pattern, name)]


def learnable(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name: those that the network does not freeze."""
    return {name: one for name, one in network.named_parameters() if one.requires_grad}


def freeze(network: nn.Module, names: Sequence[str]) -> None:
    """Let parameters stay as they are, in place.

    A normalisation all of whose parameters stay keeps its running statistics, too: it is put into
    evaluation mode.

    Args:
        network: the architecture.
        names: of the parameters.
    """
    for name in names:
        network.get_parameter(name).requires_grad_(False)
    for module in batchnorm_layers(network).values():
        own = list(module.parameters(recurse=False))
        if names and own and not any(one.requires_grad for one in own):
            module.eval()


def dropout_layers(network: nn.Module) -> list[nn.Dropout]:
    """Return the dropout layers of a network."""
    return [module for module in network.modules() if isinstance(module, nn.Dropout)]
