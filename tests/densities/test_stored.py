"""Codes that stay on the disk: a density learns the bits that it learns of codes in memory.

And it never holds them: the largest tensor that a fit makes is counted, operation by operation.
"""

from dataclasses import replace

import pytest
import torch

from dwf.backbones.config import ResidualMLPConfig, TransformerConfig
from dwf.codecs.codes import Codes, CodeShape
from dwf.densities.config import DENSITIES, DiffusionConfig, FlowConfig, KdeConfig
from dwf.densities.examples import Examples, StoredExamples
from dwf.densities.fixed_noise import FixedNoise
from dwf.densities.kde import Kde
from dwf.densities.scaling import Scaling
from dwf.randomness import torch_stream
from dwf.run_folder import RunFolder
from dwf.settings import find
from dwf.training.config import LoopComputeConfig, LoopConfig
from tests.densities.coded import Largest

TRAINING = LoopConfig(
    steps=4, batch_size=4, validate_every=2, compute=LoopComputeConfig(threads=1, device="cpu")
)
MLP = ResidualMLPConfig(width=8, depth=1, time_features=8)
TOKENS = TransformerConfig(width=8, heads=2, depth=1)
MASK = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 0]], dtype=torch.bool)
MASKS = torch.stack([MASK, torch.tensor([[1, 1, 0], [0, 0, 0], [1, 0, 0]]) > 0])
POSITIONS = torch.tensor([(0, 0, 0), (1, 0, 1), (2, 1, 0)])


def vectors(count, size=24, seed=0):
    values_NK = torch.randn(count, size, generator=torch.Generator().manual_seed(seed)) * 2 + 3
    return Codes(values_NK, CodeShape.vectors("a", size))


def sequences(count, mask=MASK, seed=0):
    """Of one architecture, or of several in turn."""
    shape = CodeShape.sequences("ab"[: mask.dim() - 1], POSITIONS, mask=mask)
    kind_N = torch.arange(count) % 2 if shape.is_mixed else None
    values = torch.randn(count, 3, 3, generator=torch.Generator().manual_seed(seed)) * 2 + 3
    return Codes(values * (mask if kind_N is None else mask[kind_N]), shape, kind_N=kind_N)


