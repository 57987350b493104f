"""Bases of the densities' settings: what one can do, and settings that not all have."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from dwf.backbones.config import BackboneSettings, build_backbone
from dwf.checked import Checked, refuse_idle
from dwf.densities.solver_config import SolverSettings
from dwf.settings import Bounds, Count, Positive
from dwf.training.config import LoopConfig
from dwf.zoo.config import is_test_score

if TYPE_CHECKING:
    from torch import nn

    from dwf.backbones.shape import Shape


@dataclass(frozen=True)
class AutoguidanceConfig(Checked):
    """Guidance of samples away from what the network said when it had learnt less.

    Its younger self makes the same errors, only larger; so the way from one to the other leads on
    to where there are fewer (Karras et al., arXiv 2406.02507, eq. 3).
    """

    after: Annotated[float, Bounds(0, 0.9, open=True)] = 0.1
    """Share of the steps after which the younger self is kept."""
    weight: Positive = 2.0
    """How far samples are led: 1, not at all; 2, as far again as from the younger self to the
    network. Above 1 each of a solver's led steps costs twice as much."""
    since: Annotated[float, Bounds(0, 0.95)] = 0.0
    """Share of the way to the code from which samples are led. Led all the way they are drawn to
    what is frequent; led late, when it is settled which code they become, only their errors shrink
    (a limited interval of guidance, arXiv 2404.07724)."""


@dataclass(frozen=True)
class AnswersConfig(Checked):
    """Errors late on a path counted by what the network at its end answers; see `answers.py`."""

    share: Annotated[float, Bounds(0, 0.9, open=True)] = 0.5
    """Share of the loss in which they are."""
    after: Annotated[float, Bounds(0, 0.95)] = 0.75
    """Time from which networks are asked, 1 at the code."""
    images: Count = 128
    """Training images that they are asked about, drawn anew for each step."""


class DensitySettings(Checked):
    """Base of a density's settings: what it can do, and settings that not all densities have."""

    kind: ClassVar[str]
    title: ClassVar[str]
    """Its name in a title."""
    has_likelihood: ClassVar[bool] = True
    """Whether `log_prob` is known."""
    mixes: ClassVar[bool] = False
    """Whether it takes codes of several architectures; see `CodeShape`."""
    methods: ClassVar[tuple[str, ...]] = ()
    """Methods that `solver` may have when samples are drawn."""
    backbone: ClassVar[BackboneSettings | None] = None
    """The network that learns."""
    training: ClassVar[LoopConfig | None] = None
    """How it learns."""
    solver: ClassVar[SolverSettings | None] = None
    """How samples are drawn, where a network is evaluated several times for each."""
    condition: ClassVar[str | tuple[str, ...]] = "none"
    """Conditions that it is told of each network, or `none`."""
    has_temperature: ClassVar[bool] = False
    """Whether samples may start from less noise than it learnt from."""
    answers: ClassVar[AnswersConfig | None] = None
    """How errors count by what networks answer; None: they do not."""
    autoguidance: ClassVar[AutoguidanceConfig | None] = None
    """How samples are led away from the network's younger self; None: not at all."""
    drop_condition: ClassVar[float] = 1.0
    """Share of the networks that it learns without their condition."""
    behaviour: ClassVar[float] = 0.0
    """Share of the loss that needs a metric of codes; see `generators/sensitivity.py`."""

    draws_tokens: ClassVar[bool] = False
    """Whether each token of a code is drawn by itself, so that any sequence of them can be."""

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of its conditions: columns of the zoo, or facts of it (`learning.FACTS`)."""
        if isinstance(self.condition, str):
            return () if self.condition == "none" else (self.condition,)
        return self.condition

    @property
    def takes_condition(self) -> bool:
        """Whether `fit` and `sample` are told conditions."""
        return bool(self.conditions)

    @property
    def takes_metric(self) -> bool:
        """Whether `fit` is given a metric."""
        return self.behaviour > 0

    @property
    def looks_at_samples(self) -> bool:
        """Whether `fit` is given a judge of what is drawn in training."""
        return self.training is not None and self.training.sample_every > 0

    @property
    def reads_graph(self) -> bool:
        """Whether its backbone takes tokens for the units of an MLP; see `BackboneSettings`."""
        return self.backbone is not None and self.backbone.reads_graph

    @property
    def has_anchors(self) -> bool:
        """Whether it draws around training codes, which others may replace."""
        return False

    @property
    def words(self) -> str:
        """Name of the kind, with what tells it apart, for an error."""
        return self.kind

    def build_network(self, shape: "Shape", *, told: Sequence[int] = ()) -> "nn.Module":
        """Return the network that learns: the backbone, where nothing more does.

        Args:
            shape: of the codes.
            told: numbers of each condition that it is told.

        Raises:
            ConfigError: the backbone is not for such codes; see `build_backbone`.
        """
        return build_backbone(self.backbone, shape, told=told)

    def describe(self) -> Iterator[str]:
        """Yield what a plan should say of it."""
        yield from ()

    def describe_stored(self, num: int, size: int) -> Iterator[str]:
        """Yield what a plan should say of a fit to codes that lie on a disk, beside where they do.

        Args:
            num: how many training codes.
            size: numbers of each, at most.
        """
        yield from ()


class LearntSettings(DensitySettings):
    """Base of the settings of a `LearntDensity`, which have all of the above as fields.

    And `standardise`, as `FlowConfig` has it.
    """

    def check_condition(self) -> None:
        """Raise ValueError for conditions that may not be, and settings of them without effect."""
        for name in self.conditions:
            if is_test_score(name):
                raise ValueError(
                    f"condition = {name!r}: scores on test images are read by reports alone, and a "
                    "generator that had learnt them could not be judged by them: choose "
                    "val_accuracy"
                )
        if len(set(self.conditions)) < len(self.conditions) or "none" in self.conditions:
            raise ValueError(f"condition = {list(self.conditions)}: name each condition once")
        if "classes" in self.conditions and self.backbone.reads_labels:
            raise ValueError(
                f"condition = 'classes' with backbone.kind = {self.backbone.kind!r}, to which a "
                "category is one number, and a set of classes is several: choose the backbone "
                "residual_mlp"
            )
        if not self.takes_condition:
            because = "condition = none is never left out: set one"
            refuse_idle(self, "drop_condition", by=("condition",), because=because)

    def check_behaviour(self) -> None:
        """Raise ValueError where `behaviour` does not go with what else is set."""
        if self.takes_metric and not self.backbone.takes_tokens:
            raise ValueError(
                f"behaviour = {self.behaviour:g} measures tokens, and backbone.kind = "
                f"{self.backbone.kind!r} takes vectors: choose the backbone transformer or "
                "neural_graph, or set it to 0"
            )
        if self.takes_metric and self.standardise == "per_dimension":
            raise ValueError(
                f"behaviour = {self.behaviour:g} has one measure for all tokens of a layer, and "
                "standardise = 'per_dimension' scales each by itself: set it to none or global "
                "(the codec standardises), or behaviour to 0"
            )
