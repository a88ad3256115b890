"""Parameters and multiply-accumulates of a model from its shape alone, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from .catalog import Model
from .shapes import EI_RATIO, MLP_WIDTHS, STEM, VGG_WIDTHS, resnet_blocks


@dataclass
class Count:
    """Totals of a network.

    Attributes:
        params: trainable parameters.
        first, rest, head: multiply-accumulates of one evaluation of the first layer, of all later hidden ones, and of the
            output layer. A static image's first layer is evaluated once, the later ones T times; frames evaluate both T
            times. The output layer is linear, so once, on the mean over time, is enough.
    """

    kind: str
    event: bool
    ei_ratio: int = EI_RATIO
    params: int = 0
    first: int = 0
    rest: int = 0
    head: int = 0

    def macs(self, time_steps: int) -> int:
        """Of one inference: W_EE - W_EI W_IE folded, W_IE, and the divisor's product."""
        return self._first(time_steps) + self.rest * time_steps + self.head

    def training_macs(self, time_steps: int) -> int:
        """Of forward and backward of one image: three times an inference, but the first layer's input needs no gradient."""
        return 3 * self.macs(time_steps) - self._first(time_steps)

    def _first(self, time_steps: int) -> int:
        return self.first * (time_steps if self.event else 1)

    def layer(self, n_in: int, n_out: int, kernel: int, positions: int) -> None:
        d, n_i = n_in * kernel * kernel, max(1, n_out // self.ei_ratio)
        if self.kind == "ei":
            self.params += (n_out + n_i) * d + n_out * n_i + n_i + 2 * n_out
            macs = ((n_out + n_i) * d + n_out * n_i) * positions
        else:
            self.params += n_out * d + 2 * n_out
            macs = n_out * d * positions
        if self.first:
            self.rest += macs
        else:
            self.first = macs

    def readout(self, n_in: int, classes: int) -> None:
        n_i = max(1, classes // self.ei_ratio)
        self.params += (classes + n_i) * n_in + classes * n_i if self.kind == "ei" else classes * n_in + classes
        self.head = classes * n_in


def count(model: Model, side: int = 0, **options) -> Count:
    """Of a catalog entry.

    Args:
        side: of its input in pixels, the model's own where 0.
        options: of the network, which override those that the name fixes; only what changes the count is read.
    """
    options = {**model.options, **options}
    total = Count(model.kind, bool(options.get("event_input")), options.get("ei_ratio", EI_RATIO))
    add = {"vgg": _vgg, "resnet": _resnet, "mlp": _mlp}[model.family]
    width = add(total, model.depth, options["in_chans"], side or model.input_size[1])
    total.readout(width, options["num_classes"])
    return total


def _vgg(total: Count, depth: int, channels: int, side: int) -> int:
    for stage in VGG_WIDTHS[depth]:
        for width in stage:
            total.layer(channels, width, 3, side * side)
            channels = width
        side //= 2
    return channels


def _resnet(total: Count, depth: int, channels: int, side: int) -> int:
    total.layer(channels, STEM, 3, side * side)
    width = STEM
    for layers, shortcut in (block for stage in resnet_blocks(depth) for block in stage):
        for n_in, width, kernel, stride in layers:
            side = -(-side // stride)
            total.layer(n_in, width, kernel, side * side)
        if shortcut:
            total.layer(shortcut.n_in, shortcut.n_out, shortcut.kernel, side * side)
    return width


def _mlp(total: Count, depth: int, channels: int, side: int) -> int:
    n = channels * side * side
    for width in MLP_WIDTHS[depth]:
        total.layer(n, width, 1, 1)
        n = width
    return n
