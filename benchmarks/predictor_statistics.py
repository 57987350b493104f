"""Statistics and tokens of a zoo of small CNNs: a pass over them, against a loop.

Target: 10,000 CNNs of 4,970 weights (arXiv 2002.11448) in under 30 s on two cores, and under 1 GB
of anonymous memory. A pass reads the zoo from its files; one thread.

Shape suffixes: N networks, B networks of a block, D numbers of one network.
"""

import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from harness import Result, interleave

from dwf.codecs.config import TokenSettings
from dwf.codecs.tokens import Geometry
from dwf.datasets.config import DataConfig
from dwf.networks.config import CNNConfig
from dwf.networks.functional import build_network
from dwf.predictors.features import (
    STATISTICS,
    Columns,
    statistics,
    stream_features,
    tensors_of,
)
from dwf.zoo.facts import Facts
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, write_zoo

NETWORK = CNNConfig((16, 16, 16), (1, 28, 28), strides=2, head="average")
_BLOCK = 500


def run(quick: bool) -> list[Result]:
    """Return the pass and the loop; `quick` takes 1,000 networks instead of 10,000."""
    num = 1_000 if quick else 10_000
    with tempfile.TemporaryDirectory() as folder:
        zoo = _write_random_zoo(Path(folder) / "zoo", num)
        return [_pass(zoo, 1 if quick else 3), _loop(zoo, 50 if quick else 200)]


def _pass(zoo: Zoo, repeats: int) -> Result:
    """Passes in processes of their own, so that each reads the zoo for the first time."""
    told = [_in_a_process(zoo) for _ in range(repeats)]
    seconds = {"statistics and tokens": [each[0] + each[1] for each in told]}
    figures = {
        "statistics (s)": float(np.median([each[0] for each in told])),
        "tokens (s)": float(np.median([each[1] for each in told])),
        "peak anonymous memory (MiB)": max(each[2] for each in told),
    }
    targets = {
        "statistics and tokens (s)": ("<=", 30.0),
        "peak anonymous memory (MiB)": ("<=", 1e9 / 2**20),
    }
    name = f"{len(zoo):,} CNNs of {zoo.layout.size:,} weights"
    return Result(name, seconds, figures=figures, targets=targets)


def _in_a_process(zoo: Zoo) -> list[float]:
    command = [sys.executable, __file__, str(zoo.path)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    return [float(word) for word in ran.stdout.split()]


def _loop(zoo: Zoo, num: int) -> Result:
    """Statistics of a few networks, against numpy's own functions on each tensor of each."""
    weights_ND, layout = zoo.read(np.arange(num)), zoo.layout

    def one_by_one() -> None:
        for weights_D in weights_ND:
            for tensor in layout.unflatten(weights_D).values():
                np.mean(tensor), np.var(tensor), np.quantile(tensor, [0, 0.25, 0.5, 0.75, 1])

    sides = {"dwf": lambda: statistics(weights_ND, layout), "a loop": one_by_one}
    return Result(f"statistics of {num} networks in memory", interleave(sides, 5))


def _write_random_zoo(path: Path, num: int) -> Zoo:
    with torch.device("meta"):
        layout = Layout.of(build_network(NETWORK))

    def blocks() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        rng = np.random.default_rng(0)
        for start in range(0, num, _BLOCK):
            networks = np.arange(start, min(start + _BLOCK, num))
            weights_BD = rng.standard_normal((len(networks), layout.size), dtype=np.float32)
            yield {"network": networks}, weights_BD

    data = DataConfig("mnist")
    facts = Facts(
        network=NETWORK, data=data, input_shape=(1, 28, 28), seed=0, layout=layout, num_shards=1
    )
    return write_zoo(path, facts, num_rows=num, blocks=blocks())


def main() -> None:
    """Print seconds of both, and the most anonymous memory, MiB, above that of the libraries."""
    torch.set_num_threads(1)
    zoo = Zoo.open(sys.argv[1])
    peaks, ended, before = [0.0], threading.Event(), _anonymous()

    def watch() -> None:
        while not ended.wait(0.005):
            peaks.append(_anonymous() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    sources = [(zoo, np.arange(len(zoo)))]
    columns = Columns([list(tensors_of(zoo.layout))], len(STATISTICS))
    stream_features(sources, statistics, columns=columns, places_of=tensors_of)
    middle = time.perf_counter()
    geometry = Geometry.of(zoo.layout, TokenSettings())
    for _, weights_BD in zoo.stream():
        geometry.tokenise(torch.from_numpy(weights_BD))
    end = time.perf_counter()
    ended.set()
    watcher.join()
    print(middle - start, end - middle, max(peaks))


def _anonymous() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"RssAnon:\s*(\d+)", status).group(1)) / 1024


if __name__ == "__main__":
    main()
