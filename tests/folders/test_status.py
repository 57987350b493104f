"""What a root holds and how far it is, against what was put there."""

import errno
import json
import os
from pathlib import Path

import pytest
import yaml

from dwf.commands import COMMANDS
from dwf.folders.kinds import KINDS, Place, kind_of
from dwf.folders.status import read_standing, read_standings
from dwf.run_folder import RunFolder, hold, write_json
from dwf.zoo.manifest import write_manifest


def run(*words, code=0):
    try:
        COMMANDS["status"].run(list(map(str, words)))
        assert code == 0
    except SystemExit as left:
        assert left.code == code


def standing(root, path):
    found = {f"{one.place.kind.parent}/{one.place.name}": one for one in read_standings(root)}
    return found[path].state, found[path].far


def test_an_empty_root_says_so(tmp_path, capsys):
    run("--root", tmp_path)
    assert "no zoos, runs or reports here" in capsys.readouterr().out


def test_everything_in_a_root_is_listed_with_how_far_it_is(make_zoo, tmp_path, capsys):
    zoo = make_zoo(12, name="z")
    write_manifest(tmp_path / "zoos" / "family", {"one": "z", "two": "missing"})
    settings = {"density": {"training": {"steps": 2000}}}
    fit = RunFolder(tmp_path / "runs" / "fit", settings)
    with open(fit.metrics_path, "w") as file:
        file.writelines(f'{{"step": {step}, "train_loss": 1.0}}\n' for step in (100, 300))
    RunFolder(tmp_path / "runs" / "done", settings).finish(density={"val_loss": 0.25})
    RunFolder(tmp_path / "reports" / "r", {}).finish(headline=[], fingerprints={"z": "0"})
    write_json(tmp_path / "exports" / "e" / "export.json", {"rows": [1], "zoo": "z", "kind": "npz"})
    sweep = RunFolder(tmp_path / "sweeps" / "s", {})
    for number, is_over in enumerate((True, False)):
        write_json(sweep.path / "trials" / f"{number:05d}.point.json", {})
        if is_over:
            write_json(sweep.path / "trials" / f"{number:05d}.json", {"point": {}})
    expected = {
        "zoos/z": ("finished", "12 networks, 12 rows"),
        "zoos/family": ("stopped", "names 2 zoos: z, missing"),
        "runs/fit": ("stopped", "density: step 300 of 2,000"),
        "runs/done": ("finished", "validation loss 0.25"),
        "reports/r": ("finished", "on z"),
        "exports/e": ("finished", "networks of z as npz: 1"),
        "sweeps/s": ("stopped", "1 trials over of 2 begun"),
    }
    for path, told in expected.items():
        assert standing(tmp_path, path) == told, path
    run("--root", tmp_path)
    said = capsys.readouterr().out
    assert all(path in said for path in expected)
    assert "7 folders: 3 stopped, 4 finished" in said
    run(tmp_path)
    assert capsys.readouterr().out == said, "a root that is given as a folder"
    assert kind_of(zoo.path) == KINDS["zoo"]


def test_who_works_and_which_jobs_wait(tmp_path, capsys):
    for name in ("held", "sent"):
        RunFolder(tmp_path / "runs" / name, {})
    write_json(tmp_path / "runs" / "sent" / "jobs" / "submitted.json", ["17"])
    with hold(tmp_path / "runs" / "held"):
        assert standing(tmp_path, "runs/held")[0] == "in work"
        run("--root", tmp_path)
    assert "worked on by process" in capsys.readouterr().out
    assert standing(tmp_path, "runs/sent") == ("submitted", "nothing is learnt yet, Slurm job 17")
    run(tmp_path / "runs" / "sent", code=1)


def test_damage_is_told_and_does_not_hide_the_rest(make_zoo, tmp_path):
    zoo = make_zoo(4, name="z")
    (zoo.path / "zoo.json").write_text("{")
    RunFolder(tmp_path / "runs" / "done", {}).finish()
    assert standing(tmp_path, "zoos/z")[0] == "damaged"
    assert standing(tmp_path, "runs/done")[0] == "finished"
    run("--root", tmp_path, code=1)


@pytest.mark.parametrize(("closed", "told"), [("runs/theirs", "runs/theirs"), ("runs", "/runs")])
def test_a_folder_that_is_not_listed_is_told_beside_the_rest(
    make_zoo, tmp_path, monkeypatch, capsys, closed, told
):
    RunFolder(make_zoo(4, name="z").path / "run", {}).finish()
    (tmp_path / "runs" / "theirs").mkdir(parents=True)  # what is in it is not seen
    scandir = os.scandir

    def refusing(path):
        if Path(path) == tmp_path / closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    run("--root", tmp_path, code=1)
    said = capsys.readouterr().out
    assert "zoos/z" in said and told in said
    assert "unreadable" in said and "Permission denied" in said


def written(folder, name):
    (folder / name).touch()
    return str(folder / name)


def test_a_pipeline_is_as_far_as_its_stages(tmp_path):
    zoo, generator, sample, evaluate = (written(tmp_path, f"{name}.yaml") for name in "zpse")
    told = {"zoo": zoo, "generators": [generator], "sample": sample, "evaluate": evaluate}
    folder = tmp_path / "pipelines" / "p"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(told))
    place = Place(folder, KINDS["pipeline"])
    assert read_standing(place).far == "0 of 4 stages, next zoo p"
    for made in ("zoos/p/run", "runs/p"):
        RunFolder(tmp_path / made, {}).finish()
    assert read_standing(place).far == "2 of 4 stages, next sample p-samples"
    for made in ("zoos/p-samples/run", "reports/p"):
        RunFolder(tmp_path / made, {}).finish()
    found = read_standing(place)
    assert (found.state, found.far) == ("finished", "all 4 stages")
    assert json.loads((tmp_path / "reports" / "p" / "done.json").read_text()) == {}
