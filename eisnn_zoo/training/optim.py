"""Optimizers for networks under Dale's law: a step, then the projection back onto non-negative parameters."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from ..ei import project


def check_network(model: object) -> None:
    """Raises TypeError of what torch's own optimizers take."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"takes the network itself, whose parameters it steps and projects, got {type(model).__name__}")


@torch.no_grad()
def orthogonalise(g: Tensor, steps: int = 5, bf16: bool = False) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly, by Newton-Schulz iterations (Jordan 2024), for ``[..., n, d]``.

    ``x <- (a + b A + c A A) x`` with ``A = x x^T``. All of A's successors are polynomials of the first, so they can be had without x,
    which is then multiplied once: for d = 9 n two fifths of the arithmetic. In bfloat16 their rounding would grow twelvefold an iteration.

    Args:
        steps: iterations. bf16: compute in bfloat16, all iterations with x.
    """
    x = g.bfloat16() if bf16 else g
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    size = x.shape
    x = x.reshape(-1, *size[-2:])
    x = (_iterate if bf16 else _iterate_without)(x, steps).view(size)
    return (x.mT if tall else x).to(g.dtype)


def _polynomial(a: Tensor) -> Tensor:
    """``b A + c A A``"""
    return torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)


def _factor(a: Tensor) -> Tensor:
    """``a + b A + c A A``"""
    factor = _polynomial(a)
    factor.diagonal(dim1=-2, dim2=-1).add_(3.4445)
    return factor


def _iterate(x: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        x = torch.baddbmm(x, _polynomial(x @ x.mT), x, beta=3.4445)
    return x


def _iterate_without(x: Tensor, steps: int) -> Tensor:
    a = x @ x.mT
    product = factor = _factor(a)
    for _ in range(steps - 1):
        a = factor @ a @ factor
        factor = _factor(a)
        product = factor @ product
    return product @ x


@torch.no_grad()
def deflate(g: Tensor, v: Tensor, iterations: int = 2) -> Tensor:
    """``[n, d]`` without its strongest input direction, ``g - (g v) v^T``; v ``[d]`` is power-iterated to it in place, so many times.

    One pattern of input that drives every neuron the same way is by far the strongest part of the gradient under Dale's
    law: with no negative weights, all the inputs of a layer push together. Orthogonalised, that part is stepped at full speed for as long
    as it points anywhere, and the rates of a deep network drift to 0 or 1 within some twenty steps.
    """
    if min(g.shape) == 1:
        return g  # nothing else is left
    for _ in range(iterations):
        to = g.mT @ (g @ v)
        length = to.norm()
        v.copy_(torch.where(length > 0, to / (length + 1e-12), v))  # of no gradient at all nothing is learned
    return g - torch.outer(g @ v, v)


class EIMuon(torch.optim.Optimizer):
    """Muon on weights between populations, Adam on the rest, every step relative to the parameter's initial size.

    A weight of ``[n, ...]`` (but W_EI) takes a step of RMS ``lr * rms0``, W_IE of ``inhibitory * lr * rms0``, in the
    orthogonalised direction of its Nesterov momentum; W_EI, gains and biases take Adam steps of ``adaptive * lr * rms0``, g_I of
    ``inhibitory`` times that. rms0 is the root mean square of the parameter when it was first stepped, and 1 for a parameter that
    starts at 0. Steps of absolute size are what makes Adam collapse these networks: W_EI starts at 1/n_I, W_EE at about 1/sqrt(d).

    Args:
        model: a network of the zoo; its Dale constraint is projected inside ``step``. What of it learns is what takes gradients now.
        lr: relative step of the weights; adaptive: the other parameters' step as a fraction of it.
        inhibitory: the inhibitory cells' (W_IE's, g_I's) step as a fraction of it. W_EI hardly leaves its uniform start, so that a step
            of W_IE moves all cells of a layer together; where it is small, W_EE, which tells cells apart, can take larger ones.
            g_I, a divisor, can reach 0 in a thousand steps of full size, and with it its layer is silent for good.
        least_inhibition: W_EI stays at or above this part of its initial size. A cell whose W_EI may go to 0 can shed its inhibition,
            and with it its divisor: its current then grows without bound, and at last the gradient's norm overflows.
        momentum: of Muon; betas, eps: of Adam.
        weight_decay: the weights shrink by this times the size of their relative step, in every step.
        deflate: number of first steps without the strongest input direction of a weight's momentum, see :func:`deflate`.
        bf16: orthogonalise in bfloat16, for processors that multiply matrices faster in it: others take several times as long.
    """

    def __init__(self, model: nn.Module, lr: float | Tensor = 8e-3, adaptive: float = 0.125, inhibitory: float = 1.0,
                 least_inhibition: float = 0.0, momentum: float = 0.95, betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-10,
                 weight_decay: float = 0.0, deflate: int = 0, bf16: bool = False):
        check_network(model)
        if not lr >= 0:
            raise ValueError(f"lr must be at least 0, got {lr}")
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        matrices = {n for n, p in named if p.dim() >= 2 and not n.endswith("ei.weight")}
        muon = {"muon": True, "weight_decay": weight_decay, "deflate": deflate}
        adam = {"muon": False, "weight_decay": 0.0, "deflate": 0}
        theirs = {n for n, _ in named if n.endswith(("ie.weight", "g_i"))}  # the inhibitory cells' own
        groups = [{"params": [p for n, p in named if (n in matrices) is by_muon and (n in theirs) is inhibits],
                   "scale": (1.0 if by_muon else adaptive) * (inhibitory if inhibits else 1.0), **(muon if by_muon else adam)}
                  for by_muon in (True, False) for inhibits in (False, True)]
        # capturable: torch then loads a step count to its parameter's device
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "capturable": True}
        super().__init__([g for g in groups if g["params"]], defaults)
        self.model, self.least_inhibition, self.bf16 = model, least_inhibition, bf16
        self.w_ei = [p for n, p in named if n.endswith("ei.weight")]

    def __getstate__(self) -> dict:
        own = {name: getattr(self, name) for name in ("model", "least_inhibition", "bf16", "w_ei")}
        return {**super().__getstate__(), **own}

    def add_param_group(self, param_group: dict) -> None:
        if "muon" not in param_group:
            raise ValueError("EIMuon takes each parameter by what it is in the network: make a new one once other parameters are to learn")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure=None):
        """One step. Nothing waits for the device, but for each step's count while deflation lasts; a CUDA graph can hold it, and follows
        ``lr`` where that is a tensor."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            states = [self._state(p, group) for p in params]
            torch._foreach_add_([s["step"] for s in states], 1)
            directions, factors = (self._muon if group["muon"] else self._adam)([p.grad for p in params], states, group)
            if group["weight_decay"]:
                torch._foreach_mul_(params, 1 - group["lr"] * group["scale"] * group["weight_decay"])
            sizes = torch.stack([s["rms0"] for s in states]) * (group["lr"] * group["scale"]) * factors
            for direction, size in zip(directions, sizes):
                direction.mul_(size)
            torch._foreach_sub_(params, directions)
        project(self.model)
        for p in self.w_ei if self.least_inhibition else ():
            if p.grad is not None:
                p.clamp_(min=self.state[p]["rms0"] * self.least_inhibition)
        return loss

    def _state(self, p: Tensor, group: dict) -> dict:
        state = self.state[p]
        if not state:
            rms = p.double().square().mean().sqrt().to(p.dtype)  # the type in which torch loads a state
            state["rms0"] = torch.where(rms > 0, rms, 1.0)
            state["step"] = torch.zeros((), device=p.device)
            for name in ("momentum",) if group["muon"] else ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(p)
            if group["deflate"]:
                state["common"] = torch.ones_like(p.flatten(1)[0])
        return state

    def _muon(self, grads: list[Tensor], states: list[dict], group: dict) -> tuple[list[Tensor], float]:
        """Direction of each matrix, and what it is to be multiplied by."""
        momenta = [s["momentum"] for s in states]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, grads)
        nesterov = [g.flatten(1) for g in torch._foreach_add(grads, momenta, alpha=group["momentum"])]
        for i, state in enumerate(states):
            if "common" in state and (_recording(grads[0]) or state["step"] <= group["deflate"]):
                nesterov[i] = deflate(nesterov[i], state["common"])
            else:
                state.pop("common", None)
        alike = defaultdict(list)  # matrices of one shape are orthogonalised together
        for i, g in enumerate(nesterov):
            alike[g.shape].append(i)
        directions = nesterov[:]
        for indices in alike.values():
            found = orthogonalise(torch.stack([nesterov[i] for i in indices]), bf16=self.bf16)
            found = found / (found.square().mean((1, 2), keepdim=True).sqrt() + 1e-12)
            for i, direction in zip(indices, found):
                directions[i] = direction
        return [d.view_as(g) for d, g in zip(directions, grads)], 1.0

    @staticmethod
    def _adam(grads: list[Tensor], states: list[dict], group: dict) -> tuple[list[Tensor], Tensor]:
        """Direction of each parameter, and the correction of its running means, which begin at 0."""
        (b1, b2), steps = group["betas"], torch.stack([s["step"] for s in states])
        m, v = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
        torch._foreach_lerp_(m, grads, 1 - b1)
        torch._foreach_lerp_(v, torch._foreach_mul(grads, grads), 1 - b2)
        below = torch._foreach_sqrt(v)
        torch._foreach_add_(below, group["eps"])
        return list(torch._foreach_div(m, below)), (1 - torch.pow(b2, steps)).sqrt() / (1 - torch.pow(b1, steps))


def _recording(x: Tensor) -> bool:
    """Whether a CUDA graph is being recorded, when no number may be read."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


class ProjectedSGD(torch.optim.SGD):
    """torch's SGD, and Dale's law inside ``step``, of the parameters that take gradients now; ``add_param_group`` adds others.

    Args:
        model: a network of the zoo. options: of ``torch.optim.SGD``.
    """

    def __init__(self, model: nn.Module, **options):
        check_network(model)
        super().__init__([p for p in model.parameters() if p.requires_grad], **options)
        self.model = model

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "model": self.model}

    @torch.no_grad()
    def step(self, closure=None):
        step = torch.optim.SGD.step
        loss = getattr(step, "__wrapped__", step)(self, closure)  # torch wraps it in the calls of hooks, and this one too
        project(self.model)
        return loss


def set_least_inhibition(optimizer: torch.optim.Optimizer, least: float) -> None:
    """What W_EI stays at or above, of an optimizer that looks to it."""
    if isinstance(optimizer, EIMuon):
        optimizer.least_inhibition = least


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The step size of the next step, in place where it is a tensor: a recorded step reads it there."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
