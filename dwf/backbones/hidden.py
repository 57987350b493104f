"""The base of modules that say which of their parameters are hidden matrices."""

from torch import nn


class WithHiddenMatrices(nn.Module):
    """Base of modules that `training.optimizer` muon can train."""

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Return the matrices between hidden features, which Muon updates."""
        raise NotImplementedError
