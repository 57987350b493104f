"""What is refused, found and recorded before networks of any architecture are trained."""

import dataclasses
import json

import numpy as np
import pytest

from dwf.datasets.config import DataConfig
from dwf.datasets.load import load_dataset
from dwf.devices import find_device
from dwf.errors import ConfigError, TooFewNetworks
from dwf.networks.config import CifarResNetConfig, CNNConfig, MLPConfig, PythonConfig, ViTConfig
from dwf.trust import trust_code
from dwf.zoo import roster, stage
from dwf.zoo.cohorts import cohort
from dwf.zoo.cohorts import cost as rate
from dwf.zoo.cohorts import method as timing
from dwf.zoo.config import (
    AugmentConfig,
    KeepAbove,
    KeepSteps,
    PruneConfig,
    RangeConfig,
    RecipeConfig,
    VaryConfig,
    ZooComputeConfig,
    ZooConfig,
)
from dwf.zoo.facts import Method
from dwf.zoo.info import zoo_facts
from dwf.zoo.misfit import refuse_misfit
from dwf.zoo.shard import write_shard
from dwf.zoo.store import Zoo
from dwf.zoo.verify import find_damage

DIGITS = DataConfig("digits", validation=0.2)
SMALL = CNNConfig((4, 5), (1, 8, 8), paddings=1, pools=2, norm="batch", hidden=(12,))
CONFIG = ZooConfig(
    network=SMALL,
    data=DIGITS,
    count=6,
    recipe=RecipeConfig(
        epochs=4,
        batch_size=64,
        learning_rate=0.02,
        schedule="one_cycle",
        augment=AugmentConfig(pad=1),
        prune=PruneConfig(0.3),
    ),
    vary=VaryConfig(prune_share=RangeConfig(0.1, 0.5)),
    compute=ZooComputeConfig(channels_last=False),
    cohort=1,
    shard=2,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return stage.train_zoo(CONFIG, tmp_path_factory.mktemp("whole"), name="zoo")


def test_a_zoo_of_convolutions_says_what_it_is(whole):
    assert whole.facts.to_json()["method"] == {
        "cohort": 1,
        "device": "cpu",
        "precision": "float32",
        "channels_last": False,
        "compile": False,
        "chosen": "given",
    }
    assert whole.facts.cohort == 1 and whole.input_shape == (1, 8, 8)
    assert whole.facts.split_by == "networks"
    table = whole.columns
    assert (table["batchnorm"] == "trained").all() and len(whole) == 6
    layout = whole.layout
    prunable = sum(e.size for e in layout.entries if e.role == "weight" and len(e.shape) > 1)
    shares = table["pruned"] / prunable
    np.testing.assert_allclose(shares, table["prune_share"], atol=0.02)
    assert table["val_accuracy"].mean() > 0.3
    assert zoo_facts(whole.path)["settings"]["method"]["chosen"] == "given"


def test_shards_in_any_order_are_the_same_bytes(whole, tmp_path):
    def backwards(work):
        for index in reversed(range(work.count)):
            work.unit(work.folder, index)

    again = stage.train_zoo(CONFIG, tmp_path, name="zoo", run=backwards)
    for shard, other in zip(again.shards, whole.shards, strict=True):
        assert shard.path.read_bytes() == other.path.read_bytes()
    assert (again.path / "zoo.json").read_bytes() == (whole.path / "zoo.json").read_bytes()


def test_verify_counts_the_zeros(whole, tmp_path):
    """A row with more weights than were left, written with checksums that are right."""
    zoo = stage.train_zoo(CONFIG, tmp_path, name="zoo")
    assert not find_damage(zoo.path)
    shard = zoo.shards[1]
    weights, columns = np.array(shard.weights), dict(shard.columns)
    entry = next(e for e in zoo.layout.entries if e.role == "weight")
    weights[1, entry.offset : entry.stop] += 1.0
    columns.pop("checksum")
    shard.path.unlink()
    blocks = [(columns, weights)]
    write_shard(shard.path, zoo.facts, index=1, num_rows=len(weights), blocks=blocks)
    reasons = {d.file.name: d.reason for d in find_damage(zoo.path)}
    assert reasons[shard.path.name] == "rows 1 have fewer zeros than were pruned"


NARROW = CifarResNetConfig(20, width=4)


@pytest.mark.parametrize(
    ("capability", "network", "broken"),
    [
        ("AVX2", NARROW, True),  # its first shortcut: 4 channels, 1 x 1, stride 2
        ("AVX2", CifarResNetConfig(20, width=8), False),
        ("AVX2", SMALL, False),
        ("AVX512", NARROW, False),
    ],
)
def test_channels_last_is_not_taken_where_it_corrupts_memory(
    monkeypatch, tmp_path, capability, network, broken
):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    cifar = DataConfig("digits", validation=0.2)
    config = dataclasses.replace(
        CONFIG, network=network, data=cifar, compute=ZooComputeConfig(), cohort=None
    )
    ways = timing._ways(config, timing.build_network(network), Method(1))
    assert ("one by one, channels last" in ways) != broken
    if broken:
        method = Method(1, channels_last=True)
        one = cohort.Cohort(
            config, range(1), data=load_dataset(cifar), folder=tmp_path, method=method
        )
        with pytest.raises(ConfigError, match=r"channels_last = true.*set it to false"):
            one.time_steps(0.0, 1)


def test_a_timing_takes_both_ways_and_records_what_it_took(tmp_path):
    config = dataclasses.replace(CONFIG, compute=ZooComputeConfig(), cohort=None)
    choice = timing.choose_method(config, load_dataset(DIGITS))
    assert set(choice.seconds) == {"one by one", "one by one, channels last", "batched"}
    assert choice.method.chosen == "measured" and choice.method.cohort in (1, 2)
    fastest = min(choice.seconds, key=choice.seconds.__getitem__)
    taken = "batched" if choice.method.cohort > 1 else "one by one"
    taken += ", channels last" * choice.method.channels_last
    assert choice.seconds[taken] <= 1.1 * choice.seconds[fastest]
    recipe = RecipeConfig(epochs=1, batch_size=512)
    quick = dataclasses.replace(config, count=2, recipe=recipe, vary=VaryConfig())
    zoo = stage.train_zoo(quick, tmp_path, name="zoo")
    told = json.loads((zoo.path / "run" / "timing.json").read_text())
    assert set(told) == set(choice.seconds) and all(s > 0 for s in told.values())
    assert "seconds" not in json.dumps(zoo.facts.to_json()["method"])


def test_mlps_follow_the_rule_and_settings_go_first():
    data = load_dataset(DIGITS)
    mlps = ZooConfig(network=MLPConfig((64, 8, 10)), data=DIGITS, count=100)
    choice = timing.choose_method(mlps, data)
    assert choice.method.chosen == "rule" and not choice.seconds
    assert choice.method.cohort == roster.cohort_size(mlps, 610, num_inputs=64) == 64
    given = dataclasses.replace(CONFIG, compute=ZooComputeConfig(channels_last=True))
    method = timing.choose_method(given, data).method
    assert method.channels_last and method.cohort == 1 and method.chosen == "given"


def test_shards_of_slow_networks_are_small():
    slow = ZooConfig(network=CifarResNetConfig(), data=DataConfig("cifar10"), count=32)
    assert (slow.shard_size, slow.num_shards) == (2, 16)
    assert dataclasses.replace(slow, count=1000).shard_size == 8
    assert dataclasses.replace(slow, count=5).num_shards == 5
    mlps = dataclasses.replace(slow, network=MLPConfig((64, 10)), count=100)
    assert (mlps.shard_size, mlps.num_shards) == (64, 2)
    assert dataclasses.replace(slow, shard=16).num_shards == 2


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (CNNConfig((4,), (3, 8, 8)), r"kind = 'cnn' does not take the images of digits, of shape"),
        (CNNConfig((4,), (1, 8, 8), classes=9), r"'cnn' returns \[2, 9\].*needs logits.*\[2, 10\]"),
        (ViTConfig(image=8, channels=3, width=12, heads=2), r"kind = 'vit' does not take"),
        (PythonConfig("torch.nn:Identity"), r"'python' returns \[2, 1, 8, 8\] for 2 images"),
    ],
)
def test_networks_that_do_not_fit_the_images_are_refused(network, message):
    trust_code("torch.nn:Identity")
    with pytest.raises(ConfigError, match=message):
        refuse_misfit(dataclasses.replace(CONFIG, network=network))


