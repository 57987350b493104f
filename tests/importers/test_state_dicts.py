"""Files that are broken, odd or hostile, and imports that were stopped.

Against rows computed here by torch alone.
"""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dwf import preemption
from dwf.datasets.config import DataConfig
from dwf.errors import ConfigError, Preempted, RunConflict
from dwf.importers.config import ImportConfig, ImportedData
from dwf.importers.stage import TABLE, import_zoo, plan
from dwf.networks.config import MLPConfig
from dwf.trust import trust_pickle
from dwf.zoo.config import SplitConfig
from tests.importers.written import Named, state_dicts

MLP = MLPConfig((64, 16, 10))
DIGITS = ImportedData(DataConfig("digits"), split="unknown")


@pytest.fixture
def source(tmp_path):
    state_dicts(tmp_path / "source")
    return tmp_path / "source"


def settings(source, **more) -> ImportConfig:
    usual = {"network": MLP, "data": DIGITS, "score": ()}
    return ImportConfig(str(source), **usual | more)


def left_out(folder) -> dict[str, str]:
    with open(folder / TABLE, newline="") as file:
        return {
            line["member"]: line["told"] for line in csv.DictReader(file) if line["row"] == "no"
        }


def row_of(state) -> np.ndarray:
    return torch.cat([tensor.float().flatten() for tensor in state.values()]).numpy()


def wrap_prefixes(state):
    return {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        wrap_prefixes,
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"param_groups": []}},
        lambda state: {"checkpoint": state},
        lambda state: {name: tensor.double() for name, tensor in state.items()},
        lambda state: {name: tensor.half() for name, tensor in state.items()},
        lambda state: state | {"num_batches_tracked": torch.tensor(7)},
        lambda state: state | {"steps": torch.tensor([7])},
    ],
    ids=["prefixes", "nested", "other key", "float64", "half", "counter", "integers"],
)
def test_what_lies_around_the_tensors_is_taken_off(source, tmp_path, wrap):
    state = Named(99).state_dict()
    torch.save(wrap(state), source / "wrapped.pt")
    zoo = import_zoo(settings(source), tmp_path, name="zoo")
    row = zoo.columns["member"].tolist().index("wrapped.pt")
    is_half = any(t.dtype == torch.half for t in wrap(state).values() if torch.is_tensor(t))
    expected = row_of({n: t.half() for n, t in state.items()} if is_half else state)
    assert np.array_equal(zoo.read([row])[0], expected)
    said = json.loads((zoo.path / "run" / "done.json").read_text())["converted"]
    kinds = {name: str(t.dtype) for name, t in wrap(state).items() if torch.is_tensor(t)}
    expected = {"steps of integers left out": 1} if "steps" in kinds else {}
    for kind in ("float64", "float16"):
        expected |= {f"{kind} made float32": 1} if f"torch.{kind}" in kinds.values() else {}
    assert said == expected


def test_safetensors_are_read_and_layers_put_in_their_order(tmp_path):
    """Twelve like layers, which the file holds by name: fc1, fc10, fc11, fc2."""
    (tmp_path / "source").mkdir()
    expected = []
    for seed in range(3):
        torch.manual_seed(seed)
        layers = {f"fc{i}": nn.Linear(64 if i == 0 else 16, 16) for i in range(12)}
        layers["fc12"] = nn.Linear(16, 10)
        state = nn.ModuleDict(layers).state_dict()
        save_file(dict(state), tmp_path / "source" / f"{seed}.safetensors")
        expected.append(row_of(state))
    network = MLPConfig((64, *[16] * 12, 10))
    zoo = import_zoo(settings(tmp_path / "source", network=network), tmp_path, name="zoo")
    assert np.array_equal(zoo.read(), np.stack(expected))


