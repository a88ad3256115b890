"""VGG without biases: 3x3 convolutions, and 2x2 average pools after the neurons (paper Section 5)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..shapes import VGG_WIDTHS
from .base import SpikingNet, at_depth
from .cells import Cells


def halve(x: Tensor, training: bool) -> Tensor:
    """``avg_pool2d(x, 2)``; in training written as a mean over views. Shape: ``[N, C, H, W]`` to ``[N, C, H//2, W//2]``.

    torch.compile writes the gradient of such a mean as a plain repetition, along memory; that of the pool takes one number at a
    time, an eighth of a training step of VGG-8 at T = 1 on a processor.
    """
    if min(x.shape[2:]) < 2:  # TorchScript knows no shapes.SMALLEST
        raise ValueError(f"a map of {x.shape[2]} x {x.shape[3]} cannot be halved: VGG takes images from 32 x 32 pixels up")
    if not training:
        return F.avg_pool2d(x, 2)
    x = x.permute(0, 2, 3, 1)  # in memory order
    n, height, width, channels = x.shape[0], x.shape[1] // 2, x.shape[2] // 2, x.shape[3]
    pairs = x[:, : 2 * height, : 2 * width].reshape(n, height, 2, width, 2, channels)
    return pairs.mean([2, 4]).permute(0, 3, 1, 2)


class VGGStage(nn.Module):
    """Some convolutions of neurons, then the pool."""

    def __init__(self, cells: Cells, n_in: int, widths: tuple[int, ...]):
        super().__init__()
        self.layers = nn.ModuleList(cells.conv(a, b, 3) for a, b in zip((n_in, *widths), widths))

    def forward(self, x: Tensor, time_steps: int, steps_in: int) -> Tensor:
        for layer in self.layers:
            x = layer(x, time_steps, steps_in)
            steps_in = time_steps
        return halve(x, self.training)


class SpikingVGG(SpikingNet):
    """VGG-8, 11, 16 or 19 of spiking neurons; see :class:`SpikingNet` for the options. Input at least 32 x 32."""

    pooled = 4

    def __init__(self, depth: int, kind: str = "ei", **options):
        self.depth = depth
        super().__init__(kind, **options)

    def _build(self, cells: Cells) -> tuple[nn.ModuleList, list[dict]]:
        widths = at_depth(VGG_WIDTHS, self.depth)
        inputs = (self.in_chans, *(w[-1] for w in widths))
        stages = nn.ModuleList(VGGStage(cells, n_in, w) for n_in, w in zip(inputs, widths))
        return stages, [{"num_chs": w[-1], "reduction": 2 ** (i + 1), "module": f"stages.{i}"} for i, w in enumerate(widths)]
