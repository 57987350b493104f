"""The stage that imports a zoo: files of others become shards, one after the other."""

import csv
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from dwf import __version__
from dwf.datasets.image_split import keep_split
from dwf.datasets.load import load_dataset
from dwf.datasets.own import identified
from dwf.errors import ConfigError, RunConflict
from dwf.files import read_json
from dwf.importers.config import IMPORTERS, ImportConfig, ImportedData, has_source
from dwf.importers.permutations import read_permutations
from dwf.importers.rows import Reader, import_shard, measured
from dwf.importers.survey import Survey, list_members
from dwf.metrics import Progress
from dwf.names import folder_in
from dwf.plain import Json
from dwf.run_folder import RunFolder, replacing, write_json
from dwf.settings import find
from dwf.stages import stage
from dwf.zoo.facts import BLOCKS_OF_STEPS, FILE, UNKNOWN, Facts
from dwf.zoo.misfit import refuse_other_data
from dwf.zoo.provenance import Imported
from dwf.zoo.shard import shard_name
from dwf.zoo.store import ZOO, Zoo, create_zoo, finish_zoo

TABLE = "imported.csv"
"""File beside the shards: each member, whether it is a row, and why not."""
RENAMED = "renamed.json"
"""File of the run: name of a tensor in the network -> in the files, where they differ."""
Outcome = dict[str, Json]
"""Outcome of a member: `member`, `run`, `row` (whether it is one), `told`, `digest`."""
_COLUMNS = ("member", "run", "row", "told")
_REASONS = ("a duplicate of", "is not finite", "a pickle with more than tensors", "damaged")


def plan(config: ImportConfig, root: Path, *, name: str) -> str:
    """Return in words what `import_zoo` would read, and into what; some members are looked at."""
    if not has_source(config):
        return (
            f"{config.source} -> {_folder(root, name)}\n"
            "that source is not there, so its networks are not known"
        )
    survey = Survey.of(config)
    splits, counts = np.unique(survey.splits, return_counts=True)
    parts = ", ".join(f"{n} {s}" for s, n in zip(splits, counts, strict=True))
    scored = ", ".join(config.score) if survey.network.is_known else ""
    return (
        f"{len(survey.members)} members of {len(survey.runs)} runs ({parts}) of {config.source}, "
        f"{survey.layout.size:,} weights each -> {_folder(root, name)}\n"
        f"{survey.num_shards} shards of up to {survey.shard_size} members; scored on: "
        f"{scored or 'nothing'}; trained on: {_images(config.data)}"
    )


def zoos_of(config: ImportConfig, name: str) -> dict[str, ImportConfig]:
    """Return name -> settings of each zoo that a source becomes: one, or one an architecture.

    Args:
        config: settings of the import.
        name: of the zoo, or what the names of all begin with.
    """
    column = find(IMPORTERS, config.format).several
    if (
        column is None
        or not has_source(config)
        or any(each.startswith(f"{column}=") for each in config.where)
    ):
        return {name: config}
    _, members = list_members(config)
    kinds = sorted({str(one.columns[column]) for one in members})
    return {
        f"{name}-{kind}": replace(config, where=(*config.where, f"{column}={kind}"))
        for kind in kinds
    }


