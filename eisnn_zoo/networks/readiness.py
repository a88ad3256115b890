"""Whether a network's weights mean something: drawn by E-I Init on the first training batch, loaded, or neither, which is said."""

# No `from __future__ import annotations` here: these methods are part of SpikingNet, see base.py.
import contextlib
import logging

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.nn.parallel import DistributedDataParallel

from ..compiling import uncompiled
from ..ei import EISynapses, InputError
from ..ei_init import initialize

_logger = logging.getLogger("eisnn_zoo")
_exporting = getattr(torch.compiler, "is_exporting", bool)  # torch 2.6 cannot tell it from compiling: no


class Readiness(nn.Module):
    """The part of :class:`~eisnn_zoo.networks.SpikingNet` that looks at the first inputs."""

    kind: str
    stages: nn.ModuleList
    initialised: Tensor

    def _note_made(self, device) -> None:
        """At the end of the constructor."""
        # Saved with the weights, so that a network that never saw data is known as such after loading too.
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool, device=device))
        self._fresh = self._unsure = self.kind == "ei"  # not loaded; not known to have been initialised or trained
        self._warned = False
        self._unseen = self.kind == "ei"  # no input was looked at yet
        self.register_load_state_dict_post_hook(_note_loaded)

    @torch.jit.ignore
    def _check_ready(self, x: Tensor) -> None:
        """Before every forward; does nothing once the weights are known to mean something, or under a tracer."""
        if isinstance(x, Tensor) and not x.is_floating_point():
            raise ValueError(f"expected pixels in [0, 1] as floats, got {x.dtype}: x.float() / 255 makes them of bytes")
        traced = not isinstance(x, Tensor) or isinstance(x, FakeTensor) or x.device.type == "meta" or _exporting()
        if self._unsure and not traced and (self.training or not torch.compiler.is_compiling()):  # an evaluation is compiled whole
            self._make_sure(x)
        elif self._unseen and not (traced or torch.jit.is_tracing() or torch.compiler.is_compiling()):
            self._look(x)

    def _look(self, x: Tensor) -> None:
        """At the first input: one warning of pixels that were normalised, as other networks want them, or that are no numbers."""
        self._unseen = False
        if x.is_cuda and torch.cuda.is_current_stream_capturing():
            return
        with contextlib.suppress(RuntimeError):  # inside torch.func's transforms a tensor has no values to look at
            if not (x >= 0).all():
                how = "; timm.data.resolve_model_data_config(model) says so to timm's transforms" if hasattr(self, "pretrained_cfg") else ""
                _logger.warning("%s was given values below 0, or NaN, which spikes hide: its input are pixels in [0, 1], without mean and "
                                "standard deviation%s.", type(self).__name__, how)

    @uncompiled
    def _make_sure(self, x: Tensor) -> None:
        """In training, E-I Init on the first batch, of weights that are those of the constructor; in evaluation, one warning."""
        if torch._C._are_functorch_transforms_active():  # whose tensors may be written to and looked at by nobody
            if self.training and self._fresh:
                raise RuntimeError("a network that saw no data is not drawn inside torch.func: call eisnn_zoo.initialize(model, batch, "
                                   "seed) before, or model.mark_initialised() where its weights are to be what they are")
        elif not len(x):  # nothing to draw from, and nothing said of what comes
            return
        elif self.initialised:  # by hand, or copied from another network
            self._unsure = False
        elif getattr(self, "_is_replica", False):
            raise RuntimeError("a network that saw no data is not drawn inside nn.DataParallel, which takes its copies away after each "
                               "batch: call eisnn_zoo.initialize(model, batch, seed) before")
        elif self.training and torch.is_grad_enabled():
            if self._fresh and _first_says(self, self._as_drawn()):
                try:
                    seed = int(torch.randint(2**32, ()))
                    initialize(self, x.detach(), seed)  # type: ignore[arg-type]  # every network is one of these
                    _logger.info("%s: E-I Init on the first batch in training, of %d, with seed %d", type(self).__name__, len(x), seed)
                except InputError as error:
                    _logger.warning("E-I Init was skipped, the weights keep their assumed statistics: %s", error)
                _share(self)
            elif self._fresh:
                _logger.info("%s: no E-I Init on the first batch: its weights were changed since it was made", type(self).__name__)
            self.mark_initialised()  # what is trained from here on means something
        elif not self._warned:
            self._warned = True
            _logger.warning("%s was neither loaded nor initialised on data: its output means nothing yet. Load weights, or "
                            "call eisnn_zoo.initialize(model, batch, seed).", type(self).__name__)

    def _as_drawn(self) -> bool:
        """Whether the weights are still those that the constructor drew; others have come by a way that nobody notes."""
        return all(layer.as_drawn() for layer in self.stages.modules() if isinstance(layer, EISynapses))

    def reset_parameters(self) -> None:
        """Weights as those of a new network, which E-I Init draws on the first batch in training."""
        for module in self.modules():
            if module is not self and hasattr(module, "reset_parameters"):
                module.reset_parameters()
        self.initialised.zero_()
        self._fresh = self._unsure = self.kind == "ei"

    @contextlib.contextmanager
    def unasked(self):
        """Forwards here are not looked at: nothing is drawn, nothing is warned of."""
        before = self._unsure, self._unseen
        self._unsure = self._unseen = False
        try:
            yield
        finally:
            self._unsure, self._unseen = before

    def mark_initialised(self) -> None:
        """The weights mean something as they are: no E-I Init on the first batch."""
        self.initialised.fill_(True)
        self._fresh = self._unsure = False


def _note_loaded(net: Readiness, _keys) -> None:
    """Weights that were loaded are never drawn again, whatever is known of them, but for those of a constructor that come back."""
    net._fresh = False
    if net.kind == "ei" and net.initialised.device.type != "meta":
        net._unsure = not net.initialised
        net._fresh = net._unsure and net._as_drawn()


def _in_parallel() -> bool:
    """Inside a forward of DistributedDataParallel."""
    return torch.distributed.is_available() and getattr(DistributedDataParallel, "_active_ddp_module", None) is not None


def _first_says(net: Readiness, yes: bool) -> bool:
    """Under DistributedDataParallel, which gave all processes the weights of the first: what that one says of them."""
    if not _in_parallel():
        return yes
    said = torch.tensor([float(yes)], device=net.initialised.device)
    torch.distributed.broadcast(said, 0)
    return bool(said)


def _share(net: Readiness) -> None:
    """Under DistributedDataParallel, which sent its weights around before there were these: all processes take those of the first."""
    if _in_parallel():
        for parameter in net.parameters():
            torch.distributed.broadcast(parameter.data, 0)
