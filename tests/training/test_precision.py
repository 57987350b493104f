"""`precision: auto` takes bf16 where the processor multiplies in it, and nowhere else."""

import pytest
import torch
from torch import nn

from dwf.training import engine
from dwf.training.config import LoopComputeConfig, LoopConfig

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "native", "dtype"),
    [
        ("float32", True, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_auto_takes_bf16_where_the_processor_has_it(
    precision, native, dtype, tmp_path, monkeypatch
):
    monkeypatch.setattr(engine, "multiplies_bf16", lambda device: native)
    module = nn.Linear(3, 2)
    ours = engine.make_engine(
        module,
        LoopConfig(compute=LoopComputeConfig(precision=precision)),
        device=CPU,
        checkpoints=tmp_path,
    )
    with ours.precision():
        assert module(torch.ones(1, 3)).dtype == dtype
    assert ours.dtype == dtype
    assert ours.facts()["arithmetic"] == str(dtype).removeprefix("torch.")
    assert module.weight.dtype == torch.float32


def test_a_torch_that_does_not_know_its_processor_has_no_bf16(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert not engine.multiplies_bf16(CPU)


def test_auto_under_deepspeed_is_refused():
    with pytest.raises(ValueError, match="precision = auto is for the engines plain and ddp"):
        LoopConfig(compute=LoopComputeConfig(precision="auto"), engine="deepspeed")
