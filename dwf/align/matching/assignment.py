"""Linear assignment: the order of units that adds up to the most similarity.

Shape suffixes: A matrices, U units.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from dwf.randomness import thread_pool

# From so many units on, scaling rows and columns first saves more time than it takes (measured:
# 1.5x at 192 units, 3x at 512, 4x at 768).
_LEAST_TO_SCALE = 160
_SCALINGS = 10
# Of the standard deviation of the entries: lower ones come closer to the optimum, more slowly.
_TEMPERATURE = 0.1
_ROWS_TO_MEASURE = 64


def assign(similarity_AUU: torch.Tensor) -> torch.Tensor:
    """Return the order of units with the largest sum of `similarity[a, u, order[a, u]]`.

    Exact up to rounding of the sum.

    Args:
        similarity_AUU: float32 or float64.

    Returns:
        int64, shape [A, U].
    """
    num, size = similarity_AUU.shape[:2]
    workers = min(num, torch.get_num_threads())
    if size < _LEAST_TO_SCALE or workers == 1:
        found = [_assign_one(similarity_UU) for similarity_UU in similarity_AUU]
    else:  # the solver lets other threads run meanwhile
        with thread_pool(workers) as pool:
            found = list(pool.map(_assign_one, similarity_AUU))
    return torch.from_numpy(np.array(found, np.int64).reshape(num, size))


def _assign_one(similarity_UU: torch.Tensor) -> np.ndarray:
    scaled = len(similarity_UU) >= _LEAST_TO_SCALE
    cost_UU = _reduced_cost(similarity_UU) if scaled else -similarity_UU
    return linear_sum_assignment(cost_UU.numpy())[1]


def total(similarity_AUU: torch.Tensor, order_AU: torch.Tensor) -> torch.Tensor:
    """Return the sum of similarity[a, u, order[a, u]] of each matrix, float64, shape [A]."""
    return similarity_AUU.gather(2, order_AU.unsqueeze(2)).sum((1, 2), dtype=torch.float64)


def _reduced_cost(similarity_UU: torch.Tensor) -> torch.Tensor:
    """Return costs with the least of each row and column near 0, and the same optimum, float64.

    What is added to rows and columns are the logarithms of Sinkhorn's scalings (Cuturi, Sinkhorn
    Distances, NeurIPS 2013, arXiv:1306.0895), near the optimal dual variables: the solver then
    finds most of its shortest paths at once.
    """
    similarity_UU = similarity_UU.float()
    temperature = float(_TEMPERATURE * similarity_UU[:_ROWS_TO_MEASURE].std())
    largest_U1 = similarity_UU.amax(1, keepdim=True)
    if temperature > 0:
        kernel_UU = (similarity_UU - largest_U1).mul_(1 / temperature).exp_()
        columns_U = torch.ones(len(kernel_UU))
        for _ in range(_SCALINGS):
            rows_U = 1 / (kernel_UU @ columns_U)
            columns_U = 1 / (rows_U @ kernel_UU)
        shift_U1 = rows_U.log().mul_(temperature).unsqueeze(1) - largest_U1
        shift_U = columns_U.log().mul_(temperature)
        if shift_U1.isfinite().all() and shift_U.isfinite().all():
            return similarity_UU.double().neg_().sub_(shift_U1).sub_(shift_U)
    return -similarity_UU
