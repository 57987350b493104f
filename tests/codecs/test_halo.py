"""Windows with a halo keep every token once; a local mean equals that of the whole sequence."""

import pytest
import torch

from dwf.backbones.config import TokenAutoencoderConfig
from dwf.backbones.token_autoencoder import TokenAutoencoder
from dwf.codecs.windows.halo import cover, through_windows

SIZES = [(1, 0), (2, 0), (8, 0), (8, 3), (9, 4), (64, 16), (256, 64), (256, 12), (333, 166)]


@pytest.mark.parametrize(("window", "halo"), SIZES)
def test_every_token_is_kept_once_with_its_neighbours(window, halo):
    for num_tokens in range(1, 501):
        covers = cover(num_tokens, window, halo=halo)
        kept = [token for part in covers for token in range(part.first, part.stop)]
        assert kept == list(range(num_tokens))
        width = min(window, num_tokens)
        for part in covers:
            end = part.start + width
            assert part.start >= 0 and end <= num_tokens
            assert part.start == 0 or part.first - part.start >= halo
            assert end == num_tokens or end - part.stop >= halo


@pytest.mark.parametrize(("window", "halo"), SIZES)
def test_no_more_windows_than_needed(window, halo):
    for num_tokens in range(window + 1, 501):
        fewest = -(-(num_tokens - 2 * halo) // (window - 2 * halo))
        assert len(cover(num_tokens, window, halo=halo)) == fewest


@pytest.mark.parametrize("num_tokens", [1, 7, 8, 9, 20, 61])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_module_of_single_tokens_sees_no_windows(num_tokens, batch_size):
    config = TokenAutoencoderConfig(width=8, heads=1, depth=0, latent=3, positions="sinusoidal")
    module = TokenAutoencoder(config, 5, window=8)
    generator = torch.Generator().manual_seed(num_tokens)
    tokens = torch.randn(4, num_tokens, 5, generator=generator)
    positions = torch.randint(0, 50, (num_tokens, 3), generator=generator)
    out = torch.full((4, num_tokens, 3), torch.nan)
    with torch.no_grad():
        found = through_windows(
            module.encode,
            tokens,
            positions_T3=positions,
            out_NTL=out,
            window=8,
            halo=2,
            batch_size=batch_size,
        )
        whole = module.encode(tokens, positions.expand(4, -1, -1))
    torch.testing.assert_close(found, whole)


def test_kept_tokens_see_their_neighbours_and_all_windows_are_full():
    """A mean over 5 neighbours is that of the whole sequence where the halo is 2."""
    seen = []

    def mean_of_five(tokens_BWC, positions_BW3):
        seen.append(tuple(tokens_BWC.shape[:2]))
        padded = torch.nn.functional.pad(tokens_BWC, (0, 0, 2, 2))
        return padded.unfold(1, 5, 1).mean(-1)

    tokens = torch.randn(3, 30, 2, generator=torch.Generator().manual_seed(0))
    whole = mean_of_five(tokens, None)
    seen.clear()
    positions = torch.zeros(30, 3, dtype=torch.long)
    found = through_windows(
        mean_of_five,
        tokens,
        positions_T3=positions,
        out_NTL=torch.empty(3, 30, 2),
        window=8,
        halo=2,
        batch_size=4,
    )
    torch.testing.assert_close(found, whole)
    assert {width for _, width in seen} == {8} and max(num for num, _ in seen) == 4


def test_no_network_is_no_window():
    def refuse(*_):
        raise AssertionError

    empty = torch.empty(0, 30, 2)
    positions = torch.zeros(30, 3, dtype=torch.long)
    assert through_windows(
        refuse, empty, positions_T3=positions, out_NTL=empty, window=8, halo=2, batch_size=4
    ).shape == (0, 30, 2)
