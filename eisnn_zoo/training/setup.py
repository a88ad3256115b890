"""What a recipe asks for: the network, its optimizer, and the machine's settings."""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..catalog import MODELS
from ..ei import EILayer, EISynapses
from ..ei_init import initialize
from ..errors import UsageError
from ..evaluating import evaluating
from ..fusing import fused_on
from ..locating import Located, locate
from ..networks import SpikingNet, build
from ..neuron import LIF
from ..shapes import SMALLEST
from .data import Data, DataError
from .growing import grow
from .optim import EIMuon, ProjectedSGD
from .provenance import classes_are_others
from .recipe import Recipe


def fused_throughout(recipe: Recipe, device: torch.device) -> bool:
    """Whether all of the recipe's layers run in the fused kernels of :mod:`eisnn_zoo.fused`, which as CUDA graphs are about as fast as
    compiled ones (benchmarks/README.md)."""
    if MODELS[recipe.model].kind != "ei" or recipe.stabilisation != "adaptive":
        return False
    return device.type == "cuda" and fused_on(device)


def keep_memory() -> None:
    """Keeps glibc from giving large blocks back: faulting activations in again costs half of a CPU training step."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def flush_denormals() -> None:
    """Numbers below 1.2e-38 count as 0 on a CPU, from here on: a processor computes with them many times as slowly.

    A trained network's gradients have them: with published weights of VGG-8 they double the time of forward and backward
    (benchmarks/README.md). The threads that compute take this over from the one that starts them, so it is to come before.
    """
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # older versions of numpy would miss the smallest numbers, and warn, if they looked later
    torch.set_flush_denormal(True)


def faster_precision(device: torch.device) -> str:
    """bf16 where this device multiplies matrices faster in it: measured, since a processor without it is far slower."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    shortest = {torch.float32: math.inf, torch.bfloat16: math.inf}  # of products in turn: other work on this machine slows some of them
    for _ in range(6):
        for kind in shortest:
            a = torch.ones(512, 512, dtype=kind)
            start = time.perf_counter()
            a @ a
            shortest[kind] = min(shortest[kind], time.perf_counter() - start)
    return "bf16" if shortest[torch.bfloat16] < 0.8 * shortest[torch.float32] else "fp32"


def make_model(recipe: Recipe, data: Data, first: Tensor, draw: bool = True, located: Located | None = None) -> SpikingNet:
    """The recipe's network, initialised on its first training images, or trained before.

    Args:
        first: pixels or frames, as the network takes them.
        draw: False leaves E-I Init to another process, which sends its weights.
        located: the weights it starts from, where they are located already.
    Raises:
        DataError: images on which E-I Init is impossible.
    """
    torch.manual_seed(recipe.seed)
    located = located or (locate(recipe.weights) if recipe.weights else None)
    model = _pretrained(recipe, data, first, located) if located else _fresh(recipe, data, first)
    model.time_steps = recipe.final_steps
    if draw:
        try:
            if located is None:
                _initialize(recipe, model, first)
            elif classes_are_others(data, located) and model.kind == "ei":
                _initialize_head(recipe, model, first)
        except ValueError as error:
            raise DataError(f"E-I Init on the training images: {error}") from error
    if model.kind == "ei":
        model.mark_initialised()
    for module in model.modules():
        if isinstance(module, EISynapses):
            module.scale_w_ei_gradient = recipe.scale_w_ei_gradient
    if recipe.freeze:
        model.requires_grad_(False)
        model.head.requires_grad_(True)
    return model


