"""Weight matching: order the units of N networks as a reference network's, all at once.

Source: Ainsworth et al., Git Re-Basin, ICLR 2023, section 3.2, Algorithm 1 (arXiv:2209.04836).

Heads of an attention can also be told apart by what no order of any other units can change: the
singular values of a head's projections do not depend on the order of the units within it, nor on
that of the residual stream. Heads are matched by them, then the units within each head (queries
with keys, and values with output, each pair by itself), then the hidden units of the layers
between, and the residual stream last; from there on all are improved in turn until none gains.

Source of that: Rinaldi et al., Update Your Transformer to the Latest Release: Re-Basin of Task
Vectors (TransFusion), ICML 2025, section 4 (arXiv:2505.22697).

Shape suffixes: N networks, D numbers of one network, U units of a group, H heads, S units within
one, F other numbers, P projections.
"""

from collections.abc import Sequence
from typing import Literal

import torch

from dwf.align.groups import Group, Orders, permute, refuse_not_finite
from dwf.align.matching.ascent import Ascent, Target
from dwf.align.matching.steps import Axis, count_disjoint
from dwf.zoo.layout import Layout

Start = Literal["identity", "ties", "spectra"]
_LARGEST = 2.0**40


def match_networks(
    weights_ND: torch.Tensor,
    reference_D: torch.Tensor,
    *,
    layout: Layout,
    groups: Sequence[Group],
    max_sweeps: int = 100,
    seed: int = 0,
    start: Start = "ties",
    signs: bool = False,
) -> Orders:
    """Find for each network the orders of its units that bring it close to a reference.

    Maximises the sum over all tensors of <reference, permuted network> by coordinate ascent: a
    sweep visits the groups in a random order and solves each group's linear assignment exactly
    while the others are held. The sum never falls. A network is left alone once no group can
    gain. Heads of an attention are solved together with the units within them, and so are blocks
    of a grouped convolution. Products are float32 (in float64 they took seven times as long, for
    the same objective); assignments and gains are float64.

    Args:
        weights_ND: the networks, float32.
        reference_D: what they are matched to, float32 or float64.
        layout: the layout of both.
        groups: the groups of their architecture.
        max_sweeps: sweeps over all groups, at most.
        seed: seed of the order in which groups are visited, >= 0.
        start: where the ascent begins: `identity`, the orders as they are; or `ties`, orders
            found from the inputs, the outputs and all else that stays in place towards the inside,
            each group from those before it alone (a network for which that is worse than its own
            orders begins with these).
        signs: also flip the signs of units that may be flipped.

    Returns:
        For each group the order of its units, int64, shape [N, U]; `permute` applies them.

    Raises:
        ConfigError: a network or the reference is not finite.
    """
    matcher = Matcher(layout, groups, max_sweeps=max_sweeps, seed=seed, start=start, signs=signs)
    return matcher(weights_ND, reference_D)


class Matcher:
    """`match_networks` for many calls; a reference is prepared once and kept until the next.

    Args:
        layout: the layout of networks and references.
        groups: the groups of their architecture.
        max_sweeps: sweeps over all groups, at most.
        seed: seed of the order in which groups are visited, >= 0.
        start: where ascents begin; see `match_networks`.
        signs: also flip the signs of units that may be flipped.
        heads_again: where the start had to guess, climb a second time from heads matched by their
            singular values, and take the better of the two for each network.
    """

    def __init__(
        self,
        layout: Layout,
        groups: Sequence[Group],
        *,
        max_sweeps: int = 100,
        seed: int = 0,
        start: Start = "ties",
        signs: bool = False,
        heads_again: bool = False,
    ):
        self.layout, self.groups = layout, groups
        self._max_sweeps, self._seed, self._start, self._signs = max_sweeps, seed, start, signs
        self._heads_again = heads_again
        self._reference_D: torch.Tensor | None = None
        self._target: Target | None = None
        self._then: Matcher | None = None
        num = count_disjoint(layout, groups)
        if num < len(groups):  # an ascent takes each index of an axis in one step alone
            self.groups = groups[:num]
            self._then = Matcher(
                layout,
                groups[num:],
                max_sweeps=max_sweeps,
                seed=seed,
                start="identity" if start == "identity" else "ties",
                signs=signs,
            )

    def __call__(self, weights_ND: torch.Tensor, reference_D: torch.Tensor) -> Orders:
        """Match networks to a reference; as `match_networks`."""
        orders = self._match(weights_ND, reference_D)
        if self._then is None:
            return orders
        permuted_ND = permute(weights_ND, self.layout, groups=self.groups, orders=orders)
        return orders + self._then(permuted_ND, reference_D)

    def _match(self, weights_ND: torch.Tensor, reference_D: torch.Tensor) -> Orders:
        refuse_not_finite(weights_ND)
        weights_ND = _in_range(weights_ND)
        if self._target is None or self._reference_D is not reference_D:
            refuse_not_finite(reference_D[None])
            self._reference_D = reference_D
            reference_D = _in_range(reference_D[None])[0]
            self._target = Target(reference_D, self.layout, groups=self.groups)
        ascent = Ascent(weights_ND, self._target, signs=self._signs)
        tied = False
        if self._start == "ties":
            tied = ascent.start()
        elif self._start == "spectra":
            ascent.start(streams(ascent), head_distances(ascent))
        ascent.climb(self._max_sweeps, self._seed)
        orders = ascent.coded_orders()
        # Where all else was known, the joint step of heads was exact: spectra would add nothing.
        heads = head_distances(ascent) if self._heads_again and not tied else {}
        if not heads:
            return orders
        value_N = ascent.objective()
        ascent.reset()
        ascent.start(streams(ascent), heads)
        ascent.climb(self._max_sweeps, self._seed)
        better_N1 = (ascent.objective() > value_N).unsqueeze(1)
        pairs = zip(ascent.coded_orders(), orders, strict=True)
        return [torch.where(better_N1, *pair) for pair in pairs]


