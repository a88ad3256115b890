"""The zoo of excitatory-inhibitory spiking networks (ICLR 2026, arXiv 2509.23253).

Importing this registers every model with timm, in either import order, without importing torch or timm itself:

    import eisnn_zoo, timm
    model = timm.create_model("ei_vgg8_cifar10", pretrained=True)

In plain torch, without timm: ``eisnn_zoo.create_model("ei_vgg8_cifar10", pretrained=True)``.
"""

from __future__ import annotations

from importlib import import_module

from . import _timm_hook

__version__ = "0.1.0"

_PUBLIC = {
    "EIConv2d": "ei", "EILinear": "ei", "EIReadout": "ei", "stabilise": "ei", "project": "ei", "LIF": "neuron", "SURROGATES": "neuron",
    "SpikingVGG": "networks", "SpikingResNet": "networks", "SpikingMLP": "networks", "initialize": "ei_init",
    "fold": "inference.folding", "create_model": "weights", "list_weights": "table", "load_release_state": "release",
    "MODELS": "catalog", "DATASETS": "catalog",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str):
    if name in _PUBLIC:
        value = getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


_timm_hook.install()
