"""Networks of a zoo, a bounded number at a time, as an alignment reads them.

Shape suffixes: B networks of a chunk, D numbers of one network.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from dwf import preemption
from dwf.align.canonical import balance
from dwf.align.symmetry import Group
from dwf.errors import CorruptShard
from dwf.zoo.store import Zoo

_CHUNK_BYTES = 128 * 2**20


def read_chunks(
    zoo: Zoo, rows: np.ndarray, groups: Sequence[Group]
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yield (rows_B, weights_BD) in order, as many as can be matched in a bounded memory.

    Groups that rescale come balanced: whoever reads through here has networks of one scale.
    Between two chunks a run that was asked to stop does so.

    Raises:
        CorruptShard: a row does not match its checksum, or is not finite.
        Preempted: a signal asked for it.
    """
    bytes_of_one = 4 * zoo.layout.size
    bytes_to_match = 7 * bytes_of_one + sum(3 * 8 * group.size**2 for group in groups)
    max_bytes = _CHUNK_BYTES * bytes_of_one // bytes_to_match
    for rows_B, weights_BD in zoo.stream(rows, check=True, max_bytes=max_bytes):
        if preemption.is_asked():
            preemption.stop()
        _refuse_not_finite(zoo, rows_B, weights_BD)
        yield rows_B, balance(torch.from_numpy(weights_BD), zoo.layout, groups)


def _refuse_not_finite(zoo: Zoo, rows_B: np.ndarray, weights_BD: np.ndarray) -> None:
    wrong = rows_B[~torch.from_numpy(weights_BD).norm(dim=1).isfinite().numpy()]
    if len(wrong):
        network = zoo.columns["network"][wrong[0]]
        raise CorruptShard(
            f"{zoo.path}: network {network} (row {wrong[0]}) holds weights that are not finite, "
            "or whose squares are not: make this zoo again without it"
        )
