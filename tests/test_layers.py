"""The E-I layer against the formula written out, values and gradients, the zero divisor included."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils import parametrize

import eisnn_zoo
from eisnn_zoo import fold
from eisnn_zoo.ei import EIConv2d, EILinear, EIReadout, project, scale_gradient, stabilise
from eisnn_zoo.networks import SpikingVGG
from eisnn_zoo.neuron import LIF


def layer(kind=EIConv2d, **options):
    torch.manual_seed(0)
    made = kind(3, 8, 3, dtype=torch.float64, **options) if kind is EIConv2d else kind(12, 8, dtype=torch.float64, **options)
    for name, p in made.named_parameters():
        p.data = torch.rand_like(p) - (0.5 if name == "b_e" else 0)
    return made


def half_black(*shape):
    x = torch.rand(*shape, dtype=torch.float64)
    x[0, :, : shape[2] // 2] = 0
    x[1] = 0
    return x


def literal(m, x):
    """Paper Eq. 14-18 with nothing folded, and the straight-through divisor by hand."""
    conv = lambda w: F.conv2d(x, w, padding=1)
    i_ee, i_ie = conv(m.ee.weight), conv(m.ie.weight)
    w_ei = m.ei.weight
    through = lambda i: torch.einsum("ei,bihw->behw", w_ei, i)
    i_div = through(m.g_i[:, None, None] * i_ie)
    divisor = i_div.detach().clone()
    for one in divisor:
        nonzero = one[one != 0]
        one[one == 0] = nonzero.min() if len(nonzero) else math.inf
    d = divisor + (i_div - i_div.detach())
    return m.g_e[:, None, None] * (i_ee - through(i_ie)) / d + m.b_e[:, None, None]


def test_convolution_is_the_formula():
    m, x = layer(), half_black(3, 3, 6, 6)
    torch.testing.assert_close(m(x), literal(m, x), rtol=1e-10, atol=1e-10)
    assert torch.equal(m(x)[1], m.b_e[:, None, None].expand(8, 6, 6))  # a silent slice gives b_E alone


def test_gradients_are_the_formulas_with_w_ei_divided_by_fan_in():
    m, x, target = layer(), half_black(3, 3, 6, 6), torch.randn(3, 8, 6, 6, dtype=torch.float64)
    grads = []
    for forward in (m, lambda x: literal(m, x)):
        m.zero_grad()
        (forward(x) * target).sum().backward()
        grads.append({n: p.grad.clone() for n, p in m.named_parameters()})
    ours, theirs = grads
    theirs["ei.weight"] /= 27
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-9, atol=1e-9, msg=name)


def test_the_currents_by_name_are_the_forward():
    for m, x in ((layer(), half_black(3, 3, 6, 6)), (layer(EILinear), torch.rand(4, 12, dtype=torch.float64))):
        c = m.currents(x)
        torch.testing.assert_close(c["I"], m(x), rtol=1e-10, atol=1e-10)
        assert (c["I_div"] >= 0).all() and (c["D"] > 0).all() and c["I_IE"].shape[1] == 2


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_small_maps_agree_with_the_library_convolution(size, dtype):
    from eisnn_zoo.convolution import conv2d

    x = torch.randint(0, 3, (5, 16, size, size)).to(dtype)
    w = torch.randn(12, 16, 3, 3).to(dtype)
    ours, theirs = conv2d(x, w, 1, 1), F.conv2d(x.double(), w.double(), padding=1)
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-10 if dtype is torch.float64 else 0.3)


@pytest.mark.filterwarnings("ignore:TF32")
def test_silence_is_exact_where_torch_has_no_onednn():
    """As on Macs, where torch would take Winograd from 16 images on: differences of sums, which leave rounding errors."""
    x = (torch.rand(16, 64, 16, 16) < 0.3).float()
    x[..., :8] = 0
    layer = EIConv2d(64, 64, 3)
    with torch.backends.mkldnn.flags(enabled=False), torch.no_grad():
        seen = {name: layer.currents(x)[name] for name in ("I_EE", "I_IE")}
        folded = layer(x)
    assert all((value[..., :7] == 0).all() and (value[..., 8:] > 0).any() for value in seen.values())
    with torch.no_grad():
        torch.testing.assert_close(folded, layer(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make, word", [
    (lambda: EIConv2d(3, 8, 3)(torch.rand(3, 8, 8)), "one image is x[None]"), (lambda: EIConv2d(3, 8, 3).currents(torch.rand(3, 8, 8)), "one image"),
    (lambda: EIConv2d(3, 8, 2), "one odd number"), (lambda: EIConv2d(3, 8, (3, 3)), "one odd number"),
    (lambda: EILinear(10, 8)(torch.rand(2, 5, 10)), "each of the N a slice"), (lambda: EILinear(10, 8)(torch.rand(10)), "got 1 dimensions")])
def test_other_shapes_are_named(make, word):
    with pytest.raises(ValueError, match=re.escape(word)):
        make()
    assert EIConv2d(3, 8, 2, stride=2, padding=0)(torch.rand(1, 3, 8, 8)).shape == (1, 8, 4, 4)


def test_stabilise_by_hand():
    x = torch.tensor([[0.0, 4.0, 2.0], [0.0, 0.0, 0.0], [3.0, 1.0, 5.0]], requires_grad=True)
    d = stabilise(x)
    assert d.tolist() == [[2, 4, 2], [math.inf] * 3, [3, 1, 5]]
    d[0].sum().backward()
    assert x.grad.tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    x.grad = None
    stabilise(x, "no_ste")[0].sum().backward()
    assert x.grad.tolist()[0] == [0, 1, 1]
    assert torch.equal(stabilise(x, "none"), x)


def test_scaled_gradient_leaves_the_value_alone():
    w = torch.rand(1000, requires_grad=True)
    assert torch.equal(scale_gradient(w, 1 / 27), w)
    scale_gradient(w, 1 / 27).sum().backward()
    torch.testing.assert_close(w.grad, torch.full((1000,), 1 / 27))


def test_readout_has_only_what_takes_part():
    m = EIReadout(20, 10)
    assert [n for n, _ in m.named_parameters()] == ["ee.weight", "ie.weight", "ei.weight"]
    x = torch.rand(3, 20)
    expected = x @ m.ee.weight.T - (x @ m.ie.weight.T) @ m.ei.weight.T
    torch.testing.assert_close(m(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("classes, cells", [(1, 1), (3, 1), (4, 1), (10, 2), (1000, 250)])
def test_at_least_one_inhibitory_cell(classes, cells):
    assert EIReadout(5, classes).n_i == cells


def test_project_is_dales_law():
    m = layer()
    for p in m.parameters():
        p.data -= 0.5
    bias = m.b_e.clone()
    project(m)
    assert torch.equal(m.b_e, bias) and (bias < 0).any()
    assert all((p >= 0).all() for n, p in m.named_parameters() if n != "b_e")


def test_what_is_behind_a_parametrization_is_not_projected():
    class Exponential(torch.nn.Module):
        def forward(self, x):
            return x.exp()

        def right_inverse(self, weight):
            return weight.log()

    layer = EILinear(10, 8)
    before = layer.ee.weight.detach().clone()
    parametrize.register_parametrization(layer.ee, "weight", Exponential())
    with torch.no_grad():
        layer.ie.weight.sub_(1.0)
    project(layer)
    torch.testing.assert_close(layer.ee.weight, before)
    assert (layer.ie.weight >= 0).all() and (layer.ie.weight == 0).any()


def test_init_formulas():
    m = EIConv2d(3, 64, 3)
    x = torch.rand(32, 3, 8, 8)
    m.initialize(x, np.random.default_rng(5))
    e, q, v, d = x.mean(), x.square().mean(), x.var(0).mean(), 27
    scale = (v / (d * (q + v))).sqrt().item()
    drawn = np.random.default_rng(5).exponential(scale, (64, 3, 3, 3))
    np.testing.assert_allclose(m.ee.weight.detach().numpy(), drawn, rtol=1e-5)
    torch.testing.assert_close(m.g_i, torch.full((16,), ((q + v).sqrt() / (math.sqrt(d) * e)).item()))
    assert (m.ei.weight == 1 / 16).all() and (m.g_e == 1).all() and (m.b_e == 0).all()


def test_the_same_weights_are_drawn_in_any_type():
    layers = {dtype: EILinear(6, 8, dtype=dtype) for dtype in (torch.float32, torch.float64)}
    x = torch.rand(5, 6, generator=torch.Generator().manual_seed(0)).bernoulli(generator=torch.Generator().manual_seed(1))
    for dtype, layer in layers.items():
        layer.initialize(x.to(dtype), np.random.default_rng(0))
    single, double = layers.values()
    torch.testing.assert_close(single.ee.weight, double.ee.weight.float(), rtol=1e-6, atol=0)  # the inputs' statistics are rounded otherwise
    assert torch.equal(double.ee.weight, double.ee.weight.float().double())


@pytest.mark.parametrize("bad, word", [(-torch.ones(4, 3, 8, 8), "non-negative"), (torch.zeros(4, 3, 8, 8), "silent"),
                                       (torch.ones(4, 3, 8, 8), "same for every image")])
def test_init_says_what_is_wrong_with_the_batch(bad, word):
    with pytest.raises(ValueError, match=word):
        EIConv2d(3, 8, 3).initialize(bad, np.random.default_rng(0))


def test_bf16_autocast_keeps_divisors_and_membranes_in_float32():
    torch.manual_seed(0)
    net = SpikingVGG(8, time_steps=2)
    seen = {}
    stage = net.stages[1].layers[0]
    stage.current.register_forward_hook(lambda m, a, out: seen.update(current=out.dtype, x=a[0].dtype))
    stage.lif.register_forward_hook(lambda m, a, out: seen.update(spikes=out.dtype))
    net._unsure = False
    with torch.autocast("cpu", torch.bfloat16):
        net(torch.rand(2, 3, 32, 32))
    assert seen == {"current": torch.float32, "x": torch.bfloat16, "spikes": torch.bfloat16}


def test_a_membrane_is_float32_under_autocast_whatever_drives_it():
    """BatchNorm's currents come in bfloat16; a step of the membrane in bfloat16 would move its spikes."""
    current = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = LIF()(current.float(), 4)
    with torch.autocast("cpu", torch.bfloat16):
        spikes = LIF()(current, 4)
    assert spikes.dtype == torch.bfloat16 and torch.equal(spikes.float(), expected)
    assert not torch.equal(LIF()(current, 4).float(), expected)


