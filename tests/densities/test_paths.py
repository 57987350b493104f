"""What a flow regresses on: times, targets and metrics against closed forms for Gaussian codes."""

import pytest
import torch
from scipy import special, stats
from torch import nn

from dwf.backbones.config import TransformerConfig
from dwf.densities.config import FlowConfig
from dwf.densities.examples import Examples
from dwf.densities.flow_matching import FlowMatching, draw_times, velocity_of_target
from dwf.densities.paths import draw_source, forget
from dwf.training.task import Share

NUM = 400_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"time": "uniform"}, stats.uniform.cdf),
        ({"time": "beta"}, stats.beta(2, 5).cdf),
        ({"time": "logit_normal"}, lambda t: stats.norm.cdf(special.logit(t))),
        (
            {"time": "logit_normal", "time_mean": -0.5, "time_std": 2.0},
            lambda t: stats.norm(-0.5, 2).cdf(special.logit(t)),
        ),
    ],
)
def test_times_have_their_distribution(config, wanted):
    times = draw_times(FlowConfig(**config), 20_000, generator=generator()).double().numpy()
    assert stats.kstest(times, wanted).pvalue > 0.01


class Recorder(nn.Module):
    """A backbone that answers zero and keeps what it was asked."""

    def forward(self, x_BK, t_B):
        self.x, self.t = x_BK, t_B
        return torch.zeros_like(x_BK, requires_grad=True)


def regress(config, codes, batch_size, coefficient):
    """Return the regression task's points and times, and what it wants there.

    The wanted vector is found from outside, by the losses of constant answers: for the squared
    error |v - u|^2, loss(0) - loss(v) = (2 v.u - v.v) / (B K).
    """
    task = FlowMatching(
        config, nn.Identity(), train=Examples(codes), val=Examples(codes[:0]), seed=0
    )
    recorder = Recorder()
    zero = task.loss(recorder, batch_size, generator=generator(5)).item()
    answer = coefficient(recorder.x, recorder.t)
    other = task.loss(lambda x, t: answer, batch_size, generator=generator(5)).item()
    product = ((zero - other) * answer.numel() + answer.square().sum().item()) / 2
    return recorder.x, recorder.t, product / len(answer)


@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("source_std", [1.0, 0.5])
def test_target_averages_to_the_velocity_of_a_gaussian(sigma, source_std):
    """For codes ~ N(m, c^2): E[x1 - x0 | x_t] = m + (t c^2 - (1-t) s^2) (x_t - t m) / var(x_t)."""
    mean, deviation = torch.tensor([1.0, -2.0]), torch.tensor([0.7, 2.0])
    codes = mean + deviation * torch.randn(NUM, 2, generator=generator())

    def analytic(x, t):
        t = t.unsqueeze(1)
        variance = t**2 * deviation**2 + (1 - t) ** 2 * source_std**2 + sigma**2
        slope = (t * deviation**2 - (1 - t) * source_std**2) / variance
        return mean + slope * (x - t * mean)

    config = FlowConfig(sigma=sigma, source_std=source_std)
    # E[a.u] for any a(x, t) equals E[a.E[u | x, t]]: tried on functions that tell them apart.
    probes = [
        lambda x, t: torch.ones_like(x),
        lambda x, t: x * (t < 0.3).unsqueeze(1),
        lambda x, t: x * (t > 0.7).unsqueeze(1),
        lambda x, t: x.sin() + t.unsqueeze(1),
    ]
    for probe in probes:
        x, t, product = regress(config, codes, batch_size=NUM, coefficient=probe)
        wanted = (probe(x, t) * analytic(x, t)).sum(1).mean().item()
        assert product == pytest.approx(wanted, abs=0.03)


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_target_prediction_has_the_same_velocity(sigma):
    """The oracle's E[x1 | x_t] and E[x1 - x0 | x_t] of Gaussian codes, joined by the formula."""
    s, c, m = 0.5, 2.0, 1.5
    x = torch.randn(50, 1, generator=generator(), dtype=torch.float64) * 3
    for t in torch.linspace(0, 0.99, 12, dtype=torch.float64):
        variance = t**2 * c**2 + (1 - t) ** 2 * s**2 + sigma**2
        target = m + t * c**2 / variance * (x - t * m)
        velocity = m + (t * c**2 - (1 - t) * s**2) / variance * (x - t * m)
        torch.testing.assert_close(
            velocity_of_target(target, x, t=t, source_std=s, sigma=sigma), velocity
        )


def test_without_sigma_the_velocity_is_the_way_left_over_the_time_left():
    x1, x = torch.randn(2, 5, 3, generator=generator())
    velocity = velocity_of_target(x1, x, t=torch.tensor(0.6), source_std=0.01, sigma=0.0)
    torch.testing.assert_close(velocity, (x1 - x) / 0.4)


