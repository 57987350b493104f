"""Resized images against plain means over blocks, and against Pillow's box filter."""

import numpy as np
import pytest
from PIL import Image

from dwf.datasets import cache, sources
from dwf.datasets.cache import open_resized
from dwf.datasets.config import DataConfig
from dwf.datasets.load import load_dataset
from dwf.datasets.resize import resize
from dwf.errors import ConfigError


def images(count=7, channels=1, height=28, width=28, most=256) -> np.ndarray:
    stream = np.random.default_rng(0)
    return stream.integers(0, most, (count, channels, height, width)).astype(np.uint8)


def mean_over_blocks(stored: np.ndarray, side: int) -> np.ndarray:
    """Every pixel repeated until blocks fit, then a plain mean over blocks; halves rounded up."""
    height, width = stored.shape[2:]
    repeated = stored.astype(np.int64).repeat(side, axis=2).repeat(side, axis=3)
    blocks = repeated.reshape(*stored.shape[:2], side, height, side, width)
    return np.floor(blocks.mean((3, 5)) + 0.5).astype(np.uint8)


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 28, 28), (3, 32, 32), (1, 5, 4)])
@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_a_pixel_is_the_mean_of_what_it_covers(channels, height, width, side):
    stored = images(3, channels, height=height, width=width)
    np.testing.assert_array_equal(resize(stored, side), mean_over_blocks(stored, side))


def test_mnist_at_14_is_the_mean_over_blocks_of_2_by_2():
    stored = images()
    sums = sum(stored[..., i::2, j::2].astype(int) for i in (0, 1) for j in (0, 1))
    found = resize(stored, 14)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, (sums + 2) // 4)


def test_whole_factors_are_pillows_box():
    stored = images()
    boxed = [np.asarray(Image.fromarray(i[0]).resize((7, 7), Image.Resampling.BOX)) for i in stored]
    # Pillow rounds between its two passes, so that some pixels differ by one.
    np.testing.assert_allclose(resize(stored, 7)[:, 0].astype(int), boxed, atol=1)


def test_the_images_own_size_changes_nothing():
    np.testing.assert_array_equal(resize(images(), 28), images())


def test_more_images_than_are_resized_at_once(monkeypatch):
    monkeypatch.setattr("dwf.datasets.resize._IMAGES_AT_ONCE", 3)
    np.testing.assert_array_equal(resize(images(), 14), mean_over_blocks(images(), 14))


# --- as a dataset ----------------------------------------------------------------------------


def test_a_resized_dataset_keeps_cut_and_labels_and_is_made_once(tiny, tmp_path, monkeypatch):
    whole = load_dataset(DataConfig("mnist", validation=0.2))
    small = load_dataset(DataConfig("mnist", validation=0.2, size=2))
    assert small.shape == (1, 2, 2)
    for name in ("train", "val", "test"):
        before, after = getattr(whole, name), getattr(small, name)
        assert before.index.equal(after.index) and before.labels.equal(after.labels)
        expected = mean_over_blocks(before.images.numpy(), 2)
        np.testing.assert_array_equal(after.images, expected)
    monkeypatch.setattr(cache, "resize", None)  # from here on a second making would fail
    assert isinstance(open_resized("mnist", 2)["x_train"], np.memmap)
    assert (tmp_path / "cache/mnist-2/checksums.json").exists()
    assert cache.is_cached("mnist", 2) and not cache.is_cached("mnist", 3)
    assert (tmp_path / "fetches").read_text().count("fetched") == 1


def test_the_mean_and_deviation_are_those_of_the_resized_images(tiny):
    data = load_dataset(DataConfig("mnist", size=2, scaling="standard"))
    prepared = data.prepare(data.train.images[data.train.index]).double()
    assert float(prepared.mean()) == pytest.approx(0, abs=1e-6)
    assert float(prepared.std(correction=0)) == pytest.approx(1, abs=1e-6)


def test_grey_images_are_made_from_resized_ones(tmp_path, monkeypatch):
    stored = images(20, 3, height=8, width=8)
    arrays = {"x_train": stored, "y_train": np.arange(20) % 10}
    arrays |= {"x_test": stored[:4], "y_test": np.arange(4)}
    here = sources.Source("here", lambda _: None)
    published = sources.Published(
        (), 0, num_classes=10, largest=255, read=lambda *_: arrays, digests={}, sources=(here,)
    )
    monkeypatch.setitem(sources.PUBLISHED, "cifar10", published)
    monkeypatch.setenv("DWF_DATA", str(tmp_path))
    data = load_dataset(DataConfig("cifar10", size=4, grey=True))
    assert data.shape == (1, 4, 4)
    luminance = np.tensordot((0.299, 0.587, 0.114), mean_over_blocks(stored, 4), (0, 1)) / 255
    found = data.prepare(data.train.images)[:, 0]
    np.testing.assert_allclose(found, luminance, atol=1e-6)


def test_digits_get_smaller_in_their_own_range(tmp_path, monkeypatch):
    monkeypatch.setenv("DWF_DATA", str(tmp_path))
    data, whole = (load_dataset(DataConfig("digits", size=size)) for size in (4, None))
    assert data.shape == (1, 4, 4)
    assert int(data.train.images.max()) == 16
    np.testing.assert_array_equal(
        data.train.images, mean_over_blocks(whole.train.images.numpy(), 4)
    )


def test_tables_and_larger_images_are_refused_and_leave_nothing(tiny, tmp_path):
    with pytest.raises(
        ConfigError, match=r"data\.size = 2: iris is a table of 4 features, .*leave"
    ):
        load_dataset(DataConfig("iris", size=2))
    message = r"data\.size = 5: the images of mnist have 5 x 4 pixels .*give at most 4, or leave"
    with pytest.raises(ConfigError, match=message):
        load_dataset(DataConfig("mnist", size=5))
    assert not list((tmp_path / "cache").glob("*-*"))


def test_sizes_are_named_where_plans_and_errors_speak_of_data():
    assert DataConfig("mnist", size=14).title == "mnist at 14 x 14"
    assert DataConfig("mnist").title == "mnist"
