"""SEW-ResNet with "add": the residual sum is taken over spikes, out = LIF(...) + shortcut (paper Section 5).

3x3 stem of stride 1 and 64 channels, no max-pool. Where the shape changes the shortcut has its own 1x1 layer and neurons.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..shapes import RESNET_BLOCKS, STEM, Block, resnet_blocks
from .base import SpikingNet, at_depth
from .cells import Cells


class SEWBlock(nn.Module):
    """Two layers, or a bottleneck of three, and the shortcut.

    The layers run in this order, and E-I Init draws in it too: first, second, (third,) shortcut.
    """

    def __init__(self, cells: Cells, block: Block):
        super().__init__()
        self.layers = nn.ModuleList(cells.conv(*layer) for layer in block.layers)
        self.shortcut = nn.ModuleList([cells.conv(*block.shortcut)] if block.shortcut else [])

    def forward(self, x: Tensor, time_steps: int, steps_in: int) -> Tensor:
        out = x
        for layer in self.layers:
            out = layer(out, time_steps, steps_in)
        for layer in self.shortcut:
            x = layer(x, time_steps, steps_in)
        return out + x


class SEWStage(nn.Module):
    def __init__(self, cells: Cells, blocks: list[Block]):
        super().__init__()
        self.blocks = nn.ModuleList(SEWBlock(cells, block) for block in blocks)

    def forward(self, x: Tensor, time_steps: int, steps_in: int) -> Tensor:
        for block in self.blocks:
            x = block(x, time_steps, steps_in)
        return x


class SpikingResNet(SpikingNet):
    """SEW-ResNet-18, 34, 50, 101 or 152; see :class:`SpikingNet` for the options. Input at least 8 x 8."""

    def __init__(self, depth: int, kind: str = "ei", **options):
        self.depth = depth
        super().__init__(kind, **options)

    def _build(self, cells: Cells) -> tuple[nn.ModuleList, list[dict]]:
        at_depth(RESNET_BLOCKS, self.depth)  # an error that names those there are
        stages = nn.ModuleList([cells.conv(self.in_chans, STEM, 3)])
        info = [{"num_chs": STEM, "reduction": 1, "module": "stages.0"}]
        for i, blocks in enumerate(resnet_blocks(self.depth)):
            stages.append(SEWStage(cells, blocks))
            info.append({"num_chs": blocks[-1].layers[-1].n_out, "reduction": 2**i, "module": f"stages.{i + 1}"})
        return stages, info
