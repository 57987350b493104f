"""One seed for torch's global stream in every test of networks."""

import pytest
import torch


@pytest.fixture(autouse=True)
def random_numbers():
    """The same in every run and in any order of tests."""
    torch.manual_seed(0)
