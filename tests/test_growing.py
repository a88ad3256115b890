"""A deeper network begins as a shallower one, and answers as it does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from training_helpers import digits, recipe, same, weights

from eisnn_zoo import create_model
from eisnn_zoo.catalog import MODELS
from eisnn_zoo.config import Config
from eisnn_zoo.ei import EISynapses
from eisnn_zoo.errors import UsageError
from eisnn_zoo.networks import build
from eisnn_zoo.shipped import examples_folder
from eisnn_zoo.training.engine import Training
from eisnn_zoo.training.growing import grow
from eisnn_zoo.training.run import Run


def pictures(dataset: str) -> torch.Tensor:
    found = [np.atleast_3d(np.asarray(Image.open(p))) for p in sorted((examples_folder() / dataset).glob("*.png"))]
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2) / 255


@pytest.mark.parametrize("shallow, deep, agree", [("ei_mlp8_mnist", "ei_mlp12_mnist", 0.9), ("ei_mlp8_mnist", "ei_mlp16_mnist", 0.9),
                                                  ("ei_vgg11_cifar10", "ei_vgg16_cifar10", 0.8)])
@torch.no_grad()
def test_a_grown_network_answers_as_the_one_it_was_grown_from(shallow, deep, agree):
    trained = create_model(shallow, pretrained=True).eval()
    model, drawn = build(deep), build(deep).eval()
    x = pictures(shallow.rpartition("_")[2])
    grow(model, trained, x, seed=1)
    model.mark_initialised()
    answers = trained(x).argmax(1)
    assert (model.eval()(x).argmax(1) == answers).float().mean() >= agree
    drawn.mark_initialised()
    assert (drawn(x).argmax(1) == answers).float().mean() < 0.5, "by chance it would not"
    for one, other in zip(trained.stages[0].layers, model.stages[0].layers):
        assert all(torch.equal(p, q) for p, q in zip(one.state_dict().values(), other.state_dict().values())), "the layers are its own"


def test_dales_law_holds_in_a_grown_network_and_every_layer_learns():
    model, x = build("ei_mlp16_mnist"), pictures("mnist")
    grow(model, create_model("ei_mlp8_mnist", pretrained=True), x, seed=1)
    assert all(p.min() >= 0 for m in model.modules() if isinstance(m, EISynapses) for p in m.nonnegative())
    model.mark_initialised()
    torch.nn.functional.cross_entropy(model(x), torch.arange(len(x)) % 10).backward()
    assert all(p.grad is not None and p.grad.norm() > 0 for name, p in model.named_parameters())


@torch.no_grad()
def test_relays_know_the_threshold_of_their_neurons():
    trained, x = create_model("ei_mlp8_mnist", pretrained=True, threshold=3.0), pictures("mnist")
    model = build("ei_mlp12_mnist", threshold=3.0).eval()
    grow(model, trained, x, seed=1)
    model.mark_initialised()
    sent, expected = (network.forward_features(x).mean().item() for network in (model, trained))
    assert expected > 0 and sent == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("shallow, deep, said", [("ei_mlp4_mnist", "ei_mlp16_mnist", "layers of other widths"),
                                                 ("ei_mlp16_mnist", "ei_mlp8_mnist", "more layers"),
                                                 ("ei_resnet18_cifar10", "ei_resnet34", "only E-I VGGs and MLPs")])
def test_what_cannot_be_grown_is_left_as_it_was(shallow, deep, said):
    model = build(deep)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=said):
        grow(model, create_model(shallow, pretrained=True), torch.rand(2, model.in_chans, 32, 32), seed=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_recipe_grows_its_network_the_same_way_every_time(tmp_path):
    data, values = digits(tmp_path / "data"), {"model": "ei_mlp12_mnist", "weights": "ei_mlp8_mnist", "epochs": 1}
    for run in ("a", "b"):
        Training(recipe(**values), data, tmp_path / run, compile=False).fit()
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert len(build("ei_mlp12_mnist").state_dict()) == len(weights(tmp_path / "a"))


def test_a_recipe_that_cannot_grow_says_why(tmp_path):
    data = digits(tmp_path / "data")
    with pytest.raises(UsageError, match="they are of E-I MLP-4, of which E-I MLP-16 cannot be grown: it has layers of other widths"):
        Training(recipe(model="ei_mlp16_mnist", weights="ei_mlp4_mnist"), data, tmp_path / "run", compile=False)


def test_a_grown_network_gets_a_new_output_layer_for_other_classes(tmp_path):
    config = Config(MODELS["ei_mlp8"], {"num_classes": 3, "in_chans": 1, "time_steps": 2, "input_size": (28, 28)}, ("a", "b", "c"), size=28)
    trained = build("ei_mlp8", **config.options)
    trained.mark_initialised()
    Run(tmp_path).save_weights("best", trained, config)
    model = Training(recipe(model="ei_mlp12_mnist", weights=str(tmp_path / "best")), digits(tmp_path / "data"), tmp_path / "run", compile=False).model
    assert model.num_classes == 10 and model.initialised
