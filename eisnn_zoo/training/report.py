"""What a person sees of a run while it goes on: a bar, a log, and the trackers of others where they are wanted."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import UsageError
from .recipe import Recipe
from .run import Run

log = logging.getLogger("eisnn_zoo.training")
Hook = Callable[[dict, int], object]  # metrics of an epoch, and iterations done


class _LogFile(logging.FileHandler):
    """Says once where it cannot be written; the training, whose checkpoints matter more, goes on."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self.failed:
            print(f"{self.baseFilename} cannot be written ({sys.exc_info()[1]}): training goes on without", file=sys.stderr)
        self.failed = True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """The training log, also into a file."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)  # an attribute of it alone would leave what loggers keep
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()


class Bar:
    """Progress on stderr: loss, accuracy, images a second, time left. Nothing where stderr is no terminal."""

    def __init__(self, total: int, done: int, show: bool):
        self.progress = None
        if show and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self.progress = Progress(TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(),
                                     TimeRemainingColumn(), console=Console(stderr=True), refresh_per_second=2)
            self.task = self.progress.add_task("", total=total, completed=done)
            self.progress.start()

    def update(self, done: int, text: str) -> None:
        if self.progress:
            self.progress.update(self.task, completed=done, description=text)

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self.progress:
            self.progress.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.progress:
            self.progress.stop()


TRACKERS = {"tensorboard": "torch.utils.tensorboard", "trackio": "trackio", "wandb": "wandb"}


def check_trackers(names: Iterable[str]) -> None:
    """Raises UsageError: an unknown name, or its package is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"cannot report to {name!r}; choose among {', '.join(TRACKERS)}")
        try:
            importlib.import_module(TRACKERS[name])
        except ImportError as error:
            raise UsageError(f"{name} is not installed: pip install {name} "
                             '(pip install "eisnn-zoo[track]" has all three)') from error


def tracker(name: str, run: Run, recipe: Recipe) -> Hook:
    """A hook that sends each epoch's metrics to one of TRACKERS, where a run that is gone on with stays one run.

    Raises:
        UsageError: it cannot start, as Weights & Biases where nobody is logged in.
    """
    module = importlib.import_module(TRACKERS[name])
    if name == "tensorboard":
        writer = module.SummaryWriter(str(run.folder / "tensorboard"))

        def write(row: dict, step: int) -> None:
            for key, value in row.items():
                writer.add_scalar(key, float(value), step)
            writer.flush()

        return write
    try:
        # Trackio knows a run by its name, Weights & Biases by an id.
        known = {"name": run.folder.name, "id": run.id} if name == "wandb" else {"name": f"{run.folder.name}-{run.id[:6]}"}
        sent = module.init(project="eisnn-zoo", config=recipe.model_dump(), resume="allow", **known)
    except Exception as error:  # each package has its own kinds
        offline = " (WANDB_MODE=offline keeps everything on this machine)" if name == "wandb" else ""
        raise UsageError(f"{name} cannot start: {error}{offline}") from error
    return lambda row, step: sent.log(row, step=step)
