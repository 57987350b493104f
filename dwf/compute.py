"""Settings of the machine: where something is computed, in which arithmetic, how often it is saved.

No torch is imported here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from dwf.checked import Checked
from dwf.settings import NonNegative


@dataclass(frozen=True)
class ComputeConfig(Checked):
    """Settings of the machine, which are no part of the science.

    A setting belongs here if another value of it makes the same thing, up to rounding, in another
    time or another memory: then who has another machine sets it anew. What also says what is made
    (a batch size, a seed) does not. A package adds what it alone has in a subclass, and gives its
    own defaults there.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device that computes; `auto`: a GPU where there is one."""
    precision: Literal["float32", "bf16"] = "float32"
    """Precision of the arithmetic; weights are float32 in any case."""
    compile: bool = False
    """Use of `torch.compile`, which first takes 10 s or more: for long trainings."""
    save_seconds: NonNegative = 300.0
    """Seconds between two saves of what is in work."""


@dataclass(frozen=True)
class Gpus:
    """GPUs of the machines that work is planned for."""

    per_node: int
    memory_gb: float | None = None
    """Memory of one; None: not known."""


def device_of_all(devices: Iterable[str]) -> str:
    """Return the device of work of several parts: `cuda` if a part needs it, `auto` if one may."""
    return max(devices, key=("cpu", "auto", "cuda").index, default="cpu")
