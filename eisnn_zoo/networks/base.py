"""What every network of the zoo shares: time, layers of either kind, the head, and timm's model contract.

Activations travel with time and batch merged, ``[T*B, C, H, W]``, time first. A static image enters as ``[B, C, H, W]``
and its first layer is computed once, not T times; frames enter as ``[B, T, C, H, W]``.
"""

# No `from __future__ import annotations` here: fx writes the annotations of forward into the code it generates.
import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..ei import EIConv2d, EILinear, EIReadout
from ..ei_init import initialize
from ..fusing import fused_kernel
from ..layout import as_map
from ..neuron import LIF

_logger = logging.getLogger("eisnn_zoo")

KINDS = {"ei": "excitatory-inhibitory layers", "bn": "convolution and batch normalisation"}


class BNConv2d(nn.Sequential):
    """The baseline's layer: convolution without bias, then batch normalisation."""

    def __init__(self, n_in: int, n_out: int, kernel_size: int, stride: int = 1, device=None, dtype=None):
        like = {"device": device, "dtype": dtype}
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel_size, stride, kernel_size // 2, bias=False, **like)
        self.bn = nn.BatchNorm2d(n_out, **like)


class BNLinear(nn.Sequential):
    def __init__(self, n_in: int, n_out: int, device=None, dtype=None):
        like = {"device": device, "dtype": dtype}
        super().__init__()
        self.linear = nn.Linear(n_in, n_out, bias=False, **like)
        self.bn = nn.BatchNorm1d(n_out, **like)


class Spiking(nn.Module):
    """Synapses and the neurons they drive. Shape: ``[steps*B, ...]`` in, spikes ``[T*B, ...]`` out; steps is T or 1."""

    def __init__(self, current: nn.Module, lif: LIF):
        super().__init__()
        self.current, self.lif = current, lif

    def forward(self, x: Tensor, time_steps: int, steps_in: int) -> Tensor:
        if not torch.jit.is_scripting():
            kernel = fused_kernel(self.current, self.lif, x)
            if kernel is not None:
                current = self.current
                return as_map(kernel(*current.drives(x), current.g_e, current.b_e, self.lif, steps_in, time_steps))
        return self.lif(self.current(x).unflatten(0, (steps_in, -1)), time_steps).flatten(0, 1)


class Cells:
    """Makes layers of one kind with one set of options, so that each architecture is written once.

    Args:
        kind: "ei" or "bn".
        ei_ratio: excitatory cells per inhibitory cell.
        neuron: arguments of :class:`~eisnn_zoo.neuron.LIF`.
    """

    def __init__(self, kind: str, ei_ratio: int, device=None, dtype=None, **neuron):
        if kind not in KINDS:
            raise ValueError(f"unknown kind of network {kind!r}; choose one of {', '.join(KINDS)}")
        self.kind, self.neuron = kind, neuron
        self.like = {"device": device, "dtype": dtype}
        self.ei = {"ei_ratio": ei_ratio, **self.like}

    def conv(self, n_in: int, n_out: int, kernel_size: int, stride: int = 1) -> Spiking:
        current = (EIConv2d(n_in, n_out, kernel_size, stride, **self.ei) if self.kind == "ei"
                   else BNConv2d(n_in, n_out, kernel_size, stride, **self.like))
        return Spiking(current, LIF(**self.neuron))

    def linear(self, n_in: int, n_out: int) -> Spiking:
        current = EILinear(n_in, n_out, **self.ei) if self.kind == "ei" else BNLinear(n_in, n_out, **self.like)
        return Spiking(current, LIF(**self.neuron))

    def readout(self, n_in: int, classes: int) -> nn.Module:
        return EIReadout(n_in, classes, **self.ei) if self.kind == "ei" else nn.Linear(n_in, classes, **self.like)


def merge_time(x: Tensor, time_steps: int) -> tuple[Tensor, int]:
    """``[B, C, H, W]`` as it is and 1 step, or frames ``[B, T, C, H, W]`` as ``[T*B, C, H, W]`` and T steps."""
    if x.dim() == 4:
        return x, 1
    if x.dim() != 5 or x.shape[1] != time_steps:
        raise ValueError(f"expected images [B, C, H, W] or frames [B, T, C, H, W] with T = {time_steps}, got shape "
                         f"{x.shape}; set time_steps to the number of frames")
    return x.transpose(0, 1).flatten(0, 1), time_steps


def split_time(x: Tensor, steps: int) -> Tensor:
    """``[steps*B, C, H, W]`` (or ``[steps*B, C]``) as ``[steps, B, C, H, W]``."""
    x = x.unflatten(0, (steps, -1))
    return x[:, :, :, None, None] if x.dim() == 3 else x


POOLS = ("avg", "max", "avgmax", "")


