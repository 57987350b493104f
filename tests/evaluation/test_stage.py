"""Whole reports where the answer is known: copies, fresh networks, broken ones; equal bytes."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dwf.datasets.config import DataConfig
from dwf.errors import (
    ConfigError,
    CorruptShard,
    DataUnavailable,
    RunConflict,
    ShapeMismatch,
    TooFewNetworks,
)
from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.report.drawing import TWO_COLUMNS
from dwf.evaluation.report.figures import training_curves
from dwf.evaluation.report.report import Report
from dwf.evaluation.stage import evaluate
from dwf.generators.learning import origin_facts
from dwf.run_folder import hold
from dwf.trackers import track_with
from dwf.zoo.store import Zoo, write_zoo
from tests.evaluation.by_hand import matched_distances
from tests.pages import read_page

QUICK = {"noise": (0.03,), "averages": (2, "all"), "count": 20}


def root_of(zoo):
    return zoo.path.parent.parent


def run(zoo, *samples, name="r", **changes):
    config = EvaluateConfig(zoo.name, tuple(one.name for one in samples), **(QUICK | changes))
    return evaluate(config, root_of(zoo), name=name)


def training_weights(zoo):
    return zoo.read(zoo.rows("train", "last"))


def row(report, title):
    return next(one for one in report.sets if one.title == title)


def test_trackers_show_what_came_of_each_set_of_samples(zoo, write_samples):
    track_with("tensorboard")
    try:
        report = run(zoo, write_samples("copies", training_weights(zoo)[[3, 3, 7]]), name="tracked")
    finally:
        track_with()
    folder = root_of(zoo) / "reports" / "tracked" / "tensorboard"
    board = EventAccumulator(str(folder)).Reload()
    shown = {
        name: board.Scalars(f"summary/samples.copies.{name}")[0].value
        for name in ("test_accuracy", "good_and_novel", "distance_ratio")
    }
    (copies,) = report.of("samples")
    assert shown["test_accuracy"] == pytest.approx(np.mean(copies.accuracy_S))
    assert shown["good_and_novel"] == 0 and shown["distance_ratio"] == pytest.approx(0, abs=1e-3)


def test_copies_are_never_novel_and_held_out_networks_are(zoo, write_samples):
    copies = write_samples("copies", training_weights(zoo)[[3, 3, 7]])
    report = run(zoo, copies)
    found = row(report, "copies")
    assert found.summary["good_and_novel"] == 0
    assert found.networks["distance"] == [0, 0, 0]
    assert found.networks["overlap"] == [1, 1, 1]
    assert found.networks["nearest"] == [103, 103, 107]
    nearest = row(report, "nearest originals of copies")
    assert nearest.networks["test_accuracy"] == found.networks["test_accuracy"]
    held_out = row(report, "held-out networks")
    assert held_out.n == 25 and held_out.summary["good_and_novel"] > 0.7
    assert held_out.summary["distance_ratio"]["median"] == pytest.approx(1, abs=0.1)


def test_networks_like_the_originals_pass(zoo, write_samples):
    fresh = write_samples("fresh", zoo.read(zoo.rows("test", "last")))
    report = run(zoo, fresh)
    assert row(report, "fresh").summary == row(report, "held-out networks").summary
    assert report.headline[0].startswith("fresh: generalising. ")
    assert "it beats every baseline" in report.headline[0]


def test_the_headline_says_that_copies_do_not_beat_the_baselines(zoo, write_samples):
    weights_ND = training_weights(zoo)
    noise = 0.01 * weights_ND.std(0) * np.random.default_rng(0).standard_normal(weights_ND.shape)
    report = run(zoo, write_samples("near", weights_ND + noise))
    assert report.headline[0].startswith(
        "near: copying. 0 % of the 30 networks of near are good and novel"
    )
    assert "does not beat the baselines" in report.headline[0]
    assert report.headline[1].startswith("100 % are copies of training networks")
    assert '"a network + noise of 0.03 std" is as accurate' in report.headline[1]


def test_every_sample_counts_also_the_broken_ones(zoo, write_samples):
    weights_ND = training_weights(zoo)[:10].copy()
    weights_ND[4] = 0  # the same answer to every image
    weights_ND[5] = 3e38  # logits overflow
    report = run(zoo, write_samples("broken", weights_ND))
    found = row(report, "broken")
    accuracy = found.networks["test_accuracy"]
    assert found.n == len(accuracy) == 10
    assert accuracy[4] < 0.2 and accuracy[5] == 0
    assert found.summary["test_accuracy"]["mean"] == pytest.approx(np.mean(accuracy))
    assert found.summary["test_accuracy"]["min"] == 0
    assert not found.networks["good_and_novel"][4] and not found.networks["good_and_novel"][5]


def test_originals_are_their_last_epoch_and_their_summary_is_their_numbers(zoo):
    report = run(zoo)
    originals = row(report, "originals (training)")
    rows = zoo.rows("train", "last")
    recorded = zoo.columns["test_accuracy"][rows]
    np.testing.assert_allclose(originals.values("test_accuracy"), recorded, atol=1e-12)
    weights_ND = training_weights(zoo)
    distance_N = matched_distances(zoo, weights_ND, weights_ND, leave_one_out=True)
    np.testing.assert_allclose(originals.values("distance"), distance_N, rtol=1e-6)
    assert report.limits["unit"] == pytest.approx(np.median(distance_N))
    assert report.limits["distance"] == pytest.approx(np.percentile(distance_N, 1))
    assert originals.summary["dispersion"] == 1
    held_out = zoo.read(zoo.rows("test", "last")).astype(np.float64)
    rms = [np.sqrt(((w - w.mean(0)) ** 2).sum() / (len(w) - 1)) for w in (held_out, weights_ND)]
    dispersion = row(report, "held-out networks").summary["dispersion"]
    assert dispersion == pytest.approx(rms[0] / rms[1])


def test_all_baselines_are_there(zoo, write_samples):
    report = run(zoo, write_samples("s", training_weights(zoo)))
    assert [one.title for one in report.sets if one.is_baseline] == [
        "a network + noise of 0.03 std",
        "average of 2",
        "average of all 30",
        "interpolation of two",
        "per-weight Gaussian",
        "PCA + Gaussian",
        "first layer of another",
        "each unit of another",
        "shuffled copies",
        "nearest originals of s",
    ]
    assert [one.n for one in report.sets if one.is_baseline] == [
        *(20, 20, 1, 20, 20, 20, 20, 20, 20, 30)
    ]
    assert row(report, "average of all 30").summary["dispersion"] is None


def test_markdown_page_and_json_hold_the_same_numbers(zoo, write_samples):
    report = run(zoo, write_samples("s", training_weights(zoo)))
    folder = root_of(zoo) / "reports" / "r"
    content = json.loads((folder / "report.json").read_text())
    markdown, page = (folder / "report.md").read_text(), read_page(folder / "report.html")
    for one in content["sets"]:
        accuracy = [100 * value for value in one["networks"]["test_accuracy"]]
        line = next(text for text in markdown.splitlines() if text.startswith(f"| {one['title']} "))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1] == one["summary"].get("mark", {"name": "-"})["name"]
        good = one["networks"]["good_and_novel"]
        ends = binomtest(sum(good), len(good)).proportion_ci(0.95, method="wilson")
        interval = f"[{100 * ends.low:.1f}, {100 * ends.high:.1f}]"
        assert cells[2] == f"{100 * np.mean(good):.1f} % {interval}"
        assert cells[3].startswith(f"{np.mean(accuracy):.2f}")
        if len(accuracy) > 1:
            assert cells[3].endswith(f"+- {np.std(accuracy, ddof=1):.2f}")
        for place, measure in enumerate(("distance_ratio", "behaviour_ratio", "units_ratio"), 4):
            assert cells[place] == f"{np.median(one['networks'][measure]):.3f}"
        assert cells[7] == str(len(accuracy)) == str(one["summary"]["n"])
        assert cells[8:11] == [f"{f(accuracy):.2f}" for f in (np.median, np.max, np.min)]
        assert cells[11] == f"{np.mean(one['networks']['overlap']):.3f}"
        shown = [cell.replace("+-", "&plusmn;") for cell in cells]
        shown[2] = shown[2].replace(interval, f'<span class="soft">{interval}</span>')
        assert all(f"<td>{cell}</td>" in page for cell in shown)
    assert Report.load(folder) == report
    for reason in report.reasons:
        assert reason in markdown and reason.replace('"', "&quot;").replace("'", "&#x27;") in page
    assert len(report.reasons) == len(report.sets) - 1, "all but the originals"


def test_a_report_of_before_there_were_marks_is_read(zoo, write_samples):
    run(zoo, write_samples("s", training_weights(zoo)))
    folder = root_of(zoo) / "reports" / "r"
    content = json.loads((folder / "report.json").read_text())
    del content["fits"]
    for one in content["sets"]:
        for name in ("mark", "copy", "average", "reach"):
            one["summary"].pop(name, None)
    (folder / "report.json").write_text(json.dumps(content))
    report = Report.load(folder)
    assert {one.mark for one in report.sets} == {"-"} and report.reasons == ()
    assert "## What the sets are" not in report.markdown() and "| s | - |" in report.markdown()


def test_the_page_needs_nothing_else(zoo):
    run(zoo)
    page = (root_of(zoo) / "reports" / "r" / "report.html").read_text()
    assert "http" not in page and "<script" not in page and "<link" not in page
    assert "src=" not in page and page.count("<svg ") == 2 * page.count("<figure>") == 8
    assert "`" not in page and page.count('<ul class="legend"><li>') == 1
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids)), "figures have names of their own"
    assert set(re.findall(r"url\(#([^)]*)\)", page)) <= set(ids)
    assert "#1d2430" not in page.split("</style>")[1], "ink is the colour of the page's text"
    assert "commit" in page.lower() and "cores" in page and "seed" in page.lower()


def test_equal_runs_write_equal_bytes(zoo, write_samples):
    samples = write_samples("s", training_weights(zoo))
    run(zoo, samples, name="r")
    folder = root_of(zoo) / "reports" / "r"
    first = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    shutil.rmtree(folder)
    run(zoo, samples, name="r")
    drawn = [name for name in first if name.endswith((".png", ".svg", ".pdf"))]
    assert len(drawn) == 4 * 5, "each figure as PNG, and as SVG and PDF of two widths"
    for name in ("report.json", "report.md", *drawn):
        assert (folder / name).read_bytes() == first[name], name


def test_a_run_that_was_killed_ends_with_the_same_report(zoo, write_samples, monkeypatch):
    samples = write_samples("s", training_weights(zoo))
    run(zoo, samples)
    folder = root_of(zoo) / "reports" / "r"
    whole = (folder / "report.json").read_bytes()
    shutil.rmtree(folder)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("dwf.evaluation.stage.draw_figures", raise_interrupt)
        run(zoo, samples)
    assert not (folder / "done.json").exists()
    run(zoo, samples)
    assert (folder / "report.json").read_bytes() == whole and (folder / "done.json").exists()


def raise_interrupt(*_, **__):
    raise KeyboardInterrupt


def test_two_processes_do_not_write_one_report(zoo):
    held = hold(root_of(zoo) / "reports" / "r")
    with held, pytest.raises(RunConflict, match="r is being worked on by process"):
        run(zoo)


def test_a_finished_report_is_read_not_made_again(zoo, monkeypatch):
    report = run(zoo)
    monkeypatch.setattr("dwf.evaluation.stage.Yardstick", raise_interrupt)
    assert run(zoo) == report
    with pytest.raises(RunConflict, match="count"):
        run(zoo, count=30)


def test_facts_of_runs_and_curves_are_found(zoo, write_samples):
    samples = write_samples("s", training_weights(zoo))
    density = {"kept_step": 3, "val_loss": 0.5}
    flow = {"round_trip": 0.01, "density": density}
    for folder, summary in (("zoos/z/run", {"closer": 0.5}), ("runs/flow", flow)):
        path = root_of(zoo) / folder
        path.mkdir(parents=True)
        (path / "done.json").write_text(json.dumps(summary))
    lines = [{"step": i, "train_loss": 1 / (i + 1), "seconds": 1.0} for i in range(5)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (root_of(zoo) / "runs/flow/metrics.jsonl").write_text(text)
    report = run(zoo, samples)
    assert report.facts["samples s"]["solver"] == "rk4"
    assert report.facts["generator flow"]["round_trip"] == "0.01"
    assert report.facts["how zoo z was made"]["closer"] == "0.5"
    assert (root_of(zoo) / "reports/r/curves.png").stat().st_size > 1000
    assert report.fits == {"flow": {"loss": {"step": 3, "train": 0.25, "val": 0.5}}}
    page = read_page(root_of(zoo) / "reports/r/report.html")
    assert "<td>loss at step 3</td><td>0.2500</td><td>0.5000</td><td>+100.0 %</td>" in page
    assert Report.load(root_of(zoo) / "reports/r") == report


def test_samples_of_another_layout_are_refused(zoo, make_zoo):
    other = make_zoo(5, (64, 4, 10), name="other")
    with pytest.raises(ShapeMismatch, match=r"other has another layout \(310 weights\).*\(610\)"):
        run(zoo, other)


def test_wrong_data_are_noticed(zoo):
    columns = {k: v for k, v in zoo.columns.items() if k != "checksum"}
    columns["test_accuracy"] = columns["test_accuracy"] - 0.02
    path = zoo.path.parent / "off"
    off = write_zoo(path, zoo.facts, num_rows=len(zoo), blocks=[(columns, zoo.read())])
    with pytest.raises(DataUnavailable, match=r"off: row 1 has test accuracy .*\(30 of 30 rows"):
        run(off)


def test_a_split_without_images_is_refused(zoo):
    columns = {k: v for k, v in zoo.columns.items() if k != "checksum"}
    facts = replace(zoo.facts, data=DataConfig("digits", validation=0))
    path = zoo.path.parent / "all"
    without = write_zoo(path, facts, num_rows=len(zoo), blocks=[(columns, zoo.read())])
    with pytest.raises(ConfigError, match=r"split = 'val': .*validation = 0.*--split test"):
        run(without, split="val")


def test_too_few_training_networks_are_refused(make_zoo):
    zoo = make_zoo(3, name="tiny")
    with pytest.raises(TooFewNetworks, match="needs 4"):
        run(zoo)


def test_a_flipped_bit_in_samples_is_noticed(zoo, write_samples):
    samples = write_samples("s", training_weights(zoo))
    file = samples.shards[0].path
    data = bytearray(file.read_bytes())
    at = data.find(training_weights(zoo)[2].tobytes())
    data[at + 5] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptShard):
        run(zoo, Zoo.open(samples.path))


def test_samples_without_networks_are_refused(zoo, write_samples):
    none = write_samples("none", training_weights(zoo)[:0])
    with pytest.raises(TooFewNetworks, match="none has no networks"):
        run(zoo, none)


def test_choices_see_nothing_of_the_test_networks_and_images(zoo, write_samples, monkeypatch):
    data = zoo.load_data()
    without_test = replace(data, test=None)
    monkeypatch.setattr(Zoo, "load_data", lambda self: without_test)
    report = run(zoo, write_samples("s", training_weights(zoo)), split="val")
    held_out = row(report, "held-out networks")
    assert held_out.networks["network"] == [130, 131, 132, 133, 134]
    assert "test_accuracy" not in held_out.networks and report.columns[3] == "val accuracy (%)"
    assert "for choices, not a result" in " ".join(report.headline)


def test_samples_of_another_zoo_are_refused(zoo, write_samples):
    """In another frame near-copies would look new."""
    weights_ND = training_weights(zoo)
    origin = origin_facts(zoo, seed=0)
    run(zoo, write_samples("own", weights_ND, zoo_fingerprint=origin["fingerprint"]))
    other = write_samples("other", weights_ND, zoo="raw", zoo_fingerprint="0123")
    with pytest.raises(ConfigError, match="other learnt from 'raw' of fingerprint 0123, this zoo"):
        run(zoo, other, name="r2")


def test_a_finished_report_of_networks_that_changed_is_refused(zoo, write_samples):
    run(zoo, write_samples("s", training_weights(zoo)))
    shutil.rmtree(zoo.path.parent / "s")
    with pytest.raises(RunConflict, match="no longer those of z, s"):
        run(zoo, write_samples("s", training_weights(zoo) + 1))


def test_a_curve_of_one_point_is_seen():
    curves = {"generator flow": {"val_loss": np.array([[400.0, 1.3]])}}
    curves["generator long"] = {"val_loss": np.array([[200.0, 1.4], [400.0, 1.3]])}
    single, line = (axes.lines[0] for axes in training_curves(curves, TWO_COLUMNS).axes)
    assert single.get_marker() == "o" and line.get_marker() == "None"
