"""Networks on which tracing was once wrong: each logit stays, and nothing true is missed."""

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional

from dwf.align.activation import Activations
from dwf.align.canonical import transport_orders
from dwf.align.groups import permute, random_orders
from dwf.align.matching import match_networks
from dwf.align.symmetry import symmetry_of
from dwf.align.verify import verify_symmetry
from dwf.errors import ConfigError
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.zoo.layout import Layout
from tests.align import cases
from tests.align.by_hand import mlp_groups
from tests.align.test_trace import Custom, checked, refused, sizes


@pytest.fixture(autouse=True)
def random_numbers():
    torch.manual_seed(0)


def groups_of(network, shape=None):
    """The groups of a network, each logit compared under many random orders, scales and signs."""
    shape = shape or network.shape
    groups = symmetry_of(network, Layout.of(network), input_shape=shape)
    assert verify_symmetry(network, groups, input_shape=shape) < 1e-11
    for seed in range(3):
        assert cases.largest_change(network, groups, shape, seed=seed) < 1e-9
    return groups


def names_of(groups):
    return {member.name for group in groups for member in group.members}


def test_a_table_of_positions_is_moved_by_no_alignment():
    network = cases.SinusoidalPositions()
    layout, groups = Layout.of(network), groups_of(network)
    assert sizes(groups) == [32]
    row_1D = layout.flatten(network.state_dict())[None]
    orders = random_orders(groups, 1, seed=0)
    moved = layout.unflatten(permute(row_1D, layout, groups=groups, orders=orders)[0])
    assert torch.equal(moved["pe"], network.pe)


def test_buffers_that_are_0_or_1_when_built_leave_no_scale():
    (group,) = groups_of(cases.OwnNorm())
    assert (group.size, group.scales, group.signs) == (10, False, False)


@pytest.mark.parametrize("value", [0.0, 1.0, torch.inf])
@pytest.mark.parametrize("persistent", [True, False])
def test_what_a_constant_happens_to_be_hides_no_scale(value, persistent):
    class Shifted(nn.Module):
        shape = (6,)

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 3)
            self.register_buffer("t", torch.full((4,), value), persistent=persistent)

        def forward(self, x):
            return self.b(torch.minimum(torch.relu(self.a(x)), self.t) * self.t)

    network = Shifted()
    groups = symmetry_of(network, Layout.of(network), input_shape=(6,))
    verify_symmetry(network, groups, input_shape=(6,))
    assert [(g.size, g.scales, g.signs) for g in groups] == [(4, False, False)]


def test_a_constant_pins_what_it_tells_apart():
    network = cases.OwnNorm()
    network.mean[7:] = torch.tensor([1.0, 1.0, 2.0])
    groups = symmetry_of(network, Layout.of(network), input_shape=(6,))
    verify_symmetry(network, groups, input_shape=(6,))
    assert sizes(groups) == [2, 7]
    moved = {(m.start, g.size) for g in groups for m in g.members if m.name == "mean"}
    assert moved == {(0, 7), (7, 2)}


def test_a_buffer_as_a_filter_moves_with_its_channels_where_they_are_alike():
    class Blurred(nn.Module):
        shape = (2, 5, 5)

        def __init__(self, kernel):
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 4, 1), nn.Linear(4, 3)
            self.register_buffer("kernel", kernel)

        def forward(self, x):
            h = functional.conv2d(self.a(x), self.kernel, groups=4)
            return self.b(torch.relu(h).mean((2, 3)))

    blur = torch.rand(1, 1, 3, 3).expand(4, 1, 3, 3).clone()
    assert sizes(groups_of(Blurred(blur))) == [4]
    blur[0] *= 2
    groups = symmetry_of(Blurred(blur), Layout.of(Blurred(blur)), input_shape=(2, 5, 5))
    assert sizes(groups) == [3]


BY_KEYWORD = {
    "clamp": lambda h, t: torch.clamp(h, max=t),
    "clip": lambda h, t: h.clip(min=t),
    "masked_fill": lambda h, t: h.masked_fill(mask=t > 0.5, value=0.0),
    "pow": lambda h, t: torch.pow(h.abs() + 0.1, exponent=t),
    "add": lambda h, t: torch.add(input=h, other=t),
    "sub": lambda h, t: torch.sub(h, other=t, alpha=2),
    "mul": lambda h, t: torch.mul(input=h, other=t),
    "maximum": lambda h, t: torch.maximum(input=h, other=t),
    "max": lambda h, t: torch.max(h, other=t),
    "where": lambda h, t: torch.where(condition=h > 0, input=h, other=t),
    "gt": lambda h, t: torch.gt(h, other=t) * h,
    "remainder": lambda h, t: torch.remainder(h, other=t.abs() + 1),
}


