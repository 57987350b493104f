"""Sources that are partly broken, or told of in odd ways: the rest is imported, and it is said.

Against the tensors and columns that were written here, without dwf.
"""

import csv
import gzip
import json
import os
import shutil
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from dwf import preemption
from dwf.datasets.config import DataConfig
from dwf.datasets.image_split import keep_split, take_split
from dwf.datasets.load import load_dataset
from dwf.errors import ConfigError, Preempted
from dwf.importers.config import ImportConfig, ImportedData
from dwf.importers.stage import RENAMED, TABLE, import_zoo
from dwf.networks.config import MLPConfig
from dwf.trust import trust_pickle
from tests.importers import written
from tests.importers.written import Named

MLP, DIGITS = MLPConfig((64, 16, 10)), DataConfig("digits")


def settings(folder, kind="state_dict", *, data=DIGITS, split="unknown", **more) -> ImportConfig:
    usual = {"network": MLP, "data": ImportedData(data, split=str(split)), "score": ()}
    return ImportConfig(str(folder), format=kind, **usual | more)


def told(zoo) -> dict[str, str]:
    with open(zoo.path / TABLE, newline="") as file:
        return {line["member"]: line["told"] for line in csv.DictReader(file)}


def row_of(state) -> np.ndarray:
    return torch.cat([tensor.float().flatten() for tensor in state.values()]).numpy()


@pytest.fixture
def source(tmp_path):
    written.state_dicts(tmp_path / "source", num=4)
    return tmp_path / "source"


# --- one file each -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "best_acc1": torch.tensor(93.0)},
        lambda state: {"model": {"state_dict": state}, "optimizer": {"state": {0: {"m": state}}}},
        lambda state: state | {"about": {"mean": torch.zeros(3)}},
        lambda state: state | {"fc1._extra_state": {"scale": torch.zeros(5000)}},
    ],
    ids=["a number beside", "deeper", "fewer numbers below", "a module's own"],
)
def test_the_networks_tensors_are_found_among_others(source, tmp_path, wrap):
    state = Named(99).state_dict()
    torch.save(wrap(state), source / "wrapped.pt")
    zoo = import_zoo(settings(source), tmp_path, name="zoo")
    row = zoo.columns["member"].tolist().index("wrapped.pt")
    assert np.array_equal(zoo.read([row])[0], row_of(state))


def test_files_without_what_a_row_needs_are_left_out(source, tmp_path):
    state = Named(50).state_dict()
    torch.save({name: tensor.to("meta") for name, tensor in state.items()}, source / "meta.pt")
    torch.save({"model": state, "ema": state}, source / "two.pt")
    (source / "nothing.pt").write_bytes(b"")
    (source / "long.safetensors").write_bytes((100 * 2**30).to_bytes(8, "little") + b"{}")
    torch.save(state, source / "script.pt")
    with zipfile.ZipFile(source / "script.pt", "a") as archive:
        archive.writestr("script/constants.pkl", b"")
    os.mkfifo(source / "pipe.pt")
    zoo = import_zoo(settings(source), tmp_path, name="zoo")
    found = told(zoo)
    assert len(zoo) == 4 and "pipe.pt" not in found
    assert "no values (device meta)" in found["meta.pt"]
    assert "under 'model' and 'ema'" in found["two.pt"] and "--nested model" in found["two.pt"]
    assert found["nothing.pt"] == "damaged: it is empty" and "damaged" in found["long.safetensors"]
    assert "TorchScript" in found["script.pt"]


def test_a_trusted_pickle_whose_code_is_gone_is_left_out(source, tmp_path, monkeypatch):
    module = types.ModuleType("gone")
    module.Thing = type("Thing", (), {"__module__": "gone"})
    with monkeypatch.context() as there:
        there.setitem(sys.modules, "gone", module)
        torch.save({"model": Named(9).state_dict(), "of": module.Thing()}, source / "code.pt")
    trust_pickle(source / "code.pt")
    zoo = import_zoo(settings(source), tmp_path, name="zoo")
    assert len(zoo) == 4 and "cannot be run here: No module named 'gone'" in told(zoo)["code.pt"]


def test_names_that_are_odd_are_kept_as_text(tmp_path):
    folder = tmp_path / "run [old] v*"  # no pattern, as it is there
    written.state_dicts(folder, num=2)
    torch.save(Named(5).state_dict(), folder / "a b\n é.pt")
    os.rename(os.fsencode(folder) + b"/net_1.pt", os.fsencode(folder) + b"/net\xff.pt")
    zoo = import_zoo(settings(folder), tmp_path, name="zoo")
    assert sorted(zoo.columns["member"].tolist()) == ["a b\n é.pt", "net\\xff.pt", "net_0.pt"]


