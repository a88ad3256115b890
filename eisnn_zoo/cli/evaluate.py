"""eisnn-zoo eval: a network on labelled images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from .anytime import check_confidence, parse_steps, report
from .options import Compile, Data, Dataset, Device, Precision
from .output import Whole, check_folder, need, note, table, to_json

if TYPE_CHECKING:
    from ..training.evaluation import Scores

EPILOG = """[bold]Examples[/bold]

  eisnn-zoo eval ei_resnet18_cifar10 --data cifar/

  eisnn-zoo eval vgg8.onnx --data cifar/

  eisnn-zoo eval ei_vgg8_cifar10 --data cifar/ --time-steps 1,2,4,8 --early-exit 0.9

  eisnn-zoo eval runs/flowers --data flowers/ --output report/
"""
HEADINGS = {"top1": "top-1 (%)", "top5": "top-5 (%)", "expected_top1": "expected top-1 (%)", "mean_confidence": "mean confidence (%)",
            "calibration_error": "calibration error (points)", "images_per_s": "images/s"}


def register(app: typer.Typer) -> None:
    app.command("eval", epilog=EPILOG)(evaluate)


def evaluate(
    model: Annotated[str, typer.Argument(help="Name, name.tag, hf-hub:org/name, folder, .safetensors or .onnx file.")],
    data: Data,
    dataset: Dataset = None,
    device: Device = "auto",
    backend: Annotated[str | None, typer.Option(
        "--backend", help="torch or onnx, which needs no torch. Default: torch, for an .onnx file onnx.")] = None,
    compile: Compile = False,
    precision: Precision = "fp32",
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Images computed together.")] = 250,
    time_steps: Annotated[str | None, typer.Option(
        "--time-steps", "-T", help="Default: as trained. Several, as in 1,2,4,8: accuracy by T.")] = None,
    early_exit: Annotated[float | None, typer.Option(
        "--early-exit", metavar="CONFIDENCE", help="End an image's steps once its best class is so probable, in (0, 1].")] = None,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", help="Write pictures and the numbers as JSON into this folder.")] = None,
    format: Annotated[Whole, typer.Option("--format", "-f")] = Whole.table,
) -> None:
    """Measure a network on labelled images and compare with what it should reach."""
    from ..inference.backends import open_network
    from ..locating import is_onnx
    from ..training.evaluation import compare, test_images
    from ..training.evaluation import evaluate as measure

    if output:
        need("train", "--output draws pictures, which")
    check_folder(output)
    check_confidence(early_exit)
    several = parse_steps(time_steps)
    stepwise = "--early-exit" if early_exit else "--time-steps with several numbers" if len(several) > 1 else ""
    backend = backend or ("onnx" if is_onnx(model) or device == "tensorrt" else "torch")
    network = open_network(model, backend, device, max(several, default=None), compile, precision, stepwise)
    config, size = network.config, network.config.input_size[1]
    if stepwise and config.event_input:
        raise UsageError("accuracy by T and early exit are for static images: events are cut into other frames for another T")
    images, title, measured = test_images(config, data, dataset, network.time_steps)
    note(f"{config.name}: T = {network.time_steps}, {network.where}, {len(images)} images of {title}")
    if stepwise:
        steps = several or list(range(1, network.time_steps + 1))
        report(network.run.evidence, images, size, steps, early_exit, batch_size, output, format)
        return
    scores = measure(network.run, images, size, batch_size)
    facts = compare(config, network.row, title, measured, scores, network.time_steps)
    per_class = [{"class": name, "images": int(n), "top1": None if a is None else round(a, 2)}
                 for name, n, a in zip(images.label_names, scores.confusion.sum(1), scores.per_class)]
    if format is Whole.json:
        print(to_json({**facts, "per_class": per_class}, indent=2))
    else:
        shown = [{"key": HEADINGS.get(k, k.replace("_", " ")), "value": v} for k, v in facts.items() if v is not None]
        print(table(shown, {"key": "", "value": ""}), end="\n\n")
        print(table(per_class, {"class": "class", "images": "images", "top1": "top-1 (%)"}))
    if output:  # last: what was measured is not lost where this cannot be written
        _write(output, images.label_names, scores, {**facts, "per_class": per_class})


def _write(output: Path, label_names: tuple[str, ...], scores: Scores, facts: dict) -> None:
    from ..files import write_atomic
    from ..training.plots import calibration, confusion

    output.mkdir(parents=True, exist_ok=True)
    confusion(scores.confusion, label_names, output / "confusion.png")
    calibration(scores.bins, output / "calibration.png")
    everything = {**facts, "confusion": scores.confusion.tolist(),
                  "calibration": [{"images": int(n), "confidence": round(float(c), 3), "right": int(r)} for n, c, r in scores.bins]}
    write_atomic(output / "evaluation.json", json.dumps(everything, indent=2, ensure_ascii=False) + "\n")
    note(f"wrote confusion.png, calibration.png and evaluation.json into {output}")