@pytest.mark.parametrize("how", BY_KEYWORD)
def test_tensors_given_by_keyword_are_followed(how):
    """Half of the parameter's entries are of one unit each; all move with their units."""

    def run(m, x):
        return m.out(BY_KEYWORD[how](m.a(x), m.t))

    layers = {"a": nn.Linear(6, 5), "out": nn.Linear(5, 3), "t": nn.Parameter(torch.rand(5))}
    (group,) = groups_of(Custom(run, **layers), (6,))
    assert "t" in names_of([group])
    constant = torch.tensor([1.0, 1.0, 0.7, 0.7, 0.2])
    run = lambda m, x: m.out(BY_KEYWORD[how](m.a(x), constant))  # noqa: E731
    layers.pop("t")
    found = sizes(checked(run, (6,), **layers))
    assert found in ([2, 2], [2, 3], [4], [2])[: 4 if how == "masked_fill" else 1]


def test_the_buffer_that_a_keyword_gives_moves_too():
    groups = groups_of(cases.CapByKeyword())
    assert sizes(groups) == [10]
    assert "cap" in names_of(groups)


def test_a_tensor_that_an_operation_would_not_follow_is_refused():
    refused(
        lambda m, x: m.out(torch.mul(m.a(x), 2.0, out=m.b(x))),
        (3,),
        message=r"\(mul\): a tensor given as out is not followed; use a number",
        a=nn.Linear(3, 4),
        b=nn.Linear(3, 4),
        out=nn.Linear(4, 2),
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_scripted_functions_are_refused_even_where_their_results_look_like_constants():
    def cut(x):
        return torch.nan_to_num(x * torch.arange(8.0))

    cut = torch.jit.script(cut)
    refused(
        lambda m, x: m.out(cut(m.a(x))),
        (3,),
        message=r"torch\.jit\.script; use the function itself",
        a=nn.Linear(3, 8),
        out=nn.Linear(8, 2),
    )


def test_parameters_that_evaluation_never_runs_are_named(caplog):
    with caplog.at_level(logging.WARNING):
        groups_of(cases.AuxiliaryHead())
    (warning,) = caplog.messages
    assert warning.endswith("aux.weight, aux.bias were not seen")


def test_each_logit_is_compared_by_itself():
    network = cases.TwoHeads()
    (group,) = groups_of(network)
    members = tuple(m for m in group.members if m.name != "c.weight")
    wrong = type(group)(group.size, members)
    with pytest.raises(ConfigError, match="another order changes the logits"):
        verify_symmetry(network, [wrong], input_shape=(6,))


class Deep(nn.Module):
    """A SIREN: each layer multiplies rounding by its factor."""

    shape = (6,)

    def __init__(self, depth=6, factor=30.0):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(depth))
        self.out, self.factor = nn.Linear(6, 2), factor

    def forward(self, x):
        """Return logits."""
        for layer in self.layers:
            x = torch.sin(self.factor * layer(x))
        return self.out(x)


def test_the_tolerance_follows_the_networks_own_rounding():
    network = Deep()
    groups = symmetry_of(network, Layout.of(network), input_shape=(6,))
    assert sizes(groups) == [6] * 6
    assert 1e-9 < verify_symmetry(network, groups, input_shape=(6,)) < 1e-4
    wrong = [type(groups[-1])(6, groups[-1].members[:-1])]
    with pytest.raises(ConfigError, match="another order changes the logits"):
        verify_symmetry(network, wrong, input_shape=(6,))
    with pytest.raises(ConfigError, match="no mistake could be told from rounding"):
        verify_symmetry(Deep(depth=12), (), input_shape=(6,))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda m, x: m.out(m.a(x) / 0.0 * 0.0), "not finite"),
        (lambda m, x: m.out(m.a(x) + torch.rand(4)), "must not be random"),
    ],
)
def test_networks_that_cannot_be_checked_are_refused_though_they_have_no_groups(run, message):
    network = Custom(run, a=nn.Linear(3, 4), out=nn.Linear(4, 2))
    with pytest.raises(ConfigError, match=message):
        verify_symmetry(network, (), input_shape=(3,))


def test_parameters_without_axes_keep_the_scale_of_what_they_multiply():
    (group,) = groups_of(cases.ReZero())
    assert (group.size, group.scales) == (8, True)
    assert "g" not in names_of([group])


