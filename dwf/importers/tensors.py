"""The tensors of one file: found in what it holds, named without prefixes, made float32."""

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from dwf import trust
from dwf.errors import ConfigError
from dwf.importers.importer import Unusable

State = dict[str, torch.Tensor]
_WANTS_CODE = ("Unsupported global", "Unsupported class", "Trying to instantiate")


def load_file(path: Path) -> object:
    """Return what a file of PyTorch or safetensors holds; none of its code is run.

    A pickle that holds more than tensors and plain data is unpickled only where the user named it,
    see `dwf.trust.trust_pickle`.

    Raises:
        Unusable: the file is damaged, or a pickle that wants more.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file as load

            return load(path)
        _refuse_altered(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not any(words in str(error) for words in _WANTS_CODE):
            raise Unusable("damaged: it is no file of torch.save") from None
        if trust.is_trusted_pickle(path):
            return torch.load(path, map_location="cpu", weights_only=False)
        raise Unusable(
            "a pickle with more than tensors, which would run code; read it, and where you trust "
            f"it give --trust-pickle {path}"
        ) from None
    except (FileNotFoundError, PermissionError, Unusable):
        raise
    except Exception as error:  # what altered bytes raise depends on where they lie
        raise Unusable(f"damaged: {' '.join(str(error).split())[:120]}") from None


def _refuse_altered(path: Path) -> None:
    """Hold a zip archive to its checksums, which torch itself does not look at."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        altered = archive.testzip()
    if altered is not None:
        raise Unusable(f"damaged: {altered} does not match its checksum")


def find_state(held: object, path: Path, *, nested: str | None = None) -> State:
    """Return the tensors in what a file holds, which may lie under a key such as `state_dict`.

    Args:
        held: what the file holds.
        path: the file, for errors.
        nested: dotted keys to follow; None: the one part that has tensors.

    Raises:
        Unusable: it holds no tensors.
        ConfigError: several parts have tensors, and none is named.
    """
    if nested is not None:
        for key in nested.split("."):
            if not isinstance(held, Mapping) or key not in held:
                raise Unusable(f"it has no {nested!r}")
            held = held[key]
    state = _tensors_of(held)
    if state:
        return state
    parts = {k: v for k, v in held.items() if _tensors_of(v)} if isinstance(held, Mapping) else {}
    if len(parts) > 1:
        raise ConfigError(
            f"{path} holds tensors under {' and '.join(map(repr, parts))}: say which are the "
            f"network's, as --nested {next(iter(parts))}"
        )
    if not parts:
        raise Unusable("it holds no tensors")
    return _tensors_of(next(iter(parts.values())))


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
        Unusable: a tensor is complex, sparse or quantised.
    """
    made, said = {}, set()
    for name, tensor in state.items():
        if tensor.is_complex():
            raise Unusable(f"{name} is complex")
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise Unusable(f"{name} is sparse or quantised")
        if not tensor.is_floating_point():
            if not name.endswith("num_batches_tracked"):
                said.add(f"{name} of integers left out")
            continue
        if tensor.dtype != torch.float32:
            said.add(f"{str(tensor.dtype).removeprefix('torch.')} made float32")
        made[name] = tensor.detach().float()
    return made, said
