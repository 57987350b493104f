"""The board's rate and time left: of the time in which jobs run, by arithmetic on a clock."""

from collections import Counter

import pytest

from dwf.cluster.board import Board
from dwf.stages import Work


@pytest.fixture
def at(monkeypatch, caplog, tmp_path):
    """Return what the board says at a second, `at(second, done, running=..., queued=...)`."""
    now, done = [0.0], [0.0]
    monkeypatch.setattr("dwf.metrics.time.monotonic", lambda: now[0])
    caplog.set_level("INFO", "dwf")
    work = Work(
        tmp_path,
        4,
        unit=lambda folder, index: None,
        finished=lambda folder: set(),
        progress=lambda folder: (done[0] / 32, "val accuracy 96 %"),
        what="train zoo first",
        size=32,
        unit_name="networks",
    )
    board = Board(work)

    def say(second: float, trained: float, *, todo: int = 4, why: str = "", **counts: int) -> str:
        now[0], done[0] = second, trained
        caplog.clear()
        board.show(todo, Counter(counts), waiting=[why] if why else [])
        return "".join(caplog.messages)

    return say


def test_time_in_the_queue_is_none_of_the_rates(at):
    said = at(3600, 0, queued=4, why="BeginTime")
    assert said == (
        "train zoo first: 0 of 32 networks  shards 0 done, 0 running, 4 queued, 0 failed  "
        "waiting for BeginTime   val accuracy 96 %"
    )
    said = at(3680, 16, running=2, queued=2)
    assert said.startswith("train zoo first: 16 of 32 networks, 0.2 networks/s, 80 s left  shards")


def test_after_a_lost_node_the_rate_is_counted_anew_from_what_is_saved(at):
    at(100, 20, running=4)
    at(200, 8, queued=4)
    assert "10 of 32 networks, 0.02 networks/s, 18 min 20 s left" in at(300, 10, running=4)


def test_what_was_whole_before_has_no_rate(at):
    assert at(100, 0, running=4) and "networks/s" not in at(200, 0, running=4)
