"""3x3 convolution of small maps with a quarter of the multiplications: minimal filtering (Winograd, Cook-Toom).

Along one axis, m outputs of a 3-tap filter g need only m + 2 products: y = A ((G g) * (B x)). Along both axes that is 36
products for 16 outputs instead of 144, and each of the 36 is a plain matrix product over channels, for which every
library is fast. G g is computed once, in float64, when a network is folded. B x and A y are small matrix products too.

Their cost grows with the side of the map while the gain does not: up to 16 pixels a side it pays, at 32 it no longer
does (benchmarks/README.md has the times). The interpolation points are chosen for accuracy: the error is about 4 times
that of a direct sum in float32, where the usual points (0, 1, -1, 2, -2) make it 9 times. A spike train as input is exact.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

LARGEST_SIDE = 16
POINTS = (0.0, 0.625, -0.625, 1.5, -1.5)
TILE = len(POINTS) - 1  # outputs of one tile; the point at infinity makes one product more than there are points

# On a side of 1 or 2 nothing but zeros surrounds the map, and 3 products give both outputs: with filter (a, b, c),
# b (x0 + x1) + (c - b) x1 = b x0 + c x1 and b (x0 + x1) + (a - b) x0 = a x0 + b x1.
_PAIR = (((1.0, 1.0, 0.0), (1.0, 0.0, 1.0)), ((1.0, 1.0), (0.0, 1.0), (1.0, 0.0)),
         ((0.0, 1.0, 0.0), (0.0, -1.0, 1.0), (1.0, -1.0, 0.0)))


@cache
def transforms(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """(A, B, G) for one axis of a map with zero padding of 1: ``[side, r * tiles]``, ``[r * tiles, side]``, ``[r, 3]``.

    The r products of a tile are the slow axis and the tiles the fast one, so that equal products of all tiles are neighbours.
    float64.
    """
    if side <= 2:
        a, b, g = (torch.tensor(m, dtype=torch.float64) for m in _PAIR)
        return a[:side], b[:, :side], g
    r = TILE + 2
    a, b, g = torch.zeros(TILE, r), torch.zeros(r, r), torch.zeros(r, 3)
    a, b, g = a.double(), b.double(), g.double()
    for j, p in enumerate(POINTS):
        others = [q for q in POINTS if q != p]
        norm = 1.0
        for q in others:
            norm *= p - q
        a[:, j] = torch.tensor([p**i for i in range(TILE)])
        g[j] = torch.tensor([p**i / norm for i in range(3)])
        b[j, : r - 1] = _polynomial(others)
    a[-1, -1] = g[-1, -1] = 1.0
    b[-1] = _polynomial(list(POINTS))
    tiles = -(-side // TILE)
    whole_a, whole_b = a.new_zeros(tiles * TILE, r, tiles), b.new_zeros(r, tiles, tiles * TILE + 2)
    for t in range(tiles):
        whole_a[t * TILE : (t + 1) * TILE, :, t] = a
        whole_b[:, t, t * TILE : t * TILE + r] = b
    # The outermost columns of B meet the zero padding; what lies past the map is not computed.
    return whole_a.flatten(1)[:side], whole_b.flatten(0, 1)[:, 1 : side + 1], g


def _polynomial(roots: list[float]) -> Tensor:
    """Coefficients of the product of (x - root), lowest power first."""
    c = torch.ones(1, dtype=torch.float64)
    for root in roots:
        c = torch.cat([c.new_zeros(1), c]) - root * torch.cat([c, c.new_zeros(1)])
    return c


class Filtering(nn.Module):
    """A 3x3 kernel, stride 1, padding 1, for maps of one size.

    Args:
        weight: ``[O, C, 3, 3]``.
        size: (height, width) of the map.

    Shape: ``[N, H, W, C]`` in, ``[N, H, W, O]`` out.
    """

    @torch.no_grad()
    def __init__(self, weight: Tensor, size: tuple[int, int]):
        super().__init__()
        like = {"device": weight.device, "dtype": weight.dtype}
        (a_h, b_h, g_h), (a_w, b_w, g_w) = transforms(size[0]), transforms(size[1])
        products = torch.einsum("ai,bj,ocij->abco", g_h, g_w, weight.double().cpu()).flatten(0, 1)
        self.size, self.r = size, (g_h.shape[0], g_w.shape[0])
        self.tiles = (b_h.shape[0] // self.r[0], b_w.shape[0] // self.r[1])
        for name, tensor in (("a_h", a_h), ("b_h", b_h), ("a_w", a_w), ("b_w", b_w), ("products", products)):
            self.register_buffer(name, tensor.to(**like).contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, (h, w), (r, s), (t, u) = x.shape[0], self.size, self.r, self.tiles
        c, o = self.products.shape[1:]
        x = torch.matmul(self.b_h, x.reshape(n, h, w * c))
        x = torch.matmul(self.b_w, x.view(n * r * t, w, c))
        x = x.view(n, r, t, s, u, c).permute(1, 3, 0, 2, 4, 5).reshape(r * s, n * t * u, c)
        y = torch.bmm(x, self.products)
        y = y.view(r, s, n, t, u, o).permute(2, 0, 3, 1, 4, 5).reshape(n * r * t, s * u, o)
        y = torch.matmul(self.a_w, y).view(n, r * t, w * o)
        return torch.matmul(self.a_h, y).view(n, h, w, o)
