"""Format `unterthiner`: the small CNN zoos of Unterthiner et al. (arXiv 2002.11448).

`weights.npy` `[N, 4970]`, `metrics.csv.gz` (a line for each row) and `layout.csv` (`varname`,
`start_idx`, `end_idx`, `shape`). Of a layer the bias comes before the kernel; kernels are Keras's,
height x width x in x out, and dense ones in x out.

Shape suffixes: N rows.
"""

import ast
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from dwf.datasets.load import load_dataset
from dwf.errors import ConfigError
from dwf.files import reading_arrays
from dwf.importers.facts_file import read_table, typed
from dwf.importers.importer import Importer, Member
from dwf.importers.tensors import State
from dwf.networks.config import CNNConfig

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

    tells_runs = True

    @cached_property
    def _place(self) -> Path:
        """Folder with the matrix: the source, or the one folder in it that has it."""
        found = [file.parent for file in self.files(_WEIGHTS) if file.name == _WEIGHTS]
        return found[0] if len(found) == 1 else self.folder

    @cached_property
    def _rows(self) -> np.ndarray:
        path = self._place / _WEIGHTS
        with reading_arrays(path):
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        if rows.ndim != 2 or rows.dtype.kind != "f":
            raise ConfigError(
                f"{path} has shape {list(rows.shape)} of {rows.dtype}: a matrix of floating-point "
                "numbers is expected"
            )
        return rows

    @cached_property
    def _variables(self) -> list[_Variable]:
        path, width = self._place / _LAYOUT, self._rows.shape[1]
        variables = [_variable(line, path) for line in read_table(path)]
        for one in variables:
            size = math.prod(one.shape)
            if not 0 <= one.start <= one.stop <= width or one.stop - one.start != size:
                raise ConfigError(
                    f"{path}: {one.name} of shape {list(one.shape)} lies at {one.start} to "
                    f"{one.stop}: expected {size} numbers of the {width} of a row"
                )
        return variables

    def members(self) -> list[Member]:
        """Return a member for each row, the line of the metrics its columns."""
        for name in (_WEIGHTS, _METRICS, _LAYOUT):
            if not (self._place / name).is_file():
                raise ConfigError(
                    f"source = {self.config.source!r} lacks {name}: give the folder with "
                    f"{_WEIGHTS}, {_METRICS} and {_LAYOUT}"
                )
        path = self._place / _METRICS
        made = [self._member(row, line, path) for row, line in enumerate(read_table(path))]
        if len(made) != len(self._rows):
            raise ConfigError(
                f"{path} has {len(made)} lines, {_WEIGHTS} {len(self._rows)} rows: take both from "
                "one download"
            )
        return made

    def _member(self, row: int, line: dict[str, str], path: Path) -> Member:
        columns = {_column(name): typed(value or "") for name, value in line.items() if name}
        run, step = line.get(_RUN), _whole(line.get(_STEP))
        if not run or step is None:
            raise ConfigError(
                f"{path}, line {row + 2}: {_RUN} is {run!r} and {_STEP} {line.get(_STEP)!r}: the "
                "run of a row and its epoch are expected"
            )
        own = {name: value for name, value in columns.items() if name not in (_RUN, _STEP)}
        weights = self._place / _WEIGHTS
        return Member(f"{_WEIGHTS}#{row}", weights, run, epoch=step, row=row, columns=own)

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


def _whole(text: str | None) -> int | None:
    """Return the epoch that a cell tells, as `86` or `86.0`; None where it tells none."""
    found = re.fullmatch(r"([0-9]{1,9})(?:\.0*)?", text or "")
    return int(found[1]) if found else None


def _variable(line: dict[str, str], file: Path) -> _Variable:
    try:
        shape = ast.literal_eval(line["shape"])
        shape = tuple(map(int, shape if isinstance(shape, (tuple, list)) else (shape,)))
        return _Variable(
            _name(line["varname"]), int(line["start_idx"]), int(line["end_idx"]), shape
        )
    except (
        KeyError, ValueError, SyntaxError, TypeError, AttributeError, RecursionError, MemoryError,
        OverflowError,
    ):  # fmt: skip
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
