"""Zoo: a folder of shards read as one matrix with a layout and a table of facts.

    zoo.json                    network, data, recipe, layout, ...; see facts.py
    shard-00003-of-00064.h5     see shard.py
    zoo.h5                      all shards as one matrix, for any HDF5 tool; see view.py

Equal zoos are equal files: nothing of host, job or time is in them.

Shape suffixes: N rows of a zoo, R rows asked for, D numbers of one network, W numbers of a window.
"""

import hashlib
import operator
import shlex
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from dwf.dataframes import dataframe
from dwf.errors import ConfigError, IncompleteZoo, ShapeMismatch
from dwf.flags import name_and_root, words_naming
from dwf.notebooks import facts_html
from dwf.run_folder import write_json
from dwf.stages import Product
from dwf.zoo.config import split_sizes
from dwf.zoo.facts import BLOCKS_OF_STEPS, FILE, Facts
from dwf.zoo.manifest import GROWN, grown_by, read_manifest
from dwf.zoo.network_files import filled
from dwf.zoo.row import Row
from dwf.zoo.shard import Block, Columns, Shard, shard_name, write_shard
from dwf.zoo.view import NAME, read_view, write_view
from dwf.zoo.words import zoo_line, zoo_words

if TYPE_CHECKING:
    import pandas
    from torch import nn

    from dwf.datasets.dataset import Dataset

STREAM_BYTES = 32 * 2**20
_MOST_MAPPED = 256  # a mapped file is an open one, and a process may often have 1,024 of those


def create_zoo(path: Path, facts: Facts) -> None:
    """Write the `zoo.json` of the zoo in a folder, before any shard."""
    write_json(path / FILE, facts.to_json())


def finish_zoo(path: Path) -> "Zoo":
    """Write the view `zoo.h5` of a zoo whose shards are all there, and open it."""
    zoo = Zoo.open(path)
    write_view(path, zoo.facts, shards=zoo.shards, columns=zoo.columns)
    return zoo


def write_zoo(path: Path, facts: Facts, *, num_rows: int, blocks: Iterable[Block]) -> "Zoo":
    """Write a whole zoo of one shard from a stream of (columns, weights) blocks.

    Args:
        path: the zoo's folder.
        facts: what it says of itself, as a zoo of one shard.
        num_rows: N, all blocks together.
        blocks: see `write_shard`.
    """
    create_zoo(path, facts)
    write_shard(path / shard_name(0, 1), facts, index=0, num_rows=num_rows, blocks=blocks)
    return finish_zoo(path)


def is_whole(path: Path) -> bool:
    """Whether all files of a zoo are there; a damaged one that was removed is to be made again."""
    if not (path / FILE).exists():
        return False
    files = [path / NAME, *shard_files(path, Facts.read(path).num_shards)]
    return all(file.exists() for file in files)


ZOO = Product("zoo", records="run", head=FILE, is_whole=is_whole)
"""Product of the stages that train, align and draw networks."""


def _is_whole_family(path: Path) -> bool:
    """Whether each zoo of a manifest is finished, and all its files are there."""
    folders = [path.with_name(name) for name in (read_manifest(path) or {}).values()]
    done = [(folder / ZOO.records / "done.json").exists() for folder in folders]
    return bool(folders) and all(done) and all(map(is_whole, folders))


FAMILY = replace(ZOO, noun="family of zoos", is_whole=_is_whole_family)
"""Product of the stages that make several zoos at once."""


def shard_files(path: Path, num_shards: int) -> list[Path]:
    """Return the files of the shards that make a zoo whole, whether they are there or not."""
    return [path / shard_name(index, num_shards) for index in range(num_shards)]