def test_fixed_sources_are_the_published_bank():
    codes = torch.zeros(12, 3)
    config = FlowConfig(source="fixed", source_std=0.01)
    task = FlowMatching(
        config, nn.Identity(), train=Examples(codes), val=Examples(codes[:0]), seed=4
    )
    again = FlowMatching(
        config, nn.Identity(), train=Examples(codes), val=Examples(codes[:0]), seed=4
    )
    for each in (task, again):
        each.start(0, Share())
    bank_NK = task.noise.values_NK
    assert torch.equal(bank_NK, again.noise.values_NK)
    recorder = Recorder()
    task.loss(recorder, 500, generator=generator())
    sources = recorder.x / (1 - recorder.t).unsqueeze(1)  # the codes are zero
    nearest = torch.cdist(sources, bank_NK).min(1)
    assert nearest.values.max() < 1e-5
    assert set(nearest.indices.tolist()) == set(range(12))


def test_optimal_transport_straightens_paths():
    codes = torch.randn(256, 2, generator=generator())
    losses = {}
    for pairing in ("independent", "optimal_transport"):
        config = FlowConfig(pairing=pairing)
        task = FlowMatching(
            config, nn.Identity(), train=Examples(codes), val=Examples(codes), seed=0
        )
        losses[pairing] = task.loss(Recorder(), 256, generator=generator()).item()
    # E|x1 - x0|^2 / K is 2 for independent standard normals, near 0 for paired ones.
    assert losses["independent"] == pytest.approx(2, rel=0.2)
    assert losses["optimal_transport"] < 0.2


def test_conditions_are_forgotten_at_their_share_and_told_otherwise():
    codes, conditions = torch.randn(100, 2), torch.arange(100.0).unsqueeze(1)
    told = []

    def answer(x_BK, t_B, condition_BP):
        told.append(condition_BP)
        return torch.zeros_like(x_BK, requires_grad=True)

    config = FlowConfig(condition="val_accuracy", drop_condition=0.3)
    examples = Examples(codes, conditions)
    task = FlowMatching(config, nn.Identity(), train=examples, val=examples, seed=0)
    task.loss(answer, 20_000, generator=generator())
    assert told[-1].isnan().float().mean().item() == pytest.approx(0.3, abs=0.015)
    assert set(told[-1][~told[-1].isnan()].tolist()) == set(range(100))
    task.validate(answer)
    assert not torch.cat(told[1:]).isnan().any()
    assert forget(conditions, 0.0, generator=None) is conditions


def test_numbers_that_a_network_lacks_are_no_error():
    """Answers of zero: the error is the mean of |x1 - x0|^2 over what is there."""
    mask = torch.tensor([[True, True, True, True], [True, False, True, False]])
    kinds = torch.arange(4000) % 2
    codes = 3 * torch.randn(4000, 4, generator=generator()) * mask[kinds]
    examples = Examples(codes, None, kind_N=kinds, present_AK=mask)

    def answer(x_BK, t_B, present_BK):
        return torch.zeros_like(x_BK, requires_grad=True)

    task = FlowMatching(FlowConfig(), nn.Identity(), train=examples, val=examples, seed=0)
    assert task.loss(answer, 20_000, generator=generator()).item() == pytest.approx(9 + 1, rel=0.05)
    assert task.validate(answer) == pytest.approx(10, rel=0.05)


def test_validation_is_the_same_each_time():
    codes = torch.randn(30, 2, generator=generator())
    task = FlowMatching(
        FlowConfig(), nn.Identity(), train=Examples(codes), val=Examples(codes[:7]), seed=0
    )
    assert task.validate(Recorder()) == task.validate(Recorder())
    none = Examples(codes[:0])
    assert (
        FlowMatching(FlowConfig(), nn.Identity(), train=Examples(codes), val=none, seed=0).validate(
            None
        )
        is None
    )


def test_source_has_its_deviation():
    noise = draw_source(torch.empty(50_000, 2), 0.01, generator=generator())
    assert noise.std().item() == pytest.approx(0.01, rel=0.02)


class Zero(nn.Module):
    """Finds nothing, so that the error of a number is what is wanted of it."""

    def forward(self, x, t, present_BK=None):
        return torch.zeros_like(x)


def errors(behaviour, metric, present_AK=None):
    """Return the loss of random codes, of two sections of tokens: 3 of 2 numbers, 1 of 4."""
    config = FlowConfig(
        TransformerConfig(width=8, heads=1, depth=1), behaviour=behaviour, standardise="none"
    )
    codes, kind = torch.randn(64, 10, generator=generator()), None
    if present_AK is not None:
        kind = torch.arange(64) % len(present_AK)
        codes = codes * present_AK[kind]
    examples = Examples(codes, None, kind_N=kind, present_AK=present_AK)
    sections = [(3, 2, True), (1, 4, False)]
    task = FlowMatching(
        config, Zero(), train=examples, val=examples, seed=0, sections=sections, metric=metric
    )
    return task.loss(Zero(), 64, generator=generator(1))


