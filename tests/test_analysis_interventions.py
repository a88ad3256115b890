"""Interventions do what they say, to a layer worked out by hand, and leave no trace."""

from functools import partial

import pytest
import torch
from torch import nn

from eisnn_zoo.analysis import interventions as iv
from eisnn_zoo.analysis import record
from eisnn_zoo.ei import EILinear
from eisnn_zoo.ei_init import initialize
from eisnn_zoo.inference.folding import fold
from eisnn_zoo.networks import build
from eisnn_zoo.networks.cells import Spiking
from eisnn_zoo.neuron import LIF


@pytest.mark.parametrize("how", [lambda m: torch.compile(m, backend="eager"), lambda m: m.compile(backend="eager") or m])
@pytest.mark.parametrize("change", [
    lambda m, x: iv.drop_spikes(m, 0.5), lambda m, x: iv.scale_subtraction(m, 0.5), lambda m, x: iv.input_noise(m, 0.3),
    lambda m, x: iv.fixed_division(m, iv.mean_divisors(m, [x])), lambda m, x: iv.lesion(m, 0.5)])
@torch.no_grad()
def test_a_compiled_network_is_changed_as_a_plain_one(change, how):
    net = build("ei_mlp2_mnist").eval()
    x = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    initialize(net, x, 0)
    before = net(x)
    with change(net, x):
        expected = net(x)
    assert not torch.allclose(expected, before)
    compiled = how(net)
    torch.testing.assert_close(compiled(x), before)
    with change(compiled, x):
        torch.testing.assert_close(compiled(x), expected)
    torch.testing.assert_close(compiled(x), before)


@pytest.mark.parametrize("change", [iv.lesion, iv.flip_signs, iv.weight_noise])
def test_weights_that_are_computed_from_others_are_not_changed_in_vain(change):
    net = build("ei_mlp2_mnist")
    for synapses in (net.stages[0].layers[0].current.ee, net.stages[0].layers[0].current.ei):
        nn.utils.parametrize.register_parametrization(synapses, "weight", nn.ReLU())
    with pytest.raises(ValueError, match="remove_parametrizations"), change(net, 0.5):
        pass


class Pair(nn.Module):
    """Four excitatory cells with two inhibitory ones: x = (1, 1) makes I_EE = 8, I_IE = (1, 2), I_sub = 1*1 + 0.5*2 = 2,
    I_div = 2 as well, I = (8 - 2) / 2 + 0.5 = 3.5."""

    def __init__(self):
        super().__init__()
        layer = EILinear(2, 4, ei_ratio=2)
        with torch.no_grad():
            layer.ee.weight.fill_(4.0)
            layer.ie.weight.copy_(torch.tensor([[0.5, 0.5], [1.0, 1.0]]))
            layer.ei.weight.copy_(torch.tensor([[1.0, 0.5]] * 4))
            layer.g_i.fill_(1.0)
            layer.g_e.fill_(1.0)
            layer.b_e.fill_(0.5)
        self.cells = Spiking(layer, LIF())

    def forward(self, x):
        return self.cells(x, 2, 1)


ONE = torch.ones(1, 2)


def current(model, x=ONE) -> float:
    _, recorded = record(model, x, ["I"])
    return recorded["cells"]["I"][0, 0, 0].item()


def test_inhibition_by_hand():
    model = Pair()
    assert current(model) == pytest.approx(3.5)
    with torch.no_grad():
        model.cells.current.ie.weight[0] *= 3  # I_IE = (3, 2), I_sub = 4; the first cell is the stronger, 4 * 3 against 2 * 2
    assert current(model) == pytest.approx((8 - 4) / 4 + 0.5)
    with iv.lesion(model, 0.5, "strongest"):
        assert current(model) == pytest.approx((8 - 1) / 1 + 0.5)
    with iv.lesion(model, 0.5, "weakest"):
        assert current(model) == pytest.approx((8 - 3) / 3 + 0.5)
    with iv.lesion(model, 1.0):
        assert current(model) == pytest.approx(0.5)  # no divisor anywhere: I = b_E
    with iv.scale_g_i(model, 2.0):
        assert current(model) == pytest.approx((8 - 4) / 8 + 0.5)
    with iv.scale_subtraction(model, 0.0):
        assert current(model) == pytest.approx(8 / 4 + 0.5)
    with iv.scale_subtraction(model, 1.5):
        assert current(model) == pytest.approx((8 - 6) / 4 + 0.5)


