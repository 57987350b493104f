"""What a root holds and how far it is, against what was put there."""

import errno
import json
import os
from pathlib import Path

import pytest
import yaml

from dwf.cluster import slurm
from dwf.commands import COMMANDS
from dwf.errors import ConfigError
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
    assert standing(tmp_path, "runs/sent") == ("submitted", "nothing is learnt yet")
    run(tmp_path / "runs" / "sent", code=1)
    assert "runs/sent: Slurm job 17 was submitted and may be over" in capsys.readouterr().out


def play_slurm(monkeypatch, jobs):
    """Let Slurm know elements of jobs, (job, index) -> state; return a count of its answers."""
    asked = []
    found = {key: slurm.Element(state, node="", why="None") for key, state in jobs.items()}
    monkeypatch.setattr(slurm, "living", lambda: asked.append(1) or found)
    return asked


SENT = {
    "runs/ranks": ("generator.json", "jobs", ["17", "18"]),
    "zoos/z": ("zoo.json", "run/jobs", [{"job": "9", "elements": [[0], [1]]}]),
    "runs/told": ("experiment.json", "run/jobs", [{"job": "20", "elements": [[0]]}]),
    "finetunes/f": ("starts.json", "run/jobs", [{"job": "21", "elements": [[0]]}]),
    "audits/a": ("settings.yaml", "run/jobs", [{"job": "22", "elements": [[0]]}]),
}


@pytest.fixture
def sent(make_zoo, tmp_path, monkeypatch):
    """A root of which nothing is finished and all was submitted; far is it told by their jobs."""
    zoo = make_zoo(4, name="z")
    (zoo.path / "zoo.h5").unlink()
    for path, (head, jobs, record) in SENT.items():
        folder = tmp_path / path
        RunFolder(folder / jobs.removesuffix("jobs"), {})
        if path != "zoos/z":
            (folder / head).touch()
        write_json(folder / jobs / "submitted.json", record)
    for stage in ("predictors", "transfer", "audit"):
        monkeypatch.setattr(f"dwf.{stage}.stage.progress", lambda folder: (0.0, ""))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_jobs_are_called_running_or_queued_only_while_slurm_has_them(sent, monkeypatch, capsys):
    asked = play_slurm(monkeypatch, {("18", 0): "RUNNING", ("9", 1): "PENDING", ("20", 0): "GONE"})
    run()
    said = capsys.readouterr().out
    assert len(asked) == 1, "once, however many folders were submitted"
    states = {line.split()[0]: line.split()[2] for line in said.splitlines()[1:6]}
    assert states == {
        "runs/ranks": "running",
        "zoos/z": "queued",
        "runs/told": "running",
        "finetunes/f": "stopped",
        "audits/a": "stopped",
    }
    assert "runs/ranks: Slurm job 18 is running\n" in said
    assert "zoos/z: Slurm job 9 is queued\n" in said


def test_of_jobs_that_ended_the_command_is_told_that_goes_on(sent, monkeypatch, capsys):
    play_slurm(monkeypatch, {})
    run()
    said = capsys.readouterr().out
    for line in (
        "runs/ranks: Slurm jobs 17, 18 have ended: "
        "go on with: dwf generator --resume --name ranks --nodes N",
        "zoos/z: Slurm job 9 has ended: go on with: dwf zoo --resume --name z",
        "runs/told: Slurm job 20 has ended: go on with: dwf predictor --resume --name told",
        "finetunes/f: Slurm job 21 has ended: go on with: dwf finetune --resume --name f",
        "audits/a: Slurm job 22 has ended: go on with: dwf audit --resume --name a",
    ):
        assert f"{line}\n" in said
    assert "queued" not in said and "running" not in said and "submitted" not in said
    for path in ("runs/ranks", "zoos/z"):
        run(path, code=1)
        assert "ended" in capsys.readouterr().out


def test_slurm_is_not_asked_for_what_is_finished_or_another_users(sent, monkeypatch, capsys):
    asked = play_slurm(monkeypatch, {})
    for path, (_, jobs, _) in SENT.items():
        (sent / path / jobs).with_name("done.json").write_text("{}")
    (sent / "zoos" / "z" / "run" / "jobs" / "submitted.json").unlink()
    run()
    assert not asked and "Slurm" not in capsys.readouterr().out
    (sent / "runs" / "ranks" / "done.json").unlink()
    monkeypatch.setattr("os.getuid", lambda: os.geteuid() + 1)
    run()
    assert not asked and "jobs 17, 18 were submitted and may be over" in capsys.readouterr().out


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


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("zoos", "dwf status lists all, dwf status zoos/g/z tells of one"),
        ("zoo", "dwf status lists all, dwf status zoos/g/z tells of one"),
        ("experiment", "dwf status lists all, dwf status runs/fit tells of one"),
        ("reports", "dwf status lists all, dwf status reports/NAME tells of one"),
        ("zoos/g", "dwf status lists all, dwf status zoos/g/z tells of one"),
        ("fit", "dwf status lists all, dwf status runs/fit tells of one"),
        ("fitt", "did you mean 'fit'?; dwf status lists them"),
    ],
)
def test_of_a_kind_or_a_part_of_a_name_the_right_commands_are_told(
    make_zoo, tmp_path, monkeypatch, word, told
):
    make_zoo(4, name="g/z")
    RunFolder(tmp_path / "runs" / "fit", {}).finish()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        run(word)
    assert told in str(error.value) and "zoo.json" not in str(error.value)
    run(*told.partition("dwf ")[2].split(" lists")[0].split()[1:])


@pytest.mark.parametrize("words", [("zoos",), ("--root", "zoos")])
def test_of_the_place_of_a_kind_in_another_root_this_root_is_told(
    make_zoo, tmp_path, monkeypatch, words
):
    make_zoo(4, name="z")
    monkeypatch.chdir("/")
    place = tmp_path / "zoos"
    with pytest.raises(ConfigError) as error:
        run(*[str(place) if word == "zoos" else word for word in words])
    assert f"dwf status --root {tmp_path} lists all, dwf status {place}/z" in str(error.value)


def test_a_root_of_runs_alone_is_a_root(tmp_path, capsys):
    RunFolder(tmp_path / "runs" / "fit", {}).finish()
    run(tmp_path)
    assert "runs/fit" in capsys.readouterr().out


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
