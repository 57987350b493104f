"""Layers that a flow draws one after the other: against the closed form of a Gaussian."""

import dataclasses

import pytest
import torch

from dwf.backbones.config import ResidualMLPConfig, TransformerConfig
from dwf.codecs.codes import Codes, CodeShape
from dwf.densities.config import FlowConfig, SolverConfig
from dwf.densities.course import Course
from dwf.densities.flow import Flow
from dwf.densities.flow_matching import FlowMatching
from dwf.densities.scaling import Scaling
from dwf.densities.solver import draw_noise
from dwf.run_folder import RunFolder
from dwf.training.config import LoopComputeConfig, LoopConfig

# Two pairs (a, b): b ~ N(0, 1), and a given b ~ N(SLOPE b, WIDTH^2). A layer of two tokens has both
# a, the last layer both b.
SLOPE, WIDTH = 1.5, 0.5
COVARIANCE = torch.tensor([[SLOPE**2 + WIDTH**2, SLOPE], [SLOPE, 1.0]])
SHAPE = CodeShape.sequences(
    ["layout"],
    torch.tensor([[0, 0, 0], [1, 0, 1], [2, 1, 0], [3, 1, 1]]),
    mask=torch.ones(4, 1, dtype=torch.bool),
)
CONFIG = FlowConfig(
    backbone=TransformerConfig(width=16, heads=2, depth=2, positions=True),
    training=LoopConfig(
        steps=400,
        batch_size=128,
        learning_rate=1e-2,
        ema=0.99,
        validate_every=200,
        compute=LoopComputeConfig(threads=1),
    ),
    solver=SolverConfig(rtol=1e-6, atol=1e-6),
    stagger=1.0,
)


def codes_of(count: int, seed: int) -> Codes:
    z = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return Codes(made_of(z)[:, :, None], SHAPE)


def made_of(noise_B4: torch.Tensor) -> torch.Tensor:
    """Return a1, a2, b1, b2 of standard normal numbers."""
    z_a, z_b = noise_B4.chunk(2, 1)
    return torch.cat((SLOPE * z_b + WIDTH * z_a, z_b), 1)


def pairs_of(codes: Codes) -> torch.Tensor:
    """Return the pairs (a, b) of codes, [2 N, 2]."""
    return codes.values.reshape(-1, 2, 2).transpose(1, 2).flatten(0, 1)


def test_layers_move_in_windows_from_the_last_to_the_first():
    one_by_one = Course.of(1.0, [(2, 1), (3, 1), (1, 2)])
    assert one_by_one == Course((0.5, 0.0), 0.5, (2, 5)), "one token goes with the layer before it"
    assert one_by_one.spans == [(0.0, 0.5), (0.5, 1.0)]
    overlapping = Course.of(0.5, [(2, 1), (2, 1)])
    assert overlapping.starts == (0.25, 0.0) and overlapping.length == 0.75
    assert overlapping.spans == [(0.0, 0.25), (0.25, 0.75), (0.75, 1.0)]
    assert Course.of(1.0, [(2, 1)] * 3).spans[1] == pytest.approx((1 / 3, 2 / 3))
    tau, moves = Course((0.5, 0.0), 0.5, (2, 1)).gone(torch.tensor([0.25, 0.75, 1.0]))
    assert tau.tolist() == [[0, 0, 0.5], [0.5, 0.5, 1], [1, 1, 1]]
    assert moves.tolist() == [[False, False, True], [True, True, False], [True, True, False]]


def oracle(x_BK: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
    """Return E[x1 - x0 | x_t] of all numbers: b alone first, then a given b."""

    def velocity(x_B2, tau, mean, std):
        spread = tau**2 * std**2 + (1 - tau) ** 2
        return mean + (tau * std**2 - (1 - tau)) / spread * (x_B2 - tau * mean)

    (a, b), t_B = x_BK.chunk(2, 1), t_B.unsqueeze(1)
    of_b = velocity(b, (2 * t_B).clamp(max=1), 0.0, 1.0)
    of_a = velocity(a, (2 * t_B - 1).clamp(min=0), SLOPE * b, WIDTH)
    return torch.cat((of_a, of_b), 1)


@pytest.fixture
def perfect() -> Flow:
    flow = Flow(CONFIG)
    flow.prepare(SHAPE, Scaling(torch.zeros(1), torch.ones(1)), seed=0)
    flow.module = oracle
    return flow


def test_the_first_layer_is_drawn_given_the_last(perfect):
    wanted = made_of(draw_noise(20, 4, seed=3))
    for how in ({"method": "dopri5"}, {"method": "rk4", "steps": 40}):
        drawn = perfect.sample(20, seed=3, **how).values.flatten(1)
        torch.testing.assert_close(drawn, wanted, rtol=1e-3, atol=1e-3)


def test_the_likelihood_is_that_of_the_gaussian(perfect):
    codes = codes_of(50, seed=1)
    normal = torch.distributions.MultivariateNormal(torch.zeros(2), COVARIANCE)
    wanted = normal.log_prob(pairs_of(codes)).reshape(-1, 2).sum(1)
    torch.testing.assert_close(perfect.log_prob(codes), wanted, rtol=0, atol=2e-3)


def test_the_loss_counts_what_moves_and_keeps_its_scale(perfect):
    """A flow that says 0 is wrong by code minus noise: of mean square 1 + that of the code."""
    perfect.module = lambda x, t: 0 * x
    codes = codes_of(400, seed=2)
    losses = [perfect.loss(codes, seed) for seed in range(8)]
    assert sum(losses) / 8 == pytest.approx(1 + codes.values.square().mean().item(), rel=0.1)
    task = FlowMatching(
        CONFIG,
        perfect.module,
        train=perfect.examples(codes, None),
        val=perfect.examples(codes, None),
        seed=0,
        sections=perfect.sections,
    )
    paths = task.draw_paths(task.train, torch.Generator().manual_seed(0))
    assert (paths.moves_BK.sum(1) == 2).all()
    still = ~paths.moves_BK
    is_code = paths.xt_BK == task.train.codes_NK
    assert (is_code[:, 2:] == still[:, 2:]).all(), "the last layer is there once the first moves"
    assert not is_code[:, :2].any()


def test_it_learns_what_all_at_once_learns(tmp_path):
    flow = Flow(CONFIG)
    flow.fit(codes_of(4000, seed=0), codes_of(200, seed=1), run=RunFolder(tmp_path, CONFIG), seed=0)
    drawn = flow.sample(2000, seed=1, method="rk4", steps=16)
    torch.testing.assert_close(pairs_of(drawn).T.cov(), COVARIANCE, rtol=0, atol=0.25)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": ResidualMLPConfig()}, r"stagger = 1 draws layers.*'residual_mlp' takes vec"),
        ({"prediction": "target"}, "goes with sigma 0 and the prediction velocity, not with 0 and"),
        ({"sigma": 0.1}, "not with 0.1 and velocity"),
    ],
)
def test_what_does_not_go_with_a_course_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **changes)
