"""Cells that begin at mean 0 and variance 1, and biases that hold their mean currents while a network learns."""

from __future__ import annotations

import pytest
import torch
from training_helpers import digits, recipe

import eisnn_zoo
from eisnn_zoo.ei import EIConv2d, EILayer, EILinear
from eisnn_zoo.ei_init import standardise_currents
from eisnn_zoo.networks import build
from eisnn_zoo.training.engine import Training
from eisnn_zoo.training.homeostasis import Homeostasis
from eisnn_zoo.training.world import World

ALONE = World(0, 1, torch.device("cpu"))


def currents(model, x):
    """Of every E-I layer, ``[cells, samples]``."""
    seen = []
    hooks = [layer.register_forward_hook(lambda _layer, _args, out: seen.append(out.detach().transpose(0, 1).flatten(1)))
             for layer in model.modules() if isinstance(layer, EILayer)]
    with torch.no_grad():
        model.eval()(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("name", ["ei_vgg8", "ei_resnet18", "ei_mlp4"])
def test_standardised_cells_have_mean_0_and_variance_1_and_keep_dales_law(name):
    torch.manual_seed(0)
    model = build(name, time_steps=2).double()  # in which no spike flips where weights are folded
    x = torch.rand(24, 1, 28, 28).double() if "mlp" in name else torch.rand(12, 3, 32, 32).double()
    eisnn_zoo.initialize(model, x, 5)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    spread = max(c.mean(1).std() for c in currents(model, x))
    eisnn_zoo.initialize(model, x, 5, standardise=True)
    assert spread > 0.3, "E-I Init alone leaves each cell a mean of its own"
    for current in currents(model, x):
        assert current.mean(1).abs().max() < 1e-6
        deviations = current.std(1)
        assert deviations.max() < 1.02 and (deviations > 0.98).float().mean() > 0.9  # a cell that hardly varies is not blown up
    assert all((p >= 0).all() for n, p in model.named_parameters() if not n.endswith("b_e"))
    first = next(n for n, _ in model.named_parameters() if n.endswith("ee.weight"))
    assert torch.equal(model.state_dict()[first], before[first]), "the first layer's synapses are those of E-I Init"


def test_a_cell_that_hardly_varies_gets_twenty_times_the_median_gain():
    torch.manual_seed(0)
    layer, x = EILinear(12, 8), torch.rand(50, 12)
    with torch.no_grad():
        layer.ee.weight[3], layer.ei.weight[3] = 1e-9, 1e-3
    deviation = currents(layer, x)[0].std(1)
    standardise_currents(layer, x)
    assert deviation[3] < deviation.median() / 1000
    torch.testing.assert_close(layer.g_e[3].detach(), 20 / deviation.median())


def settle(layer, x, steps, learn, rate=0.25):
    """The layer's mean currents after so many steps, in which the optimizer adds ``learn`` to each bias."""
    homeostasis = Homeostasis(layer, rate, ALONE)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    layer.train()
    for _ in range(steps):
        for part in x.split(7):  # a step in parts
            layer(part)
        for p in layer.parameters():
            p.grad = torch.zeros_like(p)
        layer.b_e.grad -= learn
        homeostasis.step(optimizer)
    return currents(layer, x)[0].mean(1), optimizer.state[layer.b_e]["set_point"]


@pytest.mark.parametrize("layer, shape", [(EIConv2d(3, 8, 3), (20, 3, 6, 6)), (EILinear(12, 8), (20, 12))])
def test_mean_currents_go_to_the_set_points(layer, shape):
    torch.manual_seed(1)
    x = torch.rand(shape)
    start = currents(layer, x)[0].mean(1)
    mean, set_point = settle(layer, x, 3, 0.0)
    torch.testing.assert_close(mean, start * 0.75**3)
    assert (set_point == 0).all()
    mean, set_point = settle(layer, x, 40, 0.01)
    torch.testing.assert_close(set_point, torch.full_like(set_point, 0.4))
    torch.testing.assert_close(mean, set_point, atol=1e-4, rtol=0)


def test_what_the_weights_do_to_the_means_is_taken_back():
    torch.manual_seed(2)
    layer, x = EILinear(12, 8), torch.rand(40, 12)
    with torch.no_grad():
        layer.b_e -= layer(x).mean(0)
    layer.ee.weight.data *= 1.5
    assert layer(x).mean(0).abs().min() > 0.05
    mean, _ = settle(layer, x, 60, 0.0)
    assert mean.abs().max() < 1e-5


def test_at_rate_0_biases_only_learn_and_set_points_stay():
    torch.manual_seed(3)
    layer, x = EILinear(12, 8), torch.rand(20, 12)
    homeostasis, optimizer = Homeostasis(layer, 0.25, ALONE), torch.optim.SGD(layer.parameters(), lr=1.0)
    moved = []
    for rate in (0.25, 0.0, 0.25):
        homeostasis.rate = rate
        before = layer.b_e.clone()
        layer.train()(x)
        layer.b_e.grad = torch.full_like(before, -0.01)
        homeostasis.step(optimizer)
        moved.append(layer.b_e.detach() - before)
        assert (homeostasis.sums[0] == 0).all()
    torch.testing.assert_close(moved[1], torch.full_like(before, 0.01))
    assert min((moved[i] - 0.01).abs().max() for i in (0, 2)) > 0.02
    torch.testing.assert_close(optimizer.state[layer.b_e]["set_point"], torch.full_like(before, 0.02))


def test_a_trained_networks_cells_stay_where_they_are():
    torch.manual_seed(5)
    layer, x = EILinear(12, 8), torch.rand(20, 12)
    layer.b_e.data = torch.randn(8)
    homeostasis, optimizer = Homeostasis(layer, 0.25, ALONE, trained=True), torch.optim.SGD(layer.parameters(), lr=1.0)
    before = layer.b_e.clone()
    for _ in range(5):
        mean = layer.train()(x).mean(0)
        layer.b_e.grad = torch.full_like(before, -0.01)
        homeostasis.step(optimizer)
    torch.testing.assert_close(layer.b_e.detach(), before + 0.05)
    torch.testing.assert_close(optimizer.state[layer.b_e]["set_point"], mean + 0.01)


def test_evaluation_moves_nothing():
    layer = EILinear(12, 8)
    homeostasis = Homeostasis(layer, 0.5, ALONE)
    layer.eval()(torch.rand(4, 12))
    assert (homeostasis.sums[0] == 0).all()


def test_the_rate_of_homeostasis_follows_the_recipe_over_the_epochs(tmp_path):
    torch.set_num_threads(1)
    data, history = digits(tmp_path / "data"), {}
    for name, rate in (("on", 0.1), ("ends", {0: 0.1, 1: 0.0})):
        training = Training(recipe(homeostasis=rate), data, tmp_path / name, compile=False)
        training.fit()
        history[name] = [row["train_loss"] for row in training.run.history]
    assert history["on"][0] == history["ends"][0] and history["on"][1] != history["ends"][1]


def test_homeostasis_that_begins_later_holds_the_cells_where_they_are(tmp_path):
    torch.set_num_threads(1)
    values = {"epochs": 3, "init": "standardised", "optimizer": "muon", "lr": 1e-2}
    training = Training(recipe(homeostasis={0: 0.0, 2: 0.1}, **values), digits(tmp_path / "data"), tmp_path / "run", compile=False)
    x, epoch, before = training.data.train.x.float() / 255, training._epoch, []
    training._epoch = lambda number, *rest: before.append(currents(training.model, x)) or epoch(number, *rest)
    training.fit()
    for layer, current in zip(training.iteration.homeostasis.layers, before[2], strict=True):
        set_point, mean = training.iteration.optimizer.state[layer.b_e]["set_point"], current.mean(1)
        assert (set_point - mean).abs().mean() < 0.5 * mean.abs().mean()  # which moves a little on the way


def test_training_holds_the_cells_near_their_thresholds(tmp_path):
    """The same run with and without: without, mean currents leave 0 as weights move."""
    torch.set_num_threads(1)
    data = digits(tmp_path / "data")
    spread = {}
    for rate in (0.0, 0.1):
        values = {"model": "ei_mlp4_mnist", "optimizer": "muon", "lr": 0.02, "momentum": 0.95, "epochs": 6, "init": "standardised"}
        training = Training(recipe(**values, homeostasis=rate), data, tmp_path / f"run{rate}", compile=False)
        training.fit()
        x = training.data.train.x[:100].float() / 255
        spread[rate] = max(c.mean(1).abs().mean() for c in currents(training.model, x))
    assert spread[0.1] < 0.3 < 0.6 < spread[0.0]
