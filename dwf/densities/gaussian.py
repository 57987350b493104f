"""A multivariate Gaussian over codes: the null that every generator must beat.

Kept as directions and their variances, so that the full covariance of N codes of K numbers costs
O(N K) memory: a covariance of rank R < K is singular without shrinkage, and its density is then the
one on the affine space of the training codes (pseudo-inverse).

Shape suffixes: N codes, K numbers of a code, R directions of variance.
"""

import math
from pathlib import Path

import torch

from dwf.codecs.codes import Codes, CodeShape
from dwf.densities.config import GaussianConfig
from dwf.densities.density import Density
from dwf.densities.scaling import vectors
from dwf.densities.solver import draw_noise
from dwf.errors import TooFewNetworks
from dwf.run_folder import RunFolder, load_state, save_state
from dwf.settings import build, to_dict

FILE = "gaussian.pt"
# Variances below this share of the greatest are rounding of float32 codes.
_NEGLIGIBLE = 1e-12


class Gaussian(Density):
    """Mean and covariance of the training codes."""

    files = (FILE,)
    config: GaussianConfig

    def fit(
        self,
        train_codes: Codes,
        val_codes: Codes | None = None,
        *,
        run: RunFolder | None = None,
        seed: int = 0,
    ) -> None:
        """Estimate mean and covariance (divided by N - 1), exactly; draws nothing.

        Args:
            train_codes: vectors [N, K], or sequences [N, T, C], N >= 2.
            val_codes: not used.
            run: not used.
            seed: not used.

        Raises:
            TooFewNetworks: fewer than two training codes.
        """
        values_NK = vectors(train_codes).double()
        if len(values_NK) < 2:
            raise TooFewNetworks(f"{len(values_NK)} training networks: a Gaussian needs at least 2")
        self.shape = train_codes.shape
        self.mean_K = values_NK.mean(0)
        centred_NK = (values_NK - self.mean_K) / math.sqrt(len(values_NK) - 1)
        self.directions_RK = None  # diagonal: the numbers themselves
        if self.config.covariance == "diagonal":
            variance_R = centred_NK.square().sum(0)
        else:
            _, deviation_R, directions_RK = torch.linalg.svd(centred_NK, full_matrices=False)
            variance_R = deviation_R.square()
            keep_R = variance_R > _NEGLIGIBLE * variance_R.max()
            variance_R, self.directions_RK = variance_R[keep_R], directions_RK[keep_R]
        share = self.config.shrinkage
        floor = share * variance_R.sum().item() / len(self.mean_K)
        self.variance_R, self.floor = (1 - share) * variance_R + floor, floor

    def sample(self, count: int, seed: int, *, first: int = 0) -> Codes:
        """Draw codes; sample i of a seed is the same whatever `count`.

        Args:
            count: how many.
            seed: of the draw.
            first: number of the first sample.
        """
        noise_NK = draw_noise(count, len(self.mean_K), seed=seed, first=first).double()
        if self.directions_RK is None:
            centred_NK = noise_NK * self.variance_R.sqrt()
        else:
            along_NR = noise_NK @ self.directions_RK.T
            rest = math.sqrt(self.floor)
            stretched_NR = along_NR * (self.variance_R.sqrt() - rest)
            centred_NK = rest * noise_NK + stretched_NR @ self.directions_RK
        return self.shape.fill((self.mean_K + centred_NK).float())

    def log_prob(self, codes: Codes, *, seed: int = 0, probes: int = 8) -> torch.Tensor:
        """Return the log density of codes in nats, float64, shape [N]; exact.

        Where the covariance is singular: the density on the space it spans, -inf off it.
        """
        centred_NK = vectors(codes, self.shape).double() - self.mean_K
        along_NR = centred_NK
        if self.directions_RK is not None:
            along_NR = centred_NK @ self.directions_RK.T
        varies_R = self.variance_R > 0
        off_N = centred_NK.square().sum(1) - along_NR[:, varies_R].square().sum(1)
        along_NR, variance_R = along_NR[:, varies_R], self.variance_R[varies_R]
        squared_N = (along_NR.square() / variance_R).sum(1)
        log_scale = (2 * math.pi * variance_R).log().sum()
        num_off = centred_NK.shape[1] - len(variance_R)
        if num_off and self.floor:
            squared_N = squared_N + off_N / self.floor
            log_scale = log_scale + num_off * math.log(2 * math.pi * self.floor)
        log_N = -0.5 * (squared_N + log_scale)
        if num_off and not self.floor:  # float32 codes lie on the space up to their rounding
            log_N[off_N > 1e-9 * centred_NK.square().sum(1).clamp(min=1e-30)] = -math.inf
        return log_N

    def save(self, folder: Path) -> None:
        """Write the fitted Gaussian to `folder/gaussian.pt`."""
        state = {
            "config": to_dict(self.config),
            "shape": vars(self.shape),
            "mean_K": self.mean_K,
            "variance_R": self.variance_R,
            "directions_RK": self.directions_RK,
            "floor": self.floor,
        }
        save_state(Path(folder) / FILE, state)

    @classmethod
    def load(cls, folder: Path) -> "Gaussian":
        """Read what `save` wrote.

        Raises:
            CorruptCheckpoint: the file is damaged.
        """
        path = Path(folder) / FILE
        state = load_state(path)
        gaussian = cls(build(GaussianConfig, state.pop("config"), source=str(path)))
        gaussian.shape = CodeShape(**state.pop("shape"))
        for name, value in state.items():
            setattr(gaussian, name, value)
        return gaussian
