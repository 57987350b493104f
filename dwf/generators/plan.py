"""Plan of a generator, in words, before anything is made: sizes, parameters, memory."""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dwf.codecs.config import CODECS
from dwf.compute import Gpus
from dwf.densities.base_config import DensitySettings
from dwf.errors import ConfigError, TooFewNetworks
from dwf.generators.config import GateConfig, GeneratorConfig
from dwf.room import within_memory
from dwf.settings import Parsed, build, find, load, read_yaml
from dwf.shipped import CONFIGS, ROOT
from dwf.training.config import LoopConfig

if TYPE_CHECKING:
    from torch import nn

    from dwf.codecs.codes import CodeShape
    from dwf.zoo.config import ZooConfig
    from dwf.zoo.layout import Layout

WILL_FAIL = "WILL FAIL: "
"""Beginning of a line of a plan on why the work would fail."""
_RANKED = "DWF_RANKED"  # what the job's script says of itself


def parts_that_train(config: GeneratorConfig) -> dict[str, LoopConfig]:
    """Return how codec and density train, by name; without those that do not."""
    parts = {"codec": config.codec.training, "density": config.density.training}
    return {name: training for name, training in parts.items() if training is not None}


def trains_on_ranks(config: GeneratorConfig) -> bool:
    """Whether ranks train a part of it together."""
    return any(training.engine != "plain" for training in parts_that_train(config).values())


def with_engine(parsed: Parsed[GeneratorConfig]) -> Parsed[GeneratorConfig]:
    """Return a command line with `--engine` in the place of the file's engines.

    With `--nodes`, and in a job of `slurm/generator.sh`, each part that trains gets one that ranks
    share where neither file nor flag names one; see `LoopConfig.shared_engine`.

    Raises:
        ConfigError: nothing trains, or not by this engine, or not over several ranks.
    """
    config, launch = parsed.config, parsed.launch
    parts = parts_that_train(config)
    engine, needs_ranks = launch.engine, launch.nodes or _RANKED in os.environ
    asked = f"--nodes {launch.nodes}" if launch.nodes and not engine else f"--engine {engine}"
    if launch.nodes and engine == "plain":
        raise ConfigError(
            f"--nodes {launch.nodes} with --engine plain, which is one process: give --engine "
            "deepspeed or ddp, or leave out --nodes"
        )
    if (launch.nodes or engine not in (None, "plain")) and not parts:
        raise ConfigError(
            f"{asked}: neither the codec {config.codec.kind} nor the density {config.density.kind} "
            "trains, so there is nothing for several ranks to train: leave it out, or choose a "
            "codec (sane) or a density (flow) that does"
        )
    for part, training in parts.items():
        wanted = engine or (training.shared_engine if needs_ranks else training.engine)
        if launch.nodes:
            _refuse_file_from_here(part, training.deepspeed)
        if wanted != training.engine:
            parsed = _with_engine_of(parsed, part, wanted)
    return parsed


def _with_engine_of(
    parsed: Parsed[GeneratorConfig], part: str, engine: str
) -> Parsed[GeneratorConfig]:
    settings = vars(parsed.config)[part]
    try:
        training = dataclasses.replace(settings.training, engine=engine)
    except ValueError as error:
        raise ConfigError(f"{part}.training.engine = {engine!r}: {error}") from None
    config = dataclasses.replace(
        parsed.config, **{part: dataclasses.replace(settings, training=training)}
    )
    origins = parsed.origins | {f"{part}.training.engine": "flag"}
    return dataclasses.replace(parsed, config=config, origins=origins)


def _refuse_file_from_here(part: str, file: str) -> None:
    """Refuse a file that a job, which starts in dwf's folder, would not find or find another of."""
    here, there = Path(file).absolute(), ROOT / file
    if here.exists() and here.resolve() != there.resolve():
        raise ConfigError(
            f"training.deepspeed = {file!r} is of this folder, in which the job does not start: "
            f"give --{part}.training.deepspeed {here}"
        )


def is_fitted(folder: Path) -> bool:
    """Whether a run folder holds a generator that is fitted to the end."""
    from dwf.generators.generator import Generator

    return (folder / "done.json").exists() and Generator.is_whole(folder)


