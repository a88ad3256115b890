"""SEW-ResNet with "add": the residual sum is taken over spikes, out = LIF(...) + shortcut (paper Section 5).

3x3 stem of stride 1 and 64 channels, no max-pool. Where the shape changes the shortcut has its own 1x1 layer and neurons.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..shapes import RESNET_BLOCKS, RESNET_WIDTHS
from .base import SpikingNet, at_depth
from .cells import Cells


class SEWBlock(nn.Module):
    """Two 3x3 layers, or a bottleneck of 1x1, 3x3 and 1x1 to 4 times the width, and the shortcut.

    The layers run in this order, and E-I Init draws in it too: first, second, (third,) shortcut.
    """

    def __init__(self, cells: Cells, n_in: int, width: int, stride: int, bottleneck: bool):
        super().__init__()
        n_out = width * 4 if bottleneck else width
        if bottleneck:
            layers = [cells.conv(n_in, width, 1), cells.conv(width, width, 3, stride), cells.conv(width, n_out, 1)]
        else:
            layers = [cells.conv(n_in, width, 3, stride), cells.conv(width, width, 3)]
        self.layers = nn.ModuleList(layers)
        changes = stride != 1 or n_in != n_out
        self.shortcut = nn.ModuleList([cells.conv(n_in, n_out, 1, stride)] if changes else [])

    def forward(self, x: Tensor, time_steps: int, steps_in: int) -> Tensor:
        out = x
        for layer in self.layers:
            out = layer(out, time_steps, steps_in)
        for layer in self.shortcut:
            x = layer(x, time_steps, steps_in)
        return out + x


class SEWStage(nn.Module):
    def __init__(self, cells: Cells, n_in: int, width: int, stride: int, blocks: int, bottleneck: bool):
        super().__init__()
        n_out = width * 4 if bottleneck else width
        self.blocks = nn.ModuleList(
            SEWBlock(cells, n_in if i == 0 else n_out, width, stride if i == 0 else 1, bottleneck) for i in range(blocks))

    def forward(self, x: Tensor, time_steps: int, steps_in: int) -> Tensor:
        for block in self.blocks:
            x = block(x, time_steps, steps_in)
        return x


class SpikingResNet(SpikingNet):
    """SEW-ResNet-18, 34, 50, 101 or 152; see :class:`SpikingNet` for the options."""

    def __init__(self, depth: int, kind: str = "ei", **options):
        self.depth = depth
        super().__init__(kind, **options)

    def _build(self, cells: Cells) -> tuple[nn.ModuleList, list[dict]]:
        bottleneck = self.depth >= 50
        stages, n_in = nn.ModuleList([cells.conv(self.in_chans, 64, 3)]), 64
        info = [{"num_chs": 64, "reduction": 1, "module": "stages.0"}]
        for i, (width, blocks) in enumerate(zip(RESNET_WIDTHS, at_depth(RESNET_BLOCKS, self.depth))):
            stages.append(SEWStage(cells, n_in, width, 1 if i == 0 else 2, blocks, bottleneck))
            n_in = width * 4 if bottleneck else width
            info.append({"num_chs": n_in, "reduction": 2**i, "module": f"stages.{i + 1}"})
        return stages, info
