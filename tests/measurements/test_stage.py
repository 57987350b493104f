"""The stage on trained networks: known scores, whole columns, bitwise resumes."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dwf import settings
from dwf.cluster import local
from dwf.commands import COMMANDS
from dwf.densities.config import FlowConfig
from dwf.errors import ConfigError, CorruptCheckpoint, IncompleteZoo, NotAZoo, RunConflict
from dwf.measurements import folder as folders
from dwf.measurements import stage as measurement
from dwf.measurements.columns import images_of, measured
from dwf.measurements.config import (
    AccuracyConfig,
    CorruptionConfig,
    CostConfig,
    FgsmConfig,
    GapConfig,
    MeasureConfig,
    OwnConfig,
    PgdConfig,
)
from dwf.measurements.folder import Measured, block_file
from dwf.measurements.stage import measure_zoo, plan, report
from dwf.settings import to_dict
from dwf.trust import code_in, trust_code
from dwf.zoo.manifest import write_manifest
from dwf.zoo.status import read_status
from dwf.zoo.store import Zoo, is_whole
from dwf.zoo.verify import find_damage

ROOT = Path(__file__).parent.parent.parent
BOTH = ("val", "test")
MEASURES = {
    "clean": AccuracyConfig(parts=("train", "val", "test"), images=200),
    "fgsm": FgsmConfig(parts=BOTH, images=50),
    "pgd": PgdConfig(images=50, steps=2),
    "noise": CorruptionConfig(transform="noise", strength=0.2, parts=BOTH),
    "network": CostConfig(),
}
NAMES = {
    *("train_clean_accuracy", "train_clean_loss", "clean_accuracy", "clean_loss"),
    *("test_clean_accuracy", "test_clean_loss", "fgsm_accuracy", "test_fgsm_accuracy"),
    *("pgd_accuracy", "noise_accuracy", "test_noise_accuracy"),
    *("network_parameters", "network_flops"),
}


def config(**changes) -> MeasureConfig:
    return MeasureConfig(**({"zoo": "z", "measures": MEASURES, "block": 6} | changes))


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.fixture(scope="module")
def whole(made_root) -> Path:
    """All measures of all rows, in four blocks."""
    (found,) = measure_zoo(config(), made_root, name="whole")
    return found.folder


def test_every_row_has_its_numbers_and_shards_stay_as_they_were(whole, made_root):
    zoo = Zoo.open(made_root / "zoos" / "z")
    assert whole == made_root / "zoos" / "z" / "measured" / "whole"
    assert set(files_of(whole)) == {"measured.json", *(f"block-{i:05d}.npz" for i in range(4))}
    columns = measured(zoo, made_root)
    assert columns.keys() == NAMES
    for values in columns.values():
        assert values.shape == (20,) and values.dtype == np.float64 and np.isfinite(values).all()
    assert (columns["fgsm_accuracy"] < columns["clean_accuracy"]).mean() > 0.8
    assert find_damage(zoo.path) == [] and is_whole(zoo.path) and read_status(zoo.path).is_whole
    assert not (whole / "run" / "work").exists()


def test_on_all_images_accuracies_are_those_that_the_zoo_records(root):
    measures = {"clean": AccuracyConfig(parts=("train", "val", "test"))}
    measure_zoo(config(measures=measures), root, name="m")
    zoo = Zoo.open(root / "zoos" / "z")
    columns = measured(zoo, root)
    for part, name in (("train", "train_clean"), ("val", "clean"), ("test", "test_clean")):
        recorded = zoo.columns[f"{part}_accuracy"]
        np.testing.assert_allclose(columns[f"{name}_accuracy"], recorded, atol=1e-6)
        images = images_of(zoo, root, column=f"{name}_accuracy")
        assert images == images_of(zoo, root, column=f"{part}_accuracy")
        assert images == {"train": 1150, "val": 287, "test": 360}[part]


def test_each_column_tells_its_images_and_settings(whole, made_root):
    zoo = Zoo.open(made_root / "zoos" / "z")
    told = Measured.read(whole)
    assert told.columns["test_noise_accuracy"].images == 360
    assert images_of(zoo, made_root, column="fgsm_accuracy") == 50
    assert images_of(zoo, made_root, column="clean_loss") is None
    assert images_of(zoo, made_root, column="network_flops") is None
    assert images_of(zoo, made_root, column="nothing") is None
    assert told.measures["pgd"]["steps"] == 2 and told.data["kind"] == "digits"
    assert told.fingerprint == zoo.fingerprint and told.rows == 20
    assert "time" not in (whole / "measured.json").read_text()


def test_columns_of_test_images_are_refused_as_conditions(whole):
    of_test = [name for name, one in Measured.read(whole).columns.items() if one.part == "test"]
    assert len(of_test) == 4
    for name in of_test:
        with pytest.raises(ValueError, match="scores on test images are read by reports alone"):
            FlowConfig(condition=name)
    assert FlowConfig(condition="fgsm_accuracy").conditions == ("fgsm_accuracy",)


def test_measured_again_it_says_so_and_overwrites_nothing(whole, made_root, caplog):
    before = files_of(whole)
    with caplog.at_level("INFO", "dwf"):
        (found,) = measure_zoo(config(), made_root, name="whole")
    assert "finished already" in caplog.text and files_of(whole) == before
    assert found.values.keys() == NAMES
    other = config(measures=MEASURES | {"pgd": PgdConfig(images=50, steps=3)})
    with pytest.raises(RunConflict, match=r"measures.pgd.steps = 2"):
        measure_zoo(other, made_root, name="whole")
    with pytest.raises(ConfigError, match=r"its column pgd_accuracy is measured already, in .*who"):
        measure_zoo(config(measures={"pgd": PgdConfig(steps=5)}), made_root, name="other")
    assert files_of(whole) == before and not (whole.parent / "other").exists()


def test_a_column_of_the_zoos_own_is_refused(root):
    own = OwnConfig(target="torch:zeros", columns=("accuracy",))
    trust_code("torch:zeros")
    zoo = Zoo.open(root / "zoos" / "z")
    assert "val_accuracy" in zoo.columns
    with pytest.raises(ConfigError, match=r"column val_accuracy is measured already, in the table"):
        measure_zoo(config(measures={"val": own}), root, name="m")
    gap = {"generalisation_gap": GapConfig()}
    with pytest.raises(ConfigError, match=r"already, in train_accuracy and test_accuracy of .*/z"):
        measure_zoo(config(measures=gap), root, name="m")


@pytest.mark.parametrize("stop_after", [0, 2])
def test_a_measurement_that_is_killed_ends_bitwise_equal(whole, root, monkeypatch, stop_after):
    do, done = measurement.measure_unit, []

    def die(folder: Path, index: int) -> None:
        if len(done) == stop_after:
            raise KeyboardInterrupt
        done.append(index)
        do(folder, index)

    monkeypatch.setattr(measurement, "measure_unit", die)
    with pytest.raises(KeyboardInterrupt):
        measure_zoo(config(), root, name="whole")
    zoo, folder = Zoo.open(root / "zoos" / "z"), root / "zoos" / "z" / "measured" / "whole"
    assert np.isfinite(measured(zoo, root)["fgsm_accuracy"]).sum() == 6 * stop_after
    monkeypatch.undo()
    measure_zoo(config(), root, name="whole")
    assert files_of(folder) == files_of(whole)


def test_a_block_that_is_lost_is_measured_again(whole, root):
    measure_zoo(config(), root, name="whole")
    folder = root / "zoos" / "z" / "measured" / "whole"
    block_file(folder, 2).unlink()
    measure_zoo(config(), root, name="whole")
    assert files_of(folder) == files_of(whole)


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_workers(whole, root):
    measure_zoo(config(), root, name="whole", run=local.runner(2))
    assert files_of(root / "zoos" / "z" / "measured" / "whole") == files_of(whole)


def test_only_last_epochs_are_measured_where_so_asked(root):
    few = {"clean": MEASURES["clean"]}
    measure_zoo(config(measures=few, epochs="last"), root, name="m")
    zoo = Zoo.open(root / "zoos" / "z")
    there = np.isfinite(measured(zoo, root)["clean_accuracy"])
    np.testing.assert_array_equal(np.flatnonzero(there), zoo.rows(epoch="last"))


def test_a_zoo_in_work_and_one_that_is_not_there_are_refused(root):
    path = root / "zoos" / "z"
    with pytest.raises(NotAZoo, match="is not a zoo"):
        measure_zoo(config(zoo="none"), root, name="m")
    (path / "zoo.h5").unlink()
    with pytest.raises(IncompleteZoo, match=r"is still in work: it lacks shards or zoo.h5"):
        measure_zoo(config(), root, name="m")
    assert "in work" in plan(config(), root, name="m") and not (path / "measured").exists()


@pytest.mark.parametrize("told", [True, False])
def test_columns_of_a_zoo_that_cannot_be_written_lie_under_runs(root, monkeypatch, told):
    """Root may write anywhere: so the system's answer, or its error, is made here."""
    few, mkdir = config(measures={"clean": MEASURES["clean"]}), Path.mkdir

    def refuse(path: Path, *arguments: object, **more: object) -> None:
        if "measured" in path.parts:
            raise OSError(30, "Read-only file system", str(path))
        mkdir(path, *arguments, **more)

    if told:
        monkeypatch.setattr(folders.os, "access", lambda path, mode: False)
    else:
        monkeypatch.setattr(Path, "mkdir", refuse)
    (found,) = measure_zoo(few, root, name="m")
    assert found.folder == root / "runs" / "z-measured" / "m"
    zoo = Zoo.open(root / "zoos" / "z")
    assert np.isfinite(measured(zoo, root)["clean_accuracy"]).all()
    assert not (zoo.path / "measured").exists()
    before = files_of(found.folder)
    assert measure_zoo(few, root, name="m")[0].folder == found.folder
    assert files_of(found.folder) == before


