"""Learning from a trained network: what it answers of each image says more than the image's class (Hinton, Vinyals and Dean, 2015,
arXiv 1503.02531)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..compiling import compile_options
from ..errors import UsageError
from ..locating import Located
from ..shapes import SMALLEST
from ..weights import load_network
from .data import Data
from .provenance import classes_are_others
from .recipe import Recipe


class Teacher:
    """A recipe's teacher, in evaluation mode and with its own number of time steps.

    Args:
        located: its weights, see :func:`~eisnn_zoo.training.provenance.trained_weights`.
        data: whose classes it must answer with.
        compile: torch.compile it.
    Raises:
        UsageError: it has other classes, or takes other images.
    """

    def __init__(self, recipe: Recipe, located: Located, data: Data, device: torch.device, compile: bool):
        config, family = located.config, located.config.model.family
        config.check_classes()
        if classes_are_others(data, located):
            raise UsageError(f"teacher = {recipe.teacher}: its classes are others than those of the data: choose weights trained on these")
        for side in sorted({recipe.side(epoch, data.size) for epoch in range(recipe.epochs)}):
            size = (data.train.x.shape[-3], side, side)
            takes = size == config.input_size if family == "mlp" else size[0] == config.input_size[0] and side >= SMALLEST[family]
            if not takes:
                raise UsageError(f"teacher = {recipe.teacher}: it takes images of {' x '.join(map(str, config.input_size))}, and not of "
                                 f"{' x '.join(map(str, size))}: choose another teacher")
        if len(data.train.x.shape) == 5 and config.time_steps != recipe.final_steps:
            raise UsageError(f"teacher = {recipe.teacher}: it takes {config.time_steps} frames of events, and not "
                             f"{recipe.final_steps}: choose another teacher")
        self.temperature = recipe.temperature
        self.plain: nn.Module = load_network(located).to(device)
        self.network = torch.compile(self.plain, **compile_options(device.type)) if compile else self.plain

    def distance(self, logits: Tensor, x: Tensor, full: bool) -> Tensor:
        """Kullback-Leibler divergence from the teacher's answers to these, both softened, summed over the images.

        Args:
            logits: (N, classes), of the network that learns. x: (N, C, H, W), the images, as it saw them.
            full: a batch of the usual size, for which the teacher was compiled.
        Returns:
            A scalar, times the square of the temperature: its gradients are as large whatever the temperature.
        """
        with torch.no_grad():
            answers = (self.network if full else self.plain)(x).float()
        ours, theirs = (F.log_softmax(z / self.temperature, dim=1) for z in (logits, answers))
        return F.kl_div(ours, theirs, reduction="sum", log_target=True) * self.temperature**2