def test_fixed_division_keeps_the_divisor_of_other_images():
    model = Pair()
    divisors = iv.mean_divisors(model, [ONE, 4 * ONE])  # 2 and 8: geometric mean 4
    assert divisors["cells.current"].tolist() == pytest.approx([4.0] * 4)
    with iv.fixed_division(model, divisors):
        assert current(model) == pytest.approx(6 / 4 + 0.5)
        assert current(model, 2 * ONE) == pytest.approx(12 / 4 + 0.5)
    assert current(model, 2 * ONE) == pytest.approx(3.5)


def test_signs_noise_and_inputs():
    model = Pair()
    with iv.flip_signs(model, 1.0):
        assert current(model) == pytest.approx((-8 - 2) / 2 + 0.5)
    with iv.weight_noise(model, 2.0, seed=1):
        weights = [p.clone() for p in model.parameters()]
        assert all((p >= 0).all() for p in weights)
        assert (model.cells.current.ee.weight != 4).all()
    with iv.weight_noise(model, 2.0, seed=1):
        assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters()))
    with iv.input_contrast(model, 0.5):
        _, recorded = record(model, ONE, ["input"])
        assert recorded["cells"]["input"].unique().tolist() == [0.5]
    half = torch.full((1, 2), 0.5)
    with iv.input_noise(model, 10.0):
        _, recorded = record(model, half, ["input"])
        assert set(recorded["cells"]["input"].unique().tolist()) <= {0.0, 1.0}
    with iv.drop_spikes(model, 1.0):
        assert model(ONE).sum() == 0
    with iv.drop_spikes(model, 0.5):
        kept = model(torch.ones(500, 2)).mean()
    assert 0.45 < kept < 0.55


@torch.no_grad()
def test_changes_are_as_large_as_they_say(trained):
    """Measured on weights and inputs of which there are many."""
    layer = next(iter(iv.ei_layers(trained[0]).values()))
    before = layer.ee.weight.clone()
    with iv.flip_signs(trained[0], 0.3):
        assert (layer.ee.weight != before).double().mean() == pytest.approx(0.3, abs=0.01)
    with iv.weight_noise(trained[0], 0.1):
        assert (layer.ee.weight / before - 1).std() == pytest.approx(0.1, abs=0.002)
    seen = []
    with trained[0].stages[0].register_forward_pre_hook(lambda _, args: seen.append(args[0])), iv.input_noise(trained[0], 0.05):
        trained[0](torch.full((20, 1, 28, 28), 0.5))
        trained[0](torch.full((20, 1, 28, 28), 3.0))  # counts of events
    for x, mean in zip(seen, (0.5, 3.0)):
        assert (x.std().item(), x.mean().item()) == pytest.approx((0.05, mean), abs=0.002)


def test_which_cells_are_lesioned_is_the_seeds(trained):
    layer = next(iter(iv.ei_layers(trained[0]).values()))
    silenced = []
    for seed in (0, 0, 1):
        with iv.lesion(trained[0], 0.3, seed=seed):
            silenced.append((layer.ei.weight == 0).all(0).tolist())
    assert silenced[0] == silenced[1] != silenced[2]


def test_every_layer_loses_spikes():
    model = build("ei_mlp4_mnist").eval()
    x = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    initialize(model, x, seed=0)
    with iv.drop_spikes(model, 1.0):
        _, recorded = record(model, x, ["input"])
    assert [layer["input"].count_nonzero().item() > 0 for layer in recorded.values()] == [True, False, False]