def test_an_unknown_stabilisation_is_refused():
    for build in (EIConv2d, EILinear):
        with pytest.raises(ValueError, match="unknown stabilisation 'noste'; choose one of adaptive, no_ste, none"):
            build(3, 8, **({"kernel_size": 3} if build is EIConv2d else {}), stabilisation="noste")
    for name in ("ei_vgg8", "bn_vgg8"):
        with pytest.raises(ValueError, match="unknown stabilisation"):
            eisnn_zoo.create_model(name, stabilisation="noste")


def test_weights_are_folded_in_full_precision_under_autocast():
    """Their difference is of two large sums."""
    torch.manual_seed(0)
    layer = EILinear(200, 64)
    with torch.autocast("cpu", torch.bfloat16):
        folded = layer.joint_weight()[0]
    assert torch.equal(folded, layer.joint_weight()[0])


def test_folding_takes_no_training_state_along():
    net = SpikingVGG(8)
    before = {name: p.clone() for name, p in net.named_parameters()}
    folded = fold(net)
    assert not any(p.requires_grad for p in folded.parameters()) and not any(m.training for m in folded.modules())
    after = dict(net.named_parameters())  # the original is left as it was
    assert after.keys() == before.keys() and all(torch.equal(p, before[name]) and p.requires_grad for name, p in after.items())
