"""Zoos trained together are, byte for byte, those trained one by one, and have one name."""

import dataclasses
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml

import dwf
from dwf import preemption, settings
from dwf.align.config import AlignConfig
from dwf.align.family import align_zoos
from dwf.align.family import plan as plan_alignment
from dwf.align.stage import align_zoo
from dwf.cluster import local
from dwf.commands import COMMANDS
from dwf.errors import ConfigError, NotAZoo, Preempted, RunConflict
from dwf.evaluation.frames import open_unaligned
from dwf.networks.functional import build_network
from dwf.zoo import care
from dwf.zoo.config import ZooConfig
from dwf.zoo.family import plan, training_progress, work
from dwf.zoo.family_config import FamilyConfig
from dwf.zoo.layout import Layout
from dwf.zoo.manifest import read_manifest, write_manifest, zoos_named
from dwf.zoo.stage import train_zoo
from dwf.zoo.store import Zoo
from tests.hostile.test_other_peoples_files import tree

PRESETS = sorted(Path("configs/zoo/families").glob("*.yaml"))
SHARED = {
    "data": {"kind": "iris", "validation": 0.2},
    "count": 6,
    "shard": 4,
    "cohort": 2,
    "recipe": {"epochs": 2, "batch_size": 16},
    "split": {"val": 0.2, "test": 0.2},
    "compute": {"device": "cpu"},
}
ZOOS = {
    "thin": {"network": {"kind": "mlp", "widths": [4, 3, 3]}},
    "wide": {
        "network": {"kind": "mlp", "widths": [4, 5, 3]},
        "count": 5,
        "vary": {"learning_rate": [1e-3, 1e-2]},
    },
}
FAMILY = FamilyConfig(ZOOS, SHARED, seed=3)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*") if file.is_file()}


def test_each_zoo_is_what_it_would_be_alone(tmp_path):
    """Trained by `train_zoo` from settings written out."""
    zoos = dwf.train_zoos(FAMILY, tmp_path / "here", name="both")
    for label, own in ZOOS.items():
        alone = settings.build(ZooConfig, SHARED | own | {"seed": 3}, source="here")
        train_zoo(alone, tmp_path / "alone", name=f"both-{label}")
        expected = bytes_of(tmp_path / "alone" / "zoos" / f"both-{label}")
        assert bytes_of(tmp_path / "here" / "zoos" / f"both-{label}") == expected
    assert {label: len(zoo) for label, zoo in zoos.items()} == {"thin": 6, "wide": 5}
    assert zoos["wide"].facts.vary.learning_rate == (1e-3, 1e-2)
    told = json.loads((tmp_path / "here" / "zoos" / "both" / "zoo.json").read_text())
    assert told["zoos"] == {"thin": "both-thin", "wide": "both-wide"}


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(tmp_path):
    dwf.train_zoos(FAMILY, tmp_path / "here", name="both")
    dwf.train_zoos(FAMILY, tmp_path / "pool", name="both", run=local.runner(2))
    for label in ZOOS:
        made = bytes_of(tmp_path / "pool" / "zoos" / f"both-{label}")
        assert made == bytes_of(tmp_path / "here" / "zoos" / f"both-{label}")


def test_a_family_that_is_stopped_goes_on_to_the_same_bytes(tmp_path, caplog):
    dwf.train_zoos(FAMILY, tmp_path / "whole", name="both")
    done = []

    def stop_after_two(units):
        for index in range(units.count):
            if len(done) == 2:
                preemption.watch()
                signal.raise_signal(signal.SIGUSR2)
                preemption.stop()
            units.unit(units.folder, index)
            done.append(index)

    with pytest.raises(Preempted):
        dwf.train_zoos(FAMILY, tmp_path / "parts", name="both", run=stop_after_two)
    preemption.forget()
    folder = tmp_path / "parts" / "zoos" / "both"
    units = work(FAMILY, tmp_path / "parts", name="both")
    assert units.count == 4 and units.size == 11
    assert units.finished(folder) == {0, 1} and training_progress(folder)[0] == 6 / 11
    dwf.train_zoos(FAMILY, tmp_path / "parts", name="both")
    for label in ZOOS:
        made = bytes_of(tmp_path / "parts" / "zoos" / f"both-{label}")
        assert made == bytes_of(tmp_path / "whole" / "zoos" / f"both-{label}")
    caplog.set_level("INFO", "dwf")
    before = tree(tmp_path / "parts")
    dwf.train_zoos(FAMILY, tmp_path / "parts", name="both")
    assert tree(tmp_path / "parts") == before  # it may be another user's: no lock, no record
    assert sum("is finished already" in line for line in caplog.messages) >= 2
    with pytest.raises(RunConflict, match=r"count = None, this one has 3"):
        other = dataclasses.replace(FAMILY, count=3)
        dwf.train_zoos(other, tmp_path / "parts", name="both")
    shard = folder.with_name("both-wide") / "shard-00001-of-00002.h5"
    made = shard.read_bytes()
    shard.unlink()
    dwf.train_zoos(FAMILY, tmp_path / "parts", name="both")
    assert shard.read_bytes() == made