def test_values_belong_to_weights_not_to_places(root, caplog):
    few = config(measures={"clean": MEASURES["clean"]})
    (found,) = measure_zoo(few, root, name="m")
    file = block_file(found.folder, 1)
    held = dict(np.load(file))
    held["checksum"][2] += 1
    np.savez(file, **held)
    zoo = Zoo.open(root / "zoos" / "z")
    values = measured(zoo, root)["clean_accuracy"]
    assert np.flatnonzero(np.isnan(values)).tolist() == [8]
    assert "1 rows have other weights than when they were measured" in caplog.text
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CorruptCheckpoint, match=r"block-00001.npz is damaged"):
        measured(zoo, root)


def test_a_zoo_of_other_weights_is_no_longer_the_one_that_was_measured(root):
    few = config(measures={"clean": MEASURES["clean"]})
    (found,) = measure_zoo(few, root, name="m")
    file = found.folder / "measured.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"fingerprint": "0" * 16}))
    with pytest.raises(RunConflict, match=r"is of other weights than .*z has now"):
        measure_zoo(few, root, name="m")
    file.write_text("{}")
    with pytest.raises(CorruptCheckpoint, match=r"measured.json: it is damaged"):
        measured(Zoo.open(root / "zoos" / "z"), root)


def test_the_zoos_of_a_manifest_are_measured_one_by_one(root, capsys):
    shutil.copytree(root / "zoos" / "z", root / "zoos" / "y")
    write_manifest(root / "zoos" / "both", {"a": "z", "b": "y"})
    few = config(zoo="both", measures={"network": CostConfig()})
    found = measure_zoo(few, root, name="m")
    assert [one.told.zoo for one in found] == ["z", "y"]
    report(found)
    assert "network_flops" in capsys.readouterr().out
    assert plan(few, root, name="m").count("20 networks of 610 weights") == 2


