"""Disguised copies are copies, in any zoo, and fresh trainings are novel.

The disguises change weights and no function: units shuffled and rescaled, logits shifted, noise on
inputs that never change, a dead unit turned into half of a live one, and all of them together.
"""

import numpy as np
import pytest
import torch

from dwf.align.config import AlignConfig
from dwf.align.stage import align_zoo
from dwf.align.symmetry import permute, symmetry_of
from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.stage import evaluate
from dwf.generators.learning import origin_facts
from dwf.networks.functional import score_networks
from dwf.zoo.store import Zoo, write_zoo
from tests.zoos import bare_facts, sampled

HIDDEN = 8
STREAM = torch.Generator()


def rescaled(state, _):
    factor_NU = torch.rand(len(state["layers.0.bias"]), HIDDEN, generator=STREAM) * 2.5 + 0.5
    state["layers.0.weight"] *= factor_NU.unsqueeze(2)
    state["layers.0.bias"] *= factor_NU
    state["layers.1.weight"] /= factor_NU.unsqueeze(1)


def shifted(state, _):
    state["layers.1.bias"] += torch.randn(len(state["layers.1.bias"]), 1, generator=STREAM)


def noise_on_dead_inputs(state, images_MI):
    """Inputs that are the same in all images: what their noise adds goes into the bias."""
    dead_I = images_MI.std(0) == 0
    num = len(state["layers.0.bias"])
    noise = 3 * torch.randn(num, HIDDEN, int(dead_I.sum()), generator=STREAM)
    state["layers.0.weight"][:, :, dead_I] += noise
    state["layers.0.bias"] -= noise @ images_MI[0, dead_I]


def half_of_a_live_one(state, _):
    """Unit 0 is dead in these networks: it becomes unit 1, each with half of its output."""
    for leaf in ("weight", "bias"):
        state[f"layers.0.{leaf}"][:, 0] = state[f"layers.0.{leaf}"][:, 1]
    half = state["layers.1.weight"][:, :, 1] / 2
    state["layers.1.weight"][:, :, 0] = half
    state["layers.1.weight"][:, :, 1] = half


DISGUISES = {
    "rescaled": [rescaled],
    "shifted": [shifted],
    "noise": [noise_on_dead_inputs],
    "half": [half_of_a_live_one],
    "all": [noise_on_dead_inputs, half_of_a_live_one, rescaled, shifted],
}


def with_a_dead_unit(zoo: Zoo, name: str) -> Zoo:
    """The zoo with unit 0 of every network dead: its bias is far below what its inputs reach."""
    rows_ND = torch.from_numpy(zoo.read().copy())
    state = zoo.layout.unflatten(rows_ND)
    state["layers.0.bias"][:, 0] = -50.0
    data, network = zoo.load_data(), zoo.build_network()
    columns = {k: v for k, v in zoo.columns.items() if k not in ("checksum",)}
    for part in ("val", "test"):
        found = score_networks(network, state, data=data, part=data.part(part))
        columns[f"{part}_accuracy"] = found.accuracy_N
    blocks = [(columns, rows_ND.numpy())]
    return write_zoo(zoo.path.parent / name, zoo.facts, num_rows=len(zoo), blocks=blocks)


def disguised(zoo: Zoo, disguises) -> np.ndarray:
    copies_ND = torch.from_numpy(zoo.read(zoo.rows("train", "last")).copy())
    data = zoo.load_data()
    images_MI = data.prepare(data.train.images).flatten(1)
    dead_U = zoo.layout.unflatten(copies_ND)["layers.0.bias"].argmin(1)
    groups = symmetry_of(zoo.build_network(), zoo.layout, input_shape=zoo.input_shape)
    # The dead unit first, whatever the zoo's order; then any order.
    first_NU = (torch.arange(HIDDEN).repeat(len(dead_U), 1) != dead_U[:, None]).long()
    copies_ND = permute(
        copies_ND, zoo.layout, groups=groups, orders=[first_NU.argsort(stable=True)]
    )
    state = zoo.layout.unflatten(copies_ND)
    for disguise in disguises:
        disguise(state, images_MI)
    orders = [torch.stack([torch.randperm(HIDDEN, generator=STREAM) for _ in copies_ND])]
    return permute(copies_ND, zoo.layout, groups=groups, orders=orders).numpy()


def write_drawn(zoo: Zoo, name: str, weights_SD: np.ndarray) -> Zoo:
    num = len(weights_SD)
    columns = {"network": np.arange(num), "epoch": np.zeros(num, np.int64)}
    columns |= {"split": np.full(num, "sample")}
    origin = {"zoo": zoo.name, "zoo_fingerprint": origin_facts(zoo, 0)["fingerprint"]}
    facts = bare_facts(zoo)
    facts = type(facts)(**{**vars(facts), "provenance": sampled(**origin)})
    path = zoo.path.parent / name
    return write_zoo(path, facts, num_rows=num, blocks=[(columns, weights_SD)])


@pytest.mark.parametrize("frame", ["raw", "none", "balanced"])
def test_disguised_copies_are_marked_copying_and_fresh_networks_pass(
    zoo, fresh_rows, tmp_path, monkeypatch, frame
):
    monkeypatch.setattr("dwf.evaluation.stage.draw_figures", lambda *_, **__: {})
    STREAM.manual_seed(0)
    zoo = with_a_dead_unit(zoo, "d")
    if frame != "raw":
        config = AlignConfig("d", scale=frame, reference="iterated_mean", num_pairs=0)
        zoo = align_zoo(config, tmp_path, name="aligned")
    for name, disguises in DISGUISES.items():
        write_drawn(zoo, name, disguised(zoo, disguises))
    fresh_SD = fresh_rows.copy()
    zoo.layout.unflatten(fresh_SD)["layers.0.bias"][:, 0] = -50.0  # dead, too
    write_drawn(zoo, "fresh", fresh_SD)
    config = EvaluateConfig(zoo.name, (*DISGUISES, "fresh"), noise=(1.0,), averages=(2,), count=20)
    report = evaluate(config, tmp_path, name="r")
    found = {one.title: one for one in report.sets}
    own = found["originals (training)"].accuracy["mean"]
    for name in DISGUISES:
        assert found[name].accuracy["mean"] == pytest.approx(own, abs=1e-3), "the same functions"
        assert found[name].mark == "copying" and found[name].share == 0, name
    for name in ("first layer of another", "each unit of another", "shuffled copies"):
        assert found[name].share == 0 and found[name].mark == "copying", name
    held_out = found["held-out networks"]
    assert held_out.share > 0.7 and found["fresh"].share > 0.7
    # Of 60 and of 25 networks: three standard errors of the difference of two shares of 0.85.
    assert found["fresh"].share == pytest.approx(held_out.share, abs=0.25)
    assert found["fresh"].mark == "generalising"
