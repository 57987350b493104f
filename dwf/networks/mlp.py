"""Multi-layer perceptrons, one at a time or N stacked.

Shape suffixes: N networks, B inputs of a batch, F features, K classes.
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from dwf.networks.activations import ACTIVATIONS
from dwf.networks.config import MLPConfig


class MLP(nn.Module):
    """Linear layers `layers.0`, `layers.1`, ... with an activation between them."""

    def __init__(self, config: MLPConfig):
        super().__init__()
        pairs = zip(config.widths, config.widths[1:], strict=False)
        self.layers = nn.ModuleList(nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairs)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits_BK of inputs of shape [B, *shape]."""
        hidden = inputs.flatten(1)
        for layer in self.layers[:-1]:
            hidden = self.activation(layer(hidden))
        return self.layers[-1](hidden)

    def run_stacked(
        self,
        state: Mapping[str, torch.Tensor],
        inputs: torch.Tensor,
        *,
        own_inputs: bool = False,
        drop: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Run N networks of this architecture at once.

        Activations are kept as [N, F, B]: the gradient of a weight then comes out of one batched
        product in the weight's own memory order, which `nn.Linear` under `vmap` would transpose.

        Args:
            state: name -> tensor of shape [N, *shape].
            inputs: [B, *shape], shared by all networks, or, `own_inputs`, [N, B, *shape].
            own_inputs: whether each network has inputs of its own.
            drop: applied to the hidden activations, shape [N, F, B].

        Returns:
            logits_NBK.
        """
        hidden = inputs.flatten(2).transpose(1, 2) if own_inputs else inputs.flatten(1).T
        last = len(self.layers) - 1
        for i in range(last + 1):
            weight, bias = state[f"layers.{i}.weight"], state[f"layers.{i}.bias"].unsqueeze(2)
            if hidden.dim() == 2:  # one wide product for all networks' first layers
                hidden = (weight.flatten(0, 1) @ hidden).unflatten(0, weight.shape[:2]) + bias
            else:
                hidden = torch.baddbmm(bias, weight, hidden)
            if i < last:
                hidden = self.activation(hidden)
                hidden = drop(hidden) if drop else hidden
        return hidden.transpose(1, 2)
