"""Do two layers see the images alike? Centred kernel alignment (Kornblith et al. 2019), by minibatches (Nguyen et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..evaluating import evaluating
from .probes import Activity, probe, spiking_layers


def unbiased_hsic(k: Tensor, l: Tensor) -> Tensor:
    """Hilbert-Schmidt independence criterion of two Gram matrices ``[n, n]``, n >= 4, unbiased (Song et al. 2012)."""
    n = len(k)
    k, l = k - k.diag().diag(), l - l.diag().diag()
    rows = (k.sum(0) * l.sum(0)).sum()
    return ((k * l).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)) / (n * (n - 3))


@torch.no_grad()
def cka(a: nn.Module, b: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Linear CKA of each layer of a (rows) with each layer of b (columns), in execution order, in evaluation mode.

    A layer's answer to an image is its neurons' rates over the T steps. 1: the same up to rotation and scale, about 0:
    unrelated; not a number for a layer that answers all images alike, as a silent one does. Constant memory: HSIC is summed over
    batches.

    Raises:
        ValueError: fewer than 4 images in a batch.
    """
    within_a, within_b, across = 0.0, 0.0, 0.0
    for x in batches:
        if len(x) < 4:
            raise ValueError(f"CKA needs batches of at least 4 images, got {len(x)}")
        k = _grams(a, x)
        l = k if b is a else _grams(b, x)
        within_a = within_a + torch.stack([unbiased_hsic(i, i) for i in k])
        within_b = within_b + torch.stack([unbiased_hsic(j, j) for j in l])
        across = across + torch.stack([torch.stack([unbiased_hsic(i, j) for j in l]) for i in k])
    scale = (within_a[:, None] * within_b[None, :]).sqrt()
    return torch.where(scale > 0, across / scale, torch.nan)


def _grams(model: nn.Module, x: Tensor) -> list[Tensor]:
    grams: dict[str, Tensor] = {}

    def see(activity: Activity) -> None:
        counts = activity["spikes"].float().sum(0).flatten(1)
        counts = counts - counts.mean(0)  # shifts no HSIC, and makes alike answers exactly 0
        grams[activity.name] = (counts @ counts.T).double()

    with evaluating(model), probe(model, see):
        model(x)
    return [grams[name] for name in spiking_layers(model)]
