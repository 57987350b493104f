"""Settings of how samples are drawn where the network is evaluated several times for each."""

from dataclasses import dataclass
from typing import Annotated, Literal

from dwf.checked import Checked
from dwf.settings import Bounds, Count, Fraction

OdeMethod = Literal["euler", "midpoint", "heun2", "rk4", "dopri5"]
DiffusionMethod = Literal["ddpm", "ddim", "dpm_solver"]
SamplingMethod = Literal[OdeMethod, DiffusionMethod]
"""Methods by which samples may be asked for, of all densities."""


class SolverSettings(Checked):
    """Base of the settings of how samples are drawn, where that takes several evaluations."""

    method: str
    """Way they are drawn."""
    steps: Count
    """Steps, where it does not choose them itself."""

    @property
    def is_adaptive(self) -> bool:
        """Whether it chooses its own steps."""
        return False

    @property
    def evaluations(self) -> int | None:
        """Evaluations of the network for a sample; None where the solver chooses its steps."""
        return self.steps


@dataclass(frozen=True)
class SolverConfig(SolverSettings):
    """How the flow's differential equation is solved."""

    method: OdeMethod = "dopri5"
    """torchdiffeq's solver; `dopri5` chooses its own steps."""
    steps: Count = 50
    """Equal intervals of time, for all but `dopri5`."""
    rtol: Annotated[float, Bounds(1e-9, 1)] = 1e-4
    """Error allowed in a step of `dopri5`, relative to the code."""
    atol: Annotated[float, Bounds(1e-12, 1)] = 1e-5
    """Error allowed in a step of `dopri5`, absolute, in (standardised) code units."""

    @property
    def is_adaptive(self) -> bool:
        """Whether it chooses its own steps."""
        return self.method == "dopri5"

    @property
    def evaluations(self) -> int | None:
        """Evaluations of the network for a sample; None where the solver chooses its steps."""
        of_a_step = {"euler": 1, "midpoint": 2, "heun2": 2, "rk4": 4}
        return None if self.is_adaptive else of_a_step[self.method] * self.steps


@dataclass(frozen=True)
class DiffusionSolverConfig(SolverSettings):
    """How a diffusion's noise is taken away, by diffusers' schedulers."""

    method: DiffusionMethod = "ddim"
    """`ddpm` (arXiv 2006.11239) draws each step anew; `ddim` (arXiv 2010.02502) follows one path
    but for `eta`; `dpm_solver`: DPM-Solver++ of order 2 (arXiv 2211.01095), for few steps."""
    steps: Count = 50
    """Steps, each an evaluation of the network; at most those of the diffusion, among which they
    are chosen by `spacing`."""
    spacing: Literal["equal", "quadratic"] = "equal"
    """Distances between the steps: all alike, or closer where little noise is left."""
    eta: Fraction = 0.0
    """Share of `ddpm`'s noise in a step of `ddim`; of no other method."""
