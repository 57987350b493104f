"""Embeddings: one vector for each network, the mean of its tokens' codes, as features for probes.

The mean over all tokens is that of SANE (Schuerholt et al., ICML 2024, arXiv 2406.09997, section
4.2). A mean for each layer keeps apart what the layers say, and is as many times longer.

Shape suffixes: N networks, B networks of a block, D numbers of a network, T tokens of a network,
C numbers of a token, L layers, E numbers of an embedding.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from dwf.codecs.codec import Codec
from dwf.codecs.codes import Codes
from dwf.errors import TooFewNetworks
from dwf.metrics import Progress
from dwf.run_folder import replacing
from dwf.zoo.store import Zoo

Pooling = Literal["mean", "layers"]
COLUMNS = ("network", "epoch", "split", "val_accuracy")
"""Columns of the zoo that are written beside its embeddings, as far as it has them."""
PENALTIES = np.logspace(3, -5, 17)
"""Penalties of a ridge probe, from which the validation networks choose (as published)."""


def embed(codec: Codec, zoo: Zoo, *, rows: np.ndarray, pooling: Pooling = "mean") -> np.ndarray:
    """Return the embeddings of networks, encoded block by block.

    Args:
        codec: fitted to the zoo's layout.
        zoo: where the networks are; held to their checksums.
        rows: which of its rows, in any order.
        pooling: the mean over all tokens, or over those of each layer, one after the other.

    Returns:
        float32, shape [N, C], or [N, L * C] of layers. Numbers that pad a token take no part; one
        that always pads is 0. Codes that are vectors are their own embeddings.

    Raises:
        ShapeMismatch: the codec was not fitted to this layout.
        CorruptShard: a row does not match its checksum.
    """
    parts, done = [], 0
    with Progress(f"embed {zoo.name}", len(rows), unit="networks") as progress:
        for _, weights_BD in zoo.stream(rows):
            codes = codec.encode(torch.from_numpy(weights_BD), zoo.layout)
            parts.append(pool(codes, pooling).numpy())
            done += len(codes)
            progress.update(done)
    if not parts:
        raise TooFewNetworks(f"{zoo.path}: 0 networks to embed, at least 1 expected")
    return np.concatenate(parts)


def pool(codes: Codes, pooling: Pooling) -> torch.Tensor:
    """Return the mean of each network's tokens, float32, shape [B, E]; see `embed`."""
    shape = codes.shape
    if shape.sections is None:
        return codes.values
    layer_T = shape.positions[:, 1] if pooling == "layers" else torch.zeros(shape.num_tokens)
    member_LT = (layer_T == layer_T.unique().unsqueeze(1)).float()
    mask = shape.mask.float()
    if shape.is_mixed:  # of each network, that of its own architecture
        mask = mask[codes.kind_N]
    count = (member_LT @ mask).clamp(min=1)
    return (member_LT @ (codes.values * mask) / count).flatten(1)


def save_embeddings(path: Path, embedding_NE: np.ndarray, *, zoo: Zoo, rows: np.ndarray) -> None:
    """Write `embedding` and the zoo's `COLUMNS` of the same rows to an .npz file."""
    columns = {name: zoo.columns[name][rows] for name in COLUMNS if name in zoo.columns}
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, embedding=embedding_NE, **columns)


@dataclass(frozen=True)
class Probe:
    """How much of a property a linear map of embeddings tells."""

    r2: float
    """Share of the property's variance over test networks that it explains; below 0 it is worse
    than their mean."""
    val_r2: float
    """The same of the validation networks, which chose the penalty."""
    penalty: float
    """Penalty on the squared weights, embeddings having mean 0 and deviation 1."""
    num_rows: dict[str, int]
    """Number of rows of each split."""


def ridge_probe(embedding_NE: np.ndarray, target_N: np.ndarray, *, split_N: np.ndarray) -> Probe:
    """Fit a ridge regression to training networks; validation networks choose its penalty.

    Args:
        embedding_NE: features.
        target_N: the property; rows where it is not finite are left out.
        split_N: `train`, `val` or `test`.

    Raises:
        TooFewNetworks: a split has fewer than two rows.
    """
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    at = {split: (split_N == split) & np.isfinite(target_N) for split in ("train", "val", "test")}
    num_rows = {split: int(rows_N.sum()) for split, rows_N in at.items()}
    if min(num_rows.values()) < 2:
        found = ", ".join(f"{num} {split}" for split, num in num_rows.items())
        raise TooFewNetworks(
            f"a probe needs 2 or more rows of each split, found {found}: give it a zoo that holds "
            "networks out (split.val, split.test)"
        )
    embedding_NE = embedding_NE.astype(np.float64)
    scaler = StandardScaler().fit(embedding_NE[at["train"]])
    x = {split: scaler.transform(embedding_NE[rows_N]) for split, rows_N in at.items()}
    y = {split: target_N[rows_N] for split, rows_N in at.items()}
    fitted = [Ridge(each, solver="svd").fit(x["train"], y["train"]) for each in PENALTIES]
    val_r2 = [one.score(x["val"], y["val"]) for one in fitted]
    best = int(np.argmax(val_r2))
    r2 = fitted[best].score(x["test"], y["test"])
    return Probe(float(r2), float(val_r2[best]), penalty=float(PENALTIES[best]), num_rows=num_rows)
