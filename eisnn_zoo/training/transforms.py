"""Changes of a batch of images or of recordings, each element drawn for itself.

Draws are made on the CPU, from the generator given, and travel to the device of the batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# ---- static images ---------------------------------------------------------------------------------------------------


def crop(x: Tensor, rng: torch.Generator) -> Tensor:
    """Random crop to the image's own size after zero padding by 4 pixels. Shape: uint8 ``[B, C, H, W]``."""
    b, _, h, w = x.shape
    padded = F.pad(x, [4] * 4)
    dy, dx = (beside(x, torch.randint(9, (b, 1), generator=rng)) for _ in range(2))
    rows = (torch.arange(h, device=x.device) + dy)[:, None, :, None]
    columns = (torch.arange(w, device=x.device) + dx)[:, None, None, :]
    image, channel = torch.arange(b, device=x.device), torch.arange(x.shape[1], device=x.device)
    return padded[image[:, None, None, None], channel[:, None, None], rows, columns]


def flip(x: Tensor, rng: torch.Generator) -> Tensor:
    """Mirrored left to right with probability 0.5."""
    chosen = beside(x, torch.rand(x.shape[0], generator=rng) < 0.5)
    return torch.where(each(chosen, x), x.flip(-1), x)


def cutout(x: Tensor, rng: torch.Generator) -> Tensor:
    """With probability 0.5 a random box painted (c, 0, 0), c uniform in 0..255, as the paper's recipe does: 0.02 to 0.4 of the image,
    height over width 0.4 to 2.5, both drawn uniformly."""
    b, _, h, w = x.shape
    u = torch.rand(6, b, generator=rng, dtype=torch.float64)
    share, ratio = 0.02 + u[0] * (0.4 - 0.02), 0.4 + u[1] * (2.5 - 0.4)
    height = (share * ratio * h * w).sqrt().floor().clamp(max=h)
    width = (share / ratio * h * w).sqrt().floor().clamp(max=w)
    top, left = (u[2] * (h - height + 1)).floor(), (u[3] * (w - width + 1)).floor()
    inside = box(*beside(x, torch.stack([top, left, height * (u[4] < 0.5), width])), h, w)
    paint = torch.zeros(b, x.shape[1])
    paint[:, 0] = (u[5] * 256).floor()
    return torch.where(inside[:, None], beside(x, paint.to(x.dtype))[:, :, None, None], x)


def crop_boxes(b: int, h: int, w: int, rng: torch.Generator, scale: tuple[float, float]) -> Tensor:
    """Boxes of a random resized crop, ``[b, 4]``: top, left, height, width.

    Share of the area uniform in scale, aspect log-uniform in 3/4..4/3, ten tries to fit, then the whole image: of square
    images, as torchvision draws them.
    """
    u = torch.rand(4, 10, b, generator=rng, dtype=torch.float64)
    area = h * w * (scale[0] + u[0] * (scale[1] - scale[0]))
    aspect = torch.exp(math.log(3 / 4) + u[1] * (math.log(4 / 3) - math.log(3 / 4)))
    width, height = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (width > 0) & (width <= w) & (height > 0) & (height <= h)
    top, left = (u[2] * (h - height + 1)).floor(), (u[3] * (w - width + 1)).floor()
    tries = torch.stack([top, left, height, width], -1)  # [10, b, 4]
    first = fits.int().argmax(0)
    chosen = tries[first, torch.arange(b)]
    return torch.where(fits.any(0)[:, None], chosen, torch.tensor([0.0, 0.0, h, w], dtype=torch.float64)).long()


