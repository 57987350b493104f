"""The tensors of one file: found in what it holds, named without prefixes, made float32."""

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from dwf import trust
from dwf.files import refuse_inflation
from dwf.importers.importer import Unusable
from dwf.zoo.network_files import unfit

State = dict[str, torch.Tensor]
_WANTS_CODE = ("Unsupported global", "Unsupported class", "Trying to instantiate")
_DEEPEST = 2  # levels of keys above the tensors that are looked through
_OWN_STATE = "_extra_state"  # name that torch gives to what a module keeps beside its tensors


def read_tensors(path: Path, *, nested: str | None = None) -> State:
    """Return the tensors of a file: those of the network in it, by the names that it has for them.

    Args:
        path: a file of PyTorch or safetensors.
        nested: dotted keys under which they lie; None: found.

    Raises:
        Unusable: it is damaged, a pickle that wants more, or holds no tensors, or several sets.
    """
    return _find_state(load_file(path), nested=nested)


def load_file(path: Path) -> object:
    """Return what a file of PyTorch or safetensors holds; none of its code is run.

    A pickle that holds more than tensors and plain data is unpickled only where the user named it,
    see `dwf.trust.trust_pickle`.

    Raises:
        Unusable: the file is damaged or not there, or a pickle that wants more.
    """
    if not path.is_file():
        raise Unusable(f"damaged: {path.name} is not there")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file as load

            return load(path)
        _refuse_altered(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not any(words in str(error) for words in _WANTS_CODE):
            raise Unusable("damaged: it is no file of torch.save") from None
    except (PermissionError, Unusable):
        raise
    except Exception as error:  # what altered bytes raise depends on where they lie
        raise Unusable(f"damaged: {_in_short(error)}") from None
    return _unpickle(path)


def _unpickle(path: Path) -> object:
    """Return what a pickle holds that wants more than tensors; its code is run."""
    if not trust.is_trusted_pickle(path):
        raise Unusable(
            "a pickle with more than tensors, which would run code; read it, and where you trust "
            f"it give --trust-pickle {path}"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever its code raises
        raise Unusable(
            f"a pickle whose code cannot be run here: {_in_short(error)}; put what it imports into "
            "PYTHONPATH"
        ) from None


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _refuse_altered(path: Path) -> None:
    """Hold a zip archive to its checksums, which torch itself does not look at."""
    if not path.stat().st_size:
        raise Unusable("damaged: it is empty")
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for one in archive.infolist():
            refuse_inflation(one.compress_size, one.file_size, what=one.filename)
        altered = archive.testzip()
        is_script = any(name.endswith("/constants.pkl") for name in archive.namelist())
    if altered is not None:
        raise Unusable(f"damaged: {altered} does not match its checksum")
    if is_script:
        raise Unusable("a TorchScript archive, which is code: save the network's state_dict()")


def _find_state(held: object, *, nested: str | None = None) -> State:
    """Return the tensors in what a file holds, which may lie under keys such as `state_dict`.

    Fewer numbers beside such a key (a best accuracy, the mean of the images) are not the network's.

    Args:
        held: what the file holds.
        nested: dotted keys to follow; None: the one part that has tensors.

    Raises:
        Unusable: it holds no tensors, or several parts of it do and none is named.
    """
    for key in nested.split(".") if nested else ():
        if not isinstance(held, Mapping) or key not in held:
            raise Unusable(f"it has no {nested!r}")
        held = held[key]
    own = _tensors_of(held)
    found = {key: state for key, state in _below(held).items() if _size(state) > _size(own)}
    if len(found) > 1:
        raise Unusable(
            f"it holds tensors under {' and '.join(map(repr, found))}: say which are the "
            f"network's, as --nested {next(iter(found))}"
        )
    if not own and not found:
        raise Unusable("it holds no tensors")
    return next(iter(found.values()), own)


def _below(held: object, depth: int = _DEEPEST) -> dict[str, State]:
    """Dotted key -> tensors of the parts of a mapping; one level deeper where none has any."""
    if not isinstance(held, Mapping) or not depth:
        return {}
    parts = {str(key): part for key, part in held.items() if not str(key).endswith(_OWN_STATE)}
    found = {key: state for key, part in parts.items() if (state := _tensors_of(part))}
    deeper = ((key, _below(part, depth - 1)) for key, part in parts.items())
    return found or {f"{key}.{name}": s for key, states in deeper for name, s in states.items()}


def _size(state: State) -> int:
    return sum(tensor.numel() for tensor in state.values())


def _tensors_of(held: object) -> State:
    """The tensors of a state or, in a file that the user trusts, of a module."""
    if isinstance(held, nn.Module):
        held = held.state_dict()
    if not isinstance(held, Mapping):
        return {}
    return {str(k): v for k, v in held.items() if isinstance(v, torch.Tensor)}


def without_prefixes(state: State, prefixes: Sequence[str]) -> State:
    """Return a state without the prefixes that all its names have, one after the other."""
    again = bool(state)
    while again:
        again = False
        for prefix in prefixes:
            if prefix and all(name.startswith(prefix) for name in state):
                state, again = {name.removeprefix(prefix): t for name, t in state.items()}, True
    return state


def as_float32(state: State) -> tuple[State, set[str]]:
    """Return the floating-point tensors of a state as float32, and what was done, in words.

    Integer and boolean tensors, as BatchNorm's counters, are no part of a row.

    Raises:
        Unusable: a tensor is complex, sparse, quantised, or of no values.
    """
    made, said = {}, set()
    for name, tensor in state.items():
        if why := unfit(tensor):
            raise Unusable(f"{name} {why}")
        if not tensor.is_floating_point():
            if not name.endswith("num_batches_tracked"):
                said.add(f"{name} of integers left out")
            continue
        if tensor.dtype != torch.float32:
            said.add(f"{str(tensor.dtype).removeprefix('torch.')} made float32")
        made[name] = tensor.detach().float()
    return made, said
