"""Layers of neurons of each kind, excitatory-inhibitory, with batch normalisation, or without spikes, from one set of options."""

# No `from __future__ import annotations` here: fx writes the annotations of forward into the code it generates.
import torch
from torch import Tensor, nn

from ..catalog import KINDS, SPIKING
from ..convolution import conv2d
from ..ei import EIConv2d, EILinear, EIReadout, known_stabilisation
from ..fusing import fused_kernel
from ..layout import as_map
from ..neuron import LIF


class Conv2d(nn.Conv2d):
    """torch's, by the zoo's convolution, which is fast on small maps too. Symmetric padding; a bias is what a BatchNorm was folded into."""

    def forward(self, x: Tensor) -> Tensor:
        y = conv2d(x, self.weight, self.stride[0], int(self.padding[0]))
        bias = self.bias
        if bias is not None:
            y = y + bias.view(-1, 1, 1)
        return y


class BNConv2d(nn.Sequential):
    """The baseline's layer: convolution without bias, then batch normalisation."""

    def __init__(self, n_in: int, n_out: int, kernel_size: int, stride: int = 1, device=None, dtype=None):
        like = {"device": device, "dtype": dtype}
        super().__init__()
        self.conv = Conv2d(n_in, n_out, kernel_size, stride, kernel_size // 2, bias=False, **like)
        self.bn = nn.BatchNorm2d(n_out, **like)


class BNLinear(nn.Sequential):
    def __init__(self, n_in: int, n_out: int, device=None, dtype=None):
        like = {"device": device, "dtype": dtype}
        super().__init__()
        self.linear = nn.Linear(n_in, n_out, bias=False, **like)
        self.bn = nn.BatchNorm1d(n_out, **like)


class Spiking(nn.Module):
    """Synapses and the neurons they drive. Shape: ``[steps*B, ...]`` in, spikes ``[T*B, ...]`` out; steps is T or 1."""

    def __init__(self, current: nn.Module, lif: LIF):
        super().__init__()
        self.current, self.lif = current, lif

    def forward(self, x: Tensor, time_steps: int, steps_in: int) -> Tensor:
        if not torch.jit.is_scripting():
            kernel = fused_kernel(self.current, self.lif, x)
            if kernel is not None:
                current = self.current
                sums = current.sums if current.training else None
                return as_map(kernel(*current.drives(x), current.g_e, current.b_e, self.lif, steps_in, time_steps, sums))
        return self.lif(self.current(x).unflatten(0, (steps_in, -1)), time_steps).flatten(0, 1)


class Rectified(nn.Module):
    """The same without spikes, for comparison: positive currents are the output, and every step is computed alike. Shape: as of Spiking."""

    def __init__(self, current: nn.Module):
        super().__init__()
        self.current = current

    def forward(self, x: Tensor, time_steps: int, steps_in: int) -> Tensor:
        y = torch.relu(self.current(x))
        return y if steps_in == time_steps else torch.cat([y] * time_steps)


LAYERS = (Spiking, Rectified)
"""Every kind of layer, each with its synapses as ``current``."""


class Cells:
    """Makes layers of one kind with one set of options, so that each architecture is written once.

    Args:
        kind: "ei", "bn", or "ann": as bn, with rectified currents in place of spikes.
        ei_ratio: excitatory cells per inhibitory cell.
        stabilisation: of the division, see :func:`~eisnn_zoo.ei.stabilise`.
        neuron: arguments of :class:`~eisnn_zoo.neuron.LIF`.
    """

    def __init__(self, kind: str, ei_ratio: int, stabilisation: str = "adaptive", device=None, dtype=None, **neuron):
        if kind not in KINDS:
            raise ValueError(f"unknown kind of network {kind!r}; choose one of {', '.join(KINDS)}")
        self.kind, self.neuron = kind, neuron
        self.like = {"device": device, "dtype": dtype}
        self.readout_options = {"ei_ratio": ei_ratio, **self.like}
        self.ei = {**self.readout_options, "stabilisation": known_stabilisation(stabilisation)}

    def conv(self, n_in: int, n_out: int, kernel_size: int, stride: int = 1) -> nn.Module:
        return self._driven(EIConv2d(n_in, n_out, kernel_size, stride, **self.ei) if self.kind == "ei"
                            else BNConv2d(n_in, n_out, kernel_size, stride, **self.like))

    def linear(self, n_in: int, n_out: int) -> nn.Module:
        return self._driven(EILinear(n_in, n_out, **self.ei) if self.kind == "ei" else BNLinear(n_in, n_out, **self.like))

    def _driven(self, current: nn.Module) -> nn.Module:
        return Spiking(current, LIF(**self.neuron)) if self.kind in SPIKING else Rectified(current)

    def readout(self, n_in: int, classes: int) -> nn.Module:
        return EIReadout(n_in, classes, **self.readout_options) if self.kind == "ei" else nn.Linear(n_in, classes, **self.like)
