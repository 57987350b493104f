"""Settings of a fine-tuning: which networks start, on which task, what of them learns."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from dwf.checked import Checked, refuse_idle
from dwf.datasets.config import AnyDataConfig
from dwf.settings import Bounds, Count, Fraction, Name, Positive, Whole
from dwf.zoo.config import RecipeConfig, VaryConfig, ZooComputeConfig, refuse_idle_recipe

Origin = Literal[
    "random",
    "originals",
    "held_out",
    "generated",
    "nearest",
    "noise",
    "average",
    "average_unaligned",
]


@dataclass(frozen=True)
class FreezeConfig(Checked):
    """Parameters that stay as they were; of a new head they all learn."""

    share: Fraction = 0.0
    """Share of the layers before the head that stay, from the input on; 1: only the head learns."""
    layers: str | None = None
    """Further parameters that stay: a regular expression found in their names."""

    def __post_init__(self):
        try:
            re.compile(self.layers or "")
        except re.error as error:
            raise ValueError(f"layers = {self.layers!r}: no regular expression: {error}") from None


@dataclass(frozen=True)
class FinetuneConfig(Checked):
    """Networks of a zoo, and networks generated from it, trained further on a task.

    All arms have one schedule, one budget, the same images, and, network by network, the same
    shuffles.
    """

    zoo: Name
    """Zoo of the originals, in the frame that the generators learnt from (the aligned one)."""
    data: AnyDataConfig
    """Dataset of the new task."""
    samples: tuple[Name, ...] = ()
    """Zoos of generated networks, in the same frame; each is an arm of `generated`."""
    arms: tuple[Origin, ...] = get_args(Origin)
    """Origins that are compared; see docs/transfer.md."""
    count: Count = 100
    """Networks of each arm; fewer where there are not so many, as of held-out ones."""
    recipe: RecipeConfig = field(default_factory=lambda: RecipeConfig(epochs=25))
    """How each is trained; `initialisation` is that of the arm `random`."""
    epochs: tuple[Whole, ...] = (0, 1, 5, 25)
    """Epochs after which all networks are scored on all parts, 0 being the start."""
    look_every: Count | None = None
    """Steps between two looks at the accuracy on validation images; default: once an epoch."""
    images_per_class: Count | None = None
    """Training images of each class, the same for all networks; default: all."""
    head: Literal["auto", "keep", "new"] = "auto"
    """Whether the last layer begins anew; `auto`: where the number of classes differs."""
    freeze: FreezeConfig = field(default_factory=FreezeConfig)
    """Parameters that stay as they were."""
    noise: tuple[Positive, ...] = (0.1,)
    """Arms `noise`: noise on an original, in standard deviations of each weight."""
    averages: tuple[Annotated[int, Bounds(2)], ...] = (4,)
    """Arms `average`: originals whose weights are averaged for each network."""
    members: Annotated[int, Bounds(2)] = 10
    """Networks of an ensemble (mean of their logits) and of a soup (mean of their weights), the
    first of each arm."""
    reach: Fraction | None = None
    """Accuracy on validation images that steps are counted to; default: the mean of the arm
    `random` after the last epoch."""
    train_scores: Count | None = None
    """Training images that training accuracies are measured on; default: all."""
    batchnorm_images: Annotated[int, Bounds(2)] = 2000
    """Training images on which BatchNorm's statistics of averages and soups are measured."""
    cohort: Count | None = None
    """Networks trained together in one batched program; default: on a CPU MLPs whose step touches
    20 MiB, others as for a zoo."""
    shard: Count | None = None
    """Networks of an arm that are one unit of work; default: as for a zoo of `count` networks."""
    seed: Whole = 0
    """Seed of the choice of networks and images, of new heads and of shuffles."""
    compute: ZooComputeConfig = field(default_factory=ZooComputeConfig)
    """Device, arithmetic and saving."""

    def __post_init__(self):
        late = [epoch for epoch in self.epochs if epoch > self.recipe.epochs]
        if late:
            raise ValueError(f"epochs = {late}: the recipe ends at {self.recipe.epochs}")
        for name in ("epochs", "arms"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} = {list(values)}: give each once, and at least one")
        if self.arms == ("generated",) and not self.samples:
            raise ValueError("arms = ['generated'] without samples: give zoos of samples")

        refuse_idle_recipe(self, VaryConfig())
        if "noise" not in self.arms:
            refuse_idle(self, "noise", by=("arms",), because="arms has no noise: name it there")
        if not {"average", "average_unaligned"} & {*self.arms}:
            because = "arms has no average: name it there"
            refuse_idle(self, "averages", by=("arms",), because=because)

    @property
    def recorded(self) -> tuple[int, ...]:
        """The epochs after which networks are scored, in order; the last is among them."""
        return tuple(sorted({*self.epochs, self.recipe.epochs}))
