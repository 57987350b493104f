"""Settings of a generator, and of drawing networks from one."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from dwf.checked import Checked, refuse_idle
from dwf.codecs.config import CodecConfig, PcaConfig
from dwf.datasets.config import AnyDataConfig
from dwf.densities.config import DensityConfig, FlowConfig
from dwf.densities.solver_config import SamplingMethod
from dwf.networks.config import NetworkConfig
from dwf.settings import Bounds, Count, Fraction, Name, Positive, PositiveFraction, RunName, Whole

BATCHNORM_IMAGES = 2000
"""Training images on which BatchNorm is re-estimated, where settings do not say how many."""


@dataclass(frozen=True)
class GateConfig(Checked):
    """Limits of what a codec that learns may lose before a density is fitted to its codes.

    Validation networks are coded, decoded and scored on validation images.
    """

    drop: Fraction = 0.05
    """Largest accuracy that networks may lose by it, their mean; 0.05 is 5 points."""
    same_answers: Fraction = 0.75
    """Least share of the images that networks and their reconstructions must give the same class,
    their mean."""
    networks: Count = 16
    """Validation networks at most, drawn by the seed where there are more."""
    overfit_steps: Whole = 100
    """Steps in which a codec of the same settings, else untrained, is also to learn one training
    network alone, which tells a codec that cannot learn from one that learnt too little; 0: not
    tried."""
    anyway: bool = False
    """Fit the density to a codec below the gate too; what was found is recorded as ever."""


@dataclass(frozen=True)
class GeneratorConfig(Checked):
    """Learn the distribution of a zoo's training networks."""

    zoo: Name
    """Name of the zoo to learn from; it lies in zoos/ under the root."""
    codec: CodecConfig = field(default_factory=PcaConfig)
    """How weights become codes."""
    density: DensityConfig = field(default_factory=FlowConfig)
    """Density that learns the distribution of the codes."""
    epochs: Literal["last", "all"] | tuple[Whole, ...] = "last"
    """Which rows of a network are learnt from: its last, all, or those of these epochs. Training
    and held-out rows are cut apart by network, whatever the epochs; those of a zoo of one network
    by blocks of its steps, and `last` takes them all."""
    best: Annotated[float, Bounds(0, 1, open=True)] = 1.0
    """The density learns from this share of the training rows (of `networks` or `rows`, where there
    are any), the best by `val_accuracy`; the codec from all of them."""
    networks: Count | None = None
    """Training networks that codec and density both learn from, as many of each of `more_zoos`; of
    `codec_zoos` it is all in any case. Default: all. A zoo of one network takes `rows`."""
    networks_by: Literal["first", "random"] = "first"
    """Choice of these networks: the first of the training split, in the zoo's order, or a random
    draw by `seed`, in which fewer networks are always among more."""
    rows: Count | None = None
    """Training rows of a zoo of one network that codec and density both learn from, the first in
    order. Default: all. Other zoos take `networks`."""
    more_zoos: tuple[Name, ...] = ()
    """More zoos that codec and density both learn from. Of other architectures: with a codec that
    takes them together (`neurons`) and a density whose backbone takes masks (`transformer`,
    `neural_graph`). Of the same architecture, but other data: with any codec and a density told
    which, by `density.condition: data` or `classes`."""
    codec_zoos: tuple[Name, ...] = ()
    """More zoos that the codec alone learns from, at their last epoch; of any architecture with a
    codec that takes windows (`sane`), else of the density's."""
    seed: Whole = 0
    """Seed of initialisation, batches and noise."""
    gate: GateConfig | None = field(default_factory=GateConfig)
    """Test of a codec that learns, without which no density is fitted; null: none, as the published
    generators have none."""
    likelihood: Whole = 0
    """Number of training and of held-out networks, drawn by the seed, of which the density's
    likelihood is recorded once it is fitted; 0: of none."""

    @property
    def title(self) -> str:
        """Few words for tables and figures: `flow over neuron tokens`."""
        return f"{self.density.title} over {self.codec.title}"

    def __post_init__(self):
        if self.networks is not None and self.rows is not None:
            raise ValueError(
                f"networks = {self.networks} and rows = {self.rows}: rows are of a zoo of one "
                "network, networks of all others: give one of the two"
            )
        if self.networks is None:
            because = "networks = none learns from all: set how many"
            refuse_idle(self, "networks_by", by=("networks",), because=because)
        codec, density = self.codec, self.density
        if density.takes_metric and not (codec.makes_tokens and codec.has_derivative):
            raise ValueError(
                f"density.behaviour = {density.behaviour:g} measures tokens by the derivative "
                f"of what they are decoded to, and codec.kind = {codec.kind!r} has no such "
                "tokens: choose the codec neurons or tokens, or set it to 0"
            )
        if density.answers is not None and not codec.has_derivative:
            raise ValueError(
                f"density.answers learns by the derivative of what codes are decoded to, and "
                f"codec.kind = {codec.kind!r} has none: choose the codec functions, neurons or "
                "tokens, or set it to null"
            )
        if density.answers is not None and self.more_zoos:
            raise ValueError(
                f"density.answers asks networks of one architecture about one dataset, and "
                f"more_zoos = {list(self.more_zoos)}: learn from one zoo, or set it to null"
            )
        if codec.looks_at_samples and not codec.has_prior:
            raise ValueError(
                f"codec.training.sample_every = {codec.training.sample_every}: a codec "
                f"{codec.kind} draws no networks, only vae does: set it to 0, and "
                "density.training.sample_every instead"
            )
        if density.reads_graph and not codec.tells_graph:
            raise ValueError(
                f"density.backbone.kind = {density.backbone.kind!r} reads weights and biases off "
                "the tokens of codec neurons, of scale kept or balanced; the codec is "
                f"{codec.words}: choose these, or another backbone"
            )
        if not density.has_likelihood:
            because = f"density.kind = {density.kind} knows none: set flow, gaussian or kde"
            refuse_idle(self, "likelihood", by=("density.kind",), because=because)
        if self.likelihood and density.drop_condition == 0:
            raise ValueError(
                f"likelihood = {self.likelihood} is that of networks whatever their condition, "
                "which a flow with density.drop_condition = 0 never learns: leave it out, or set "
                "density.drop_condition above 0"
            )


