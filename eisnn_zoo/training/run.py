"""A run folder: the resolved recipe, the environment, the metrics, and a checkpoint from which a run goes on exactly."""

from __future__ import annotations

import csv
import io
import json
import platform
import subprocess
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files import write_atomic
from .recipe import Recipe, load_recipe


class Run:
    """Files of one training run, in ``folder``.

    recipe.yaml, environment.json, metrics.csv, checkpoint.safetensors, and the weights last.safetensors, best.safetensors.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.history: list[dict] = []

    def start(self, recipe: Recipe, environment: dict) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "recipe.yaml", recipe.dump())
        write_atomic(self.folder / "environment.json", json.dumps(environment, indent=2) + "\n")

    @property
    def recipe(self) -> Recipe:
        return load_recipe(self.folder / "recipe.yaml")

    def save_checkpoint(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, best: float) -> None:
        tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
        tensors |= {f"optimizer.{i}.{k}": v for i, s in optimizer.state_dict()["state"].items() for k, v in s.items()
                    if isinstance(v, Tensor)}
        progress = {"step": step, "best": best, "history": self.history}
        _save(tensors, self.folder / "checkpoint.safetensors", {"progress": json.dumps(progress)})

    def load_checkpoint(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
        """Restores model and optimizer; (iterations done, best accuracy), or (0, -1) where nothing was saved yet."""
        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            return 0, -1.0
        with safe_open(path, "pt") as f:
            tensors = {k: f.get_tensor(k) for k in f.keys()}
            progress = json.loads(f.metadata()["progress"])
        model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        state: dict[int, dict] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self.history = progress["history"]
        return progress["step"], progress["best"]

    def record(self, row: dict) -> None:
        self.history.append(row)
        out = io.StringIO()
        writer = csv.DictWriter(out, self.history[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        write_atomic(self.folder / "metrics.csv", out.getvalue())

    def save_weights(self, model: nn.Module, name: str, metadata: dict[str, str]) -> None:
        _save(model.state_dict(), self.folder / f"{name}.safetensors", metadata)


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    write_atomic(path, lambda beside: save_file(tensors, beside, {"format": "pt", **metadata}))


def environment(device: torch.device, precision: str) -> dict:
    """Versions, device and commit, for the record."""
    import numpy

    from .. import __version__

    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True,
                                timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    return {"eisnn_zoo": __version__, "torch": torch.__version__, "numpy": numpy.__version__, "python": platform.python_version(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
            "threads": torch.get_num_threads(), "precision": precision, "commit": commit}


def _processor() -> str:
    try:
        models = [line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else platform.processor() or platform.machine()
