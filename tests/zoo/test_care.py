"""The commands as a user gives them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dwf.run_folder import write_json
from dwf.zoo.care import _in_short, status
from dwf.zoo.store import Zoo

ROOT = Path(__file__).parent.parent.parent
MPIEXEC = Path(sys.executable).with_name("mpiexec")


def care(*words: object, ranks: int = 0, code: int = 0) -> str:
    """What a command printed, after it exited with the code expected."""
    start = [str(MPIEXEC), "-n", str(ranks)] if ranks else []
    command = [*start, sys.executable, "-m", "dwf", *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + (ran.stderr if code == 2 else "")


def damage(zoo: Zoo, shard: int, row: int) -> None:
    file, place = zoo.shards[shard].path, zoo.shards[shard].offset + 4 * zoo.layout.size * row
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def test_status_tells_what_is_missing_and_how_to_go_on(make_sharded):
    whole, zoo = make_sharded("whole"), make_sharded("zoo", seed=1)
    assert "4 of 4" in care("status", whole.path)
    zoo.shards[1].path.unlink()
    told = care("status", whole.path, zoo.path, code=1).splitlines()
    assert told[0].split("  ")[0] == "zoo" and len(told) == 5
    assert told[2].split()[1:] == ["3", "of", "4", "0", "1", "0", "12", "24", "1"]
    assert told[3] == f"{zoo.path}: missing shards: 1"
    root = zoo.path.parent.parent
    assert told[4].endswith(f"dwf zoo --resume --name zoo --root {root}")


def test_shards_of_a_job_that_waits_are_not_called_missing(make_sharded):
    zoo = make_sharded("zoo")
    zoo.shards[1].path.unlink()
    jobs = zoo.path / "run" / "jobs"
    jobs.mkdir(parents=True)
    (jobs / "submitted.json").write_text(json.dumps([{"job": "7", "elements": [[0], [1]]}]))
    told = care("status", zoo.path, code=1)
    assert "shards that its job is to make: 1" in told and "missing" not in told.split("\n", 1)[1]
    assert "Slurm job 7 was submitted and may be over" in told


def test_shards_whose_jobs_ended_are_missing_and_were_left(make_sharded, capsys):
    zoo = make_sharded("zoo", (2, 2, 2, 2))
    for index in (0, 1, 2, 3):
        zoo.shards[index].path.unlink()
    submitted = [
        {"job": "7", "elements": [[0], [1]]},
        {"job": "8", "elements": [[2, 3]]},
    ]
    (zoo.path / "zoo.h5").unlink()
    write_json(zoo.path / "run" / "jobs" / "submitted.json", submitted)
    for index in (0, 3):
        told = {"share": 0.25, "val_accuracy": None}
        write_json(zoo.path / "run" / "work" / f"progress-{index:05d}.json", told)
    (zoo.path / "shard-00002-of-00004.h5.partial-0123456789ab").touch()

    def said(living) -> list[str]:
        assert status((zoo.path,), lambda: living) == 1
        lines = capsys.readouterr().out.splitlines()[2:]
        return [line.removeprefix(f"{zoo.path}: ").partition(" with: ")[0] for line in lines]

    partial = "shard-00002-of-00004.h5.partial-0123456789ab"
    assert said({("8", 0): "running"}) == [
        "shard 0 was left at 25 %",
        "shard 3 is at 25 %",
        "shards that its job is to make: 2",
        "missing shards: 1",
        "Slurm job 8 is running",
        f"1 partial files of attempts in work or killed, first {partial}",
        "go on",
    ]
    assert said({}) == [
        "shard 0 was left at 25 %",
        "shard 3 was left at 25 %",
        "missing shards: 1-2",
        "Slurm jobs 7, 8 have ended",
        f"1 partial files of attempts that were killed, first {partial}",
        "go on",
    ]
    assert "Slurm job 7 is running, job 8 is queued" in said(
        {("7", 0): "queued", ("7", 1): "running", ("8", 0): "queued"}
    )


def test_info_as_a_table_and_as_json(make_sharded):
    zoo = make_sharded("zoo")
    told = care("info", zoo.path)
    assert "layers.0.weight  [5, 6]  weight" in told and "test_accuracy" not in told.split()
    assert json.loads(care("info", zoo.path, "--json"))["rows"] == 24


def test_verify_names_all_damage_and_mends_the_view(make_sharded):
    zoo = make_sharded("zoo")
    assert care("verify", zoo.path) == f"{zoo.path}: 4 shards are whole\n"
    (zoo.path / "zoo.h5").unlink()
    assert f"mend it with: dwf verify --mend {zoo.path}" in care("verify", zoo.path, code=1)
    care("verify", "--mend", zoo.path)
    damage(zoo, 0, row=2)
    damage(zoo, 3, row=4)
    first, last = zoo.shards[0].path, zoo.shards[3].path
    told = care("verify", "--mend", zoo.path, "--threads", 2, code=1).splitlines()
    assert told[:2] == [
        f"{file}: rows {row} do not match their checksums" for file, row in ((first, 2), (last, 4))
    ]
    assert f"2 to mend with: rm {first} {last} && dwf zoo --resume" in told[2]


def test_merge_and_what_a_user_gets_wrong(make_sharded, tmp_path):
    one, other = make_sharded("one"), make_sharded("other", seed=1)
    out = one.path.parent / "both"
    assert care("merge", out, one.path, other.path) == f"48 rows of 2 zoos in {out}\n"
    Zoo.open(out).shards[5].path.unlink()
    told = care("status", out, code=1)
    assert f"go on with: dwf merge {out} {one.path} {other.path}" in told
    assert "is not a zoo: it has no zoo.json" in care("info", tmp_path, code=2)
    assert "no zoo was given" in care("verify", code=2)
    assert "--epoch = 'first': allowed is" in care(
        "statistics", one.path, "--epoch", "first", code=2
    )


@pytest.mark.mpi
def test_ranks_say_once_what_one_process_says(make_sharded):
    zoo = make_sharded("zoo", (5, 0, 4, 3, 2, 2, 1))
    words = ("statistics", zoo.path, "--epoch", "all", "--json")
    assert care(*words, ranks=3) == care(*words), "to the last digit"
    damage(zoo, 0, row=2)
    damage(zoo, 3, row=4)
    zoo.shards[4].path.unlink()
    assert care("statistics", zoo.path, ranks=2, code=2).count("lacks 1 of 7 shards") == 1
    assert care("status", zoo.path, ranks=2, code=1) == care("status", zoo.path, code=1)
    told = care("verify", zoo.path, ranks=4, code=1)
    assert told == care("verify", zoo.path, code=1) and told.count("rows 2 do") == 1


def test_no_torch_is_imported(make_sharded):
    zoo = make_sharded("zoo")
    code = (
        "import sys; from dwf.zoo import care, verify, status, info, merge, tensor_statistics; "
        "from pathlib import Path; z = Path(sys.argv[1]); care.status((z,)); care.info(z); "
        "care.verify((z,)); care.statistics(z); "
        "sys.exit(sorted({'torch', 'mpi4py', 'ray'} & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(zoo.path)], capture_output=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr


def test_many_numbers_in_short():
    assert _in_short([]) == "" and _in_short([3]) == "3"
    assert _in_short([0, 1, 2, 3, 7, 9, 10]) == "0-3, 7, 9-10"
