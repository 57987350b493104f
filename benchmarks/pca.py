"""Streamed PCA: memory on a zoo larger than memory need be, and time against in-memory SVDs.

Target: 1,000 networks x 1,000,000 weights in under 1.5 GB of anonymous memory.

Shape suffixes: N networks, B networks of a block, D numbers of one network.
"""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness import Result, interleave

from dwf.datasets.config import DataConfig
from dwf.networks.config import MLPConfig
from dwf.zoo.facts import Facts
from dwf.zoo.layout import Entry, Layout
from dwf.zoo.store import Zoo, write_zoo

_BLOCK = 16


def run(quick: bool) -> list[Result]:
    """Return the results; `quick` takes 300 x 100,000 instead of 1,000 x 1,000,000 weights."""
    with tempfile.TemporaryDirectory() as folder:
        return [_memory(Path(folder), quick), _time(Path(folder), quick)]


def _memory(folder: Path, quick: bool) -> Result:
    num, size = (300, 100_000) if quick else (1_000, 1_000_000)
    zoo = _write_random_zoo(folder / "large", num, size)
    command = [sys.executable, __file__, str(zoo.path), str(folder / "large-run")]
    seconds, mib = subprocess.run(
        command, check=True, capture_output=True, text=True, encoding="utf-8"
    ).stdout.split()
    return Result(
        f"pca of {num} networks x {size} weights",
        figures={"fit (s)": float(seconds), "peak anonymous memory (MiB)": float(mib)},
        targets={"peak anonymous memory (MiB)": ("<=", 1.5e9 / 2**20)},
    )


def _time(folder: Path, quick: bool) -> Result:
    from sklearn.decomposition import PCA

    num, size = (100, 26_506) if quick else (200, 100_000)
    zoo = _write_random_zoo(folder / "small", num, size)
    sources = [(zoo, np.arange(num))]

    def numpy_svd() -> object:
        weights_ND = zoo.read().astype(np.float64)
        return np.linalg.svd(weights_ND - weights_ND.mean(0), full_matrices=False)

    sides = {
        "dwf": lambda: _fit(sources, folder / "small-run"),
        "numpy svd": numpy_svd,
        "scikit-learn": lambda: PCA(num - 1, svd_solver="full").fit(zoo.read().astype(np.float64)),
    }
    name = f"all components of {num} networks x {size} weights, to disk (dwf), in memory (others)"
    return Result(name, interleave(sides, 3 if quick else 5))


def _write_random_zoo(path: Path, num: int, size: int) -> Zoo:
    def blocks() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        rng = np.random.default_rng(0)
        for start in range(0, num, _BLOCK):
            networks = np.arange(start, min(start + _BLOCK, num))
            weights_BD = rng.standard_normal((len(networks), size), dtype=np.float32)
            yield {"network": networks}, weights_BD

    layout, network = (
        Layout((Entry("weights", (size,), offset=0, role="weight"),)),
        MLPConfig((size, 1)),
    )
    said = {"network": network, "data": DataConfig("digits"), "input_shape": (size,), "seed": 0}
    return write_zoo(
        path, Facts(layout=layout, num_shards=1, **said), num_rows=num, blocks=blocks()
    )


def _fit(sources: list, folder: Path) -> None:
    from dwf.codecs.config import PcaConfig
    from dwf.codecs.pca import PcaCodec
    from dwf.run_folder import RunFolder

    PcaCodec(PcaConfig()).fit(sources, [], run=RunFolder(folder, {}))


def _anonymous_mib() -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def _fit_watched(zoo_path: str, folder: str) -> None:
    """Print seconds and peak anonymous memory (MiB) of one fit, sampled every 5 ms."""
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], _anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    zoo = Zoo.open(zoo_path)
    start = time.perf_counter()
    _fit([(zoo, np.arange(len(zoo)))], Path(folder))
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    print(seconds, peak[0])


if __name__ == "__main__":
    _fit_watched(*sys.argv[1:])
