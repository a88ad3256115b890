"""The excitatory-inhibitory layer, as the paper has it (arXiv 2509.23253, Section 4).

    I_EE  = W_EE x                          excitatory drive
    I_IE  = W_IE x                          drive of the inhibitory cells
    I_sub = W_EI I_IE                       subtractive inhibition
    I_div = W_EI (g_I * I_IE)               divisive inhibition
    I     = g_E * (I_EE - I_sub) / D(I_div) + b_E

Everything but b_E is non-negative (Dale's law). Since all that comes before the division is linear, the code computes
I_EE - I_sub = (W_EE - W_EI W_IE) x as one convolution with signed weights: less work, and no difference of two large
sums, which is what makes half precision inaccurate. W_IE rides along in the same convolution.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .convolution import conv2d
from .layout import as_map, in_memory_order
from .precision import full_precision, matmul_full
from .shapes import EI_RATIO

STABILISATIONS = ("adaptive", "no_ste", "none")
ASSUMED_RATE = 0.2  # input statistics assumed until E-I Init sees data: spikes with this probability


class InputError(ValueError):
    """Input that E-I Init cannot draw weights from: negative, silent or constant."""


def known_stabilisation(mode: str) -> str:
    if mode not in STABILISATIONS:
        raise ValueError(f"unknown stabilisation {mode!r}; choose one of {', '.join(STABILISATIONS)}")
    return mode


def stabilise(i_div: Tensor, mode: str = "adaptive") -> Tensor:
    """D, adaptive stabilization: the divisor made safe, slice by slice (a slice is one time step of one image).

    An entry that is exactly 0 becomes the smallest non-zero entry of its slice, and +inf in a slice without one, so
    that I = b_E there. Backward is straight-through: the derivative passes to I_div as if D were the identity.

    Args:
        i_div: divisive inhibition, ``[N, ...]``; each leading index is a slice.
        mode: "adaptive"; the paper's ablations "no_ste" (no derivative at replaced entries) and "none" (D = identity).
    Raises:
        ValueError: another mode.
    """
    if mode == "none":
        return i_div
    silent = i_div == 0
    dims = [d for d in range(1, i_div.dim())]
    smallest = torch.where(silent, math.inf, i_div.detach()).amin(dims, keepdim=True)
    if mode == "no_ste":
        return torch.where(silent, smallest, i_div)
    if mode != "adaptive":
        raise ValueError(f"unknown stabilisation {mode}: it is adaptive, no_ste or none")
    return i_div + torch.where(silent, smallest, 0.0)


def scale_gradient(w: Tensor, factor: float) -> Tensor:
    """The value of w, exactly, with its gradient multiplied by factor."""
    fixed = w.detach()
    return fixed + (w - fixed) * factor


class Synapses(nn.Module):
    """A non-negative weight matrix or kernel between two populations, ``[n_post, n_pre, ...]``. It is read, not called: torch's
    ``parametrize`` changes it (after E-I Init; what is behind it is not projected: it is to keep the sign itself), what waits for a
    forward (``torch.nn.utils.prune``) does not."""

    def __init__(self, *shape: int, device=None, dtype=None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

    def extra_repr(self) -> str:
        return "x".join(str(n) for n in self.weight.shape)


class EISynapses(nn.Module):
    """W_EE, W_IE and W_EI of one layer: what the output layer is, and what every E-I layer begins with."""

    def __init__(self, n_in: int, n_e: int, kernel: tuple[int, ...] = (), ei_ratio: int = EI_RATIO, device=None, dtype=None):
        super().__init__()
        if n_e < 1 or n_in < 1:
            raise ValueError(f"an E-I layer needs at least one input and one output, got {n_in} and {n_e}")
        if ei_ratio < 1:
            raise ValueError(f"ei_ratio (excitatory cells per inhibitory cell) must be at least 1, got {ei_ratio}")
        self.n_e, self.n_i = n_e, max(1, n_e // ei_ratio)
        self.fan_in = n_in * math.prod(kernel)  # d
        self.scale_w_ei_gradient = True  # E-I Prop divides the gradient of W_EI by d; an ablation switches it off
        like = {"device": device, "dtype": dtype}
        self.ee = Synapses(n_e, n_in, *kernel, **like)
        self.ie = Synapses(self.n_i, n_in, *kernel, **like)
        self.ei = Synapses(n_e, self.n_i, **like)

    def w_ei(self) -> Tensor:
        return scale_gradient(self.ei.weight, 1.0 / self.fan_in) if self.scale_w_ei_gradient else self.ei.weight

    def signed_weight(self, w_ei: Tensor) -> Tensor:
        """W_EE - W_EI W_IE, ``[n_E, d]``."""
        return self.ee.weight.flatten(1) - matmul_full(w_ei, self.ie.weight.flatten(1))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """E-I Init for assumed statistics (spikes of rate ASSUMED_RATE), so that any forward is finite."""
        mean = square = ASSUMED_RATE
        variance = mean * (1 - mean)
        for synapses in (self.ee, self.ie):
            synapses.weight.exponential_().mul_(self._scale(square, variance))
        self.drawn = self._some()
        self._set_constants(mean, square, variance)

    def _some(self) -> Tensor:
        """A few of the weights, by which they are known again."""
        return torch.cat([self.ee.weight.detach().flatten()[:4], self.ie.weight.detach().flatten()[:4]])

    def as_drawn(self) -> bool:
        """Whether the weights are still those of reset_parameters, by some of each, but for rounding to another type."""
        return self.drawn.is_meta or torch.allclose(self._some().cpu().float(), self.drawn.cpu().float(), rtol=1e-2, atol=0)

    @torch.no_grad()
    def initialize(self, x: Tensor, rng) -> None:
        """E-I Init (paper Eq. 53, 54) from this layer's input x, ``[T*B, ...]``, time and batch merged.

        The statistics are taken in x's own precision, as the release takes them: one rounding moved is another network,
        because a single spike that flips changes every layer after it.

        Args:
            rng: a ``numpy.random.Generator``; draws W_EE, then W_IE, in float64.
        Raises:
            InputError: the input is negative somewhere, silent, or constant over the batch.
        """
        if x.min() < 0:
            raise InputError("E-I Init needs non-negative input (pixels in [0, 1], spikes): do not normalise by mean and std, nor fill "
                             "erased parts with noise (timm's --remode const)")
        mean, square, variance = x.mean().item(), x.square().mean().item(), x.var(0).mean().item()
        if not (mean > 0 and variance > 0):
            raise InputError("E-I Init needs a batch whose inputs vary: this layer's input is "
                             + ("silent" if mean == 0 else "that of a single image" if len(x) == 1 else "the same for every image"))
        scale = self._scale(square, variance)
        for synapses in (self.ee, self.ie):
            drawn = torch.from_numpy(rng.exponential(scale, tuple(synapses.weight.shape)))
            synapses.weight.copy_(drawn.float())  # through float32: from the same inputs, the same seed is the same weights in any dtype
        self._set_constants(mean, square, variance)

    def _scale(self, square: float, variance: float) -> float:
        return math.sqrt(variance / (self.fan_in * (square + variance)))

    def _set_constants(self, mean: float, square: float, variance: float) -> None:
        self.ei.weight.fill_(1.0 / self.n_i)

    def nonnegative(self) -> list[nn.Parameter]:
        """What Dale's law binds: all but b_E, and but what is behind a parametrization."""
        return [parameter for name, parameter in self.named_parameters() if name != "b_e" and "parametrizations" not in name]


