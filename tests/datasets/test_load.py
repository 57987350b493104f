"""Splits and scaling of datasets against numpy and scikit-learn; MNIST is as published."""

import time
import typing

import numpy as np
import pytest
import torch

from dwf.commands import COMMANDS
from dwf.datasets import known, load, sources
from dwf.datasets.config import DataConfig, TorchvisionConfig
from dwf.datasets.load import load_dataset
from dwf.datasets.sources import Published, Source
from dwf.errors import ConfigError, DataUnavailable
from dwf.settings import build

MNIST_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
DIGITS_COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("DWF_DATA", str(tmp_path / "cache"))


@pytest.fixture
def stand_in(cached, monkeypatch):
    """Stand in for a dataset with given arrays; returns how to."""

    def put(kind, largest, **arrays):
        here = (Source("here", lambda _: None),)
        published = Published(
            (), 0, num_classes=10, largest=largest, read=lambda *_: arrays, digests={}, sources=here
        )
        monkeypatch.setitem(sources.PUBLISHED, kind, published)

    return put


def parts(data):
    return [set(part.index.tolist()) for part in (data.train, data.val, data.test)]


def prepared(data, part):
    return data.prepare(part.batch(torch.arange(len(part)))[0])


def test_published_test_images_stay_the_test_part(tiny, arrays):
    data = load_dataset(DataConfig("mnist", validation=0.2))
    assert [len(data.train), len(data.val), len(data.test)] == [24, 6, 10]
    train, val, _ = parts(data)
    assert not train & val
    assert train | val == set(range(30))
    images, labels = data.test.batch(torch.arange(10))
    np.testing.assert_array_equal(images[:, 0], arrays["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(labels, arrays["t10k-labels-idx1-ubyte"])
    assert data.shape == (1, 5, 4)
    assert data.num_classes == 10


@pytest.mark.parametrize("kind", ["iris", "digits"])
def test_parts_are_disjoint_and_cover_where_no_test_is_published(cached, kind):
    train, val, test = parts(load_dataset(DataConfig(kind, validation=0.25, seed=3)))
    num = len(train) + len(val) + len(test)
    assert train | val | test == set(range(num))
    assert num == {"iris": 150, "digits": 1797}[kind]
    assert len(test) == -(-num // 5)  # scikit-learn rounds up
    assert len(val) == round(0.25 * (num - len(test)))


@pytest.mark.parametrize("kind", ["mnist", "digits"])
def test_the_cut_depends_on_the_seed_alone(tiny, kind):
    first, again = (parts(load_dataset(DataConfig(kind, seed=5))) for _ in range(2))
    assert first == again
    assert first[1] != parts(load_dataset(DataConfig(kind, seed=6)))[1]
    standard = DataConfig(kind, seed=5, scaling="standard")
    assert first == parts(load_dataset(standard))


def test_the_validation_share_does_not_change_the_test_rows(cached):
    few, many = (load_dataset(DataConfig("iris", validation=share)) for share in (0.0, 0.5))
    assert parts(few)[2] == parts(many)[2]
    assert len(few.val) == 0
    assert len(few.train) == 120


def test_the_cut_of_mnist_size_is_the_same_everywhere():
    rest = torch.arange(60000)
    train, val = load._cut_val(rest, DataConfig("mnist"))
    assert [len(train), len(val)] == [54000, 6000]
    # A change here changes every recorded accuracy: never by accident.
    assert val[:5].tolist() == [2, 42, 51, 69, 73]


def test_nothing_left_to_train_on_is_an_error(cached):
    with pytest.raises(ConfigError, match=r"validation = 1\.0 leaves none of the 120 .*iris"):
        load_dataset(DataConfig("iris", validation=1.0))


def test_iris_is_the_published_data_and_cut(cached):
    from sklearn.datasets import load_iris
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    data = load_dataset(DataConfig("iris", validation=0.0, seed=42, scaling="standard"))
    assert torch.bincount(data.train.labels).tolist() == [50, 50, 50]
    assert torch.bincount(data.test.labels[data.test.index]).tolist() == [10, 10, 10]
    table = load_iris()
    train, test, _, test_labels = train_test_split(
        table.data, table.target, test_size=0.2, stratify=table.target, random_state=42
    )
    scaler = StandardScaler().fit(train)
    found, expected = prepared(data, data.test), scaler.transform(test)
    order, expected_order = np.lexsort(found.numpy().T), np.lexsort(expected.T)
    np.testing.assert_allclose(found[order], expected[expected_order], atol=1e-5)
    labels = data.test.batch(torch.arange(30))[1]
    np.testing.assert_array_equal(labels[order], test_labels[expected_order])


def test_iris_unit_is_minimum_to_maximum_of_the_training_rows(cached):
    data = load_dataset(DataConfig("iris", validation=0.3))
    assert data.train.images.dtype == torch.float32
    rows = prepared(data, data.train)
    torch.testing.assert_close(rows.min(0).values, torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(rows.max(0).values, torch.ones(4), atol=1e-6, rtol=0)


def test_digits_are_the_published_ones(cached):
    data = load_dataset(DataConfig("digits"))
    assert data.shape == (1, 8, 8)
    assert data.train.images.dtype == torch.uint8
    assert torch.bincount(data.train.labels).tolist() == DIGITS_COUNTS
    assert int(data.train.images.max()) == 16
    rows = prepared(data, data.train)
    assert [float(rows.min()), float(rows.max())] == [0, 1]
    assert data.num_classes == 10


def test_unit_is_to_tensor(tiny):
    from torchvision.transforms.functional import to_tensor

    data = load_dataset(DataConfig("mnist"))
    image = data.test.images[3, 0]
    expected = to_tensor(image.numpy())
    torch.testing.assert_close(data.prepare(data.test.images[3]), expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_standard_images_equal_brute_force_over_the_training_part(stand_in, channels):
    stream = np.random.default_rng(1)
    images = stream.integers(0, 100, (40, channels, 6, 5)).astype(np.uint8)
    images[:, -1] += 120
    labels = stream.integers(0, 10, 40)
    stand_in("cifar10", 255, x_train=images, y_train=labels, x_test=images[:4], y_test=labels[:4])
    data = load_dataset(DataConfig("cifar10", validation=0.25, scaling="standard"))
    train = images[data.train.index.numpy()].astype(np.float64)
    axes = (0, 2, 3)
    mean, std = train.mean(axes, keepdims=True), train.std(axes, keepdims=True)
    np.testing.assert_allclose(prepared(data, data.train), (train - mean) / std, atol=1e-5)
    val = images[data.val.index.numpy()].astype(np.float64)
    np.testing.assert_allclose(prepared(data, data.val), (val - mean) / std, atol=1e-5)


@pytest.mark.parametrize("scaling", ["unit", "standard"])
def test_a_constant_feature_is_only_centred(stand_in, scaling):
    table = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    table[:, 1] = 7
    stand_in("iris", None, x_train=table, y_train=np.arange(20) % 2)
    data = load_dataset(DataConfig("iris", scaling=scaling))
    rows = prepared(data, data.train)
    assert rows.isfinite().all()
    assert (rows[:, 1] == 0).all()


def test_constant_images_are_only_centred(stand_in):
    images, labels = np.full((20, 1, 2, 2), 9, np.uint8), np.arange(20) % 10
    stand_in("mnist", 255, x_train=images, y_train=labels, x_test=images, y_test=labels)
    data = load_dataset(DataConfig("mnist", scaling="standard"))
    assert (prepared(data, data.train) == 0).all()


def test_the_command_fetches_and_says_where(tiny, tmp_path, capsys):
    COMMANDS["data"].run(["mnist"])
    assert f"mnist: 27 + 3 + 10 of shape [1, 5, 4], verified, in {tmp_path}" in (
        capsys.readouterr().out
    )


def test_the_command_names_the_datasets_there_are():
    with pytest.raises(ConfigError, match=r"mnits: no such data set; there are .*fashion_mnist"):
        COMMANDS["data"].run(["mnits"])


def test_real_mnist_is_the_published_one_and_loads_at_once():
    try:
        load_dataset(DataConfig("mnist"))
    except DataUnavailable as error:
        pytest.skip(str(error))
    started = time.monotonic()
    data = load_dataset(DataConfig("mnist"))
    assert time.monotonic() - started < 1
    assert torch.bincount(data.train.labels).tolist() == MNIST_COUNTS
    assert [len(data.train), len(data.val), len(data.test)] == [54000, 6000, 10000]
    standard = load_dataset(DataConfig("mnist", validation=0.0, scaling="standard"))
    # The mean and deviation that everyone uses for MNIST, of all 60,000 training images.
    assert float(1 / standard.scale) / 255 == pytest.approx(0.3081, abs=1e-4)
    assert float(-standard.shift / standard.scale) / 255 == pytest.approx(0.1307, abs=1e-4)


def test_symmetric_images_run_from_minus_one_to_one(tiny, arrays):
    data = load_dataset(DataConfig("mnist", scaling="symmetric"))
    stored, _ = data.test.batch(torch.arange(10))
    torch.testing.assert_close(data.prepare(stored), stored / 127.5 - 1)
    table = load_dataset(DataConfig("iris", scaling="symmetric", validation=0.3))
    low, high = prepared(table, table.train).aminmax(dim=0)
    torch.testing.assert_close(low, torch.full((4,), -1.0))
    torch.testing.assert_close(high, torch.ones(4))


def test_grey_images_are_luminance_and_scaled_by_their_own_statistics(stand_in):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 3, 5, 4), dtype=np.uint8)
    labels = np.zeros(60, np.int64)
    stand_in("cifar10", 255, x_train=images, y_train=labels, x_test=images, y_test=labels)
    data = load_dataset(DataConfig("cifar10", grey=True, scaling="standard", validation=0.0))
    assert data.shape == (1, 5, 4)
    grey = np.tensordot([0.299, 0.587, 0.114], images.astype(np.float64), ((0,), (1,)))
    expected = (grey - grey.mean()) / grey.std()
    np.testing.assert_allclose(prepared(data, data.train)[:, 0], expected, atol=1e-5)
    with pytest.raises(ConfigError, match="digits has no colour images"):
        load_dataset(DataConfig("digits", grey=True))


def test_some_images_are_a_seeded_subset_and_val_is_left_whole(cached):
    everything = load_dataset(DataConfig("digits", seed=4))
    few = load_dataset(DataConfig("digits", seed=4, train_images=100, test_images=50))
    assert [len(few.train), len(few.test)] == [100, 50]
    (train, val, test), (some_train, same_val, some_test) = parts(everything), parts(few)
    assert some_train < train and some_test < test and same_val == val
    assert some_train == parts(load_dataset(DataConfig("digits", seed=4, train_images=100)))[0]
    with pytest.raises(ConfigError, match="test_images = 361: the test part of digits has 360"):
        load_dataset(DataConfig("digits", test_images=361))


@pytest.mark.parametrize("kind", sources.PUBLISHED)
def test_what_is_known_before_a_byte_is_here_is_what_is_loaded(kind):
    published, data = sources.PUBLISHED[kind], load_dataset(DataConfig(kind, validation=0.25))
    assert len(data.train) + len(data.val) == published.num_rows
    assert data.shape == published.shape == known.input_shape(DataConfig(kind))
    assert int(data.train.labels.max()) + 1 == published.num_classes
    for change in ({"size": 8}, {"grey": True}, {"size": 8, "grey": True}):
        fits = len(published.shape) == 3 and ("grey" not in change or published.shape[0] == 3)
        if fits and min(published.shape[1:]) > 8:
            config = DataConfig(kind, **change)
            assert load_dataset(config).shape == known.input_shape(config)


def test_every_dataset_that_can_be_named_is_published():
    assert set(typing.get_args(typing.get_type_hints(DataConfig)["kind"])) == set(sources.PUBLISHED)


def test_parts_have_names():
    data = load_dataset(DataConfig("iris"))
    found = [data.part(name) for name in ("train", "val", "test")]
    assert all(a is b for a, b in zip(found, (data.train, data.val, data.test), strict=True))


def test_classes_are_picked_and_relabelled_in_the_order_given(cached):
    whole = load_dataset(DataConfig("digits", validation=0.0))
    some = load_dataset(DataConfig("digits", validation=0.2, classes=(7, 0, 3)))
    assert some.num_classes == 3 and some.shape == whole.shape
    stored, old = whole.train.images, whole.train.labels
    for part in (some.train, some.val, some.test):
        images, labels = part.batch(torch.arange(len(part)))
        assert images.equal(stored[part.index])
        assert torch.tensor([7, 0, 3])[labels].equal(old[part.index])
    train, val, test = parts(some)
    assert train | val | test == set(np.flatnonzero(np.isin(old, [7, 0, 3])))
    assert len(train) + len(val) + len(test) == sum(DIGITS_COUNTS[c] for c in (7, 0, 3))
    assert torch.bincount(some.test.labels[some.test.index]).tolist() == [36, 36, 36]


def test_classes_are_picked_from_a_published_test_part_too(tiny, arrays):
    data = load_dataset(DataConfig("mnist", validation=0.0, classes=(5, 2)))
    for part, prefix in ((data.train, "train"), (data.test, "t10k")):
        images, labels = part.batch(torch.arange(len(part)))
        old = arrays[f"{prefix}-labels-idx1-ubyte"]
        kept = np.flatnonzero((old == 5) | (old == 2))
        np.testing.assert_array_equal(labels, (old[kept] == 2).astype(int))
        np.testing.assert_array_equal(images[:, 0], arrays[f"{prefix}-images-idx3-ubyte"][kept])


def test_all_classes_in_order_change_nothing(cached):
    whole = load_dataset(DataConfig("digits"))
    same = load_dataset(DataConfig("digits", classes=tuple(range(10))))
    assert parts(same) == parts(whole) and same.train.labels.equal(whole.train.labels)


def test_scaling_is_measured_on_the_classes_that_are_picked(cached):
    data = load_dataset(DataConfig("iris", classes=(0, 2)))
    rows = prepared(data, data.train)
    torch.testing.assert_close(rows.min(0).values, torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(rows.max(0).values, torch.ones(4), atol=1e-6, rtol=0)


def test_classes_that_are_none_are_refused(cached):
    with pytest.raises(ConfigError, match="classes: 3 is no label of iris, which has 0, 1, 2"):
        load_dataset(DataConfig("iris", classes=(0, 3)))
    for classes in ((), (1,), (1, 1)):
        with pytest.raises(ConfigError, match=r"data: classes = .*: give at least two labels"):
            build(DataConfig, {"kind": "iris", "classes": classes}, source="f", key="data")


def test_data_that_are_not_here_are_named_with_the_command_that_fetches_them(monkeypatch, tmp_path):
    monkeypatch.setenv("DWF_DATA", str(tmp_path))
    emnist = TorchvisionConfig(name="emnist", split="digits")
    for config, name in ((DataConfig("mnist", size=14), "mnist"), (emnist, "emnist_digits")):
        assert known.why_not_here(config).endswith(f"yet; dwf data {name} fetches it")
        assert name in load.by_name()


def test_images_trained_on_are_known_before(cached):
    config = DataConfig("digits", validation=0.25, classes=(0, 1, 2, 3, 4))
    assert known.trained_images(config) == pytest.approx(len(load_dataset(config).train), rel=0.01)
    assert known.trained_images(DataConfig("mnist", train_images=7)) == 7