def _in_range(weights_ND: torch.Tensor) -> torch.Tensor:
    """Return networks with what is too large for products in float32 made smaller, exactly.

    Which order is best does not depend on a network's scale.
    """
    largest_N = weights_ND.abs().amax(1)
    too_large_N = largest_N > _LARGEST
    if not too_large_N.any():
        return weights_ND
    exponent_N = torch.where(too_large_N, torch.frexp(largest_N).exponent, 0)
    # In two steps: the inverse of the largest numbers is no normal float32.
    half_N = exponent_N // 2
    return torch.ldexp(torch.ldexp(weights_ND, -half_N[:, None]), (half_N - exponent_N)[:, None])


def streams(ascent: Ascent) -> set[int]:
    """Return which steps are residual streams."""
    groups = ascent.target.groups
    return {
        x
        for x, step in enumerate(ascent.steps)
        if step.parent is None and groups[step.stacks[0].groups[0]].is_stream
    }


def head_distances(ascent: Ascent) -> dict[int, torch.Tensor]:
    """Return how far the reference's heads are from each network's, by singular values.

    Returns:
        For each step of heads: sum over projections of the distance of their singular values,
        float64, [N, H, H]. Singular values are square roots of the eigenvalues of W W^T, which are
        found for all heads and networks at once.
    """
    distances = {}
    for x, step in enumerate(ascent.steps):
        if step.parent is None or step.coupled:
            continue
        distance_NHH = torch.zeros(
            len(ascent.weights_ND), step.places, step.places, dtype=torch.float64
        )
        for stack in step.stacks:
            for axis, indices_UE in stack.axes.items():
                shape = (step.places, stack.size, -1)
                indices = torch.from_numpy(indices_UE).reshape(shape)
                reference = ascent.target.reference.tensors[axis[0]][None]
                ours_1HPS = _spectra(reference, axis, indices)
                theirs_NHPS = _spectra(ascent.weights[axis[0]], axis, indices)
                apart_NHHP = (ours_1HPS.unsqueeze(2) - theirs_NHPS.unsqueeze(1)).norm(dim=-1)
                distance_NHH += apart_NHHP.sum(-1)
        distances[x] = distance_NHH
    return distances


def _spectra(tensors: torch.Tensor, axis: Axis, indices_HSP: torch.Tensor) -> torch.Tensor:
    """Singular values of each head's part of each projection, float64, [N, H, P, S]."""
    dim = axis[1] + 1
    parts = tensors.index_select(dim, indices_HSP.permute(0, 2, 1).reshape(-1))
    places, size, num = indices_HSP.shape
    parts = parts.movedim(dim, 1).reshape(len(tensors), places, num, size, -1).double()
    if parts.shape[-1] == 1:  # of a bias, the norm is all that stays
        return parts.squeeze(-1).norm(dim=-1, keepdim=True)
    return torch.linalg.eigvalsh(parts @ parts.mT).clamp(min=0).sqrt()