def import_zoo(config: ImportConfig, root: Path | str, *, name: str) -> Zoo:
    """Read a source of networks into `root/zoos/name`, or go on with it.

    Members that are broken, not finite, duplicates or of another architecture are listed in
    `imported.csv` and left out. Accuracies are measured again; a difference from what the source
    tells is told.

    Args:
        config: the source, its format, network, data and split.
        root: folder that holds `zoos/`.
        name: the zoo's name.

    Raises:
        ConfigError: the source is not there or not of this format, or the settings do not fit it.
        RunConflict: the folder is another zoo, or the source has changed since; or another process
            is at it.
    """
    root = Path(root)
    config = replace(config, data=_identified(config.data))
    folder, survey = _folder(root, name), None
    if not (folder / "run").exists():  # before a folder of these settings is there
        survey = Survey.of(config)
        _refuse_other_data(survey, _facts(survey))
    started = time.monotonic()
    with stage(ZOO, folder, config=config) as run:
        if run is None:
            return Zoo.open(folder)
        survey = survey or Survey.of(config)
        facts = _create(survey, folder)
        outcomes = _import_shards(survey, facts, folder, run)
        _write_table(folder / TABLE, outcomes)
        if not any(one["row"] for one in outcomes):
            raise ConfigError(
                f"none of the {len(outcomes)} members of {config.source!r} can be a row; the "
                f"first: {outcomes[0]['member']}: {outcomes[0]['told']}"
            )
        zoo = finish_zoo(folder)
        said = _summary(survey, zoo, outcomes, (run.path / RENAMED).exists())
        run.finish(**said, seconds=round(time.monotonic() - started, 2))
    return zoo


def report(zoo: Zoo) -> None:
    """Print what `import_zoo` made: rows, what was left out, and accuracies that differ."""
    told = read_json(
        zoo.path / "run" / "done.json",
        keys=("runs", "left_out", "converted", "renamed", "differences"),
    )
    print(f"{len(zoo)} rows of {told['runs']} runs in {zoo.path}")
    for reason, count in told["left_out"].items():
        print(f"left out {count}: {reason}; all are in {zoo.path / TABLE}")
    for what, count in told["converted"].items():
        print(f"{what}: {count} members")
    if told["renamed"]:
        print(f"tensors were matched by the order of like layers: {zoo.path / 'run/renamed.json'}")
    for name in (f"{part}_accuracy" for part in ("train", "val", "test")):
        if name in zoo.columns:
            print(f"{name.replace('_', ' ')}: {_spread(zoo.columns[name])}")
    for name, found in told["differences"].items():
        print(
            f"{name}: measured {found['measured']:.4f}, the source says {found['given']:.4f} on "
            f"average; the largest difference of a network is {found['largest']:.4f}"
        )
    for sentence in zoo.facts.caveats:
        print(sentence)


def _spread(accuracy_N: np.ndarray) -> str:
    """Return accuracies in words; NaN of none that was measured."""
    known = 100 * accuracy_N[np.isfinite(accuracy_N)]
    if not len(known):
        return "not measured"
    return f"{known.mean():.2f} % on average, from {known.min():.2f} to {known.max():.2f}"


def _folder(root: Path, name: str) -> Path:
    return folder_in(Path(root) / "zoos", name)


def _identified(data: ImportedData) -> ImportedData:
    """Return settings by which data and images are found again without a path, as zoos have them.

    Raises:
        ConfigError, DataUnavailable: as `own.identified` and `keep_split`.
    """
    split = data.split if data.split == UNKNOWN else keep_split(Path(data.split))
    return ImportedData(identified(data.dataset), split=split)


def _refuse_other_data(survey: Survey, facts: Facts) -> None:
    """Raise where the images are not of the network, or a part to score on has none."""
    if not survey.network.is_known:
        return
    data = facts.load_data()
    refuse_other_data(survey.network, data, title=facts.data.title)
    for name in survey.config.score:
        if not len(data.part(name)):
            raise ConfigError(
                f"score = {name}: {facts.data.title} has no {name} images: leave {name} out"
            )


def _images(data: ImportedData) -> str:
    return "unknown images" if data.split == UNKNOWN else f"images of {data.split}"


def _create(survey: Survey, folder: Path) -> Facts:
    """Write `zoo.json`, or hold what is there to what the source is now.

    Raises:
        RunConflict: the source has changed since the import was begun.
    """
    facts = _facts(survey)
    if not (folder / FILE).exists():
        create_zoo(folder, facts)
    elif Facts.read(folder).identity != facts.identity:
        raise RunConflict(
            f"{folder} was begun from other files than {survey.config.source} holds now: give "
            "another --name, or remove the folder"
        )
    return facts


