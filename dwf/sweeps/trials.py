"""The trials of a sweep: the stages of each, named by what they are and what they read.

Two trials that agree in a stage's settings and in all that it reads agree in its name, so that the
stage is run once. Nothing here reads a zoo or imports torch.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Collection, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path

from dwf.align.config import AlignConfig
from dwf.errors import ConfigError
from dwf.evaluation.config import EvaluateConfig
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.pipeline import links
from dwf.plain import Json, Settings
from dwf.settings import to_dict
from dwf.sweeps.config import SweepConfig
from dwf.sweeps.estimate import (
    fit_seconds,
    in_hours,
    learnt_networks,
    sample_seconds,
    training_networks,
    zoo_seconds,
)
from dwf.sweeps.space import (
    Bases,
    Point,
    as_text,
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
    """Settings of the test report, without its samples: trials that share them share a report."""

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
        return codec_name(self.generator)

    @property
    def generator_name(self) -> str:
        """The generator's run."""
        return self.sample.generator

    @property
    def samples_name(self) -> str:
        """The zoo of samples."""
        return name_of("samples", self.sample)

    @property
    def stages(self) -> Iterator[tuple[str, Settings, str]]:
        """Yield (stage, its settings, name of what it makes) in order; the codec is one, too."""
        yield "zoo", self.zoo, self.zoo_name
        if self.align is not None:
            yield "align", self.align, self.frame
        yield "codec", self.generator, self.codec_name
        yield "generator", self.generator, self.generator_name
        yield "sample", self.sample, self.samples_name

    @property
    def names(self) -> dict[str, str]:
        """Names of what each stage writes."""
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


def codec_settings(generator: GeneratorConfig) -> dict[str, Json]:
    """Return all that a generator's fitted codec depends on, plain data; see `name_of`."""
    seed = generator.seed if generator.codec.training is not None else 0  # others draw nothing
    settings = {"zoo": generator.zoo, "codec": generator.codec, "epochs": generator.epochs}
    given = {"networks": generator.networks, "rows": generator.rows}
    settings |= {name: count for name, count in given.items() if count is not None}
    if generator.networks_by == "random":
        settings["networks_drawn_by"] = generator.seed
    return _chosen(settings | {"seed": seed})


def codec_name(generator: GeneratorConfig) -> str:
    """Return the name of the run that holds a generator's fitted codec."""
    return name_of("codec", codec_settings(generator))


def name_of(prefix: str, settings: Settings | dict[str, Json]) -> str:
    """Return `prefix` and a digest of settings, among which is the name of what they read.

    Settings at their defaults are left out: so a sweep that was begun before dwf had a setting
    goes on under the same names.
    """
    text = json.dumps(_chosen(settings), sort_keys=True)
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _chosen(settings: object) -> Json:
    """Return settings as plain data, without those at their defaults; `kind` is always told."""
    if isinstance(settings, dict):
        return {key: _chosen(value) for key, value in settings.items()}
    if not is_dataclass(settings):
        return to_dict(settings)
    chosen = {}
    for one in fields(settings):
        value = getattr(settings, one.name)
        default = one.default if one.default_factory is MISSING else one.default_factory()
        if one.name == "kind" or value != default:
            chosen[one.name] = _chosen(value)
    return chosen


def make_trial(bases: Bases, number: int, *, point: Point) -> Trial:
    """Return a trial's stages.

    Raises:
        ConfigError: a setting is unknown, or not in its range.
    """

    def built(stage: str, **fixed: str) -> Settings:
        data = settings_of(bases, stage, point=point) or {}
        return build_stage(stage, data, point=point, **links(stage, made), **fixed)

    made: dict[str, list[str]] = {}
    zoo, align = built("zoo"), None
    made["zoo"] = [name_of("zoo", zoo)]
    if settings_of(bases, "align", point=point) is not None:
        align = built("align")
        made["align"] = [name_of("aligned", align)]
    generator = built("generator")
    _refuse_other_zoos(generator)
    made["generator"] = [name_of("generator", generator)]
    sample, report = built("sample"), built("evaluate", split="test")
    return Trial(
        number, point, zoo=zoo, align=align, generator=generator, sample=sample, report=report
    )


