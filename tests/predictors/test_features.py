"""Statistics and norms against numpy on each tensor alone; how layouts stand in one table."""

import numpy as np
import pytest

from dwf.errors import ShapeMismatch
from dwf.networks.config import CifarResNetConfig, CNNConfig, MLPConfig
from dwf.predictors.features import Columns, layers_of, norms, statistics, tensors_of
from tests.predictors.made import layout_of

ARCHITECTURES = [
    MLPConfig((8, 6, 4)),
    CNNConfig((3, 5), (1, 9, 9), hidden=(7,), norm="batch"),
    CifarResNetConfig(8, width=4),
]


def drawn(layout, count: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_t(3, size=(count, layout.size)) + 0.3).astype(np.float32)


@pytest.mark.parametrize("config", ARCHITECTURES, ids=lambda c: c.kind)
def test_statistics_are_those_of_each_tensor_alone(config):
    layout = layout_of(config)
    weights = drawn(layout)
    found = statistics(weights, layout).reshape(len(weights), -1, 7)
    tensors = layout.unflatten(weights.astype(np.float64))
    assert found.shape[1] == len(tensors) == len(tensors_of(layout))
    for place, tensor in enumerate(tensors.values()):
        for n, each in enumerate(tensor):
            expected = [each.mean(), each.var(), *np.quantile(each, [0, 0.25, 0.5, 0.75, 1])]
            np.testing.assert_allclose(found[n, place], expected, rtol=1e-12, atol=1e-14)


def test_the_published_cnn_has_56_statistics():
    """Four layers, weights and biases, seven statistics (arXiv 2002.11448)."""
    layout = layout_of(CNNConfig((16, 16, 16), (1, 28, 28), strides=2, head="average"))
    assert layout.size == 4970
    assert statistics(drawn(layout), layout).shape == (3, 56)


def test_a_large_tensor_is_looked_at_in_parts_with_the_same_result():
    layout = layout_of(MLPConfig((400, 300, 4)))
    weights = drawn(layout, count=6)
    each = [statistics(row[None], layout) for row in weights]
    np.testing.assert_array_equal(statistics(weights, layout), np.concatenate(each))
    each = [norms(row[None], layout) for row in weights]
    np.testing.assert_array_equal(norms(weights, layout), np.concatenate(each))


@pytest.mark.parametrize("config", ARCHITECTURES, ids=lambda c: c.kind)
def test_norms_are_those_of_what_each_layer_learns_and_of_all(config):
    layout = layout_of(config)
    weights = drawn(layout)
    found, layers = norms(weights, layout), layers_of(layout)
    tensors = layout.unflatten(weights.astype(np.float64))
    for place, entries in enumerate(layers.values()):
        learnt = [tensors[e.name].reshape(len(weights), -1) for e in entries if e.role != "buffer"]
        expected = np.linalg.norm(np.hstack(learnt), axis=1)
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-12)
    whole = layout.learnt(weights.astype(np.float64))
    np.testing.assert_allclose(found[:, -1], np.linalg.norm(whole, axis=1), rtol=1e-12)


def test_layouts_stand_by_their_layers_and_what_is_missing_is_said():
    deep, shallow = MLPConfig((8, 6, 5, 4)), MLPConfig((8, 6, 4))
    places = [list(tensors_of(layout_of(config))) for config in (deep, shallow)]
    columns = Columns(places, num_each=2)
    assert columns.size == 6 * 3
    numbers = np.arange(8.0).reshape(1, 8)
    (row,) = columns.lay(numbers, places[1])
    assert [str(place) for place in columns.places][:3] == [
        "layer 0 bias",
        "layer 0 weight",
        "layer 1 bias",
    ]
    # Rows hold weight before bias, columns are sorted.
    np.testing.assert_array_equal(row[:8], [2, 3, 0, 1, 6, 7, 4, 5])
    assert np.isnan(row[8:12]).all()
    np.testing.assert_array_equal(row[12:], [1, 1, 1, 1, 0, 0])
    assert Columns.from_json(columns.to_json()).places == columns.places


def test_normalisations_are_counted_by_themselves():
    with_norm, without = (
        list(tensors_of(layout_of(CNNConfig((3, 5), (1, 9, 9), norm=norm))))
        for norm in ("batch", "none")
    )
    assert [p for p in with_norm if not p.is_norm] == without


def test_a_wider_network_is_known_a_deeper_one_is_not():
    known, wide, deep = (
        list(tensors_of(layout_of(MLPConfig(widths))))
        for widths in ((8, 6, 4), (8, 60, 4), (8, 6, 6, 4))
    )
    columns = Columns([known], num_each=1)
    assert columns.lay(np.ones((2, 4)), wide).shape == (2, 4)
    with pytest.raises(ShapeMismatch, match="have layer 2 weight, which none had"):
        columns.lay(np.ones((2, 6)), deep)
    with pytest.raises(ShapeMismatch, match="lack layer 2 bias, which all had"):
        Columns([deep], num_each=1).lay(np.ones((2, 4)), known)


def test_rows_of_another_length_are_refused():
    layout = layout_of(MLPConfig((8, 6, 4)))
    with pytest.raises(ShapeMismatch, match="rows of 81 numbers"):
        statistics(np.zeros((2, 81), np.float32), layout)
