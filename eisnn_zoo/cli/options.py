"""Options that several commands have, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..config import MAX_STEPS

Data = Annotated[Path, typer.Option("--data", help="Folder of the data; what must lie in it is said where it does not.")]
Dataset = Annotated[str | None, typer.Option("--dataset", "-d", help="Default: what it was trained on. folder: your own pictures.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda; for ONNX files tensorrt too.")]
Compile = Annotated[bool, typer.Option("--compile", help="torch.compile the network: a minute, then faster.")]
Precision = Annotated[str, typer.Option("--precision", help="fp32; int8: weights of 8 bits, faster on a CPU, for torch.")]
Steps = Annotated[int | None, typer.Option("--time-steps", "-T", min=1, max=MAX_STEPS, help="Time steps. Default: as trained.")]
