"""How cohorts are computed: by a rule for MLPs, by a short timing for other networks.

Batching pays where a network's own arithmetic is small against the cost of calling it. On a CPU
that is so for MLPs and not for convolutions, for which the order of memory matters more: so both
are timed, here, on the network and images in question.
"""

import dataclasses
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from dwf.datasets.dataset import Dataset
from dwf.devices import find_device
from dwf.errors import ConfigError
from dwf.metrics import logger
from dwf.networks.batching import why_not_batched
from dwf.networks.checks import breaks_with_channels_last
from dwf.networks.functional import build_network, is_stacked
from dwf.randomness import threads
from dwf.zoo import roster
from dwf.zoo.cohorts.cohort import Cohort
from dwf.zoo.config import ZooConfig
from dwf.zoo.facts import Method
from dwf.zoo.layout import Layout

TIMING_BATCH = 16
_ROUNDS, _SECONDS, _SLOW_STEP = 3, 0.08, 0.5
_BATCHED, _IMAGES = 4, 8
# A gain below this is within the noise of a shared machine: the plainer way is taken.
_WORTH_IT = 0.93
# Of the free memory of a GPU.
_MEMORY_SHARE = 0.7
_LARGEST_GPU_COHORT = 256


@dataclass(frozen=True)
class Choice:
    """A method, and what was measured to find it."""

    method: Method
    seconds: dict[str, float]
    """Way -> seconds of a step of one network, `TIMING_BATCH` images; empty where nothing was."""


def refuse_unbatched(config: ZooConfig, data: Dataset) -> None:
    """Refuse a cohort of several networks that cannot be batched.

    Raises:
        ConfigError: `cohort` asks for it; tells why it cannot be.
    """
    if config.cohort is None or min(config.cohort, config.shard_size, config.count) == 1:
        return
    if reason := _why_not_batched(config, data):
        raise ConfigError(
            f"cohort = {config.cohort}: networks of {config.network.named} cannot be batched "
            f"({reason}); give `cohort: 1`"
        )


def _why_not_batched(config: ZooConfig, data: Dataset) -> str | None:
    """Why networks that dwf did not write are trained one by one; None where they need not be."""
    network = build_network(config.network)
    if not config.network.is_foreign or is_stacked(network):
        return None
    images = data.prepare(data.train.batch(torch.arange(min(_IMAGES, len(data.train))))[0])
    return why_not_batched(network, images, own_inputs=config.recipe.data_order == "own")


def choose_method(config: ZooConfig, data: Dataset) -> Choice:
    """Choose how a zoo's cohorts are computed; takes about a second of one core."""
    network = build_network(config.network)
    given = config.compute
    device = find_device(given.device, elsewhere=True).type
    plain = Method(
        1,
        device,
        precision=given.precision,
        channels_last=bool(given.channels_last),
        compile=given.compile,
        chosen="given",
    )
    if device == "cuda":
        return _choose_on_gpu(config, data, plain)
    if is_stacked(network):
        size = roster.cohort_size(
            config, Layout.of(network).size, num_inputs=data.train.images[0].numel()
        )
        return Choice(dataclasses.replace(plain, cohort=size, chosen="rule"), {})
    size = min(config.cohort or 1, config.shard_size)
    ways = _ways(config, network, dataclasses.replace(plain, cohort=size))
    cannot = _why_not_batched(config, data) if size == 1 and "batched" in ways else None
    if cannot:
        logger.info("batched: cannot (%s)", cannot)
        ways = {way: dataclasses.replace(m, chosen="rule") for way, m in ways.items()}
        del ways["batched"]
    if len(ways) == 1:
        return Choice(next(iter(ways.values())), {})
    seconds = _time(config, data, ways)
    first = next(iter(ways))
    best = min(seconds, key=seconds.__getitem__)
    best = best if seconds[best] < _WORTH_IT * seconds[first] else first
    logger.info(
        "timing: %s; taken: %s",
        ", ".join(f"{way} {1000 * s:.1f} ms a network and step" for way, s in seconds.items()),
        best,
    )
    return Choice(dataclasses.replace(ways[best], chosen="measured"), seconds)


