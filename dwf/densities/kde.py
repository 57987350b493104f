"""Kernel density over codes: training codes, the anchors, plus Gaussian noise.

SANE's ways to draw (Schuerholt et al., ICML 2024, arXiv 2406.09997, table 3). With anchors
a_1 ... a_A and noise of deviation h the density of a code z is, with N a Gaussian around an anchor,

    joint        1/A sum_a N(z; a, h)                    a whole code around one anchor
    token        prod_t 1/A sum_a N(z_t; a_t, h)         each token around an anchor of its own
    individual   prod_tc 1/A sum_a N(z_tc; a_tc, h)      each number around an anchor of its own
    gaussian     prod_tc N(z_tc; mean, sigma)            no anchor

Anchors and noise are drawn anew for each token of each sample: tokens are independent, as the
formula says. Anchors that lie on a disk, as the codes of a large fit and those that `load` finds,
stay there: only what a draw takes of them is read, and the rest is worked on in windows of tokens.

    kde.pt         settings, shape, widths; written last
    anchors.npy    float32, shape [A, *shape of a code]

Shape suffixes: N codes, B codes of a chunk, A anchors, T tokens, C numbers of a token, K numbers
that stand for weights, M units that have an anchor of their own. Of vectors T = K and C = 1.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dwf.codecs.codes import Codes, CodeShape
from dwf.densities.beside import map_array, open_array, save_array
from dwf.densities.config import KdeConfig
from dwf.densities.density import Density
from dwf.densities.scaling import check_codes
from dwf.errors import ConfigError, TooFewNetworks
from dwf.randomness import numpy_stream, torch_stream
from dwf.run_folder import RunFolder, load_state, save_state
from dwf.settings import build, to_dict

FILE, ANCHORS = "kde.pt", "anchors.npy"
# A number that no anchor varies is drawn as if it varied by this share of all numbers' deviation.
_LEAST_DEVIATION = 1e-3
# Numbers of the anchors that are read at once, and distances that are held at once.
_ANCHOR_NUMBERS, _DISTANCES = 2**22, 2**22
# Differences computed to measure the likelihood of held-out codes: about ten seconds' worth. Of
# `individual` each costs an exponential.
_VAL_DIFFERENCES, _COST_OF_INDIVIDUAL = 2**33, 32


@dataclass(frozen=True)
class Fitted:
    """Measurements of a fit."""

    anchors: int
    """A."""
    val_log_likelihood: float | None
    """Mean log density of held-out codes in nats; None where there are none."""
    val_networks: int
    """Over how many of them."""


class Kde(Density):
    """Anchors and the noise around them."""

    files = (FILE, ANCHORS)
    config: KdeConfig

    def fit(
        self,
        train_codes: Codes,
        val_codes: Codes | None = None,
        *,
        run: RunFolder | None = None,
        seed: int = 0,
    ) -> Fitted:
        """Take training codes as anchors; they are held as they are, not copied.

        Args:
            train_codes: vectors [N, K], or sequences [N, T, C].
            val_codes: held-out ones, whose likelihood is measured; may be none.
            run: not used.
            seed: of the choice of anchors.

        Raises:
            TooFewNetworks: fewer training codes than anchors, or none.
            ConfigError: codes are vectors, and `mode` is `token`.
            ShapeMismatch: the codes are not of one shape.
        """
        if self.config.mode == "token" and train_codes.shape.sections is None:
            raise ConfigError(
                "density.mode = 'token', but these codes are vectors, which have no tokens: choose "
                "mode joint or individual, or a codec of tokens (sane, tokens, neurons)"
            )
        rows_A = self._choose_anchors(len(train_codes), seed)
        self._take(train_codes, rows_A)
        self.width_TC = self._measure_widths() if self.config.relative else None
        return self._measure(val_codes)

    def with_anchors(self, codes: Codes) -> "Kde":
        """Return one of the same noise around other anchors.

        Raises:
            ConfigError: `mode` is `gaussian`, which has none.
            ShapeMismatch: the codes are not of the shape of these.
        """
        if not self.config.has_anchors:
            raise ConfigError(
                "density.mode = 'gaussian' has no anchors to replace: draw without bootstrap, or "
                "fit a kde of mode token, joint or individual"
            )
        check_codes(codes, self.shape)
        other = Kde(self.config)
        other._take(codes, torch.arange(len(codes)))
        other.width_TC = self.width_TC
        return other

    def _choose_anchors(self, num: int, seed: int) -> torch.Tensor:
        if not self.config.has_anchors:
            return torch.empty(0, dtype=torch.int64)
        wanted = self.config.anchors or num
        if not 0 < wanted <= num:
            raise TooFewNetworks(
                f"density.anchors = {self.config.anchors or 'all'}, but {num} training networks: "
                f"give at most so many, or train a larger zoo"
            )
        order_N = numpy_stream(seed, "anchors").permutation(num)
        return torch.from_numpy(np.sort(order_N[:wanted]))

    def _take(self, codes: Codes, rows_A: torch.Tensor) -> None:
        self.shape = codes.shape
        self.is_mapped = codes.is_mapped
        held = codes.values if len(rows_A) else codes.shape.empty().values
        self.values_NTC, self.rows_A = _as_tokens(held), rows_A
        self.mask_TC = codes.shape.mask
        if self.mask_TC is None:
            self.mask_TC = torch.ones(self.values_NTC.shape[1:], dtype=torch.bool)

    def _measure_widths(self) -> torch.Tensor:
        deviation_TC = torch.empty(self.mask_TC.shape, dtype=torch.float64)
        for tokens in self._windows(len(self.rows_A)):
            anchors_ATC = self.values_NTC[self.rows_A, tokens].double()
            deviation_TC[tokens] = anchors_ATC.std(0, correction=0)
        least = _LEAST_DEVIATION * deviation_TC[self.mask_TC].square().mean().sqrt()
        if not least:
            raise TooFewNetworks(
                f"density.relative: the {len(self.rows_A)} anchors do not differ, so a bandwidth "
                "in their deviations is 0: leave it out, or take more anchors"
            )
        return self.config.bandwidth * deviation_TC.clamp_min(least)

    def _measure(self, val_codes: Codes | None) -> Fitted:
        num = 0 if val_codes is None else len(val_codes)
        differences = max(1, len(self.rows_A)) * self.mask_TC.numel()
        if self.config.mode == "individual":
            differences *= _COST_OF_INDIVIDUAL
        num = min(num, max(1, _VAL_DIFFERENCES // differences))
        if not num:
            return Fitted(len(self.rows_A), None, val_networks=0)
        some = self.log_prob(val_codes.take(slice(0, num)))
        return Fitted(len(self.rows_A), some.mean().item(), val_networks=num)

    def sample(self, count: int, seed: int, *, first: int = 0) -> Codes:
        """Draw codes; sample i of a seed is the same whatever `count`.

        Args:
            count: how many.
            seed: of the draw.
            first: number of the first sample.
        """
        every_T = torch.arange(len(self.mask_TC))
        drawn_NTC = self._draw(every_T, count, seed=seed, first=first)
        return Codes(drawn_NTC.reshape(count, *self.shape.of_code), self.shape)

    def sample_tokens(
        self, tokens_S: torch.Tensor, count: int, *, seed: int, first: int = 0
    ) -> torch.Tensor:
        """Draw sequences of tokens, each around an anchor of its own; see the base.

        Raises:
            ConfigError: `mode` is `joint`, where all tokens come from one anchor.
        """
        if not self.config.draws_tokens:
            raise ConfigError(
                f"density.mode = {self.config.mode!r} draws whole codes of the networks that it "
                "learnt: fit a kde of mode token or individual"
            )
        return self._draw(tokens_S, count, seed=seed, first=first)

    def _draw(self, tokens_T: torch.Tensor, count: int, *, seed: int, first: int) -> torch.Tensor:
        """Return drawn_NTC of some tokens, of each as often as it is named."""
        mask_TC = self.mask_TC[tokens_T]
        drawn_NTC, width_K = torch.zeros(count, *mask_TC.shape), self._width_of(tokens_T)
        for i in range(count):
            generator = torch_stream(seed, "sample", first + i)
            centre_TC = self._draw_centre(generator, tokens_T)
            noise_K = torch.randn(int(mask_TC.sum()), generator=generator)
            noise_K *= width_K
            drawn_NTC[i][mask_TC] = centre_TC[mask_TC] + noise_K
        return drawn_NTC

    def _draw_centre(self, generator: torch.Generator, tokens_T: torch.Tensor) -> torch.Tensor:
        """Return what the noise of one sample lies around, centre_TC of some tokens."""
        mode, num = self.config.mode, len(self.rows_A)
        num_tokens, width = len(tokens_T), self.mask_TC.shape[1]
        if mode == "gaussian":
            return torch.full((num_tokens, width), self.config.mean)
        if mode == "joint":
            row = self.rows_A[torch.randint(num, (), generator=generator)]
            return self.values_NTC[row][tokens_T]
        shape = (num_tokens, 1) if mode == "token" else (num_tokens, width)
        rows_TC = self.rows_A[torch.randint(num, shape, generator=generator)]
        return self.values_NTC[rows_TC, tokens_T[:, None], torch.arange(width)]

    def _width_of(self, tokens: slice | torch.Tensor) -> torch.Tensor:
        """Return the deviation of the noise of some tokens' numbers, float32 of shape [K] or []."""
        if self.width_TC is not None:
            return self.width_TC[tokens][self.mask_TC[tokens]].float()
        gaussian = self.config.mode == "gaussian"
        return torch.tensor(self.config.sigma if gaussian else self.config.bandwidth)

    def log_prob(self, codes: Codes, *, seed: int = 0, probes: int = 8) -> torch.Tensor:
        """Return the log density of codes in nats, float64, shape [N]; exact.

        Raises:
            ShapeMismatch: the codes are not of the shape of the training codes.
        """
        check_codes(codes, self.shape)
        values_NTC = _as_tokens(codes.values)
        units = self.mask_TC.shape[1] if self.config.mode == "individual" else 1
        size = max(1, _DISTANCES // max(1, len(self.rows_A) * units))
        parts = [self._log_prob(values_BTC) for values_BTC in values_NTC.split(size)]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)

    def _log_prob(self, values_BTC: torch.Tensor) -> torch.Tensor:
        mode, num_anchors = self.config.mode, len(self.rows_A)
        log_B = torch.zeros(len(values_BTC), dtype=torch.float64)
        squared_BA = torch.zeros(len(values_BTC), max(1, num_anchors), dtype=torch.float64)
        for tokens in self._windows(num_anchors, len(values_BTC)):
            mask_TC = self.mask_TC[tokens]
            width_K = self._width_of(tokens).double()
            points_BK = values_BTC[:, tokens].double()[:, mask_TC] / width_K
            log_B -= (math.sqrt(2 * math.pi) * width_K).log().expand(points_BK.shape[1]).sum()
            if mode == "gaussian":
                squared_BA += (points_BK - self.config.mean / width_K).square().sum(1)[:, None]
                continue
            anchors_AK = self.values_NTC[self.rows_A, tokens].double()[:, mask_TC] / width_K
            if mode == "joint":
                squared_BA += _squared_distances(points_BK, anchors_AK)
                continue
            if mode == "token":
                padded = (_pad(numbers, mask_TC) for numbers in (points_BK, anchors_AK))
                squared_MBA = _squared_distances(*padded)
            else:
                squared_MBA = (points_BK.T.unsqueeze(2) - anchors_AK.T.unsqueeze(1)).square_()
            log_B += _log_mixture(squared_MBA).sum(0)
        return log_B + _log_mixture(squared_BA) if mode in ("joint", "gaussian") else log_B

    def _windows(self, num_anchors: int, num_points: int = 0) -> Iterator[slice]:
        """Yield the tokens in windows of bounded memory."""
        num_tokens, width = self.mask_TC.shape
        units = width if self.config.mode == "individual" else 1
        size = _ANCHOR_NUMBERS // (max(1, num_anchors + num_points) * width)
        if self.config.mode in ("token", "individual"):
            size = min(size, _DISTANCES // max(1, num_anchors * num_points * units))
        for start in range(0, num_tokens, max(1, size)):
            yield slice(start, min(start + max(1, size), num_tokens))

    def save(self, folder: Path) -> None:
        """Write the anchors to `folder/anchors.npy`, row by row, then `folder/kde.pt`."""
        folder = Path(folder)
        file, shape = folder / ANCHORS, (len(self.rows_A), *self.shape.of_code)
        rows = (self.values_NTC[row].float() for row in self.rows_A.tolist())
        checksum = save_array(file, shape, parts=rows, dtype="<f4")
        state = {
            "config": to_dict(self.config),
            "shape": vars(self.shape),
            "width_TC": self.width_TC,
            "checksum": checksum,
        }
        save_state(folder / FILE, state)
        if self.is_mapped and len(self.rows_A):  # from there, so that the codes of the fit may go
            self._take_saved(map_array(file))

    @classmethod
    def load(cls, folder: Path) -> "Kde":
        """Read what `save` wrote; the anchors are mapped.

        Raises:
            CorruptCheckpoint: a file is damaged.
        """
        path, file = Path(folder) / FILE, Path(folder) / ANCHORS
        state = load_state(path)
        kde = cls(build(KdeConfig, state["config"], source=str(path)))
        values = open_array(file, state["checksum"], has_rows=kde.config.has_anchors)
        kde.shape = CodeShape(**state["shape"])
        kde._take_saved(values)
        kde.width_TC = state["width_TC"]
        return kde

    def _take_saved(self, values: torch.Tensor) -> None:
        codes = Codes(values, self.shape, is_mapped=self.config.has_anchors)
        self._take(codes, torch.arange(len(values)))


def _as_tokens(values: torch.Tensor) -> torch.Tensor:
    """Return a view values_NTC of vectors or sequences."""
    return values.unsqueeze(2) if values.dim() == 2 else values


def _pad(numbers_BK: torch.Tensor, mask_TC: torch.Tensor) -> torch.Tensor:
    """Return the numbers of tokens, 0 where nothing stands for a weight, shape [T, B, C]."""
    padded_BTC = numbers_BK.new_zeros(len(numbers_BK), *mask_TC.shape)
    padded_BTC[:, mask_TC] = numbers_BK
    return padded_BTC.transpose(0, 1)


def _squared_distances(points: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Return |point - anchor|^2 of [..., B, K] and [..., A, K], without cancellation."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(points, anchors, compute_mode=exact).square()


def _log_mixture(squared_BA: torch.Tensor) -> torch.Tensor:
    """Return the log of the mean of exp(-squared / 2) over anchors, the last axis."""
    return squared_BA.mul_(-0.5).logsumexp(-1) - math.log(squared_BA.shape[-1])
