"""Format `unterthiner`: the small CNN zoos of Unterthiner et al. (arXiv 2002.11448).

`weights.npy` `[N, 4970]`, `metrics.csv.gz` (a line for each row) and `layout.csv` (`varname`,
`start_idx`, `end_idx`, `shape`). Of a layer the bias comes before the kernel; kernels are Keras's,
height x width x in x out, and dense ones in x out.

Shape suffixes: N rows.
"""

import ast
import csv
import gzip
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from dwf.datasets.load import load_dataset
from dwf.errors import ConfigError
from dwf.importers.facts_file import typed
from dwf.importers.importer import Importer, Member, walk
from dwf.importers.tensors import State
from dwf.networks.config import CNNConfig
from dwf.run_folder import reading_arrays

_WEIGHTS, _METRICS, _LAYOUT = "weights.npy", "metrics.csv.gz", "layout.csv"
_RUN, _STEP = "modeldir", "step"
_RENAMED = {"l2reg": "weight_decay", "w_init": "initialisation"}
_LEAVES = {"kernel": "weight", "bias": "bias"}


@dataclass(frozen=True)
class _Variable:
    """A tensor of Keras's in a row."""

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]


class Unterthiner(Importer):
    """A matrix of rows; `modeldir` is the run, `step` the epoch."""

    @cached_property
    def folder(self) -> Path:
        """Folder with the matrix: the source, or the one folder in it that has it."""
        top = super().folder
        found = [file.parent for file in walk(top) if file.name == _WEIGHTS]
        return found[0] if len(found) == 1 else top

    @cached_property
    def _rows(self) -> np.ndarray:
        with reading_arrays(self.folder / _WEIGHTS):
            return np.load(self.folder / _WEIGHTS, mmap_mode="r", allow_pickle=False)

    @cached_property
    def _variables(self) -> list[_Variable]:
        with open(self.folder / _LAYOUT, newline="") as file:
            return [_variable(line, self.folder / _LAYOUT) for line in csv.DictReader(file)]

    def members(self) -> list[Member]:
        """Return a member for each row, the line of the metrics its columns."""
        for name in (_WEIGHTS, _METRICS, _LAYOUT):
            if not (self.folder / name).is_file():
                raise ConfigError(
                    f"source = {self.config.source!r} lacks {name}: give the folder with "
                    f"{_WEIGHTS}, {_METRICS} and {_LAYOUT}"
                )
        made, path = [], self.folder / _WEIGHTS
        with gzip.open(self.folder / _METRICS, "rt", newline="") as file:
            for row, line in enumerate(csv.DictReader(file)):
                run, step = line.pop(_RUN), line.pop(_STEP)
                columns = {_column(name): typed(value) for name, value in line.items() if name}
                name = f"{_WEIGHTS}#{row}"
                made.append(
                    Member(name, path, run, epoch=int(float(step)), row=row, columns=columns)
                )
        if len(made) != len(self._rows):
            raise ConfigError(
                f"{self.folder / _METRICS} has {len(made)} lines, {_WEIGHTS} {len(self._rows)} "
                "rows: take both from one download"
            )
        return made

    def read(self, member: Member) -> State:
        """Return a row as PyTorch's tensors."""
        row_D, state = self._rows[member.row], {}
        for variable in self._variables:
            values = row_D[variable.start : variable.stop].reshape(variable.shape)
            state[variable.name] = torch.from_numpy(_as_torch(values))
        return state

    def network(self, members: Sequence[Member]) -> CNNConfig:
        """Return the network, whose activation the metrics tell.

        Raises:
            ConfigError: the members have several activations.
        """
        kinds = Counter(str(one.columns.get("activation", "relu")) for one in members)
        if len(kinds) > 1:
            counts = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())
            first = next(iter(kinds))
            raise ConfigError(
                f"the networks have several activations, {counts}: take those of one, as "
                f"--where activation={first}"
            )
        convs = [v.shape for v in self._variables if len(v.shape) == 4]
        dense = [v.shape for v in self._variables if len(v.shape) == 2]
        dataset = self.config.data.dataset
        image = load_dataset(dataset).shape if dataset else (convs[0][2], 28, 28)
        return CNNConfig(
            channels=tuple(shape[3] for shape in convs),
            input=image,
            kernels=tuple(shape[0] for shape in convs),
            strides=2,
            head="average",
            classes=dense[-1][1],
            activation=next(iter(kinds)),
        )


def _variable(line: dict[str, str], file: Path) -> _Variable:
    try:
        shape = ast.literal_eval(line["shape"])
        shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        return _Variable(
            _name(line["varname"]), int(line["start_idx"]), int(line["end_idx"]), shape
        )
    except (KeyError, ValueError, SyntaxError):
        raise ConfigError(
            f"{file}: expected the columns varname, start_idx, end_idx and shape, found {line}"
        ) from None


def _name(keras: str) -> str:
    """`sequential/conv2d_1/kernel:0` -> `sequential.conv2d_1.weight`."""
    *owner, leaf = keras.partition(":")[0].split("/")
    return ".".join((*owner, _LEAVES.get(leaf, leaf)))


def _as_torch(values: np.ndarray) -> np.ndarray:
    """Keras's order of axes becomes PyTorch's; a copy, since the file is mapped."""
    if values.ndim == 4:
        return np.ascontiguousarray(values.transpose(3, 2, 0, 1))
    if values.ndim == 2:
        return np.ascontiguousarray(values.T)
    return np.array(values)


def _column(name: str) -> str:
    short = name.removeprefix("config.").replace(".", "_")
    return _RENAMED.get(short, short)
