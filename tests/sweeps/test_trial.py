"""A trial without Ray: its stages are those of the whole way, shared and never repeated."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from dwf.align.stage import align_zoo
from dwf.errors import ConfigError, RunConflict, WorkFailed
from dwf.evaluation.report.report import Report
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.networks.functional import score_networks
from dwf.run_folder import RunFolder
from dwf.sweeps import report as reports
from dwf.sweeps import stage
from dwf.sweeps.curves import write_curves
from dwf.sweeps.figures import draw_trials
from dwf.sweeps.grids import Grid
from dwf.sweeps.report import SweepReport, write_report
from dwf.sweeps.space import read_bases
from dwf.sweeps.trial import do_trial, read_records, record_path
from dwf.sweeps.trials import list_trials
from dwf.zoo.stage import train_zoo
from dwf.zoo.store import Zoo
from tests.evaluation.by_hand import matched_distances
from tests.sweeps.conftest import WIDTH


def begin(config, root, name="sweep"):
    """What `run_sweep` does before it starts trials."""
    folder = root / "sweeps" / name
    bases = read_bases(config)
    trials = list_trials(config, bases)
    RunFolder(folder, config)
    stage.begin_trials(config, bases, folder=folder)
    return folder, trials


def do(folder, trial):
    told = []
    do_trial(folder, trial.number, point=trial.point, tell=told.append)
    return told


@pytest.fixture(scope="module")
def swept(make, tmp_path_factory):
    """Four trials, two of which fail by their settings."""
    root = tmp_path_factory.mktemp("root")
    space = {"align": {"grid": [True, False]}, "generator.codec.components": {"grid": [9, 900]}}
    config = make(space)
    folder, trials = begin(config, root)
    for trial in trials:
        do(folder, trial)
    return config, folder, trials


def test_a_trial_is_what_the_stages_make_one_by_one(swept, tmp_path):
    _, folder, trials = swept
    trial = trials[0]
    train_zoo(trial.zoo, tmp_path, name=trial.zoo_name)
    align_zoo(trial.align, tmp_path, name=trial.frame)
    fit_generator(trial.generator, tmp_path, name=trial.generator_name)
    alone = sample_networks(trial.sample, tmp_path, name=trial.samples_name)
    shared = Zoo.open(folder / "zoos" / trial.samples_name)
    for one, other in zip(alone.shards, shared.shards, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()
    assert (folder / "runs" / trial.generator_name / "codec").is_symlink()


def test_its_numbers_are_those_of_its_samples_on_validation_images(swept):
    _, folder, trials = swept
    record = read_records(folder)[0]
    samples = Zoo.open(folder / "zoos" / trials[0].samples_name)
    state, data = samples.layout.unflatten(torch_of(samples.read())), samples.load_data()
    scores = score_networks(samples.build_network(), state, data=data, part=data.val)
    assert record["metrics"]["val_accuracy"] == pytest.approx(scores.accuracy_N.mean())
    assert record["metrics"]["n"] == len(samples) == 10
    assert set(record["seconds"]) >= {"zoo", "align", "codec", "generator", "sample", "trial"}


def torch_of(array):
    import torch

    return torch.from_numpy(array)


def test_shared_stages_ran_once_and_a_trial_that_is_over_is_left_alone(swept):
    _, folder, trials = swept
    assert len(list((folder / "zoos").glob("zoo-*"))) == 1
    assert len(list((folder / "zoos").glob("aligned-*"))) == 1
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    do(folder, trials[0])
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_setting_that_cannot_work_is_an_outcome(swept):
    _, folder, _ = swept
    states = [record["state"] for record in read_records(folder).values()]
    assert states == ["finished", "failed", "finished", "failed"]
    assert "900" in read_records(folder)[1]["reason"]


def test_a_lost_record_is_made_again_from_what_the_stages_left(swept, tmp_path):
    _, folder, trials = swept
    copy = tmp_path / "sweeps" / "sweep"
    shutil.copytree(folder, copy, symlinks=True)
    old = read_records(copy)[2]
    record_path(copy, 2).unlink()
    do(copy, trials[2])
    new = read_records(copy)[2]
    assert new | {"seconds": 0} == old | {"seconds": 0}
    assert new["seconds"]["generator"] < 5


def test_asha_hears_of_losses_but_not_of_the_last(make, tmp_path):
    config = make({WIDTH: {"grid": [8]}}, scheduler="asha", asha={"grace": 20})
    folder, (trial,) = begin(config, tmp_path)
    told = do(folder, trial)
    file = folder / "runs" / trial.generator_name / "metrics.jsonl"
    written = [json.loads(line) for line in file.read_text().splitlines()]
    losses = [(line["step"], line["val_loss"]) for line in written]
    assert [step for step, _ in losses] == [20, 40, 60]
    assert [(one["step"], one["val_loss"]) for one in told] == losses[:-1]


def test_a_finished_zoo_of_equal_settings_is_linked(make, tmp_path):
    config = make({"zoo.count": {"grid": [24, 25]}, "align": {"grid": [False]}})
    folder, (same, other) = begin(config, tmp_path)
    zoo = train_zoo(same.zoo, tmp_path, name="mine")
    settings = (
        zoo.path / "run" / "config.yaml"
    )  # as before dwf had a setting that is at its default
    text = settings.read_text()
    settings.write_text(text.replace("  precision: float32\n", ""))
    assert settings.read_text() != text
    before = {p: p.read_bytes() for p in zoo.path.rglob("*") if p.is_file()}
    for trial in (same, other):
        do(folder, trial)
    assert (folder / "zoos" / same.zoo_name).resolve() == zoo.path.resolve()
    assert not (folder / "zoos" / other.zoo_name).is_symlink()
    assert before == {p: p.read_bytes() for p in zoo.path.rglob("*") if p.is_file()}


def test_own_data_are_decoded_before_the_trials_which_find_them_without_a_path(
    make, way, tmp_path, monkeypatch
):
    """Moved meanwhile, in two sizes; zoos are named by what the data are, not by where they lay."""
    monkeypatch.setenv("DWF_DATA", str(tmp_path / "cache"))
    stream = np.random.default_rng(0)
    x, y = stream.integers(0, 256, (60, 4, 4), np.uint8), np.arange(60) % 2
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y)
    said = yaml.safe_load(Path(way["zoo"]).read_text()) | {"count": 2, "split": {}}
    said |= {"data": {"kind": "arrays", "path": str(tmp_path / "mine.npz"), "validation": 0.2}}
    (tmp_path / "zoo.yaml").write_text(yaml.safe_dump(said))
    sizes = {
        "zoo.data.size": {"grid": [4, 2]},
        "generator.density.training.batch_size": {"grid": [1]},
    }
    both = [{"kind": "mlp", "widths": [size * size, 3, 2]} for size in (4, 2)]
    config = make(
        sizes | {"zoo.network": {"grid": both}}, zoo=str(tmp_path / "zoo.yaml"), align=None
    )
    bases = read_bases(config)
    trials = list_trials(config, bases)
    kept = stage.without_paths(bases, trials)
    (tmp_path / "mine.npz").rename(tmp_path / "elsewhere.npz")
    folder = tmp_path / "sweeps" / "own"
    stage.begin_trials(config, kept, folder=folder)
    assert str(tmp_path / "mine") not in (folder / "stages.yaml").read_text()
    for trial in list_trials(config, kept):
        shape = trial.zoo.network.widths[0]
        if shape == trial.zoo.data.size**2:
            train_zoo(trial.zoo, folder, name=trial.zoo_name)
            assert Zoo.open(folder / "zoos" / trial.zoo_name).load_data().shape[1] ** 2 == shape
    moved = said["data"] | {"path": str(tmp_path / "elsewhere.npz"), "name": "mine.npz"}
    (tmp_path / "zoo.yaml").write_text(yaml.safe_dump(said | {"data": moved}))
    bases = read_bases(config)
    assert stage.without_paths(bases, list_trials(config, bases)) == kept


def test_stage_files_that_changed_meanwhile_are_refused(swept, tmp_path):
    config, folder, _ = swept
    bases = read_bases(config)
    next(iter(bases["generator"].values()))["seed"] = 5
    with pytest.raises(RunConflict, match=r"generator.*seed = None, which is now 5"):
        stage.merge_bases(folder, bases)


def test_stage_files_of_a_wider_grid_are_kept_with_those_of_trials_that_are_over(tmp_path):
    old = {"zoo": {"zoo.yaml": {"count": 3}}, "generator": {"a.yaml": {}, "b.yaml": {"seed": 1}}}
    new = {"zoo": {"zoo.yaml": {"count": 3}}, "generator": {"a.yaml": {}, "c.yaml": {"seed": 2}}}
    assert stage.merge_bases(tmp_path, old) == old
    (tmp_path / "stages.yaml").write_text(yaml.safe_dump(old))
    both = stage.merge_bases(tmp_path, new)
    assert list(both["generator"]) == ["a.yaml", "b.yaml", "c.yaml"]
    (tmp_path / "stages.yaml").write_text(yaml.safe_dump(both))
    assert stage.merge_bases(tmp_path, old) == both
    new["generator"]["c.yaml"] = {"seed": 3}
    with pytest.raises(RunConflict, match=r"generator.c.yaml.seed = 2, which is now 3"):
        stage.merge_bases(tmp_path, new)


def test_the_report_tests_all_and_chooses_on_validation_alone(swept, monkeypatch):
    config, folder, trials = swept
    finished = [trial for trial in trials if trial.number in (0, 2)]
    records = read_records(folder)
    scored = []
    own = reports._test

    def reversed_test(*arguments):  # were anything chosen by test scores, the choice would turn
        rows, names = own(*arguments)
        scored.append(rows)
        return {
            n: row | {"test_accuracy": 1 - row["test_accuracy"]} for n, row in rows.items()
        }, names

    monkeypatch.setattr(reports, "_test", reversed_test)
    report = write_report(config, "sweep", folder=folder, finished=finished, records=records)
    accuracies = {n: records[n]["metrics"]["val_accuracy"] for n in (0, 2)}
    assert report.best == max(accuracies, key=accuracies.get)
    assert set(scored[0]) == {0, 2} and len(report.rows) == 4
    monkeypatch.undo()
    report = write_report(config, "sweep", folder=folder, finished=finished, records=records)
    assert len(report.reports) == 2  # one for each frame of weights
    assert SweepReport.load(folder) == report
    for row in report.rows:
        assert ("test_accuracy" in row) == (row["state"] == "finished")
    samples = Zoo.open(folder / "zoos" / trials[0].samples_name)
    data = samples.load_data()
    state = samples.layout.unflatten(torch_of(samples.read()))
    scores = score_networks(samples.build_network(), state, data=data, part=data.test)
    np.testing.assert_allclose(report.rows[0]["test_accuracy"], scores.accuracy_N.mean())
    lines = (folder / "table.csv").read_text().splitlines()
    assert len(lines) == 5 and lines[0].startswith("trial,state,align,generator.codec.components")
    draw_trials(report, folder)
    assert (folder / "trials.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_small_scaling_study(make, way, tmp_path, monkeypatch):
    """Two sizes by two settings files: each size has its own zoo, limits and held-out networks."""
    gaussian = {"codec": {"kind": "flat"}, "density": {"kind": "gaussian"}}
    (tmp_path / "gaussian.yaml").write_text(yaml.safe_dump(gaussian))
    files = [way["generator"], str(tmp_path / "gaussian.yaml")]
    space = {"zoo.count": {"grid": [20, 40]}, "generator": {"grid": files}}
    config = make(space | {"align": {"grid": [False]}}, metric="good_and_novel")
    folder, trials = begin(config, tmp_path)
    for trial in trials:
        do(folder, trial)
    records = read_records(folder)
    assert [one["state"] for one in records.values()] == ["finished"] * 4
    report = write_report(config, "sweep", folder=folder, finished=trials, records=records)
    assert [row["generator"] for row in report.rows] == files * 2
    assert write_curves(report, folder) and (folder / "curves.png").stat().st_size > 10_000
    text = (folder / "curves.md").read_text()
    assert "| generator | 14 | 28 |" in text and "| gaussian | " in text
    for row, trial in zip(report.rows, trials, strict=True):
        tested = Report.load(folder / "reports" / row["report"])
        (ours,) = (one for one in tested.of("samples") if one.source == trial.samples_name)
        assert row["test_good_and_novel"] == ours.share and ours.n == row["n"] == 10
        (originals,), (ceiling,) = tested.of("originals"), tested.of("held-out")
        assert row["train_networks"] == originals.n == {20: 14, 40: 28}[row["zoo.count"]]
        known = {one["title"]: one for one in report.references[row["report"]]}
        assert known[ceiling.title]["good_and_novel"] == ceiling.share
        assert known[ceiling.title]["n"] == {20: 3, 40: 6}[row["zoo.count"]]
        assert {"per-weight Gaussian", "average of 2", "PCA + Gaussian"} < set(known)
    _check_record(report, folder, tmp_path / "results", monkeypatch)


def test_networks_learnt_from_are_an_axis(make, tmp_path):
    """Each size is judged by its own networks: against the same trial's numbers by brute force."""
    space = {"generator.networks": {"grid": [8, 12]}, "align": {"grid": [False]}}
    config = make(space, metric="distance_ratio")
    folder, trials = begin(config, tmp_path)
    assert [trial.generator.networks for trial in trials] == [8, 12]
    assert len({trial.zoo_name for trial in trials}) == 1
    assert len({trial.codec_name for trial in trials}) == 2, "each has its own codec"
    for trial in trials:
        do(folder, trial)
    records = read_records(folder)
    assert [one["state"] for one in records.values()] == ["finished"] * 2
    zoo = Zoo.open(folder / "zoos" / trials[0].frame)
    for trial, record in zip(trials, records.values(), strict=True):
        learnt_ND = zoo.read(zoo.rows("train", "last")[: trial.generator.networks])
        samples_SD = Zoo.open(folder / "zoos" / trial.samples_name).read()
        own_N = matched_distances(zoo, learnt_ND, learnt_ND, leave_one_out=True)
        ratio = np.median(matched_distances(zoo, samples_SD, learnt_ND)) / np.median(own_N)
        assert record["metrics"]["distance_ratio"] == pytest.approx(ratio)
    report = write_report(config, "sweep", folder=folder, finished=trials, records=records)
    assert len(report.reports) == 1, "all are of one zoo"
    assert [row["test_subset"] for row in report.rows] == ["first 8", "first 12"]
    assert {row["train_networks"] for row in report.rows} == {16}
    (tested,) = (Report.load(folder / "reports" / name) for name in report.reports)
    grid = Grid.of(report)
    for networks in (8, 12):
        beside = grid.references({"generator.networks": networks})
        (ceiling,) = (one for one in beside if one["family"] == "held-out")
        assert ceiling["good_and_novel"] == tested.of("held-out")[0].share
        shares = {one["title"]: one["good_and_novel"] for one in beside}
        expected = {
            one.bare_title: one.share
            for one in tested.sets
            if one.subset == f"first {networks}" and one.family not in ("samples", "nearest")
        }
        assert expected.items() <= shares.items() and len(shares) == len(expected) + 1
    assert write_curves(report, folder)
    text = (folder / "curves.md").read_text()
    assert "| settings | 8 | 12 |" in text and "Columns: networks learnt from" in text
    assert len(re.findall(r"^\| average of 2 \|", text, re.MULTILINE)) == 4, "a line in each table"


