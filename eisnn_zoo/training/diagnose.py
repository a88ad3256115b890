"""Finding where a training run stopped making sense."""

from __future__ import annotations

import torch
from torch import Tensor

from ..evaluating import together
from ..networks import SpikingNet
from ..networks.cells import LAYERS


@torch.no_grad()
def first_overflow(model: SpikingNet, x: Tensor) -> str:
    """Where a number stopped being finite first, in words: a current in the forward pass of x, else a gradient."""
    broken: list[str] = []

    def look(name: str):
        return lambda module, args, out: None if torch.isfinite(out).all() else broken.append(name)

    currents = {name: module.current for name, module in model.named_modules() if isinstance(module, LAYERS)}
    with together(part.register_forward_hook(look(name)) for name, part in {**currents, "head": model.head}.items()):
        model(x)
    if broken:
        return f"the current of layer {broken[0]} overflowed first"
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    last = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
    if last:
        return f"all currents are finite, the gradient overflowed first in {last[-1]}"
    size, largest = max((gradient.abs().max().item(), name) for name, gradient in gradients.items())
    return f"all currents and gradients are finite, the largest gradient is {largest}'s, {size:.2g}"
