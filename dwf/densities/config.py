"""Settings of the densities over codes, and the table of them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, get_args

from dwf.backbones.config import BackboneConfig, ResidualMLPConfig
from dwf.checked import refuse_idle
from dwf.densities.base_config import (
    AnswersConfig,
    AutoguidanceConfig,
    DensitySettings,
    LearntSettings,
)
from dwf.densities.solver_config import (
    DiffusionMethod,
    DiffusionSolverConfig,
    OdeMethod,
    SolverConfig,
)
from dwf.room import machine_bytes
from dwf.settings import Bounds, Count, Fraction, NonNegative, Positive
from dwf.training.config import LoopConfig

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from dwf.backbones.shape import Shape

DENSITIES = {
    "diffusion": "dwf.densities.diffusion:Diffusion",
    "flow": "dwf.densities.flow:Flow",
    "gaussian": "dwf.densities.gaussian:Gaussian",
    "kde": "dwf.densities.kde:Kde",
}


@dataclass(frozen=True)
class FlowConfig(LearntSettings):
    """Conditional flow matching (arXiv 2210.02747; for weights arXiv 2601.05052)."""

    title: ClassVar[str] = "flow"
    mixes: ClassVar[bool] = True
    methods: ClassVar[tuple[str, ...]] = get_args(OdeMethod)
    has_temperature: ClassVar[bool] = True

    backbone: BackboneConfig = field(default_factory=ResidualMLPConfig)
    """The network that learns the velocity."""
    training: LoopConfig = field(default_factory=lambda: LoopConfig(ema=0.999))
    """How it learns."""
    solver: SolverConfig = field(default_factory=SolverConfig)
    """How samples are drawn."""
    standardise: Literal["per_dimension", "global", "none"] = "per_dimension"
    """Give the training codes mean 0 and deviation 1: each number, or all by one factor."""
    source: Literal["fresh", "fixed"] = "fresh"
    """Noise drawn anew each step, or, as published, one vector per training code, drawn once."""
    source_std: Positive = 1.0
    """Standard deviation of the source, in (standardised) code units."""
    sigma: NonNegative = 0.0
    """Standard deviation of the noise around the line from source to code."""
    time: Literal["uniform", "beta", "logit_normal"] = "uniform"
    """Distribution of training times; `beta` is Beta(2, 5), `logit_normal` the logistic function of
    a normal number (arXiv 2403.03206, section 3.1)."""
    time_mean: Annotated[float, Bounds(-10, 10)] = 0.0
    """Mean of `logit_normal`'s normal number; below 0: more times near the noise."""
    time_std: Positive = 1.0
    """Standard deviation of `logit_normal`'s normal number."""
    stagger: Fraction = 0.0
    """Share to which layers are drawn one after the other, from the last to the first: 0, all at
    once; 1, each once all behind it are drawn; between, they overlap."""
    prediction: Literal["velocity", "target", "residual"] = "velocity"
    """Output of the network: the velocity; the code that a point moves to; or, `residual`, only how
    the velocity differs from that of standard normal codes, which is known: then numbers without
    structure need not pass through it (as the skip of arXiv 2206.00364, section 5)."""
    pairing: Literal["independent", "optimal_transport", "tokens", "equivariant"] = "independent"
    """How source and code are paired: as drawn; `optimal_transport`: at the least squared distance
    in a batch; `tokens`: as drawn, the source's tokens assigned to the code's within each layer
    whose tokens are exchangeable; `equivariant`: both, exactly, at several times a step's cost."""
    behaviour: Fraction = 0.0
    """Share of the loss in which an error counts by how much it changes what networks answer, and
    not as much as that of any other number; see `generators/sensitivity.py`. Below 1: numbers
    without influence must be learnt too."""
    answers: AnswersConfig | None = None
    """Errors late on a path counted by what the very network at its end answers to training images,
    which `behaviour` does for all networks alike; null: they are not. Training takes longer."""
    condition: str | tuple[str, ...] = "none"
    """Facts of each network that the flow is told, so that samples may be asked for by them:
    columns of the zoo (`val_accuracy`, `initialisation`, `epoch`, ...; no test scores), `data`,
    `classes` or `architecture`; one, or a list."""
    drop_condition: Fraction = 0.1
    """With conditions: share of a batch that is told none, and, of several, share that is not told
    one by itself, so that samples without one and classifier-free guidance (arXiv 2207.12598) are
    learnt too."""
    autoguidance: AutoguidanceConfig | None = None
    """Guidance of samples away from what the network said when it had learnt less; null: none. A
    likelihood is always that of the network alone."""
    kind: Literal["flow"] = "flow"
    """The density."""

    def __post_init__(self):
        if self.time != "logit_normal":
            because = f"time = {self.time} has none: set logit_normal"
            refuse_idle(self, "time_mean", "time_std", by=("time",), because=because)
        self.check_condition()
        self._check_pairing()
        self._check_stagger()
        if self.answers is not None and (self.stagger or self.sigma):
            raise ValueError(
                f"answers with stagger = {self.stagger:g}, sigma = {self.sigma:g}: the code at a "
                "path's end follows from a point and the velocity alone where both are 0: set "
                "them, or answers to null"
            )
        self.check_behaviour()

    def _check_stagger(self) -> None:
        if self.stagger and not self.backbone.takes_tokens:
            raise ValueError(
                f"stagger = {self.stagger:g} draws layers one after the other, and backbone.kind = "
                f"{self.backbone.kind!r} takes vectors: choose the backbone transformer, or 0"
            )
        if self.stagger and (self.sigma or self.prediction != "velocity"):
            raise ValueError(
                f"stagger = {self.stagger:g} goes with sigma 0 and the prediction velocity, not "
                f"with {self.sigma:g} and {self.prediction}: set these, or stagger 0"
            )

    def describe_stored(self, num: int, size: int) -> Iterator[str]:
        """Yield where fixed noise lies; see the base."""
        if self.source == "fixed":
            yield (
                f"the noise of density.source = 'fixed', up to {_gigabytes(4, num, size)}, lies "
                "beside them"
            )

    def _check_pairing(self) -> None:
        if self.pairing in ("tokens", "equivariant"):
            backbone = self.backbone
            if not backbone.takes_tokens:
                raise ValueError(
                    f"pairing = {self.pairing!r} assigns tokens, and backbone.kind = "
                    f"{backbone.kind!r} takes vectors: choose the backbone transformer or "
                    "neural_graph, or the pairing optimal_transport or independent"
                )
            if not backbone.has_exchangeable:
                raise ValueError(
                    f"pairing = {self.pairing!r} needs exchangeable tokens, and with "
                    "backbone.positions = true none are: set it false, or "
                    "backbone.last_exchangeable true, or the pairing optimal_transport"
                )
        if self.takes_condition and self.pairing in ("optimal_transport", "equivariant"):
            raise ValueError(
                f"pairing = {self.pairing!r} with condition = {self.condition!r}: sources paired "
                "over a batch are not Gaussian for a given condition any more, and samples of it "
                "start elsewhere (arXiv 2503.10636): choose the pairing tokens or independent"
            )