def describe_sizes(
    config: GeneratorConfig, zoos: Path, *, ranks: int, gpus: Gpus | None
) -> Iterator[str]:
    """Yield what it learns from, what is fitted to that, and what trains the density.

    Raises:
        ConfigError: see `learning.refuse_wrong_zoos`, `refuse_unmixed`, `refuse_no_graphs` and, of
            zoos that are there, `learning_of_density`; or its batch cannot be shared by so many
            ranks.
    """
    from dwf.generators.learning import refuse_no_graphs, refuse_unmixed, refuse_wrong_zoos

    refuse_wrong_zoos(config)
    names = (config.zoo, *config.more_zoos)
    known = {name: layout_of(zoos / name) for name in names}
    unknown = [name for name, layout in known.items() if layout is None]
    num_train = 0
    for name in names:
        if name in unknown:
            yield f"zoo {zoos / name}: not there yet, so no sizes are known"
            continue
        num, num_val, where = _count_rows(dataclasses.replace(config, zoo=name), zoos / name)
        num_train += num
        yield (
            f"{num} training and {num_val} validation networks of {known[name].size:,} weights "
            f"in {where}"
        )
    if not unknown:
        layouts = list({layout.digest: layout for layout in known.values()}.values())
        refuse_unmixed(config, layouts)
        refuse_no_graphs(config, layouts)
        told = _told(config, zoos)
        yield from _describe_density(config, layouts, num_train, told, ranks, gpus)
        yield from _describe_codec(config, zoos)
        yield from _advise_positions(config, layouts[0])
        yield from _advise_frames(config, zoos)
    if all((zoos / name / "zoo.json").exists() for name in names):
        yield from (f"{WILL_FAIL}{problem}" for problem in foreseen(config, num_train))
    density = config.density
    yield from density.describe()
    if density.takes_condition:
        names, share = ", ".join(density.conditions), density.drop_condition
        how = "with or without a condition" if share else "with all conditions, as learnt"
        yield (
            f"conditioned on {names}, left out of {share:.0%} of the training networks: samples "
            f"are drawn {how}"
        )
    if density.takes_metric:
        share = f"{density.behaviour:.0%}"
        yield f"{share} of the loss counts errors by what they change in networks' answers"
    if density.answers is not None:
        yield (
            f"{density.answers.share:.0%} of the loss asks the networks at the end of paths, from "
            f"time {density.answers.after:g} on, about {density.answers.images} training images"
        )
    if config.likelihood:
        yield f"likelihood of up to {config.likelihood} training and as many held-out networks"


def foreseen(config: GeneratorConfig, num_train: int) -> Iterator[str]:
    """Yield in words why a fit to so many training networks would fail, where that is known.

    Args:
        config: the generator's settings.
        num_train: rows that there are to learn from, before `best` takes some of them.
    """
    from dwf.training.task import refuse_few

    codec, training = find(CODECS, config.codec.kind), config.density.training
    try:
        codec.refuse_few(config.codec, num_train)
        if training is not None:
            num_best = math.ceil(config.best * num_train)
            refuse_few(num_best, training.batch_size, key="density.training")
    except TooFewNetworks as error:
        yield str(error)


def describe_gate(gate: GateConfig) -> str:
    """Return in words what a codec that learns must give back, and what becomes of another."""
    refused = (
        "the density is fitted in any case" if gate.anyway else "no density is fitted to another"
    )
    return (
        f"gate: validation networks lose at most {100 * gate.drop:g} points of accuracy by the "
        f"codec and give {100 * gate.same_answers:g} % of their answers as before: {refused}"
    )


def _describe_density(
    config: GeneratorConfig,
    layouts: Sequence["Layout"],
    num_train: int,
    told: tuple[int, ...],
    ranks: int,
    gpus: Gpus | None,
) -> Iterator[str]:
    codec, density = find(CODECS, config.codec.kind), config.density
    shape = codec.planned_shape(config.codec, layouts, num_train=num_train)
    most = "up to " if config.codec.has_open_size else ""
    several = f" for {len(layouts)} architectures" if len(layouts) > 1 else ""
    codes = f"{config.codec.kind} codes of {most}{shape.size:,} numbers{several}"
    yield from _describe_store(density, shape, num_train)
    if density.backbone is None:
        yield f"{codes}, density {density.kind}"
        return
    backbone = _planned_backbone(density, shape, told)
    num = sum(parameter.numel() for parameter in backbone.parameters())
    yield (
        f"{codes}, density {density.kind} with a backbone {density.backbone.kind} of {num:,} "
        "parameters"
    )
    yield f"{density.kind}: {_describe_learning(density, backbone, shape, ranks, gpus)}"


