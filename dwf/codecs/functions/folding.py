"""Layers with a BatchNorm behind them as layers without: the norm is folded into weight and bias.

Running statistics of what is solved are those over the inputs on which units are read.

Shape suffixes: N networks, D numbers of a network, M inputs, L places, U units, I weights of a
unit.
"""

from dataclasses import dataclass

import torch
from torch import nn

from dwf.codecs.neurons import NeuronLayer
from dwf.errors import ConfigError
from dwf.zoo.layout import Entry, Layout

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Folding:
    """Places of a layer's numbers in a network."""

    places_UI: torch.Tensor
    """Those of the weights."""
    bias: slice | None
    """Those of the bias; None: there is none."""
    norm: tuple[slice, slice, slice, slice] | None
    """Those of the norm's weight, bias, running mean and variance; None: there is no norm."""
    epsilon: float
    """Number that the norm adds to variances."""

    @classmethod
    def of(cls, layer: NeuronLayer, layout: Layout, *, network: nn.Module) -> "Folding":
        """Return the places of a layer.

        Args:
            layer: which; `is_foldable`.
            layout: of the networks.
            network: one of them.
        """
        by_role: dict[str, list[Entry]] = {}
        for entry in layer.own:
            by_role.setdefault(entry.role, []).append(entry)
        bias = next((_span(entry) for entry in by_role.get("bias", ())), None)
        norm, epsilon = None, 0.0
        if "norm" in by_role:
            name = _owner(by_role["norm"][0])
            statistics = [layout.by_name[f"{name}.{each}"] for each in _STATISTICS]
            norm = tuple(_span(entry) for entry in (*by_role["norm"], *statistics))
            epsilon = network.get_submodule(name).eps
        return cls(torch.from_numpy(layer.incoming()), bias, norm, epsilon)

    def get(self, weights_ND: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return weight_NUI and bias_NU of a layer without a norm that gives the same."""
        weight_NUI = weights_ND[:, self.places_UI]
        bias_NU = weight_NUI.new_zeros(weight_NUI.shape[:2])
        if self.bias is not None:
            bias_NU = weights_ND[:, self.bias]
        if self.norm is None:
            return {"weight_NUI": weight_NUI, "bias_NU": bias_NU}
        gain_NU, shift_NU, mean_NU, variance_NU = (weights_ND[:, each] for each in self.norm)
        factor_NU = gain_NU / (variance_NU + self.epsilon).sqrt()
        bias_NU = (bias_NU - mean_NU) * factor_NU + shift_NU
        return {"weight_NUI": weight_NUI * factor_NU.unsqueeze(2), "bias_NU": bias_NU}

    def put(
        self,
        weights_ND: torch.Tensor,
        *,
        weight_NUI: torch.Tensor,
        bias_NU: torch.Tensor,
        given_NMLU: torch.Tensor,
    ) -> None:
        """Write a layer into networks, in which it gives the same as without a norm.

        Args:
            weights_ND: the networks.
            weight_NUI: without a norm.
            bias_NU: likewise.
            given_NMLU: what it gives on the inputs.
        """
        weights_ND[:, self.places_UI] = weight_NUI
        if self.norm is None:
            weights_ND[:, self.bias] = bias_NU
            return
        if self.bias is not None:
            weights_ND[:, self.bias] = 0
        gain, shift, mean, variance = self.norm
        mean_NU, variance_NU = given_NMLU.mean((1, 2)), given_NMLU.var((1, 2), correction=0)
        weights_ND[:, gain] = (variance_NU + self.epsilon).sqrt()
        weights_ND[:, shift] = mean_NU
        weights_ND[:, mean] = mean_NU - bias_NU
        weights_ND[:, variance] = variance_NU


def refuse_unfoldable(layer: NeuronLayer, layout: Layout, *, instead: str) -> None:
    """Refuse a layer whose means cannot be folded into a bias, its own or its norm's.

    Raises:
        ConfigError: names the tensor.
    """
    roles = sorted(entry.role for entry in layer.own)
    norms = [entry for entry in layer.own if entry.role == "norm"]
    known = [f"{_owner(each)}.{name}" in layout.by_name for each in norms for name in _STATISTICS]
    if roles not in (["bias"], ["norm", "norm"], ["bias", "norm", "norm"]) or not all(known):
        raise ConfigError(
            f"codec.kind = 'functions' cannot take {layer.weight.name}: means are folded into "
            f"biases, and each layer needs one, its own or its BatchNorm's (found beside it: "
            f"{len(layer.own)} tensors); {instead}"
        )


def _span(entry: Entry) -> slice:
    return slice(entry.offset, entry.stop)


def _owner(entry: Entry) -> str:
    return entry.name.rpartition(".")[0]