# Networks are drawn from pure noise, in which so much of a code was never learnt.
_MUCH_SIGNAL = 0.05
# Below it a code that is computed from its noise in float32 is rounding alone.
_LITTLE_SIGNAL = 1e-6


@dataclass(frozen=True)
class DiffusionConfig(LearntSettings):
    """Denoising diffusion (arXiv 2006.11239; for weights arXiv 2402.13144)."""

    title: ClassVar[str] = "diffusion"
    has_likelihood: ClassVar[bool] = False
    mixes: ClassVar[bool] = True
    methods: ClassVar[tuple[str, ...]] = get_args(DiffusionMethod)

    backbone: BackboneConfig = field(default_factory=ResidualMLPConfig)
    """The network that learns to tell code from noise."""
    training: LoopConfig = field(default_factory=lambda: LoopConfig(ema=0.999))
    """How it learns."""
    solver: DiffusionSolverConfig = field(default_factory=DiffusionSolverConfig)
    """How samples are drawn."""
    standardise: Literal["per_dimension", "global", "none"] = "per_dimension"
    """Give the training codes mean 0 and deviation 1: each number, or all by one factor."""
    diffusion_steps: Annotated[int, Bounds(10, 2000)] = 1000
    """Steps by which codes become noise."""
    schedule: Literal[
        "linear",
        "scaled_linear",
        "quad",
        "cosine",
        "cosine_clipped",
        "sigmoid",
        "warmup10",
        "warmup50",
        "constant",
        "jsd",
    ] = "linear"
    """Course of beta, the variance that a step adds, from `beta_start` to `beta_end`: on a line; on
    a parabola (`quad` is p-diff's word for `scaled_linear`); on a `sigmoid`; rising over the first
    10 or 50 %; or always `beta_end`. Without these two: `cosine` (arXiv 2102.09672) and `jsd`,
    1/T, 1/(T - 1), ..., 1. `cosine_clipped` keeps `cosine` between them, as VAE-Diffusion does."""
    beta_start: Annotated[float, Bounds(0, 1, open=True)] = 1e-4
    """Variance that the first step adds."""
    beta_end: Annotated[float, Bounds(0, 1, open=True)] = 0.02
    """Variance that the last step adds; a diffusion of few steps needs more."""
    zero_terminal_snr: bool = False
    """Stretch the schedule so that nothing of a code is left at the last step (arXiv 2305.08891);
    not with `prediction` noise, in which no code could be found then."""
    most_signal: Fraction = 0.2
    """Largest part of a code that may be left at the last step, where networks are drawn from pure
    noise; published settings of few steps leave up to 0.95."""
    prediction: Literal["noise", "sample", "previous", "velocity"] = "noise"
    """Output of the network: the noise in a point, the code, the mean of the point one step before,
    or sqrt(abar) noise - sqrt(1 - abar) code (arXiv 2202.00512)."""
    variance: Literal["fixed_small", "fixed_large", "learnt"] = "fixed_small"
    """Variance of a step of `ddpm`: that of the step given the code, that of the step forwards, or
    learnt between them for each time and number (arXiv 2102.09672, eq. 15 and 16)."""
    clip: Positive | None = None
    """Largest number of a predicted code, in (standardised) code units, at each step; default:
    any. Published codes keep theirs within 1."""
    behaviour: Fraction = 0.0
    """Share of the loss in which an error counts by how much it changes what networks answer, and
    not as much as that of any other number; see `generators/sensitivity.py`. Below 1: numbers
    without influence must be learnt too."""
    condition: str | tuple[str, ...] = "none"
    """Facts of each network that the diffusion is told; see the flow's."""
    drop_condition: Fraction = 0.1
    """With conditions: share of a batch that is told none, and, of several, share that is not told
    one by itself; see the flow's."""
    autoguidance: AutoguidanceConfig | None = None
    """Guidance of samples away from what the network said when it had learnt less; null: none."""
    kind: Literal["diffusion"] = "diffusion"
    """The density."""

    def __post_init__(self):
        self.check_condition()
        self.check_behaviour()
        if self.solver.steps > self.diffusion_steps:
            raise ValueError(
                f"solver.steps = {self.solver.steps}: these are chosen among diffusion_steps = "
                f"{self.diffusion_steps}: give at most so many"
            )
        self._check_betas()
        self._check_signal()
        if self.autoguidance is not None and self.variance == "learnt":
            raise ValueError(
                "autoguidance with variance = 'learnt', which lies between two others and cannot "
                "be led beyond them: set the variance fixed_small or fixed_large, or autoguidance "
                "to null"
            )

    @property
    def kept_S(self) -> "np.ndarray":  # noqa: N802
        """Share of a code's variance that is kept after each step, abar; float64."""
        from dwf.densities.schedules import SCHEDULES, kept_of

        betas_S = SCHEDULES[self.schedule](self.beta_start, self.beta_end, self.diffusion_steps)
        return kept_of(betas_S, zero_terminal_snr=self.zero_terminal_snr)

    @property
    def signal_left(self) -> float:
        """Part of a code, sqrt(abar), that is left at the last step."""
        return float(self.kept_S[-1] ** 0.5)

    def describe(self) -> Iterator[str]:
        """Yield what of a code is left at the last step, and whether that is much."""
        left = self.signal_left
        yield (
            f"diffusion of {self.diffusion_steps:,} steps, schedule {self.schedule}: a part of "
            f"{left:.2g} of a code is left at the last"
        )
        if left > _MUCH_SIGNAL:
            yield (
                f"WARNING: networks are drawn from pure noise, and {left:.2g} of a code is much "
                f"(above {_MUCH_SIGNAL:g}): {self._less_signal()}"
            )

    def build_network(self, shape: "Shape", *, told: Sequence[int] = ()) -> "nn.Module":
        """Return the backbone, with the variances where they are learnt; see the base."""
        backbone = super().build_network(shape, told=told)
        if self.variance != "learnt":
            return backbone
        from dwf.densities.denoising import WithVariance

        return WithVariance(backbone, shape.size)

    def _check_betas(self) -> None:
        if self.schedule in ("cosine", "jsd"):
            because = f"schedule = {self.schedule} has none: set another"
            refuse_idle(self, "beta_start", "beta_end", by=("schedule",), because=because)
        if self.beta_start > self.beta_end:
            raise ValueError(
                f"beta_start = {self.beta_start:g} is above beta_end = {self.beta_end:g}: a "
                "schedule adds more noise at its end: exchange them"
            )

    def _check_signal(self) -> None:
        left = self.signal_left
        if self.prediction == "noise" and left < _LITTLE_SIGNAL:
            raise ValueError(
                f"prediction = 'noise' with schedule = {self.schedule!r}, zero_terminal_snr = "
                f"{str(self.zero_terminal_snr).lower()}: a part of {left:.1g} of a code is left at "
                "the last step, and no code can be computed from its noise there: choose the "
                "prediction velocity or sample, or another schedule"
            )
        if left > self.most_signal:
            raise ValueError(
                f"diffusion_steps = {self.diffusion_steps} with schedule = {self.schedule!r}: a "
                f"part of {left:.2g} of a code is left at the last step, above most_signal = "
                f"{self.most_signal:g}, and networks would be drawn from pure noise: "
                f"{self._less_signal()}, or raise most_signal to do as published"
            )

    def _less_signal(self) -> str:
        return "raise beta_end, choose the schedule cosine, or set zero_terminal_snr"