TEMPERATURES = {
    "divides": lambda m, x: m.out(torch.relu(m.a(x)) / m.t),
    "exponential": lambda m, x: m.out(torch.relu(m.a(x)) * m.t.exp()),
    "added": lambda m, x: m.out(torch.relu(m.a(x) + m.t)),
    "outside": lambda m, x: m.out(torch.relu(m.a(x))) * m.t,
    "clamped": lambda m, x: m.out(torch.clamp(torch.relu(m.a(x)), max=m.t)),
    "interpolates": lambda m, x: m.out(m.t * torch.relu(m.a(x)) + (1 - m.t) * m.a(x).tanh()),
}


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("how", TEMPERATURES)
def test_parameters_of_one_number(how, shape):
    layers = {"a": nn.Linear(3, 4), "out": nn.Linear(4, 2), "t": nn.Parameter(torch.ones(shape))}
    groups = groups_of(Custom(TEMPERATURES[how], **layers), (3,))
    assert sizes(groups) == [4]


def test_networks_that_are_not_finite_are_refused_by_their_rows():
    widths = (5, 6, 4, 3)
    network, groups = build_network(MLPConfig(widths)), mlp_groups(widths)
    layout = Layout.of(network)
    weights_ND, reference_D = torch.randn(3, layout.size), torch.randn(layout.size)
    orders = match_networks(weights_ND, reference_D, layout=layout, groups=groups)
    for scale in (1e30, 3e38):  # products of such numbers are not finite
        large_ND = weights_ND / weights_ND.abs().max() * scale
        again = match_networks(large_ND, reference_D, layout=layout, groups=groups)
        assert all(torch.equal(a, b) for a, b in zip(orders, again, strict=True))
    images = torch.randn(4, 5)
    seen = Activations(network, layout, groups=groups, images_BX=images)
    for bad in (torch.nan, torch.inf):
        weights_ND[1, 3] = bad
        with pytest.raises(ConfigError, match=r"1 of 3 networks hold .* not finite.*: rows 1;"):
            match_networks(weights_ND, reference_D, layout=layout, groups=groups)
        with pytest.raises(ConfigError, match="not finite"):
            seen.match(weights_ND, reference_D)
    weights_ND[1] = 1e30
    with pytest.raises(ConfigError, match="not finite, or too large, on training images"):
        seen.sort(weights_ND)


def test_gates_stay_with_their_branches():
    groups = groups_of(cases.SoftGate())
    assert sizes(groups) == [5]
    assert "g.weight" not in names_of(groups)


def test_a_mixture_of_experts_in_one_layer_is_not_refused():
    def run(m, x):
        gates = m.g(x).softmax(1)
        experts = torch.relu(m.e(x)).unflatten(1, (3, 4))
        return m.out(torch.relu(m.b((gates[:, :, None] * experts).sum(1))))

    layers = {"g": nn.Linear(6, 3), "e": nn.Linear(6, 12), "b": nn.Linear(4, 5)}
    groups = groups_of(Custom(run, **layers, out=nn.Linear(5, 2)), (6,))
    assert 5 in sizes(groups)


TRANSPOSED = {
    "t": lambda w: w.t(),
    "T": lambda w: w.T,
    "mT": lambda w: w.mT,
    "transpose": lambda w: w.transpose(0, 1),
    "transpose by keyword": lambda w: w.transpose(dim0=-1, dim1=-2),
    "permute": lambda w: w.permute(1, 0),
    "swapaxes": lambda w: w.swapaxes(0, 1),
    "movedim": lambda w: torch.movedim(w, 0, 1),
    "adjoint": lambda w: w.adjoint(),
}


@pytest.mark.parametrize("how", TRANSPOSED)
@pytest.mark.parametrize("inputs", [12, 8])  # a square one was taken as it lies
def test_weights_read_transposed(how, inputs):
    turn = TRANSPOSED[how]
    run = lambda m, x: m.o(functional.linear(torch.relu(m.e(x)), turn(m.e.weight)))  # noqa: E731
    groups = groups_of(Custom(run, e=nn.Linear(inputs, 8), o=nn.Linear(inputs, 3)), (inputs,))
    assert sizes(groups) == [8]


def test_a_tied_decoder():
    for inputs in (12, 8):
        (group,) = groups_of(cases.Tied(inputs=inputs))
        assert group.size == 8


PRODUCTS = {
    "matmul": lambda m, h: h @ m.w.t(),
    "from the left": lambda m, h: (m.w @ h.T).T,
    "turned from the left": lambda m, h: (m.v.T @ h.T).T,
    "addmm": lambda m, h: torch.addmm(m.c, h, m.w.T),
    "einsum": lambda m, h: torch.einsum("oi,bi->bo", m.w, h),
}


