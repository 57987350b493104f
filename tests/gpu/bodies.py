"""What the tests of the GPU do, told the device: `tests/test_device_bodies.py` does it on the CPU.

Each body is `(device, folder)`, device `cuda` or `cpu`. It holds what the device computed against
an independent answer on the CPU: a textbook loop, torch's unfused optimisers, the same generator.

Shape suffixes: N networks, D numbers of a network, B images of a batch.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from dwf.align.config import AlignConfig
from dwf.align.stage import align_zoo
from dwf.backbones.config import ResidualMLPConfig, TokenAutoencoderConfig, TransformerConfig
from dwf.codecs.config import (
    NeuronsConfig,
    PcaConfig,
    SaneComputeConfig,
    SaneConfig,
    SaneLoopConfig,
    SaneTokensConfig,
)
from dwf.codecs.sane import SaneCodec
from dwf.datasets.config import DataConfig
from dwf.densities.config import FlowConfig, SolverConfig
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.generator import Generator
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.metrics import read_metrics
from dwf.networks.config import CifarResNetConfig, MLPConfig, NetworkConfig, ViTConfig
from dwf.networks.functional import build_network, run_networks
from dwf.networks.initialisation import initialise
from dwf.randomness import torch_stream
from dwf.run_folder import RunFolder
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.zoo import roster
from dwf.zoo.cohorts import Cohort
from dwf.zoo.config import RecipeConfig, ZooComputeConfig, ZooConfig
from dwf.zoo.layout import Layout
from dwf.zoo.stage import train_zoo
from dwf.zoo.store import Zoo
from tests.ranked import launch_jobs, losses
from tests.zoo.convolutional import NORMED, PLAIN, config, images, trained, weights_of

NETWORKS: dict[str, NetworkConfig] = {
    "mlp": MLPConfig((192, 16, 3)),
    "cnn": PLAIN,
    "cnn_batchnorm": NORMED,
    "resnet20": CifarResNetConfig(depth=8, width=4, classes=3),
    "vit": ViTConfig(image=8, patch=4, width=12, depth=1, heads=3, classes=3),
}
_OPTIMIZERS = {
    "sgd": lambda p, **how: torch.optim.SGD(p, momentum=0.9, foreach=False, **how),
    "adam": lambda p, **how: torch.optim.Adam(p, foreach=False, fused=False, **how),
    "adamw": lambda p, **how: torch.optim.AdamW(p, foreach=False, fused=False, **how),
}
_EPOCHS, _BATCH = 2, 16


def zoo_of(network: NetworkConfig, optimizer: str = "adam", **changes) -> ZooConfig:
    """Settings of a zoo on `images()`, two epochs of four steps."""
    recipe = RecipeConfig(
        epochs=_EPOCHS,
        batch_size=_BATCH,
        learning_rate=0.01,
        optimizer=optimizer,
        momentum=0.9 if optimizer == "sgd" else 0.0,
        weight_decay=0.01,
    )
    return config(network, recipe=recipe, **changes)


def by_textbook(zoo: ZooConfig, network: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Initial and final weights of one network, trained on the CPU as a tutorial would."""
    module = build_network(zoo.network).train()
    seed = roster.network_seed(zoo, network)
    kind = roster.hyper_parameters(zoo, [network])["initialisation"][0].item()
    initialise(module, zoo.network, kind=kind, seed=seed)
    layout = Layout.of(module)
    begun = layout.flatten(module.state_dict()).clone()
    recipe, data = zoo.recipe, images()
    make = _OPTIMIZERS[recipe.optimizer]
    optimizer = make(module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    for epoch in range(_EPOCHS):
        stream = torch_stream(zoo.seed, "shuffle", network, epoch)
        for rows in torch.randperm(len(data.train), generator=stream).split(_BATCH):
            pictures, labels = data.train.batch(rows)
            optimizer.zero_grad()
            cross_entropy(module(data.prepare(pictures)), labels).backward()
            optimizer.step()
    return begun, layout.flatten(module.state_dict()).clone()


def off_by(found_ND: np.ndarray, zoo: ZooConfig, networks: range) -> float:
    """The largest distance of a network from the textbook's, as a share of the way it went."""
    shares = []
    for row, network in zip(found_ND, networks, strict=True):
        begun, wanted = by_textbook(zoo, network)
        shares.append(float((torch.from_numpy(row) - wanted).norm() / (wanted - begun).norm()))
    return max(shares)


def trains_as_a_textbook(
    device: str, folder: Path, *, network: str, optimizer: str = "adam", num: int = 3, **method
) -> None:
    """A cohort, batched if it has several networks, ends where the textbook's loops end."""
    zoo = zoo_of(NETWORKS[network], optimizer)
    cohort = trained(zoo, range(num), folder=folder, device=device, **method)
    assert off_by(weights_of(cohort, _EPOCHS), zoo, range(num)) < 0.02


def trains_in_bf16(device: str, folder: Path) -> None:
    """In bf16 a cohort goes nearly the same way, and not exactly."""
    zoo = zoo_of(NETWORKS["cnn"], "sgd")
    cohort = trained(zoo, range(3), folder=folder, device=device, precision="bf16")
    assert 1e-5 < off_by(weights_of(cohort, _EPOCHS), zoo, range(3)) < 0.3


def goes_on_as_if_never_stopped(device: str, folder: Path) -> None:
    """A cohort that is stopped within an epoch and goes on ends at the same weights."""
    zoo = zoo_of(NETWORKS["mlp"])
    whole = weights_of(trained(zoo, range(4), folder=folder / "whole", device=device), _EPOCHS)
    with _stopped_at_save(), contextlib.suppress(_Stopped):
        trained(zoo, range(4), folder=folder / "cut", device=device)
    assert list((folder / "cut").glob("*.pt")), "it was saved on its way"
    again = trained(zoo, range(4), folder=folder / "cut", device=device)
    np.testing.assert_allclose(weights_of(again, _EPOCHS), whole, rtol=1e-5, atol=1e-6)


class _Stopped(Exception):
    pass


@contextlib.contextmanager
def _stopped_at_save() -> Iterator[None]:
    """Within the block a cohort ends right after its first save, which is after a step."""
    save, step = Cohort._save, Cohort._step

    def save_and_stop(self: Cohort) -> None:
        save(self)
        raise _Stopped

    def step_and_save(self: Cohort, positions: torch.Tensor) -> None:
        step(self, positions)
        self._saved_at = float("-inf")  # a save is due

    Cohort._save, Cohort._step = save_and_stop, step_and_save
    try:
        yield
    finally:
        Cohort._save, Cohort._step = save, step


# --- stages --------------------------------------------------------------------------------


def small_zoo(device: str, root: Path, network: NetworkConfig | None = None) -> Zoo:
    """Ten networks on the digits, in `root/zoos/small`, trained on the device."""
    settings = ZooConfig(
        network=network or MLPConfig((64, 8, 10)),
        data=DataConfig("digits", validation=0.2),
        count=12,
        recipe=RecipeConfig(epochs=2, batch_size=128, learning_rate=0.02),
        compute=ZooComputeConfig(device=device),
    )
    return train_zoo(settings, root, name="small")


def outputs(zoo: Zoo, device: str) -> torch.Tensor:
    """Logits of all networks of a zoo on made inputs, computed on the device."""
    network = build_network(zoo.facts.network).to(device)
    rows = torch.from_numpy(np.array(zoo.read(np.arange(len(zoo)))))
    inputs = torch.randn(16, *zoo.input_shape, generator=torch.Generator().manual_seed(0))
    state = {name: t.to(device) for name, t in zoo.layout.unflatten(rows).items()}
    with torch.no_grad():
        return run_networks(network, state, inputs=inputs.to(device)).cpu()


def trains_a_zoo_and_aligns_it(device: str, root: Path) -> None:
    """A zoo says on which device it was trained; aligned, its networks compute what they did."""
    zoo = small_zoo(device, root)
    assert zoo.facts.to_json()["method"]["device"] == device
    assert zoo.columns["val_accuracy"].mean() > 0.3
    aligned = align_zoo(AlignConfig(zoo="small", num_pairs=4), root, name="small-aligned")
    torch.testing.assert_close(outputs(aligned, device), outputs(zoo, device), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(outputs(zoo, device), outputs(zoo, "cpu"), rtol=1e-3, atol=1e-4)
    distances = np.linalg.norm(aligned.read(np.arange(len(zoo))) - aligned.read([0]), axis=1)
    before = np.linalg.norm(zoo.read(np.arange(len(zoo))) - zoo.read([0]), axis=1)
    assert distances[1:].mean() < before[1:].mean()


def loop_of(device: str, steps: int, **changes) -> LoopConfig:
    """Settings of a short training on the device."""
    given = {"batch_size": 4, "validate_every": steps // 2, "learning_rate": 1e-2, "warm_up": 2}
    compute = changes.pop("compute", {})
    loop = LoopComputeConfig(device=device, threads=1, **compute)
    return LoopConfig(steps=steps, **given | changes, compute=loop)


def flow_of(device: str, codec: str, *, steps: int = 100, **changes) -> GeneratorConfig:
    """A flow on principal components, or on tokens of units by a transformer."""
    tokens = codec == "neurons"
    backbone = TransformerConfig(16, 1, 2) if tokens else ResidualMLPConfig(width=16, depth=1)
    density = FlowConfig(
        backbone=backbone,
        training=loop_of(device, steps, **changes),
        solver=SolverConfig(method="midpoint", steps=4),
    )
    return GeneratorConfig(
        zoo="small", codec=NeuronsConfig() if tokens else PcaConfig(components=4), density=density
    )


def flow_learns_and_draws(device: str, root: Path, *, codec: str, **changes) -> None:
    """The loss falls; samples are those that the CPU draws with the same flow and noise."""
    small_zoo("cpu", root)
    where = device if device == "cpu" else "auto"
    generator = fit_generator(flow_of(where, codec, **changes), root, name="flow")
    lines = read_metrics(root / "runs" / "flow" / "metrics.jsonl")
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    assert generator.density.device.type == device
    found_ND = generator.sample(5, 3)
    assert found_ND.isfinite().all()
    with without_gpu():
        alone = Generator.load(root / "runs" / "flow")
        assert alone.density.device.type == "cpu"
        wanted_ND = alone.sample(5, 3)
    torch.testing.assert_close(found_ND.cpu(), wanted_ND, rtol=1e-2, atol=1e-3)
    drawn = sample_networks(SampleConfig("flow", count=5, seed=3), root, name="drawn")
    read_ND = torch.from_numpy(np.array(drawn.read(np.arange(5))))
    torch.testing.assert_close(read_ND, found_ND.cpu(), rtol=1e-2, atol=1e-3)


@contextlib.contextmanager
def without_gpu() -> Iterator[None]:
    """Within the block torch shows no GPU, so that `auto` is the CPU."""
    before, torch.cuda.is_available = torch.cuda.is_available, lambda: False
    try:
        yield
    finally:
        torch.cuda.is_available = before


def sane_learns(device: str, root: Path, *, workers: int | None, precision: str) -> None:
    """SANE's loss falls; what its codec gives back on the device is what it gives on the CPU."""
    zoo = small_zoo("cpu", root)
    rows = zoo.rows("train")
    settings = SaneConfig(
        tokens=SaneTokensConfig(17),
        backbone=TokenAutoencoderConfig(width=32, heads=2, depth=1, latent=12),
        training=SaneLoopConfig(
            steps=20,
            batch_size=8,
            learning_rate=3e-3,
            validate_every=10,
            compute=SaneComputeConfig(device=device, workers=workers, precision=precision),
        ),
        window=20,
        halo=4,
        val_windows=16,
    )
    run = RunFolder(root / "runs" / "sane", settings)
    codec = SaneCodec(settings).fit([(zoo, rows)], [(zoo, zoo.rows("val"))], run=run)
    lines = read_metrics(run.path / "codec" / "metrics.jsonl")
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    weights_ND = torch.from_numpy(np.array(zoo.read(rows)))
    again_ND = codec.decode(codec.encode(weights_ND, zoo.layout), zoo.layout)
    folder = root / "codec"
    codec.save(folder)
    elsewhere = type(codec).load(folder)
    elsewhere.module.cpu()
    other_ND = elsewhere.decode(elsewhere.encode(weights_ND, zoo.layout), zoo.layout)
    torch.testing.assert_close(again_ND.cpu(), other_ND.cpu(), rtol=1e-2, atol=1e-3)


Body = Callable[[str, Path], None]


def _body(call: Callable[..., None], **how) -> Body:
    return lambda device, folder: call(device, folder, **how)


BODIES: dict[str, Body] = {
    **{f"batched_{name}": _body(trains_as_a_textbook, network=name) for name in NETWORKS},
    **{
        f"fused_{name}": _body(trains_as_a_textbook, network="mlp", optimizer=name)
        for name in ("sgd", "adamw")
    },
    "one_by_one": _body(trains_as_a_textbook, network="cnn_batchnorm", num=1),
    "channels_last": _body(
        trains_as_a_textbook, network="cnn_batchnorm", num=1, channels_last=True
    ),
    "zoo_bf16": trains_in_bf16,
    "zoo_goes_on": goes_on_as_if_never_stopped,
    "zoo_and_alignment": trains_a_zoo_and_aligns_it,
    "flow": _body(flow_learns_and_draws, codec="pca"),
    "token_flow": _body(flow_learns_and_draws, codec="neurons"),
    "flow_bf16": _body(flow_learns_and_draws, codec="neurons", compute={"precision": "bf16"}),
    "sane": _body(sane_learns, workers=0, precision="float32"),
    "sane_bf16": _body(sane_learns, workers=0, precision="bf16"),
}
"""Name -> what is also done on the CPU by the default tests."""
SLOW_BODIES: dict[str, Body] = {
    "compiled": _body(trains_as_a_textbook, network="cnn", compile=True),
    "sane_beside_processes": _body(sane_learns, workers=2, precision="float32"),
    "compiled_flow": _body(flow_learns_and_draws, codec="pca", compute={"compile": True}),
}
"""What is done on the CPU by the tests marked `slow`: compilers and processes take their time."""


# --- processes of their own ----------------------------------------------------------------


def adds_up(device: str, folder: Path) -> str:
    """A process that is alone adds up numbers on its device; returns what it said."""
    ran = launch_jobs(1, "tests.gpu.ranked", folder, {"name": "sum", "device": device})
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{device}: [0.0, 1.0, 2.0, 3.0]" in ran.stdout
    return ran.stdout


def shares_by_deepspeed(device: str, root: Path) -> None:
    """A flow under ZeRO 1 to 3 in one process loses what it loses without."""
    small_zoo("cpu", root)
    zero = [f"zero{stage}" for stage in (1, 2, 3)]
    jobs = [{"name": "plain", "device": device}]
    for name in zero:
        file = f"configs/deepspeed/{name}.json"
        jobs.append({"name": name, "device": device, "engine": "deepspeed", "deepspeed": file})
    ran = launch_jobs(1, "tests.gpu.ranked", root, *jobs)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    wanted = losses(root / "runs", "plain")
    assert wanted[-1] != wanted[0]
    for name in zero:
        np.testing.assert_allclose(losses(root / "runs", name), wanted, rtol=1e-3)
