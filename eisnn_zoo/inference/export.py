"""ONNX files: one self-contained graph with all T steps inside, folded weights, and the configuration in its metadata.

    input    pixels in [0, 1], float32 [batch, C, H, W]; event networks: frames [batch, T, C, H, W]
    logits   float32 [batch, classes]

"fp32" keeps weights that half precision holds exactly, as it does those of published files, in half precision, and folds
them in float32 when the file is loaded. "fp16" rounds the folded kernels to it, and multiplies in it where the runtime
can; membranes, divisors and sums stay float32. "int8" rounds the folded kernels to 8 bits, each output channel with its
own scale, for the smallest file, not for speed: onnxruntime's integer convolution was slower, torch's is faster
(``--precision int8``, benchmarks/README.md). The activations lose nothing. The first layer sees pixels, not spikes, and
stays as it is; so do the divisor's product and the output layer.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from packaging.version import Version

from ..config import Config
from ..errors import UsageError, ZooError
from ..files import sha256, write_atomic
from ..locating import Located
from ..weights import load_network
from .onnx_runtime import PRECISIONS, OnnxModel

if TYPE_CHECKING:
    import onnx

    from ..networks import SpikingNet

BATCHES = (1, 2, 7)  # one, the size that was traced, and another
LEAST_TORCH = "2.7"
LEAST_AGREEMENT = 0.9  # of top-1 answers; another order of summation may flip single spikes of unsure samples


def export(located: Located, output: str | Path, precision: str = "fp32", time_steps: int | None = None, opset: int = 20) -> None:
    """Writes the network as ONNX to output, checked by onnx.checker.

    Args:
        located: from :func:`~eisnn_zoo.locating.locate`.
        precision: one of :data:`PRECISIONS`.
        time_steps: T; None as in the configuration.
        opset: of ONNX's operators, from 18 to the newest that onnx knows.

    Raises:
        UsageError: a precision or opset that cannot be. ZooError: onnx is not installed, or the weights cannot be used.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if opset < 18:
        raise UsageError(f"opset {opset} is too old for the graph: 18 or later")
    onnx = onnx_modules()
    if opset > (newest := onnx.defs.onnx_opset_version()):
        raise UsageError(f"opset {opset} is newer than this onnx, {onnx.__version__}, which knows {newest}: choose that or an older one")
    from .onnx_kernels import keep_as_trained, quantise  # imports torch, as this module does not

    network = load_network(located, time_steps=time_steps)
    config = located.config.with_steps(network.time_steps)
    if precision != "fp32" and (config.model.family == "mlp" or config.model.kind != "ei"):
        raise UsageError(f"{precision} is for E-I convolutional networks, whose kernels see spikes: export fp32")
    model = trace(network, config.input_size, opset, half=precision == "fp16")
    if (made := model.opset_import[0].version) != opset:
        raise UsageError(f"torch exports this network at opset {made}, not {opset}: choose that")
    if precision == "int8":
        quantise(model)
    elif precision == "fp32":
        keep_as_trained(model, network)
    model.doc_string = usage(config)
    onnx.helper.set_model_props(model, {
        "config": config.text, "time_steps": str(network.time_steps),
        "precision": precision, "source": located.config.name, "source_sha256": sha256(located.path),
    })
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ZooError(f"the exported graph of {config.name} is not valid ONNX at opset {opset}: {error}") from error
    write_atomic(output, model.SerializeToString())


def usage(config: Config) -> str:
    """How the file is fed, for whoever has nothing but it."""
    channels, height, width = config.input_size
    if config.event_input:
        feed = f"counts of events, float32 [batch, {config.options['time_steps']}, {channels}, {height}, {width}]"
    else:
        colour = {1: "grey", 3: "RGB"}.get(channels, f"{channels}-channel")
        feed = (f"{colour} pixels divided by 255 and nothing else, float32 [batch, {channels}, {height}, {width}]; "
                f"of a picture: shorter side resized to {height} (bilinear), centre cropped")
    return (f"{config.name}. input: {feed}. logits: float32 [batch, {len(config.label_names)}]; the classes in their order are "
            "label_names of the metadata's config, which is JSON.")


def onnx_modules():
    """The module onnx, with all that exporting needs beside it. Raises ZooError where something is not installed, or too old."""
    try:
        import onnx
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise ZooError(f'exporting needs onnx and onnxscript ({error}): pip install "eisnn-zoo[onnx]"') from error
    if Version(found := version("torch")) < Version(LEAST_TORCH):  # 2.6 crashes on these graphs
        raise ZooError(f"exporting needs torch {LEAST_TORCH} or newer, and this is {found}: pip install --upgrade torch torchvision")
    return onnx


