"""Layout: which numbers of a row of weights are which tensor.

Shape suffixes: N networks, D numbers of one network.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from dwf.errors import ShapeMismatch
from dwf.plain import Json

if TYPE_CHECKING:
    import torch

Weights = TypeVar("Weights", np.ndarray, "torch.Tensor")

Role = Literal["weight", "bias", "norm", "buffer", "constant"]
Span = tuple[int, int]
"""A stretch of a row: its first number, and the one behind its last."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a network: its place in a row and what it is for."""

    name: str
    shape: tuple[int, ...]
    offset: int
    role: Role

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def is_learnt(self) -> bool:
        """Whether training learns it: no running statistics, and no constant."""
        return self.role not in ("buffer", "constant")

    @property
    def stop(self) -> int:
        """The offset behind its last number."""
        return self.offset + self.size


def spans_of(entries: Iterable[Entry]) -> list[Span]:
    """Return the stretches of a row that some tensors are, in their order; neighbours are one."""
    spans: list[Span] = []
    for entry in entries:
        start = spans.pop()[0] if spans and spans[-1][1] == entry.offset else entry.offset
        spans.append((start, entry.stop))
    return spans


@dataclass(frozen=True)
class Layout:
    """The tensors of a network, in the order in which a row holds them."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, network: "torch.nn.Module") -> "Layout":
        """Return the layout of an `nn.Module`: its floating-point parameters and buffers.

        Buffers of a normalisation are its running statistics (`buffer`); others are constants.
        Integer buffers (BatchNorm's step counters) are left out: they are rebuilt, not learnt. What
        is registered under several names is one entry, under the first of them.
        """
        from torch import nn
        from torch.nn.modules.batchnorm import _NormBase

        from dwf.networks.held import floats_of

        modules = dict(network.named_modules())
        statistics = {name for name, one in modules.items() if isinstance(one, _NormBase)}
        kinds = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
        norms = statistics | {name for name, one in modules.items() if isinstance(one, kinds)}
        parameters = dict(network.named_parameters())
        entries, offset = [], 0
        for name, tensor in floats_of(network).items():
            owner, _, leaf = name.rpartition(".")
            role: Role = "bias" if "bias" in leaf else "weight"
            role = "norm" if owner in norms else role
            if name not in parameters:
                role = "buffer" if owner in statistics else "constant"
            entries.append(Entry(name, tuple(tensor.shape), offset=offset, role=role))
            offset = entries[-1].stop
        return cls(tuple(entries))

    @classmethod
    def of_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> "Layout":
        """Return the layout of floating-point tensors of which only names and shapes are known.

        What a tensor is for is read off its name: running statistics are buffers, a weight of one
        axis is a normalisation's, and so is the bias beside it.

        Args:
            shapes: name -> shape, in the order of a row.
        """
        alone = [name for name, shape in shapes.items() if len(shape) == 1]
        norms = {name.rpartition(".")[0] for name in alone if name.endswith("weight")}
        entries, offset = [], 0
        for name, shape in shapes.items():
            owner, _, leaf = name.rpartition(".")
            role: Role = "bias" if "bias" in leaf else "weight"
            role = "norm" if owner in norms else role
            role = "buffer" if leaf in ("running_mean", "running_var") else role
            entries.append(Entry(name, tuple(shape), offset=offset, role=role))
            offset = entries[-1].stop
        return cls(tuple(entries))

    @property
    def size(self) -> int:
        """D: how many numbers a network has."""
        return self.entries[-1].stop if self.entries else 0

    @cached_property
    def by_name(self) -> dict[str, Entry]:
        """The entries by their tensors' names."""
        return {entry.name: entry for entry in self.entries}

    def spans(self, buffers: bool = False) -> list[Span]:
        """Return the stretches of a row that are learnt, with running statistics if asked.

        Constants are never among them: they are no network's own.
        """
        return spans_of(e for e in self.entries if e.is_learnt or (buffers and e.role == "buffer"))

    @property
    def constants(self) -> list[Entry]:
        """Buffers that are no statistics of a normalisation: tables, positions, masks."""
        return [entry for entry in self.entries if entry.role == "constant"]

    def learnt(self, weights: Weights) -> Weights:
        """Return what is learnt of rows: tensor or NumPy array of shape [..., K].

        Where there are none, the rows themselves.
        """
        spans = self.spans()
        if spans == [(0, self.size)]:
            return weights
        parts = [weights[..., start:stop] for start, stop in spans]
        if isinstance(weights, np.ndarray):
            return np.concatenate(parts, axis=-1)
        import torch

        return torch.cat(parts, dim=-1)

    @cached_property
    def digest(self) -> str:
        """A short stable name of this layout: equal layouts, equal digests."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def flatten(self, state: Mapping[str, "torch.Tensor"]) -> "torch.Tensor":
        """Return a state as rows.

        Args:
            state: name -> tensor of shape [*shape], or [N, *shape] for N networks.

        Returns:
            weights_D, or weights_ND, float32.

        Raises:
            ShapeMismatch: a tensor is missing, has another shape, or is not of this layout.
        """
        import torch

        extra = [name for name, t in state.items() if t.is_floating_point()]
        extra = [name for name in extra if name not in self.by_name]
        if extra:
            raise ShapeMismatch(f"the state has {', '.join(extra)}, which the layout has not")
        parts = []
        for entry in self.entries:
            if entry.name not in state:
                raise ShapeMismatch(f"the state lacks {entry.name}; it has {', '.join(state)}")
            tensor = state[entry.name]
            batch = tensor.shape[: tensor.dim() - len(entry.shape)]
            if tuple(tensor.shape[len(batch) :]) != entry.shape or len(batch) > 1:
                raise ShapeMismatch(
                    f"{entry.name} has shape {list(tensor.shape)}, the layout {list(entry.shape)}"
                )
            parts.append(tensor.detach().float().reshape(*batch, entry.size))
        return torch.cat(parts, dim=-1)

    def unflatten(self, weights: Weights) -> dict[str, Weights]:
        """Return views of rows by name, without copying.

        Args:
            weights: tensor or NumPy array of shape [D] or [N, D].

        Returns:
            name -> view of shape [*shape] or [N, *shape].

        Raises:
            ShapeMismatch: the rows have another length.
        """
        if weights.shape[-1] != self.size:
            raise ShapeMismatch(
                f"rows of {weights.shape[-1]} numbers are not of this layout, which has {self.size}"
            )
        batch = weights.shape[:-1]
        return {
            e.name: weights[..., e.offset : e.stop].reshape((*batch, *e.shape))
            for e in self.entries
        }

    def to_json(self) -> list[dict[str, Json]]:
        """Return plain data; `from_json` is the inverse."""
        return [asdict(entry) | {"shape": list(entry.shape)} for entry in self.entries]

    @classmethod
    def from_json(cls, data: list[dict[str, Json]]) -> "Layout":
        """Return the layout that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: somebody else wrote it, and it is no layout.
        """
        entries, stop = [], 0
        for told in data:
            entry = Entry(
                told["name"], tuple(told["shape"]), offset=told["offset"], role=told["role"]
            )
            sides = all(type(side) is int and side >= 0 for side in entry.shape)
            if not (isinstance(entry.name, str) and sides and entry.offset == stop):
                raise ValueError(f"{entry.name!r} of shape {list(entry.shape)} at {entry.offset}")
            stop += entry.size
            entries.append(entry)
        return cls(tuple(entries))
