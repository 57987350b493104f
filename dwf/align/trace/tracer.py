"""Run a module once on labels instead of numbers: which units each tensor's axes run over.

The module's own `forward` runs, on tensors that have a shape but no numbers; every torch function
it calls comes to the table in `operations.py`. So whatever Python a `forward` is made of is
followed, as long as it does not look at numbers, which would make the trace true of one input only.

Shape suffixes: O rows and I columns of a weight.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from dwf.align.trace.labels import (
    ZERO,
    Binding,
    Labels,
    Structure,
    compact,
    constant_labels,
    mix,
)
from dwf.errors import ConfigError

Result = torch.Tensor | tuple[torch.Tensor, ...] | None
"""Value of a torch function that a trace follows; None of one that writes in place."""


@dataclass(frozen=True)
class Weight:
    """A parameter, or a part of it, that is not looked at number by number."""

    name: str
    shape: tuple[int, ...]
    start: int = 0
    """First index of axis 0 that belongs to the part."""
    transposed: bool = False
    """Whether its two axes are exchanged."""


class Traced(torch.Tensor):
    """A tensor of labels: it has a shape, and for numbers it has none."""

    tracer: "Tracer"
    labels: Labels | None
    weight: Weight | None
    loose: bool = False
    base: "Traced | None" = None
    """The tensor that this is a view or a moved copy of, by `move`."""
    move: Callable[[torch.Tensor], torch.Tensor]
    version: int = 0
    """How often its labels were written anew."""
    seen: int = 0
    """The version of `base` that the labels are of."""

    @classmethod
    def make(
        cls,
        tracer: "Tracer",
        labels: Labels | None,
        weight: Weight | None = None,
        loose: bool = False,
    ) -> "Traced":
        """Return one with these labels, or of this parameter."""
        shape = labels.shape if labels is not None else _shape(weight)
        # NaN, so that numbers that got past the trace betray themselves (`labels`); expanded, so
        # that they take no memory.
        made = torch.Tensor._make_subclass(cls, torch.full((), torch.nan).expand(shape))
        made.tracer, made.labels, made.weight, made.loose = tracer, labels, weight, loose
        return made

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        """Follow one torch function."""
        tracer = next(t.tracer for t in _tensors([*args, *(kwargs or {}).values()]))
        return tracer.call(func, args, kwargs=kwargs or {})


def _shape(weight: Weight) -> tuple[int, ...]:
    return tuple(reversed(weight.shape)) if weight.transposed else weight.shape


def _memory(tensor: Traced) -> torch.Tensor:
    """Return a tensor without numbers whose views are what the tensor's would be."""
    if tensor.base is None:
        return torch.empty(tensor.shape, device="meta")
    return tensor.move(_memory(tensor.base))


def is_view(tensor: Traced) -> bool:
    """Whether a moved tensor shares the memory of what it was moved from."""
    memory = _memory(tensor.base)
    moved = tensor.move(memory)
    root = memory if memory._base is None else memory._base
    return moved is memory or moved._base is root


def _plain(values: Iterable[object]) -> list:
    """Return a function's arguments, those that are tensors blanked out."""
    return ["" if isinstance(value, torch.Tensor) else value for value in values]


def _tensors(values: Iterable[object]) -> Iterator[Traced]:
    for value in values:
        if isinstance(value, Traced):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


@dataclass(frozen=True)
class Operations:
    """Torch functions by name, and how a trace takes them."""

    table: Mapping[str, Callable[..., Result]]
    """Functions that do to labels what torch's function of that name does to numbers."""
    plain: frozenset[str]
    """Names of functions that ask for shapes alone and run as they are."""
    control: frozenset[str]
    """Names of functions whose result depends on the numbers; they are refused."""
    untouched: frozenset[str]
    """Names of functions that leave each number as it is, wherever they put it."""


