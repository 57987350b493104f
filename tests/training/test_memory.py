"""Memory of training against DeepSpeed's estimates, the ZeRO paper and what autograd keeps."""

import dataclasses

import pytest
import torch
from torch import nn

from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.training.memory import activation_bytes, memory_of_training, memory_per_gpu

P, LAYER = 865_000_000, 50_000_000


@pytest.mark.deepspeed
@pytest.mark.parametrize("world", [1, 4, 16])
@pytest.mark.parametrize(
    ("stage", "offload"),
    [(2, "none"), (2, "optimizer"), (3, "none"), (3, "optimizer"), (3, "parameters")],
)
def test_model_states_are_deepspeeds_own_estimates(stage, offload, world):
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as of_stage3
    from deepspeed.runtime.zero.stage_1_and_2 import (
        estimate_zero2_model_states_mem_needs as of_stage2,
    )

    is_offloaded = offload != "none"
    if stage == 2:
        host, gpu = of_stage2(P, world, 1, is_offloaded)
    else:
        host, gpu, _ = of_stage3(
            P, LAYER, world, 1, is_offloaded, offload == "parameters", zero_init=False
        )
    ours = memory_per_gpu(
        P, stage, world=world, offload=offload, bf16_weights=True, largest_layer=LAYER
    )
    assert ours["total"] == pytest.approx(gpu, abs=8)
    assert ours["host"] * world == pytest.approx(host, abs=8 * world)


def test_the_table_of_the_zero_paper():
    """7.5 B parameters over 64 ranks: 120, 31.4, 16.6 and 1.9 GB with bf16 gradients alone."""
    p, world = 7_500_000_000, 64
    # The paper has float32 gradients nowhere; DeepSpeed's buffers for them come on top.
    buffers = {0: 0, 1: 4 * p / world, 2: 4 * p / world, 3: 2 * p / world}
    for stage, wanted in ((1, 31.4e9), (2, 16.6e9), (3, 1.9e9)):
        ours = memory_per_gpu(p, stage, world=world, bf16_weights=True)["total"] - buffers[stage]
        assert ours == pytest.approx(wanted, rel=0.02)


def test_one_process_holds_weights_gradients_and_two_moments():
    need = memory_per_gpu(1000)
    held = {name: need[name] for name in ("weights", "gradients", "optimizer", "total")}
    assert held == {"weights": 4000, "gradients": 4000, "optimizer": 8000, "total": 16000}
    assert memory_per_gpu(1000, ema=True, activations=7)["total"] == 20007


def test_activations_are_what_autograd_keeps():
    """Of one pre-norm block with fused attention, all tensors that the backward keeps."""
    tokens, width, heads = 64, 32, 4

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.drop = nn.Dropout(0.1)

        def forward(self, x):
            qkv = self.qkv(self.norms[0](x)).reshape(1, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(*qkv)
            x = x + self.drop(self.out(mixed.transpose(1, 2).reshape(1, tokens, width)))
            hidden = nn.functional.gelu(self.up(self.norms[1](x)))
            return x + self.drop(self.down(hidden))

    block, kept = Block(), {}
    weights = {p.untyped_storage().data_ptr() for p in block.parameters()}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        block(torch.randn(1, tokens, width, requires_grad=True))
    found = sum(size for pointer, size in kept.items() if pointer not in weights)
    assert found == pytest.approx(activation_bytes(tokens, width, depth=1), rel=0.15)


def test_checkpointing_keeps_a_block_and_the_inputs_of_all():
    whole = activation_bytes(1000, 64, depth=8)
    assert activation_bytes(1000, 64, depth=8, checkpointing=True) == whole // 8 + 8 * 1000 * 64 * 4
    # Korthikanti et al., equation 2 without its second term: 34 s b h bytes a layer.
    assert activation_bytes(1000, 64, depth=8, half=True) == 34 * 1000 * 64 * 8


def test_settings_choose_the_formula():
    plain = LoopConfig(compute=LoopComputeConfig(precision="bf16"), ema=0.9)
    wanted = memory_per_gpu(P, autocast=True, ema=True)
    assert memory_of_training(plain, P, world=1) == wanted
    zero3 = dataclasses.replace(
        plain, engine="deepspeed", ema=None, deepspeed="configs/deepspeed/zero3_offload.json"
    )
    wanted = memory_per_gpu(
        P, 3, world=8, offload="parameters", bf16_weights=True, largest_layer=LAYER
    )
    assert memory_of_training(zero3, P, world=8, largest_layer=LAYER) == wanted
    assert wanted["total"] == 4 * LAYER
