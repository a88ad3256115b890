"""Widths and depths of the architectures, as numbers that both the networks and the listings read."""

from typing import NamedTuple

VGG_WIDTHS = {
    8: ((64,), (128,), (256,), (512,), (512,)),
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    16: ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
    19: ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
}
"""Output channels of the 3x3 convolutions between two pools, by depth."""

SMALLEST = {"vgg": 32, "resnet": 8, "mlp": 1}
"""Pixels a side of which their pools leave one, by family."""

EI_RATIO = 4
"""Excitatory cells per inhibitory cell, where nothing else is asked for."""

RESNET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Residual blocks in each stage, by depth; from 50 on they are bottlenecks of 4 times the width."""

RESNET_WIDTHS = (64, 128, 256, 512)

STEM = 64
"""Output channels of a ResNet's first 3x3 convolution."""

MLP_WIDTHS = {
    2: (500,),
    4: (500, 500, 300),
    6: (500, 500, 300, 300, 300),
    8: (500, 500, 300, 300, 300, 100, 100),
    12: (500,) * 4 + (300,) * 4 + (100,) * 3,
    16: (500,) * 5 + (300,) * 5 + (100,) * 5,
}
"""Hidden widths, by depth; the output layer is the last of the depth."""


class Conv(NamedTuple):
    """A convolution of a residual block, padded so that stride alone changes the size."""

    n_in: int
    n_out: int
    kernel: int
    stride: int = 1


class Block(NamedTuple):
    """Convolutions one after the other, and the shortcut's own where they change the shape."""

    layers: tuple[Conv, ...]
    shortcut: Conv | None


def resnet_blocks(depth: int) -> list[list[Block]]:
    """The blocks of each stage: two 3x3, or a bottleneck of 1x1, 3x3 and 1x1 to 4 times the width."""
    stages: list[list[Block]] = []
    n_in, bottleneck = STEM, depth >= 50
    for width, blocks in zip(RESNET_WIDTHS, RESNET_BLOCKS[depth]):
        stage: list[Block] = []
        for _ in range(blocks):
            n_out, stride = width * 4 if bottleneck else width, 2 if stages and not stage else 1
            layers = ((Conv(n_in, width, 1), Conv(width, width, 3, stride), Conv(width, n_out, 1)) if bottleneck
                      else (Conv(n_in, width, 3, stride), Conv(width, width, 3)))
            stage.append(Block(layers, Conv(n_in, n_out, 1, stride) if stride > 1 or n_in != n_out else None))
            n_in = n_out
        stages.append(stage)
    return stages
