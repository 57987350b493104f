"""Every tensor and number that a network's code can reach: it may compute with them, row aside.

Parameters and buffers of all kinds are found by their names, and so are tensors in attributes,
lists, dictionaries, closures, partial functions, class attributes and module-level names.
"""

import functools
import hashlib
import random
import types
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn

_DEEPEST = 8  # of containers within containers: a user's object may hold anything
_LONGEST = 10_000  # things of one container
_PLAIN = (bool, int, float, complex, str)


def tensors_and_numbers(network: nn.Module) -> dict[str, str]:
    """Return all that a network can compute with: name -> digest, or the number itself.

    Args:
        network: a module; what torch's own classes keep in their code is left out.

    Returns:
        Tensors and arrays come first, numbers and words last; names are as in the user's code, as
        `layers[1].weight` or `forward.noise` for a tensor that a closure holds.
    """
    found: dict[str, str] = {}
    for name, text in _Walk().of_module("", network):
        found.setdefault(name, text)  # an object's own goes before its class's
    tensors = {name: text for name, text in found.items() if text.startswith("#")}
    return tensors | found


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return the names under which two networks hold different things, tensors first."""
    return [name for name, text in one.items() if other.get(name, text) != text]


def digest_of(tensor: torch.Tensor | np.ndarray) -> str:
    """Return a short name of a tensor's type, shape and bytes."""
    if isinstance(tensor, np.ndarray):
        head, data = f"{tensor.dtype} {tensor.shape}", tensor.tobytes()
    else:
        head = f"{tensor.dtype} {tuple(tensor.shape)}"
        plain = tensor.detach().cpu().to_dense() if tensor.layout != torch.strided else tensor
        flat = plain.detach().cpu().resolve_conj().contiguous().reshape(-1)
        data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return f"#{head} {hashlib.sha256(data).hexdigest()[:16]}"


class _Walk:
    """One walk; what was seen is not entered twice."""

    def __init__(self):
        self.seen: set[int] = set()
        self.held: list[object] = []  # so that no id is given to another thing meanwhile

    def of_module(self, name: str, module: nn.Module) -> Iterator[tuple[str, str]]:
        """Yield names and digests of a module and what it holds."""
        if self._is_known(module):
            return
        own = vars(module)
        for part in ("_parameters", "_buffers", "_modules"):
            for leaf, value in own.get(part, {}).items():
                yield from self.of_thing(_join(name, leaf), value, depth=0)
        for leaf, value in own.items():
            if leaf not in ("_parameters", "_buffers", "_modules", "training"):
                yield from self.of_thing(_join(name, leaf), value, depth=0)
        for kind in type(module).__mro__:
            if not _is_library(kind.__module__):
                for leaf, value in vars(kind).items():
                    if not leaf.startswith("__") or isinstance(value, types.FunctionType):
                        yield from self.of_thing(_join(name, leaf), value, depth=0)

    def of_thing(self, name: str, thing: object, *, depth: int) -> Iterator[tuple[str, str]]:
        """Yield names and digests of anything."""
        if isinstance(thing, _PLAIN):
            yield name, repr(thing)
        elif isinstance(thing, nn.Module):
            yield from self.of_module(name, thing)
        elif thing is None or depth > _DEEPEST or self._is_known(thing):
            return
        elif isinstance(thing, (torch.Tensor, np.ndarray)):
            yield name, _digest_or_kind(thing)
        else:
            for part, value in _parts(thing):
                yield from self.of_thing(f"{name}{part}".lstrip("."), value, depth=depth + 1)

    def _is_known(self, thing: object) -> bool:
        known = id(thing) in self.seen
        self.seen.add(id(thing))
        self.held.append(thing)
        return known


def _parts(thing: object) -> Iterator[tuple[str, object]]:
    """Yield what a container, a function or an object holds, with how one gets there."""
    if isinstance(thing, Mapping):
        for i, (key, value) in enumerate(list(thing.items())[:_LONGEST]):
            yield f"[{key!r}]" if isinstance(key, str) else f"[{i}]", value
    elif isinstance(thing, (list, tuple, set, frozenset)):
        for i, value in enumerate(list(thing)[:_LONGEST]):
            yield f"[{i}]", value
    elif isinstance(thing, functools.partial):
        yield ".func", thing.func
        yield from ((f"[{i}]", value) for i, value in enumerate(thing.args))
        yield from ((f".{key}", value) for key, value in thing.keywords.items())
    elif isinstance(thing, types.MethodType):
        yield "", thing.__func__
        yield "", thing.__self__
    elif isinstance(thing, (staticmethod, classmethod)):
        yield "", thing.__func__
    elif isinstance(thing, property):
        yield "", thing.fget
    elif isinstance(thing, types.FunctionType):
        yield from _parts_of_function(thing)
    elif isinstance(thing, np.random.Generator):
        yield ".state", str(thing.bit_generator.state)
    elif isinstance(thing, np.random.RandomState):
        yield ".state", str(thing.get_state())
    elif isinstance(thing, random.Random):
        yield ".state", str(thing.getstate())
    elif isinstance(thing, torch.Generator):
        yield ".state", thing.get_state()
    elif not isinstance(thing, (type, types.ModuleType)) and not _is_library(
        type(thing).__module__
    ):
        with_parts = vars(thing) if "__dict__" in dir(thing) else {}
        yield from ((f".{key}", value) for key, value in with_parts.items())


def _parts_of_function(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    if _is_library(function.__module__ or ""):
        return
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    for key, cell in cells:
        if key != "__class__":
            try:
                yield f".{key}", cell.cell_contents
            except ValueError:  # not filled yet
                continue
    for i, value in enumerate(function.__defaults__ or ()):
        yield f".defaults[{i}]", value
    yield from ((f".{key}", value) for key, value in (function.__kwdefaults__ or {}).items())
    for key in function.__code__.co_names:
        value = function.__globals__.get(key)
        if not isinstance(value, (type, types.ModuleType)):
            yield f".{key}", value


def _is_library(module: str) -> bool:
    return module.split(".")[0] in ("torch", "torchvision", "numpy", "builtins", "collections")


def _join(name: str, leaf: str) -> str:
    return f"{name}.{leaf}" if name else leaf


def _digest_or_kind(tensor: torch.Tensor | np.ndarray) -> str:
    try:
        return digest_of(tensor)
    except (RuntimeError, TypeError, ValueError, NotImplementedError):
        return f"#{type(tensor).__name__}"  # one without numbers: of the device `meta`, lazy
