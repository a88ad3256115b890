"""eisnn-zoo list and info: what is there, and what is known about it."""

from __future__ import annotations

import fnmatch
import os
from enum import Enum
from typing import Annotated

import typer

from ..catalog import ARXIV, DATASETS, MODELS, PAPER
from ..errors import UsageError
from .output import Format, Whole, note, render, table, to_json

EPILOG = """[bold]Examples[/bold]

  eisnn-zoo list --pretrained

  eisnn-zoo list "*resnet*" --dataset cifar10 --sort params

  eisnn-zoo info ei_vgg8_cifar10
"""


class Sort(str, Enum):
    name = "name"
    params = "params"
    top1 = "top1"


def register(app: typer.Typer) -> None:
    app.command("list", epilog=EPILOG)(list_models)
    app.command("info", epilog=EPILOG)(info)


def list_models(
    pattern: Annotated[str | None, typer.Argument(help='Part of a name, or a pattern such as "ei_vgg*".', show_default=False)] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help=f"One of {', '.join(DATASETS)}.")] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", "-p", help="Only models with trained weights, one row for each.")] = False,
    min_acc: Annotated[float | None, typer.Option("--min-acc", help="Only weights of at least this top-1 accuracy, in %.")] = None,
    max_params: Annotated[float | None, typer.Option("--max-params", help="Only models with at most this many million parameters.")] = None,
    sort: Annotated[Sort, typer.Option("--sort", "-s", help="Order of the rows.")] = Sort.name,
    format: Annotated[Format, typer.Option("--format", "-f")] = Format.table,
) -> None:
    """Show the models, their sizes and their trained weights."""
    from ..count import count
    from ..table import taken, weights_of

    if dataset is not None and dataset not in DATASETS:
        raise UsageError(f"there is no dataset {dataset!r}: choose one of {', '.join(DATASETS)}")
    rows = []
    for model in MODELS.values():
        if dataset and (model.dataset is None or model.dataset.name != dataset):
            continue
        params = count(model).params / 1e6
        if max_params is not None and params > max_params:
            continue
        weights = [w for w in weights_of(model.name) if min_acc is None or w.top1 >= min_acc]
        if pattern and not _fits(model.name, pattern):
            weights = [w for w in weights if _fits(w.name, pattern)]  # as "*.paper"
            if not weights:
                continue
        if (pretrained or min_acc is not None) and not weights:
            continue
        base = {"dataset": model.dataset.title if model.dataset else None, "params_m": round(params, 2),
                "time_steps": model.time_steps}
        if pretrained or min_acc is not None:
            rows += [{"model": w.name, **base, "time_steps": w.steps, "top1": w.top1,
                      "weights": "here" if w.local else "on the Hub"} for w in weights]
        else:
            row = taken(weights)
            top1, tags = row.top1 if row else None, ", ".join(w.tag for w in weights)
            rows.append({"model": model.name, **base, "top1": top1, "weights": tags or None})
    if not rows:
        raise UsageError("no model fits; `eisnn-zoo list` without options shows all")
    key = {Sort.name: None, Sort.params: lambda r: r["params_m"], Sort.top1: lambda r: -(r["top1"] or -1)}[sort]
    if key:
        rows.sort(key=key)
    print(render(rows, format, {"model": "model", "dataset": "dataset", "params_m": "params (M)", "time_steps": "T",
                                "top1": "top-1 (%)", "weights": "weights"}))
    if format is Format.table:
        note(f"\n{len(rows)} rows. top-1 of the tag paper: the authors' released checkpoint, best epoch on the test set.")


def _fits(name: str, pattern: str) -> bool:
    return fnmatch.fnmatch(name, pattern) or pattern in name


def info(
    model: Annotated[str, typer.Argument(help="Name, with or without a tag.")],
    format: Annotated[Whole, typer.Option("--format", "-f")] = Whole.table,
) -> None:
    """Show all that is known about one model."""
    from ..count import count
    from ..table import rows_of

    if model.partition(".")[0] not in MODELS and os.path.exists(model):
        raise UsageError(f"info knows the zoo's own models, not {model}: eisnn-zoo verify {model} checks weights, eval measures them")
    entry, weights = rows_of(model)
    counted = count(entry)
    channels, height, width = entry.input_size
    steps = entry.time_steps
    facts = {
        "model": entry.name,
        "architecture": entry.title,
        "dataset": entry.dataset.title if entry.dataset else None,
        "parameters": counted.params,
        "macs_per_inference": counted.macs(steps),
        "time_steps": steps,
        "classes": entry.options["num_classes"],
        "labels": _few(entry.dataset.label_names) if entry.dataset else None,
        "input": f"{steps} event frames of {channels} x {height} x {width}" if entry.event_input
                 else f"{channels} x {height} x {width}, pixels in [0, 1], no mean or std",
        "preprocessing": None if entry.event_input else f"shorter side to {height} (bilinear), centre crop",
        "paper": f"{PAPER}, arXiv:{ARXIV}",
    }
    rows = [{"tag": w.tag, "top1": w.top1, "obtained": w.obtained, "time_steps": w.steps,
             "macs_per_inference": counted.macs(w.steps), "recipe": w.recipe or None,
             "trained": w.trained or None,
             "source": str(w.local) if w.local else f"{w.repo}/{w.file} on the Hub", "size_mb": round(w.size / 1e6, 1) if w.size else None,
             "sha256": w.sha256 or None, "license": w.license} for w in weights]
    if format is Whole.json:
        print(to_json({**facts, "weights": rows}, indent=2))
        return
    shown = {**facts, "parameters": f"{counted.params:,}", "macs_per_inference": f"{counted.macs(steps) / 1e6:,.0f} million"}
    lines = [{"key": k.replace("_", " "), "value": v} for k, v in shown.items() if v is not None]
    print(table(lines, {"key": "", "value": ""}))
    if not rows:
        print("\nno trained weights yet")
    for row in rows:
        row.update(top1=f"{row['top1']:.2f} %", macs_per_inference=f"{row['macs_per_inference'] / 1e6:,.0f} million")
        print(f"\nweights {entry.name}.{row['tag']}")
        shown = {k.replace("_", " ").replace("top1", "top-1"): v for k, v in row.items() if v is not None and k != "tag"}
        print("\n".join(f"  {k.ljust(max(map(len, shown)))}  {v}" for k, v in shown.items()))


def _few(labels: tuple[str, ...], most: int = 10) -> str:
    return ", ".join(labels[:most]) + (f" and {len(labels) - most} more" if len(labels) > most else "")
