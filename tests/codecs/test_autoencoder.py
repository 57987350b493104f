"""Codecs of whole networks as latents: what they cover, learn, save and load; resumed bitwise."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dwf import preemption
from dwf.backbones.autoencoder_config import (
    FoldedAutoencoderConfig,
    PerceptronAutoencoderConfig,
    StridedAutoencoderConfig,
)
from dwf.codecs.autoencoder.codec import AutoencoderCodec
from dwf.codecs.autoencoder.numbers import Numbers, chosen
from dwf.codecs.autoencoder.task import AutoencoderTask, Networks, divergence
from dwf.codecs.codec import Codec
from dwf.codecs.config import CodecConfig, ConvAutoencoderConfig, VaeConfig
from dwf.errors import ConfigError, Preempted, RunConflict, ShapeMismatch
from dwf.generators.round_trip import round_trip_error
from dwf.run_folder import RunFolder
from dwf.settings import build
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.training.task import Share
from dwf.zoo.store import Zoo, write_zoo

LOOP = LoopConfig(
    steps=20,
    batch_size=4,
    learning_rate=3e-3,
    validate_every=10,
    compute=LoopComputeConfig(device="cpu"),
)
CONV = ConvAutoencoderConfig(backbone=StridedAutoencoderConfig((4, 8, 4), 5, 6), training=LOOP)
FOLDED = replace(
    CONV,
    backbone=FoldedAutoencoderConfig(3, (2, 2), (2, 8)),
    noise_kind="mixed",
    latent_noise=(0.1, 0.5),
)
VAE = VaeConfig(backbone=PerceptronAutoencoderConfig(16, 5), training=LOOP, kl_steps=5)
each_codec = pytest.mark.parametrize("config", [CONV, FOLDED, VAE], ids=["conv", "folded", "vae"])


def fit(zoo: Zoo, run, config=CONV, seed=0) -> AutoencoderCodec:
    train, val = ([(zoo, zoo.rows(split))] for split in ("train", "val"))
    return AutoencoderCodec(config).fit(train, val, run=run, seed=seed)


def changed(zoo: Zoo, path, weights: np.ndarray) -> Zoo:
    columns = {name: values for name, values in zoo.columns.items() if name != "checksum"}
    return write_zoo(path, zoo.facts, num_rows=len(weights), blocks=[(columns, weights)])


def positive(zoo: Zoo, path) -> Zoo:
    """The zoo with running variances that are variances."""
    weights = zoo.read()
    for entry in zoo.layout.entries:
        if entry.name.endswith("running_var"):
            weights[:, entry.offset : entry.stop] = np.abs(weights[:, entry.offset : entry.stop])
    return changed(zoo, path, weights)


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("standardise", ["none", "per_tensor", "per_weight"])
@pytest.mark.parametrize("log_variances", [False, True])
def test_numbers_come_back(plant_zoo, tmp_path, standardise, log_variances):
    zoo = positive(plant_zoo(batchnorm=True), tmp_path / "positive")
    config = replace(
        CONV, buffers=True, standardise=standardise, log_variances=log_variances, tensors="^[12]"
    )
    entries = chosen(zoo.layout, config)
    assert {entry.name[0] for entry in entries} == {"1", "2"}
    numbers, _ = Numbers.fit([(zoo, zoo.rows("train"))], entries, config=config)
    assert len(numbers.variances) == log_variances
    weights = torch.from_numpy(zoo.read())
    x = numbers.take(weights)
    assert x.shape == (len(zoo), numbers.size)
    assert torch.equal(numbers.read(zoo, zoo.rows()[2:5]), x[2:5])
    back = torch.full_like(weights, 7.0)
    numbers.put(x, back)
    covered = np.concatenate([np.arange(*span) for span in numbers.spans])
    torch.testing.assert_close(back[:, covered], weights[:, covered], rtol=2e-6, atol=2e-5)
    back[:, covered] = 7.0
    assert (back == 7.0).all()


def test_logarithms_are_the_published_ones_and_never_come_back_below_zero(plant_zoo, tmp_path):
    zoo = positive(plant_zoo(batchnorm=True), tmp_path / "positive")
    config = replace(CONV, buffers=True, tensors="running_var", standardise="per_tensor")
    rows = zoo.rows("train")
    numbers, _ = Numbers.fit([(zoo, rows)], chosen(zoo.layout, config), config=config)
    (entry,) = numbers.entries
    values = zoo.read()[:, entry.offset : entry.stop].astype(np.float64)
    logs = np.log(values / (0.95 * values[rows].mean()) + 0.05)
    wanted = (logs - logs[rows].mean()) / logs[rows].std()
    np.testing.assert_allclose(numbers.take(torch.from_numpy(zoo.read())), wanted, atol=1e-5)
    weights = torch.zeros(1, zoo.layout.size)
    numbers.put(torch.full((1, entry.size), -100.0), weights)
    assert (weights == 0).all()


@pytest.mark.parametrize(("value", "said"), [(-0.25, "-0.25"), (np.nan, "nan")])
def test_what_is_no_variance_is_refused_by_name(plant_zoo, tmp_path, run, value, said):
    zoo = positive(plant_zoo(batchnorm=True), tmp_path / "positive")
    entry = zoo.layout.by_name["1.running_var"]
    weights = zoo.read()
    weights[zoo.rows("train")[3], entry.offset + 2] = value
    config = replace(CONV, buffers=True)
    if said != "nan":  # which no zoo can hold
        with pytest.raises(ConfigError, match=rf"1.running_var holds {said}"):
            fit(changed(zoo, tmp_path / "broken", weights), run, config=config)
    codec = fit(zoo, run, config=config)
    with pytest.raises(ConfigError, match=rf"1.running_var holds {said}, .*at least 0.*verify"):
        codec.encode(torch.from_numpy(weights), zoo.layout)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("conv", r"'conv' is found in no tensor.*have 0.weight, 0.bias, 1.weight.*2.bias"),
        ("running", r"no tensor of these networks \(running statistics are left out: codec.buff"),
        ("weight|bias", r"is found in all 6 tensors of these networks, 0.weight to 2.bias: leave"),
    ],
)
def test_a_pattern_that_chooses_nothing_or_everything(plant_zoo, run, pattern, message):
    zoo, config = plant_zoo(batchnorm=True), replace(CONV, tensors=pattern)
    with pytest.raises(ConfigError, match=message):
        fit(zoo, run, config=config)
    with pytest.raises(ConfigError, match=message):
        AutoencoderCodec.planned_shape(config, [zoo.layout], num_train=9)


def test_chosen_tensors_are_covered_and_the_others_the_template(plant_zoo, run):
    zoo = plant_zoo(batchnorm=True)
    codec = fit(zoo, run, config=replace(CONV, tensors=r"^1\."))
    weights = torch.from_numpy(zoo.read())
    back = codec.decode(codec.encode(weights, zoo.layout), zoo.layout)
    mean = zoo.read(zoo.rows("train")).astype(np.float64).mean(0)
    for entry in zoo.layout.entries:
        part = slice(entry.offset, entry.stop)
        is_covered = entry.name in ("1.weight", "1.bias")
        same = np.allclose(back[:, part], np.broadcast_to(mean[part], back[:, part].shape))
        assert same != is_covered, entry.name
    assert codec.spans == [(60, 72)] and codec.num_covered == 12


# --- learning -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "steps"), [(CONV, 120), (replace(VAE, kl=1e-4), 300)], ids=["conv", "vae"]
)
def test_it_can_overfit_one_network(make_zoo, run, config, steps):
    """What published autoencoders failed at."""
    zoo = make_zoo(widths=(9, 4, 3))
    loop = replace(LOOP, steps=steps, batch_size=2, learning_rate=1e-2, validate_every=steps)
    config, one = replace(config, training=loop, latent_noise=(0.0,)), [(zoo, zoo.rows()[:1])]
    codec = AutoencoderCodec(config).fit(one, [], run=run)
    weights = torch.from_numpy(zoo.read(zoo.rows()[:1]))
    back = codec.decode(codec.encode(weights, zoo.layout), zoo.layout)
    assert (back - weights).square().mean() < 0.01 * weights.var()
    assert codec.facts["val"] == {}


def test_it_learns_to_reconstruct_held_out_networks(plant_zoo, run):
    zoo = plant_zoo(count=60)
    config = replace(
        VAE,
        backbone=PerceptronAutoencoderConfig(32, 5),
        standardise="per_weight",
        training=replace(LOOP, steps=300, batch_size=16, learning_rate=5e-3, validate_every=300),
    )
    codec = fit(zoo, run, config=config)
    assert round_trip_error(codec, [(zoo, zoo.rows("test"))])["relative"] < 0.5


@each_codec
def test_latents_do_not_depend_on_what_else_is_coded(make_zoo, run, config):
    """The published p-diff codes by the statistics of the batch."""
    zoo = make_zoo(widths=(9, 4, 3))
    codec, weights = fit(zoo, run, config=config), torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    decoded = codec.decode(codes, zoo.layout)
    for i in range(len(zoo)):
        alone = codec.encode(weights[i : i + 1], zoo.layout)
        torch.testing.assert_close(alone.values[0], codes.values[i])
        torch.testing.assert_close(codec.decode(alone, zoo.layout)[0], decoded[i])
    assert torch.equal(codec.encode(weights, zoo.layout).values, codes.values)
    assert not codec.module.training
    assert len(codec.encode(weights[:0], zoo.layout)) == 0
    assert codec.decode(codec.encode(weights[:0], zoo.layout), zoo.layout).shape == (0, 55)
    assert torch.equal(codec.encode_zoo([(zoo, zoo.rows())]).values, codes.values)


@each_codec
def test_an_interrupted_fit_goes_on_to_the_same_bytes(make_zoo, tmp_path, monkeypatch, config):
    zoo, folders = make_zoo(), [tmp_path / "runs" / name for name in ("whole", "cut")]
    config = replace(config, training=replace(LOOP, accumulate=2, keep="best"))
    whole = fit(zoo, RunFolder(folders[0], config), config=config)
    asked = iter([False] * 6 + [True] * 3)
    with monkeypatch.context() as patched:
        for name in ("is_asked", "agreed"):
            patched.setattr(preemption, name, lambda: next(asked, False))
        with pytest.raises(Preempted):
            fit(zoo, RunFolder(folders[1], config), config=config)
    cut = fit(zoo, RunFolder(folders[1], config), config=config)
    for codec, folder in ((whole, folders[0]), (cut, folders[1])):
        codec.save(folder / "saved")
    for name in ("codec.safetensors", "codec.npz", "codec.json"):
        one, other = ((folder / "saved" / name).read_bytes() for folder in folders)
        assert one == other, name


@each_codec
def test_a_saved_codec_is_the_same(plant_zoo, run, tmp_path, config):
    zoo = positive(plant_zoo(batchnorm=True), tmp_path / "positive")
    codec = fit(zoo, run, config=replace(config, buffers=True))
    codec.save(tmp_path / "codec")
    loaded = Codec.load(tmp_path / "codec")
    weights = torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    assert torch.equal(loaded.encode(weights, zoo.layout).values, codes.values)
    assert torch.equal(loaded.decode(codes, zoo.layout), codec.decode(codes, zoo.layout))
    assert loaded.facts == json.loads(json.dumps(codec.facts)) and loaded.config == codec.config
    path = tmp_path / "codec" / "codec.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(RunConflict, match=r"codec.safetensors does not match its checksum"):
        Codec.load(tmp_path / "codec")


def test_another_layout_is_refused(plant_zoo, run):
    zoo, other = plant_zoo(), plant_zoo(name="other", hidden=7)
    with pytest.raises(ShapeMismatch, match="one architecture"):
        AutoencoderCodec(CONV).fit([(zoo, zoo.rows()), (other, other.rows())], [], run=run)
    with pytest.raises(ShapeMismatch, match=f"{other.layout.digest}.*{zoo.layout.digest}"):
        AutoencoderCodec(CONV).fit([(zoo, zoo.rows())], [(other, other.rows())], run=run)


# --- the task -----------------------------------------------------------------------------------


class Echo(torch.nn.Module):
    """Gives back half of what it sees, and notes the noise."""

    numbers, num_latents, seen = 55, 3, None

    def forward(self, x, noise=None, chunk=None):
        self.seen = x, noise
        return x / 2, x[:, :3], x[:, 3:6]


def task_of(zoo, config, train=None):
    rows = zoo.rows("train")
    numbers, _ = Numbers.fit([(zoo, rows)], chosen(zoo.layout, config), config=config)
    networks = train or Networks([(zoo, rows)], numbers)
    none = Networks([], numbers)
    return AutoencoderTask(
        config, Echo(), train=networks, val=none, device=torch.device("cpu"), seed=0
    )


def test_the_divergence_is_the_one_of_torch():
    mean, log_variance = torch.randn(4, 3), torch.randn(4, 3)
    ours = torch.distributions.Normal(mean, (log_variance / 2).exp())
    wanted = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0, 1)).sum(1)
    torch.testing.assert_close(divergence(mean, log_variance), wanted)


def test_the_loss_has_its_weight_of_the_divergence_which_rises(make_zoo):
    zoo = make_zoo(widths=(9, 4, 3))
    task = task_of(zoo, replace(VAE, kl=0.5, kl_steps=4))
    for step, weight in ((0, 0.125), (2, 0.375), (9, 0.5)):
        task.start(step, Share(batch_size=4))
        loss = task.loss(task.module, 4, generator=torch.Generator().manual_seed(0))
        x, _ = task.module.seen
        nats = divergence(x[:, :3], x[:, 3:6]).mean()
        torch.testing.assert_close(loss, (x / 2).square().mean() + weight * nats / 55)


def test_noise_is_of_the_range_and_mixed_noise_takes_its_place(make_zoo):
    zoo = make_zoo(widths=(9, 4, 3))
    task = task_of(zoo, replace(FOLDED, input_noise=(0.3,), latent_noise=(0.1, 0.5)))
    task.start(0, Share(batch_size=4))
    seen, kept = [], []
    for _ in range(40):
        task.loss(task.module, 4, generator=torch.Generator().manual_seed(len(kept)))
        seen.append(task.module.seen[0])
        kept.append(task.module.seen[1].kept.item())
        deviation = task.module.seen[1].added_BL.std().item()
        assert deviation < 4 * (1 - kept[-1])
    assert 0.5 <= min(kept) < 0.6 and 0.8 < max(kept) <= 0.9
    assert torch.cat(seen).var() == pytest.approx(0.7**2 + 0.3**2, rel=0.15)


@pytest.mark.parametrize("held", [True, False])
def test_ranks_see_one_batch_and_each_network_once_a_turn(make_zoo, monkeypatch, held):
    from dwf.codecs.autoencoder import task as module

    if not held:
        monkeypatch.setattr(module, "MOST_HELD", 0)
    zoo = make_zoo(count=20, widths=(9, 4, 3))
    config = replace(VAE, standardise="none", input_noise=(0.0,))
    rows = zoo.rows("train")
    wanted = zoo.read(rows)

    def seen(world, accumulate):
        found = []
        tasks = [task_of(zoo, config) for _ in range(world)]
        for rank, task in enumerate(tasks):
            task.start(0, Share(rank, world, batch_size=6, accumulate=accumulate))
        for _ in range(2):
            for _ in range(accumulate):
                for task in tasks:
                    task.loss(task.module, 0, generator=torch.Generator())
                    found.append(task.module.seen[0])
        return torch.cat(found)

    one = seen(1, 1)
    assert torch.equal(one, seen(2, 1)) and torch.equal(one, seen(1, 3))
    assert len(rows) == 12
    order = np.lexsort(one.numpy().T), np.lexsort(wanted.T)
    np.testing.assert_array_equal(one.numpy()[order[0]], wanted[order[1]])


def test_a_step_says_where_its_networks_are_of(make_zoo):
    zoo = make_zoo(widths=(9, 4, 3))
    assert f"of {zoo.path}" in task_of(zoo, VAE).describe(1)


# --- plans and settings -------------------------------------------------------------------------


@each_codec
def test_the_plan_is_what_is_trained(make_zoo, run, config):
    zoo = make_zoo()
    module = AutoencoderCodec.planned_module(config, [zoo.layout])
    codec = fit(zoo, run, config=config)
    assert sum(p.numel() for p in module.parameters()) == codec.facts["parameters"]
    with pytest.raises(ConfigError, match="no zoo is there"):
        AutoencoderCodec.planned_module(config, [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tensors": "bn[12"}, r"tensors = 'bn\[12' is no regular expression"),
        ({"latent_noise": [0.5, 0.1]}, r"latent_noise = \[0.5, 0.1\]: .*the smaller first"),
        ({"input_noise": []}, r"input_noise = \[\]: give one number"),
        ({"input_noise": [-1]}, "allowed is at least 0"),
        ({"noise_kind": "mixed", "latent_noise": [2]}, r"latent_noise = \[2.0\].*at most 1"),
        ({"kind": "vae", "kl": 0}, "allowed is above 0"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        build(CodecConfig, {"kind": "conv_autoencoder"} | settings, source="own.yaml")
