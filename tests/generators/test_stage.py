"""Fitting and sampling: what is recorded and refused; stopped anywhere, the same bytes follow."""

import dataclasses
import json
import logging
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dwf import preemption
from dwf.codecs.config import PcaConfig
from dwf.densities.base_config import AutoguidanceConfig
from dwf.errors import ConfigError, NotAZoo, Preempted, RunConflict, TooFewNetworks, WorkFailed
from dwf.generators import generator as module
from dwf.generators.config import SampleConfig
from dwf.generators.generator import Generator
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator, plan
from dwf.settings import to_dict
from dwf.training.config import LoopComputeConfig
from dwf.zoo.store import Zoo

ROOT = Path(__file__).parents[2]


def files(folder: Path, *names: str) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def test_fit_records_what_it_measured(make_zoo, tmp_path, flow_on_pca):
    zoo = make_zoo()
    fit_generator(flow_on_pca, tmp_path, name="fitted")
    summary = json.loads((tmp_path / "runs" / "fitted" / "done.json").read_text())
    assert summary["codec"]["networks"] == len(zoo.rows(split="train"))
    assert 0 < summary["codec"]["variance_captured_held_out"] < 1
    assert 0 < summary["codec"]["round_trip"]["relative"] <= 1
    assert summary["density"]["val_loss"] > 0 and summary["density"]["steps"] == 30


