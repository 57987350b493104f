"""A recurrent trunk over the places of a network's tokens, and a small denoiser of each token.

The trunk sees what the density is told (RPG's "permutation state": which checkpoint to imitate) and
each token's place, and makes a prototype of each token; convolutions along the token then answer
for it alone, given its prototype and the time. So the tokens of a network hear of each other by the
prototypes alone: where the density is told nothing, these are the same for every network, and
tokens are drawn independently.

Where the sequence is of several architectures, what a network does not have is 0.

Source: RPG (arXiv 2501.11587), section 3. What it does not fix is ours: places are sines and
cosines of layer, unit and token, the convolutions are joined by ELU, and the output begins at zero.

Shape suffixes: B sequences of a batch, K numbers of a sequence, T its tokens, C numbers of the
largest token, W width of the trunk, S sequences with conditions of their own, or 1.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dwf.backbones.config import RecurrentConfig
from dwf.backbones.embedding import ConditionEmbedding, FourierTime, zeroed
from dwf.backbones.linear import Linear
from dwf.backbones.positions import SinusoidalPositions
from dwf.backbones.shape import Sections, Shape
from dwf.extras import require


class Recurrent(nn.Module):
    """Prototypes of tokens by a recurrent trunk, and convolutions along each token.

    Args:
        config: its settings.
        shape: of the sequences, which have tokens.
        told: numbers of each condition, see `ConditionEmbedding`; none: it is told nothing.

    Raises:
        ConfigError: a trunk `mamba` where the extra is not installed.
    """

    def __init__(self, config: RecurrentConfig, shape: Shape, *, told: Sequence[int] = ()):
        super().__init__()
        width, size = config.width, shape.widest_token
        self.num_tokens, self.size = shape.num_tokens, size
        self.register_buffer("places_T3", torch.tensor(shape.places()), persistent=False)
        self.register_buffer("slots_K", _slots(shape.sections, size), persistent=False)
        self.embed_places = SinusoidalPositions(width)
        self.trunk = _TRUNKS[config.trunk](config)
        self.lead = Linear(width, size)
        self.embed_time = nn.Sequential(
            FourierTime(config.time_features),
            Linear(config.time_features, width),
            nn.SiLU(),
            Linear(width, size),
        )
        steps = list(pairwise((1, *config.channels, 1)))
        stages = [
            nn.Conv1d(enter, leave, config.kernel, padding=config.kernel // 2)
            for enter, leave in steps
        ]
        self.stages = nn.ModuleList([*stages[:-1], zeroed(stages[-1])])
        self.embed_condition = ConditionEmbedding(width, told) if told else None

    def forward(
        self,
        x_BK: torch.Tensor,
        t_B: torch.Tensor,
        condition_BP: torch.Tensor | None = None,
        present_BK: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return a vector for each of x_BK, [B, K]; arguments as of `TokenBackbone.forward`."""
        if present_BK is not None:
            x_BK = x_BK * present_BK
        prototype_STC = self.lead(self.trunk(self._state(condition_BP)))
        told_BTC = prototype_STC + self.embed_time(t_B).unsqueeze(1)
        answer_BK = self._answer(x_BK, told_BTC)
        return answer_BK if present_BK is None else answer_BK * present_BK

    def _state(self, condition_BP: torch.Tensor | None) -> torch.Tensor:
        """Return what the trunk sees, [S, T, W]."""
        place_TW = self.embed_places(self.places_T3)
        if self.embed_condition is None:
            return place_TW.unsqueeze(0)
        if condition_BP is None:
            none = sum(self.embed_condition.told)
            condition_BP = torch.full((1, none), math.nan, device=place_TW.device)
        return place_TW + self.embed_condition(condition_BP).unsqueeze(1)

    def _answer(self, x_BK: torch.Tensor, told_BTC: torch.Tensor) -> torch.Tensor:
        """Return what the convolutions say of each token, which is told its prototype, [B, K]."""
        num, slots = len(x_BK), self.num_tokens * self.size
        tokens_BX = x_BK.new_zeros(num, slots).index_copy(1, self.slots_K, x_BK)
        # A token is a signal of one channel: all tokens of all sequences are the batch.
        signal = tokens_BX.view(-1, 1, self.size)
        told = told_BTC.expand(num, -1, -1).reshape(-1, 1, self.size)
        for place, stage in enumerate(self.stages):
            signal = stage((functional.elu(signal) if place else signal) + told)
        return signal.view(num, slots)[:, self.slots_K]


def _slots(sections: Sections, size: int) -> torch.Tensor:
    """Return where the numbers of a sequence lie in tokens of equal size, [T, C], int64_K."""
    counts, sizes = np.array(sections).T  # numpy: plans build modules on no device
    is_taken_TC = np.arange(size) < np.repeat(sizes, counts)[:, None]
    return torch.from_numpy(np.flatnonzero(is_taken_TC))


class _Mamba(nn.Module):
    """Selective state spaces, one layer after the other, with a norm at the end."""

    def __init__(self, config: RecurrentConfig):
        require("mambapy", who="backbone.trunk = 'mamba'")
        from mambapy.mamba import Mamba, MambaConfig

        super().__init__()
        told = MambaConfig(d_model=config.width, n_layers=config.depth, d_state=config.state)
        self.layers, self.norm = Mamba(told), nn.LayerNorm(config.width)

    def forward(self, x_STW: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layers(x_STW))


class _Lstm(nn.Module):
    """LSTM layers, one after the other."""

    def __init__(self, config: RecurrentConfig):
        super().__init__()
        self.layers = nn.LSTM(config.width, config.width, config.depth, batch_first=True)

    def forward(self, x_STW: torch.Tensor) -> torch.Tensor:
        return self.layers(x_STW)[0]


_TRUNKS = {"mamba": _Mamba, "lstm": _Lstm}