def list_trials(
    config: SweepConfig, bases: Bases, *, begun: dict[int, Point] | None = None
) -> list[Trial]:
    """Return the trials of `grid` and `random`; of `optuna`, trials at the ends of the space.

    Args:
        config: the sweep.
        bases: its stages' settings.
        begun: number -> point of trials that were begun; a listed point among them keeps its
            number, the others have those that are free.

    Raises:
        ConfigError: a setting is unknown, or a value not in its range; or a generator's batch, or
            the networks that it is to learn from, are more than its zoo has, or it has nothing that
            ASHA could watch.
    """
    if config.search == "optuna":
        numbered = dict(enumerate(extreme_points(config)))
    else:
        numbered = _number(listed_points(config), begun or {})
    trials = [make_trial(bases, number, point=point) for number, point in numbered.items()]
    for trial in trials:
        _refuse_few_networks(trial)
        _refuse_large_batch(trial)
    if config.scheduler == "asha":
        most_steps(config, trials)
    return trials


def _number(points: list[Point], begun: dict[int, Point]) -> dict[int, Point]:
    known = {as_text(point): number for number, point in begun.items()}
    free = (number for number in itertools.count() if number not in begun)
    numbered = {}
    for point in points:
        number = known.get(as_text(point))
        numbered[next(free) if number is None else number] = point
    return dict(sorted(numbered.items()))


def _refuse_other_zoos(generator: GeneratorConfig) -> None:
    """A trial's zoo is made by the sweep, which has no others."""
    for name in ("more_zoos", "codec_zoos"):
        if getattr(generator, name):
            raise ConfigError(
                f"generator.{name} = {list(getattr(generator, name))}: a sweep makes one zoo for "
                f"each trial, and has no others to learn from: leave {name} out"
            )


def _refuse_few_networks(trial: Trial) -> None:
    """Refuse a zoo that would have fewer training networks than its generator is to learn from."""
    there, asked = training_networks(trial.zoo), trial.generator.networks
    if asked is not None and asked > there and trial.zoo.count > 1:
        raise ConfigError(
            f"trial {trial.number}: generator.networks = {asked}, and a zoo of {trial.zoo.count} "
            f"networks leaves {there} to learn from: leave one of the two out, or lower networks"
        )


def _refuse_large_batch(trial: Trial) -> None:
    """Refuse a flow that would find fewer networks than a batch holds."""
    zoo, generator = trial.zoo, trial.generator
    loop = generator.density.training
    if loop is None or zoo.count == 1 or zoo.keep is not None:
        return
    rows, key = learnt_networks(zoo, generator), "density.training.batch_size"
    if generator.epochs != "last":
        rows *= len(zoo.epochs_kept if generator.epochs == "all" else generator.epochs)
    rows = math.ceil(generator.best * rows)
    if rows < loop.batch_size:
        raise ConfigError(
            f"trial {trial.number}: a zoo of {zoo.count} networks leaves {rows} rows to learn "
            f"from, fewer than generator.{key} = {loop.batch_size}: leave "
            f"that zoo out, or lower the batch of all trials with `generator.{key}: "
            f"{{grid: [{rows}]}}` in the space"
        )


def most_steps(config: SweepConfig, trials: list[Trial]) -> int:
    """Return how long the longest generator trains.

    Raises:
        ConfigError: one does not train, or ASHA would never look at any.
    """
    steps = []
    for trial in trials:
        loop = trial.generator.density.training
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


def count_stages(trials: list[Trial], made: Collection[str] = ()) -> dict[str, int]:
    """Return how many different results of each stage the trials need, besides those made."""
    return {
        stage: len({trial.names[stage] for trial in trials if stage in trial.names} - set(made))
        for stage in BATCH_STAGES
    }


