"""The small parts of the ground: errors, metrics, randomness, the preemption flag."""

import json
import logging
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from dwf import preemption
from dwf.errors import DwfError, Preempted, exit_cleanly
from dwf.metrics import MetricsLog, Progress, read_metrics
from dwf.randomness import numbers_at, numpy_stream, seed_of, torch_stream


def test_a_users_error_is_one_line_and_exit_code_2(capsys):
    def main():
        raise DwfError("zoos/x lacks a shard: give the command again")

    with pytest.raises(SystemExit) as exited:
        exit_cleanly(main)
    assert exited.value.code == 2
    assert capsys.readouterr().err == "error: zoos/x lacks a shard: give the command again\n"


def test_our_own_bugs_keep_their_traceback():
    def main():
        raise KeyError("bug")

    with pytest.raises(KeyError):
        exit_cleanly(main)


def test_a_full_disk_is_named(capsys):
    def main():
        raise OSError(28, "No space left on device", "zoos/x/shard.h5")

    with pytest.raises(SystemExit):
        exit_cleanly(main)
    assert "No space left on device: zoos/x/shard.h5" in capsys.readouterr().err


def test_a_resumed_run_drops_the_metrics_it_will_write_again(tmp_path):
    file = tmp_path / "metrics.jsonl"
    log = MetricsLog(file)
    for step in range(4):
        log.write(step, loss=step / 2)
    log.close()
    with open(file, "a") as out:
        out.write('{"step": 4, "lo')  # killed in the middle of a line
    log = MetricsLog(file, step=1)
    log.write(2, loss=9.0)
    log.close()
    assert [line["loss"] for line in read_metrics(file)] == [0.0, 0.5, 9.0]


def test_progress_without_a_terminal_is_one_line_a_minute(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("dwf.metrics.time.monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, "dwf"), Progress("train", 100, unit="networks") as bar:
        for second in range(0, 150, 10):
            now[0] = float(second)
            bar.update(second / 2, accuracy="96 %")
        assert len(caplog.messages) == 2
        assert caplog.messages[0] == (
            "train: 30 of 100 networks, 0.5 networks/s, 2 min 20 s left  accuracy 96 %"
        )


def test_work_that_ends_before_its_total_says_that_all_is_done(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("dwf.metrics.time.monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, "dwf"), Progress("search", 20, unit="rounds") as bar:
        now[0] = 10.0
        bar.update(5)
        bar.stop_here()
    assert caplog.messages == ["search: 5 of 5 rounds, 0.5 rounds/s, 10.0 s"]


def test_large_numbers_of_progress_have_no_exponents(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("dwf.metrics.time.monotonic", lambda: now[0])
    with Progress("train", 16896, unit="networks") as bar:
        now[0] = 10.0
        bar.update(12531)
        assert bar.line().startswith("train: 12531 of 16896 networks, 1253 networks/s, ")
        bar.update(0.25)
        assert bar.line().startswith("train: 0.25 of 16896 networks, 0.025 networks/s, ")


def test_progress_of_what_was_done_before_has_no_rate():
    bar = Progress("train", 32, unit="networks", done=32, bar=False)
    assert bar.line() == "train: 32 of 32 networks"
    bar.update(20)  # a node died, and what it had not saved is lost
    assert bar.line() == "train: 20 of 32 networks"


def test_streams_are_the_same_in_every_process():
    program = "from dwf.randomness import seed_of; print(seed_of(3, 'shuffle', 7))"
    seeds = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert seeds == {str(seed_of(3, "shuffle", 7))}


def test_streams_of_different_names_are_different():
    names = [("a", 0), ("a", 1), ("b", 0), ("a",), (0, "a")]
    draws = {tuple(numpy_stream(0, *name).integers(0, 2**60, 2)) for name in names}
    assert len(draws) == len(names)
    first = torch.rand(3, generator=torch_stream(0, "a"))
    assert torch.equal(first, torch.rand(3, generator=torch_stream(0, "a")))
    assert 0 <= seed_of(np.iinfo(np.int64).max, "x") < 2**63


def test_numbers_at_places_are_those_of_splitmix64():
    """Its published numbers for seed 0, and a plain loop over Python's integers."""
    places = np.arange(3, dtype=np.uint64)
    known = ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]
    assert [hex(number) for number in numbers_at(0, places)] == known
    most = 2**64 - 1
    for key in (5, 2**63 - 1):
        for place in (0, 17, 2**40 + 3, most):
            state = (key + (place + 1) * 0x9E3779B97F4A7C15) & most
            state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & most
            state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & most
            assert numbers_at(key, np.array([place], np.uint64)) == state ^ (state >> 31)


def test_a_signal_only_sets_a_flag():
    program = (
        "import os, signal; from dwf import preemption; preemption.watch()\n"
        "print(preemption.is_asked()); os.kill(os.getpid(), signal.SIGTERM)\n"
        "print(preemption.is_asked()); preemption.stop()\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout.split() == ["False", "True"]
    assert "Preempted: stopped by SIGTERM" in ran.stderr


def test_preempted_is_no_users_error():
    assert not issubclass(Preempted, DwfError) and not preemption.is_asked()
    assert signal.SIGTERM in preemption.SIGNALS


def test_metrics_are_plain_json(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    log.write(1, **{"networks/s": 2.5})
    log.close()
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"step": 1, "networks/s": 2.5}