# --- measures of the user's own -------------------------------------------------------------------

OWN = """
from dwf.networks.functional import network_logits

def spread(network, state, images_MX, labels_M, scale=1.0):
    logits_NMK = network_logits(network, state, images_MX=images_MX)
    return {"spread": scale * logits_NMK.std((1, 2)), "images": [len(labels_M)] * len(logits_NMK)}

def spoil(network, state, images_MX, labels_M):
    for tensor in (*state.values(), images_MX, labels_M):
        tensor.zero_()
    return {"spread": [1.0] * len(next(iter(state.values())))}

def wrong(network, state, images_MX, labels_M):
    return {"spread": [1.0]}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's in the folder where the command is given."""
    (tmp_path / "own_measure.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield OwnConfig(
        target="own_measure:spread",
        columns=("spread", "images"),
        arguments={"scale": 2.0},
        parts=("test",),
        images=30,
    )
    sys.modules.pop("own_measure", None)


def test_a_measure_of_the_users_own_runs_where_they_named_it(root, own):
    asked = config(measures={"mine": own})
    assert code_in(asked) == {"own_measure:spread"}
    with pytest.raises(ConfigError, match=r"measures.mine.target = 'own_measure:spread' is code"):
        measure_zoo(asked, root, name="m")
    assert "own_measure" not in sys.modules
    trust_code("own_measure:spread")
    (found,) = measure_zoo(asked, root, name="m")
    assert (found.values["test_mine_images"] == 30).all()
    assert (found.values["test_mine_spread"] > 0).all()


