"""A transformer autoencoder of token sequences with one latent vector for each token.

Blocks as GPT-2's, without biases and without a norm at the end; no token is hidden from another.
Both halves see the same embedding of positions. A head projects a whole window for a contrastive
loss.

Source: Schuerholt et al., SANE (arXiv 2406.09997), section 3; parameter counts are as published.

Shape suffixes: B windows of a batch, W tokens of a window, C numbers of a token, L numbers of a
latent, E width, P numbers of a projection.
"""

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from dwf.backbones.config import TokenAutoencoderConfig
from dwf.backbones.linear import Linear
from dwf.backbones.positions import LearnedPositions, SinusoidalPositions

# GPT-2's initialisation (Radford et al., 2019, section 2.3).
_DEVIATION = 0.02


class _Block(nn.Module):
    """Attention and a perceptron, each on a normed copy of what it adds to."""

    def __init__(self, config: TokenAutoencoderConfig):
        super().__init__()
        width, hidden, bias = config.width, config.width * config.expansion, config.bias
        self.heads, self.dropout = config.heads, config.dropout
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=bias) for _ in range(2))
        self.project = Linear(width, 3 * width, bias=bias)
        self.join = Linear(width, width, bias=bias)
        self.widen = Linear(width, hidden, bias=bias)
        self.narrow = Linear(hidden, width, bias=bias)

    def forward(self, x_BWE: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        x_BWE = x_BWE + self._drop(self.join(self._attend(self.norms[0](x_BWE), mask)))
        hidden = functional.gelu(self.widen(self.norms[1](x_BWE)))
        return x_BWE + self._drop(self.narrow(hidden))

    def _attend(self, x_BWE: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        heads = self.project(x_BWE).unflatten(2, (3, self.heads, -1)).transpose(1, 3)
        query, key, value = heads.unbind(2)  # each [B, heads, W, width of a head], a view
        dropout = self.dropout if self.training else 0.0
        joined = functional.scaled_dot_product_attention(query, key, value, mask, dropout)
        return joined.transpose(1, 2).flatten(2)

    def _drop(self, x_BWE: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x_BWE, self.dropout, self.training) if self.dropout else x_BWE


class _Stack(nn.Module):
    """A linear map in, positions added, blocks, a linear map out."""

    def __init__(self, config: TokenAutoencoderConfig, num_in: int, *, num_out: int):
        super().__init__()
        self.enter = Linear(num_in, config.width)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.leave = Linear(config.width, num_out)
        self.dropout, self.checkpointing = config.dropout, config.checkpointing

    def forward(
        self, x: torch.Tensor, places_BWE: torch.Tensor, valid_BW: torch.Tensor | None
    ) -> torch.Tensor:
        # None where all tokens are real: only then can attention take its fastest kernel.
        mask = None if valid_BW is None else valid_BW[:, None, None, :]
        x = functional.dropout(self.enter(x) + places_BWE, self.dropout, self.training)
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, mask, use_reentrant=False)
            else:
                x = block(x, mask)
        return self.leave(x)


class TokenAutoencoder(nn.Module):
    """Tokens and their positions to latents, and back.

    Args:
        config: its settings.
        token_size: C.
        window: W of the windows that are projected; encoding and decoding take any number.
    """

    def __init__(self, config: TokenAutoencoderConfig, token_size: int, *, window: int):
        super().__init__()
        self.config, self.token_size, self.window = config, token_size, window
        if config.positions == "learned":
            self.positions = LearnedPositions(config.width, config.max_positions)
        else:
            self.positions = SinusoidalPositions(config.width)
        self.encoder = _Stack(config, token_size, num_out=config.latent)
        self.decoder = _Stack(config, config.latent, num_out=token_size)
        self.head = None
        if config.projection:
            self.head = _projection(window * config.latent, config.projection)
        self.apply(_initialise)
        residual = (2 * max(config.depth, 1)) ** -0.5
        for block in [*self.encoder.blocks, *self.decoder.blocks]:
            for layer in (block.join, block.narrow):  # what adds to the residual stream
                nn.init.normal_(layer.weight, std=_DEVIATION * residual)

    def encode(
        self,
        tokens_BWC: torch.Tensor,
        positions_BW3: torch.Tensor,
        *,
        valid_BW: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return latents_BWL.

        Args:
            tokens_BWC: standardised tokens.
            positions_BW3: int64.
            valid_BW: which tokens are real, where some fill up a shorter sequence.
        """
        return self.encoder(tokens_BWC, self.positions(positions_BW3), valid_BW)

    def decode(
        self,
        latents_BWL: torch.Tensor,
        positions_BW3: torch.Tensor,
        *,
        valid_BW: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return tokens_BWC; arguments as of `encode`."""
        return self.decoder(latents_BWL, self.positions(positions_BW3), valid_BW)

    def project(
        self, latents_BWL: torch.Tensor, valid_BW: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return projections_BP of windows of exactly `window` tokens; unreal ones count as 0.

        Only of an autoencoder with a `projection` above 0.
        """
        if valid_BW is not None:
            latents_BWL = latents_BWL * valid_BW.unsqueeze(2)
        return self.head(latents_BWL.flatten(1))

    def forward(
        self,
        tokens_BWC: torch.Tensor,
        positions_BW3: torch.Tensor,
        valid_BW: torch.Tensor | None = None,
        project: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return (tokens_BWC reconstructed, projections_BP): the one call of a training step.

        Args:
            tokens_BWC: all views of a batch, one after the other.
            positions_BW3: int64.
            valid_BW: which tokens are real; None where all are.
            project: whether projections are wanted.
        """
        places_BWE = self.positions(positions_BW3)
        latents_BWL = self.encoder(tokens_BWC, places_BWE, valid_BW)
        reconstruction_BWC = self.decoder(latents_BWL, places_BWE, valid_BW)
        return reconstruction_BWC, self.project(latents_BWL, valid_BW) if project else None

    def flops(self, num_tokens: int) -> float:
        """Return the arithmetic of forward and backward for one window of `num_tokens` tokens.

        Two operations for each weight of a matrix and token, and attention's two products; twice
        that again for the gradients (Kaplan et al., arXiv 2001.08361, section 2.1).
        """
        matrices = [m.weight for m in (*self.encoder.modules(), *self.decoder.modules()) if _is(m)]
        numbers = sum(weight.numel() for weight in matrices)
        attention = 4 * num_tokens * self.config.width * 2 * self.config.depth
        return 3.0 * num_tokens * (2 * numbers + attention)


def _is(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _projection(num_in: int, width: int) -> nn.Sequential:
    """Two layers, as the head of SimCLR (arXiv 2002.05709); without biases before the norms."""
    parts: list[nn.Module] = []
    for fan_in in (num_in, width):
        parts += [Linear(fan_in, width), nn.LayerNorm(width), nn.ReLU()]
    return nn.Sequential(*parts)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=_DEVIATION)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
