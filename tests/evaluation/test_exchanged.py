"""Null arms of codes: whose tokens stand where, against the codes themselves."""

import torch

from dwf.codecs.codes import Codes, CodeShape
from dwf.evaluation.exchanged import exchanged

LAYERS = torch.tensor([0, 0, 0, 1, 1, 2])


def test_each_arm_takes_tokens_of_the_networks_that_it_says():
    positions = torch.stack([torch.arange(6), LAYERS, torch.tensor([0, 1, 2, 0, 1, 0])], 1)
    shape = CodeShape.sequences(["any"], positions, mask=torch.ones(6, 2, dtype=torch.bool))
    num = 9
    network, token = torch.meshgrid(torch.arange(num), torch.arange(6), indexing="ij")
    codes = Codes(torch.stack([network, token], 2).float(), shape)
    arms = {title: arm.values for title, arm in exchanged(codes, seed=1).items()}
    whose = {title: values[..., 0].long() for title, values in arms.items()}
    own = torch.arange(num)
    for title in ("first layer of another", "first layer's units of others"):
        assert torch.equal(arms[title][..., 1], codes.values[..., 1])  # each token at its place
        assert (whose[title][:, 3:] == own[:, None]).all()
    another = whose["first layer of another"][:, :3]
    assert (another == another[:, :1]).all() and (another[:, 0] != own).all()
    for title, count in (("first layer's units of others", 3), ("every unit of another", 5)):
        for t in range(count):
            assert sorted(whose[title][:, t].tolist()) == own.tolist()
        assert len({tuple(whose[title][:, t].tolist()) for t in range(count)}) == count
        assert torch.equal(whose[title][:, 5], own)
    assert torch.equal(arms["mean units"][4, :3], torch.tensor([[4.0, 1.0]] * 3))
    assert torch.equal(arms["mean units"][0, 3:], torch.tensor([[4.0, 3.5]] * 2 + [[4.0, 5.0]]))
