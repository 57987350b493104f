"""Messages of ranks: JSON, and the bytes of arrays and tensors behind it.

No pickles: who slips a message in among those of ranks can tell them wrong numbers, but runs no
code. A message is the length of its head, the head, which is JSON, and buffers, each at a multiple
of 16 bytes. In the head a value that is not JSON itself stands as `[kind, ...]`:

    list tuple set frozenset   the values
    dict                       [key, value] pairs, since keys may be of any kind
    bytes                      number of its buffer
    array scalar tensor        dtype, shape, memory order (of a tensor: of its axes), its buffer
    path range                 text; start, stop, step
    record                     module and name of a dataclass that is imported here, of dwf or of
                               settings; fields
    error                      module and name of its class, of dwf or built in, and its arguments
"""

import builtins
import dataclasses
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwf.checked import Checked

if TYPE_CHECKING:
    import numpy as np
    import torch

_LENGTH_BYTES, _ALIGNED = 8, 16
_PLAIN = (type(None), bool, int, float, str)
_DTYPE = re.compile(r"[<>|=]?[biufcSUmM]\d+(\[\d*\w+\])?")
_OURS = "dwf"
_CONTAINERS: dict[type, str] = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset"}


def pack(value: object) -> bytes:
    """Return a message that `unpack` makes an equal value of.

    Raises:
        TypeError: the value holds something of another kind than those above.
    """
    buffers: list[bytes] = []
    told = _told(value, buffers)
    head = json.dumps([told, [len(one) for one in buffers]]).encode()
    parts = [len(head).to_bytes(_LENGTH_BYTES, "big") + head, *buffers]
    return b"".join(part + bytes(-len(part) % _ALIGNED) for part in parts)


def unpack(message: bytearray | memoryview) -> Any:
    """Return the value of a message, whose arrays and tensors share its memory.

    Raises:
        ValueError: it is none of `pack`.
    """
    whole = memoryview(message)
    try:
        length = int.from_bytes(whole[:_LENGTH_BYTES], "big")
        told, sizes = json.loads(bytes(whole[_LENGTH_BYTES : _LENGTH_BYTES + length]))
        buffers, at = [], _padded(_LENGTH_BYTES + length)
        for size in sizes:
            buffers.append(whole[at : at + size])
            at += _padded(size)
        return _made(told, buffers)
    except (ValueError, TypeError, LookupError, RuntimeError, AttributeError) as error:
        raise ValueError(f"ranks were told what no rank says ({error})") from error


def sendable(error: BaseException) -> BaseException:
    """Return the error, or its words where it cannot be sent to other ranks."""
    try:
        again = unpack(bytearray(pack(error)))
        if type(again) is type(error) and str(again) == str(error):
            return error
    except (TypeError, ValueError):
        pass
    return RuntimeError(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__)


def _padded(size: int) -> int:
    return size + -size % _ALIGNED


# --- to a message --------------------------------------------------------------------------------


def _told(value: object, buffers: list[bytes]) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in _CONTAINERS:
        return [_CONTAINERS[kind], [_told(one, buffers) for one in value]]
    if kind is dict:
        pairs = value.items()
        return ["dict", [[_told(key, buffers), _told(one, buffers)] for key, one in pairs]]
    if isinstance(value, Path):
        return ["path", str(value)]
    if kind is range:
        return ["range", value.start, value.stop, value.step]
    if kind in (bytes, bytearray):
        return ["bytes", _kept(bytes(value), buffers)]
    if isinstance(value, BaseException):
        return _told_error(value, buffers)
    if _is_record(kind):
        names = [field.name for field in dataclasses.fields(kind) if field.init]
        fields = vars(value)
        told = {name: _told(fields[name], buffers) for name in names}
        return ["record", kind.__module__, kind.__name__, told]
    return _told_numbers(value, buffers)


