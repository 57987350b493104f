"""Heads told apart by singular values, against singular values computed one by one."""

import numpy as np
import torch

from dwf.align.groups import permute, random_orders
from dwf.align.matching.ascent import Ascent, Target
from dwf.align.matching.matcher import Matcher, head_distances, streams
from tests.align.by_hand import small_vit
from tests.align.test_architectures import objective, randomised


def test_distances_are_those_of_singular_values_and_no_order_changes_them():
    network, layout, groups = small_vit(depth=1)
    weights_ND = torch.stack([randomised(network, layout, seed=seed) for seed in range(3)])
    reference_D = randomised(network, layout, seed=7)
    target = Target(reference_D, layout, groups=groups)
    (distance_NHH,) = head_distances(Ascent(weights_ND, target)).values()
    name = "encoder.layers.encoder_layer_0.self_attention."
    ours, theirs = layout.unflatten(reference_D), layout.unflatten(weights_ND[2])

    def spectra(state, head):
        rows = slice(4 * head, 4 * head + 4)
        packed = state[name + "in_proj_weight"].unflatten(0, (3, 12))
        bias = state[name + "in_proj_bias"].unflatten(0, (3, 12))
        parts = [*packed[:, rows], state[name + "out_proj.weight"][:, rows]]
        values = [np.linalg.svd(part.double().numpy())[1] for part in parts]
        return values + [np.linalg.norm(part.double().numpy()) for part in bias[:, rows]]

    for i in range(3):
        for j in range(3):
            pairs = zip(spectra(ours, i), spectra(theirs, j), strict=True)
            expected = sum(np.linalg.norm(a - b) for a, b in pairs)
            assert abs(float(distance_NHH[2, i, j]) - expected) < 1e-9
    orders = random_orders(groups, 3, seed=0)
    shuffled_ND = permute(weights_ND, layout, groups=groups, orders=orders)
    (moved_NHH,) = head_distances(Ascent(shuffled_ND, target)).values()
    heads = next(g for g, group in enumerate(groups) if group.kind == "heads")
    expected_NHH = distance_NHH.gather(2, orders[heads].unsqueeze(1).expand(3, 3, 3))
    torch.testing.assert_close(moved_NHH, expected_NHH, rtol=0, atol=1e-5)


def test_a_second_climb_from_heads_by_spectra_never_makes_it_worse():
    _, layout, groups = small_vit()
    generator = torch.Generator().manual_seed(0)
    weights_ND = torch.randn(40, layout.size, generator=generator)
    reference_D = torch.randn(layout.size, generator=generator)
    values = []
    for again in (False, True):
        match = Matcher(layout, groups, start="identity", heads_again=again)
        orders = match(weights_ND, reference_D)
        values.append(
            objective(
                permute(weights_ND, layout, groups=groups, orders=orders),
                reference_D,
                layout=layout,
            )
        )
    once_N, twice_N = values
    assert (twice_N >= once_N - 1e-3).all()
    assert (twice_N > once_N + 1e-3).any()


def test_a_stream_that_nothing_ties_is_found_too():
    """Without tokens' places, inputs or outputs that tell units apart: features alone."""
    network, layout, groups = small_vit()
    reference_D = randomised(network, layout)
    tensors = layout.unflatten(reference_D)
    for name, tensor in tensors.items():
        if name.startswith(("class_token", "conv_proj", "heads", "encoder.pos", "encoder.ln")):
            tensor.fill_(0.1)
        if "ln_" in name or name.endswith(("out_proj.bias", "mlp.3.bias")):
            tensor.fill_(1.0)
    shuffled_ND = permute(
        reference_D.repeat(6, 1), layout, groups=groups, orders=random_orders(groups, 6, seed=1)
    )
    for start in ("ties", "spectra"):
        orders = Matcher(layout, groups, start=start)(shuffled_ND, reference_D)
        found_ND = permute(shuffled_ND, layout, groups=groups, orders=orders)
        assert torch.equal(found_ND, reference_D.expand_as(found_ND))
    target = Target(reference_D, layout, groups=groups)
    assert len(streams(Ascent(shuffled_ND, target))) == 1
