"""Recipes, data, optimizers and the training loop. The library never imports this package."""
