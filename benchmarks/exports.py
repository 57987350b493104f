"""Exports of many small networks against a loop of the same writer.

The loop has the state of each network in memory and calls the writer with its file's final name.
An export reads its rows from the zoo, holds them to their checksums, and writes files that are
whole if they have their final name: under another name, flushed to disk, renamed.
"""

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from harness import Result, interleave
from safetensors.numpy import save_file

from dwf.datasets.config import DataConfig
from dwf.exporters.config import ExportConfig
from dwf.exporters.stage import export_networks
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.zoo.facts import Facts
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, write_zoo

WRITERS = {
    "safetensors": lambda state, file: save_file(state, file),
    "state_dict": lambda state, file: torch.save(
        {name: torch.from_numpy(array) for name, array in state.items()}, file
    ),
    "npz": lambda state, file: np.savez(file, **state),
}


def run(quick: bool) -> list[Result]:
    """10,000 MLPs 64-16-10 in each format of one file for each network."""
    count = 300 if quick else 10_000
    with TemporaryDirectory() as folder:
        root = Path(folder)
        zoo = _zoo(root, count)
        return [_against_a_loop(root, zoo, kind, repeats=1 if quick else 3) for kind in WRITERS]


def _zoo(root: Path, count: int) -> Zoo:
    network = MLPConfig((64, 16, 10))
    layout = Layout.of(build_network(network))
    weights = np.random.default_rng(0).standard_normal((count, layout.size), dtype=np.float32)
    columns = {"network": np.arange(count), "epoch": np.ones(count, np.int32)}
    said = {"network": network, "data": DataConfig("digits"), "input_shape": (1, 8, 8), "seed": 0}
    facts = Facts(layout=layout, num_shards=1, **said)
    path = root / "zoos" / "zoo"
    return write_zoo(path, facts, num_rows=count, blocks=[(columns, weights)])


def _against_a_loop(root: Path, zoo: Zoo, kind: str, *, repeats: int) -> Result:
    numbers = itertools.count()  # each time new files: to replace old ones costs otherwise
    weights_ND = zoo.read()

    def export() -> None:
        config = ExportConfig("zoo", kind, to=str(root / f"{kind}-{next(numbers)}"))
        export_networks(config, root, name="unused")

    def loop() -> None:
        folder, write = root / f"{kind}-{next(numbers)}", WRITERS[kind]
        folder.mkdir()
        for i, weights_D in enumerate(weights_ND):
            write(zoo.layout.unflatten(weights_D), folder / f"{i:07d}.{kind}")

    seconds = interleave({"export": export, "loop": loop}, repeats)
    name = f"exports, {len(zoo)} MLPs 64-16-10 as {kind}"
    return Result(name, seconds, targets={"loop / export": (">=", 0.5)})
