"""Layer by layer: what SANE's embeddings say of a layer, beside the spectrum of its weights.

The spread of a layer's tokens in the latent space was found to follow spectral measures of its
weights over the depth of a network, and to grow with its accuracy (SANE, arXiv 2406.09997,
section 4.1 and figure 3).

Shape suffixes: N networks, B networks of a block, L layers, F spectral features, T tokens, C
numbers of a token's latent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from dwf.codecs.codec import Codec
from dwf.codecs.codes import Codes
from dwf.codecs.sane import SaneCodec
from dwf.errors import ConfigError, TooFewNetworks
from dwf.evaluation.report import STYLE, Width, panels, save_figures
from dwf.plain import Json
from dwf.predictors.spectra import FEATURES, matrices_of, spectral_features
from dwf.run_folder import write_json
from dwf.zoo.store import Zoo

SPREAD = "spread"
"""Name of the embeddings' measure, which stands before `FEATURES`."""
MEASURES = (SPREAD, *FEATURES)
DRAWN = (SPREAD, "log_spectral_norm", "alpha_weighted", "stable_rank", "entropy")
"""Measures that the figure shows."""
_WORDS = {
    SPREAD: "spread of the embeddings",
    "log_spectral_norm": "log spectral norm",
    "alpha_weighted": "alpha, weighted",
    "stable_rank": "stable rank",
    "entropy": "entropy",
}
_FEWEST = 3  # values that a rank correlation is told of


@dataclass(frozen=True)
class Layers:
    """Measures of each layer of some networks."""

    names: tuple[str, ...]
    """Names of the layers' weights, in order."""
    values_NLF: np.ndarray
    """`MEASURES` of each layer, float64; NaN where there is none."""
    epoch_N: np.ndarray
    """Epoch of each network."""
    accuracy_N: np.ndarray
    """Accuracy on validation images; NaN where the zoo records none."""

    def to_json(self) -> dict[str, Json]:
        """Return means over the networks and rank correlations, plain data."""
        mean_LF = self._mean(0)
        return {
            "networks": len(self.values_NLF),
            "layers": list(self.names),
            "mean": {name: _plain(mean_LF[:, i]) for i, name in enumerate(MEASURES)},
            "correlations": {name: self._correlations(i) for i, name in enumerate(MEASURES)},
        }

    def _correlations(self, index: int) -> dict[str, float | None]:
        """Return rank correlations of a measure; None where they are not defined."""
        own_NL, spread_NL = self.values_NLF[..., index], self.values_NLF[..., 0]
        pairs = list(zip(own_NL, spread_NL, strict=True))
        return {
            "spread_over_depth": _mean([_spearman(own_L, other_L) for own_L, other_L in pairs]),
            "spread_over_networks": _mean(
                [_spearman(a_N, b_N) for a_N, b_N in zip(own_NL.T, spread_NL.T, strict=True)]
            ),
            "accuracy": _spearman(self._mean(1)[:, index], self.accuracy_N),
        }

    def _mean(self, axis: int) -> np.ndarray:
        """Return means over networks or layers, of what is there; NaN where nothing is."""
        there = np.isfinite(self.values_NLF)
        count = there.sum(axis)
        total = np.where(there, self.values_NLF, 0.0).sum(axis)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def compare_layers(codec: Codec, zoo: Zoo, *, rows: np.ndarray) -> Layers:
    """Return the spread of the embeddings and spectral features of each layer, block by block.

    Args:
        codec: SANE's, fitted to the zoo's layout.
        zoo: where the networks are; held to their checksums.
        rows: which of its rows.

    Raises:
        ConfigError: the codec is another, or covers no matrix.
        ShapeMismatch: the codec was not fitted to this layout.
        TooFewNetworks: no row is given.
    """
    if not isinstance(codec, SaneCodec):
        raise ConfigError(
            f"codec.kind = {codec.config.kind!r} has no embedding of each token: give the run of a "
            "generator with the codec 'sane'"
        )
    if not len(rows):
        raise TooFewNetworks(f"{zoo.path}: 0 networks to look at, at least 1 expected")
    codec.spans_of(zoo.layout)  # refuses another layout
    of_tokens = [layer.name for layer in codec.geometries[zoo.layout.digest].layers]
    of_matrices = [entry.name for entry in matrices_of(zoo.layout)]
    names = [name for name in of_matrices if name in of_tokens]
    parts = []
    for _, weights_BD in zoo.stream(rows):
        codes = codec.encode(torch.from_numpy(weights_BD), zoo.layout)
        spread_BL = spreads(codes)[:, [of_tokens.index(name) for name in names]]
        features_BLF = spectral_features(weights_BD, zoo.layout)
        features_BLF = features_BLF[:, [of_matrices.index(name) for name in names]]
        parts.append(np.concatenate([spread_BL[..., None], features_BLF], 2))
    unknown_N = np.full(len(zoo), np.nan)
    return Layers(
        tuple(names),
        np.concatenate(parts),
        epoch_N=zoo.columns["epoch"][rows],
        accuracy_N=zoo.columns.get("val_accuracy", unknown_N)[rows],
    )


