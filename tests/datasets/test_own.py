"""Own data: arrays against the published digits, found again by digest, bad input refused."""

import io
import zipfile

import numpy as np
import pytest
import torch

from dwf import data_paths
from dwf.data_paths import give_data
from dwf.datasets import known, own
from dwf.datasets.config import AnyDataConfig, ArraysConfig, DataConfig, TableConfig
from dwf.datasets.load import load_dataset
from dwf.datasets.own import identified
from dwf.errors import ConfigError, DataUnavailable
from dwf.settings import build, to_dict


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DWF_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv(data_paths.ENVIRONMENT, "")
    return tmp_path / "cache"


@pytest.fixture
def save(tmp_path):
    """Write an `.npz` file; returns settings that name it."""

    def write(name="some.npz", said=None, **arrays):
        np.savez(tmp_path / name, **arrays)
        return ArraysConfig(path=tmp_path / name, **said or {})

    return write


def images(count=40, side=6, channels=1, seed=0):
    stream = np.random.default_rng(seed)
    return stream.integers(0, 256, (count, channels, side, side), np.uint8)


def labels(count=40, classes=2):
    return np.arange(count) % classes


def stored(data, part="train"):
    part = data.part(part)
    return part.batch(torch.arange(len(part)))


def test_the_digits_as_own_arrays_are_the_published_dataset(save):
    from sklearn.datasets import load_digits

    table = load_digits()
    said = {"largest": 16, "seed": 3, "size": 4, "classes": (3, 1)}
    config = save(said=said, x_train=table.images, y_train=table.target.astype(np.uint8))
    with pytest.raises(ConfigError, match="values from 0 to 16 that are no whole parts of 255"):
        load_dataset(config)
    config = save(said=said, x_train=table.images.astype(np.uint8), y_train=table.target)
    ours, theirs = load_dataset(config), load_dataset(DataConfig("digits", **said_of_all(said)))
    for name in ("train", "val", "test"):
        assert ours.part(name).index.equal(theirs.part(name).index)
        for a, b in zip(stored(ours, name), stored(theirs, name), strict=True):
            assert a.equal(b)
    assert ours.scale == theirs.scale and ours.num_classes == 2 and ours.shape == (1, 4, 4)
    assert known.input_shape(config) == (1, 4, 4)
    assert known.trained_images(config) == pytest.approx(len(ours.train), rel=0.02)


def said_of_all(said):
    return {key: value for key, value in said.items() if key != "largest"}


@pytest.mark.parametrize("form", ["channels first", "channels last", "grey", "floats", "int64"])
def test_images_in_any_usual_form_are_the_same_bytes(save, form):
    x = images(channels=1 if form == "grey" else 3)
    given = {
        "channels first": x,
        "channels last": x.transpose(0, 2, 3, 1),
        "grey": x[:, 0],
        "floats": (x / 255).astype(np.float32),
        "int64": x.astype(np.int64),
    }[form]
    y = labels()
    data = load_dataset(save(x_train=given, y_train=y, x_test=given[:8], y_test=y[:8]))
    np.testing.assert_array_equal(data.train.images, x)
    np.testing.assert_array_equal(stored(data, "test")[0], x[:8])
    assert len(data.train) + len(data.val) == 40


