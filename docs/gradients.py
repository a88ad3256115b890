"""In how many directions the gradients of W_EE and W_IE point: python docs/gradients.py CIFAR_FOLDER [MODEL]

Prints, for E-I VGG-8 at E-I Init (seed 2025, T = 1), or a model with its trained weights, and the first 128 training images,
the share of each gradient's squared norm in its first singular direction, and how many directions hold 90 % of it, layer by layer.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

import eisnn_zoo
from eisnn_zoo.training.augment import pixels
from eisnn_zoo.training.data import load_data
from eisnn_zoo.training.recipe_file import check_recipe
from eisnn_zoo.training.setup import make_model


def main() -> None:
    published = sys.argv[2:]
    recipe = check_recipe({"model": "ei_vgg8_cifar10", "time_steps": 1}, "gradients")
    data = load_data(recipe, Path(sys.argv[1]))
    batch = data.train[torch.arange(128)]
    x = pixels(batch.x)
    model = eisnn_zoo.create_model(published[0], pretrained=True) if published else make_model(recipe, data, x)
    F.cross_entropy(model.train()(x), batch.y).backward()
    for name, p in model.named_parameters():
        if name.endswith(("ee.weight", "ie.weight")):
            shares = torch.linalg.svdvals(p.grad.flatten(1).double()).square()
            shares /= shares.sum()
            many = int((shares.cumsum(0) < 0.9).sum()) + 1
            print(f"{name:40} {100 * shares[0].item():5.1f} % in the first direction, 90 % in {many} of {len(shares)}")


if __name__ == "__main__":
    main()
