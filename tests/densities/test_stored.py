"""Codes that stay on the disk: a density learns the bits that it learns of codes in memory.

And it never holds them: the largest tensor that a fit makes is counted, operation by operation.
"""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dwf.backbones.config import ResidualMLPConfig, TransformerConfig
from dwf.codecs import codes as codes_module
from dwf.codecs.codes import Codes, CodeShape, gather
from dwf.densities.config import DENSITIES, DiffusionConfig, FlowConfig
from dwf.densities.examples import Examples, StoredExamples
from dwf.densities.scaling import Scaling
from dwf.run_folder import RunFolder
from dwf.settings import find
from dwf.training.config import LoopComputeConfig, LoopConfig

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


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """What puts codes on the disk."""

    def put(codes, name="train"):
        with monkeypatch.context() as patch:
            patch.setattr(codes_module, "MOST_HELD", 0)
            return gather([codes], len(codes), file=tmp_path / f"{name}.npy")

    return put


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


class Largest(TorchDispatchMode):
    """Takes note of the bytes of the largest tensor that is made, of any type."""

    num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if not func.is_view:
            for one in made if isinstance(made, (tuple, list)) else (made,):
                if isinstance(one, torch.Tensor):
                    self.num_bytes = max(self.num_bytes, one.numel() * one.element_size())
        return made


def test_a_fit_from_the_disk_makes_no_tensor_of_all_codes(tmp_path, on_disk, monkeypatch):
    """Of 400 codes, batches of 4 and validation: what is made holds a fraction of them."""
    monkeypatch.setattr("dwf.densities.scaling._BLOCK_NUMBERS", 400 * 8)
    monkeypatch.setattr("dwf.densities.paths._VALIDATION_NUMBERS", 256 * 16)
    train, val = vectors(400, size=256), vectors(16, size=256, seed=1)
    config, all_bytes = CASES["vectors"][0], 4 * 400 * 256
    found = {}
    for name, codes in (("held", train), ("stored", on_disk(train))):
        density = find(DENSITIES, config.kind)(config)
        with Largest() as largest:
            density.fit(codes, val, run=RunFolder(tmp_path / name, config))
        found[name] = largest.num_bytes
    assert found["held"] >= all_bytes  # so the count sees them
    assert found["stored"] <= all_bytes / 8


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
