"""Optimizers for networks under Dale's law: a step, then the projection back onto non-negative parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ei import project


@torch.no_grad()
def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly, by Newton-Schulz iterations (Jordan 2024), for ``[..., n, d]``."""
    x = g.bfloat16() if g.dtype == torch.float32 else g
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return (x.mT if tall else x).to(g.dtype)


@torch.no_grad()
def deflate(g: Tensor, v: Tensor, iterations: int = 2) -> Tensor:
    """``[n, d]`` without its strongest input direction, ``g - (g v) v^T``; v ``[d]`` is power-iterated to it in place.

    One pattern of input that drives every neuron the same way is by far the strongest part of the gradient under Dale's
    law: with no negative weights, all the inputs of a layer push together. Orthogonalised, that part is stepped at full speed for as long
    as it points anywhere, and the rates of a deep network drift to 0 or 1 within some twenty steps.
    """
    if min(g.shape) == 1:
        return g  # nothing else is left
    for _ in range(iterations):
        v.copy_(g.mT @ (g @ v))
        v.div_(v.norm() + 1e-12)
    return g - torch.outer(g @ v, v)


class EIMuon(torch.optim.Optimizer):
    """Muon on weights between populations, Adam on the rest, every step relative to the parameter's initial size.

    A weight of ``[n, ...]`` (but W_EI) takes a step of RMS ``lr * rms0`` in the orthogonalised direction of its Nesterov
    momentum; W_EI, gains and biases take Adam steps of ``adaptive * lr * rms0``. rms0 is the root mean square of
    the parameter when it was first stepped, and 1 for a parameter that starts at 0. Steps of absolute size are what makes
    Adam collapse these networks: W_EI starts at 1/n_I, W_EE at about 1/sqrt(d).

    Args:
        model: a network of the zoo; its Dale constraint is projected inside ``step``.
        lr: relative step of the weights; adaptive: the other parameters' step as a fraction of it.
        momentum: of Muon; betas: of Adam.
        weight_decay: the weights shrink by ``lr`` times this in every step.
        deflate: number of first steps without the strongest input direction of a weight's momentum, see :func:`deflate`.
    """

    def __init__(self, model: nn.Module, lr: float = 8e-3, adaptive: float = 0.125, momentum: float = 0.95,
                 betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-10, weight_decay: float = 0.0,
                 deflate: int = 0):
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        matrices = [p for n, p in named if p.dim() >= 2 and not n.endswith("ei.weight")]
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        groups = [{"params": matrices, "muon": True, "scale": 1.0, "weight_decay": weight_decay, "deflate": deflate},
                  {"params": rest, "muon": False, "scale": adaptive, "weight_decay": 0.0, "deflate": 0}]
        super().__init__([g for g in groups if g["params"]], {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps})
        self.model = model

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    rms = p.double().square().mean().sqrt().float()
                    state["rms0"] = torch.where(rms > 0, rms, 1.0)
                    state["step"] = torch.zeros(())  # on the CPU, where torch keeps it when a state is loaded
                    for name in ("momentum",) if group["muon"] else ("exp_avg", "exp_avg_sq"):
                        state[name] = torch.zeros_like(p)
                    if group["deflate"]:
                        state["common"] = torch.ones_like(p.flatten(1)[0])
                state["step"] += 1
                direction = self._muon(p.grad, state, group) if group["muon"] else self._adam(p.grad, state, group)
                if group["weight_decay"]:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(direction * (group["lr"] * group["scale"] * state["rms0"]))
        project(self.model)
        return loss

    @staticmethod
    def _muon(grad: Tensor, state: dict, group: dict) -> Tensor:
        momentum = state["momentum"].mul_(group["momentum"]).add_(grad)
        nesterov = (grad + group["momentum"] * momentum).flatten(1)
        if state["step"] <= group["deflate"]:
            nesterov = deflate(nesterov, state["common"])
        else:
            state.pop("common", None)
        direction = orthogonalise(nesterov)
        return (direction / (direction.square().mean().sqrt() + 1e-12)).view_as(grad)

    @staticmethod
    def _adam(grad: Tensor, state: dict, group: dict) -> Tensor:
        b1, b2 = group["betas"]
        m, v, n = state["exp_avg"].lerp_(grad, 1 - b1), state["exp_avg_sq"].lerp_(grad.square(), 1 - b2), state["step"]
        return (m / (1 - b1**n)) / ((v / (1 - b2**n)).sqrt() + group["eps"])


class ProjectedSGD(torch.optim.SGD):
    """torch's SGD, and Dale's law inside ``step``."""

    def __init__(self, model: nn.Module, **options):
        super().__init__([p for p in model.parameters() if p.requires_grad], **options)
        self.model = model

    @torch.no_grad()
    def step(self, closure=None):
        loss = super().step(closure)
        project(self.model)
        return loss
