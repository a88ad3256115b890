"""The literal formulation of an E-I network: the paper's equations written down as they stand, and no faster.

Separate convolutions for I_EE and I_IE, two permuted matrix products with W_EI, the non-negativity clamp in every
forward, a data-dependent branch for the divisor, a Python loop over T in the neuron, the first layer computed T times.
It is what the benchmarks measure against; it shares its weights with the network that it was made from. It can be trained,
too: its gradients are the network's, but for the 1/d of W_EI, which a trainer divides by after backward.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ei import EIConv2d, EILayer, EIReadout
from ..networks import SpikingNet
from ..neuron import LIF, spike


class LiteralLayer(nn.Module):
    """An E-I layer, convolution or linear. Shapes as in the layer it came from."""

    def __init__(self, layer: EILayer):
        super().__init__()
        self.of = layer

    def drive(self, x: Tensor, weight: Tensor) -> Tensor:
        if isinstance(self.of, EIConv2d):
            return F.conv2d(x, weight, None, self.of.stride, self.of.padding)
        return F.linear(x, weight)

    def forward(self, x: Tensor) -> Tensor:
        of = self.of
        w_ee, w_ie, w_ei, g_i, g_e = (p.clamp(min=0) for p in (of.ee.weight, of.ie.weight, of.ei.weight, of.g_i, of.g_e))
        b_e: Tensor = of.b_e
        if x.dim() == 4:
            g_i, g_e, b_e = g_i[:, None, None], g_e[:, None, None], b_e[:, None, None]
        i_ee, i_ie = self.drive(x, w_ee), self.drive(x, w_ie)
        i_sub = across_channels(i_ie, w_ei)
        i_div = across_channels(g_i * i_ie, w_ei)
        silent = i_div == 0
        if silent.any():
            smallest = torch.where(silent, math.inf, i_div).flatten(1).amin(1)
            d = torch.where(silent, smallest.view(-1, *[1] * (i_div.dim() - 1)), i_div)
            i_div = i_div + (d - i_div).detach() if torch.is_grad_enabled() else d  # straight through
        return g_e * (i_ee - i_sub) / i_div + b_e


def across_channels(i: Tensor, w_ei: Tensor) -> Tensor:
    """W_EI applied at each position, as a matrix product over the last axis."""
    return (i.movedim(1, -1) @ w_ei.T).movedim(-1, 1).contiguous()


class LiteralReadout(nn.Module):
    def __init__(self, readout: EIReadout):
        super().__init__()
        self.of = readout

    def forward(self, x: Tensor) -> Tensor:
        w_ee, w_ie, w_ei = (s.weight.clamp(min=0) for s in (self.of.ee, self.of.ie, self.of.ei))
        return F.linear(x, w_ee) - F.linear(F.linear(x, w_ie), w_ei)


class LiteralLIF(nn.Module):
    def __init__(self, lif: LIF):
        super().__init__()
        self.of = lif

    def forward(self, current: Tensor, time_steps: int) -> Tensor:
        of, v, spikes = self.of, torch.zeros_like(current[0]), []
        for t in range(time_steps):
            v = v * (1 - 1 / of.tau) + current[t]
            s = spike(v - of.threshold, of.surrogate, of.alpha) if torch.is_grad_enabled() else (v >= of.threshold).to(v.dtype)
            v = of.after(v, s.detach())
            spikes.append(s)
        return torch.stack(spikes)


LITERAL: dict[type[nn.Module], Callable] = {EILayer: LiteralLayer, EIReadout: LiteralReadout, LIF: LiteralLIF}


class Literal(nn.Module):
    """model, an E-I network, in the literal formulation. Shape: as the model's forward."""

    def __init__(self, model: SpikingNet):
        super().__init__()
        self.net = copy.deepcopy(model, {id(p): p for p in model.parameters()}).eval()  # the memo keeps the parameters shared
        for module in list(self.net.modules()):
            for name, child in module.named_children():
                for kind, literal in LITERAL.items():
                    if isinstance(child, kind):
                        setattr(module, name, literal(child))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 4:
            x = x[:, None].expand(-1, self.net.time_steps, -1, -1, -1)
        steps = self.net.forward_steps(x)
        logits = self.net.head(self.net.pool(steps.flatten(0, 1)))
        return logits.unflatten(0, (self.net.time_steps, -1)).mean(0)
