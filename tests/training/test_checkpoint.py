"""Checkpoints: the newest whole one is loaded, and every flipped bit is noticed or harmless."""

import pytest
import torch

from dwf.errors import CorruptCheckpoint
from dwf.run_folder import load_state, save_state
from dwf.training.checkpoint import load_newest, save_checkpoint


def fill(folder, steps):
    for step in steps:
        save_checkpoint(
            folder, step, state={"step": step, "weights": torch.full((1000,), float(step))}
        )


def flip_a_bit(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_keeps_the_newest_two(tmp_path):
    fill(tmp_path, [5, 100, 20])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000020.pt", "step-00000100.pt"]
    assert load_newest(tmp_path)["step"] == 100


def test_none_without_checkpoints(tmp_path):
    assert load_newest(tmp_path / "missing") is None


def test_a_truncated_checkpoint_gives_way_to_the_one_before(tmp_path, caplog):
    fill(tmp_path, [1, 2])
    newest = tmp_path / "step-00000002.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    assert load_newest(tmp_path)["step"] == 1
    assert "step-00000002.pt is damaged" in caplog.text
    assert (tmp_path / "step-00000002.pt.damaged").exists()


def test_every_altered_byte_is_noticed_or_harmless(tmp_path):
    path = tmp_path / "state.pt"
    whole = {"weights": torch.arange(300.0)}
    save_state(path, whole)
    data = path.read_bytes()
    for position in range(0, len(data), 23):
        flip_a_bit(path, position)
        try:
            assert torch.equal(load_state(path)["weights"], whole["weights"])
        except CorruptCheckpoint as error:
            assert "state.pt is damaged" in str(error)
        path.write_bytes(data)


def test_altered_weights_are_refused(tmp_path):
    path = tmp_path / "state.pt"
    save_state(path, {"weights": torch.full((1000,), 3.0)})
    flip_a_bit(path, path.read_bytes().index(torch.full((9,), 3.0).numpy().tobytes()) + 17)
    with pytest.raises(CorruptCheckpoint, match="checksum"):
        load_state(path)


def test_all_damaged_is_an_error_and_then_a_fresh_start(tmp_path):
    fill(tmp_path, [1, 2])
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(CorruptCheckpoint, match="all 2 checkpoints"):
        load_newest(tmp_path)
    assert load_newest(tmp_path) is None


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "state.pt"
    save_state(path, {"weights": torch.ones(3)})
    with pytest.raises(Exception, match="pickle"):
        save_state(path, {"weights": lambda: None})
    assert torch.equal(load_state(path)["weights"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]
