"""Measures on layers and arrays whose answer is known by hand."""

import math

import pytest
import torch
from torch import nn

from eisnn_zoo.analysis import stream
from eisnn_zoo.analysis.gain import Modulation, _squares, at_contrast, exponent, gain_rows
from eisnn_zoo.analysis.measures import Balance, FiringRates, Moments, SpikeTrains, ZeroDivisors
from eisnn_zoo.analysis.parameters import bimodality_coefficient, inhibitory_strength, parameter_rows
from eisnn_zoo.analysis.similarity import cka, unbiased_hsic
from eisnn_zoo.ei import EILinear
from eisnn_zoo.ei_init import initialize
from eisnn_zoo.networks import build
from eisnn_zoo.networks.cells import Spiking
from eisnn_zoo.neuron import LIF


class One(nn.Module):
    """A single E-I layer of 2 inputs, n_E cells and one inhibitory cell, its weights given."""

    def __init__(self, w_ee, w_ie, w_ei, b_e=None, time_steps=4):
        super().__init__()
        layer = EILinear(2, len(w_ee), ei_ratio=len(w_ee))
        with torch.no_grad():
            layer.ee.weight.copy_(torch.tensor(w_ee))
            layer.ie.weight.copy_(torch.tensor(w_ie))
            layer.ei.weight.copy_(torch.tensor(w_ei))
            layer.g_i.fill_(1.0)
            layer.g_e.fill_(1.0)
            layer.b_e.copy_(torch.tensor(b_e or [0.0] * len(w_ee)))
        self.only, self.time_steps = Spiking(layer, LIF()), time_steps

    def forward(self, x):
        return self.only(x, self.time_steps, 1)


# x = (1, 1): I_EE = 4, 2, 0.5; I_IE = 1; I_sub = I_div = 1, so I = 3, 1, -0.5.
# v = 3 3.5 4.25 ..: always; 1 1 1 1: always; never.
NET = ([[2.0, 2.0], [1.0, 1.0], [0.25, 0.25]], [[0.5, 0.5]], [[1.0], [1.0], [1.0]])
ONES = torch.ones(5, 2)


def collected(collector, x=ONES, net=None):
    stream(net or One(*NET), [x[:2], x[2:]], collector)
    return collector.rows()[0]


def test_firing_rates():
    rates = FiringRates()
    row = collected(rates)
    assert rates.rates["only"].tolist() == [1.0, 1.0, 0.0]
    assert rates.over_time["only"].tolist() == pytest.approx([2 / 3] * 4)
    assert row == {"layer": "only", "neurons": 3, "mean": pytest.approx(2 / 3), "std": pytest.approx(math.sqrt(2) / 3),
                   "silent": pytest.approx(1 / 3), "saturated": pytest.approx(2 / 3)}


def test_balance():
    row = collected(Balance())
    assert row["I_EE"] == pytest.approx(6.5 / 3)
    assert row["I_sub"] == pytest.approx(1.0)
    assert row["ratio"] == pytest.approx(3 / 6.5)
    assert row["correlation"] is None  # I_sub does not vary
    assert row["residual"] == pytest.approx(math.sqrt((9 + 1 + 0.25) / (16 + 4 + 0.25)))


def test_balance_of_proportional_currents_is_a_correlation_of_one():
    net = One([[2.0, 2.0], [1.0, 1.0]], [[1.0, 1.0]], [[1.0], [0.5]])  # I_EE = 2 I_sub
    row = collected(Balance(), torch.tensor([[0.1, 0.4], [0.3, 0.9], [1.0, 0.2]]), net)
    assert (row["ratio"], row["correlation"], row["residual"]) == pytest.approx((0.5, 1.0, 0.5))


def test_zero_divisors():
    net = One([[1.0, 1.0], [1.0, 1.0]], [[1.0, 0.0]], [[1.0], [0.0]])  # cell 2 is not inhibited; nor is any by input 2 alone
    row = collected(ZeroDivisors(), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), net)
    assert row["zero_entries"] == pytest.approx((1 + 2 + 1 + 2) / 8)
    assert row["silent_slices"] == pytest.approx(0.5)


def test_spike_trains():
    net = One([[2 / 3, 1.0], [0.0, 1.0]], [[0.0, 1.0]], [[1.0], [1.0]], time_steps=6)
    trains = SpikeTrains()
    stream(net, [torch.tensor([[2.0, 1.0], [0.0, 1.0]])], trains)
    row = trains.rows()[0]
    # image 1: I = 4/3: v = 1.333 fires (.333), 1.5 (.5), 1.583 .. every step; image 2: silent. Cell 2 is silent.
    assert trains.intervals["only"].tolist() == [0, 5, 0, 0, 0, 0]
    assert row == {"layer": "only", "intervals": 5, "mean_interval": 1.0, "cv_interval": 0.0, "at_once": 1.0,
                   "at_once_by_chance": 1.0, "fano": pytest.approx(3.0)}


