"""`log.txt`: what a person would have seen is in the folder of the run, of each attempt."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from dwf import screen, trackers
from dwf.errors import DwfError
from dwf.metrics import Progress, Whole, duration, part_of
from dwf.stages import Product, stage

logger = logging.getLogger("dwf.test")
GENERATOR = Product("generator")


def command(folder: Path, *, fails: bool = False, inner: Path | None = None) -> None:
    """A command that prints its plan, makes a run and reports on it."""
    with screen.kept():
        print("the plan")
        with stage(GENERATOR, folder, config={"a": 1}) as run:
            if run is None:
                return
            logger.warning("a line")
            (folder / "result").touch()
            if inner is not None:
                with stage(GENERATOR, inner, config={"b": 2}):
                    logger.warning("a line of both")
            if fails:
                raise DwfError("the disk is full")
            run.finish()
        print("\x1b[1mthe report\x1b[0m")


def lines(folder: Path) -> list[str]:
    return (folder / "log.txt").read_text().splitlines()


def test_what_was_printed_and_logged_is_kept_of_each_attempt(tmp_path, capsys, caplog):
    caplog.set_level("INFO", "dwf")
    with pytest.raises(DwfError):
        command(tmp_path, fails=True)
    first = lines(tmp_path)
    assert first[0] == "the plan" and first[1].endswith(" a line")
    assert first[-1] == "error: the disk is full"
    command(tmp_path)
    assert lines(tmp_path)[: len(first)] == first
    assert lines(tmp_path)[len(first)] == "the plan" and lines(tmp_path)[-1] == "the report"
    assert capsys.readouterr().out.endswith("\x1b[1mthe report\x1b[0m\n"), "the screen has colours"
    before = lines(tmp_path)
    command(tmp_path)  # a finished run may be another user's: nothing is written
    assert lines(tmp_path) == before
    assert caplog.messages[-1].endswith(f"is finished already: {tmp_path}")


def test_runs_within_a_run_have_their_own_lines_and_it_has_all(tmp_path):
    command(tmp_path / "outer", inner=tmp_path / "inner")
    assert [line[20:] for line in lines(tmp_path / "inner")] == ["a line of both"]
    assert "a line of both" in (tmp_path / "outer" / "log.txt").read_text()


def test_a_pipeline_has_the_screens_of_its_commands(tmp_path):
    with screen.kept(), screen.kept_in(tmp_path):
        (tmp_path / "one").mkdir()
        command(tmp_path / "one")
        command(tmp_path / "two")
    assert lines(tmp_path).count("the report") == 2
    for name in ("one", "two"):
        assert lines(tmp_path / name).count("the report") == 1
    before = lines(tmp_path)
    command(tmp_path / "three")
    assert lines(tmp_path) == before, "the pipeline is over"


def test_without_a_command_nothing_is_kept_and_the_output_is_as_it_was(tmp_path):
    out = sys.stdout
    with stage(GENERATOR, tmp_path, config={"a": 1}):
        logger.warning("a line")
    command(tmp_path / "one")
    assert not (tmp_path / "log.txt").exists() and sys.stdout is out


@pytest.mark.parametrize("tracker", ["none", "tensorboard"])
def test_a_refused_run_is_free_for_other_settings(tmp_path, tracker):
    """The log is a record and no result, and so is which trackers a run was begun with."""
    trackers.track_with(tracker)
    with pytest.raises(DwfError), screen.kept(), stage(GENERATOR, tmp_path, config={"a": 1}):
        raise DwfError("wrong")
    with stage(GENERATOR, tmp_path, config={"a": 2}) as run:
        assert run.config == {"a": 2}


def test_a_bar_leaves_a_line_a_minute_and_its_end(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("dwf.metrics.time.monotonic", lambda: now[0])
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with screen.kept(), screen.kept_in(tmp_path), Progress("train", 100, unit="steps") as bar:
        assert bar._bar is not None
        for second in range(0, 210, 10):
            now[0] = float(second)
            bar.update(second / 2, loss="0.1")
    text = [line[20:] for line in lines(tmp_path)]
    assert text[0] == "train: 30 of 100 steps, 0.5 steps/s, 2 min 20 s left  loss 0.1"
    assert text[-1] == "train: 100 of 100 steps, 0.5 steps/s, 200.0 s" and len(text) == 4


def test_a_bar_ends_full_where_work_ends_before_its_total(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Progress("search", 20, unit="rounds") as bar:
        bar.update(5)
        bar.stop_here()
        assert bar._bar.finished


def test_progress_tells_of_the_whole(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("dwf.metrics.time.monotonic", lambda: now[0])
    with part_of(Whole("stage 2 of 5", 600.0, without=("align",))):
        bar = Progress("train", 100, unit="steps")
        assert bar.line() == "train: 0 of 100 steps; stage 2 of 5"  # no time before a rate
        now[0] = 50.0
        bar.update(50)
        assert bar.line() == (
            "train: 50 of 100 steps, 1 steps/s, 50 s left; "
            "stage 2 of 5, about 10 min 50 s left in all without align"
        )
    assert bar.line().endswith("50 s left")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (119, "119 s"),
        (3599, "59 min 59 s"),
        (7200, "2 h"),
        (90_000, "25 h"),
        (200_000, "2 d 7 h"),
        (float("inf"), "?"),
    ],
)
def test_a_time_has_its_two_largest_units(seconds, words):
    assert duration(seconds) == words


def test_a_command_of_the_program_leaves_its_log_with_lines_of_its_workers(tmp_path):
    words = ["-m", "dwf", "zoo", "--config", "configs/zoo/iris_mlp.yaml", "--root", str(tmp_path)]
    words += ["--name", "one", "--count", "4", "--recipe.epochs", "1"]
    ran = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    kept = (tmp_path / "zoos" / "one" / "run" / "log.txt").read_text()
    shown = [*ran.stdout.splitlines(), *(line.split(" ", 1)[1] for line in ran.stderr.splitlines())]
    for line in shown:
        assert line in kept
    assert "4 of 4 networks" in kept