def _describe_store(density: DensitySettings, shape: "CodeShape", num_train: int) -> Iterator[str]:
    """Yield where codes of training networks lie while the density is fitted, if on a disk."""
    from dwf.codecs.codes import MOST_HELD
    from dwf.codecs.stored import FOLDER

    numbers = math.prod(shape.of_code)
    num_bytes = 4 * num_train * numbers
    if num_bytes > MOST_HELD:
        how = "batch by batch" if density.training is not None else "block by block"
        yield (
            f"the training networks' codes, up to {num_bytes / 1e9:.1f} GB, lie in the run's "
            f"folder {FOLDER}/ while the density is fitted, read from there {how}"
        )
        yield from density.describe_stored(num_train, numbers)


def _describe_codec(config: GeneratorConfig, zoos: Path) -> Iterator[str]:
    """Yield what the codec would find in training networks that are there."""
    from dwf.generators.learning import rows_of
    from dwf.zoo.store import Zoo

    names = (config.zoo, *config.more_zoos)
    if not all((zoos / name / "zoo.json").exists() for name in names):
        return
    opened = [Zoo.open(zoos / name) for name in names]
    sources = [(zoo, rows_of(zoo, "train", config=config)) for zoo in opened]
    yield from find(CODECS, config.codec.kind).describe(config.codec, sources)


def _describe_learning(
    density: DensitySettings,
    backbone: "nn.Module",
    shape: "CodeShape",
    ranks: int,
    gpus: Gpus | None,
) -> str:
    """Return in words which ranks train a density; one that is `plain` is fitted by the first."""
    from dwf.densities.needs import Needs
    from dwf.training.forecast import describe_speed, describe_training

    training, settings = density.training, density.backbone
    needs = Needs.of(density, shape, ranks=ranks)
    said = describe_training(backbone, training, gpus=gpus, **vars(needs))
    if training.engine == "plain":
        return said
    return f"{said}\n{describe_speed(settings.multiplications(shape), needs.share)}"


def _planned_backbone(
    density: DensitySettings, shape: "CodeShape", told: tuple[int, ...]
) -> "nn.Module":
    """Return the network that would learn, shapes alone: nothing is allocated."""
    import torch

    with torch.device("meta"):
        return within_memory(
            lambda: density.build_network(shape, told=told),
            density.backbone,
            key="density.backbone",
        )


def _told(config: GeneratorConfig, zoos: Path) -> tuple[int, ...]:
    """Return the numbers of each condition; of zoos that are not there yet, 1 of each."""
    from dwf.densities.conditions import Conditions
    from dwf.generators.learning import learning_of_density, open_more
    from dwf.zoo.store import Zoo

    names = config.density.conditions
    if not all((zoos / name / "zoo.json").exists() for name in (config.zoo, *config.more_zoos)):
        return (1,) * len(names)
    zoo = Zoo.open(zoos / config.zoo)
    learning = learning_of_density(
        dataclasses.replace(config, best=1.0), zoo, more=open_more(config, zoo, zoos=zoos)
    )
    return Conditions.fit(names, learning.conditions[0]).sizes if names else ()


def _advise_positions(config: GeneratorConfig, layout: "Layout") -> Iterator[str]:
    """Yield advice where samples would come out with hidden layers in orders of their own."""
    backbone = config.density.backbone
    if not config.codec.orders_units or backbone is None or not backbone.ignores_order:
        return
    shape = find(CODECS, config.codec.kind).planned_shape(config.codec, [layout], num_train=0)
    layers = sum(count > 1 for count, _ in shape.sections)
    if layers > 1:
        yield (
            f"WARNING: the networks have {layers} hidden layers, and to this transformer the units "
            "of each are a set, though the next layer's weights go by their order: set "
            "density.backbone.positions and density.backbone.last_exchangeable to true"
        )


