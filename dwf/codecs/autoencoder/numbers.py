"""The numbers of a network that an autoencoder sees: those of chosen tensors, standardised.

Running variances may be taken by their logarithm, as p-diff does (arXiv 2402.13144): of a variance
v, log(v / (0.95 m) + 0.05), where m is the mean of its tensor over the training networks. What
comes back below 0 becomes 0.

Shape suffixes: N networks, D numbers of a network, K numbers that are covered, V numbers of a
tensor of running variances.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from dwf.codecs.config import AutoencoderSettings
from dwf.codecs.standardise import floored, standardisation
from dwf.errors import ConfigError
from dwf.zoo.layout import Entry, Layout, Span, spans_of
from dwf.zoo.moments import Moments, Sources, measure_moments
from dwf.zoo.store import Zoo

_SCALE, _SHIFT = 0.95, 0.05
_LEAST_MEAN = 1e-12


def chosen(layout: Layout, config: AutoencoderSettings) -> tuple[Entry, ...]:
    """Return the tensors that are covered, in the layout's order.

    Raises:
        ConfigError: the pattern is found in no tensor's name, or in all, or there is no tensor.
    """
    most = [e for e in layout.entries if e.is_learnt or (config.buffers and e.role == "buffer")]
    if config.tensors is None:
        return tuple(most)
    found = tuple(entry for entry in most if re.search(config.tensors, entry.name))
    if not found:
        others = "" if config.buffers else " (running statistics are left out: codec.buffers)"
        raise ConfigError(
            f"codec.tensors = {config.tensors!r} is found in no tensor of these networks{others}; "
            f"they have {', '.join(entry.name for entry in most)}"
        )
    if len(found) == len(most):
        raise ConfigError(
            f"codec.tensors = {config.tensors!r} is found in all {len(most)} tensors of these "
            f"networks, {most[0].name} to {most[-1].name}: leave it out to cover whole networks, "
            "or name fewer"
        )
    return found


@dataclass(frozen=True)
class Numbers:
    """The numbers of chosen tensors, and their standardised form."""

    entries: tuple[Entry, ...]
    """The tensors, in the layout's order."""
    log_variances: bool
    """Whether running variances are taken by their logarithm."""
    shift_K: torch.Tensor
    """Shift of each number, float32."""
    scale_K: torch.Tensor
    """Scale of each number, float32."""
    variances: tuple[float, ...]
    """Mean of each tensor of running variances that is taken by its logarithm."""

    @classmethod
    def fit(
        cls, train: Sources, entries: tuple[Entry, ...], *, config: AutoencoderSettings
    ) -> tuple["Numbers", Moments]:
        """Return what training networks show, and the moments of the networks as they are.

        Args:
            train: at least one network, of one layout.
            entries: the tensors that are covered.
            config: how they are standardised.

        Raises:
            ConfigError: a running variance is below 0; names the tensor.
        """
        layout = train[0][0].layout
        as_they_are = moments = measure_moments(train)
        logged = _logged(entries, config.log_variances)
        means = [max(float(moments.mean_D[e.offset : e.stop].mean()), _LEAST_MEAN) for e in logged]
        if logged:

            def with_logarithms(weights_ND: np.ndarray) -> np.ndarray:
                weights_ND = weights_ND.copy()
                for entry, mean in zip(logged, means, strict=True):
                    part_NV = torch.from_numpy(weights_ND[:, entry.offset : entry.stop])
                    part_NV.copy_(_logarithm(part_NV, mean, name=entry.name))
                return weights_ND

            moments = measure_moments(train, prepare=with_logarithms)
        shift_D, scale_D = standardisation(moments, layout, standardise=config.standardise)
        covered = np.concatenate([np.arange(entry.offset, entry.stop) for entry in entries])
        shift_K, scale_K = (
            torch.from_numpy(each.astype(np.float32))
            for each in (shift_D[covered], floored(scale_D[covered]))
        )
        numbers = cls(
            entries, config.log_variances, shift_K, scale_K=scale_K, variances=tuple(means)
        )
        return numbers, as_they_are

    @property
    def size(self) -> int:
        """K."""
        return sum(entry.size for entry in self.entries)

    @cached_property
    def spans(self) -> list[Span]:
        """The stretches of a row that are covered."""
        return spans_of(self.entries)

    def read(
        self, zoo: Zoo, rows: np.ndarray, *, start: int = 0, stop: int | None = None
    ) -> torch.Tensor:
        """Return standardised numbers [start, stop) of a zoo's networks: no others are read."""
        stop, parts, at = self.size if stop is None else stop, [], 0
        for first, last in self.spans:
            low, high = max(start - at, 0), min(stop - at, last - first)
            if low < high:
                parts.append(zoo.read(rows, first + low, stop=first + high))
            at += last - first
        return self._standardise(torch.from_numpy(np.concatenate(parts, 1)), start)

    def take(self, weights_ND: torch.Tensor) -> torch.Tensor:
        """Return the standardised numbers of networks, [N, K].

        Raises:
            ConfigError: a running variance is below 0, or not a number; names the tensor.
        """
        parts = [weights_ND[:, start:stop] for start, stop in self.spans]
        return self._standardise(torch.cat(parts, 1))

    def put(self, x_NK: torch.Tensor, weights_ND: torch.Tensor) -> None:
        """Write standardised numbers into networks; the inverse of `take`."""
        values_NK = x_NK * self.scale_K + self.shift_K
        for part, mean, _ in self._logged_parts():
            values_NV = (values_NK[:, part].exp() - _SHIFT) * (_SCALE * mean)
            values_NK[:, part] = values_NV.clamp(min=0)
        at = 0
        for start, stop in self.spans:
            weights_ND[:, start:stop] = values_NK[:, at : at + stop - start]
            at += stop - start

    def _standardise(self, values: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Standardise, in place, numbers of K from `start` on."""
        stop = start + values.shape[1]
        for part, mean, name in self._logged_parts():
            here = slice(max(part.start - start, 0), max(part.stop - start, 0))
            if here.start < min(here.stop, values.shape[1]):
                values[:, here] = _logarithm(values[:, here], mean, name=name)
        return values.sub_(self.shift_K[start:stop]).div_(self.scale_K[start:stop])

    def _logged_parts(self) -> list[tuple[slice, float, str]]:
        """Return where among K each tensor of logarithms lies, its mean and its name."""
        stops = np.cumsum([entry.size for entry in self.entries])
        at = {
            entry.name: slice(stop - entry.size, stop)
            for stop, entry in zip(stops, self.entries, strict=True)
        }
        logged = _logged(self.entries, self.log_variances)
        return [(at[e.name], mean, e.name) for e, mean in zip(logged, self.variances, strict=True)]


def _logged(entries: Sequence[Entry], log_variances: bool) -> list[Entry]:
    ends = "running_var"
    return [e for e in entries if log_variances and e.role == "buffer" and e.name.endswith(ends)]


def _logarithm(values_NV: torch.Tensor, mean: float, *, name: str) -> torch.Tensor:
    """Return the logarithm of running variances; see the module."""
    bad = values_NV[~(values_NV >= 0)]
    if len(bad):
        raise ConfigError(
            f"{name} holds {bad[0].item():g}, and a running variance is a number of at least 0: "
            "check the zoo with dwf verify, leave running statistics out "
            "(codec.buffers false) or take them as they are (codec.log_variances false)"
        )
    return (values_NV / (_SCALE * mean) + _SHIFT).log()