def describe_plan(
    config: SweepConfig,
    bases: Bases,
    *,
    folder: Path,
    begun: dict[int, Point] | None = None,
    over: Collection[int] = (),
) -> str:
    """Return in words what would run: trials or the space, and what they share.

    Args:
        config: the sweep.
        bases: its stages' settings.
        folder: its folder.
        begun: number -> point of trials that were begun.
        over: numbers of trials that are over.
    """
    trials = list_trials(config, bases, begun=begun)
    count = config.trials if config.search == "optuna" else len(trials)
    numbers = range(count) if config.search == "optuna" else [trial.number for trial in trials]
    done = len(set(numbers) & set(over))
    judged = f"judged by {config.metric} on validation images"
    lines = [f"{count} trials by {config.search} search in {folder}, {judged}"]
    if done:
        to_go = f"{count - done} to go:" if done < count else "none is left"
        lines.append(f"{done} of them are over and kept, {to_go}")
    if done == count:
        return "\n".join(lines)
    if config.search == "optuna":
        lines += [
            f"  {key}: {axis.kind} {', '.join(map(str, axis.values))}"
            for key, axis in config.axes.items()
        ]
        return "\n".join(lines)
    left = [trial for trial in trials if trial.number not in over]
    made = {name for trial in trials if trial.number in over for name in trial.names.values()}
    counts = count_stages(left, made)
    shared = ", ".join(f"{counts[stage]} x {stage}" for stage in BATCH_STAGES if counts[stage])
    lines.append(f"shared where they agree: {shared}")
    lines += _describe_cost(left, made)
    fixed = {k: axis.values[0] for k, axis in config.axes.items() if len(axis.values) == 1}
    if len(trials) > 1 and fixed:
        lines.append(f"in all trials: {_in_words(fixed)}")
    for trial in left:
        own = {k: v for k, v in trial.point.items() if len(trials) == 1 or k not in fixed}
        lines.append(f"  trial {trial.number}: {_in_words(own)}")
    return "\n".join(lines)


def _in_words(point: Point) -> str:
    return ", ".join(f"{key} = {value}" for key, value in point.items())


def _describe_cost(trials: list[Trial], made: Collection[str]) -> list[str]:
    """Return in words what is to be trained and drawn, each result once, and the time of that."""
    zoos = [one.zoo for one in _results_of("zoo", trials, made)]
    fits = _results_of("generator", trials, made)
    draws = _results_of("samples", trials, made)
    loops = [trial.generator.density.training for trial in fits]
    steps = sum(loop.steps for loop in loops if loop)
    parts = {
        "zoos": [zoo_seconds(zoo) for zoo in zoos],
        "generators": [fit_seconds(trial.zoo, trial.generator) for trial in fits],
        "samples": [sample_seconds(one.zoo, one.generator, sample=one.sample) for one in draws],
    }
    hours = sum(seconds or 0.0 for each in parts.values() for seconds in each) / 3600
    to_train = "no zoo"
    if zoos:
        to_train = (
            f"zoos of {', '.join(f'{zoo.count:,}' for zoo in zoos)} networks "
            f"({', '.join(f'{training_networks(zoo):,}' for zoo in zoos)} to learn from)"
        )
    return [
        f"{to_train}; {steps:,} training steps; "
        f"{sum(trial.sample.drawn for trial in draws):,} samples",
        f"estimated at {hours:.2g} core-hours: "
        f"{', '.join(in_hours(name, each) for name, each in parts.items())}; alignment and "
        "reports not counted, a GPU not considered",
    ]


def _results_of(stage: str, trials: list[Trial], made: Collection[str]) -> list[Trial]:
    """One trial for each result of a stage that is not made yet."""
    named = {trial.names[stage]: trial for trial in trials}
    return [trial for name, trial in named.items() if name not in made]


def report_config(trials: list[Trial]) -> EvaluateConfig:
    """Return the settings of the report on test images of trials that share one."""
    samples = dict.fromkeys(trial.samples_name for trial in trials)
    return replace(trials[0].report, samples=tuple(samples))
