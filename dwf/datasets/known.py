"""Facts of a dataset before it is loaded, be it published or the user's own."""

from dwf.datasets.cache import is_cached
from dwf.datasets.config import DataSettings, OwnSettings
from dwf.datasets.own import facts_of_own, is_prepared
from dwf.datasets.sources import Known, published


def known(config: DataSettings) -> Known:
    """Return the facts of a dataset as it is stored, whole; nothing is written.

    Those of published data come from a table. Own data are read, unless they were prepared before.

    Raises:
        ConfigError, DataUnavailable: as `own.open_own`.
    """
    return facts_of_own(config) if isinstance(config, OwnSettings) else published(config.published)


def is_here(config: DataSettings) -> bool:
    """Whether a dataset is on this machine, in its size, so that nothing need be made."""
    if isinstance(config, OwnSettings):
        return is_prepared(config)
    return is_cached(config.published, config.size)


def why_not_here(config: DataSettings) -> str:
    """Return what keeps a dataset from being read at once, where `is_here` says that it is not."""
    if isinstance(config, OwnSettings):
        return f"{config.title} is here, and is first read when work begins"
    if config.size and is_cached(config.published):
        return f"{config.title} is first made, from what is here, when work begins"
    return f"{config.title} is not on this machine yet; dwf data {config.published} fetches it"


def input_shape(config: DataSettings) -> tuple[int, ...]:
    """Return the shape of one input as a network takes it: that of a dataset's `Dataset.shape`."""
    shape = known(config).shape
    if len(shape) == 1:
        return shape
    channels, *sides = shape
    return (1 if config.grey else channels, *([config.size] * 2 if config.size else sides))


def trained_images(config: DataSettings) -> float:
    """Return how many images networks train on, about: classes are taken for equally frequent."""
    facts = known(config)
    share = len(config.classes) / facts.num_classes if config.classes else 1
    images = facts.num_rows * share * (1 - config.validation)
    return min(images, config.train_images or images)
