"""Orders by what units do on images, against planted orders and correlations done by hand."""

import numpy as np
import pytest
import torch

from dwf.align.activation import Activations, sources_of
from dwf.align.groups import permute, random_orders
from dwf.errors import ConfigError
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.zoo.layout import Layout
from tests.align.by_hand import grouped_net, mlp_groups, small_resnet, small_vit


def images(*shape, count=40):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def test_undoes_planted_permutations_of_a_resnet():
    torch.manual_seed(0)
    network, layout, groups = small_resnet()
    network.train()(images(3, 40, 40))  # running statistics of its own
    reference_D = layout.flatten(network.eval().state_dict())
    activations = Activations(network, layout, groups=groups, images_BX=images(3, 40, 40))
    noisy_ND = reference_D + 0.002 * reference_D.std() * torch.randn(4, layout.size)
    for entry in layout.entries:
        if entry.role == "buffer":
            part = slice(entry.offset, entry.stop)
            noisy_ND[:, part] = reference_D[part]
    shuffled_ND = permute(noisy_ND, layout, groups=groups, orders=random_orders(groups, 4, seed=1))
    orders = activations.match(shuffled_ND, reference_D)
    assert torch.equal(permute(shuffled_ND, layout, groups=groups, orders=orders), noisy_ND)
    assert not network.layer1[0].bn1._forward_hooks


def test_correlations_and_variances_are_those_of_the_units():
    widths = (7, 5, 4)
    network = build_network(MLPConfig(widths))
    layout, groups = Layout.of(network), mlp_groups(widths)
    generator = torch.Generator().manual_seed(0)
    weights_ND = torch.randn(3, layout.size, generator=generator)
    reference_D, inputs = torch.randn(layout.size, generator=generator), images(7, count=300)
    activations = Activations(network, layout, groups=groups, images_BX=inputs)
    (order_NU,) = activations.match(weights_ND, reference_D)

    def hidden(row_D):
        state = layout.unflatten(row_D)
        return (inputs @ state["layers.0.weight"].T + state["layers.0.bias"]).numpy()

    ours = hidden(reference_D)
    for row_D, order_U in zip(weights_ND, order_NU, strict=True):
        theirs = hidden(row_D)
        matrix = np.corrcoef(ours.T, theirs.T)[:5, 5:]
        from scipy.optimize import linear_sum_assignment

        assert order_U.tolist() == linear_sum_assignment(-matrix)[1].tolist()
    (sorted_NU,) = activations.sort(weights_ND)
    for row_D, order_U in zip(weights_ND, sorted_NU, strict=True):
        assert (np.diff(hidden(row_D).var(0)[order_U]) <= 0).all()


@pytest.mark.parametrize("make", [small_vit, grouped_net])
def test_units_that_no_layer_gives_out_are_refused(make):
    network, _, groups = make()
    with pytest.raises(ConfigError, match=r"activations of the .* cannot be seen: .*git_rebasin"):
        sources_of(network, groups)
