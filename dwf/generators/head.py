"""A new head for drawn networks: the first step of their transfer to another task.

The head is every tensor whose shape depends on the number of classes. It is initialised at random
for each network, also where the number of classes stays; all other tensors stay as they were drawn.

Shape suffixes: B networks of a block, D numbers of a network, E those of one with the new head.
"""

import dataclasses

import numpy as np
import torch

from dwf.datasets.config import AnyDataConfig
from dwf.datasets.load import load_dataset
from dwf.errors import ConfigError, ShapeMismatch
from dwf.generators.config import SampleConfig
from dwf.networks.config import NetworkConfig
from dwf.networks.functional import build_network
from dwf.networks.initialisation import initialise
from dwf.plain import Json
from dwf.randomness import seed_of
from dwf.zoo.facts import Subject
from dwf.zoo.layout import Layout


class NewHead:
    """Gives networks of a layout fresh heads.

    Args:
        layout: of the networks as they are drawn.
        network: their architecture.
        classes: logits of the new head.
        seed: of its initial weights.

    Raises:
        ConfigError: nothing in the architecture depends on the number of classes, or more than
            shapes does.
    """

    def __init__(self, layout: Layout, network: NetworkConfig, *, classes: int, seed: int):
        self.old, self.classes, self.seed = layout, classes, seed
        self.network = network.with_classes(classes)
        self.layout = Layout.of(build_network(self.network))
        other = Layout.of(build_network(network.with_classes(classes + 1)))
        self.names = tuple(
            entry.name
            for entry in self.layout.entries
            if other.by_name.get(entry.name, entry).shape != entry.shape
        )
        """The tensors of the head."""
        body = {e.name: e.shape for e in layout.entries if e.name not in self.names}
        wanted = {e.name: e.shape for e in self.layout.entries if e.name not in self.names}
        if not self.names or body != wanted:
            raise ConfigError(
                f"classes = {classes}: with another number of classes a {network.kind} differs in "
                f"{', '.join(self.names) or 'no tensor'} of shape and in "
                f"{', '.join(sorted(body.keys() ^ wanted.keys())) or 'no tensor'} of name: a new "
                "head is given where it is some tensors of another shape"
            )

    def to_json(self) -> dict[str, Json]:
        """Return what a zoo of samples says of it."""
        return {"classes": self.classes, "tensors": list(self.names)}

    def reset(self, weights_BD: torch.Tensor, numbers_B: np.ndarray) -> torch.Tensor:
        """Return weights_BE: the networks with heads of their own.

        Args:
            weights_BD: as they were drawn.
            numbers_B: their numbers among the samples; a head depends on the seed and on them.
        """
        weights_BE = weights_BD.new_empty(len(weights_BD), self.layout.size)
        for entry in self.layout.entries:
            if entry.name not in self.names:
                before = self.old.by_name[entry.name]
                weights_BE[:, entry.offset : entry.stop] = weights_BD[
                    :, before.offset : before.stop
                ]
        fresh = build_network(self.network)
        for row_E, number in zip(weights_BE, numbers_B.tolist(), strict=True):
            initialise(fresh, self.network, kind="default", seed=seed_of(self.seed, "head", number))
            state = fresh.state_dict()
            for name in self.names:
                entry = self.layout.by_name[name]
                row_E[entry.offset : entry.stop] = state[name].flatten()
        return weights_BE


def new_head(
    config: SampleConfig, layout: Layout, *, subject: Subject
) -> tuple[NewHead | None, Subject]:
    """Return the head that the settings ask for, and what the networks with it are.

    Args:
        config: `classes`, `data` and the seed.
        layout: of the networks as they are drawn.
        subject: what these are.

    Raises:
        ConfigError: the new dataset has another number of classes than `classes`.
        ShapeMismatch: its images do not fit the networks.
    """
    classes, data = config.classes, subject.data
    if config.data is not None:
        data = config.data
        classes = _classes_of(data, classes, subject.input_shape)
    if classes is None:
        return None, subject
    head = NewHead(layout, subject.network, classes=classes, seed=config.seed)
    changed = dataclasses.replace(subject, network=head.network, data=data)
    return head, changed


def _classes_of(data: AnyDataConfig, classes: int | None, shape: tuple[int, ...]) -> int:
    loaded = load_dataset(data)
    if classes not in (None, loaded.num_classes):
        raise ConfigError(
            f"classes = {classes}: {data.title} has {loaded.num_classes} classes: leave classes out"
        )
    if shape != loaded.shape:
        raise ShapeMismatch(
            f"data.kind = {data.kind!r}: its inputs have shape {list(loaded.shape)}, these "
            f"networks take {list(shape)}: choose a dataset of that shape (`grey` makes colour "
            "images grey)"
        )
    return loaded.num_classes