def test_a_finished_fit_is_left_alone(make_zoo, tmp_path, flow_on_pca, caplog):
    make_zoo()
    first = fit_generator(flow_on_pca, tmp_path, name="fitted")
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.npy")}
    with caplog.at_level(logging.INFO):
        again = fit_generator(flow_on_pca, tmp_path, name="fitted")
    assert "generator fitted is finished already" in caplog.text
    assert written == {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.npy")}
    assert torch.equal(again.sample(2, seed=0), first.sample(2, seed=0))


def test_only_training_networks_are_learnt_from(make_zoo, tmp_path, gaussian_on_weights):
    zoo = make_zoo()
    generator = fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    mean = zoo.read(zoo.rows(split="train")).astype(np.float64).mean(0)
    np.testing.assert_allclose(generator.codec.arrays["template_D"], mean, rtol=1e-6)


def test_refuses_other_settings_and_another_zoo_of_the_name(make_zoo, tmp_path, flow_on_pca):
    make_zoo()
    fit_generator(flow_on_pca, tmp_path, name="fitted")
    with pytest.raises(RunConflict, match=r"codec\.components = 5, this one has 4"):
        other = dataclasses.replace(flow_on_pca, codec=PcaConfig(components=4))
        fit_generator(other, tmp_path, name="fitted")
    make_zoo(seed=1)  # same name, other networks
    with pytest.raises(RunConflict, match=r"learnt from a zoo small of fingerprint"):
        fit_generator(flow_on_pca, tmp_path, name="fitted")


def test_refuses_too_few_networks(make_zoo, tmp_path, flow_on_pca):
    make_zoo(count=8)
    with pytest.raises(TooFewNetworks, match="components = 5, but 4 training networks"):
        fit_generator(flow_on_pca, tmp_path, name="few")
    make_zoo(count=0, name="none")
    with pytest.raises(TooFewNetworks, match="none: 0 networks"):
        fit_generator(dataclasses.replace(flow_on_pca, zoo="none"), tmp_path, name="none")
    make_zoo(count=4, name="batch")
    codec = PcaConfig(components=1)
    with pytest.raises(TooFewNetworks, match="batch_size = 4"):
        config = dataclasses.replace(flow_on_pca, zoo="batch", codec=codec)
        fit_generator(config, tmp_path, name="batch")


def test_refuses_a_zoo_that_is_not_there(tmp_path, flow_on_pca):
    with pytest.raises(NotAZoo, match="small"):
        fit_generator(flow_on_pca, tmp_path, name="fitted")


FIT = """
import sys
from pathlib import Path
import torch, yaml
torch.set_num_threads(1)
from dwf.generators.config import GeneratorConfig
from dwf.generators.stage import fit_generator
from dwf.settings import build
from dwf.training import loop
update = loop._Loop._update
def slow(self):
    import time
    time.sleep(0.05)
    update(self)
loop._Loop._update = slow
root = Path(sys.argv[1])
config = build(GeneratorConfig, yaml.safe_load((root / "config.yaml").read_text()), source="config")
fit_generator(config, root, name="killed")
"""


def test_killed_in_training_it_goes_on_to_the_same_bytes(make_zoo, tmp_path, flow_on_pca):
    make_zoo()
    compute = LoopComputeConfig(device="cpu", save_seconds=0.0, threads=1)
    training = dataclasses.replace(flow_on_pca.density.training, compute=compute)
    density = dataclasses.replace(flow_on_pca.density, training=training)
    config = dataclasses.replace(flow_on_pca, density=density)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_dict(config)))
    folder = tmp_path / "runs" / "killed"
    child = subprocess.Popen(
        [sys.executable, "-c", FIT, str(tmp_path)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not list(folder.glob("checkpoints/step-0000001*.pt")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (folder / "done.json").exists()
    resumed = fit_generator(config, tmp_path, name="killed")
    straight = fit_generator(config, tmp_path, name="straight")
    assert torch.equal(resumed.sample(5, seed=1), straight.sample(5, seed=1))
    names = "codec/components.npy", "codec/codec.npz", "codec/codec.json", "generator.json"
    assert files(folder, *names) == files(tmp_path / "runs" / "straight", *names)


def test_a_finished_fit_keeps_no_checkpoints_and_is_made_again_to_the_same_bytes(
    make_zoo, tmp_path, flow_on_pca
):
    make_zoo()
    first = fit_generator(flow_on_pca, tmp_path, name="fitted").sample(5, seed=1)
    folder = tmp_path / "runs" / "fitted"
    assert not (folder / "checkpoints").exists()
    assert torch.equal(fit_generator(flow_on_pca, tmp_path, name="fitted").sample(5, seed=1), first)
    (file,) = [file for file in (folder / "density").iterdir() if file.suffix == ".pt"]
    file.unlink()
    assert torch.equal(fit_generator(flow_on_pca, tmp_path, name="fitted").sample(5, seed=1), first)
    compute = dataclasses.replace(flow_on_pca.density.training.compute, keep_checkpoints=True)
    training = dataclasses.replace(flow_on_pca.density.training, compute=compute)
    density = dataclasses.replace(flow_on_pca.density, training=training)
    fit_generator(dataclasses.replace(flow_on_pca, density=density), tmp_path, name="kept")
    assert list((tmp_path / "runs" / "kept" / "checkpoints").glob("step-*.pt"))


def test_samples_are_a_zoo_that_says_where_it_is_from(make_zoo, tmp_path, flow_on_pca):
    zoo = make_zoo()
    generator = fit_generator(flow_on_pca, tmp_path, name="fitted")
    samples = sample_networks(SampleConfig("fitted", count=6, seed=2), tmp_path, name="drawn")
    samples.verify()
    np.testing.assert_array_equal(samples.read(), generator.sample(6, seed=2).numpy())
    assert samples.layout == zoo.layout
    assert samples.columns["network"].tolist() == list(range(6))
    assert set(samples.columns["split"]) == {"sample"} and set(samples.columns["seed"]) == {2}
    assert samples.facts.network == zoo.facts.network
    assert samples.facts.data == zoo.facts.data
    provenance = samples.facts.sampled
    assert provenance.generator == "fitted" and provenance.zoo == "small"
    assert (provenance.solver, provenance.steps) == ("midpoint", 4)
    assert provenance.evaluations_per_sample == 8
    assert samples.build_network() is not None


def test_a_temperature_is_recorded_and_refused_where_no_noise_flows(
    make_zoo, tmp_path, flow_on_pca, gaussian_on_weights
):
    make_zoo(60)
    fit_generator(flow_on_pca, tmp_path, name="fitted")
    spread = []
    for temperature in (1.0, 0.2):
        config = SampleConfig("fitted", count=40, temperature=temperature)
        drawn = sample_networks(config, tmp_path, name=f"drawn-{temperature}")
        spread.append(drawn.read().std(0).mean())
        own = None if temperature == 1 else temperature
        assert drawn.facts.sampled.temperature == own
    assert spread[1] < 0.5 * spread[0]
    fit_generator(gaussian_on_weights, tmp_path, name="gaussian")
    with pytest.raises(ConfigError, match=r"temperature = 0.2.*density of gaussian is gaussian"):
        sample_networks(dataclasses.replace(config, generator="gaussian"), tmp_path, name="refused")
    assert not (tmp_path / "zoos" / "refused").exists()


def test_a_lead_away_from_the_younger_self_is_counted_recorded_and_refused_without_one(
    make_zoo, tmp_path, flow_on_pca
):
    make_zoo(60)
    fit_generator(flow_on_pca, tmp_path, name="plain")
    density = dataclasses.replace(flow_on_pca.density, autoguidance=AutoguidanceConfig())
    generator = fit_generator(
        dataclasses.replace(flow_on_pca, density=density), tmp_path, name="guided"
    )
    for weight, evaluations in ((None, 16), (1.0, 8), (3.0, 16)):
        config = SampleConfig("guided", count=5, seed=2, autoguidance=weight)
        drawn = sample_networks(config, tmp_path, name=f"drawn-{weight}")
        told = drawn.facts.sampled
        assert (told.autoguidance, told.evaluations_per_sample) == (weight, evaluations)
        given = {} if weight is None else {"autoguidance": weight}
        np.testing.assert_array_equal(drawn.read(), generator.sample(5, seed=2, **given).numpy())
    with pytest.raises(ConfigError, match=r"autoguidance = 3: plain was fitted with .* null"):
        sample_networks(dataclasses.replace(config, generator="plain"), tmp_path, name="refused")
    assert not (tmp_path / "zoos" / "refused").exists()


def test_solver_and_steps_can_be_chosen(make_zoo, tmp_path, flow_on_pca):
    make_zoo()
    generator = fit_generator(flow_on_pca, tmp_path, name="fitted")
    config = SampleConfig("fitted", count=5, solver="euler", steps=3)
    samples = sample_networks(config, tmp_path, name="drawn")
    expected = generator.sample(5, seed=0, method="euler", steps=3)
    np.testing.assert_array_equal(samples.read(), expected.numpy())
    assert samples.facts.sampled.evaluations_per_sample == 3


def test_a_solver_setting_without_effect_is_refused(
    make_zoo, tmp_path, flow_on_pca, gaussian_on_weights
):
    make_zoo()
    fit_generator(flow_on_pca, tmp_path, name="flow")
    fit_generator(gaussian_on_weights, tmp_path, name="gaussian")
    with pytest.raises(ConfigError, match="gaussian, which has no solver"):
        sample_networks(SampleConfig("gaussian", solver="euler"), tmp_path, name="drawn")
    with pytest.raises(ConfigError, match="steps = 3: dopri5 chooses its own"):
        sample_networks(SampleConfig("flow", solver="dopri5", steps=3), tmp_path, name="drawn")
    assert not (tmp_path / "zoos" / "drawn").exists()
    samples = sample_networks(SampleConfig("gaussian", count=2), tmp_path, name="drawn")
    assert samples.facts.sampled.solver is None


def test_stopped_in_writing_it_draws_the_same_bytes_again(
    make_zoo, tmp_path, gaussian_on_weights, monkeypatch
):
    zoo = make_zoo()
    fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * zoo.layout.size * 2)
    draw = Generator.sample

    def break_at_the_third_block(self, count, seed, *, first=0, **solver):
        if first == 4:
            raise KeyboardInterrupt
        return draw(self, count, seed, first=first, **solver)

    config = SampleConfig("fitted", count=7)
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(Generator, "sample", break_at_the_third_block)
        sample_networks(config, tmp_path, name="stopped")
    with pytest.raises(NotAZoo):
        Zoo.open(tmp_path / "zoos" / "stopped")
    leftover = tmp_path / "zoos" / "stopped" / "shard-00000-of-00001.h5.partial-0123456789ab"
    leftover.write_bytes(b"killed")
    sample_networks(config, tmp_path, name="stopped")
    sample_networks(config, tmp_path, name="straight")
    names = "zoo.json", "shard-00000-of-00001.h5"
    stopped, straight = (tmp_path / "zoos" / name for name in ("stopped", "straight"))
    assert files(stopped, *names) == files(straight, *names)
    assert not leftover.exists()


def test_samples_that_are_not_finite_are_counted_and_refused(
    make_zoo, tmp_path, gaussian_on_weights, monkeypatch
):
    zoo = make_zoo()
    fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * zoo.layout.size * 2)
    draw = Generator.sample

    def break_two(self, count, seed, *, first=0, **solver):
        weights = draw(self, count, seed, first=first, **solver)
        for number, value in ((3, float("nan")), (6, float("inf"))):
            if first <= number < first + count:
                weights[number - first, 5] = value
        return weights

    monkeypatch.setattr(Generator, "sample", break_two)
    with pytest.raises(WorkFailed, match=r"2 of 9 samples .* not finite \(first: sample 3\)"):
        sample_networks(SampleConfig("fitted", count=9), tmp_path, name="drawn")
    assert not list((tmp_path / "zoos" / "drawn").glob("*.h5*"))


def test_finished_samples_are_left_alone_unless_the_generator_is_another(
    make_zoo, tmp_path, gaussian_on_weights, caplog
):
    make_zoo()
    fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    config = SampleConfig("fitted", count=2)
    sample_networks(config, tmp_path, name="drawn")
    with caplog.at_level(logging.INFO):
        sample_networks(config, tmp_path, name="drawn")
    assert "zoo drawn is finished already" in caplog.text
    fit_generator(dataclasses.replace(gaussian_on_weights, seed=1), tmp_path, name="other")
    (tmp_path / "runs" / "fitted").rename(tmp_path / "runs" / "old")
    (tmp_path / "runs" / "other").rename(tmp_path / "runs" / "fitted")
    with pytest.raises(RunConflict, match="drawn from a generator fitted of digest"):
        sample_networks(config, tmp_path, name="drawn")


def test_a_part_that_is_lost_is_made_again_to_the_same_bytes(make_zoo, tmp_path, flow_on_pca):
    make_zoo()
    config = SampleConfig("fitted", count=3)
    fit_generator(flow_on_pca, tmp_path, name="fitted")
    drawn = sample_networks(config, tmp_path, name="drawn")
    run = tmp_path / "runs" / "fitted"
    for path in (drawn.shards[0].path, run / "density" / "flow.pt", run / "generator.json"):
        expected = path.read_bytes()
        path.unlink()
        fit_generator(flow_on_pca, tmp_path, name="fitted")
        sample_networks(config, tmp_path, name="drawn").verify()
        assert path.read_bytes() == expected, path


def test_sampling_stops_when_a_signal_asks(make_zoo, tmp_path, gaussian_on_weights, monkeypatch):
    make_zoo()
    fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    monkeypatch.setattr(preemption, "_asked", [signal.SIGTERM])
    with pytest.raises(Preempted):
        sample_networks(SampleConfig("fitted", count=2), tmp_path, name="drawn")
    assert not list((tmp_path / "zoos" / "drawn").glob("shard*"))


def test_a_zoo_is_never_overwritten_by_samples(make_zoo, tmp_path, gaussian_on_weights):
    make_zoo()
    fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    with pytest.raises(RunConflict, match="is another zoo"):
        sample_networks(SampleConfig("fitted"), tmp_path, name="small")


def test_the_plan_tells_sizes_and_allocates_nothing(make_zoo, tmp_path, flow_on_pca):
    assert "not there yet" in plan(flow_on_pca, tmp_path, name="g")
    make_zoo()
    generator = fit_generator(flow_on_pca, tmp_path, name="fitted")
    said = plan(flow_on_pca, tmp_path, name="g")
    num = sum(p.numel() for p in generator.density.module.parameters())
    assert "8 training and 2 validation networks of 1,210 weights" in said
    assert f"codes of 5 numbers, density flow with a backbone residual_mlp of {num:,}" in said


def test_the_commands_fit_and_draw(make_zoo, tmp_path, flow_on_pca, monkeypatch, capsys):
    make_zoo()
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(to_dict(flow_on_pca)))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("dwf.preemption.watch", lambda: None)

    def command(script: str, *flags: str) -> str:
        monkeypatch.setattr(sys, "argv", [script, "--root", str(tmp_path), *flags])
        runpy.run_path(f"launch/{script}.py")["main"]()
        return capsys.readouterr().out

    said = command("generator", "--config", str(file), "--dry-run")
    assert "8 training and 2 validation" in said and "codec.components" in said
    assert not (tmp_path / "runs").exists()
    assert f"generator in {tmp_path}/runs/tiny" in command("generator", "--config", str(file))
    assert "3 networks" in command("sample", "--generator", "tiny", "--count", "3", "--dry-run")
    assert not (tmp_path / "zoos" / "tiny-samples").exists()
    assert "3 rows in" in command("sample", "--generator", "tiny", "--count", "3")
    assert len(Zoo.open(tmp_path / "zoos" / "tiny-samples")) == 3
    command("generator", "--resume", "--name", "tiny")