def trace(network: SpikingNet, input_size: tuple[int, int, int], opset: int, half: bool) -> onnx.ModelProto:
    """The folded network's graph for any batch."""
    import torch

    from .folding import FoldedEI, fold

    folded = fold(network)
    if half:
        for layer in folded.modules():
            if isinstance(layer, FoldedEI) and layer.convolves:
                layer.weight = layer.weight.half()
    frames = (network.time_steps,) if network.event_input else ()
    example = torch.zeros(2, *frames, *input_size)  # torch.export takes a batch of 1 for a constant
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(folded, (example,), dynamo=True, opset_version=opset, verbose=False,
                                        input_names=["input"], output_names=["logits"], dynamic_shapes=({0: "batch"},))
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
    model = program.model_proto
    forget_origin(model)
    return model


def forget_origin(model: onnx.ModelProto) -> None:
    """The exporter notes for every value where in the code it came from, with the paths of the machine it ran on."""
    graph = model.graph
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, *model.functions, graph):
        del part.metadata_props[:]


@dataclass(frozen=True)
class Verification:
    """How an exported file's answers compare with torch's on the same inputs.

    Attributes:
        samples: compared, over all batch sizes of :data:`BATCHES`, the first ones in each.
        top1: share whose most probable class is the same.
        equal: share of samples whose logits are all the same, bit for bit.
        close: share of samples whose logits are all within 1e-4 of the largest logit.
        largest: largest difference of a logit.
    """

    samples: int
    top1: float
    equal: float
    close: float
    largest: float

    def __str__(self) -> str:
        return (f"{self.samples} answers at batch {', '.join(map(str, BATCHES))}: top-1 equal on {100 * self.top1:.0f} %, logits close on "
                f"{100 * self.close:.0f} %, bit-equal on {100 * self.equal:.0f} %, largest difference {self.largest:.2g}")


def verify(path: str | Path, located: Located, inputs: np.ndarray | None = None) -> Verification:
    """Compares onnxruntime's logits with torch's, the network's own float32 ones, at several batch sizes.

    Args:
        inputs: at least 7, as the network takes them; None draws some. The last of 7 is blanked, and so is in the largest batch
            alone: the divisor's zeros count too.

    Raises:
        ZooError: it cannot be run, an answer is not finite, or, of a file in float32, too few agree.
    """
    import torch

    run = OnnxModel(path, "cpu")
    network = load_network(located, time_steps=run.time_steps)
    inputs = (drawn_inputs(run.input_shape, max(BATCHES)) if inputs is None else inputs)[: max(BATCHES)].copy()
    inputs[-1] = 0
    ours, theirs = [], []
    for batch in BATCHES:
        part = inputs[:batch]
        with torch.inference_mode():
            theirs.append(network(torch.from_numpy(part)).numpy())
        ours.append(run(part))
    a, b = np.concatenate(ours), np.concatenate(theirs)
    if a.shape != b.shape or not np.isfinite(a).all():
        raise ZooError(f"{path} gives logits of shape {a.shape} that are {'' if np.isfinite(a).all() else 'not '}finite, instead of "
                       f"{b.shape}: the export failed; report it with the versions of torch and onnxruntime")
    difference = np.abs(a - b).max(1)
    found = Verification(len(a), float((a.argmax(1) == b.argmax(1)).mean()), float((difference == 0).mean()),
                         float((difference <= 1e-4 * np.abs(b).max()).mean()), float(difference.max()))
    if run.precision == "fp32" and found.top1 < LEAST_AGREEMENT:
        raise ZooError(f"{path} does not answer as the network does ({found}): do not use it, and report it")
    return found


def drawn_inputs(shape: tuple[int, ...], n: int) -> np.ndarray:
    """Pictures of smooth blobs with a black border, in multiples of 1/255; or sparse event counts."""
    rng = np.random.default_rng(0)
    if len(shape) == 4:
        return rng.poisson(0.3, (n, *shape)).astype(np.float32)
    channels, height, width = shape
    y, x = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    pictures = np.zeros((n, *shape))
    for picture in pictures:
        for _ in range(6):
            cy, cx, size = *rng.random(2), rng.uniform(0.05, 0.3)
            blob = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * size**2))
            picture += rng.random((channels, 1, 1)) * blob
    pictures[..., :2, :] = 0
    return (np.round(np.clip(pictures, 0, 1) * 255) / 255).astype(np.float32)