def test_recipes_that_the_network_cannot_follow_are_refused():
    keep = dataclasses.replace(CONFIG, keep=KeepSteps(layers="layer4"))
    with pytest.raises(ConfigError, match=r"keep.layers = 'layer4' is found in no parameter; they"):
        refuse_misfit(keep)
    several = dataclasses.replace(CONFIG, cohort=2, vary=VaryConfig(dropout=(0.0, 0.5)))
    with pytest.raises(ConfigError, match=r"cohort = 2 with vary.dropout"):
        refuse_misfit(several)
    resnet = dataclasses.replace(
        CONFIG,
        network=CifarResNetConfig(8, 4, channels=1),
        recipe=RecipeConfig(dropout=0.2),
        vary=VaryConfig(),
    )
    with pytest.raises(ConfigError, match=r"recipe.dropout: the network \(kind 'resnet_cifar'\)"):
        refuse_misfit(resnet)
    table = ZooConfig(
        network=MLPConfig((4, 3)),
        data=DataConfig("iris"),
        count=2,
        recipe=RecipeConfig(augment=AugmentConfig(flip=0.5)),
    )
    with pytest.raises(ConfigError, match=r"recipe.augment: iris has no images"):
        refuse_misfit(table)
    wide = dataclasses.replace(CONFIG, vary=VaryConfig(pad=(1, 8)))
    with pytest.raises(ConfigError, match=r"pad = 8: images of digits have 8 pixels a side"):
        refuse_misfit(wide)


