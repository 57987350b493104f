"""Augmented images against crops and flips pixel by pixel, and colours against torchvision's."""

import pytest
import torch
from torchvision.transforms.v2 import functional

from dwf.datasets.dataset import Part
from dwf.zoo.cohorts.augment import Draws, augmented_batch, draw, jitter_colours, join


def stored(channels: int = 3, height: int = 6, width: int = 7) -> Part:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (30, channels, height, width), generator=rng).to(torch.uint8)
    return Part(images, torch.arange(30) % 4, index=torch.arange(5, 30))


def moved_by_hand(image: torch.Tensor, flip: bool, down: int, right: int) -> torch.Tensor:
    """Pixel by pixel: cut a part of the padded image, then mirror it."""
    cut = torch.zeros_like(image)
    _, height, width = image.shape
    for i in range(height):
        for j in range(width):
            if 0 <= i + down < height and 0 <= j + right < width:
                cut[:, i, j] = image[:, i + down, j + right]
    return cut.flip(2) if flip else cut


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_crop_and_flip_are_those_made_by_hand(channels, channels_last):
    part, positions = stored(channels), torch.randperm(25)[:12]
    draws = draw(
        torch.Generator().manual_seed(1), 12, flip=0.5, pad=2, jitter=0.0, jitter_probability=1.0
    )
    assert draws.flip.any() and not draws.flip.all() and draws.down.abs().max() == 2
    images, labels = augmented_batch(part, positions, draws=draws, channels_last=channels_last)
    for i, position in enumerate(positions.tolist()):
        assert labels[i] == part.labels[part.index[position]]
        original = part.images[part.index[position]]
        offsets = (-draws.right[i] if draws.flip[i] else draws.right[i]).item()
        flip = bool(draws.flip[i])
        # Mirrored coordinates: a part that lies to the right of the mirrored image.
        expected = moved_by_hand(original.flip(2) if flip else original, False, down=0, right=0)
        expected = moved_by_hand(expected, False, down=draws.down[i].item(), right=offsets)
        assert torch.equal(images[i], expected)
    if channels_last and channels > 1:
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_what_is_drawn_has_the_probabilities_asked_for():
    draws = draw(
        torch.Generator().manual_seed(0),
        20_000,
        flip=0.3,
        pad=2,
        jitter=0.4,
        jitter_probability=0.5,
    )
    assert draws.flip.float().mean().item() == pytest.approx(0.3, abs=0.02)
    for offsets in (draws.down, draws.right):
        shares = torch.bincount(offsets + 2, minlength=5) / 20_000
        torch.testing.assert_close(shares, torch.full((5,), 0.2), atol=0.015, rtol=0)
    changed = (draws.jitter != 1).all(0)
    assert changed.float().mean().item() == pytest.approx(0.5, abs=0.02)
    low, high = draws.jitter[:, changed].aminmax()
    assert low == pytest.approx(0.6, abs=0.01) and high == pytest.approx(1.4, abs=0.01)
    assert (
        draw(torch.Generator(), 5, flip=0.3, pad=0, jitter=0.0, jitter_probability=1.0).jitter
        is None
    )


def test_one_setting_changes_nothing_of_what_another_draws():
    first = draw(
        torch.Generator().manual_seed(3), 50, flip=0.3, pad=2, jitter=0.0, jitter_probability=1.0
    )
    other = draw(
        torch.Generator().manual_seed(3), 50, flip=0.3, pad=2, jitter=0.5, jitter_probability=0.7
    )
    assert torch.equal(first.flip, other.flip) and torch.equal(first.down, other.down)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_change_as_torchvision_changes_them(channels):
    images = stored(channels).images[:8].float()
    factors = 0.5 + torch.rand(3, 8, generator=torch.Generator().manual_seed(2))
    found = jitter_colours(images, factors)
    for i in range(8):
        brightness, contrast, saturation = factors[:, i].tolist()
        expected = functional.adjust_brightness(images[i] / 255, brightness)
        expected = functional.adjust_contrast(expected, contrast)
        expected = functional.adjust_saturation(expected, saturation)
        # torchvision takes 0.2989 of red, not 0.299.
        torch.testing.assert_close(found[i] / 255, expected, atol=2e-4, rtol=0)


def test_batches_joined_are_each_as_alone():
    part, draws = stored(), []
    for pad, jitter in ((2, 0.0), (1, 0.3)):
        draws.append(
            draw(
                torch.Generator().manual_seed(pad),
                6,
                flip=0.5,
                pad=pad,
                jitter=jitter,
                jitter_probability=1.0,
            )
        )
    both, _ = augmented_batch(part, torch.arange(12), draws=join(draws))
    for i, one in enumerate(draws):
        alone, _ = augmented_batch(part, torch.arange(6 * i, 6 * i + 6), draws=one)
        torch.testing.assert_close(both[6 * i : 6 * i + 6], alone.float())


def test_nothing_is_changed_where_nothing_is_drawn():
    part, still = stored(), torch.zeros(25, dtype=torch.int64)
    draws = Draws(still.bool(), still, right=still, jitter=None)
    images, _ = augmented_batch(part, torch.arange(25), draws=draws)
    assert torch.equal(images, part.images[5:])
