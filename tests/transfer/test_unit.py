"""Networks of arms, trained together: against a textbook loop over each alone, tensor by tensor."""

import dataclasses
import json
from typing import get_args

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from dwf.datasets.config import DataConfig
from dwf.datasets.load import load_dataset
from dwf.networks.config import CNNConfig, MLPConfig
from dwf.networks.functional import build_network
from dwf.networks.initialisation import initialise
from dwf.randomness import seed_of, torch_stream
from dwf.transfer.arms import FAMILIES, Arm, arms_of, open_pool
from dwf.transfer.config import FinetuneConfig, FreezeConfig, Origin
from dwf.transfer.stage import finetune
from dwf.transfer.starts import StartReader, noise_unit
from dwf.transfer.target import few_shot, find_target
from dwf.zoo.cohorts import Cohort, Start
from dwf.zoo.config import RecipeConfig, ZooComputeConfig, ZooConfig
from dwf.zoo.facts import Method
from dwf.zoo.layout import Layout
from dwf.zoo.stage import train_zoo
from dwf.zoo.store import Zoo, write_zoo
from tests.transfer.conftest import DATA
from tests.zoos import facts_of

RECIPE = RecipeConfig(epochs=2, batch_size=48, learning_rate=0.01)
IRIS = DataConfig("iris", scaling="standard")


def config(**changes) -> FinetuneConfig:
    given = {"zoo": "z-aligned", "data": DATA, "samples": ("s",), "recipe": RECIPE}
    return FinetuneConfig(**(given | {"count": 5, "epochs": (0, 1, 2)} | changes))


def reader_of(settings: FinetuneConfig, root) -> tuple[StartReader, tuple[Arm, ...], Zoo]:
    pool = open_pool(settings, root)
    unit_D = noise_unit(pool.zoo)
    target = find_target(settings, pool.zoo.facts)
    return StartReader(settings, root, target, unit_D), arms_of(pool), pool.zoo


def train(reader: StartReader, arm: Arm, networks: range, folder, method=None) -> Cohort:
    start = Start(reader.read(arm, networks), reader.target.frozen)
    target = reader.target
    cohort = Cohort(
        target.config, networks, data=target.data, folder=folder, method=method, start=start
    )
    cohort.train()
    return cohort


@pytest.mark.parametrize(
    ("device", "cohort", "together"), [("cpu", None, 16), ("cpu", 5, 5), ("cuda", None, None)]
)
def test_mlps_whose_step_touches_20_mib_are_trained_together(device, cohort, together):
    """Of 76,810 weights, with gradient and two moments, and 64 images of 64 numbers: 1.19 MiB."""
    given = {"cohort": cohort, "count": 64, "compute": ZooComputeConfig(device=device)}
    settings = config(samples=(), recipe=RecipeConfig(batch_size=64, epochs=2), **given)
    network = MLPConfig((64, 1024, 10))
    facts = facts_of(Layout.of(build_network(network)), network, data=DATA)
    assert find_target(settings, facts).config.cohort == together


def weights_of(cohort: Cohort, epoch: int) -> torch.Tensor:
    return torch.from_numpy(np.load(cohort.snapshot_path(epoch))["weights"])


def textbook(settings: FinetuneConfig, reader: StartReader, start_D: torch.Tensor, i: int):
    """Train one network further, as a PyTorch tutorial would."""
    data, module = reader.target.data, build_network(reader.target.config.network)
    state = Layout.of(module).unflatten(start_D)
    module.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in reader.target.frozen)
    learning = [p for p in module.parameters() if p.requires_grad]
    rate, momentum = settings.recipe.learning_rate, settings.recipe.momentum
    optimizer = torch.optim.SGD(learning, lr=rate, momentum=momentum)
    for epoch in range(settings.recipe.epochs):
        stream = torch_stream(settings.seed, "shuffle", i, epoch)
        order = torch.randperm(len(data.train), generator=stream)
        for places in order.split(settings.recipe.batch_size):
            images, labels = data.train.batch(places)
            optimizer.zero_grad()
            cross_entropy(module(data.prepare(images)), labels).backward()
            optimizer.step()
    return Layout.of(module).flatten(module.state_dict())


