"""Weight matching: order the units of N networks as a reference network's, all at once.

Source: Ainsworth et al., Git Re-Basin, ICLR 2023, section 3.2, Algorithm 1 (arXiv:2209.04836).

Shape suffixes: N networks, A networks of them that are matched anew, D numbers of one network,
U units of a group, F numbers that touch one unit, G groups.
"""

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment

from dwf.align.symmetry import Group, identity_orders
from dwf.randomness import numpy_stream
from dwf.zoo.layout import Layout

# A gain below this share of the product of the two norms is float32's rounding, not progress.
_TOLERANCE = 1e-7


def match_networks(
    weights_ND: torch.Tensor,
    reference_D: torch.Tensor,
    layout: Layout,
    groups: Sequence[Group],
    max_sweeps: int = 100,
    seed: int = 0,
) -> list[torch.Tensor]:
    """Find for each network the orders of its units that bring it close to a reference.

    Maximises the sum over all tensors of <reference, permuted network> by coordinate ascent: a
    sweep visits the groups in a random order and solves each group's linear assignment exactly
    while the others are held. The sum never falls. A network is left alone once no group can
    gain. Products are float32 (in float64 they took seven times as long, for the same objective);
    assignments and gains are float64.

    Args:
        weights_ND: the networks, float32.
        reference_D: what they are matched to, float32 or float64.
        layout: the layout of both.
        groups: the groups of their architecture.
        max_sweeps: sweeps over all groups, at most.
        seed: seed of the order in which groups are visited, >= 0.

    Returns:
        For each group the order of its units, int64, shape [N, U]; `permute` applies them.
    """
    ascent = _Ascent(weights_ND, reference_D.float(), layout, groups)
    visits = numpy_stream(seed, "weight matching")
    for _ in range(max_sweeps):
        for g in visits.permutation(len(groups)).tolist():
            ascent.visit(g)
        if not ascent.stale_NG.any():
            break
    return ascent.orders


class _Ascent:
    """N coordinate ascents side by side, and what they keep between visits."""

    def __init__(
        self,
        weights_ND: torch.Tensor,
        reference_D: torch.Tensor,
        layout: Layout,
        groups: Sequence[Group],
    ):
        self.weights, self.reference = layout.unflatten(weights_ND), layout.unflatten(reference_D)
        self.orders = identity_orders(groups, len(weights_ND))
        # An assignment is solved again only if a group it depends on has changed since.
        self.stale_NG = torch.ones(len(weights_ND), len(groups), dtype=torch.bool)
        self._tolerance_N = _TOLERANCE * weights_ND.norm(dim=1) * reference_D.norm()
        self._networks_N1 = torch.arange(len(weights_ND)).unsqueeze(1)
        self._others = _other_axes(groups)
        self._fixed = [self._fixed_similarity(g) for g in range(len(groups))]

    def visit(self, g: int) -> None:
        """Solve group g of every network in which it may gain."""
        active_A = self.stale_NG[:, g].nonzero().squeeze(1)
        found_AU, gain_A = _assign(self._similarity(g, active_A), self.orders[g][active_A])
        better_A = gain_A > self._tolerance_N[active_A]
        changed = active_A[better_A]
        self.orders[g][changed] = found_AU[better_A]
        for others in self._others[g].values():
            for h, _ in others:
                self.stale_NG[changed, h] = True
        self.stale_NG[active_A, g] = False

    def _similarity(self, g: int, active_A: torch.Tensor) -> torch.Tensor:
        """<reference's unit u, network's unit v>, the other groups as ordered now, [A, U, U]."""
        similarity_AUU = self._fixed[g].index_select(0, active_A)
        for (name, axis), others in self._others[g].items():
            if others:
                reference = self._reference_as_ordered(name, others, active_A)
                weights = self.weights[name].index_select(0, active_A)
                similarity_AUU.baddbmm_(_units(reference, axis), _units(weights, axis).mT)
        return similarity_AUU.double()

    def _fixed_similarity(self, g: int) -> torch.Tensor:
        """The share of the tensors in which only this group permutes: it never changes."""
        num, size = self.orders[g].shape
        similarity_NUU = torch.zeros(num, size, size)
        for (name, axis), others in self._others[g].items():
            if not others:
                reference = self.reference[name].expand_as(self.weights[name])
                similarity_NUU.baddbmm_(
                    _units(reference, axis), _units(self.weights[name], axis).mT
                )
        return similarity_NUU

    def _reference_as_ordered(
        self, name: str, others: list[tuple[int, int]], active_A: torch.Tensor
    ) -> torch.Tensor:
        """A tensor of the reference with its other axes in each network's own order, [A, *shape].

        The reference is reordered rather than the networks: it is small and stays in cache.
        """
        reference = self.reference[name]
        ordered = reference.expand(len(active_A), *reference.shape)
        for h, axis in others:
            places_AU = self.orders[h].index_select(0, active_A).argsort(1)
            ordered = ordered.movedim(axis + 1, 1)[self._networks_N1[: len(active_A)], places_AU]
            ordered = ordered.movedim(1, axis + 1)
        return ordered


def _other_axes(groups: Sequence[Group]) -> list[dict[tuple[str, int], list[tuple[int, int]]]]:
    """For each group and each of its members: (group, axis) of the tensor's other axes."""
    axes: dict[str, list[tuple[int, int]]] = {}
    for g, group in enumerate(groups):
        for name, axis in group.members:
            axes.setdefault(name, []).append((g, axis))
    return [
        {(name, axis): [(h, b) for h, b in axes[name] if b != axis] for name, axis in group.members}
        for group in groups
    ]


def _units(tensors: torch.Tensor, axis: int) -> torch.Tensor:
    """All that touches each unit of an axis: [N, *shape] -> [N, U, F]."""
    return tensors.movedim(axis + 1, 1).unsqueeze(-1).flatten(2)


def _assign(
    similarity_AUU: torch.Tensor, current_AU: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the best order of each network's units, and its gain over the current one, [A]."""
    best_AU = torch.empty_like(current_AU)
    for similarity_UU, best_U in zip(similarity_AUU.numpy(), best_AU.numpy(), strict=True):
        best_U[:] = linear_sum_assignment(similarity_UU, maximize=True)[1]

    def total(order_AU: torch.Tensor) -> torch.Tensor:
        return similarity_AUU.gather(2, order_AU.unsqueeze(2)).sum((1, 2))

    return best_AU, total(best_AU) - total(current_AU)