@pytest.mark.parametrize("how", PRODUCTS)
def test_products_with_a_matrix_on_either_side(how):
    layers = {"a": nn.Linear(5, 6), "out": nn.Linear(6, 2)}
    layers |= {"w": nn.Parameter(torch.randn(6, 6)), "v": nn.Parameter(torch.randn(6, 6))}
    run = lambda m, x: m.out(torch.relu(PRODUCTS[how](m, torch.tanh(m.a(x)))))  # noqa: E731
    assert sizes(groups_of(Custom(run, **layers, c=nn.Parameter(torch.randn(6))), (5,))) == [6, 6]


def test_decoded_pixels_are_told_apart():
    """The outputs of a tied decoder are pixels: a norm's weights on them are no units."""

    def run(m, x):
        return m.n(functional.linear(torch.relu(m.e(x)), m.e.weight.t()))

    groups = groups_of(Custom(run, e=nn.Linear(7, 5), n=nn.LayerNorm(7)), (7,))
    assert sizes(groups) == [5]


IN_PLACE = {
    "relu": lambda h: functional.relu(h, inplace=True),
    "relu by position": lambda h: functional.relu(h, True),
    "silu": lambda h: functional.silu(h, inplace=True),
    "leaky_relu": lambda h: functional.leaky_relu(h, 0.1, True),
    "elu": lambda h: functional.elu(h, inplace=True),
    "hardtanh": lambda h: functional.hardtanh(h, inplace=True),
    "module": lambda h: nn.ReLU6(inplace=True)(h),
    "method": lambda h: h.tanh_(),
}


@pytest.mark.parametrize("how", IN_PLACE)
def test_functions_in_place_whose_result_is_dropped(how):
    """Half of the units go through the function, the others do not."""

    def run(m, x):
        h = m.a(x)
        IN_PLACE[how](h[:, :4])
        return m.out(h)

    groups = groups_of(Custom(run, a=nn.Linear(5, 8), out=nn.Linear(8, 2)), (5,))
    assert sizes(groups) == [4, 4]
    (free,) = (g for g in groups if any(m.name == "a.bias" and m.start == 4 for m in g.members))
    assert free.scales
    assert free.signs


KEPT = {
    "mean": lambda h: h.mean(1, True),
    "sum": lambda h: torch.sum(h, 1, True),
    "var": lambda h: h.var(1, False, True),
    "std": lambda h: torch.std(h, 1, True, True),
    "std by default": lambda h: h.std(dim=1, keepdim=True),
    "amax": lambda h: h.amax((1,), True),
    "max": lambda h: h.max(1, True).values,
    "logsumexp": lambda h: torch.logsumexp(h, 1, True),
    "keepdims": lambda h: torch.mean(h, axis=1, keepdims=True),
}


@pytest.mark.parametrize("how", KEPT)
def test_axes_kept_by_position(how):
    run = lambda m, x: m.out(torch.relu(m.a(x)) + KEPT[how](m.a(x)))  # noqa: E731
    assert sizes(groups_of(Custom(run, a=nn.Linear(5, 6), out=nn.Linear(6, 2)), (5,))) == [6]


@pytest.mark.parametrize("case", [cases.Recurrent, cases.LongShort])
def test_states_that_begin_with_zeros_pin_nothing(case):
    groups = groups_of(case())
    assert sizes(groups) == [8 if case is cases.Recurrent else 6]


def test_zeros_joined_to_inputs_pin_nothing_of_a_recurrent_network():
    def run(m, x):
        h = x.new_zeros(len(x), 6)
        for t in range(3):
            h = torch.relu(m.h(torch.cat([x[:, t], h], 1)))
        return m.o(h)

    (group,) = groups_of(Custom(run, h=nn.Linear(10, 6), o=nn.Linear(6, 2)), (3, 4))
    assert group.size == 6


@pytest.mark.parametrize("dead", [1, 2, 3])
def test_transport_does_not_depend_on_the_order_even_of_units_without_inputs(dead):
    widths = (5, 6, 4, 3)
    network, groups = build_network(MLPConfig(widths)), mlp_groups(widths)
    layout = Layout.of(network)
    weights_ND = torch.randn(1, layout.size)
    for name in ("layers.0.weight", "layers.0.bias"):
        layout.unflatten(weights_ND)[name][:, :dead] = 0

    def ordered(rows_ND):
        orders = transport_orders(rows_ND, layout, groups=groups)
        return permute(rows_ND, layout, groups=groups, orders=orders)

    expected_ND = ordered(weights_ND)
    for seed in range(6):
        orders = random_orders(groups, 1, seed=seed)
        shuffled_ND = permute(weights_ND, layout, groups=groups, orders=orders)
        assert torch.equal(ordered(shuffled_ND), expected_ND)
