"""Own tables: CSV and Parquet against the numbers written, scikit-learn's loaders; bad input."""

import numpy as np
import pandas
import pytest
import torch

from dwf.datasets import known
from dwf.datasets.config import DataConfig, TableConfig
from dwf.datasets.load import load_dataset
from dwf.datasets.own import identified
from dwf.errors import ConfigError, DataUnavailable


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DWF_DATA", str(tmp_path / "cache"))


def plants(count=30, seed=0):
    stream = np.random.default_rng(seed)
    words = np.array(["oak", "elm", "ash"])[np.arange(count) % 3]
    return pandas.DataFrame({"a": stream.normal(size=count), "b": np.arange(count), "kind": words})


def write(table, path):
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path)
    return path


def stored(data, part="train"):
    part = data.part(part)
    return part.batch(torch.arange(len(part)))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_rows_and_words_are_those_written(tmp_path, ending):
    table = plants()
    config = TableConfig(path=write(table, tmp_path / f"plants{ending}"), validation=0.0)
    data = load_dataset(config)
    assert data.shape == (2,) and data.num_classes == 3
    assert known.known(config).labels == ("ash", "elm", "oak")
    np.testing.assert_allclose(data.train.images, table[["a", "b"]].to_numpy(np.float32))
    words = np.array(["ash", "elm", "oak"])[data.train.labels.numpy()]
    np.testing.assert_array_equal(words, table["kind"])


def test_a_column_marks_the_test_part_and_others_are_named(tmp_path):
    table = plants().assign(held=np.arange(30) % 5 == 0)
    config = TableConfig(
        path=write(table, tmp_path / "plants.csv"),
        target="kind",
        test="held",
        features=("b",),
        validation=0.0,
    )
    data = load_dataset(config)
    assert stored(data, "test")[0].flatten().tolist() == [0, 5, 10, 15, 20, 25]
    assert len(data.train) == 24 and data.shape == (1,)


def test_a_second_file_is_the_test_part(tmp_path):
    write(plants(), tmp_path / "plants/train.csv")
    config = TableConfig(path=tmp_path / "plants", validation=0.0)
    with pytest.raises(ConfigError, match=r"plants has no test.csv or test.parquet"):
        load_dataset(config)
    held = plants(6, seed=1)
    write(held, tmp_path / "plants/test.csv")
    rows, labels = stored(load_dataset(config), "test")
    np.testing.assert_allclose(rows, held[["a", "b"]].to_numpy(np.float32))
    assert labels.tolist() == [2, 1, 0, 2, 1, 0]
    write(held[["kind", "b", "a"]], tmp_path / "plants/test.csv")
    config = TableConfig(path=tmp_path / "plants", target="kind", validation=0.0)
    np.testing.assert_array_equal(stored(load_dataset(config), "test")[0], rows), "by names"
    write(held.drop(columns="a"), tmp_path / "plants/test.csv")
    with pytest.raises(ConfigError, match="different columns"):
        load_dataset(config)


def test_a_loader_of_scikit_learns_is_the_table_it_gives(monkeypatch):
    config = TableConfig(loader="iris", seed=4, scaling="standard")
    ours, theirs = load_dataset(config), load_dataset(DataConfig("iris", 0.1, 4, "standard"))
    assert ours.test.index.equal(theirs.test.index)
    assert ours.prepare(stored(ours)[0]).equal(theirs.prepare(stored(theirs)[0]))
    found = identified(config)
    assert found.source == "iris" and len(found.sha256) == 64
    assert load_dataset(found).train.labels.equal(theirs.train.labels)
    monkeypatch.setattr("sklearn.datasets.load_iris", lambda **_: (np.eye(150), np.arange(150) % 3))
    assert load_dataset(found).num_classes == 3, "from the cache"
    with pytest.raises(DataUnavailable, match=f"iris has sha256 .*, expected {found.sha256}"):
        load_dataset(TableConfig(loader="iris", sha256=found.sha256, features=None, size=2))


def test_regression_and_what_is_no_table_is_refused(monkeypatch):
    for loader, said in (
        ("diabetes", "labels are measurements .*: dwf trains classifiers, no regression"),
        ("linnerud", r"labels have shape \[20, 3\]"),
        ("wnie", r"no load_wnie or fetch_wnie; it has .*wine"),
        ("sample_image", "gives no table by itself"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_dataset(TableConfig(loader=loader))

    def offline(**_):
        raise OSError("no network")

    monkeypatch.setattr("sklearn.datasets.fetch_covtype", offline)
    with pytest.raises(
        DataUnavailable, match=r"covtype: scikit-learn cannot fetch it here \(no net"
    ):
        load_dataset(TableConfig(loader="covtype"))


@pytest.mark.parametrize(
    ("changes", "told", "said"),
    [
        ({"a": np.nan}, {}, "column 'a' is missing or not finite in 30 of 30 rows"),
        ({"b": np.inf}, {}, "column 'b' is missing or not finite"),
        ({"a": 1e300}, {}, "x_train has numbers beyond float32's largest"),
        ({"a": "high"}, {}, "column 'a' holds .*, such as 'high': give numbers, or name"),
        ({"kind": np.linspace(0, 1, 30)}, {}, "labels are measurements"),
        ({"kind": [None, *["oak", "elm"] * 14, "elm"]}, {}, "kind is missing in 1 of 30 rows"),
        ({}, {"target": "species"}, "has no column 'species'; it has a, b, kind"),
        ({}, {"features": ("a", "c")}, "has no column 'c'"),
        ({}, {"features": ("kind",)}, "features are kind, labels are 'kind'"),
        ({"t": 2}, {"target": "kind", "test": "t"}, "other values than 0 and 1"),
        ({"t": 1}, {"target": "kind", "test": "t"}, "cuts no row from the others"),
    ],
)
def test_tables_that_are_no_data_are_refused(tmp_path, changes, told, said):
    path = write(plants().assign(**changes), tmp_path / "plants.csv")
    with pytest.raises(ConfigError, match=said):
        load_dataset(TableConfig(path=path, **told))


def test_files_that_are_no_tables_are_refused(tmp_path):
    for name, content, said in (
        ("a.txt", b"a,b", r"expected a file .csv or .parquet"),
        ("a.parquet", b"none", r"a.parquet cannot be read"),
        ("a.csv", b"", r"a.csv cannot be read"),
        ("b.csv", b"a,b\n", r"b.csv has no rows"),
        ("c.csv", b"5.1,3.5,0\n4.9,3.0,1\n", "c.csv begins with the numbers 5.1, 3.5, 0: give it"),
        ("d.csv", b",a,k\n0,1,0\n1,2,1\n", "column 1 has no name, as numbers of rows have none"),
        ("e.csv", b"a;b;k\n0;1;0\n", "a single column, 'a;b;k': part the columns by commas"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=said):
            load_dataset(TableConfig(path=tmp_path / name))


def test_columns_that_are_counted_have_names(tmp_path):
    table = plants().rename(columns={"a": "0", "b": "1"})
    assert load_dataset(TableConfig(path=write(table, tmp_path / "plants.csv"))).shape == (2,)