def _check_record(report, folder, results, monkeypatch):
    """What benchmarks/ keeps of it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from generalisation import record

    with pytest.raises(ConfigError, match=r"is not finished \(done.json is missing\)"):
        record(folder, results, machine="a machine")
    (folder / "done.json").write_text("{}")
    report.save(folder)
    record(folder, results, machine="a machine")
    kept = json.loads((results / "sweep.json").read_text())
    assert len(kept["trials"]) == 4 and kept["hardware"] == "a machine" and kept["commit"]
    spent = sum(one["seconds"]["trial"] for one in read_records(folder).values())
    assert kept["seconds"]["trial"] == pytest.approx(spent, abs=0.06)
    assert (results / "sweep.png").read_bytes() == (folder / "curves.png").read_bytes()
    assert "- hardware: a machine" in (results / "sweep.md").read_text()


def test_a_sweep_of_which_nothing_was_finished_is_no_success(make, tmp_path):
    config = make({"generator.codec.components": {"grid": [900]}, "align": {"grid": [False]}})
    folder, (trial,) = begin(config, tmp_path)
    do(folder, trial)
    with pytest.raises(WorkFailed, match=r"none of 1 trials(.|\n)*components = 900"):
        stage._finished_trials(read_bases(config), folder)


def test_a_restored_optuna_proposes_what_was_asked_and_then_something_new(make, tmp_path):
    from dwf.sweeps.search import OptunaSearch

    space = {"generator.density.training.learning_rate": {"log_uniform": [1e-5, 1e-1]}}
    config = make(space, search="optuna", trials=8)

    def propose(count: int) -> list[float]:
        search = OptunaSearch(config, tmp_path, todo=list(range(8)))
        return [*(search.suggest(str(i))["trial"]["point"].popitem()[1] for i in range(count))]

    first = propose(4)  # the driver dies before any of them is over
    again = propose(8)
    assert again[:4] == first and len(set(again)) == 8
