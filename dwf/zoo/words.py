"""A zoo in words, from its facts and its table; weights are not read."""

from typing import TYPE_CHECKING

import numpy as np

from dwf.settings import to_dict

if TYPE_CHECKING:
    from dwf.zoo.store import Zoo

_SPLITS = ("train", "val", "test", "sample")


def zoo_words(zoo: "Zoo") -> dict[str, str]:
    """Return what a zoo is, name -> value, in the order of a reader's questions.

    Accuracies are of the training networks' last rows, on validation images.
    """
    networks = len(np.unique(zoo.columns["network"])) if "network" in zoo.columns else 0
    told = {"rows": f"{len(zoo):,} rows of {networks:,} networks"}
    whole, of = len(zoo.shards), zoo.facts.num_shards
    if whole < of:
        told["rows"] += f" ({whole} of {of} shards are there)"
    told["network"] = f"{to_dict(zoo.facts.network)['kind']} of {zoo.layout.size:,} weights"
    if zoo.facts.data is not None:
        told["data"] = zoo.facts.data.title
    if splits := _splits(zoo):
        told["splits"] = splits
    if accuracy := _accuracy(zoo):
        told["validation accuracy"] = accuracy
    if zoo.diverged:
        told["diverged"] = f"{len(zoo.diverged):,} networks, kept out"
    if zoo.facts.provenance is not None:
        kind = type(zoo.facts.provenance).__name__.lower()
        told["provenance"] = kind
    return told


def zoo_line(zoo: "Zoo") -> str:
    """Return a zoo on one line."""
    told = zoo_words(zoo)
    on = f" on {told['data']}" if "data" in told else ""
    splits = f"; {told['splits']}" if "splits" in told else ""
    return f"Zoo({str(zoo.path)!r}: {told['rows']}, {told['network']}{on}{splits})"


def _splits(zoo: "Zoo") -> str:
    """Return how many networks are in each split."""
    if "split" not in zoo.columns:
        return ""
    counts = {name: len(zoo.rows(name, "last")) for name in _SPLITS}
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def _accuracy(zoo: "Zoo") -> str:
    if not {"split", "val_accuracy"} <= set(zoo.columns):
        return ""
    values_N = zoo.columns["val_accuracy"][zoo.rows("train", "last")]
    if not len(values_N):
        return ""
    return f"{100 * values_N.mean():.2f} +- {100 * values_N.std():.2f} %"
