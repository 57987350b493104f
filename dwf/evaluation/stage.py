"""The stage: score generated networks against the zoo that their generators learnt from."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from dwf import preemption
from dwf.errors import ConfigError, RunConflict
from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.measure import FAMILIES, Baseline, Drawn, Measured, Yardstick, ensemble_size
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
from dwf.metrics import Progress, read_metrics
from dwf.run_folder import RunFolder, hold, write_text
from dwf.settings import flatten, read_yaml, to_dict
from dwf.training.loop import find_device
from dwf.zoo.store import Zoo

logger = logging.getLogger(__name__)

_SPLITS = ("train", "val", "test")
_LONGEST_LIST = 16


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
    with hold(root / "reports" / name):
        return _evaluate(config, root, name, zoo, samples)


def _evaluate(
    config: EvaluateConfig, root: Path, name: str, zoo: Zoo, samples: list[Zoo]
) -> Report:
    run = RunFolder(root / "reports" / name, config)
    fingerprints = {each.name: each.fingerprint for each in (zoo, *samples)}
    if run.summary is not None:
        if run.summary["fingerprints"] != fingerprints:
            raise RunConflict(
                f"{run.path} is about networks that are no longer those of "
                f"{', '.join(fingerprints)}: give another --name, or remove the folder"
            )
        logger.info("report %s is finished already: %s", name, run.path)
        return Report.load(run.path)
    device = find_device(config.device).type
    counts = [len(zoo.rows(split, "last")) for split in ("train", config.split)]
    size = ensemble_size([*counts, *(len(each) for each in samples)])
    settings = (device, config.split, config.batchnorm, config.workers, size)
    yardstick = Yardstick(zoo, zoo.load_data(), *settings)
    sets = marked(_measure_all(config, yardstick, samples), yardstick.limits)
    said = headline(sets, yardstick.limits)
    report = Report(
        name=name,
        config=to_dict(config),
        limits=yardstick.limits.to_json(),
        sets=tuple(sets),
        headline=(*said, ONE_NETWORK) if zoo.is_one_network else said,
        facts=_facts(root, zoo, samples) | {"evaluation": {"device": device} | _how(yardstick)},
        map_share=tuple(yardstick.axes_share_C.tolist()),
        fits={name: read_fit(path) for name, path in _generators(root, samples).items()},
    )
    report.save(run.path)
    figures = draw_figures(report, run.path, _curves(root, zoo, samples))
    environment = json.loads((run.path / "environment.json").read_text())
    write_text(run.path / "report.html", write_page(report, environment, figures))
    run.finish(headline=list(report.headline), fingerprints=fingerprints)
    return report


def _refuse_other_frame(zoo: Zoo, samples: list[Zoo]) -> None:
    """In another frame than that of its training networks every near-copy looks new."""
    expected = describe_origin(zoo, seed=0)["fingerprint"]
    for each in samples:
        provenance = each.facts.get("provenance") or {}
        if provenance.get("zoo_fingerprint", expected) == expected:
            continue
        if zoo.name in provenance.get("learnt_from", ()):
            own = provenance["zoo"]
            raise ConfigError(
                f"zoo = {zoo.name!r}: the networks of {each.name} have the architecture of "
                f"{own!r}, another of the zoos that their generator learnt from: evaluate them "
                f"against that one, with --zoo {own}"
            )
        raise ConfigError(
            f"zoo = {zoo.name!r}: the generator of {each.name} learnt from "
            f"{provenance.get('zoo')!r} of fingerprint {provenance['zoo_fingerprint']}, this "
            f"zoo has {expected}: evaluate samples against the zoo they were learnt from"
        )


def _measure_all(
    config: EvaluateConfig, yardstick: Yardstick, samples: list[Zoo]
) -> list[NetworkSet]:
    zoo, training, limits = yardstick.zoo, yardstick.training, yardstick.limits
    baselines = [
        (family, one)
        for family, kind in FAMILIES.items()
        for draw in kind.draws
        for one in draw(config, len(training))
    ]
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

    def add_baseline(family: str, baseline: Baseline) -> None:
        drawn = Drawn(baseline, training, yardstick.deviation_K, config.seed)
        compare = FAMILIES[family].is_compared
        add(baseline.title, family, yardstick.measure_drawn(drawn, compare))

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
        for family, baseline in baselines:
            add_baseline(family, baseline)
        for name, measured in generated.items():
            copies = yardstick.measure_copies(measured.nearest_S)
            add(f"nearest originals of {name}", "nearest", copies)
    return sets


def _how_drawn(zoo: Zoo) -> dict[str, Any]:
    """How the networks of a zoo of samples were selected, and on what condition, if they were."""
    told = zoo.facts.get("provenance") or {}
    found = {"selection": told["selection"]} if told.get("selection") else {}
    if told.get("condition") is not None:
        guidance = told.get("guidance", 1.0)
        found["condition"] = {"val_accuracy": told["condition"], "guidance": guidance}
    return found


def _how(yardstick: Yardstick) -> dict[str, Any]:
    """How networks with BatchNorm were scored; nothing for others."""
    if not yardstick.has_batchnorm:
        return {}
    scored = {"running statistics of samples and baselines": yardstick.batchnorm.score}
    return scored | {"images for BatchNorm": yardstick.scorer.num_images}


def _facts(root: Path, zoo: Zoo, samples: list[Zoo]) -> dict[str, dict[str, Any]]:
    """What was evaluated, as far as the folders tell; nothing of host or time."""
    described = {"network", "data", "seed", "recipe", "split_by", "provenance"}
    counts = {f"{split} networks": len(zoo.rows(split, "last")) for split in _SPLITS}
    about_zoo = {key: value for key, value in zoo.facts.items() if key in described}
    facts = {f"zoo {zoo.name}": counts | _scalars(about_zoo)}
    facts[f"how zoo {zoo.name} was made"] = _summary(zoo.path / "run")
    for each in samples:
        facts[f"samples {each.name}"] = _scalars(each.facts.get("provenance") or {})
        facts[f"how samples {each.name} were drawn"] = _summary(each.path / "run")
    for generator, path in _generators(root, samples).items():
        facts[f"generator {generator}"] = _summary(path)
        if (path / "config.yaml").exists():
            facts[f"settings of generator {generator}"] = _scalars(read_yaml(path / "config.yaml"))
    return {title: found for title, found in facts.items() if found}


def _generators(root: Path, samples: list[Zoo]) -> dict[str, Path]:
    provenances = [each.facts.get("provenance") or {} for each in samples]
    names = [str(one["generator"]) for one in provenances if "generator" in one]
    return {name: root / "runs" / name for name in names}


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
            curves[f"generator {where}"] = _losses(read_metrics(file))
    return {title: lines for title, lines in curves.items() if lines}


def _losses(lines: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    names = dict.fromkeys(key for line in lines for key in line if "loss" in key)
    found = {
        name: np.array([(line["step"], line[name]) for line in lines if name in line], float)
        for name in names
    }
    return {name: points[np.isfinite(points[:, 1])] for name, points in found.items()}
