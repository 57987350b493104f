"""What can go is listed before it goes; what is needed, unfinished or held never does."""

import pytest

from dwf.commands import COMMANDS
from dwf.folders.clean import find_caches, find_waste
from dwf.run_folder import RunFolder, hold


def written(path, num_bytes=1000):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * num_bytes)
    return path


@pytest.fixture
def root(tmp_path):
    """A finished and an unfinished run, a zoo, and a sweep with one of either."""
    for name, is_done in {"done": True, "open": False}.items():
        for folder in (tmp_path / "runs", tmp_path / "sweeps" / "s" / "runs"):
            run = RunFolder(folder / name, {"seed": 0})
            if is_done:
                run.finish()  # which removes saved states: these are of an earlier version's
            written(run.checkpoints / "step-00000010.pt")
            written(run.path / "codec" / "checkpoints" / "step-00000010.pt", 500)
            written(run.path / "density" / "density.pt")
            written(run.path / "codes.partial-ab", 300)
    written(tmp_path / "sweeps" / "s" / "config.yaml", 0)
    zoo = tmp_path / "zoos" / "z"
    written(zoo / "zoo.json")
    run = RunFolder(zoo / "run", {"seed": 0})
    written(run.path / "work" / "cohort-0000000-epoch-00001.npz", 700)
    written(zoo / "shard-00000-of-00001.h5.partial-ab", 200)
    run.finish()
    return tmp_path


def clean(root, capsys, *words, code=0):
    try:
        COMMANDS["clean"].run(["--root", str(root), *words])
        assert code == 0
    except SystemExit as left:
        assert left.code == code
    return capsys.readouterr().out


def test_it_is_dry_first_and_frees_what_it_says(root, capsys):
    before = {path for path in root.rglob("*") if path.is_file() and path.name != "lock"}
    wanted = 2 * (1000 + 500 + 300 + 300) + 700 + 200
    said = clean(root, capsys)
    assert f"10 can go, {wanted / 1024:.1f} KiB; nothing was touched" in said
    assert before <= set(root.rglob("*"))
    said = clean(root, capsys, "--yes")
    assert f"10 removed, {wanted / 1024:.1f} KiB freed" in said
    after = {path for path in root.rglob("*") if path.is_file() and path.name != "lock"}
    gone = {path.relative_to(root).as_posix() for path in before - after}
    runs = {f"{folder}runs/{name}" for folder in ("", "sweeps/s/") for name in ("done", "open")}
    expected = {f"{run}/codes.partial-ab" for run in runs}
    for run in runs:
        if run.endswith("done"):
            expected |= {f"{run}/{part}checkpoints/step-00000010.pt" for part in ("", "codec/")}
    expected |= {"zoos/z/run/work/cohort-0000000-epoch-00001.npz"}
    expected |= {"zoos/z/shard-00000-of-00001.h5.partial-ab"}
    assert gone == expected
    assert clean(root, capsys) == f"{root}: nothing can go\n"


def test_a_folder_in_work_is_left_alone(root, capsys):
    with hold(root / "runs" / "done"):
        assert root / "runs" / "done" not in {one.owner for one in find_waste(root)}
    found = find_waste(root)
    with hold(found[0].owner):
        assert not found[0].remove()
    assert found[0].path.exists()
    written(root / "runs" / "open" / "jobs" / "submitted.json")
    assert root / "runs" / "open" not in {one.owner for one in find_waste(root)}


def test_a_generator_whose_density_is_lost_keeps_its_checkpoints(root):
    run = root / "runs" / "done"
    written(run / "generator.json")  # and none of its parts
    reasons = [one.reason for one in find_waste(root) if one.owner == run]
    assert reasons == ["partial file of an attempt that was killed"]


def test_caches_are_those_that_can_be_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("DWF_DATA", str(tmp_path))
    for name in ("mnist", "mnist-14", "other-7"):
        written(tmp_path / name / "x_train.npy")
    (tmp_path / "mnist" / "checksums.json").write_text('{"x_train.npy": [1000, 0]}')
    assert [one.path.name for one in find_caches()] == ["mnist-14"]
