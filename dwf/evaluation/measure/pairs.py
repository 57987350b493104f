"""Distance of a network to a chosen training network, whatever the order and scale of its units.

Shape suffixes: B networks of a block, D numbers of one network, K of them that are learnt, P
partners of each network, A networks with one partner, or partners read at once.
"""

from collections.abc import Sequence

import numpy as np
import torch

from dwf.align.canonical import balance
from dwf.align.groups import Group, permute
from dwf.align.matching import Matcher
from dwf.evaluation.measure.novelty import Rows
from dwf.zoo.store import STREAM_BYTES

_LARGEST = 1e12  # of a weight in a network that is balanced and matched: its square is finite


class PairDistance:
    """Distances of networks to partners among the training networks.

    Args:
        training: the training networks; whole rows are read.
        groups: groups of units that may be reordered, and which of them may be scaled or flipped;
            none: networks are taken as they are.
    """

    def __init__(self, training: Rows, *, groups: Sequence[Group]):
        self.training, self.groups = training, tuple(groups)
        self.layout = training.zoo.layout
        signs = any(group.signs for group in groups)
        self._match = Matcher(self.layout, self.groups, signs=signs, heads_again=True)

    def __call__(self, weights_BD: np.ndarray, partners_BP: np.ndarray) -> np.ndarray:
        """Return the distance of networks to each of their partners, float64_BP.

        Scales of units are balanced in both, and the units of the network are matched to the
        partner's (see `match_networks`). What becomes of a network does not depend on the others.

        Args:
            weights_BD: float32, whole rows. One that is not finite is at distance NaN.
            partners_BP: positions among the training networks, int64.
        """
        mine_BD = self._balanced(weights_BD)
        numbers, inverse_BP = np.unique(partners_BP, return_inverse=True)
        inverse_BP = inverse_BP.reshape(partners_BP.shape)
        distance_BP = np.empty(partners_BP.shape)
        step = max(1, STREAM_BYTES // (4 * self.layout.size))
        for start in range(0, len(numbers), step):
            rows_A = self.training.rows[numbers[start : start + step]]
            theirs_AD = self._balanced(self.training.zoo.read(rows_A))
            for n, theirs_D in enumerate(theirs_AD, start):
                # One partner is matched to all that have it: the reference is prepared once.
                row_A, column_A = np.nonzero(inverse_BP == n)
                distance_BP[row_A, column_A] = self._apart(mine_BD[row_A], theirs_D)
        return distance_BP

    def _balanced(self, weights_BD: np.ndarray) -> torch.Tensor:
        given_BD = torch.from_numpy(np.array(weights_BD, np.float32))
        sound_B = _sound(given_BD)
        given_BD[sound_B] = balance(given_BD[sound_B], self.layout, groups=self.groups)
        return given_BD

    def _apart(self, mine_AD: torch.Tensor, theirs_D: torch.Tensor) -> np.ndarray:
        sound_A = _sound(mine_AD)
        if self.groups and sound_A.any() and bool(_sound(theirs_D[None]).all()):
            orders = self._match(mine_AD[sound_A], theirs_D)
            matched_AD = permute(mine_AD[sound_A], self.layout, groups=self.groups, orders=orders)
            mine_AD[sound_A] = matched_AD
        learnt = self.layout.learnt
        apart_AK = learnt(mine_AD.numpy()).astype(np.float64) - learnt(theirs_D[None].numpy())
        return np.linalg.norm(apart_AK, axis=1)


def _sound(weights_BD: torch.Tensor) -> torch.Tensor:
    """Whether networks can be balanced and matched: their numbers are finite, and not too large."""
    return (weights_BD.abs() < _LARGEST).all(1)
