"""Align one shard: match its networks, then write their rows in the new order.

Networks are read a bounded number at a time.

What was matched is kept in the run folder, so that a shard that is lost is only written anew.

Shape suffixes: B rows of a chunk, M networks of a shard, D numbers of one network, U units of a
group.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dwf import preemption
from dwf.align.canonical import balance
from dwf.align.frame import Match
from dwf.align.groups import Group, permute
from dwf.errors import CorruptShard
from dwf.files import reading_arrays
from dwf.run_folder import replacing
from dwf.zoo.facts import Facts
from dwf.zoo.shard import Block, write_shard
from dwf.zoo.store import Zoo

_CHUNK_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Matched:
    """Networks and how they were matched to a reference."""

    network_M: np.ndarray
    """Their numbers in the zoo, rising."""
    orders: list[np.ndarray]
    """For each group int32, shape [M, U]: the unit of the network that became unit u;
    ~unit where its sign was flipped."""
    distance_M2: np.ndarray
    """L2 distance to the reference before and after, float64."""
    cosine_M2: np.ndarray
    """Inner product with the reference over both norms, before and after, float64."""

    @classmethod
    def join(cls, parts: Sequence["Matched"]) -> "Matched":
        """Return the networks of all parts, each once."""
        network_M, first_M = np.unique(
            np.concatenate([part.network_M for part in parts]), return_index=True
        )
        num_groups = len(parts[0].orders)
        orders = [np.concatenate([p.orders[g] for p in parts])[first_M] for g in range(num_groups)]
        distance_M2 = np.concatenate([part.distance_M2 for part in parts])[first_M]
        cosine_M2 = np.concatenate([part.cosine_M2 for part in parts])[first_M]
        return cls(network_M, orders, distance_M2=distance_M2, cosine_M2=cosine_M2)

    def save(self, file: Path) -> None:
        """Write them to a file that is whole or not there."""
        arrays = {f"order_{g}": order_MU for g, order_MU in enumerate(self.orders)}
        arrays |= {"distance": self.distance_M2, "cosine": self.cosine_M2}
        with replacing(file) as partial, open(partial, "wb") as opened:
            np.savez(opened, network=self.network_M, **arrays)

    @classmethod
    def load(cls, file: Path, num_groups: int) -> "Matched":
        """Return what `save` wrote."""
        with reading_arrays(file), np.load(file, allow_pickle=False) as saved:
            orders = [saved[f"order_{g}"] for g in range(num_groups)]
            return cls(
                saved["network"],
                orders,
                distance_M2=saved["distance"],
                cosine_M2=saved["cosine"],
            )


def read_chunks(
    zoo: Zoo, rows: np.ndarray, *, groups: Sequence[Group]
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yield (rows_B, weights_BD) in order, as many as can be matched in a bounded memory.

    Groups that scale come balanced: whoever reads through here has networks of one scale.
    Between two chunks a run that was asked to stop does so.

    Raises:
        CorruptShard: a row does not match its checksum, or is not finite.
        Preempted: a signal asked for it.
    """
    bytes_of_one = 4 * zoo.layout.size
    # Read, balanced, moved, and of most tensors two copies in another arrangement and what is
    # gathered of them; then likeness and what is kept of it.
    bytes_to_match = 7 * bytes_of_one + sum(3 * 8 * group.size**2 for group in groups)
    max_bytes = _CHUNK_BYTES * bytes_of_one // bytes_to_match
    for rows_B, weights_BD in zoo.stream(rows, max_bytes=max_bytes):
        if preemption.is_asked():
            preemption.stop()
        _refuse_not_finite(zoo, rows_B, weights_BD)
        yield rows_B, balance(torch.from_numpy(weights_BD), zoo.layout, groups=groups)


