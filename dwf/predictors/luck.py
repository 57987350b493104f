"""Luck of the images: how measured accuracies change when other images are drawn.

Networks that are scored on the same images share some of the luck: a hard image is hard for all. So
images are drawn with replacement (the bootstrap: Efron 1979, Annals of Statistics 7(1), section 2),
the same ones for all networks, and each accuracy is counted again.

Shape suffixes: N networks, K networks of a zoo, M images, S draws.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dwf.errors import ConfigError, DataUnavailable
from dwf.files import reading_arrays
from dwf.metrics import Progress
from dwf.networks.cost import count_multiplications
from dwf.networks.functional import score_networks
from dwf.randomness import numpy_stream
from dwf.run_folder import replacing
from dwf.zoo.moments import Source, blocks_of

FILE = "luck.npz"
DRAWS = 100
_MOST = 2e12
"""Multiplications, some minutes of a core, above which images are not run again."""
_NEAR = 0.002  # to the measured accuracy: another device rounds otherwise
_AT_ONCE = 256  # networks whose answers to every image are held
_OF = {f"{part}_accuracy": part for part in ("train", "val", "test")}


def draw_luck(
    properties: Sequence[str], values_NP: np.ndarray, *, sources: Sequence[Source]
) -> dict[str, np.ndarray]:
    """Return by how much each network's accuracy changes with other images.

    Networks are run on the images anew. That is not done where it takes more than 2e12
    multiplications, or where the data are not here or give another accuracy than was measured.

    Args:
        properties: P names; those that are accuracies on a part's images are looked at.
        values_NP: their measured values.
        sources: the networks, zoo by zoo.

    Returns:
        Property -> luck_SN, float32, of those where it is known of all networks.
    """
    found = {}
    for name, values_N in zip(properties, values_NP.T, strict=True):
        if name not in _OF or _cost(sources, _OF[name]) > _MOST:
            continue
        count = sum(len(rows) for _, rows in sources)
        with Progress(f"luck of {name}", count, unit="networks") as progress:
            luck_SN = _of_part(_OF[name], values_N, sources, progress)
        if luck_SN is not None:
            found[name] = luck_SN
    return found


def save(folder: Path, luck: dict[str, np.ndarray]) -> None:
    """Write them to a folder."""
    with replacing(folder / FILE) as partial, open(partial, "wb") as file:
        np.savez(file, **luck)


def load(folder: Path) -> dict[str, np.ndarray]:
    """Return those that a folder holds.

    Raises:
        CorruptCheckpoint: there is no such file, or it is damaged.
    """
    with reading_arrays(folder / FILE), np.load(folder / FILE) as file:
        return dict(file)


def _cost(sources: Sequence[Source], part: str) -> float:
    """Return the multiplications of one pass of all networks; infinite where nobody knows."""
    total = 0.0
    for zoo, rows in sources:
        try:
            data = zoo.load_data()
            each = count_multiplications(zoo.facts.network, data.shape)
        except (ConfigError, DataUnavailable):
            return math.inf
        if each is None or not len(data.part(part)):
            return math.inf
        total += each * len(rows) * len(data.part(part))
    return total


def _of_part(
    part: str, values_N: np.ndarray, sources: Sequence[Source], progress: Progress
) -> np.ndarray | None:
    parts, done = list[np.ndarray](), 0
    for zoo, rows in sources:
        data, network = zoo.load_data(), zoo.build_network()
        images = data.part(part)
        for _, rows_K in blocks_of([(zoo, some) for some in _in_blocks(rows)]):
            state = zoo.layout.unflatten(torch.from_numpy(zoo.read(rows_K)))
            scores = score_networks(network, state, data=data, part=images, keep_wrong=True)
            measured_K = values_N[done : done + len(rows_K)]
            if np.abs(scores.accuracy_N - measured_K).max() > max(_NEAR, 0.5 / len(images)):
                return None  # measured on other images, or prepared otherwise
            parts.append(luck_of(~scores.wrong_NM))
            done += len(rows_K)
            progress.update(done)
    return np.concatenate(parts, axis=1)


def _in_blocks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE)]


def luck_of(right_KM: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return by how much each share of right images changes with other images, [S, K], float32.

    Args:
        right_KM: which images each network has right, bool.
        seed: of the draws, which are the same for any networks on as many images.
    """
    num = right_KM.shape[1]
    random = numpy_stream(seed, "images drawn", num)
    counts_SM = random.multinomial(num, np.full(num, 1 / num), size=DRAWS)
    return ((counts_SM - 1).astype(np.float32) @ right_KM.T.astype(np.float32)) / num