def test_epochs_are_read_where_a_name_tells_one(tmp_path):
    expected = {"deep12_a": 0, "x_ep3": 3, "epoch-7": 7, "step_99999999999": 0, "iter4_b": 4}
    (tmp_path / "source").mkdir()
    for seed, name in enumerate(expected):
        torch.save(Named(seed).state_dict(), tmp_path / "source" / f"{name}.pt")
    columns = import_zoo(settings(tmp_path / "source"), tmp_path, name="zoo").columns
    found = dict(zip(columns["member"].tolist(), columns["epoch"].tolist(), strict=True))
    assert found == {f"{name}.pt": epoch for name, epoch in expected.items()}


@pytest.mark.parametrize("kind", ["modelzoos", "huggingface"])
def test_a_pattern_takes_the_folders_that_it_finds(tmp_path, kind):
    names = vars(written)[kind](tmp_path / "source")
    pattern = "NN*_0000[12]_*" if kind == "modelzoos" else "model-[12]"
    zoo = import_zoo(settings(f"{tmp_path}/source/{pattern}", kind), tmp_path, name="zoo")
    runs = {name.split("/")[0] for name in zoo.columns["member"].tolist()}
    assert len(runs) == 2 < len(names) and len(zoo) == (4 if kind == "modelzoos" else 2)


# --- what was stopped, or mended -----------------------------------------------------------------


def test_files_that_were_mended_are_read_again(source, tmp_path):
    good = {file: torch.load(file) for file in source.iterdir()}
    for file, state in good.items():
        torch.save({name: tensor * float("nan") for name, tensor in state.items()}, file)
    with pytest.raises(ConfigError, match=r"none of the 4 members .* can be a row"):
        import_zoo(settings(source), tmp_path, name="zoo")
    for file, state in good.items():
        torch.save(state, file)
    assert len(import_zoo(settings(source), tmp_path, name="zoo")) == 4


def test_names_that_differ_are_told_as_if_nothing_had_stopped(source, tmp_path, monkeypatch):
    """The file of other names is in the first shard, which is not read again."""
    state = {f"net.{name}": tensor for name, tensor in Named(9).state_dict().items()}
    torch.save(state, source / "0.pt")
    config = settings(source, shard=2)
    whole = import_zoo(config, tmp_path / "whole", name="zoo")
    asked = iter([False] * 3 + [True] * 9)
    monkeypatch.setattr(preemption, "is_asked", lambda: next(asked))
    with pytest.raises(Preempted):
        import_zoo(config, tmp_path / "cut", name="zoo")
    monkeypatch.undo()
    import_zoo(config, tmp_path / "cut", name="zoo")
    files = [
        root / "zoos" / "zoo" / "run" / RENAMED for root in (tmp_path / "cut", tmp_path / "whole")
    ]
    assert json.loads(files[0].read_text())["layers.0.weight"] == "net.fc1.weight"
    assert files[0].read_bytes() == files[1].read_bytes() and len(whole) == 5


# --- facts ---------------------------------------------------------------------------------------


def facts(tmp_path, text: str, encoding: str = "utf-8") -> str:
    (tmp_path / "facts.csv").write_bytes(text.encode(encoding))
    return str(tmp_path / "facts.csv")


def test_columns_of_facts_become_what_they_say(source, tmp_path, caplog):
    """As Excel writes them; numbers beyond int64, names with a slash, and dwf's own names."""
    lines = ["\ufeffmember,id,lr/first,date,diverged,mixed"]
    lines += [f"net_{i},{10**20 + i},0.{i},2021_0{i},{i},{'x' if i else 7}" for i in range(4)]
    config = settings(source, facts=facts(tmp_path, "\n".join(lines)), shard=1)
    columns = import_zoo(config, tmp_path, name="zoo").columns
    assert columns["id"].tolist() == [str(10**20 + i) for i in range(4)]
    assert columns["lr_first"].tolist() == [0.0, 0.1, 0.2, 0.3]
    assert columns["date"].tolist() == [f"2021_0{i}" for i in range(4)]
    assert columns["mixed"].tolist() == ["7", "x", "x", "x"]
    assert "diverged" not in columns and "['diverged']: dwf fills such columns" in caplog.text


@pytest.mark.parametrize(
    ("text", "encoding", "said"),
    [
        ("member;a\nnet_0;1", "utf-8", "1 lines with the columns member;a: .* parted by commas"),
        ("", "utf-8", "0 lines with the columns none"),
        ("member,a\nnet_0,é", "latin-1", "no CSV file in UTF-8"),
    ],
)
def test_facts_that_are_none_are_refused(source, tmp_path, text, encoding, said):
    with pytest.raises(ConfigError, match=said):
        import_zoo(settings(source, facts=facts(tmp_path, text, encoding)), tmp_path, name="zoo")
    assert not (tmp_path / "zoos").exists()


