"""What a report says of fits: losses of the step that was kept, and errors of means by hand."""

import json
import math

import pytest

from dwf.evaluation.report.fits import FIT_COLUMNS, are_equal, fit_rows, read_fit


def nats(mean, std=0.1, n=64):
    return {"nats_per_number": mean, "std": std, "n": n}


def write_run(path, density, losses=()):
    path.mkdir()
    (path / "done.json").write_text(json.dumps({"codec": {}, "density": density}))
    lines = [{"step": 10 * (i + 1), "train_loss": loss} for i, loss in enumerate(losses)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_losses_are_those_of_the_step_whose_weights_were_kept(tmp_path):
    density = {"steps": 30, "kept_step": 20, "val_loss": 0.44, "device": "cpu"}
    run = write_run(tmp_path / "flow", density, losses=(0.9, 0.4, 0.3))
    assert read_fit(run) == {"loss": {"step": 20, "train": 0.4, "val": 0.44}}
    row = ("flow", "loss at step 20", "0.4000", "0.4400", "+10.0 %", "-")
    assert fit_rows({"flow": read_fit(run)}) == [row]
    assert len(row) == len(FIT_COLUMNS)


@pytest.mark.parametrize(
    ("train", "val", "shown"),
    [
        (0.0004, 0.003, ("0.0004", "0.003", "7.5 times")),
        (0.2, 0.5, ("0.2000", "0.5000", "2.5 times")),
        (0.5, 0.6, ("0.5000", "0.6000", "+20.0 %")),
        (-0.1, 0.1, ("-0.1000", "0.1000", "-")),
    ],
)
def test_losses_near_0_are_compared_by_a_factor(train, val, shown):
    fits = {"flow": {"loss": {"step": 1, "train": train, "val": val}}}
    assert fit_rows(fits)[0][2:5] == shown


def test_what_was_not_recorded_is_not_shown(tmp_path):
    assert read_fit(tmp_path / "none") == {}
    assert read_fit(write_run(tmp_path / "kde", {"val_log_likelihood": -3.0})) == {}
    without_val = {"kept_step": 10, "val_loss": None}
    assert read_fit(write_run(tmp_path / "no_val", without_val, losses=(0.9,))) == {}
    assert fit_rows({"none": {}}) == []


def test_likelihoods_stand_next_to_each_other(tmp_path):
    found = {"train": nats(1.25), "val": nats(1.2, n=32), "of": "codes"}
    run = write_run(tmp_path / "flow", {"likelihood": found})
    cells = fit_rows({"flow": read_fit(run)})[0][1:]
    # Standard error sqrt(0.01 / 64 + 0.01 / 32) = 0.0217; 1.96 of them are 0.0424.
    assert cells == (
        "nats per number of codes",
        "1.2500 +- 0.1000 (n = 64)",
        "1.2000 +- 0.1000 (n = 32)",
        "-0.0500",
        "no",
    )
    for val, shown in ((None, "-"), (nats(None, None), "-")):
        cells = fit_rows({"flow": {"likelihood": found | {"val": val}}})[0]
        assert cells[3:] == (shown, "-", "-")


@pytest.mark.parametrize(("difference", "equal"), [(0.0345, True), (0.0348, False)])
def test_means_are_equal_within_their_errors(difference, equal):
    # Standard error sqrt(2 * 0.01 / 64) = 0.017678; 1.96 of them are 0.034648.
    assert math.isclose(1.96 * math.sqrt(2 * 0.01 / 64), 0.034648, rel_tol=1e-4)
    assert are_equal(nats(1.0), nats(1.0 + difference)) is equal
    assert are_equal(nats(1.0), nats(1.0 - difference)) is equal
    assert are_equal(nats(1.0), nats(1.0, std=None, n=1)) is None
