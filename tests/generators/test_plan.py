"""What is said before anything is made: sizes, engines, memory."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dwf.cluster.config import RankedLaunch
from dwf.codecs.sane.codec import SaneCodec
from dwf.codecs.tokens import TokensCodec
from dwf.compute import Gpus
from dwf.errors import ConfigError
from dwf.generators.config import GeneratorConfig
from dwf.generators.plan import parts_that_train, trains_on_ranks, with_engine
from dwf.generators.stage import fit_generator, plan
from dwf.networks.config import CNNConfig
from dwf.settings import Parsed, build, load
from dwf.training import forecast
from dwf.training.forecast import describe_speed
from dwf.training.task import Share

ROOT = Path(__file__).parents[2]


def parsed(
    codec: str, training: dict | None = None, density: dict | None = None, **flags
) -> Parsed:
    data = {"zoo": "small", "codec": {"kind": codec}, "density": density or {"kind": "kde"}}
    if training is not None:
        data["codec"]["training"] = training
    launch = RankedLaunch(Path("some.yaml"), **flags)
    return Parsed(build(GeneratorConfig, data, source="test"), launch, origins={})


def engines_of(config: GeneratorConfig) -> dict[str, str]:
    return {part: training.engine for part, training in parts_that_train(config).items()}


@pytest.mark.parametrize(
    ("training", "flags", "engine"),
    [
        ({}, {}, "plain"),
        ({"engine": "ddp"}, {}, "ddp"),
        ({}, {"engine": "ddp"}, "ddp"),
        ({"engine": "ddp"}, {"engine": "deepspeed"}, "deepspeed"),
        ({"engine": "ddp"}, {"engine": "plain"}, "plain"),
        ({}, {"nodes": 2}, "deepspeed"),
        ({"engine": "ddp"}, {"nodes": 2}, "ddp"),
    ],
)
def test_the_flag_wins_and_nodes_need_ranks(training, flags, engine):
    before = parsed("sane", training, **flags, all=True)
    after = with_engine(before)
    assert engines_of(after.config) == {"codec": engine}
    changed = engine != training.get("engine", "plain")
    assert after.origins == ({"codec.training.engine": "flag"} if changed else {})
    assert f"codec.training.engine {engine} (" in " ".join(after.describe().split())


@pytest.mark.parametrize(
    ("engine", "flags", "wanted"),
    [("plain", {}, "deepspeed"), ("ddp", {}, "ddp"), ("ddp", {"engine": "plain"}, "plain")],
)
def test_the_script_of_a_job_leaves_a_configurations_engine(monkeypatch, engine, flags, wanted):
    monkeypatch.setenv("DWF_RANKED", "yes")
    after = with_engine(parsed("sane", {"engine": engine}, **flags))
    assert engines_of(after.config) == {"codec": wanted}


FLOW = {"kind": "flow"}
MUON = {"kind": "flow", "training": {"optimizer": "muon"}}


@pytest.mark.parametrize(
    ("codec", "density", "flags", "engines"),
    [
        ("pca", FLOW, {}, {"density": "plain"}),
        ("pca", FLOW, {"engine": "ddp"}, {"density": "ddp"}),
        ("pca", FLOW, {"nodes": 2}, {"density": "deepspeed"}),
        ("pca", MUON, {"nodes": 2}, {"density": "ddp"}),  # which DeepSpeed does not take
        ("sane", FLOW, {"nodes": 2}, {"codec": "deepspeed", "density": "deepspeed"}),
        ("sane", MUON, {"nodes": 2}, {"codec": "deepspeed", "density": "ddp"}),
        ("sane", FLOW, {"engine": "ddp"}, {"codec": "ddp", "density": "ddp"}),
    ],
)
def test_all_that_trains_gets_an_engine(codec, density, flags, engines):
    after = with_engine(parsed(codec, density=density, **flags))
    assert engines_of(after.config) == engines
    changed = {f"{part}.training.engine" for part, engine in engines.items() if engine != "plain"}
    assert set(after.origins) == changed


def test_an_engine_that_a_density_does_not_take_is_refused_with_its_reason():
    with pytest.raises(ConfigError, match=r"density.training.engine = 'deepspeed': optimizer = mu"):
        with_engine(parsed("pca", density=MUON, engine="deepspeed"))


@pytest.mark.parametrize("flags", [{}, {"engine": "ddp"}])
def test_a_plan_names_what_trains_a_flow(tmp_path, flags):
    config = load(GeneratorConfig, ROOT / "configs" / "generator" / "digits_neurons.yaml")
    config = with_engine(
        Parsed(config, RankedLaunch(Path("some.yaml"), **flags), origins={})
    ).config
    batch = config.density.training.batch_size
    said = plan(config, tmp_path, name="g", ranks=2, gpus=Gpus(4, 80))
    ranks = 2 if flags else 1  # the first alone fits what is plain
    share = f"batch {batch} as {ranks} x 1 x {batch // ranks}"
    engine = flags.get("engine", "plain")
    assert re.search(rf"flow: [\d,]+ parameters; engine {engine}, ranks: {ranks}, {share}", said)
    assert "memory per GPU: weights" in said and "fits a GPU of 80 GiB" in said


@pytest.mark.parametrize(
    ("here", "device", "gpus", "each"),
    [
        (False, "auto", None, "process"),
        (True, "auto", None, "GPU"),
        (True, "cpu", None, "process"),
        (False, "cuda", None, "GPU"),
        (False, "auto", Gpus(4), "GPU"),
        (True, "auto", Gpus(0, 80), "process"),
        (True, "cpu", Gpus(4, 80), "process"),
    ],
)
def test_memory_is_that_of_what_computes(make_zoo, tmp_path, monkeypatch, here, device, gpus, each):
    """A GPU where this machine has one, or the site for which it is planned; else a process."""
    make_zoo(widths=(64, 16, 10))
    monkeypatch.setattr("torch.cuda.is_available", lambda: here)
    monkeypatch.setattr(forecast, "machine_bytes", lambda: 1000)
    said = plan(sane({"compute": {"device": device}}), tmp_path, name="g", gpus=gpus)
    assert re.findall(r"memory per (\w+): weights", said) == [each]
    assert "a GPU of" not in said
    assert ("of this machine it is refused" in said) == (each == "process" and gpus is None)


def test_a_deepspeed_file_that_a_job_would_not_find_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = {"deepspeed": "configs/deepspeed/zero1.json"}
    mine = {"deepspeed": str(tmp_path / "mine.json")}
    for settings in (shipped, mine):
        with_engine(parsed("sane", settings, nodes=2))
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(ConfigError, match=rf"'mine.json' is of this folder.*: give .* {tmp_path}"):
        with_engine(parsed("sane", {"deepspeed": "mine.json"}, nodes=2))
    with_engine(parsed("sane", mine, nodes=2))
    with_engine(parsed("sane", {"deepspeed": "mine.json"}))


@pytest.mark.parametrize(
    ("codec", "flags", "told"),
    [
        (
            "pca",
            {"engine": "ddp"},
            "--engine ddp: neither the codec pca nor the density kde trains",
        ),
        ("flat", {"nodes": 2}, "--nodes 2: neither the codec flat nor the density kde trains"),
        ("sane", {"nodes": 2, "engine": "plain"}, "--nodes 2 with --engine plain, which is one"),
    ],
)
def test_an_engine_with_nothing_to_train_is_refused(codec, flags, told):
    with pytest.raises(ConfigError, match=told):
        with_engine(parsed(codec, {} if codec == "sane" else None, **flags))


def test_a_codec_that_does_not_train_is_left_as_it_is():
    before = parsed("pca", engine="plain")
    assert with_engine(before) == before and not trains_on_ranks(before.config)


def test_sizes_of_a_zoo_that_is_not_there_are_those_of_its_settings(tmp_path):
    config = build(GeneratorConfig, {"zoo": "mnist_mlp-aligned"}, source="test")
    said = plan(config, tmp_path, name="g")
    assert "networks of 26,506 weights" in said and "not there yet: sizes as mnist_mlp.yaml" in said
    assert not list(tmp_path.iterdir())


def test_settings_are_understood_without_torch():
    program = (
        "import sys, dwf.generators.plan, dwf.cluster.ranked; assert 'torch' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def sane(training: dict, zoo: str = "small", **codec) -> GeneratorConfig:
    backbone = {"width": 64, "heads": 2, "depth": 2, "latent": 8, "positions": "sinusoidal"}
    backbone |= codec.pop("backbone", {})
    about = {"kind": "sane", "window": 16, "halo": 4, "backbone": backbone, "training": training}
    data = {"zoo": zoo, "codec": about | codec, "density": {"kind": "kde"}}
    return build(GeneratorConfig, data, source="test")


def memory_of(said: str) -> dict[str, float]:
    (line,) = re.findall(r"^memory per (?:GPU|process): (.*) MiB$", said, re.MULTILINE)
    return {name: float(size) for name, size in (part.split() for part in line.split(", "))}


def test_a_long_transformers_plan_tells_activations_and_steps_an_hour(make_zoo, tmp_path):
    layout = make_zoo(widths=(64, 256, 10)).layout
    training = {"batch_size": 8, "engine": "deepspeed"}

    def told(**backbone):
        about = {"kind": "long_transformer", "width": 64, "heads": 2, "window": 32} | backbone
        density = {"kind": "flow", "backbone": about, "training": training}
        data = {"zoo": "small", "codec": {"kind": "tokens", "size": 32}, "density": density}
        config = build(GeneratorConfig, data, source="test")
        said = plan(config, tmp_path, name="g", ranks=2, gpus=Gpus(4, 0.01))
        return config, said, memory_of(said)

    config, said, need = told()
    shape = TokensCodec.planned_shape(config.codec, [layout], num_train=9)
    backbone = config.density.backbone
    micro = 8 / 2
    wanted = 4 * micro * backbone.kept_numbers(shape) / 2**20
    assert need["activations"] == pytest.approx(wanted, abs=0.01)
    steps = 0.4 * 989e12 * 3600 / (6 * micro * backbone.multiplications(shape))
    assert f"steps an hour: {steps:,.0f} at 40% of 989 TFLOP/s a GPU" in said
    assert steps > 3.6e6 and "under 1 ms of arithmetic a step" in said
    assert "under 1 ms" not in describe_speed(1e12, Share(batch_size=8))
    assert "ZeRO stage 2), ranks: 2" in said and "--density.backbone.checkpointing" in said
    _, said, less = told(checkpointing=True)
    assert less["activations"] < 0.6 * need["activations"] and "backbone.checkpoint" not in said
    with pytest.raises(ConfigError, match=r"window = 9999, .* set it to at most \d+"):
        told(window=9999)


def test_memory_is_that_of_the_codecs_own_module(make_zoo, tmp_path):
    """Of one process: weights, gradients and two moments, four bytes each."""
    layout = make_zoo(widths=(64, 256, 10)).layout
    config = sane({"batch_size": 64}, backbone={"width": 256})
    num = sum(p.numel() for p in SaneCodec.planned_module(config.codec, [layout]).parameters())
    said = plan(config, tmp_path, name="g")
    assert f"sane: {num:,} parameters; engine plain, ranks: 1, batch 64 as 1 x 1 x 64" in said
    need = memory_of(said)
    for name, size in (("weights", 4), ("gradients", 4), ("optimizer", 8)):
        assert need[name] == pytest.approx(size * num / 2**20, abs=0.06)
    assert need["activations"] > need["weights"]


def test_what_ranks_share_and_what_helps(make_zoo, tmp_path):
    make_zoo(widths=(64, 256, 10))
    training = {"batch_size": 64, "accumulate": 2, "engine": "deepspeed"}
    config = sane(training, backbone={"width": 256})
    alone = memory_of(plan(config, tmp_path, name="g"))
    said = plan(config, tmp_path, name="g", ranks=8, gpus=Gpus(4, 80))
    assert "ZeRO stage 2), ranks: 8, batch 64 as 8 x 2 x 4" in said
    assert "fits a GPU of 80 GiB" in said
    shared = memory_of(said)
    assert shared["optimizer"] == pytest.approx(alone["optimizer"] / 8, abs=0.1)
    assert shared["activations"] == pytest.approx(alone["activations"] / 8, abs=0.1)
    said = plan(config, tmp_path, name="g", ranks=1, gpus=Gpus(4, 0.01))
    assert "does NOT fit a GPU of 0.01 GiB" in said and "--codec.backbone.checkpointing" in said
    assert "configs/deepspeed/zero3.json" in said
    with pytest.raises(ConfigError, match=r"training.batch_size = 64 cannot be shared by 3 ranks"):
        plan(config, tmp_path, name="g", ranks=3)


def test_a_contrast_needs_two_windows_in_a_micro_batch(make_zoo, tmp_path):
    """With one, all it is told apart from is itself: the loss would be 0, in silence."""
    make_zoo(widths=(64, 256, 10))
    training = {"batch_size": 8, "engine": "ddp"}
    with pytest.raises(ConfigError, match=r"batch_size = 8 over 8 ranks .* leaves one window in"):
        plan(sane(training), tmp_path, name="g", ranks=8)
    assert "8 x 1 x 1" in plan(sane(training, contrast=0), tmp_path, name="g", ranks=8)


def test_parameters_need_no_zoo_where_the_settings_say_all(tmp_path):
    known = sane(
        {}, backbone={"positions": "learned", "max_positions": [99, 9, 40]}, tokens={"size": 20}
    )
    assert re.search(
        r"no sizes are known\nsane: [\d,]+ parameters", plan(known, tmp_path, name="g")
    )
    said = plan(sane({}), tmp_path, name="g")
    assert "sane: parameters and memory are not known yet: codec.tokens.size is not set" in said


@pytest.mark.parametrize(
    ("preset", "positions", "advised"),
    [
        ("mnist_neurons", True, False),
        ("mnist_neurons", False, True),  # two hidden layers
        ("cnn_digits_neurons", False, True),
        ("digits_neurons", False, False),  # one
        ("digits_flat", None, False),
    ],
)
def test_positions_are_advised_where_the_order_of_a_layer_would_be_lost(
    preset, positions, advised, tmp_path
):
    config = load(GeneratorConfig, ROOT / f"configs/generator/{preset}.yaml")
    if positions is not None:
        told = {"positions": positions, "last_exchangeable": positions}
        backbone = dataclasses.replace(config.density.backbone, **told)
        density = dataclasses.replace(config.density, backbone=backbone)
        config = dataclasses.replace(config, density=density)
    lines = plan(config, tmp_path, name="g")
    assert ("WARNING: the networks have 2 hidden layers" in lines) == advised


def graph_of(zoo: str, **codec) -> GeneratorConfig:
    backbone = {"kind": "neural_graph", "width": 4}
    data = {"zoo": zoo, "codec": codec, "density": {"kind": "flow", "backbone": backbone}}
    return build(GeneratorConfig, data, source="test")


@pytest.mark.parametrize("codec", [{"kind": "neurons", "scale": "logarithm"}, {"kind": "tokens"}])
def test_a_graph_is_of_neurons_in_their_own_scale(codec):
    with pytest.raises(ConfigError, match=r"'neural_graph' reads weights and biases off the"):
        graph_of("small", **codec)


def test_a_graph_is_of_linear_layers_alone(make_zoo, tmp_path):
    """One convolution has tokens like a linear layer's, of other meaning."""
    zoo = make_zoo(network=CNNConfig((4,), (1, 8, 8)), name="convolution")
    for act in (
        lambda c: plan(c, tmp_path, name="g"),
        lambda c: fit_generator(c, tmp_path, name="bad"),
    ):
        with pytest.raises(ConfigError, match=rf"{zoo.layout.entries[0].name} has shape \(4, 1, "):
            act(graph_of("convolution", kind="neurons"))
    assert not list(tmp_path.glob("runs/*/density"))
    make_zoo(name="linear")
    assert "backbone neural_graph of" in plan(
        graph_of("linear", kind="neurons"), tmp_path, name="g"
    )