def test_a_table_of_arrays_is_scaled_as_tables_are(save):
    rows = np.random.default_rng(0).normal(size=(40, 3))
    data = load_dataset(save(x_train=rows, y_train=labels(), said={"validation": 0.0}))
    low, high = data.prepare(stored(data)[0]).aminmax(dim=0)
    torch.testing.assert_close(low, torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(high, torch.ones(3), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [([5, 7, 9], [5, 7, 9]), (["b", "a", "c"], ["a", "b", "c"]), ([-1.0, 1.0], [-1, 1])],
)
def test_other_labels_are_mapped_and_said(save, caplog, given, expected):
    given = np.array(given)
    y = given[np.arange(40) % len(given)]
    config = save(x_train=images(), y_train=y, said={"validation": 0.0})
    with caplog.at_level("INFO", "dwf"):
        data = load_dataset(config)
    assert f"some.npz: its labels become 0, 1, ...: {expected[0]} -> 0" in caplog.text
    _, classes = stored(data)
    found = np.array(expected)[classes.numpy()]
    np.testing.assert_array_equal(found, y[data.train.index])
    assert known.known(config).labels == tuple(expected)


def test_labels_of_data_that_nothing_prepared_are_said_once(save, cache, caplog):
    y = np.array(["b", "a"])[labels()]
    config = save(x_train=images(), y_train=y, said={"classes": ["b", "a"]})
    with caplog.at_level("INFO", "dwf"):
        facts = [known.known(config) for _ in range(3)]
    assert caplog.text.count("its labels become") == 1
    assert facts == [facts[0]] * 3 and not cache.exists()


def test_numbered_classes_of_few_images_are_no_measurements(save):
    y = np.repeat(np.arange(13), 3)
    data = load_dataset(save(x_train=images(39), y_train=y, x_test=images(39, seed=1), y_test=y))
    assert data.num_classes == 13


def test_classes_are_picked_by_the_labels_in_the_source(save):
    y = np.array(["cat", "dog", "owl"])[np.arange(40) % 3]
    data = load_dataset(save(x_train=images(), y_train=y, said={"classes": ("owl", "cat")}))
    assert data.num_classes == 2
    np.testing.assert_array_equal(y[data.train.index] == "cat", stored(data)[1].bool())
    with pytest.raises(ConfigError, match=r"classes: 'cow' is no label of some.npz, which has cat"):
        load_dataset(save(x_train=images(), y_train=y, said={"classes": ("cow", "cat")}))


# --- found again -------------------------------------------------------------------------------


def test_data_are_decoded_once_and_found_by_their_digest(save, tmp_path, monkeypatch):
    config = save(x_train=images(), y_train=labels())
    assert not known.is_here(config)
    known.known(config)
    assert not known.is_here(config) and not (tmp_path / "cache/own").exists(), "only looked at"
    found = identified(config)
    assert known.is_here(config) and known.is_here(found)
    assert (found.name, found.path) == ("some.npz", None) and len(found.sha256) == 64
    told = build(AnyDataConfig, to_dict(found), source="zoo.json", key="data")
    assert told == found == identified(found)
    first = load_dataset(config)
    (tmp_path / "some.npz").unlink()
    monkeypatch.setattr(own, "find", None)  # a second decoding would fail
    again = load_dataset(found)
    assert again.train.images.equal(first.train.images) and again.train.index.equal(
        first.train.index
    )


def test_settings_that_decide_what_is_read_have_a_cache_of_their_own(save):
    config = save(x_train=images(), y_train=labels())
    small = ArraysConfig(path=config.path, size=3)
    assert load_dataset(config).shape == (1, 6, 6) and load_dataset(small).shape == (1, 3, 3)
    assert load_dataset(config).shape == (1, 6, 6)


@pytest.mark.parametrize("way", ["flag", "folder of data"])
def test_where_the_cache_is_gone_the_file_is_found_by_name(save, tmp_path, monkeypatch, way):
    found = identified(save(x_train=images(), y_train=labels()))
    monkeypatch.setenv("DWF_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(DataUnavailable, match=r"some.npz is not there.*--data-path some.npz=FILE"):
        load_dataset(found)
    (tmp_path / "elsewhere").mkdir(exist_ok=True)
    target = tmp_path / ("moved.npz" if way == "flag" else "elsewhere/some.npz")
    save("other.npz", x_train=images(seed=1), y_train=labels())
    (tmp_path / "other.npz").rename(target)
    if way == "flag":
        give_data(f"some.npz={target}")
    with pytest.raises(
        DataUnavailable, match=f"{target.name} has sha256 .*, expected {found.sha256}"
    ):
        load_dataset(found)
    (tmp_path / "some.npz").rename(target)
    assert len(load_dataset(found).train)


def test_another_file_than_the_settings_expect_is_refused(save):
    config = save(x_train=images(), y_train=labels(), said={"sha256": "0" * 64})
    with pytest.raises(DataUnavailable, match=rf"some.npz has sha256 .*, expected {'0' * 64} of"):
        load_dataset(config)


def test_a_relative_path_is_looked_up_in_the_folder_of_data(save, tmp_path, cache, monkeypatch):
    save(x_train=images(), y_train=labels())
    (cache / "deep").mkdir(parents=True)
    (tmp_path / "some.npz").rename(cache / "deep/some.npz")
    monkeypatch.chdir(tmp_path)
    assert len(load_dataset(build_own({"path": "deep/some.npz"})).test) == 8


def build_own(told):
    return build(AnyDataConfig, {"kind": "arrays"} | told, source="f.yaml", key="data")


def test_a_path_is_given_as_name_and_file(tmp_path):
    for told, said in (("some.npz", "expected NAME=FILE"), ("a=/no/file", "/no/file is not there")):
        with pytest.raises(ConfigError, match=said):
            give_data(told)
    (tmp_path / "a b").mkdir()
    give_data(f"one={tmp_path}/a b")
    give_data(f"two={tmp_path}")
    assert data_paths.given_data() == {"one": tmp_path / "a b", "two": tmp_path}
    assert data_paths.handed_on().keys() == {data_paths.ENVIRONMENT}


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y_train": labels(39)}, "x_train has 40 rows and y_train 39 labels"),
        ({"y_train": None}, r"has no y_train; it has x_train: give x_train, y_train"),
        ({"x_test": images(4)}, "has no y_test"),
        ({"x_test": images(4, side=5), "y_test": labels(4)}, "rows have different shapes"),
        ({"x_test": images(4), "y_test": np.array([0, 1, 2, 0])}, "the test part has the label 2"),
        ({"x_train": images().astype(object)}, "holds pickled objects, .* are never read"),
        ({"x_train": images().astype(complex)}, "is of type complex128: give numbers"),
        ({"x_train": images().astype(np.int16) * 2}, "values from 0 to 510: give bytes"),
        ({"x_train": images()[:, :, :, :, None]}, r"has shape \[40, 1, 6, 6, 1\]: give images"),
        ({"x_train": np.zeros((40, 2, 6, 6), np.uint8)}, "can be channels"),
        ({"x_train": np.full((40, 3), np.nan)}, "120 values that are not finite"),
        ({"x_train": np.full((40, 3), 1e300)}, "x_train has numbers beyond float32's largest"),
        ({"x_train": np.zeros((40, 0))}, r"has shape \[40, 0\]: give images"),
        ({"x_train": np.array(5)}, "x_train or y_train is a single number"),
        ({"y_train": np.array(5)}, "x_train or y_train is a single number"),
        ({"y_train": np.array([1e30, 0] * 20)}, r"has the label 1e\+30: give smaller"),
        (
            {"y_train": np.linspace(0, 1, 40)},
            r"measurements .*: dwf trains classifiers, no regress",
        ),
        ({"y_train": np.arange(40)}, "labels are measurements"),
        ({"y_train": np.full(40, np.nan)}, "40 labels are missing"),
        ({"y_train": np.zeros((40, 2))}, r"its labels have shape \[40, 2\]"),
        ({"y_train": np.zeros(40, int)}, "has one class alone"),
        ({"y_train": np.r_[np.zeros(39, int), 1]}, "has no test part, and a class of one row"),
    ],
)
def test_arrays_that_are_no_data_are_refused(save, changes, said):
    arrays = {"x_train": images(), "y_train": labels()} | changes
    config = save(**{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ConfigError, match=said):
        load_dataset(config)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "some.npz").write_bytes(b"no zip file")
    with pytest.raises(ConfigError, match=r"some.npz is no .npz file"):
        load_dataset(ArraysConfig(path=tmp_path / "some.npz"))
    np.save(tmp_path / "one.npy", images())
    with pytest.raises(ConfigError, match=r"one.npy is no .npz file"):
        load_dataset(ArraysConfig(path=tmp_path / "one.npy"))


