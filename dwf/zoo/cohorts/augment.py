"""Change training images at random, many at once: crop, flip, brightness, contrast, saturation.

Crop and flip are one gather from the stored images, which takes the place of the gather that a
batch needs anyway; its result lies in memory with channels last, at no cost, where a network is
faster that way.

Shape suffixes: A images of a stored array, B images of a batch, C channels, H height, W width.
"""

from dataclasses import dataclass

import torch

from dwf.datasets.dataset import Part, luminance


@dataclass(frozen=True)
class Draws:
    """Random draws for the images of a batch; tensors of shape [B], on the CPU."""

    flip: torch.Tensor
    """Whether an image is mirrored, bool."""
    down: torch.Tensor
    """Pixels by which the part that is cut out lies below the image; negative: above. int64."""
    right: torch.Tensor
    """Pixels by which it lies to the right."""
    jitter: torch.Tensor | None
    """Factors of brightness, contrast and saturation, shape [3, B]; None: colours stay."""


def draw(
    stream: torch.Generator,
    count: int,
    *,
    flip: float,
    pad: int,
    jitter: float,
    jitter_probability: float,
) -> Draws:
    """Draw how images are changed.

    Args:
        stream: the numbers come from here, as many whatever is asked for.
        count: B.
        flip: probability of a flip.
        pad: black pixels put around an image before a part of its size is cut out.
        jitter: factors of colours are in 1 - this to 1 + this.
        jitter_probability: share of the images whose colours change.
    """
    uniform = torch.rand(7, count, generator=stream)
    down, right = (uniform[1:3] * (2 * pad + 1)).long().clamp_(max=2 * pad) - pad
    factors = 1 + jitter * (2 * uniform[4:] - 1)
    factors = torch.where(uniform[3] < jitter_probability, factors, 1.0)
    return Draws(uniform[0] < flip, down, right=right, jitter=factors if jitter else None)


def join(draws: list[Draws]) -> Draws:
    """Return draws of several batches as those of one."""
    if len(draws) == 1:
        return draws[0]
    colours = [d.jitter for d in draws]
    if any(c is not None for c in colours):
        still = [torch.ones(3, len(d.flip)) if d.jitter is None else d.jitter for d in draws]
    return Draws(
        torch.cat([d.flip for d in draws]),
        torch.cat([d.down for d in draws]),
        right=torch.cat([d.right for d in draws]),
        jitter=torch.cat(still, 1) if any(c is not None for c in colours) else None,
    )


def augmented_batch(
    part: Part, positions: torch.Tensor, *, draws: Draws, channels_last: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (images_BCHW, labels_B) of a part, changed as drawn.

    Args:
        part: images of shape [C, H, W]; may lie on a GPU.
        positions: in the part, int64 of shape [B], where the part lies.
        draws: of these B images.
        channels_last: whether the images lie in memory so.

    Returns:
        Images as stored (uint8), or float32 in the same range where colours were changed.
    """
    rows = part.index.index_select(0, positions)
    labels = part.labels.index_select(0, rows)
    images = _moved(part.images, rows, draws, channels_last)
    if draws.jitter is not None:
        changed = (draws.jitter != 1).any(0).nonzero().squeeze(1).to(images.device)
        factors_3B = draws.jitter.to(images.device)[:, changed]
        images = images.float()
        images[changed] = jitter_colours(images[changed], factors_3B)
    return images, labels


def _moved(
    images: torch.Tensor, rows: torch.Tensor, draws: Draws, channels_last: bool
) -> torch.Tensor:
    device, (channels, height, width) = images.device, images.shape[1:]
    down, right, flip = (d.to(device)[:, None] for d in (draws.down, draws.right, draws.flip))
    from_BH = torch.arange(height, device=device) + down
    along_W = torch.arange(width, device=device)
    from_BW = torch.where(flip, width - 1 - along_W, along_W) + right
    inside_BH, inside_BW = (
        from_BH.eq(from_BH.clamp(0, height - 1)),
        (from_BW.eq(from_BW.clamp(0, width - 1))),
    )
    from_BH, from_BW = from_BH.clamp(0, height - 1) * width, from_BW.clamp(0, width - 1)
    plane = height * width
    start_BC = rows[:, None] * (channels * plane) + plane * torch.arange(channels, device=device)
    if channels_last:
        place = (from_BH[:, :, None] + from_BW[:, None])[..., None] + start_BC[:, None, None]
        inside = (inside_BH[:, :, None] & inside_BW[:, None])[..., None]
    else:
        place = (from_BH[:, :, None] + from_BW[:, None])[:, None] + start_BC[..., None, None]
        inside = (inside_BH[:, :, None] & inside_BW[:, None])[:, None]
    taken = images.reshape(-1).index_select(0, place.reshape(-1)).view(place.shape)
    if draws.down.any() or draws.right.any():
        taken = taken.mul_(inside)
    return taken.permute(0, 3, 1, 2) if channels_last else taken


def jitter_colours(images_BCHW: torch.Tensor, factors_3B: torch.Tensor) -> torch.Tensor:
    """Return images with brightness, contrast and saturation changed, in that order.

    As torchvision's `adjust_brightness`, `adjust_contrast` and `adjust_saturation`, for pixels
    from 0 to 255. Images of one channel have no saturation.
    """
    brightness, contrast, saturation = factors_3B.view(3, -1, 1, 1, 1)
    images = (images_BCHW * brightness).clamp_(0, 255)
    grey = _grey(images).mean((1, 2, 3), keepdim=True)
    images = torch.lerp(grey, images, contrast).clamp_(0, 255)
    if images.shape[1] == 1:
        return images
    return torch.lerp(_grey(images), images, saturation).clamp_(0, 255)


def _grey(images_BCHW: torch.Tensor) -> torch.Tensor:
    return images_BCHW if images_BCHW.shape[1] == 1 else luminance(images_BCHW)