def test_a_last_batch_of_one_image_is_refused_where_batchnorm_cannot_take_it():
    one = dataclasses.replace(CONFIG, data=dataclasses.replace(DIGITS, train_images=129))
    refuse_misfit(one)  # BatchNorm over 8 x 8 places
    flat = CNNConfig((4,), (1, 8, 8), kernels=8, norm="batch")
    with pytest.raises(ConfigError, match=r"batch_size = 64: of 129 training images .* holds one"):
        refuse_misfit(dataclasses.replace(one, network=flat))
    refuse_misfit(dataclasses.replace(one, network=dataclasses.replace(flat, norm="none")))


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="multistep needs milestones"):
        RecipeConfig(schedule="multistep")
    with pytest.raises(ValueError, match="prune ends at epoch 9, the recipe at 5"):
        RecipeConfig(prune=PruneConfig(from_epoch=1, rounds=5, every=2))
    with pytest.raises(ValueError, match=r"vary.flip without recipe.augment"):
        dataclasses.replace(
            CONFIG, recipe=RecipeConfig(), vary=VaryConfig(flip=RangeConfig(0.0, 0.4))
        )
    shared = dataclasses.replace(CONFIG.recipe, data_order="shared")
    with pytest.raises(ValueError, match=r"vary.pad with recipe.data_order = 'shared'"):
        dataclasses.replace(CONFIG, recipe=shared, vary=VaryConfig(pad=(1, 2)))
    with pytest.raises(ValueError, match=r"keep.kind = 'steps': give one of them"):
        dataclasses.replace(CONFIG, keep=KeepSteps(), keep_epochs=(1,))
    with pytest.raises(ValueError, match="no regular expression"):
        KeepSteps(layers="(")
    with pytest.raises(ValueError, match=r"pad = \[\]: a list of at least one"):
        VaryConfig(pad=())


