"""The optimisers of the training loop.

`muon` orthogonalises the update of each hidden matrix (Jordan et al., Muon: An optimizer for hidden
layers in neural networks, 2024; torch's implementation) and leaves the rest to AdamW. What a hidden
matrix is the module says itself, as `WithHiddenMatrices`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from dwf.backbones.hidden import WithHiddenMatrices
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
        muon = torch.optim.Muon(
            hidden, lr=config.matrix_rate, weight_decay=config.weight_decay, momentum=0.95
        )
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


def _adamw(parameters: list[nn.Parameter], config: LoopConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=tuple(config.betas),
        weight_decay=config.weight_decay,
        fused=True,
    )