def test_what_it_does_to_its_arguments_changes_no_other_measure(root, own):
    trust_code("own_measure:spoil")
    mine = replace(own, target="own_measure:spoil", columns=("spread",), arguments={})
    (found,) = measure_zoo(
        config(measures={"mine": mine, "after": AccuracyConfig(parts=("test",))}), root, name="m"
    )
    (alone,) = measure_zoo(
        config(measures={"alone": AccuracyConfig(parts=("test",))}), root, name="n"
    )
    np.testing.assert_array_equal(found.values["test_after_loss"], alone.values["test_alone_loss"])


def test_what_it_returns_is_looked_at(root, own):
    trust_code("own_measure:wrong", "own_measure:nothing")
    for target, columns, said in (
        (
            "own_measure:wrong",
            ("other",),
            r"it returned \['spread'\], expected a dictionary with o",
        ),
        (
            "own_measure:wrong",
            ("spread",),
            r"returned spread of shape \[1\], expected a number for",
        ),
        (
            "own_measure:nothing",
            ("spread",),
            r"it cannot be imported from .*own_measure.py \(AttributeError",
        ),
    ):
        mine = replace(own, target=target, columns=columns, arguments={})
        with pytest.raises(ConfigError, match=said):
            measure_zoo(config(measures={"mine": mine}), root, name=columns[0] + target[-4:])


# --- the command ----------------------------------------------------------------------------------


def test_the_command_measures_and_resumes(root, capsys):
    main = COMMANDS["measure"].run
    file = root / "few.yaml"
    file.write_text("measures: {network: {kind: cost}}\n")
    words = ["--zoo", "z", "--root", str(root)]
    main(["--config", str(file), *words, "--dry-run"])
    assert not (root / "zoos" / "z" / "measured").exists()
    main(["--config", str(file), *words, "--workers", "1"])
    folder = root / "zoos" / "z" / "measured" / "few"
    assert "network_flops" in capsys.readouterr().out and folder.exists()
    main(["--resume", "--name", "few", *words, "--workers", "1"])
    assert f"columns: {folder}" in capsys.readouterr().out


def test_settings_come_back_as_they_were_written():
    asked = config()
    assert settings.build(MeasureConfig, to_dict(asked), source="again") == asked
