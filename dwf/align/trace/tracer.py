"""Run a module once on labels instead of numbers: which units each tensor's axes run over.

The module's own `forward` runs, on tensors that have a shape but no numbers; every torch function
it calls comes to the table in `operations.py`. So whatever Python a `forward` is made of is
followed, as long as it does not look at numbers, which would make the trace true of one input only.

Shape suffixes: O rows and I columns of a weight.
"""

import functools
import inspect
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType

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

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Refuse what reaches the numbers themselves, past `__torch_function__`."""
        tracer = next(t.tracer for t in _tensors([*args, *(kwargs or {}).values()]))
        tracer.refuse(
            f"{func} ran where it cannot be followed, as in a function compiled by "
            "torch.jit.script; use the function itself"
        )


def _shape(weight: Weight) -> tuple[int, ...]:
    return tuple(reversed(weight.shape)) if weight.transposed else weight.shape


def _memory(tensor: Traced) -> torch.Tensor:
    """Return a tensor without numbers whose views are what the tensor's would be."""
    if tensor.base is None:
        return torch.empty(tensor.shape, device="meta")
    return tensor.move(_memory(tensor.base))


@functools.cache
def _signature(function: Callable[..., object]) -> inspect.Signature:
    return inspect.signature(function)


def _asks_in_place(func: Callable[..., object], args: tuple, kwargs: dict) -> bool:
    """Whether a function is told to write its result into its first argument."""
    if not isinstance(func, FunctionType):  # those of torch.nn.functional alone have `inplace`
        return False
    signature = _signature(func)
    if "inplace" not in signature.parameters:
        return False
    return bool(signature.bind(*args, **kwargs).arguments.get("inplace", False))


def _told_apart(values: torch.Tensor) -> bool:
    """Whether no two slices of a constant, along any axis, are equal: nothing of it can move."""
    axes = [axis for axis in range(values.dim()) if values.shape[axis] > 1]
    return all(torch.unique(values, dim=a).shape[a] == values.shape[a] for a in axes)


def is_view(tensor: Traced) -> bool:
    """Whether a moved tensor shares the memory of what it was moved from."""
    memory = _memory(tensor.base)
    moved = tensor.move(memory)
    root = memory if memory._base is None else memory._base
    return moved is memory or moved._base is root


def _plain(value: object) -> object:
    """Return a function's argument, tensors in it blanked out."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return "" if isinstance(value, torch.Tensor) else value


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
    spread: frozenset[str]
    """Names of functions that follow each tensor among their arguments, however it is given."""


class Tracer:
    """One trace: what was found so far, and where in the module it is."""

    def __init__(
        self,
        sizes: dict[str, tuple[int, ...]],
        operations: Operations,
        *,
        constants: Mapping[str, torch.Tensor],
    ):
        self.sizes = sizes
        self.operations = operations
        self.constants = constants
        self.refusal: ConfigError | None = None
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
                result = self._apply(bare, args, kwargs)
                if not outer and bare not in self.operations.untouched:
                    result = self._signed(
                        result, [bare, _plain(args), _plain(list(kwargs.items()))]
                    )
            except (TypeError, IndexError, AssertionError, RuntimeError) as error:
                self.refuse(f"this use of the operation cannot be followed ({error})")
        finally:
            self.operation = outer
        in_place = name.endswith("_") and (not name.startswith("__") or name.startswith("__i"))
        in_place = in_place or _asks_in_place(func, args, kwargs)
        if in_place and isinstance(result, Traced) and isinstance(args[0], Traced):
            self.write(args[0], self.labels(result))
            args[0].loose = result.loose
            return args[0]
        return result

    def _apply(self, bare: str, args: tuple, kwargs: dict) -> Result:
        """Call the operation of a name; no tensor gets lost among its arguments."""
        operation = self.operations.table[bare]
        signature = _signature(operation)
        for word, place in (("input", 0), ("other", 1)):  # torch's own names of the first two
            if word in kwargs and word not in signature.parameters and len(args) == place:
                kwargs = dict(kwargs)
                args = (*args, kwargs.pop(word))
        if bare not in self.operations.spread:
            given = signature.bind(self, *args, **kwargs).arguments
            for name, parameter in signature.parameters.items():
                if parameter.kind == parameter.VAR_POSITIONAL:
                    rest = [("an argument", value) for value in given.get(name, ())]
                elif parameter.kind == parameter.VAR_KEYWORD:
                    rest = list(given.get(name, {}).items())
                else:
                    continue
                for word, value in rest:
                    if isinstance(value, torch.Tensor):
                        self.refuse(f"a tensor given as {word} is not followed; use a number")
        return operation(self, *args, **kwargs)

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
        operation = f" ({self.operation})" if self.operation else ""
        self.refusal = ConfigError(f"{node}{operation}: {why}")
        raise self.refusal

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
        values = self.constants.get(name)
        if values is None or not _told_apart(values):
            return Traced.make(self, None, Weight(name, tuple(shape)))
        # Its numbers stay in place, and pin what they meet. Equal ones are alike within a tensor,
        # but none is a 0 that would hide a scale, nor like those of another tensor.
        slot = mix(constant_labels(values).slot, self.number(name), 5)
        still = torch.zeros((), dtype=torch.int64).expand(slot.shape)
        return self.make(Labels(still, slot, wire=still))

    def has_seen(self, name: str) -> bool:
        """Whether a parameter took part in what was traced."""
        return name in self._elements or any(bound == name for bound, _ in self._bound)

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
            if name in self.constants:
                structure.pin_wires(wire)
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
            self._bind_again(self._bound[key], unit, slot, wire)
        else:
            # Cloned, as what first takes in zeros finds out later what else it takes in.
            unit, slot, wire = unit.clone(), slot.clone(), wire.clone()
            self._bind(
                Binding(weight.name, axis, start=0, unit=unit, slot=slot, wire=wire, power=-1)
            )
        self.structure.use(unit, mix(self.number(weight.name), axis, slot))
        if axis == 0 and weight.start:
            self.refuse(f"a part of {weight.name} takes units in; make it a parameter of its own")

    def _bind_again(
        self, bound: Binding, unit: torch.Tensor, slot: torch.Tensor, wire: torch.Tensor
    ) -> None:
        """A weight is used twice: what it takes in must move alike in both places."""
        structure = self.structure
        # What takes zeros in says nothing of its order: a recurrent network's first step.
        free, zero = ((u == 0) & (s == ZERO) for u, s in ((bound.unit, bound.slot), (unit, slot)))
        bound.unit, bound.slot, bound.wire = (
            torch.where(free, new, old)
            for new, old in ((unit, bound.unit), (slot, bound.slot), (wire, bound.wire))
        )
        unit, wire = (
            torch.where(zero, old, new) for old, new in ((bound.unit, unit), (bound.wire, wire))
        )
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
