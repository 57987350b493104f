"""The plan of a sweep: each trial's stages, named by what they are and what they read.

Two trials that agree in a stage's settings and in all that it reads agree in its name, so that the
stage is run once. Nothing here reads a zoo or imports torch.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dwf.align.config import AlignConfig
from dwf.errors import ConfigError
from dwf.evaluation.config import EvaluateConfig
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.settings import to_dict
from dwf.sweeps.config import SweepConfig
from dwf.sweeps.space import (
    Bases,
    Point,
    build_stage,
    extreme_points,
    listed_points,
    settings_of,
)
from dwf.zoo.config import ZooConfig

BATCH_STAGES = ("zoo", "aligned", "codec", "generator", "samples")


@dataclass(frozen=True)
class Trial:
    """The stages of one trial; each is linked to the one before by its name."""

    number: int
    point: Point
    zoo: ZooConfig
    align: AlignConfig | None
    generator: GeneratorConfig
    sample: SampleConfig
    report: EvaluateConfig
    """Of the report on test images, without its samples: trials that share it share a report."""

    @property
    def zoo_name(self) -> str:
        """The zoo that is trained."""
        return name_of("zoo", self.zoo)

    @property
    def frame(self) -> str:
        """The zoo that the generator learns from: aligned, or as it was trained."""
        return self.generator.zoo

    @property
    def codec_name(self) -> str:
        """The run that holds the fitted codec."""
        return name_of("codec", self.codec_settings)

    @property
    def codec_settings(self) -> dict[str, Any]:
        """All that the fitted codec depends on, plain data."""
        one = self.generator
        seed = one.seed if hasattr(one.codec, "training") else 0  # others draw nothing
        settings = {"zoo": self.frame, "codec": one.codec, "epochs": one.epochs, "seed": seed}
        return to_dict(settings | {"codec_zoos": one.codec_zoos})

    @property
    def generator_name(self) -> str:
        """The generator's run."""
        return self.sample.generator

    @property
    def samples_name(self) -> str:
        """The zoo of samples."""
        return name_of("samples", self.sample)

    @property
    def names(self) -> dict[str, str]:
        """What each stage writes."""
        aligned = {"aligned": self.frame} if self.align else {}
        return (
            {"zoo": self.zoo_name}
            | aligned
            | {
                "codec": self.codec_name,
                "generator": self.generator_name,
                "samples": self.samples_name,
            }
        )


def name_of(prefix: str, settings: Any) -> str:
    """Return `prefix` and a digest of settings, among which is the name of what they read."""
    text = json.dumps(to_dict(settings), sort_keys=True)
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def plan_trial(bases: Bases, number: int, point: Point) -> Trial:
    """Return a trial's stages.

    Raises:
        ConfigError: a setting is unknown, or not in its range.
    """
    zoo = build_stage("zoo", settings_of(bases, "zoo", point) or {})
    frame = name_of("zoo", zoo)
    aligning, align = settings_of(bases, "align", point), None
    if aligning is not None:
        align = build_stage("align", aligning, zoo=frame)
        frame = name_of("aligned", align)
    generator = build_stage("generator", settings_of(bases, "generator", point) or {}, zoo=frame)
    linked = {"generator": name_of("generator", generator)}
    sample = build_stage("sample", settings_of(bases, "sample", point) or {}, **linked)
    linked = {"zoo": frame, "samples": [], "split": "test"}
    report = build_stage("evaluate", settings_of(bases, "evaluate", point) or {}, **linked)
    return Trial(number, point, zoo, align, generator, sample, report)


def plan_trials(config: SweepConfig, bases: Bases) -> list[Trial]:
    """Return the trials of `grid` and `random`; of `optuna`, trials at the ends of the space.

    Raises:
        ConfigError: a setting is unknown, or a value not in its range; or a generator has nothing
            that ASHA could watch.
    """
    points = extreme_points(config) if config.search == "optuna" else listed_points(config)
    trials = [plan_trial(bases, number, point) for number, point in enumerate(points)]
    if config.scheduler == "asha":
        most_steps(config, trials)
    return trials


def most_steps(config: SweepConfig, trials: list[Trial]) -> int:
    """Return how long the longest generator trains.

    Raises:
        ConfigError: one does not train, or ASHA would never look at any.
    """
    steps = []
    for trial in trials:
        loop = getattr(trial.generator.density, "training", None)
        if loop is None:
            raise ConfigError(
                f"scheduler = 'asha': the density {trial.generator.density.kind} does not train "
                "in steps: set scheduler to none"
            )
        steps.append(loop.steps)
    if config.asha.grace >= max(steps):
        raise ConfigError(
            f"asha.grace = {config.asha.grace}: no generator trains longer than {max(steps)} "
            "steps: lower grace, or set scheduler to none"
        )
    return max(steps)


def count_stages(trials: list[Trial]) -> dict[str, int]:
    """Return how many different results of each stage the trials need."""
    return {
        stage: len({trial.names[stage] for trial in trials if stage in trial.names})
        for stage in BATCH_STAGES
    }


def describe_plan(config: SweepConfig, bases: Bases, folder: Path) -> str:
    """Return in words what would run: trials or the space, and what they share."""
    trials = plan_trials(config, bases)
    count = config.trials if config.search == "optuna" else len(trials)
    judged = f"judged by {config.metric} on validation images"
    lines = [f"{count} trials by {config.search} search in {folder}, {judged}"]
    if config.search == "optuna":
        lines += [
            f"  {key}: {axis.kind} {', '.join(map(str, axis.values))}"
            for key, axis in config.space.items()
        ]
        return "\n".join(lines)
    counts = count_stages(trials)
    shared = ", ".join(f"{counts[stage]} x {stage}" for stage in BATCH_STAGES if counts[stage])
    lines.append(f"shared where they agree: {shared}")
    for trial in trials:
        point = ", ".join(f"{key} = {value}" for key, value in trial.point.items())
        lines.append(f"  trial {trial.number}: {point}")
    return "\n".join(lines)


def report_config(trials: list[Trial]) -> EvaluateConfig:
    """Return the settings of the report on test images of trials that share one."""
    samples = dict.fromkeys(trial.samples_name for trial in trials)
    return replace(trials[0].report, samples=tuple(samples))
