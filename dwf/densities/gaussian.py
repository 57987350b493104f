"""A multivariate Gaussian over codes: the null that every generator must beat.

Kept as directions and their variances, R x K numbers for the full covariance of N codes of K
numbers: a covariance of rank R < K is singular without shrinkage, and its density is then the one
on the affine space of the training codes (pseudo-inverse). Of codes that lie on a disk, the
directions do too, and all is found block by block; see `factor`.

    gaussian.pt       settings, shape, mean, variances, and directions that are held; written last
    directions.npy    float64, shape [R, K], of codes on a disk

Shape suffixes: N codes, K numbers of a code, R directions of variance.
"""

import math
from pathlib import Path

import torch

from dwf.codecs.codes import Codes, CodeShape
from dwf.densities.beside import map_array, open_array, save_array
from dwf.densities.config import GaussianConfig
from dwf.densities.density import Density
from dwf.densities.factor import find_directions, gather_moments
from dwf.densities.scaling import check_codes, vectors
from dwf.densities.solver import draw_noise
from dwf.errors import TooFewNetworks, TooLarge
from dwf.room import machine_bytes
from dwf.run_folder import RunFolder, load_state, save_state
from dwf.settings import build, to_dict

FILE, DIRECTIONS = "gaussian.pt", "directions.npy"
# Variances below this share of the greatest are rounding of float32 codes.
_NEGLIGIBLE = 1e-12
# Numbers of codes whose likelihood is computed at once.
_CHUNK_NUMBERS = 2**24


class Gaussian(Density):
    """Mean and covariance of the training codes."""

    files = (FILE,)
    config: GaussianConfig
    directions_RK: torch.Tensor | None
    """float64, orthonormal; None where the covariance is diagonal: the numbers themselves."""
    is_mapped = False
    """Whether the directions lie on a disk."""

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
            run: of codes on a disk, its disk takes the directions; else not used.
            seed: not used.

        Raises:
            TooFewNetworks: fewer than two training codes.
            TooLarge: of codes on a disk, the full covariance takes more memory than there is.
        """
        if len(train_codes) < 2:
            raise TooFewNetworks(
                f"{len(train_codes)} training networks: a Gaussian needs at least 2"
            )
        self.shape, self.directions_RK, self.is_mapped = train_codes.shape, None, False
        if train_codes.is_mapped:
            variance_R = self._fit_stored(train_codes, run)
        else:  # at most `codes.MOST_HELD` bytes, taken as one block
            variance_R = self._fit_held(train_codes)
        share = self.config.shrinkage
        floor = share * variance_R.sum().item() / len(self.mean_K)
        self.variance_R, self.floor = (1 - share) * variance_R + floor, floor

    def _fit_held(self, codes: Codes) -> torch.Tensor:
        """Take mean and directions of codes; return the variances along these."""
        values_NK = vectors(codes).double()
        self.mean_K = values_NK.mean(0)
        centred_NK = (values_NK - self.mean_K) / math.sqrt(len(values_NK) - 1)
        if self.config.covariance == "diagonal":
            return centred_NK.square().sum(0)
        _, deviation_R, directions_RK = torch.linalg.svd(centred_NK, full_matrices=False)
        variance_R = deviation_R.square()
        keep_R = variance_R > _NEGLIGIBLE * variance_R.max()
        self.directions_RK = directions_RK[keep_R]
        return variance_R[keep_R]

    def _fit_stored(self, codes: Codes, run: RunFolder) -> torch.Tensor:
        """Do the same of codes on a disk, block by block."""
        num, size = len(codes), codes.shape.size
        need, room = self.config.bytes_to_fit(num, size), machine_bytes()
        if need > room:
            raise TooLarge(
                f"density.covariance = {self.config.covariance!r}: the directions of {num:,} codes "
                f"of {size:,} numbers take {need / 2**30:,.1f} GiB to find, and this machine's "
                f"memory has {room / 2**30:,.1f} GiB: {self.config.less_memory}"
            )
        moments = gather_moments(codes)
        self.mean_K = torch.from_numpy(moments.mean_D)
        if self.config.covariance == "diagonal":
            return torch.from_numpy(moments.variance_D) * (num / (num - 1))
        variance_R, self.directions_RK = find_directions(
            codes, self.mean_K, negligible=_NEGLIGIBLE, folder=run.path
        )
        self.is_mapped = True
        return variance_R

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
        check_codes(codes, self.shape)
        size = max(1, _CHUNK_NUMBERS // self.shape.size)
        starts = range(0, len(codes), size)
        parts = [self._log_prob(codes.take(slice(start, start + size))) for start in starts]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)

    def _log_prob(self, codes: Codes) -> torch.Tensor:
        centred_NK = vectors(codes).double() - self.mean_K
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
        """Write directions that lie on a disk to `folder/directions.npy`, then `gaussian.pt`."""
        folder, beside = Path(folder), {}
        if self.is_mapped:
            file, shape = folder / DIRECTIONS, tuple(self.directions_RK.shape)
            checksum = save_array(file, shape, parts=self.directions_RK, dtype="<f8")
            beside = {"directions_RK": None, "checksum": checksum}
        state = {
            "config": to_dict(self.config),
            "shape": vars(self.shape),
            "mean_K": self.mean_K,
            "variance_R": self.variance_R,
            "directions_RK": self.directions_RK,
            "floor": self.floor,
        }
        save_state(folder / FILE, state | beside)
        if self.is_mapped:  # from there, so that what `fit` wrote goes
            self.directions_RK = map_array(file, has_rows=len(self.variance_R) > 0)

    @classmethod
    def load(cls, folder: Path) -> "Gaussian":
        """Read what `save` wrote; directions that lie beside the file are mapped.

        Raises:
            CorruptCheckpoint: a file is damaged.
        """
        path = Path(folder) / FILE
        state = load_state(path)
        if "checksum" in state:
            state["directions_RK"] = open_array(
                path.with_name(DIRECTIONS),
                state.pop("checksum"),
                has_rows=len(state["variance_R"]) > 0,
            )
            state["is_mapped"] = True
        gaussian = cls(build(GaussianConfig, state.pop("config"), source=str(path)))
        gaussian.shape = CodeShape(**state.pop("shape"))
        for name, value in state.items():
            setattr(gaussian, name, value)
        return gaussian
