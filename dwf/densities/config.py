"""Settings of the densities over codes, and the table of them."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from dwf.backbones.config import BackboneConfig, ResidualMLPConfig
from dwf.settings import Bounds, Count, Fraction, NonNegative, Positive
from dwf.training.config import LoopConfig

DENSITIES = {
    "flow": "dwf.densities.flow:Flow",
    "gaussian": "dwf.densities.gaussian:Gaussian",
    "kde": "dwf.densities.kde:Kde",
}


@dataclass(frozen=True)
class SolverConfig:
    """How the flow's differential equation is solved."""

    method: Literal["euler", "midpoint", "heun2", "rk4", "dopri5"] = "dopri5"
    """torchdiffeq's solver; `dopri5` chooses its own steps."""
    steps: Count = 50
    """Equal intervals of time, for all but `dopri5`."""
    rtol: Annotated[float, Bounds(1e-9, 1)] = 1e-4
    """Error allowed in a step of `dopri5`, relative to the code."""
    atol: Annotated[float, Bounds(1e-12, 1)] = 1e-5
    """Error allowed in a step of `dopri5`, absolute, in (standardised) code units."""


@dataclass(frozen=True)
class FlowConfig:
    """Conditional flow matching (arXiv 2210.02747; for weights arXiv 2601.05052)."""

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
    """Distribution of training times; `beta` is Beta(2, 5)."""
    prediction: Literal["velocity", "target"] = "velocity"
    """What the network says: the velocity, or the code that a point moves to."""
    pairing: Literal["independent", "optimal_transport"] = "independent"
    """How source and code are paired: as drawn, or at the least squared distance in a batch."""
    kind: Literal["flow"] = "flow"
    """The density."""


@dataclass(frozen=True)
class GaussianConfig:
    """A multivariate Gaussian: the null that every generator must beat."""

    covariance: Literal["full", "diagonal"] = "full"
    """`full` has the rank of the training codes; `diagonal` treats each number alone."""
    shrinkage: Fraction = 0.0
    """Weight of the mean variance times the identity in the covariance."""
    kind: Literal["gaussian"] = "gaussian"
    """The density."""


@dataclass(frozen=True)
class KdeConfig:
    """Training codes, the anchors, plus noise: how SANE draws (arXiv 2406.09997, table 3)."""

    mode: Literal["token", "joint", "individual", "gaussian"] = "token"
    """What of a drawn code comes from one anchor: each token, the whole code, each number; or
    `gaussian`: no anchor at all, each number is `mean` plus noise of deviation `sigma`."""
    bandwidth: Positive = 0.2
    """Standard deviation of the noise around an anchor; published: 0.2."""
    relative: bool = False
    """Count `bandwidth` in each number's deviation over the anchors; as published it is absolute,
    in the codes' own units."""
    anchors: Count | None = None
    """How many training codes are anchors, drawn by the seed; default: all."""
    mean: float = 0.0
    """Of `gaussian`."""
    sigma: Positive = 10.0
    """Of `gaussian`; published: 10."""
    kind: Literal["kde"] = "kde"
    """The density."""

    def __post_init__(self):
        if self.mode != "gaussian" and (self.mean, self.sigma) != (0.0, 10.0):
            raise ValueError(
                f"mean = {self.mean:g}, sigma = {self.sigma:g}: these are of mode = 'gaussian', "
                f"not of {self.mode!r}, whose noise is `bandwidth`: leave them out"
            )
        if self.mode == "gaussian" and (self.anchors is not None or self.relative):
            raise ValueError(
                "mode = 'gaussian' has no anchors: leave out `anchors` and `relative`, or choose "
                "mode token, joint or individual"
            )


DensityConfig = FlowConfig | GaussianConfig | KdeConfig
"""Union of all densities' settings."""
