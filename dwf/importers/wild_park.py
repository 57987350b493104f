"""Format `wild_park`: the CNN Wild Park (arXiv 2403.12143), trials of mixed architectures.

`TRIAL/checkpoint_000003/checkpoint.pt` holds `model` (a state dict), `config` (layers, channels,
kernels, strides, paddings, residuals, activations), `iteration` and `last_result`. Its published
files pickle the class of `config`, so they are read only where the user trusts them.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dwf.datasets.load import load_dataset
from dwf.errors import ConfigError
from dwf.importers.importer import Importer, Member, Unusable, Value, natural
from dwf.importers.tensors import State, load_file, read_tensors
from dwf.metrics import logger
from dwf.networks.config import CNNConfig, NetworkConfig, UnknownConfig

ARCHITECTURE = "architecture"
_FILE = "checkpoint.pt"
_MEASURED = {"test/acc": "test_accuracy", "test/loss": "test_loss"}
_LISTS = ("channels", "kernel_size", "stride", "padding", "residual", "activation")


class WildPark(Importer):
    """Trials; each is a run, and architectures become a zoo each."""

    several = ARCHITECTURE

    def members(self) -> list[Member]:
        """Return a member for each checkpoint; each is read once for what it tells of itself."""
        made, unreadable = [], []
        for file in (one for one in self.files(_FILE) if one.name == _FILE):
            try:
                made.append(self._member(file))
            except Unusable as error:
                unreadable.append(f"{file}: {error}")
        if not made:
            raise self.empty(unreadable[0] if unreadable else f"no file is called {_FILE}")
        if unreadable:
            logger.warning("%d checkpoints left out: %s", len(unreadable), unreadable[0])
        return made

    def read(self, member: Member) -> State:
        """Return the tensors of a checkpoint."""
        return read_tensors(member.path, nested="model")

    def _member(self, file: Path) -> Member:
        columns, epoch = _read_told(file, file.stat().st_mtime_ns)
        run = self.run_of(file, self.name_of(file.parent.parent))
        return Member(self.name_of(file), file, run, epoch=epoch, columns=columns)

    def network(self, members: Sequence[Member]) -> NetworkConfig:
        """Return dwf's CNN where an architecture is one, else the kind `none`.

        Raises:
            ConfigError: the members have several architectures.
        """
        kinds = sorted({str(one.columns[ARCHITECTURE]) for one in members}, key=natural)
        if len(kinds) > 1:
            raise ConfigError(
                f"the networks have {len(kinds)} architectures, and a zoo has one: take one as "
                f"--where {ARCHITECTURE}={kinds[0]}"
            )
        told = members[0].columns
        activations = set(str(told["activation"]).split())
        residuals = set(str(told["residual"]).split())
        dataset = self.config.data.dataset
        if len(activations) > 1 or residuals != {"-1"} or dataset is None:
            return UnknownConfig()
        channels, kernels, strides, paddings = (
            tuple(map(int, str(told[name]).split()))
            for name in ("channels", "kernel_size", "stride", "padding")
        )
        return CNNConfig(
            channels=channels[1:],
            input=load_dataset(dataset).shape,
            kernels=kernels,
            strides=strides,
            paddings=paddings,
            head="average",
            activation=activations.pop(),
        )


@functools.cache  # each architecture becomes a zoo, and lists the source again
def _read_told(file: Path, changed: int) -> tuple[dict[str, Value], int]:
    """Columns and epoch of a checkpoint, as it was at a time."""
    held = load_file(file)
    if not isinstance(held, Mapping) or "config" not in held:
        raise Unusable("it has no `config`")
    told = _told(held["config"])
    try:
        columns: dict[str, Value] = {ARCHITECTURE: _architecture(told)}
        columns |= {name: _words(told[name]) for name in _LISTS}
        result = held.get("last_result") or {}
        for theirs, ours in _MEASURED.items():
            if theirs in result:
                columns[ours] = float(result[theirs])
        return columns, np.int32(held.get("iteration", 0)).item()
    except (TypeError, ValueError, OverflowError) as error:
        raise Unusable(f"what it tells of itself is not as published ({error})") from None


def _told(config: object) -> Mapping[str, Sequence[Value]]:
    """Return the settings in a checkpoint: a mapping, or the fields of an object."""
    try:
        told = config if isinstance(config, Mapping) else vars(config)
    except TypeError:
        raise Unusable("its config is neither a mapping nor an object") from None
    missing = [name for name in _LISTS if name not in told]
    if missing:
        raise Unusable(f"its config lacks {', '.join(missing)}")
    return told


def _words(values: Sequence[Value]) -> str:
    return " ".join(map(str, values))


def _architecture(told: Mapping[str, Sequence[Value]]) -> str:
    """A short name: channels, kernels, activations and, where there are any, residuals, strides."""
    parts = ["-".join(map(str, told["channels"])), "k" + "-".join(map(str, told["kernel_size"]))]
    activations = [str(one) for one in told["activation"]]
    parts.append(activations[0] if len(set(activations)) == 1 else "-".join(activations))
    if any(int(one) != -1 for one in told["residual"]):
        parts.append("r" + "".join("x" if int(r) < 0 else str(r) for r in told["residual"]))
    if any(int(one) != 1 for one in told["stride"]):
        parts.append("s" + "-".join(map(str, told["stride"])))
    return "_".join(parts)
