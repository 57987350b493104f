"""Coordinate ascent over the orders of N networks' units, all networks at once.

Shape suffixes: N networks, A networks of them that are matched anew, D numbers of one network,
U units of a group, H heads or blocks, S units within one, X steps.
"""

from collections.abc import Collection, Mapping, Sequence

import torch

from dwf.align.groups import Group, Orders, identity_orders, permute, put
from dwf.align.matching.assignment import assign, total
from dwf.align.matching.heads import Solution, solve_heads
from dwf.align.matching.steps import Axis, Stack, Step, steps_of
from dwf.align.matching.terms import Frames, Reference, StepTerms, joint_order
from dwf.randomness import numpy_stream
from dwf.zoo.layout import Layout

# A gain below this share of the product of the two norms is float32's rounding, not progress.
_TOLERANCE = 1e-7
# Where less than this share of what tells a step's units apart is known, numbers at unknown places
# are compared, too: in rising order.
_LEAST_KNOWN = 1e-5
# Factor on the distances of heads where these alone decide.
_ABOVE_ALL = 1e9


class Target:
    """A reference that networks are matched to, prepared once for all of them.

    Args:
        reference_D: the reference, float32 or float64.
        layout: its layout.
        groups: the groups of its architecture.
    """

    def __init__(self, reference_D: torch.Tensor, layout: Layout, *, groups: Sequence[Group]):
        self.layout, self.groups, self.steps = layout, groups, steps_of(layout, groups)
        reference_D = reference_D.float()
        self.reference = Reference(layout.unflatten(reference_D))
        self.norm = reference_D.norm()
        self.counted_D = _counted(layout, groups) * reference_D