class SpikingNet(nn.Module):
    """Stages of spiking layers, a pool, and an output layer whose mean over time gives the logits.

    Args:
        num_classes: 0 gives pooled features.
        in_chans: channels of the input.
        time_steps: T. May be changed at any time; frames must come T at a time.
        ei_ratio: excitatory cells per inhibitory cell in every E-I layer.
        tau, threshold, surrogate, alpha, reset: of the neurons, see :class:`~eisnn_zoo.neuron.LIF`.
        drop_rate: dropout before the output layer, in [0, 1).
        global_pool: one of :data:`POOLS`; "" keeps the map, and gives a map of logits.
        event_input: the data are frames ``[B, T, C, H, W]`` of events. A 4-D input is one frame held for T steps.

    Shape: pixels in [0, 1] ``[B, C, H, W]`` (or frames) in, logits ``[B, num_classes]`` out.
    """

    kind: str
    num_features: int

    def __init__(self, kind: str, *, num_classes: int = 10, in_chans: int = 3, time_steps: int = 4, ei_ratio: int = 4,
                 tau: float = 2.0, threshold: float = 1.0, surrogate: str = "sigmoid", alpha: float = 4.0,
                 reset: str = "soft", drop_rate: float = 0.0, global_pool: str = "avg", event_input: bool = False,
                 device=None, dtype=None):
        super().__init__()
        if not 0 <= drop_rate < 1:
            raise ValueError(f"drop_rate must be in [0, 1), got {drop_rate}")
        if time_steps < 1:
            raise ValueError(f"time_steps must be at least 1, got {time_steps}")
        self.kind, self.num_classes, self.in_chans = kind, num_classes, in_chans
        self.time_steps, self.drop_rate, self.event_input = time_steps, drop_rate, event_input
        self.config = dict(num_classes=num_classes, in_chans=in_chans, time_steps=time_steps, ei_ratio=ei_ratio, tau=tau,
                           threshold=threshold, surrogate=surrogate, alpha=alpha, reset=reset, drop_rate=drop_rate,
                           global_pool=global_pool, event_input=event_input)
        cells = Cells(kind, ei_ratio, device, dtype, tau=tau, threshold=threshold, surrogate=surrogate, alpha=alpha,
                      reset=reset)
        self.grad_checkpointing = False
        self.input_levels = 0  # feature levels before the first stage
        self.stages, self.feature_info = self._build(cells)
        self.num_features = self.head_hidden_size = self.feature_info[-1]["num_chs"]
        self._ei_ratio = ei_ratio
        self.global_pool = ""
        self._set_head(num_classes, global_pool, cells)
        # Saved with the weights, so that a network that never saw data is known as such after loading too.
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool, device=device))
        self._ready = kind == "bn"
        self.register_load_state_dict_post_hook(_note_loaded)

    def _build(self, cells: Cells) -> tuple[nn.ModuleList, list[dict]]:
        """The stages, each called as ``stage(x, time_steps, steps_in)``, and timm's description of their outputs."""
        raise RuntimeError(f"{type(self).__name__} does not say how it is built")

    def _set_head(self, num_classes: int, global_pool: str, cells: Cells) -> None:
        if global_pool not in POOLS:
            raise ValueError(f"unknown global_pool {global_pool!r}; choose one of {', '.join(map(repr, POOLS))}")
        self.num_classes, self.global_pool = num_classes, global_pool
        self.config.update(num_classes=num_classes, global_pool=global_pool)
        self.head = cells.readout(self.num_features, num_classes) if num_classes else nn.Identity()

    # ---- forward -----------------------------------------------------------------------------------------------

    def forward_steps(self, x: Tensor) -> Tensor:
        """The last stage's output at every step, ``[T, B, C, H, W]``."""
        if not torch.jit.is_scripting():
            self._check_ready(x)
        x, steps = merge_time(x, self.time_steps)
        for stage in self.stages:
            if self.grad_checkpointing and not torch.jit.is_scripting():
                x = checkpoint(stage, x, self.time_steps, steps, use_reentrant=False)
            else:
                x = stage(x, self.time_steps, steps)
            steps = self.time_steps
        return split_time(x, steps)

    def forward_features(self, x: Tensor) -> Tensor:
        """Mean over time of the last stage's output, ``[B, C, H, W]``: all that the linear output layer needs."""
        return self.forward_steps(x).mean(0)

    def pool(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, C]`` (to itself where global_pool is "")."""
        if self.global_pool == "avg":
            return x.mean((2, 3))
        if self.global_pool == "max":
            return x.amax((2, 3))
        if self.global_pool == "avgmax":
            return 0.5 * (x.mean((2, 3)) + x.amax((2, 3)))
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = F.dropout(self.pool(x), self.drop_rate, self.training)
        if pre_logits or self.num_classes == 0:
            return x
        if self.global_pool == "":  # a map of logits
            return self.head(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_evidence(self, x: Tensor) -> Tensor:
        """Logits of every single step, ``[T, B, num_classes]``; their mean over T is ``forward(x)``."""
        steps = self.forward_steps(x)
        return self.forward_head(steps.flatten(0, 1)).unflatten(0, (steps.shape[0], -1))

    # ---- initialised or not -------------------------------------------------------------------------------------

    @torch.jit.ignore
    def _check_ready(self, x: Tensor) -> None:
        """On the first forward: E-I Init in training, one warning in evaluation. Nothing under a tracer or compiler."""
        if self._ready or torch.compiler.is_compiling() or not isinstance(x, Tensor) or x.device.type == "meta":
            return
        if not self.training:
            self._ready = True
            _logger.warning("%s was neither loaded nor initialised on data: its output means nothing yet. Load weights, or "
                            "call eisnn_zoo.initialize(model, batch, seed).", type(self).__name__)
        elif torch.is_grad_enabled():
            self._ready = True
            try:
                initialize(self, x.detach(), seed=torch.initial_seed() % 2**32)
            except ValueError as error:
                _logger.warning("E-I Init was skipped, the weights keep their assumed statistics: %s", error)

    def load_state_dict_report(self, state: dict[str, Tensor]) -> str:
        """Loads state strictly; what does not fit in a few words, or "" where all did (nothing is loaded otherwise)."""
        own = self.state_dict()
        problems = [f"{key} is missing" for key in own if key not in state]
        problems += [f"{key} does not belong" for key in state if key not in own]
        problems += [f"{key} is {list(state[key].shape)} instead of {list(own[key].shape)}"
                     for key in own if key in state and state[key].shape != own[key].shape]
        if problems:
            return "; ".join(problems[:3]) + (f" and {len(problems) - 3} more" if len(problems) > 3 else "")
        self.load_state_dict(state)
        return ""

    def mark_initialised(self) -> None:
        self.initialised.fill_(True)
        self._ready = True

    # ---- timm's contract ----------------------------------------------------------------------------------------

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.head

    @torch.jit.ignore
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new output layer (constants and draws of E-I Init for assumed statistics) on the network's device and type."""
        like = next(self.parameters(), torch.empty(0))
        cells = Cells(self.kind, self._ei_ratio, like.device, like.dtype)
        self._set_head(num_classes, self.global_pool if global_pool is None else global_pool, cells)
        self.head.train(self.training)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict:
        return {"stem": r"^stages\.0\.", "blocks": r"^stages\.(\d+)\." if coarse else r"^stages\.(\d+)\.\w+\.(\d+)\."}

    @torch.jit.ignore
    def project_(self) -> None:
        """Dale's law in every E-I layer: to be called after each optimizer step."""
        for module in self.modules():
            if module is not self and hasattr(module, "project_"):
                module.project_()

    def _input_taps(self, x: Tensor, steps: int) -> list[Tensor]:
        return []

    @torch.jit.ignore
    def _indices(self, indices) -> tuple[list[int], int]:
        """Feature levels asked for (None: all, n: the last n, or a list; negative from the end), and the last of them."""
        n = len(self.feature_info)
        if indices is None:
            chosen = list(range(n))
        elif isinstance(indices, int):
            if not 0 < indices <= n:
                raise ValueError(f"last {indices} feature levels asked for, the network has {n}")
            chosen = list(range(n - indices, n))
        else:
            chosen = [i + n if i < 0 else i for i in indices]
            if not all(0 <= i < n for i in chosen):
                raise ValueError(f"feature levels {list(indices)} asked for, the network has {n}")
        return chosen, max(chosen)

    @torch.jit.ignore
    def forward_intermediates(self, x: Tensor, indices=None, norm: bool = False, stop_early: bool = False,
                              output_fmt: str = "NCHW", intermediates_only: bool = False):
        """timm's feature extraction; a level is the mean over time of a stage's output, ``[B, C, H, W]``."""
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be NCHW, got {output_fmt!r}")
        chosen, last = self._indices(indices)
        self._check_ready(x)
        x, steps = merge_time(x, self.time_steps)
        taps = self._input_taps(x, steps)
        for stage in self.stages:
            if stop_early and len(taps) > last:
                break
            if self.grad_checkpointing:
                x = checkpoint(stage, x, self.time_steps, steps, use_reentrant=False)
            else:
                x = stage(x, self.time_steps, steps)
            steps = self.time_steps
            taps.append(split_time(x, steps).mean(0))
        intermediates = [taps[i] for i in chosen]
        return intermediates if intermediates_only else (split_time(x, steps).mean(0), intermediates)

    @torch.jit.ignore
    def prune_intermediate_layers(self, indices=1, prune_norm: bool = False, prune_head: bool = True) -> list[int]:
        """Drops the stages after the last level asked for, and the head."""
        chosen, last = self._indices(indices)
        self.stages = self.stages[: max(0, last + 1 - self.input_levels)]
        if prune_head:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
            self.reset_classifier(0)
        return chosen


def _note_loaded(net: SpikingNet, _keys) -> None:
    if net.kind == "ei" and net.initialised.device.type != "meta":
        net._ready = bool(net.initialised)