def test_an_error_counts_by_its_metric():
    """In a metric that takes one number of each token alone, only these count."""
    only = [torch.diag(torch.tensor([1.0, 0])), torch.diag(torch.tensor([0, 0, 1.0, 0]))]
    parts = []
    for k in range(10):
        taken = [torch.zeros(2, 2), torch.zeros(4, 4)]
        section, at = (0, k % 2) if k < 6 else (1, k - 6)
        taken[section][at, at] = 1
        parts.append(errors(1.0, taken).item())
    assert errors(1.0, only).item() == pytest.approx(parts[0] + parts[8], rel=1e-5)
    assert min(parts) > 0


@pytest.mark.parametrize("present", [None, torch.tensor([[1] * 10, [1] * 4 + [0] * 6]).bool()])
def test_the_identity_counts_errors_as_without_a_metric(present):
    identity = [torch.eye(2), torch.eye(4)]
    plain = errors(0.0, [], present_AK=present)
    for share in (0.3, 1.0):
        torch.testing.assert_close(errors(share, identity, present_AK=present), plain)


def test_a_metric_is_not_rounded_to_bf16():
    direction = torch.tensor([0.37, -0.93])
    lacking = torch.eye(2) - torch.outer(direction, direction) / direction.square().sum()
    metric = [1000 * lacking, torch.eye(4)]
    plain = errors(1.0, metric)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(errors(1.0, metric), plain)


def test_a_share_of_the_loss_is_behavioural():
    metric = [torch.full((2, 2), 0.5), 3 * torch.eye(4)]
    plain, whole = errors(0.0, []), errors(1.0, metric)
    torch.testing.assert_close(errors(0.25, metric), 0.75 * plain + 0.25 * whole)


class Affine(nn.Module):
    """One gain and one shift for each number, so that gradients tell how examples counted."""

    def __init__(self):
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(10)), nn.Parameter(torch.zeros(10))

    def forward(self, x_BK, t_B, condition_BP=None, present_BK=None):
        told = 0 if condition_BP is None else condition_BP.nan_to_num()
        found_BK = self.gain * x_BK * (1 + t_B.unsqueeze(1)) + self.shift + told
        return found_BK if present_BK is None else found_BK * present_BK


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize(
    ("settings", "has_masks"),
    [
        ({}, False),
        ({"source": "fixed", "sigma": 0.1, "time": "beta"}, False),
        ({"pairing": "optimal_transport"}, False),
        ({"pairing": "tokens"}, True),
        ({"condition": "val_accuracy", "drop_condition": 0.5}, True),
        ({"behaviour": 0.5}, True),
    ],
)
def test_ranks_that_share_a_batch_find_the_loss_and_gradient_of_one(settings, has_masks, ranks):
    """Whatever is drawn, and whatever numbers a rank's networks lack: means over ranks."""
    config = FlowConfig(
        TransformerConfig(width=8, heads=1, depth=1), standardise="none", **settings
    )
    codes, kind, present_AK = torch.randn(64, 10, generator=generator()), None, None
    if has_masks:
        present_AK = torch.ones(2, 10, dtype=torch.bool)
        present_AK[1, 4:6] = False
        kind = (torch.arange(64) % 3).clamp(max=1)
        codes = codes * present_AK[kind]
    condition = torch.randn(64, 1, generator=generator(3)) if "condition" in settings else None
    examples = Examples(codes, condition, kind_N=kind, present_AK=present_AK)
    sections = [(3, 2, True), (1, 4, False)]
    metric = [torch.eye(2) * 3, torch.eye(4)] if "behaviour" in settings else ()

    def learn(rank, size):
        module = Affine()
        task = FlowMatching(
            config, module, train=examples, val=examples, seed=0, sections=sections, metric=metric
        )
        task.start(0, Share(rank, size, batch_size=32))
        loss = task.loss(module, 32 // size, generator=generator(1))
        return loss, torch.cat(torch.autograd.grad(loss, list(module.parameters())))

    loss, gradient = learn(0, 1)
    losses, gradients = zip(*(learn(rank, ranks) for rank in range(ranks)), strict=True)
    torch.testing.assert_close(torch.stack(losses).mean(), loss)
    torch.testing.assert_close(torch.stack(gradients).mean(0), gradient, rtol=1e-5, atol=1e-6)
    assert len({round(one.item(), 4) for one in losses}) > 1, "each rank has examples of its own"
