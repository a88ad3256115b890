"""Evaluation mode for as long as a ``with`` block: BatchNorm by its running statistics, no dropout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """These networks in evaluation mode; afterwards each of their modules in the mode it was in, also after an error."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for module, training in modes:  # one by one: a frozen part may have been in evaluation mode all along
            module.training = training