def spreads(codes: Codes) -> np.ndarray:
    """Return spread_BL, float64: how far a layer's tokens lie apart in the latent space.

    It is the root of their variance, the mean over the latent's numbers.
    """
    layer_T = codes.shape.positions[:, 1]
    per_layer = [
        codes.values[:, layer_T == layer].double().var(1, correction=0).mean(1).sqrt()
        for layer in layer_T.unique()
    ]
    return torch.stack(per_layer, 1).numpy()


def write_layers(layers: Layers, folder: Path, *, name: str) -> list[Path]:
    """Write numbers and figure, NAME.json and NAME.png; return both files."""
    numbers = folder / f"{name}.json"
    write_json(numbers, layers.to_json())
    with matplotlib.rc_context(STYLE):
        drawn = save_figures({f"{name}.png": ("Layer by layer", partial(draw, layers))}, folder)
    return [numbers, *drawn.values()]


def table(layers: Layers) -> str:
    """Return the rank correlations in words, a line for each measure."""
    told = {name: layers._correlations(i) for i, name in enumerate(MEASURES)}
    head = f"{'measure':20} {'with the spread over depth':>28} {'with accuracy':>15}"
    lines = [
        f"{name:20} {_word(own['spread_over_depth']):>28} {_word(own['accuracy']):>15}"
        for name, own in told.items()
    ]
    return "\n".join([head, *lines])


def draw(layers: Layers, width: Width) -> Figure:
    """Return the figure: each measure over the layers at each epoch, and against accuracy."""
    figure, each_axes = panels(width, 2 * len(DRAWN), height=2.3, across=2)
    for above, below, name in zip(each_axes[::2], each_axes[1::2], DRAWN, strict=True):
        index = MEASURES.index(name)
        _draw_depth(above, layers, layers.values_NLF[..., index])
        _draw_accuracy(below, layers, layers._mean(1)[:, index])
        above.set_title(_WORDS[name])
    each_axes[0].legend(title="epoch")
    return figure


def _draw_depth(axes: Axes, layers: Layers, values_NL: np.ndarray) -> None:
    epochs = np.unique(layers.epoch_N)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(epochs)))
    for epoch, colour in zip(epochs, colours, strict=True):
        mine_NL = np.ma.masked_invalid(values_NL[layers.epoch_N == epoch])
        middle_L, wide_L = mine_NL.mean(0).filled(np.nan), mine_NL.std(0).filled(np.nan)
        depth_L = np.arange(1, len(middle_L) + 1)
        axes.plot(depth_L, middle_L, color=colour, marker="o", markersize=3, label=str(epoch))
        axes.fill_between(
            depth_L, middle_L - wide_L, middle_L + wide_L, color=colour, alpha=0.15, linewidth=0
        )
    axes.set_xlabel("layer")


def _draw_accuracy(axes: Axes, layers: Layers, values_N: np.ndarray) -> None:
    axes.scatter(
        100 * layers.accuracy_N, values_N, c=layers.epoch_N, cmap="viridis", s=5, linewidths=0
    )
    axes.set_xlabel("accuracy on validation images, %")
    axes.set_ylabel("mean over the layers")


def _spearman(one: np.ndarray, other: np.ndarray) -> float | None:
    """Return the rank correlation of what is finite in both; None of too few or equal values."""
    there = np.isfinite(one) & np.isfinite(other)
    one, other = one[there], other[there]
    if len(one) < _FEWEST or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic)


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def _plain(values_L: np.ndarray) -> list[Json]:
    return [value if np.isfinite(value) else None for value in values_L.tolist()]


def _word(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"
