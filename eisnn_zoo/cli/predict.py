"""eisnn-zoo predict: what is in these images?"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from ..catalog import MODELS
from ..errors import UsageError, ZooError
from ..files import to_csv
from .options import Compile, Device, Precision, Steps
from .output import Format, check_file, note, plain, to_json

EPILOG = """[bold]Examples[/bold]

  eisnn-zoo predict cat.png

  eisnn-zoo predict photos/ --format csv --output labels.csv

  cat cat.png | eisnn-zoo predict - --format json

  eisnn-zoo predict photos/ --early-exit 0.9

  eisnn-zoo predict Test/7/*.bin --model ei_vgg8_nmnist
"""


def register(app: typer.Typer) -> None:
    app.command("predict", epilog=EPILOG)(predict)


def predict(
    inputs: Annotated[list[str] | None, typer.Argument(
        metavar="INPUT", show_default=False,
        help="Image files, folders, patterns, http(s) addresses, or - (stdin); recordings, where the network takes events.")] = None,
    model: Annotated[str | None, typer.Option(
        "--model", "-m", help="Name, name.tag, hf-hub:org/name, folder, .safetensors or .onnx file. Default: best E-I one here.")] = None,
    topk: Annotated[int, typer.Option("--topk", "-k", min=1, help="Classes to show for each image.")] = 5,
    format: Annotated[Format | None, typer.Option("--format", "-f", help="Default: table, or what --output ends in.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the results to this file.")] = None,
    from_file: Annotated[str | None, typer.Option("--from-file", help="A file with one input a line; - for stdin.")] = None,
    device: Device = "auto",
    backend: Annotated[str, typer.Option("--backend", help="auto, torch or onnx. auto needs no torch where it can do without.")] = "auto",
    compile: Compile = False,
    precision: Precision = "fp32",
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Images computed together.")] = 32,
    time_steps: Steps = None,
    early_exit: Annotated[float | None, typer.Option(
        "--early-exit", metavar="CONFIDENCE", help="End an image's steps once its best class is so probable, in (0, 1]; by torch.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on stderr but errors.")] = False,
) -> None:
    """Classify images with a trained network."""
    from ..inference.backends import open_network
    from ..inference.classify import Prediction, classify
    from ..inference.inputs import PICTURES, RECORDINGS, expand, from_list
    from .anytime import check_confidence

    if not inputs and not from_file:
        raise UsageError("name at least one image: eisnn-zoo predict photo.png")
    for name in inputs or ():
        if name.partition(".")[0] in MODELS and not Path(name).exists():
            raise UsageError(f"{name} is a model, not an image: eisnn-zoo predict photo.png --model {name}")
    if (inputs or []).count("-") + (from_file == "-") > 1:
        raise UsageError("stdin can be read once: give - a single time")
    check_confidence(early_exit)
    if compile and early_exit:
        raise UsageError("--compile and --early-exit do not go together: single steps are not compiled")
    if output:
        check_file(output, [*(inputs or ()), *filter(None, (from_file, model))])
        if output.suffix.lower() in {*PICTURES, *RECORDINGS, ".onnx", ".safetensors"}:
            raise UsageError(f"--output {output} has the name of what is read, not written: results are texts, as in results.csv")
    format = format or _format_of(output)
    streams = [expand([argument]) for argument in inputs or ()]
    begun = [chain([next(stream)], stream) for stream in streams]  # one without an image is said before a network is loaded
    names = chain(*begun, from_list(from_file) if from_file else ())
    first = next(names, None)
    if first is None:
        raise UsageError(f"the list {from_file} names no input")
    network = open_network(model, backend, device, time_steps, compile, precision, "--early-exit" if early_exit else "")
    config = network.config
    run = (lambda x: network.run.early_exit(x, early_exit)) if early_exit else network.run
    if not quiet:
        note(f"{config.name}: T = {network.time_steps}, {_preprocessing(config)}, {network.where}")

    bar = _Bar(quiet)
    failed = total = steps = 0

    def results() -> Iterator[Prediction]:
        nonlocal failed, total, steps
        for prediction in classify(chain([first], names), run, config, network.time_steps, topk, batch_size):
            total += 1
            steps += prediction.steps
            bar.advance(total)
            if prediction.error:
                failed += 1
                bar.clear()
                note(f"Error: {prediction.error}")
            yield prediction
        bar.clear()

    if output is None:
        _write(results(), format, sys.stdout, chart=True, stops=bool(early_exit))
    else:
        _to_file(output, lambda stream: _write(results(), format, stream, chart=False, stops=bool(early_exit)))
        if not quiet:
            written = total - failed if format is Format.table else total  # in a table errors have no row
            note(f"wrote {written} result{'s' * (written != 1)} to {output}")
    if early_exit and total - failed > 1 and not quiet:
        note(f"{steps / (total - failed):.2f} of {network.time_steps} steps on average")
    if failed:
        if total > 1:
            note(f"{failed} of {total} inputs could not be used")
        raise typer.Exit(1)


def _preprocessing(config) -> str:
    channels, height, width = config.input_size
    if config.event_input:
        return f"{channels} x {height} x {width} event frames"
    return f"shorter side to {height}, centre {height} x {width}, pixels in [0, 1]"


def _format_of(output: Path | None) -> Format:
    suffix = output.suffix.lower().lstrip(".") if output else ""
    return Format(suffix) if suffix in {f.value for f in Format} else Format.table


def _row(prediction) -> dict:
    """One flat row: path, the best class and its probability, the steps taken, then all classes shown."""
    label, p = prediction.top[0] if prediction.top else (None, None)
    return {"path": prediction.name, "label": label, "probability": p and round(p, 6), "time_steps": prediction.steps or None,
            "top": [{"label": name, "probability": round(q, 6)} for name, q in prediction.top], "error": prediction.error or None}


def _flat(row: dict) -> dict:
    return {**row, "top": "; ".join(f"{t['label']} {t['probability']:.4f}" for t in row["top"]), "error": row["error"] or ""}


def _write(predictions: Iterator, format: Format, stream, chart: bool, stops: bool) -> None:
    """Row by row, as they come: memory does not grow with the number of images.

    Args:
        chart: whether a table of one image is a chart; stops: whether a table tells each image's time steps.
    """
    if format is Format.table:
        _write_table(predictions, stream, chart, stops)
        return
    if format is Format.json:
        stream.write("[")
    for i, prediction in enumerate(predictions):
        row = _row(prediction)
        if format is Format.csv:
            stream.write(to_csv([_flat(row)], header=i == 0))
        elif format is Format.jsonl:
            stream.write(to_json(row, stream) + "\n")
        else:
            stream.write((",\n " if i else "\n ") + to_json(row, stream))
        stream.flush()
    if format is Format.json:
        stream.write("\n]\n")


def _write_table(predictions: Iterator, stream, chart: bool, stops: bool) -> None:
    first = next(predictions, None)
    second = next(predictions, None)
    if second is None and first is not None and first.top and chart:
        stream.write(_bars(first) + (f"\n  after {_steps(first)}\n" if stops else "\n"))
        return
    for prediction in chain((p for p in (first, second) if p), predictions):
        if prediction.top:
            shown = "   ".join(f"{label} {100 * p:.1f} %" for label, p in prediction.top)
            stream.write(f"{prediction.name}  {f'{_steps(prediction)}  ' if stops else ''}{shown}\n")
            stream.flush()


def _steps(prediction) -> str:
    return f"{prediction.steps} time step{'s' if prediction.steps > 1 else ''}"


def _bars(prediction) -> str:
    """A small bar chart of one image's classes."""
    wide = max(len(label) for label, _ in prediction.top)
    full, block = 30, "#" if plain(sys.stdout) else "█"
    lines = [prediction.name]
    for label, p in prediction.top:
        lines.append(f"  {label.ljust(wide)} {100 * p:5.1f} %  {block * round(full * p)}".rstrip())
    return "\n".join(lines)


def _to_file(path: Path, write) -> None:
    from ..files import write_atomic

    def at(beside: Path) -> None:
        with beside.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            write(stream)

    try:
        write_atomic(path, at)
    except OSError as error:
        raise ZooError(f"cannot write {path}: {error.strerror}") from error


class _Bar:
    """A count on stderr once it takes long; nothing where stderr is no terminal."""

    def __init__(self, quiet: bool):
        self.on = not quiet and not plain(sys.stderr)
        self.start = self.last = time.monotonic()
        self.shown = False

    def advance(self, done: int) -> None:
        now = time.monotonic()
        if self.on and now - self.start > 2 and now - self.last > 0.2:
            self.last, self.shown = now, True
            print(f"\r{done} images, {done / (now - self.start):.0f} a second", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self.shown = False
