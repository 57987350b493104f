"""How far networks are from the training networks, and how alike their mistakes.

A set of networks is given as blocks: (positions_B, weights_BD), the positions counting 0, 1, ...
through the set. Anything that can be iterated more than once will do: `Rows` of a zoo, or a list.

Shape suffixes: N training networks, T of one block of them; S networks of a set, B of one block;
D numbers of one network, K of them that are learnt, M test images.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from dwf.zoo.moments import Moments
from dwf.zoo.store import STREAM_BYTES, Zoo

Blocks = Iterable[tuple[np.ndarray, np.ndarray]]
CONFIDENCE = 1.96
"""Standard errors that a difference must exceed to be called one."""
FEWEST_ROWS = 4
"""Networks of a block, however large they are: every block is held against all training networks,
which are read anew for it."""
_OVERLAP_ROWS = 512


@dataclass(frozen=True)
class Rows:
    """Rows of a zoo as blocks, 32 MiB of weights or four networks at a time."""

    zoo: Zoo
    rows: np.ndarray
    learnt: bool = False
    """Without running statistics; see `Layout.learnt`."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        start, most = 0, max(STREAM_BYTES, FEWEST_ROWS * 4 * self.zoo.layout.size)
        for rows_B, weights_BD in self.zoo.stream(self.rows, max_bytes=most):
            kept = self.zoo.layout.learnt(weights_BD) if self.learnt else weights_BD
            yield np.arange(start, start + len(rows_B)), kept
            start += len(rows_B)


def moments(blocks: Blocks) -> Moments:
    """Return mean and standard deviation of each weight over a set."""
    gathered = Moments()
    for _, weights_BD in blocks:
        gathered.add(weights_BD)
    return gathered


