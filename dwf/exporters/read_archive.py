"""Read networks that dwf published as one HDF5 file; needs h5py, which brings NumPy, alone."""

import json
import zlib

import h5py
import numpy as np


def read(path: str, split: str | None = None) -> tuple[dict, dict]:
    """Return name -> tensors [N, *shape], name -> column [N] of a split's networks, or of all."""
    with h5py.File(path, "r") as file:
        layout, columns = json.loads(file["about/layout"][()]), {}
        for name, stored in file["columns"].items():
            if zlib.crc32(stored[()].tobytes()) != stored.attrs["crc32"]:
                raise ValueError(f"{path}: column {name} is damaged")
            words = stored.dtype.kind == "S"
            columns[name] = np.char.decode(stored[()], "utf-8") if words else stored[()]
        rows = [i for i, own in enumerate(columns["split"]) if split in (None, own)]
        weights = np.empty((len(rows), file["weights"].shape[1]), np.float32)
        for place, row in enumerate(rows):
            weights[place] = file["weights"][row]
            if zlib.crc32(weights[place].tobytes()) != columns["checksum"][row]:
                raise ValueError(f"{path}: row {row} is damaged")
    state = {}
    for e in layout:
        stop = e["offset"] + int(np.prod(e["shape"]))
        state[e["name"]] = weights[:, e["offset"] : stop].reshape(len(rows), *e["shape"])
    return state, {name: values[rows] for name, values in columns.items()}
