"""What a generator would be, before anything is made: sizes, parameters, memory."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dwf.codecs.config import CODECS
from dwf.densities.config import DensitySettings
from dwf.errors import ConfigError
from dwf.generators.config import GeneratorConfig
from dwf.settings import Parsed, build, find, load, read_yaml

if TYPE_CHECKING:
    from dwf.codecs.codes import CodeShape
    from dwf.zoo.config import ZooConfig
    from dwf.zoo.layout import Layout

_ENGINE = "codec.training.engine"
_RANKED = "DWF_RANKED"  # what the job's script says of itself
_CONFIGS = Path(__file__).parents[2] / "configs"


def engine_of(config: GeneratorConfig) -> str:
    """Return what trains the codec; `plain` for one that does not train."""
    return "plain" if config.codec.training is None else config.codec.training.engine


def with_engine(parsed: Parsed[GeneratorConfig]) -> Parsed[GeneratorConfig]:
    """Return a command line with `--engine` in the place of the file's `codec.training.engine`.

    With `--nodes`, and in a job of `slurm/train_sane.sh`, it is `deepspeed` where neither names one
    that ranks share. The launch's `engine` is then what was found.

    Raises:
        ConfigError: the codec does not train, or not over several ranks.
    """
    config, launch = parsed.config, parsed.launch
    engine = launch.engine or engine_of(config)
    needs_ranks = launch.nodes or _RANKED in os.environ
    if needs_ranks and launch.engine is None and engine == "plain":
        engine = "deepspeed"
    asked = (
        f"--nodes {launch.nodes}" if launch.nodes and not launch.engine else f"--engine {engine}"
    )
    if launch.nodes and engine == "plain":
        raise ConfigError(
            f"--nodes {launch.nodes} with --engine plain, which is one process: give --engine "
            "deepspeed or ddp, or leave out --nodes"
        )
    if engine != "plain" and config.codec.training is None:
        raise ConfigError(
            f"{asked}: the codec {config.codec.kind} does not train, so there is nothing for "
            "several ranks to train: leave it out, or set codec.kind to sane"
        )
    if launch.nodes:
        _refuse_file_from_here(config.codec.training.deepspeed)
    parsed = dataclasses.replace(parsed, launch=dataclasses.replace(launch, engine=engine))
    if engine == engine_of(config):
        return parsed
    training = dataclasses.replace(config.codec.training, engine=engine)
    codec = dataclasses.replace(config.codec, training=training)
    origins = parsed.origins | {_ENGINE: "flag"}
    return dataclasses.replace(
        parsed, config=dataclasses.replace(config, codec=codec), origins=origins
    )


def _refuse_file_from_here(file: str) -> None:
    """Refuse a file that a job, which starts in dwf's folder, would not find or find another of."""
    here, there = Path(file).absolute(), _CONFIGS.parent / file
    if here.exists() and here.resolve() != there.resolve():
        raise ConfigError(
            f"training.deepspeed = {file!r} is of this folder, in which the job does not start: "
            f"give --codec.training.deepspeed {here}"
        )


def is_fitted(folder: Path) -> bool:
    """Whether a run folder holds a generator that is fitted to the end."""
    from dwf.generators.generator import Generator

    return (folder / "done.json").exists() and Generator.is_whole(folder)


def describe_plan(
    config: GeneratorConfig, root: Path, world: int = 1, gpu_memory_gb: float | None = None
) -> str:
    """Return in words what would be fitted: networks, code size, parameters, memory.

    Where the zoo is not there yet its sizes are those that `configs/zoo/` says.

    Args:
        config: the generator's settings.
        root: folder that holds `zoos/`.
        world: ranks that train the codec, one for each GPU.
        gpu_memory_gb: memory of a GPU, where it is known.

    Raises:
        ConfigError: see `TrainedCodec.describe_training`.
    """
    zoos = Path(root) / "zoos"
    lines = list(_describe_sizes(config, zoos))
    if config.codec.training is not None:
        lines.append(_describe_training(config, zoos, world, gpu_memory_gb))
    return "\n".join(lines)


def _describe_sizes(config: GeneratorConfig, zoos: Path) -> Iterator[str]:
    """Yield what it learns from, and what is fitted to that.

    Raises:
        ConfigError: see `learning.refuse_wrong_zoos` and `learning.refuse_no_graphs`.
    """
    from dwf.generators.learning import refuse_no_graphs, refuse_wrong_zoos

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
        refuse_no_graphs(config, list(known.values()))
        yield _describe_density(config, list(known.values()), num_train)
        yield from _advise_positions(config, next(iter(known.values())))
    density = config.density
    if density.takes_condition:
        yield (
            f"conditioned on {density.condition}, left out of {density.drop_condition:.0%} of the "
            "training networks: samples are drawn with or without a condition"
        )
    if density.takes_metric:
        share = f"{density.behaviour:.0%}"
        yield f"{share} of the loss counts errors by what they change in networks' answers"
    if config.likelihood:
        yield f"likelihood of up to {config.likelihood} training and as many held-out networks"