def _ways(config: ZooConfig, network: torch.nn.Module, plain: Method) -> dict[str, Method]:
    """Return the methods to time; the first is taken unless another is clearly faster."""
    convolves = any(isinstance(module, torch.nn.Conv2d) for module in network.modules())
    ways = {"one by one": plain} if plain.cohort == 1 else {"batched": plain}
    free = config.compute.channels_last is None and convolves and not config.compute.compile
    free = free and not breaks_with_channels_last(network, plain.device)
    if free and plain.cohort == 1:
        ways["one by one, channels last"] = dataclasses.replace(plain, channels_last=True)
    varied = config.vary.dropout is not None  # a batched network's layers drop at one rate
    size = min(_BATCHED, config.shard_size, config.count)
    if config.cohort is None and not varied and not config.compute.compile and size > 1:
        ways["batched"] = dataclasses.replace(plain, cohort=size, channels_last=False)
    return ways


def _time(config: ZooConfig, data: Dataset, ways: dict[str, Method]) -> dict[str, float]:
    """Return the seconds of a step of one network, each way: medians of interleaved rounds."""
    small = min(config.recipe.batch_size, TIMING_BATCH)
    recipe = dataclasses.replace(config.recipe, batch_size=small)
    config = dataclasses.replace(config, recipe=recipe)
    found: dict[str, list[float]] = {way: [] for way in ways}
    with threads(1):
        began, cohorts = time.perf_counter(), {}
        for way, method in ways.items():
            # The folder is never made: a cohort writes only at the end of an epoch.
            cohort = Cohort(
                config, range(method.cohort), data=data, folder=Path("/nonexistent"), method=method
            )
            cohorts[way] = cohort
            found[way].append(cohort.time_steps(0.0, 1) / method.cohort)
            if found[way][0] > _SLOW_STEP and "batched" in ways:
                ways = {w: m for w, m in ways.items() if w != "batched" or w in cohorts}
        if time.perf_counter() - began < 4 * _SLOW_STEP:
            for _ in range(_ROUNDS):
                for way, cohort in cohorts.items():
                    seconds = cohort.time_steps(_SECONDS, 0) / cohort.method.cohort
                    found[way].append(seconds)
    return {way: statistics.median(times) for way, times in found.items() if times}


def _choose_on_gpu(config: ZooConfig, data: Dataset, plain: Method) -> Choice:
    """Choose as many networks as the free memory holds, told from what one and two take."""
    if config.cohort is not None:
        return Choice(dataclasses.replace(plain, cohort=min(config.cohort, config.shard_size)), {})
    stacked = is_stacked(build_network(config.network))
    there = torch.cuda.is_available()
    if not there:
        logger.warning(
            "no GPU here to measure on: networks are trained one by one; `cohort` in the settings "
            "batches them"
        )
    alone = (config.vary.dropout is not None and not stacked) or _why_not_batched(config, data)
    if not there or alone:
        return Choice(dataclasses.replace(plain, chosen="rule"), {})
    peaks = []
    for size in (1, 2):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        method = dataclasses.replace(plain, cohort=size, compile=False)
        Cohort(
            config, range(size), data=data, folder=Path("/nonexistent"), method=method
        ).time_steps(0.0, 1)
        peaks.append(torch.cuda.max_memory_allocated() - held)
    free, _ = torch.cuda.mem_get_info()
    each = max(peaks[1] - peaks[0], 1)
    room = int((_MEMORY_SHARE * free - (peaks[0] - each)) // each)
    size = max(1, min(room, _LARGEST_GPU_COHORT, config.shard_size))
    method = dataclasses.replace(plain, cohort=size, chosen="measured")
    return Choice(method, {"memory of a network (MiB)": each / 2**20})
