"""How an ONNX file keeps kernels in fewer bytes than float32 has. The runtime makes float32 of them once, when it loads the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..ei import EILayer
from .integer import round_weights

if TYPE_CHECKING:
    import onnx

    from ..networks import SpikingNet

# Operator, inputs, output, attributes: as FoldedEI folds, in few steps, each a copy of all weights while the file is loaded.
FOLDING: tuple[tuple[str, tuple[str, ...], str, dict[str, Any]], ...] = (
    ("Gemm", ("W_EI", "W_IE", "W_EE"), "signed", {"alpha": -1.0}),
    ("Mul", ("signed", "g_E"), "scaled", {}),
    ("Concat", ("scaled", "W_IE"), "joint", {"axis": 0}),
    ("Reshape", ("joint", "shape"), "weight", {}),
    ("Mul", ("W_EI", "g_I"), "mix", {}),
)


def keep_as_trained(model: onnx.ModelProto, network: SpikingNet) -> None:
    """Layers whose weights half precision holds exactly, as it does those of published files, are kept as W_EE, W_IE, W_EI, g_E and
    g_I in half precision, with what folds them in float32: half the bytes, and nothing is rounded.

    Args:
        model: of the folded network, whose kernels are replaced. network: what it was folded from.
    """
    from onnx import TensorProto, helper

    folded = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, layer in network.named_modules():
        if not isinstance(layer, EILayer) or f"{name}.weight" not in folded:
            continue
        steps = [step for step in FOLDING if step[2] != "mix" or f"{name}.mix" in folded]  # the exporter turns small matrices itself
        used = {part for _, inputs, *_ in steps for part in inputs}
        every = {"W_EE": layer.ee.weight.flatten(1), "W_IE": layer.ie.weight.flatten(1), "W_EI": layer.ei.weight,
                 "g_E": layer.g_e[:, None], "g_I": layer.g_i}
        parts = {label: part for label, part in every.items() if label in used}
        if not all(torch.equal(part.half().float(), part) for part in parts.values()):
            continue
        nodes = []
        for label, part in parts.items():
            _keep(model, f"{name}.{label}.half", part.half())
            nodes.append(helper.make_node("Cast", [f"{name}.{label}.half"], [f"{name}.{label}"], to=TensorProto.FLOAT))
        _keep(model, f"{name}.shape", torch.tensor(folded[f"{name}.weight"].dims))
        for operator, inputs, output, attributes in steps:
            nodes.append(helper.make_node(operator, [f"{name}.{i}" for i in inputs], [f"{name}.{output}"], **attributes))
            if tensor := folded.get(f"{name}.{output}"):
                model.graph.initializer.remove(tensor)
        _begin_with(model, nodes)


def quantise(model: onnx.ModelProto) -> None:
    """Every kernel that multiplies spikes is stored as 8-bit integers and one scale for each output channel."""
    from onnx import helper, numpy_helper

    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    kernels = [node for node in graph.node if node.op_type == "Conv" and node.input[1].endswith("current.weight")]
    for node in kernels[1:]:
        name = node.input[1]
        integers, scale = round_weights(torch.from_numpy(numpy_helper.to_array(weights[name]).copy()))
        graph.initializer.remove(weights[name])
        _keep(model, f"{name}.int8", integers)
        _keep(model, f"{name}.scale", scale)
        _begin_with(model, [helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], axis=0)])


def _keep(model: onnx.ModelProto, name: str, value: Tensor) -> None:
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value.detach().numpy()), name))


def _begin_with(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Puts these before the graph's other nodes, which come in the order of their use."""
    for i, node in enumerate(nodes):
        model.graph.node.insert(i, node)
