"""Luck of the images of a zoo, against networks that are run one by one."""

import numpy as np
import pytest
import torch

from dwf.predictors import luck
from dwf.predictors.luck import draw_luck, luck_of
from dwf.randomness import numpy_stream


@pytest.fixture
def zoo(make_zoo):
    return make_zoo(count=5)


@pytest.fixture
def right(zoo) -> np.ndarray:
    """Which test images each network has right."""
    data = zoo.load_data()
    stored, labels = data.test.batch(torch.arange(len(data.test)))
    images = data.prepare(stored)
    with torch.no_grad():
        answers = [zoo.network(row)(images).argmax(1) for row in range(len(zoo))]
    return (torch.stack(answers) == labels).numpy()


def test_it_is_of_images_drawn_anew_the_same_for_all(zoo, right):
    rows = np.array([3, 0, 4])
    values = np.stack([right[rows].mean(1), np.zeros(3)], 1)
    found = draw_luck(("test_accuracy", "test_loss"), values, sources=[(zoo, rows)])
    assert found.keys() == {"test_accuracy"}
    num = right.shape[1]
    counts = numpy_stream(0, "images drawn", num).multinomial(num, [1 / num] * num, size=100)
    wanted = (counts @ right[rows].T) / num - right[rows].mean(1)
    np.testing.assert_allclose(found["test_accuracy"], wanted, atol=1e-6)


def test_sources_lie_one_after_the_other(zoo, right, monkeypatch):
    monkeypatch.setattr(luck, "_AT_ONCE", 2)
    values = right.mean(1)[[0, 1, 2, 4, 3], None]
    sources = [(zoo, np.array([0, 1, 2])), (zoo, np.array([4, 3]))]
    found = draw_luck(("test_accuracy",), values, sources=sources)
    np.testing.assert_allclose(found["test_accuracy"], luck_of(right[[0, 1, 2, 4, 3]]), atol=1e-6)


def test_it_is_unknown_of_other_images_and_where_it_takes_too_long(zoo, right, monkeypatch):
    values, sources = right.mean(1)[:, None], [(zoo, np.arange(5))]
    assert not draw_luck(("test_accuracy",), values + 0.01, sources=sources)
    assert not draw_luck(("test_fgsm_accuracy",), values, sources=sources)
    monkeypatch.setattr(luck, "_MOST", 1000.0)
    assert not draw_luck(("test_accuracy",), values, sources=sources)


def test_it_is_kept(tmp_path):
    drawn = {"test_accuracy": np.random.default_rng(0).random((100, 3)).astype(np.float32)}
    luck.save(tmp_path, drawn)
    found = luck.load(tmp_path)
    assert found.keys() == drawn.keys()
    np.testing.assert_array_equal(found["test_accuracy"], drawn["test_accuracy"])
