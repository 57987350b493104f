"""Networks in files of their own: one network in each, by the names of its tensors.

    FILE.safetensors            its metadata `dwf` tell the architecture
    FILE.pt  FILE.pth  FILE.npz  the `export.json` beside it does
    FOLDER/model.safetensors    as Hugging Face's libraries keep a network

Nothing in a file is executed. `dwf.exporters` writes them.

Shape suffixes: D numbers of one network.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dwf.errors import ConfigError, CorruptCheckpoint, DwfError, ShapeMismatch
from dwf.files import parse_json, read_text, reading_arrays, refuse_irregular
from dwf.networks.config import NetworkConfig
from dwf.plain import Json
from dwf.run_folder import load_state
from dwf.settings import build
from dwf.zoo.layout import Layout

if TYPE_CHECKING:
    import torch
    from torch import nn

METADATA = "dwf"
"""Key of a safetensors file's metadata under which `Told` stands, as JSON."""
INDEX = "export.json"
"""File of a folder of exported networks that tells what they are."""
HUGGING_FACE = "model.safetensors"
"""File that holds a network's tensors in a folder of Hugging Face's."""
SUFFIXES = (".safetensors", ".pt", ".pth", ".npz")
"""Names of files that hold networks end so."""


@dataclass(frozen=True)
class Told:
    """Facts that a file states of the network in it, beside the tensors."""

    network: NetworkConfig
    """The architecture."""
    input_shape: tuple[int, ...]
    """Shape of one input."""

    @classmethod
    def read(cls, data: dict[str, Json], file: Path) -> "Told":
        """Return what plain data tell; other keys than its own take no part.

        Raises:
            ConfigError: a key is missing, or is not as dwf writes it.
        """
        own = {name: data[name] for name in ("network", "input_shape") if name in data}
        return build(cls, own, source=str(file))


def load_network(path: Path | str, network: NetworkConfig | None = None) -> "nn.Module":
    """Return the network that a file holds, in evaluation mode.

    Args:
        path: a file (`SUFFIXES`), or a folder that holds a `model.safetensors`.
        network: settings of its architecture; default: what was written with it.

    Raises:
        ConfigError: there is no such file, its format is another, or nothing tells the
            architecture, or that is code which the user has not named.
        ShapeMismatch: its tensors are not those of the architecture; names the first.
        CorruptCheckpoint: it is truncated or altered, or holds pickled objects.
    """
    from dwf.networks.functional import build_network

    file = network_file(Path(path))
    built = build_network(network or _told(file).network)
    return filled(built, Layout.of(built), weights_D=read_row(file, Layout.of(built)))


def network_file(path: Path) -> Path:
    """Return the file of a network: the path itself, or that in a folder of Hugging Face's.

    Raises:
        ConfigError: there is none, or it is no file of a format that is read.
    """
    file = path / HUGGING_FACE if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"{file}: no such file: give a file of one network, as export.py writes")
    if file.suffix not in SUFFIXES:
        raise ConfigError(
            f"{file}: files of networks that are read end in {', '.join(SUFFIXES)}: export it "
            "with --format safetensors"
        )
    return file


def read_row(file: Path, layout: Layout) -> np.ndarray:
    """Return weights_D of the network in a file, float32.

    Args:
        file: see `network_file`.
        layout: of the network that it must hold.

    Raises:
        ShapeMismatch: a tensor is missing, of another shape, or of no place in the layout.
        CorruptCheckpoint: the file is truncated or altered.
    """
    state = read_state(file)
    for name, tensor in state.items():
        why = unfit(tensor)
        if name in layout.by_name and not tensor.is_floating_point():
            why = why or f"is of {tensor.dtype}, expected floating-point numbers"
        if why:
            raise ShapeMismatch(f"{file}: {name} {why}")
    try:
        rows = layout.flatten(state)
    except ShapeMismatch as error:
        raise ShapeMismatch(f"{file}: {error}") from None
    if rows.dim() > 1:
        raise ShapeMismatch(f"{file} holds {len(rows)} networks in one: a file holds one network")
    return rows.numpy()


def unfit(tensor: "torch.Tensor") -> str | None:
    """Return why the numbers of a tensor cannot be part of a row, in words; None where they can."""
    import torch

    if tensor.is_complex():
        return "is complex"
    if tensor.layout != torch.strided or tensor.is_quantized:
        return "is sparse or quantised"
    return "has a shape and no values (device meta)" if tensor.is_meta else None


def read_state(file: Path) -> dict[str, "torch.Tensor"]:
    """Return name -> tensor of the network in a file.

    Raises:
        CorruptCheckpoint: the file is truncated or altered, or holds something else than tensors.
    """
    import torch

    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    if file.suffix == ".npz":
        with reading_arrays(file), np.load(file, allow_pickle=False) as saved:
            arrays = {name: saved[name] for name in saved.files}
        odd = next((name for name, one in arrays.items() if one.dtype.kind not in "biufc"), None)
        if odd is not None:
            raise CorruptCheckpoint(f"{file}: {odd!r} is of {arrays[odd].dtype}: give numbers")
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    state = load_state(file, cure="get it again, or write it anew by torch.save(state_dict)")
    if not isinstance(state, dict):
        raise CorruptCheckpoint(
            f"{file} holds a {type(state).__name__}: expected name -> tensor, as `state_dict()` "
            "gives"
        )
    odd = next((name for name, value in state.items() if not isinstance(value, torch.Tensor)), None)
    if odd is not None:
        raise CorruptCheckpoint(
            f"{file}: {odd!r} is no tensor: expected name -> tensor, as `state_dict()` gives"
        )
    return state


def _read_safetensors(file: Path) -> dict[str, "torch.Tensor"]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    refuse_irregular(file)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> DwfError:
    return CorruptCheckpoint(f"{file} is damaged ({error}): export the network again")


def _told(file: Path) -> Told:
    """Return what a file, or the index beside it, says of the network."""
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        refuse_irregular(file)
        try:
            with safe_open(file, framework="numpy") as opened:
                metadata = opened.metadata() or {}
        except SafetensorError as error:
            raise _damaged(file, error) from None
        if METADATA in metadata:
            return Told.read(_json(metadata[METADATA], file), file)
    index = file.parent / INDEX
    if not index.exists():
        raise ConfigError(
            f"{file}: nothing tells its architecture: keep {INDEX} beside it, or give the "
            "architecture as `network`, settings of dwf.networks.config"
        )
    return Told.read(_json(read_text(index), index), index)


def _json(text: str, file: Path) -> dict[str, Json]:
    try:
        return parse_json(text, file)
    except CorruptCheckpoint as error:
        raise _damaged(file, error) from None


def filled(network: "nn.Module", layout: Layout, *, weights_D: np.ndarray) -> "nn.Module":
    """Return a network with the weights of a row; integer buffers stay as they were built.

    Args:
        network: one of the layout's architecture, which is changed.
        layout: which numbers are which tensor.
        weights_D: float32.
    """
    import torch

    row_D = torch.from_numpy(np.ascontiguousarray(weights_D))
    network.load_state_dict(network.state_dict() | layout.unflatten(row_D))
    return network.eval()
