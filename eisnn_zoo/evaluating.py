"""What lasts as long as a ``with`` block: evaluation mode (BatchNorm by its running statistics, no dropout), and hooks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

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


@contextmanager
def together(contexts: Iterable[AbstractContextManager]) -> Iterator[None]:
    """All of these, entered in turn: torch's handles of hooks, say, which are removed at the end, also after an error."""
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield
