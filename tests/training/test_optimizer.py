"""Muon against its recursion by hand; all other tensors against AdamW."""

import dataclasses
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from torch import nn

from dwf.backbones.hidden import WithHiddenMatrices
from dwf.errors import ConfigError
from dwf.run_folder import RunFolder
from dwf.training import optimizer
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.training.loop import Task, train
from dwf.training.optimizer import OPTIMIZERS, make_optimizer, set_rate

MUON = LoopConfig(
    steps=23, batch_size=8, optimizer="muon", learning_rate=0.01, matrix_rate=0.05, ema=0.9,
    clip_norm=1.0, validate_every=5, compute=LoopComputeConfig(save_seconds=0, threads=1),
)  # fmt: skip


class Hidden(nn.Sequential, WithHiddenMatrices):
    """Says that the matrix between its two activations is hidden."""

    def hidden_matrices(self):
        return [self[2].weight]


def hidden_network():
    torch.manual_seed(1)
    return Hidden(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 2))


def orthogonalised(update):
    """Jordan's quintic iteration in float64: singular values come near 1."""
    x = update / np.linalg.norm(update)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.parametrize(("native", "most"), [(True, 0.03), (False, 1e-5)])  # bf16, float32
def test_muon_is_the_recursion_by_hand(monkeypatch, native, most):
    monkeypatch.setattr(optimizer, "multiplies_bf16", lambda device: native)
    module, config = hidden_network(), dataclasses.replace(MUON, weight_decay=0.1)
    muon = make_optimizer(module, config)
    hidden, rates = module[2].weight, (0.01, 0.004, 0.007)
    weight, momentum = hidden.detach().double().numpy().copy(), np.zeros((12, 6))
    for i, rate in enumerate(rates):
        gradients = {p: torch.randn(p.shape, generator=torch.manual_seed(i)) for p in
                     module.parameters()}  # fmt: skip
        for parameter, gradient in gradients.items():
            parameter.grad = gradient.clone()
        set_rate(muon, rate)
        muon.step()
        gradient = gradients[hidden].double().numpy()
        momentum = 0.95 * momentum + 0.05 * gradient
        update = orthogonalised((0.05 * gradient + 0.95 * momentum).T).T
        step = rate * MUON.matrix_rate / MUON.learning_rate
        weight = (1 - 0.1 * step) * weight - step * np.sqrt(12 / 6) * update
    change = weight - hidden_network()[2].weight.detach().numpy()
    difference = np.linalg.norm(weight - hidden.detach().numpy())
    assert difference < most * np.linalg.norm(change)


def test_the_rest_is_adamw():
    ours, plain = hidden_network(), hidden_network()
    optimizer = make_optimizer(ours, MUON)
    others = [p for name, p in plain.named_parameters() if name != "2.weight"]
    adamw = torch.optim.AdamW(others, lr=0.3, weight_decay=MUON.weight_decay)
    for i in range(3):
        for module in (ours, plain):
            torch.manual_seed(i)
            for parameter in module.parameters():
                parameter.grad = torch.randn(parameter.shape)
        set_rate(optimizer, 0.3)
        optimizer.step()
        adamw.step()
    for name, parameter in ours.named_parameters():
        same = torch.allclose(parameter, dict(plain.named_parameters())[name], atol=1e-6)
        assert same == (name != "2.weight"), name


class Regression(Task):
    """Learn y = x A; may be stopped at a step."""

    def __init__(self, stop_at):
        self.module, self.calls, self.stop_at = hidden_network(), 0, stop_at
        self.map = torch.randn(4, 2, generator=torch.manual_seed(2))

    def loss(self, module, batch_size, generator):
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        x = torch.randn(batch_size, 4, generator=generator)
        return (module(x) - x @ self.map).square().mean()

    def validate(self, module):
        return None


def run_muon(path, stop_at=None):
    task = Regression(stop_at)
    outcome = train(task, MUON, seed=7, run=RunFolder(path, MUON), what="regression")
    return task.module.state_dict(), outcome


@pytest.mark.parametrize("stop_at", [3, 12])
def test_resume_with_muon_is_bitwise_equal(tmp_path, stop_at):
    whole, outcome = run_muon(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_muon(tmp_path / "cut", stop_at)
    resumed, again = run_muon(tmp_path / "cut")
    assert outcome == again
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_settings_name_the_optimizers_of_the_table():
    assert set(get_args(get_type_hints(LoopConfig)["optimizer"])) == set(OPTIMIZERS)


def test_a_module_without_hidden_matrices_is_refused():
    with pytest.raises(ConfigError, match="optimizer = 'muon': Linear has no hidden matrices"):
        make_optimizer(nn.Linear(2, 2), MUON)


def test_muon_under_deepspeed_is_refused():
    with pytest.raises(ValueError, match="muon is for the engines plain and ddp"):
        LoopConfig(optimizer="muon", engine="deepspeed")
