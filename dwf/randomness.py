"""Repeatable runs: random streams that depend on the configuration alone, and threads.

Every stream is named: `stream(zoo_seed, "shuffle", network, epoch)` gives the same numbers in any
process, on any node, before and after a resume. Nothing uses `hash()`, which Python randomises.
"""

import contextlib
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np


def seed_of(seed: int, *key: int | str) -> int:
    """Return the 63-bit seed of the stream `key` under `seed`, stable over processes.

    Args:
        seed: the seed a user chose, >= 0.
        key: what the stream is for: words and non-negative numbers.
    """
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    # With their number, since SeedSequence takes trailing zeros for nothing.
    state = np.random.SeedSequence([seed, len(words), *words]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def numpy_stream(seed: int, *key: int | str) -> np.random.Generator:
    """Return the NumPy generator of a named stream."""
    return np.random.default_rng(seed_of(seed, *key))


def numbers_at(key: int, places: np.ndarray) -> np.ndarray:
    """Return the numbers of a stream at some places of it, uint64, each by itself.

    SplitMix64 (Steele et al., OOPSLA 2014), whose state counts up: so any number of it costs a few
    instructions, and a process draws what it needs of what all draw together.

    Args:
        key: the stream's, as `seed_of` gives it.
        places: uint64, any shape.
    """
    state = np.uint64(key) + (places + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def torch_stream(seed: int, *key: int | str, device: str = "cpu"):
    """Return the `torch.Generator` of a named stream."""
    import torch

    return torch.Generator(device).manual_seed(seed_of(seed, *key))


@contextlib.contextmanager
def seeded(seed: int, *key: int | str) -> Iterator[None]:
    """Within the block torch's global generators are a named stream; after it, as before.

    For what takes no generator: the initialisation of a module, dropout.
    """
    import torch

    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed_of(seed, *key))
        yield


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Within the block torch computes on so many threads; None: on as many as before.

    With another number sums have another order, and so other last bits.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def thread_pool(workers: int, each: int = 1) -> Iterator[ThreadPoolExecutor]:
    """Yield threads for work side by side, in each of which torch computes on `each` threads."""
    import torch

    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(each,))
    with threads(each), pool:
        yield pool
