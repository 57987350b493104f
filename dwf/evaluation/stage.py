"""The stage: score generated networks against the zoo that their generators learnt from."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dwf import preemption
from dwf.devices import find_device
from dwf.errors import ConfigError, RunConflict
from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.measure import BASELINES, Baseline, Drawn, Measured, Yardstick, ensemble_size
from dwf.evaluation.report import (
    ONE_NETWORK,
    NetworkSet,
    Report,
    draw_figures,
    headline,
    marked,
    network_set,
    read_fit,
    write_page,
)
from dwf.generators.learning import describe_origin
from dwf.metrics import Progress, read_metrics, table_console
from dwf.run_folder import RunFolder, write_text
from dwf.settings import flatten, read_yaml, to_dict
from dwf.stages import Product, stage
from dwf.training.loop import SAMPLE_ACCURACY
from dwf.zoo.store import Zoo

REPORT = Product("report")
_TABLE_WIDTH = 156
_SPLITS = ("train", "val", "test")
_LONGEST_LIST = 16


def plan(config: EvaluateConfig, root: Path, name: str) -> str:
    """Return in words what `evaluate` would score, and where the report would lie."""
    sets = ", ".join(config.samples) or "no samples"
    return f"evaluate zoo {config.zoo}: {sets}, and the baselines -> {_folder(root, name)}"


def evaluate(config: EvaluateConfig, root: Path, name: str) -> Report:
    """Score samples, originals, held-out networks and all baselines; write the report.

    Every network of every set counts. Distances are taken in the zoo's own frame, into which
    samples are put first (see `Yardstick`): a copy whose units are shuffled is a copy.

    Args:
        config: which zoos, which baselines.
        root: folder that holds zoos/, runs/ and reports/.
        name: the report's name; it is written to root/reports/NAME.

    Returns:
        The report; read from disk where it is finished already.

    Raises:
        ConfigError: samples say that they were learnt from another zoo.
        RunConflict: the report is finished, and the zoos have changed since; or another process
            is at it.
        ShapeMismatch: samples of another layout than the zoo's.
        TooFewNetworks: the zoo has fewer than four training networks, or half of them are copies
            of others, or samples have none.
        DataUnavailable: networks do not have the accuracies that their zoo records.
    """
    zoo = Zoo.open(root / "zoos" / config.zoo)
    samples = [Zoo.open(root / "zoos" / each) for each in config.samples]
    _refuse_other_frame(zoo, samples)
    fingerprints = {each.name: each.fingerprint for each in (zoo, *samples)}
    refuse = partial(_refuse_other_networks, fingerprints=fingerprints)
    with stage(REPORT, _folder(root, name), config, refuse_other=refuse) as run:
        if run is None:
            return Report.load(_folder(root, name))
        device = find_device(config.device).type
        counts = [len(zoo.rows(split, "last")) for split in ("train", config.split)]
        size = ensemble_size([*counts, *(len(each) for each in samples)])
        settings = (device, config.split, config.batchnorm, config.workers, size)
        yardstick = Yardstick(zoo, zoo.load_data(), *settings)
        sets = marked(_measure_all(config, yardstick, samples), yardstick.limits)
        said = headline(sets, yardstick.limits)
        made = Report(
            name=name,
            config=to_dict(config),
            limits=yardstick.limits.to_json(),
            sets=tuple(sets),
            headline=(*said, ONE_NETWORK) if zoo.is_one_network else said,
            facts=_facts(root, zoo, samples) | {"evaluation": {"device": device} | _how(yardstick)},
            map_share=tuple(yardstick.axes_share_C.tolist()),
            fits={each: read_fit(path) for each, path in _generators(root, samples).items()},
        )
        made.save(run.path)
        figures = draw_figures(made, run.path, _curves(root, zoo, samples))
        environment = json.loads((run.path / "environment.json").read_text())
        write_text(run.path / "report.html", write_page(made, environment, figures))
        run.finish(headline=list(made.headline), fingerprints=fingerprints)
        return made


def report(made: Report, folder: Path) -> None:
    """Print the table of what `evaluate` found, what it says in words, and where the page lies."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(*made.columns, title=f"report {made.name}", box=SIMPLE, padding=(0, 1))
    for column in table.columns[1:]:
        column.justify = "right"
    for row, one in zip(made.table, made.sets, strict=True):
        table.add_row(*row, style="bold" if one.family == "samples" else None)
    console = table_console(_TABLE_WIDTH)
    console.print(table)
    for paragraph in (*made.notes, *made.headline):
        console.print(paragraph)
    print(f"report: {folder / 'report.html'}")


def _folder(root: Path, name: str) -> Path:
    return Path(root) / "reports" / name


def _refuse_other_networks(run: RunFolder, fingerprints: dict[str, str]) -> None:
    """Refuse a finished report on other networks than are there now."""
    if run.summary is not None and run.summary["fingerprints"] != fingerprints:
        raise RunConflict(
            f"{run.path} is about networks that are no longer those of "
            f"{', '.join(fingerprints)}: give another --name, or remove the folder"
        )


