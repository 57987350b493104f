"""Pairings of noise and codes against brute force over all orders."""

import itertools

import pytest
import torch

from dwf.backbones.config import ResidualMLPConfig, TransformerConfig
from dwf.densities.config import FlowConfig
from dwf.densities.pairing import assign_tokens, order, pair
from dwf.errors import ConfigError
from dwf.settings import build, to_dict

SECTIONS = ((3, 2, True), (2, 3, False), (3, 1, True), (1, 2, True))
SIZE = 6 + 6 + 3 + 2


def draw(count, seed):
    return torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed))


def tokens(x):
    """The tokens of each section, [B, U, C]."""
    layers = x.split([count * size for count, size, _ in SECTIONS], dim=1)
    shapes = [(len(x), count, size) for count, size, _ in SECTIONS]
    return [layer.view(shape) for layer, shape in zip(layers, shapes, strict=True)]


def every_assignment(x0_K):
    """One noise vector with its tokens in every order that may be."""
    parts = [part[0] for part in tokens(x0_K[None])]
    orders = [
        itertools.permutations(range(len(part))) if free else [tuple(range(len(part)))]
        for part, (_, _, free) in zip(parts, SECTIONS, strict=True)
    ]
    for chosen in itertools.product(*orders):
        pairs = zip(parts, chosen, strict=True)
        yield torch.cat([part[list(order)].flatten() for part, order in pairs])


def cost(x0, x1):
    return (x0 - x1).square().sum().item()


def test_pairing_is_as_good_as_every_order_tried():
    x0, x1 = draw(6, 1), draw(6, 2)
    best = min(cost(x0[list(o)], x1) for o in itertools.permutations(range(6)))
    assert cost(x0[order(x0, x1)], x1) == pytest.approx(best, rel=1e-6)


def test_tokens_are_as_near_as_in_every_assignment_tried():
    x0, x1 = draw(20, 1), draw(20, 2)
    found = assign_tokens(x0, x1, sections=SECTIONS)
    for noise, assigned, code in zip(x0, found, x1, strict=True):
        tried = {tuple(each.tolist()): cost(each, code) for each in every_assignment(noise)}
        assert len(tried) == 36
        assert cost(assigned, code) == pytest.approx(min(tried.values()), rel=1e-6)
        assert tuple(assigned.tolist()) in tried  # the noise's own numbers, token by token
    assert cost(found, x1) < cost(x0, x1)


def test_equivariant_pairing_is_as_good_as_every_order_of_both():
    x0, x1 = draw(4, 3), draw(4, 4)
    nearest = [[min(cost(each, code) for each in every_assignment(noise)) for noise in x0]
               for code in x1]  # fmt: skip
    best = min(
        sum(nearest[i][j] for i, j in enumerate(o)) for o in itertools.permutations(range(4))
    )
    found = pair("equivariant", x0, x1_BK=x1, sections=SECTIONS)
    assert cost(found, x1) == pytest.approx(best, rel=1e-5)


def test_each_kind_costs_no_more_than_the_one_before():
    x0, x1 = draw(32, 5), draw(32, 6)
    kinds = ("independent", "tokens", "equivariant")
    costs = [cost(pair(kind, x0, x1_BK=x1, sections=SECTIONS), x1) for kind in kinds]
    costs.insert(1, cost(pair("optimal_transport", x0, x1_BK=x1, sections=SECTIONS), x1))
    assert costs[3] < costs[1] < costs[0] and costs[3] < costs[2] < costs[0]
    for kind in kinds:
        found = pair(kind, x0, x1_BK=x1, sections=SECTIONS)
        assert torch.equal(found.flatten().sort().values, x0.flatten().sort().values)


@pytest.mark.parametrize("kind", ["optimal_transport", "tokens", "equivariant"])
def test_a_training_in_bf16_pairs_as_one_in_float32(kind):
    x0, x1 = torch.randn(2, 6, SIZE, generator=torch.manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = pair(kind, x0, x1_BK=x1, sections=SECTIONS)
    assert torch.equal(found, pair(kind, x0, x1_BK=x1, sections=SECTIONS))


def test_architectures_keep_their_noise_to_themselves():
    """Codes of two kinds; the second lacks a unit of the first section, and the third section."""
    x0, x1 = draw(5, 7), draw(5, 8)
    kind_B = torch.tensor([0, 1, 0, 1, 1])
    mask = torch.ones(2, SIZE, dtype=torch.bool)
    mask[1, 4:6] = False
    mask[1, 12:15] = False
    present = mask[kind_B]
    x1 = x1 * present
    for kind in ("optimal_transport", "equivariant"):
        found = (
            pair(kind, x0, x1_BK=x1, sections=SECTIONS, kind_B=kind_B, present_BK=present) * present
        )
        best = min(
            sum(_nearest(x0[j], x1[i], present[i], kind) for i, j in enumerate(o))
            for o in itertools.permutations(range(5))
            if torch.equal(kind_B[list(o)], kind_B)
        )
        assert cost(found, x1) == pytest.approx(best, rel=1e-5)
    # Present tokens keep the noise of present tokens: it is not chosen among more than they are.
    for noise, assigned, has in zip(
        x0, assign_tokens(x0, x1, sections=SECTIONS, present_BK=present), present, strict=True
    ):
        wanted = {round(v, 5) for v in noise[has].tolist()}
        assert {round(v, 5) for v in assigned[has].tolist()} == wanted


def _nearest(noise, code, has, kind):
    if kind == "optimal_transport":
        return cost(noise * has, code)
    marks = has.float()
    ways = zip(every_assignment(noise), every_assignment(marks), strict=True)
    return min(cost(each * has, code) for each, moved in ways if torch.equal(moved, marks))


def test_tokens_of_one_whole_distribution_stay_gaussian_as_a_set():
    """Where codes are exchangeable, so are pairs: each noise number is standard normal still."""
    x0, x1 = draw(20_000, 9), draw(20_000, 10)
    found = assign_tokens(x0, x1, sections=SECTIONS)
    torch.testing.assert_close(found.mean(0), torch.zeros(SIZE), rtol=0, atol=0.04)
    torch.testing.assert_close(found.T.cov(), torch.eye(SIZE), rtol=0, atol=0.05)


def test_pairings_that_do_not_fit_are_refused():
    backbone = TransformerConfig(positions=True)
    cases = [
        ({"pairing": "tokens"}, r"pairing = 'tokens' assigns tokens.*'residual_mlp' takes vectors"),
        ({"pairing": "equivariant", "backbone": backbone}, "needs exchangeable tokens"),
        ({"pairing": "optimal_transport", "condition": "val_accuracy"}, r"2503\.10636.*tokens or"),
        ({"time_std": 2.0}, "time_std = 2.0: no effect, as time = uniform has none"),
        ({"drop_condition": 0.2}, "drop_condition = 0.2: no effect, as condition = none"),
    ]
    for changes, message in cases:
        data = to_dict(FlowConfig(backbone=ResidualMLPConfig())) | {
            key: to_dict(value) for key, value in changes.items()
        }
        with pytest.raises(ConfigError, match=message):
            build(FlowConfig, data, source="flow.yaml")
    free = TransformerConfig(positions=True, last_exchangeable=True)
    assert FlowConfig(backbone=free, pairing="tokens").pairing == "tokens"
