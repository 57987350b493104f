"""Spectral features of weight matrices, as WeightWatcher defines them, of many networks at once.

A layer's matrices are its weight, or of a convolution the kernel at each of its places; its
eigenvalues are the squares of all their singular values. Of these, of each layer:

    alpha              exponent of the power law that the tail follows, see `tail_exponent`
    log_norm           logarithm, to base 10, of their sum, the squared Frobenius norm
    log_spectral_norm  that of the largest, the squared spectral norm
    log_alpha_norm     that of the sum of their powers alpha
    alpha_weighted     alpha times log_spectral_norm
    stable_rank        their sum over the largest
    entropy            of their shares of the sum, over the logarithm of the rank: 0 to 1

Sources: Martin, Peng & Mahoney, arXiv 2002.06716, section 3 (the measures); Clauset, Shalizi &
Newman, arXiv 0706.1062, section 3 (the tail); the library `weightwatcher` for conventions.

Shape suffixes: N networks, B networks of a block, D numbers of a network, L layers, E eigenvalues
of a layer in falling order, F features of a layer.
"""

from collections.abc import Sequence

import numpy as np
import torch

from dwf.errors import ConfigError, ShapeMismatch
from dwf.zoo.layout import Entry, Layout
from dwf.zoo.moments import Sources, common_layout

FEATURES = (
    "alpha",
    "log_norm",
    "log_spectral_norm",
    "log_alpha_norm",
    "alpha_weighted",
    "stable_rank",
    "entropy",
)
"""Names of a layer's features, F of them, in order."""
_ZERO = 1e-12  # of the largest eigenvalue: what is smaller is rounding, and no part of a tail


def matrices_of(layout: Layout) -> list[Entry]:
    """Return the weights that have a spectrum, L of them, in the layout's order.

    Raises:
        ConfigError: there is none.
    """
    found = [entry for entry in layout.entries if entry.role == "weight" and len(entry.shape) > 1]
    if not found:
        names = ", ".join(f"{entry.name} {list(entry.shape)}" for entry in layout.entries)
        raise ConfigError(f"no tensor of the networks is a matrix, which has a spectrum: {names}")
    return found


def measure_spectra(sources: Sources) -> np.ndarray:
    """Return features_NLF, float64, of networks of one layout, read block by block.

    Raises:
        ShapeMismatch: the zoos differ in layout.
        ConfigError: the layout has no matrix.
        CorruptShard: a row does not match its checksum.
    """
    layout = common_layout(sources)
    parts = [
        spectral_features(weights_BD, layout)
        for zoo, rows in sources
        for _, weights_BD in zoo.stream(rows)
    ]
    return np.concatenate(parts)


def spectral_features(weights_BD: np.ndarray, layout: Layout) -> np.ndarray:
    """Return features_BLF, float64; NaN where a layer of zeros or of equal values has none.

    Args:
        weights_BD: networks.
        layout: of them.

    Raises:
        ShapeMismatch: the rows are not of this layout.
        ConfigError: the layout has no matrix.
    """
    if weights_BD.shape[1:] != (layout.size,):
        raise ShapeMismatch(
            f"weights of shape {list(weights_BD.shape)}: networks of layout {layout.digest} have "
            f"{layout.size} numbers"
        )
    per_layer = [
        features_of(eigenvalues(weights_BD[:, entry.offset : entry.stop], entry.shape))
        for entry in matrices_of(layout)
    ]
    return np.stack(per_layer, 1)


def eigenvalues(weights_BS: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return eigenvalues_BE of a layer, float64, in falling order.

    Args:
        weights_BS: a tensor of each network, flat.
        shape: of the tensor: [outputs, inputs], or with the axes of a kernel behind these.
    """
    outputs, inputs = shape[:2]
    kernels = torch.from_numpy(weights_BS.astype(np.float64)).view(-1, outputs, inputs, *shape[2:])
    matrices_BKOI = kernels.flatten(3).movedim(3, 1) if len(shape) > 2 else kernels.unsqueeze(1)
    values_BE = torch.linalg.svdvals(matrices_BKOI).square().flatten(1)
    return values_BE.sort(1, descending=True).values.numpy()


def features_of(values_BE: np.ndarray) -> np.ndarray:
    """Return features_BF of the eigenvalues of a layer, which are in falling order."""
    with np.errstate(divide="ignore", invalid="ignore"):
        sum_B, largest_B = values_BE.sum(1), values_BE[:, 0]
        alpha_B = tail_exponent(values_BE)
        log_largest_B = np.log10(largest_B)
        # Of powers of the largest's share, which do not overflow.
        shares_BE = values_BE / largest_B[:, None]
        powers_B = (shares_BE ** alpha_B[:, None]).sum(1)
        found = {
            "alpha": alpha_B,
            "log_norm": np.log10(sum_B),
            "log_spectral_norm": log_largest_B,
            "log_alpha_norm": alpha_B * log_largest_B + np.log10(powers_B),
            "alpha_weighted": alpha_B * log_largest_B,
            "stable_rank": sum_B / largest_B,
            "entropy": _entropy(values_BE),
        }
    features_BF = np.stack([found[name] for name in FEATURES], 1)
    return np.where(np.isfinite(features_BF), features_BF, np.nan)


def _entropy(values_BE: np.ndarray) -> np.ndarray:
    """Return entropy_B of the shares of the sum; 0 of rank one."""
    shares_BE = values_BE / values_BE.sum(1, keepdims=True)
    shares_BE = np.where(values_BE > _ZERO * values_BE[:, :1], shares_BE, 0.0)
    terms_BE = np.where(shares_BE > 0, shares_BE * np.log(np.where(shares_BE > 0, shares_BE, 1)), 0)
    rank_B = (shares_BE > 0).sum(1)
    entropy_B = -terms_BE.sum(1) / np.log(np.maximum(rank_B, 2))
    return np.where(rank_B > 0, entropy_B, np.nan)


def tail_exponent(values_BE: np.ndarray) -> np.ndarray:
    """Return alpha_B: the density of the largest values falls as their power -alpha.

    Every value but the largest is tried as the tail's beginning. Its exponent is that of the
    greatest likelihood (arXiv 0706.1062, Eq. 3.1); the tail whose distribution is nearest to its
    power law, by the largest difference (Eq. 3.9), is taken. NaN where all values are equal, or
    fewer than two are above zero.

    Args:
        values_BE: in falling order, not negative.
    """
    num_B = (values_BE > _ZERO * values_BE[:, :1]).sum(1)
    logs_BE = np.log(np.where(values_BE > 0, values_BE, 1.0))
    sums_BE = logs_BE.cumsum(1)
    best_B, alpha_B = np.full(len(values_BE), np.inf), np.full(len(values_BE), np.nan)
    for count in range(2, values_BE.shape[1] + 1):
        above_B = sums_BE[:, count - 1] - count * logs_BE[:, count - 1]
        there_B = (count <= num_B) & (above_B > 1e-12 * count)
        slope_B = count / np.where(there_B, above_B, 1.0)
        ratios_BE = logs_BE[:, :count] - logs_BE[:, count - 1 : count]
        expected_BE = 1 - np.exp(-slope_B[:, None] * ratios_BE)
        share_E = np.arange(count)[::-1] / count  # of the tail, below each value
        distance_B = np.abs(expected_BE - share_E).max(1)
        better_B = there_B & (distance_B <= best_B)
        best_B = np.where(better_B, distance_B, best_B)
        alpha_B = np.where(better_B, 1 + slope_B, alpha_B)
    return alpha_B