def _refuse_not_finite(zoo: Zoo, rows_B: np.ndarray, weights_BD: np.ndarray) -> None:
    wrong = rows_B[~torch.from_numpy(weights_BD).norm(dim=1).isfinite().numpy()]
    if len(wrong):
        network = zoo.columns["network"][wrong[0]]
        raise CorruptShard(
            f"{zoo.path}: network {network} (row {wrong[0]}) holds weights that are not finite, "
            "or whose squares are not: make this zoo again without it"
        )


def match_shard(
    zoo: Zoo, index: int, *, groups: Sequence[Group], match: Match, reference_D: torch.Tensor
) -> Matched:
    """Match the networks of a shard, each at its last epoch.

    Raises:
        CorruptShard: a row is damaged.
    """
    last = zoo.rows(epoch="last")
    network = zoo.columns["network"][last]
    mine = np.isin(network, zoo.shards[index].columns.get("network", []))
    order = np.argsort(network[mine], kind="stable")
    # Of a single network split into blocks of steps every row is among these: its last stands
    # for all, since a trajectory gets one permutation.
    ends = np.append(np.diff(network[mine][order]) != 0, True)[: len(order)]
    rows = last[mine][order][ends]
    num = len(rows)
    # In place from the start: small arrays kept between large ones would pin the heap in pieces.
    matched = Matched(
        zoo.columns["network"][rows],
        [np.empty((num, group.size), np.int32) for group in groups],
        distance_M2=np.empty((num, 2)),
        cosine_M2=np.empty((num, 2)),
    )
    done = 0
    for rows_B, weights_BD in read_chunks(zoo, rows, groups=groups):
        here = slice(done, done + len(rows_B))
        orders = match(weights_BD, reference_D)
        for order_MU, order_BU in zip(matched.orders, orders, strict=True):
            order_MU[here] = order_BU
        aligned_BD = permute(weights_BD, zoo.layout, groups=groups, orders=orders)
        for when, w_BD in enumerate((weights_BD, aligned_BD)):
            learnt = zoo.layout.learnt
            distance_B, cosine_B = _closeness(learnt(w_BD), learnt(reference_D.float()))
            matched.distance_M2[here, when] = distance_B
            matched.cosine_M2[here, when] = cosine_B
        done = here.stop
    return matched


def write_aligned_shard(
    zoo: Zoo, index: int, *, facts: Facts, groups: Sequence[Group], matched: Matched, path: Path
) -> None:
    """Write a shard's rows, permuted, with the same columns; `facts` are the aligned zoo's.

    Raises:
        CorruptShard: a row is damaged.
    """
    shard = zoo.shards[index]
    blocks = _aligned_blocks(zoo, index, groups, matched)
    write_shard(
        path,
        facts,
        index=index,
        num_rows=shard.num_rows,
        blocks=blocks,
        diverged=shard.diverged,
    )


def _closeness(
    weights_BD: torch.Tensor, reference_D: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """L2 distance and cosine to the reference, shape [B], without a copy of the weights."""
    by_difference = "donot_use_mm_for_euclid_dist"
    distance_B1 = torch.cdist(weights_BD, reference_D[None], compute_mode=by_difference)
    cosine_B = weights_BD @ reference_D / (weights_BD.norm(dim=1) * reference_D.norm())
    return distance_B1[:, 0], cosine_B


def _aligned_blocks(
    zoo: Zoo, index: int, groups: Sequence[Group], matched: Matched
) -> Iterator[Block]:
    shard = zoo.shards[index]
    start = sum(before.num_rows for before in zoo.shards[:index])
    rows = np.arange(start, start + shard.num_rows)
    for rows_B, weights_BD in read_chunks(zoo, rows, groups=groups):
        columns = {name: values[rows_B - start] for name, values in shard.columns.items()}
        at_B = np.searchsorted(matched.network_M, columns["network"])
        orders = [torch.from_numpy(order_MU[at_B]).long() for order_MU in matched.orders]
        yield columns, permute(weights_BD, zoo.layout, groups=groups, orders=orders).numpy()
