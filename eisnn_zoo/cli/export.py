"""eisnn-zoo export: a trained network as one ONNX file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, ZooError
from .options import Steps
from .output import check_file, note

if TYPE_CHECKING:
    import numpy as np

    from ..locating import Located
    from ..training.reading import Labelled

EPILOG = """[bold]Examples[/bold]

  eisnn-zoo export ei_vgg8_cifar10 --output vgg8.onnx

  eisnn-zoo predict photo.png --model vgg8.onnx

  eisnn-zoo export ei_vgg8_cifar10 --precision int8 --data cifar/
"""
ALLOWED_DROP = 0.5  # points of top-1 accuracy that rounding weights to 8 bits may cost


def register(app: typer.Typer) -> None:
    app.command("export", epilog=EPILOG)(export)


def export(
    model: Annotated[str, typer.Argument(help="Name, name.tag, hf-hub:org/name, folder, or .safetensors file.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file. Default: the model's name and precision.")] = None,
    opset: Annotated[int, typer.Option("--opset", help="Version of ONNX's operators.")] = 20,
    time_steps: Steps = None,
    precision: Annotated[str, typer.Option("--precision", "-p", help="fp32; fp16 (products too); int8 (smallest file).")] = "fp32",
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Compare onnxruntime's answers with torch's.")] = True,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of images to verify on. Default: the package's examples.")] = None,
    data: Annotated[Path | None, typer.Option(
        "--data", help="Folder of the test set: measure the accuracy too. int8 that loses more than 0.5 points is refused.")] = None,
) -> None:
    """Write a network with all its time steps as one ONNX file, for any batch size, with its preprocessing and classes."""
    from ..files import is_stream, write_atomic
    from ..inference import export as exporter
    from ..locating import locate
    from ..training.evaluation import test_images

    located = locate(model)
    located.config.check_classes()
    path = output or Path(f"{located.config.name}{'' if precision == 'fp32' else f'.{precision}'}.onnx")
    check_file(path, suffix=".onnx", what="an ONNX file")
    steps = time_steps or located.config.time_steps
    shown = images or _examples(located)
    inputs = _read_images(shown, located, steps) if shown and verify else None
    test = test_images(located.config, data, None, steps) if data else None  # what is missing is said before the work
    with tempfile.TemporaryDirectory() as place:  # the name asked for appears when all checks have passed
        fresh = Path(place) / path.name
        exporter.export(located, fresh, precision, time_steps, opset)
        note(f"{located.config.name}: T = {steps}, {precision}, opset {opset}, {fresh.stat().st_size / 1e6:.1f} MB, valid ONNX")
        if verify:
            note(f"{'verified' if precision == 'fp32' else 'beside float32'}: {exporter.verify(fresh, located, inputs)}")
        if test:
            _measure(fresh, located, *test[:2], precision)
        elif precision == "int8":
            note("its accuracy was not measured: give --data to compare it with float32 on the test set")
        write_atomic(path, lambda beside: shutil.copyfile(fresh, beside))
    if not is_stream(path):  # into which nothing else may go
        print(path)


def _examples(located: Located) -> Path | None:
    """Pictures of the network's dataset that come with the package; None where there are none."""
    from ..shipped import examples_folder

    dataset = located.config.model.dataset
    if dataset is None or located.config.input_size[0] != dataset.channels:
        return None
    folder = examples_folder() / dataset.name
    return folder if folder.is_dir() else None


def _read_images(folder: Path, located: Located, steps: int) -> np.ndarray:
    import numpy as np

    from ..inference.classify import read_input
    from ..inference.export import BATCHES
    from ..inference.inputs import expand

    if not folder.is_dir():
        raise UsageError(f"--images {folder}: there is no such folder")
    names = [name for name, _ in zip(expand([str(folder)]), range(max(BATCHES)))]
    if len(names) < max(BATCHES):
        raise UsageError(f"--images {folder}: {len(names)} images there, {max(BATCHES)} are needed")
    return np.stack([read_input(name, located.config, steps) for name in names])


def _measure(path: Path, located: Located, test: Labelled, title: str, precision: str) -> None:
    """Top-1 accuracy and speed of the file, and of torch's float32 where the file's is another. Raises ZooError on a real loss."""
    from ..inference.onnx_runtime import OnnxModel
    from ..inference.torch_runtime import TorchModel
    from ..training.evaluation import evaluate

    file, top1 = OnnxModel(path, "cpu"), []
    for name, run in (("torch fp32", TorchModel(located, "cpu", file.time_steps)), (f"onnxruntime {precision}", file)):
        scores = evaluate(run, test, located.config.input_size[1], 50)
        top1.append(scores.top1)
        note(f"{name}: top-1 {scores.top1:.2f} % on {len(test)} images of {title}, {len(test) / scores.seconds:.0f} images a second")
    if top1[0] - top1[1] > ALLOWED_DROP:
        raise ZooError(f"{precision} costs {top1[0] - top1[1]:.2f} points of accuracy, more than the {ALLOWED_DROP} allowed: it is "
                       "not written; export fp32")
