"""Two checkouts compared: one bit is found, another layout of files is taken for equal."""

import json

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests import compare_checkouts
from tests.compare_checkouts import Checkout, Row, compare_roots, run_case

WEIGHTS_34 = torch.arange(12, dtype=torch.float32).reshape(3, 4)


@pytest.fixture
def roots(tmp_path):
    """Two roots of equal content: a zoo, a generator, a report."""
    for side in ("old", "new"):
        write(tmp_path / side, wrote_after=1.5 if side == "old" else 2.5)
    return tmp_path / "old", tmp_path / "new"


def write(root, wrote_after):
    for folder in ("zoos/z/run", "runs/g/codec", "runs/g/density", "reports/r"):
        (root / folder).mkdir(parents=True)
    (root / "zoos/z/zoo.json").write_text('{"count": 2, "seed": 0}\n')
    with h5py.File(root / "zoos/z/shard-00000-of-00001.h5", "w") as file:
        file.create_dataset("weights", data=WEIGHTS_34.numpy(), track_times=False)
    (root / "zoos/z/run/done.json").write_text(json.dumps({"rows": 2, "seconds": wrote_after}))
    (root / "zoos/z/run/command.txt").write_text(f"in {root}\n")
    np.savez(root / "runs/g/codec/codec.npz", template_D=WEIGHTS_34[0].numpy())
    save_density(root, {"module": {"w": WEIGHTS_34}, "like": torch.empty(0, 4), "name": "abc"})
    save_metrics(root / "runs/g", 0.25, rate=wrote_after)
    (root / "runs/g/config.yaml").write_text("seed: 0\n")
    (root / "reports/r/report.json").write_text(json.dumps({"sets": [{"mean": 0.1}, float("nan")]}))


def save_density(root, state):
    torch.save(state, root / "runs/g/density/flow.pt")


def save_metrics(folder, loss, rate):
    folder.mkdir(exist_ok=True)
    lines = [{"step": 5, "train_loss": 0.5, "steps/s": 1}, {"step": 9, "train_loss": loss}]
    lines[1]["steps/s"] = rate
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def rows_of(roots, allow=()) -> dict[str, Row]:
    rows, _ = compare_roots("case", *roots, allow=allow)
    return {row.part: row for row in rows}


def unequal(roots, allow=()) -> dict[str, tuple[str, ...]]:
    return {part: r.differences for part, r in rows_of(roots, allow).items() if r.differences}


def test_equal_roots_are_equal_but_for_time_and_host(roots):
    rows = rows_of(roots)
    assert not unequal(roots)
    assert rows["zoos/z zoo"].result == "equal bytes" and rows["zoos/z zoo"].files == 2
    assert rows["summaries"].result == "equal data, times left out"
    assert rows["runs/g metrics"].result == "equal series (1), times left out"
    assert compare_roots("case", *roots)[1] == {"command.txt": 2}


def test_a_layout_of_files_may_differ_where_tensors_are_equal(roots):
    save_density(roots[1], {"shape": [0, 4], "name": "abc"})
    save_file({"weight": WEIGHTS_34.clone()}, roots[1] / "runs/g/density/flow.safetensors")
    (row,) = (r for part, r in rows_of(roots).items() if part == "runs/g density")
    assert not row.differences
    assert row.result.startswith("equal tensors (1 of 48 bytes); the files' layout differs: ")
    moved = "runs/g/density/flow.pt:module.w => runs/g/density/flow.safetensors:weight"
    assert moved in row.result and "flow.pt:like" in row.result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_bit_of_a_tensor_is_found_and_named(roots, dtype):
    states = [{"module": {"w": WEIGHTS_34.clone().to(dtype)}, "name": "abc"} for _ in roots]
    width = WEIGHTS_34.to(dtype).element_size()
    states[1]["module"]["w"].view(torch.uint8).view(-1)[width * 6] ^= 1  # number [1, 2], 6.0
    for root, state in zip(roots, states, strict=True):
        save_density(root, state)
    (found,) = unequal(roots)["runs/g density"]
    name = str(dtype).removeprefix("torch.")
    begins = f"runs/g/density/flow.pt:module.w: {name} [3, 4]: 1 numbers, first at [1, 2]: "
    assert found.startswith(begins)
    if dtype == torch.float32:
        assert found.endswith(f"6.0 -> {float(np.nextafter(np.float32(6), np.float32(7)))}")


def test_a_tensor_that_is_gone_or_new_differs_and_so_does_its_type(roots):
    save_density(roots[1], {"module": {"w": WEIGHTS_34.double()}, "like": torch.empty(0, 4)})
    (changed,) = unequal(roots)["runs/g density"]
    assert changed.endswith("float32 [3, 4] -> float64 [3, 4]")
    save_density(roots[1], {"module": {"v": WEIGHTS_34 + 1}, "name": "abc"})
    gone, new = unequal(roots)["runs/g density"]
    assert gone.endswith("flow.pt:module.w: float32 [3, 4] is gone")
    assert new.endswith("flow.pt:module.v: float32 [3, 4] is new")


