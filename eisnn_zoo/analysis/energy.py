"""Operations and energy of one image, layer by layer, counted on real activity.

What counts. A synapse that a spike reaches costs one accumulation (AC); a synapse of an input that is no count of spikes
(pixels) costs one multiplication and accumulation (MAC), whatever its value. An average pool or a residual sum before the
layer changes no count: its values are whole numbers of spikes times a factor that goes into the weights. Frames of events are
counts of them, unless they were resized: then they are pixels. Synapses onto the padding do not exist. What reaches the first
layer of a static image is computed once, not T times.

For a layer with n_E excitatory and n_I inhibitory cells at P positions, s synapses reached a cell (events times taps, summed
over positions and steps) and S steps computed:

    E-I, as the formula stands   synapses (n_E + n_I) s;  2 n_E n_I P S MACs (I_sub, I_div);  n_I P S (g_I) and n_E P S (g_E)
                                 multiplications;  2 n_E P S additions (I_sub, b_E);  n_E P S divisions
    E-I, folded                  synapses (n_E + n_I) s;  n_E n_I P S MACs (I_div);  n_E P S additions;  n_E P S divisions
    BN twin                      synapses n_E s;  n_E P S additions (the norm folded into weights and bias)
    ANN                          n_E MACs for every synapse, once;  2 n_E P additions (bias, ReLU's comparison)
    neurons of the first three   n_E P T MACs (leak and input) and additions (comparison), one more addition a spike (reset)

Memory traffic is not counted, and on most hardware costs more than arithmetic: these are figures for comparing networks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ei import EIConv2d, EISynapses
from ..evaluating import evaluating
from ..networks.base import SpikingNet
from ..networks.cells import BNConv2d, BNLinear
from .probes import Activity, probe, spiking_layers

PICOJOULES = {"macs": 4.6, "acs": 0.9, "multiplications": 3.7, "additions": 0.9, "divisions": 26.3}
"""Energy of one float32 operation at 45 nm and 0.9 V: addition 0.9, multiplication 3.7, MAC their sum (Horowitz, ISSCC 2014);
division 7.1 multiplications, as measured on a Cortex-M4F (Table 3 of PMC8934428): that one is no figure for 45 nm."""

VARIANTS = {"ei": "E-I, as the formula stands", "folded": "E-I, folded", "bn": "BN twin", "ann": "ANN"}


@dataclass(frozen=True)
class Operations:
    """Numbers of operations, an image."""

    macs: float = 0.0
    acs: float = 0.0
    multiplications: float = 0.0
    additions: float = 0.0
    divisions: float = 0.0

    def __add__(self, other: Operations) -> Operations:
        return Operations(*(a + b for a, b in zip(astuple(self), astuple(other))))

    def __mul__(self, factor: float) -> Operations:
        return Operations(*(factor * n for n in astuple(self)))

    @property
    def microjoules(self) -> float:
        return sum(getattr(self, name) * pj for name, pj in PICOJOULES.items()) * 1e-6


@dataclass(frozen=True)
class Shape:
    """What the counts need to know of a layer; kernel 0 is a matrix."""

    n_in: int
    n_e: int
    n_i: int
    kernel: int = 0
    stride: int = 1
    padding: int = 0
    divides: bool = True

    def synapses(self, x: Tensor) -> float:
        """Sum over positions of what one cell's synapses see of x, ``[N, n_in, ...]``: all of x for a matrix."""
        if not self.kernel:
            return x.sum(dtype=torch.float64).item()
        ones = torch.ones(1, 1, self.kernel, self.kernel, dtype=torch.float64, device=x.device)
        total = x.sum((0, 1), dtype=torch.float64)[None, None]
        return F.conv2d(total, ones, None, self.stride, self.padding).sum().item()


def shape_of(layer: nn.Module) -> Shape:
    """Raises: TypeError, for a folded layer, whose excitation and inhibition are one."""
    if isinstance(layer, EIConv2d):
        return Shape(layer.n_in, layer.n_e, layer.n_i, layer.kernel_size, layer.stride, layer.padding)
    if isinstance(layer, EISynapses):
        return Shape(layer.fan_in, layer.n_e, layer.n_i, divides=hasattr(layer, "g_i"))
    if isinstance(layer, BNConv2d):
        return Shape(layer.conv.in_channels, layer.conv.out_channels, 0, layer.conv.kernel_size[0], layer.conv.stride[0],
                     layer.conv.padding[0])
    if isinstance(layer, (BNLinear, nn.Linear)):
        linear = layer.linear if isinstance(layer, BNLinear) else layer
        return Shape(linear.in_features, linear.out_features, 0)
    raise TypeError(f"operations are counted on the network as it was trained, not on {type(layer).__name__}")


