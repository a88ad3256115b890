"""Fully connected networks of 2 to 16 layers for MNIST (paper Section 5)."""

from __future__ import annotations

from torch import Tensor, nn

from ..shapes import MLP_WIDTHS
from .base import SpikingNet, at_depth, split_time
from .cells import Cells


def numbers(x: Tensor, n: int) -> Tensor:
    """``[N, ...]`` as ``[N, n]``."""
    x = x.flatten(1)
    if x.shape[1] != n:
        raise ValueError(f"expected {n} numbers an image, channels times pixels, got {x.shape[1]}")
    return x


class Hidden(nn.Module):
    """One hidden layer. Shape: ``[steps*B, ...]`` in, flattened; spikes ``[T*B, width]`` out."""

    def __init__(self, cells: Cells, n_in: int, width: int):
        super().__init__()
        self.n_in = n_in
        self.layers = nn.ModuleList([cells.linear(n_in, width)])

    def forward(self, x: Tensor, time_steps: int, steps_in: int) -> Tensor:
        x = numbers(x, self.n_in)
        for layer in self.layers:
            x = layer(x, time_steps, steps_in)
        return x


class SpikingMLP(SpikingNet):
    """An MLP of spiking neurons; see :class:`SpikingNet` for the options, of which in_chans is 1 where nothing is said.

    Args:
        depth: 2, 4, 6, 8, 12 or 16 layers, the output layer among them.
        input_size: (height, width) of the image, which fixes the fan-in of the first layer.
    """

    def __init__(self, depth: int, kind: str = "ei", input_size: tuple[int, int] = (28, 28), **options):
        self.depth, self.input_size = depth, tuple(input_size)
        super().__init__(kind, **{"in_chans": 1, **options})
        self._fixed["input_size"] = self.input_size

    def _build(self, cells: Cells) -> tuple[nn.ModuleList, list[dict]]:
        widths = at_depth(MLP_WIDTHS, self.depth)
        pixels = self.in_chans * self.input_size[0] * self.input_size[1]
        stages = nn.ModuleList(Hidden(cells, a, b) for a, b in zip((pixels, *widths), widths))
        # Levels: the image, the flattened image, then the hidden layers' rates.
        self.input_levels, reduction = 2, self.input_size[0]
        info = [{"num_chs": self.in_chans, "reduction": 1, "module": ""}, {"num_chs": pixels, "reduction": reduction, "module": ""}]
        info += [{"num_chs": w, "reduction": reduction, "module": f"stages.{i}"} for i, w in enumerate(widths)]
        return stages, info

    def _input_taps(self, x: Tensor, steps: int) -> list[Tensor]:
        return [split_time(x, steps).mean(0), split_time(x.flatten(1), steps).mean(0)]