def test_a_family_on_own_data_has_no_path_and_goes_on_where_they_moved(tmp_path, monkeypatch):
    monkeypatch.setenv("DWF_DATA", str(tmp_path / "cache"))
    stream = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", x_train=stream.random((40, 4)), y_train=np.arange(40) % 3)
    own = SHARED | {"data": {"kind": "arrays", "path": str(tmp_path / "a.npz"), "validation": 0.2}}
    zoos = dwf.train_zoos(FamilyConfig(ZOOS, own), tmp_path, name="own")
    for file in (file for file in tmp_path.glob("zoos/*/**/*") if file.is_file()):
        typed = file.name in ("command.txt", "lock")
        assert typed or str(tmp_path / "a.npz").encode() not in file.read_bytes(), file
    (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    moved = own["data"] | {"path": str(tmp_path / "b.npz"), "name": "a.npz"}
    again = dwf.train_zoos(FamilyConfig(ZOOS, own | {"data": moved}), tmp_path, name="own")
    assert {label: len(zoo) for label, zoo in again.items()} == {"thin": 6, "wide": 5}
    assert zoos["thin"].facts.data.sha256 == again["wide"].facts.data.sha256
    recorded = settings.load(FamilyConfig, tmp_path / "zoos" / "own" / "run" / "config.yaml")
    assert dwf.train_zoos(recorded, tmp_path, name="own").keys() == zoos.keys()


def test_a_plan_tells_of_each_zoo_and_touches_nothing(tmp_path):
    told = plan(FAMILY, tmp_path, name="both")
    assert "6 networks of 27 weights" in told and "5 networks of 43 weights" in told
    assert "2 zoos of 11 networks in all" in told
    assert work(FAMILY, tmp_path, name="both").finished(tmp_path / "zoos" / "both") == set()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("zoos", "shared", "said"),
    [
        ({}, {}, r"own.yaml: FamilyConfig: zoos = \{\}"),
        ({"a/b": {}}, {}, r"zoos.a/b = {}: expected a label"),
        ({"a": 3}, {}, "zoos.a = 3: expected .name: value. pairs"),
        ({"a": {}}, SHARED, "zoos.a.network is missing"),
        ({"a": ZOOS["thin"]}, SHARED | {"epochs": 3}, "zoos.a.epochs: no such setting"),
        ({"a": ZOOS["thin"] | {"count": 0}}, SHARED, "zoos.a.count = 0: allowed is at least 1"),
    ],
)
def test_wrong_settings_are_told_with_file_and_key(tmp_path, zoos, shared, said):
    file = tmp_path / "own.yaml"
    file.write_text(json.dumps({"zoos": zoos, "shared": shared}))
    with pytest.raises(ConfigError, match=said):
        settings.load(FamilyConfig, file)


def test_networks_that_do_not_fit_their_data_are_refused_before_any_is_trained(tmp_path):
    wrong = {"network": {"kind": "mlp", "widths": [64, 5, 3]}}
    with pytest.raises(ConfigError, match="64"):
        dwf.train_zoos(FamilyConfig({**ZOOS, "bad": wrong}, SHARED), tmp_path, name="both")
    assert not list((tmp_path / "zoos").glob("*/shard-*"))


# --- one name for several zoos -------------------------------------------------------------------


def test_a_manifest_is_read_back_and_stands_for_its_zoos_in_order(tmp_path):
    zoos = {"b": "one", "a": "two"}
    write_manifest(tmp_path / "all", zoos)
    before = (tmp_path / "all" / "zoo.json").stat().st_mtime_ns
    write_manifest(tmp_path / "all", zoos)
    assert (tmp_path / "all" / "zoo.json").stat().st_mtime_ns == before
    assert list(read_manifest(tmp_path / "all").items()) == [("b", "one"), ("a", "two")]
    assert zoos_named(tmp_path, ["x", "all", "y"]) == ("x", "one", "two", "y")
    assert read_manifest(tmp_path / "none") is None


def test_wrong_manifests_are_refused(tmp_path, make_zoo):
    zoo = make_zoo()
    with pytest.raises(RunConflict, match=r"small is a zoo, and not of one"):
        write_manifest(zoo.path, {"a": "one"})
    write_manifest(tmp_path / "all", {"a": "one"})
    with pytest.raises(RunConflict, match="is a manifest of one, and not of two"):
        write_manifest(tmp_path / "all", {"a": "two"})
    for zoos in ({}, {"../a": "one"}, {"": "one"}, {"a": "one", "b": "one"}):
        with pytest.raises(ConfigError, match="expected labels"):
            write_manifest(tmp_path / "other", zoos)
    with pytest.raises(NotAZoo, match=r"all is a manifest of several zoos, .* needed: one"):
        Zoo.open(tmp_path / "all")
    file = tmp_path / "all" / "zoo.json"
    for told, said in (
        ({"version": 9, "zoos": {"a": "b"}}, "version 9 of 1 zoos"),
        ({"version": 1, "zoos": []}, "version 1 of 0 zoos"),
        ({"version": 1, "zoos": {"a": "../../etc"}}, "names '../../etc', expected a folder"),
    ):
        file.write_text(json.dumps({"format": "dwf-zoos"} | told))
        with pytest.raises(NotAZoo, match=said):
            read_manifest(tmp_path / "all")