def test_equal_tensors_are_counted_as_often_as_they_are_there(roots):
    save_density(roots[0], {"a": WEIGHTS_34, "b": WEIGHTS_34.clone(), "name": "abc"})
    save_density(roots[1], {"c": WEIGHTS_34, "name": "abc"})
    (found,) = unequal(roots)["runs/g density"]
    assert found.endswith("flow.pt:b: float32 [3, 4] is gone")


def test_a_word_that_both_sides_say_must_be_the_same(roots):
    save_density(roots[1], {"module": {"w": WEIGHTS_34}, "like": torch.empty(0, 4), "name": "xyz"})
    assert unequal(roots)["runs/g density"] == ("runs/g/density/flow.pt:name: 'abc' -> 'xyz'",)


def test_a_zoo_is_held_to_its_bytes(roots):
    (roots[1] / "zoos/z/zoo.json").write_text('{"seed": 0, "count": 2}\n')
    found = ("zoos/z/zoo.json: other bytes, of equal content",)
    assert unequal(roots) == {"zoos/z zoo": found}
    assert not unequal(roots, allow=["zoos/z/zoo.json"])
    with h5py.File(roots[1] / "zoos/z/shard-00000-of-00001.h5", "r+") as file:
        file["weights"][2, 3] = -11
    weights, other = unequal(roots)["zoos/z zoo"]
    assert (other,) == found
    assert weights.endswith(":weights: float32 [3, 4]: 1 numbers, first at [2, 3]: 11.0 -> -11.0")


def test_a_file_that_is_missing_differs(roots):
    (roots[1] / "zoos/z/zoo.json").unlink()
    assert len(unequal(roots)["zoos/z zoo"]) == 2
    (roots[0] / "reports/r/report.json").unlink()
    assert "reports/r report" in unequal(roots)


def test_reports_and_losses_are_held_to_each_number_and_settings_are_told(roots):
    (roots[1] / "reports/r/report.json").write_text(
        json.dumps({"sets": [{"mean": 0.10000000000000002}, float("nan")]})
    )
    save_metrics(roots[1] / "runs/g", 0.26, rate=2.5)
    (roots[1] / "runs/g/config.yaml").write_text("seed: 0\nengine: plain\n")
    found = unequal(roots)
    assert set(found) == {"reports/r report", "runs/g metrics"}
    (mean,) = found["reports/r report"]
    assert mean == "reports/r/report.json:sets.0.mean: 0.1 -> 0.10000000000000002"
    assert "[9, 0.25]" in found["runs/g metrics"][0] and "0.26" in found["runs/g metrics"][0]
    assert "engine: 'plain' is new" in rows_of(roots)["settings"].result
    allowed = rows_of(roots, allow=["*:sets.*.mean"])["reports/r report"]
    assert not allowed.differences and "allowed to differ" in allowed.result


def test_losses_may_be_written_to_another_file(roots):
    (roots[1] / "runs/g/metrics.jsonl").unlink()
    save_metrics(roots[1] / "runs/g/density", 0.25, rate=7)
    assert not unequal(roots)
    assert "metrics.jsonl:train_loss => " in rows_of(roots)["runs/g metrics"].result


SCRIPT = """
import pathlib, sys
root = pathlib.Path(sys.argv[sys.argv.index("--root") + 1])
calls = pathlib.Path("calls.txt")
calls.write_text(f"{calls.read_text() if calls.exists() else ''}{sys.argv[1]}\\n")
(root / sys.argv[1]).write_text("made")
sys.exit(sys.argv[1] == "bad")
"""


def test_what_a_commit_made_is_kept_and_other_commands_or_changes_are_run_anew(
    tmp_path, monkeypatch
):
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch/zoo.py").write_text(SCRIPT)
    results, clean = tmp_path / "work/abc", Checkout(tmp_path, "abc", is_clean=True)
    changed = Checkout(tmp_path, "abc", is_clean=False)
    for checkout, words, calls in (
        (clean, ("a", "b"), "ab"),
        (clean, ("a", "b"), "ab"),
        (changed, ("a", "b"), "abab"),
        (clean, ("c",), "ababc"),
    ):
        commands = tuple(f"zoo.py {word}" for word in words)
        monkeypatch.setitem(compare_checkouts.CASES, "small", commands)
        assert run_case(checkout, results, case="small") is None
        assert "".join((tmp_path / "calls.txt").read_text().split()) == calls
        assert {file.name for file in (results / "small").iterdir()} == set(words)


def test_a_command_that_fails_is_told_and_nothing_is_kept(tmp_path, monkeypatch, capsys):
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch/zoo.py").write_text(SCRIPT)
    monkeypatch.setitem(compare_checkouts.CASES, "small", ("zoo.py bad", "zoo.py a"))
    sides = [(Checkout(tmp_path, "abc", is_clean=True), tmp_path / "work/abc")] * 2
    for _ in range(2):
        (row,), _ = compare_checkouts.compare_case("small", sides, allow=())
        assert row.differences == ("FAILED in abc: zoo.py, see small.log there",)
    assert (tmp_path / "calls.txt").read_text() == "bad\nbad\n"
    assert "exit 1: zoo.py bad" in capsys.readouterr().err
