"""The torch functions that move numbers without changing them, as a trace follows them.

What a function does to numbers it does to their labels: it is run on them.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch.nn import functional

from dwf.align.trace.algebra import channelwise
from dwf.align.trace.labels import Labels, constant_labels
from dwf.align.trace.tracer import Result, Traced, Tracer, Weight, is_view

T = TypeVar("T")

MOVEMENT: dict[str, Callable[..., Result]] = {}
"""Name without underscores at its ends -> function of (tracer, *args, **kwargs)."""


def _add(names: str, function: Callable[..., Result]) -> None:
    MOVEMENT.update(dict.fromkeys(names.split(), function))


def on_shape(function: Callable[..., T], tensor: Traced, *args: object, **kwargs: object) -> T:
    """Return what a function gives for a tensor of this shape without numbers."""
    return function(torch.empty(tensor.shape, device="meta"), *args, **kwargs)


_TURNS = ("t", "T", "mT", "H", "mH", "adjoint")
_SWAPS = ("transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "permute")


def _swapped(args: tuple, kwargs: dict) -> bool:
    """Whether axes, given as two numbers or as one tuple, are those of a matrix in turn."""
    axes = [*args, *kwargs.values()]
    axes = axes[0] if len(axes) == 1 else axes
    return [axis % 2 for axis in axes] in ([0, 1], [1, 0])


def _weight_part(
    func: str, weight: Weight, args: tuple, kwargs: dict
) -> Weight | list[Weight] | None:
    """Return rows of a matrix, or the matrix turned, as such; None where it is something else."""
    # Packed projections (queries, keys, values in one) are cut by rows, and the parts stay weights.
    # Whatever else is done to a weight, it is followed number by number.
    rows = weight.shape[0]
    if func == "contiguous":
        return weight
    if weight.transposed or len(weight.shape) != 2:
        return None
    if func in _TURNS or (func in _SWAPS and _swapped(args, kwargs)):
        return (
            Weight(weight.name, weight.shape, start=weight.start, transposed=True)
            if not weight.start
            else None
        )
    if func == "getitem" and isinstance(args[0], slice):
        start, stop, step = args[0].indices(rows)
        cuts = [(start, stop)] if step == 1 else None
        single = True
    elif func in ("chunk", "split") and not kwargs and (len(args) == 1 or args[1] == 0):
        parts = getattr(torch.empty(rows, 0, device="meta"), func)(args[0])
        ends = torch.tensor([len(p) for p in parts]).cumsum(0).tolist()
        cuts, single = list(zip([0, *ends[:-1]], ends, strict=True)), False
    else:
        return None
    if cuts is None:
        return None
    made = [
        Weight(weight.name, (stop - start, weight.shape[1]), start=weight.start + start)
        for start, stop in cuts
    ]
    return made[0] if single else made


def _moving(func: str) -> Callable[..., Result]:
    """Return the operation that does to labels what it does to numbers."""

    def move(tracer: Tracer, tensor: Traced, *args: object, **kwargs: object) -> Result:
        if tensor.weight is not None:
            part = _weight_part(func, tensor.weight, args, kwargs)
            if isinstance(part, Weight):
                return Traced.make(tracer, None, part)
            if part is not None:
                return tuple(Traced.make(tracer, None, one) for one in part)
        if any(isinstance(a, Traced) for a in [*args, *kwargs.values()]):
            tracer.refuse("where numbers go depends on numbers; use constant indices")
        x = tracer.labels(tensor)

        def view(labels: Labels, part: int | None = None) -> Traced:
            made = tracer.make(labels, tensor.loose)
            made.base, made.seen = tensor, tensor.version
            made.move = lambda t: _part(_call(func, t, args, kwargs), part)
            return made

        unit, slot, wire = (_call(func, t, args, kwargs) for t in (x.unit, x.slot, x.wire))
        if isinstance(unit, torch.Tensor):
            return view(Labels(unit, slot, wire=wire))
        parts = enumerate(zip(unit, slot, wire, strict=True))
        return tuple(view(Labels(u, s, wire=w), i) for i, (u, s, w) in parts)

    return move


def _part(moved: torch.Tensor | tuple[torch.Tensor, ...], part: int | None) -> torch.Tensor:
    return moved if part is None else moved[part]


def _call(
    func: str, tensor: torch.Tensor, args: tuple, kwargs: dict
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    if func == "getitem":
        return tensor[args[0]]
    if func in ("T", "mT", "H", "mH"):
        return getattr(tensor, func)
    if func == "iter":
        return tensor.unbind(0)
    return getattr(tensor, func)(*args, **kwargs)


_MOVES = """
    reshape flatten unflatten permute transpose t swapaxes movedim moveaxis squeeze unsqueeze expand
    chunk split tensor_split unbind narrow select repeat repeat_interleave tile roll flip
    swapdims H mH adjoint contiguous index_select getitem T mT iter diagonal rot90 broadcast_to