class SelectionSettings(Checked):
    """Base of the settings of a selection: drawn in rounds, `draws` for each one kept."""

    kind: ClassVar[str]
    keeps_all: ClassVar[bool] = False
    """Whether there is no selection."""
    rounds: ClassVar[int] = 1
    """Rounds; the networks of the last are kept."""
    draws: ClassVar[int] = 1
    """Networks drawn in a round for each one kept at the end."""
    anchors: ClassVar[int] = 0
    """Best networks of a round, the codes of which are the anchors of the next; 0: none are."""


@dataclass(frozen=True)
class NoSelectionConfig(SelectionSettings):
    """Every network that is drawn is kept."""

    keeps_all: ClassVar[bool] = True
    kind: Literal["none"] = "none"
    """The selection."""

    draws = rounds = 1


@dataclass(frozen=True)
class SubsampleConfig(SelectionSettings):
    """Draw many, keep those that do best on validation images (arXiv 2406.09997, table 3)."""

    draws: Count = 5
    """Networks drawn for each one kept; published: 50 for 10."""
    kind: Literal["subsample"] = "subsample"
    """The selection."""

    rounds = 1


@dataclass(frozen=True)
class BootstrapConfig(SelectionSettings):
    """Subsampling in rounds: the best of a round are the anchors of the next; for a `kde`."""

    draws: Count = 20
    """Networks drawn in a round for each one kept at the end; arXiv 2504.10141: 200 for 10."""
    rounds: Annotated[int, Bounds(2)] = 2
    """Rounds; the networks of the last are kept."""
    anchors: Count = 5
    """Best networks of a round, the codes of which are the anchors of the next."""
    kind: Literal["bootstrap"] = "bootstrap"
    """The selection."""


