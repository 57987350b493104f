"""How long a zoo takes: measured on its own networks and images, for a moment, here."""

from pathlib import Path

from dwf.datasets.cache import is_cached
from dwf.datasets.load import load_dataset
from dwf.networks.functional import build_network
from dwf.randomness import threads
from dwf.zoo import plan
from dwf.zoo.config import ZooConfig
from dwf.zoo.layout import Layout

_SECONDS = 0.5
_WARM_UP = 3


def describe_cost(config: ZooConfig) -> str:
    """Return in words how many hours of a worker a zoo takes, at the rate of this machine."""
    seconds = measure_rate(config)
    if seconds is None:
        return f"no estimate of the time: {config.data.kind} is not on this machine yet"
    hours = seconds * config.count * config.recipe.epochs / 3600
    return (
        f"about {hours:,.2f} hours of one worker (a core), at {seconds:.3g} s an epoch of "
        "a network as measured on one core here just now; scores at epochs' ends come on top"
    )


def measure_rate(config: ZooConfig) -> float | None:
    """Return the seconds of one epoch of one network, on one thread; None without the dataset.

    Trains the first cohort for about half a second in memory and writes nothing.
    """
    if not is_cached(config.data.kind):
        return None
    from dwf.zoo.cohort import Cohort

    num_weights = Layout.of(build_network(config.network)).size
    group = range(min(plan.cohort_size(config, num_weights, plan.num_inputs(config)), config.count))
    # The folder is never made: a cohort writes only at the end of an epoch.
    cohort = Cohort(config, group, load_dataset(config.data), Path("/nonexistent"))
    with threads(1):
        return cohort.time_steps(_SECONDS, _WARM_UP) * cohort.steps_per_epoch / len(group)
