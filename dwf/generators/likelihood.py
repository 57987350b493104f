"""How likely a fitted density finds networks: those it learnt from, and those held out.

In nats per number of a network. Equal ones say that the density has not learnt its training
networks by heart. Where the codec's way back is affine its volume is taken off, so that the density
is one of weights (those that the codec covers; of principal components, on the space they span);
else it is one of codes. Under a density that can be conditioned: whatever the condition.

Shape suffixes: N networks.
"""

from pathlib import Path

import numpy as np
import torch

from dwf.codecs.codec import Codec
from dwf.codecs.codes import Codes, pick
from dwf.densities.density import Density
from dwf.metrics import logger
from dwf.plain import Json
from dwf.randomness import numpy_stream

# Random signs of an estimate of the divergence: over networks its noise is averaged out.
_PROBES = 4


def measure_likelihood(
    codec: Codec,
    density: Density,
    *,
    train_codes: Codes,
    val_codes: Codes,
    count: int,
    seed: int,
    folder: Path,
) -> dict[str, Json]:
    """Return the mean log density of some training and some held-out networks.

    Args:
        codec: made the codes.
        density: fitted to the training codes.
        train_codes: of the networks that it learnt from.
        val_codes: of those that it did not; may be none.
        count: how many of each, at most.
        seed: of their draw, and of a flow's estimate (see `Flow.log_prob`).
        folder: on whose disk the codes of these lie meanwhile, if they are too many to hold.

    Returns:
        Plain data. `train` and `val`: `nats_per_number` (mean; None where it is not finite, as off
        the space that a Gaussian spans), `std` over the networks (None for one), `n`; None where
        there are no networks. `of`: `weights`, or `codes` where the codec's volume is not known.
    """
    volumes_A = [codec.log_volume(codec.layout_of(digest)) for digest in train_codes.shape.layouts]
    is_of_weights = None not in volumes_A
    offset_A = torch.tensor(volumes_A if is_of_weights else [0.0] * len(volumes_A)).double()
    found: dict[str, Json] = {}
    for split, codes in (("train", train_codes), ("val", val_codes)):
        order_N = numpy_stream(seed, "likelihood", split).permutation(len(codes))
        rows = torch.from_numpy(np.sort(order_N[:count]))
        some = pick(codes, rows, file=folder / f"likelihood_{split}.npy")
        found[split] = _summary(density, some, offset_A, seed) if len(some) else None
    found["of"] = "weights" if is_of_weights else "codes"
    logger.info("likelihood, nats per number of %s: %s", found["of"], _told(found))
    return found


def _summary(density: Density, codes: Codes, offset_A: torch.Tensor, seed: int) -> dict[str, Json]:
    kind_N = torch.zeros(len(codes), dtype=torch.int64) if codes.kind_N is None else codes.kind_N
    present_AK = codes.shape.present_AK
    sizes_A = torch.tensor([codes.shape.size]) if present_AK is None else present_AK.sum(1)
    log_N = density.log_prob(codes, seed=seed, probes=_PROBES).double() - offset_A[kind_N]
    nats_N = log_N / sizes_A[kind_N]
    mean, std = nats_N.mean().item(), nats_N.std().item()
    return {
        "nats_per_number": mean if np.isfinite(mean) else None,
        "std": std if np.isfinite(std) else None,
        "n": len(nats_N),
    }


def _told(found: dict[str, Json]) -> str:
    parts = ((split, found[split]) for split in ("train", "val") if found[split])
    return ", ".join(f"{split} {_nats(one)} (n = {one['n']})" for split, one in parts)


def _nats(one: dict[str, Json]) -> str:
    nats = one["nats_per_number"]
    return "not finite" if nats is None else f"{nats:.4f}"
