"""The table of results: one row a measurement, written by commands only."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

from ..errors import ZooError
from ..files import add_rows, sha256
from ..inference.torch_runtime import TorchModel
from ..locating import locate
from ..table import WEIGHTS
from .evaluation import Scores, evaluate
from .reading import Labelled
from .run import Run

COLUMNS = ("model", "recipe", "weights_sha256", "dataset", "test_rows", "test_sha256", "train_rows", "validation", "time_steps",
           "precision", "top1_last", "top1_best", "top5_last", "paper_top1", "paper_source", "seed", "epochs", "recipe_sha256",
           "commit", "eisnn_zoo", "torch", "device", "threads", "training_seconds", "images_per_s", "peak_memory_mb")
KEY = ("weights_sha256", "test_sha256")  # of which there is one row


def measure(run: Run, name: str, test: Labelled, device: str, memory: int | None = None) -> dict:
    """A row: the run's last and best weights on the test images, in float32, by the code that predicts, beside the paper's figure.

    Best is the epoch that did best on the run's validation images; where those are the test images, as in the paper's
    release, that figure is the better for it.

    Args:
        memory: bytes that training held at most, where known.
    """
    recipe, environment = run.recipe, run.environment
    digests = {which: sha256(run.folder / which / WEIGHTS) for which in ("last", "best")}
    scores: dict[str, Scores] = {}  # by digest: the last epoch may be the best
    for which, digest in digests.items():
        weights = locate(str(run.folder / which))
        scores[digest] = scores.get(digest) or evaluate(TorchModel(weights, device), test, weights.config.input_size[1])
    last, best = (scores[digests[which]] for which in ("last", "best"))
    history = run.history
    speed = [row["images_per_s"] for epoch, row in enumerate(history) if recipe.comparable(epoch)]
    paper, source = recipe.paper
    values = (
        recipe.model, name, digests["last"], recipe.dataset, len(test), test.sha256,
        environment["train_images"], environment["validation"], recipe.final_steps, recipe.precision,
        round(last.top1, 2), round(best.top1, 2), round(last.top5, 2), paper, source, recipe.seed,
        len(history), sha256(run.folder / "recipe.yaml"), environment["commit"], environment["eisnn_zoo"], environment["torch"],
        environment["device_name"], environment["threads"], round(sum(row["seconds"] for row in history)),
        round(statistics.median(speed), 1), round(memory / 2**20) if memory else None)
    return dict(zip(COLUMNS, values, strict=True))


def read_table(path: Path) -> list[dict]:
    """The rows of a table of results; none where there is no file yet. Raises ZooError where the file is something else."""
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as f:
            reader = csv.DictReader(f)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ZooError(f"{path} cannot be read as a table of results ({reason}): name another file") from error
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ZooError(f"{path} is no table of results: its columns are not those of one; name another file")
    return rows


def append(row: dict, path: Path) -> None:
    """Adds a row to the table; a row of the same weights and test images is replaced, but what only their training could know stays.

    Raises:
        ZooError: the file is another table.
    """
    before = next((r for r in read_table(path) if all(r[key] == row[key] for key in KEY)), None)
    if before and row["peak_memory_mb"] is None:
        row = {**row, "peak_memory_mb": before["peak_memory_mb"]}
    add_rows(path, KEY, [row])
