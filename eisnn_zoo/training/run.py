"""A run folder: the resolved recipe, the environment, the metrics, and a checkpoint from which a run goes on exactly.

    recipe.yaml, environment.json      what was asked for, and where it ran
    metrics.csv, curves.png, log.txt   what happened; log.txt is locked by the process that trains
    best/, last/                       config.json and model.safetensors, as every command of the zoo reads them
    checkpoint.safetensors             network, optimizer, averaged weights and progress
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..config import Config, read_config
from ..errors import UsageError, ZooError
from ..files import lock, quoted, to_csv, write_atomic
from ..locating import header_config
from ..machine import device_name
from ..table import WEIGHTS, installed
from ..weights import save_network, write_tensors
from .recipe import Recipe
from .recipe_file import load_recipe

CHECKPOINT = "checkpoint.safetensors"


class Run:
    """Files of one training run, in ``folder``; history holds one row of metrics an epoch."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.history: list[dict] = []

    @classmethod
    def existing(cls, folder: str | Path) -> Run:
        """A run that was begun. Raises UsageError where there is none."""
        for name in ("recipe.yaml", "environment.json"):
            if not (Path(folder) / name).is_file():
                raise UsageError(f"{folder} is no run: it holds no {name}")
        return cls(folder)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While this process writes into the folder. Raises UsageError where another one trains there."""
        with self.log.open("a") as f:
            if not lock(f):
                raise UsageError(f"{self.folder} is being trained by another process: let it end, or choose another --output")
            yield

    def start(self, recipe: Recipe, environment: dict) -> None:
        """Raises UsageError where the folder holds a run that this recipe does not go on with, or one that is going on."""
        begun = self.recipe if (self.folder / "recipe.yaml").exists() else recipe
        if begun != recipe and (key := recipe.departs(begun, self._epochs_begun())):
            raise UsageError(self._another(begun, recipe, key))
        before = {**environment, **self.environment} if self.checkpoint.exists() else environment
        for key, what in (("train_images", "training"), ("valid_images", "validation")):
            if before[key] != environment[key]:
                raise UsageError(f"{self.folder} began with {before[key]} {what} images and the data has {environment[key]}: go on with "
                                 "the data it began with, or choose another --output")
        for key, what in (("data_identity", "images, classes or labels"), ("weights_sha256", f"weights {recipe.weights}"),
                          ("teacher_sha256", f"weights of its teacher {recipe.teacher}")):
            if before.get(key) != environment.get(key):
                raise UsageError(f"{self.folder} began with other {what} than those that are there now: bring those back, or choose "
                                 "another --output")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.alone():
            self._begin(recipe, environment)

    def _begin(self, recipe: Recipe, environment: dict) -> None:
        names = (".recipe.yaml.* .environment.json.* .metrics.csv.* .curves.png.* .checkpoint.safetensors.* .config.json.* "
                 ".model.safetensors.* .tmp??????")
        for folder in (self.folder, self.folder / "best", self.folder / "last"):
            for name in names.split():  # of a process that was killed in a write: ours, and safetensors' own
                for leftover in folder.glob(name):
                    leftover.unlink(missing_ok=True)
        if not self.checkpoint.exists():
            environment = {"run_id": uuid.uuid4().hex, **environment}
            write_atomic(self.folder / "environment.json", json.dumps(environment, indent=2) + "\n")
        write_atomic(self.folder / "recipe.yaml", recipe.dump())

    def _another(self, begun: Recipe, recipe: Recipe, key: str) -> str:
        """Why the run cannot be gone on with by a recipe that differs in this key, and what can be done."""
        if key == "epochs" and recipe.epochs > begun.epochs:
            peaks = {start: peak for start, _, peak in begun.cycles}
            lr = {**peaks, begun.epochs: peaks[max(peaks)] / 2}
            return (f"{self.folder} holds a run of {begun.epochs} epochs, not of {recipe.epochs}: begin another with --output FOLDER, or "
                    f'add epochs with step sizes of their own: {self.resume} --set epochs={recipe.epochs} --set "lr={lr}"')
        return (f"{self.folder} holds a run of another recipe, with another {key}: choose another --output, or leave {key} as it was and "
                f"go on with {self.resume}")

    @property
    def recipe(self) -> Recipe:
        return load_recipe(self.folder / "recipe.yaml")

    @property
    def environment(self) -> dict:
        try:
            return dict(json.loads((self.folder / "environment.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise ZooError(f"{self.folder / 'environment.json'} is missing or damaged: {error}") from error

    @property
    def id(self) -> str:
        """The same when the run is gone on with, another for every other run."""
        return self.environment.get("run_id") or self.recipe.sha256

    @property
    def resume(self) -> str:
        """The command that goes on with it."""
        return f"eisnn-zoo train --resume {quoted(self.folder)}"

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def _epochs_begun(self) -> int:
        if not self.checkpoint.exists():
            return 0
        with self._reading() as f:
            progress = json.loads(f.metadata()["progress"])
            return len(progress["history"]) + (progress["epoch"][0] > 0)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Any]:
        try:
            with safe_open(self.checkpoint, "pt") as f:
                yield f
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ZooError(f"{self.checkpoint} does not fit this run, or is damaged: {error}") from error

    def save_checkpoint(self, parts: dict[str, nn.Module], optimizer: torch.optim.Optimizer, progress: dict) -> None:
        """parts: modules by name. progress: whatever JSON holds."""
        tensors = {f"{name}.{k}": v for name, part in parts.items() for k, v in part.state_dict().items()}
        tensors |= {f"optimizer.{i}.{k}": v for i, s in optimizer.state_dict()["state"].items() for k, v in s.items()
                    if isinstance(v, Tensor)}
        with self.writing(self.checkpoint):
            write_tensors(self.checkpoint, tensors, {"progress": json.dumps({**progress, "history": self.history})})

    def load_checkpoint(self, parts: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict | None:
        """Restores modules, optimizer and history; the progress saved with them, or None where nothing was saved yet."""
        if not self.checkpoint.exists():
            return None
        with self._reading() as f:
            # cloned: sums can depend on where in memory a tensor begins, and a file begins them anywhere
            tensors = {k: f.get_tensor(k).clone() for k in f.keys()}  # noqa: SIM118
            progress = json.loads(f.metadata()["progress"])
            for name, part in parts.items():
                part.load_state_dict({k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")})
            state: dict[int, dict] = {}
            for name, value in tensors.items():
                if name.startswith("optimizer."):
                    _, index, key = name.split(".", 2)
                    state.setdefault(int(index), {})[key] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
            for p, kept in optimizer.state.items():  # torch does not look
                if any(v.dim() == p.dim() and v.shape != p.shape for v in kept.values()):
                    raise ValueError("its optimizer counts the parameters in another order")
            if type(progress["step"]) is not int or not isinstance(progress["history"], list):
                raise TypeError("its progress is none")
        self.history = progress.pop("history")
        return progress

    def epoch_of(self, name: str) -> int:
        """The epoch that the weights in ``name/`` are of; 0 where there are none."""
        folder = self.folder / name
        if not (folder / WEIGHTS).is_file():
            return 0
        raw = header_config(folder / WEIGHTS)  # which comes with the weights in one piece, as config.json beside them does not
        facts = raw.get("eisnn_zoo", {}) if isinstance(raw, dict) else read_config(folder / "config.json").facts
        return facts.get("epoch", 0)

    def record(self, row: dict) -> None:
        self.history.append(row)
        metrics = self.folder / "metrics.csv"
        with self.writing(metrics):
            write_atomic(metrics, to_csv(self.history))

    def save_weights(self, name: str, model: nn.Module, config: Config) -> None:
        """Into ``name/``, as :func:`~eisnn_zoo.weights.save_network` does."""
        folder = self.folder / name
        with self.writing(folder / WEIGHTS):
            folder.mkdir(exist_ok=True)
            save_network(folder, model.state_dict(), config)

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """One of its files. Raises ZooError where that fails."""
        try:
            yield
        except OSError as error:
            if not self.folder.is_dir():
                raise ZooError(f"{path} cannot be written: its folder is gone") from error
            raise ZooError(f"{path} cannot be written ({error.strerror or error}); what was there before is whole: once it can be, go on "
                           f"with {self.resume}") from error


def environment(device: torch.device) -> dict:
    """Versions, device, arithmetic and commit, for the record."""
    from importlib.metadata import version

    from .. import __version__

    try:  # installed, it may lie in somebody else's repository
        commit = "" if installed() else subprocess.run(["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
                                                       cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    versions = {name: version(name) for name in ("torchvision", "timm", "numpy")}
    return {"eisnn_zoo": __version__, "torch": torch.__version__, **versions, "python": platform.python_version(),
            "device_name": device_name(str(device)),
            "threads": torch.get_num_threads(), "processes": int(os.environ.get("WORLD_SIZE", "1")),
            "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32, "commit": commit}
