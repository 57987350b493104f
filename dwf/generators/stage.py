"""The stages that fit a generator and draw networks from one."""

import itertools
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dwf.errors import RunConflict
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.drawing import Drawing
from dwf.generators.generator import HEAD, Generator, read_head
from dwf.generators.learning import (
    describe_choice,
    describe_origin,
    learning_of_codec,
    learning_of_density,
    open_more,
)
from dwf.metrics import logger
from dwf.ranks import world
from dwf.run_folder import RunFolder, hold
from dwf.zoo.shard import shard_name, write_shard
from dwf.zoo.store import Zoo, create_zoo, finish_zoo, is_whole


def fit_generator(config: GeneratorConfig, root: Path, name: str) -> Generator:
    """Fit a generator in `root/runs/name`, or go on where it stopped.

    It learns from the zoo's training networks, choices are made on its validation networks, both
    at their last epoch or those of the settings; its test networks are not read. An interrupted
    run goes on to the same bytes, and so does one of several ranks, which share the codec's passes
    over the networks.

    Args:
        config: which zoo, codec and density.
        root: folder that holds `zoos/` and `runs/`.
        name: the generator's name.

    Raises:
        TooFewNetworks: fewer training networks than components, or than the batch size; or none.
        RunConflict: the folder holds a run of other settings, or of another zoo of this name; or
            another process is at it.
        ConfigError: no such epoch in a zoo, or fewer networks than are to be learnt from, or
            nothing says which are best, or what their condition is; or codec or density cannot
            learn from `more_zoos`.
        TrainingDiverged: the codec's or the density's loss is not finite.
        NotAZoo, IncompleteZoo, CorruptShard: a zoo cannot be read.
    """
    ours = world()
    zoos = Path(root) / "zoos"
    zoo = ours.on_all(lambda: Zoo.open(zoos / config.zoo))
    more = ours.on_all(lambda: open_more(config, zoo, zoos))
    for_codec = ours.on_all(lambda: learning_of_codec(config, zoo, zoos, more))
    for_density = ours.on_all(lambda: learning_of_density(config, zoo, more))
    origin = describe_origin(zoo, config.seed, more)
    origin |= describe_choice(config, for_codec, for_density)
    with ExitStack() as held:  # by the first rank
        run = ours.on_first(lambda: _begin(config, Path(root) / "runs" / name, origin, held))
        if run is None:
            return ours.on_all(lambda: Generator.load(Path(root) / "runs" / name))
        generator = Generator.of(config.codec, config.density, origin)
        measured = generator.fit(for_codec, for_density, run, config.seed, config.likelihood)
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
    `batchnorm.source_of_statistics`). Every sample that is drawn is in it, unless the settings ask
    for a selection: then the best are, `network` is their place, and `drawn` the sample's number.

    Args:
        config: which generator, how many, how.
        root: folder that holds `zoos/` and `runs/`.
        name: name of the zoo written.

    Raises:
        RunConflict: no such generator, one that is not fitted to the end, or another zoo has the
            name.
        ConfigError, ShapeMismatch: see `Drawing` and `selection.select`.
        WorkFailed: samples are not finite, or have variances below zero; none is written.
    """
    path = Path(root) / "zoos" / name
    generator = Generator.load(Path(root) / "runs" / config.generator)
    if (path / "zoo.json").exists() and not (path / "run").exists():
        raise RunConflict(f"{path} is another zoo: give another --name, or remove the folder")
    drawing = Drawing(config, generator)
    with hold(path / "run"):
        run = RunFolder(path / "run", config)
        if run.summary is not None:
            _refuse_other_generator(path, run.summary, generator)
        if run.summary is not None and is_whole(path):
            logger.info("zoo %s is finished already: %s", name, path)
            return Zoo.open(path)
        layout, shard = drawing.layout, path / shard_name(0, 1)
        for leftover in path.glob(f"{shard.name}.partial-*"):  # of an attempt that was killed
            leftover.unlink()
        blocks = drawing.blocks(path / "run")
        write_shard(shard, layout.digest, layout.size, config.count, blocks)
        provenance = drawing.provenance()
        create_zoo(path, layout, 1, **drawing.facts, provenance=provenance)
        zoo = finish_zoo(path)
        run.finish(**provenance, count=config.count)
        return zoo


def _refuse_other_origin(folder: Path, origin: dict[str, Any]) -> None:
    if not (folder / HEAD).exists():
        return
    old = read_head(folder)["origin"]
    pairs = zip(*([each, *each.get("more_zoos", ())] for each in (old, origin)), strict=True)
    for (before, now), key in itertools.product(pairs, ("layout", "fingerprint")):
        if before[key] != now[key]:
            raise RunConflict(
                f"{folder} learnt from a zoo {now['zoo']} of {key} {before[key]}, which now has "
                f"{now[key]}: give another --name, or remove the folder"
            )
    if old.get("learnt") != origin.get("learnt"):
        raise RunConflict(
            f"{folder} learnt from rows of fingerprints {old.get('learnt')}, which now have "
            f"{origin.get('learnt')}: give another --name, or remove the folder"
        )


def _refuse_other_generator(path: Path, summary: dict[str, Any], generator: Generator) -> None:
    if summary["digest"] != generator.digest:
        raise RunConflict(
            f"{path} was drawn from a generator {summary['generator']} of digest "
            f"{summary['digest']}, which now has {generator.digest}: give another --name, or "
            "remove the folder"
        )