class Tracer:
    """One trace: what was found so far, and where in the module it is."""

    def __init__(self, sizes: dict[str, tuple[int, ...]], operations: Operations):
        self.sizes = sizes
        self.operations = operations
        self.structure = Structure()
        self.where: list[str] = []
        self.step = 0
        self.operation = ""
        self._elements: dict[str, Labels] = {}
        self._bound: dict[tuple[str, int], Binding] = {}

    def call(self, func: Callable[..., object], args: tuple, *, kwargs: dict) -> object:
        """Do to labels what a torch function does to numbers."""
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = func.__self__.__name__
        bare = name.strip("_")
        if name in self.operations.plain:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        # Operations that are made of others, as `group_norm` is, come back here: errors name the
        # outermost, and it alone signs the result.
        outer, self.operation = self.operation, self.operation or bare
        self.step += 1
        try:
            if name in self.operations.control:
                self.refuse(
                    "what is computed depends on the numbers, so one trace does not show all of "
                    "it; write it without Python's if, int() or a loop over values"
                )
            if bare not in self.operations.table:
                self.refuse(
                    "this operation's symmetry is not known; write it with others, or learn from "
                    "the zoo without aligning it"
                )
            try:
                result = self.operations.table[bare](self, *args, **kwargs)
                if not outer and bare not in self.operations.untouched:
                    result = self._signed(result, [bare, _plain(args), _plain(kwargs.items())])
            except (TypeError, IndexError, AssertionError, RuntimeError) as error:
                self.refuse(f"this use of the operation cannot be followed ({error})")
        finally:
            self.operation = outer
        in_place = name.endswith("_") and (not name.startswith("__") or name.startswith("__i"))
        if in_place and isinstance(result, Traced) and isinstance(args[0], Traced):
            self.write(args[0], self.labels(result))
            args[0].loose = result.loose
            return args[0]
        return result

    def _signed(self, result: object, how: list) -> object:
        """Add to the labels what was done: numbers that went through other things are not alike.

        A constant 0 stays one: it hides no scale.
        """
        if isinstance(result, (list, tuple)):
            signed = [self._signed(one, [*how, i]) for i, one in enumerate(result)]
            return type(result)(signed)
        if not isinstance(result, Traced) or result.labels is None:
            return result
        x = result.labels
        unit, slot = compact(x.unit), compact(x.slot)
        new = mix(slot, zlib.crc32(repr(how).encode()))
        if bool((slot == ZERO).any()):
            new = torch.where((unit == 0) & (slot == ZERO), slot, new)
        # Else the half of a layer that went through relu and the half that went through tanh would
        # be one group where both are concatenated again.
        signed = Labels(x.unit, new.expand(x.shape), wire=x.wire)
        return Traced.make(self, signed, loose=result.loose)

    def write(self, tensor: Traced, labels: Labels) -> None:
        """Put labels in place of a tensor's, and so of those that share its memory."""
        if labels.shape != tensor.shape:
            labels = labels.apply(lambda t: t.expand(tensor.shape))
        self.labels(tensor)
        tensor.labels = labels
        tensor.version += 1
        if tensor.base is None or not is_view(tensor):
            tensor.base = None
            return
        # Upwards, what this is a view of changes with it. Sideways, other views of that find out by
        # its `version` when their labels are next asked for.
        base, was = tensor.base, self.labels(tensor.base)
        number = torch.arange(base.numel()).view(base.shape)
        at = tensor.move(number).reshape(-1)

        def put(label: str) -> torch.Tensor:
            old, new = getattr(was, label), getattr(labels, label)
            return old.reshape(-1).index_put((at,), new.reshape(-1)).view(base.shape)

        self.write(base, Labels(unit=put("unit"), slot=put("slot"), wire=put("wire")))
        tensor.seen = base.version

    def refuse(self, why: str) -> None:
        """Raise a ConfigError that names the module and the operation."""
        node = ".".join(filter(None, self.where[-1:])) or "the network"
        raise ConfigError(f"{node} ({self.operation}): {why}")

    def labels(self, value: torch.Tensor | float) -> Labels:
        """Return a tensor's labels as known by now; a parameter becomes one of single numbers."""
        if not isinstance(value, Traced):
            value = torch.as_tensor(value)
            if value.is_floating_point() and value.isnan().any():
                self.refuse("numbers were computed outside torch's functions; use those alone")
            return constant_labels(value)
        if value.labels is None:
            value.labels = self.elements(value.weight)
            value.loose, value.weight = True, None
        elif value.base is not None:
            found = self.labels(value.base)
            if value.base.version != value.seen and is_view(value):
                value.labels, value.seen = found.apply(value.move), value.base.version
                value.version += 1
        return value.labels

    def make(self, labels: Labels, loose: bool = False) -> Traced:
        """Return a tensor with these labels."""
        return Traced.make(self, labels, loose=loose)

    def parameter(self, name: str, shape: tuple[int, ...]) -> Traced:
        """Return the tensor that stands for a parameter or a buffer of the layout."""
        return Traced.make(self, None, Weight(name, tuple(shape)))

    def elements(self, weight: Weight) -> Labels:
        """Return labels of a parameter's single numbers: at first each may be any unit's."""
        structure, name = self.structure, weight.name
        if weight.start or weight.transposed:
            self.refuse(f"a part of {name} is used number by number; make it a parameter")
        if name not in self._elements:
            if any(bound == name for bound, _ in self._bound):
                self.refuse(f"{name} is both a layer's weight and used otherwise; make it two")
            # Nothing tells yet that a bias belongs to its layer: each number begins as a unit of
            # its own, and `pair` unites them with those that they are added to.
            count = int(torch.Size(weight.shape).numel())
            unit = structure.atoms.new(count).view(weight.shape)
            wire = structure.wires.new(count).view(weight.shape)
            slot = torch.zeros((), dtype=torch.int64).expand(unit.shape)
            self._elements[name] = Labels(unit, slot, wire=wire)
        return self._elements[name]

    def statistic(self, value: torch.Tensor) -> None:
        """Note that a buffer follows the units but says nothing about them."""
        if isinstance(value, Traced):
            self.structure.pin_wires(self.labels(value).wire)

    def rows(self, weight: Weight, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return units and wires that a weight's outputs make: (unit_O, wire_O)."""
        structure, size = self.structure, weight.shape[axis]
        whole = self.sizes[weight.name][axis]
        key = (weight.name, axis)
        # Once for each axis: a module that is run twice makes the same units both times.
        if key not in self._bound:
            self._check_no_elements(weight.name)
            unit, wire = structure.atoms.new(whole), structure.wires.new(whole)
            slot = torch.zeros(1, whole, dtype=torch.int64)
            self._bind(
                Binding(
                    weight.name, axis, start=0, unit=unit[None], slot=slot, wire=wire[None], power=1
                )
            )
        bound = self._bound[key]
        # The same numbers make units here and take them in elsewhere: a scale would have to be s
        # and 1 / s at once, which leaves 1 and -1.
        if bound.power != 1:
            self.structure.pin_wires(bound.wire, sign=False)
        part = slice(weight.start, weight.start + size) if axis == 0 else slice(None)
        return bound.unit[0, part], bound.wire[0, part]

    def _check_no_elements(self, name: str) -> None:
        if name in self._elements:
            self.refuse(f"{name} is both a layer's weight and used otherwise; make it two")

    def bind(self, weight: Weight, axis: int, *, columns: Labels, blocks: int = 1) -> None:
        """Note which units a weight takes in along an axis: columns of shape [blocks * I]."""
        self._check_no_elements(weight.name)
        unit, slot, wire = (
            t.reshape(blocks, -1) for t in (columns.unit, columns.slot, columns.wire)
        )
        key = (weight.name, axis)
        if key in self._bound:
            if self._bound[key].power != -1:  # it makes units here and takes them in there
                self.structure.pin_wires(wire, sign=False)
                self.structure.pin_wires(self._bound[key].wire, sign=False)
            self._bind_again(self._bound[key], unit, wire)
        else:
            self._bind(
                Binding(weight.name, axis, start=0, unit=unit, slot=slot, wire=wire, power=-1)
            )
        self.structure.use(unit, mix(self.number(weight.name), axis, slot))
        if axis == 0 and weight.start:
            self.refuse(f"a part of {weight.name} takes units in; make it a parameter of its own")

    def _bind_again(self, bound: Binding, unit: torch.Tensor, wire: torch.Tensor) -> None:
        """A weight is used twice: what it takes in must move alike in both places."""
        structure = self.structure
        structure.atoms.unite(bound.unit, unit)
        structure.wires.unite(bound.wire, wire)
        only_once = (bound.unit == 0) != (unit == 0)
        structure.pinned.append(torch.maximum(bound.unit, unit)[only_once].numpy())
        structure.pin_wires(torch.maximum(bound.wire, wire)[only_once])

    def _bind(self, binding: Binding) -> None:
        self._bound[binding.name, binding.axis] = binding
        self.structure.bindings.append(binding)

    def number(self, name: str) -> int:
        """Return a parameter's number, to hash."""
        return list(self.sizes).index(name) + 1

    @property
    def single_numbers(self) -> dict[str, Labels]:
        """Parameters and buffers that were used number by number."""
        return self._elements
