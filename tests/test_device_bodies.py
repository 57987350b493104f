"""The bodies of the GPU's tests, on the CPU: so they are known to work as far as it goes."""

import pytest
import torch

from tests.bare import run_bare
from tests.gpu.bodies import BODIES, SLOW_BODIES, adds_up, shares_by_deepspeed
from tests.gpu.conftest import NONE


@pytest.mark.parametrize("name", BODIES)
def test_on_the_cpu(name, tmp_path):
    BODIES[name]("cpu", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_BODIES)
def test_slow_ones_on_the_cpu(name, tmp_path):
    SLOW_BODIES[name]("cpu", tmp_path)


@pytest.mark.slow
def test_one_process_adds_up_by_gloo(tmp_path):
    assert "gloo" in adds_up("cpu", tmp_path)


@pytest.mark.deepspeed
def test_deepspeed_in_one_process(tmp_path):
    shares_by_deepspeed("cpu", tmp_path)


@pytest.mark.slow
def test_bodies_and_tests_of_the_gpu_run_with_few_libraries(tmp_path):
    """Here the bodies, on the CPU; without a GPU its tests say so, and none fails."""
    words = ("-m", "pytest", "-p", "no:cacheprovider", "-m")
    ran = run_bare(tmp_path, *words, "not slow and not deepspeed", "tests/test_device_bodies.py")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(BODIES)} passed" in ran.stdout or "[100%]" in ran.stdout
    ran = run_bare(tmp_path, *words, "gpu", "tests/gpu")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    if not torch.cuda.is_available():
        assert NONE in ran.stdout and "F" not in ran.stdout.split("[100%]")[0]
