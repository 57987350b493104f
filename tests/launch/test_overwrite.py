"""--overwrite loses nothing, --resume guesses nothing, and a generator is named after its zoo."""

import json
from pathlib import Path

import pytest

from dwf.commands import COMMANDS
from dwf.commands.overwrite import make_room
from dwf.errors import ConfigError, RunConflict
from dwf.run_folder import RunFolder, hold
from dwf.settings import Launch
from dwf.zoo.manifest import grown_by, note_grown, read_manifest, write_manifest
from dwf.zoo.store import Zoo

ANEW = Launch(Path("any"), overwrite=True)


def test_what_was_there_is_moved_and_counted(tmp_path):
    folder = tmp_path / "runs" / "r"
    make_room(ANEW, folder)  # nothing is there
    for number in (1, 2):
        RunFolder(folder, {"seed": number})
        make_room(Launch(Path("any")), folder)
        assert folder.exists()
        make_room(ANEW, folder)
        assert not folder.exists()
        aside = tmp_path / "runs" / f"r.old-{number}" / "config.yaml"
        assert aside.read_text() == f"seed: {number}\n"


def test_with_a_zoo_goes_what_it_names(make_zoo, tmp_path):
    for name, seed in {"z": 0, "z-12": 1, "f-a": 2, "other": 3}.items():
        make_zoo(12, name=name, seed=seed)
    zoos = tmp_path / "zoos"
    note_grown(zoos / "z", ["z-12"])
    both = Zoo.open(zoos / "z").fingerprint
    write_manifest(zoos / "f", {"a": "f-a", "b": "other"})
    RunFolder(zoos / "f" / "run", {})
    make_room(ANEW, zoos / "z", zoos / "f")
    left = sorted(path.name for path in zoos.iterdir())
    assert left == ["f-a.old-1", "f.old-1", "other", "z-12.old-1", "z.old-1"]
    assert Zoo.open(zoos / "z.old-1").fingerprint == both
    assert [path.name for path in grown_by(zoos / "z.old-1")] == ["z-12.old-1"]
    assert read_manifest(zoos / "f.old-1") == {"a": "f-a.old-1", "b": "other"}


def test_work_that_goes_on_is_not_moved(tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "r"
    RunFolder(folder, {})
    with hold(folder), pytest.raises(RunConflict, match="being worked on by process"):
        make_room(ANEW, folder)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # begun again, by Slurm and not by a person
    make_room(ANEW, folder)
    assert folder.exists()


def test_the_command_begins_anew(make_zoo, tmp_path, monkeypatch):
    monkeypatch.setattr("dwf.evaluation.stage.draw_figures", lambda *_, **__: {})
    make_zoo(20, widths=(64, 4, 10), name="z")
    words = ["--zoo", "z", "--root", str(tmp_path), "--count", "4", "--noise", "0.1"]
    words += ["--averages", "2"]
    COMMANDS["evaluate"].run(words)
    with pytest.raises(RunConflict, match="seed"):
        COMMANDS["evaluate"].run([*words, "--seed", "1"])
    COMMANDS["evaluate"].run([*words, "--seed", "1", "--overwrite", "--dry-run"])
    assert not (tmp_path / "reports" / "z.old-1").exists()
    COMMANDS["evaluate"].run([*words, "--seed", "1", "--overwrite"])
    seeds = [
        json.loads((tmp_path / "reports" / name / "report.json").read_text())["config"]["seed"]
        for name in ("z.old-1", "z")
    ]
    assert seeds == [0, 1]


def test_resume_goes_on_with_what_is_named(make_zoo, tmp_path):
    root = ["--root", str(tmp_path)]
    with pytest.raises(ConfigError, match=r"which run of .*runs is meant.*there is none"):
        COMMANDS["generator"].run(["--resume", *root])
    RunFolder(tmp_path / "runs" / "open", {})
    RunFolder(tmp_path / "runs" / "over", {}).finish()
    with pytest.raises(ConfigError, match=r"not finished there: open$"):
        COMMANDS["generator"].run(["--resume", *root])
    with pytest.raises(ConfigError, match="which run of"):  # its name is not that of its file
        COMMANDS["align"].run(["--resume", "--config", "iterated_mean", *root])
    with pytest.raises(ValueError, match="goes on, and --overwrite begins anew"):
        Launch(Path("any"), name="open", resume=True, overwrite=True)


def test_a_generator_without_settings_is_called_as_its_zoo(make_zoo, tmp_path, capsys):
    make_zoo(800, name="mine")
    words = ["--root", str(tmp_path), "--dry-run"]
    COMMANDS["generator"].run(["--zoo", "mine", *words])
    said = capsys.readouterr().out
    assert "the preset mnist_mlp is taken, as mine;" in said
    assert f"-> {tmp_path / 'runs' / 'mine'}" in said
    COMMANDS["generator"].run(["--zoo", "mine", "--config", "digits_flat", *words])
    said = capsys.readouterr().out
    assert "no --config" not in said and f"-> {tmp_path / 'runs' / 'digits_flat'}" in said


def test_predictors_without_settings_are_called_as_their_zoo(tmp_path, capsys):
    words = ["--root", str(tmp_path), "--dry-run"]
    for given, name in (
        (["--zoos", "mine"], "mine-predictors"),
        (["--zoos", "zoos/mine"], "mine-predictors"),
        (["--zoos", "mine", "other"], "digits"),
        (["--zoos", "mine", "--name", "own"], "own"),
        (["--config", "digits", "--zoos", "mine"], "digits"),
    ):
        COMMANDS["predictor"].run([*given, *words])
        said = capsys.readouterr().out
        assert f"-> {tmp_path / 'runs' / name}\n" in said
        assert ("the preset digits is taken" in said) == ("--config" not in given)
