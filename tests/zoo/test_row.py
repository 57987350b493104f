"""Rows of a zoo, and a zoo as a table: held to the arrays written, and to batched evaluation."""

import numpy as np
import pandas
import pytest
import torch

from dwf.networks.config import CNNConfig
from dwf.networks.functional import build_network, run_networks
from dwf.zoo.layout import Layout
from dwf.zoo.shard import shard_name
from dwf.zoo.store import Zoo
from tests.zoos import facts_of, write_rows

BATCHNORM = CNNConfig(
    channels=(4, 6), input=(1, 8, 8), norm="batch", pools=2, paddings=1, head="average", bias=False
)


@pytest.fixture
def zoo(make_zoo) -> Zoo:
    return make_zoo(count=12, val_accuracy=np.linspace(0.5, 0.93, 12))


def test_a_row_has_its_columns_and_weights(zoo):
    row = zoo[3]
    assert row.columns["network"] == 3 and row.columns["split"] == zoo.columns["split"][3]
    assert {type(value) for value in row.columns.values()} == {int, float, str}
    assert row.weights.dtype == np.float32 and row.weights.shape == (zoo.layout.size,)
    assert np.array_equal(row.weights, zoo.read(slice(3, 4))[0])
    assert repr(row).startswith(f"Row(3 of '{zoo.path}': network=3, epoch=1, split=")
    assert "<td style='text-align:left'>3</td>" in row._repr_html_()


def test_rows_are_counted_from_the_end_and_end(zoo):
    assert zoo[-1].index == zoo[11].index == zoo[np.int64(11)].index == 11
    assert zoo[-12].index == 0
    for row in (12, -13, 10**9):
        with pytest.raises(IndexError, match=rf"row {row}: .*small has rows 0 to 11"):
            zoo[row]
    with pytest.raises(TypeError):
        zoo[1:3]
    assert [row.index for row in zoo] == list(range(12))


def test_a_rows_network_answers_as_in_a_batch(zoo):
    inputs = torch.rand(7, 64, generator=torch.Generator().manual_seed(0))
    state = zoo.layout.unflatten(torch.from_numpy(zoo.read()))
    with torch.no_grad():
        batched = run_networks(zoo.build_network(), state, inputs=inputs)
        for index in (0, 3, -1):
            torch.testing.assert_close(zoo[index].network()(inputs), batched[index])


def test_a_rows_network_has_its_running_statistics(tmp_path):
    """They are part of the row; weights are above 0, so that variances are."""
    layout = Layout.of(build_network(BATCHNORM))
    weights_ND = np.random.default_rng(0).random((3, layout.size)) + 0.1
    zoo = write_rows(tmp_path / "zoos" / "norms", facts_of(layout, BATCHNORM), weights_ND)
    state = layout.unflatten(torch.from_numpy(weights_ND.astype(np.float32)))
    network, inputs = zoo[1].network(), torch.rand(5, 1, 8, 8)
    own = network.state_dict()
    assert any(name.endswith("running_var") for name in state)
    assert all(torch.equal(own[name], each[1]) for name, each in state.items())
    with torch.no_grad():
        batched = run_networks(zoo.build_network(), state, inputs=inputs)
        torch.testing.assert_close(network(inputs), batched[1])
        assert batched.isfinite().all() and not torch.allclose(batched[1], batched[2])


def test_a_zoo_is_told_in_a_line_without_its_weights(zoo, monkeypatch):
    monkeypatch.setattr(Zoo, "read", lambda *_, **__: pytest.fail("weights were read"))
    val = 100 * zoo.columns["val_accuracy"][zoo.columns["split"] == "train"]
    assert repr(zoo) == (
        f"Zoo('{zoo.path}': 12 rows of 12 networks, mlp of 1,210 weights on digits; train 8, "
        "val 2, test 2)"
    )
    shown = zoo._repr_html_()
    assert f"{val.mean():.2f} +- {val.std():.2f} %" in shown and "digits" in shown


def test_a_zoo_that_lacks_shards_says_so(make_sharded):
    zoo = make_sharded("three", sizes=(5, 4, 3))
    (zoo.path / shard_name(1, 3)).unlink()
    told = repr(Zoo.open(zoo.path, incomplete=True))
    assert "16 rows of 8 networks (2 of 3 shards are there)" in told
    assert "1 networks, kept out" in Zoo.open(zoo.path, incomplete=True)._repr_html_()


def test_a_zoo_is_a_table(zoo):
    table = zoo.to_dataframe()
    assert isinstance(table, pandas.DataFrame) and table.index.name == "row"
    assert list(table.columns) == list(zoo.columns) and len(table) == 12
    assert table.val_accuracy.to_numpy() == pytest.approx(zoo.columns["val_accuracy"])
    assert table.loc[table.split == "train"].index.tolist() == zoo.rows("train").tolist()