def test_networks_without_a_row_are_told(tmp_path, caplog):
    recipe = RecipeConfig(epochs=1, batch_size=512)
    config = dataclasses.replace(CONFIG, recipe=recipe, vary=VaryConfig(), count=2)
    with pytest.raises(TooFewNetworks, match="is finished and has 0 rows: 0 networks diverged"):
        stage.train_zoo(dataclasses.replace(config, keep=KeepAbove(1.0)), tmp_path, name="zoo")
    zoo = Zoo.open(tmp_path / "zoos" / "zoo")
    assert len(zoo) == 0 and find_damage(zoo.path) == [] and zoo_facts(zoo.path)["rows"] == 0
    assert "2 of 2 networks have no row: 0 diverged, 2 were never good enough" in caplog.text


def test_a_gpu_asked_for_is_needed_where_networks_are_trained(tmp_path, monkeypatch):
    """The launch may be done without one, as on a login node."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = dataclasses.replace(CONFIG, compute=ZooComputeConfig("cuda"), cohort=None, count=2)
    assert find_device("auto", elsewhere=True).type == "cpu"
    with pytest.raises(ConfigError, match=r"method.device = cuda, and this machine shows no GPU"):
        stage.train_zoo(config, tmp_path, name="zoo")
    assert stage.work(config, tmp_path, name="zoo").device == "cuda"
    assert stage.work(config, tmp_path, name="nothing").device == "cuda"
    assert stage.work(CONFIG, tmp_path, name="nothing").device == "cpu"


def test_time_and_memory_are_told_before(tmp_path):
    told = rate.describe_cost(CONFIG)
    assert "hours of one worker" in told and "MiB of memory" in told
    assert "one by one" in stage.plan(
        dataclasses.replace(CONFIG, cohort=None), tmp_path, name="zoo"
    )


def test_time_is_that_of_the_cohort_which_is_set(monkeypatch):
    sizes = []

    class Timed(cohort.Cohort):
        def time_steps(self, seconds, warm_up):
            sizes.append(len(self.networks))
            return 1.0

    monkeypatch.setattr(cohort, "Cohort", Timed)
    one = rate.measure_rate(CONFIG).seconds
    batched = rate.measure_rate(dataclasses.replace(CONFIG, cohort=2)).seconds
    assert sizes == [1, 2] and batched == one / 2


def test_a_plan_makes_no_resized_images(tmp_path, monkeypatch):
    monkeypatch.setenv("DWF_DATA", str(tmp_path))
    load_dataset(DIGITS)
    network = dataclasses.replace(SMALL, input=(1, 4, 4))
    data = dataclasses.replace(DIGITS, size=4)
    config = dataclasses.replace(CONFIG, network=network, data=data)
    assert rate.describe_cost(config).endswith(
        ": digits at 4 x 4 is first made, from what is here, when work begins"
    )
    assert "on digits at 4 x 4, 4 epochs each" in stage.plan(config, tmp_path, name="zoo")
    assert [folder.name for folder in tmp_path.iterdir()] == ["digits"]


def test_networks_for_other_images_are_told_the_size_they_get(tmp_path, monkeypatch):
    monkeypatch.setenv("DWF_DATA", str(tmp_path))
    data = dataclasses.replace(DIGITS, size=4)
    wide = ZooConfig(network=MLPConfig((64, 8, 10)), data=data, count=2)
    message = (
        r"digits at 4 x 4 has 16 inputs and 10 classes: give 16 first .*, or another data.size"
    )
    with pytest.raises(ConfigError, match=message):
        refuse_misfit(wide)
    refuse_misfit(dataclasses.replace(wide, network=MLPConfig((16, 8, 10))))
