"""Each measure against another answer: closed forms, dwf's scorer, Foolbox on one network."""

import foolbox
import numpy as np
import pytest
import torch
from torch import nn

from dwf.datasets.config import DataConfig
from dwf.errors import ConfigError
from dwf.measurements.attacks import Fgsm, Pgd
from dwf.measurements.config import (
    AccuracyConfig,
    CalibrationConfig,
    ClassesConfig,
    CorruptionConfig,
    CostConfig,
    FgsmConfig,
    GapConfig,
    MeasureConfig,
    PgdConfig,
)
from dwf.measurements.corruption import Corruption, corrupt
from dwf.measurements.cost import Cost
from dwf.measurements.measure import Block
from dwf.measurements.pictures import Pictures
from dwf.measurements.scores import Accuracy, Calibration, Classes, Gap, calibration_error
from dwf.networks.config import CNNConfig, MLPConfig, NetworkConfig
from dwf.networks.functional import build_network, score_networks
from dwf.randomness import seeded
from dwf.settings import build
from dwf.zoo.layout import Layout
from tests.measurements.conftest import DATA
from tests.zoos import facts_of

MLP, CNN = MLPConfig((64, 8, 10)), CNNConfig(channels=(4, 4), input=(1, 8, 8))
LARGEST = 16
"""Value of a white pixel of the digits."""


def block_of(config: NetworkConfig, num: int = 3, *, gain: float = 4.0) -> Block:
    """Networks of random weights, larger than initial ones: their answers are no guesses."""
    with seeded(1, "networks"):
        networks = [build_network(config) for _ in range(num)]
    layout = Layout.of(networks[0])
    weights_ND = gain * torch.stack([layout.flatten(network.state_dict()) for network in networks])
    facts = facts_of(layout, config, data=DATA)
    return Block(facts, networks[0], layout.unflatten(weights_ND), Pictures.of(facts, 0))


def values(kind: type, config: object, *, block: Block, part: str = "val") -> dict[str, np.ndarray]:
    measure = kind(config, "m", part=part)
    block.pictures.made.update(measure.prepare(block.pictures))
    found = measure.values(block)
    assert found.keys() == measure.columns(block.pictures, block.facts).keys()
    return found


@pytest.mark.parametrize("config", [MLP, CNN], ids=["mlp", "cnn"])
def test_accuracy_and_loss_are_those_of_the_scorer(config):
    block = block_of(config)
    data = block.pictures.data
    for part in ("val", "test"):
        found = values(Accuracy, AccuracyConfig(), block=block, part=part)
        wanted = score_networks(block.network, block.state, data=data, part=data.part(part))
        prefix = {"val": "m", "test": "test_m"}[part]
        np.testing.assert_allclose(found[f"{prefix}_accuracy"], wanted.accuracy_N, rtol=1e-14)
        np.testing.assert_allclose(found[f"{prefix}_loss"], wanted.loss_N, rtol=1e-6)


def test_a_network_without_answers_is_right_nowhere():
    block = block_of(MLP)
    block.state["layers.0.weight"][1] = torch.nan
    accuracy_N = values(Accuracy, AccuracyConfig(), block=block)["m_accuracy"]
    assert accuracy_N[1] == 0 and (accuracy_N[[0, 2]] > 0).all()
    assert values(Fgsm, FgsmConfig(), block=block)["m_accuracy"][1] == 0


def test_accuracies_by_class_make_up_the_accuracy():
    block = block_of(MLP)
    measure = Classes(ClassesConfig(), "m", part="val")
    columns, found = measure.columns(block.pictures, block.facts), measure.values(block)
    assert len(columns) == 10 and sum(one.images for one in columns.values()) == 287
    right_N = sum(columns[name].images * found[name] for name in columns)
    wanted_N = values(Accuracy, AccuracyConfig(), block=block)["m_accuracy"]
    np.testing.assert_allclose(right_N / 287, wanted_N, rtol=1e-12)