def _advise_frames(config: GeneratorConfig, zoos: Path) -> Iterator[str]:
    """Yield advice where zoos of one architecture do not lie in one frame."""
    from dwf.zoo.facts import Facts

    names = (config.zoo, *config.more_zoos)
    there = [name for name in names if (zoos / name / "zoo.json").exists()]
    facts = {name: Facts.read(zoos / name) for name in there}
    frames = {name: (each.layout.digest, each.frame) for name, each in facts.items()}
    layouts = {layout for layout, _ in frames.values()}
    if len(set(frames.values())) > len(layouts):
        yield (
            f"WARNING: {', '.join(there)} are of one architecture and in frames of their own, so "
            "that the order of units tells them apart: align the others to the reference of the "
            f"first, with dwf align --reference-zoo ({there[0]} before its alignment)"
        )


def missing_zoos(file: str, zoos: Path, *, made: Sequence[str] = ()) -> list[str]:
    """Return in words which zoos a generator learns from, beside its own, that are not there.

    Args:
        file: its settings.
        zoos: folder of the zoos.
        made: names of zoos that are made before it is fitted.
    """
    config = build(GeneratorConfig, {"zoo": "any"} | read_yaml(file, "generator"), source=file)
    return [
        f"{file} learns from {zoos / name} too, which is not there: {_how_to_make(name)}"
        for name in (*config.more_zoos, *config.codec_zoos)
        if name not in made and not (zoos / name / "zoo.json").exists()
    ]


def _how_to_make(name: str) -> str:
    """Return the commands that make a zoo, as far as its name tells: an aligned one takes two."""
    bare, found = name.removesuffix("-aligned"), _settings_of(name)
    file = found[0].relative_to(ROOT) if found else "FILE"
    made = f"dwf zoo --config {file} --name {bare}"
    if bare == name:
        return made
    return f"{made}, then dwf align --zoo {bare} --name {name}"


def layout_of(path: Path) -> "Layout | None":
    """Return the layout of a zoo, or, where it is not there yet, that of its settings' network."""
    from dwf.networks.functional import build_network
    from dwf.zoo.layout import Layout
    from dwf.zoo.store import Zoo

    if (path / "zoo.json").exists():
        return Zoo.open(path).layout
    found = _settings_of(path.name)
    if found is None:
        return None
    import torch

    with torch.device("meta"):  # shapes alone
        return Layout.of(build_network(found[1].network))


def _settings_of(zoo: str) -> "tuple[Path, ZooConfig] | None":
    """Return the file in configs/zoo/ that one zoo is called after, and what it says."""
    from dwf.zoo.config import ZooConfig
    from dwf.zoo.family_config import class_of

    file = CONFIGS / "zoo" / f"{zoo.removesuffix('-aligned')}.yaml"
    if not file.exists() or class_of(read_yaml(file)) is not ZooConfig:  # a family, of several
        return None
    return file, load(ZooConfig, file)


def _count_rows(config: GeneratorConfig, path: Path) -> tuple[int, int, str]:
    """Return how many training and validation rows there are, and where."""
    from dwf.generators.learning import SPLITS, rows_of
    from dwf.zoo.config import split_sizes
    from dwf.zoo.store import Zoo

    if (path / "zoo.json").exists():
        train, val = (len(rows_of(Zoo.open(path), split, config=config)) for split in SPLITS)
        return train, val, str(path)
    file, zoo = _settings_of(path.name)
    rows = zoo.most_rows if zoo.count == 1 else zoo.count  # of one network its steps are split
    num_train, num_val, _ = split_sizes(rows, zoo.split.val, test=zoo.split.test)
    num_train = min(num_train, config.networks or config.rows or num_train)
    where = f"{path}, which is not there yet: sizes as {file.name} says"
    return num_train, num_val, where


def describe_training(config: GeneratorConfig, zoos: Path, *, ranks: int, gpus: Gpus | None) -> str:
    """Return in words what trains the codec, and what that takes; see `TrainedCodec`."""
    layouts = [layout_of(zoos / name) for name in (config.zoo, *config.codec_zoos)]
    known = [layout for layout in layouts if layout is not None]
    codec = find(CODECS, config.codec.kind)
    return codec.describe_training(config.codec, known, world=ranks, gpus=gpus)