# float64 numbers of a Gaussian's fit to codes on a disk: vectors of a code's length (mean, squares
# and what they are merged by), and square matrices (a block below the triangle, the factorisation's
# copies of these, the parts of the singular value decomposition), and blocks of codes.
_VECTORS, _MATRICES, _BLOCKS = 8, 10, 8
BLOCK_NUMBERS = 2**20
"""Numbers of codes on a disk that a Gaussian's fit works on at once."""


def _gigabytes(*factors: int) -> str:
    return f"{math.prod(factors) / 1e9:.1f} GB"


@dataclass(frozen=True)
class GaussianConfig(DensitySettings):
    """A multivariate Gaussian: the null that every generator must beat."""

    title: ClassVar[str] = "Gaussian"
    less_memory: ClassVar[str] = (
        "set density.covariance diagonal, learn from fewer networks (--networks), or choose a "
        "codec of fewer numbers (pca)"
    )
    """Words on what takes less memory to fit."""

    covariance: Literal["full", "diagonal"] = "full"
    """`full` has the rank of the training codes; `diagonal` treats each number alone."""
    shrinkage: Fraction = 0.0
    """Weight of the mean variance times the identity in the covariance."""
    kind: Literal["gaussian"] = "gaussian"
    """The density."""

    def bytes_to_fit(self, num: int, size: int) -> int:
        """Return about how much memory a fit to codes on a disk takes.

        Args:
            num: how many codes.
            size: numbers of each.
        """
        vectors = _VECTORS * size
        matrices = _MATRICES * min(num, size) ** 2 if self.covariance == "full" else 0
        return 8 * (vectors + matrices + _BLOCKS * BLOCK_NUMBERS)

    def describe_stored(self, num: int, size: int) -> Iterator[str]:
        """Yield where the directions lie and what they take to find; see the base."""
        need = self.bytes_to_fit(num, size)
        if self.covariance == "full":
            rank = min(num - 1, size)
            yield (
                f"the Gaussian's directions, up to {_gigabytes(8, rank, size)}, lie in "
                f"density/directions.npy, and take {_gigabytes(need)} of memory to find"
            )
        if need > machine_bytes():
            yield (
                f"WARNING: with the {machine_bytes() / 2**30:,.1f} GiB of this machine it is "
                f"refused: {self.less_memory}"
            )