def test_the_gap_is_a_difference_of_accuracies_on_so_many_images():
    block = block_of(MLP)
    found = values(Gap, GapConfig(train_images=100, images=50), block=block, part="test")
    learnt = values(Accuracy, AccuracyConfig(images=100), block=block, part="train")
    new = values(Accuracy, AccuracyConfig(images=50), block=block, part="test")
    wanted_N = learnt["train_m_accuracy"] - new["test_m_accuracy"]
    np.testing.assert_array_equal(found["test_m"], wanted_N)


def test_fewer_images_are_some_of_more():
    pictures = block_of(MLP).pictures
    few, more = (set(pictures.part("val", n).index.tolist()) for n in (20, 60))
    assert len(few) == 20 and few < more < set(pictures.data.val.index.tolist())
    other = Pictures.of(facts_of(Layout.of(build_network(MLP)), MLP, data=DATA), 1)
    assert set(other.part("val", 20).index.tolist()) != few


def test_calibration_by_hand_and_image_by_image():
    """Two bins: |0.5 - 0.9| and |1 - 0.6|, of two images each; then a loop over bins."""
    right, confidence = np.array([[True, False, True, True]]), np.array([[0.9, 0.9, 0.6, 0.6]])
    np.testing.assert_allclose(calibration_error(right, confidence, bins=10), [0.4])
    rng = np.random.default_rng(0)
    right, confidence = rng.random((3, 200)) < 0.7, rng.random((3, 200))
    confidence[:, :2] = 1.0, 1 / 15  # the upper edge of a bin is its own
    wanted = np.zeros(3)
    for low in range(15):
        for n in range(3):
            inside = (confidence[n] > low / 15) & (confidence[n] <= (low + 1) / 15)
            wanted[n] += abs((right[n] * 1.0 - confidence[n])[inside].sum()) / 200
    np.testing.assert_allclose(calibration_error(right, confidence), wanted, rtol=1e-12)
    found = values(Calibration, CalibrationConfig(), block=block_of(MLP))["m_error"]
    assert ((found > 0) & (found < 1)).all()


def test_cost_by_hand():
    found = values(Cost, CostConfig(), block=block_of(MLP, num=2), part=None)
    assert found["m_parameters"].tolist() == [64 * 8 + 8 + 8 * 10 + 10] * 2
    assert found["m_flops"].tolist() == [2 * (64 * 8 + 8 * 10)] * 2


# --- attacks --------------------------------------------------------------------------------------


def attacked(measure: Fgsm | Pgd, block: Block) -> tuple[torch.Tensor, torch.Tensor]:
    """Images from 0 to 1 and what becomes of them: [M, *shape], [N, M, *shape]."""
    part = block.pictures.part(measure.part, measure.config.images)
    images = part.batch(torch.arange(len(part)))[0].float() / LARGEST
    found = torch.zeros(len(block), *images.shape)
    seen = torch.zeros(len(block), dtype=int)
    for rows, changed_NBX, _, _ in measure.attacked(block):
        start, size = int(seen[rows][0]), changed_NBX.shape[1]
        found[rows, start : start + size] = changed_NBX
        seen[rows] += size
    assert (seen == len(part)).all()
    return images, found


def test_fgsm_of_linear_networks_in_closed_form():
    """The gradient of the loss is W^T (p - y); the step is clipped to pixels."""
    block, epsilon = block_of(MLPConfig((64, 10))), 0.1
    measure = Fgsm(FgsmConfig(epsilon=epsilon), "m", part="val")
    images, found = attacked(measure, block)
    part, right = block.pictures.data.val, []
    labels = part.labels[part.index]
    for n in range(len(block)):
        weight, bias = (block.state[f"layers.0.{name}"][n].double() for name in ("weight", "bias"))
        flat = images.flatten(1).double()
        surplus = (flat @ weight.T + bias).softmax(1) - nn.functional.one_hot(labels, 10)
        wanted = (flat + epsilon * (surplus @ weight).sign()).clamp(0, 1)
        torch.testing.assert_close(found[n].flatten(1).double(), wanted, atol=1e-6, rtol=0)
        right.append(((wanted @ weight.T + bias).argmax(1) == labels).double().mean().item())
    accuracy_N = measure.values(block)["m_accuracy"]
    np.testing.assert_allclose(accuracy_N, right, atol=1e-12)
    clean_N = values(Accuracy, AccuracyConfig(), block=block)["m_accuracy"]
    assert (accuracy_N < clean_N).all()