class Zoo:
    """A zoo opened for reading. Use `Zoo.open`."""

    def __init__(
        self, path: Path, facts: Facts, *, shards: list[Shard], columns: Columns | None = None
    ):
        self.path, self.facts, self.layout, self.shards = path, facts, facts.layout, shards
        self._columns = columns
        self._mapped: dict[int, None] = {}  # shards, the one that was used last at the end
        self._starts = np.cumsum([0] + [shard.num_rows for shard in shards])
        self._first_rows = self._starts[:-1].tolist()

    @classmethod
    def open(cls, path: Path | str, incomplete: bool = False) -> "Zoo":
        """Open a zoo, with the zoos that widen it as one.

        Args:
            path: its folder.
            incomplete: open it although shards are missing.

        Raises:
            NotAZoo: no `zoo.json`, or one that cannot be read: see `Facts.read`.
            IncompleteZoo: shards are missing.
            CorruptShard, ShapeMismatch: a shard is damaged, in the wrong place, or of another zoo.
        """
        path = Path(path)
        whole = [cls._open_one(each, incomplete) for each in (path, *grown_by(path))]
        return whole[0] if len(whole) == 1 else cls._joined(whole)

    @classmethod
    def _joined(cls, zoos: "list[Zoo]") -> "Zoo":
        """Return a zoo and those that widen it as one, the rows of the first before the others."""
        first, last = zoos[0], zoos[-1]
        for each in zoos[1:]:
            if each.layout.digest != first.layout.digest:
                raise ShapeMismatch(
                    f"{first.path} was widened by {each.path}, which has layout "
                    f"{each.layout.digest}, not {first.layout.digest}: remove {each.path}, and "
                    f"{first.path / GROWN}"
                )
        shards = [shard for each in zoos for shard in each.shards]
        facts = replace(first.facts, num_shards=len(shards), count=last.facts.count)
        filled = [each.columns for each in zoos if len(each)]
        names = filled[0] if filled else {}
        columns = {name: np.concatenate([table[name] for table in filled]) for name in names}
        return cls(first.path, facts, shards=shards, columns=columns)

    @classmethod
    def _open_one(cls, path: Path, incomplete: bool) -> "Zoo":
        facts = Facts.read(path)
        files = shard_files(path, facts.num_shards)
        missing = [file for file in files if not file.exists()]
        if missing and not incomplete:
            raise IncompleteZoo(
                f"{path} lacks {len(missing)} of {len(files)} shards, first {missing[0].name}: "
                "give the command that makes this zoo again (for a trained zoo: dwf zoo --resume "
                f"{words_naming(path, 'zoos')}); all that are missing: dwf status "
                f"{shlex.quote(str(path))}"
            )
        view = None if missing else read_view(path, facts, files=files)
        if view:
            shards, columns = view
            return cls(path, facts, shards=shards, columns=columns)
        there = [(index, file) for index, file in enumerate(files) if file.exists()]
        shards = [Shard(file, facts, index=index) for index, file in there]
        return cls(path, facts, shards=shards)

    @property
    def name(self) -> str:
        """The name, under `zoos/` of a root; names may be nested."""
        return name_and_root(self.path, "zoos")[0]

    def __len__(self) -> int:
        """N: the number of rows."""
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> Row:
        """Return a row, counted from the end where it is below 0.

        Raises:
            IndexError: there is no such row.
        """
        index = operator.index(row)
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index}: {self.path} has rows 0 to {len(self) - 1}")
        return Row(self, index % len(self))

    def __repr__(self) -> str:
        return zoo_line(self)

    def _repr_html_(self) -> str:
        return facts_html(f"zoo {self.path}", zoo_words(self))

    def to_dataframe(self) -> "pandas.DataFrame":
        """Return the table of facts as a DataFrame, a row for each of the zoo's."""
        return dataframe(self.columns, index="row")

    @cached_property
    def columns(self) -> Columns:
        """The table of facts: name -> array of shape [N]."""
        if self._columns is not None:
            return self._columns
        tables = [shard.columns for shard in self.shards if shard.num_rows]
        if not tables:
            return {}
        return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}

    @property
    def fingerprint(self) -> str:
        """A short name of all its weights: equal weights in equal order, equal fingerprints."""
        checksums_N = self.columns.get("checksum", np.zeros(0)).astype("<u4")
        return hashlib.sha256(checksums_N.tobytes()).hexdigest()[:16]

    @property
    def diverged(self) -> list[tuple[int, int, str]]:
        """(network, step, reason) of the networks that were kept out."""
        return [entry for shard in self.shards for entry in shard.diverged]

    @property
    def is_one_network(self) -> bool:
        """Whether rows are steps of one network's training, each of which counts as a network."""
        return self.facts.split_by == BLOCKS_OF_STEPS

    def rows(
        self, split: str | None = None, epoch: int | Literal["last"] | None = None
    ) -> np.ndarray:
        """Return the indices of rows, int64, in order.

        Args:
            split: `train`, `val` or `test`: of these networks only.
            epoch: of this epoch only; `last` takes each network's last row. Of a zoo of one
                network, split into blocks of its steps, it takes all: there each row counts.
        """
        if epoch == "last" and self.is_one_network:
            epoch = None
        keep = np.ones(len(self), bool)
        if split is not None and len(self):
            keep &= self.columns["split"] == split
        if epoch == "last" and len(self):
            network, at = self.columns["network"], self.columns["epoch"]
            order = np.lexsort((at, network))
            last = np.append(network[order][1:] != network[order][:-1], True)
            keep &= np.isin(np.arange(len(self)), order[last])
        elif epoch is not None and len(self):
            keep &= self.columns["epoch"] == epoch
        return np.flatnonzero(keep)

    def read(
        self,
        rows: np.ndarray | slice | None = None,
        start: int = 0,
        *,
        stop: int | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Read rows, each of which is held to its checksum when it is first read.

        A row that was read before is read again in the window alone.

        Args:
            rows: indices, any order; default all.
            start: first number of each row.
            stop: number behind the last; default D.
            out: float32 array of shape [R, W] to fill.

        Returns:
            weights_RW, float32.

        Raises:
            CorruptShard: a row does not match its checksum.
        """
        rows = np.arange(len(self))[rows if rows is not None else slice(None)]
        stop = self.layout.size if stop is None else stop
        out = np.empty((len(rows), stop - start), np.float32) if out is None else out
        if out.shape != (len(rows), stop - start):
            raise ShapeMismatch(f"out has shape {out.shape}, not {(len(rows), stop - start)}")
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        for index in np.unique(owner):
            self._read_shard(index, rows, owner == index, slice(start, stop), out)
        return out

    def _read_shard(
        self,
        index: int,
        rows: np.ndarray,
        mine: np.ndarray,
        window: slice,
        out: np.ndarray,
    ) -> None:
        shard = self.shards[index]
        local = rows[mine] - self._starts[index]
        first, last = local[0], local[-1] + 1
        in_order = last - first == len(local) and (np.diff(local) == 1).all()
        taken = shard.weights[first:last, window] if in_order else shard.weights[local, window]
        if mine.all():
            out[:] = taken
        else:
            out[mine] = taken
        is_whole = window == slice(0, self.layout.size)
        shard.check(local, (out if mine.all() else out[mine]) if is_whole else None)
        self._keep_mapped(index)

    def locate(self, row: int) -> tuple[int, int]:
        """Return the number of the shard that a row is in, and the number of the row there."""
        index = bisect_right(self._first_rows, row) - 1
        return index, row - self._first_rows[index]

    def map_row(self, row: int) -> np.ndarray:
        """Return weights_D of a row, float32, as its file is mapped.

        The first time all of it is read, and held to its checksum; then only what is used.

        Raises:
            CorruptShard: the row does not match its checksum.
        """
        index, local = self.locate(row)
        self.shards[index].check(np.array([local]))
        weights_D = self.shards[index].weights[local]
        self._keep_mapped(index)
        return weights_D

    def note_checked(self, rows: np.ndarray) -> None:
        """Take it that rows match their checksums: the ranks have held them to these together."""
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        for index in np.unique(owner):
            self.shards[index].note_checked(rows[owner == index] - self._starts[index])

    def _keep_mapped(self, index: int) -> None:
        """Note that a shard was used; of those used longest ago, give files back."""
        self._mapped.pop(index, None)
        self._mapped[index] = None
        if len(self._mapped) > _MOST_MAPPED:
            oldest = next(iter(self._mapped))
            del self._mapped[oldest]
            self.shards[oldest].unmap()

    def build_network(self) -> "nn.Module":
        """Return one network of the zoo's architecture, in evaluation mode."""
        return self.facts.build_network()

    def network(self, row: int) -> "nn.Module":
        """Return a row as a network of its own, in evaluation mode.

        Args:
            row: its index, from 0.

        Raises:
            ConfigError: there is no such row, or the architecture cannot be built.
            CorruptShard: the row does not match its checksum.
        """
        if not 0 <= row < len(self):
            raise ConfigError(f"row = {row}: {self.path} has rows 0 to {len(self) - 1}")
        return filled(self.build_network(), self.layout, weights_D=self.read(np.array([row]))[0])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input of its networks."""
        return self.facts.input_shape

    def load_data(self) -> "Dataset":
        """Return the dataset the zoo was trained on, prepared as its recipe says."""
        return self.facts.load_data()

    def stream(
        self, rows: np.ndarray | None = None, *, max_bytes: int = STREAM_BYTES
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows_B, weights_BD) in order, at most `max_bytes` of weights at a time."""
        rows = np.arange(len(self)) if rows is None else rows
        step = max(1, max_bytes // (4 * max(self.layout.size, 1)))
        for i in range(0, len(rows), step):
            yield rows[i : i + step], self.read(rows[i : i + step])

    def verify(self) -> None:
        """Hold rows that were not read yet to their checksums, see `read`."""
        for shard in self.shards:
            shard.check(np.arange(shard.num_rows))


def split_networks(count: int, val: float, *, test: float, seed: int, first: int = 0) -> np.ndarray:
    """Draw each network's split once: an array of `train`, `val`, `test`, shape [count].

    Args:
        count: number of networks.
        val: share of the networks held out for choices.
        test: share held out for reports.
        seed: the zoo's seed.
        first: number of the first network; those of each zoo that widens another are drawn alone.
    """
    from dwf.randomness import numpy_stream

    names = np.full(count, "train", dtype="U6")
    stream = numpy_stream(seed, "split", first) if first else numpy_stream(seed, "split")
    order = stream.permutation(count)
    _, num_val, num_test = split_sizes(count, val, test=test)
    names[order[:num_val]] = "val"
    names[order[num_val : num_val + num_test]] = "test"
    return names


def split_steps(num_rows: int, val: float, *, test: float) -> np.ndarray:
    """Split the rows of a single network, in their order, into blocks: train, val, test.

    Neighbouring rows are near-copies, so rows drawn at random would have twins in every split.

    Args:
        num_rows: R.
        val: share of the rows held out for choices, those behind the training rows.
        test: share held out for reports, the last.
    """
    num_val, num_test = round(val * num_rows), round(test * num_rows)
    sizes = [num_rows - num_val - num_test, num_val, num_test]
    return np.repeat(np.array(["train", "val", "test"]), sizes)
