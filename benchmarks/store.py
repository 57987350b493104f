"""Reading a zoo against `numpy.memmap` on the same bytes, in the page cache; looking after one.

Verifying is held against reading the same files once with `readinto`, by as many threads.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from harness import Result, interleave

from dwf.datasets.config import DataConfig
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.zoo.facts import Facts
from dwf.zoo.layout import Layout
from dwf.zoo.shard import shard_name, write_shard
from dwf.zoo.store import Zoo, create_zoo, finish_zoo, write_zoo
from dwf.zoo.verify import find_damage

_BUFFER_BYTES = 2**18  # the fastest here for reading alone


def run(quick: bool) -> list[Result]:
    """Reads of 26,506-weight networks, verifying, and opening zoos of many shards."""
    return [*_reading(quick), *_verifying(quick), _opening(100 if quick else 1000)]


def _reading(quick: bool) -> list[Result]:
    """Sequential and random reads of 26,506-weight networks."""
    count = 500 if quick else 4000
    facts, rng = _facts((784, 32, 32, 10), 1), np.random.default_rng(0)
    layout = facts.layout
    with TemporaryDirectory() as folder:
        weights = rng.standard_normal((count, layout.size), dtype=np.float32)
        columns = {"network": np.arange(count), "epoch": np.ones(count, np.int32)}
        blocks = [(columns, weights)]
        zoo = write_zoo(Path(folder) / "zoo", facts, num_rows=count, blocks=blocks)
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
            f"store, sequential read of {mib:.0f} MiB",
            whole,
            figures={},
            targets={"memmap / zoo": (">=", 0.8)},
        ),
        Result(
            f"store, {count} random rows",
            random,
            figures={},
            targets={"memmap / zoo": (">=", 1 / 1.5)},
        ),
        Result("store, 200 single random rows (all overhead)", single),
    ]


def _facts(widths: tuple[int, ...], num_shards: int) -> Facts:
    network, data = MLPConfig(widths), DataConfig("mnist")
    layout, said = Layout.of(build_network(network)), {"network": network, "data": data}
    return Facts(layout=layout, num_shards=num_shards, input_shape=widths[:1], seed=0, **said)


def _write_sharded(path: Path, widths: tuple[int, ...], num_shards: int, size: int) -> Zoo:
    """A zoo of random networks with the facts that a trained one has."""
    facts = _facts(widths, num_shards)
    layout = facts.layout
    create_zoo(path, facts)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((size, layout.size), dtype=np.float32)
    words = {"split": "train", "batchnorm": "none", "optimizer": "adam", "initialisation": "he"}
    numbers = ("learning_rate", "weight_decay", "momentum", "dropout")
    scores = [
        f"{part}_{what}" for part in ("train", "val", "test") for what in ("accuracy", "loss")
    ]
    for index in range(num_shards):
        networks = np.arange(index * size, (index + 1) * size)
        columns = {name: networks for name in ("network", "seed", "step", "epoch")}
        columns |= {name: np.full(size, word) for name, word in words.items()}
        columns |= {name: rng.random(size) for name in (*numbers, *scores)}
        target = path / shard_name(index, num_shards)
        write_shard(
            target,
            facts,
            index=index,
            num_rows=size,
            blocks=[(columns, weights)],
        )
    return finish_zoo(path)


def _verifying(quick: bool) -> list[Result]:
    """Shards of the default size, and few large ones; one thread, and one for each core."""
    results = []
    for num_shards, size in ((8, 64), (2, 256)) if quick else ((63, 64), (4, 1008)):
        with TemporaryDirectory() as folder:
            path = Path(folder) / "zoo"
            zoo = _write_sharded(path, (784, 32, 32, 10), num_shards, size)
            files = [shard.path for shard in zoo.shards]
            mib = sum(file.stat().st_size for file in files) / 2**20
            for threads in sorted({1, len(os.sched_getaffinity(0))}):
                sides = {
                    "verify": lambda path=path, n=threads: find_damage(path, n),
                    "read": lambda files=files, n=threads: _read_once(files, n),
                }
                name = f"store, verify {mib:.0f} MiB in {num_shards} shards, {threads} threads"
                target = {"read / verify": (">=", 0.7)}
                results.append(Result(name, interleave(sides, 15), figures={}, targets=target))
    return results


def _read_once(files: list[Path], threads: int) -> None:
    def read(file: Path) -> None:
        buffer = bytearray(_BUFFER_BYTES)
        with open(file, "rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, files))


def _opening(num_shards: int) -> Result:
    """Opening a zoo and listing its table, by `zoo.h5` and by the shards themselves."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "zoo"
        num_rows = len(_write_sharded(path, (16, 8, 4), num_shards, 64))
        view, aside = path / "zoo.h5", path / "aside"
        seconds = {}
        for side in ("open", "without zoo.h5"):
            seconds |= interleave({side: lambda: Zoo.open(path).columns}, 7)
            if view.exists():
                view.rename(aside)
    name = f"store, open and list {num_shards} shards, {num_rows} rows"
    return Result(
        name,
        seconds,
        figures={},
        targets={"open (s)": ("<=", 2.0), "without zoo.h5 (s)": ("<=", 2.0)},
    )
