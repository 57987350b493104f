"""Flows over networks of several architectures, of which each has a part of the numbers."""

import dataclasses

import pytest
import torch
from torch import nn

from dwf.backbones.config import TransformerConfig
from dwf.codecs.codes import Codes, CodeShape
from dwf.densities.config import FlowConfig, SolverConfig
from dwf.densities.flow import Flow
from dwf.densities.scaling import Scaling
from dwf.errors import ConfigError, ShapeMismatch
from dwf.run_folder import RunFolder
from dwf.training.config import LoopComputeConfig, LoopConfig

CONFIG = FlowConfig(
    backbone=TransformerConfig(width=16, heads=2, depth=1),
    training=LoopConfig(
        steps=12,
        batch_size=8,
        ema=0.9,
        validate_every=5,
        compute=LoopComputeConfig(save_seconds=0, threads=1),
    ),
    solver=SolverConfig(method="heun2", steps=10),
)
# Four tokens of 3 numbers and one of 2; the second architecture has 2 of the 4, with 2 numbers.
WIDE = torch.tensor([[1, 1, 1]] * 4 + [[1, 1, 0]]).bool()
NARROW = torch.tensor([[1, 1, 0]] * 2 + [[0, 0, 0]] * 2 + [[1, 1, 0]]).bool()
POSITIONS = torch.tensor([[t, 0, t] for t in range(4)] + [[4, 1, 0]])


def mixed(count, seed=0, masks=(WIDE, NARROW)):
    """Codes whose numbers are N(1, 2^2) where there are any."""
    mask = torch.stack(masks)
    kinds = torch.arange(count) % len(masks)
    values = torch.randn(count, 5, 3, generator=torch.Generator().manual_seed(seed)) * 2 + 1
    names = tuple("ab"[: len(masks)])
    return Codes(
        values * mask[kinds], CodeShape.sequences(names, POSITIONS, mask=mask), kind_N=kinds
    )


def plain(codes):
    return Codes(codes.values, CodeShape.sequences("a", POSITIONS, mask=WIDE))


def fit(path, codes, val, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    flow = Flow(config)
    return flow, flow.fit(codes, val, run=RunFolder(path, config), seed=3)


def test_one_architecture_is_the_plain_flow(tmp_path):
    codes, val = mixed(32, masks=(WIDE,)), mixed(8, 1, masks=(WIDE,))
    for pairing in ("independent", "equivariant"):
        one, outcome = fit(tmp_path / pairing / "one", codes, val=val, pairing=pairing)
        other, wanted = fit(
            tmp_path / pairing / "plain", plain(codes), val=plain(val), pairing=pairing
        )
        assert outcome.val_loss == pytest.approx(wanted.val_loss, rel=1e-5)
        found = one.sample(5, seed=1)
        torch.testing.assert_close(
            found.values, other.sample(5, seed=1).values, rtol=1e-3, atol=1e-3
        )
        few = {"method": "midpoint", "steps": 2}
        wanted = other.log_prob(plain(val), **few)
        torch.testing.assert_close(one.log_prob(val, **few), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("pairing", ["independent", "tokens"])
def test_draws_each_architecture_and_resumes_bitwise(tmp_path, monkeypatch, pairing):
    from torch.nn.functional import mse_loss

    codes, val = mixed(32), mixed(8, 1)
    whole, outcome = fit(tmp_path / "whole", codes, val=val, pairing=pairing)
    calls = []

    def interrupted(*arguments, **settings):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return mse_loss(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr("dwf.densities.paths.mse_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "cut", codes, val=val, pairing=pairing)
    resumed, again = fit(tmp_path / "cut", codes, val=val, pairing=pairing)
    assert again == outcome
    resumed.save(tmp_path / "saved")
    loaded = Flow.load(tmp_path / "saved")
    for kind, mask in enumerate((WIDE, NARROW)):
        drawn = loaded.sample(6, seed=2, kind=kind)
        assert torch.equal(drawn.values, whole.sample(6, seed=2, kind=kind).values)
        assert drawn.kind_N.tolist() == [kind] * 6 and drawn.shape.layouts == ("a", "b")
        assert torch.equal(drawn.values != 0, mask.expand(6, 5, 3))
    with pytest.raises(ConfigError, match="architecture number 2: this flow has learnt 2"):
        loaded.sample(1, seed=0, kind=2)


class Growth(nn.Module):
    """The velocity a x of each number, 0 where there is none; knows that the rest is not there."""

    def __init__(self, rates_K):
        super().__init__()
        self.rates_K = rates_K

    def forward(self, x_BK, t_B, present_BK):
        return self.rates_K * x_BK * present_BK


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("standardise", ["per_dimension", "global", "none"])
def test_likelihood_of_a_masked_gaussian_is_the_closed_form(exact, standardise):
    codes = mixed(40)
    present_NK = codes.present_NK
    flow = Flow(dataclasses.replace(CONFIG, solver=SolverConfig(rtol=1e-6, atol=1e-6)))
    flow.prepare(codes.shape, Scaling.fit(codes, standardise), seed=0)
    rates_K = torch.linspace(-0.5, 0.8, codes.shape.size)
    flow.module = Growth(rates_K)
    # x(1) = e^a x(0): each number is N(mean, (deviation e^a)^2), and of a network only its own.
    deviation_K = flow.scaling.deviation * rates_K.exp()
    normal = torch.distributions.Normal(flow.scaling.mean.double(), deviation_K.double())
    wanted = (normal.log_prob(codes.flatten().double()) * present_NK).sum(1).float()
    found = flow.log_prob(codes, exact=exact, probes=1)  # a diagonal Jacobian: one sign is exact
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_scaling_counts_only_what_is_there():
    codes = mixed(40)
    present_NK = codes.present_NK
    values_NK = codes.flatten().double()
    scaling = Scaling.fit(codes, "per_dimension")
    for k in range(codes.shape.size):
        own = values_NK[present_NK[:, k], k]
        assert scaling.mean[k].item() == pytest.approx(own.mean().item(), abs=1e-6)
        assert scaling.deviation[k].item() == pytest.approx(own.std(correction=0).item(), rel=1e-5)
    standardised = scaling.apply(codes.flatten(), present_NK)
    assert not standardised[~present_NK].any()
    every = (values_NK - scaling.mean)[present_NK]
    found = Scaling.fit(codes, "global").deviation.item()
    assert found == pytest.approx(every.square().mean().sqrt().item(), rel=1e-5)


def test_codes_of_other_architectures_are_refused(tmp_path):
    with pytest.raises(ShapeMismatch, match="do not match codes"):
        fit(tmp_path, mixed(32), val=mixed(8, masks=(WIDE,)))
