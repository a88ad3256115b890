"""Every model of the catalog as a timm model. timm imports this (see _timm_hook) and lists it as module "eisnn"."""

from __future__ import annotations

from pathlib import Path

import torch
from timm.layers import register_notrace_function, register_notrace_module
from timm.models import PretrainedCfg, build_model_with_cfg, generate_default_cfgs, register_model

from . import convolution, ei, neuron, precision
from .catalog import MODELS, Model
from .config import feature_levels, timm_cfg
from .locating import config_with, locate_name
from .networks import FAMILIES
from .networks.base import merge_time, split_time
from .networks.cells import LAYERS
from .networks.mlp import numbers
from .networks.vgg import halve
from .table import Weights, weights_of
from .weights import adapt_state

# Loops over time and choices by shape are no graph that fx could trace.
for module in (*LAYERS, neuron.LIF):
    register_notrace_module(module)
for function in (ei.stabilise, ei.scale_gradient, convolution.conv2d, precision.matmul_full, precision.full_precision,
                 merge_time, split_time, halve, numbers):
    register_notrace_function(function)

SOURCES = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename")
"""timm's fields for where weights lie."""


def _cfgs(model: Model) -> dict[str, dict]:
    """timm's entries of a model, one per tag, in the order in which a name without a tag tries them."""
    rows = sorted(weights_of(model.name), key=lambda w: w.local is None)
    return {w.name: {**timm_cfg(model), **_source(w)} for w in rows} or {model.name: timm_cfg(model)}


def _source(w: Weights) -> dict:
    source = {"file": str(w.local)} if w.folder else {"hf_hub_id": w.repo, "hf_hub_filename": w.file}
    return {**source, "license": w.license, "notes": f"top-1 {w.top1} %: {w.obtained}"}


default_cfgs = generate_default_cfgs({key: cfg for model in MODELS.values() for key, cfg in _cfgs(model).items()})


def _filter(state: dict, network) -> dict:
    """Names of the release mapped, values checked, and a fully connected first layer adapted to other channels."""
    state = adapt_state(state, network.pretrained_cfg["architecture"], ei_ratio=network.config["ei_ratio"])
    first, old = network.pretrained_cfg["first_conv"], network.pretrained_cfg["input_size"][0]
    for key in (f"{name}.weight" for name in ((first,) if isinstance(first, str) else first)):
        if key in state and network.in_chans != old:
            state[key] = state[key].to(torch.promote_types(state[key].dtype, torch.float32))  # sums of halves would be rounded to halves
            if state[key].dim() == 2:
                planes = state[key].unflatten(1, (old, -1)).sum(1, keepdim=True) / network.in_chans
                state[key] = planes.expand(-1, network.in_chans, -1).flatten(1)
    return state


def _ours(model: Model, cfg: str | dict | PretrainedCfg | None) -> str | None:
    """The name of the weights in our table that timm's ``pretrained_cfg`` stands for; None where it stands for others."""
    if cfg is None or isinstance(cfg, str):
        return f"{model.name}.{cfg}" if cfg else model.name
    fields = cfg if isinstance(cfg, dict) else vars(cfg)
    where = {key: fields[key] for key in SOURCES if fields.get(key)}
    if not where and not isinstance(cfg, dict) and not cfg.source:
        return f"{model.name}.{cfg.tag}" if cfg.tag else model.name
    return next((w.name for w in weights_of(model.name) if where and where.items() <= _source(w).items()), None)


def _create(model: Model, pretrained: bool, pretrained_cfg=None, pretrained_cfg_overlay=None, **kwargs):
    if kwargs.get("feature_cls", "getter") not in ("getter", None):
        raise ValueError(f"feature_cls {kwargs['feature_cls']!r}: spiking networks give features by 'getter', as means over time")
    overlay = dict(pretrained_cfg_overlay or {})
    given, config = any(overlay.get(k) for k in SOURCES), None
    if pretrained and not given and (name := _ours(model, pretrained_cfg)):  # the same look-up and checks as everywhere else
        located = locate_name(name, cache_dir=kwargs.get("cache_dir"))
        overlay |= {**dict.fromkeys(SOURCES), "file": str(located.path)}
        config = located.config
    elif given:  # and nothing of where our weights lie
        overlay = {**dict.fromkeys(SOURCES), **overlay}
        if overlay["file"] and str(overlay["file"]).endswith(".safetensors"):
            config = config_with(Path(overlay["file"]))
    if config:  # classes and channels for timm to compare with those asked for; T and the like for the network
        overlay = {"num_classes": config.options["num_classes"], "input_size": config.input_size, **overlay}
        kwargs = {**config.options, **kwargs}
    return build_model_with_cfg(
        FAMILIES[model.family], model.name, pretrained, pretrained_cfg=pretrained_cfg, pretrained_cfg_overlay=overlay,
        pretrained_filter_fn=_filter, feature_cfg={"out_indices": tuple(range(feature_levels(model))), "feature_cls": "getter"},
        depth=model.depth, kind=model.kind, **{**model.options, **kwargs})


def _register(model: Model) -> None:
    def create(pretrained: bool = False, **kwargs):
        return _create(model, pretrained, **kwargs)

    create.__name__ = create.__qualname__ = model.name
    create.__module__ = __name__
    create.__doc__ = f"{model.title}" + (f" for {model.dataset.title}." if model.dataset else ".")
    globals()[model.name] = register_model(create)


for _model in MODELS.values():
    _register(_model)
