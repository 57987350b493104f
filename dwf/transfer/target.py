"""The task of a fine-tuning: images, network with its head, and what of it learns.

Shape suffixes: M training images.
"""

import dataclasses
from dataclasses import dataclass

import torch

from dwf.datasets.dataset import Dataset
from dwf.datasets.load import load_dataset
from dwf.devices import find_device
from dwf.errors import ConfigError
from dwf.generators.head import NewHead
from dwf.networks.config import NetworkConfig
from dwf.networks.functional import build_network, is_stacked
from dwf.randomness import numpy_stream
from dwf.transfer.config import FinetuneConfig, FreezeConfig
from dwf.zoo import roster
from dwf.zoo.cohorts import learnable, names_found
from dwf.zoo.config import ZooConfig
from dwf.zoo.facts import Facts
from dwf.zoo.layout import Layout

# More than the steps of a zoo touch: 32 networks 784-32-32-10 together are 2.9 times as fast each
# as one in memory, 8 are 2.6 times (medians of two runs in turn, on a machine that did other work).
# A zoo keeps to its rule, since bytes of a network depend on which others are trained beside it.
_CACHE_BYTES = 4 * roster.CACHE_BYTES


@dataclass(frozen=True)
class Target:
    """The task, ready to train on."""

    config: ZooConfig
    """Settings by which each arm is trained, as those of a zoo of `count` networks."""
    data: Dataset
    """Images; of `images_per_class` so few training images."""
    head: NewHead | None
    """Maker of new heads; None where networks keep theirs."""
    frozen: tuple[str, ...]
    """Names of the parameters that stay as they are."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.data.train) // self.config.recipe.batch_size)

    @property
    def num_steps(self) -> int:
        """Steps of all epochs."""
        return self.config.recipe.epochs * self.steps_per_epoch


def find_target(config: FinetuneConfig, facts: Facts) -> Target:
    """Return the task of a fine-tuning.

    Args:
        config: its settings.
        facts: of the zoo whose networks are trained further.

    Raises:
        ConfigError: head or frozen layers do not fit the networks, or a class has fewer images than
            are asked for.
    """
    data = load_dataset(config.data)
    if config.images_per_class is not None:
        data = few_shot(data, config.images_per_class, seed=config.seed)
    head = _head(config, facts, data.num_classes)
    network = head.network if head else facts.network
    zoo = ZooConfig(
        network,
        config.data,
        config.count,
        recipe=config.recipe,
        seed=config.seed,
        keep_epochs=config.recorded,
        train_scores=config.train_scores,
        cohort=config.cohort,
        shard=config.shard,
        compute=config.compute,
    )
    zoo = dataclasses.replace(zoo, cohort=_cohort(zoo, data))
    return Target(zoo, data, head=head, frozen=_frozen(config.freeze, network))


def _cohort(zoo: ZooConfig, data: Dataset) -> int | None:
    """Return how many networks are trained together; None: as for a zoo of them."""
    network = build_network(zoo.network)
    on_gpu = find_device(zoo.compute.device, elsewhere=True).type == "cuda"
    if on_gpu or not is_stacked(network):
        return zoo.cohort
    num_inputs = data.train.images[0].numel()
    return roster.cohort_size(
        zoo, Layout.of(network).size, num_inputs=num_inputs, cache_bytes=_CACHE_BYTES
    )


def few_shot(data: Dataset, per_class: int, *, seed: int) -> Dataset:
    """Return a dataset with so many training images of each class; other parts stay.

    Preparation stays, too: where it takes statistics, they are those of all training images.

    Raises:
        ConfigError: a class has fewer.
    """
    labels_M = data.train.labels[data.train.index]
    chosen = []
    for label in range(data.num_classes):
        places = torch.nonzero(labels_M == label).squeeze(1)
        if len(places) < per_class:
            raise ConfigError(
                f"images_per_class = {per_class}: class {label} has {len(places)} training images: "
                "give at most so many, or leave it out"
            )
        order = numpy_stream(seed, "images of class", label).permutation(len(places))
        chosen.append(places[torch.from_numpy(order[:per_class])])
    index = data.train.index[torch.cat(chosen).sort().values]
    return dataclasses.replace(data, train=dataclasses.replace(data.train, index=index))


def _head(config: FinetuneConfig, facts: Facts, num_classes: int) -> NewHead | None:
    now = facts.network.num_classes
    differ = now is not None and now != num_classes
    if config.head == "keep" and differ:
        raise ConfigError(
            f"head = 'keep': the networks of {config.zoo} have {now} logits, {config.data.title} "
            f"has {num_classes} classes: give head: new"
        )
    if config.head == "new" or (config.head == "auto" and differ):
        return NewHead(facts.layout, facts.network, classes=num_classes, seed=config.seed)
    return None


def _frozen(config: FreezeConfig, network: NetworkConfig) -> tuple[str, ...]:
    """Return the names of the parameters that stay, in order."""
    if config == FreezeConfig():
        return ()
    module = build_network(network)
    names = list(learnable(module))
    chosen = set(names_found(names, config.layers)) if config.layers else set()
    if config.layers and not chosen:
        raise ConfigError(
            f"freeze.layers = {config.layers!r} is found in no parameter; they are called "
            f"{', '.join(names)}"
        )
    if config.share:
        head = NewHead(Layout.of(module), network, classes=network.num_classes, seed=0).names
        body = [name for name in names if name not in head]
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in body))
        first = layers[: round(config.share * len(layers))]
        chosen |= {name for name in body if name.rpartition(".")[0] in first}
    if len(chosen) == len(names):
        raise ConfigError(
            f"freeze: all parameters stay ({', '.join(names)}), and nothing would learn: leave one "
            "layer"
        )
    return tuple(name for name in names if name in chosen)
