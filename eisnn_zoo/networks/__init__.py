"""The architectures, in plain torch, and building one by its name."""

from __future__ import annotations

from ..catalog import MODELS
from .base import SpikingNet
from .mlp import SpikingMLP
from .resnet import SpikingResNet
from .vgg import SpikingVGG

FAMILIES = {"vgg": SpikingVGG, "resnet": SpikingResNet, "mlp": SpikingMLP}

__all__ = ["FAMILIES", "SpikingMLP", "SpikingNet", "SpikingResNet", "SpikingVGG", "build"]


def build(name: str, **options) -> SpikingNet:
    """A network of the catalog, not trained; options override what the name fixes (see :class:`SpikingNet`).

    Raises:
        KeyError: unknown name. TypeError, ValueError: an option that is none, or an impossible value.
    """
    model = MODELS[name]
    return FAMILIES[model.family](model.depth, model.kind, **{**model.options, **options})
