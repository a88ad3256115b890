"""A network for inference alone: weights folded once instead of in every forward, no parameters left to train.

With the size of its images known, a folded network also takes the fastest form of each convolution for it, and works
through a batch in pieces whose activations stay in the processor's cache. Time and batch are merged in the leading axis.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ..compiling import compile_options, prepare_compiler
from ..convolution import apply_dense, dense_matrix, patches
from ..ei import PLAIN, EIConv2d, EILayer, EIReadout, EISynapses
from ..evaluating import together
from ..fusing import hooked, unhooked
from ..layout import as_map, in_memory_order
from ..networks.base import SpikingNet
from ..networks.cells import BNConv2d, BNLinear, Conv2d
from ..neuron import LIF
from .integer import MOST, IntegerConv2d, available, round_weights

PIECE = 2 * 2**20  # bytes of the largest layer's spikes at all steps: about a core's second-level cache


def divisor(i_div: Tensor) -> Tensor:
    """D as ``ei.stabilise`` gives it, bit for bit, in half the passes: I_div is never negative, so no smaller entry than
    the smallest non-zero one is there but zeros. Shape: ``[N, ...]``, each leading index a slice."""
    smallest = F.threshold(i_div, 0.0, math.inf).flatten(1).amin(1)
    return torch.maximum(i_div, smallest.view(-1, *[1] * (i_div.dim() - 1)))


class FoldedEI(nn.Module):
    """An E-I layer as [g_E (W_EE - W_EI W_IE) ; W_IE], W_EI g_I and b_E. Shapes as in the layer it came from.

    Args:
        size: (height, width) of the map it will see; None: plain convolution for any size.
    """

    weight: Tensor
    mix: Tensor
    b_e: Tensor
    matrix: Tensor

    @torch.no_grad()
    def __init__(self, layer: EILayer, size: tuple[int, int] | None = None):
        super().__init__()
        joint, mix = layer.joint_weight()
        joint = torch.cat([joint[: layer.n_e] * layer.g_e[:, None], joint[layer.n_e :]])
        self.sizes = [layer.n_e, layer.n_i]
        self.convolves = isinstance(layer, EIConv2d)
        self.size: tuple[int, int] | None = None
        if isinstance(layer, EIConv2d):
            self.stride, self.padding, kernel = layer.stride, layer.padding, layer.kernel_size
            joint = joint.view(-1, layer.n_in, kernel, kernel).contiguous(memory_format=torch.channels_last)
            if size and max(size) <= 2 and (kernel, self.stride, self.padding) == (3, 1, 1):
                self.size = size
                self.register_buffer("matrix", dense_matrix(joint, *size), persistent=False)
        self.register_buffer("weight", joint)
        self.register_buffer("mix", mix.clone())
        self.register_buffer("b_e", layer.b_e.detach().clone())
        self.stabilisation = layer.stabilisation
        self.sized = size is not None

    def _load_from_state_dict(self, *args) -> None:
        super()._load_from_state_dict(*args)
        if hasattr(self, "matrix"):
            self.matrix.copy_(dense_matrix(self.weight, *self.size))

    def synaptic(self, x: Tensor) -> Tensor:
        """g_E (I_EE - I_sub) and I_IE, channels last, ``[N, (H', W',) n_E + n_I]``."""
        if not self.convolves:
            return F.linear(x, self.weight)
        if self.size is not None and tuple(x.shape[2:]) == self.size:
            return in_memory_order(apply_dense(x, self.matrix))
        if self.sized and (self.weight.shape[2] == 1 or max(x.shape[2:]) <= 4 * self.stride):
            return in_memory_order(patches(x, self.weight, self.stride, self.padding))
        return in_memory_order(self.convolve(x))

    def convolve(self, x: Tensor) -> Tensor:
        """The same by a plain convolution, channels first. In the weight's type: half precision is enough for the product
        with spikes, which are exact in it, but not for what follows."""
        return F.conv2d(x.to(self.weight.dtype), self.weight, None, self.stride, self.padding).to(self.b_e.dtype)

    def forward(self, x: Tensor) -> Tensor:
        channels_first = self.convolves and not self.sized  # what exporters and other devices than CPUs like best
        b_e = self.b_e[:, None, None] if channels_first else self.b_e
        if channels_first:
            net, i_ie = self.convolve(x).split(self.sizes, 1)
            i_div = F.conv2d(i_ie, self.mix[:, :, None, None])
        else:
            net, i_ie = self.synaptic(x).split(self.sizes, -1)
            i_div = F.linear(i_ie, self.mix)
        d = i_div if self.stabilisation == "none" else divisor(i_div)
        current = torch.addcdiv(b_e, net, d)
        return current if channels_first else as_map(current)


class IntegerEI(FoldedEI):
    """The same layer with 8-bit weights, for inputs that are multiples of 1/4: spikes, their sums and means."""

    def __init__(self, layer: EIConv2d, size: tuple[int, int]):
        super().__init__(layer, size)
        integers, scale = round_weights(self.weight)
        self.plain = IntegerConv2d(integers, scale, self.stride, self.padding)
        self.dense = None
        if self.size is not None:
            every = dense_matrix(integers, *self.size)[:, :, None, None]
            self.dense = IntegerConv2d(every, scale.repeat(self.size[0] * self.size[1]), 1, 0)
            del self.matrix
        del self.weight

    def synaptic(self, x: Tensor) -> Tensor:
        if self.dense is not None and tuple(x.shape[2:]) == self.size:
            n, c, height, width = x.shape
            y = self.dense(in_memory_order(x).reshape(n, height * width * c, 1, 1))
            return y.view(n, height, width, y.shape[1] // (height * width))
        return in_memory_order(self.plain(x.contiguous(memory_format=torch.channels_last)))


class FoldedLIF(LIF):
    """The same neuron without a graph: it may overwrite the current, and writes spikes where they stay."""

    def forward(self, current: Tensor, time_steps: int) -> Tensor:
        if self.reset != "soft" or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(current, time_steps)
        held = self.held(current, time_steps)
        steps = [in_memory_order(c) for c in current]
        v = steps[0]
        spikes = v.new_empty(time_steps, *v.shape)
        for t in range(time_steps):
            if t > 0:
                now = steps[0 if held else t]
                v = torch.add(now, v, alpha=self.decay, out=v if held else now)
            torch.ge(v, self.threshold, out=spikes[t])
            if t + 1 < time_steps:
                v = torch.sub(v, spikes[t], alpha=self.threshold, out=None if held and t == 0 else v)
        return as_map(spikes) if v.dim() > 2 else spikes


class Pieces(nn.Module):
    """A stage that takes its batch a few images at a time.

    Args:
        images: as many at a time.
    """

    def __init__(self, stage: nn.Module, images: int):
        super().__init__()
        self.stage, self.images = stage, images

    def forward(self, x: Tensor, time_steps: int, steps_in: int) -> Tensor:
        n = x.shape[0] // steps_in
        if torch.compiler.is_compiling() or n <= self.images:
            return self.stage(x, time_steps, steps_in)
        parts = [part.flatten(0, 1) for part in in_memory_order(x).unflatten(0, (steps_in, -1)).split(self.images, 1)]
        done = [self.stage(as_map(part), time_steps, steps_in) for part in parts]
        return as_map(torch.cat([in_memory_order(d).unflatten(0, (time_steps, -1)) for d in done], 1).flatten(0, 1))


def fold(model: SpikingNet, size: tuple[int, int] | None = None, compile: bool = False, int8: bool = False) -> SpikingNet:
    """A copy of model that computes the same logits, to rounding, with every E-I layer folded.

    BatchNorm baselines have theirs folded into the weights where a size is given; else they keep their layers, with torch's own
    convolution. The copy is in evaluation mode and takes no gradient; run it under ``torch.inference_mode()`` or ``torch.no_grad()``.

    Args:
        size: (height, width) of the images to come, for speed on a CPU; other sizes remain possible.
        compile: compile each stage with torch.compile, at the first forward of each shape.
        int8: round the weights of E-I convolutions to 8 bits, except those of the first, which sees pixels; on a CPU, and where
            size is given (ValueError otherwise). See :mod:`~eisnn_zoo.inference.integer`.

    Layers and neurons of classes derived from ours, and those with hooks, stay as they are: what they changed is theirs. Neurons
    overwrite the currents they are given: a hook on the copy's own layers clones what it keeps.

    Raises:
        TypeError: model is no network of the zoo. ValueError: negative weights; a size that is no pair; int8 where it cannot be.
    """
    if not isinstance(model, SpikingNet):
        raise TypeError(f"only networks of the zoo are folded, not wrapped, got {type(model).__name__}")
    if size is not None and len(tuple(size) if isinstance(size, Iterable) else ()) != 2:
        raise ValueError(f"size is (height, width) of the images to come, got {size!r}")
    if any(not (p >= 0).all() for layer in model.modules() if isinstance(layer, EISynapses) for p in layer.nonnegative()):
        raise ValueError("negative weights, or NaN, which Dale's law forbids: call model.project_() after every step of the optimizer")
    folded = copy.deepcopy(model).eval()
    maps, bytes_of = _measure(folded, size) if size and next(model.parameters()).device.type == "cpu" else ({}, {})
    later = {m for m in folded.modules() if type(m) is EIConv2d} - {next(iter(maps), None)} if int8 else set()
    if later - maps.keys() or (int8 and not (later and available() and next(model.parameters()).dtype == torch.float32)):
        raise ValueError("8-bit weights are for float32 E-I convolutions on a CPU, by oneDNN on x86, and for images of a known size")
    if int8 and max(len(getattr(stage, "blocks", ())) for stage in folded.stages) >= MOST:  # each block adds a spike to its input
        raise ValueError(f"8-bit weights are exact for sums of up to {MOST} spikes, and residual sums of this network have more")
    for module in list(folded.modules()):
        for name, child in module.named_children():
            if hooked(child):
                continue
            if type(child) in PLAIN:
                setattr(module, name, IntegerEI(child, maps[child]) if child in later else FoldedEI(child, maps.get(child)))
            elif type(child) is EIReadout:
                readout = nn.Linear(child.ee.weight.shape[1], child.n_e, bias=False, device="meta")
                readout.weight = nn.Parameter(child.signed_weight(child.w_ei()).detach())
                setattr(module, name, readout)
            elif type(child) is BNConv2d and size and _plain(child, Conv2d, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(child.conv, child.bn))
            elif type(child) is BNLinear and size and _plain(child, nn.Linear, nn.BatchNorm1d):
                setattr(module, name, fuse_linear_bn_eval(child.linear, child.bn))
            elif type(child) is Conv2d and size is None:
                child.__class__ = nn.Conv2d  # what exporters like best
            elif type(child) is LIF and not hooked(getattr(module, "current", child)):  # who keeps a current keeps what is overwritten
                child.__class__ = FoldedLIF
    if compile:
        prepare_compiler()  # stages share their code
        for stage in folded.stages:
            stage.compile(**compile_options(next(model.parameters()).device.type))
    if bytes_of:
        folded.stages = nn.ModuleList(Pieces(stage, max(1, PIECE // bytes_of[stage])) for stage in folded.stages)
    return folded.eval().requires_grad_(False)  # the new parts too


def _plain(layer: nn.Sequential, *kinds: type[nn.Module]) -> bool:
    """Whether its parts are of these classes, in turn, and nobody's hook is on them."""
    return [type(part) for part in layer] == list(kinds) and not any(map(hooked, layer))


@torch.no_grad()
def _measure(model: SpikingNet, size: tuple[int, int]) -> tuple[dict[nn.Module, tuple[int, int]], dict[nn.Module, int]]:
    """From a forward of one blank image: the map each E-I convolution sees, and the most bytes of currents of each stage."""
    maps: dict[nn.Module, tuple[int, int]] = {}
    most: dict[nn.Module, int] = {}
    stage_of = {layer: stage for stage in model.stages for layer in stage.modules()}

    def note(layer: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        if isinstance(layer, LIF):
            stage = stage_of[layer]
            most[stage] = max(most.get(stage, 0), out.numel() * out.element_size())
        else:
            maps[layer] = (args[0].shape[2], args[0].shape[3])

    like = next(model.parameters())
    seen = (layer.register_forward_hook(note) for layer in stage_of if isinstance(layer, (EIConv2d, LIF)))
    with model.unasked(), unhooked(model), together(seen):
        model.forward_steps(torch.zeros(1, model.in_chans, *size, dtype=like.dtype, device=like.device))
    return maps, most
