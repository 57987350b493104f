"""How long a zoo takes and how much memory: measured on its own networks and images, here."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from dwf.datasets.dataset import Dataset
from dwf.datasets.known import is_here, why_not_here
from dwf.datasets.load import load_dataset
from dwf.errors import TooLarge
from dwf.networks.checks import breaks_with_channels_last
from dwf.networks.functional import is_stacked
from dwf.randomness import threads
from dwf.systems import memory_mib
from dwf.zoo.config import KeepSteps, ZooConfig

_SECONDS = 0.5
_WARM_UP = 3
# Of networks without a stacked program: a ResNet-18 takes seconds for a batch of the usual size.
_SLOW_BATCH, _SLOW_WARM_UP = 32, 1


@dataclass(frozen=True)
class Rate:
    """Measured cost of training."""

    seconds: float
    """Seconds of one epoch of one network, on one thread."""
    memory_mib: float
    """Memory that a worker holds while it trains, without mapped files."""


def describe_cost(config: ZooConfig) -> str:
    """Return in words how many hours of a worker a zoo takes, at the rate of this machine."""
    try:
        rate = measure_rate(config)
    except TooLarge:
        return "no estimate of the time: this machine's memory does not hold such a network"
    if rate is None:
        return f"no estimate of the time: {why_not_here(config.data)}"
    hours = rate.seconds * config.num_networks * _epochs(config) / 3600
    return (
        f"about {hours:,.2f} hours of one worker (a core), at {rate.seconds:.3g} s an epoch of "
        "a network as measured on one core here just now, with "
        f"{rate.memory_mib:,.0f} MiB of memory; scores at epochs' ends come on top"
    )


def _epochs(config: ZooConfig) -> float:
    """Epochs of a network, with the steps after them that become rows."""
    if not isinstance(config.keep, KeepSteps):
        return config.recipe.epochs
    images = len(load_dataset(config.data).train)
    after = config.keep.rows * config.keep.every * config.recipe.batch_size / images
    return config.recipe.epochs + after


def measure_rate(config: ZooConfig, given: Dataset | None = None) -> Rate | None:
    """Return what an epoch of a network takes on one thread; None without the dataset.

    Trains the first cohort for about half a second in memory and writes nothing. Networks other
    than MLPs are measured on smaller batches, as one of theirs may take long, and one by one where
    no `cohort` is set.

    Args:
        config: the zoo's settings.
        given: its images; default: those that its settings name.

    Raises:
        ConfigError: `cohort` asks to batch networks that cannot be, or the data do not fit them.
    """
    if not is_here(config.data):
        return None
    from dwf.zoo import roster
    from dwf.zoo.cohorts.cohort import Cohort
    from dwf.zoo.cohorts.method import refuse_unbatched
    from dwf.zoo.facts import Method
    from dwf.zoo.layout import Layout
    from dwf.zoo.misfit import refuse_other_data

    data = given or load_dataset(config.data)
    network = refuse_other_data(config.network, data, title=config.data.title)
    refuse_unbatched(config, data)
    stacked = is_stacked(network)
    size = min(config.cohort or 1, config.shard_size, config.count)
    if stacked:
        num_inputs = data.train.images[0].numel()
        size = min(
            roster.cohort_size(config, Layout.of(network).size, num_inputs=num_inputs), config.count
        )
    else:
        batch = min(config.recipe.batch_size, _SLOW_BATCH)
        config = dataclasses.replace(
            config, recipe=dataclasses.replace(config.recipe, batch_size=batch)
        )
    alone = size == 1 and not stacked
    channels_last = alone and config.compute.channels_last is not False and len(data.shape) == 3
    channels_last = channels_last and not breaks_with_channels_last(network, "cpu")
    method = Method(size, "cpu", precision=config.compute.precision, channels_last=channels_last)
    # The folder is never made: a cohort writes only at the end of an epoch.
    cohort = Cohort(config, range(size), data=data, folder=Path("/nonexistent"), method=method)
    with threads(1):
        warm_up = _WARM_UP if stacked else _SLOW_WARM_UP
        a_step = cohort.time_steps(_SECONDS, warm_up)
    seconds = a_step * cohort.steps_per_epoch / size
    return Rate(seconds, memory_mib())
