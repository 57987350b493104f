"""The stage: score generated networks against the zoo that their generators learnt from."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from dwf.devices import find_device
from dwf.errors import ConfigError, RunConflict
from dwf.evaluation.analyses import Material, analyse, chosen
from dwf.evaluation.comparisons import comparisons_of, measure_all
from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.frames import refuse_other_frame, unseen_notes
from dwf.evaluation.lineage import commands_of, links_of
from dwf.evaluation.measure import Yardstick, ensemble_size
from dwf.evaluation.network_files import are_files, open_samples
from dwf.evaluation.report import (
    ONE_NETWORK,
    Record,
    Report,
    asked_against_drawn,
    draw_figures,
    headline,
    read_fit,
    renew_index,
    save_timing,
    write_page,
)
from dwf.evaluation.titles import titles_of
from dwf.files import read_json
from dwf.metrics import print_report, read_metrics
from dwf.names import folder_in
from dwf.plain import Json
from dwf.run_folder import RunFolder, write_text
from dwf.settings import flatten, read_yaml, to_dict
from dwf.stages import Product, stage
from dwf.training.loop import SAMPLE_ACCURACY
from dwf.zoo.config import is_test_score
from dwf.zoo.facts import Facts
from dwf.zoo.manifest import zoos_named
from dwf.zoo.store import Zoo

REPORT = Product("report")
_TABLE_WIDTH = 172
_SPLITS = ("train", "val", "test")
_TRACKED = ("good_and_novel", "accurate", "distance_ratio", "overlap", "dispersion")
_LONGEST_LIST = 16
_MOST_PARTS = 32


def plan(config: EvaluateConfig, root: Path, *, name: str) -> str:
    """Return in words what `evaluate` would score, and where the report would lie."""
    sets = ", ".join(config.samples) or "no samples"
    more = f"; analyses: {', '.join(chosen(config.analyses))}" if config.analyses else ""
    return f"evaluate zoo {config.zoo}: {sets}, and the baselines{more} -> {_folder(root, name)}"


def evaluate(config: EvaluateConfig, root: Path | str, *, name: str) -> Report:
    """Score samples, originals, held-out networks and all baselines; write the report.

    Every network of every set counts. Samples are held against the training networks that their own
    generator learnt from (see `comparisons`). Distances are taken in the zoo's own frame, into
    which samples are put first (see `Yardstick`): a copy whose units are shuffled is a copy.

    Args:
        config: which zoos, which baselines.
        root: folder that holds zoos/, runs/ and reports/.
        name: the report's name; it is written to root/reports/NAME.

    Returns:
        The report; read from disk where it is finished already.

    Raises:
        ConfigError: networks that nobody can run; no column `by`, or one of too many values;
            labels that do not suit the samples; samples say that they were learnt from another
            zoo, or from more networks than it has.
        RunConflict: the report is finished, and the zoos have changed since; or another process
            is at it.
        ShapeMismatch: samples of another layout than the zoo's; of files the tensor is named.
        CorruptCheckpoint: a file of a sample is damaged.
        TooFewNetworks: a generator learnt from fewer than four training networks, or half of them
            are copies of others, or samples have none.
        DataUnavailable: networks do not have the accuracies that their zoo records.
    """
    root = Path(root)
    zoo = Zoo.open(root / "zoos" / _zoo_named(config, root))
    _refuse_unknown(zoo)
    _refuse_no_split(zoo, config)
    with open_samples(config.samples, zoo, root=root) as samples:
        return _evaluate(config, root, name=name, zoo=zoo, samples=samples)


def _evaluate(
    config: EvaluateConfig, root: Path, *, name: str, zoo: Zoo, samples: list[Zoo]
) -> Report:
    """Score opened zoos; see `evaluate`."""
    refuse_other_frame(zoo, samples)
    titles = titles_of(samples, label=config.label, root=Path(root))
    fingerprints = {each.name: each.fingerprint for each in (zoo, *samples)}
    refuse = partial(_refuse_other_networks, fingerprints=fingerprints)
    with stage(REPORT, _folder(root, name), config=config, refuse_other=refuse) as run:
        if run is None:
            return Report.load(_folder(root, name))
        begun = time.monotonic()
        device = find_device(config.device).type
        counts = [len(zoo.rows(split, "last")) for split in ("train", config.split)]
        size = ensemble_size([*counts, *(len(each) for each in samples)])
        yardstick = Yardstick(
            zoo,
            zoo.load_data(),
            device=device,
            split=config.split,
            batchnorm=config.batchnorm,
            workers=config.workers,
            ensemble=size,
        )
        comparisons = comparisons_of(config, yardstick, samples=samples, titles=titles)
        sets = measure_all(config, comparisons)
        limits_of = {one.subset: one.yardstick.limits for one in comparisons[1:]}
        said = headline(sets, yardstick.limits, limits_of=limits_of)
        made = Report(
            name=name,
            config=to_dict(config),
            limits=yardstick.limits.to_json(),
            asked=asked_against_drawn(sets),
            limits_of={subset: limits.to_json() for subset, limits in limits_of.items()},
            sets=tuple(sets),
            headline=(
                *said,
                *[ONE_NETWORK] * zoo.is_one_network,
                *unseen_notes(samples),
                *zoo.facts.caveats,
            ),
            facts=_facts(root, zoo, samples) | {"evaluation": {"device": device} | _how(yardstick)},
            map_share=tuple(yardstick.axes_share_C[:2].tolist()),
            fits={each: read_fit(path) for each, path in _generators(root, samples).items()},
        )
        material = Material(made, yardstick, samples=samples, root=Path(root))
        made = replace(made, analyses=analyse(config.analyses, material, folder=run.path))
        made.save(run.path)
        figures = draw_figures(made, run.path, curves=_curves(root, zoo, samples))
        save_timing(run.path, time.monotonic() - begun)
        record = Record.read(
            run.path,
            page=run.path,
            commands=commands_of(root, name, zoo=zoo.name, samples=config.samples),
            links=links_of(root, zoo=zoo.name, samples=config.samples),
        )
        page = write_page(made, record, figures=figures, folder=run.path)
        write_text(run.path / "report.html", page)
        run.finish(headline=list(made.headline), fingerprints=fingerprints, samples=_figures(made))
    renew_index(root)
    return made


def _figures(made: Report) -> dict[str, dict[str, float | None]]:
    """Return samples -> the figures of them that trackers show."""
    return {
        one.source: {name: one.figure(name) for name in (one.scored, *_TRACKED)}
        for one in made.of("samples")
    }


def report(made: Report, folder: Path) -> None:
    """Print the table of what `evaluate` found, what it says in words, and where the page lies."""
    print_report(
        f"report {made.name}",
        made.columns,
        rows=made.table,
        bold=[one.family == "samples" for one in made.sets],
        paragraphs=(*made.notes, *made.headline),
        width=_TABLE_WIDTH,
    )
    print(f"report: {folder / 'report.html'}")


def _folder(root: Path, name: str) -> Path:
    return folder_in(Path(root) / "reports", name)


def _zoo_named(config: EvaluateConfig, root: Path) -> str:
    """Return the zoo that is meant: of a manifest the one whose architecture was drawn."""
    named = zoos_named(root / "zoos", [config.zoo])
    if len(named) == 1:
        return named[0]
    zoos = [each for each in config.samples if not are_files(each, root)]
    sampled = [Facts.read(root / "zoos" / each).sampled for each in zoos]
    drawn = {each.zoo for each in sampled if each}
    of_samples = [name for name in named if name in drawn]
    if len(of_samples) != 1:
        raise ConfigError(
            f"zoo = {config.zoo!r} stands for {', '.join(named)}, of which the samples are drawn "
            f"for {', '.join(of_samples) or 'none'}: a report is on one, so give --zoo its name"
        )
    return of_samples[0]


def _refuse_other_networks(run: RunFolder, fingerprints: dict[str, str]) -> None:
    """Refuse a finished report on other networks than are there now."""
    if run.summary is not None and run.summary["fingerprints"] != fingerprints:
        raise RunConflict(
            f"{run.path} is about networks that are no longer those of "
            f"{', '.join(fingerprints)}: give another --name, or remove the folder"
        )


def _refuse_unknown(zoo: Zoo) -> None:
    if not zoo.facts.network.is_known:
        raise ConfigError(
            f"zoo = {zoo.name!r} was imported with `network: {{kind: none}}`, so nobody can score "
            "its networks: import them again with their network"
        )


def _refuse_no_split(zoo: Zoo, config: EvaluateConfig) -> None:
    """Refuse a column that splits no sets, or by what only reports may read."""
    by = config.by
    if by is None:
        return
    words = [n for n in sorted(zoo.columns) if not is_test_score(n) and n != "checksum"]
    if by not in words:
        raise ConfigError(
            f"by = {by!r}: {zoo.path} has no such column to split by; it has {', '.join(words)}"
        )
    num = len(np.unique(zoo.columns[by][zoo.rows("train", "last")]))
    if not 1 < num <= _MOST_PARTS:
        raise ConfigError(
            f"by = {by!r}: the training networks of {zoo.path} have {num} values of it, expected 2 "
            f"to {_MOST_PARTS}: choose another column, as initialisation of a zoo that varies it"
        )


def _how(yardstick: Yardstick) -> dict[str, Json]:
    """Facts on what networks were held against, and how those with BatchNorm were scored."""
    held, total = yardstick.nearness, len(yardstick.training)
    told: dict[str, Json] = {
        "training networks of the originals and of limits": _of_all(len(held.judged_J), total),
        "training networks whose units are compared": _of_all(len(held.unit_networks_T), total),
        "images of behaviour": yardstick.scorer.num_compared,
    }
    if not yardstick.has_batchnorm:
        return told
    scored = {"running statistics of samples and baselines": yardstick.batchnorm.score}
    return told | scored | {"images for BatchNorm": yardstick.scorer.num_images}


def _of_all(count: int, total: int) -> str:
    return f"all {total}" if count == total else f"{count} of {total}, at random"


def _facts(root: Path, zoo: Zoo, samples: list[Zoo]) -> dict[str, dict[str, Json]]:
    """Return what was evaluated, as far as the folders tell; nothing of host or time."""
    described = {"network", "data", "image_split", "seed", "recipe", "split_by", "provenance"}
    counts = {f"{split} networks": len(zoo.rows(split, "last")) for split in _SPLITS}
    about_zoo = {key: value for key, value in zoo.facts.to_json().items() if key in described}
    facts = {f"zoo {zoo.name}": counts | _scalars(about_zoo)}
    facts[f"how zoo {zoo.name} was made"] = _summary(zoo.path / "run")
    for each in samples:
        told = each.facts.provenance
        facts[f"samples {each.name}"] = _scalars(told.to_json() if told else {})
        facts[f"how samples {each.name} were drawn"] = _summary(each.path / "run")
    for generator, path in _generators(root, samples).items():
        facts[f"generator {generator}"] = _summary(path)
        if (path / "config.yaml").exists():
            facts[f"settings of generator {generator}"] = _scalars(read_yaml(path / "config.yaml"))
    return {title: found for title, found in facts.items() if found}


def _generators(root: Path, samples: list[Zoo]) -> dict[str, Path]:
    drawn = [each.facts.sampled for each in samples]
    return {one.generator: root / "runs" / one.generator for one in drawn if one}


def _summary(path: Path) -> dict[str, Json]:
    done = path / "done.json"
    return _scalars(read_json(done)) if done.exists() else {}


def _scalars(data: dict[str, Json]) -> dict[str, Json]:
    short = {
        key: value
        for key, value in flatten(data).items()
        if not isinstance(value, (list, tuple)) or len(value) <= _LONGEST_LIST
    }
    return {key: f"{v:.4g}" if isinstance(v, float) else v for key, v in short.items()}


def _curves(root: Path, zoo: Zoo, samples: list[Zoo]) -> dict[str, dict[str, np.ndarray]]:
    """Title -> name of a line -> points_P2: accuracies of the zoo, losses of the generators.

    A zoo of one network gives all its rows, by step.
    """
    names = [name for name in ("train_accuracy", "val_accuracy") if name in zoo.columns]
    steps, curves = zoo.columns.get("step"), {}
    epochs = np.unique(zoo.columns["epoch"][zoo.rows(split="train")])
    if zoo.is_one_network and steps is not None:
        lines = {name: np.stack([steps, zoo.columns[name]], 1) for name in names}
        curves[f"steps of zoo {zoo.name}: accuracy"] = lines
    elif len(epochs) > 1:
        curves[f"zoo {zoo.name}: mean accuracy"] = {
            name: np.array([[at, zoo.columns[name][zoo.rows("train", at)].mean()] for at in epochs])
            for name in names
        }
    for generator, path in _generators(root, samples).items():
        for file in sorted(path.rglob("metrics.jsonl")):
            where = "/".join((generator, *file.parent.relative_to(path).parts))
            lines = read_metrics(file)
            curves[f"generator {where}"] = _lines(lines, "loss")
            # Of the networks drawn in training, where they were looked at.
            curves[f"samples in training, generator {where}"] = _lines(lines, SAMPLE_ACCURACY)
    return {title: lines for title, lines in curves.items() if lines}


def _lines(lines: list[dict[str, Json]], part: str) -> dict[str, np.ndarray]:
    """Return name -> points_P2 (step, value) of the metrics whose name has a part."""
    names = dict.fromkeys(key for line in lines for key in line if part in key)
    found = {
        name: np.array([(line["step"], line[name]) for line in lines if name in line], float)
        for name in names
    }
    return {name: points[np.isfinite(points[:, 1])] for name, points in found.items()}
