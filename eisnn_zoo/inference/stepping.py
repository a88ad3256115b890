"""A folded network run one time step at a time, so that samples which are sure take no further steps."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ..layout import as_map, in_memory_order
from ..networks import SpikingNet
from ..neuron import LIF
from .folding import Pieces


class SteppedLIF(LIF):
    """The same neuron for a single step, which keeps its membrane for the next one."""

    membrane: Tensor | None

    def forward(self, current: Tensor, time_steps: int) -> Tensor:
        v = current[0] if self.membrane is None else torch.add(current[0], self.membrane, alpha=self.decay)
        fired = (v >= self.threshold).to(v.dtype)
        self.membrane = self.after(v, fired)
        return fired[None]


def stepwise(folded: SpikingNet) -> SpikingNet:
    """A copy of a folded network that takes single steps; it is run through :class:`NetworkSteps`."""
    network = copy.deepcopy(folded)
    network.time_steps = 1
    # A stage that works in pieces would hand the membranes of one piece to the next.
    network.stages = nn.ModuleList(stage.stage if isinstance(stage, Pieces) else stage for stage in network.stages)
    for module in network.modules():
        if isinstance(module, LIF):
            module.__class__ = SteppedLIF
    return network


class NetworkSteps:
    """:class:`~eisnn_zoo.inference.anytime.Steps` of a network at work.

    Args:
        network: from :func:`stepwise`. One batch at a time: its neurons hold the batch's membranes.
        x: images ``[B, C, H, W]``, held for all steps, or frames ``[B, T, C, H, W]``.
        time_steps: T.
    """

    def __init__(self, network: SpikingNet, x: Tensor, time_steps: int):
        self._network, self._x, self._time_steps = network, x, time_steps
        self._neurons = [m for m in network.modules() if isinstance(m, SteppedLIF)]
        for neuron in self._neurons:
            neuron.membrane = None

    def __iter__(self) -> Iterator[np.ndarray]:
        for t in range(self._time_steps):
            with torch.inference_mode():
                logits = self._network(self._x if self._x.dim() == 4 else self._x[:, t : t + 1])
            yield logits.float().cpu().numpy()

    def keep(self, rows: np.ndarray) -> None:
        with torch.inference_mode():
            kept = torch.from_numpy(rows).to(self._x.device)
            self._x = self._x[kept]
            for neuron in self._neurons:
                if neuron.membrane is not None:
                    neuron.membrane = as_map(in_memory_order(neuron.membrane)[kept])
