"""docs/api.md: the public names, with the docstrings that stand in the code.

    python docs/api.py
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType

from eisnn_zoo.files import write_atomic

PAGE = Path(__file__).parent / "api.md"
HEAD = """# From Python

What `import eisnn_zoo` offers, and what lies in its parts; the text is that of the docstrings (`python docs/api.py`). Every network
is a timm model too: `timm.create_model("ei_resnet18_cifar10", pretrained=True)` after `import eisnn_zoo`.
"""
PARTS = {
    "Networks and weights": ("eisnn_zoo", ("create_model", "list_weights", "MODELS", "DATASETS", "SpikingVGG", "SpikingResNet",
                                           "SpikingMLP", "initialize", "fold", "load_release_state")),
    "Options of every network": ("eisnn_zoo.networks", ("SpikingNet",)),
    "Layers and neurons": ("eisnn_zoo", ("EIConv2d", "EILinear", "EIReadout", "LIF", "SURROGATES", "stabilise", "project")),
    "Optimizers": ("eisnn_zoo.training.optim", ("EIMuon", "ProjectedSGD", "orthogonalise", "deflate")),
    "Looking inside": ("eisnn_zoo.analysis", ("QUANTITIES", "record", "stream", "probe", "Activity", "spiking_layers")),
    "Measures": ("eisnn_zoo.analysis.measures", ("FiringRates", "Balance", "ZeroDivisors", "SpikeTrains")),
    "Interventions": ("eisnn_zoo.analysis.interventions", (
        "lesion", "scale_g_i", "scale_subtraction", "mean_divisors", "fixed_division", "flip_signs", "weight_noise", "input_noise",
        "input_contrast", "drop_events", "drop_spikes", "accuracy", "curve")),
}
CONSTANTS = {"MODELS": "catalog", "DATASETS": "catalog", "SURROGATES": "neuron", "QUANTITIES": "analysis.probes"}  # and their files


def _text(doc: str) -> str:
    """A docstring without what only Sphinx understands."""
    return re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", doc).replace("``", "`")


def _of_constant(module: ModuleType, name: str) -> str:
    """The text below an assignment."""
    body = ast.parse(inspect.getsource(module)).body
    for statement, below in pairwise(body):
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if any(isinstance(t, ast.Name) and t.id == name for t in targets) and isinstance(below, ast.Expr):
            return inspect.cleandoc(ast.literal_eval(below.value))
    raise ValueError(f"{module.__name__}.{name} is not described below its assignment")


def _entry(place: str, name: str) -> str:
    value = getattr(import_module(place), name)
    if name in CONSTANTS:
        doc = _text(_of_constant(import_module(f"eisnn_zoo.{CONSTANTS[name]}"), name))
        return f"### `{name}`\n\n```text\n{doc}\n```" + (f"\n\n{', '.join(f'`{key}`' for key in value)}" if len(value) < 20 else "")
    doc, methods = inspect.getdoc(value), ""
    for key, member in vars(value).items() if inspect.isclass(value) else ():
        function = inspect.unwrap(member) if callable(member) else member
        if inspect.isfunction(function) and function.__doc__ and not key.startswith("_"):
            said = " ".join(inspect.getdoc(function).partition("\n\n")[0].split())
            methods += f"\n- `{key}{_signature(function)}`: {_text(said)}"
    return f"### `{name}`\n\n```python\n{name}{_signature(value)}\n```\n\n```text\n{_text(doc)}\n```" + (f"\n{methods}" if methods else "")


def _signature(function: Callable) -> str:
    """As it is called, its types without the quotes in which Python keeps them."""
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(function))).replace("(self, ", "(").replace("(self)", "()")


def page() -> str:
    parts = [f"## {title}\n\n`from {place} import ...`\n\n" + "\n\n".join(_entry(place, name) for name in names)
             for title, (place, names) in PARTS.items()]
    return HEAD + "\n" + "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    write_atomic(PAGE, page())
