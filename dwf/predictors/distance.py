"""How far networks lie from those that predictors learnt from: by sizes and means of tensors.

Means and sizes of tensors are the same whatever order units stand in, so that a copy whose units
are shuffled is no further away.

Shape suffixes: N networks, B networks of a block, F features of a network.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.covariance import LedoitWolf

from dwf.files import reading_arrays
from dwf.predictors.examples import Examples
from dwf.run_folder import replacing
from dwf.zoo.moments import Sources
from dwf.zoo.store import Zoo

FILE = "reference.npz"
_PERCENT = 99.0
_FEWEST = 20
"""Fewest validation networks that tell a percentile."""


@dataclass(frozen=True)
class Reference:
    """Networks of one layout that were learnt from."""

    mean_F: np.ndarray
    scale_F: np.ndarray
    precision_FF: np.ndarray
    limit: float
    """Distance that 99 % of networks held out for choices stay within."""

    @classmethod
    def of(cls, train_NF: np.ndarray, val_NF: np.ndarray) -> "Reference":
        """Return that of training networks; the limit is of validation networks, if enough."""
        mean_F, scale_F = train_NF.mean(0), train_NF.std(0)
        scale_F = np.where(scale_F > 0, scale_F, 1.0)
        found = LedoitWolf(assume_centered=True).fit((train_NF - mean_F) / scale_F)
        draft = cls(mean_F, scale_F, found.precision_, limit=np.inf)
        known_NF = val_NF if len(val_NF) >= _FEWEST else train_NF
        limit = float(np.percentile(draft.distance(known_NF), _PERCENT))
        return cls(mean_F, scale_F, found.precision_, limit)

    def distance(self, features_NF: np.ndarray) -> np.ndarray:
        """Return distance_N: Mahalanobis's, shrunk (Ledoit and Wolf, 2004), over root F."""
        centred_NF = (features_NF - self.mean_F) / self.scale_F
        squares_N = np.einsum("nf,fg,ng->n", centred_NF, self.precision_FF, centred_NF)
        return np.sqrt(squares_N.clip(0) / len(self.mean_F))


def features_of(zoo: Zoo, rows: np.ndarray) -> np.ndarray:
    """Return features_NF, float64: mean and root mean square of each tensor, streamed."""
    entries = [entry for entry in zoo.layout.entries if entry.role != "constant"]
    features_NF = np.empty((len(rows), 2 * len(entries)))
    first = 0
    for rows_B, weights_BD in zoo.stream(rows):
        block_BF = features_NF[first : first + len(rows_B)]
        for place, entry in enumerate(entries):
            part_BD = weights_BD[:, entry.offset : entry.stop].astype(np.float64)
            block_BF[:, 2 * place] = part_BD.mean(1)
            block_BF[:, 2 * place + 1] = np.sqrt(np.square(part_BD).mean(1))
        first += len(rows_B)
    return features_NF


def measure(train: Examples, val: Examples) -> dict[str, Reference]:
    """Return the reference of each layout, by its digest."""
    digests = dict.fromkeys(zoo.layout.digest for zoo, _ in train.sources)
    return {
        digest: Reference.of(_features(train.sources, digest), _features(val.sources, digest))
        for digest in digests
    }


def _features(sources: Sources, digest: str) -> np.ndarray:
    parts = [features_of(zoo, rows) for zoo, rows in sources if zoo.layout.digest == digest]
    return np.concatenate(parts) if parts else np.empty((0, 1))


def save(folder: Path, references: dict[str, Reference]) -> None:
    """Write the references of all layouts as one file."""
    arrays = {
        f"{digest}/{name}": np.asarray(value)
        for digest, one in references.items()
        for name, value in vars(one).items()
    }
    with replacing(folder / FILE) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)


def load(folder: Path) -> dict[str, Reference]:
    """Return what `save` wrote.

    Raises:
        CorruptCheckpoint: the file is damaged.
    """
    with reading_arrays(folder / FILE), np.load(folder / FILE) as file:
        found: dict[str, dict[str, np.ndarray]] = {}
        for key in file.files:
            digest, _, name = key.partition("/")
            found.setdefault(digest, {})[name] = file[key]
        return {
            digest: Reference(**(arrays | {"limit": float(arrays["limit"])}))
            for digest, arrays in found.items()
        }
