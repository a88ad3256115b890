"""Kernels that divide and fire in one pass over memory (Triton; a GPU).

    D   = I_div, where it is 0 the smallest non-zero entry of its slice      adaptive stabilization, see eisnn_zoo.ei
    I_t = g_E net_t / D_t + b_E                                             net = I_EE - I_sub
    u_t = (1 - 1/tau) v_{t-1} + I_t ;  s_t = u_t >= threshold                paper Eq. 1-3, see eisnn_zoo.neuron
    v_t = u_t - threshold s_t   (soft reset)   or   u_t (1 - s_t)   (hard)

All T steps of a neuron stay in registers. Backward keeps nothing but the two drives net and I_div: it computes the membranes
again, for each step from the first on (what is read T times over is in the cache), and from the last step to the first

    dL/du_t   = dL/ds_t surrogate'(u_t - threshold) + (1 - 1/tau) dL/du_{t+1}     (hard: the second term where s_t = 0)
    dL/dnet   = g_E dL/du_t / D ;  dL/dI_div = - dL/du_t g_E net / D^2            straight through the stabilization
    dL/dg_E   = sum of dL/du_t net / D ;  dL/db_E = sum of dL/du_t

A drive of one step is held for all T, and its derivative is the sum over them. Operations are rounded one by one, as torch
rounds them, so in float32 the spikes are those of the plain path, bit for bit. Channels are the last axis throughout.
"""

from __future__ import annotations

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

from .neuron import LIF
from .precision import autocasts

TILE = 1024  # numbers a program works on, in tiles of rows (images and positions) by channels
EXACT = {"enable_fp_fusion": False}  # a product and a sum are two roundings, as in torch


