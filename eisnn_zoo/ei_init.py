"""E-I Init of a whole network, on one batch (paper Section 4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .ei import EILayer, EISynapses
from .evaluating import evaluating, together
from .precision import full_types

if TYPE_CHECKING:
    from .networks.base import SpikingNet


@torch.no_grad()
def initialize(model: SpikingNet, batch: Tensor, seed: int, standardise: bool = False) -> None:
    """Layer by layer: each E-I layer is drawn from the statistics of what the initialised layers before it send.

    One numpy Generator draws for all layers, in the order in which they run, so a seed means the same weights as in the
    paper's release, on any device and under autocast. A network without E-I layers (a BatchNorm baseline) is left as it is.

    Args:
        model: any network of the zoo.
        batch: images ``[B, C, H, W]`` in [0, 1], or frames ``[B, T, C, H, W]``; enough of them to show the variance.
        seed: of the draws.
        standardise: not the paper's: after each layer's draw g_E and b_E are set so that each cell's current over this batch has
            mean 0 and variance 1.

    Raises:
        TypeError: model is no network of the zoo, or wrapped (DistributedDataParallel: give its ``module``).
        InputError: negative input, or a layer whose input does not vary; model is then what it was, as after any other error.
    """
    import numpy as np

    if not hasattr(model, "forward_steps"):
        raise TypeError(f"E-I Init of a whole network takes one of the zoo, not wrapped, got {type(model).__name__}; own layers "
                        "are drawn one by one, in the order in which they run: layer.initialize(its_input, numpy.random.default_rng(seed))")
    if model.kind != "ei":
        return
    rng = np.random.default_rng(seed)
    if batch.dim() == 4:  # the statistics are those of the image shown T times
        batch = batch[:, None].expand(-1, model.time_steps, -1, -1, -1)
    before = [p.clone() for p in model.parameters()]

    def draw_and_run(layer: EILayer, args: tuple[Tensor], _folded: Tensor) -> Tensor:
        layer.initialize(args[0], rng)
        if standardise:
            standardise_currents(layer, args[0])
        return layer.currents(args[0])["I"]  # as the formula stands, not folded: the release's rounding

    drawing = together(layer.register_forward_hook(draw_and_run) for layer in model.stages.modules() if isinstance(layer, EILayer))
    try:
        like = next(model.parameters())
        with model.unasked(), drawing, evaluating(model), full_types(like.device.type):
            steps = model.forward_steps(batch.to(like.device, like.dtype))
            if isinstance(model.head, EISynapses):
                model.head.initialize(model.pool(steps.flatten(0, 1)), rng)
    except Exception:
        for parameter, value in zip(model.parameters(), before):
            parameter.copy_(value)
        raise
    model.mark_initialised()


@torch.no_grad()
def standardise_currents(layer: EILayer, x: Tensor) -> None:
    """Sets g_E and b_E so that each cell's current over input x, as in ``forward``, has mean 0 and variance 1. Not the paper's.

    E-I Init draws each cell's synapses, and so its mean current, at random; where that is far below the threshold, the cell never
    fires (results/currents.csv). A cell that hardly varies gets at most 20 times the gain of the median cell. Dale's law holds:
    g_E stays positive, and b_E has no sign to keep.
    """
    current = layer.currents(x)["I"]
    deviation, mean = torch.std_mean(current, [d for d in range(current.dim()) if d != 1])
    gain = 1 / torch.maximum(deviation, deviation.median() / 20)
    layer.g_e.mul_(gain)
    layer.b_e.sub_(mean).mul_(gain)