def test_odd_members_are_listed_and_left_out(source, tmp_path):
    state = Named(50).state_dict()

    def put(name, changed):
        torch.save(changed, source / name)

    put("nan.pt", state | {"fc1.bias": torch.full((16,), float("nan"))})
    put("complex.pt", state | {"fc1.bias": torch.zeros(16, dtype=torch.complex64)})
    put("lacks.pt", {name: t for name, t in state.items() if name != "fc2.bias"})
    put("scalar.pt", state | {"temperature": torch.tensor(1.0)})
    put("none.pt", {"epoch": 3})
    put("code.pt", {"state": state, "network": Named(0)})
    put("other.pt", nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 10)).state_dict())
    shutil.copy(source / "net_3.pt", source / "twin.pt")
    content = (source / "net_0.pt").read_bytes()
    (source / "cut.pt").write_bytes(content[: len(content) // 2])
    (source / "text.pt").write_text("not a network")
    flipped = bytearray(content)
    flipped[len(content) // 3] ^= 1
    (source / "flipped.pt").write_bytes(flipped)
    zoo = import_zoo(settings(source), tmp_path, name="zoo")
    told = left_out(zoo.path)
    assert set(told) == {
        *("nan.pt", "complex.pt", "lacks.pt", "scalar.pt", "none.pt", "code.pt", "other.pt"),
        *("twin.pt", "cut.pt", "text.pt", "flipped.pt"),
    }
    assert (
        told["nan.pt"] == "fc1.bias is not finite" and told["complex.pt"] == "fc1.bias is complex"
    )
    lacks = "it lacks layers.1 (weight [10, 16], bias [10]); it has fc2 (weight [10, 16])"
    assert told["lacks.pt"] == lacks and "temperature" in told["scalar.pt"]
    assert told["twin.pt"] == "a duplicate of net_3.pt" and "no tensors" in told["none.pt"]
    assert f"--trust-pickle {source / 'code.pt'}" in told["code.pt"]
    assert all("damaged" in told[name] for name in ("cut.pt", "text.pt", "flipped.pt"))
    assert len(zoo) == 12 and "[8, 64]" in told["other.pt"]
    done = json.loads((zoo.path / "run" / "done.json").read_text())
    assert done["left_out"]["damaged"] == 3 and done["rows"] == 12


def test_a_pickle_that_is_trusted_is_read(source, tmp_path):
    network = Named(77)
    torch.save({"network": network}, source / "code.pt")
    trust_pickle(source / "code.pt")
    zoo = import_zoo(settings(source), tmp_path, name="zoo")
    row = zoo.columns["member"].tolist().index("code.pt")
    assert np.array_equal(zoo.read([row])[0], row_of(network.state_dict()))


def test_of_several_parts_with_tensors_one_is_named(source, tmp_path):
    for file in source.iterdir():
        state = torch.load(file)
        torch.save({"model": state, "ema": {n: t + 1 for n, t in state.items()}}, file)
    with pytest.raises(ConfigError, match=r"'model' and 'ema'.*--nested model"):
        import_zoo(settings(source), tmp_path, name="zoo")
    zoo = import_zoo(settings(source, nested="ema"), tmp_path, name="zoo")
    assert np.allclose(zoo.read([0])[0], row_of(Named(0).state_dict()) + 1)


def test_without_a_network_the_settings_that_fit_are_named(source, tmp_path):
    for seed in range(5):
        state = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)).state_dict()
        torch.save(state, source / f"odd_{seed}.pt")
    with pytest.raises(ConfigError) as error:
        import_zoo(settings(source, network=None), tmp_path, name="zoo")
    said = str(error.value)
    assert "the majority is network: {kind: mlp, widths: [64, 16, 10]}" in said
    assert "2 architectures" in said and "12 like net_0.pt; 5 like odd_0.pt" in said
    with pytest.raises(ConfigError, match=r"none of the networks.*widths: \[64, 16, 10\]"):
        import_zoo(settings(source, network=MLPConfig((64, 4, 10))), tmp_path, name="zoo")
    assert not (tmp_path / "zoos").exists()


def test_a_loop_of_links_is_walked_once(source, tmp_path):
    (source / "more").mkdir()
    os.symlink(source, source / "more" / "again")
    os.symlink("dangling", source / "gone.pt")
    zoo = import_zoo(settings(source), tmp_path, name="zoo")
    assert len(zoo) == 12 and not left_out(zoo.path)


def test_an_import_that_was_stopped_goes_on_to_the_same_bytes(source, tmp_path, monkeypatch):
    shutil.copy(source / "net_0.pt", source / "zz_twin.pt")  # its twin is in the first shard
    config = settings(source, shard=4, score=("test",))
    whole = import_zoo(config, tmp_path / "whole", name="zoo")
    asked = iter([False] * 6 + [True] * 100)
    monkeypatch.setattr(preemption, "is_asked", lambda: next(asked))
    with pytest.raises(Preempted):
        import_zoo(config, tmp_path / "cut", name="zoo")
    monkeypatch.undo()
    shards = list((tmp_path / "cut").glob("zoos/zoo/shard-*"))
    assert len(shards) == 1
    import_zoo(config, tmp_path / "cut", name="zoo")
    for file in (*whole.path.glob("*.h5"), whole.path / TABLE, whole.path / "zoo.json"):
        assert file.read_bytes() == (tmp_path / "cut" / "zoos" / "zoo" / file.name).read_bytes()


def test_a_source_that_changed_under_an_import_is_refused(source, tmp_path, monkeypatch):
    monkeypatch.setattr(preemption, "is_asked", lambda: True)
    with pytest.raises(Preempted):
        import_zoo(settings(source), tmp_path, name="zoo")
    monkeypatch.undo()
    (source / "net_0.pt").unlink()
    with pytest.raises(RunConflict, match="other files"):
        import_zoo(settings(source), tmp_path, name="zoo")


def test_a_finished_import_asks_no_source(source, tmp_path, caplog):
    caplog.set_level("INFO")
    import_zoo(settings(source), tmp_path, name="zoo")
    shutil.rmtree(source)
    import_zoo(settings(source), tmp_path, name="zoo")
    assert "finished already" in caplog.text


def test_a_plan_touches_nothing(source, tmp_path):
    assert "12 members of 12 runs" in plan(settings(source), tmp_path, name="zoo")
    assert not (tmp_path / "zoos").exists()


def test_facts_and_splits_come_from_a_table(source, tmp_path):
    lines = ["member,split,learning_rate,note"]
    splits = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    lines += [f"net_{i},{split},{i / 10},n{i}" for i, split in enumerate(splits)]
    (tmp_path / "facts.csv").write_text("\n".join(lines))
    more = {"facts": str(tmp_path / "facts.csv"), "split_column": "split"}
    columns = import_zoo(settings(source, **more), tmp_path, name="zoo").columns
    assert columns["split"].tolist() == splits and columns["note"][11] == "n11"
    assert np.allclose(columns["learning_rate"], np.arange(12) / 10)


@pytest.mark.parametrize("form", ["runs", "published"])
def test_splits_come_from_a_file(source, tmp_path, form):
    """Names in it may be paths of another machine, and of members that are not here."""
    splits = {"train": [*range(8), 99], "val": [8, 9], "test": [10, 11]}
    told = {split: [f"net_{i}" for i in numbers] for split, numbers in splits.items()}
    if form == "published":
        paths = {split: [f"data/zoo/{name}.pt" for name in names] for split, names in told.items()}
        told = {split: {"path": names, "score": [0.1]} for split, names in paths.items()}
    (tmp_path / "splits.json").write_text(json.dumps(told))
    more = {"split_file": str(tmp_path / "splits.json")}
    columns = import_zoo(settings(source, **more), tmp_path, name="zoo").columns
    assert columns["split"].tolist() == ["train"] * 8 + ["val"] * 2 + ["test"] * 2


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"train": ["net_0"]}, r"tells nothing of net_1.pt \(and 10 more\)"),
        ({"train": ["net_0"], "test": ["a/net_0.pt"]}, "a run is in one"),
        ({"train": {"file": ["net_0"]}}, "train is dict, a list of names is expected"),
        ({"val": [0, 1]}, "val is list, a list of names is expected"),
        (["net_0"], "pairs are expected"),
        (None, "no such file"),
    ],
)
def test_files_that_split_no_runs_are_refused(source, tmp_path, told, said):
    if told is not None:
        (tmp_path / "splits.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match=said):
        more = {"split_file": str(tmp_path / "splits.json")}
        import_zoo(settings(source, **more), tmp_path, name="zoo")
    with pytest.raises(ValueError, match="give one"):
        settings(source, split_file="a.json", split_column="part")


def test_a_run_in_two_splits_is_refused(source, tmp_path):
    lines = ["member,part", *(f"net_{i},{'train' if i else 'test'}" for i in range(12))]
    (tmp_path / "facts.csv").write_text("\n".join(lines))
    more = {"facts": str(tmp_path / "facts.csv"), "split_column": "part", "run_pattern": "(net)"}
    with pytest.raises(ConfigError, match="a run is in one"):
        import_zoo(settings(source, **more), tmp_path, name="zoo")


def test_members_of_a_run_stay_together(source, tmp_path):
    """Pairs of files are runs: net_0 and net_10, by the last digit."""
    more = {"run_pattern": r"(\d)\.pt", "split": SplitConfig(0.2, 0.2)}
    columns = import_zoo(settings(source, **more), tmp_path, name="zoo").columns
    assert len(set(columns["network"].tolist())) == 10
    twins = [columns["member"].tolist().index(f"net_{i}.pt") for i in (1, 11)]
    assert columns["network"][twins[0]] == columns["network"][twins[1]]
    assert columns["split"][twins[0]] == columns["split"][twins[1]]


def test_a_pattern_of_runs_that_cannot_be_heeded_is_refused(source, tmp_path):
    with pytest.raises(ValueError, match="no regular expression"):
        settings(source, run_pattern="net_(")
    for kind in ("unterthiner", "pdiff_data"):
        config = settings(source, format=kind, run_pattern=r"(\d)\.pt")
        with pytest.raises(ConfigError, match="says which run each row is of"):
            import_zoo(config, tmp_path, name="zoo")


def test_images_that_networks_were_trained_on_are_kept_by_digest(source, tmp_path, monkeypatch):
    from dwf.datasets.load import load_dataset

    def config(file) -> ImportConfig:
        return settings(source, data=ImportedData(DataConfig("digits"), split=str(file)))

    data, file = load_dataset(DataConfig("digits")), tmp_path / "split.json"
    monkeypatch.setattr("dwf.datasets.image_split.data_folder", lambda: tmp_path / "data")
    split = {"train": list(range(0, 900)), "test": list(range(1500, 1797))}
    file.write_text(json.dumps(split))
    zoo = import_zoo(config(file), tmp_path, name="z")
    loaded = zoo.load_data()
    assert loaded.train.index.tolist() == split["train"]
    assert loaded.val.index.tolist() == list(range(900, 1500))
    assert loaded.test.index.tolist() == split["test"]
    digest = zoo.facts.image_split
    assert len(digest) == 16 and loaded.shape == data.shape
    assert str(tmp_path / "split") not in (zoo.path / "run" / "config.yaml").read_text()
    file.write_text('{"train": [5000], "test": [1]}')
    assert len(import_zoo(config(digest), tmp_path, name="z")) == len(zoo)
    with pytest.raises(RunConflict, match=rf"data\.split = '{digest}', this one has"):
        import_zoo(config(file), tmp_path, name="z")
    with pytest.raises(ConfigError, match="images 0 to 1796"):
        import_zoo(config(file), tmp_path, name="bad").load_data()
    with pytest.raises(ConfigError, match=r"data\.split = .nowhere.json.: no such file"):
        import_zoo(config("nowhere.json"), tmp_path, name="none")
