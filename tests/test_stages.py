"""The protocol that all stages share, held against the files of a toy stage that adds numbers."""

import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from dwf.errors import RunConflict
from dwf.ranks import World
from dwf.run_folder import RunFolder, write_text
from dwf.stages import Product, Work, run_here, stage

SUM = Product(
    "sum", records="run", head="sum.txt", is_whole=lambda path: (path / "sum.txt").exists()
)


@dataclass(frozen=True)
class Config:
    numbers: tuple[int, ...] = (1, 2)
    seed: int = 0


def add(folder: Path, config: Config = Config(), fails: bool = False, **how) -> bool:
    """Write the sum of some numbers; return whether there was anything to do."""
    with stage(SUM, folder, config=config, **how) as run:
        if run is None:
            return False
        assert run.summary is None or not (folder / "sum.txt").exists()
        write_text(run.path / "part.txt", str(config.numbers[0]))
        if fails:
            raise RuntimeError("a bug")
        write_text(folder / "sum.txt", str(sum(config.numbers)))
        run.finish(terms=len(config.numbers))
    return True


def test_a_finished_stage_does_nothing_and_says_one_line(tmp_path, caplog):
    caplog.set_level(logging.INFO, "dwf")
    assert add(tmp_path / "one") and caplog.messages == []
    before = (tmp_path / "one" / "sum.txt").stat().st_mtime_ns
    assert not add(tmp_path / "one")
    assert caplog.messages == [f"sum one is finished already: {tmp_path / 'one'}"]
    assert (tmp_path / "one" / "sum.txt").stat().st_mtime_ns == before
    (tmp_path / "one" / "sum.txt").unlink()  # lost: made again
    assert add(tmp_path / "one") and (tmp_path / "one" / "sum.txt").read_text() == "3"


def test_a_folder_of_others_is_refused_with_what_differs(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "sum.txt").write_text("7")
    with pytest.raises(RunConflict, match=r"theirs is another sum: give another --name, or remove"):
        add(tmp_path / "theirs")
    assert [file.name for file in (tmp_path / "theirs").iterdir()] == ["sum.txt"]
    add(tmp_path / "one")
    with pytest.raises(RunConflict, match=r"one/run holds a run with seed = 0, this one has 1"):
        add(tmp_path / "one", Config(seed=1))
    add(tmp_path / "one", Config((1, 3)), free=["numbers"])


def test_a_finished_run_of_other_inputs_is_refused_before_it_is_taken_for_done(tmp_path):
    def refuse(run: RunFolder) -> None:
        if run.summary is not None and run.summary["terms"] != 3:
            raise RunConflict("other inputs")

    add(tmp_path / "one", refuse_other=refuse)
    with pytest.raises(RunConflict, match="other inputs"):
        add(tmp_path / "one", refuse_other=refuse)


def test_leftovers_of_killed_attempts_are_swept_unless_workers_may_own_them(tmp_path):
    folder = tmp_path / "one"
    (folder / "run" / "checkpoints").mkdir(parents=True)
    left = [folder / "sum.txt.partial-01ab", folder / "run" / "checkpoints" / "a.pt.partial-cd23"]
    for file in left:
        file.touch()
    with pytest.raises(RuntimeError):
        add(folder, fails=True, has_workers=True)
    assert all(file.exists() for file in left)
    add(folder)
    assert not any(file.exists() for file in left)


def test_an_error_within_leaves_a_folder_that_goes_on(tmp_path):
    with pytest.raises(RuntimeError, match="a bug"):
        add(tmp_path / "one", fails=True)
    assert (tmp_path / "one" / "run" / "part.txt").exists()
    assert not (tmp_path / "one" / "run" / "done.json").exists()
    assert add(tmp_path / "one")  # nobody holds it
    assert RunFolder(tmp_path / "one" / "run", Config()).summary == {"terms": 2}


def test_a_second_process_is_told_who_works_in_the_folder(tmp_path):
    program = f"""
import sys
from pathlib import Path
from dwf.stages import Product, stage
with stage(Product("sum", records="run"), Path({str(tmp_path / "one")!r}), config={{}}):
    print("held", flush=True)
    sys.stdin.readline()
"""
    words = [sys.executable, "-c", program]
    first = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        told = rf"one/run is being worked on by process {first.pid} on \S+ \(-c\): wait for it"
        with pytest.raises(RunConflict, match=told):
            add(tmp_path / "one")
    finally:
        first.communicate("\n", timeout=30)
    assert first.returncode == 0


def test_ranks_get_the_run_from_the_first_which_alone_holds_the_folder(tmp_path):
    """Two ranks played one after the other: the second is told what the first found."""

    class Other(World):
        rank, size = 1, 1

        def on_first(self, compute, *args, **named):
            return True, 1

    with stage(SUM, tmp_path / "one", config=Config()) as found:
        with stage(SUM, tmp_path / "one", config=Config(), ours=Other()) as run:
            assert (run.path, run.config, run.threads) == (found.path, found.config, 1)
        with pytest.raises(RunConflict, match="is being worked on by"):
            add(tmp_path / "one")


def test_units_that_are_done_are_not_done_again(tmp_path):
    done: list[int] = []
    work = Work(
        folder=tmp_path,
        count=4,
        unit=lambda folder, index: done.append(index),
        finished=lambda folder: {1, *done},
        progress=lambda folder: (len(done) / 4, ""),
        what="count",
        size=4,
        unit_name="numbers",
    )
    run_here(work)
    assert done == [0, 2, 3]
