"""Index arithmetic against moving the numbers themselves, on groups that no tracer would find."""

import numpy as np
import pytest
import torch

from dwf.align.groups import Group, Member, permute, random_orders
from dwf.codecs.config import TokenSettings
from dwf.codecs.tokens.geometry import Geometry
from dwf.codecs.windows.moves import Moves
from dwf.zoo.layout import Entry, Layout

LAYOUT = Layout(
    (
        Entry("a.bias", (12,), offset=0, role="bias"),
        Entry("a.weight", (12, 6, 3), offset=12, role="weight"),
        Entry("places", (1, 5, 8), offset=228, role="weight"),
        Entry("scalar", (), offset=268, role="weight"),
    )
)
OTHER = Member("places", 2, start=1)
GROUPS = {
    "nothing": (Group(3, (OTHER,)),),
    "rows": (Group(12, (Member("a.weight", 0), Member("a.bias", 0))),),
    "rows without their bias": (Group(12, (Member("a.weight", 0),)),),
    "a bias alone": (Group(12, (Member("a.bias", 0),)),),
    "a bias otherwise": (
        Group(12, (Member("a.weight", 0),)),
        Group(6, (Member("a.bias", 0, start=3),)),
    ),
    "columns": (Group(6, (Member("a.weight", 1),)),),
    "the last axis": (Group(3, (Member("a.weight", 2), OTHER)),),
    "all axes": (
        Group(6, (Member("a.weight", 0, inner=2), Member("a.weight", 1))),
        Group(3, (Member("a.weight", 2),)),
    ),
    "stacks and parts": (
        Group(
            2,
            (
                Member("a.weight", 0, start=4, outer=2, inner=2),
                Member("a.bias", 0, start=4, outer=2, inner=2),
            ),
        ),
        Group(5, (Member("a.weight", 0, start=1), Member("a.bias", 0, start=1))),
        Group(4, (Member("a.weight", 1, start=1), Member("places", 2, inner=2))),
    ),
    "named": (
        Group(
            3, (Member("a.weight", 0, places=(0, 5, 11)), Member("a.bias", 0, places=(0, 5, 11)))
        ),
        Group(3, (Member("a.weight", 1, outer=2, places=(5, 1, 0, 2, 3, 4)),)),
        Group(2, (Member("places", 2, places=(1, 6), start=1),)),
    ),
    "blocks": (
        Group(6, (Member("a.weight", 1, rows=(0, 4)),), parent=2),
        Group(3, (Member("a.weight", 1, outer=2, rows=(4, 12)),), parent=2, place=1),
        Group(3, (Member("a.weight", 0, inner=4), Member("a.bias", 0, inner=4))),
    ),
    "both other axes": (Group(5, (Member("places", 1),)), Group(8, (Member("places", 2),))),
}


@pytest.mark.parametrize("packing", ["rows", "dense"])
@pytest.mark.parametrize("name", GROUPS)
def test_places_are_where_the_numbers_come_from(name, packing):
    groups, num = GROUPS[name], 5
    orders = random_orders(groups, num, seed=3)
    places_ND = torch.arange(float(LAYOUT.size)).repeat(num, 1)
    moved_ND = permute(places_ND, LAYOUT, groups=groups, orders=orders)
    for layer in Geometry.of(LAYOUT, TokenSettings(7, packing)).layers:
        moves = Moves(layer, groups)
        places = moves.places({group: orders[group].numpy() for group in moves.groups})
        matrix_NRI = moved_ND[:, layer.weight.offset : layer.weight.stop]
        wanted = matrix_NRI.unflatten(1, (layer.rows, layer.inner))
        if layer.bias is not None:
            bias_NR = moved_ND[:, layer.bias.offset : layer.bias.stop]
            wanted = torch.cat([wanted, bias_NR[..., None]], 2)
        for some in ([0, 1, 2, 3, 4], [1, 3], [4]):
            for rows in (slice(0, layer.rows), slice(layer.rows // 2, layer.rows)):
                found = places.index(some, rows)
                expected = wanted[some][:, rows].flatten(1).long().numpy()
                assert len(found) in (1, len(some))
                assert np.array_equal(np.broadcast_to(found, expected.shape), expected)


def test_a_layer_takes_orders_of_its_own_groups_alone():
    groups = GROUPS["stacks and parts"]
    layers = {layer.name: layer for layer in Geometry.of(LAYOUT, TokenSettings(7)).layers}
    assert Moves(layers["a.weight"], groups).groups == (0, 1, 2)
    assert Moves(layers["places"], groups).groups == (2,)
    assert Moves(layers["scalar"], groups).groups == ()
