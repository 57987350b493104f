"""SANE's loss: contrast, error, noise and behaviour against their definitions and closed forms."""

import math
import multiprocessing
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from dwf.backbones.config import TokenAutoencoderConfig
from dwf.backbones.token_autoencoder import TokenAutoencoder
from dwf.codecs.config import (
    BehaviourConfig,
    SaneComputeConfig,
    SaneConfig,
    SaneLoopConfig,
    SaneTokensConfig,
)
from dwf.codecs.sane.behaviour import Behaviour, put
from dwf.codecs.sane.losses import add_noise, erase, masked_variance, nt_xent, squared_error
from dwf.codecs.sane.task import SaneTask, num_views
from dwf.codecs.tokens.geometry import Geometry
from dwf.codecs.tokens.scaling import TokenScaling
from dwf.codecs.windows.loader import WindowLoader
from dwf.codecs.windows.sampler import WindowSampler
from dwf.errors import ConfigError
from dwf.training.task import Share

BACKBONE = TokenAutoencoderConfig(width=16, heads=2, depth=1, latent=6, positions="sinusoidal")
CONFIG = SaneConfig(
    tokens=SaneTokensConfig(17),
    backbone=BACKBONE,
    training=SaneLoopConfig(steps=6, batch_size=8, compute=SaneComputeConfig(device="cpu")),
    window=10,
    halo=2,
)
CPU = torch.device("cpu")


