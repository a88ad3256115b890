"""How the sizes of weights change in training: python docs/growth.py CIFAR_FOLDER [RUN_OR_HUB_FOLDER ...]

Prints, for each folder with recipe.yaml and weights (the published CIFAR-10 models without one), the root mean square of W_EE, W_IE and
W_EI of every layer over that at E-I Init with the recipe's seed and data.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from eisnn_zoo.analysis.parameters import SYNAPSES, ei_parameters
from eisnn_zoo.locating import locate
from eisnn_zoo.training.augment import pixels
from eisnn_zoo.training.data import load_data
from eisnn_zoo.training.engine import INIT_BATCH
from eisnn_zoo.training.run import Run
from eisnn_zoo.training.schedule import batches
from eisnn_zoo.training.setup import make_model
from eisnn_zoo.weights import load_network

HUB = Path(__file__).parent.parent / "hub"


def main() -> None:
    root, *folders = map(Path, sys.argv[1:])
    for folder in folders or (HUB / "ei_vgg8_cifar10.zoo", HUB / "ei_resnet18_cifar10.zoo"):
        recipe = Run.existing(folder).recipe
        data = load_data(recipe, root)
        rows = next(batches(len(data.train), INIT_BATCH, recipe.seed, 0))
        before = ei_parameters(make_model(recipe, data, pixels(data.train[rows].x, recipe.at("resolution", recipe.epochs - 1))))
        after = ei_parameters(load_network(locate(str(folder))))
        print(folder.name)
        for layer, weights in after.items():
            ratios = {name: (weights[name].square().mean() / before[layer][name].square().mean()).sqrt().item()
                      for name in SYNAPSES}
            print(f"  {layer:24}" + "".join(f"  {name} x {ratio:5.2f}" for name, ratio in ratios.items()), flush=True)


if __name__ == "__main__":
    with torch.no_grad():
        main()
