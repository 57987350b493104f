"""Which tensors are pruned, and how many zeros rows have there; imports no torch.

Shape suffixes: R rows, D numbers of one network.
"""

import numpy as np

from dwf.zoo.layout import Entry, Layout


def prunable(layout: Layout) -> list[Entry]:
    """Return the tensors that are pruned: weights of linear, convolutional, attention layers."""
    weights = [entry for entry in layout.entries if entry.role == "weight"]
    return [e for e in weights if len(e.shape) > 1 and e.name.endswith("weight")]


def zero_counts(weights_RD: np.ndarray, layout: Layout) -> np.ndarray:
    """Return how many weights of each row that may be pruned are 0, int64 of shape [R]."""
    counts_R = np.zeros(len(weights_RD), np.int64)
    for entry in prunable(layout):
        counts_R += (weights_RD[:, entry.offset : entry.stop] == 0).sum(1)
    return counts_R
