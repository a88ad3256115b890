"""Growing: a network begins as a trained shallower one, whose layers it has; those it has besides begin as relays.

A relay sends on the spikes that reach it, nearly all and at the same step, so that the grown network answers as the shallower one
does, at any depth, and every layer gets gradients from the first step on. Not the paper's.
"""

from __future__ import annotations

import math
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from ..ei import EIConv2d
from ..evaluating import evaluating, together
from ..networks import SpikingNet
from ..networks.cells import Spiking

ON, OFF = 2.0, 0.1  # thresholds: mean current of a relay's cell while its own input spikes, and while it does not
OWN = 2.0  # weight of a cell's own input, in root mean squares of what all its other synapses sum to
SPREAD = 0.1  # of the other synapses about their mean, as a part of what E-I Init draws: they tell the cells apart, and disturb little


@torch.no_grad()
def grow(model: SpikingNet, trained: SpikingNet, images: Tensor, seed: int) -> None:
    """Makes model, whose layers hold no weights yet, answer as trained does.

    Args:
        model: an E-I VGG or MLP that has, between two pools (in an MLP: of each width), at least as many layers as trained.
        images: pixels or frames, as the network takes them, enough to show each cell's mean current.
        seed: of the relays' synapses.
    Raises:
        ValueError: the two do not fit; model is then what it was.
    """
    own, theirs = _alike(model), _alike(trained)
    if [g[0].current.ee.weight.shape for g in own] != [g[0].current.ee.weight.shape for g in theirs]:
        raise ValueError("it has layers of other widths")
    if any(len(a) < len(b) for a, b in zip(own, theirs)):
        raise ValueError("it has more layers")
    for layers, sources in zip(own, theirs):
        for layer, source in zip(layers, sources):
            layer.load_state_dict(source.state_dict())
    if model.num_classes == trained.num_classes:
        model.head.load_state_dict(trained.head.state_dict())
    relays = [layer for layers, sources in zip(own, theirs) for layer in layers[len(sources):]]
    rng = np.random.default_rng(seed)
    drawing = together(layer.register_forward_pre_hook(lambda layer, args: make_relay(layer, args[0], rng)) for layer in relays)
    with model.unasked(), drawing, evaluating(model):
        model.forward_steps(images)


def _alike(model: SpikingNet) -> list[list[Spiking]]:
    """Its layers, those of one width and one size of map together, first to last. Raises ValueError."""
    stages = [getattr(stage, "layers", None) for stage in model.stages]
    if model.kind != "ei" or None in stages:
        raise ValueError("only E-I VGGs and MLPs are grown from others")
    if isinstance(stages[0][0].current, EIConv2d):
        return [list(layers) for layers in stages]
    return [list(run) for _, run in groupby((layers[0] for layers in stages), lambda layer: layer.current.n_e)]


@torch.no_grad()
def make_relay(relay: Spiking, x: Tensor, rng: np.random.Generator) -> None:
    """Each cell sends what its own input sends: of the same number, and of the kernel's middle.

    Excitation and inhibition are drawn by E-I Init and balanced, W_EE nearly uniform, so that what is left of the drive is the own
    input; g_E and b_E then place each cell's current at ON and OFF.

    Args:
        x: spikes, the layer's input, as many as it has cells.
    """
    layer, threshold = relay.current, relay.lif.threshold
    layer.initialize(x, rng)
    w = layer.ee.weight
    mean, cells = w.mean().item(), torch.arange(layer.n_e)
    w.mul_(SPREAD).add_((1 - SPREAD) * mean)
    w[(cells, cells, *(size // 2 for size in w.shape[2:]))] += OWN * mean * math.sqrt(layer.fan_in)
    current, on = (z.transpose(0, 1).flatten(1) for z in (layer.currents(x)["I"], (x > 0).float()))
    low = (current * (1 - on)).sum(1) / (1 - on).sum(1).clamp(min=1)
    gap = (current * on).sum(1) / on.sum(1).clamp(min=1) - low
    gap = torch.maximum(gap, gap.median() / 3)  # a cell whose input was silent, or never so
    layer.g_e.copy_((ON - OFF) * threshold / gap)
    layer.b_e.copy_(OFF * threshold - low * layer.g_e)
