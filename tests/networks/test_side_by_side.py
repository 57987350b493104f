"""Networks computed side by side against the same in turn, for any number of threads."""

import threading
import time

import pytest
import torch
from torch import nn
from torch.func import functional_call

from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.networks.side_by_side import computed_together, side_by_side
from dwf.randomness import threads, torch_stream
from tests.networks.published import NARROW
from tests.networks.test_functional import state_of


@pytest.mark.parametrize("name", ["cnn_batchnorm", "vit"])
def test_results_are_those_of_networks_in_turn_for_any_number_of_workers(name):
    config, count = NARROW[name], 5
    network, before = build_network(config), torch.get_num_threads()
    state = state_of(network, count)
    shape = (3, config.image, config.image) if name == "vit" else config.input
    images = torch.rand(4, *shape, generator=torch_stream(0, "images"))

    def compute(own: nn.Module, i: int) -> torch.Tensor:
        with torch.no_grad():
            return functional_call(own, {n: t[i] for n, t in state.items()}, (images,))

    with threads(1):
        expected = [compute(network, i) for i in range(count)]
    for workers in (1, 2, 3, 9):
        with threads(3):
            found = side_by_side(network, count, compute=compute, workers=workers)
        assert len(found) == count
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
            assert workers < 3 or torch.equal(one, other), "one thread each: the same bits"
    assert torch.get_num_threads() == before


def test_networks_at_work_have_a_module_and_a_share_of_the_threads_of_their_own():
    meeting = threading.Barrier(3, timeout=30)

    def compute(own: nn.Module, i: int) -> tuple[int, int]:
        meeting.wait()  # all three are at work
        return id(own), torch.get_num_threads()

    with threads(6):
        found = side_by_side(nn.Linear(2, 2), 3, compute=compute, workers=3)
        assert torch.get_num_threads() == 6
    assert len({module for module, _ in found}) == 3
    assert [num for _, num in found] == [2, 2, 2]


def test_an_exception_of_one_is_raised_and_the_others_are_not_begun():
    begun, before = [], torch.get_num_threads()

    def compute(own: nn.Module, i: int) -> None:
        begun.append(i)
        if i == 1:
            raise ValueError("network 1 is broken")
        time.sleep(0.01)

    with threads(2):
        with pytest.raises(ValueError, match="network 1 is broken"):
            side_by_side(nn.Linear(2, 2), 200, compute=compute)
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before and len(begun) < 200


def test_no_networks_give_nothing():
    assert side_by_side(nn.Linear(2, 2), 0, compute=lambda own, i: i) == []


def test_mlps_and_networks_on_a_gpu_are_computed_together():
    mlp, vit = build_network(MLPConfig((4, 3, 2))), build_network(NARROW["vit"])
    assert computed_together(mlp) and computed_together(vit, "cuda")
    assert not computed_together(vit)