def _describe_density(config: GeneratorConfig, layouts: Sequence["Layout"], num_train: int) -> str:
    codec = find(CODECS, config.codec.kind)
    shape = codec.planned_shape(config.codec, layouts, num_train)
    most = "up to " if config.codec.has_open_size else ""
    several = f" for {len(layouts)} architectures" if len(layouts) > 1 else ""
    return (
        f"{config.codec.kind} codes of {most}{shape.size:,} numbers{several}, density "
        f"{config.density.kind}{_describe_backbone(config.density, shape)}"
    )


def _advise_positions(config: GeneratorConfig, layout: "Layout") -> Iterator[str]:
    """Yield advice where samples would come out with hidden layers in orders of their own."""
    backbone = config.density.backbone
    if not config.codec.orders_units or backbone is None or not backbone.ignores_order:
        return
    shape = find(CODECS, config.codec.kind).planned_shape(config.codec, [layout], 0)
    layers = sum(count > 1 for count, _ in shape.groups)
    if layers > 1:
        yield (
            f"WARNING: the networks have {layers} hidden layers, and to this transformer the units "
            "of each are a set, though the next layer's weights go by their order: set "
            "density.backbone.positions and density.backbone.last_exchangeable to true"
        )


def missing_zoos(file: str, zoos: Path, made: Sequence[str] = ()) -> list[str]:
    """Return in words which zoos a generator learns from, beside its own, that are not there.

    Args:
        file: its settings.
        zoos: folder of the zoos.
        made: names of zoos that are made before it is fitted.
    """
    config = build(GeneratorConfig, {"zoo": "any"} | read_yaml(file), file)
    return [
        f"{file} learns from {zoos / name} too, which is not there: {_how_to_make(name)}"
        for name in (*config.more_zoos, *config.codec_zoos)
        if name not in made and not (zoos / name / "zoo.json").exists()
    ]


def _how_to_make(name: str) -> str:
    """Return the commands that make a zoo, as far as its name tells: an aligned one takes two."""
    bare, found = name.removesuffix("-aligned"), _settings_of(name)
    file = found[0].relative_to(_CONFIGS.parent) if found else "FILE"
    made = f"python launch/zoo.py --config {file} --name {bare}"
    if bare == name:
        return made
    return f"{made}, then python launch/align.py --zoo {bare} --name {name}"


def layout_of(path: Path) -> "Layout | None":
    """Return the layout of a zoo, or, where it is not there yet, that of its settings' network."""
    from dwf.networks.functional import build_network
    from dwf.zoo.layout import Layout
    from dwf.zoo.store import Zoo

    if (path / "zoo.json").exists():
        return Zoo.open(path).layout
    planned = _settings_of(path.name)
    if planned is None:
        return None
    import torch

    with torch.device("meta"):  # shapes alone
        return Layout.of(build_network(planned[1].network))


def _settings_of(zoo: str) -> "tuple[Path, ZooConfig] | None":
    """Return the file in configs/zoo/ that a zoo is called after, and what it says."""
    from dwf.zoo.config import ZooConfig

    file = _CONFIGS / "zoo" / f"{zoo.removesuffix('-aligned')}.yaml"
    return (file, load(ZooConfig, file)) if file.exists() else None


def _count_rows(config: GeneratorConfig, path: Path) -> tuple[int, int, str]:
    """Return how many training and validation rows there are, and where."""
    from dwf.generators.learning import learning_of_density
    from dwf.zoo.config import split_sizes
    from dwf.zoo.store import Zoo

    if (path / "zoo.json").exists():
        learning = learning_of_density(dataclasses.replace(config, best=1.0), Zoo.open(path))
        return len(learning.train[0][1]), len(learning.val[0][1]), str(path)
    file, zoo = _settings_of(path.name)
    num_train, num_val, _ = split_sizes(zoo.count, zoo.split.val, zoo.split.test)
    where = f"{path}, which is not there yet: sizes as {file.name} says"
    return num_train, num_val, where


def _describe_training(
    config: GeneratorConfig, zoos: Path, world: int, gpu_memory_gb: float | None
) -> str:
    """Return in words what trains the codec, and what that takes; see `TrainedCodec`."""
    layouts = [layout_of(zoos / name) for name in (config.zoo, *config.codec_zoos)]
    known = [layout for layout in layouts if layout is not None]
    codec = find(CODECS, config.codec.kind)
    return codec.describe_training(config.codec, known, world, gpu_memory_gb)


def _describe_backbone(density: DensitySettings, shape: "CodeShape") -> str:
    if density.backbone is None:
        return ""
    import torch

    from dwf.backbones.config import build_backbone

    with torch.device("meta"):  # shapes alone: nothing is allocated
        backbone = build_backbone(density.backbone, shape, density.takes_condition)
    num = sum(parameter.numel() for parameter in backbone.parameters())
    return f" with a backbone {density.backbone.kind} of {num:,} parameters"
