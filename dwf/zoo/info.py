"""Description of a zoo: architecture, data, recipe, layout, accuracies, where it came from."""

from pathlib import Path

import numpy as np

from dwf.plain import Json
from dwf.zoo.store import Zoo

_PARTS = ("train_accuracy", "val_accuracy")  # the test images' are for reports
_OWN = {"format", "version", "layout", "num_shards", "network", "data", "recipe", "provenance"}


def zoo_facts(folder: Path) -> dict[str, Json]:
    """Return what a zoo is, as plain data; of one whose shards are missing, of those there are.

    Accuracies are over all networks of a split at their last epoch.

    Raises:
        NotAZoo, CorruptShard, ShapeMismatch: as `Zoo.open`.
    """
    zoo = Zoo.open(folder, incomplete=True)
    facts = zoo.facts.to_json()
    networks, last = zoo.columns.get("network", np.zeros(0)), zoo.rows(epoch="last")
    return {
        "folder": str(zoo.path),
        "network": facts["network"],
        "data": facts["data"],
        "recipe": facts.get("recipe", {}),
        "settings": {key: value for key, value in facts.items() if key not in _OWN},
        "layout": {
            "digest": zoo.layout.digest,
            "weights": zoo.layout.size,
            "tensors": [
                {"name": e.name, "shape": list(e.shape), "role": e.role} for e in zoo.layout.entries
            ],
        },
        "shards": {"whole": len(zoo.shards), "of": facts["num_shards"]},
        "networks": len(np.unique(networks)),
        "rows": len(zoo),
        "epochs": np.unique(zoo.columns.get("epoch", np.zeros(0, int))).tolist(),
        "diverged": len(zoo.diverged),
        "splits": {split: _scores(zoo, last, split) for split in ("train", "val", "test")},
        "columns": {name: str(values.dtype) for name, values in zoo.columns.items()},
        "fingerprint": zoo.fingerprint,
        "provenance": facts.get("provenance", {}),
        "bytes": sum(shard.path.stat().st_size for shard in zoo.shards),
    }


def _scores(zoo: Zoo, last: np.ndarray, split: str) -> dict[str, Json]:
    if "split" not in zoo.columns:
        return {"networks": 0}
    rows = last[zoo.columns["split"][last] == split]
    told: dict[str, Json] = {"networks": len(rows)}
    for part in _PARTS:
        if part in zoo.columns and len(rows):
            values = zoo.columns[part][rows]
            told[part] = {"mean": float(values.mean()), "std": float(values.std())}
    return told