def test_each_cell_has_its_own_mean_divisor():
    model = Pair()
    with torch.no_grad():
        model.cells.current.ei.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0]]))
    divisors = iv.mean_divisors(model, [ONE, 4 * ONE, 0 * ONE])["cells.current"]  # of darkness there is none
    assert divisors.tolist() == pytest.approx([2.0, 4.0, 6.0, 4.0])


LEVELS = {
    "lesion": (iv.lesion, 0.5), "strongest": (partial(iv.lesion, by="strongest"), 0.5), "g_i": (iv.scale_g_i, 2.0),
    "subtraction": (iv.scale_subtraction, 0.0), "signs": (iv.flip_signs, 0.3), "weights": (iv.weight_noise, 0.5),
    "input": (iv.input_noise, 0.3),
    "contrast": (partial(iv.input_contrast, about="mean"), 0.2), "spikes": (iv.drop_spikes, 0.3),
}


@pytest.fixture(scope="module")
def trained():
    x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    model = build("ei_mlp4_mnist")
    initialize(model, x, seed=0)
    return model.eval(), x


@pytest.mark.parametrize("name", LEVELS)
@torch.no_grad()
def test_a_network_is_changed_and_then_as_before(trained, name):
    model, x = trained
    intervention, level = LEVELS[name]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    before = model(x)
    with intervention(model, level):
        assert not torch.equal(model(x), before)
    assert torch.equal(model(x), before)
    with pytest.raises(RuntimeError), intervention(model, level):
        raise RuntimeError
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert torch.equal(model(x), before)


@torch.no_grad()
def test_lesions_and_folding_agree(trained):
    model, x = trained
    with iv.lesion(model, 0.5):
        folded = fold(model.double())
        torch.testing.assert_close(folded(x.double()), model(x.double()))
    model.float()


@torch.no_grad()
def test_an_ei_network_does_not_see_that_the_light_is_dimmed(trained):
    model, x = trained
    before = model(x)
    with iv.input_contrast(model, 0.25):
        assert torch.equal(model(x), before)


def test_a_curve():
    class Bright(nn.Module):  # class 1 where the mean exceeds 0.3
        def forward(self, x):
            mean = x.flatten(1).mean(1)
            return torch.stack([torch.full_like(mean, 0.3), mean], 1)

    x, y = torch.tensor([[0.1], [0.5], [1.0], [1.0]]), torch.tensor([0, 1, 1, 0])
    rows = iv.curve(Bright(), [(x[:3], y[:3]), (x[3:], y[3:])], iv.input_contrast, (1.0, 0.4, 0.1))
    assert rows == [{"level": 1.0, "top1": 75.0}, {"level": 0.4, "top1": 50.0}, {"level": 0.1, "top1": 50.0}]


def test_sentences(trained):
    model, _ = trained
    for call, words in (
        (lambda: iv.lesion(model, 1.5), r"share in \[0, 1\], got 1.5"),
        (lambda: iv.lesion(model, 0.5, "size"), "not 'size'"),
        (lambda: iv.scale_g_i(model, -1), "cannot be scaled by -1"),
        (lambda: iv.lesion(fold(model), 0.5), "it is folded"),
        (lambda: iv.scale_g_i(build("bn_mlp2_mnist"), 2), "no E-I network"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_events_are_lost_one_by_one():
    seen = []

    class Sees(nn.Module):
        def forward(self, x):
            seen.append(x)

    model, x = Sees(), torch.poisson(torch.full((40, 2, 2, 8, 8), 1.5), generator=torch.Generator().manual_seed(0))
    for share in (0.0, 0.25, 1.0):
        with iv.drop_events(model, share):
            model(x)
    whole, some, none = seen
    assert torch.equal(whole, x) and not none.any()
    assert (some <= x).all() and torch.equal(some, some.round()) and ((some > 0) & (some < x)).any()
    assert some.sum() / x.sum() == pytest.approx(0.75, abs=0.02)
    model(x)
    assert torch.equal(seen[-1], x)
    with iv.drop_events(model, 0.5):
        model(x / 3)  # resized frames
    assert set((seen[-1] == x / 3).flatten().tolist()) == {True, False} and ((seen[-1] == 0) | (seen[-1] == x / 3)).all()