SelectionConfig = NoSelectionConfig | SubsampleConfig | BootstrapConfig
"""Union of all selections' settings."""


@dataclass(frozen=True)
class SampleConfig(Checked):
    """Draw networks from a generator."""

    generator: RunName
    """Name of the generator; it lies in runs/ under the root."""
    count: Count = 100
    """How many networks."""
    seed: Whole = 0
    """Seed of the noise; a sample depends on the seed and its number alone."""
    solver: SamplingMethod | None = None
    """Solver of a flow's differential equation, or way in which a diffusion's noise is taken
    away; default: the generator's own."""
    steps: Count | None = None
    """Number of the solver's steps (`dopri5` chooses its own); default: the generator's own."""
    condition: float | tuple[str, ...] | None = None
    """Networks that are asked for, of a density with `density.condition`: the value of the one
    condition that is a number, or `name=value` of some: a number; `0.9..0.96`, spread over the
    samples; a category; `each`, all categories in turn; `mnist:0.5,fashion_mnist:0.5`, a mixture.
    Default: any, as the training networks are."""
    guidance: Positive | tuple[str, ...] = 1.0
    """Exaggeration of the conditions together (classifier-free guidance, arXiv 2207.12598), or, as
    `name=number`, of each given the others; otherwise than at 1 each step costs another evaluation,
    or one for each of these."""
    temperature: PositiveFraction = 1.0
    """Standard deviation of the noise that a flow starts from, as a share of that which it learnt
    from. Below 1 networks lie nearer to what is frequent: more accurate, less spread."""
    autoguidance: Positive | None = None
    """Weight by which samples are led away from the network when it had learnt less, of a density
    with `density.autoguidance`; 1: not at all. Default: the generator's own."""
    zoo: Name | None = None
    """Zoo of the generator (`zoo`, `more_zoos`) whose architecture to sample; default: the first of
    those whose dataset is asked for, or of all."""
    batchnorm: Literal["template", "recalibrated"] = "template"
    """Running statistics written with networks that have BatchNorm: as decoded, which is the mean
    over the training networks unless the codec covers `buffers`; or each network's own, re-
    estimated on training images. An evaluation re-estimates them in any case."""
    batchnorm_images: Annotated[int, Bounds(2)] = BATCHNORM_IMAGES
    """Training images on which they are re-estimated; all, where there are fewer."""
    selection: SelectionConfig = field(default_factory=NoSelectionConfig)
    """Which of the networks that are drawn are kept; the report says how many that were."""
    network: NetworkConfig | None = None
    """Architecture that is drawn though the generator did not learn from it, of codec `sane` and a
    `kde` that draws tokens one by one; default: the zoo's."""
    classes: Count | None = None
    """Give each network a new head for so many classes, initialised at random, to be trained on
    another task; default: its own head."""
    data: AnyDataConfig | None = None
    """Dataset of that task, for `classes` and BatchNorm; default: the zoo's."""

    def __post_init__(self):
        if self.condition is None:
            because = "condition = none leaves nothing to exaggerate: set one"
            refuse_idle(self, "guidance", by=("condition",), because=because)
        selection = self.selection
        if selection.anchors and self.network is not None:
            raise ValueError(
                f"selection.kind = {selection.kind!r} makes networks that are drawn anchors, and "
                "those of a new architecture have no codes: choose subsample, or leave out network"
            )
        if selection.anchors > self.drawn // selection.rounds:
            raise ValueError(
                f"selection.anchors = {selection.anchors}: a round draws "
                f"{self.drawn // selection.rounds} networks (draws x count): give at most so many, "
                "or raise selection.draws"
            )

    @property
    def drawn(self) -> int:
        """How many networks are drawn, in all rounds, of which `count` are kept."""
        return self.selection.rounds * self.selection.draws * self.count