def count_layer(shape: Shape, x: Tensor, positions: int, steps_in: int, time_steps: int,
                spikes: float | None, worth: int | None = 1) -> dict[str, Operations]:
    """Operations of one layer, an image, for each of VARIANTS that it can be.

    Args:
        x: its input, ``[steps_in * B, ...]``.
        spikes: sent by its neurons, an image; None for the output layer, which has no neurons.
        worth: spikes that a 1 in x stands for; None: x is pixels.
    """
    images = x.shape[0] // steps_in
    dense = shape.synapses(torch.ones_like(x[:1]))  # an image and step
    reached = dense * steps_in if worth is None else worth * shape.synapses(x) / images
    kind = "macs" if worth is None else "acs"
    e, i, points = shape.n_e, shape.n_i, positions * steps_in

    def synapses(cells: int) -> Operations:
        return Operations(**{kind: cells * reached})

    neurons = Operations()
    if spikes is not None:
        neurons = Operations(macs=e * positions * time_steps, additions=e * positions * time_steps + spikes)
    variants = {"bn": synapses(e) + Operations(additions=e * points) + neurons,
                "ann": Operations(macs=e * dense, additions=e * positions * (1 if spikes is None else 2))}
    if i and shape.divides:
        divide = Operations(divisions=e * points)
        variants = {"ei": synapses(e + i) + divide + neurons + Operations(
                        macs=2 * e * i * points, multiplications=(e + i) * points, additions=2 * e * points),
                    "folded": synapses(e + i) + divide + neurons + Operations(macs=e * i * points, additions=e * points),
                    **variants}
    elif i:
        variants = {"ei": synapses(e + i) + Operations(macs=e * i * points, additions=e * points), "folded": synapses(e),
                    **variants}
    return variants


@torch.no_grad()
def operations(model: SpikingNet, batches: Iterable[Tensor]) -> list[dict]:
    """Rows (layer, variant, operations, microjoules, input), the mean over all images; the last layer is the output layer.

    For an E-I network: itself both ways, a BN twin that would send the same spikes, and the ANN of the same shape. For a
    BN baseline: itself and the ANN.

    Raises:
        TypeError: a folded network.
    """
    totals: dict[tuple[str, str], Operations] = {}
    inputs: dict[str, str] = {}
    names = list(spiking_layers(model))
    first_of_stage = {name.split(".")[1]: name for name in reversed(names)}.values()
    seen = 0

    def add(name: str, images: int, worth: int | None, variants: dict[str, Operations]) -> None:
        inputs[name] = "pixels" if worth is None or inputs.get(name) == "pixels" else "spikes"
        for variant, ops in variants.items():
            totals[name, variant] = totals.get((name, variant), Operations()) + ops * images

    def see(activity: Activity) -> None:
        x, spikes = activity.merged_input, activity["spikes"]
        images, worth = spikes.shape[1], model.pooled if activity.name in first_of_stage else 1
        if activity.name == names[0]:
            worth = 1 if model.event_input and torch.equal(x, x.round()) else None
        variants = count_layer(shape_of(activity.layer.current), x, spikes[0, 0, 0].numel(), activity.steps_in,
                               activity.time_steps, spikes.sum(dtype=torch.float64).item() / images, worth)
        add(activity.name, images, worth, variants)

    def see_head(steps: Tensor) -> None:
        """The output layer, at every step, of the last stage's output ``[T, B, C, H, W]``: its input is spikes then."""
        x = steps.flatten(0, 1)
        if model.global_pool == "avg":
            x = x.sum((2, 3))  # the pool's division goes into the weights
        variants = count_layer(shape_of(model.head), x, x[0, 0].numel(), len(steps), len(steps), None, model.pooled)
        add("head", steps.shape[1], model.pooled, variants)

    with evaluating(model), probe(model, see):
        for x in batches:
            see_head(model.forward_steps(x))
            seen += len(x)
    return [_row(layer, variant, ops * (1 / seen), inputs[layer]) for (layer, variant), ops in totals.items()]


def totals(rows: list[dict]) -> list[dict]:
    """The rows of a network summed over its layers, one for each variant."""
    sums: dict[str, Operations] = {}
    for row in rows:
        ops = Operations(**{name: row[name] for name in PICOJOULES})
        sums[row["variant"]] = sums.get(row["variant"], Operations()) + ops
    return [_row("all", variant, ops, "") for variant, ops in sums.items()]


def _row(layer: str, variant: str, ops: Operations, source: str) -> dict:
    return {"layer": layer, "variant": variant, "input": source, **vars(ops), "microjoules": ops.microjoules}
