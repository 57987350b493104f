"""The stage that fits a generator to the training networks of a zoo."""

import itertools
from functools import partial
from pathlib import Path

from dwf.compute import Gpus
from dwf.errors import RunConflict
from dwf.generators.config import GeneratorConfig
from dwf.generators.gate import FREE
from dwf.generators.generator import HEAD, Generator, read_head
from dwf.generators.learning import (
    Learning,
    choice_facts,
    learning_of_codec,
    learning_of_density,
    open_more,
    origin_facts,
    with_zoos_named,
)
from dwf.generators.plan import describe_gate, describe_sizes, describe_training
from dwf.names import folder_in
from dwf.plain import Json
from dwf.ranks import world
from dwf.run_folder import RunFolder
from dwf.stages import Product, stage
from dwf.zoo.store import Zoo

GENERATOR = Product("generator", is_whole=Generator.is_whole)


def plan(
    config: GeneratorConfig,
    root: Path,
    *,
    name: str,
    ranks: int = 1,
    gpus: Gpus | None = None,
) -> str:
    """Return in words what `fit_generator` would fit: networks, code size, parameters, memory.

    Where the zoo is not there yet its sizes are those that `configs/zoo/` says.

    Args:
        config: the generator's settings.
        root: folder that holds `zoos/` and `runs/`.
        name: the generator's name.
        ranks: how many train together, one for each GPU.
        gpus: those of the site that it is planned for; None: of this machine.

    Raises:
        ConfigError: see `describe_sizes` and `TrainedCodec.describe_training`.
    """
    zoos = Path(root) / "zoos"
    config = with_zoos_named(config, zoos)
    lines = [
        f"{', '.join(str(zoos / each) for each in (config.zoo, *config.more_zoos))} -> "
        f"{_folder(root, name)}",
        *describe_sizes(config, zoos, ranks=ranks, gpus=gpus),
    ]
    if config.codec.training is not None:
        lines.append(describe_training(config, zoos, ranks=ranks, gpus=gpus))
        lines += [] if config.gate is None else [describe_gate(config.gate)]
    return "\n".join(lines)


def fit_generator(config: GeneratorConfig, root: Path | str, *, name: str) -> Generator:
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
            learn from `more_zoos`; or the codec does not pass the gate.
        TrainingDiverged: the codec's or the density's loss is not finite.
        NotAZoo, IncompleteZoo, CorruptShard: a zoo cannot be read.
    """
    root = Path(root)
    ours, path, zoos = world(), _folder(root, name), Path(root) / "zoos"
    learnt = ours.on_all(with_zoos_named, config, zoos)
    zoo, more, for_codec, for_density = ours.on_all(_read, learnt, zoos)
    origin = origin_facts(zoo, config.seed, more=more)
    origin |= choice_facts(learnt, for_codec, density=for_density)
    refuse = partial(_refuse_other_origin, origin=origin)
    with stage(GENERATOR, path, config=config, refuse_other=refuse, free=FREE, ours=ours) as run:
        if run is None:
            return ours.on_all(Generator.load, path)
        generator = Generator.of(config.codec, config.density, origin=origin)
        measured = generator.fit(
            for_codec,
            for_density,
            run=run,
            seed=config.seed,
            likelihood=config.likelihood,
            gate=config.gate,
        )
        ours.on_first(run.finish, **measured, digest=generator.digest)
    return generator if ours.is_first else Generator.load(path)


def _folder(root: Path, name: str) -> Path:
    return folder_in(Path(root) / "runs", name)


def _read(config: GeneratorConfig, zoos: Path) -> tuple[Zoo, list[Zoo], Learning, Learning]:
    """Open its zoo and `more_zoos`; choose what the codec, and what the density learns from."""
    zoo = Zoo.open(zoos / config.zoo)
    more = open_more(config, zoo, zoos=zoos)
    for_codec = learning_of_codec(config, zoo, zoos=zoos, more=more)
    return zoo, more, for_codec, learning_of_density(config, zoo, more=more)


def _refuse_other_origin(run: RunFolder, origin: dict[str, Json]) -> None:
    """Refuse a generator that learnt from other networks than are there now."""
    folder = run.path
    if not (folder / HEAD).exists():
        return
    old = read_head(folder)["origin"]
    all_old, all_now = ([each, *each.get("more_zoos", ())] for each in (old, origin))
    names = [[each["zoo"] for each in every] for every in (all_old, all_now)]
    if names[0] != names[1]:  # a manifest changed
        raise RunConflict(
            f"{folder} learnt from the zoos {', '.join(names[0])}, now it would from "
            f"{', '.join(names[1])}: give another --name, or remove the folder"
        )
    pairs = zip(all_old, all_now, strict=True)
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
