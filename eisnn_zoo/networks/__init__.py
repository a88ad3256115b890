"""The architectures, in plain torch, and building one by its name."""

from __future__ import annotations

from ..catalog import MODELS
from ..config import timm_cfg
from .base import SpikingNet
from .mlp import SpikingMLP
from .resnet import SpikingResNet
from .vgg import SpikingVGG

FAMILIES = {"vgg": SpikingVGG, "resnet": SpikingResNet, "mlp": SpikingMLP}

__all__ = ["FAMILIES", "SpikingMLP", "SpikingNet", "SpikingResNet", "SpikingVGG", "build", "describe"]


def build(name: str, **options) -> SpikingNet:
    """A network of the catalog, not trained; options override what the name fixes (see :class:`SpikingNet`).

    Raises:
        KeyError: unknown name. TypeError, ValueError: an option that is none, or an impossible value.
    """
    model = MODELS[name]
    network = FAMILIES[model.family](model.depth, model.kind, **{**model.options, **options})
    describe(network, name, timm_cfg(model))
    return network


def describe(network: SpikingNet, name: str, cfg: dict) -> None:
    """Tells timm, where it is asked, how pixels reach this network and what its classes are, as of a network that timm made."""
    network.pretrained_cfg = network.default_cfg = {**cfg, "architecture": name}
