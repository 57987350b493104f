"""Permuting units: every kind of member against indexing its tensors by hand."""

import numpy as np
import torch

from dwf.align.groups import Group, Member, identity_orders, invert, permute, random_orders
from dwf.zoo.layout import Entry, Layout


def layout_of(**shapes):
    entries, offset = [], 0
    for name, shape in shapes.items():
        entries.append(Entry(name, shape, offset=offset, role="weight"))
        offset = entries[-1].stop
    return Layout(tuple(entries))


def test_a_plain_member_is_indexed_and_others_stay():
    layout = layout_of(a=(5, 3, 2), b=(3,), c=(4,))
    weights_ND = torch.randn(4, layout.size)
    groups = (Group(3, (Member("a", 1), Member("b", 0))),)
    (order_NU,) = orders = random_orders(groups, 4, seed=0)
    before = layout.unflatten(weights_ND)
    after = layout.unflatten(permute(weights_ND, layout, groups=groups, orders=orders))
    for n, order_U in enumerate(order_NU):
        assert torch.equal(after["a"][n], before["a"][n][:, order_U])
        assert torch.equal(after["b"][n], before["b"][n][order_U])
    assert torch.equal(after["c"], before["c"])


def test_parts_of_an_axis_move_by_unit():
    """Axis of 1 + 2 * 3 * 2 + 1 numbers: two stacks of three units of two numbers each."""
    layout = layout_of(a=(14, 2))
    weights_ND = torch.randn(1, layout.size)
    groups = (Group(3, (Member("a", 0, start=1, outer=2, inner=2),)),)
    moved = layout.unflatten(
        permute(weights_ND, layout, groups=groups, orders=[torch.tensor([[2, 0, 1]])])
    )["a"]
    expected = [0, 5, 6, 1, 2, 3, 4, 11, 12, 7, 8, 9, 10, 13]
    assert torch.equal(moved[0], layout.unflatten(weights_ND)["a"][0][expected])


def test_rows_keep_the_rest_of_the_tensor_in_place():
    layout = layout_of(a=(6, 4))
    weights_ND = torch.randn(1, layout.size)
    groups = (Group(4, (Member("a", 1, rows=(2, 4)),)),)
    order_U = torch.tensor([3, 1, 0, 2])
    moved = layout.unflatten(permute(weights_ND, layout, groups=groups, orders=[order_U[None]]))[
        "a"
    ][0]
    expected = layout.unflatten(weights_ND)["a"][0].clone()
    expected[2:4] = expected[2:4][:, order_U]
    assert torch.equal(moved, expected)


def test_orders_within_heads_and_of_heads_are_undone_together():
    layout = layout_of(qkv=(36, 5), out=(5, 12))
    weights_ND = torch.randn(7, layout.size)
    within = [
        Group(
            4,
            (Member("qkv", 0, start=4 * head), Member("qkv", 0, start=12 + 4 * head)),
            kind="query_key",
            parent=3,
            place=head,
        )
        for head in range(3)
    ]
    members = (Member("qkv", 0, outer=3, inner=4), Member("out", 1, inner=4))
    groups = (*within, Group(3, members, kind="heads"))
    orders = random_orders(groups, 7, seed=1)
    permuted_ND = permute(weights_ND, layout, groups=groups, orders=orders)
    # Head `order[n, 0]` of the network, its rows in that head's own order, comes first.
    for n in range(7):
        head = int(orders[3][n, 0])
        first = layout.unflatten(permuted_ND)["qkv"][n, :4]
        own = layout.unflatten(weights_ND)["qkv"][n, 4 * head : 4 * head + 4]
        assert torch.equal(first, own[orders[head][n]])
    assert torch.equal(
        permute(permuted_ND, layout, groups=groups, orders=invert(groups, orders)), weights_ND
    )


def test_random_orders_are_permutations_and_identity_changes_nothing():
    layout = layout_of(a=(9, 2))
    groups = (Group(9, (Member("a", 0),)),)
    (order_NU,) = random_orders(groups, 50, seed=2)
    assert torch.equal(order_NU.sort(1).values, torch.arange(9).expand(50, 9))
    assert len(np.unique(order_NU.numpy(), axis=0)) == 50
    weights_ND = torch.randn(3, layout.size)
    assert torch.equal(
        permute(weights_ND, layout, groups=groups, orders=identity_orders(groups, 3)), weights_ND
    )