@pytest.mark.parametrize(
    "changes",
    [{}, {"head": "new", "freeze": FreezeConfig(share=1.0)}, {"images_per_class": 4}],
    ids=["all", "probe", "few"],
)
def test_networks_are_trained_as_a_textbook_loop_trains_each_alone(made_root, tmp_path, changes):
    # Adam would make whole steps of gradients that are 0 but for rounding.
    recipe = dataclasses.replace(RECIPE, optimizer="sgd", learning_rate=0.05, momentum=0.9)
    settings = config(recipe=recipe, **changes)
    reader, arms, _ = reader_of(settings, made_root)
    for arm in (arms[1], arms[3], arms[7]):  # originals, samples, averages
        found = weights_of(train(reader, arm, range(1, 4), tmp_path / arm.title), 2)
        starts = reader.read(arm, range(1, 4))
        for place, i in enumerate(range(1, 4)):
            expected = textbook(settings, reader, starts[place], i)
            torch.testing.assert_close(found[place], expected, rtol=1e-3, atol=1e-5)


def test_what_is_frozen_stays_bitwise_and_the_rest_learns(made_root, tmp_path):
    reader, arms, zoo = reader_of(config(freeze=FreezeConfig(share=1.0)), made_root)
    assert reader.target.frozen == ("layers.0.weight", "layers.0.bias")
    cohort = train(reader, arms[1], range(4), tmp_path)
    before, after = (zoo.layout.unflatten(weights_of(cohort, epoch)) for epoch in (0, 2))
    for name in zoo.layout.by_name:
        same = torch.equal(before[name], after[name])
        assert same == (name in reader.target.frozen), name


def test_a_new_head_has_the_classes_of_the_task_and_the_rest_stays(made_root, tmp_path):
    """Four inputs and three classes from four inputs and ten: a zoo of its own."""
    recipe = RecipeConfig(epochs=1, batch_size=50)
    zoo = ZooConfig(MLPConfig((4, 6, 5)), IRIS, 12, recipe=recipe)
    train_zoo(zoo, tmp_path, name="four")
    settings = config(zoo="four", data=IRIS, samples=(), arms=("originals", "noise"))
    reader, (originals, noisy), opened = reader_of(settings, tmp_path)
    assert reader.target.config.network == MLPConfig((4, 6, 3))
    assert reader.target.head.names == ("layers.1.weight", "layers.1.bias")
    given = reader.target.head.layout.unflatten(reader.read(originals, range(5)))
    own = opened.layout.unflatten(opened.read(np.array(originals.rows)[:, 0]))
    assert given["layers.1.weight"].shape == (5, 3, 6)
    np.testing.assert_array_equal(given["layers.0.weight"], own["layers.0.weight"])
    other = reader.target.head.layout.unflatten(reader.read(noisy, range(5)))
    torch.testing.assert_close(other["layers.1.weight"], given["layers.1.weight"], rtol=0, atol=0)
    assert not torch.equal(other["layers.0.weight"], given["layers.0.weight"])
    fresh = build_network(MLPConfig((4, 6, 3)))
    initialise(fresh, MLPConfig((4, 6, 3)), kind="default", seed=seed_of(0, "head", 3))
    torch.testing.assert_close(given["layers.1.bias"][3], fresh.layers[1].bias.detach())


