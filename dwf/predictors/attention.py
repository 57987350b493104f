"""Attention over sets of tokens of any sizes, without a mask: WeightNet's module.

Tokens of all networks of a batch lie one behind the other, as one matrix. What acts on each token
by itself takes that matrix whole. Attention takes it in blocks: first of layers, those of one size
side by side; then of networks, those of one architecture side by side. So no score is computed that
a mask would throw away, and a network is not told of those beside it.

Source: attention blocks as in Vaswani et al., arXiv 1706.03762, with norms first; pooling by a
learned query as in Lee et al., Set Transformer, arXiv 1810.00825, section 3.2.

Shape suffixes: N networks of one layout, B networks of a batch, U tokens of a layer, T tokens of a
network, W numbers of a token, M tokens of a batch, E features, H heads, P properties.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from dwf.backbones.gelu import Gelu
from dwf.backbones.linear import Linear
from dwf.predictors.config import WeightNetConfig

Blocks = Sequence[tuple[int, int]]
"""Blocks of a matrix of tokens: (how many sets, tokens of each), one after the other."""
_QUERY_STD = 0.02


@dataclass(frozen=True, eq=False)
class Part:
    """Networks of one layout, as the module takes them."""

    keys: tuple[str, ...]
    """Embedding of each layer."""
    tokens: tuple[torch.Tensor, ...]
    """Tokens of each layer, tokens_NUW."""

    @property
    def num_networks(self) -> int:
        """N."""
        return len(self.tokens[0])


class _Block(nn.Module):
    """Attention and a perceptron, each behind a norm and added to what entered."""

    def __init__(self, config: WeightNetConfig, heads: int):
        super().__init__()
        width, hidden = config.width, config.hidden
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.project = Linear(width, 3 * width)
        self.join = Linear(width, width)
        self.perceptron = nn.Sequential(Linear(width, hidden), Gelu(), Linear(hidden, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_ME: torch.Tensor, blocks: Blocks) -> torch.Tensor:
        attended_ME = self._attend(self.project(self.norms[0](x_ME)), blocks)
        x_ME = x_ME + self.dropout(self.join(attended_ME))
        return x_ME + self.dropout(self.perceptron(self.norms[1](x_ME)))

    def _attend(self, projected: torch.Tensor, blocks: Blocks) -> torch.Tensor:
        sizes = [num * length for num, length in blocks]
        attended = []
        for part, (num, length) in zip(projected.split(sizes), blocks, strict=True):
            heads = part.view(num, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            joined = functional.scaled_dot_product_attention(*heads)
            attended.append(joined.transpose(1, 2).reshape(num * length, -1))
        return torch.cat(attended)


class _Pooling(nn.Module):
    """One vector of a network's tokens, by the attention that a learned query pays to them."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query_E = nn.Parameter(_QUERY_STD * torch.randn(width))
        self.norm = nn.LayerNorm(width)
        self.project = Linear(width, 2 * width)
        self.join = Linear(width, width)

    def _heads(self, x_ME: torch.Tensor, num: int) -> torch.Tensor:
        """Return query, key and value, [N, H, T, E of a head]; one query for all."""
        parts = self.project(self.norm(x_ME)).view(num, -1, 2, self.heads, self._width)
        return parts.permute(2, 0, 3, 1, 4)

    @property
    def _width(self) -> int:
        return len(self.query_E) // self.heads

    def _query(self, num: int) -> torch.Tensor:
        return self.query_E.view(1, self.heads, 1, self._width).expand(num, -1, -1, -1)

    def forward(self, x_ME: torch.Tensor, num: int) -> torch.Tensor:
        key, value = self._heads(x_ME, num)
        query = self._query(num).to(key.dtype)
        joined = functional.scaled_dot_product_attention(query, key, value)
        return self.join(joined.flatten(1))

    def shares(self, x_ME: torch.Tensor, num: int) -> torch.Tensor:
        """Return the attention that each token gets, mean over heads, [N, T]; rows sum to 1."""
        key, _ = self._heads(x_ME, num)
        scores = self._query(num) @ key.transpose(2, 3) / self._width**0.5
        return scores.softmax(-1).mean(1).squeeze(1)


