"""Networks of the zoo's shapes as users of other libraries write them, to be timed beside ours (`benchmark --peers`).

Convolution, batch normalisation and leaky integrate-and-fire neurons of the library itself, with the time constant, threshold
and soft reset of ours: they lack the inhibitory cells, a quarter of the operations. Their weights are random, which speed does
not depend on. The image is shown to the first layer at every step, as both libraries' tutorials do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..config import Config
from ..neuron import LIF
from ..shapes import MLP_WIDTHS, STEM, VGG_WIDTHS, resnet_blocks

Layer = Callable[[int, int, int, int], nn.Module]
"""Makes synapses and neurons: (inputs, outputs, kernel, stride); a kernel of 0 is a fully connected layer."""

TAU = LIF().tau


class Block(nn.Module):
    """A SEW block with "add"."""

    def __init__(self, body: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


def body(config: Config, layer: Layer, pool: Callable[[], nn.Module]) -> tuple[nn.Sequential, int]:
    """(all hidden layers of a network's shape, the width of the last)."""
    parts: list[nn.Module] = []
    model, (n, side, _) = config.model, config.input_size
    if model.family == "mlp":
        n = n * side * side
        for width in MLP_WIDTHS[model.depth]:
            parts.append(layer(n, width, 0, 1))
            n = width
    elif model.family == "vgg":
        for stage in VGG_WIDTHS[model.depth]:
            for width in stage:
                parts.append(layer(n, width, 3, 1))
                n = width
            parts.append(pool())
    else:
        parts.append(layer(n, STEM, 3, 1))
        for layers, shortcut in (block for stage in resnet_blocks(model.depth) for block in stage):
            parts.append(Block(nn.Sequential(*(layer(*conv) for conv in layers)), layer(*shortcut) if shortcut else nn.Identity()))
            n = layers[-1].n_out
    return nn.Sequential(*parts), n


class SpikingJelly(nn.Module):
    """Multi-step mode: all steps of a layer at once. Pixels ``[B, C, H, W]`` or frames ``[B, T, C, H, W]`` to logits."""

    def __init__(self, config: Config, time_steps: int):
        from spikingjelly.activation_based import functional, layer, neuron

        super().__init__()
        self.time_steps, self.flat, self._clear = time_steps, config.model.family == "mlp", functional.reset_net

        def make(n_in: int, n_out: int, kernel: int, stride: int) -> nn.Module:
            synapses = (nn.Linear(n_in, n_out) if not kernel else nn.Sequential(
                layer.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False, step_mode="m"),
                layer.BatchNorm2d(n_out, step_mode="m")))
            return nn.Sequential(synapses, neuron.LIFNode(TAU, decay_input=False, v_reset=None, step_mode="m"))

        self.body, width = body(config, make, lambda: layer.AvgPool2d(2, step_mode="m"))
        self.head = nn.Linear(width, config.options["num_classes"])

    def forward(self, x: Tensor) -> Tensor:
        self._clear(self)
        x = x.transpose(0, 1) if x.dim() == 5 else x[None].repeat(self.time_steps, *[1] * x.dim())
        x = self.body(x.flatten(2) if self.flat else x)
        return self.head(x if self.flat else x.mean((3, 4))).mean(0)


class SNNTorch(nn.Module):
    """One step after the other through the whole network. Shapes as above."""

    def __init__(self, config: Config, time_steps: int):
        import snntorch

        super().__init__()
        self.time_steps, self.flat = time_steps, config.model.family == "mlp"

        def make(n_in: int, n_out: int, kernel: int, stride: int) -> nn.Module:
            synapses = (nn.Linear(n_in, n_out) if not kernel else nn.Sequential(
                nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(n_out)))
            return nn.Sequential(synapses, snntorch.Leaky(1 - 1 / TAU, init_hidden=True))

        self.body, width = body(config, make, lambda: nn.AvgPool2d(2))
        self.head = nn.Linear(width, config.options["num_classes"])
        self.neurons = [m for m in self.body.modules() if isinstance(m, snntorch.Leaky)]

    def forward(self, x: Tensor) -> Tensor:
        for neuron in self.neurons:  # snntorch.utils.reset looks at the outermost layers alone
            neuron.reset_mem()
        logits = []
        for t in range(self.time_steps):
            now = x[:, t] if x.dim() == 5 else x
            now = self.body(now.flatten(1) if self.flat else now)
            logits.append(self.head(now if self.flat else now.mean((2, 3))))
        return torch.stack(logits).mean(0)


NETWORKS: dict[str, Callable[[Config, int], nn.Module]] = {"spikingjelly": SpikingJelly, "snntorch": SNNTorch}
