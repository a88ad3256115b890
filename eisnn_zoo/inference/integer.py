"""Convolution of spikes in integers: 8-bit weights, exact sums.

Spikes, their sums over a residual connection, and their means over 2x2 are multiples of 1/4, so four times them is a small
integer and nothing but the weights is rounded. Where no spike arrives the sum is exactly 0. oneDNN's kernel for it, which is
torch's on x86, uses the processor's 8-bit units: measured with those of AMX, 5 to 20 times as fast as float32.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn

STEP = 0.25  # what all activations are multiples of
MOST = 32  # and what they may be: processors without VNNI add products in pairs, 2 x 127 x MOST / STEP, in 16 bits


def available() -> bool:
    """Whether torch has the kernel on this machine."""
    if platform.machine().lower() not in ("x86_64", "amd64"):  # elsewhere it is there, and slow
        return False
    return hasattr(torch.ops.onednn, "qconv2d_pointwise") and "onednn" in torch.backends.quantized.supported_engines


def round_weights(w: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 in -127..127 of w's shape, float32 scales), one scale an output channel: ``w ~ scale * integers``."""
    scale = w.flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (w / scale.view(-1, *[1] * (w.dim() - 1))).round().to(torch.int8), scale.float()


class IntegerConv2d(nn.Module):
    """``F.conv2d`` of multiples of :data:`STEP` from 0 to :data:`MOST` with rounded weights; float32 in and out, channels last.

    Args:
        integers, scale: from :func:`round_weights`, ``[O, C, k, k]`` and ``[O]``.
    """

    integers: Tensor
    scale: Tensor

    def __init__(self, integers: Tensor, scale: Tensor, stride: int, padding: int):
        super().__init__()
        self.register_buffer("integers", integers)
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros(len(scale), dtype=torch.int64))
        self.stride, self.padding = [stride] * 2, [padding] * 2
        self._pack()

    def _pack(self) -> None:
        self._packed = torch.ops.onednn.qconv_prepack(self.integers, self.scale, STEP, 0, self.stride, self.padding, [1, 1], 1, None)

    def forward(self, x: Tensor) -> Tensor:
        counts = torch.mul(x, 1 / STEP).to(torch.uint8)
        return torch.ops.onednn.qconv2d_pointwise(counts, STEP, 0, self._packed, self.scale, self.zero, None, self.stride, self.padding,
                                                  [1, 1], 1, 1.0, 0, torch.float32, "none", [], "")

    def _load_from_state_dict(self, *args) -> None:
        super()._load_from_state_dict(*args)
        self._pack()

    def __reduce__(self) -> tuple:  # the packed weights are opaque, and can be neither copied nor pickled
        return IntegerConv2d, (self.integers, self.scale, self.stride[0], self.padding[0])
