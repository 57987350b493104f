"""Ranks that learn together give what one process gives; stopped, they go on to the same bits."""

import dataclasses
import json
import re

import pytest
import torch

from dwf import trackers
from dwf.errors import ConfigError, TrainingDiverged, WrongLaunch
from dwf.metrics import read_metrics
from dwf.run_folder import RunFolder, load_state
from dwf.training.loop import Share, train
from tests.ranked import launch, losses
from tests.training.ranked import CONFIG, Ranked, launch_trainings, learn

ZERO = {
    name: {"engine": "deepspeed", "deepspeed": f"configs/deepspeed/{name}.json"}
    for name in ("zero1", "zero2", "zero3", "zero2_offload", "zero3_offload")
}
ENGINES = {"ddp": {"engine": "ddp"}} | ZERO
# What is resumed has all chance there is: dropout, noise, a share of it on each rank.
CHANCE = {"dropout": 0.3, "noise": 0.1, "accumulate": 2}
EXTRAS = {"zero2": {"ema": 0.9}, "zero3": {"keep": "best"}, "zero2_offload": {"keep": "best"}}
STOP = {"stop": "signal", "stop_at": 4}


def jobs_of_two_ranks(folder):
    for name, engine in ENGINES.items():
        yield {"name": name, **engine}
        yield {"name": f"{name}-micro", "accumulate": 2, **engine}
        resumed = engine | CHANCE | EXTRAS.get(name, {})
        yield {"name": f"{name}-whole", **resumed}
        yield {"name": f"{name}-cut", "stop_rank": 1, **STOP, **resumed}
        yield {"name": f"{name}-cut", **resumed}
    (folder / "misspelt.json").write_text('{"zero_optimization": {"stage": 2, "overlap": true}}')
    yield {"name": "no", "engine": "deepspeed", "deepspeed": str(folder / "misspelt.json")}
    yield {"name": "two", **STOP, **ZERO["zero2"]}
    bad = {"bad_at": 4, "bad_rank": 1, "validate_every": 100}
    yield {"name": "bad", "compute": {"save_seconds": 0}, **bad, **ENGINES["ddp"]}
    yield {"name": "bad3", "compute": {"save_seconds": 0}, **bad, **ZERO["zero3"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All trainings of two ranks, in one launch, and the plain ones they are held against."""
    folder = tmp_path_factory.mktemp("ranks")
    for name, settings in (("plain", {}), ("plain-micro", {"accumulate": 4})):
        learn(folder, name, settings=settings)
    ran = launch_trainings(2, folder, *jobs_of_two_ranks(folder))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder, ran.stdout


KILLED = {"name": "killed", "compute": {"save_seconds": 0}, **CHANCE, **ZERO["zero1"]}


@pytest.fixture(scope="module")
def killed(trained):
    """A launch in which a rank is killed between two checkpoints."""
    return launch_trainings(2, trained[0], KILLED | {"stop": "kill", "stop_rank": 1, "stop_at": 4})


def state(folder, name):
    return load_state(folder / name / "result.pt")


def assert_equal_runs(folder, one, other):
    for key in ("train_loss", "val_loss"):
        assert losses(folder, one, key=key) == losses(folder, other, key=key)
    ours, theirs = state(folder, one), state(folder, other)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_micro_batches_are_one_batch(tmp_path):
    learn(tmp_path, "one", settings={})
    learn(tmp_path, "four", settings={"accumulate": 4})
    assert losses(tmp_path, "four") == pytest.approx(losses(tmp_path, "one"), rel=1e-5)
    torch.testing.assert_close(state(tmp_path, "four"), state(tmp_path, "one"))


def test_one_process_is_what_one_rank_of_ddp_is(tmp_path):
    learn(tmp_path, "plain", settings={"accumulate": 2}, dropout=0.3, noise=0.1)
    learn(tmp_path, "ddp", settings={"accumulate": 2, "engine": "ddp"}, dropout=0.3, noise=0.1)
    assert_equal_runs(tmp_path, "ddp", other="plain")


def test_a_batch_that_ranks_cannot_share_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size = 8 is not a multiple of accumulate = 3"):
        dataclasses.replace(CONFIG, accumulate=3)
    with pytest.raises(ConfigError, match=r"batch_size = 8 cannot be shared by 3 ranks.*of 6"):
        Share(0, 3, batch_size=8, accumulate=2)


def test_the_first_of_several_ranks_does_not_train_alone_with_deepspeed(tmp_path, monkeypatch):
    """As a density would: DeepSpeed would wait for ranks that wait for the first."""
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr("dwf.distributed.begin_alone", lambda: None)
    with pytest.raises(WrongLaunch, match=r"the first rank trains this alone.*engine to plain"):
        learn(tmp_path, "x", settings={"engine": "deepspeed"})


def test_shares_cover_the_batch_in_rounds():
    shares = [Share(rank, 3, batch_size=24, accumulate=2) for rank in range(3)]
    places = [share.examples(micro) for micro in range(2) for share in shares]
    assert places == [(start, start + 4) for start in range(0, 24, 4)]


def test_a_source_of_a_bad_loss_is_named(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"nan at step 4 of 8, .*, from shard 4 of rank 0: "):
        train(Ranked(bad_at=4), CONFIG, seed=7, run=RunFolder(tmp_path, CONFIG), what="x")


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """A finite loss whose gradient is not: the root of zero."""

    class Root(Ranked):
        def loss(self, module, batch_size, generator):
            loss = super().loss(module, batch_size, generator=generator)
            return loss + (0 * loss).sqrt() if self.step == 4 else loss

    compute = dataclasses.replace(CONFIG.compute, save_seconds=0)
    config = dataclasses.replace(CONFIG, compute=compute, clip_norm=None, validate_every=100)
    with pytest.raises(TrainingDiverged, match="largest weight is nan at step 4"):
        train(Root(), config, seed=7, run=RunFolder(tmp_path, config), what="x")
    assert max(p.name for p in (tmp_path / "checkpoints").iterdir()) == "step-00000003.pt"


def test_metrics_say_what_was_waited_for_and_used(tmp_path):
    class Waits(Ranked):
        def loss(self, module, batch_size, generator):
            self.seconds_waited += 0.01
            return super().loss(module, batch_size, generator=generator)

    config = dataclasses.replace(CONFIG, validate_every=4)
    trackers.track_with("tensorboard")
    train(Waits(), config, seed=7, run=RunFolder(tmp_path, config), what="x")
    lines = read_metrics(tmp_path / "metrics.jsonl")
    peak = json.loads((tmp_path / "training.json").read_text())["peak_GFLOP/s"] * 1e9
    for line in lines:
        assert line["tokens/s"] == pytest.approx(16 * line["steps/s"])
        assert line["data_wait"] == pytest.approx(0.01 * line["steps/s"])
        used = line["samples/s"] * Ranked.flops_per_example
        assert line["mfu"] == pytest.approx(used / peak, rel=0.01)
        assert 0.05 < line["memory_GiB"] < 16

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "tensorboard" / "train")).Reload()
    events = [(event.step, event.value) for event in board.Scalars("loss")]
    assert events == [(line["step"], pytest.approx(line["train_loss"])) for line in lines]


@pytest.mark.deepspeed
@pytest.mark.parametrize("name", ENGINES)
def test_ranks_learn_what_one_process_learns(trained, name):
    folder, _ = trained
    exact = 1e-5 if name == "ddp" else 1e-4
    for run in (name, f"{name}-micro"):
        for key in ("train_loss", "val_loss"):
            wanted = losses(folder, "plain", key=key)
            assert losses(folder, run, key=key) == pytest.approx(wanted, abs=exact), run
        torch.testing.assert_close(state(folder, run), state(folder, "plain"), rtol=1e-3, atol=1e-4)


@pytest.mark.deepspeed
@pytest.mark.parametrize("name", ENGINES)
def test_ranks_that_a_signal_stopped_go_on_to_the_same_bits(trained, name):
    folder, out = trained
    assert_equal_runs(folder, f"{name}-cut", other=f"{name}-whole")
    assert "rank 1: stopped by SIGUSR2" in out and "rank 0: stopped by a signal to another" in out


@pytest.mark.deepspeed
def test_chance_differs_between_ranks_and_from_one_process(trained, tmp_path):
    folder, _ = trained
    learn(tmp_path, "plain", settings={"accumulate": 2}, dropout=0.3, noise=0.1)
    assert losses(folder, "ddp-whole")[0] != pytest.approx(losses(tmp_path, "plain")[0], rel=1e-4)
    same = losses(folder, "zero1-whole")
    assert losses(folder, "ddp-whole") == pytest.approx(same, abs=1e-4)


@pytest.mark.deepspeed
@pytest.mark.parametrize("name", ["bad", "bad3"])
def test_all_ranks_raise_the_bad_loss_of_one(trained, name):
    folder, out = trained
    for rank in range(2):
        told = f"rank {rank}: {name}: the loss is nan at step 4 of 8, learning rate 0.00691, from "
        assert f"{told}shard 4 of rank 1: lower" in out
    steps = sorted(p.name for p in (folder / name / "checkpoints").iterdir())
    assert [step[:13] for step in steps] == ["step-00000002", "step-00000003"]


@pytest.mark.deepspeed
def test_what_deepspeed_refuses_in_its_file_is_told(trained):
    folder, out = trained
    assert f"{folder / 'misspelt.json'}: DeepSpeed refuses overlap: Extra inputs" in out


@pytest.mark.deepspeed
def test_another_number_of_ranks_needs_a_conversion(trained, killed):
    """Two ranks become one, and one becomes two; after a kill the same number goes on."""
    folder, _ = trained
    cut = {"name": "one", **STOP, **ZERO["zero3"]}
    ran = launch_trainings(1, folder, cut, {"name": "two", **ZERO["zero2"]})
    assert ran.returncode == 2 and "one: " in ran.stderr, ran.stderr
    (error,) = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    command = re.escape(f"`dwf convert {folder / 'two'}`")
    assert re.search(f"written by 2 ranks, and there are 1: start 2, or .* with {command}", error)
    for name in ("one", "two"):
        ran = launch(1, "-m", "dwf", "convert", folder / name)
        assert ran.returncode == 0 and "/universal; start the run again" in ran.stdout, ran.stderr
    ran = launch_trainings(1, folder, {"name": "two", **ZERO["zero2"]})
    assert "2 ranks became 1" in ran.stderr, ran.stderr
    ran = launch_trainings(2, folder, {"name": "one", **ZERO["zero3"]}, KILLED)
    assert "1 ranks became 2" in ran.stderr, ran.stderr
    assert "killed: goes on after step 3" in ran.stderr, ran.stderr
    assert_equal_runs(folder, "killed", other="zero1-whole")
    for name in ("one", "two"):
        assert losses(folder, name) == pytest.approx(losses(folder, "plain"), abs=1e-4)
        assert losses(folder, name, key="val_loss")[-1] == pytest.approx(
            losses(folder, "plain", key="val_loss")[-1], abs=1e-4
        )


@pytest.mark.deepspeed
def test_a_killed_rank_is_named_and_ends_the_others(killed):
    assert killed.returncode != 0
    assert "rank 0 of 2: error: rank 1 of 2 (process " in killed.stderr, killed.stderr
    assert "is gone (" in killed.stderr and "Give the same command again" in killed.stderr
