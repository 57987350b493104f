"""Settings of an evaluation."""

from dataclasses import dataclass
from typing import Annotated, Literal

from dwf.settings import Bounds, Count, Positive, Whole


@dataclass(frozen=True)
class EvaluateConfig:
    """Sample zoos held against the zoo that their generators learnt from."""

    zoo: str
    """Zoo that the generators learnt from, in their frame (the aligned one)."""
    samples: tuple[str, ...] = ()
    """Zoos of generated networks, in the same frame."""
    split: Literal["test", "val"] = "test"
    """Held-out networks and images that are scored: `test` for reports; `val` for choices between
    settings, which then see nothing of the test networks and test images."""
    noise: tuple[Positive, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    """Baselines: noise around a training network, in standard deviations of each weight."""
    averages: tuple[Count | Literal["all"], ...] = (2, 4, 16, "all")
    """Baselines: averages of k random training networks; `all` is one network."""
    count: Annotated[int, Bounds(2)] = 100
    """Networks drawn for each baseline."""
    seed: Whole = 0
    """Seed of the baselines."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; `auto` takes a GPU if there is one."""
