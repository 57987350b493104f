"""SANE's autoencoder against the published counts of parameters, and its definition by hand."""

import dataclasses

import pytest
import torch
from torch.nn.functional import gelu, layer_norm

from dwf.backbones.config import TokenAutoencoderConfig
from dwf.backbones.token_autoencoder import TokenAutoencoder

SMALL = TokenAutoencoderConfig(width=16, heads=2, depth=2, latent=5, max_positions=(40, 4, 9))


def build(window=12, token_size=7, **settings) -> TokenAutoencoder:
    torch.manual_seed(0)
    return TokenAutoencoder(dataclasses.replace(SMALL, **settings), token_size, window=window)


def batch(num=3, window=12, token_size=7):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(num, window, token_size, generator=generator)
    bounds = torch.tensor(SMALL.max_positions)
    positions = (torch.rand(num, window, 3, generator=generator) * bounds).long()
    return tokens, positions


def count(config, token_size, window) -> int:
    with torch.device("meta"):
        module = TokenAutoencoder(config, token_size, window=window)
    return sum(parameter.numel() for parameter in module.parameters())


PUBLISHED = [
    # Width, heads, depth, positions, token size, window: millions of parameters, as published.
    (1024, 8, 8, (100, 10, 40), 289, 64, 202.5),
    (2048, 16, 8, (55000, 100, 550), 288, 256, 865),
    (256, 8, 4, (100, 10, 40), 289, 64, 6.78),
]


@pytest.mark.parametrize("case", PUBLISHED)
def test_parameters_are_as_many_as_published(case):
    width, heads, depth, positions, token_size, window, millions = case
    config = TokenAutoencoderConfig(width, heads, depth=depth, latent=128, max_positions=positions)
    digits = 0 if isinstance(millions, int) else len(str(millions).partition(".")[2])
    assert round(count(config, token_size, window=window) / 1e6, digits) == millions


def test_parameters_by_hand():
    width, latent, tokens, window, depth = 16, 5, 7, 12, 2
    block = width * 3 * width + width * width + 2 * 4 * width * width + 2 * width
    ends = (tokens * width + width) + (width * latent + latent)
    ends += (latent * width + width) + (width * tokens + tokens)
    positions = (40 + 4 + 9) * width // 2
    head = (window * latent * 30 + 30) + (30 * 30 + 30) + 2 * 60
    assert count(SMALL, tokens, window=window) == 2 * depth * block + ends + positions + head


def attend_by_hand(query, key, value):
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    return scores.softmax(-1) @ value


def stack_by_hand(stack, x, places, heads):
    """A block as its definition says, without torch's attention."""
    x = x @ stack.enter.weight.T + stack.enter.bias + places
    for block in stack.blocks:
        normed = layer_norm(x, x.shape[-1:], block.norms[0].weight)
        parts = (normed @ block.project.weight.T).chunk(3, -1)
        joined = [
            attend_by_hand(*one)
            for one in zip(*(part.chunk(heads, -1) for part in parts), strict=True)
        ]
        x = x + torch.cat(joined, -1) @ block.join.weight.T
        normed = layer_norm(x, x.shape[-1:], block.norms[1].weight)
        x = x + gelu(normed @ block.widen.weight.T) @ block.narrow.weight.T
    return x @ stack.leave.weight.T + stack.leave.bias


def test_computes_what_its_definition_says():
    module, (tokens, positions) = build().double(), batch()
    tables = [table.weight for table in module.positions.tables]
    n, layer, unit = (tables[i][positions[..., i]] for i in range(3))
    places = torch.cat([n + layer, unit], -1)
    latents = stack_by_hand(module.encoder, tokens.double(), places=places, heads=2)
    torch.testing.assert_close(module.encode(tokens.double(), positions), latents)
    wanted = stack_by_hand(module.decoder, latents, places=places, heads=2)
    torch.testing.assert_close(module.decode(latents, positions), wanted)


def test_forward_is_encoding_decoding_and_projecting():
    module, (tokens, positions) = build().eval(), batch()
    made, projections = module(tokens, positions)
    latents = module.encode(tokens, positions)
    assert latents.shape == (3, 12, 5) and projections.shape == (3, 30)
    torch.testing.assert_close(made, module.decode(latents, positions))
    torch.testing.assert_close(projections, module.project(latents))
    assert module(tokens, positions, project=False)[1] is None


def test_without_a_head_nothing_is_projected():
    module, (tokens, positions) = build(projection=0), batch()
    assert not [name for name, _ in module.named_parameters() if name.startswith("head")]
    assert module(tokens, positions, project=False)[1] is None


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_tokens_that_fill_up_a_sequence_change_nothing(positions):
    module, (tokens, places) = build(positions=positions).eval(), batch()
    valid = torch.arange(12).expand(3, -1) < torch.tensor([[12], [8], [5]])
    made, projections = module(tokens, places, valid)
    changed = torch.where(valid.unsqueeze(2), tokens, 9.0)
    others, other_projections = module(changed, places, valid)
    torch.testing.assert_close(others[valid], made[valid])
    torch.testing.assert_close(other_projections, projections)
    alone, _ = module(tokens[1:2, :8], places[1:2, :8], project=False)
    torch.testing.assert_close(alone[0], made[1, :8])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_changes_no_gradient(dropout):
    tokens, positions = batch()
    gradients = []
    for checkpointing in (False, True):
        module = build(checkpointing=checkpointing, dropout=dropout)
        torch.manual_seed(3)  # of dropout
        made, projections = module(tokens, positions)
        (made.square().mean() + projections.square().mean()).backward()
        gradients.append([parameter.grad for parameter in module.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_sinusoidal_positions_have_no_bound_and_tell_places_apart():
    module = build(positions="sinusoidal", width=64, heads=2)
    positions = torch.tensor([[[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [10**6, 99, 4096]]])
    embedded = module.positions(positions)[0]
    apart = torch.cdist(embedded, embedded) + torch.eye(5)
    assert embedded.isfinite().all() and apart.min() > 1e-3


def test_sinusoidal_positions_of_a_bf16_module_are_those_of_a_float32_one():
    """Else far tokens would have other positions in training than afterwards."""
    module = build(positions="sinusoidal", width=64, heads=2).positions
    positions = torch.tensor([[[39123, 20, 511], [39122, 20, 510]]])
    wanted = module(positions)
    found = module.to(torch.bfloat16)(positions)
    assert found.dtype == torch.bfloat16 and not list(module.buffers())
    torch.testing.assert_close(found.float(), wanted, rtol=0.02, atol=2e-3)


def test_initial_deviations_are_gpt_2_s():
    module = build(width=256, heads=4, depth=3)
    block = module.encoder.blocks[0]
    for layer, wanted in ((block.project, 0.02), (block.narrow, 0.02 / 6**0.5)):
        assert layer.weight.std().item() == pytest.approx(wanted, rel=0.02)
    assert not module.encoder.enter.bias.any()


def test_flops_are_those_of_the_matrices_and_of_attention():
    module, window = build(), 12
    products = 0
    for stack, num_in, num_out in ((module.encoder, 7, 5), (module.decoder, 5, 7)):
        products += (
            num_in * 16 + 16 * num_out + len(stack.blocks) * (12 * 16 * 16 + 2 * window * 16)
        )
    assert module.flops(window) == 3 * 2 * window * products


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 30, "heads": 4}, "width = 30 must be a multiple of heads = 4"),
        ({"max_positions": (3, 4)}, r"max_positions = \[3, 4\]: three numbers"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        TokenAutoencoderConfig(**settings)
