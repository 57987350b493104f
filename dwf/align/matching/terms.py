"""How alike units of networks and of a reference are, all other axes as ordered now.

First in one tensor (`Term`), then over all tensors that a step has to do with (`StepTerms`).

Shape suffixes: N networks, A networks of them that are matched anew, B places along the tensor's
other permuted axes, F other numbers that touch one unit, U units, C places that changed, H heads or
blocks, S units within one.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch

from dwf.align.matching.assignment import total
from dwf.align.matching.heads import Blocks
from dwf.align.matching.steps import Axis, Step

# From so many products for one network on, what did not change since the last visit is kept.
_LEAST_TO_KEEP = 2**20
# A visit adds up changes only where fewer places than this share changed.
_MOST_CHANGED = 0.7
Tensors = Mapping[str, torch.Tensor]


class Frames:
    """Where each place of each permuted axis comes from, in every network, and which are known."""

    def __init__(
        self, num_networks: int, shapes: dict[str, tuple[int, ...]], *, touched: set[Axis]
    ):
        self.num_networks, self.shapes = num_networks, shapes
        self.sources = {
            (name, axis): torch.arange(shapes[name][axis]).repeat(num_networks, 1)
            for name, axis in sorted(touched)
        }
        self.signs: dict[Axis, torch.Tensor] = {}
        self.known = {
            axis: torch.ones(sources.shape[1], dtype=torch.bool)
            for axis, sources in self.sources.items()
        }

    def others(self, axis: Axis) -> list[Axis]:
        """The other permuted axes of a tensor."""
        name = axis[0]
        every = [(name, other) for other in range(len(self.shapes[name]))]
        return [other for other in every if other != axis and other in self.sources]

    def place(
        self,
        axis: Axis,
        indices_UE: np.ndarray,
        *,
        chosen_A: torch.Tensor,
        order_AU: torch.Tensor,
        sign_AU: torch.Tensor | None = None,
    ) -> None:
        """Put unit order[a, u] of network chosen[a] at u."""
        # Orders are of the network as it was given, not of the last order: a step overwrites its
        # places, so nothing is composed, and any order can be taken back
        # (`Ascent._quadratic_gain`).
        indices = torch.from_numpy(indices_UE)
        at_1I = indices.reshape(1, -1)
        chosen_A1 = chosen_A.unsqueeze(1)
        self.sources[axis][chosen_A1, at_1I] = indices[order_AU].flatten(1)
        if sign_AU is not None:
            if axis not in self.signs:
                self.signs[axis] = torch.ones(self.sources[axis].shape)
            repeated_AI = sign_AU.repeat_interleave(indices.shape[1], 1)
            self.signs[axis][chosen_A1, at_1I] = repeated_AI

    def moved(self, tensor: torch.Tensor, axis: Axis, *, network: int) -> torch.Tensor:
        """Return one network's tensor with an axis in its order and signs."""
        tensor = tensor.index_select(axis[1], self.sources[axis][network])
        if axis in self.signs:
            shape = [-1] + [1] * (tensor.dim() - axis[1] - 1)
            tensor = tensor * self.signs[axis][network].view(shape)
        return tensor

    def joined(self, axes: list[Axis], chosen_A: torch.Tensor) -> torch.Tensor:
        """Return the sources of several axes of one tensor as places of their product, [A, B]."""
        joined_AB = torch.zeros(len(chosen_A), 1, dtype=torch.int64)
        for axis in axes:
            sources_AL = self.sources[axis].index_select(0, chosen_A)
            size = sources_AL.shape[1]
            joined_AB = (joined_AB.unsqueeze(2) * size + sources_AL.unsqueeze(1)).flatten(1)
        return joined_AB

    def joined_signs(self, axes: list[Axis], chosen_A: torch.Tensor) -> torch.Tensor | None:
        """Return the signs of several axes of one tensor, [A, B]; None where none can change."""
        if not any(axis in self.signs for axis in axes):
            return None
        joined_AB = torch.ones(len(chosen_A), 1)
        for axis in axes:
            size = self.sources[axis].shape[1]
            signs = self.signs.get(axis)
            signs_AL = torch.ones(1, size) if signs is None else signs.index_select(0, chosen_A)
            joined_AB = (joined_AB.unsqueeze(2) * signs_AL.unsqueeze(1)).flatten(1)
        return joined_AB

    def joined_known(self, axes: list[Axis]) -> torch.Tensor:
        """Return which places of the product of axes are known, bool [B]."""
        joined_B = torch.ones(1, dtype=torch.bool)
        for axis in axes:
            joined_B = (joined_B.unsqueeze(1) & self.known[axis]).flatten()
        return joined_B


