"""The authors' released checkpoints: their names mapped onto ours, every one accounted for.

The release numbers the modules of VGG and MLP (``layers.9.conv_ee.weight``, ``layers.10.weight_ei`` ...) and names those
of ResNet by place. Its output layer stores a gain_i, gain_e and bias that take no part in the computation.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from .ei import EISynapses
from .networks.base import SpikingNet
from .networks.cells import BNConv2d, BNLinear
from .networks.resnet import SEWBlock

_EI = {"ee.weight": "{w}{conv}ee{weight}", "ie.weight": "{w}{conv}ie{weight}", "ei.weight": "{n}weight_ei",
       "g_i": "{n}gain_i", "g_e": "{n}gain_e", "b_e": "{n}bias"}
_UNUSED = ("gain_i", "gain_e", "bias")


def release_names(model: SpikingNet, numbers: list[int] | None = None) -> tuple[dict[str, str], list[str]]:
    """Our state names to the release's, and the release's names that take no part.

    Args:
        numbers: for VGG and MLP, the numbers of the release's weight layers in order; they differ between static images
            and events, so they are read off the checkpoint.
    """
    modules = {module: name for name, module in model.named_modules()}
    names: dict[str, str] = {}
    for layer, (weights, norm) in zip(_layers(model), _places(model, numbers)):
        ours = modules[layer]
        if isinstance(layer, EISynapses):
            conv = layer.ee.weight.dim() == 4
            for leaf in layer.state_dict():
                names[f"{ours}.{leaf}"] = _EI[leaf].format(
                    w=f"{weights}.", n=f"{norm}.", conv="conv_" if conv else "weight_", weight=".weight" if conv else "")
        elif isinstance(layer, nn.Linear):
            names |= {f"{ours}.{leaf}": f"{weights}.linear.{leaf}" for leaf in layer.state_dict()}
        else:
            for leaf in layer.state_dict():
                names[f"{ours}.{leaf}"] = f"{norm if leaf.startswith('bn.') else weights}.{leaf}"
    unused = [f"{norm}.{leaf}" for leaf in _UNUSED] if isinstance(model.head, EISynapses) else []
    return names, unused


def _layers(model: SpikingNet) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, (EISynapses, BNConv2d, BNLinear))
            or (isinstance(m, nn.Linear) and m is model.head)]


def _places(model: SpikingNet, numbers: list[int] | None) -> list[tuple[str, str]]:
    """(module of the weights, module of the normalisation) in the release, for each of our layers in order."""
    if numbers is not None:
        return [(f"layers.{n}", f"layers.{n + 1}") for n in numbers]
    norm = "norm" if model.kind == "ei" else "bn"
    places = [("conv1", f"{norm}1")]
    for i, stage in enumerate(model.stages):
        for j, block in enumerate(b for b in stage.modules() if isinstance(b, SEWBlock)):
            at = f"layer{i}.{j}."
            places += [(f"{at}conv{k}", f"{at}{norm}{k}") for k in range(1, len(block.layers) + 1)]
            places += [(f"{at}downsample.0", f"{at}downsample.1")] * len(block.shortcut)
    return [*places, ("fc", "final_ei_norm")]


def _numbers(state: dict) -> list[int] | None:
    """Numbers of the modules ``layers.N`` that hold weights; None for a checkpoint that does not number its modules."""
    weights = (re.match(r"layers\.(\d+)\.(conv_ee\.|weight_ee$|conv\.|linear\.weight$)", name) for name in state)
    return sorted({int(m[1]) for m in weights if m}) or None


def _matched(model: SpikingNet, state: dict) -> tuple[dict[str, str], list[str]]:
    numbers = _numbers(state)
    layers = _layers(model)
    if numbers is not None and len(numbers) != len(layers):
        raise ValueError(f"the checkpoint has {len(numbers)} layers of weights, the model {len(layers)}: not its architecture")
    return release_names(model, numbers)


def is_release_state(state: dict) -> bool:
    """Whether these names are the release's."""
    return any(name.endswith((".weight_ei", ".gain_i")) or (re.search(r"\.(conv|linear|bn)\.weight$", name)
               and name.startswith(("layers.", "layer1.", "conv1.", "fc."))) for name in state)


def from_release(model: SpikingNet, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The release's state in our names, shapes and the model's dtype; strict.

    Raises:
        ValueError: a name too many or too few, or a shape that does not fit; the message lists them.
    """
    names, unused = _matched(model, state)
    own = model.state_dict()
    problems = [f"missing {theirs}" for theirs in names.values() if theirs not in state]
    problems += [f"unexpected {name}" for name in state if name not in {*names.values(), *unused}]
    converted = {}
    for ours, theirs in names.items():
        if theirs in state:
            if state[theirs].numel() != own[ours].numel() or state[theirs].squeeze().shape != own[ours].squeeze().shape:
                problems.append(f"{theirs} is {list(state[theirs].shape)}, the model wants {list(own[ours].shape)}")
            else:
                converted[ours] = state[theirs].reshape(own[ours].shape).to(own[ours].dtype)
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ValueError("the checkpoint does not fit the model: " + "; ".join(problems[:4]) + more)
    return {**converted, "initialised": torch.ones((), dtype=torch.bool)}


def to_release(model: SpikingNet, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's state in the release's names and shapes.

    Args:
        like: a state in the release's layout, for its numbering, shapes and the three tensors that take no part.
    """
    names, unused = _matched(model, like)
    own = model.state_dict()
    return {**{theirs: own[ours].reshape(like[theirs].shape) for ours, theirs in names.items()},
            **{name: like[name] for name in unused}}


def load_release_state(model: SpikingNet, state: dict[str, Tensor]) -> None:
    """Loads tensors in the release's names into model, in the model's own dtype; strict (see :func:`from_release`)."""
    model.load_state_dict(from_release(model, state), strict=True)