def check_parts(recipe: Recipe, images: int, processes: int) -> None:
    """That BatchNorm gets as many images at a time as it needs: several numbers for each channel. Raises UsageError."""
    model = MODELS[recipe.model]
    for epoch in range(recipe.epochs) if model.kind != "ei" and not recipe.freeze else ():
        batch, size = recipe.at("batch_size", epoch), recipe.part_size(epoch, processes)
        # A map has several places, or comes T times; but for the last one of a ResNet's smallest images at T = 1.
        single = recipe.at("resolution", epoch) == SMALLEST["resnet"] and recipe.at("time_steps", epoch) == 1
        least = 2 if model.family == "mlp" or single else 1
        ends = (images % batch or batch, min(batch, images))
        for share in {n // processes for n in ends} | {-(-n // processes) for n in ends}:
            part = share and (share % size or size)
            if part < least:
                raise UsageError(f"batch_size = {batch}: of {images} images it leaves a part of {part} at the end of an epoch, "
                                 f"too few for the BatchNorm of {model.name}: choose another batch_size")


def _fresh(recipe: Recipe, data: Data, first: Tensor) -> SpikingNet:
    options: dict[str, Any] = {
        "num_classes": len(data.label_names), "in_chans": first.shape[-3], "event_input": first.dim() == 5,
        "stabilisation": recipe.stabilisation}
    if recipe.ei_ratio:
        options["ei_ratio"] = recipe.ei_ratio
    if MODELS[recipe.model].family == "mlp":
        options["input_size"] = tuple(first.shape[-2:])
    return build(recipe.model, **options)


def _pretrained(recipe: Recipe, data: Data, first: Tensor, located: Located) -> SpikingNet:
    from ..weights import load_network

    ours, theirs = MODELS[recipe.model], located.config.model
    if (ours.kind, ours.family) != (theirs.kind, theirs.family):
        raise UsageError(f"weights = {recipe.weights}: they are of {theirs.title}, and the recipe's model is {ours.title}")
    channels = data.train.x.shape[-3]
    if located.config.input_size[0] != channels:
        raise UsageError(f"weights = {recipe.weights}: they take {located.config.input_size[0]} channels, and the images have {channels}")
    side = recipe.side(recipe.epochs - 1, data.size)
    if theirs.family == "mlp" and located.config.input_size[1:] != (side, side):
        raise UsageError(f"weights = {recipe.weights}: they take images of {located.config.input_size[1]} x {located.config.input_size[2]} "
                         f"pixels, and these have {side} x {side}")
    model = load_network(located, stabilisation=recipe.stabilisation, global_pool="avg")
    if ours.depth != theirs.depth:
        deeper = build(recipe.model, **{**model.config, "time_steps": recipe.final_steps})
        try:
            grow(deeper, model, first, recipe.seed)
        except ValueError as error:
            raise UsageError(f"weights = {recipe.weights}: they are of {theirs.title}, of which {ours.title} cannot be grown: "
                             f"{error}") from error
        model = deeper
    if classes_are_others(data, located):
        model.reset_classifier(len(data.label_names))
    return model


def _initialize_head(recipe: Recipe, model: SpikingNet, first: Tensor) -> None:
    """E-I Init of a new output layer, on what the trained layers make of the first images."""
    with torch.no_grad(), evaluating(model):
        features = model.pool(model.forward_steps(first).flatten(0, 1))
        model.head.initialize(features, np.random.default_rng(recipe.seed))


def _initialize(recipe: Recipe, model: SpikingNet, first: Tensor) -> None:
    """E-I Init of all layers; or torch's default, for the ablation."""
    if recipe.init != "default":
        initialize(model, first, recipe.seed, standardise=recipe.init == "standardised")
    else:
        for module in model.modules():
            if isinstance(module, EISynapses):  # torch's default for a layer, its sign dropped: Dale's law and no more
                for synapses in (module.ee, module.ie, module.ei):
                    nn.init.kaiming_uniform_(synapses.weight.data, a=math.sqrt(5)).abs_()
            if isinstance(module, EILayer):
                nn.init.ones_(module.g_i)


def set_slope(model: SpikingNet, alpha: float) -> None:
    """The slope of every neuron's surrogate; 0: the network's own."""
    for module in model.modules():
        if isinstance(module, LIF):
            module.alpha = alpha or model.config["alpha"]


def make_optimizer(recipe: Recipe, model: SpikingNet, deflated: int) -> torch.optim.Optimizer:
    """The recipe's optimizer; deflated: number of iterations in its ``deflate_epochs``. On a GPU its step size lives there."""
    device, peak = next(model.parameters()).device, recipe.cycles[0][2]
    on_gpu = device.type == "cuda"
    lr = torch.tensor(peak, device=device) if on_gpu else peak
    if recipe.optimizer == "muon":
        return EIMuon(model, lr=lr, adaptive=recipe.adaptive, inhibitory=recipe.inhibitory, momentum=recipe.momentum,
                      weight_decay=recipe.weight_decay, deflate=deflated, bf16=recipe.precision == "bf16")
    return ProjectedSGD(model, lr=lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=on_gpu or None)