class Plain(nn.Module):
    """One network that takes pixels from 0 to 1, with its own weights."""

    def __init__(self, block: Block, n: int, config: NetworkConfig):
        super().__init__()
        self.network, self.prepare = build_network(config), block.pictures.data.prepare
        self.network.load_state_dict({name: tensor[n] for name, tensor in block.state.items()})
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network(self.prepare(pixels * LARGEST))


ATTACKS = {
    "fgsm": (Fgsm, FgsmConfig(epsilon=0.1, images=40), foolbox.attacks.LinfFastGradientAttack()),
    "linf": (
        Pgd,
        PgdConfig(epsilon=0.1, images=40, steps=4, random_start=False),
        foolbox.attacks.LinfProjectedGradientDescentAttack(
            rel_stepsize=0.25, steps=4, random_start=False
        ),
    ),
    "l2": (
        Pgd,
        PgdConfig(epsilon=1.0, norm="l2", images=40, steps=4, random_start=False),
        foolbox.attacks.L2ProjectedGradientDescentAttack(
            rel_stepsize=0.25, steps=4, random_start=False
        ),
    ),
}


@pytest.mark.parametrize("config", [MLP, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize("name", ATTACKS)
def test_many_networks_are_attacked_as_each_alone(config, name):
    block = block_of(config)
    kind, settings, theirs = ATTACKS[name]
    images, found = attacked(kind(settings, "m", part="val"), block)
    part = block.pictures.part("val", 40)
    for n in range(len(block)):
        model = foolbox.PyTorchModel(Plain(block, n, config), bounds=(0, 1))
        alone = theirs.run(model, images, part.labels[part.index], epsilon=settings.epsilon)
        torch.testing.assert_close(found[n], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_stays_in_its_ball_and_begins_at_random(norm):
    block, epsilon = block_of(MLP), {"linf": 0.05, "l2": 0.5}[norm]
    config = PgdConfig(epsilon=epsilon, norm=norm, steps=3, images=60)
    measure = Pgd(config, "m", part="val")
    images, found = attacked(measure, block)
    change = (found - images).flatten(2)
    size = change.abs().amax(2) if norm == "linf" else change.norm(dim=2)
    assert size.max() <= epsilon + 1e-6 and size.mean() > 0.5 * epsilon
    assert found.min() >= 0 and found.max() <= 1
    torch.testing.assert_close(attacked(measure, block)[1], found, atol=0, rtol=0)
    still = Pgd(
        PgdConfig(epsilon=epsilon, norm=norm, steps=3, images=60, random_start=False),
        "m",
        part="val",
    )
    assert not torch.equal(attacked(still, block)[1], found)


def test_a_network_does_not_depend_on_the_others_of_its_block():
    block = block_of(MLP, num=4)
    two = {name: tensor[1:3] for name, tensor in block.state.items()}
    few = Block(block.facts, block.network, two, block.pictures)
    for kind, config in ((Fgsm, FgsmConfig(images=60)), (Pgd, PgdConfig(images=60, epsilon=0.1))):
        many_N = values(kind, config, block=block)["m_accuracy"]
        np.testing.assert_array_equal(values(kind, config, block=few)["m_accuracy"], many_N[1:3])


def test_rows_of_a_table_have_no_pixels():
    config = MLPConfig((4, 3))
    facts = facts_of(
        Layout.of(build_network(config)), config, data=DataConfig("iris", validation=0.2)
    )
    pictures = Pictures.of(facts, 0)
    noise = CorruptionConfig(transform="noise", strength=0.1)
    for measure in (Fgsm(FgsmConfig(), "m", part="val"), Corruption(noise, "m", part="val")):
        with pytest.raises(ConfigError, match=r"measures.m: pixels are changed.*leave it out"):
            measure.columns(pictures, facts)


# --- corruptions ----------------------------------------------------------------------------------

PIXELS = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(3, 1, 1, 1)
CLOSED = {
    ("brightness", 0.5): lambda p: (p * 0.5).floor(),
    ("posterize", 2): lambda p: (p / 64).floor() * 64,
    ("solarize", 0.5): lambda p: torch.where(p >= 127.5, 255 - p, p),
    ("rotate", 180): lambda p: p.flip(2, 3),
}


@pytest.mark.parametrize(("transform", "strength"), CLOSED)
def test_corruptions_in_closed_form(transform, strength):
    config = CorruptionConfig(transform=transform, strength=strength)
    found = corrupt(PIXELS, config, seed=0)
    wanted = CLOSED[transform, strength](PIXELS.double())
    torch.testing.assert_close(found.double(), wanted, atol=0, rtol=0)


def test_noise_is_of_its_seed_and_as_strong_as_asked():
    grey = torch.full((200, 1, 8, 8), 128, dtype=torch.uint8)
    config = CorruptionConfig(transform="noise", strength=0.1)
    found = corrupt(grey, config, seed=3)
    assert torch.equal(found, corrupt(grey, config, seed=3))
    assert not torch.equal(found, corrupt(grey, config, seed=4))
    change = (found.double() - 128) / 255
    assert change.std() == pytest.approx(0.1, rel=0.03) and abs(change.mean()) < 0.01


@pytest.mark.parametrize(
    ("transform", "strength"), [("blur", 1.0), ("jpeg", 10), ("contrast", 0.5), ("noise", 0.3)]
)
def test_all_networks_are_scored_on_the_same_changed_images(transform, strength):
    block = block_of(MLP)
    config = CorruptionConfig(transform=transform, strength=strength)
    found_N = values(Corruption, config, block=block)["m_accuracy"]
    pictures, part = block.pictures, block.pictures.data.val
    changed = torch.from_numpy(pictures.made["m"]).float() * (LARGEST / 255)
    logits = [Plain(block, n, MLP)(changed / LARGEST) for n in range(3)]
    wanted = [(one.argmax(1) == part.labels[part.index]).double().mean() for one in logits]
    np.testing.assert_allclose(found_N, wanted, atol=1e-12)


WRONG = {
    r"strength = 0 of noise: allowed is above 0": {"transform": "noise", "strength": 0},
    r"strength = 2.5 of posterize: allowed is a whole number": {
        "transform": "posterize",
        "strength": 2.5,
    },
    r"strength = 101 of jpeg": {"transform": "jpeg", "strength": 101},
}


@pytest.mark.parametrize("said", WRONG)
def test_a_strength_that_no_transform_has_is_refused(said):
    measures = {"m": {"kind": "corruption"} | WRONG[said]}
    with pytest.raises(ConfigError, match=said):
        build(MeasureConfig, {"zoo": "z", "measures": measures}, source="test")


def test_a_name_that_hides_or_feigns_test_images_is_refused():
    for name in ("test_clean", "clean test", ""):
        with pytest.raises(ConfigError, match="its name begins a column's"):
            build(
                MeasureConfig,
                {"zoo": "z", "measures": {name: {"kind": "accuracy"}}},
                source="test",
            )
    with pytest.raises(ConfigError, match="give each part once"):
        twice = {"kind": "accuracy", "parts": ["val", "val"]}
        build(MeasureConfig, {"zoo": "z", "measures": {"m": twice}}, source="test")
    with pytest.raises(ConfigError, match="none is named"):
        build(MeasureConfig, {"zoo": "z", "measures": {}}, source="test")


def test_saturation_is_of_colour_images():
    block = block_of(MLP)
    config = CorruptionConfig(transform="saturation", strength=0.5)
    with pytest.raises(ConfigError, match="saturation is of colour images, and these have 1 chan"):
        Corruption(config, "m", part="val").columns(block.pictures, block.facts)
