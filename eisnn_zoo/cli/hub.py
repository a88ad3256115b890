"""eisnn-zoo pack and card: from a training run to a published model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ZooError
from .output import note

PACK = """[bold]Example[/bold]

  eisnn-zoo pack runs/zoo_vgg8_cifar10 --tag zoo --data cifar/
"""


def register(app: typer.Typer) -> None:
    app.command("pack", epilog=PACK)(pack)


def pack(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    tag: Annotated[str, typer.Option("--tag", help="Of the weights, as in MODEL.TAG.")],
    data: Annotated[Path, typer.Option("--data", help="Folder with the test images, on which the weights are measured.")],
    name: Annotated[str | None, typer.Option("--name", metavar="MODEL", help="Default: the model of the run's recipe.")] = None,
    weights: Annotated[str, typer.Option("--weights", help="best, last, or a .safetensors file.")] = "best",
    hub: Annotated[Path | None, typer.Option("--hub", help="Folder to write to, with a table weights.toml of its own.")] = None,
) -> None:
    """Make a published model of a run: weights in half precision, measured, with configuration, record and card."""
    from ..packing import pack
    from ..weights import hub_folder

    _needs_training()
    row = pack(run, tag, data, name, weights, hub, say=note)
    print((hub or hub_folder()) / row.folder)
    note(f"{row.name}: {row.top1} % top-1, {row.size / 1e6:.1f} MB")


def _needs_training() -> None:
    missing = [name for name in ("pydantic", "yaml", "matplotlib") if find_spec(name) is None]
    if missing:
        raise ZooError(f"this command needs {', '.join(missing)}: pip install 'eisnn-zoo[train]'")