def rng(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(zoos, config=CONFIG, behaviour=None, **options):
    """Return a task on the training networks of zoos."""
    sources = [(zoo, zoo.rows("train")) for zoo in zoos]
    geometries = [Geometry.of(zoo.layout, config.tokens) for zoo in zoos]
    scalings = [
        TokenScaling.fit([source], geometry, kind=config.tokens.standardise)
        for source, geometry in zip(sources, geometries, strict=True)
    ]
    views = config.views[: num_views(config)]
    sampler = WindowSampler(
        sources,
        geometries,
        scalings=scalings,
        window=config.window,
        views=views,
        places=behaviour is not None,
        **options,
    )
    torch.manual_seed(0)
    backbone = config.backbone if config.contrast else replace(config.backbone, projection=0)
    module = TokenAutoencoder(backbone, config.tokens.size, window=sampler.num_tokens)
    made = (
        Behaviour(behaviour, sources, scalings=scalings, seed=0, device=CPU) if behaviour else None
    )
    return SaneTask(
        config,
        module,
        sampler=sampler,
        val_batches=sampler.validation(12, 8),
        device=CPU,
        behaviour=made,
    )


def loss_of(task, seed=0, step=0) -> float:
    task.start(step, Share(batch_size=8))
    return task.loss(task.module, 8, generator=rng(seed)).item()


# --- losses ---------------------------------------------------------------------------------


def test_nt_xent_is_its_definition():
    first, second = torch.randn(2, 5, 7, generator=rng(), dtype=torch.float64)
    every = torch.cat([first, second])
    total = 0.0
    for i in range(10):
        partner = (i + 5) % 10
        cosine = [
            torch.nn.functional.cosine_similarity(every[i], every[k], dim=0).item()
            for k in range(10)
        ]
        below = sum(math.exp(cosine[k] / 0.3) for k in range(10) if k != i)
        total -= math.log(math.exp(cosine[partner] / 0.3) / below)
    assert nt_xent(every.float(), 0.3).item() == pytest.approx(total / 10, rel=1e-5)


@pytest.mark.parametrize("num", [2, 6])
def test_nt_xent_of_equal_views_at_right_angles(num):
    """Each of 2 num - 1 others is at cosine 0, but the partner at 1."""
    wanted = math.log(math.e ** (1 / 0.1) + 2 * num - 2) - 1 / 0.1
    found = nt_xent(3 * torch.eye(num).repeat(2, 1), 0.1).item()
    assert found == pytest.approx(wanted, abs=1e-6)


def test_nt_xent_of_nothing_learnt_is_the_chance_of_a_guess():
    assert nt_xent(torch.ones(8, 4), 0.1).item() == pytest.approx(math.log(7), rel=1e-6)


def test_nt_xent_is_as_exact_in_bf16():
    projections = torch.randn(16, 30, generator=rng())
    with torch.autocast("cpu", torch.bfloat16):
        found = nt_xent(projections, 0.1)
    assert found.item() == nt_xent(projections, 0.1).item()


def test_windows_of_one_number_are_divided_by_something():
    alike = torch.ones(2, 3, 4)
    assert 0 < masked_variance(alike, alike > 0).item() < 1e-9


def test_variance_and_error_count_masked_slots_alone():
    values, other = torch.randn(2, 3, 4, 5, generator=rng())
    mask = torch.rand(3, 4, 5, generator=rng(1)) < 0.4
    variance = np.var(values[mask].double().numpy())
    assert masked_variance(values, mask).item() == pytest.approx(variance, rel=1e-5)
    error = (values - other)[mask].square().sum().item()
    assert squared_error(values, other, counted_BWC=mask).item() == pytest.approx(error, rel=1e-5)


# --- views ----------------------------------------------------------------------------------


def test_noise_has_the_deviation_asked_for_and_leaves_padding():
    mask = torch.arange(50).expand(4, 300, 50) < 40
    tokens = torch.full((4, 300, 50), 3.0) * mask
    for multiplicative, deviation in ((True, 0.3), (False, 0.1)):
        change = (
            add_noise(tokens, mask, deviation=0.1, multiplicative=multiplicative, generator=rng())
            - tokens
        )
        assert change[mask].std().item() == pytest.approx(deviation, rel=0.02)
        assert abs(change[mask].mean().item()) < 0.005
        assert not change[~mask].any()


def test_erased_are_rectangles_of_the_share_asked_for():
    tokens = torch.ones(4000, 20, 30)
    erased = erase(tokens, 0.5, area=(0.02, 0.33), generator=rng()) == 0
    chosen = erased.any((1, 2))
    assert chosen.float().mean().item() == pytest.approx(0.5, abs=0.03)
    share = erased[chosen].float().mean((1, 2))
    assert share.min() > 0.01 and share.max() < 0.36  # sides are whole numbers of slots
    assert share.mean().item() == pytest.approx(0.175, abs=0.01)
    rectangle = erased.any(2).unsqueeze(2) & erased.any(1).unsqueeze(1)
    assert torch.equal(erased, rectangle)
    rows = erased.any(2)[chosen].float()
    assert (rows.diff(dim=1).abs().sum(1) <= 2).all()  # without gaps


# --- the task -------------------------------------------------------------------------------


def test_loss_is_contrast_and_error_over_real_weights(make_zoo):
    config, zoo = replace(CONFIG, noise=0.0, contrast=0.2), make_zoo()
    task = build([zoo], config)
    batch = task.sampler.batch(0, 8, start=0, stop=8)
    made, projections = task.module(
        batch.tokens_VBWC.flatten(0, 1), batch.positions_BW3.repeat(2, 1, 1)
    )
    mask = batch.mask_BWC.repeat(2, 1, 1)
    error = (made - batch.tokens_VBWC.flatten(0, 1))[mask].square().mean()
    wanted = 0.2 * nt_xent(projections, config.temperature) + 0.8 * error
    assert loss_of(task) == pytest.approx(wanted.item(), rel=1e-5)
    with_padding = build([zoo], replace(config, padding_in_loss=True))
    wanted = 0.2 * nt_xent(projections, config.temperature) + 0.8 * error * mask.float().mean()
    assert loss_of(with_padding) == pytest.approx(wanted.item(), rel=1e-5)


def test_at_run_time_the_loss_is_in_units_of_the_batch_s_variance(make_zoo):
    zoo = make_zoo()
    config = replace(
        CONFIG, noise=0.0, contrast=0.0, tokens=SaneTokensConfig(17, standardise="run_time")
    )
    task = build([zoo], config)
    batch = task.sampler.batch(0, 8, start=0, stop=8)
    made, _ = task.module(batch.tokens_VBWC[0], batch.positions_BW3, None, False)
    target = batch.tokens_VBWC[0][batch.mask_BWC]
    error = (made[batch.mask_BWC] - target).square().mean() / target.var(correction=0)
    assert loss_of(task) == pytest.approx(error.item(), rel=1e-5)


def test_the_target_is_clean_unless_asked_otherwise(make_zoo):
    """A module that answers with what it sees has no error but the noise's, or none at all."""

    def mirror(tokens, positions, valid, project):
        return tokens, None

    zoo, losses = make_zoo(), []
    for clean in (True, False):
        config = replace(CONFIG, contrast=0.0, clean_target=clean, noise_kind="additive")
        task = build([zoo], config)
        task.start(0, Share(batch_size=8))
        losses.append(task.loss(mirror, 8, generator=rng()).item())
    assert losses[0] == pytest.approx(0.01, rel=0.1) and losses[1] == 0


def test_without_contrast_there_is_one_view_and_no_projection(make_zoo):
    task = build([make_zoo()], replace(CONFIG, contrast=0.0))
    seen = []

    def record(tokens, positions, valid, project):
        seen.append((len(tokens), project))
        return task.module(tokens, positions, valid, project)

    task.start(0, Share(batch_size=8))
    task.loss(record, 8, generator=rng())
    assert seen == [(8, False)]
    assert task.tokens_per_example == 10
    assert build([make_zoo(name="b")]).tokens_per_example == 20


def test_the_module_is_called_once_and_its_gradient_reaches_all_parameters(make_zoo):
    task = build([make_zoo()])
    calls = []

    def record(*given):
        calls.append(given)
        return task.module(*given)

    task.start(0, Share(batch_size=8))
    task.loss(record, 8, generator=rng()).backward()
    assert len(calls) == 1 and len(calls[0][0]) == 16
    assert all(parameter.grad.any() for parameter in task.module.parameters())


def test_equal_streams_give_equal_losses_and_a_task_may_begin_anywhere(make_zoo):
    task = build([make_zoo()])
    task.start(0, Share(batch_size=8))
    losses = [task.loss(task.module, 8, generator=rng(step)).item() for step in range(4)]
    assert len(set(losses)) == 4
    assert loss_of(task, seed=2, step=2) == losses[2]
    assert loss_of(task, seed=9, step=2) != losses[2]


def test_one_window_cannot_be_told_from_others(make_zoo):
    task = build([make_zoo()])
    with pytest.raises(ConfigError, match=r"contrast = 0.05: 8 windows over 4 ranks in 2 micro-ba"):
        task.start(0, Share(rank=3, world=4, batch_size=8, accumulate=2))
    task.start(0, Share(rank=3, world=4, batch_size=8))
    build([make_zoo(name="b")], replace(CONFIG, contrast=0.0)).start(0, Share(batch_size=1))


def test_micro_batches_of_all_ranks_are_the_batch_of_one(make_zoo):
    zoo = make_zoo()
    config = replace(CONFIG, noise=0.0, contrast=0.0)
    whole = build([zoo], config)
    whole.start(0, Share(batch_size=8))
    wanted = [whole.loss(whole.module, 8, generator=rng()).item() for _ in range(2)]
    shares = [Share(rank, 2, batch_size=8, accumulate=2) for rank in range(2)]
    tasks = [build([zoo], config) for _ in shares]
    for task, share in zip(tasks, shares, strict=True):
        task.start(0, share)
    for step in range(2):
        parts = [
            task.loss(task.module, 2, generator=rng()).item() for task in tasks for _ in range(2)
        ]
        # Equal counts of weights in each window here, so the mean of means is the mean.
        assert np.mean(parts) == pytest.approx(wanted[step], rel=1e-2)


def test_any_number_of_processes_loads_the_same_bytes(make_zoo):
    sampler = build([make_zoo()]).sampler
    share = Share(1, 2, batch_size=8, accumulate=2)
    found = []
    for workers in (0, 2):
        loader = WindowLoader(sampler, share, first_step=1, steps=4, workers=workers, device=CPU)
        found.append([loader.next() for _ in range(6)])
        assert loader.seconds_waited > 0
        with pytest.raises(StopIteration):
            loader.next()
    for one, other in zip(*found, strict=True):
        for name in ("tokens_VBWC", "mask_BWC", "positions_BW3", "row_B"):
            assert torch.equal(one[name], other[name])
    step, micro = divmod(3, 2)
    start, stop = share.examples(micro)
    wanted = sampler.batch(1 + step, 8, start=start, stop=stop)
    assert torch.equal(found[0][3]["tokens_VBWC"], wanted.tokens_VBWC)


def test_processes_outlive_a_signal_to_the_whole_job_and_end_with_the_loader(make_zoo):
    loader = WindowLoader(
        build([make_zoo()]).sampler,
        Share(batch_size=8),
        first_step=0,
        steps=40,
        workers=2,
        device=CPU,
    )
    loader.next()
    mine = {process.pid for process in multiprocessing.active_children()}
    assert len(mine) == 2
    # As from Slurm: by another process than the parent, which may end them.
    stranger = "import os, signal, sys; [os.kill(int(n), signal.SIGTERM) for n in sys.argv[1:]]"
    subprocess.run([sys.executable, "-c", stranger, *map(str, mine)], check=True)
    for _ in range(39):
        loader.next()
    for process in multiprocessing.active_children():
        process.terminate()
        process.join(5)
    assert not mine & {process.pid for process in multiprocessing.active_children()}


def test_short_sequences_of_a_mixed_run_are_masked(make_zoo):
    zoos = [make_zoo(), make_zoo(widths=(16, 3, 2), name="short")]
    seen = []

    def record(tokens, positions, valid, project):
        seen.append(valid)
        return tokens if valid is None else tokens.where(valid.unsqueeze(2), 7.0), None

    for padding in (True, False):
        config = replace(CONFIG, noise=0.0, contrast=0.0, padding_in_loss=padding)
        task = build(zoos, config)
        task.start(0, Share(batch_size=8))
        for step in range(6):
            assert task.loss(record, 8, generator=rng()).item() == 0
            mask = task.sampler.batch(step, 8, start=0, stop=8).mask_BWC
            assert seen[-1] is None if mask.any(2).all() else torch.equal(seen[-1], mask.any(2))
    assert any(valid is not None for valid in seen)


def test_validation_is_the_loss_without_noise_and_says_what_is_explained(make_zoo):
    config = replace(CONFIG, contrast=0.0)
    task = build([make_zoo()], config)
    first = task.validate(task.module)
    assert task.validate(task.module) == first
    batches = task.sampler.validation(12, 8)
    errors, explained = [], []
    for batch in batches:
        made, _ = task.module(batch.tokens_VBWC[0], batch.positions_BW3, None, False)
        made, wanted = (x[batch.mask_BWC].detach().double() for x in (made, batch.tokens_VBWC[0]))
        errors.append((made - wanted).square().mean())
        explained.append(1 - errors[-1] / wanted.var(correction=0))
    shares = [8 / 12, 4 / 12]  # each window counts as much
    assert first == pytest.approx(np.dot(shares, errors), rel=1e-5)
    found = task.measure(task.module)["explained"]
    assert found == pytest.approx(np.dot(shares, explained), rel=1e-4)
    nothing = SaneTask(config, task.module, sampler=task.sampler, val_batches=[], device=CPU)
    assert nothing.validate(task.module) is None


def test_a_step_is_described_by_shard_and_rows(make_zoo):
    zoo = make_zoo()
    task = build([zoo])
    rows = sorted(set(task.sampler.batch(3, 8, start=0, stop=8).row_B.tolist()))
    text = task.describe(3)
    assert str(zoo.shards[0].path) in text
    assert all(str(row) in text for row in rows)


# --- the behavioural loss ---------------------------------------------------------------------

BEHAVIOUR = BehaviourConfig(weight=0.5, images=10, networks=4)


def test_numbers_are_put_at_their_places():
    originals = torch.arange(12.0).view(2, 6)
    numbers = torch.tensor([[[10.0, 11, 12]], [[20, 21, 22]]], requires_grad=True)
    places = torch.tensor([[[5, -1, 0]], [[-1, -1, 3]]])
    changed = put(originals, numbers, places_NWC=places)
    assert changed.tolist() == [[12, 1, 2, 3, 4, 10], [6, 7, 8, 22, 10, 11]]
    changed.sum().backward()
    assert numbers.grad.tolist() == [[[1, 0, 1]], [[0, 0, 1]]]


@pytest.mark.parametrize("measure", ["logits", "kl"])
@pytest.mark.parametrize("view", [0, 1])
def test_a_perfect_reconstruction_behaves_alike(make_zoo, measure, view):
    task = build([make_zoo()], CONFIG, behaviour=replace(BEHAVIOUR, measure=measure))
    batch = task.sampler.batch(0, 8, start=0, stop=8)
    given = {
        "places_BWC": batch.places_VBWC[view],
        "layer_BW": batch.positions_BW3[..., 1],
        "source_B": batch.source_B,
        "row_B": batch.row_B,
    }
    exact = batch.tokens_VBWC[view]
    assert task.behaviour.loss(exact, **given).item() == pytest.approx(0, abs=1e-6)
    assert task.behaviour.loss(exact + 0.3, **given).item() > 1e-3


def test_difference_is_that_of_networks_run_one_by_one(make_zoo):
    zoo = make_zoo()
    task = build([zoo], CONFIG, behaviour=BEHAVIOUR)
    batch = task.sampler.batch(0, 8, start=0, stop=8)
    made = batch.tokens_VBWC[0] + 0.2 * torch.randn(8, 10, 17, generator=rng())
    scaling = task.behaviour.scalings[0]
    wanted = []
    for b in range(4):
        original = torch.from_numpy(zoo.read(batch.row_B[b : b + 1].numpy()))[0]
        changed = original.clone()
        for w in range(10):
            layer = batch.positions_BW3[b, w, 1]
            for c in range(17):
                place = batch.places_VBWC[0, b, w, c]
                if place >= 0:
                    changed[place] = made[b, w, c] * scaling.scale_L[layer] + scaling.shift_L[layer]
        network, logits = zoo.build_network(), []
        for row in (changed, original):
            network.load_state_dict(zoo.layout.unflatten(row))
            logits.append(network(task.behaviour.images[0]))
        wanted.append((logits[0] - logits[1]).square().mean().item())
    places, layers = batch.places_VBWC[0], batch.positions_BW3[..., 1]
    found = task.behaviour.loss(
        made, places, layer_BW=layers, source_B=batch.source_B, row_B=batch.row_B
    )
    assert found.item() == pytest.approx(np.mean(wanted), rel=1e-4)


def test_behaviour_alone_reaches_the_encoder(make_zoo):
    zoos = [make_zoo(), make_zoo(widths=(64, 9, 10), name="other", seed=1)]
    config = replace(CONFIG, contrast=0.0, behaviour=BEHAVIOUR)
    task, plain = (
        build(zoos, config, behaviour=BEHAVIOUR),
        build(zoos, replace(CONFIG, contrast=0.0)),
    )
    gradients = []
    for each in (task, plain):
        each.start(0, Share(batch_size=8))
        each.loss(each.module, 8, generator=rng()).backward()
        gradients.append(each.module.encoder.enter.weight.grad)
    assert not torch.allclose(*gradients)
    assert loss_of(task) > loss_of(plain)


def test_more_images_than_there_are(make_zoo):
    with pytest.raises(ConfigError, match=r"behaviour.images = 99999.*at most as many"):
        build([make_zoo()], CONFIG, behaviour=replace(BEHAVIOUR, images=99999))
