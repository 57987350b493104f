"""A copy is a copy in whatever order its units stand, and at whatever scale."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dwf.align.config import AlignConfig
from dwf.align.stage import align_zoo
from dwf.align.symmetry import permute, symmetry_of
from dwf.errors import ConfigError
from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.measure.yardstick import Measured, Yardstick
from dwf.evaluation.stage import evaluate
from dwf.networks.functional import score_networks
from dwf.zoo.store import Zoo, write_zoo
from tests.zoos import bare_facts


def shuffled(zoo: Zoo, weights_ND: torch.Tensor, rescale: bool) -> torch.Tensor:
    """The same functions with hidden units in random orders, and at random scales."""
    stream = torch.Generator().manual_seed(0)
    groups = symmetry_of(zoo.build_network(), zoo.layout, input_shape=zoo.input_shape)
    orders = [
        torch.stack([torch.randperm(group.size, generator=stream) for _ in weights_ND])
        for group in groups
    ]
    moved_ND = permute(weights_ND, zoo.layout, groups=groups, orders=orders)
    if rescale:
        state = zoo.layout.unflatten(moved_ND)
        scale_NU = torch.rand(len(moved_ND), 8, generator=stream) + 0.5
        state["layers.0.weight"] *= scale_NU.unsqueeze(2)
        state["layers.0.bias"] *= scale_NU
        state["layers.1.weight"] /= scale_NU.unsqueeze(1)
    return moved_ND


def measure_shuffled_copies(zoo: Zoo, tmp_path, rescale: bool) -> tuple[Yardstick, Measured]:
    rows = zoo.rows(split="train", epoch="last")
    moved_ND = shuffled(zoo, torch.from_numpy(zoo.read(rows)), rescale=rescale)
    columns = {"network": np.arange(len(rows)), "epoch": np.zeros(len(rows), np.int32)}
    blocks = [(columns, moved_ND.numpy())]
    samples = write_zoo(tmp_path / "zoos" / "s", bare_facts(zoo), num_rows=len(rows), blocks=blocks)
    yardstick = Yardstick(zoo, zoo.load_data())
    return yardstick, yardstick.measure_zoo(samples, np.arange(len(rows)))


@pytest.mark.parametrize("scale", ["none", "balanced"])
def test_shuffled_copies_are_found_out(zoo, tmp_path, scale):
    config = AlignConfig("z", scale=scale, reference="iterated_mean", num_pairs=0)
    aligned = align_zoo(config, tmp_path, name="aligned")
    yardstick, measured = measure_shuffled_copies(aligned, tmp_path, rescale=scale == "balanced")
    typical = np.median(yardstick.originals.distance_S)
    assert (measured.distance_S < 1e-3 * typical).mean() > 0.9
    assert measured.spread == pytest.approx(yardstick.originals.spread, rel=0.05)
    np.testing.assert_allclose(measured.accuracy_S, yardstick.originals.accuracy_S, atol=0.01)


def test_copies_are_found_out_without_a_frame_too(zoo, tmp_path):
    yardstick, measured = measure_shuffled_copies(zoo, tmp_path, rescale=True)
    assert yardstick.groups == ()
    typical = np.median(yardstick.originals.distance_S)
    assert (measured.distance_S < 1e-3 * typical).all()
    assert (measured.behaviour_S < 1e-3).all() and (measured.units_SL < 1e-3).all()


def test_plain_averages_are_of_the_networks_as_they_were_trained(zoo, tmp_path, no_figures):
    """The same networks as the aligned ones: their mean before alignment, put into the frame."""
    align_zoo(AlignConfig("z", reference="iterated_mean", num_pairs=0), tmp_path, name="aligned")
    config = EvaluateConfig("aligned", noise=(0.1,), averages=("all",), count=4)
    plain = replace(config, plain_averages=True)
    titles = {one.title for one in evaluate(config, tmp_path, name="a").of("average")}
    found = {one.title: one for one in evaluate(plain, tmp_path, name="p").of("average")}
    assert titles == {"average of all 30"} and found.keys() == {*titles, "average of all 30, plain"}
    mean_1D = zoo.read(zoo.rows("train", "last")).astype(np.float64).mean(0)[None]
    state = zoo.layout.unflatten(torch.from_numpy(mean_1D).float())
    data = zoo.load_data()
    scores = score_networks(zoo.build_network(), state, data=data, part=data.test)
    plain_accuracy = found["average of all 30, plain"].networks["test_accuracy"]
    assert plain_accuracy == pytest.approx(scores.accuracy_N, abs=2 / len(data.test))
    assert plain_accuracy[0] < found["average of all 30"].networks["test_accuracy"][0]


def test_plain_averages_without_the_zoo_of_before_are_refused(zoo, tmp_path):
    align_zoo(AlignConfig("z", num_pairs=0), tmp_path, name="aligned")
    zoo.path.rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"plain_averages takes the zoo that aligned was aligned"):
        evaluate(EvaluateConfig("aligned", plain_averages=True), tmp_path, name="p")
