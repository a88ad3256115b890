"""A network for inference alone: weights folded once instead of in every forward, no parameters left to train."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .convolution import conv2d
from .ei import EIConv2d, EILayer, EIReadout, stabilise
from .networks.base import SpikingNet


class FoldedEI(nn.Module):
    """An E-I layer as [g_E (W_EE - W_EI W_IE) ; W_IE], W_EI g_I and b_E. Shapes as in the layer it came from."""

    @torch.no_grad()
    def __init__(self, layer: EILayer):
        super().__init__()
        joint, mix = layer.joint_weight()
        joint = torch.cat([joint[: layer.n_e] * layer.g_e[:, None], joint[layer.n_e :]])
        self.sizes = [layer.n_e, layer.n_i]
        self.convolves = isinstance(layer, EIConv2d)
        if isinstance(layer, EIConv2d):
            self.stride, self.padding = layer.stride, layer.padding
            joint = joint.view(-1, layer.n_in, layer.kernel_size, layer.kernel_size)
            mix = mix[:, :, None, None]
        self.register_buffer("weight", joint.contiguous(memory_format=torch.channels_last) if joint.dim() == 4 else joint)
        self.register_buffer("mix", mix.clone())
        self.register_buffer("b_e", layer.b_e.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        if not self.convolves:
            net, i_ie = F.linear(x, self.weight).split(self.sizes, 1)
            return net / stabilise(F.linear(i_ie, self.mix)) + self.b_e
        net, i_ie = conv2d(x, self.weight, self.stride, self.padding).split(self.sizes, 1)
        return net / stabilise(F.conv2d(i_ie, self.mix)) + self.b_e[:, None, None]


def fold(model: SpikingNet) -> SpikingNet:
    """A copy of model that computes the same logits, to rounding, with every E-I layer folded.

    BatchNorm baselines are copied as they are. The copy is in evaluation mode and takes no gradient.
    """
    folded = copy.deepcopy(model).eval()
    for module in list(folded.modules()):
        for name, child in module.named_children():
            if isinstance(child, EILayer):
                setattr(module, name, FoldedEI(child))
            elif isinstance(child, EIReadout):
                readout = nn.Linear(child.ee.weight.shape[1], child.n_e, bias=False, device="meta")
                readout.weight = nn.Parameter(child.signed_weight(child.w_ei()).detach())
                setattr(module, name, readout)
    return folded.requires_grad_(False)
