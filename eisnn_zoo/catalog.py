"""Every dataset, architecture and table row of the zoo, written once. Imports neither torch nor timm."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

from .shapes import MLP_WIDTHS, RESNET_BLOCKS, VGG_WIDTHS

PAPER = "Training Deep Normalization-Free Spiking Neural Networks with Lateral Inhibition"
ARXIV = "2509.23253"
LICENSE = "Apache-2.0"  # of weights, where nothing else is asked for
RELEASE_REPO = "vwOvOwv/DeepEISNN"


@dataclass(frozen=True)
class Dataset:
    """A dataset as the networks see it.

    Attributes:
        name: suffix of the model names.
        title: as people write it, and as the results table shows it.
        num_classes, channels, size: classes, input channels, and pixels a side.
        time_steps: T of the paper's networks on it.
        test_images: in the whole test set, by which a figure on fewer is told.
        sensor: of events, pixels a side of the camera, from which those of size are made; 0 for static images.
    """

    name: str
    title: str
    num_classes: int
    channels: int
    size: int
    time_steps: int
    test_images: int
    sensor: int = 0

    @property
    def event(self) -> bool:
        """Whether it holds frames of events instead of static images."""
        return self.sensor > 0

    @property
    def release(self) -> str:
        """The release's name for it."""
        return self.title.replace("-", "")

    @property
    def label_names(self) -> tuple[str, ...]:
        return _labels(SAME_LABELS.get(self.name, self.name))


@cache
def _labels(name: str) -> tuple[str, ...]:
    text = resources.files(__package__).joinpath("labels", f"{name}.txt").read_text("utf-8")
    return tuple(text.splitlines())


DATASETS = {d.name: d for d in (
    Dataset("cifar10", "CIFAR-10", 10, 3, 32, 4, 10_000),
    Dataset("cifar100", "CIFAR-100", 100, 3, 32, 4, 10_000),
    Dataset("tinyimagenet200", "TinyImageNet-200", 200, 3, 32, 4, 10_000),
    Dataset("mnist", "MNIST", 10, 1, 28, 4, 10_000),
    Dataset("cifar10dvs", "CIFAR10-DVS", 10, 2, 48, 10, 1_000, 128),
    Dataset("dvsgesture", "DVS-Gesture", 11, 2, 48, 16, 288, 128),
    Dataset("nmnist", "N-MNIST", 10, 2, 34, 10, 10_000, 34),
)}
"""Every dataset by name."""

ARCHITECTURES = {f"{family}{depth}": (family, depth)
                 for family, shapes in (("vgg", VGG_WIDTHS), ("resnet", RESNET_BLOCKS), ("mlp", MLP_WIDTHS)) for depth in shapes}
TITLES = {"vgg": "VGG", "resnet": "ResNet", "mlp": "MLP"}
KINDS = {"ei": "E-I", "bn": "BN", "ann": "ANN"}
SPIKING = ("ei", "bn")  # the others have no spikes, and T = 1
TIME_STEPS = 4  # of a bare architecture
SAME_LABELS = {"cifar10dvs": "cifar10", "nmnist": "mnist"}

# Architecture and dataset of the paper's tables, with the top-1 accuracy (%) of the checkpoint the authors released:
# their best epoch on the test set, as the release holds out no validation split.
RELEASED = {
    "vgg8_cifar10": 87.03, "vgg11_cifar10": 88.43, "vgg16_cifar10": 91.01, "vgg19_cifar10": 91.36,
    "resnet18_cifar10": 92.06, "vgg16_cifar100": 65.90, "vgg19_cifar100": 64.06, "vgg8_cifar10dvs": 78.40,
    "vgg11_cifar10dvs": 78.40, "vgg8_dvsgesture": 95.83, "resnet18_tinyimagenet200": 50.29,
}
# Pairs beside those: the BN baseline on CIFAR-100, event MNIST, and the MLPs.
_PAIRS = (*RELEASED, "resnet18_cifar100", "vgg8_nmnist", *(f"mlp{depth}_mnist" for depth in MLP_WIDTHS))
ANN_DATASET = "cifar10"  # alone has networks without spikes: what spikes cost, and teachers


@dataclass(frozen=True)
class Model:
    """A registered model.

    Attributes:
        name: ``<kind>_<family><depth>`` or ``<kind>_<family><depth>_<dataset>``.
        kind: "ei", "bn", or "ann": the BN baseline without spikes, T = 1.
        family, depth: "vgg", 16.
        dataset: None for a bare architecture (10 classes, T = TIME_STEPS, RGB; an MLP for 28 x 28 pixels of luminance).
    """

    name: str
    kind: str
    family: str
    depth: int
    dataset: Dataset | None

    @property
    def title(self) -> str:
        return f"{KINDS[self.kind]} {TITLES[self.family]}-{self.depth}"

    @property
    def input_size(self) -> tuple[int, int, int]:
        if self.dataset:
            return self.dataset.channels, self.dataset.size, self.dataset.size
        return (1, 28, 28) if self.family == "mlp" else (3, 32, 32)

    @property
    def options(self) -> dict:
        """Constructor arguments that the name fixes."""
        fixed = {"in_chans": self.input_size[0], "num_classes": 10, "time_steps": TIME_STEPS}
        if self.dataset:
            fixed |= {"num_classes": self.dataset.num_classes, "time_steps": self.dataset.time_steps}
            if self.dataset.event:
                fixed["event_input"] = True
        return fixed if self.spiking else {**fixed, "time_steps": 1}

    @property
    def time_steps(self) -> int:
        """T."""
        return self.options["time_steps"]

    @property
    def event_input(self) -> bool:
        """Whether it takes frames of events, not pictures."""
        return bool(self.dataset and self.dataset.event)

    @property
    def spiking(self) -> bool:
        """Whether its neurons send spikes, and time matters."""
        return self.kind in SPIKING

    @property
    def released_top1(self) -> float | None:
        """Top-1 accuracy (%) of the authors' checkpoint, where they released one."""
        return RELEASED.get(self.name.removeprefix("ei_")) if self.kind == "ei" else None

    @property
    def release_folder(self) -> str | None:
        """Folder of the authors' checkpoint in their Hub repository."""
        if self.released_top1 is None:
            return None
        return f"{self.dataset.release}-{TITLES[self.family]}{self.depth}"


def _all() -> dict[str, Model]:
    names = [name for arch in ARCHITECTURES for name in (arch, *(pair for pair in _PAIRS if pair.startswith(f"{arch}_")))]
    models = []
    for kind in KINDS:
        for name in names:
            arch, _, dataset = name.partition("_")
            if kind in SPIKING or dataset == ANN_DATASET:
                models.append(Model(f"{kind}_{name}", kind, *ARCHITECTURES[arch], DATASETS.get(dataset)))
    return {model.name: model for model in models}


MODELS = _all()
"""Every registered model by name."""