def test_intervals_of_a_slower_neuron():
    net = One([[0.7, 1.0]], [[0.0, 1.0]], [[1.0]], time_steps=5)  # I = .7: .7, 1.05 (.05), .725, 1.0625 (.0625), .73
    trains = SpikeTrains()
    stream(net, [torch.tensor([[1.0, 1.0]])], trains)
    assert trains.intervals["only"].tolist() == [0, 0, 1, 0, 0]
    assert trains.by_chance["only"].tolist() == pytest.approx([0, 0.4, 0.3, 0.2, 0.1])  # two spikes anywhere in five steps
    assert (trains.rows()[0]["at_once"], trains.rows()[0]["at_once_by_chance"]) == (0.0, pytest.approx(0.4))
    stream(net, [torch.tensor([[0.0, 1.0]])], silent := SpikeTrains())
    assert silent.rows()[0] == {"layer": "only", "intervals": 0, "mean_interval": None, "cv_interval": None, "at_once": None,
                                "at_once_by_chance": None, "fano": None}


def test_chance_is_what_shuffling_gives():
    class Activity(dict):
        name = "only"

    spikes = torch.rand(8, 4000, 3, generator=torch.Generator().manual_seed(0)) < torch.tensor([0.1, 0.3, 0.6])
    trains = SpikeTrains()
    trains.see(Activity(spikes=spikes.float()))
    assert torch.allclose(trains.intervals["only"], trains.by_chance["only"], rtol=0.05, atol=30)
    trains.see(Activity(spikes=spikes.sort(0).values.float()))  # the same spikes in one run at the end
    assert trains.by_chance["only"][1] < 0.8 * trains.intervals["only"][1]


def test_moments_in_parts_are_those_of_the_whole():
    x = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1e6
    m = Moments(2)
    m.add(x[0, :300], x[1, :300], chunk=77)
    m.add(x[0, 300:], x[1, 300:])
    assert m.n == 1000
    torch.testing.assert_close(m.mean, x.mean(1))
    torch.testing.assert_close(m.covariance, torch.cov(x, correction=0), rtol=1e-8, atol=1e-8)


def test_a_layer_without_bias_has_perfect_gain_control():
    weights = [[2.0, 1.0], [1.0, 3.0], [0.0, 0.5]], [[0.5, 0.5]], [[1.0], [1.0], [1.0]]
    x = torch.tensor([[0.3, 0.8], [0.9, 0.1]])
    rows = gain_rows(One(*weights), [x], levels=(0.1, 0.5))
    assert [r["contrast"] for r in rows] == [0.1, 0.5, 1.0]
    assert [r["before_division"] for r in rows] == pytest.approx([0.1, 0.5, 1.0])
    assert [r["after_division"] for r in rows] == pytest.approx([1.0, 1.0, 1.0])
    assert exponent(rows, "only", "before_division") == pytest.approx(1.0)
    assert exponent(rows, "only", "after_division") == pytest.approx(0.0, abs=1e-6)
    with_bias = gain_rows(One(*weights, b_e=[0.5, 0.5, 0.5]), [x], levels=(0.1, 0.5))
    assert [r["after_division"] for r in with_bias] == pytest.approx([1.0, 1.0, 1.0])  # the bias is no modulation
    modulation = Modulation()
    stream(One(*NET), [torch.tensor([[1.0, 0.0], [0.0, 3.0]])], modulation)  # I_EE - I_sub of the images: 1.5, 4.5 for cell 1
    before, _ = modulation.rms()["only"]
    assert before == pytest.approx(math.sqrt((1.5**2 + 0.5**2 + 0.25**2) / 3))


def test_modulation_is_by_the_image():
    """Not by time, of a fully connected layer; nor by the padding, of a map."""
    model = build("ei_mlp4_mnist")
    images = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    initialize(model, images, seed=0)
    modulation = Modulation()
    stream(model, [images[:1].repeat(8, 1, 1, 1)], modulation)
    assert [max(both) for both in modulation.rms().values()] == pytest.approx([0, 0, 0], abs=1e-5)
    current = torch.ones(2, 1, 1, 8, 8)
    current[..., 0, :] = 5
    assert _squares(current)[0] == 0


def test_gain_of_a_batch_norm_network_follows_the_input():
    torch.manual_seed(0)
    rows = gain_rows(build("bn_mlp2_mnist"), [torch.rand(4, 1, 28, 28)], levels=(0.1, 0.5))
    assert [r["before_division"] for r in rows] == [None] * 3
    assert [r["after_division"] for r in rows] == pytest.approx([0.1, 0.5, 1.0])


def test_contrast():
    x = torch.tensor([[0.0, 1.0], [0.2, 0.6]])
    torch.testing.assert_close(at_contrast(x, 0.5), x / 2)
    torch.testing.assert_close(at_contrast(x, 0.5, "mean"), torch.tensor([[0.25, 0.75], [0.3, 0.5]]))
    with pytest.raises(ValueError, match="not 'white'"):
        at_contrast(x, 0.5, "white")