def _refuse_other_frame(zoo: Zoo, samples: list[Zoo]) -> None:
    """In another frame than that of its training networks every near-copy looks new."""
    expected = describe_origin(zoo, seed=0)["fingerprint"]
    for each in samples:
        sampled = each.facts.sampled
        if sampled is None or sampled.zoo_fingerprint == expected:
            continue
        if zoo.name in sampled.learnt_from:
            own = sampled.zoo
            raise ConfigError(
                f"zoo = {zoo.name!r}: the networks of {each.name} have the architecture of "
                f"{own!r}, another of the zoos that their generator learnt from: evaluate them "
                f"against that one, with --zoo {own}"
            )
        raise ConfigError(
            f"zoo = {zoo.name!r}: the generator of {each.name} learnt from "
            f"{sampled.zoo!r} of fingerprint {sampled.zoo_fingerprint}, this "
            f"zoo has {expected}: evaluate samples against the zoo they were learnt from"
        )


def _measure_all(
    config: EvaluateConfig, yardstick: Yardstick, samples: list[Zoo]
) -> list[NetworkSet]:
    zoo, training, limits = yardstick.zoo, yardstick.training, yardstick.limits
    baselines = [one for draw in BASELINES.values() for one in draw(config, len(training))]
    number = "step" if zoo.is_one_network and "step" in zoo.columns else "network"
    sets: list[NetworkSet] = []

    def add(
        title: str, family: str, measured: Measured, of: Zoo | None = None, **labels: np.ndarray
    ) -> None:
        labels["nearest"] = zoo.columns[number][training.rows][measured.nearest_S]
        more = {} if of is None else _how_drawn(of)
        if measured.ensemble is not None:
            more["ensemble"] = {"n": yardstick.ensemble, "accuracy": measured.ensemble}
        fixed = (limits, yardstick.originals.spread, config.split)
        sets.append(network_set(title, family, measured, *fixed, labels, **more))
        progress.update(len(sets))
        if preemption.is_asked():
            preemption.stop()

    def add_baseline(baseline: Baseline) -> None:
        drawn = Drawn(baseline, training, yardstick.deviation_K, config.seed)
        compare = baseline.family == "average"
        add(baseline.title, baseline.family, yardstick.measure_drawn(drawn, compare))

    def add_rows(title: str, family: str, of: Zoo, rows: np.ndarray) -> Measured:
        measured = yardstick.measure_zoo(of, rows, compare=True)
        named = number if of is zoo else "network"
        add(title, family, measured, of, network=of.columns[named][rows])
        return measured

    held_out = zoo.rows(split=config.split, epoch="last")
    total = 1 + bool(len(held_out)) + 2 * len(samples) + len(baselines)
    with Progress(f"evaluate {zoo.name}", total, "sets of networks") as progress:
        originals = zoo.columns[number][training.rows]
        add("originals (training)", "originals", yardstick.originals, network=originals)
        if len(held_out):
            add_rows("held-out networks", "held-out", zoo, held_out)
        generated = {
            each.name: add_rows(each.name, "samples", each, np.arange(len(each)))
            for each in samples
        }
        for baseline in baselines:
            add_baseline(baseline)
        for name, measured in generated.items():
            copies = yardstick.measure_copies(measured.nearest_S)
            add(f"nearest originals of {name}", "nearest", copies)
    return sets


def _how_drawn(zoo: Zoo) -> dict[str, Any]:
    """How the networks of a zoo of samples were selected, and on what condition, if they were."""
    told, found = zoo.facts.sampled, {}
    if told and told.selection:
        found["selection"] = told.selection
    if told and told.condition is not None:
        found["condition"] = {"val_accuracy": told.condition, "guidance": told.guidance}
    return found


def _how(yardstick: Yardstick) -> dict[str, Any]:
    """How networks with BatchNorm were scored; nothing for others."""
    if not yardstick.has_batchnorm:
        return {}
    scored = {"running statistics of samples and baselines": yardstick.batchnorm.score}
    return scored | {"images for BatchNorm": yardstick.scorer.num_images}


def _facts(root: Path, zoo: Zoo, samples: list[Zoo]) -> dict[str, dict[str, Any]]:
    """Return what was evaluated, as far as the folders tell; nothing of host or time."""
    described = {"network", "data", "seed", "recipe", "split_by", "provenance"}
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


def _summary(path: Path) -> dict[str, Any]:
    done = path / "done.json"
    return _scalars(json.loads(done.read_text())) if done.exists() else {}


def _scalars(data: dict[str, Any]) -> dict[str, Any]:
    short = {
        key: value
        for key, value in flatten(data).items()
        if not isinstance(value, (list, tuple)) or len(value) <= _LONGEST_LIST
    }
    return {key: f"{v:.4g}" if isinstance(v, float) else v for key, v in short.items()}


def _curves(root: Path, zoo: Zoo, samples: list[Zoo]) -> dict[str, dict[str, np.ndarray]]:
    """Title -> name of a line -> points_P2: accuracies of the zoo, losses of the generators.

    Of a zoo of one network all its rows, by step.
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


def _lines(lines: list[dict[str, Any]], part: str) -> dict[str, np.ndarray]:
    """Return name -> points_P2 (step, value) of the metrics whose name has a part."""
    names = dict.fromkeys(key for line in lines for key in line if part in key)
    found = {
        name: np.array([(line["step"], line[name]) for line in lines if name in line], float)
        for name in names
    }
    return {name: points[np.isfinite(points[:, 1])] for name, points in found.items()}
