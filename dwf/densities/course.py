"""Course of a flow through the layers of its codes: all at once, or one after the other.

The numbers of layer l go from noise to code in a window of the whole time, [a_l, a_l + w], the last
layer's first: x_t = (1 - tau_l) x0 + tau_l x1 with tau_l = (t - a_l) / w, cut to [0, 1]. Whatever
windows there are, it is noise at t = 0 and a code at t = 1, and the velocity E[x1 - x0 | x_t] / w
of the layers that move carries the distribution along, as in flow matching. One after the other,
each layer is drawn given those behind it.

Source: an interpolant may have a schedule of its own for each number (Albergo et al., Stochastic
interpolants, arXiv 2303.08797, section 4.1).

Shape suffixes: B points, L layers, K numbers of a code.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch


@dataclass(frozen=True)
class Course:
    """When the numbers of each layer move."""

    starts: tuple[float, ...]
    """a of each layer."""
    length: float
    """w."""
    sizes: tuple[int, ...]
    """Numbers of each layer, in the order of a code."""

    @classmethod
    def of(cls, stagger: float, sections: Iterable[tuple[int, int]]) -> "Course":
        """Return the course of a code's sections.

        A section of a single token, as that of the outputs' biases, belongs to the layer before it.

        Args:
            stagger: 0: all move all the time; 1: one after the other; between: they overlap.
            sections: tokens of each, and numbers of each of these.
        """
        sizes: list[int] = []
        for tokens, size in sections:
            if tokens == 1 and sizes:
                sizes[-1] += size
            else:
                sizes.append(tokens * size)
        last = len(sizes) - 1
        length = 1 - stagger * last / (last + 1)
        starts = tuple((1 - length) * (last - i) / max(last, 1) for i in range(last + 1))
        return cls(starts, length, tuple(sizes))

    @property
    def spans(self) -> list[tuple[float, float]]:
        """Spans of time, in order, in each of which the same layers move."""
        ends = [start + self.length for start in self.starts]
        breaks = sorted({round(time, 9) for time in (0.0, 1.0, *self.starts, *ends)})
        return list(pairwise(breaks))

    def at_random(self, within_B: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return t_B: times within the window of a random layer each.

        Args:
            within_B: where in the window, in [0, 1].
            generator: source of chance.
        """
        chance = {"generator": generator, "device": within_B.device}
        layer_B = torch.randint(len(self.starts), (len(within_B),), **chance)
        return within_B.new_tensor(self.starts)[layer_B] + self.length * within_B

    def gone(self, t_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tau_BK, how far each number has gone, and moves_BK, bool, whether it moves."""
        tau_BL = (t_B[:, None] - t_B.new_tensor(self.starts)) / self.length
        moves_BL = (tau_BL >= 0) & (tau_BL <= 1)
        sizes = torch.tensor(self.sizes, device=t_B.device)
        each = {"dim": 1, "output_size": sum(self.sizes)}
        tau_BK = tau_BL.clamp(0, 1).repeat_interleave(sizes, **each)
        return tau_BK, moves_BL.repeat_interleave(sizes, **each)
