"""WeightNet: properties of a network told by attention over its units.

A token for each unit or filter; attention within each layer, whose tokens are a set; attention
across layers, which are told apart by a learned vector each; pooling by a learned query; a head for
each property. Published as an idea with code that does not run: what it describes is built here,
with permutation invariance that holds (see the settings' `invariances`).

Shape suffixes: N networks, D numbers of one network, U tokens of a layer, W numbers of a token, K
rows that are measured.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.nn import functional

from dwf.align.groups import Group
from dwf.align.symmetry import zoo_symmetry
from dwf.errors import ShapeMismatch
from dwf.plain import Json, State
from dwf.predictors.attention import Part, UnitAttention
from dwf.predictors.config import WeightNetConfig
from dwf.predictors.examples import Examples
from dwf.predictors.frames import Frames
from dwf.predictors.learnt import LearntPredictor
from dwf.predictors.unit_tokens import NetworkTokens, TokenLayer, tokenise
from dwf.run_folder import RunPart
from dwf.zoo.layout import Layout
from dwf.zoo.moments import Sources
from dwf.zoo.store import Zoo

_MEASURED = 512
"""Training networks of each layout that scalings of tokens are measured on."""
_WATCHED = 64
"""Networks whose attention is told after the fit."""


class WeightNet(LearntPredictor[list[Part]]):
    """Attention over a network's units; see the module's words."""

    settings = WeightNetConfig
    config: WeightNetConfig
    module: UnitAttention

    def __init__(self, config: WeightNetConfig):
        super().__init__(config)
        self._scalings: dict[str, Scaling] = {}
        self._num_layers = 0
        self._onto: dict[str, torch.Tensor] = {}
        self._frames: WeakKeyDictionary[Zoo, Frames] = WeakKeyDictionary()
        self._tokens: WeakKeyDictionary[Zoo, NetworkTokens] = WeakKeyDictionary()

    def fit(self, train: Examples, val: Examples, *, run: RunPart, seed: int) -> dict[str, Json]:
        """Train the module, see the base; also tell which layers it looks at."""
        found = super().fit(train, val, run=run, seed=seed)
        return found | {"attention": self.attention(val.sources if len(val) else train.sources)}

    def _prepare(self, train: Examples) -> None:
        tokens = [self.tokens_of(zoo) for zoo, _ in train.sources]
        self._num_layers = max(len(each.layers) for each in tokens)
        gathered = {key: _Gathered(*sizes) for key, sizes in sizes_of(tokens).items()}
        self._onto = {}
        by_layout: dict[str, list[tuple[Zoo, np.ndarray]]] = {}
        for zoo, rows in train.sources:
            by_layout.setdefault(zoo.layout.digest, []).append((zoo, rows))
        for digest, sources in by_layout.items():
            if self.config.canonical == "optimal_transport":
                zoo, rows = sources[0]
                first = Frames(zoo, replace(self.config, canonical="norm_sort"))
                self._onto[digest] = first.read(rows[:1])[0]
            _measure(self, sources, gathered)
        self._scalings = {key: found.scaling() for key, found in gathered.items()}

    def tokens_of(self, zoo: Zoo) -> NetworkTokens:
        """Return what the tokens of a zoo's networks are; the same object where they are alike."""
        if zoo not in self._tokens:
            found = tokens_of(self.config, zoo.layout, groups=self._groups_of(zoo))
            alike = (other for other in self._tokens.values() if other.is_like(found))
            self._tokens[zoo] = next(alike, found)
        return self._tokens[zoo]

    def _groups_of(self, zoo: Zoo) -> Sequence[Group] | None:
        asks = self.config.columns == "sorted" or self.config.canonical != "none"
        return zoo_symmetry(zoo) if asks and self.config.tokens == "neuron" else None

    def _new_module(self) -> UnitAttention:
        widths = {key: scaling.width for key, scaling in self._scalings.items()}
        return UnitAttention(
            self.config, widths, num_layers=self._num_layers, num_properties=len(self.properties)
        )

    def inputs(self, sources: Sources) -> list[Part]:
        """Return the tokens of some networks; see the base."""
        parts = []
        for _, alike in itertools.groupby(sources, key=lambda s: id(self.tokens_of(s[0]))):
            alike = list(alike)
            tokens = self.tokens_of(alike[0][0])
            weights_ND = torch.cat([self.weights(zoo, rows) for zoo, rows in alike])
            self._refuse_unknown(tokens)
            scaled = [
                self._scalings[layer.key].apply(layer, values_NUW).to(self.device)
                for layer, values_NUW in zip(tokens.layers, tokens.values(weights_ND), strict=True)
            ]
            parts.append(Part(tuple(layer.key for layer in tokens.layers), tuple(scaled)))
        return parts

    def weights(self, zoo: Zoo, rows: np.ndarray) -> torch.Tensor:
        """Return weights_ND, float32, in the canonical frame of the settings.

        Raises:
            ShapeMismatch: units are carried onto those of a network, and none of this layout was
                among the training networks.
        """
        if zoo not in self._frames:
            digest, is_carried = zoo.layout.digest, self.config.canonical == "optimal_transport"
            if is_carried and digest not in self._onto:
                raise ShapeMismatch(
                    f"{zoo.path} has layout {digest}, and canonical = 'optimal_transport' carries "
                    f"units onto a training network's of layouts {', '.join(self._onto)} alone: "
                    "set canonical to norm_sort, or train on networks of this layout, too"
                )
            self._frames[zoo] = Frames(zoo, self.config, onto_D=self._onto.get(digest))
        return self._frames[zoo].read(rows)

    def _refuse_unknown(self, tokens: NetworkTokens) -> None:
        layout = tokens.layout
        words = f"{self.config.kind}: networks of layout {layout.digest} ({layout.size:,} numbers)"
        advice = "train on a zoo of this layout, too"
        if len(tokens.layers) > self._num_layers:
            raise ShapeMismatch(
                f"{words} have {len(tokens.layers)} layers, and those it learnt from at most "
                f"{self._num_layers}: {advice}"
            )
        for layer in tokens.layers:
            known = self._scalings.get(layer.key)
            if known is None:
                raise ShapeMismatch(
                    f"{words} have a layer {layer.name} of the kind {layer.key!r}, which none of "
                    f"those it learnt from has (they have {', '.join(self._scalings)}): {advice}"
                )
            if layer.fixed > known.fixed:
                raise ShapeMismatch(
                    f"{words} have {layer.fixed} incoming weights in {layer.name}, and those it "
                    f"learnt from at most {known.fixed}: {advice}, or set columns to sorted, which "
                    "takes any width"
                )

    @torch.no_grad()
    def attention(self, sources: Sources, most: int = _WATCHED) -> dict[str, float]:
        """Return the share of the pooling's attention that each layer gets, mean over networks.

        Args:
            sources: networks; of each zoo as many are looked at, evenly spaced, `most` in all.
            most: the number of networks.
        """
        totals: dict[str, float] = {}
        count = 0
        each = max(1, most // max(1, len(sources)))
        for zoo, rows_B in self.chunks([(zoo, _evenly(rows, each)) for zoo, rows in sources]):
            names = [layer.name for layer in self.tokens_of(zoo).layers]
            (shares_NL,) = self.module.shares(self.inputs([(zoo, rows_B)]))
            for name, share in zip(names, shares_NL.double().sum(0).tolist(), strict=True):
                totals[name] = totals.get(name, 0.0) + share
            count += len(rows_B)
        return {name: total / count for name, total in totals.items()}

    def _own(self) -> State:
        scalings = {key: scaling.state() for key, scaling in self._scalings.items()}
        return {"scalings": scalings, "num_layers": self._num_layers, "onto": dict(self._onto)}

    def _take_own(self, own: State) -> None:
        self._scalings = {key: Scaling(**state) for key, state in own["scalings"].items()}
        self._num_layers, self._onto = own["num_layers"], own["onto"]


def tokens_of(
    config: WeightNetConfig, layout: Layout, *, groups: Sequence[Group] | None
) -> NetworkTokens:
    """Return the tokens that the settings ask for; see `tokenise`."""
    return tokenise(
        layout,
        groups,
        kind=config.tokens,
        columns=config.columns,
        quantiles=config.quantiles,
        max_tokens=config.max_tokens,
    )


def sizes_of(tokens: Sequence[NetworkTokens]) -> dict[str, tuple[int, int]]:
    """Return for each embedding how many fixed numbers tokens are padded to, and W of them all."""
    fixed: dict[str, int] = {}
    widths: dict[str, int] = {}
    for layer in (layer for each in tokens for layer in each.layers):
        fixed[layer.key] = max(fixed.get(layer.key, 0), layer.fixed)
        widths[layer.key] = fixed[layer.key] + layer.width - layer.fixed
    return {key: (fixed[key], widths[key]) for key in sorted(fixed)}


def planned_module(
    config: WeightNetConfig, tokens: Sequence[NetworkTokens], *, num_properties: int
) -> UnitAttention:
    """Return the module for networks of some layouts, without memory for its parameters.

    Args:
        config: the settings.
        tokens: tokens of each layout, see `tokens_of`.
        num_properties: how many properties are told.
    """
    widths = {key: width for key, (_, width) in sizes_of(tokens).items()}
    num_layers = max(len(each.layers) for each in tokens)
    with torch.device("meta"):
        return UnitAttention(config, widths, num_layers=num_layers, num_properties=num_properties)


class Scaling:
    """Mean and deviation of each number of the tokens of one key.

    Args:
        fixed: first numbers, those that shorter tokens are padded to.
        mean_W: means, float32.
        std_W: deviations; 1 where a number is constant.
    """

    def __init__(self, fixed: int, mean_W: torch.Tensor, *, std_W: torch.Tensor):
        self.fixed, self.mean_W, self.std_W = fixed, mean_W, std_W

    @property
    def width(self) -> int:
        """W."""
        return len(self.mean_W)

    def apply(self, layer: TokenLayer, values_NUW: torch.Tensor) -> torch.Tensor:
        """Return tokens scaled, then padded by zeros."""
        if layer.fixed == self.fixed:
            return (values_NUW - self.mean_W) / self.std_W
        here_W = _places(layer, self.fixed)
        scaled_NUW = (values_NUW - self.mean_W[here_W]) / self.std_W[here_W]
        first, rest = scaled_NUW.tensor_split([layer.fixed], dim=-1)
        return torch.cat([functional.pad(first, (0, self.fixed - layer.fixed)), rest], dim=-1)

    def state(self) -> State:
        """Return plain data that make it again."""
        return {"fixed": self.fixed, "mean_W": self.mean_W, "std_W": self.std_W}


def _places(layer: TokenLayer, fixed: int) -> torch.Tensor:
    """Return where the numbers of a layer's token are in one padded to so many fixed ones."""
    rest = layer.width - layer.fixed
    return torch.cat([torch.arange(layer.fixed), torch.arange(fixed, fixed + rest)])


class _Gathered:
    """Sums over the tokens of one key, in float64."""

    def __init__(self, fixed: int, width: int):
        self.fixed = fixed
        self.count_W, self.sum_W, self.squares_W = torch.zeros(3, width, dtype=torch.float64)

    def add(self, layer: TokenLayer, values_NUW: torch.Tensor) -> None:
        values_KW = values_NUW.flatten(0, 1).double()
        here_W = _places(layer, self.fixed)
        self.count_W[here_W] += len(values_KW)
        self.sum_W[here_W] += values_KW.sum(0)
        self.squares_W[here_W] += values_KW.square().sum(0)

    def scaling(self) -> Scaling:
        mean_W = self.sum_W / self.count_W
        std_W = (self.squares_W / self.count_W - mean_W.square()).clamp(min=0).sqrt()
        is_constant_W = std_W <= 1e-5 * mean_W.abs()  # rounding has a spread, too
        std_W = torch.where(is_constant_W, 1.0, std_W)
        return Scaling(self.fixed, mean_W.float(), std_W=std_W.float())


def _measure(net: WeightNet, sources: Sources, gathered: dict[str, _Gathered]) -> None:
    """Add up the tokens of training networks of one layout, evenly spaced among all."""
    each = max(1, _MEASURED // len(sources))
    for zoo, rows_B in net.chunks([(zoo, _evenly(rows, each)) for zoo, rows in sources]):
        tokens = net.tokens_of(zoo)
        values = tokens.values(net.weights(zoo, rows_B))
        for layer, values_NUW in zip(tokens.layers, values, strict=True):
            gathered[layer.key].add(layer, values_NUW)


def _evenly(rows: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many of some rows, evenly spaced, in order."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