class EILayer(EISynapses):
    """Adds the gains, the bias and the division to the synapses.

    The weights are applied as matrices; a subclass may apply them otherwise (synaptic, drives).
    """

    def __init__(self, n_in: int, n_e: int, kernel: tuple[int, ...] = (), ei_ratio: int = EI_RATIO, stabilisation: str = "adaptive",
                 device=None, dtype=None):
        super().__init__(n_in, n_e, kernel, ei_ratio, device, dtype)
        self.stabilisation = known_stabilisation(stabilisation)
        self.g_i = nn.Parameter(torch.empty(self.n_i, device=device, dtype=dtype))
        self.g_e = nn.Parameter(torch.empty(n_e, device=device, dtype=dtype))
        self.b_e = nn.Parameter(torch.empty(n_e, device=device, dtype=dtype))
        self.sums: Tensor | None = None  # [n_E + 1], of a trainer: every cell's current and their count, summed while the layer trains
        self.reset_parameters()

    def _set_constants(self, mean: float, square: float, variance: float) -> None:
        super()._set_constants(mean, square, variance)
        self.g_i.fill_(1.0).div_(math.sqrt(self.fan_in)).mul_(math.sqrt(square + variance)).div_(mean)
        self.g_e.fill_(1.0)
        self.b_e.zero_()

    def synaptic(self, x: Tensor, weight: Tensor) -> Tensor:
        """weight, ``[n, d]``, applied to the layer's input."""
        if x.dim() != 2:
            raise ValueError(f"expected [N, d], each of the N a slice for D, got {x.dim()} dimensions: merge or add one")
        return F.linear(x, weight)

    def drives(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """I_EE - I_sub and I_div, channels in the last axis."""
        joint, mix = self.joint_weight()
        net, i_ie = self.synaptic(x, joint).split([self.n_e, self.n_i], 1)
        return net, F.linear(i_ie, mix)

    def forward(self, x: Tensor) -> Tensor:
        net, i_div = self.drives(x)
        current = excitatory_current(net, i_div, self.g_e, self.b_e, self.stabilisation)
        if self.sums is not None and self.training:
            add_currents(self.sums, current)
        return as_map(current)

    def currents(self, x: Tensor) -> dict[str, Tensor]:
        """Every current of the layer by the paper's name, each computed as the formula stands.

        Returns:
            I_EE, I_IE, I_sub, I_div, the divisor D, and I, for input x as in ``forward``.
        """
        g_i, g_e, b_e = ((p[:, None, None] if x.dim() == 4 else p) for p in (self.g_i, self.g_e, self.b_e))

        def from_inhibitory(i: Tensor) -> Tensor:
            return F.linear(i.movedim(1, -1), self.ei.weight).movedim(-1, 1)

        i_ee, i_ie = self.synaptic(x, self.ee.weight.flatten(1)), self.synaptic(x, self.ie.weight.flatten(1))
        i_sub, i_div = from_inhibitory(i_ie), from_inhibitory(g_i * i_ie)
        d = stabilise(i_div, self.stabilisation)
        return {"I_EE": i_ee, "I_IE": i_ie, "I_sub": i_sub, "I_div": i_div, "D": d, "I": g_e * (i_ee - i_sub) / d + b_e}

    def joint_weight(self) -> tuple[Tensor, Tensor]:
        """[W_EE - W_EI W_IE ; W_IE], ``[n_E + n_I, d]``, and W_EI g_I, ``[n_E, n_I]``."""
        w_ei = self.w_ei()
        return torch.cat([self.signed_weight(w_ei), self.ie.weight.flatten(1)]), w_ei * self.g_i


def excitatory_current(net: Tensor, i_div: Tensor, g_e: Tensor, b_e: Tensor, mode: str) -> Tensor:
    """g_E (I_EE - I_sub) / D(I_div) + b_E, in float32 under autocast; channels in the last axis."""
    net, i_div = full_precision(net), full_precision(i_div)
    return g_e * net / stabilise(i_div, mode) + b_e


@torch.no_grad()
def add_currents(sums: Tensor, current: Tensor) -> None:
    """Adds the current of every cell, channels in the last axis, and their count to sums, ``[C + 1]``."""
    rows = current.flatten(0, -2)
    sums[:-1] += rows.sum(0)
    sums[-1:] += rows.shape[0]


class EIConv2d(EILayer):
    """E-I convolution, no bias before the division, zero padding (paper Eq. 14-18).

    Args:
        n_in, n_e: input channels and excitatory output channels.
        kernel_size, stride, padding: as in ``nn.Conv2d``, one number for both sides; padding None keeps the size at stride 1, where
            kernel_size is odd.
        ei_ratio: excitatory cells per inhibitory cell; there is at least one of these.
        stabilisation: see :func:`stabilise`.

    Shape: ``[N, n_in, H, W]`` >= 0 in, current ``[N, n_e, H', W']`` out; each of the N is a slice for D.
    """

    def __init__(self, n_in: int, n_e: int, kernel_size: int, stride: int = 1, padding: int | None = None,
                 ei_ratio: int = EI_RATIO, stabilisation: str = "adaptive", device=None, dtype=None):
        if type(kernel_size) is not int or (padding is None and kernel_size % 2 == 0):
            raise ValueError(f"kernel_size is one odd number, or an even one with a padding, got {kernel_size!r}")
        super().__init__(n_in, n_e, (kernel_size, kernel_size), ei_ratio, stabilisation, device, dtype)
        self.n_in, self.kernel_size, self.stride = n_in, kernel_size, stride
        self.padding = kernel_size // 2 if padding is None else padding

    def synaptic(self, x: Tensor, weight: Tensor) -> Tensor:
        if x.dim() != 4:
            raise ValueError(f"expected [N, {self.n_in}, H, W], got {x.dim()} dimensions: one image is x[None]")
        kernel = weight.view(-1, self.n_in, self.kernel_size, self.kernel_size)
        return conv2d(x, kernel, self.stride, self.padding)

    def drives(self, x: Tensor) -> tuple[Tensor, Tensor]:
        joint, mix = self.joint_weight()
        net, i_ie = in_memory_order(self.synaptic(x, joint)).split([self.n_e, self.n_i], -1)
        return net, in_memory_order(F.conv2d(as_map(i_ie), mix[:, :, None, None]))


class EILinear(EILayer):
    """Fully connected E-I layer. Arguments as of :class:`EIConv2d`.

    Shape: ``[N, d]`` >= 0 in, current ``[N, n_e]`` out; each of the N is a slice for D.
    """

    def __init__(self, n_in: int, n_e: int, ei_ratio: int = EI_RATIO, stabilisation: str = "adaptive", device=None, dtype=None):
        super().__init__(n_in, n_e, (), ei_ratio, stabilisation, device, dtype)


PLAIN = (EIConv2d, EILinear)
"""The layers that compute as the formula stands: these are fused and folded, classes that somebody derived from them are not."""


class EIReadout(EISynapses):
    """Output layer: I = I_EE - I_sub, no division, no gain, no bias. Shape: ``[N, d]`` in, ``[N, classes]`` out.

    Args:
        ei_ratio: outputs per inhibitory cell; there is at least one of these.
    """

    def __init__(self, n_in: int, classes: int, ei_ratio: int = EI_RATIO, device=None, dtype=None):
        super().__init__(n_in, classes, (), ei_ratio, device, dtype)
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.signed_weight(self.w_ei()))


def project(model: nn.Module) -> None:
    """Dale's law in every E-I layer of model: every parameter but b_E back to >= 0, in one pass. To be called after each step."""
    bound: list[Tensor] = [p for module in model.modules() if isinstance(module, EISynapses) for p in module.nonnegative()]
    if bound:
        with torch.no_grad():
            torch._foreach_clamp_min_(bound, 0.0)
