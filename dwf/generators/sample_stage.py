"""The stage that draws networks from a generator, as a zoo."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from dwf.datasets.own import identified
from dwf.errors import RunConflict
from dwf.generators.config import SampleConfig
from dwf.generators.drawing import Drawing
from dwf.generators.generator import Generator
from dwf.names import folder_in
from dwf.run_folder import RunFolder
from dwf.stages import stage
from dwf.zoo.shard import shard_name, write_shard
from dwf.zoo.store import ZOO, Zoo, create_zoo, finish_zoo


def plan(config: SampleConfig, root: Path, *, name: str) -> str:
    """Return in words what `sample_networks` would draw: how many, from what, on what condition."""
    best = f", the best of {config.drawn}" if config.drawn > config.count else ""
    asked = "" if config.condition is None else f" asked for {_words(config.condition)}"
    asked += "" if config.guidance == 1 else f", guidance {_words(config.guidance)}"
    asked += "" if config.temperature == 1 else f", temperature {config.temperature:g}"
    asked += "" if config.autoguidance is None else f", autoguidance {config.autoguidance:g}"
    asked += f", of the architecture of {config.zoo}" * (config.zoo is not None)
    if config.network is not None:
        asked += f", of a new architecture ({config.network.kind})"
    run = Path(root) / "runs" / config.generator
    return f"{config.count} networks{asked}{best}: {run} -> {_folder(root, name)}"


def sample_networks(config: SampleConfig, root: Path | str, *, name: str) -> Zoo:
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
    root = Path(root)
    config = replace(config, data=identified(config.data))
    path, runs = _folder(root, name), Path(root) / "runs"
    generator = Generator.load(runs / config.generator)
    drawing = Drawing(config, generator)
    refuse = partial(_refuse_other_generator, digest=generator.digest)
    with stage(ZOO, path, config=config, refuse_other=refuse) as run:
        if run is None:
            return Zoo.open(path)
        blocks, told = drawing.blocks(run.path), drawing.facts
        shard = path / shard_name(0, 1)
        write_shard(shard, told(), index=0, num_rows=config.count, blocks=blocks, told=told)
        facts = drawing.facts()
        create_zoo(path, facts)
        zoo = finish_zoo(path)
        run.finish(**facts.provenance.to_json(), count=config.count)
        return zoo


def report(zoo: Zoo) -> None:
    """Print what `sample_networks` made."""
    print(f"{len(zoo)} rows in {zoo.path}")


def _words(asked: float | tuple[str, ...]) -> str:
    return f"{asked:g}" if isinstance(asked, (int, float)) else " ".join(asked)


def _folder(root: Path, name: str) -> Path:
    return folder_in(Path(root) / "zoos", name)


def _refuse_other_generator(run: RunFolder, digest: str) -> None:
    """Refuse samples of a finished zoo that were drawn from another generator than is there now."""
    if run.summary is not None and run.summary["digest"] != digest:
        raise RunConflict(
            f"{run.path.parent} was drawn from a generator {run.summary['generator']} of digest "
            f"{run.summary['digest']}, which now has {digest}: give another --name, or remove the "
            "folder"
        )
