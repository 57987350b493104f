"""Tests that need a GPU: `python -m pytest -m gpu tests/gpu`. Without one they are skipped."""

import pytest
import torch

NONE = "torch finds no GPU here: nothing was tested on one"


@pytest.fixture(autouse=True)
def a_gpu_that_multiplies_exactly():
    """A GPU, whose products are of float32 as on the CPU; skips where there is none."""
    if not torch.cuda.is_available():
        pytest.skip(NONE)
    kept = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept


def pytest_terminal_summary(terminalreporter):
    """Say in one line why nothing was tested."""
    skipped = terminalreporter.stats.get("skipped", [])
    ours = [one for one in skipped if one.nodeid.startswith("tests/gpu/")]
    if ours and not torch.cuda.is_available():
        terminalreporter.write_line(NONE)