class Reference:
    """A reference's tensors, arranged once for all networks that are matched to it."""

    def __init__(self, tensors: dict[str, torch.Tensor]):
        self.tensors = tensors
        self._arranged: dict[tuple[Axis, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def arranged(
        self, axis: Axis, indices_UE: np.ndarray, *, others: list[Axis]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a tensor as `Term` takes it, [B, F, U], and its energy, float64, [B].

        The energy tells how much the units differ from each other at each place.
        """
        # Parts of one axis never overlap, so the first index tells which part this is.
        key = (axis, int(indices_UE.flat[0]))
        if key not in self._arranged:
            arranged_BFU = _arranged(self.tensors[axis[0]][None], axis, indices_UE, others)[0]
            mean_BF = arranged_BFU.mean(2, dtype=torch.float64)
            squares_B = torch.linalg.vector_norm(arranged_BFU, dim=(1, 2)).double().square()
            energy_B = squares_B - arranged_BFU.shape[2] * mean_BF.square().sum(1)
            self._arranged[key] = arranged_BFU, energy_B.clamp_(min=0)
        return self._arranged[key]


class Term:
    """One tensor's share of the likeness of units along one of its axes."""

    def __init__(
        self,
        weights: torch.Tensor,
        reference: Reference,
        *,
        axis: Axis,
        indices_UE: np.ndarray,
        frames: Frames,
    ):
        self.axis, self.others, self._frames = axis, frames.others(axis), frames
        self._loose = (weights, indices_UE)
        if self.others:
            self._weights_NBFU = _arranged(weights, axis, indices_UE, self.others)
        arranged = reference.arranged(axis, indices_UE, others=self.others)
        self.reference_BFU, self._energy_B = arranged
        self.num_places, num_others, self.size = self.reference_BFU.shape
        cost = self.num_places * num_others * self.size**2
        self._keeps = len(self.others) > 0 and cost >= _LEAST_TO_KEEP
        self._kept_NUU: torch.Tensor | None = None
        self._last_NB: torch.Tensor | None = None

    def fixed(self) -> torch.Tensor:
        """The likeness where no other axis is permuted, [N, U, U]."""
        weights, indices_UE = self._loose
        dim = self.axis[1] + 1
        flat = indices_UE.reshape(-1)
        if not np.array_equal(flat, np.arange(weights.shape[dim])):
            weights = weights.index_select(dim, torch.from_numpy(flat))
        weights = weights.unflatten(dim, indices_UE.shape).movedim(dim, 1)
        # As the weights lie: those of the first axis are not copied.
        return (weights.flatten(2) @ self.reference_BFU[0]).mT

    def likeness(self, chosen_A: torch.Tensor) -> torch.Tensor:
        """<reference's unit u, network's unit v>, float32, [A, U, U]."""
        if self._keeps:
            return torch.stack([self._kept(n, None) for n in chosen_A.tolist()])
        return self._product(chosen_A, None)

    def known_likeness(self, chosen_A: torch.Tensor, sort_unknown: bool) -> torch.Tensor:
        """The same, from known places alone.

        Args:
            chosen_A: the networks.
            sort_unknown: count also what is not known: numbers of two units at unknown places
                are put in rising order first, which gives the most that any order of the
                places can reach.
        """
        known_B = self._frames.joined_known(self.others)
        if self._keeps:
            likeness_AUU = torch.stack([self._kept(n, known_B) for n in chosen_A.tolist()])
        else:
            likeness_AUU = self._product(chosen_A, known_B.nonzero().squeeze(1))
        if sort_unknown and not known_B.all():
            unknown_C = (~known_B).nonzero().squeeze(1)
            # Numbers sorted on both sides give the largest sum of products that any pairing gives,
            # and the same one however the places are ordered, which is not known yet.
            reference_UF = self.reference_BFU[unknown_C].sort(0).values.flatten(0, 1).mT
            weights_ACFU = self._weights_NBFU.index_select(0, chosen_A)[:, unknown_C]
            likeness_AUU += torch.matmul(reference_UF, weights_ACFU.sort(1).values.flatten(1, 2))
        return likeness_AUU

    def energy(self) -> tuple[float, float]:
        """How much the reference's units differ from each other: at known places, and in all."""
        known_B = self._frames.joined_known(self.others)
        return float(self._energy_B[known_B].sum()), float(self._energy_B.sum())

    def is_known(self) -> bool:
        """Whether all places are known."""
        return bool(self._frames.joined_known(self.others).all())

    def _product(self, chosen_A: torch.Tensor, at_C: torch.Tensor | None) -> torch.Tensor:
        sources_AB = self._frames.joined(self.others, chosen_A)
        signs_AB = self._frames.joined_signs(self.others, chosen_A)
        reference_BFU = self.reference_BFU
        if at_C is not None and len(at_C) < self.num_places:
            sources_AB, reference_BFU = sources_AB[:, at_C], reference_BFU[at_C]
            signs_AB = None if signs_AB is None else signs_AB[:, at_C]
        gathered_AXU = self._gather(chosen_A, sources_AB, signs_AB).flatten(1, 2)
        return torch.matmul(reference_BFU.flatten(0, 1).mT, gathered_AXU)

    def _gather(
        self, chosen_A: torch.Tensor, sources_AB: torch.Tensor, signs_AB: torch.Tensor | None
    ) -> torch.Tensor:
        rows = (chosen_A.unsqueeze(1) * self.num_places + sources_AB).flatten()
        gathered = self._weights_NBFU.flatten(0, 1).index_select(0, rows)
        if signs_AB is not None:
            gathered.mul_(signs_AB.reshape(-1, 1, 1))
        return gathered.unflatten(0, sources_AB.shape)

    def _kept(self, n: int, known_B: torch.Tensor | None) -> torch.Tensor:
        """The likeness of one network, from the last visit's by what changed since."""
        if self._kept_NUU is None:
            num = self._frames.num_networks
            self._kept_NUU = torch.zeros(num, self.size, self.size)
            self._last_NB = torch.zeros(num, self.num_places)
        chosen = torch.tensor([n])
        sources_1B = self._frames.joined(self.others, chosen)
        signs_1B = self._frames.joined_signs(self.others, chosen)
        # One number tells where a place comes from and with which sign.
        coded_B = (sources_1B[0] + 1).float() * (1 if signs_1B is None else signs_1B[0])
        wanted_B = coded_B if known_B is None else coded_B * known_B  # 0 does not count
        kept_UU, last_B = self._kept_NUU[n], self._last_NB[n]
        changed_C = (wanted_B != last_B).nonzero().squeeze(1)
        # An update multiplies the changed places alone but gathers them twice, as before and as
        # now; a whole product is cheaper from some share on, and drops the updates' rounding.
        if len(changed_C) > _MOST_CHANGED * self.num_places:
            reference_XU = self.reference_BFU.flatten(0, 1)
            torch.mm(reference_XU.mT, self._coded(n, wanted_B).flatten(0, 1), out=kept_UU)
        elif len(changed_C):
            gathered_CFU = self._coded(n, wanted_B[changed_C])
            before_C = last_B[changed_C]
            if before_C.any():
                gathered_CFU -= self._coded(n, before_C)
            reference_XU = self.reference_BFU.index_select(0, changed_C).flatten(0, 1)
            kept_UU.addmm_(reference_XU.mT, gathered_CFU.flatten(0, 1))
        last_B.copy_(wanted_B)
        return kept_UU

    def _coded(self, n: int, coded_C: torch.Tensor) -> torch.Tensor:
        """Network n at coded places, [C, F, U]; nothing where the code is 0."""
        places_C = (coded_C.abs() - 1).clamp_(min=0).long()
        gathered_CFU = self._weights_NBFU[n].index_select(0, places_C)
        signs_C = coded_C.sign()
        if not (signs_C == 1).all():
            gathered_CFU.mul_(signs_C.view(-1, 1, 1))
        return gathered_CFU


def _arranged(
    tensors: torch.Tensor, axis: Axis, indices_UE: np.ndarray, others: list[Axis]
) -> torch.Tensor:
    """[N, *shape] -> [N, B, F, U]: other permuted axes first, then the rest, then the units."""
    dim = axis[1] + 1
    size, per_unit = indices_UE.shape
    flat = indices_UE.T.reshape(-1)
    if not np.array_equal(flat, np.arange(tensors.shape[dim])):
        tensors = tensors.index_select(dim, torch.from_numpy(flat))
    tensors = tensors.unflatten(dim, (per_unit, size)).movedim(dim + 1, -1)
    front = [other + 1 for _, other in others]
    tensors = tensors.movedim(front, list(range(1, 1 + len(front))))
    num_places = math.prod(tensors.shape[1 : 1 + len(front)])
    return tensors.reshape(len(tensors), num_places, -1, size).contiguous()


class StepTerms:
    """The tensors that one step has to do with."""

    def __init__(self, step: Step, weights: Tensors, *, reference: Reference, frames: Frames):
        self._step, self._num = step, frames.num_networks

        def terms_of(axes: dict[Axis, np.ndarray]) -> list[Term]:
            return [
                Term(weights[axis[0]], reference, axis=axis, indices_UE=indices, frames=frames)
                for axis, indices in axes.items()
            ]

        in_one = [(stack.axes, len(stack.groups) * stack.size) for stack in step.stacks]
        in_one.append((step.own, step.places))
        self._terms, self._fixed, self._all_terms = [], [], []
        for axes, size in in_one:
            terms = terms_of(axes)
            self._all_terms += terms
            fixed_NUU = torch.zeros(self._num, size, size)
            for term in terms:
                if not term.others:
                    fixed_NUU += term.fixed()
            self._fixed.append(fixed_NUU)
            self._terms.append([term for term in terms if term.others])
        cut = [Blocks(pair, weights) for pair in step.coupled]
        self.blocks = [(of, of.of(reference.tensors)) for of in cut]

    def likeness(self, chosen_A: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the likeness of units of each stack, [A, U, U], and of heads as a whole."""
        return self._sum(lambda term: term.likeness(chosen_A), chosen_A)

    def known_likeness(
        self, chosen_A: torch.Tensor, sort_unknown: bool
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The same from what is known; see `Term.known_likeness`."""
        return self._sum(lambda term: term.known_likeness(chosen_A, sort_unknown), chosen_A)

    def known_share(self) -> float:
        """How much of what tells the reference's units apart is known."""
        energies = [term.energy() for term in self._all_terms]
        every = sum(of_all for _, of_all in energies)
        return sum(known for known, _ in energies) / every if every else 0.0

    def all_known(self) -> bool:
        """Whether every place of every other axis is known."""
        return all(term.is_known() for term in self._all_terms)

    def quadratic_sum(self, chosen_A: torch.Tensor, parts: list[torch.Tensor]) -> torch.Tensor:
        """The linear likeness of the step's quadratic tensors under these orders, float64, [A]."""
        sum_A = torch.zeros(len(chosen_A), dtype=torch.float64)
        for k in range(len(self._step.stacks)):
            order_AU = joint_order(parts[0], parts[1 + k])
            signs = parts[1 + len(self._step.stacks) :]
            for term in self._terms[k]:
                if term.axis[0] in self._step.quadratic:
                    likeness_AUU = term.likeness(chosen_A).double()
                    if signs:
                        likeness_AUU *= signs[0].unsqueeze(2)
                    sum_A += total(likeness_AUU, order_AU)
        return sum_A

    def _sum(
        self, of: Callable[[Term], torch.Tensor], chosen_A: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        sums = []
        for terms, fixed_NUU in zip(self._terms, self._fixed, strict=True):
            sum_AUU = fixed_NUU.index_select(0, chosen_A)
            for term in terms:
                sum_AUU += of(term)
            sums.append(sum_AUU)
        return sums[:-1], sums[-1]


def joint_order(heads_AH: torch.Tensor, order_AHS: torch.Tensor) -> torch.Tensor:
    """One order of the units of all heads, [A, H * S], of the heads' and those within each."""
    size = order_AHS.shape[2]
    # Orders within are kept by the network's head, wherever it goes: the place it goes to asks for
    # those of the head that comes.
    within_AHS = order_AHS.gather(1, heads_AH.unsqueeze(2).expand_as(order_AHS))
    return (heads_AH.unsqueeze(2) * size + within_AHS).flatten(1)