def two_zoos(make_zoo) -> Path:
    """A manifest `all` of two zoos of random networks, as an importer would write it."""
    folder = make_zoo(widths=(64, 8, 10), name="thin", seed=1).path.parent
    make_zoo(widths=(64, 12, 10), name="wide", seed=2)
    write_manifest(folder / "all", {"t": "thin", "w": "wide"})
    return folder


def test_alignment_of_a_manifest_is_that_of_each_of_its_zoos(tmp_path, make_zoo):
    folder, config = two_zoos(make_zoo), AlignConfig("all", num_pairs=0)
    assert "2 aligned zoos" in plan_alignment(config, tmp_path, name="x/all")
    made = align_zoos(config, tmp_path, name="x/all")
    assert read_manifest(folder / "x" / "all") == {"t": "all-t", "w": "all-w"}
    assert open_unaligned(made[0], wanted_by="test").path == folder / "thin"
    assert zoos_named(folder, ["x/all"]) == ("x/all-t", "x/all-w")
    for zoo, name in zip(made, ("thin", "wide"), strict=True):
        alone = align_zoo(AlignConfig(name, num_pairs=0), tmp_path, name=f"{name}-aligned")
        assert (zoo.read() == alone.read()).all() and zoo.facts.aligned.aligned_from == name
    before = tree(folder)
    again = align_zoos(config, tmp_path, name="x/all")
    assert tree(folder) == before  # it may be another user's: no lock, no record
    assert [zoo.fingerprint for zoo in again] == [zoo.fingerprint for zoo in made]
    (single,) = align_zoos(AlignConfig("thin", num_pairs=0), tmp_path, name="thin-aligned")
    assert single.name == "thin-aligned"
    with pytest.raises(ConfigError, match="reference_zoo = 'wide': the zoos of all"):
        align_zoos(dataclasses.replace(config, reference_zoo="wide"), tmp_path, name="other")


def test_care_looks_at_each_zoo_of_a_manifest(tmp_path, make_zoo, capsys):
    folder = two_zoos(make_zoo)
    assert care.status((folder / "all",)) == 0 and care.verify((folder / "all",)) == 0
    told = capsys.readouterr().out
    assert f"{folder / 'thin'}: 1 shards are whole" in told
    assert f"{folder / 'wide'}: 1 shards are whole" in told
    assert care.info(folder / "all", True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["thin"]["layout"]["weights"] == 64 * 8 + 8 + 80 + 10 and len(told) == 2
    assert care.info(folder / "all") == 0 and str(folder / "wide") in capsys.readouterr().out
    next((folder / "wide").glob("shard-*")).unlink()
    assert care.verify((folder / "all",)) == 1


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_shipped_families_are_of_several_architectures(file):
    config = settings.load(FamilyConfig, file)
    layouts = {Layout.of(build_network(each.network)).digest for each in config.members.values()}
    assert len(layouts) == len(config.members) >= 3


def test_a_family_grows_zoo_by_zoo(tmp_path, monkeypatch, capsys):
    """By its own command and from Python, each as a zoo that grows alone."""
    monkeypatch.chdir(tmp_path)
    dwf.train_zoos(FAMILY, tmp_path, name="mine/both")
    shared = SHARED | {"count": 8}
    Path("larger.yaml").write_text(
        yaml.safe_dump({"zoos": FAMILY.zoos, "shared": shared, "seed": 3})
    )
    COMMANDS["zoo"].run(["--config", "larger.yaml", "--name", "mine/both", "--dry-run"])
    assert "family mine/both grows: mine/both-thin-6; the zoos then" in capsys.readouterr().out
    done = Path("zoos/mine/both/run/done.json")
    done.rename("done.json")
    larger = settings.load(FamilyConfig, Path("larger.yaml"))
    with pytest.raises(RunConflict, match="is to grow, and is not finished"):
        dwf.train_zoos(larger, tmp_path, name="mine/both")
    Path("done.json").rename(done)
    COMMANDS["zoo"].run(["--config", "larger.yaml", "--name", "mine/both"])
    named = zoos_named(tmp_path / "zoos", ["mine/both"])
    assert named == ("mine/both-thin", "mine/both-wide")
    assert {path.name for path in (tmp_path / "zoos").iterdir()} == {"mine"}
    assert [len(Zoo.open(tmp_path / "zoos" / name)) for name in named] == [8, 5]
    again = dwf.train_zoos(larger, tmp_path, name="mine/both")
    assert {label: len(zoo) for label, zoo in again.items()} == {"thin": 8, "wide": 5}
    other = dataclasses.replace(FAMILY, seed=4)
    with pytest.raises(RunConflict, match="seed = 3, this one has 4"):
        dwf.train_zoos(other, tmp_path, name="mine/both")