def test_archives_that_claim_or_hold_other_things_are_refused(tmp_path):
    """A header of 100 TB, and members that are no arrays."""
    header, path = io.BytesIO(), tmp_path / "some.npz"
    told = {"descr": "<f4", "fortran_order": False, "shape": (10**7, 10**7)}
    np.lib.format.write_array_header_1_0(header, told)
    for ending, content, said in (
        (".npy", header.getvalue(), "is damaged .an array of"),
        ("", b"words", "has no x_train"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("x_train", "y_train"):
                archive.writestr(f"{name}{ending}", content)
        with pytest.raises(ConfigError, match=said):
            load_dataset(ArraysConfig(path=path))


def test_words_of_other_bytes_are_labels_too(save):
    y = np.array([b"th\xe9", b"tea"] * 20)
    assert known.known(save(x_train=images(), y_train=y)).labels == ("tea", "th\\xe9")


def test_a_damaged_file_is_named(save, tmp_path):
    config = save(x_train=images(), y_train=labels())
    content = bytearray((tmp_path / "some.npz").read_bytes())
    content[300] ^= 255
    (tmp_path / "some.npz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"some.npz is damaged .*: get it again"):
        load_dataset(config)


def test_settings_that_name_no_data_or_lead_elsewhere_are_refused():
    for told, said in (
        ({}, "path is missing: give the file"),
        ({"name": "../x", "path": "x.npz"}, "give a name without folders"),
        ({"name": "x", "sha256": "../../etc"}, "expected 64 hexadecimal digits"),
        ({"path": "x.npz", "largest": 300}, "at most 255"),
    ):
        with pytest.raises(ConfigError, match=said):
            build_own(told)
    with pytest.raises(ConfigError, match="give one of them"):
        build(TableConfig, {"kind": "table", "path": "x", "loader": "wine"}, source="f", key="data")


def test_pixels_are_at_most_as_bright_as_said(save):
    with pytest.raises(ConfigError, match=r"largest = 16: .* has pixels of 25"):
        load_dataset(save(x_train=images(), y_train=labels(), said={"largest": 16}))
    with pytest.raises(ConfigError, match="is a table: leave it out"):
        load_dataset(save(x_train=np.ones((40, 2)), y_train=labels(), said={"largest": 16}))
    with pytest.raises(ConfigError, match="is a table of 2 features, without images to resize"):
        load_dataset(save(x_train=np.ones((40, 2)), y_train=labels(), said={"size": 2}))
