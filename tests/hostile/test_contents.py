"""Files that are damaged, or that somebody wrote to do harm, end in one sentence of dwf's own.

Each reader gets each kind of damage. Expected is a `DwfError` of one line that names the file, or,
where the damage is of no consequence, an answer; never a traceback of Python's, a wait without end,
or memory without measure.
"""

import gzip
import importlib
import json
import math
import os
import pickle
import pkgutil
import resource
import shutil
import typing
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

import dwf
from dwf.audit.table import AuditReport
from dwf.checked import Checked
from dwf.codecs.codec import Codec
from dwf.codecs.config import FlatConfig
from dwf.codecs.flat import FlatCodec
from dwf.datasets.config import ArraysConfig, FolderConfig
from dwf.datasets.formats import find_file
from dwf.datasets.known import known
from dwf.errors import DwfError
from dwf.evaluation.report import Report
from dwf.evaluation.report.reconstruction import Reconstruction
from dwf.exporters.stage import report as export_report
from dwf.files import gunzip, read_array, read_bytes, read_json, reading_arrays
from dwf.folders.status import read_standings
from dwf.generators.generator import Generator
from dwf.importers.facts_file import read_table
from dwf.importers.importer import Unusable
from dwf.importers.tensors import read_tensors
from dwf.measurements.folder import Measured
from dwf.metrics import read_metrics
from dwf.networks.config import MLPConfig
from dwf.predictors import distance
from dwf.predictors.experiment import Origin
from dwf.predictors.row import Unit, read_record
from dwf.run_folder import RunFolder, load_state, sha256_of
from dwf.settings import Bounds, build, load, read_yaml
from dwf.sweeps.report import SweepReport
from dwf.transfer.report import TransferReport
from dwf.transfer.starts import Starts
from dwf.yaml_files import load_yaml, read_mapping
from dwf.zoo.checksums import file_checksum
from dwf.zoo.config import RecipeConfig, VaryConfig, ZooConfig
from dwf.zoo.facts import Facts
from dwf.zoo.manifest import grown_by, read_manifest
from dwf.zoo.network_files import read_state
from dwf.zoo.status import read_status
from dwf.zoo.store import Zoo

GIB = 2**30
TEXTS = {
    "empty": b"",
    "cut": b'{"format": "dwf-zoo", "versi',
    "no-text": b"\xff\xfe\x00\x01",
    "list": b"[1, 2]",
    "word": b'"zoo"',
    "nothing": b"null",
    "no-keys": b"{}",
    "deep": b"[" * 200_000 + b"]" * 200_000,
    "deep-keys": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "digits": b'{"format": ' + b"9" * 5000 + b"}",
    "twice": b'{"format": "dwf-zoo", "a": 1, "a": 2}',
    "no number": b'{"format": NaN}',
    "endless": b'{"format": 1e999}',
    "binary": bytes(range(256)),
}
ODD = {
    "word": "x",
    "nothing": None,
    "large": 10**30,
    "negative": -1,
    "list": [[]],
    "keys": {"a": {}},
}


@contextmanager
def one_line(file):
    """Hold what is raised in the block, if anything, to a line of dwf's own for each fault."""
    try:
        yield
    except DwfError as error:
        told = str(error)
        assert file.name in told or file.parent.name in told, told
        assert all(len(line) < 1000 and file.parent.name in line for line in told.splitlines())


def _summary(file):
    run = RunFolder.__new__(RunFolder)
    run.path = file.parent
    return run.summary


READERS = {
    "zoo.json": lambda file: Facts.read(file.parent),
    "grown.json": lambda file: grown_by(file.parent),
    "codec.json": lambda file: Codec.load(file.parent),
    "generator.json": lambda file: Generator.load(file.parent),
    "report.json": lambda file: Report.load(file.parent),
    "audit.json": lambda file: AuditReport.load(file.parent),
    "table.json": lambda file: SweepReport.load(file.parent),
    "starts.json": lambda file: Starts.read(file.parent),
    "experiment.json": lambda file: Origin.read(file.parent),
    "measured.json": lambda file: Measured.read(file.parent),
    "export.json": lambda file: export_report(file.parent),
    "done.json": _summary,
    "metrics.jsonl": read_metrics,
    "config.yaml": read_mapping,
    "settings.yaml": read_yaml,
}
MORE = {
    "a manifest": ("zoo.json", lambda file: read_manifest(file.parent)),
    "a reconstruction": ("report.json", lambda file: Reconstruction.load(file.parent)),
    "a fine-tuning": ("report.json", lambda file: TransferReport.load(file.parent)),
    "a zoo's settings": ("zoo.yaml", lambda file: load(ZooConfig, file)),
}
EVERY = [pytest.param(name, read, id=name) for name, read in READERS.items()] + [
    pytest.param(name, read, id=key) for key, (name, read) in MORE.items()
]


