"""Conditional flow matching: what the network of a flow is asked to learn.

The path from a source x0 ~ N(0, s^2) to a code x1 is x_t = (1 - t) x0 + t x1 + sigma eps, and the
velocity that carries the distribution along is u(x, t) = E[x1 - x0 | x_t = x].

Source: Lipman et al., Flow Matching, ICLR 2023 (arXiv 2210.02747), section 4; pairing: Tong et al.,
arXiv 2302.00482, section 3.2.3.

Shape suffixes: N training codes, B codes of a batch, K numbers of a code.
"""

import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn.functional import mse_loss

from dwf.densities.config import FlowConfig
from dwf.randomness import torch_stream
from dwf.training.task import Task

# The velocity of a predicted target divides by the time left; nearer to 1 than this, it is kept.
LAST_TIME = 0.99
_VALIDATION_DRAWS = 512
_VALIDATION_NUMBERS = 2**24


class FlowMatching(Task):
    """The task of the training loop: regress the velocity, or the target, of random paths.

    Args:
        config: the flow's settings.
        module: the backbone.
        train_NK: standardised training codes, on the device.
        val_NK: standardised held-out codes, on the device; may be empty.
        seed: of the fixed source vectors and of validation.
    """

    def __init__(
        self,
        config: FlowConfig,
        module: nn.Module,
        train_NK: torch.Tensor,
        val_NK: torch.Tensor,
        seed: int,
    ):
        self.config, self.module, self.seed = config, module, seed
        self.train_NK, self.val_NK = train_NK, val_NK
        self.bank_NK = None
        if config.source == "fixed":
            generator = torch_stream(seed, "bank", device=train_NK.device.type)
            self.bank_NK = draw_source(train_NK, config.source_std, generator)

    def loss(self, module: nn.Module, batch_size: int, generator: torch.Generator) -> torch.Tensor:
        """Return the mean squared error over a random batch."""
        rows_B = self._draw_rows(batch_size, generator)
        source_BK = None
        if self.bank_NK is not None:
            source_BK = self.bank_NK.index_select(0, self._draw_rows(batch_size, generator))
        return self._error(module, self.train_NK.index_select(0, rows_B), generator, source_BK)

    def validate(self, module: nn.Module) -> float | None:
        """Return the error over held-out codes, at the same noise and times each call."""
        if not len(self.val_NK):
            return None
        generator = torch_stream(self.seed, "validation", device=self.val_NK.device.type)
        repeats = -(-_VALIDATION_DRAWS // len(self.val_NK))
        rows = torch.arange(len(self.val_NK), device=self.val_NK.device).repeat(repeats)
        total = torch.zeros((), dtype=torch.float64, device=rows.device)
        for rows_B in rows.split(max(1, _VALIDATION_NUMBERS // self.val_NK.shape[1])):
            total += self._error(module, self.val_NK[rows_B], generator) * len(rows_B)
        return total.item() / len(rows)

    def _draw_rows(self, count: int, generator: torch.Generator) -> torch.Tensor:
        device = self.train_NK.device
        return torch.randint(len(self.train_NK), (count,), generator=generator, device=device)

    def _error(
        self,
        module: nn.Module,
        x1_BK: torch.Tensor,
        generator: torch.Generator,
        x0_BK: torch.Tensor | None = None,
    ) -> torch.Tensor:
        config = self.config
        if x0_BK is None:
            x0_BK = draw_source(x1_BK, config.source_std, generator)
        if config.pairing == "optimal_transport":
            x0_BK = x0_BK[pair(x0_BK, x1_BK)]
        t_B = draw_times(config.time, len(x1_BK), generator)
        xt_BK = torch.lerp(x0_BK, x1_BK, t_B.unsqueeze(1))
        if config.sigma:
            xt_BK += draw_source(x1_BK, config.sigma, generator)
        wanted_BK = x1_BK - x0_BK if config.prediction == "velocity" else x1_BK
        return mse_loss(module(xt_BK, t_B), wanted_BK)


def draw_source(like_BK: torch.Tensor, std: float, generator: torch.Generator) -> torch.Tensor:
    """Return Gaussian noise of a standard deviation, in the shape and place of `like_BK`."""
    return torch.empty_like(like_BK).normal_(0, std, generator=generator)


def draw_times(kind: str, count: int, generator: torch.Generator) -> torch.Tensor:
    """Return t_B in [0, 1]: `uniform`, `beta` (2, 5) or `logit_normal` (0, 1)."""
    device = generator.device
    if kind == "uniform":
        return torch.rand(count, generator=generator, device=device)
    if kind == "logit_normal":
        return torch.randn(count, generator=generator, device=device).sigmoid()
    # The second smallest of six uniform numbers is Beta(2, 5); torch's sampler takes no generator.
    return torch.rand(count, 6, generator=generator, device=device).kthvalue(2, dim=1).values


def pair(x0_BK: torch.Tensor, x1_BK: torch.Tensor) -> torch.Tensor:
    """Return the order of sources that lies nearest to the codes, int64 of shape [B].

    Exact: `x0_BK[order]` minimises the sum of squared distances to `x1_BK`.
    """
    # |x1 - x0|^2 = |x1|^2 + |x0|^2 - 2 x1.x0, and only the last term depends on the pairing.
    product_BB = x1_BK @ x0_BK.T
    _, order = linear_sum_assignment(product_BB.cpu().numpy(), maximize=True)
    return torch.from_numpy(order).to(x0_BK.device)


def velocity_of_target(
    target_BK: torch.Tensor, x_BK: torch.Tensor, t: torch.Tensor, source_std: float, sigma: float
) -> torch.Tensor:
    """Return the velocity u(x, t) where the expected code E[x1 | x_t = x] is known.

    u = E[x1] - E[x0], and given x1 and x_t the source is Gaussian with the mean
    (x_t - t x1) (1 - t) s^2 / ((1 - t)^2 s^2 + sigma^2). Without sigma this is
    u = (x1 - x_t) / (1 - t).

    Args:
        target_BK: E[x1 | x_t = x].
        x_BK: points on the path.
        t: their time, a scalar tensor below 1.
        source_std: s.
        sigma: noise around the path.
    """
    left = 1 - t
    gain = left * source_std**2 / (left**2 * source_std**2 + sigma**2)
    return target_BK - gain * (x_BK - t * target_BK)
