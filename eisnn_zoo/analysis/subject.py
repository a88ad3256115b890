"""What is studied, what a study of it holds, and how numbers are said in its sentences."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure

from ..networks.base import SpikingNet
from .batches import Batches
from .energy import shape_of
from .probes import spiking_layers


@dataclass(frozen=True)
class Subject:
    """What is studied.

    Attributes:
        model: the network as trained, not folded.
        data: labelled images.
        twin: a second network to compare with (a BN baseline, say).
        seed: of lesions and noise.
    """

    model: SpikingNet
    data: Batches
    twin: SpikingNet | None = None
    seed: int = 0

    @property
    def layers(self) -> list[str]:
        return list(spiking_layers(self.model))

    @property
    def matched(self) -> bool:
        """Whether there is a twin, and it has the same layers as model, but for inhibition."""
        return self.twin is not None and _anatomy(self.twin) == _anatomy(self.model)

    @property
    def thing(self) -> str:
        """What the network is shown."""
        return "recording" if self.model.event_input else "image"


@dataclass(frozen=True)
class Study:
    """One section of the report: what is seen, in sentences made from the numbers, the numbers, and a picture of them."""

    key: str
    seen: list[str]
    rows: list[dict]
    figure: Figure


def _anatomy(model: SpikingNet) -> dict[str, tuple]:
    """What an E-I network and its BN twin have in common, layer by layer."""
    shapes = {name: shape_of(layer.current) for name, layer in spiking_layers(model).items()}
    return {name: (shape.n_in, shape.n_e, shape.kernel, shape.stride) for name, shape in shapes.items()}


def layers(n: int) -> str:
    """So many layers, in words."""
    return "1 layer" if n == 1 else f"{n} layers"


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def decimals(value: float) -> str:
    """Two of them, and no -0.00."""
    return f"{round(value, 2) + 0.0:.2f}"


def microjoules(value: float) -> str:
    return f"{value:,.0f} µJ" if value >= 1000 else f"{value:.3g} µJ"