def test_bimodality():
    rng = torch.Generator().manual_seed(0)
    assert bimodality_coefficient(torch.tensor([0.0, 1.0, 0.0, 1.0])) == pytest.approx(1.0)
    assert bimodality_coefficient(torch.linspace(0, 1, 10001)) == pytest.approx(5 / 9, abs=1e-3)
    assert bimodality_coefficient(torch.randn(200_000, generator=rng)) == pytest.approx(1 / 3, abs=0.01)
    assert bimodality_coefficient(torch.ones(9)) is None


def test_parameters():
    rows = {r["parameter"]: r for r in parameter_rows(One([[0.0, 2.0], [0.0, 2.0]], [[1.0, 1.0]], [[1.0], [3.0]], [-1.0, 1.0]))}
    assert list(rows) == ["g_I", "g_E", "b_E", "W_EE", "W_IE", "W_EI"]
    assert rows["W_EE"] | {"layer": ""} == {
        "layer": "", "parameter": "W_EE", "n": 4, "mean": 1.0, "std": 1.0, "zeros": 0.5, "negligible": 0.0, "negative": 0.0,
        "bimodality": pytest.approx(1.0), "bimodality_log": None}
    assert rows["b_E"]["negative"] == 0.5


def test_an_inhibitory_cell_is_as_strong_as_what_it_hears_and_what_it_says():
    layer = EILinear(1, 4, ei_ratio=2)
    with torch.no_grad():
        layer.ie.weight.copy_(torch.tensor([[5.0], [1.0]]))
        layer.ei.weight.copy_(torch.tensor([[0.5, 3.0]] * 4))
    assert inhibitory_strength(layer).tolist() == [10.0, 12.0]  # by W_IE alone, and over all of a row, the first would lead


def test_what_an_optimizer_leaves_of_a_weight_is_no_population():
    """Twelve weights of 1e-30 among a thousand would otherwise decide the shape of the rest on a logarithmic axis."""
    weights = -torch.rand(1000, 1, generator=torch.Generator().manual_seed(0)).log()
    clean, littered = (One(w.tolist(), [[1.0]], [[1.0]] * 1000) for w in (weights, weights.index_fill(0, torch.arange(12), 1e-30)))
    before, after = (next(r for r in parameter_rows(net) if r["parameter"] == "W_EE") for net in (clean, littered))
    assert after["negligible"] == pytest.approx(0.012, abs=1e-3) and before["negligible"] < 2e-3
    assert after["bimodality_log"] == pytest.approx(before["bimodality_log"], abs=0.02)
    assert before["bimodality_log"] == pytest.approx(0.43, abs=0.04)


def test_hsic_and_cka():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=rng, dtype=torch.float64)
    k = x @ x.T
    q, _ = torch.linalg.qr(torch.randn(6, 6, generator=rng, dtype=torch.float64))
    rotated = (3 * x @ q) @ (3 * x @ q).T
    within = (unbiased_hsic(k, k) * unbiased_hsic(rotated, rotated)).sqrt()
    assert (unbiased_hsic(k, rotated) / within).item() == pytest.approx(1)
    pairs = torch.randn(200, 2, 20, 5, generator=rng, dtype=torch.float64)  # independent: 0 in the mean
    values = torch.stack([unbiased_hsic(a @ a.T, b @ b.T) for a, b in pairs])
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(200)


@pytest.mark.parametrize("steps", [3, 4])
def test_a_layer_that_answers_all_images_alike_resembles_none(steps):
    """Whatever its cells' rates are: rounding is no similarity."""
    rng = torch.Generator().manual_seed(0)
    model, x = build("ei_mlp4_mnist", time_steps=steps), torch.rand(50, 1, 28, 28, generator=rng)
    initialize(model, x, seed=0)
    with torch.no_grad():
        for stage in model.stages[1:]:
            stage.layers[0].current.g_e.fill_(0)
            stage.layers[0].current.b_e.uniform_(0, 2, generator=rng)
    similar = cka(model, model, [x])
    assert similar[0, 0] == pytest.approx(1) and similar.isfinite().sum() == 1


def test_cka_of_networks():
    opposed = [[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]]
    net, twin = One(opposed, *NET[1:]), One([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]], *NET[1:])
    rng = torch.Generator().manual_seed(0)
    batches = [torch.rand(8, 2, generator=rng) for _ in range(3)]
    assert cka(net, net, batches).tolist() == [[pytest.approx(1.0)]]
    assert cka(net, One(opposed[::-1], *NET[1:]), batches).item() == pytest.approx(1.0)  # which cell is which does not matter
    assert 0.1 < cka(net, twin, batches).item() < 0.99
    torch.testing.assert_close(cka(net, twin, batches), cka(twin, net, batches).T)
    with pytest.raises(ValueError, match="at least 4 images"):
        cka(net, net, [torch.rand(3, 2)])