@triton.jit
def _smallest_kernel(i_div, smallest, size, BLOCK: tl.constexpr):
    """The smallest non-zero entry of each slice, +inf where there is none; a program a slice."""
    begin = tl.program_id(0).to(tl.int64) * size
    least = tl.full([BLOCK], float("inf"), tl.float32)
    for start in range(0, size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(i_div + begin + at, mask=at < size, other=0.0).to(tl.float32)
        least = tl.minimum(least, tl.where(x == 0, float("inf"), x))
    tl.store(smallest + tl.program_id(0), tl.min(least, 0))


@triton.jit
def _tile(rows, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """Rows ``[ROWS, 1]`` and channels ``[1, CHANNELS]`` of this program, and which of them exist."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    channel = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    return row, channel, row < rows, (row < rows) & (channel < channels)


@triton.jit
def _part(channels, CHANNELS: tl.constexpr):
    """Where this program's sums over its rows belong, in one row of ``[programs, channels]``, and which of them exist."""
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    return tl.program_id(0).to(tl.int64) * channels + channel, channel < channels


@triton.jit
def _drives(net, i_div, smallest, t, row, channel, there, inside, rows, channels, stride, positions):
    """net and D at step t, float32."""
    at = t * rows + row
    least = tl.load(smallest + at // positions, mask=there, other=1.0)
    n = tl.load(net + at * stride + channel, mask=inside, other=0.0).to(tl.float32)
    d = tl.load(i_div + at * channels + channel, mask=inside, other=1.0).to(tl.float32)
    return n, tl.where(d == 0, least, d)


@triton.jit
def _membrane(u, current, decay, threshold, HARD: tl.constexpr):
    """u_t from u_{t-1}."""
    above = u - threshold
    return tl.where(above >= 0, 0.0 if HARD else above, u) * decay + current


@triton.jit
def _surrogate(above, alpha, NAME: tl.constexpr):
    if NAME == "sigmoid":
        s = tl.sigmoid(alpha * above)
        return alpha * s * (1 - s)
    elif NAME == "arctan":
        x = 1.5707963267948966 * alpha * above
        return alpha / 2 / (1 + x * x)
    elif NAME == "triangle":
        return alpha * tl.maximum(1 - alpha * tl.abs(above), 0.0)
    else:
        return alpha * tl.where(alpha * tl.abs(above) < 0.5, 1.0, 0.0)


@triton.jit
def _store(d_current, n, d, g, d_net, d_i_div, at, inside):
    """Writes dL/dnet and dL/dI_div, and returns this current's part of dL/dg_E."""
    share = d_current / d
    tl.store(d_net + at, (share * g).to(d_net.dtype.element_ty), mask=inside)
    tl.store(d_i_div + at, (-share * (g * n / d)).to(d_i_div.dtype.element_ty), mask=inside)
    return share * n


@triton.jit
def _forward_kernel(net, i_div, smallest, g_e, b_e, spikes, sums, rows, channels, stride, positions, decay, threshold,
                    T: tl.constexpr, HELD: tl.constexpr, HARD: tl.constexpr, SUMMED: tl.constexpr, ROWS: tl.constexpr,
                    CHANNELS: tl.constexpr):
    row, channel, there, inside = _tile(rows, channels, ROWS, CHANNELS)
    g = tl.load(g_e + channel, mask=channel < channels, other=0.0)
    b = tl.load(b_e + channel, mask=channel < channels, other=0.0)
    n, d = _drives(net, i_div, smallest, 0, row, channel, there, inside, rows, channels, stride, positions)
    u = tl.zeros([ROWS, CHANNELS], tl.float32)
    summed = tl.zeros([ROWS, CHANNELS], tl.float32)
    for t in range(T):
        if not HELD:
            n, d = _drives(net, i_div, smallest, t, row, channel, there, inside, rows, channels, stride, positions)
        current = tl.div_rn(g * n, d) + b
        if SUMMED:
            summed += tl.where(inside, current, 0.0)
        u = _membrane(u, current, decay, threshold, HARD)
        fired = tl.where(u - threshold >= 0, 1.0, 0.0)
        tl.store(spikes + (t * rows + row) * channels + channel, fired.to(spikes.dtype.element_ty), mask=inside)
    if SUMMED:
        part, exists = _part(channels, CHANNELS)
        tl.store(sums + part, tl.sum(summed, 0), mask=exists)


@triton.jit
def _backward_kernel(net, i_div, smallest, g_e, b_e, d_spikes, d_net, d_i_div, d_g, d_b, rows, channels, stride, positions,
                     decay, threshold, alpha, T: tl.constexpr, HELD: tl.constexpr, HARD: tl.constexpr, NAME: tl.constexpr,
                     ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    row, channel, there, inside = _tile(rows, channels, ROWS, CHANNELS)
    g = tl.load(g_e + channel, mask=channel < channels, other=0.0)
    b = tl.load(b_e + channel, mask=channel < channels, other=0.0)
    n, d = _drives(net, i_div, smallest, 0, row, channel, there, inside, rows, channels, stride, positions)
    d_u = tl.zeros([ROWS, CHANNELS], tl.float32)
    d_current = tl.zeros([ROWS, CHANNELS], tl.float32)
    gain_sum = tl.zeros([ROWS, CHANNELS], tl.float32)
    bias_sum = tl.zeros([ROWS, CHANNELS], tl.float32)
    for back in range(T):
        last = T - 1 - back
        u = tl.zeros([ROWS, CHANNELS], tl.float32)
        for t in range(last + 1):
            if not HELD:
                n, d = _drives(net, i_div, smallest, t, row, channel, there, inside, rows, channels, stride, positions)
            u = _membrane(u, tl.div_rn(g * n, d) + b, decay, threshold, HARD)
        above = u - threshold
        d_s = tl.load(d_spikes + (last * rows + row) * channels + channel, mask=inside, other=0.0).to(tl.float32)
        if HARD:
            d_u = tl.where(above >= 0, 0.0, d_u)
        d_u = d_s * _surrogate(above, alpha, NAME) + decay * d_u
        if HELD:
            d_current += d_u
        else:
            gain_sum += _store(d_u, n, d, g, d_net, d_i_div, (last * rows + row) * channels + channel, inside)
            bias_sum += d_u
    if HELD:
        gain_sum = _store(d_current, n, d, g, d_net, d_i_div, row * channels + channel, inside)
        bias_sum = d_current
    part, exists = _part(channels, CHANNELS)
    tl.store(d_g + part, tl.sum(gain_sum, 0), mask=exists)
    tl.store(d_b + part, tl.sum(bias_sum, 0), mask=exists)


class _DivideAndFire(torch.autograd.Function):
    """net and i_div as rows, ``[steps * rows, C]``; slices of ``positions`` rows."""

    @staticmethod
    def forward(ctx, net: Tensor, i_div: Tensor, g_e: Tensor, b_e: Tensor, lif: LIF, time_steps: int, held: bool,
                positions: int, dtype: torch.dtype, sums: Tensor | None) -> Tensor:
        rows, channels = net.shape[0] // (1 if held else time_steps), net.shape[1]
        columns = min(triton.next_power_of_2(channels), 128)
        tile = {"ROWS": TILE // columns, "CHANNELS": columns}
        grid = (triton.cdiv(rows, tile["ROWS"]), triton.cdiv(channels, columns))
        slices, size = net.shape[0] // positions, positions * channels
        smallest = i_div.new_empty(slices, dtype=torch.float32)
        spikes = net.new_empty(time_steps * rows, channels, dtype=dtype)
        parts = None if sums is None else g_e.new_empty(grid[0], channels)  # summed in one order, unlike atomic additions
        shape = (rows, channels, net.stride(0), positions)
        with on(net):
            _smallest_kernel[(slices,)](i_div, smallest, size, BLOCK=min(triton.next_power_of_2(size), 4096))
            _forward_kernel[grid](net, i_div, smallest, g_e, b_e, spikes, parts, *shape, lif.decay, lif.threshold,
                                  T=time_steps, HELD=held, HARD=lif.reset == "hard", SUMMED=parts is not None, **tile, **EXACT)
        if sums is not None:
            sums[:-1] += parts.sum(0)
            sums[-1:] += time_steps * rows
        ctx.save_for_backward(net, i_div, smallest, g_e, b_e)
        ctx.rest = lif, time_steps, held, shape, tile, grid
        return spikes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_spikes: Tensor):
        net, i_div, smallest, g_e, b_e = ctx.saved_tensors
        lif, time_steps, held, shape, tile, grid = ctx.rest
        d_net, d_i_div = (x.new_empty(x.shape) for x in (net, i_div))
        parts = g_e.new_empty(2, grid[0], shape[1])
        with on(net):
            _backward_kernel[grid](net, i_div, smallest, g_e, b_e, d_spikes.contiguous(), d_net, d_i_div, *parts, *shape,
                                   lif.decay, lif.threshold, lif.alpha, T=time_steps, HELD=held,
                                   HARD=lif.reset == "hard", NAME=lif.surrogate, **tile, **EXACT)
        d_g, d_b = parts.sum(1)
        return d_net, d_i_div, d_g, d_b, None, None, None, None, None, None


def on(x: Tensor):
    """Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def divide_and_fire(net: Tensor, i_div: Tensor, g_e: Tensor, b_e: Tensor, lif: LIF, steps_in: int, time_steps: int,
                    sums: Tensor | None = None) -> Tensor:
    """Spikes of an E-I layer from its two drives.

    Args:
        net, i_div: I_EE - I_sub and I_div, ``[steps_in * B, (H, W,) C]``, float32 or a half precision that is computed in
            float32; steps_in is T, or 1 for drives that are held.
        g_e, b_e: float32 ``[C]``.
        sums: float32 ``[C + 1]``, to which the currents of all steps and their count are added, as by
            :func:`eisnn_zoo.ei.add_currents`.
    Returns:
        ``[T * B, (H, W,) C]``, in the autocast type or float32.
    """
    kind = net.device.type
    dtype = torch.get_autocast_dtype(kind) if autocasts(kind) else torch.float32
    channels, batch = net.shape[-1], net.shape[0] // steps_in
    flat = net.reshape(-1, channels)  # a view of the joint convolution's output, rows apart by its width
    flat = flat if flat.stride(1) == 1 else flat.contiguous()
    spikes = _DivideAndFire.apply(flat, i_div.reshape(-1, channels).contiguous(), g_e, b_e, lif, time_steps, steps_in == 1,
                                  net[0].numel() // channels, dtype, sums)
    return spikes.view(time_steps * batch, *net.shape[1:])