def resize_weights(start: Tensor, length: Tensor, n: int, size: int) -> Tensor:
    """Bilinear resizing with antialiasing as a matrix: row i holds the weights of the n input pixels in output pixel i.

    Args:
        start, length: ``[B]``, the part of the n pixels that is resized.
    Returns:
        float32 ``[B, size, n]``.
    """
    start, length = start.double()[:, None, None], length.double()[:, None, None]
    scale = length / size
    reach = scale.clamp(min=1)
    middle = start + (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    pixel = torch.arange(n, device=start.device)
    weights = (1 - ((pixel + 0.5 - middle) / reach).abs()).clamp(min=0)
    weights = weights * ((pixel >= start) & (pixel < start + length))
    return (weights / weights.sum(-1, keepdim=True)).float()


def resize(x: Tensor, size: int, boxes: Tensor | None = None) -> Tensor:
    """Bilinear, antialiased resize of each image's box (None: all of it), in float; ``[B, ..., H, W]``."""
    b, h, w = x.shape[0], x.shape[-2], x.shape[-1]
    boxes = torch.tensor([[0, 0, h, w]]) if boxes is None else boxes
    boxes = beside(x, boxes).expand(b, 4)
    rows = resize_weights(boxes[:, 0], boxes[:, 2], h, size)
    columns = resize_weights(boxes[:, 1], boxes[:, 3], w, size)
    return (rows[:, None] @ x.float().flatten(1, -3) @ columns[:, None].mT).view(*x.shape[:-2], size, size)


def color_jitter(x: Tensor, rng: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation by a factor within 1 +- 0.4, hue turned by up to a tenth of the circle, in random order.

    Shape: float ``[B, 3, H, W]`` in 0..255.
    """
    b = x.shape[0]
    factor = 0.6 + 0.8 * torch.rand(3, b, generator=rng)
    turn = 0.1 * (2 * torch.rand(b, generator=rng) - 1)
    order = beside(x, torch.rand(4, b, generator=rng).argsort(0))
    factor, turn = beside(x, factor)[..., None, None, None], beside(x, turn)[:, None, None]
    grey = torch.tensor([0.299, 0.587, 0.114], device=x.device)[:, None, None]

    def blended(a: Tensor, other: Tensor | float, f: Tensor) -> Tensor:
        return (f * a + (1 - f) * other).clamp(0, 255)

    for place in order:
        luma = (x * grey).sum(1, keepdim=True)
        changed = (blended(x, 0.0, factor[0]), blended(x, luma.mean((1, 2, 3), keepdim=True), factor[1]),
                   blended(x, luma, factor[2]), turn_hue(x, turn))
        x = sum(torch.where(each(place == i, x), new, 0.0) for i, new in enumerate(changed))
    return x


def turn_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Hue turned by a part of the full circle, through HSV; x ``[B, 3, H, W]`` in 0..255, turn ``[B, 1, 1]``."""
    r, g, b = x.unbind(1)
    top, c = x.amax(1), x.amax(1) - x.amin(1)
    safe = torch.where(c == 0, 1.0, c)
    h = torch.where(top == r, (g - b) / safe, torch.where(top == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    h = h + 6 * turn
    parts = [(n + h) % 6 for n in (5.0, 3.0, 1.0)]
    return torch.stack([top - c * torch.minimum(k, 4 - k).clamp(0, 1) for k in parts], 1)


# ---- events ----------------------------------------------------------------------------------------------------------


def crop_nearest(x: Tensor, boxes: Tensor) -> Tensor:
    """Each recording's box, enlarged to the full size by repeating pixels; ``[B, T, C, H, W]``."""
    b, t, c, h, w = x.shape
    top, left, height, width = beside(x, boxes).T[..., None]
    rows = top + (torch.arange(h, device=x.device) * height) // h
    columns = left + (torch.arange(w, device=x.device) * width) // w
    index = (rows[:, :, None] * w + columns[:, None, :]).view(b, 1, 1, -1).expand(b, t, c, -1)
    return x.flatten(3).gather(3, index).view(b, t, c, h, w)


def roll(x: Tensor, rng: torch.Generator, most: int = 5) -> Tensor:
    """Rolled around by up to 5 pixels along each axis."""
    h, w = x.shape[-2:]
    dy, dx = (beside(x, torch.randint(-most, most + 1, (x.shape[0], 1), generator=rng)) for _ in range(2))
    rows, columns = (torch.arange(h, device=x.device) - dy) % h, (torch.arange(w, device=x.device) - dx) % w
    index = (rows[:, :, None] * w + columns[:, None, :]).view(-1, 1, 1, h * w).expand(*x.shape[:3], -1)
    return x.flatten(3).gather(3, index).view_as(x)


def rotate(x: Tensor, rng: torch.Generator) -> Tensor:
    """Turned about the middle by up to 30 degrees, nearest pixel, zeros from outside."""
    b, t, c, h, w = x.shape
    angle = beside(x, 30 * (2 * torch.rand(b, generator=rng) - 1)) * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.stack([torch.stack([cos, -sin * h / w, 0 * cos], -1), torch.stack([sin * w / h, cos, 0 * cos], -1)], 1)
    grid = F.affine_grid(matrix, [b, t * c, h, w], align_corners=False)
    return F.grid_sample(x.float().flatten(1, 2), grid, "nearest", "zeros", align_corners=False).view(b, t, c, h, w)


def cut_square(x: Tensor, rng: torch.Generator) -> Tensor:
    """A square of 16 pixels around a random one set to 0, in every frame."""
    b, h, w = x.shape[0], x.shape[-2], x.shape[-1]
    side, middle = 16, torch.rand(2, b, generator=rng)
    top, left = (middle[0] * h).floor() - side // 2, (middle[1] * w).floor() - side // 2
    sides = torch.full((b,), side)
    return x.masked_fill(box(*beside(x, torch.stack([top, left, sides, sides])), h, w)[:, None, None], 0)


# ---- common ----------------------------------------------------------------------------------------------------------


def beside(x: Tensor, drawn: Tensor) -> Tensor:
    """What was drawn, on the device of x, without waiting for that device to finish what it does."""
    return drawn.to(x.device, non_blocking=True)


def each(flags: Tensor, x: Tensor) -> Tensor:
    """Flags ``[B]`` in a shape that broadcasts over x."""
    return flags.view(-1, *[1] * (x.dim() - 1))


def box(top: Tensor, left: Tensor, height: Tensor, width: Tensor, h: int, w: int) -> Tensor:
    """Which of the h x w pixels lie in each box, ``[B, h, w]``."""
    ys, xs = torch.arange(h, device=top.device), torch.arange(w, device=top.device)
    return (((ys >= top[:, None]) & (ys < (top + height)[:, None]))[:, :, None]
            & ((xs >= left[:, None]) & (xs < (left + width)[:, None]))[:, None, :])
