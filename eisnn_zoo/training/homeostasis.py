"""Homeostasis: while a network learns, the bias of every cell keeps its mean current at a set point."""

from __future__ import annotations

import torch
from torch import nn

from ..ei import EILayer
from .world import World


class Homeostasis:
    """Intrinsic plasticity of the excitatory cells, in training alone: what is trained is the paper's network, unchanged.

    A step of the weights moves the mean currents of all cells of a layer, faster than b_E learns to follow, and cells drift below their
    threshold, where the surrogate has little of its slope left (results/currents.csv). So, after every step,

        b_E       -= rate * (mean current - set point)                mean over the images of the step, all places and time steps
        set point += what the step itself added to b_E                0 at the start, or the mean that a trained network has

    which makes b_E a learned set point less a running mean of the rest of the current. Unlike BatchNorm's, the mean is that of the
    steps before, no gradient knows of it, nothing is divided by a deviation, and nothing of it is left when training ends.

    Args:
        model: an E-I network.
        rate: from 0 to 1; 0.1 follows the mean of some ten steps. It can change between steps: at 0 biases only learn, and set points
            stay as they are.
        world: the processes whose images make up a step.
        trained: the network learned before, elsewhere or at a rate of 0: its cells stay where they are, on the images of the first step
            at another rate.
    """

    def __init__(self, model: nn.Module, rate: float, world: World, trained: bool = False):
        self.rate, self.world, self.trained = rate, world, trained
        self.layers = [layer for layer in model.modules() if isinstance(layer, EILayer)]
        self.sums = [torch.zeros(layer.n_e + 1, device=layer.b_e.device) for layer in self.layers]
        for layer, sums in zip(self.layers, self.sums):
            layer.sums = sums

    @torch.no_grad()
    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer's step, then that of the biases. The set points are kept, and saved, with the optimizer's state of b_E."""
        before = [layer.b_e.clone() for layer in self.layers]
        optimizer.step()
        if self.rate:
            self._hold(optimizer, before)
        torch._foreach_zero_(self.sums)

    def _hold(self, optimizer: torch.optim.Optimizer, before: list[torch.Tensor]) -> None:
        totals = self.world.total(torch.cat(self.sums)).float().split([len(sums) for sums in self.sums])
        for layer, was, total in zip(self.layers, before, totals):
            b = layer.b_e
            state, mean = optimizer.state[b], total[:-1] / total[-1]
            if "set_point" not in state:
                state["set_point"] = mean.clone() if self.trained else torch.zeros_like(b)
            learned = b - was
            b -= self.rate * (mean - state["set_point"])
            state["set_point"] += learned
