"""One token per hidden unit: networks as sets of neurons.

A token of hidden layer l is a unit's incoming weights and its bias; of the last hidden layer also
its outgoing weights. One more token is the output layer's bias. Every weight is in one token, so
the way back is exact: a weight between two hidden layers belongs to the later one's unit.

What is equivariant: reordering the units of the last hidden layer reorders their tokens and changes
nothing else, as long as the numbers are standardised alike for all units (`per_feature`, `none`).
What relies on alignment: the order of the units of an earlier hidden layer is also that of the
numbers within the next layer's tokens. With one hidden layer nothing relies on it.

Scales are left alone: the zoo's alignment fixes them (`scale: balanced`), for a generator's samples
and for the networks they are compared with alike.

Shape suffixes: N networks, D numbers of a network, T tokens, C numbers of the longest token,
K numbers of all tokens, U units of a layer.
"""

import numpy as np
import torch

from dwf.codecs.codec import Codec
from dwf.codecs.codes import Codes
from dwf.codecs.config import NeuronsConfig
from dwf.codecs.moments import Moments, Sources, common_layout, measure_moments
from dwf.errors import ConfigError
from dwf.run_folder import RunFolder
from dwf.zoo.layout import Entry, Layout

# As for flat codes: what hardly varies over the training networks is scaled as if it varied by
# this share of all weights' deviation.
_LEAST_DEVIATION = 1e-3


def layer_places(layout: Layout) -> list[np.ndarray]:
    """Return where the numbers of each layer's tokens lie in a row, int64, shape [U, numbers].

    The hidden layers in order, then one token of the output layer.

    Raises:
        ConfigError: the layout is not of an MLP with a hidden layer; names the tensor.
    """
    pairs = _linear_layers(layout)
    places = [np.hstack([_place(weight), _place(bias)[:, None]]) for weight, bias in pairs[:-1]]
    outgoing, output_bias = pairs[-1]
    places[-1] = np.hstack([places[-1], _place(outgoing).T])
    return [*places, _place(output_bias)[None]]


def _linear_layers(layout: Layout) -> list[tuple[Entry, Entry]]:
    """Return (weight, bias) of each layer; a tensor that breaks the pattern is refused."""
    entries, num_units = layout.entries, None
    for i, entry in enumerate(entries):
        weight = entries[i - i % 2]
        fits = entry.role == ("weight", "bias")[i % 2]
        if i % 2:
            fits = fits and entry.shape == weight.shape[:1]
        else:
            fits = fits and len(entry.shape) == 2 and num_units in (None, entry.shape[1])
            num_units = entry.shape[0]
        if not fits:
            raise _refusal(entry)
    if len(entries) < 4 or len(entries) % 2:
        raise _refusal(entries[-1])
    return list(zip(entries[::2], entries[1::2], strict=True))


def _refusal(entry: Entry) -> ConfigError:
    return ConfigError(
        f"codec.kind = 'neurons' cannot make tokens of {entry.name} ({entry.role}, shape "
        f"{list(entry.shape)}): it takes MLPs, a weight [units, inputs] and a bias [units] of each "
        "layer, with at least one hidden layer; choose the codec flat or pca"
    )


def _place(entry: Entry) -> np.ndarray:
    return np.arange(entry.offset, entry.stop).reshape(entry.shape)


class NeuronsCodec(Codec):
    """Codes are sequences of neurons, standardised; exact both ways up to float32 rounding."""

    @classmethod
    def planned_size(cls, config: NeuronsConfig, layout: Layout, num_train: int) -> int:
        """Return K: every number of a network."""
        return layout.size

    @classmethod
    def planned_groups(cls, config: NeuronsConfig, layout: Layout) -> tuple[tuple[int, int], ...]:
        """Return (tokens, numbers of each) of each layer."""
        return tuple(place.shape for place in layer_places(layout))

    def fit(self, train: Sources, val: Sources, run: RunFolder, seed: int = 0) -> "NeuronsCodec":
        """Learn shift and scale from training networks; see `Codec.fit`.

        Raises:
            ConfigError: the networks are not MLPs with a hidden layer.
        """
        self.layout = common_layout(train)
        places = layer_places(self.layout)
        moments = measure_moments(train)
        shift_D, scale_D = _standardisation(moments, places, self.config.standardise)
        self.arrays = {
            "template_D": moments.mean_D.astype(np.float32),
            "shift_D": shift_D.astype(np.float32),
            "scale_D": scale_D.astype(np.float32),
        }
        groups = [list(place.shape) for place in places]
        self.facts = {"networks": moments.num_networks, "code_size": self.code_size} | {
            "tokens": sum(count for count, _ in groups),
            "groups": groups,
        }
        return self

    @property
    def code_size(self) -> int:
        """K: how many numbers of a code stand for a weight."""
        return self.layout.size

    def _like(self) -> Codes:
        groups = self.planned_groups(self.config, self.layout)
        width_T = torch.tensor([width for count, width in groups for _ in range(count)])
        units = [(layer, u) for layer, (count, _) in enumerate(groups) for u in range(count)]
        positions_T3 = torch.tensor([(t, *unit) for t, unit in enumerate(units)])
        mask_TC = torch.arange(int(width_T.max())) < width_T.unsqueeze(1)
        empty = torch.empty(0, *mask_TC.shape)
        return Codes(empty, self.layout.digest, positions_T3, mask_TC)

    def _encode(self, weights_ND: torch.Tensor) -> torch.Tensor:
        standardised_ND = (weights_ND - self._array("shift_D")).div_(self._array("scale_D"))
        return self._like().refill(standardised_ND[:, self._order()]).values

    def _decode_into(self, values: torch.Tensor, weights_ND: torch.Tensor) -> None:
        order_K = self._order()
        weights_ND[:, order_K] = values[:, self._like().mask]
        weights_ND.mul_(self._array("scale_D")).add_(self._array("shift_D"))

    def _order(self) -> torch.Tensor:
        places = layer_places(self.layout)
        return torch.from_numpy(np.concatenate([place.ravel() for place in places]))

    def _array(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])


def _standardisation(
    moments: Moments, places: list[np.ndarray], standardise: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return (shift_D, scale_D), float64."""
    shift_D, variance_D = np.zeros_like(moments.mean_D), np.ones_like(moments.mean_D)
    if standardise == "none":
        return shift_D, variance_D
    for place in places:
        mean, variance = moments.mean_D[place], moments.variance_D[place]
        if standardise == "per_feature":  # over networks and the layer's units
            variance = np.broadcast_to(variance.mean(0) + mean.var(0), place.shape)
            mean = np.broadcast_to(mean.mean(0), place.shape)
        shift_D[place], variance_D[place] = mean, variance
    scale_D = np.sqrt(variance_D)
    least = _LEAST_DEVIATION * np.sqrt(variance_D.mean())
    return shift_D, np.maximum(scale_D, least) if least else np.ones_like(scale_D)