@pytest.mark.parametrize("name, read", EVERY)
def test_a_file_of_any_other_content_is_told_in_one_line(name, read, tmp_path):
    file = tmp_path / name
    for content in TEXTS.values():
        file.write_bytes(content)
        with one_line(file):
            read(file)


@pytest.mark.parametrize("name, read", EVERY)
def test_a_pipe_or_device_in_the_place_of_a_file_is_refused(name, read, tmp_path):
    file = tmp_path / name
    os.mkfifo(file)
    with pytest.raises(DwfError):
        read(file)
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(DwfError):
        read(file)
    file.unlink()
    file.mkdir()
    with pytest.raises(DwfError):
        read(file)


def _twisted(whole):
    """Yield a mapping with each of its keys taken away, or given other values."""
    for key in whole:
        yield {name: value for name, value in whole.items() if name != key}
        for value in ODD.values():
            yield whole | {key: value}


def test_keys_of_a_zoo_that_are_missing_or_odd_are_told(make_zoo):
    zoo = make_zoo(widths=(64, 4, 10))
    file = zoo.path / "zoo.json"
    whole = json.loads(file.read_text())
    told = [*_twisted(whole)]
    for key, value in ODD.items():
        told += [
            whole | {"layout": [whole["layout"][0] | {at: value}]} for at in whole["layout"][0]
        ]
        told += [whole | {"network": whole["network"] | {"widths": [value, value]}}]
        assert key
    for one in told:
        file.write_text(json.dumps(one))
        with one_line(file):
            Zoo.open(zoo.path)


def test_keys_of_a_codec_that_are_missing_or_odd_are_told(make_zoo, tmp_path):
    zoo = make_zoo(widths=(64, 4, 10))
    run = RunFolder(tmp_path / "run", {})
    codec = FlatCodec(FlatConfig()).fit([(zoo, zoo.rows("train"))], [], run=run)
    folder = tmp_path / "codec"
    codec.save(folder)
    Codec.load(folder)
    file = folder / "codec.json"
    whole = json.loads(file.read_text())
    for one in _twisted(whole):
        file.write_text(json.dumps(one))
        with one_line(file):
            Codec.load(folder)
    file.write_text(json.dumps(whole))
    arrays = folder / "codec.npz"
    for content in (b"", b"PK\x03\x04", arrays.read_bytes()[:200], TEXTS["binary"]):
        arrays.write_bytes(content)
        with pytest.raises(DwfError, match="no whole codec"):
            Codec.load(folder)


# --- HDF5 ----------------------------------------------------------------------------------------


def _claim(path, name, shape, kind="f4"):
    """Give a dataset a shape that no byte of the file stands behind."""
    with h5py.File(path, "r+") as file:
        del file[name]
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_layout(h5py.h5d.CHUNKED)
        creation.set_chunk((min(shape[0], 2**16),) + (1,) * (len(shape) - 1))
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(kind)), space, creation)


def _objects(path, name):
    with h5py.File(path, "r+") as file:
        count = len(file[name])
        del file[name]
        file.create_dataset(name, data=["word"] * count, dtype=h5py.string_dtype())


def _shorter(path, name):
    with h5py.File(path, "r+") as file:
        values = file[name][:-1]
        del file[name]
        file[name] = values


def _missing(path, name):
    with h5py.File(path, "r+") as file:
        del file[name]


def _a_group(path, name):
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_group(name)