class Ascent:
    """N coordinate ascents side by side, and what they keep between visits."""

    def __init__(
        self,
        weights_ND: torch.Tensor,
        target: Target,
        *,
        signs: bool = False,
    ):
        layout, groups = target.layout, target.groups
        self.weights_ND, self.target, self.steps = weights_ND, target, target.steps
        self.weights = layout.unflatten(weights_ND)
        self.orders = identity_orders(groups, len(weights_ND))
        self.unit_signs: dict[int, torch.Tensor] = {}
        self._signed = signs
        touched: set[Axis] = set().union(*(step.touched for step in self.steps))
        shapes = {entry.name: entry.shape for entry in layout.entries}
        self.frames = Frames(len(weights_ND), shapes, touched=touched)
        # An assignment is solved again only if a group it depends on has changed since.
        self.stale_NX = torch.ones(len(weights_ND), len(self.steps), dtype=torch.bool)
        self._tolerance_N = _TOLERANCE * weights_ND.norm(dim=1) * target.norm
        self._neighbours = [
            [y for y, other in enumerate(self.steps) if y != x and _meet(step, other)]
            for x, step in enumerate(self.steps)
        ]
        self._parts = [
            StepTerms(step, self.weights, reference=target.reference, frames=self.frames)
            for step in self.steps
        ]

    def reset(self) -> None:
        """Go back to the orders that change nothing; what is kept between visits stays of use."""
        every_A = torch.arange(len(self.stale_NX))
        for step in self.steps:
            self._take(step, every_A, self._own_orders(step, len(every_A)))
        self.stale_NX[:] = True

    def climb(self, max_sweeps: int, seed: int) -> None:
        """Sweep over all steps until nothing gains."""
        visits = numpy_stream(seed, "weight matching")
        # One order of visits for all networks, drawn by the seed alone: what becomes of a network
        # does not depend on those beside it.
        for _ in range(max_sweeps):
            for x in visits.permutation(len(self.steps)).tolist():
                self.visit(x)
            if not self.stale_NX.any():
                break

    def visit(self, x: int) -> None:
        """Solve step x of every network in which it may gain."""
        active_A = self.stale_NX[:, x].nonzero().squeeze(1)
        if not len(active_A):
            return
        step, parts = self.steps[x], self._parts[x]
        likeness, own_AHH = parts.likeness(active_A)
        solutions, gain_A = self._solve(x, active_A, likeness, own_AHH, known=True)
        if step.quadratic:
            gain_A = self._quadratic_gain(x, active_A, solutions, gain_A)
        better_A = gain_A > self._tolerance_N[active_A]
        self.stale_NX[active_A, x] = False
        changed = active_A[better_A]
        self._take(step, changed, [part[better_A] for part in solutions])
        for y in self._neighbours[x]:
            self.stale_NX[changed, y] = True
        if step.quadratic:
            # Its likeness was of its own old order, on the tensor's other axis.
            self.stale_NX[changed, x] = True

    def start(
        self,
        last: Collection[int] = (),
        heads: Mapping[int, torch.Tensor] | None = None,
        *,
        keep_better: bool = True,
    ) -> bool:
        """Find first orders from what is known already, the step that most is known of first.

        Args:
            last: steps that come after all others where nothing is known of them.
            heads: for a step of heads, how far apart those of the reference and of each network
                are, [N, H, H]; it alone tells which heads go together.
            keep_better: a network for which that is worse than its own orders keeps these.

        Returns:
            Whether every step had something known to go by.
        """
        all_tied = True
        every_A = torch.arange(len(self.stale_NX))
        for step in self.steps:
            self._mark(step, False)
        left = list(range(len(self.steps)))
        # A number of a tensor counts in exactly one step, the last one that moves it: before, one
        # of its places is not known. So what the steps find adds up to the objective, and no
        # network has to be permuted to measure it.
        value_N: torch.Tensor | None = torch.zeros(len(every_A), dtype=torch.float64)
        while left:
            x, share = self._best_known(left, last)
            left.remove(x)
            sort_unknown = share < _LEAST_KNOWN
            all_tied = all_tied and not sort_unknown
            likeness, own_AHH = self._parts[x].known_likeness(every_A, sort_unknown)
            if heads is not None and x in heads:
                own_AHH = own_AHH - _ABOVE_ALL * heads[x]
            solutions, found_N = self._solve(x, every_A, likeness, own_AHH, known=False)
            value_N = None if value_N is None else value_N + found_N
            by_spectra = heads is not None and x in heads
            if sort_unknown or by_spectra or self.steps[x].quadratic:
                value_N = None  # not of the weights as they are ordered
            elif self._parts[x].all_known():
                self.stale_NX[:, x] = False  # solved with all that it depends on at hand
            self._take(self.steps[x], every_A, solutions)
            self._mark(self.steps[x], True)
        if keep_better:
            self._keep_better_start(self.objective() if value_N is None else value_N)
        return all_tied

    def _best_known(self, left: list[int], last: Collection[int]) -> tuple[int, float]:
        """The step that most is known of, and how much; one of `last` only if something is."""
        shares = {x: self._parts[x].known_share() for x in left}
        tied = [x for x in left if x not in last or shares[x] >= _LEAST_KNOWN]
        x = max(tied or left, key=lambda x: shares[x])
        return x, shares[x]

    def coded_orders(self) -> Orders:
        """Return the orders; where a unit's sign is flipped, ~unit stands for it."""
        coded = [order_NU.clone() for order_NU in self.orders]
        for g, sign_NU in self.unit_signs.items():
            coded[g] = torch.where(sign_NU < 0, ~coded[g], coded[g])
        return coded

    def objective(self) -> torch.Tensor:
        """Return <reference, permuted network> of each network, over all that permutes, [N]."""
        target = self.target
        orders = self.coded_orders()
        return (
            permute(self.weights_ND, target.layout, groups=target.groups, orders=orders)
            @ target.counted_D
        )

    def _keep_better_start(self, value_N: torch.Tensor) -> None:
        gain_N = value_N - self.weights_ND @ self.target.counted_D
        worse_A = (gain_N <= self._tolerance_N).nonzero().squeeze(1)
        self.stale_NX[worse_A] = True
        for step in self.steps:
            self._take(step, worse_A, self._own_orders(step, len(worse_A)))

    def _own_orders(self, step: Step, num: int) -> list[torch.Tensor]:
        """The orders that change nothing, in the form of `_solve`'s."""
        parts = [torch.arange(step.places).repeat(num, 1)]
        parts += [torch.arange(s.size).repeat(num, len(s.groups), 1) for s in step.stacks]
        return parts + [torch.ones(num, s.size) for s in step.stacks if self._flips(s)]

    def _flips(self, stack: Stack) -> bool:
        return self._signed and stack.signs

    def _mark(self, step: Step, known: bool) -> None:
        for axes in (step.own, *(stack.axes for stack in step.stacks)):
            for axis, indices in axes.items():
                self.frames.known[axis][torch.from_numpy(indices.reshape(-1))] = known

    def _solve(
        self,
        x: int,
        active_A: torch.Tensor,
        likeness: list[torch.Tensor],
        own_AHH: torch.Tensor,
        known: bool,
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return new orders (of heads [A, H], of each stack [A, H, S], signs) and gains [A].

        Not yet `known`, the gain is over nothing.
        """
        step = self.steps[x]
        if step.parent is None:
            return self._solve_alone(step.stacks[0], active_A, likeness[0], known)
        found: list[Solution] = []
        gains = []
        for a, n in enumerate(active_A.tolist()):
            current = None
            if known:
                within = [torch.stack([self.orders[g][n] for g in s.groups]) for s in step.stacks]
                current = (self.orders[step.parent][n], within)
            blocks = [(of, of_ref, of.weights[n]) for of, of_ref in self._parts[x].blocks]
            of_network = [matrix[a] for matrix in likeness]
            solution, after, before = solve_heads(
                step, of_network, own_HH=own_AHH[a], blocks=blocks, current=current
            )
            found.append(solution)
            gains.append(after - before)
        heads_AH = torch.stack([heads_H for heads_H, _ in found])
        within = [torch.stack([w[k] for _, w in found]) for k in range(len(step.stacks))]
        return [heads_AH, *within], torch.tensor(gains, dtype=torch.float64)

    def _solve_alone(
        self, stack: Stack, active_A: torch.Tensor, likeness_AUU: torch.Tensor, known: bool
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        current_AU = self.orders[stack.groups[0]][active_A]
        no_heads_A1 = torch.zeros(len(active_A), 1, dtype=torch.int64)
        if not self._flips(stack):
            best_AU = assign(likeness_AUU)
            gain_A = total(likeness_AUU, best_AU)
            if known:
                gain_A -= total(likeness_AUU, current_AU)
            return [no_heads_A1, best_AU.unsqueeze(1)], gain_A
        # Flipping a unit negates its likeness to every unit of the reference, and nothing else:
        # with the better sign a pair is worth |likeness|. So one assignment finds orders and signs
        # at once.
        best_AU = assign(likeness_AUU.abs())
        sign_AU = likeness_AUU.gather(2, best_AU.unsqueeze(2)).squeeze(2).float().sign()
        sign_AU[sign_AU == 0] = 1.0
        gain_A = total(likeness_AUU.abs(), best_AU)
        if not known:
            return [no_heads_A1, best_AU.unsqueeze(1), sign_AU], gain_A
        signed = likeness_AUU.gather(2, current_AU.unsqueeze(2)).squeeze(2).double()
        if stack.groups[0] in self.unit_signs:
            signed = signed * self.unit_signs[stack.groups[0]][active_A]
        return [no_heads_A1, best_AU.unsqueeze(1), sign_AU], gain_A - signed.sum(1)

    def _take(self, step: Step, chosen_A: torch.Tensor, parts: list[torch.Tensor]) -> None:
        """Make these the orders of some networks."""
        if not len(chosen_A):
            return
        heads_AH, *within = parts[: 1 + len(step.stacks)]
        sign_AU = parts[-1] if len(parts) > 1 + len(step.stacks) else None
        if step.parent is not None:
            self.orders[step.parent][chosen_A] = heads_AH
        for axis, indices_HE in step.own.items():
            self.frames.place(axis, indices_HE, chosen_A=chosen_A, order_AU=heads_AH)
        for stack, order_AHS in zip(step.stacks, within, strict=True):
            for g, order_AS in zip(stack.groups, order_AHS.unbind(1), strict=True):
                self.orders[g][chosen_A] = order_AS
            if sign_AU is not None:
                g = stack.groups[0]
                self.unit_signs.setdefault(g, torch.ones(self.orders[g].shape))[chosen_A] = sign_AU
            order_AU = joint_order(heads_AH, order_AHS)
            for axis, indices_UE in stack.axes.items():
                self.frames.place(
                    axis, indices_UE, chosen_A=chosen_A, order_AU=order_AU, sign_AU=sign_AU
                )

    def _now(self, step: Step, chosen_A: torch.Tensor) -> list[torch.Tensor]:
        """The orders of some networks in the form of `_solve`'s."""
        heads_AH = torch.zeros(len(chosen_A), 1, dtype=torch.int64)
        if step.parent is not None:
            heads_AH = self.orders[step.parent][chosen_A]
        parts = [heads_AH]
        for stack in step.stacks:
            parts.append(torch.stack([self.orders[g][chosen_A] for g in stack.groups], 1))
        for stack in step.stacks:
            if self._flips(stack):
                ones_NU = torch.ones(self.orders[stack.groups[0]].shape)
                parts.append(self.unit_signs.get(stack.groups[0], ones_NU)[chosen_A])
        return parts

    def _quadratic_gain(
        self, x: int, active_A: torch.Tensor, new: list[torch.Tensor], gain_A: torch.Tensor
    ) -> torch.Tensor:
        """Return the true gain of a step that permutes two axes of a tensor, each held so far."""
        # The assignment took each of the two axes as if the other stayed: its gain is that of a
        # linear model, which may promise more than there is. That model's share is taken out again
        # and replaced by what the tensors say, so that the sum never falls here either.
        step, parts = self.steps[x], self._parts[x]
        old = self._now(step, active_A)
        linear_A = parts.quadratic_sum(active_A, new) - parts.quadratic_sum(active_A, old)
        before_A = self._inner(step.quadratic, active_A)
        self._take(step, active_A, new)
        after_A = self._inner(step.quadratic, active_A)
        self._take(step, active_A, old)
        return gain_A - linear_A + after_A - before_A

    def _inner(self, names: frozenset[str], chosen_A: torch.Tensor) -> torch.Tensor:
        """<reference, network as ordered> over some tensors, float64, [A]."""
        sums = []
        for n in chosen_A.tolist():
            sums.append(0.0)
            for name in names:
                tensor = self.weights[name][n].double()
                for axis in range(tensor.dim()):
                    if (name, axis) in self.frames.sources:
                        tensor = self.frames.moved(tensor, (name, axis), network=n)
                sums[-1] += float((tensor * self.target.reference.tensors[name]).sum())
        return torch.tensor(sums, dtype=torch.float64)


def _counted(layout: Layout, groups: Sequence[Group]) -> torch.Tensor:
    """Return 1 for each number of a network that matching moves and counts, else 0, [D]."""
    counts_1D = torch.zeros(1, layout.size)
    tensors = {name: tensor.numpy() for name, tensor in layout.unflatten(counts_1D).items()}
    for group in groups:
        for member in group.members:
            if member.cost:
                put(tensors[member.name], member, size=group.size, values=1)
    return counts_1D[0]


def _meet(step: Step, other: Step) -> bool:
    return bool({name for name, _ in step.touched} & {name for name, _ in other.touched})
