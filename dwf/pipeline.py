"""The way from a zoo to reports: stages in order, each reading what those before it made.

Any of them may be absent from a pipeline: then the next reads what the one before that made.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from dwf.align.config import AlignConfig
from dwf.checked import Checked
from dwf.errors import NotAZoo
from dwf.evaluation.config import EvaluateConfig
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.plan import missing_zoos
from dwf.measurements.config import MeasureConfig
from dwf.metrics import logger
from dwf.plain import Json
from dwf.predictors.experiment_config import ExperimentConfig
from dwf.run_folder import RunFolder
from dwf.same_settings import refuse_other_settings
from dwf.settings import (
    Count,
    Overlay,
    Parsed,
    Preset,
    Repeated,
    Whole,
    assign,
    build,
    find,
    read_yaml,
)
from dwf.transfer.config import FinetuneConfig
from dwf.trust import code_in, refuse_stranger
from dwf.zoo.config import ZooConfig
from dwf.zoo.family_config import class_of, zoos_in


@dataclass(frozen=True)
class Stage:
    """One stage of the way."""

    config: type
    """Class of its settings."""
    call: str
    """`"module:function"` of what runs it: `function(config, root, name=)`."""
    reads: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Setting that names what it reads -> stages that make such, the one preferred first."""
    reads_all: dict[str, str] = field(default_factory=dict)
    """Setting that names several things to read -> the stage that makes them."""
    summary: str | None = None
    """`"module:function"` of its rows in a summary of several pipelines: `function(root, name)`
    yields each as column -> value, none of what is not finished. Default: it has no rows."""
    submits: bool = False
    """Whether its script takes the flags of a cluster, as `--nodes`, for units of work."""

    @property
    def run(self) -> Callable[..., object]:
        """The function that runs it; its module is imported on first use."""
        return find({"call": self.call}, "call")

    def rows(self, root: Path, name: str) -> Iterator[dict[str, Json]]:
        """Yield the rows that a summary has of what it made.

        Args:
            root: folder that holds zoos/, runs/ and reports/.
            name: of what it made.
        """
        if self.summary:
            yield from find({"rows": self.summary}, "rows")(root, name)


STAGES = {
    "zoo": Stage(ZooConfig, "dwf.zoo.stage:train_zoo", submits=True),
    "align": Stage(AlignConfig, "dwf.align.stage:align_zoo", reads={"zoo": ("zoo",)}),
    "generator": Stage(
        GeneratorConfig, "dwf.generators.stage:fit_generator", reads={"zoo": ("align", "zoo")}
    ),
    "sample": Stage(
        SampleConfig,
        "dwf.generators.sample_stage:sample_networks",
        reads={"generator": ("generator",)},
    ),
    "evaluate": Stage(
        EvaluateConfig,
        "dwf.evaluation.stage:evaluate",
        reads={"zoo": ("align", "zoo")},
        reads_all={"samples": "sample"},
        summary="dwf.evaluation.summary:rows",
    ),
    "measure": Stage(
        MeasureConfig,
        "dwf.measurements.stage:measure_zoo",
        reads={"zoo": ("align", "zoo")},
        submits=True,
    ),
    "finetune": Stage(
        FinetuneConfig,
        "dwf.transfer.stage:finetune",
        reads={"zoo": ("align", "zoo")},
        reads_all={"samples": "sample"},
        submits=True,
    ),
    "predictor": Stage(
        ExperimentConfig,
        "dwf.predictors.stage:fit_predictors",
        reads={"zoos": ("align", "zoo")},
        summary="dwf.predictors.summary:rows",
        submits=True,
    ),
}
"""Every stage, in order; one that joins is a line here, and a field of `PipelineConfig`."""


def links(stage: str, made: Mapping[str, Sequence[str]]) -> dict[str, str | tuple[str, ...]]:
    """Return the settings that tell a stage what to read.

    Args:
        stage: one of `STAGES`.
        made: stage -> names of what it has made so far, the newest last.
    """
    linked: dict[str, str | tuple[str, ...]] = {}
    for setting, makers in STAGES[stage].reads.items():
        linked[setting] = next(made[maker][-1] for maker in makers if made.get(maker))
    for setting, maker in STAGES[stage].reads_all.items():
        linked[setting] = tuple(made.get(maker, ()))
    return linked


@dataclass(frozen=True)
class PipelineConfig(Checked):
    """Settings file of each stage, in order; a stage without one is left out."""

    zoo: Annotated[str, Preset("zoo")] | None = None
    """Zoo to train; without one the zoo that is called as the pipeline is there already."""
    align: Annotated[str, Preset("align")] | None = None
    """Alignment of the zoo; without one generators learn from the zoo in its own frame."""
    generators: tuple[Annotated[str, Preset("generator")], ...] = ()
    """Generators to fit, told apart by their files' names."""
    sample: Annotated[str, Preset("sample")] | None = None
    """Drawing of networks from each generator."""
    evaluate: Annotated[str, Preset("evaluate")] | None = None
    """Report on the samples of all generators."""
    measure: Annotated[str, Preset("measure")] | None = None
    """Measures of the zoo's networks."""
    finetune: Annotated[str, Preset("finetune")] | None = None
    """Fine-tuning of the zoo's networks and the samples of all generators."""
    predictor: Annotated[str, Preset("predictor")] | None = None
    """Predictors of the zoo's properties, as NAME-predictors."""
    seed: Whole | None = None
    """Seed of every stage in place of its own."""
    seeds: Count = 1
    """Seeds that each generator is fitted and drawn from under, if more than 1: `seed` (or 0) plus
    1, 2, ... in place of its own, as NAME-s1, NAME-s2, ..., with mean and spread in the report."""
    set: Annotated[tuple[str, ...], Repeated()] = ()
    """Settings of stages in place of their files': `STAGE.SETTING=VALUE`; of one generator
    `generator[NAME].SETTING=VALUE`."""

    def __post_init__(self):
        stages = (self.zoo, self.align, self.generators, self.evaluate, self.measure)
        if not any((*stages, self.finetune, self.predictor)):
            raise ValueError(
                "it names no stage: give a settings file to zoo, align, ... or predictor"
            )
        if self.sample and not self.generators:
            raise ValueError(f"sample = {self.sample!r} has nothing to draw from: add generators")