SPOILT = {
    "terabytes": lambda path, name: _claim(path, name, (2**40,), "i8"),
    "other-length": _shorter,
    "objects": _objects,
    "missing": _missing,
    "group": _a_group,
    "matrix": lambda path, name: _claim(path, name, (12, 2), "i8"),
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("name", ["network", "checksum", "split", "weights", "diverged"])
def test_columns_that_are_not_as_dwf_writes_them_are_refused(how, name, make_zoo):
    zoo = make_zoo(widths=(64, 4, 10))
    shard, view = zoo.shards[0].path, zoo.path / "zoo.h5"
    if (how, name) == ("other-length", "diverged"):
        return  # none diverged: there is nothing to cut
    SPOILT[how](shard, name)
    with pytest.raises(DwfError, match="is damaged"):
        Zoo.open(zoo.path)
    assert read_status(zoo.path).damaged
    view.unlink()
    with pytest.raises(DwfError, match="is damaged"):
        Zoo.open(zoo.path)


@pytest.mark.parametrize("name", ["zoo.h5", "shard-00000-of-00001.h5"])
def test_a_pipe_in_the_place_of_a_shard_never_waits(name, make_zoo):
    path = make_zoo(widths=(64, 4, 10)).path
    (path / name).unlink()
    os.mkfifo(path / name)
    with one_line(path / name):
        assert len(Zoo.open(path)) == 12  # the view alone can be done without


def test_foreign_files_beside_a_zoos_shards_are_no_part_of_it(make_zoo):
    zoo = make_zoo(widths=(64, 4, 10))
    for name in ("shard-00001-of-00001.h5", "shard-x-of-y.h5", "shard-00000-of-00002.h5", "shard-"):
        (zoo.path / name).write_bytes(b"foreign")
    found = Zoo.open(zoo.path)
    found.verify()
    assert found.fingerprint == zoo.fingerprint and read_status(zoo.path).is_whole


# --- arrays, archives, images --------------------------------------------------------------------


def _header(shape, kind="<f4"):
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    head = head.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode()


class Bomb:
    """Object whose pickle makes a file when it is read."""

    def __reduce__(self):
        return os.system, ("touch exploded",)


def _bad_arrays(path):
    yield _header((2**40, 2**10)), "terabytes"
    yield _header((2**62, 2**62)), "more than can be counted"
    yield _header((-1,)), "below nothing"
    with open(path, "wb") as file:
        np.save(file, np.array([Bomb()]), allow_pickle=True)
    yield path.read_bytes(), "objects"
    yield _header("(" * 500), "brackets"
    yield b"\x93NUMPY\x01", "cut"
    yield pickle.dumps(Bomb()), "a pickle"


def test_arrays_that_lie_about_their_size_or_hold_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "a.npy"
    for content, what in list(_bad_arrays(file)):
        file.write_bytes(content)
        with pytest.raises(DwfError, match=r"a\.npy"), reading_arrays(file):
            np.load(file, allow_pickle=False)
        packed = tmp_path / "a.npz"
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("x.npy", content)
        if what == "a pickle":
            continue  # NumPy hands such a member over as bytes
        with pytest.raises(DwfError, match=r"a\.npz"), reading_arrays(packed):
            np.load(packed, allow_pickle=False)["x"]
    assert not (tmp_path / "exploded").exists()


@contextmanager
def memory(most=GIB):
    """Within the block this process may take little more memory than it has."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + most, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


def zeros_packed(num_bytes):
    """A gzip file of zeros, written piece by piece."""
    packer, block = zlib.compressobj(1, wbits=31), bytes(2**20)
    parts = [packer.compress(block) for _ in range(num_bytes // 2**20)]
    return b"".join([*parts, packer.flush()])


def test_a_gzip_bomb_is_left_packed(tmp_path):
    content = zeros_packed(80 * 2**20)
    with memory(), pytest.raises(ValueError, match="become"):
        gunzip(content)
    file = tmp_path / "metrics.csv.gz"
    file.write_bytes(content)
    with memory(), pytest.raises(DwfError, match="metrics"):
        list(read_table(file))
    assert gunzip(gzip.compress(b"honest" * 1000)) == b"honest" * 1000


def _png(side):
    """A PNG of one colour that claims to be `side` pixels wide and high."""

    def chunk(name, content):
        checked = name + content
        size, crc = len(content).to_bytes(4, "big"), zlib.crc32(checked).to_bytes(4, "big")
        return size + checked + crc

    head = side.to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    body = zlib.compress(bytes(1000))
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [12_000, 60_000, 2**31 - 1])
def test_an_image_that_claims_gigabytes_is_not_decoded(side, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        (tmp_path / "pets" / name / "0.png").write_bytes(_png(side))
    with memory(), pytest.raises(DwfError, match=r"0\.png"):
        known(FolderConfig(path=str(tmp_path / "pets")))


def test_a_file_of_arrays_that_claims_gigabytes_is_not_read(tmp_path):
    file = tmp_path / "flowers.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x_train", "y_train"):
            archive.writestr(f"{name}.npy", _header((2**34,)))
    with memory(), pytest.raises(DwfError, match="flowers"):
        known(ArraysConfig(path=str(file)))


def test_states_of_other_content_are_refused(tmp_path):
    file = tmp_path / "step-1.pt"
    for content in (*TEXTS.values(), pickle.dumps(Bomb()), b"PK\x03\x04"):
        file.write_bytes(content)
        with pytest.raises(DwfError, match=r"step-1\.pt"):
            load_state(file)
        with pytest.raises(Unusable):
            read_tensors(file)
        shutil.copy(file, tmp_path / "a.safetensors")
        with pytest.raises(Unusable):
            read_tensors(tmp_path / "a.safetensors")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DwfError):
        load_state(file)
    with pytest.raises(Unusable):
        read_tensors(file)


# --- settings ------------------------------------------------------------------------------------

YAML = {
    "a number that is none": "seed: !!int abc",
    "a float that is none": "seed: !!float abc",
    "a truth that is none": "seed: !!bool perhaps",
    "a date": "name: 2026-01-01",
    "no date": "name: 2026-99-99",
    "no time": "name: !!timestamp soon",
    "digits": "seed: " + "9" * 5000,
    "65 bits": "seed: 18446744073709551616",
    "bytes": "name: !!binary aGVsbG8=",
    "no bytes": "name: !!binary é",
    "a set": "name: !!set {a, b}",
    "pairs": "name: !!pairs [a: 1]",
    "code": "name: !!python/object/apply:os.system [echo]",
    "deep": "a: " + "[" * 5000,
    "deep blocks": "\n".join(" " * i + "a:" for i in range(600)),
    "an alias in itself": "a: &a [*a]",
    "no key": "? [a, b]\n: 1",
    "a number as key": "1: 2",
    "nothing as key": "~: 2",
    "two documents": "a: 1\n---\nb: 2",
    "merged with a word": "a: {<<: word}",
    "an alias of nothing": "a: *b",
    "a tab": "a:\n\t- b",
    "control": "a: \x07",
}
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{one}: &{one} [{', '.join([f'*{before}'] * 10)}]"
    for before, one in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "\n".join(
    f"{one}: &{one} {{<<: [{', '.join([f'*{before}'] * 40)}]}}"
    for before, one in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize("text", [*YAML.values(), LAUGHS, MERGES], ids=[*YAML, "laughs", "merges"])
def test_settings_that_no_setting_is_are_refused(text, tmp_path):
    file = tmp_path / "zoo.yaml"
    file.write_text(text)
    with memory(), pytest.raises(DwfError, match=r"zoo\.yaml"):
        load(ZooConfig, file)


def test_aliases_that_are_meant_are_read():
    assert load_yaml("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**400])
@pytest.mark.parametrize("key", ["count", "seed", "recipe.learning_rate", "network.widths"])
def test_whole_numbers_of_more_than_64_bits_are_refused(key, value):
    zoo = {"count": 4, "seed": 0, "network": {"kind": "mlp", "widths": [64, 10]}}
    zoo |= {"data": {"kind": "digits"}, "recipe": {"epochs": 1}}
    part, _, name = key.rpartition(".")
    target = zoo[part] if part else zoo
    target[name] = [64, value] if name == "widths" else value
    with pytest.raises(DwfError, match=r"64 bits|allowed is"):
        build(ZooConfig, zoo, source="zoo.yaml")


def test_whole_numbers_of_more_than_64_bits_are_refused_in_python():
    with pytest.raises(DwfError, match="epochs"):
        RecipeConfig(epochs=2**64)
    with pytest.raises(DwfError, match="widths"):
        MLPConfig((64, 10**400))


# --- what lists and reads all of them ------------------------------------------------------------


def test_status_tells_of_damaged_folders_among_others(make_zoo, tmp_path):
    make_zoo(widths=(64, 4, 10), name="whole")
    for content in ("cut", "list", "no-keys", "deep", "no-text"):
        for folder, name in (("zoos", "zoo.json"), ("exports", "export.json")):
            place = tmp_path / folder / content
            place.mkdir(parents=True)
            (place / name).write_bytes(TEXTS[content])
    odd = tmp_path / "exports" / "odd"
    odd.mkdir()
    (odd / "export.json").write_text('{"zoo": "whole", "kind": "npz", "rows": true}')
    for name, jobs in {"words": "[1, {}]", "cut": "["}.items():
        place = tmp_path / "runs" / name
        (place / "jobs").mkdir(parents=True)
        (place / "config.yaml").write_text("codec: {kind: flat}\n")
        (place / "generator.json").write_text("{}")
        (place / "jobs" / "submitted.json").write_text(jobs)
    standings = read_standings(tmp_path)
    states = {f"{one.place.kind.noun} {one.place.path.name}": one.state for one in standings}
    assert states["export odd"] == states["run words"] == states["run cut"] == "damaged"
    assert len(standings) == 14 and any(one.place.path.name == "whole" for one in standings)


WHOLE = {
    "checksum": file_checksum,
    "digest": sha256_of,
    "array": read_array,
    "mapped": lambda file: read_array(file, "r"),
    "data": lambda file: find_file(file.parent, file.name),
    "network": lambda file: read_state(file),
}


@pytest.mark.parametrize("read", WHOLE.values(), ids=WHOLE)
def test_whole_files_are_read_of_files_alone(read, tmp_path):
    for make in (os.mkfifo, os.mkdir, lambda file: os.symlink("/dev/zero", file)):
        file = tmp_path / "row.safetensors"
        make(file)
        with pytest.raises(DwfError, match=r"row\.safetensors"):
            read(file)
        (os.rmdir if file.is_dir() else os.unlink)(file)


def test_numbers_that_json_does_not_have_are_read_of_other_tools_alone(tmp_path):
    file = tmp_path / "result.json"
    for word in ("NaN", "Infinity", "-Infinity", "1e999"):
        file.write_text(f'{{"loss": {word}}}')
        with pytest.raises(DwfError, match=r"result\.json"):
            read_json(file)
        assert not math.isfinite(read_json(file, is_finite=False)["loss"])


def test_kinds_that_are_no_words_are_told(tmp_path):
    for kind in ([], {}, [[None]], 7, None):
        with pytest.raises(DwfError, match="kind"):
            build(ZooConfig, {"network": {"kind": kind}, "data": {"kind": "digits"}}, source="x")
        head = {"format": "dwf-generator", "version": 4, "density": {"kind": kind}}
        (tmp_path / "generator.json").write_text(json.dumps(head))
        (tmp_path / "codec").mkdir(exist_ok=True)
        (tmp_path / "codec" / "codec.json").touch()
        with pytest.raises(DwfError, match="kind"):
            Generator.is_whole(tmp_path)


def test_what_rows_of_predictors_told_is_held_to_its_form(tmp_path):
    unit = Unit("norm", 0)
    file = unit.folder(tmp_path) / "told.json"
    file.parent.mkdir(parents=True)
    for told in ({}, {"facts": None}, {"facts": []}, {"reason": None}, {"reason": {}}):
        file.write_text(json.dumps(told))
        with pytest.raises(DwfError, match=r"told\.json"):
            read_record(tmp_path, unit)
    for told in ({"facts": {}}, {"reason": "words"}):
        file.write_text(json.dumps(told))
        assert read_record(tmp_path, unit) == told
    for arrays in ({"a": np.zeros(3)}, {"a/limit": np.zeros(3)}, {"a/limit": np.float64(0)}):
        np.savez(tmp_path / "reference.npz", **arrays)
        with pytest.raises(DwfError, match=r"reference\.npz"):
            distance.load(tmp_path)


def test_what_is_told_of_damage_is_short(tmp_path):
    """NumPy quotes what it found in the place of a name: a kilobyte of bytes."""
    file = tmp_path / "a.npz"
    np.savez(file, abc=np.zeros(200), xyz=np.zeros(200))
    file.write_bytes(file.read_bytes().replace(b"abc.npy", b"\x1b" * 7, 1))
    with pytest.raises(DwfError, match=r"a\.npz") as told, reading_arrays(file):
        np.load(file)["abc"]
    assert len(str(told.value)) < 500


def test_bytes_are_read_of_files_alone(tmp_path):
    for file in ("/dev/zero", "/dev/null", str(tmp_path)):
        with pytest.raises(DwfError, match=file):
            read_bytes(file)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


# --- bounds --------------------------------------------------------------------------------------

FAR_OFF = [
    ("recipe.learning_rate", 1e18),
    ("recipe.learning_rate", "1e18"),
    ("recipe.learning_rate", float("inf")),
    ("recipe.learning_rate", float("nan")),
    ("recipe.weight_decay", 1e18),
    ("recipe.epochs", 10**15),
    ("count", 10**15),
    ("count", -1),
    ("network.widths", [64, 10**15, 10]),
    ("vary.learning_rate", {"low": 1e-3, "high": 1e18}),
    ("vary.learning_rate", {"low": 1e-3, "high": "inf"}),
    ("vary.learning_rate", [1e18]),
]


@pytest.mark.parametrize("key, value", FAR_OFF, ids=str)
def test_numbers_that_nobody_means_are_refused_with_what_is_allowed(key, value):
    zoo = {"count": 4, "seed": 2**62, "network": {"kind": "mlp", "widths": [64, 10]}}
    zoo |= {"data": {"kind": "digits"}, "recipe": {"epochs": 1}, "vary": {}}
    build(ZooConfig, {name: part for name, part in zoo.items() if part}, source="zoo.yaml")
    part, _, name = key.rpartition(".")
    (zoo[part] if part else zoo)[name] = value
    with pytest.raises(DwfError, match=r"allowed is|finite"):
        build(ZooConfig, {name: part for name, part in zoo.items() if part}, source="zoo.yaml")


def test_every_number_of_every_setting_has_bounds():
    free = set()
    for cls in _settings(Checked):
        for name, hint in typing.get_type_hints(cls, include_extras=True).items():
            if any(not bounds for bounds in _bounds_of(hint)):
                free.add(name)
    assert free == set(MAY_BE_ANY)


def test_numbers_made_in_python_are_held_to_their_bounds_too():
    for name, value in (("learning_rate", 1e18), ("epochs", -1), ("clip_norm", 0.0)):
        with pytest.raises(DwfError, match=f"RecipeConfig.{name} = .*: allowed is"):
            RecipeConfig(**{name: value})
    with pytest.raises(DwfError, match=r"learning_rate\[1\] = -0.1: allowed is above 0"):
        VaryConfig(learning_rate=(0.1, -0.1))
    for value in (float("nan"), float("inf")):
        with pytest.raises(DwfError, match="expected float, found one that is not finite"):
            RecipeConfig(learning_rate=value)
    with pytest.raises(DwfError, match="found a whole number of more than 64 bits"):
        RecipeConfig(epochs=2**63)


def _settings(cls):
    for module in pkgutil.walk_packages(dwf.__path__, "dwf."):
        if "config" in module.name.rpartition(".")[2] or module.name == "dwf.compute":
            importlib.import_module(module.name)
    todo, found = [cls], set()
    while todo:
        new = {one for one in todo.pop().__subclasses__() if one.__module__.startswith("dwf.")}
        todo += new - found
        found |= new
    return found


def _bounds_of(hint, marks=()):
    """Yield the bounds of each number in a type."""
    if typing.get_origin(hint) is typing.Annotated:
        inner, *own = typing.get_args(hint)
        yield from _bounds_of(inner, (*marks, *own))
    elif hint in (int, float):
        yield [mark for mark in marks if isinstance(mark, Bounds)]
    elif typing.get_origin(hint) not in (typing.Literal, dict, typing.ClassVar):
        for one in typing.get_args(hint):
            yield from _bounds_of(one, marks)


MAY_BE_ANY = {
    "classes": "labels of data, as these have them; others are refused when data are read",
    "condition": "a value of what was learnt, outside whose range it is refused when drawn",
    "strength": "the range of each transform is held by the class",
}
"""Settings whose numbers have their range elsewhere -> where."""
