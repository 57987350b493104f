"""Which networks an export takes, and what becomes of one that was stopped or asked for twice."""

import json
import os
import zlib

import h5py
import numpy as np
import pytest

import dwf
from dwf import preemption, settings
from dwf.errors import ConfigError, CorruptShard, Preempted, RunConflict, TooFewNetworks
from dwf.exporters.config import EXPORTERS, ExportConfig
from dwf.exporters.selection import rows_of
from dwf.exporters.stage import plan
from dwf.zoo.shard import columns_checksum, storable
from dwf.zoo.store import Zoo, write_zoo


def contents(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_best_are_those_of_validation_images_alone(zoo):
    val_N = zoo.columns["val_accuracy"]
    expected = sorted(range(12), key=lambda row: -val_N[row])[:3]
    assert rows_of(ExportConfig(zoo.name, best=3), zoo).tolist() == expected
    assert rows_of(ExportConfig(zoo.name, rows=(5, 2)), zoo).tolist() == [5, 2]
    assert rows_of(ExportConfig(zoo.name), zoo).tolist() == list(range(12))


def test_a_draw_is_that_of_its_seed(zoo):
    first, again, other = (rows_of(ExportConfig("z", random=5, seed=s), zoo) for s in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()
    assert len(set(first.tolist())) == 5


def test_networks_are_taken_at_their_last_epoch(make_zoo, tmp_path):
    one = make_zoo(6)
    columns = {
        "network": np.repeat(np.arange(3), 2),
        "epoch": np.tile([1, 2], 3),
        "val_accuracy": np.array([0.9, 0.1, 0.2, 0.3, 0.8, np.nan]),
    }
    zoo = write_zoo(tmp_path / "zoos" / "e", one.facts, num_rows=6, blocks=[(columns, one.read())])
    assert rows_of(ExportConfig("e", best=3), zoo).tolist() == [3, 1, 5]
    assert set(rows_of(ExportConfig("e", random=3), zoo).tolist()) == {1, 3, 5}


@pytest.mark.parametrize("kind", ["safetensors", "state_dict", "npz"])
def test_equal_exports_are_equal_files(kind, zoo, export):
    one, other = export(zoo, kind, "one"), export(zoo, kind, "other")
    assert contents(one) == contents(other) and len(contents(one)) == 13


def test_an_export_goes_on_where_it_was(zoo, export, caplog):
    whole, folder = export(zoo, name="whole"), export(zoo)
    kept = folder / "row-0000003.safetensors"
    before = os.stat(kept).st_ino
    for row in (1, 2, 9):
        (folder / f"row-{row:07d}.safetensors").unlink()
    (folder / "row-0000001.safetensors.partial-0123").write_bytes(b"half")
    export(zoo)
    assert contents(folder) == contents(whole) and os.stat(kept).st_ino == before
    caplog.set_level("INFO", "dwf")
    export(zoo)
    assert "finished already" in caplog.text


def test_a_signal_stops_between_two_blocks(zoo, export, monkeypatch):
    monkeypatch.setattr("dwf.exporters.exporter._BLOCK", 5)
    monkeypatch.setattr(preemption, "_asked", [15])
    with pytest.raises(Preempted):
        export(zoo)
    monkeypatch.setattr(preemption, "_asked", [])
    folder = export(zoo)
    assert contents(folder) == contents(export(zoo, name="whole"))


def test_the_folder_says_what_it_is_and_nothing_of_the_machine(zoo, export):
    folder = export(zoo, best=2)
    told = json.loads((folder / "export.json").read_text())
    assert told["rows"] == rows_of(ExportConfig("z", best=2), zoo).tolist()
    assert told["fingerprint"] == zoo.fingerprint and told["network"]["kind"] == "mlp"
    assert set(contents(folder)) == {"export.json"} | {
        f"row-{row:07d}.safetensors" for row in told["rows"]
    }


def test_a_plan_touches_nothing(zoo, tmp_path):
    config = ExportConfig(zoo.name, to=str(tmp_path / "out"), random=4)
    assert "4 networks in 4 files" in plan(config, tmp_path, name="n")
    assert not (tmp_path / "out").exists()
    assert "not there yet" in plan(ExportConfig("nowhere"), tmp_path, name="n")


def test_without_a_folder_it_goes_under_the_root(zoo, tmp_path):
    folder = dwf.export_networks(ExportConfig(zoo.name, rows=(1,)), tmp_path, name="mine")
    assert folder == tmp_path / "exports" / "mine" and len(contents(folder)) == 2


# --- bad input -----------------------------------------------------------------------------------


def with_nan(zoo: Zoo, row: int) -> Zoo:
    """The zoo with a weight that is not a number in a row, its checksums right."""
    shard, view = zoo.shards[0].path, zoo.path / "zoo.h5"
    view.unlink()
    with h5py.File(shard, "r+") as file:
        file["weights"][row, 2] = np.nan
        file["checksum"][row] = zlib.crc32(file["weights"][row].tobytes())
        names = list(file.attrs["columns"])
        columns = {name: storable(file[name][()]) for name in names}
        file.attrs["columns_checksum"] = columns_checksum(columns)
    return Zoo.open(zoo.path, incomplete=True)


def test_a_row_that_is_not_finite_is_refused_by_its_number(zoo, export, tmp_path):
    bad = with_nan(zoo, 7)
    with pytest.raises(CorruptShard, match=r"row 7 holds weights that are not finite.*--not-fini"):
        export(bad)
    assert not (tmp_path / "out").exists(), "a refused export wrote something"
    assert len(contents(export(bad, name="some", rows=(1, 2)))) == 3
    assert len(contents(export(bad, name="asked", not_finite=True))) == 13


def test_rows_that_are_not_there(zoo, make_zoo, tmp_path):
    with pytest.raises(ConfigError, match=r"rows = 12: .* has rows 0 to 11"):
        rows_of(ExportConfig("z", rows=(3, 12)), zoo)
    with pytest.raises(ConfigError, match=r"row = 12: .* has rows 0 to 11"):
        zoo.network(12)
    for name in ("best", "random"):
        with pytest.raises(ConfigError, match=f"{name} = 13: .* has 12 networks"):
            rows_of(ExportConfig("z", **{name: 13}), zoo)
    with pytest.raises(ConfigError, match="no accuracies on validation images"):
        rows_of(ExportConfig("z", best=1), make_zoo(name="unscored"))
    empty = write_zoo(tmp_path / "empty", zoo.facts, num_rows=0, blocks=[])
    with pytest.raises(TooFewNetworks, match="holds no networks"):
        rows_of(ExportConfig("z"), empty)


def test_settings_that_contradict_each_other():
    with pytest.raises(ValueError, match="best = 1 and random = 2: one of them"):
        ExportConfig("z", best=1, random=2)
    with pytest.raises(ValueError, match="3 is given twice"):
        ExportConfig("z", rows=(3, 1, 3))
    with pytest.raises(ConfigError, match="did you mean 'safetensors'"):
        settings.build(ExportConfig, {"zoo": "z", "format": "safetensor"}, source="file")


def test_a_folder_of_something_else_is_left_alone(zoo, export, tmp_path):
    folder = export(zoo, rows=(1,))
    before = contents(folder)
    with pytest.raises(RunConflict, match=r"holds an export with kind = 'safetensors', this one"):
        export(zoo, "npz", rows=(1,))
    with pytest.raises(RunConflict, match=r"rows = \[1\], this one has \[2\]"):
        export(zoo, rows=(2,))
    assert contents(folder) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(RunConflict, match=r"holds letter.txt, and is no export"):
        export(zoo, name="mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunConflict, match="is a file, expected a folder"):
        export(zoo, name="file")


def test_formats_are_those_of_the_table():
    import typing

    hints = typing.get_type_hints(ExportConfig)
    assert set(typing.get_args(hints["format"])) == set(EXPORTERS)
