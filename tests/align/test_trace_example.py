"""The worked example in `align/trace/__init__.py`, against the trace itself and brute force."""

import itertools
import re
import textwrap

import pytest
import torch
from torch import nn

from dwf.align import trace
from dwf.align.groups import Group, Member
from dwf.align.trace.run import trace as trace_network
from dwf.align.verify import verify_symmetry
from dwf.zoo.layout import Layout
from tests.align.test_trace import count_by_brute_force

WORDS = trace.__doc__
CODE = textwrap.dedent(re.search(r"    class Skip.*?\n\n(?=\S)", WORDS, re.DOTALL)[0])
TABLE = re.search(r"    tensor  .*?\n\n", WORDS, re.DOTALL)[0].splitlines()


def written() -> type[nn.Module]:
    """The class as it stands in the docstring."""
    names = {"nn": nn}
    exec(CODE, names)
    return names["Skip"]


def rows() -> dict[str, tuple[list[int], list[int]]]:
    """Tensor -> its units at first and in the end, as the docstring's table says."""
    cut = [TABLE[0].index(head) for head in ("tensor", "first", "in the end", "why")]
    cells = [[line[a:b].strip() for a, b in itertools.pairwise(cut)] for line in TABLE[1:]]
    return {name: tuple([*map(int, c.split())] for c in units) for name, *units in cells if name}


@pytest.fixture
def traced():
    """The tracer, and the labels of the example's activations by their names in the table."""
    network, seen, ran = written()(), {}, iter(("hidden", "relu(inner(hidden))"))

    def note(name, tensor):
        seen[name] = tensor

    network.first.register_forward_pre_hook(lambda _, given: note("image", *given))
    network.first.register_forward_hook(lambda _, given, made: note("first(image)", made))
    network.inner.register_forward_hook(lambda _, given, made: note("inner(hidden)", made))
    network.relu.register_forward_hook(lambda _, given, made: note(next(ran), made))
    network.last.register_forward_pre_hook(lambda _, given: note("the sum", *given))
    network.last.register_forward_hook(lambda _, given, made: note("last(the sum)", made))
    tracer = trace_network(network, Layout.of(network), input_shape=(2,))
    return tracer, {name: tracer.labels(tensor) for name, tensor in seen.items()}


def groups_of(network) -> tuple[Group, ...]:
    groups = trace.trace_groups(network, Layout.of(network), input_shape=(2,))
    assert verify_symmetry(network, groups, input_shape=(2,)) < 1e-12
    return groups


def test_every_tensor_gets_the_labels_that_the_table_says(traced):
    tracer, activations = traced
    found = {name: labels.unit for name, labels in activations.items()}
    found |= {name: labels.unit for name, labels in tracer.single_numbers.items()}
    found |= {b.name: b.unit[0] for b in tracer.structure.bindings if b.axis == 0}
    assert set(found) == set(rows())
    for name, (first, last) in rows().items():
        for units in found[name].reshape(-1, len(first)):  # both images
            assert units.tolist() == first, name
            assert tracer.structure.atoms.find(units).tolist() == last, name


def test_slots_wires_and_pins_are_those_of_the_words(traced):
    tracer, activations = traced
    structure = tracer.structure
    assert len(activations["image"].slot.unique()) == 4
    for name, labels in activations.items():
        if name != "image":
            assert (labels.slot == labels.slot[:, :1]).all()
            assert labels.slot[0, 0] != labels.slot[1, 0]
        assert torch.equal(labels.wire, labels.unit)
        assert (
            structure.wires.find(labels.wire).tolist() == structure.atoms.find(labels.unit).tolist()
        )
    unscaled, unsigned = structure.still_wires()
    assert unscaled[[1, 2, 3, 13, 14]].tolist() == [False] * 3 + [True] * 2
    assert unsigned[[1, 2, 3, 13, 14]].all()
    assert [pinned.tolist() for pinned in structure.pinned] == [[13, 14]]
    taken = {b.name: b.unit[0] for b in structure.bindings if b.axis == 1}
    assert taken["inner.weight"].tolist() == taken["last.weight"].tolist() == [1, 2, 3]


def test_the_group_that_comes_out_is_all_that_brute_force_finds():
    torch.manual_seed(0)
    network = written()().double()
    (group,) = groups_of(network)
    made = [("first.weight", 0), ("first.bias", 0), ("inner.weight", 0)]
    members = [Member(*axis, power=1) for axis in made]
    members += [Member("inner.weight", 1, power=-1), Member("inner.bias", 0, power=1)]
    members += [Member("last.weight", 1, power=-1)]
    assert group == Group(3, tuple(members), kind="stream", scales=True)
    said = ", ".join(f"{m.name}[{m.axis}] {m.power:+d}" for m in group.members)
    assert said in " ".join(WORDS.split())
    images = torch.randn(40, 2, dtype=torch.float64)  # enough that no relu is idle
    tensors = {name: torch.randn_like(t) for name, t in network.state_dict().items()}
    axes = [(member.name, member.axis) for member in group.members]

    def compute(state):
        return torch.func.functional_call(network, state, (images,))

    assert count_by_brute_force(compute, tensors, axes=axes) == 6  # 3! of 6^6


class Changed(nn.Module):
    """The example with another `forward`."""

    def __init__(self, run):
        super().__init__()
        self.run = run
        self.first, self.inner, self.last = nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, image):
        return self.last(self.run(self, torch.relu(self.first(image))))


CHANGES = {
    "no skip": (lambda m, h: torch.relu(m.inner(h)), [("units", 3, True), ("units", 3, True)]),
    "tanh": (lambda m, h: h + torch.tanh(m.inner(h)), [("stream", 3, False)]),
    "a constant": (
        lambda m, h: (h := h + torch.tensor([0.5, 0.5, 0.8])) + torch.relu(m.inner(h)),
        [("stream", 2, False)],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_words_say_of_changes(change):
    run, expected = CHANGES[change]
    groups = groups_of(Changed(run))
    assert [(group.kind, group.size, group.scales) for group in groups] == expected