def _facts(survey: Survey) -> Facts:
    config, dataset = survey.config, survey.config.data.dataset
    permutations = None
    if config.permutations is not None:
        permutations = read_permutations(Path(config.permutations), survey.layout)
    told = {
        "network": survey.network,
        "data": dataset,
        "image_split": config.data.split,
        "permutations": permutations,
        "input_shape": load_dataset(dataset).shape if dataset else (),
        "count": len(survey.runs),
        "split": config.split,
        "seed": config.seed,
        "split_by": BLOCKS_OF_STEPS if survey.is_one_run else "networks",
        "provenance": Imported(
            imported_by=f"dwf {__version__}",
            format=config.format,
            source=Path(config.source).name,
            members=len(survey.members),
            listing=survey.listing,
        ),
    }
    told = {name: value for name, value in told.items() if value is not None}
    return Facts(layout=survey.layout, num_shards=survey.num_shards, said=tuple(told), **told)


def _import_shards(survey: Survey, facts: Facts, folder: Path, run: RunFolder) -> list[Outcome]:
    """Write the shards that are missing; return what became of every member, in order."""
    reader = Reader(survey)
    data = facts.load_data() if survey.network.is_known else None
    total, outcomes = len(survey.members), []
    with Progress(f"import {folder.name}", total, unit="members") as progress:
        for index in range(survey.num_shards):
            target = folder / shard_name(index, survey.num_shards)
            kept = run.path / "outcomes" / f"{index:05d}.json"
            done = len(outcomes)
            told = read_json(kept) if target.exists() and kept.exists() else {}
            if any(one["row"] for one in told.get("members", ())):
                reader.go_on(told)
            else:  # also where no member could be a row: its files may be mended
                target.unlink(missing_ok=True)
                members = import_shard(
                    target,
                    facts,
                    index=index,
                    reader=reader,
                    data=data,
                    progress=lambda count, done=done: progress.update(done + count),
                )
                told = {"members": members, "renamed": reader.renamed}
                write_json(kept, told)
            outcomes += told["members"]
            progress.update(len(outcomes))
    if reader.renamed:
        write_json(run.path / RENAMED, reader.renamed)
    return outcomes


def _write_table(path: Path, outcomes: list[Outcome]) -> None:
    with replacing(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for one in outcomes:
            row = "yes" if one["row"] else "no"
            writer.writerow([one["member"], one["run"], row, one["told"]])


def _summary(survey: Survey, zoo: Zoo, outcomes: list[Outcome], renamed: bool) -> dict[str, Json]:
    left_out = Counter(_reason(one["told"]) for one in outcomes if not one["row"])
    parts = (one["told"].split("; ") for one in outcomes if one["row"] and one["told"])
    return {
        "members": len(outcomes),
        "rows": len(zoo),
        "runs": len(np.unique(zoo.columns["network"])),
        "left_out": dict(left_out.most_common()),
        "converted": dict(Counter(part for told in parts for part in told)),
        "renamed": renamed,
        "trained_on": str(zoo.facts.image_split),
        "differences": _differences(zoo, measured(survey)),
    }


def _reason(told: str) -> str:
    """The kind of reason, for a count: what names a tensor or another member is cut off."""
    for words in _REASONS:
        if words in told:
            return words
    return told


def _differences(zoo: Zoo, names: list[str]) -> dict[str, Json]:
    """Accuracies and losses that a source tells otherwise than they are measured."""
    found = {}
    for name in names:
        given = zoo.columns.get(f"given_{name}")
        if given is None or not np.isfinite(given).any():
            continue
        both = np.isfinite(given)
        mine, theirs = zoo.columns[name][both], given[both]
        found[name] = {
            "networks": int(both.sum()),
            "measured": float(mine.mean()),
            "given": float(theirs.mean()),
            "largest": float(np.abs(mine - theirs).max()),
        }
    return found
