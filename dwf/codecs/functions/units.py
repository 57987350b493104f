"""Units to tokens and back: what units compute, and the weights that compute it.

The token of a unit holds what each layer that writes it says of it, one layer after the other: of
the first layer its row in the eigenbasis of what the layer takes in, of a later one its
pre-activation in the layer's principal functions, and then its mean pre-activation, which stands
for the bias. In a chain one layer writes a unit, in a residual stream several do. Units that the
output takes in have the weights by which it does, too. The output's token are its mean logits.

Where scales of units are free, a unit is made to deviate by 1 over the inputs, the root of the sum
of squares over the layers that write it; where the output takes it in, this deviation and the norm
of the outgoing weights are made equal. A unit whose pre-activations, or whose outgoing weights, are
0 keeps its scale.

Shape suffixes: N networks, D numbers of a network, U units of a layer, I weights of a unit, E coded
directions of the first layer and R the others, C numbers of a token, K functions, P read places.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch

from dwf.codecs.functions.bases import Bases
from dwf.codecs.functions.chain import Chain, Step, read

_LEAST = 1e-6  # a smaller deviation or norm is none
_TINY = 1e-30


@dataclass(frozen=True)
class Units:
    """The units of N networks."""

    tokens: list[torch.Tensor]
    """tokens_NUC of each set of hidden units, and of the output, of which U is 1."""
    rest_NUR: torch.Tensor
    """Rows of the first layer in the directions that are not coded."""
    dead_NU: torch.Tensor
    """Which hidden units, of all sets, come into no layer otherwise than the same whatever the
    input."""


@dataclass(frozen=True)
class _Written:
    """A layer's part in the tokens of the units that it writes."""

    coded_NUK: torch.Tensor
    mean_NU: torch.Tensor
    deviation_NU: torch.Tensor
    rest_NUR: torch.Tensor | None = None
    """Rows of the first layer in the directions that are not coded."""


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
        self.wiring = chain.wiring
        sizes = [components, *(each_PK.shape[1] for each_PK in bases.functions)]
        self._columns = self.wiring.columns(sizes)
        self._taken = torch.from_numpy(self.wiring.output.taken())
        self.sections = self.wiring.sections(sizes)
        """(units, numbers of a token) of each set of hidden units, and of the output."""

    @torch.no_grad()
    def read(self, weights_ND: torch.Tensor) -> Units:
        """Return the units of networks."""
        written: list[_Written] = []
        outputs: list[torch.Tensor] = []
        dead: list[torch.Tensor | None] = [None] * len(self.wiring.writers)

        def note(number: int, step: Step) -> None:
            if number:
                taken = self.wiring.taken[number - 1]
                dead_NU = self.chain.is_constant(number, step.hidden_BX)
                dead[taken] = dead_NU if dead[taken] is None else dead[taken] & dead_NU
            if number == len(self.wiring.hidden):
                outputs.append(step.given_NMLU.mean((1, 2)).unsqueeze(1))
            else:
                written.append(self._written(number, step.given_NMLU, weights_ND=weights_ND))

        self.chain.walk(weights_ND, note)
        tokens = []
        for number, layers in enumerate(self.wiring.writers):
            by_layer = [written[layer] for layer in layers]
            factor_NU, outgoing = self._factor(number, by_layer, weights_ND=weights_ND)
            if not number:
                rest_NUR = written[0].rest_NUR * factor_NU.unsqueeze(2)
            parts = [
                part for each in by_layer for part in (each.coded_NUK, each.mean_NU.unsqueeze(2))
            ]
            parts = [part * factor_NU.unsqueeze(2) for part in parts] + outgoing
            tokens.append(torch.cat(parts, 2))
        return Units([*tokens, *outputs], rest_NUR=rest_NUR, dead_NU=torch.cat(dead, 1))

    def _written(
        self, number: int, given_NMLU: torch.Tensor, *, weights_ND: torch.Tensor
    ) -> _Written:
        given_NPU = read(given_NMLU, self.bases.rows[number])
        mean_NU = given_NPU.mean(1)
        if number:
            functions_PK = self.bases.functions[number - 1]
            centred_NPU = given_NPU - mean_NU.unsqueeze(1)
            coded_NUK = (centred_NPU.mT @ functions_PK) / math.sqrt(len(functions_PK))
            return _Written(coded_NUK, mean_NU, deviation_NU=coded_NUK.norm(dim=2))
        weight_NUI = self.chain.weights(0, weights_ND)["weight_NUI"]
        rows_NUI = weight_NUI @ self.bases.basis_II
        deviation_NU = (rows_NUI.square() @ self.bases.energy_I).sqrt()
        coded_NUK, rest_NUR = rows_NUI.tensor_split([self.components], 2)
        return _Written(coded_NUK, mean_NU, deviation_NU=deviation_NU, rest_NUR=rest_NUR)

    def _factor(
        self, number: int, written: list[_Written], *, weights_ND: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return what a set's units are multiplied by, and what takes them into the output."""
        deviation_NU = functools.reduce(torch.hypot, [each.deviation_NU for each in written])
        ones_NU = torch.ones_like(deviation_NU)
        if number != self.wiring.last:
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
        weights_ND = template_D.repeat(len(rest_NUR), 1)
        residuals = []

        def visit(number: int, hidden_BX: torch.Tensor) -> torch.Tensor:
            taken_NMLI = chain.taken(number, hidden_BX)
            if number == len(self.wiring.hidden):
                found = self._outputs(tokens, taken_NMLI, weights_ND=weights_ND)
            elif number:
                found, residual_N = self._later(
                    number, taken_NMLI, token_NUC=self._own(number, tokens)
                )
                residuals.append(residual_N)
            else:
                found = self._first(self._own(number, tokens), rest_NUR)
            given_NMLU = chain.give(taken_NMLI, **found)
            chain.put(number, weights_ND, **found, given_NMLU=given_NMLU)
            return given_NMLU

        chain.run(visit)
        none = weights_ND.new_zeros(len(weights_ND), 0)
        return weights_ND, torch.stack(residuals, 1) if residuals else none

    def _own(self, number: int, tokens: list[torch.Tensor]) -> torch.Tensor:
        """Return what a layer says of the units that it writes, of their tokens."""
        of_set, columns = self._columns[number]
        return tokens[of_set][..., columns]

    def _outputs(
        self, tokens: list[torch.Tensor], taken_NMLI: torch.Tensor, *, weights_ND: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the output's weights, which are written, and the biases that give its means."""
        _, size = self.sections[self.wiring.last]
        outgoing = slice(size - self._taken.shape[1], size)
        weights_ND[:, self._taken] = tokens[self.wiring.last][..., outgoing]
        weight_NUI = self.chain.weights(len(self.wiring.hidden), weights_ND)["weight_NUI"]
        mean_NI = taken_NMLI.mean((1, 2))
        bias_NU = tokens[-1][:, 0] - (weight_NUI @ mean_NI.unsqueeze(2)).squeeze(2)
        return {"weight_NUI": weight_NUI, "bias_NU": bias_NU}

    def _first(self, token_NUC: torch.Tensor, rest_NUR: torch.Tensor) -> dict[str, torch.Tensor]:
        rows_NUI = torch.cat([token_NUC[..., : self.components], rest_NUR], 2)
        weight_NUI = rows_NUI @ self.bases.basis_II.T
        bias_NU = token_NUC[..., self.components] - weight_NUI @ self.bases.mean_I
        return {"weight_NUI": weight_NUI, "bias_NU": bias_NU}

    def _later(
        self, number: int, taken_NMLI: torch.Tensor, *, token_NUC: torch.Tensor
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