class UnitAttention(nn.Module):
    """Tokens embedded, attention within layers, attention across them, pooling, heads.

    Args:
        config: its settings.
        widths: numbers of a token, of each embedding.
        num_layers: layers of the deepest network.
        num_properties: P.
    """

    def __init__(
        self,
        config: WeightNetConfig,
        widths: Mapping[str, int],
        *,
        num_layers: int,
        num_properties: int,
    ):
        super().__init__()
        width = config.width
        self.enter = nn.ModuleDict({key: Linear(size, width) for key, size in widths.items()})
        self.layers = nn.Embedding(num_layers, width)
        self.positions = config.positions
        self.within = nn.ModuleList(_Block(config, config.heads) for _ in range(config.depth))
        self.across = nn.ModuleList(
            _Block(config, config.cross_heads) for _ in range(config.cross_depth)
        )
        self.pooling = _Pooling(width, config.cross_heads)
        self.tell = nn.ModuleList(
            nn.Sequential(Linear(width, width), Gelu(), Linear(width, 1))
            for _ in range(num_properties)
        )

    def forward(self, parts: Sequence[Part]) -> torch.Tensor:
        """Return values [B, P], of the networks of one part after the other."""
        told = [self._tell(self.pooling(x_ME, num)) for x_ME, num in self._run(parts)]
        said_BP = torch.cat(told)
        # Each step's loss is of the same parameters: a batch may lack an architecture.
        absent = self.enter.keys() - {key for part in parts for key in part.keys}
        for key in sorted(absent):
            said_BP = said_BP + 0.0 * sum(p.sum() for p in self.enter[key].parameters())
        return said_BP

    def _tell(self, pooled_NE: torch.Tensor) -> torch.Tensor:
        return torch.cat([tell(pooled_NE) for tell in self.tell], dim=1)

    def shares(self, parts: Sequence[Part]) -> list[torch.Tensor]:
        """Return the attention of the pooling that each layer gets, of each part [N, layers]."""
        found = []
        for part, (x_ME, num) in zip(parts, self._run(parts), strict=True):
            layers = self.pooling.shares(x_ME, num).split([t.shape[1] for t in part.tokens], 1)
            found.append(torch.stack([shares_NU.sum(1) for shares_NU in layers], 1))
        return found

    def _run(self, parts: Sequence[Part]) -> list[tuple[torch.Tensor, int]]:
        """Return tokens_ME of each part, network after network, and how many networks it has."""
        layers = [layer for part in parts for layer in self._embed(part)]
        layers = _in_blocks(layers, lambda x_ME, blocks: self._through(self.within, x_ME, blocks))
        networks = []
        for part in parts:
            mine, layers = layers[: len(part.tokens)], layers[len(part.tokens) :]
            networks.append(torch.cat(mine, dim=1))
        networks = _in_blocks(
            networks, lambda x_ME, blocks: self._through(self.across, x_ME, blocks)
        )
        return [(x_NTE.flatten(0, 1), len(x_NTE)) for x_NTE in networks]

    @staticmethod
    def _through(modules: nn.ModuleList, x_ME: torch.Tensor, blocks: Blocks) -> torch.Tensor:
        for module in modules:
            x_ME = module(x_ME, blocks)
        return x_ME

    def _embed(self, part: Part) -> list[torch.Tensor]:
        """Return features_NUE of each layer."""
        features, place = [], 0
        for number, (key, tokens_NUW) in enumerate(zip(part.keys, part.tokens, strict=True)):
            x_NUE = self.enter[key](tokens_NUW) + self.layers.weight[number]
            if self.positions:
                x_NUE = x_NUE + _waves(place, tokens_NUW.shape[1], like_NUE=x_NUE)
            place += tokens_NUW.shape[1]
            features.append(x_NUE)
        return features


def _in_blocks(
    sets: Sequence[torch.Tensor], run: Callable[[torch.Tensor, Blocks], torch.Tensor]
) -> list[torch.Tensor]:
    """Run sets_NUE as one matrix in which sets of one size lie side by side, and cut it again."""
    order = sorted(range(len(sets)), key=lambda number: sets[number].shape[1])
    x_ME = torch.cat([sets[number].flatten(0, 1) for number in order])
    blocks: list[tuple[int, int]] = []
    for number in order:
        num, length = sets[number].shape[:2]
        before = blocks.pop()[0] if blocks and blocks[-1][1] == length else 0
        blocks.append((before + num, length))
    x_ME = run(x_ME, blocks)
    found = list(sets)
    parts = x_ME.split([sets[number].shape[0] * sets[number].shape[1] for number in order])
    for number, part in zip(order, parts, strict=True):
        found[number] = part.view(sets[number].shape)
    return found


def _waves(first: int, num: int, *, like_NUE: torch.Tensor) -> torch.Tensor:
    """Return sines and cosines of places (Vaswani et al., section 3.5), [U, E]."""
    width = like_NUE.shape[-1]
    place_U1 = torch.arange(first, first + num, device=like_NUE.device)[:, None]
    rates = 10_000.0 ** (-torch.arange(0, width, 2, device=like_NUE.device) / width)
    angles = place_U1 * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width].to(like_NUE)