CASES = {
    "vectors": (FlowConfig(MLP, training=TRAINING), vectors),
    "standardised as one": (FlowConfig(MLP, training=TRAINING, standardise="global"), vectors),
    "noise of its own": (FlowConfig(MLP, training=TRAINING, source="fixed"), vectors),
    "paired": (FlowConfig(MLP, training=TRAINING, pairing="optimal_transport"), vectors),
    "sequences": (FlowConfig(TOKENS, training=TRAINING, standardise="per_dimension"), sequences),
    "tokens paired": (
        FlowConfig(TOKENS, training=TRAINING, pairing="equivariant", standardise="per_dimension"),
        sequences,
    ),
    "mixed": (
        FlowConfig(TOKENS, training=TRAINING, standardise="per_dimension"),
        lambda count, seed=0: sequences(count, MASKS, seed),
    ),
    "diffusion": (DiffusionConfig(MLP, training=TRAINING, clip=3.0), vectors),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fit_from_the_disk_is_that_from_memory_to_the_last_bit(tmp_path, on_disk, case):
    config, make = CASES[case]
    train, val, states = make(20), make(6, seed=1), []
    for name, parts in (
        ("held", (train, val)),
        ("stored", (on_disk(train), on_disk(val, "val"))),
    ):
        density = find(DENSITIES, config.kind)(config)
        outcome = density.fit(*parts, run=RunFolder(tmp_path / name, config), seed=3)
        states.append((outcome, density.scaling, density.module.state_dict()))
    (held, scaling, wanted), (stored, found_scaling, found) = states
    assert held == stored
    assert all(torch.equal(vars(scaling)[key], vars(found_scaling)[key]) for key in vars(scaling))
    assert all(torch.equal(wanted[key], found[key]) for key in wanted)


@pytest.mark.parametrize("case", ["vectors", "noise of its own", "diffusion"])
def test_a_fit_from_the_disk_makes_no_tensor_of_all_codes(tmp_path, on_disk, monkeypatch, case):
    """Of 400 codes, batches of 4 and validation: what is made holds a fraction of them."""
    monkeypatch.setattr("dwf.densities.scaling._BLOCK_NUMBERS", 400 * 8)
    monkeypatch.setattr("dwf.densities.paths._VALIDATION_NUMBERS", 256 * 16)
    monkeypatch.setattr("dwf.densities.fixed_noise._BLOCK_NUMBERS", 400 * 8)
    monkeypatch.setattr("dwf.densities.diffusion.CHUNK_NUMBERS", 400 * 8)
    train, val = vectors(400, size=256), vectors(16, size=256, seed=1)
    config, all_bytes = CASES[case][0], 4 * 400 * 256
    found = {}
    for name, codes in (("held", train), ("stored", on_disk(train))):
        density = find(DENSITIES, config.kind)(config)
        with Largest() as largest:
            density.fit(codes, val, run=RunFolder(tmp_path / name, config))
        found[name] = largest.num_bytes
    assert found["held"] >= all_bytes  # so the count sees them
    assert found["stored"] <= all_bytes / 8


# 16 at a time, and 1 to 31 left over; fewer than 16; none left over.
@pytest.mark.parametrize("count", [1, 15, 16, 17, 63, 64, 65, 79, 80, 81, 1000, 1024])
def test_noise_on_the_disk_is_that_of_one_draw(tmp_path, monkeypatch, count):
    monkeypatch.setattr("dwf.densities.fixed_noise._BLOCK_NUMBERS", 64)
    how = {"seed": 4, "device": torch.device("cpu")}
    held = FixedNoise.held((1, count), 0.3, **how)
    stored = FixedNoise.stored((1, count), 0.3, **how, folder=tmp_path)
    assert torch.equal(stored.values_NK, held.values_NK)
    generator = torch_stream(4, "bank")  # the published bank
    assert torch.equal(held.values_NK, torch.empty(1, count).normal_(0, 0.3, generator=generator))


def test_a_rank_reads_its_own_rows_of_noise(tmp_path):
    how = {"seed": 4, "device": torch.device("cpu")}
    noise = FixedNoise.stored((20, 6), 1.0, **how, folder=tmp_path)
    wanted = FixedNoise.held((20, 6), 1.0, **how).values_NK
    rows_B = torch.tensor([7, 3, 3, 19])
    taken = noise.take(rows_B, slice(1, 3))
    assert torch.equal(taken[1:3], wanted[[3, 3]]) and not taken[[0, 3]].any()
    assert torch.equal(noise.take(rows_B, slice(None)), wanted[rows_B])


def test_a_fit_that_goes_on_reads_the_noise_of_the_attempt_before(tmp_path, on_disk, monkeypatch):
    config, make = CASES["noise of its own"]
    train, val = on_disk(make(20)), make(6, seed=1)
    whole, cut = (find(DENSITIES, config.kind)(config) for _ in range(2))
    outcome = whole.fit(train, val, run=RunFolder(tmp_path / "whole", config), seed=3)
    run, calls = RunFolder(tmp_path / "cut", config), []
    take = FixedNoise.take

    def interrupted(self, *arguments):
        calls.append(self)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return take(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FixedNoise, "take", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cut.fit(train, val, run=run, seed=3)
    file = run.path / "codes" / "noise.npy"
    drawn = file.stat()
    assert cut.fit(train, val, run=run, seed=3) == outcome
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (drawn.st_ino, drawn.st_mtime_ns)
    wanted, found = whole.module.state_dict(), cut.module.state_dict()
    assert all(torch.equal(wanted[key], found[key]) for key in wanted)


def test_a_rank_reads_its_own_rows_of_a_round(on_disk, monkeypatch):
    codes = on_disk(vectors(20))
    scaling = Scaling.fit(codes, "per_dimension")
    examples = StoredExamples(codes, scaling, known=Examples(torch.empty(20, 0)))
    asked = []
    take = Codes.take
    monkeypatch.setattr(Codes, "take", lambda self, rows: asked.append(rows) or take(self, rows))
    batch = examples.take(torch.tensor([7, 3, 3, 19]), slice(1, 3))
    assert [rows.tolist() for rows in asked] == [[3, 3]]
    wanted = scaling.apply(replace(codes, is_mapped=False).flatten()[[3, 3]])
    assert torch.equal(batch.codes_NK[1:3], wanted) and len(batch) == 4


@pytest.mark.parametrize("mode", ["token", "joint", "individual"])
def test_a_kernel_density_reads_its_anchors_wherever_they_lie(tmp_path, on_disk, mode):
    """In the run's folder, in its own, and in its own after that was moved."""
    train, val = sequences(20), sequences(6, seed=1)
    config = KdeConfig(mode=mode, anchors=12, relative=True)
    held, stored = Kde(config), Kde(config)
    run = RunFolder(tmp_path / "run", config)
    assert held.fit(train, val, seed=3) == stored.fit(on_disk(train), val, run=run, seed=3)
    drawn, likely_N = held.sample(7, seed=2).values, held.log_prob(val)

    def is_the_same(density):
        same = torch.equal(density.sample(7, seed=2).values, drawn)
        return same and torch.equal(density.log_prob(val), likely_N)

    assert is_the_same(stored)
    stored.save(tmp_path / "density")
    (tmp_path / "train.npy").unlink()
    assert is_the_same(stored)
    stored.save(tmp_path / "density")  # onto what it reads from
    (tmp_path / "density").rename(tmp_path / "moved")
    assert is_the_same(stored)
    loaded = Kde.load(tmp_path / "moved")
    assert is_the_same(loaded) and loaded.is_mapped
    held.save(tmp_path / "held")
    for name in Kde.files:
        saved = (tmp_path / folder / name for folder in ("held", "moved"))
        assert len({file.read_bytes() for file in saved}) == 1


@pytest.mark.parametrize("mode", ["joint", "individual"])
def test_a_kernel_density_makes_no_tensor_of_all_anchors(tmp_path, on_disk, monkeypatch, mode):
    monkeypatch.setattr("dwf.densities.kde._ANCHOR_NUMBERS", 400 * 8)
    monkeypatch.setattr("dwf.densities.kde._DISTANCES", 400 * 8)
    train, val = vectors(400, size=256), vectors(2, size=256, seed=1)
    config, all_bytes = KdeConfig(mode=mode, relative=True), 4 * 400 * 256
    with Largest() as largest:
        density = Kde(config)
        density.fit(on_disk(train), val)
        density.save(tmp_path / "density")
        Kde.load(tmp_path / "density").sample(2, seed=0)
    assert largest.num_bytes <= all_bytes / 8
