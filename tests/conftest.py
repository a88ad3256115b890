import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach a network by accident
sys.path.insert(0, str(Path(__file__).parent / "golden"))

DATA = Path(__file__).parent / "data"
since_torch_2_7 = pytest.mark.skipif(Version(version("torch")) < Version("2.7"), reason="torch 2.6 exports no such networks, and prints")


def released(name: str, dtype=None) -> dict:
    """Weights under the names of the authors' checkpoints, drawn as for the golden file of this name; float32 where dtype is None."""
    import draw
    import torch

    golden = json.loads((Path(__file__).parent / "golden" / f"{name}.json").read_text())
    return {key: torch.from_numpy(value).to(dtype or torch.float32) for key, value in draw.state(golden).items()}


@pytest.fixture
def cli(monkeypatch, capsys):
    """Runs the command line in this process: cli("list", "--format", "json") -> (exit code, stdout, stderr)."""

    def run(*arguments: object, stdin: bytes | None = None):
        import io

        from eisnn_zoo.cli import main

        monkeypatch.setattr(sys, "argv", ["eisnn-zoo", *map(str, arguments)])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


@pytest.fixture
def without_torch(tmp_path_factory):
    """Runs the command line in a process of its own in which, and in whose children, neither torch nor timm can be imported."""
    folder = tmp_path_factory.mktemp("blocked")
    for name in ("torch", "timm", "torchvision", "onnx"):
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} is blocked here')\n")

    def run(*arguments: object) -> subprocess.CompletedProcess:
        path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.run([sys.executable, "-m", "eisnn_zoo", *map(str, arguments)], capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": path})

    return run


@pytest.fixture
def model_folder(tmp_path):
    """A published-model folder with an untrained but initialised network: model_folder("ei_vgg8_cifar10")."""
    def make(name: str, tag: str = "test", folder: Path | None = None, size: int | None = None, **options) -> Path:
        from dataclasses import replace

        import torch

        from eisnn_zoo.config import base_config, find_model
        from eisnn_zoo.networks import build
        from eisnn_zoo.weights import save_network

        torch.manual_seed(1)
        network = build(name, **options)
        if network.kind == "ei":
            network.mark_initialised()
        base = base_config(find_model(name), tag)
        folder = folder or tmp_path / f"{name}.{tag}"
        folder.mkdir(parents=True, exist_ok=True)
        save_network(folder, network.state_dict(), replace(base, options={**base.options, **options}, size=size))
        return folder

    return make
