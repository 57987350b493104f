"""The stages that fit a generator and draw networks from one.

Shape suffixes: B networks of a block, D numbers of a network.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dwf import preemption
from dwf.codecs.config import CODECS
from dwf.errors import ConfigError, RunConflict, WorkFailed
from dwf.generators.batchnorm import (
    has_negative_variance,
    recalibration,
    source_of_statistics,
)
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.generator import HEAD, Generator, read_head
from dwf.metrics import Progress, logger
from dwf.ranks import world
from dwf.run_folder import RunFolder, hold
from dwf.settings import find, to_dict
from dwf.zoo.shard import Block, shard_name, write_shard
from dwf.zoo.store import Zoo, create_zoo, finish_zoo, is_whole


def fit_generator(config: GeneratorConfig, root: Path, name: str) -> Generator:
    """Fit a generator in `root/runs/name`, or go on where it stopped.

    It learns from the zoo's training networks, choices are made on its validation networks, both
    at their last epoch; its test networks are not read. An interrupted run goes on to the same
    bytes, and so does one of several ranks, which share the codec's passes over the networks.

    Args:
        config: which zoo, codec and density.
        root: folder that holds `zoos/` and `runs/`.
        name: the generator's name.

    Raises:
        TooFewNetworks: fewer training networks than components, or than the batch size; or none.
        RunConflict: the folder holds a run of other settings, or of another zoo of this name; or
            another process is at it.
        TrainingDiverged: the density's loss is not finite.
        NotAZoo, IncompleteZoo, CorruptShard: the zoo cannot be read.
    """
    ours = world()
    zoo = ours.on_all(lambda: Zoo.open(Path(root) / "zoos" / config.zoo))
    origin = describe_origin(zoo, config.seed)
    with ExitStack() as held:  # by the first rank
        run = ours.on_first(lambda: _begin(config, Path(root) / "runs" / name, origin, held))
        if run is None:
            return ours.on_all(lambda: Generator.load(Path(root) / "runs" / name))
        generator = Generator.of(config.codec, config.density, origin)
        train, val = ([(zoo, zoo.rows(split, "last"))] for split in ("train", "val"))
        measured = generator.fit(train, val, run, config.seed)
        ours.on_first(lambda: run.finish(**measured, digest=generator.digest))
    return generator if ours.is_first else Generator.load(run.path)


def _begin(
    config: GeneratorConfig, path: Path, origin: dict[str, Any], held: ExitStack
) -> RunFolder | None:
    """Hold the run folder and return the run; None where it is finished already."""
    held.enter_context(hold(path))
    run = RunFolder(path, config)
    _refuse_other_origin(path, origin)
    if run.summary is None or not Generator.is_whole(path):
        return run
    logger.info("generator %s is finished already: %s", path.name, path)
    return None


def sample_networks(config: SampleConfig, root: Path, name: str) -> Zoo:
    """Draw networks from `root/runs/GENERATOR` into the zoo `root/zoos/name`.

    The zoo says of itself what it was drawn from, and how; its columns are `network` (the sample's
    number), `seed`, `split` (`sample`), `epoch` (0) and `batchnorm` (see
    `batchnorm.source_of_statistics`). Every sample that is drawn is in it.

    Args:
        config: which generator, how many, how.
        root: folder that holds `zoos/` and `runs/`.
        name: name of the zoo written.

    Raises:
        RunConflict: no such generator, one that is not fitted to the end, or another zoo has the
            name.
        ConfigError: the density has no such solver setting, or the networks no BatchNorm.
        WorkFailed: samples are not finite, or have variances below zero; none is written.
    """
    path = Path(root) / "zoos" / name
    generator = Generator.load(Path(root) / "runs" / config.generator)
    if (path / "zoo.json").exists() and not (path / "run").exists():
        raise RunConflict(f"{path} is another zoo: give another --name, or remove the folder")
    solver = _solver_settings(config, generator)
    statistics = source_of_statistics(config, generator.codec)
    with hold(path / "run"):
        run = RunFolder(path / "run", config)
        if run.summary is not None:
            _refuse_other_generator(path, run.summary, generator)
        if run.summary is not None and is_whole(path):
            logger.info("zoo %s is finished already: %s", name, path)
            return Zoo.open(path)
        layout, shard = generator.codec.layout, path / shard_name(0, 1)
        for leftover in path.glob(f"{shard.name}.partial-*"):  # of an attempt that was killed
            leftover.unlink()
        with _counted_evaluations(generator) as evaluated:
            blocks = _draw(generator, config, solver, statistics)
            write_shard(shard, layout.digest, layout.size, config.count, blocks)
        provenance = _provenance(config, generator, solver, evaluated[0] / config.count)
        if statistics == "recalibrated":
            provenance["batchnorm_images"] = config.batchnorm_images
        create_zoo(path, layout, 1, **generator.origin["facts"], provenance=provenance)
        zoo = finish_zoo(path)
        run.finish(**provenance, count=config.count)
        return zoo


def describe_plan(config: GeneratorConfig, root: Path) -> str:
    """Return in words what would be fitted: networks, code size, parameters."""
    path = Path(root) / "zoos" / config.zoo
    if not (path / "zoo.json").exists():
        return f"zoo {path}: not there yet, so no sizes are known"
    zoo = Zoo.open(path)
    num_train, num_val = (len(zoo.rows(split, "last")) for split in ("train", "val"))
    codec = find(CODECS, config.codec.kind)
    groups = codec.planned_groups(config.codec, zoo.layout)
    size = codec.planned_size(config.codec, zoo.layout, num_train)
    most = "up to " if getattr(config.codec, "variance", None) else ""
    return (
        f"{num_train} training and {num_val} validation networks of {zoo.layout.size:,} weights "
        f"in {path}\n"
        f"{config.codec.kind} codes of {most}{size:,} numbers, density {config.density.kind}"
        f"{_describe_backbone(config.density, size, groups)}"
    )


def _describe_backbone(density: Any, code_size: int, groups: Any) -> str:
    if not hasattr(density, "backbone"):
        return ""
    from dwf.backbones.config import build_backbone

    with torch.device("meta"):  # shapes alone: nothing is allocated
        backbone = build_backbone(density.backbone, code_size, groups)
    num = sum(parameter.numel() for parameter in backbone.parameters())
    return f" with a backbone {density.backbone.kind} of {num:,} parameters"


def describe_origin(zoo: Zoo, seed: int) -> dict[str, Any]:
    """Return what a generator learns from, plain data, so that its samples can be traced.

    Returns:
        `zoo` (its name), `layout` (digest), `fingerprint` (of the checksums of its training and
        validation rows), `networks`, `seed`, and the `facts` that a zoo of samples inherits.
    """
    rows = {split: zoo.rows(split, "last") for split in ("train", "val")}
    digest = hashlib.sha256()
    for split, indices in rows.items():
        digest.update(split.encode())
        if len(indices):
            digest.update(zoo.columns["checksum"][indices].astype("<u4").tobytes())
    inherited = ("network", "data", "input_shape", "recipe", "seed")
    return {
        "zoo": zoo.name,
        "layout": zoo.layout.digest,
        "fingerprint": digest.hexdigest()[:16],
        "networks": {split: len(indices) for split, indices in rows.items()},
        "seed": seed,
        "facts": {key: zoo.facts[key] for key in inherited if key in zoo.facts},
    }


def _refuse_other_origin(folder: Path, origin: dict[str, Any]) -> None:
    if not (folder / HEAD).exists():
        return
    old = read_head(folder)["origin"]
    for key in ("layout", "fingerprint"):
        if old[key] != origin[key]:
            raise RunConflict(
                f"{folder} learnt from a zoo {origin['zoo']} of {key} {old[key]}, which now has "
                f"{origin[key]}: give another --name, or remove the folder"
            )


def _refuse_other_generator(path: Path, summary: dict[str, Any], generator: Generator) -> None:
    if summary["digest"] != generator.digest:
        raise RunConflict(
            f"{path} was drawn from a generator {summary['generator']} of digest "
            f"{summary['digest']}, which now has {generator.digest}: give another --name, or "
            "remove the folder"
        )


def _solver_settings(config: SampleConfig, generator: Generator) -> dict[str, Any]:
    """Return the settings of the solver that differ from the density's own."""
    given = {"method": config.solver, "steps": config.steps}
    given = {key: value for key, value in given.items() if value is not None}
    own = getattr(generator.density.config, "solver", None)
    if given and own is None:
        raise ConfigError(
            f"the density of {config.generator} is {generator.density.config.kind}, which has no "
            "solver: leave out --solver and --steps"
        )
    if "steps" in given and given.get("method", own.method) == "dopri5":
        raise ConfigError(
            f"steps = {config.steps}: dopri5 chooses its own steps; leave out --steps, or set "
            "--solver to euler, midpoint, heun2 or rk4"
        )
    return given