def nearest(
    weights_BD: np.ndarray,
    training: Blocks,
    *,
    own_B: np.ndarray | None = None,
    labels_N: np.ndarray | None = None,
    device: str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest training network of each network.

    It is found by |a|^2 + |b|^2 - 2ab in float64, and its distance is then taken from the
    differences themselves: a copy is at exactly 0.

    Args:
        weights_BD: float32.
        training: blocks of training networks, read once.
        own_B: a label of each network: training networks of the same label do not count for it
            (leave-one-out); None if all count.
        labels_N: labels of the training networks, int64; default: their positions.
        device: where to compute.

    Returns:
        (distance_B, position_B): Euclidean distance, float64, and which training network, int64.
    """
    mine_BD = torch.from_numpy(weights_BD).to(device, torch.float64)
    norms_B1 = mine_BD.square().sum(1, keepdim=True)
    distance_B = torch.full((len(mine_BD),), torch.inf, dtype=torch.float64, device=device)
    position_B = torch.zeros(len(mine_BD), dtype=torch.int64, device=device)
    for positions_T, training_TD in training:
        theirs_TD = torch.from_numpy(training_TD).to(device, torch.float64)
        squared_BT = norms_B1 + theirs_TD.square().sum(1) - 2 * (mine_BD @ theirs_TD.T)
        if own_B is not None:
            labels_T = positions_T if labels_N is None else labels_N[positions_T]
            is_own_BT = torch.from_numpy(own_B[:, None] == labels_T)
            squared_BT.masked_fill_(is_own_BT.to(device), torch.inf)
        least_B, index_B = squared_BT.min(1)
        exact_B = torch.linalg.vector_norm(mine_BD - theirs_TD[index_B], dim=1)
        exact_B[least_B.isinf()] = torch.inf
        nearer_B = exact_B < distance_B
        distance_B = torch.where(nearer_B, exact_B, distance_B)
        there_B = torch.from_numpy(positions_T).to(device)[index_B]
        position_B = torch.where(nearer_B, there_B, position_B)
    return distance_B.cpu().numpy(), position_B.cpu().numpy()


def overlap(
    wrong_SM: np.ndarray,
    wrong_NM: np.ndarray,
    *,
    nearest_S: np.ndarray,
    own_S: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """How far networks make the same mistakes: |W1 and W2| / |W1 or W2| of wrong answers.

    Two networks without any mistake overlap wholly: 1.

    Args:
        wrong_SM: which images each network gets wrong, bool.
        wrong_NM: the same of the training networks.
        nearest_S: position of each network's nearest training network.
        own_S: the training position each network has itself, which does not count.

    Returns:
        (with the nearest training network, the highest with any of them), float64, shape [S] each.
    """
    with_nearest_S, highest_S = np.empty(len(wrong_SM)), np.empty(len(wrong_SM))
    for part, shares_BN in overlaps(wrong_SM, wrong_NM):
        row_B = np.arange(len(shares_BN))
        with_nearest_S[part] = shares_BN[row_B, nearest_S[part]]
        if own_S is not None:
            shares_BN[row_B, own_S[part]] = -1
        highest_S[part] = shares_BN.max(1)
    return with_nearest_S, highest_S


def overlaps(wrong_SM: np.ndarray, wrong_NM: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (which networks, shares_BN) of a few networks at a time, each against all others.

    One product of matrices gives the mistakes that two networks share, two networks without any
    overlap wholly: 1.

    Args:
        wrong_SM: which images each network gets wrong, bool.
        wrong_NM: the same of the others.
    """
    theirs_NM = torch.from_numpy(wrong_NM).float()  # counts are exact up to 2^24 images
    theirs_N = theirs_NM.sum(1)
    for start in range(0, len(wrong_SM), _OVERLAP_ROWS):
        part = slice(start, start + _OVERLAP_ROWS)
        mine_BM = torch.from_numpy(wrong_SM[part]).float()
        both_BN = mine_BM @ theirs_NM.T
        either_BN = (mine_BM.sum(1, keepdim=True) + theirs_N - both_BN).double()
        yield part, torch.where(either_BN == 0, 1.0, both_BN.double() / either_BN).numpy()


def disagreement(
    answers_SM: np.ndarray, answers_NM: np.ndarray, *, nearest_S: np.ndarray
) -> np.ndarray:
    """Return the share of images that each network answers otherwise than its nearest one.

    Args:
        answers_SM: class that each network answers for each image, int16.
        answers_NM: the same of the training networks.
        nearest_S: position of each network's nearest training network.

    Returns:
        disagreement_S, float64.
    """
    pairs = zip(answers_SM, nearest_S.tolist(), strict=True)
    return np.array([np.mean(mine_M != answers_NM[position]) for mine_M, position in pairs])


def principal_axes(training: Blocks, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return the first principal axes of networks, through their Gram matrix.

    Args:
        training: blocks of N networks; memory is O(N^2 + one block).
        count: how many axes, at most N - 1.

    Returns:
        (axes_CD, share_C): unit vectors and the share of the variance along each, float64. The
        sign is such that the network furthest out along an axis is at a positive place.
    """
    grams = [
        np.hstack([left_BD.astype(np.float64) @ right_TD.T for _, right_TD in training])
        for _, left_BD in training
    ]
    gram_NN = np.vstack(grams)
    gram_NN = gram_NN - gram_NN.mean(0)
    gram_NN -= gram_NN.mean(1, keepdims=True)  # now of the networks minus their mean
    variance_N, vectors_NN = np.linalg.eigh(gram_NN)
    chosen_C = np.argsort(-variance_N, kind="stable")[:count]
    vectors_NC = vectors_NN[:, chosen_C]
    furthest_C = np.abs(vectors_NC).argmax(0)
    vectors_NC = vectors_NC * np.sign(vectors_NC[furthest_C, np.arange(len(chosen_C))])
    vectors_NC -= vectors_NC.mean(0)
    axes_CD = sum(vectors_NC[at_T].T @ training_TD for at_T, training_TD in training)
    axes_CD /= np.maximum(np.linalg.norm(axes_CD, axis=1, keepdims=True), 1e-300)
    return axes_CD, variance_N[chosen_C] / max(variance_N.sum(), 1e-300)
