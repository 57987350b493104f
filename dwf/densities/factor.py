"""Covariance of codes that lie on a disk, read block by block: all of them are never held.

Mean and variances are gathered over blocks of networks, see `Moments`. The directions of a full
covariance follow from the triangle of a QR factorisation of the centred codes, or of their
transpose, whichever is smaller: each block is set below the triangle so far and the two are
factored again (Demmel, Grigori, Hoemmen and Langou, arXiv 0808.2664, the sequential TSQR). Products
of codes, which would square their condition, are not formed.

Memory: some matrices of min(N, K) x min(N, K), see `GaussianConfig.bytes_to_fit`, one block, and a
few vectors of K numbers. The directions, R x K, are written to a file without a name and mapped.

Shape suffixes: N codes, B codes of a block, K numbers of a code, W numbers of a window, R
directions of variance.
"""

import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch

from dwf import preemption
from dwf.codecs.codes import Codes
from dwf.densities.config import BLOCK_NUMBERS
from dwf.densities.scaling import vectors
from dwf.metrics import Progress
from dwf.zoo.moments import Moments

_BYTES = 8


def gather_moments(codes: Codes) -> Moments:
    """Return mean and variances of codes, float64."""
    moments = Moments()
    for values_BK in _blocks(codes, BLOCK_NUMBERS // codes.shape.size):
        moments.add(values_BK.numpy())
    return moments


def find_directions(
    codes: Codes, mean_K: torch.Tensor, *, negligible: float, folder: Path
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the variances of codes (by N - 1) and their directions, as the SVD gives them.

    Args:
        codes: N >= 2, of numbers K.
        mean_K: their mean, float64.
        negligible: share of the greatest variance below which a direction is left out.
        folder: on whose disk the directions lie as long as they are used.

    Returns:
        variance_R, falling, and directions_RK, float64, mapped, orthonormal.
    """
    if codes.shape.size < len(codes):
        return _of_many(codes, mean_K, negligible, folder)
    return _of_long(codes, mean_K, negligible, folder)


def _of_long(
    codes: Codes, mean_K: torch.Tensor, negligible: float, folder: Path
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return them of codes of at least as many numbers as there are codes: X' = Q T."""
    told = "gaussian: triangle of the codes"
    triangle_NN = _fold(part_NW.T for _, part_NW in _watched(_windows(codes, mean_K), codes, told))
    left_NR, deviation_R, _ = torch.linalg.svd(triangle_NN.T, full_matrices=False)
    variance_R = deviation_R.square()
    keep_R = variance_R > negligible * variance_R.max()
    mixing_RN = (left_NR[:, keep_R] / deviation_R[keep_R]).T
    told = "gaussian: directions"
    with _nameless(folder) as file:
        for start, part_NW in _watched(_windows(codes, mean_K), codes, told):
            for place, row_W in enumerate((mixing_RN @ part_NW).numpy()):
                file.seek(_BYTES * (place * codes.shape.size + start))
                file.write(row_W.data)
        return variance_R[keep_R], _mapped(file, (len(mixing_RN), codes.shape.size))


def _of_many(
    codes: Codes, mean_K: torch.Tensor, negligible: float, folder: Path
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return them of more codes than each has numbers: X = Q T, and T is small."""
    size = codes.shape.size
    scale, num = math.sqrt(len(codes) - 1), max(size, BLOCK_NUMBERS // size)
    triangle_KK = _fold((part.double() - mean_K) / scale for part in _blocks(codes, num))
    _, deviation_R, directions_RK = torch.linalg.svd(triangle_KK, full_matrices=False)
    variance_R = deviation_R.square()
    keep_R = variance_R > negligible * variance_R.max()
    with _nameless(folder) as file:
        file.write(directions_RK[keep_R].contiguous().numpy().data)
        return variance_R[keep_R], _mapped(file, (int(keep_R.sum()), size))


def _fold(blocks: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the triangle T of a matrix that comes in blocks of its rows: M = Q T."""
    triangle = None
    for block in blocks:
        stacked = block if triangle is None else torch.cat([triangle, block])
        triangle = torch.linalg.qr(stacked, mode="r").R
    return triangle


def _blocks(codes: Codes, num: int) -> Iterator[torch.Tensor]:
    """Yield the codes as vectors, float32, `num` at a time and at least one."""
    for start in range(0, len(codes), max(1, num)):
        yield vectors(codes.take(slice(start, start + max(1, num))))


def _windows(codes: Codes, mean_K: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (number of its first column, centred_NW over sqrt(N - 1)) of windows of columns."""
    scale, start = math.sqrt(len(codes) - 1), 0
    for columns_NW in codes.columns(max(len(codes), BLOCK_NUMBERS // len(codes))):
        stop = start + columns_NW.shape[1]
        yield start, (columns_NW.double() - mean_K[start:stop]) / scale
        start = stop


def _watched(
    windows: Iterable[tuple[int, torch.Tensor]], codes: Codes, told: str
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield windows; tell of them, and leave between two if a signal asks for it."""
    with Progress(told, codes.shape.size, unit="numbers") as progress:
        for start, part_NW in windows:
            if preemption.is_asked():
                preemption.stop()
            yield start, part_NW
            progress.update(start + part_NW.shape[1])


def _nameless(folder: Path) -> IO[bytes]:
    """Return a file that goes when nobody uses it any more, mapped or open.

    Written, not mapped: a full disk is then an error and no bus fault.
    """
    return tempfile.TemporaryFile(dir=folder)


def _mapped(file: IO[bytes], shape: tuple[int, int]) -> torch.Tensor:
    if not shape[0]:  # the codes are all the same, and nothing can be mapped
        return torch.empty(shape, dtype=torch.float64)
    file.flush()
    return torch.from_numpy(np.memmap(file, np.float64, "c", shape=shape))