"""
for _name in _MOVES.split():
    _add(_name, _moving(_name))
_add("pixel_shuffle", lambda tracer, x, factor: _like(tracer, x, functional.pixel_shuffle, factor))
_add(
    "pixel_unshuffle",
    lambda tracer, x, factor: _like(tracer, x, functional.pixel_unshuffle, factor),
)
_add(
    "channel_shuffle native_channel_shuffle",
    lambda tracer, x, groups: x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2),
)


def _like(
    tracer: Tracer, tensor: Traced, function: Callable[..., torch.Tensor], *args: int
) -> Traced:
    return tracer.make(tracer.labels(tensor).apply(lambda t: function(t, *args)))


def _view(tracer: Tracer, tensor: Traced, *shape: int | Sequence[int] | torch.dtype) -> Traced:
    if len(shape) == 1 and isinstance(shape[0], torch.dtype):
        tracer.refuse("numbers are read as another type; convert them")
    return MOVEMENT["reshape"](tracer, tensor, *shape)


_add("view", _view)
_add("reshape_as view_as", lambda tracer, x, other: x.reshape(other.shape))
_add("expand_as", lambda tracer, x, other: x.expand(other.shape))


def _same(tracer: Tracer, tensor: Traced, *args: object, **kwargs: object) -> Traced:
    return tensor


def _clone(tracer: Tracer, tensor: Traced, **kwargs: object) -> Traced:
    labels = tracer.labels(tensor) if tensor.weight is None else None
    return Traced.make(tracer, labels, tensor.weight, tensor.loose)


_add("clone", _clone)
_add(
    "detach to float double half bfloat16 type type_as cpu cuda requires_grad "
    "data identity alias positive",
    _same,
)


def _constants(func: str) -> Callable[..., torch.Tensor]:
    """Return the operation that makes a tensor of numbers known beforehand."""

    def make(tracer: Tracer, tensor: Traced, *args: object, **kwargs: object) -> torch.Tensor:
        if func.startswith("new"):
            return getattr(torch.zeros(1), func)(*args, **kwargs)
        return getattr(torch, func)(torch.zeros(tensor.shape), *args, **kwargs)

    return make


for _name in ("new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like"):
    _add(_name, _constants(_name))


def _join(tracer: Tracer, tensors: Sequence[torch.Tensor], dim: int = 0, **kwargs: int) -> Traced:
    dim = kwargs.get("axis", dim)
    parts = [tracer.labels(t) for t in tensors if t.numel()]
    dim %= parts[0].unit.dim()

    def join(label: str) -> torch.Tensor:
        found = [getattr(p, label) for p in parts]
        shape = list(found[0].shape)
        shape[dim] = sum(t.shape[dim] for t in found)
        for axis in range(len(shape)):
            if axis != dim and all(t.stride(axis) == 0 for t in found):
                found = [t.narrow(axis, 0, 1) for t in found]
        return torch.cat(found, dim).expand(shape)

    labels = Labels(unit=join("unit"), slot=join("slot"), wire=join("wire"))
    return tracer.make(labels, all(isinstance(t, Traced) and t.loose for t in tensors))


def _stack(tracer: Tracer, tensors: Sequence[torch.Tensor], dim: int = 0) -> Traced:
    dim %= tensors[0].dim() + 1
    return _join(tracer, [t.unsqueeze(dim) for t in tensors], dim)


def _pad(
    tracer: Tracer,
    tensor: Traced,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Traced:
    if mode != "constant":
        return channelwise(tracer, tensor, 1, on_shape(functional.pad, tensor, pad, mode).shape)
    x, slot = tracer.labels(tensor), constant_labels(torch.tensor(float(value or 0))).slot
    inside = functional.pad(torch.ones(x.shape, dtype=torch.bool), tuple(pad))
    # The 0 that `pad` fills in is nobody as a unit and as a wire, but it is no constant's slot.
    moved = x.apply(lambda t: functional.pad(t, tuple(pad)))
    return tracer.make(Labels(moved.unit, torch.where(inside, moved.slot, slot), wire=moved.wire))


def _setitem(tracer: Tracer, tensor: Traced, index: object, value: torch.Tensor | float) -> None:
    if not isinstance(tensor, Traced):
        tracer.refuse(
            "numbers are written into a tensor made beforehand; join them with torch.cat or "
            "torch.stack"
        )
    part = MOVEMENT["getitem"](tracer, tensor, index)
    if not is_view(part):
        tracer.refuse("numbers are written to places given by a tensor; use slices")
    _write(tracer, part, value)


def _write(tracer: Tracer, tensor: Traced, value: torch.Tensor | float, **kwargs: object) -> Traced:
    """Write other numbers into a tensor, in its shape: `copy_`, `fill_` and `zero_`."""
    labels = tracer.labels(value).apply(lambda t: t.expand(tensor.shape))
    tracer.write(tensor, labels)
    return tensor


_add("setitem", _setitem)
_add("copy fill", _write)
_add("zero", lambda tracer, x: _write(tracer, x, 0.0))
_add("cat concat concatenate hstack", _join)
_add("stack", _stack)
_add("pad constant_pad_nd", _pad)
