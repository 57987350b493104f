"""The optimisers of the training loop.

`muon` orthogonalises the update of each hidden matrix (Jordan et al., Muon: An optimizer for hidden
layers in neural networks, 2024; torch's implementation) and leaves the rest to AdamW. What a hidden
matrix is the module says itself, as `WithHiddenMatrices`.

Torch orthogonalises in bf16. A CPU without instructions for it multiplies bf16 at a fifteenth of
its rate in float32: two thirds of a small transformer's time. There `Float32Muon` does the same.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from dwf.backbones.hidden import WithHiddenMatrices
from dwf.devices import multiplies_bf16
from dwf.errors import ConfigError
from dwf.plain import State
from dwf.training.config import LoopConfig


def make_optimizer(module: nn.Module, config: LoopConfig) -> "torch.optim.Optimizer | MuonAdamW":
    """Return what updates a module's parameters: torch's AdamW, or `MuonAdamW`.

    Raises:
        ConfigError: `muon`, and the module says of no parameter that it is a hidden matrix.
    """
    return OPTIMIZERS[config.optimizer](module, config)


def _make_adamw(module: nn.Module, config: LoopConfig) -> torch.optim.AdamW:
    return _adamw(list(module.parameters()), config)


def _make_muon(module: nn.Module, config: LoopConfig) -> "MuonAdamW":
    if not isinstance(module, WithHiddenMatrices):
        raise ConfigError(
            f"training.optimizer = 'muon': {type(module).__name__} has no hidden matrices to give "
            "it: choose adamw, or the backbone transformer, neural_graph or residual_mlp"
        )
    hidden = module.hidden_matrices()
    of_muon = {id(p) for p in hidden}
    return MuonAdamW(
        hidden, [p for p in module.parameters() if id(p) not in of_muon], config=config
    )


OPTIMIZERS: dict[str, Callable[[nn.Module, LoopConfig], "torch.optim.Optimizer | MuonAdamW"]] = {
    "adamw": _make_adamw,
    "muon": _make_muon,
}
"""Makers of the optimisers that settings name: (module, settings) -> what updates it."""


def set_rate(optimizer: "torch.optim.Optimizer | MuonAdamW", rate: float) -> None:
    """Give every group of parameters its learning rate: `rate`, times the group's own `share`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)


class MuonAdamW:
    """Muon for hidden matrices and AdamW for the rest, as one optimiser.

    Args:
        hidden: matrices that Muon updates, at `matrix_rate` where the others have `learning_rate`.
        others: all other parameters.
        config: rates, decays.
    """

    def __init__(
        self, hidden: Sequence[nn.Parameter], others: Sequence[nn.Parameter], *, config: LoopConfig
    ):
        kind = torch.optim.Muon if multiplies_bf16(hidden[0].device) else Float32Muon
        muon = kind(hidden, lr=config.matrix_rate, weight_decay=config.weight_decay, momentum=0.95)
        for group in muon.param_groups:
            group["share"] = config.matrix_rate / config.learning_rate
        self._parts = (muon, _adamw(list(others), config))

    @property
    def param_groups(self) -> list[dict[str, State]]:
        """The groups of both."""
        return [group for part in self._parts for group in part.param_groups]

    def step(self) -> None:
        """Update all parameters by their gradients."""
        for part in self._parts:
            part.step()

    def state_dict(self) -> list[dict[str, State]]:
        """Return both states."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: list[dict[str, State]]) -> None:
        """Take what `state_dict` returned."""
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


class Float32Muon(torch.optim.Muon):
    """Torch's Muon, whose updates are orthogonalised in float32 and not in bf16."""

    @torch.no_grad()
    def step(self) -> None:
        """Update each matrix by its gradient."""
        for group in self.param_groups:
            for matrix_RC in group["params"]:
                if matrix_RC.grad is not None:
                    self._update(matrix_RC, group)

    def _update(self, matrix_RC: nn.Parameter, group: dict[str, State]) -> None:
        state, gradient_RC = self.state[matrix_RC], matrix_RC.grad
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient_RC)
        mean_RC, momentum = state["momentum_buffer"], group["momentum"]
        mean_RC.lerp_(gradient_RC, 1 - momentum)
        rows, columns = matrix_RC.shape
        rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
        update_RC = orthogonalise(
            gradient_RC.lerp(mean_RC, momentum),  # Nesterov's
            group["ns_coefficients"],
            steps=group["ns_steps"],
            eps=group["eps"],
        )
        matrix_RC.mul_(1 - group["lr"] * group["weight_decay"]).add_(update_RC, alpha=-rate)


def orthogonalise(
    matrix_RC: torch.Tensor, coefficients: tuple[float, float, float], *, steps: int, eps: float
) -> torch.Tensor:
    """Return a matrix with the same singular vectors and values near 1, in its own precision.

    By Newton-Schulz iterations of fifth order, X <- a X + (b A + c A^2) X with A = X X^T.

    Args:
        matrix_RC: any matrix.
        coefficients: a, b and c.
        steps: iterations.
        eps: least norm that is divided by.
    """
    a, b, c = coefficients
    is_tall = matrix_RC.shape[0] > matrix_RC.shape[1]
    x = matrix_RC.T if is_tall else matrix_RC
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


def _adamw(parameters: list[nn.Parameter], config: LoopConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=tuple(config.betas),
        weight_decay=config.weight_decay,
        fused=True,
    )
