"""Flows that ranks fit together, by DDP and ZeRO 1 to 3, against the same fit by one process."""

import pytest
import torch

from dwf.densities.flow import Flow
from dwf.run_folder import load_state
from tests.densities.ranked import fit
from tests.ranked import launch_jobs, losses

ZERO = {
    name: {"engine": "deepspeed", "deepspeed": f"configs/deepspeed/{name}.json"}
    for name in ("zero1", "zero2", "zero3")
}
ENGINES = {"ddp": {"engine": "ddp"}} | ZERO
EXTRAS = {
    "ddp": {"ema": 0.9},
    "zero2": {"keep": "best"},
    "zero3": {"keep": "best"},
    "zero1": {"ema": 0.9},
}


def jobs():
    for name, engine in ENGINES.items():
        yield {"name": name, **engine}
        resumed = engine | EXTRAS.get(name, {}) | {"accumulate": 2}
        yield {"name": f"{name}-whole", **resumed}
        yield {"name": f"{name}-cut", "stop_at": 9, "stop_rank": 1, **resumed}
        yield {"name": f"{name}-cut", **resumed}
    settings = {"engine": "ddp", "pairing": "independent", "source": "fixed"}
    for name, on_disk in (("held", False), ("stored", True)):
        yield {"name": name, **settings, "on_disk": on_disk}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """All fits of two ranks, in one launch, and the plain ones that they are held against."""
    folder = tmp_path_factory.mktemp("flows")
    fit(folder, "plain", settings={})
    ran = launch_jobs(2, "tests.densities.ranked", folder, *jobs())
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder, ran.stdout


pytestmark = pytest.mark.deepspeed


@pytest.mark.parametrize("name", ENGINES)
def test_two_ranks_fit_what_one_process_fits_at_the_same_batch(fitted, name):
    folder, _ = fitted
    for key in ("train_loss", "val_loss"):
        assert losses(folder, name, key=key) == pytest.approx(
            losses(folder, "plain", key=key), abs=1e-5
        )
    one, two = (Flow.load(folder / run / "density") for run in ("plain", name))
    torch.testing.assert_close(two.sample(5, 0).values, one.sample(5, 0).values, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ENGINES)
def test_a_fit_that_a_signal_stopped_goes_on_to_the_same_bits(fitted, name):
    folder, out = fitted
    for key in ("train_loss", "val_loss"):
        assert losses(folder, f"{name}-cut", key=key) == losses(folder, f"{name}-whole", key=key)
    one, two = (
        load_state(folder / f"{name}-{way}" / "density" / "flow.pt") for way in ("whole", "cut")
    )
    for part in ("module", "younger"):
        assert all(torch.equal(one[part][key], two[part][key]) for key in one[part])
    assert out.count("rank 1: stopped by SIGUSR2") == len(ENGINES)


def test_ranks_that_read_rows_of_codes_and_noise_from_the_disk_fit_the_same_bits(fitted):
    folder, _ = fitted
    for key in ("train_loss", "val_loss"):
        assert losses(folder, "stored", key=key) == losses(folder, "held", key=key)
    held, stored = (
        load_state(folder / name / "density" / "flow.pt") for name in ("held", "stored")
    )
    assert all(torch.equal(held["module"][key], stored["module"][key]) for key in held["module"])
