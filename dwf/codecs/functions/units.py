"""Units to tokens and back: what units compute, and the weights that compute it.

The token of a unit of the first layer is its row in the eigenbasis of what the layer takes in, of
a later one its pre-activation in the layer's principal functions. Then come its mean
pre-activation, which stands for the bias, and in the last hidden layer the weights by which the
output takes it in. The output's token are its mean logits.

Where scales of units are free, the pre-activation of a unit is made to deviate by 1 over the
inputs; in the last hidden layer, the deviation and the norm of the outgoing weights are made equal.
A unit whose pre-activation, or whose outgoing weights, are 0 keeps its scale.

Shape suffixes: N networks, D numbers of a network, U units of a layer, I weights of a unit, E coded
directions of the first layer and R the others, C numbers of a token, K functions, P read places.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from dwf.codecs.functions.bases import Bases
from dwf.codecs.functions.chain import Chain, read

_LEAST = 1e-6  # a smaller deviation or norm is none
_TINY = 1e-30


@dataclass(frozen=True)
class Units:
    """The units of N networks."""

    tokens: list[torch.Tensor]
    """tokens_NUC of each hidden layer, and of the output, of which U is 1."""
    rest_NUR: torch.Tensor
    """Rows of the first layer in the directions that are not coded."""
    dead_NU: torch.Tensor
    """Which hidden units, of all layers, pass on the same whatever the input."""


class UnitCoder:
    """Makes tokens of networks, and networks of tokens.

    Args:
        chain: their layers, and the inputs.
        bases: directions and functions.
        components: E.
        ridge: see `FunctionsConfig`.
        scales: whether scales of units are free.
    """

    def __init__(self, chain: Chain, bases: Bases, *, components: int, ridge: float, scales: bool):
        self.chain, self.bases, self.components = chain, bases, components
        self.ridge, self.scales = ridge, scales
        *self.hidden, self.output = chain.layers
        self._taken = torch.from_numpy(self.output.taken())

    @property
    def sections(self) -> list[tuple[int, int]]:
        """(units, numbers of a token) of each hidden layer, and of the output."""
        sizes = [self.components, *(each_PK.shape[1] for each_PK in self.bases.functions)]
        found = [(layer.units, size + 1) for layer, size in zip(self.hidden, sizes, strict=True)]
        units, size = found.pop()
        return [*found, (units, size + self._taken.shape[1]), (1, self.output.units)]

    @torch.no_grad()
    def read(self, weights_ND: torch.Tensor) -> Units:
        """Return the units of networks."""
        tokens, dead, rest = [], [], None
        for number, step in enumerate(self.chain.walk(weights_ND)):
            if number == len(self.hidden):
                tokens.append(step.given_NMLU.mean((1, 2)).unsqueeze(1))
                break
            given_NPU = read(step.given_NMLU, self.bases.rows[number])
            mean_NU = given_NPU.mean(1)
            if number:
                functions_PK = self.bases.functions[number - 1]
                centred_NPU = given_NPU - mean_NU.unsqueeze(1)
                coded_NUK = (centred_NPU.mT @ functions_PK) / math.sqrt(len(functions_PK))
                deviation_NU = coded_NUK.norm(dim=2)
            else:
                weight_NUI = self.chain.weights(0, weights_ND)["weight_NUI"]
                rows_NUI = weight_NUI @ self.bases.basis_II
                deviation_NU = (rows_NUI.square() @ self.bases.energy_I).sqrt()
                coded_NUK = rows_NUI[..., : self.components]
            factor_NU, outgoing = self._factor(number, deviation_NU, weights_ND)
            if not number:
                rest = rows_NUI[..., self.components :] * factor_NU.unsqueeze(2)
            parts = [coded_NUK, mean_NU.unsqueeze(2)]
            parts = [part * factor_NU.unsqueeze(2) for part in parts] + outgoing
            tokens.append(torch.cat(parts, 2))
            dead.append(self.chain.is_constant(number, step))
        return Units(tokens, rest_NUR=rest, dead_NU=torch.cat(dead, 1))

    def _factor(
        self, number: int, deviation_NU: torch.Tensor, weights_ND: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return what units are multiplied by, and of the last hidden layer what takes them in."""
        ones_NU = torch.ones_like(deviation_NU)
        if number + 1 < len(self.hidden):
            is_free = deviation_NU > _LEAST if self.scales else torch.zeros_like(ones_NU).bool()
            return torch.where(is_free, 1 / deviation_NU.clamp_min(_LEAST), ones_NU), []
        outgoing = weights_ND[:, self._taken]
        norm_NU = outgoing.norm(dim=2)
        is_free = (deviation_NU > _LEAST) & (norm_NU > _LEAST) & self.scales
        factor_NU = (norm_NU.clamp_min(_LEAST) / deviation_NU.clamp_min(_LEAST)).sqrt()
        factor_NU = torch.where(is_free, factor_NU, ones_NU)
        return factor_NU, [outgoing / factor_NU.unsqueeze(2)]

    def solve(
        self, tokens: list[torch.Tensor], rest_NUR: torch.Tensor, *, template_D: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return networks of tokens, layer by layer, and what could not be reached.

        Args:
            tokens: as of `Units`.
            rest_NUR: likewise.
            template_D: what no layer covers.

        Returns:
            weights_ND, float32, and of each hidden layer but the first the root of the share of
            its functions' energy that no weights give, [N, layers].
        """
        chain = self.chain
        weights_ND, hidden_BX = template_D.repeat(len(rest_NUR), 1), chain.inputs_MX
        residuals = []
        for number, token_NUC in enumerate(tokens[:-1]):
            taken_NMLI = chain.taken(number, hidden_BX)
            if number:
                found, residual_N = self._later(number, taken_NMLI, token_NUC)
                residuals.append(residual_N)
            else:
                found = self._first(token_NUC, rest_NUR)
            given_NMLU = chain.give(taken_NMLI, **found)
            chain.put(number, weights_ND, **found, given_NMLU=given_NMLU)
            hidden_BX = chain.pass_on(number, given_NMLU)
        last, number = self.sections[-2][1] - self._taken.shape[1], len(self.hidden)
        weights_ND[:, self._taken] = tokens[-2][..., last : self.sections[-2][1]]
        weight_NUI = chain.weights(number, weights_ND)["weight_NUI"]
        mean_NI = chain.taken(number, hidden_BX).mean((1, 2))
        bias_NU = tokens[-1][:, 0] - (weight_NUI @ mean_NI.unsqueeze(2)).squeeze(2)
        chain.put(number, weights_ND, weight_NUI=weight_NUI, bias_NU=bias_NU)
        none = weights_ND.new_zeros(len(weights_ND), 0)
        return weights_ND, torch.stack(residuals, 1) if residuals else none

    def _first(self, token_NUC: torch.Tensor, rest_NUR: torch.Tensor) -> dict[str, torch.Tensor]:
        rows_NUI = torch.cat([token_NUC[..., : self.components], rest_NUR], 2)
        weight_NUI = rows_NUI @ self.bases.basis_II.T
        bias_NU = token_NUC[..., self.components] - weight_NUI @ self.bases.mean_I
        return {"weight_NUI": weight_NUI, "bias_NU": bias_NU}

    def _later(
        self, number: int, taken_NMLI: torch.Tensor, token_NUC: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the weights whose units come nearest to the coded functions, and their error_N."""
        functions_PK = self.bases.functions[number - 1]
        size = functions_PK.shape[1]
        taken_NPI = read(taken_NMLI, self.bases.rows[number])
        mean_NI = taken_NPI.mean(1)
        centred_NPI = taken_NPI - mean_NI.unsqueeze(1)
        along_NKI = ((functions_PK.T @ centred_NPI) / math.sqrt(len(functions_PK))).double()
        wanted_NKU = token_NUC[..., :size].mT.double()
        gram_NII = along_NKI.mT @ along_NKI
        # A layer that is dead on all inputs takes in nothing: its weights are then 0.
        ridge_N = self.ridge * gram_NII.diagonal(dim1=1, dim2=2).mean(1).clamp_min(_TINY)
        ridge_NII = ridge_N[:, None, None] * torch.eye(gram_NII.shape[1], dtype=torch.float64)
        weight_NIU = torch.linalg.solve(gram_NII + ridge_NII, along_NKI.mT @ wanted_NKU)
        error_NKU = along_NKI @ weight_NIU - wanted_NKU
        lost_N = error_NKU.square().sum((1, 2)) / wanted_NKU.square().sum((1, 2)).clamp_min(_TINY)
        weight_NUI = weight_NIU.mT.float()
        bias_NU = token_NUC[..., size] - (weight_NUI @ mean_NI.unsqueeze(2)).squeeze(2)
        return {"weight_NUI": weight_NUI, "bias_NU": bias_NU}, lost_N.detach().sqrt()


def measured(coder: UnitCoder, weights_BD: np.ndarray) -> np.ndarray:
    """Return weights, tokens and dead units of networks, side by side."""
    blocks = []
    for some_BD in torch.from_numpy(weights_BD).split(coder.chain.block_size):
        units = coder.read(some_BD)
        parts = [*units.tokens, units.dead_NU]
        blocks.append(torch.cat([some_BD, *(part.flatten(1) for part in parts)], 1))
    return torch.cat(blocks).numpy()