def _told_numbers(value: object, buffers: list[bytes]) -> list[Any]:
    import numpy as np  # on use: every command imports this module, also for its help

    if isinstance(value, (np.ndarray, np.generic)) and _DTYPE.fullmatch(value.dtype.str):
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        # Of one memory order on all ranks: the last bit of a product depends on it.
        order = "F" if np.isfortran(value) else "C"
        number = _kept(value.tobytes(order), buffers)
        return [kind, value.dtype.str, list(value.shape), order, number]
    torch = sys.modules.get("torch")  # who has no tensor may not have imported it
    if torch is not None and isinstance(value, torch.Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        axes = sorted(range(value.dim()), key=value.stride, reverse=True)
        lying = value.detach().cpu().permute(axes)
        number = _kept(lying.reshape(-1).view(torch.uint8).numpy().tobytes(), buffers)
        return ["tensor", dtype, list(lying.shape), axes, number]
    raise TypeError(f"ranks tell each other no {type(value).__module__}.{type(value).__name__}")


def _told_error(error: BaseException, buffers: list[bytes]) -> list[Any]:
    kind, arguments = type(error), error.args
    if isinstance(error, OSError) and error.filename is not None:
        arguments = (error.errno, error.strerror, error.filename)
    return ["error", kind.__module__, kind.__name__, _told(tuple(arguments), buffers)]


def _kept(data: bytes, buffers: list[bytes]) -> int:
    buffers.append(data)
    return len(buffers) - 1


# --- from a message ------------------------------------------------------------------------------


def _made(told: Any, buffers: list[memoryview]) -> Any:
    if type(told) in _PLAIN:
        return told
    kind, *rest = told
    return _MAKERS[kind](buffers, *rest)


def _dict(buffers: list[memoryview], pairs: list[Any]) -> dict[Any, Any]:
    return {_made(key, buffers): _made(value, buffers) for key, value in pairs}


def _array(
    buffers: list[memoryview], dtype: str, shape: list[int], order: str, number: int
) -> "np.ndarray":
    import numpy as np

    if not _DTYPE.fullmatch(dtype) or min(shape, default=0) < 0:
        raise ValueError(f"{dtype!r} of shape {shape} is no array of numbers or text")
    return np.ndarray(shape, np.dtype(dtype), buffers[number], order=order)


def _scalar(
    buffers: list[memoryview], dtype: str, shape: list[int], order: str, number: int
) -> "np.generic":
    return _array(buffers, dtype, shape, order, number)[()]


def _tensor(
    buffers: list[memoryview], dtype: str, shape: list[int], axes: list[int], number: int
) -> "torch.Tensor":
    import torch

    kind = vars(torch)[dtype]
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"{dtype!r} is no dtype of a tensor")
    if len(buffers[number]):
        lying = torch.frombuffer(buffers[number], dtype=torch.uint8).view(kind).reshape(shape)
    else:
        lying = torch.empty(shape, dtype=kind)
    return lying.permute([axes.index(axis) for axis in range(len(axes))])


def _record(buffers: list[memoryview], module: str, name: str, fields: dict[str, Any]) -> object:
    cls = vars(sys.modules[module])[name]
    if not (isinstance(cls, type) and _is_record(cls) and cls.__module__ == module):
        raise ValueError(f"{module}.{name} is no dataclass of dwf, and no settings")
    return cls(**{key: _made(value, buffers) for key, value in fields.items()})


def _error(buffers: list[memoryview], module: str, name: str, arguments: Any) -> BaseException:
    place = builtins if module == "builtins" else sys.modules[module] if _is_ours(module) else None
    cls = vars(place)[name]
    if not (isinstance(cls, type) and issubclass(cls, BaseException)):
        raise ValueError(f"{module}.{name} is no error")
    return cls(*_made(arguments, buffers))


def _is_record(kind: type) -> bool:
    """Whether it is a dataclass of dwf, or of settings: these may be of a user's own kind."""
    return dataclasses.is_dataclass(kind) and (
        _is_ours(kind.__module__) or issubclass(kind, Checked)
    )


def _is_ours(module: str) -> bool:
    return module == _OURS or module.startswith(f"{_OURS}.")


def _container(kind: type) -> Callable[[list[memoryview], list[Any]], Any]:
    return lambda buffers, values: kind([_made(one, buffers) for one in values])


_MAKERS: dict[str, Callable[..., Any]] = {
    **{name: _container(kind) for kind, name in _CONTAINERS.items()},
    "dict": _dict,
    "bytes": lambda buffers, number: bytes(buffers[number]),
    "path": lambda buffers, text: Path(text),
    "range": lambda buffers, start, stop, step: range(start, stop, step),
    "array": _array,
    "scalar": _scalar,
    "tensor": _tensor,
    "record": _record,
    "error": _error,
}