def test_starts_are_what_their_arms_say(made_root):
    settings = config(averages=(2, 3), noise=(0.5,))
    reader, arms, zoo = reader_of(settings, made_root)
    titled = {arm.title: arm for arm in arms}
    unaligned = Zoo.open(made_root / "zoos" / "z")
    for title, source, k in (("average of 3", zoo, 3), ("average of 2, unaligned", unaligned, 2)):
        rows = np.array(titled[title].rows)
        assert rows.shape == (5, k) and all(len(set(row)) == k for row in rows.tolist())
        assert set(source.columns["split"][rows].ravel()) == {"train"}
        expected = np.stack([source.read(row).astype(np.float64).mean(0) for row in rows])
        found = reader.read(titled[title], range(5)).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    assert titled["average of 3"].rows == titled["average of 3, unaligned"].rows
    noisy = titled["an original + noise of 0.5 std"]
    assert noisy.rows == titled["originals"].rows
    training_ND = zoo.read(zoo.rows("train", "last")).astype(np.float64)
    apart = reader.read(noisy, range(5)).numpy() - zoo.read(np.array(noisy.rows)[:, 0])
    normal = apart / (0.5 * training_ND.std(0, ddof=1))
    assert abs(normal.mean()) < 0.05 and normal.std() == pytest.approx(1, abs=0.05)
    samples = Zoo.open(made_root / "zoos" / "s")
    given = samples.read(np.array(titled["samples s"].rows)[:, 0])
    apart_SN = np.linalg.norm(given[:, None] - training_ND, axis=2)
    expected = zoo.rows("train", "last")[apart_SN.argmin(1)]
    assert np.array(titled["nearest originals of s"].rows)[:, 0].tolist() == expected.tolist()


def test_a_start_does_not_depend_on_how_many_there_are(made_root):
    reader, arms, _ = reader_of(config(), made_root)
    many, more, _ = reader_of(config(count=9), made_root)
    for arm, other in zip(arms, more, strict=True):
        assert arm.rows == other.rows[: arm.count]
        assert torch.equal(reader.read(arm, range(3, 5)), many.read(other, range(5))[3:])


def test_few_images_are_so_many_of_each_class_and_always_the_same():
    data = load_dataset(DATA)
    few = few_shot(data, 7, seed=3)
    labels = few.train.labels[few.train.index]
    assert torch.bincount(labels).tolist() == [7] * 10
    assert set(few.train.index.tolist()) <= set(data.train.index.tolist())
    assert few.train.index.tolist() == sorted(few.train.index.tolist())
    assert torch.equal(few.train.index, few_shot(data, 7, seed=3).train.index)
    assert not torch.equal(few.train.index, few_shot(data, 7, seed=4).train.index)
    assert few.test is data.test and few.val is data.val


BATCHNORM = CNNConfig(
    channels=(4,), input=(1, 8, 8), norm="batch", pools=2, head="average", bias=False
)


@pytest.mark.parametrize("cohort", [1, 3])
def test_a_frozen_batchnorm_keeps_its_statistics(tmp_path, cohort):
    """Alone and batched; where it learns they move, as torch's own loop moves them."""
    rows = []
    for seed in range(3):
        network = build_network(BATCHNORM)
        initialise(network, BATCHNORM, kind="default", seed=seed)
        rows.append(Layout.of(network).flatten(network.state_dict()))
    layout = Layout.of(network)
    recipe = RecipeConfig(epochs=1, batch_size=64)
    zoo = ZooConfig(BATCHNORM, DATA, 3, recipe=recipe, keep_epochs=(0, 1))
    norms = [e.name for e in layout.entries if e.role in ("norm", "buffer")]
    learnt = tuple(e.name for e in layout.entries if e.role == "norm")
    for frozen, stay in ((learnt, True), ((), False)):
        start = Start(torch.stack(rows)[:cohort], frozen, look_every=4)
        folder = tmp_path / str(stay)
        done = Cohort(
            zoo,
            range(cohort),
            data=load_dataset(DATA),
            folder=folder,
            method=Method(cohort),
            start=start,
        )
        done.train()
        before, after = (layout.unflatten(weights_of(done, epoch)) for epoch in (0, 1))
        for name in norms:
            assert torch.equal(before[name], after[name]) == stay, name
        looks = json.loads(done.done_path.read_text())["looks"]
        assert [step for step, _ in looks] == [*range(0, done.steps_per_epoch, 4), 18]
        assert all(len(values) == cohort for _, values in looks)