@dataclass(frozen=True)
class Command:
    """One command of a pipeline: `dwf STAGE FLAGS`."""

    stage: str
    file: str
    """Its settings file."""
    name: str
    """Name of what it makes."""
    links: dict[str, str | tuple[str, ...]]
    """Settings that name what it reads."""
    seed: int | None = None
    """Seed in place of its own."""
    given: tuple[str, ...] = ()
    """Words of settings that the pipeline gives in place of its file's."""

    @property
    def flags(self) -> list[str]:
        """Words of its command line."""
        words = ["--config", self.file, "--name", self.name]
        for setting, value in self.links.items():
            values = [value] if isinstance(value, str) else value
            words += [f"--{setting}", *values] if values else []
        words += [] if self.seed is None else ["--seed", str(self.seed)]
        return [*words, *self.given]


def begin(parsed: Parsed[PipelineConfig]) -> None:
    """Open the records of a pipeline; of a dry run, only say which zoos are missing.

    Raises:
        NotAZoo: a generator learns from a zoo that is neither there nor made.
        ConfigError: settings that a folder names, not the user, name code that is not trusted.
        RunConflict: the folder holds a pipeline of other settings.
    """
    config, launch, name = parsed.config, parsed.launch, parsed.name
    if launch.resume and config.zoo:
        for target in code_in(zoos_in(read_yaml(config.zoo, "zoo"), source=config.zoo)):
            refuse_stranger(target, f"{config.zoo}: network.target")
    if launch.resume and config.measure:
        for target in code_in(
            build(
                MeasureConfig,
                {"zoo": name} | read_yaml(config.measure, "measure"),
                source=config.measure,
            )
        ):
            refuse_stranger(target, f"{config.measure}: measures")
    zoos, made = launch.root / "zoos", (name, f"{name}-aligned")
    missing = [said for file in config.generators for said in missing_zoos(file, zoos, made=made)]
    if missing and not launch.dry_run:
        raise NotAZoo("\n".join(missing))
    for said in missing:
        print(said)
    folder = launch.root / "pipelines" / name
    if launch.dry_run:
        return
    if (folder / "config.yaml").exists() and not os.access(folder, os.W_OK):
        refuse_other_settings(folder, config)  # another user's: its stages tell what is finished
        logger.info("%s cannot be written: its records stay as they are", folder)
    else:
        RunFolder(folder, config)


def commands(config: PipelineConfig, name: str) -> Iterator[Command]:
    """Yield the commands of a pipeline in order, each told what those before it make.

    Args:
        config: its settings.
        name: of the pipeline, of its zoo, and of its report.
    """
    made, given = {"zoo": [name]}, _given(config, name)
    for stage, file, own, seed in _named(config, name):
        words = tuple(given.get((stage, file), ()))
        yield Command(stage, file, name=own, links=links(stage, made), seed=seed, given=words)
        made.setdefault(stage, []).append(own)


def _given(config: PipelineConfig, name: str) -> dict[tuple[str, str], list[str]]:
    """Return (stage, its settings file) -> words of the settings that the pipeline gives it."""
    if not config.set:
        return {}
    stages: dict[str, dict[str, Overlay]] = {}
    for stage, file, _, _ in _named(config, name):
        data = read_yaml(file, stage)
        cls = class_of(data) if stage == "zoo" else STAGES[stage].config
        stages.setdefault(stage, {})[file] = Overlay(cls, data)
    filled = {stage: (*STAGES[stage].reads, *STAGES[stage].reads_all) for stage in STAGES}
    put = assign(config.set, stages, filled=filled)
    return {at: [f"--{f.name}={f.words[0]}" for f in flags] for at, flags in put.items()}


def _named(config: PipelineConfig, name: str) -> Iterator[tuple[str, str, str, int | None]]:
    """Yield (stage, its settings file, name of what it makes, seed in place of its own)."""
    seed = config.seed
    if config.zoo:
        yield "zoo", config.zoo, name, seed
    if config.align:
        yield "align", config.align, f"{name}-aligned", seed
    for file in config.generators:
        run = name if Path(file).stem == name else f"{name}-{Path(file).stem}"
        for own, seed_of_own in _seeded(config, run):
            yield "generator", file, own, seed_of_own
            if config.sample:
                yield "sample", config.sample, f"{own}-samples", seed_of_own
    if config.evaluate:
        yield "evaluate", config.evaluate, name, seed
    if config.measure:
        yield "measure", config.measure, name, seed
    if config.finetune:
        yield "finetune", config.finetune, name, seed
    if config.predictor:
        yield "predictor", config.predictor, f"{name}-predictors", seed


def _seeded(config: PipelineConfig, run: str) -> Iterator[tuple[str, int | None]]:
    """Yield (name, seed) of a generator under each of its seeds."""
    if config.seeds == 1:
        yield run, config.seed
        return
    for seed in range(1, config.seeds + 1):
        yield f"{run}-s{seed}", (config.seed or 0) + seed
