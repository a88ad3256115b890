"""What every network of the zoo shares: time, the head, and timm's model contract.

Activations travel with time and batch merged, ``[T*B, C, H, W]``, time first. A static image enters as ``[B, C, H, W]``
and its first layer is computed once, not T times; frames enter as ``[B, T, C, H, W]``.
"""

# No `from __future__ import annotations` here: fx writes the annotations of forward into the code it generates.
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..catalog import TIME_STEPS
from ..ei import project
from ..shapes import EI_RATIO
from .cells import Cells
from .readiness import Readiness


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


def at_depth(options: dict[int, Any], depth: int) -> Any:
    """What an architecture has at this depth. Raises ValueError."""
    if depth not in options:
        raise ValueError(f"there is no depth {depth}; choose one of {', '.join(map(str, options))}")
    return options[depth]


POOLS = ("avg", "")  # linear: the mean over time may be taken before the pool, and is


class SpikingNet(Readiness):
    """Stages of spiking layers, a pool, and an output layer whose mean over time gives the logits.

    Args:
        kind: "ei", "bn" (BatchNorm in place of inhibition) or "ann" (that, without spikes).
        num_classes: 0 gives pooled features.
        in_chans: channels of the input.
        time_steps: T. May be changed at any time; frames must come T at a time.
        ei_ratio: excitatory cells per inhibitory cell in every E-I layer.
        stabilisation: of the division in every E-I layer, see :func:`~eisnn_zoo.ei.stabilise`.
        tau, threshold, surrogate, alpha, reset: of the neurons, see :class:`~eisnn_zoo.neuron.LIF`.
        drop_rate: dropout before the output layer, in [0, 1).
        global_pool: one of :data:`POOLS`; "" keeps the map, and gives a map of logits.
        event_input: the data are frames ``[B, T, C, H, W]`` of events. A 4-D input is one frame held for T steps.
        device, dtype: of the parameters, as torch's layers take them.

    Shape: pixels in [0, 1] ``[B, C, H, W]`` (or frames) in, logits ``[B, num_classes]`` out.

    Raises:
        ValueError: no such kind, depth or pool; a number out of its range.
    """

    num_features: int
    pooled = 1  # spikes of which a stage hands on the mean, where it ends in a pool
    pretrained_cfg: dict[str, Any]  # timm's, and under its older name; of networks that have a name in the catalog
    default_cfg: dict[str, Any]
    __jit_unused_properties__ = ["config", "_model_args"]

    def __init__(self, kind: str, *, num_classes: int = 10, in_chans: int = 3, time_steps: int = TIME_STEPS, ei_ratio: int = EI_RATIO,
                 stabilisation: str = "adaptive", tau: float = 2.0, threshold: float = 1.0, surrogate: str = "sigmoid", alpha: float = 4.0,
                 reset: str = "soft", drop_rate: float = 0.0, global_pool: str = "avg", event_input: bool = False,
                 device=None, dtype=None):
        super().__init__()
        if not 0 <= drop_rate < 1:
            raise ValueError(f"drop_rate must be in [0, 1), got {drop_rate}")
        if time_steps < 1:
            raise ValueError(f"time_steps must be at least 1, got {time_steps}")
        self.kind, self.num_classes, self.in_chans = kind, num_classes, in_chans
        self.time_steps, self.drop_rate, self.event_input = time_steps, drop_rate, event_input
        neuron = dict(tau=tau, threshold=threshold, surrogate=surrogate, alpha=alpha, reset=reset)
        self._fixed: dict[str, Any] = dict(
            in_chans=in_chans, ei_ratio=ei_ratio, stabilisation=stabilisation, **neuron, event_input=event_input)
        cells = Cells(kind, ei_ratio, stabilisation, device, dtype, **neuron)
        self.grad_checkpointing = False
        self.input_levels = 0  # feature levels before the first stage
        self.stages, self.feature_info = self._build(cells)
        self.num_features = self.head_hidden_size = self.feature_info[-1]["num_chs"]
        self._set_head(num_classes, global_pool, cells)
        self._note_made(device)

    def _build(self, cells: Cells) -> tuple[nn.ModuleList, list[dict]]:
        """The stages, each called as ``stage(x, time_steps, steps_in)``, and timm's description of their outputs."""
        raise RuntimeError(f"{type(self).__name__} does not say how it is built")

    def _set_head(self, num_classes: int, global_pool: str, cells: Cells) -> None:
        if global_pool not in POOLS:
            raise ValueError(f"unknown global_pool {global_pool!r}; choose one of {', '.join(map(repr, POOLS))}")
        self.num_classes, self.global_pool = num_classes, global_pool
        self.head = cells.readout(self.num_features, num_classes) if num_classes else nn.Identity()

    @property
    def config(self) -> dict[str, Any]:
        """The options of a network like this one, with the T, dropout, classes and pool that it has now."""
        return {**self._fixed, "num_classes": self.num_classes, "global_pool": self.global_pool, "time_steps": self.time_steps,
                "drop_rate": self.drop_rate}

    @property
    def _model_args(self) -> dict[str, Any]:
        """What timm saves with the weights."""
        return self.config

    @_model_args.setter
    def _model_args(self, given: dict[str, Any]) -> None:
        """timm notes with which options it made the network; T and others may change afterwards."""

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
        return x.mean((2, 3)) if self.global_pool == "avg" else x

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
        """Logits of every single step, ``[T, B, num_classes]``; in evaluation mode their mean over T is ``forward(x)``, to rounding."""
        steps = self.forward_steps(x)
        return self.forward_head(steps.flatten(0, 1)).unflatten(0, (steps.shape[0], -1))

    # ---- timm's contract ----------------------------------------------------------------------------------------

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.head

    @torch.jit.ignore
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new output layer (constants and draws of E-I Init for assumed statistics) on the network's device and type."""
        like = next(self.parameters(), torch.empty(0))
        cells = Cells(self.kind, self._fixed["ei_ratio"], device=like.device, dtype=like.dtype)
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
        """Dale's law in every E-I layer: to be called after each step of an optimizer that does not do so itself."""
        project(self)

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
        self.feature_info = self.feature_info[: last + 1]
        if prune_head:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
            self.reset_classifier(0)
        return chosen