def test_settings_of_arms_and_the_table_agree():
    assert tuple(FAMILIES) == get_args(Origin) == FinetuneConfig("z", DATA).arms
    assert dataclasses.replace(config(), epochs=(1,)).recorded == (1, 2)


def write_batchnorm_zoo(root, count=6) -> Zoo:
    """Networks with BatchNorm, with statistics of a few images each."""
    data, rows = load_dataset(DATA), []
    for seed in range(count):
        network = build_network(BATCHNORM)
        initialise(network, BATCHNORM, kind="default", seed=seed)
        network.train()(data.prepare(data.train.batch(torch.arange(seed * 20, 200))[0]))
        rows.append(Layout.of(network).flatten(network.state_dict()))
    layout = Layout.of(network)
    columns = {"network": np.arange(count), "epoch": np.zeros(count, np.int32)}
    columns |= {"split": np.array(["train"] * (count - 2) + ["val", "test"])}
    block = (columns, torch.stack(rows).numpy())
    facts = facts_of(layout, BATCHNORM, data=DATA)
    return write_zoo(root / "zoos" / "bn", facts, num_rows=count, blocks=[block])


def test_averages_are_normalised_by_statistics_of_their_own(tmp_path):
    """Against the first convolution's outputs on the same 100 images; originals keep theirs."""
    zoo, data = write_batchnorm_zoo(tmp_path), load_dataset(DATA)
    arms = ("originals", "average", "noise")
    settings = config(
        zoo="bn", samples=(), arms=arms, averages=(2,), batchnorm_images=100, count=3, members=2
    )
    plain = ZooComputeConfig(channels_last=False)  # nothing is timed
    settings = dataclasses.replace(settings, cohort=1, compute=plain)
    reader, (originals, noisy, average), _ = reader_of(settings, tmp_path)
    own = zoo.read(np.array(originals.rows)[:, 0])
    np.testing.assert_array_equal(reader.read(originals, range(3)).numpy(), own)
    order = torch.randperm(len(data.train), generator=torch_stream(0, "recalibrate"))
    images = data.prepare(data.train.batch(order[:100])[0])
    names = {e.role: e.name for e in zoo.layout.entries if "running_mean" in e.name}
    weight = next(e.name for e in zoo.layout.entries if len(e.shape) == 4)
    for arm in (average, noisy):
        state = zoo.layout.unflatten(reader.read(arm, range(3)))
        for i in range(3):
            mean = torch.nn.functional.conv2d(images, state[weight][i]).mean((0, 2, 3))
            torch.testing.assert_close(state[names["buffer"]][i], mean, rtol=1e-4, atol=1e-5)
    made = finetune(settings, tmp_path, name="bn")
    assert [arm.n for arm in made.arms] == [3, 3, 3]
    assert all(len(arm.soup_E) == len(arm.ensemble_E) == 3 for arm in made.arms)


def test_ensembles_and_soups_are_those_of_the_first_networks(made_root, tmp_path):
    """By torch alone, from the weights that networks begin with."""
    settings = config(arms=("originals",), samples=(), members=4, epochs=(0,), cohort=3)
    reader, (arm,), zoo = reader_of(settings, made_root)
    made = finetune(settings, made_root, name="together").arms[0]
    images, labels = zoo.load_data().test.batch(torch.arange(len(zoo.load_data().test)))
    weights_ND, logits = reader.read(arm, range(4)), []
    network = zoo.build_network()
    for weights_D in (*weights_ND, weights_ND.mean(0)):
        network.load_state_dict(zoo.layout.unflatten(weights_D))
        logits.append(network(zoo.load_data().prepare(images)).detach().double())
    right = torch.stack(logits[:4]).mean(0).argmax(1) == labels
    assert made.ensemble_E[0] == pytest.approx(right.double().mean().item())
    assert made.soup_E[0] == pytest.approx((logits[4].argmax(1) == labels).double().mean().item())
