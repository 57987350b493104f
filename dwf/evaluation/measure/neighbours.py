"""Nearest rows among many: blocked products, memory that does not grow with their number.

Shape suffixes: S rows that ask, T rows they are held against, B rows and O others of one block, A
some of these rows, F numbers of a row, G = F + 1.
"""

import torch

# A block of products is 8 MiB: it stays in a core's cache while it is looked through.
_ROWS, _OTHERS = 1024, 2048


def nearest_rows(
    mine_SF: torch.Tensor,
    theirs_TF: torch.Tensor,
    *,
    own_S: torch.Tensor | None = None,
    of_T: torch.Tensor | None = None,
    signs: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the nearest of other rows for each row.

    It is found by |b|^2 - 2ab in float32, and its distance is then taken from the differences
    themselves, in float64: an equal row is at exactly 0.

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
    order_T, own_S2 = torch.arange(len(theirs_TF)), None
    if own_S is not None and of_T is not None:
        # Others of a label stand side by side: those that do not count for a row are one range.
        order_T = of_T.argsort(stable=True)
        own_S2 = _ranges(own_S, of_T[order_T])
    best_S = torch.full((len(mine_SF),), torch.inf)
    position_S = torch.zeros(len(mine_SF), dtype=torch.int64)
    # A column more makes the product the distance itself: |b|^2 times 1.
    mine_SG = torch.cat([mine_SF, torch.ones(len(mine_SF), 1)], 1)
    room = torch.empty(_ROWS * _OTHERS)
    for start in range(0, len(theirs_TF), _OTHERS):
        block_O = order_T[start : start + _OTHERS]
        others_GO = _extended(theirs_TF[block_O]).T
        for first in range(0, len(mine_SF), _ROWS):
            mine_BG = mine_SG[first : first + _ROWS]
            apart_BO = room[: len(mine_BG) * len(block_O)].view(len(mine_BG), -1)
            if signs:
                torch.mm(mine_BG[:, :-1], others_GO[:-1], out=apart_BO)
                torch.sub(others_GO[-1], apart_BO.abs_(), out=apart_BO)
            else:
                torch.mm(mine_BG, others_GO, out=apart_BO)
            if own_S2 is not None:
                _leave_out(apart_BO, own_S2[first : first + _ROWS] - start)
            least_B = apart_BO.amin(1)
            # The place is looked for only where a block brings something nearer: in ever fewer.
            nearer_A = (least_B < best_S[first : first + _ROWS]).nonzero().squeeze(1)
            if len(nearer_A):
                best_S[first + nearer_A] = least_B[nearer_A]
                position_S[first + nearer_A] = block_O[apart_BO[nearer_A].argmin(1)]
    return _exact(mine_SF, theirs_TF, best_S, position_S, signs=signs), position_S


def _extended(others_OF: torch.Tensor) -> torch.Tensor:
    """Return [-2b, |b|^2] of each row b, [O, F + 1]; where b is not finite, [0, infinity]."""
    finite_O1 = others_OF.isfinite().all(1, keepdim=True)
    others_OF = torch.where(finite_O1, others_OF, torch.zeros(()))
    squared_O1 = others_OF.square().sum(1, keepdim=True).masked_fill(~finite_O1, torch.inf)
    return torch.cat([-2 * others_OF, squared_O1], 1)


def _ranges(own_S: torch.Tensor, sorted_T: torch.Tensor) -> torch.Tensor:
    """Return where each row's own label begins and ends among sorted labels, int64, [S, 2]."""
    first_S = torch.searchsorted(sorted_T, own_S)
    return torch.stack([first_S, torch.searchsorted(sorted_T, own_S, right=True)], 1)


def _leave_out(apart_BO: torch.Tensor, own_B2: torch.Tensor) -> None:
    """Take away what does not count: for each row a range of the block's others, in place."""
    num = apart_BO.shape[1]
    met_A = ((own_B2[:, 0] < num) & (own_B2[:, 1] > 0) & (own_B2[:, 0] < own_B2[:, 1])).nonzero()
    if len(met_A):
        met_A, places_O = met_A.squeeze(1), torch.arange(num)
        first_A1, last_A1 = own_B2[met_A].split(1, 1)
        own_AO = (places_O >= first_A1) & (places_O < last_A1)
        apart_BO[met_A] = apart_BO[met_A].masked_fill(own_AO, torch.inf)


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
        nothing_B = best_S[rows].isinf() & mine_BF.isfinite().all(1)
        found.append(apart_B.masked_fill(nothing_B, torch.inf))
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)
