"""An experiment: rows fail alone, a killed one ends with the same bytes, any split, other zoos.

What rows tell is held to the predictor fitted by hand, splits to a loop over networks.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dwf import preemption, trackers
from dwf.cluster import local
from dwf.cluster.backend import gpus_elsewhere
from dwf.cluster.config import ClusterLaunch
from dwf.compute import Gpus
from dwf.errors import (
    ConfigError,
    NotAZoo,
    Preempted,
    RunConflict,
    ShapeMismatch,
    TooFewNetworks,
    WorkFailed,
)
from dwf.predictors.config import ConstantConfig
from dwf.predictors.constant import Constant
from dwf.predictors.examples import Examples
from dwf.predictors.experiment import Experiment, read_truth
from dwf.predictors.prediction import predict_zoo
from dwf.predictors.predictor import Predictor
from dwf.predictors.row import Unit, do_row, read_told, units_of
from dwf.predictors.splits import parts_of
from dwf.predictors.stage import fit_predictors, plan, report_again, work
from dwf.run_folder import RunPart
from dwf.zoo.config import VaryConfig
from dwf.zoo.manifest import write_manifest
from dwf.zoo.store import Zoo
from tests.predictors.kinds import do_any_row, experiment, line, write_made_zoo
from tests.zoos import sampled

ROOT = Path(__file__).parents[2]
BYTES = ("predictor.pt", "told.npz", "told.json")
TWO = {"constant": {"kind": "constant"}, "line": line()}


def read_bytes(root: Path, name: str, *, files: tuple[str, ...] = BYTES) -> dict[str, bytes]:
    folder = root / "runs" / name / "rows"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.name in files
    }


def test_rows_tell_what_their_predictors_do_and_the_report_is_on_the_test_networks(tmp_path):
    zoo = write_made_zoo(tmp_path)
    config = experiment(seeds=2, properties=["sum", "generalisation_gap"])
    made = fit_predictors(config, tmp_path, name="run")
    rows = {part: zoo.rows(part, "last") for part in ("train", "test")}
    gap = zoo.columns["train_accuracy"].astype(float) - zoo.columns["test_accuracy"].astype(float)
    values = np.stack([zoo.columns["sum"], gap], 1)
    truth = read_truth(tmp_path / "runs/run")
    np.testing.assert_array_equal(truth.values_NP, values[rows["test"]])
    assert set(truth.zoo_N) == {"a"} and set(truth.architecture_N) == {"mlp-650"}
    told = read_told(tmp_path / "runs/run", Unit("constant", 1), config=config)
    np.testing.assert_allclose(told.values_NP, np.tile(values[rows["train"]].mean(0), (12, 1)))
    assert told.last_NP is None and told.access == "columns" and set(told.seconds) == {
        "fit", "predict"
    }  # fmt: skip
    assert list(made.lines())
    by_hand = Constant(ConstantConfig())
    train = Examples([(zoo, rows["train"])], config.properties, values[rows["train"]])
    by_hand.fit(train, train, run=RunPart(tmp_path / "hand"), seed=0)
    saved = Predictor.load(tmp_path / "runs/run/rows/constant/seed-0")
    np.testing.assert_array_equal(saved.mean_P, by_hand.mean_P)
    assert "2 of 2 are over and kept" in plan(config, tmp_path, name="run")
    assert work(tmp_path, name="run").device == "cpu"
    before = (tmp_path / "reports/run/report.json").stat().st_mtime_ns
    lock = tmp_path / "runs/run/run/lock"
    lock.unlink()
    fit_predictors(config, tmp_path, name="run")
    assert not lock.exists(), "what is finished may be a colleague's, and takes no lock"
    assert (tmp_path / "reports/run/report.json").stat().st_mtime_ns == before, "finished already"


def test_trackers_show_the_scores_of_the_report_beside_the_settings(tmp_path):
    write_made_zoo(tmp_path)
    rows = {name: {"kind": name} for name in ("constant", "statistics")}
    config = experiment(rows=rows, properties=["sum", "generalisation_gap"])
    trackers.track_with("tensorboard")
    made = fit_predictors(config, tmp_path, name="run")
    board = EventAccumulator(str(tmp_path / "runs/run/run/tensorboard")).Reload()
    shown = {tag: board.Scalars(tag)[-1].value for tag in board.Tags()["scalars"]}
    for row in rows:
        for property_ in config.properties:
            for metric in ("tau", "r2"):
                expected = made.entry(row, property_).scores[metric].mean
                found = shown.pop(f"summary/scores.{row}.{property_}.{metric}")
                assert found == pytest.approx(expected, rel=1e-6), (row, property_, metric)
    assert shown == {"summary/rows": 2, "summary/seeds": 1}
    assert "_hparams_/session_start_info" in board.summary_metadata


def test_a_killed_experiment_and_any_number_of_workers_end_with_the_same_bytes(
    lines, tmp_path, monkeypatch
):
    write_made_zoo(tmp_path)
    config = experiment(rows=TWO, seeds=2)
    fit_predictors(config, tmp_path, name="whole")
    whole = read_bytes(tmp_path, "whole")
    assert len(whole) == 2 * 2 * len(BYTES)

    def stop_in_a_row(units) -> None:
        """Do a row, and half of the next that trains; a launch that is killed then."""
        units.unit(units.folder, 0)
        looks = iter(range(9))  # the last of them in the middle of the training
        monkeypatch.setattr(preemption, "is_asked", lambda: next(looks, 9) == 9)
        do_row(units.folder, 2)

    with pytest.raises(Preempted):
        fit_predictors(config, tmp_path, name="again", run=stop_in_a_row)
    monkeypatch.undo()
    assert work(tmp_path, name="again").finished(tmp_path / "runs/again") == {0}
    assert list((tmp_path / "runs/again/rows/line/seed-0/checkpoints").iterdir())

    def with_workers(units) -> None:
        local.run(replace(units, unit=do_any_row), workers=2)

    fit_predictors(config, tmp_path, name="again", run=with_workers)
    assert read_bytes(tmp_path, "again") == whole


@pytest.mark.parametrize(("site", "each"), [(None, "process"), (4, "GPU"), (0, "process")])
def test_a_plan_counts_memory_by_what_computes_there(lines, tmp_path, monkeypatch, site, each):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    write_made_zoo(tmp_path)
    config = experiment(rows={"line": line(compute={"device": "auto"})})
    gpus = None if site is None else Gpus(site)
    assert f"memory per {each}: weights" in plan(config, tmp_path, name="run", gpus=gpus)


def test_a_launch_asks_the_site_for_its_gpus(tmp_path):
    file = tmp_path / "site.yaml"
    file.write_text("{gpus_per_node: 4, cpus_per_node: 8, gpu_memory_gb: 80}")
    folder = tmp_path / "runs" / "one"
    assert gpus_elsewhere(ClusterLaunch(tmp_path, nodes=2, cluster=file), folder) == Gpus(4, 80)
    assert gpus_elsewhere(ClusterLaunch(tmp_path), folder) is None


def test_the_chosen_step_and_the_last_one_are_told(lines, tmp_path):
    write_made_zoo(tmp_path)
    config = experiment(rows={"best": line(), "last": line(keep="last")})
    fit_predictors(config, tmp_path, name="run")
    best, last = (
        read_told(tmp_path / "runs/run", unit, config=config) for unit in units_of(config)
    )
    np.testing.assert_array_equal(best.last_NP, last.values_NP)
    assert last.last_NP is None and best.facts["parameters"] == 651
    said = plan(config, tmp_path, name="other")
    assert "36 networks for training, 12 for choices and 12 for the test, split by own" in said
    assert "651 parameters" in said and not (tmp_path / "runs/other").exists()


def test_a_row_that_fails_says_why_the_others_finish_and_it_is_mended(lines, tmp_path):
    write_made_zoo(tmp_path)
    rows = {"large": line(batch_size=512), "constant": {"kind": "constant"}}
    with pytest.raises(WorkFailed, match=r"1 of the rows of .*runs/run failed") as error:
        fit_predictors(experiment(rows=rows), tmp_path, name="run")
    assert "large (seed 0): 36 training networks are fewer than batch_size" in str(error.value)
    kept = (tmp_path / "runs/run/rows/constant/seed-0/told.json").stat().st_mtime_ns
    assert (tmp_path / "reports/run/report.json").exists()
    fit_predictors(experiment(rows=rows | {"large": line()}), tmp_path, name="run")
    assert (tmp_path / "runs/run/rows/constant/seed-0/told.json").stat().st_mtime_ns == kept
    with pytest.raises(RunConflict, match=r"rows.large.training.steps = 30, this one has 20"):
        fit_predictors(experiment(rows=rows | {"large": line(steps=20)}), tmp_path, name="run")


def test_some_rows_now_others_and_more_seeds_later_and_the_report_again(lines, tmp_path):
    write_made_zoo(tmp_path)
    config = experiment(rows=TWO, only=["constant"])
    fit_predictors(config, tmp_path, name="run")
    folder = tmp_path / "runs/run/rows"
    assert not (folder / "line").exists()
    made = fit_predictors(experiment(rows=TWO, only=["line"], seeds=2), tmp_path, name="run")
    assert {row.name for row in made.rows} == {"constant", "line"}
    assert (folder / "line/seed-1").exists() and not (folder / "constant/seed-1").exists()

    shutil.rmtree(tmp_path / "zoos")
    shutil.rmtree(tmp_path / "reports")
    again = report_again(experiment(rows=TWO, only=["line"]), tmp_path, name="run")
    assert {row.name: row.seeds for row in again.rows} == {"line": (0, 1)}
    write_made_zoo(tmp_path)
    made = fit_predictors(experiment(rows=TWO, only=["line"]), tmp_path, name="run")
    assert {row.name: row.seeds for row in made.rows} == {"constant": (0,), "line": (0, 1)}
    made = predict_zoo(experiment(rows=TWO), tmp_path, name="run", zoo="a")
    assert made.rows == ("constant/seed-0", "line/seed-0", "line/seed-1")
    with pytest.raises(RunConflict, match="holds no experiment"):
        report_again(config, tmp_path, name="nowhere")
    with pytest.raises(ConfigError, match=r"rows = \['lines'\]: the rows are constant, line"):
        experiment(rows=TWO, only=["lines"])


def test_rows_begin_at_the_weights_of_a_file(lines, tmp_path):
    write_made_zoo(tmp_path)
    fit_predictors(experiment(rows=TWO), tmp_path, name="first")
    file = tmp_path / "runs/first/rows/line/seed-0/predictor.pt"
    still = {"line": line(learning_rate=1e-30, keep="last")}
    fit_predictors(experiment(rows=still, resume_from=str(file)), tmp_path, name="second")
    before, after = (
        np.load(tmp_path / f"runs/{name}/rows/line/seed-0/told.npz")["values"]
        for name in ("first", "second")
    )
    np.testing.assert_array_equal(before, after)
    with pytest.raises(ConfigError, match=r"of the kind line, and no row of that kind trains"):
        fit_predictors(experiment(resume_from=str(file)), tmp_path, name="third")
    with pytest.raises(ConfigError, match=r"no such file, called predictor\.pt"):
        fit_predictors(experiment(resume_from=str(tmp_path / "a.pt")), tmp_path, name="third")
    other = experiment(rows=still, resume_from=str(file), properties=["test_accuracy"])
    with pytest.raises(WorkFailed, match=r"weights that tell sum, and is to tell test_accuracy"):
        fit_predictors(other, tmp_path, name="third")
    other = experiment(rows={"line": still["line"] | {"targets": "ranks"}}, resume_from=str(file))
    words = r"is finished:\n  it would begin at .* targets = deviations, and is to tell targets = r"
    with pytest.raises(WorkFailed, match=words):
        fit_predictors(other, tmp_path, name="fourth")


# --- which networks -------------------------------------------------------------------------------


def parts(root: Path, zoos: list[Zoo], **split) -> list[np.ndarray]:
    config = experiment(zoos=[zoo.name for zoo in zoos], split=split, seed=3)
    return parts_of(config.split, zoos, seed=config.seed)


def test_a_split_by_network_keeps_rows_of_one_together(tmp_path):
    zoos = [write_made_zoo(tmp_path, name, seed=seed) for seed, name in enumerate("ab")]
    both = parts(tmp_path, zoos, by="network", val=0.1, test=0.3)
    for zoo, part_N in zip(zoos, both, strict=True):
        for network in range(60):
            assert len(set(part_N[zoo.columns["network"] == network])) == 1
        counts = {name: int((part_N == name).sum()) for name in ("train", "val", "test")}
        assert counts == {"train": 72, "val": 12, "test": 36}
    assert (both[0] != both[1]).any(), "each zoo's own draw"
    np.testing.assert_array_equal(both[0], parts(tmp_path, zoos, by="network", test=0.3)[0])


def test_a_split_by_draw_keeps_hyper_parameters_together_over_zoos(tmp_path):
    vary = VaryConfig(learning_rate=(0.1, 0.2))
    zoos = [write_made_zoo(tmp_path, name, vary=vary) for name in "ab"]
    both = parts(tmp_path, zoos, by="draw", val=0.2, test=0.2)
    of = {}
    for zoo, part_N in zip(zoos, both, strict=True):
        for rate, part in zip(zoo.columns["learning_rate"], part_N, strict=True):
            assert of.setdefault(rate, part) == part
    assert sorted(of.values()) == ["test"] * 2 + ["train"] * 6 + ["val"] * 2
    with pytest.raises(ConfigError, match=r"split.by = 'draw': .*zoos/c varies no hyper-param"):
        parts(tmp_path, [write_made_zoo(tmp_path, "c")], by="draw")


@pytest.mark.parametrize(("by", "group"), [("zoo", "b"), ("architecture", "mlp-325")])
def test_whole_groups_are_held_out(tmp_path, by, group):
    zoos = [write_made_zoo(tmp_path, "a"), write_made_zoo(tmp_path, "b", width=5)]
    first, second = parts(tmp_path, zoos, by=by, held_out=[group])
    assert set(second) == {"test"} and set(first) == {"train", "val", ""}
    with pytest.raises(ConfigError, match=r"split.held_out = \['c'\]: the zoos, by .*, are"):
        parts(tmp_path, zoos, by=by, held_out=["c"])
    truth = Experiment.decide(
        experiment(zoos=["a", "b"], split={"by": by, "held_out": [group]}), tmp_path
    ).parts["test"]
    assert [len(rows) for rows in truth.rows] == [0, 60]


def test_whole_data_sets_are_held_out_and_manifests_name_zoos(tmp_path):
    from dwf.datasets.config import DataConfig

    zoos = [write_made_zoo(tmp_path, "a"), write_made_zoo(tmp_path, "b", data=DataConfig("iris"))]
    first, second = parts(tmp_path, zoos, by="data", held_out=["iris"])
    assert set(second) == {"test"} and "test" not in first
    write_manifest(tmp_path / "zoos/both", {"x": "a", "y": "b"})
    origin = Experiment.decide(experiment(zoos=["both"]), tmp_path).origin
    assert [one.name for one in origin.zoos] == ["a", "b"]
    with pytest.raises(ConfigError, match="one is named twice"):
        Experiment.decide(experiment(zoos=["both", "a"]), tmp_path)


def test_all_epochs_or_the_last_one_count(tmp_path):
    zoo = write_made_zoo(tmp_path)
    last, every, learn_all = (
        {
            name: part.rows[0]
            for name, part in Experiment.decide(experiment(epochs=which), tmp_path).parts.items()
        }
        for which in ("last", "all", "learn_all")
    )
    assert (zoo.columns["epoch"][last["train"]] == 2).all()
    assert len(every["train"]) == 2 * len(last["train"])
    np.testing.assert_array_equal(learn_all["train"], every["train"])
    said = plan(experiment(epochs="learn_all"), tmp_path, name="run")
    assert "72 rows of networks for training, 12 for choices" in said
    for name in ("val", "test"):
        np.testing.assert_array_equal(learn_all[name], last[name])


# --- bad input ------------------------------------------------------------------------------------


def test_what_cannot_be_told_is_refused_and_leaves_nothing(tmp_path):
    some = np.ones(120)
    some[[3, 8]] = np.nan  # row 3 is the last of its network, row 8 is not
    columns = {"same": np.ones(120), "some": np.arange(120) * some, "val_accuracy": None}
    write_made_zoo(tmp_path, columns=columns)
    write_made_zoo(tmp_path, "b", columns={"sum": None})
    write_made_zoo(tmp_path, "few", count=4)
    write_made_zoo(tmp_path, "ten", count=10)
    cases = [
        (experiment(properties=["some"]), "some of 1 of the 60 networks of .* row 3"),
        (experiment(properties=["same"]), "same is 1 of all 36 networks for train"),
        (
            experiment(properties=["lost"]),
            r"no property 'lost'; it has epoch, generalisation_gap, ",
        ),
        (experiment(properties=["optimizer"]), r"optimizer of .*zoos/a holds words \(as 'adam'\)"),
        (experiment(zoos=["a", "b"]), r"zoos/b has no property 'sum'"),
        (experiment(zoos=["few"]), r"held apart as test: give --split.by network"),
        (experiment(zoos=["few"], split={"by": "network"}), r"0 networks for val, at least 1"),
        (experiment(zoos=["c"]), r"zoos/c is not a zoo"),
        (experiment(zoos=["ten"]), r"2 networks for test, at least 3 expected .* are 6, 2, 2\)"),
        (experiment(zoos=["ten"], epochs="all"), r"2 networks for test, at least 3"),
    ]
    for config, words in cases:
        with pytest.raises((ConfigError, TooFewNetworks, NotAZoo), match=words):
            fit_predictors(config, tmp_path, name="run")
    assert not (tmp_path / "runs").exists() and not (tmp_path / "reports").exists()
    left = Experiment.decide(experiment(properties=["some"], missing="leave_out"), tmp_path)
    assert left.origin.left_out == 1 and sum(left.origin.counts.values()) == 59
    with pytest.raises(ConfigError, match="by = 'zoo' needs held_out"):
        experiment(split={"by": "zoo"})


def test_other_networks_and_other_folders_are_refused(tmp_path):
    write_made_zoo(tmp_path)
    fit_predictors(experiment(), tmp_path, name="run")
    shutil.rmtree(tmp_path / "zoos/a")
    write_made_zoo(tmp_path, seed=1)
    with pytest.raises(RunConflict, match=r"was begun with a of fingerprint .*give another --na"):
        fit_predictors(experiment(), tmp_path, name="run")
    (tmp_path / "runs/generator").mkdir()
    (tmp_path / "runs/generator/config.yaml").write_text("zoo: a\n")
    with pytest.raises(RunConflict, match="runs/generator is of another stage"):
        fit_predictors(experiment(), tmp_path, name="generator")


# --- other zoos -----------------------------------------------------------------------------------


def test_fitted_rows_tell_of_another_zoo(lines, tmp_path):
    write_made_zoo(tmp_path)
    fit_predictors(experiment(rows=TWO), tmp_path, name="run")
    other = write_made_zoo(tmp_path, "other", seed=7)
    made = predict_zoo(experiment(rows=TWO), tmp_path, name="run", zoo="other")
    assert made.rows == ("constant/seed-0", "line/seed-0") and not made.refused
    with np.load(tmp_path / "runs/run/predicted/other/line/seed-0.npz") as file:
        columns = dict(file)
    np.testing.assert_array_equal(columns["checksum"], other.columns["checksum"])
    line = Predictor.load(tmp_path / "runs/run/rows/line/seed-0")
    expected = line.predict([(other, np.arange(len(other)))])
    np.testing.assert_array_equal(columns["sum"], expected[:, 0])
    score = made.scores[1]
    assert score.mae == pytest.approx(np.abs(expected[:, 0] - other.columns["sum"]).mean())
    assert made.out_of_distribution < 12, "they are drawn as those that were learnt from"
    said = json.loads((made.folder / "predicted.json").read_text())
    assert said["fingerprint"] == other.fingerprint and said["networks"] == 120
    assert {file.name for file in made.folder.glob("*.png")} == {"sum.png"}

    shutil.rmtree(tmp_path / "zoos/other")
    write_made_zoo(tmp_path, "other", seed=8)
    with pytest.raises(RunConflict, match=r"predicted/other is of a zoo other of fingerprint"):
        predict_zoo(experiment(rows=TWO), tmp_path, name="run", zoo="other")
    with pytest.raises(RunConflict, match="holds no experiment"):
        predict_zoo(experiment(rows=TWO), tmp_path, name="nowhere", zoo="other")


def test_a_row_that_misses_a_column_is_refused_by_name_and_the_others_tell(tmp_path):
    write_made_zoo(tmp_path)
    told = {"kind": "hyper_parameters", "columns": ["learning_rate"], "head": {"kind": "ridge"}}
    config = experiment(rows={"constant": {"kind": "constant"}, "rates": told})
    fit_predictors(config, tmp_path, name="run")
    write_made_zoo(tmp_path, "other", columns={"learning_rate": None})
    made = predict_zoo(config, tmp_path, name="run", zoo="other")
    assert made.rows == ("constant/seed-0",)
    assert "has no column learning_rate" in made.refused["rates/seed-0"]


def test_networks_that_are_far_or_of_another_layout_are_flagged(tmp_path):
    zoo = write_made_zoo(tmp_path)
    fit_predictors(experiment(), tmp_path, name="run")
    from dwf.zoo.store import write_zoo

    columns = {name: zoo.columns[name] for name in ("network", "epoch", "split")}
    blocks = [(columns, 3 * zoo.read())]
    write_zoo(tmp_path / "zoos/far", zoo.facts, num_rows=120, blocks=blocks)
    made = predict_zoo(experiment(), tmp_path, name="run", zoo="far")
    assert made.out_of_distribution == 120 and not made.scores
    assert any("measured of this zoo" in text for text in made.lines())
    write_made_zoo(tmp_path, "drawn", provenance=sampled())
    made = predict_zoo(experiment(), tmp_path, name="run", zoo="drawn")
    assert made.out_of_distribution == 120 and "a generator drew them" in made.why
    write_made_zoo(tmp_path, "wide", width=20)
    made = predict_zoo(experiment(), tmp_path, name="run", zoo="wide")
    assert made.out_of_distribution == 120 and "no such layout" in made.why


def test_a_layout_that_no_row_knows_is_refused(lines, tmp_path, monkeypatch):
    write_made_zoo(tmp_path)
    config = experiment(rows={"line": line()})
    fit_predictors(config, tmp_path, name="run")

    def refuse(*_):
        raise ShapeMismatch("a layout that it does not know")

    monkeypatch.setattr("tests.predictors.kinds.Line.predict", refuse)
    with pytest.raises(ShapeMismatch, match="does not know"):
        predict_zoo(config, tmp_path, name="run", zoo="a")
    assert not (tmp_path / "runs/run/predicted").exists()


def test_networks_of_which_a_row_tells_no_number_are_in_no_score(lines, tmp_path, monkeypatch):
    zoo = write_made_zoo(tmp_path)
    config = experiment(rows={"line": line()})
    fit_predictors(config, tmp_path, name="run")

    def overflow(self, sources):
        return np.where(np.arange(120) < 3, np.nan, zoo.columns["sum"] + 1)[:, None]

    monkeypatch.setattr("tests.predictors.kinds.Line.predict", overflow)
    (score,) = predict_zoo(config, tmp_path, name="run", zoo="a").scores
    assert score.networks == 117 and score.mae == pytest.approx(1.0)
    monkeypatch.setattr("tests.predictors.kinds.Line.predict", lambda *_: np.full((120, 1), np.nan))
    assert not predict_zoo(config, tmp_path, name="run", zoo="a").scores


@pytest.mark.slow
def test_the_script_plans_fits_and_predicts(tmp_path):
    write_made_zoo(tmp_path)
    told = {"zoos": ["a"], "properties": ["sum"], "rows": {"constant": {"kind": "constant"}}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(told))

    def run(*words: str) -> str:
        command = [sys.executable, "launch/predictor.py", "--config", str(tmp_path / "small.yaml")]
        command += ["--root", str(tmp_path), *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    said = run("--dry-run", "--rows", "constant")
    assert "36 networks for training" in said and "only" in said
    assert not (tmp_path / "runs").exists()
    assert "report in" in run("--workers", "1")
    assert "a: 1 rows told of 120 networks" in run("--predict", "a")
