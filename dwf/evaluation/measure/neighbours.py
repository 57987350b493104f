"""Nearest rows among many: blocked products, memory that does not grow with their number.

Shape suffixes: S rows that ask, T rows they are held against, B of one block, F numbers of a row.
"""

import torch

_ROWS, _OTHERS = 1024, 8192  # a block of products is 32 MiB


def nearest_rows(
    mine_SF: torch.Tensor,
    theirs_TF: torch.Tensor,
    *,
    own_S: torch.Tensor | None = None,
    of_T: torch.Tensor | None = None,
    signs: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the nearest of other rows for each row.

    It is found by |a|^2 + |b|^2 - 2ab in float32, and its distance is then taken from the
    differences themselves, in float64: an equal row is at exactly 0.

    Args:
        mine_SF: float32; a row that is not finite is at distance NaN.
        theirs_TF: float32; rows that are not finite are nobody's nearest.
        own_S: label of each row, int64; with `of_T`.
        of_T: labels of the others: those with a row's own label do not count for it.
        signs: whether -b counts where it is nearer than b.

    Returns:
        (distance_S, position_S): Euclidean distance, float64, infinite where none counts, and
        which of theirs, int64.
    """
    finite_T = theirs_TF.isfinite().all(1)
    theirs_TF = torch.where(finite_T[:, None], theirs_TF, torch.zeros(()))
    squared_T = theirs_TF.square().sum(1).masked_fill(~finite_T, torch.inf)
    best_S = torch.full((len(mine_SF),), torch.inf)
    position_S = torch.zeros(len(mine_SF), dtype=torch.int64)
    for first in range(0, len(mine_SF), _ROWS):
        rows = slice(first, first + _ROWS)
        for start in range(0, len(theirs_TF), _OTHERS):
            others = slice(start, start + _OTHERS)
            products_BT = mine_SF[rows] @ theirs_TF[others].T
            products_BT = products_BT.abs_() if signs else products_BT
            apart_BT = torch.add(squared_T[others], products_BT, alpha=-2, out=products_BT)
            if own_S is not None and of_T is not None:
                apart_BT.masked_fill_(own_S[rows, None] == of_T[others], torch.inf)
            least_B = apart_BT.amin(1)
            # The place is looked for only where a block brings something nearer: in ever fewer.
            nearer_A = (least_B < best_S[rows]).nonzero().squeeze(1)
            if len(nearer_A):
                best_S[first + nearer_A] = least_B[nearer_A]
                position_S[first + nearer_A] = start + apart_BT[nearer_A].argmin(1)
    return _exact(mine_SF, theirs_TF, best_S, position_S, signs=signs), position_S


def _exact(
    mine_SF: torch.Tensor,
    theirs_TF: torch.Tensor,
    best_S: torch.Tensor,
    position_S: torch.Tensor,
    *,
    signs: bool,
) -> torch.Tensor:
    found = []
    for first in range(0, len(mine_SF), _ROWS):
        rows = slice(first, first + _ROWS)
        mine_BF, theirs_BF = mine_SF[rows].double(), theirs_TF[position_S[rows]].double()
        apart_B = torch.linalg.vector_norm(mine_BF - theirs_BF, dim=1)
        if signs:
            apart_B = apart_B.minimum(torch.linalg.vector_norm(mine_BF + theirs_BF, dim=1))
        nothing_B = best_S[rows].isinf() & apart_B.isfinite()
        found.append(apart_B.masked_fill(nothing_B, torch.inf))
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)
