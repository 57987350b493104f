"""From the snapshots of cohorts to the rows of a shard, in (network, epoch, step) order.

Shape suffixes: R rows, D numbers of one network.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dwf.errors import CorruptShard
from dwf.files import read_json, reading_arrays
from dwf.networks.functional import build_network, has_batchnorm
from dwf.zoo import roster
from dwf.zoo.config import ZooConfig
from dwf.zoo.facts import Facts
from dwf.zoo.layout import Layout
from dwf.zoo.shard import Block, Columns, write_shard
from dwf.zoo.store import split_networks, split_steps
from dwf.zoo.zeros import zero_counts

if TYPE_CHECKING:
    from dwf.zoo.cohorts.cohort import Cohort

_BLOCK_BYTES = 256 * 2**20


def assemble(
    config: ZooConfig, facts: Facts, *, index: int, target: Path, cohorts: "list[Cohort]"
) -> None:
    """Stream the cohorts' snapshots into a shard, without the networks that diverged.

    Args:
        config: the zoo's settings.
        facts: what it says of itself.
        index: which of its shards.
        target: the shard.
        cohorts: trained; in the order of their networks.

    Raises:
        CorruptShard: a row has fewer zeros than were pruned.
    """
    told = [read_json(cohort.done_path, keys=("diverged", "snapshots")) for cohort in cohorts]
    first = config.first or 0
    diverged = [tuple(entry) for one in told for entry in one["diverged"] if entry[0] >= first]
    others = range(min(int(cohort.networks.min()) for cohort in cohorts), first)
    lost = [*(network for network, _, _ in diverged), *others]  # of which another zoo has rows
    folders = [cohort.folder for cohort in cohorts]
    parts = [
        _Rows([folder / name for name in one["snapshots"]], lost)
        for folder, one in zip(folders, told, strict=True)
    ]
    num_rows = sum(len(part.order) for part in parts)
    blocks = _blocks(config, facts.layout, parts, target)
    write_shard(
        target,
        facts,
        index=index,
        num_rows=num_rows,
        blocks=blocks,
        diverged=diverged,
    )


class _Rows:
    """The rows of a cohort as its snapshots hold them."""

    def __init__(self, files: list[Path], lost: list[int]):
        self.files = files
        tables = [self._columns(file) for file in files]
        sizes = [len(table["network"]) for table in tables]
        self.file = np.repeat(np.arange(len(files)), sizes)
        self.place = np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in sizes)])
        names = tables[0] if tables else {}
        self.columns = {name: np.concatenate([t[name] for t in tables]) for name in names}
        self.order = np.zeros(0, np.int64)
        if tables:
            keys = [self.columns[name] for name in ("step", "epoch", "network")]
            order = np.lexsort(keys)
            self.order = order[~np.isin(self.columns["network"][order], lost)]

    @staticmethod
    def _columns(file: Path) -> Columns:
        with reading_arrays(file), np.load(file, allow_pickle=False) as held:
            return {name: held[name] for name in held.files if name != "weights"}

    def weights(self, rows: np.ndarray, num_weights: int) -> np.ndarray:
        """Return weights_RD of some rows; each snapshot is read once."""
        weights_RD = np.empty((len(rows), num_weights), np.float32)
        for index in np.unique(self.file[rows]):
            mine = self.file[rows] == index
            file = self.files[index]
            with reading_arrays(file), np.load(file, allow_pickle=False) as held:
                weights_RD[mine] = held["weights"][self.place[rows[mine]]]
        return weights_RD


def _blocks(config: ZooConfig, layout: Layout, parts: list[_Rows], target: Path) -> Iterator[Block]:
    """Yield the rows of each cohort in turn, a block of bounded size at a time."""
    first = config.first or 0
    splits = split_networks(
        config.num_networks,
        config.split.val,
        test=config.split.test,
        seed=config.seed,
        first=first,
    )
    batchnorm = "trained" if has_batchnorm(build_network(config.network)) else "none"
    step = max(1, _BLOCK_BYTES // (4 * layout.size))
    for part in parts:
        single = split_steps(len(part.order), config.split.val, test=config.split.test)
        for start in range(0, len(part.order), step):
            rows = part.order[start : start + step]
            networks = part.columns["network"][rows]
            one = config.count == 1
            columns = {
                "network": networks,
                "seed": np.array([roster.network_seed(config, n) for n in networks.tolist()]),
                "split": single[start : start + step] if one else splits[networks - first],
                "batchnorm": np.full(len(rows), batchnorm),
            }
            columns |= roster.hyper_parameters(config, networks.tolist())
            columns |= {name: values[rows] for name, values in part.columns.items()} | columns
            columns["epoch"] = columns["epoch"].astype(np.int32)
            weights_RD = part.weights(rows, layout.size)
            if "pruned" in columns:
                _refuse_unpruned(weights_RD, columns, layout, target)
            yield columns, weights_RD


def _refuse_unpruned(
    weights_RD: np.ndarray, columns: Columns, layout: Layout, target: Path
) -> None:
    short_R = zero_counts(weights_RD, layout) < columns["pruned"]
    if short_R.any():
        first = int(np.flatnonzero(short_R)[0])
        raise CorruptShard(
            f"{target}: network {columns['network'][first]} at step {columns['step'][first]} has "
            f"fewer zeros than the {columns['pruned'][first]} weights that were pruned; not written"
        )