def test_what_cannot_be_met_is_refused_before_a_folder_is_there(source, tmp_path, monkeypatch):
    monkeypatch.setattr("dwf.datasets.image_split.data_folder", lambda: tmp_path / "data")
    data = DataConfig("digits", validation=0.0)
    lines = "member,part\n" + "\n".join(f"net_{i},validation" for i in range(4))
    config = settings(source, facts=facts(tmp_path, lines), split_column="part")
    with pytest.raises(ConfigError, match="has 'validation', expected train, val or test"):
        import_zoo(config, tmp_path, name="zoo")
    with pytest.raises(ConfigError, match="score = val: digits has no val images"):
        import_zoo(settings(source, data=data, score=("val",)), tmp_path, name="zoo")
    for split, said in (
        ({"train": [0, 1, 2], "test": [2, 3]}, "train and test have images in common"),
        ({"train": [0, 1], "test": [3, 3]}, "test has an image twice"),
        ({"train": [5000], "test": [1]}, "images 0 to 1796"),
    ):
        (tmp_path / "split.json").write_text(json.dumps(split))
        with pytest.raises(ConfigError, match=said):
            import_zoo(settings(source, split=tmp_path / "split.json"), tmp_path, name="zoo")
    few = DataConfig("digits", classes=(0, 1))
    (tmp_path / "split.json").write_text(json.dumps({"train": [0, 2], "test": [1]}))
    with pytest.raises(ConfigError, match=r"1 images of train are of classes that data\.classes"):
        import_zoo(
            settings(source, data=few, split=tmp_path / "split.json"),
            tmp_path,
            name="zoo",
        )
    zeros, ones = (np.flatnonzero(load_digits().target == k).tolist() for k in (0, 1))
    (tmp_path / "split.json").write_text(json.dumps({"train": zeros, "test": ones[:5]}))
    found = take_split(load_dataset(few), keep_split(tmp_path / "split.json"))
    assert found.val.index.tolist() == ones[5:], "the rest of the classes that are picked"
    np.savez(tmp_path / "split.npz", train=np.arange(9))
    (tmp_path / "split.npz").write_bytes((tmp_path / "split.npz").read_bytes()[:100])
    with pytest.raises(ConfigError, match="expected lists of indices"):
        import_zoo(settings(source, split=tmp_path / "split.npz"), tmp_path, name="zoo")
    assert not (tmp_path / "zoos").exists()


# --- formats -------------------------------------------------------------------------------------


def test_damaged_folders_of_hugging_faces_are_left_out(tmp_path, caplog):
    expected = written.huggingface(tmp_path / "source")
    folders = [tmp_path / "source" / f"model-{i}" for i in range(5)]
    (folders[0] / "config.json").write_text("{cut")
    indices = ['{"weight_map": {"fc1.weight": "model-2-of-2.safetensors"}}', "{", "[1]"]
    for folder, index in zip(folders[1:], [*indices, '{"weight_map": [1]}'], strict=True):
        (folder / "model.safetensors.index.json").write_text(index)
    zoo = import_zoo(settings(tmp_path / "source", "huggingface"), tmp_path, name="zoo")
    assert len(zoo) == 8 and "model-0/config.json is no JSON object" in caplog.text
    found = told(zoo)
    assert found["model-1"] == "damaged: model-2-of-2.safetensors is not there"
    assert all("no `weight_map`" in found[f"model-{i}"] for i in (2, 3, 4))
    row = zoo.columns["member"].tolist().index("model-0")
    assert np.array_equal(zoo.read([row])[0], row_of(expected["model-0"]))