def _draw(
    generator: Generator, config: SampleConfig, solver: dict[str, Any], statistics: str
) -> Iterator[Block]:
    """Yield blocks of a zoo; after a sample that cannot be used only such ones are counted."""
    bad: list[int] = []
    negative: list[int] = []
    finish = None
    if statistics == "recalibrated":
        finish = recalibration(config, generator.codec.layout, generator.origin["facts"])
    with Progress(f"sample {config.generator}", config.count, "networks") as progress:
        for first, weights_BD in generator.stream(config.count, config.seed, **solver):
            finite_B = weights_BD.isfinite().all(1)
            bad += (first + torch.nonzero(~finite_B).squeeze(1)).tolist()
            if statistics == "generated":
                below_B = has_negative_variance(generator.codec.layout, weights_BD)
                negative += (first + torch.nonzero(below_B).squeeze(1)).tolist()
            num = len(weights_BD)
            progress.update(first + num)
            if preemption.is_asked():
                preemption.stop()
            if not (bad or negative):
                columns = {
                    "network": np.arange(first, first + num),
                    "seed": np.full(num, config.seed),
                    "split": np.full(num, "sample"),
                    "epoch": np.zeros(num, np.int32),
                    "batchnorm": np.full(num, statistics),
                }
                yield columns, (finish(weights_BD) if finish else weights_BD).numpy()
    if bad:
        raise WorkFailed(
            f"{len(bad)} of {config.count} samples of {config.generator} are not finite (first: "
            f"sample {bad[0]}), so no zoo was written: try another --solver or more --steps, or "
            "fit the generator again with a lower learning rate"
        )
    if negative:
        raise WorkFailed(
            f"{len(negative)} of {config.count} samples of {config.generator} have running "
            f"variances of BatchNorm below zero (first: sample {negative[0]}), so no zoo was "
            "written: give --batchnorm recalibrated, or fit the generator with codec.buffers false"
        )


@contextlib.contextmanager
def _counted_evaluations(generator: Generator) -> Iterator[list[int]]:
    """Yield a list whose one number grows by each sample's evaluation of the density's network."""
    evaluated = [0]
    module = getattr(generator.density, "module", None)
    if module is None:
        yield evaluated
        return

    def count(_: Any, inputs: tuple[torch.Tensor, ...], __: Any) -> None:
        evaluated[0] += len(inputs[0])

    hook = module.register_forward_hook(count)
    try:
        yield evaluated
    finally:
        hook.remove()


def _provenance(
    config: SampleConfig, generator: Generator, solver: dict[str, Any], evaluations: float
) -> dict[str, Any]:
    own = getattr(generator.density.config, "solver", None)
    used = (to_dict(own) if own is not None else {"method": None, "steps": None}) | solver
    return {
        "generator": config.generator,
        "digest": generator.digest,
        "zoo": generator.origin["zoo"],
        "zoo_fingerprint": generator.origin["fingerprint"],
        "seed": config.seed,
        "solver": used["method"],
        "steps": None if used["method"] == "dopri5" else used["steps"],
        "evaluations_per_sample": evaluations,
    }
