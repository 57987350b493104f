"""Checkpoints that are folders; what ranks do together is in test_engine.py."""

import hashlib
import hmac
import json
import os
import pickle
import re
import stat
from pathlib import Path

import pytest
import torch

from dwf.errors import ConfigError, CorruptCheckpoint, RunConflict
from dwf.ranks import World
from dwf.run_folder import hold, save_state
from dwf.training.convert import convert
from dwf.training.folders import newest_folder, replacing_folder, sign, write_loop
from dwf.trust import trust_pickle

NEEDS = {"stage": 2, "bf16": False}


def fill(checkpoints, steps, world=1):
    for step in steps:
        with replacing_folder(checkpoints, step, ours=World()) as folder:
            (folder / "state").mkdir()
            save_state(folder / "state" / "rank-0.pt", {"weights": torch.full((99,), float(step))})
            (folder / "state" / "read_me.py").write_text("# as DeepSpeed adds\n")
            sign(folder / "state", World())
            write_loop(folder, NEEDS | {"step": step, "world": world})


def newest(checkpoints, **needs):
    return newest_folder(checkpoints, World(), needs=NEEDS | needs)


def names(checkpoints):
    return sorted(path.name for path in checkpoints.iterdir())


def test_keeps_the_newest_two_and_no_remains(tmp_path):
    assert newest(tmp_path / "missing") is None
    (tmp_path / "step-00000003.partial" / "state").mkdir(parents=True)  # of a killed attempt
    fill(tmp_path, [5, 100, 20])
    assert names(tmp_path) == ["step-00000020", "step-00000100"]
    found = newest(tmp_path)
    assert found.state["step"] == 100 and found.part == "state"


def test_a_step_that_is_saved_again_replaces_the_first(tmp_path):
    fill(tmp_path, [5, 5])
    assert names(tmp_path) == ["step-00000005"]


@pytest.mark.parametrize("damage", ["altered", "cut", "missing", "no loop"])
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path, caplog, damage):
    fill(tmp_path, [1, 2])
    file = tmp_path / "step-00000002" / "state" / "rank-0.pt"
    data = bytearray(file.read_bytes())
    if damage == "altered":
        data[data.index(torch.full((9,), 2.0).numpy().tobytes()) + 17] ^= 1
    if damage in ("altered", "cut"):
        file.write_bytes(data[:-100] if damage == "cut" else data)
    else:
        (file if damage == "missing" else tmp_path / "step-00000002" / "loop.pt").unlink()
    assert newest(tmp_path).state["step"] == 1
    assert "set aside" in caplog.text
    assert names(tmp_path) == ["step-00000001", "step-00000002.damaged"]


def test_all_damaged_is_an_error_and_then_a_fresh_start(tmp_path):
    fill(tmp_path, [1, 2])
    for path in tmp_path.glob("*/loop.pt"):
        path.write_bytes(b"")
    with pytest.raises(CorruptCheckpoint, match="all 2 checkpoints"):
        newest(tmp_path)
    assert newest(tmp_path) is None


def test_other_settings_are_refused(tmp_path):
    fill(tmp_path, [1])
    with pytest.raises(RunConflict, match="written with stage = 2, and the DeepSpeed file says 3"):
        newest(tmp_path, stage=3)


def test_another_number_of_ranks_names_the_command_that_converts(tmp_path):
    checkpoints = tmp_path / "run" / "checkpoints"
    fill(checkpoints, [1], world=4)
    command = rf"dwf convert {tmp_path / 'run'}`"
    with pytest.raises(RunConflict, match=f"by 4 ranks, and there are 1: start 4, or .*{command}"):
        newest(checkpoints)
    (checkpoints / "step-00000001" / "universal").mkdir()
    sign((checkpoints / "step-00000001" / "universal"), World())
    assert newest(checkpoints).part == "universal"


def test_a_step_that_is_damaged_again_takes_the_place_of_the_first(tmp_path):
    for _ in range(2):
        fill(tmp_path, [1, 2])
        (tmp_path / "step-00000002" / "loop.pt").write_bytes(b"")
        assert newest(tmp_path).state["step"] == 1


def test_a_conversion_holds_the_run(tmp_path):
    """A part's name does as well, as the error about ranks has it."""
    part = tmp_path / "run" / "codec"
    fill(part / "checkpoints", [1])
    (tmp_path / "run" / "config.yaml").write_text("{}")
    with hold(tmp_path / "run"), pytest.raises(RunConflict, match="is being worked on"):
        convert(part)


def test_nothing_to_convert_is_said(tmp_path):
    (tmp_path / "checkpoints" / "step-00000001.damaged").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-00000001.damaged" / "loop.pt").touch()
    with pytest.raises(RunConflict, match="holds no checkpoint of DeepSpeed's"):
        convert(tmp_path)


class Marker:
    """A pickle that leaves a file where it is read."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def forge(checkpoints: Path, what: str) -> None:
    part = checkpoints / "step-00000001" / "state"
    if what == "a file more":
        (part / "rank-1.pt").write_bytes(pickle.dumps(Marker(checkpoints / "ran")))
    elif what == "another file":  # of the size that the loop has written down
        size = (part / "read_me.py").stat().st_size
        (part / "read_me.py").write_text("x" * size)
    elif what == "no signature":
        part.with_name("state.signed").unlink()
    elif what == "words of others":  # that no signature has
        part.with_name("state.signed").write_text("é")
    elif what == "another user's":
        (Path(os.environ["DWF_STATE"]) / "key").unlink()


FORGED = ["a file more", "another file", "no signature", "another user's", "words of others"]


@pytest.mark.parametrize("what", FORGED)
def test_what_this_user_did_not_sign_is_neither_read_nor_converted(tmp_path, what):
    checkpoints = tmp_path / "checkpoints"
    fill(checkpoints, [1])
    assert newest(checkpoints).part == "state"
    forge(checkpoints, what)
    part = checkpoints / "step-00000001" / "state"
    for refused in (lambda: newest(checkpoints), lambda: convert(tmp_path)):
        with pytest.raises(ConfigError, match=re.escape(f"--trust-pickle {part}")):
            refused()
    assert names(checkpoints)[-1] == "step-00000001"  # not set aside: it may be sound
    assert not (checkpoints / "ran").exists()
    trust_pickle(part)
    assert newest(checkpoints).part == "state"


def test_the_key_is_the_users_alone(tmp_path):
    fill(tmp_path, [1])
    key = Path(os.environ["DWF_STATE"]) / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_bytes()) == 32
    part = tmp_path / "step-00000001" / "state"
    files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in part.iterdir()}
    text = json.dumps(files, sort_keys=True).encode()
    expected = hmac.new(key.read_bytes(), text, "sha256").hexdigest()
    assert part.with_name("state.signed").read_text() == f"{expected}\n"
    key.chmod(0o640)
    with pytest.raises(ConfigError, match="key has mode 640"):
        newest(tmp_path)