def test_trials_that_were_cut_off_keep_their_checkpoints(tmp_path, caplog):
    written.modelzoos(tmp_path / "source")
    trials = sorted((tmp_path / "source").glob("NN*"))
    (trials[0] / "params.json").write_text("{")
    odd = b'{"training_iteration": Infinity}\n[3]\n{"training_iteration": 1, "test_acc": "x"}\n'
    (trials[1] / "result.json").write_bytes(b"\xff\n" + odd)
    for name in ("checkpoint_\u00b2", "checkpoint_99999999999"):
        shutil.copytree(trials[2] / "checkpoint_000000", trials[2] / name)
    zoo = import_zoo(settings(tmp_path / "source", "modelzoos"), tmp_path, name="zoo")
    assert len(zoo) == 12 and f"{trials[0].name}/params.json is no JSON object" in caplog.text
    of_first = [i for i, m in enumerate(zoo.columns["member"]) if m.startswith(trials[0].name)]
    assert np.isnan(zoo.columns["learning_rate"][of_first]).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: held | {"iteration": "abc"}, "not as published"),
        (lambda held: held | {"iteration": 10**12}, "not as published"),
        (lambda held: held | {"last_result": {"test/acc": "x"}}, "not as published"),
        (lambda held: held | {"config": held["config"] | {"stride": 1}}, "not as published"),
        (lambda held: held | {"config": 5}, "neither a mapping nor an object"),
    ],
)
def test_odd_checkpoints_of_the_wild_park_are_left_out(tmp_path, caplog, change, said):
    written.wild_park(tmp_path / "source")
    file = sorted((tmp_path / "source").rglob("checkpoint.pt"))[0]
    torch.save(change(torch.load(file)), file)
    where = ("architecture=1-4-8_k3-5_gelu",)
    config = settings(tmp_path / "source", "wild_park", network=None, where=where)
    assert len(import_zoo(config, tmp_path, name="zoo")) == 5
    assert "1 checkpoints left out" in caplog.text and said in caplog.text


def lines_of(file, change):
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    return gzip.compress("\n".join(change(lines)).encode())


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("metrics.csv.gz", lambda f: b"modeldir,step\n", "is no CSV file"),
        ("metrics.csv.gz", lambda f: f.read_bytes()[:60], "is no CSV file"),
        (
            "metrics.csv.gz",
            lambda f: lines_of(f, lambda lines: [lines[0], "/cns/model0,,relu,0,0", *lines[2:]]),
            "line 2: modeldir is '/cns/model0' and step ''",
        ),
        (
            "metrics.csv.gz",
            lambda f: lines_of(f, lambda lines: [lines[0].replace("modeldir", "x"), *lines[1:]]),
            "modeldir is None",
        ),
        ("layout.csv", lambda f: f.read_bytes().replace(b"(16,)", b"(17,)", 1), "expected 17 num"),
        ("layout.csv", lambda f: f.read_bytes().replace(b"4970", b"4971"), "lies at .* to 4971"),
        (
            "layout.csv",
            lambda f: f.read_bytes().replace(b"(16,)", b"('a',)", 1),
            "expected the col",
        ),
    ],
)
def test_files_of_the_small_cnn_zoo_that_do_not_fit_are_named(tmp_path, name, change, said):
    written.unterthiner(tmp_path / "source", runs=1, steps=(0,))
    file = tmp_path / "source" / name
    file.write_bytes(change(file))
    config = settings(tmp_path / "source", "unterthiner", network=None)
    with pytest.raises(ConfigError, match=rf"{name}.*{said}"):
        import_zoo(config, tmp_path, name="zoo")
    assert not (tmp_path / "zoos").exists()


def test_a_matrix_that_is_none_is_refused(tmp_path):
    written.unterthiner(tmp_path / "source", runs=1, steps=(0,))
    np.save(tmp_path / "source" / "weights.npy", np.zeros(20, np.float32))
    config = settings(tmp_path / "source", "unterthiner", network=None)
    with pytest.raises(ConfigError, match=r"weights.npy has shape \[20\]"):
        import_zoo(config, tmp_path, name="zoo")


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"pdata": torch.zeros(3, 4, dtype=torch.int32)}, "no matrix `pdata`"),
        ({"pdata": torch.zeros(3, 1210), "performance": 5}, "`performance` is no list of numbers"),
        ({"pdata": torch.zeros(3, 1210), "train_layer": 5}, "`train_layer` is no list of names"),
    ],
)
def test_data_of_pdiff_that_are_none_are_refused(tmp_path, held, said):
    (tmp_path / "source").mkdir()
    torch.save(held, tmp_path / "source" / "data.pt")
    with pytest.raises(ConfigError, match=said):
        import_zoo(settings(tmp_path / "source", "pdiff_data"), tmp_path, name="zoo")


def test_what_checkpoints_began_from_is_named_where_it_is_damaged(tmp_path):
    written.pdiff(tmp_path / "source")
    (tmp_path / "source" / "pretrained.pth").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"pretrained.pth, from which it began: damaged"):
        import_zoo(settings(tmp_path / "source", "pdiff"), tmp_path, name="zoo")


def test_files_of_other_names_are_told(tmp_path, caplog):
    caplog.set_level("INFO", "dwf")
    written.deepweightflow(tmp_path / "source")
    (tmp_path / "source" / "mlp_seed3 (copy).pt").write_bytes(b"x")
    zoo = import_zoo(settings(tmp_path / "source", "deepweightflow"), tmp_path, name="zoo")
    assert len(zoo) == 12 and "1 files that are not called as mlp_seed0.pt" in caplog.text
