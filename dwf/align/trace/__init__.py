"""Trace a module: which axes of its tensors can be permuted together.

A worked example: three hidden units and a skip connection.

    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.inner, self.last = nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 2)
            self.relu = nn.ReLU()

        def forward(self, image):
            hidden = self.relu(self.first(image))
            return self.last(hidden + self.relu(self.inner(hidden)))

The trace runs `forward` once, on two images that have labels in place of numbers (`labels.py`).
Each number is told its unit (0 is nobody's: it stays where it is), its slot (where within its unit
it stands: here, in which image) and its wire (which unit's scale it carries: here the wires are
numbered like the units). Step by step, the units that a tensor's last axis runs over, or a
parameter's axis 0, as they are labelled at first and as they turn out in the end:

    tensor                  first     in the end  why
    image                   0 0       0 0         images are no units; each number has its own slot
    first.weight            1 2 3     1 2 3       the rows of a weight make new units
    first.bias              4 5 6     1 2 3       each number a unit, until it is added: then one
    first(image)            1 2 3     1 2 3       both images hold the same units, in other slots
    hidden                  1 2 3     1 2 3       relu pins the sign of their wires, not the scale
    inner.weight            7 8 9     1 2 3       its axis 1 takes in 1 2 3, its rows make 7 8 9
    inner.bias              10 11 12  1 2 3       added to 7 8 9, each to its own
    inner(hidden)           7 8 9     1 2 3
    relu(inner(hidden))     7 8 9     1 2 3
    the sum                 1 2 3     1 2 3       the skip unites 7 with 1, 8 with 2, 9 with 3
    last.weight             13 14     13 14       its axis 1 takes in 1 2 3
    last.bias               15 16     13 14
    last(the sum)           13 14     13 14       outputs are pinned: classes keep their order

Wires are united with their units: what is added up has one scale. Then `read_groups.py` colours
the units by their uses. 1, 2 and 3 are used alike everywhere, so they may change places: they are a
group. 13 and 14 are pinned, so each has a colour of its own and is no group. Out comes one group, a
`stream` (units that are added up) of 3 units, each member a tensor's axis with its power of s where
a unit is scaled by s > 0:

    first.weight[0] +1, first.bias[0] +1, inner.weight[0] +1, inner.weight[1] -1, inner.bias[0] +1,
    last.weight[1] -1

Without the skip, 1 2 3 and 7 8 9 stay apart: two groups of `units`. With tanh in place of the inner
relu, the units are the same, but tanh pins the scale of 7 8 9 and so, by the sum, of 1 2 3. With
the constant (0.5, 0.5, 0.8) added to `hidden`, unit 3 is used otherwise than 1 and 2: a group of
two is left, and the constant pins its scale.
"""

from dwf.align.trace.run import trace_groups

__all__ = ["trace_groups"]
