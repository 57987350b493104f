"""Constants of a network (tables, positions) through all stages: never moved, never a mean.

The independent answers are the table itself, and the networks' own accuracies.
"""

import dataclasses

import numpy as np
import pytest
import torch

from dwf.align.config import AlignConfig
from dwf.align.stage import align_zoo
from dwf.align.trace import trace_groups
from dwf.codecs.config import FlatConfig, PcaConfig, TokensConfig
from dwf.codecs.flat import FlatCodec
from dwf.codecs.pca import PcaCodec
from dwf.codecs.tokens import TokensCodec
from dwf.errors import ConfigError
from dwf.evaluation.measure import Yardstick
from dwf.evaluation.measure.baselines import Baseline, Drawn
from dwf.networks.config import PythonConfig
from dwf.networks.functional import build_network, score_networks
from dwf.networks.sound import elsewhere
from dwf.run_folder import RunFolder
from dwf.trust import trust_code
from dwf.zoo.layout import Layout
from dwf.zoo.moments import measure_moments
from dwf.zoo.stage import train_zoo
from tests.networks.cases import H, Positions
from tests.zoo.test_foreign import settings


class Halves(Positions):
    """Its table tells the first half of the units from the second, and nobody else."""

    def __init__(self):
        super().__init__()
        self.table.copy_(torch.arange(H) // (H // 2))


def groups_of(network: torch.nn.Module):
    return trace_groups(network, Layout.of(network), input_shape=(1, 8, 8))


def test_roles_tell_constants_from_running_statistics():
    layout = Layout.of(Positions())
    roles = {entry.name: entry.role for entry in layout.entries if not entry.is_learnt}
    expected = {"n.running_mean": "buffer", "n.running_var": "buffer", "table": "constant"}
    assert roles == expected
    covered = sum(stop - start for start, stop in layout.spans(buffers=True))
    assert covered == layout.size - H and [e.name for e in layout.constants] == ["table"]


def test_alignment_pins_what_a_table_tells_apart():
    assert not groups_of(Positions())
    assert sorted(group.size for group in groups_of(Halves())) == [H // 2, H // 2]


@pytest.mark.parametrize("case", ["tests.networks.cases:Positions", f"{__name__}:Halves"])
def test_an_aligned_zoo_keeps_its_tables_and_its_accuracies(tmp_path, monkeypatch, case):
    monkeypatch.setattr(elsewhere, "examine_elsewhere", lambda trial: trial.findings())
    config = settings("Positions", cohort=4, count=8, shard=8)
    trust_code(case)
    config = dataclasses.replace(config, network=PythonConfig(case))
    zoo = train_zoo(config, tmp_path, name="zoo")
    aligned = align_zoo(AlignConfig("zoo"), tmp_path, name="aligned")
    table = build_network(PythonConfig(case)).table.numpy()
    data = zoo.load_data()
    for one in (zoo, aligned):
        state = one.layout.unflatten(torch.from_numpy(one.read()))
        assert (state["table"].numpy() == table).all()
        found = score_networks(one.build_network(), state, data=data, part=data.test)
        np.testing.assert_allclose(found.accuracy_N, zoo.columns["test_accuracy"], atol=0.01)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    def train(case: str):
        monkeypatch.setattr(elsewhere, "examine_elsewhere", lambda trial: trial.findings())
        return train_zoo(settings(case, cohort=4, count=8, shard=8), tmp_path, name=case)

    return train


def test_a_template_has_the_constants_of_one_network(trained, tmp_path):
    zoo = trained("Positions")
    entry = zoo.layout.by_name["table"]
    rows, part = zoo.rows("train"), slice(entry.offset, entry.stop)
    table = Positions().table.numpy()
    moments = measure_moments([(zoo, rows)])
    assert (moments.mean_D[part] == table).all() and not moments.variance_D[part].any()
    others = np.setdiff1d(np.arange(zoo.layout.size), np.arange(entry.offset, entry.stop))
    mean_D = zoo.read(rows).astype(np.float64).mean(0)
    np.testing.assert_allclose(moments.mean_D[others], mean_D[others], atol=1e-12)
    weights_ND = torch.from_numpy(zoo.read(rows))
    for kind, config in (
        (FlatCodec, FlatConfig(buffers=True)),
        (PcaCodec, PcaConfig(buffers=True)),
        (TokensCodec, TokensConfig(buffers=True)),
    ):
        codec = kind(config).fit([(zoo, rows)], [], run=RunFolder(tmp_path / kind.__name__, {}))
        back_ND = codec.decode(codec.encode(weights_ND, zoo.layout), zoo.layout).numpy()
        assert (back_ND[:, part] == table).all()
        np.testing.assert_allclose(back_ND, weights_ND, atol=1e-4)


def test_constants_of_each_network_are_refused_by_name(trained, tmp_path):
    """Nobody's constants would be right for what a generator makes, and no order for all."""
    zoo = trained("RandomFeatures")
    with pytest.raises(ConfigError, match="the buffer mix of row 1 has other numbers"):
        measure_moments([(zoo, np.arange(len(zoo)))])
    with pytest.raises(ConfigError, match="the buffer mix of row 0 has other numbers"):
        align_zoo(AlignConfig("RandomFeatures"), tmp_path, name="aligned")


def test_baselines_have_the_constants_of_the_network_they_are_made_of(trained):
    """A network with hardly any noise answers as itself."""
    zoo = trained("RandomFeatures")
    yardstick = Yardstick(zoo, zoo.load_data())
    baseline = Baseline("a network", np.eye(len(yardstick.training)), noise=1e-6)
    drawn = Drawn(baseline, yardstick.training, deviation_D=yardstick.deviation_K, seed=0)
    found = yardstick.measure_drawn(drawn)
    np.testing.assert_allclose(found.accuracy_S, yardstick.originals.accuracy_S, atol=0.01)
