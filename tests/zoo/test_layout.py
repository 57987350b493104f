"""Layouts cover every tensor once, in order, without copies; digests tell architectures apart."""

import numpy as np
import torch
from pytest import raises
from torch import nn

from dwf.errors import ShapeMismatch
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.zoo.layout import Layout


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_covers_every_floating_point_tensor_once_and_in_order():
    network = convolutional()
    layout = Layout.of(network)
    floating = {k: v for k, v in network.state_dict().items() if v.is_floating_point()}
    assert [e.name for e in layout.entries] == list(floating)
    assert [e.offset for e in layout.entries] == [
        sum(v.numel() for v in list(floating.values())[:i]) for i in range(len(floating))
    ]
    assert layout.size == sum(v.numel() for v in floating.values())


def test_roles_follow_the_modules():
    roles = {e.name: e.role for e in Layout.of(convolutional()).entries}
    assert roles == {
        "0.weight": "weight",
        "0.bias": "bias",
        "1.weight": "norm",
        "1.bias": "norm",
        "1.running_mean": "buffer",
        "1.running_var": "buffer",
        "3.weight": "weight",
        "3.bias": "bias",
    }


def test_flatten_and_unflatten_undo_each_other_without_copying():
    layout = Layout.of(convolutional())
    weights_ND = torch.randn(5, layout.size)
    state = layout.unflatten(weights_ND)
    assert torch.equal(layout.flatten(state), weights_ND)
    state["0.weight"][3] = 7.0
    start, stop = layout.by_name["0.weight"].offset, layout.by_name["0.weight"].stop
    assert (weights_ND[3, start:stop] == 7).all()


def test_json_keeps_the_digest_and_another_shape_changes_it():
    layout = Layout.of(build_network(MLPConfig((4, 3, 2))))
    assert Layout.from_json(layout.to_json()) == layout
    assert Layout.from_json(layout.to_json()).digest == layout.digest
    assert Layout.of(build_network(MLPConfig((4, 2, 2)))).digest != layout.digest
    assert len(layout.digest) == 16


def test_wrong_lengths_and_missing_tensors_are_named():
    layout = Layout.of(build_network(MLPConfig((4, 3, 2))))
    with raises(ShapeMismatch, match=r"rows of 9 numbers .* which has 23"):
        layout.unflatten(torch.zeros(2, 9))
    with raises(ShapeMismatch, match=r"lacks layers.0.weight"):
        layout.flatten({})
    state = layout.unflatten(torch.zeros(layout.size)) | {"layers.0.bias": torch.zeros(4)}
    with raises(ShapeMismatch, match=r"layers.0.bias has shape \[4\], the layout \[3\]"):
        layout.flatten(state)


def test_a_tensor_that_the_layout_has_not_is_named():
    network = convolutional()
    layout = Layout.of(network)
    state = network.state_dict()  # with BatchNorm's counter, an integer: no part of any layout
    assert layout.flatten(state).shape == (layout.size,)
    with raises(ShapeMismatch, match=r"the state has 4.weight, which the layout has not"):
        layout.flatten(state | {"4.weight": torch.zeros(2)})


def test_what_is_learnt_leaves_running_statistics_out():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1))
    layout = Layout.of(network)
    state = {name: torch.randn(4, *e.shape) for name, e in layout.by_name.items()}
    rows_4D = layout.flatten(state)
    names = ("0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias")
    expected = torch.cat([state[name].flatten(1) for name in names], 1)
    assert torch.equal(layout.learnt(rows_4D), expected)
    assert np.array_equal(layout.learnt(rows_4D.numpy()), expected.numpy())
    assert layout.spans(buffers=True) == [(0, layout.size)]
    plain = Layout.of(nn.Linear(2, 3))
    weights_D = torch.randn(plain.size)
    assert plain.learnt(weights_D) is weights_D
