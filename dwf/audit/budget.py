"""A budget in minutes as steps of training: what trains is timed for some seconds, once.

The steps are recorded, so that what is made afterwards does not depend on the load of the machine.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dwf.audit.config import StepsConfig
from dwf.errors import ConfigError
from dwf.generators.config import GeneratorConfig
from dwf.generators.plan import parts_that_train
from dwf.metrics import read_metrics
from dwf.training.config import LoopConfig

METRICS = {"codec": Path("codec", "metrics.jsonl"), "density": Path("metrics.jsonl")}
_FIRST_STEPS = 4
_SECONDS = 2.0
"""Time that the second look at a part takes: long enough to be told from chance."""


@dataclass(frozen=True)
class Budget:
    """Steps that a row trains for, and how they were decided."""

    steps: dict[str, int]
    """Part (`codec`, `density`) -> steps of training."""
    seconds: dict[str, float]
    """Part -> seconds of a step, as measured; empty where the steps were given."""


def decide(config: GeneratorConfig, root: Path, *, minutes: float, given: StepsConfig) -> Budget:
    """Return how long a generator's parts train: all in the same proportion to their own steps.

    Args:
        config: the generator's settings; its steps are the most.
        root: folder that holds `zoos/`, its own among them.
        minutes: of training.
        given: steps that are not to be found out.

    Raises:
        ConfigError: steps are given of a part that does not train, or of one of two alone.
    """
    own = {part: loop.steps for part, loop in parts_that_train(config).items()}
    told = {part: steps for part, steps in vars(given).items() if steps is not None}
    if told:
        if told.keys() != own.keys():
            raise ConfigError(
                f"steps = {told}: what trains of this generator is {', '.join(own) or 'nothing'}: "
                "give the steps of each, or of none"
            )
        return Budget(told, seconds={})
    seconds = seconds_of_steps(config, root) if own else {}
    return Budget(steps_within(own, seconds, minutes=minutes), seconds=seconds)


def steps_within(
    steps: Mapping[str, int], seconds: Mapping[str, float], *, minutes: float
) -> dict[str, int]:
    """Return the steps that fit a budget, at most those that are asked for; one at least.

    Args:
        steps: part -> steps that are asked for.
        seconds: part -> seconds of a step.
        minutes: the budget of all parts together.
    """
    whole = sum(count * seconds[part] for part, count in steps.items())
    share = min(1.0, 60 * minutes / whole) if whole else 1.0
    return {part: max(1, int(share * count)) for part, count in steps.items()}


def with_steps(config: GeneratorConfig, steps: Mapping[str, int]) -> GeneratorConfig:
    """Return a generator's settings with other steps; schedules run their whole course in them.

    Args:
        config: the settings.
        steps: part -> steps, of each part that trains.
    """
    codec, density = config.codec, config.density
    if "codec" in steps:
        codec = codec.with_steps(steps["codec"])
    if "density" in steps:
        density = replace(density, training=density.training.with_steps(steps["density"]))
    return replace(config, codec=codec, density=density)


def seconds_of_steps(config: GeneratorConfig, root: Path) -> dict[str, float]:
    """Return how long a training step of each part takes here and now, in seconds.

    Args:
        config: the generator's settings.
        root: folder that holds `zoos/`.
    """
    own = {part: loop.steps for part, loop in parts_that_train(config).items()}
    found = _timed(config, root, {part: min(_FIRST_STEPS, most) for part, most in own.items()})
    longer = {
        part: max(2, min(most, 2 * int(_SECONDS / 2 / found[part]))) for part, most in own.items()
    }
    if all(longer[part] <= _FIRST_STEPS for part in own):
        return found
    return _timed(config, root, longer)


def _timed(config: GeneratorConfig, root: Path, steps: Mapping[str, int]) -> dict[str, float]:
    """Fit it for a few steps elsewhere; of the second half of each part's the rate counts."""
    from dwf.generators.stage import fit_generator

    brief = with_steps(replace(config, likelihood=0, gate=None), steps)
    codec, density = (
        part if part.training is None else replace(part, training=_half_way(part.training))
        for part in (brief.codec, brief.density)
    )
    with tempfile.TemporaryDirectory(prefix="dwf-timing-") as folder:
        scratch = Path(folder)
        (scratch / "zoos").symlink_to((Path(root) / "zoos").absolute())
        fit_generator(replace(brief, codec=codec, density=density), scratch, name="timing")
        lines = {part: read_metrics(scratch / "runs" / "timing" / METRICS[part]) for part in steps}
    return {part: 1 / found[-1]["steps/s"] for part, found in lines.items()}


def _half_way(loop: LoopConfig) -> LoopConfig:
    """Return a loop that looks at its rate half way and at its end, and at nothing else."""
    return replace(
        loop,
        validate_every=-(-loop.steps // 2),
        sample_every=0,
        sample_count=LoopConfig.sample_count,
        keep="last",
    )
