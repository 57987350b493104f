"""Reading a zoo against `numpy.memmap` on the same bytes, in the page cache."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from harness import Result, interleave

from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.zoo.layout import Layout
from dwf.zoo.store import write_zoo


def run(quick: bool) -> list[Result]:
    """Sequential and random reads of 26,506-weight networks."""
    count = 500 if quick else 4000
    layout = Layout.of(build_network(MLPConfig((784, 32, 32, 10))))
    rng = np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        weights = rng.standard_normal((count, layout.size), dtype=np.float32)
        columns = {"network": np.arange(count), "epoch": np.ones(count, np.int32)}
        blocks = [(columns, weights)]
        zoo = write_zoo(Path(folder) / "zoo", layout, count, blocks, network={}, data={}, seed=0)
        raw = Path(folder) / "raw"
        weights.tofile(raw)
        mapped = np.memmap(raw, np.float32, mode="r", shape=weights.shape)
        out = np.empty_like(weights)
        rows = rng.permutation(count)

        every = slice(None)
        whole = interleave(
            {"zoo": lambda: zoo.read(every, out=out), "memmap": lambda: np.copyto(out, mapped)}, 7
        )
        random = interleave(
            {
                "zoo": lambda: zoo.read(rows, out=out),
                "memmap": lambda: np.take(mapped, rows, axis=0, out=out),
            },
            7,
        )
        single = interleave(
            {
                "zoo": lambda: [zoo.read(rows[i : i + 1]) for i in range(200)],
                "memmap": lambda: [mapped[rows[i : i + 1]] for i in range(200)],
            },
            7,
        )
    mib = weights.nbytes / 2**20
    return [
        Result(
            f"store, sequential read of {mib:.0f} MiB", whole, {}, {"memmap / zoo": (">=", 0.8)}
        ),
        Result(f"store, {count} random rows", random, {}, {"memmap / zoo": (">=", 1 / 1.5)}),
        Result("store, 200 single random rows (all overhead)", single),
    ]
