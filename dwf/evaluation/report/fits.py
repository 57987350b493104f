"""How a generator's density fits the networks that it learnt from, and held-out ones.

A density that has learnt its training networks by heart finds them likelier than held-out ones: it
will return them. Losses and likelihoods are those that the fit recorded in its run folder.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from dwf.errors import CorruptCheckpoint
from dwf.evaluation.measure import CONFIDENCE
from dwf.files import CURE, read_json
from dwf.metrics import read_metrics
from dwf.plain import Json

_NEAR_0 = 0.01
_MUCH = 2.0  # from twice a loss on, percents are read less easily than a factor
FIT_COLUMNS = ("generator", "measure", "training", "held-out", "held-out against training", "equal")


def read_fit(run: Path) -> dict[str, Json]:
    """Return what a generator's run folder says of its fit, plain data.

    Returns:
        `loss`: step, train, val, where it was trained and validated; `likelihood`: as
        `measure_likelihood` returns it, where it was measured. Empty without a finished fit.
    """
    done, metrics = run / "done.json", run / "metrics.jsonl"
    density = read_json(done).get("density") or {} if done.exists() else {}
    if not isinstance(density, dict):
        raise CorruptCheckpoint(f"{done}: density = {density!r}, settings are expected: {CURE}")
    found: dict[str, Json] = {}
    kept, val_loss = density.get("kept_step"), density.get("val_loss")
    if kept is not None and val_loss is not None and metrics.exists():
        for line in read_metrics(metrics):
            if line.get("step") == kept and "train_loss" in line:
                found["loss"] = {"step": kept, "train": line["train_loss"], "val": val_loss}
    if density.get("likelihood"):
        found["likelihood"] = density["likelihood"]
    return found


def fit_rows(fits: Mapping[str, Mapping[str, Json]]) -> list[tuple[str, ...]]:
    """Return cells under `FIT_COLUMNS`: a row for each generator and what is known of it."""
    rows = []
    for generator, found in fits.items():
        if "loss" in found:
            rows.append((generator, *_loss(found["loss"])))
        if "likelihood" in found:
            rows.append((generator, *_likelihood(found["likelihood"])))
    return rows


def are_equal(one: Mapping[str, Json], other: Mapping[str, Json]) -> bool | None:
    """Whether two means are equal within 1.96 standard errors; None where that is not known.

    Args:
        one: `nats_per_number`, `std`, `n`.
        other: likewise.
    """
    if None in (one["nats_per_number"], one["std"], other["nats_per_number"], other["std"]):
        return None
    error = math.sqrt(sum(each["std"] ** 2 / each["n"] for each in (one, other)))
    return abs(one["nats_per_number"] - other["nats_per_number"]) <= CONFIDENCE * error


def _loss(loss: Mapping[str, float]) -> tuple[str, ...]:
    train, val = loss["train"], loss["val"]
    return f"loss at step {loss['step']}", _number(train), _number(val), _change(train, val), "-"


def _change(train: float, val: float) -> str:
    """Return how a held-out loss differs: in percent, or as a factor of one that is near 0."""
    if train <= 0:
        return "-"
    if train < _NEAR_0 or val > _MUCH * train:
        return f"{val / train:.3g} times"
    return f"{100 * (val / train - 1):+.1f} %"


def _number(loss: float) -> str:
    return f"{loss:.4f}" if abs(loss) >= _NEAR_0 else f"{loss:.3g}"


def _likelihood(likelihood: Mapping[str, Json]) -> tuple[str, ...]:
    train, val = likelihood.get("train"), likelihood.get("val")
    named = f"nats per number of {likelihood.get('of', 'weights')}"
    change = equal = "-"
    if train and val:
        if None not in (train["nats_per_number"], val["nats_per_number"]):
            change = f"{val['nats_per_number'] - train['nats_per_number']:+.4f}"
        equal = {True: "yes", False: "no", None: "-"}[are_equal(train, val)]
    return named, _nats(train), _nats(val), change, equal


def _nats(found: Mapping[str, Json] | None) -> str:
    if not found or found["nats_per_number"] is None:
        return "-"
    spread = "" if found["std"] is None else f" +- {found['std']:.4f}"
    return f"{found['nats_per_number']:.4f}{spread} (n = {found['n']})"