@dataclass(frozen=True)
class KdeConfig(DensitySettings):
    """Training codes, the anchors, plus noise: how SANE draws (arXiv 2406.09997, table 3)."""

    title: ClassVar[str] = "kernel density"

    mode: Literal["token", "joint", "individual", "gaussian"] = "token"
    """Part of a drawn code that comes from one anchor: a token, the whole code, a number; or
    `gaussian`: no anchor at all, each number is `mean` plus noise of deviation `sigma`."""
    bandwidth: Positive = 0.2
    """Standard deviation of the noise around an anchor; published: 0.2."""
    relative: bool = False
    """Count `bandwidth` in each number's deviation over the anchors; as published it is absolute,
    in the codes' own units."""
    anchors: Count | None = None
    """How many training codes are anchors, drawn by the seed; default: all."""
    mean: Annotated[float, Bounds(-1e9)] = 0.0
    """Mean of each number in mode `gaussian`."""
    sigma: Positive = 10.0
    """Standard deviation of the noise in mode `gaussian`; published: 10."""
    kind: Literal["kde"] = "kde"
    """The density."""

    def __post_init__(self):
        if self.mode != "gaussian":
            because = f"the noise of mode = {self.mode} is `bandwidth`: set gaussian"
            refuse_idle(self, "mean", "sigma", by=("mode",), because=because)
        else:
            because = "mode = gaussian has no anchors: set token, joint or individual"
            refuse_idle(self, "anchors", "relative", by=("mode",), because=because)

    def describe_stored(self, num: int, size: int) -> Iterator[str]:
        """Yield where the anchors lie; see the base."""
        if self.has_anchors:
            num = min(self.anchors or num, num)
            yield (
                f"the anchors, up to {_gigabytes(4, num, size)}, lie in density/anchors.npy "
                "afterwards, and are read from there"
            )

    @property
    def draws_tokens(self) -> bool:
        """Whether each token of a code is drawn by itself, so that any sequence of them can be."""
        return self.mode != "joint"

    @property
    def has_anchors(self) -> bool:
        """Whether it draws around training codes, which others may replace."""
        return self.mode != "gaussian"

    @property
    def words(self) -> str:
        """Name of the kind, with what tells it apart, for an error."""
        return f"{self.kind} of mode {self.mode}"


DensityConfig = FlowConfig | DiffusionConfig | GaussianConfig | KdeConfig
"""Union of all densities' settings."""
