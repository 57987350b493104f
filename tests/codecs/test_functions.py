"""The functions codec: tokens and weights against numpy on one network by hand, and its promises.

Codes do not depend on the order of units but for the tokens' own; answers come back; what is dead
stays dead; what cannot be coded is refused.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dwf.align.groups import random_orders
from dwf.align.symmetry import permute, symmetry_of
from dwf.codecs.codec import Codec
from dwf.codecs.codes import Codes
from dwf.codecs.config import FunctionsConfig
from dwf.codecs.functions import FunctionsCodec
from dwf.datasets.config import DataConfig
from dwf.errors import ConfigError, ShapeMismatch, TooFewNetworks
from dwf.networks.config import CNNConfig, MLPConfig, ViTConfig
from dwf.networks.functional import run_networks
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, write_zoo

DEEP = (64, 7, 6, 5, 10)
CNN = CNNConfig((3, 4), (1, 8, 8), kernels=(3, 2), pools=(2, 0), hidden=(5,))
SMALL = {"inputs": 150, "functions": 12, "places": 3}


def fit(zoo: Zoo, run, **settings) -> FunctionsCodec:
    config = FunctionsConfig(**SMALL | settings)
    return FunctionsCodec(config).fit([(zoo, zoo.rows("train"))], [], run=run)


def images_of(codec: FunctionsCodec) -> torch.Tensor:
    return torch.from_numpy(codec.arrays["inputs_MX"])


def logits(zoo: Zoo, codec: FunctionsCodec, *, weights_ND: torch.Tensor) -> torch.Tensor:
    """Logits on the inputs that the codec reads: on others a unit may live that is dead on them."""
    network, state = zoo.build_network(), zoo.layout.unflatten(weights_ND)
    return run_networks(network, state, inputs=images_of(codec))


def unreached(codec: FunctionsCodec, codes: Codes, layout: Layout) -> torch.Tensor:
    """What no weights give of coded functions, as a draw tells it."""
    found: list[torch.Tensor] = []
    codec.draw(codes, layout, seed=0, told=found.append)
    return torch.cat(found)


def changed(zoo: Zoo, path, change) -> Zoo:
    weights = zoo.read()
    change(zoo.layout.unflatten(torch.from_numpy(weights)))
    columns = {name: values for name, values in zoo.columns.items() if name != "checksum"}
    return write_zoo(path, zoo.facts, num_rows=len(weights), blocks=[(columns, weights)])


def by_hand(zoo: Zoo, codec: FunctionsCodec, row: int) -> dict[str, np.ndarray]:
    """Layers of one network of DEEP, and what its units compute, in float64."""
    state = zoo.layout.unflatten(torch.from_numpy(zoo.read([row])))
    found = {name: tensor[0].double().numpy() for name, tensor in state.items()}
    hidden = images_of(codec).flatten(1).double().numpy()
    for i in range(4):
        found[f"taken.{i}"] = hidden
        found[f"given.{i}"] = hidden @ found[f"layers.{i}.weight"].T + found[f"layers.{i}.bias"]
        hidden = np.maximum(found[f"given.{i}"], 0)
    return found


def test_tokens_are_what_numpy_computes_for_one_network(make_zoo, run):
    zoo = make_zoo(widths=DEEP)
    codec = fit(zoo, run, standardise="none")
    codes = codec.encode(torch.from_numpy(zoo.read([3])), zoo.layout).values[0].double().numpy()
    found, num = by_hand(zoo, codec, 3), codec.facts["components"]
    images = found["taken.0"]
    covariance = np.cov(images.T, bias=True)
    basis = codec.arrays["basis_II"].astype(float)
    energy = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(np.diag(basis.T @ covariance @ basis), energy, atol=1e-5)
    assert energy[:num].sum() >= 0.98 * energy.sum() > energy[: num - 1].sum()

    deviation = found["given.0"].std(0)
    wanted = np.column_stack([found["layers.0.weight"] @ basis[:, :num], found["given.0"].mean(0)])
    np.testing.assert_allclose(codes[:7, : num + 1], wanted / deviation[:, None], atol=1e-4)

    functions = codec.arrays["functions_2"].astype(float)
    np.testing.assert_allclose(functions.T @ functions, np.eye(12), atol=1e-5)
    centred = found["given.2"] - found["given.2"].mean(0)
    coded = centred.T @ functions / np.sqrt(150)
    outgoing = found["layers.3.weight"].T
    factor = np.sqrt(np.linalg.norm(outgoing, axis=1) / np.linalg.norm(coded, axis=1))[:, None]
    mean = found["given.2"].mean(0)[:, None]
    wanted = np.hstack([coded * factor, mean * factor, outgoing / factor])
    np.testing.assert_allclose(codes[13:18, :23], wanted, atol=1e-4)
    np.testing.assert_allclose(codes[18, :10], found["given.3"].mean(0), atol=1e-4)


def test_principal_functions_are_numpys_of_all_units(make_zoo, run):
    zoo = make_zoo(widths=(64, 7, 6, 10))
    codec = fit(zoo, run)
    images = images_of(codec).flatten(1).double()
    functions = []
    for row in zoo.rows("train"):
        state = zoo.layout.unflatten(torch.from_numpy(zoo.read([row])).double())
        first = images @ state["layers.0.weight"][0].T + state["layers.0.bias"][0]
        functions += list((first.relu() @ state["layers.1.weight"][0].T).T.numpy())
    centred = np.array(functions) - np.mean(functions, 1, keepdims=True)
    _, sizes, principal = np.linalg.svd(centred, full_matrices=False)
    found = codec.arrays["functions_1"]
    np.testing.assert_allclose(np.abs(principal[:5] @ found[:, :5]), np.eye(5), atol=1e-3)
    share = np.square(sizes)[:12].sum() / np.square(sizes).sum()
    assert codec.facts["functions_energy"] == pytest.approx([share], abs=1e-5)


def test_weights_are_the_ridge_least_squares_of_numpy(make_zoo, run):
    zoo = make_zoo(widths=(64, 7, 6, 10))
    codec = fit(zoo, run, standardise="none", ridge=0.01)
    codes = codec.encode(torch.from_numpy(zoo.read([0, 1])), zoo.layout)
    values = codes.values + 0.1 * torch.randn(codes.values.shape, generator=_seeded())
    solved = codec.decode(replace(codes, values=values), zoo.layout)
    state = {name: each[1].double().numpy() for name, each in zoo.layout.unflatten(solved).items()}
    images = images_of(codec).flatten(1).double().numpy()
    hidden = np.maximum(images @ state["layers.0.weight"].T + state["layers.0.bias"], 0)
    functions = codec.arrays["functions_1"].astype(float)
    along = functions.T @ (hidden - hidden.mean(0)) / np.sqrt(150)
    ridge = np.sqrt(0.01 * np.square(along).sum() / 7) * np.eye(7)
    wanted = values[1, 7:13, :12].double().numpy().T
    weight = np.linalg.lstsq(np.vstack([along, ridge]), np.vstack([wanted, np.zeros((7, 6))]))[0].T
    np.testing.assert_allclose(state["layers.1.weight"], weight, atol=1e-4)
    bias = values[1, 7:13, 12].numpy() - weight @ hidden.mean(0)
    np.testing.assert_allclose(state["layers.1.bias"], bias, atol=1e-4)
    lost = np.linalg.norm(along @ weight.T - wanted) / np.linalg.norm(wanted)
    residual = unreached(codec, replace(codes, values=values), zoo.layout)
    assert residual.shape == (2, 1) and lost > 0.01
    np.testing.assert_allclose(residual[1].numpy(), lost, rtol=1e-3)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("widths", [(64, 8, 10), (64, 8, 7, 10), DEEP])
def test_answers_come_back_where_functions_are_as_many_as_units(make_zoo, run, widths, activation):
    zoo = make_zoo(network=MLPConfig(widths, activation))
    codec = fit(zoo, run, functions=max(widths[1:-1]), ridge=1e-12)
    weights = torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    back = codec.decode_beside(codes, zoo.layout, weights_ND=weights)
    wanted, found = (logits(zoo, codec, weights_ND=each) for each in (weights, back))
    same = (wanted.argmax(2) == found.argmax(2)).double().mean().item()
    assert same >= 0.9999
    assert (found - wanted).norm() <= 2e-3 * wanted.norm()


def test_answers_of_convolutions_come_back(make_zoo, run):
    zoo = make_zoo(network=CNN)
    codec = fit(zoo, run, energy=1.0, functions=30, places=36, ridge=1e-8)
    weights = torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    assert codes.shape.sections == ((3, 10), (4, 31), (5, 31 + 10), (1, 10))
    back = codec.decode(codes, zoo.layout)
    wanted, found = (logits(zoo, codec, weights_ND=each) for each in (weights, back))
    torch.testing.assert_close(found, wanted, rtol=0, atol=5e-3 * wanted.std().item())


@pytest.mark.parametrize("bias", [True, False])
def test_answers_of_networks_with_batchnorm_come_back_with_statistics_of_the_inputs(
    make_zoo, run, tmp_path, bias
):
    def make_sound(state):
        for name, each in state.items():
            if name.endswith("running_var"):
                each.abs_().add_(0.1)

    normed = make_zoo(network=replace(CNN, norm="batch", bias=bias), count=12)
    zoo = changed(normed, tmp_path / "sound", make_sound)
    codec = fit(zoo, run, energy=1.0, functions=30, places=36, ridge=1e-8)
    weights = torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    back = codec.decode(codes, zoo.layout)
    wanted, found = (logits(zoo, codec, weights_ND=each) for each in (weights, back))
    torch.testing.assert_close(found, wanted, rtol=0, atol=5e-3 * wanted.std().item())
    assert (found.argmax(2) == wanted.argmax(2)).double().mean() >= 0.9999
    network = zoo.build_network()
    network.load_state_dict(
        {name: each[0] for name, each in zoo.layout.unflatten(back).items()}, strict=False
    )
    given = network.convs[0](images_of(codec))  # its statistics, as PyTorch would measure them
    norm = network.norms[0]
    torch.testing.assert_close(norm.running_mean, given.mean((0, 2, 3)), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        norm.running_var, given.var((0, 2, 3), correction=0), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("network", [MLPConfig(DEEP), CNN])
def test_reordering_the_units_of_any_layer_reorders_tokens_alone(make_zoo, run, network):
    zoo = make_zoo(network=network)
    codec = fit(zoo, run, standardise="per_feature")
    groups = symmetry_of(zoo.build_network(), zoo.layout, input_shape=zoo.input_shape)
    weights = torch.from_numpy(zoo.read())
    orders = random_orders(groups, len(zoo), seed=3)
    moved = codec.encode(
        permute(weights, zoo.layout, groups=groups, orders=orders), zoo.layout
    ).values
    wanted, at = codec.encode(weights, zoo.layout).values, 0
    by_first = sorted(
        zip(groups, orders, strict=True),
        key=lambda pair: zoo.layout.by_name[pair[0].members[0].name].offset,
    )
    for group, order_NU in by_first:
        part = wanted[:, at : at + group.size]
        index = order_NU[:, :, None].expand(-1, -1, part.shape[2])
        expected = part.gather(1, index)
        torch.testing.assert_close(moved[:, at : at + group.size], expected, rtol=0, atol=2e-3)
        at += group.size
    torch.testing.assert_close(moved[:, at:], wanted[:, at:], rtol=0, atol=2e-3)


def test_scaling_a_unit_changes_no_code(make_zoo, run, tmp_path):
    zoo = make_zoo(widths=(64, 7, 6, 10))
    codec = fit(zoo, run)

    def scale(state):
        for i, factor in ((0, 3.0), (1, 0.5)):
            state[f"layers.{i}.weight"][:, 2] *= factor
            state[f"layers.{i}.bias"][:, 2] *= factor
            state[f"layers.{i + 1}.weight"][:, :, 2] /= factor

    other = changed(zoo, tmp_path / "scaled", scale)
    wanted, found = (
        codec.encode(torch.from_numpy(each.read()), zoo.layout).values for each in (zoo, other)
    )
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)


def test_the_rest_is_drawn_by_the_number_of_the_sample(make_zoo, run):
    zoo = make_zoo(count=40, widths=(64, 7, 6, 10))
    codec = fit(zoo, run, components=20)
    codes = codec.encode(torch.from_numpy(zoo.read()), zoo.layout)
    whole = codec.draw(codes, zoo.layout, seed=5)
    part = codec.draw(codes.take(slice(8, 11)), zoo.layout, seed=5, first=8)
    torch.testing.assert_close(part, whole[8:11], rtol=0, atol=1e-4)
    other = codec.draw(codes, zoo.layout, seed=6)
    along = [rows_in_basis(codec, zoo, weights_ND=each) for each in (whole, other)]
    torch.testing.assert_close(along[0][..., :20], along[1][..., :20], rtol=0, atol=1e-3)
    assert (along[0][..., 20:] - along[1][..., 20:]).abs().mean() > 0.01


def rows_in_basis(codec: FunctionsCodec, zoo: Zoo, *, weights_ND: torch.Tensor) -> torch.Tensor:
    basis_II = torch.from_numpy(codec.arrays["basis_II"])
    return zoo.layout.unflatten(weights_ND)["layers.0.weight"] @ basis_II


def test_the_rest_is_drawn_around_numpys_regression_on_what_is_coded(make_zoo, run):
    zoo = make_zoo(count=40, widths=(64, 7, 6, 10))
    codec = fit(zoo, run, components=20, standardise="none")
    rows, given = [], []
    for row in zoo.rows("train"):
        state = zoo.layout.unflatten(torch.from_numpy(zoo.read([row])).double())
        weight, bias = state["layers.0.weight"][0], state["layers.0.bias"][0]
        rows += list((weight @ torch.from_numpy(codec.arrays["basis_II"]).double()).numpy())
        given += list((images_of(codec).flatten(1).double() @ weight.T + bias).mean(0).numpy())
    rows, given = np.array(rows), np.array(given)
    norm = np.linalg.norm(rows[:, :20], axis=1)[:, None]
    coded = np.column_stack([rows[:, :20], given]) / norm
    slope, *_ = np.linalg.lstsq(coded, rows[:, 20:] / norm)
    left = rows[:, 20:] / norm - coded @ slope
    deviation = np.sqrt(np.square(left).sum(0) / (len(left) - 21))
    np.testing.assert_allclose(codec.arrays["rest_slope_CR"], slope, atol=1e-4)
    np.testing.assert_allclose(codec.arrays["rest_deviation_R"], deviation, atol=1e-4)
    codes = codec.encode(torch.from_numpy(zoo.read(zoo.rows("train"))), zoo.layout)
    drawn = rows_in_basis(codec, zoo, weights_ND=codec.draw(codes, zoo.layout, seed=5))
    drawn = drawn.flatten(0, 1).double().numpy()
    scale = np.linalg.norm(drawn[:, :20], axis=1)[:, None]  # in the codec's scale of units
    normal = (drawn[:, 20:] / scale - coded @ slope) / deviation
    assert abs(normal.mean()) < 0.05 and abs(normal.std() - 1) < 0.05


def test_of_few_units_nothing_is_regressed(make_zoo, run):
    codec = fit(make_zoo(widths=(64, 7, 6, 10)), run, components=20)  # 8 networks x 7 units
    assert not codec.arrays["rest_slope_CR"].any()
    assert (codec.arrays["rest_deviation_R"] > 0).all()


def test_a_dead_layer_stays_dead_and_is_told(make_zoo, run, tmp_path, caplog):
    def kill(state):
        state["layers.0.bias"][:] = -1e4

    zoo = changed(make_zoo(widths=(64, 7, 6, 10)), tmp_path / "dead", kill)
    with caplog.at_level("WARNING"):
        codec = fit(zoo, run)
    num = len(zoo.rows("train"))
    assert codec.facts["dead_units"] == num * (7 + 6)
    assert f"{num * 13} of {num * 13} hidden units" in caplog.text
    weights = torch.from_numpy(zoo.read())
    back = codec.decode(codec.encode(weights, zoo.layout), zoo.layout)
    assert back.isfinite().all()
    wanted, found = (logits(zoo, codec, weights_ND=each) for each in (weights, back))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_a_dead_unit_among_others_stays_dead(make_zoo, run, tmp_path):
    def kill(state):
        state["layers.0.bias"][:, 3] = -1e4

    zoo = changed(make_zoo(widths=(64, 7, 6, 10)), tmp_path / "dead", kill)
    codec = fit(zoo, run, ridge=1e-8)
    weights = torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    back = codec.decode_beside(codes, zoo.layout, weights_ND=weights)
    assert not zoo.layout.unflatten(back)["layers.1.weight"][:, :, 3].abs().gt(1e-6).any()
    wanted, found = (logits(zoo, codec, weights_ND=each) for each in (weights, back))
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-3 * wanted.std().item())


def test_blocks_change_nothing_but_memory(make_zoo, run, monkeypatch):
    zoo = make_zoo(widths=(64, 7, 6, 10))
    codec = fit(zoo, run)
    weights = torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    back = codec.decode(codes, zoo.layout)
    monkeypatch.setattr("dwf.codecs.functions.chain._BLOCK_BYTES", 1)
    assert codec._coder.chain.block_size == 1
    again = codec.encode(weights, zoo.layout)
    torch.testing.assert_close(again.values, codes.values, rtol=0, atol=1e-3)
    torch.testing.assert_close(codec.decode(codes, zoo.layout), back, rtol=0, atol=1e-3)


@pytest.mark.parametrize("network", [MLPConfig((64, 7, 6, 10)), CNN])
def test_a_loaded_codec_is_the_saved_one_bit_for_bit(make_zoo, run, tmp_path, network):
    zoo = make_zoo(network=network)
    codec = fit(zoo, run)
    codec.save(tmp_path / "codec")
    loaded = Codec.load(tmp_path / "codec")
    weights = torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    assert loaded.shape == codec.shape and loaded.facts == codec.facts
    assert torch.equal(loaded.encode(weights, zoo.layout).values, codes.values)
    assert torch.equal(loaded.decode(codes, zoo.layout), codec.decode(codes, zoo.layout))


def test_a_plan_tells_directions_functions_and_their_energy(make_zoo, run):
    zoo = make_zoo(widths=(64, 7, 6, 10))
    config = FunctionsConfig(**SMALL)
    first, second = FunctionsCodec.describe(config, [(zoo, zoo.rows("train"))])
    facts = fit(zoo, run).facts
    assert f"first layer in {facts['components']} of 64 directions of 150 training" in first
    assert f"{100 * facts['components_energy']:.1f} %" in first
    assert "layer 2 in 12 principal functions" in second
    assert f"{100 * facts['functions_energy'][0]:.1f} %" in second


def test_what_cannot_be_coded_is_refused(make_zoo, run, tmp_path):
    zoo = make_zoo(widths=(64, 7, 6, 10))
    with pytest.raises(ConfigError, match=r"layers.0.weight has 7 units.*to at least 7"):
        fit(zoo, run, functions=6)
    with pytest.raises(ConfigError, match=r"codec.inputs = 5000: .* was trained on \d+ inputs"):
        fit(zoo, run, inputs=5000)
    with pytest.raises(TooFewNetworks, match=r"8 networks of 6 units .* at most 48 functions"):
        fit(zoo, run, functions=50)
    with pytest.raises(ConfigError, match=r"read at 12 places, more are expected"):
        fit(zoo, run, functions=12, inputs=12)
    other = make_zoo(widths=(64, 7, 6, 10), name="other", data=DataConfig("digits", validation=0.3))
    sources = [(each, each.rows("train")) for each in (zoo, other)]
    with pytest.raises(ConfigError, match="inputs of one data set"):
        FunctionsCodec(FunctionsConfig(**SMALL)).fit(sources, [], run=run)
    attending = make_zoo(network=ViTConfig(8, 4, 6, 1, channels=1), name="attending")
    with pytest.raises(ConfigError, match="takes MLPs, CNNs and ResNets"):
        fit(attending, run)
    unbiased = make_zoo(network=replace(CNN, bias=False), name="unbiased")
    with pytest.raises(ConfigError, match=r"cannot take convs.0.weight: means are folded"):
        fit(unbiased, run)
    with pytest.raises(ValueError, match="no more principal functions than inputs"):
        FunctionsConfig(inputs=10, functions=12)


WIDE, NARROW = (64, 8, 6, 10), (64, 6, 7, 10)
UNSEEN = ((7, 5), (9, 8))


def of_two_widths(make_zoo, run, **settings) -> tuple[FunctionsCodec, Zoo, Zoo]:
    zoos = [make_zoo(widths=each, name=name) for each, name in ((WIDE, "wide"), (NARROW, "narrow"))]
    config = FunctionsConfig(**SMALL | {"components": 12, "ridge": 1e-12} | settings)
    codec = FunctionsCodec(config).fit([(each, each.rows("train")) for each in zoos], [], run=run)
    return codec, *zoos


def test_networks_of_several_widths_share_a_sequence(make_zoo, run, tmp_path):
    codec, wide, narrow = of_two_widths(make_zoo, run)
    assert codec.shape.sections == ((8, 13), (7, 13 + 10), (1, 10))
    assert codec.shape.mask.any(2).sum(1).tolist() == [8 + 6 + 1, 6 + 7 + 1]
    codec.save(tmp_path / "codec")
    loaded = Codec.load(tmp_path / "codec")
    for kind, zoo in enumerate((wide, narrow)):
        weights = torch.from_numpy(zoo.read())
        codes = codec.encode(weights, zoo.layout)
        assert (codes.kind_N == kind).all()
        assert not codes.values[:, ~codec.shape.mask[kind]].any()
        back = codec.decode_beside(codes, zoo.layout, weights_ND=weights)
        wanted, found = (logits(zoo, codec, weights_ND=each) for each in (weights, back))
        assert (found - wanted).norm() <= 2e-3 * wanted.norm()
        assert torch.equal(loaded.decode(codes, zoo.layout), codec.decode(codes, zoo.layout))
    with pytest.raises(ShapeMismatch, match="are of networks of another layout"):
        codec.decode(codes, wide.layout)
    seen = []
    for zoo, units in ((wide, 8), (narrow, 6)):
        codes = codec.encode(torch.from_numpy(zoo.read(zoo.rows("train"))), zoo.layout)
        seen += codes.values[:, :units].flatten(0, 1).tolist()
    seen = np.array(seen)
    np.testing.assert_allclose(seen[:, :13].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(seen[:, :13].std(0), 1, atol=1e-4)


def test_room_is_kept_for_widths_that_no_zoo_has(make_zoo, run):
    """Units of two networks of a zoo make a wider one, whose units compute what they do."""
    codec, wide, narrow = of_two_widths(make_zoo, run, unseen_widths=UNSEEN, components=64)
    shape = codec.shape
    assert len(shape.layouts) == 4 and shape.sections == ((9, 65), (8, 23), (1, 10))
    layouts = [wide.layout, narrow.layout]
    planned = FunctionsCodec.planned_shape(codec.config, layouts, num_train=20)
    assert planned.sections == shape.sections and torch.equal(planned.mask, shape.mask)
    wider = codec.layout_of(shape.layouts[3])
    assert wider.by_name["layers.1.weight"].shape == (8, 9)
    given = codec.encode(torch.from_numpy(wide.read()), wide.layout).values
    values = given.clone()
    values[:, 8] = given.roll(1, 0)[:, 0]  # a ninth unit, of another network
    values[:, 15:17] = given.roll(1, 0)[:, 9:11]  # two more of the second layer
    kind_N = torch.full((len(values),), 3)
    codes = Codes(values * shape.mask[3], shape, kind_N=kind_N)
    drawn = codec.decode(codes, wider)
    again = codec.encode(drawn, wider)
    torch.testing.assert_close(again.values[:, :9], codes.values[:, :9], rtol=0, atol=2e-3)
    assert unreached(codec, codes, wider).max() < 1
    for unseen, said in (((6, 7),), "has .*6, 7.* leave them out"), (((3,),), "give as many"):
        with pytest.raises(ConfigError, match=said):
            of_two_widths(make_zoo, run, unseen_widths=unseen)
    convolutional = make_zoo(network=CNN, name="convolutional")
    with pytest.raises(ConfigError, match="cannot be given other widths"):
        fit(convolutional, run, unseen_widths=((3, 4, 5),))


def test_several_depths_are_refused(make_zoo, run):
    zoos = [make_zoo(widths=each, name=name) for each, name in ((WIDE, "two"), (DEEP, "three"))]
    config = FunctionsConfig(**SMALL)
    with pytest.raises(ConfigError, match="differ in more than the units of hidden layers"):
        FunctionsCodec(config).fit([(each, each.rows("train")) for each in zoos], [], run=run)
