"""A folded network gives the network's answers; its fast forms are the operations they stand for."""

import copy
import math
import os
import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from conftest import since_torch_2_7
from torch import nn

import eisnn_zoo
from eisnn_zoo.catalog import MODELS
from eisnn_zoo.convolution import apply_dense, dense_matrix, patches
from eisnn_zoo.ei import EIConv2d, EIReadout, stabilise
from eisnn_zoo.inference import integer
from eisnn_zoo.inference.folding import FoldedEI, FoldedLIF, IntegerEI, Pieces, divisor, fold
from eisnn_zoo.networks import build
from eisnn_zoo.networks.cells import BNConv2d
from eisnn_zoo.neuron import LIF
from eisnn_zoo.precision import strict_arithmetic


def network(name: str, **options):
    torch.manual_seed(3)
    net = build(name, **options).double()
    if net.kind == "ei":
        eisnn_zoo.initialize(net, torch.rand(8, *((net.time_steps,) if net.event_input else ()), *MODELS[name].input_size).double(), 3)
    for norm in (m for m in net.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))):
        for values in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            values.uniform_(0.1, 1.5)
    return net.eval()


def images(n: int, *shape: int):
    """Random pixels; the first is black, the second half black."""
    x = torch.rand(n, *shape, dtype=torch.float64)
    x[0] = 0
    x[1, ..., : shape[-2] // 2, :] = 0
    return x


@pytest.mark.parametrize("size, stride, padding, kernel", [((1, 2), 1, 1, 3), ((2, 2), 1, 1, 3), ((4, 4), 1, 1, 3), ((5, 4), 2, 1, 3),
                                                           ((8, 8), 2, 1, 3), ((6, 5), 2, 0, 1)])
def test_fast_convolutions_are_convolutions(size, stride, padding, kernel):
    w, x = torch.randn(5, 3, kernel, kernel, dtype=torch.float64), torch.randn(2, 3, *size, dtype=torch.float64)
    expected = F.conv2d(x, w, None, stride, padding)
    torch.testing.assert_close(patches(x, w, stride, padding), expected, rtol=1e-11, atol=1e-11)
    if max(size) <= 2:
        torch.testing.assert_close(apply_dense(x, dense_matrix(w, *size)), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_silence_stays_exactly_zero(where):
    """D replaces what is exactly 0: no fast convolution may leave a rounding error where no spike arrives."""
    if where == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    strict_arithmetic()
    net = network("ei_vgg8", time_steps=1).float().to(where)
    for layer in (m for m in fold(net, (32, 32)).modules() if isinstance(m, FoldedEI)):
        for side in (2, 4, 8, 16):
            x = (torch.rand(2, layer.weight.shape[1], side, side) < 0.3).float().to(where)
            x[0] = 0
            x[1, :, : side // 2] = 0
            silent = F.max_pool2d(x.amax(1, keepdim=True), 3, 1, 1)[:, 0] == 0
            assert (layer.synaptic(x)[silent] == 0).all() and silent.any()


def test_divisor_is_adaptive_stabilisation_bit_for_bit():
    i_div = torch.randn(6, 4, 5, 5).relu()
    i_div[0] = 0
    i_div[1] += 1
    assert torch.equal(divisor(i_div), stabilise(i_div))
    assert divisor(i_div)[0].isinf().all()
    assert torch.equal(divisor(i_div[:, :, 0, 0].contiguous()), stabilise(i_div[:, :, 0, 0]))


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 4, 4)])
@pytest.mark.parametrize("options", [{}, {"tau": 3.0, "threshold": 0.7}, {"reset": "hard"}])
def test_folded_neuron_is_the_neuron(shape, options, steps):
    for held in (True, False):
        current = torch.rand(1 if held else steps, *shape, dtype=torch.float64) * 2
        if len(shape) == 4:
            current = current.movedim(2, -1).contiguous().movedim(-1, 2)
        with torch.inference_mode():
            expected = LIF(**options)(current, steps)
            got = FoldedLIF(**options)(current.clone(), steps)
        assert torch.equal(got, expected) and 0 < expected.mean() < 1


@pytest.mark.parametrize("name, shape, options", [
    ("ei_vgg8", (3, 32, 32), {"time_steps": 3}),
    ("ei_vgg8", (3, 40, 48), {"time_steps": 2}),
    ("ei_vgg8_cifar10dvs", (2, 2, 48, 48), {"time_steps": 2}),
    ("ei_resnet18", (3, 16, 16), {"time_steps": 2}),
    ("ei_resnet50", (3, 8, 8), {"time_steps": 1}),
    ("ei_mlp4_mnist", (1, 28, 28), {}),
    ("bn_vgg8", (3, 32, 32), {"time_steps": 2}),
    ("bn_mlp4_mnist", (1, 28, 28), {"time_steps": 2}),
    ("ann_resnet18_cifar10", (3, 16, 16), {}),
])
def test_folded_answers_are_the_network_s(name, shape, options):
    net, x = network(name, **options), images(3, *shape)
    with torch.inference_mode():
        expected = net(x)
        for folded in (fold(net), fold(net, shape[-2:])):
            folded(x.flip(0))  # leaves nothing behind
            torch.testing.assert_close(folded(x), expected, rtol=1e-9, atol=1e-9)
    assert expected.std() > 0
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in fold(net, shape[-2:]).modules())


def test_pieces_put_the_batch_together_again():
    net, x = network("ei_vgg8", time_steps=2), images(5, 3, 32, 32)
    folded = fold(net, (32, 32))
    assert all(isinstance(stage, Pieces) for stage in folded.stages)
    for stage in folded.stages:
        stage.images = 2
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), net(x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(folded.forward_evidence(x).mean(0), net(x), rtol=1e-9, atol=1e-9)


def test_a_network_folded_for_one_size_takes_others():
    net, x = network("ei_resnet18", time_steps=1), images(2, 3, 24, 24)
    with torch.inference_mode():
        torch.testing.assert_close(fold(net, (32, 32))(x), net(x), rtol=1e-9, atol=1e-9)


def test_a_folded_network_compiles_without_graph_breaks():
    net, x = network("ei_vgg8", time_steps=2), images(2, 3, 32, 32)
    with torch.inference_mode():
        for folded in (fold(net), fold(net, (32, 32))):
            compiled = torch.compile(folded, fullgraph=True, backend="eager")
            torch.testing.assert_close(compiled(x), net(x), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_compiled_stages_give_the_same():
    net, x = network("ei_vgg8", time_steps=2), images(6, 3, 32, 32)
    folded = fold(net, (32, 32), compile=True)
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), net(x), rtol=1e-9, atol=1e-9)


def test_weights_that_break_dales_law_are_not_folded():
    net = build("ei_mlp2")
    with torch.no_grad():
        net.stages[0].layers[0].current.ie.weight[0, 0] = -1
    with pytest.raises(ValueError, match="project_"):
        fold(net)
    net.project_()
    fold(net)


def test_ablated_layers_stay_ablated():
    layer = EIConv2d(3, 8, 3).double()
    layer.stabilisation = "none"
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64) + 0.1
    torch.testing.assert_close(FoldedEI(layer)(x), layer(x), rtol=1e-9, atol=1e-9)


# ---- 8-bit weights ---------------------------------------------------------------------------------------------------

on_x86 = pytest.mark.skipif(not integer.available(), reason="oneDNN's integer convolution is for x86")


@on_x86
@pytest.mark.parametrize("side, kernel, stride", [(6, 3, 1), (7, 3, 2), (5, 1, 2)])
def test_integer_convolution_rounds_nothing_but_weights(side, kernel, stride):
    w = torch.randn(24, 16, kernel, kernel)
    integers, scale = integer.round_weights(w)
    rounded = integers.double() * scale.double().view(-1, 1, 1, 1)
    assert integers.abs().max() == 127 and ((rounded - w).abs() <= 0.51 * scale.double().view(-1, 1, 1, 1)).all()
    x = torch.randint(0, 5, (3, 16, side, side)).float() / 4  # means of four spikes
    x[0], x[1] = 0, x[1].ceil() * integer.MOST  # silence; and sums of spikes over many blocks
    y = integer.IntegerConv2d(integers, scale, stride, kernel // 2)(x)
    torch.testing.assert_close(y.double(), F.conv2d(x.double(), rounded, None, stride, kernel // 2), rtol=1e-6, atol=1e-6)
    assert (y[0] == 0).all() and y.dtype == torch.float32


@on_x86
@pytest.mark.parametrize("name, size, options", [("ei_vgg8", 32, {"time_steps": 2}), ("ei_resnet18", 16, {"time_steps": 2})])
def test_a_network_with_8_bit_weights_is_the_one_with_rounded_weights(name, size, options):
    from eisnn_zoo.ei_init import initialize

    net = build(name, **options)
    x = images(8, 3, size, size).float()
    initialize(net, x, 1)
    folded = fold(net, (size, size), int8=True)
    exact = fold(net.double(), (size, size))
    rounded = [m for m in exact.modules() if isinstance(m, FoldedEI) and m.convolves][1:]
    for layer, ours in zip(rounded, [m for m in folded.modules() if isinstance(m, IntegerEI)], strict=True):
        layer.weight.copy_(ours.plain.integers.double() * ours.plain.scale.double().view(-1, 1, 1, 1))
        layer.size = None  # its matrix is of the weights before rounding
    with torch.inference_mode():
        expected, got = exact(x.double()), folded(x)
        close = (got - expected).abs().amax(1) < 1e-4 * expected.abs().max()
        assert close.float().mean() >= 0.8  # a membrane that meets the threshold to rounding may go either way
        assert torch.equal(copy.deepcopy(folded)(x), got)
    kinds = [type(m) for m in folded.modules() if isinstance(m, FoldedEI)]
    assert kinds == [FoldedEI, *[IntegerEI] * len(rounded)]


@pytest.mark.parametrize("options", [{"size": None}, {"size": (32, 32)}, {"size": (32, 32), "int8": True}])
def test_a_folded_network_takes_the_weights_of_another_and_travels(options):
    if options.get("int8") and not integer.available():
        pytest.skip("torch has no 8-bit kernel here")
    nets = [network("ei_vgg8", time_steps=2).float() for _ in range(2)]
    eisnn_zoo.initialize(nets[1], torch.rand(8, 3, 32, 32), 9)
    first, second = (fold(net, **options) for net in nets)
    x = images(4, 3, 32, 32).float()
    with torch.inference_mode():
        expected = first(x)
        assert not torch.equal(second(x), expected)
        second.load_state_dict(first.state_dict())
        assert torch.equal(second(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(second))(x), expected)


class Quiet(LIF):
    def after(self, v, spikes):
        return torch.zeros_like(v)


class Halved(EIConv2d):
    def synaptic(self, x, weight):
        return super().synaptic(x / 2, weight)


@pytest.mark.parametrize("size", [None, (32, 32)])
def test_what_was_derived_from_our_layers_is_not_folded(size):
    net = network("ei_vgg8", time_steps=3)
    plain, x = copy.deepcopy(net), images(3, 3, 32, 32)
    net.stages[1].layers[0].lif.__class__ = Quiet
    net.stages[2].layers[0].current.__class__ = Halved
    with torch.no_grad():
        torch.testing.assert_close(fold(net, size)(x), net(x))
        assert not torch.allclose(plain(x), net(x))


class Cool(EIReadout):
    def forward(self, x):
        return super().forward(x) / 10


class Damped(BNConv2d):
    def forward(self, x):
        return super().forward(x) * 0.8


@pytest.mark.parametrize("size", [None, (32, 32)])
@pytest.mark.parametrize("change", [
    lambda net: setattr(net.head, "__class__", Cool) if net.kind == "ei" else setattr(net.stages[1].layers[0].current, "__class__", Damped),
    lambda net: net.stages[1].layers[0].current.register_forward_hook(lambda module, inputs, out: out * 2)])
@pytest.mark.parametrize("name", ["ei_vgg8", "bn_vgg8"])
def test_what_is_derived_or_hooked_is_left_as_it_is(name, change, size):
    net, x = network(name), images(2, 3, 32, 32)
    before = net(x)
    change(net)
    with torch.no_grad():
        torch.testing.assert_close(fold(net, size)(x), net(x))
        assert not torch.allclose(before, net(x))


@pytest.mark.parametrize("part, change", [
    ("bn", lambda module, inputs, out: out * 0.5), ("conv", lambda module, inputs, out: out * 0.5), ("bn", None)])
def test_what_somebody_changed_inside_a_layer_of_the_baseline_is_theirs(part, change):
    net, x = network("bn_vgg8"), images(2, 3, 32, 32)
    before, layer = net(x), net.stages[1].layers[0].current
    if change:
        getattr(layer, part).register_forward_hook(change)
    else:
        setattr(layer, part, nn.Identity())
    with torch.no_grad():
        torch.testing.assert_close(fold(net, (32, 32))(x), net(x))
        assert not torch.allclose(before, net(x))


@torch.no_grad()
def test_a_hook_may_keep_the_current_it_sees():
    """Folded neurons write into their currents."""
    net, x, kept = network("ei_mlp4_mnist"), images(4, 1, 28, 28), {}
    net.stages[1].layers[0].current.register_forward_hook(lambda module, inputs, out: kept.update(current=out))
    net(x)
    expected = kept.pop("current").clone()
    fold(net)(x)
    torch.testing.assert_close(kept["current"], expected)


@torch.no_grad()
def test_hooks_do_not_see_the_image_that_folding_measures_with():
    net, seen = network("ei_vgg8"), []
    net.stages[1].register_forward_hook(lambda module, inputs, out: seen.append(out))
    folded = fold(net, (32, 32))
    assert seen == []
    folded(images(2, 3, 32, 32))
    assert len(seen) == 1


def test_weights_that_are_no_numbers_are_not_folded():
    net = network("ei_mlp2_mnist")
    net.stages[0].layers[0].current.ee.weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        fold(net)


def test_a_size_is_a_pair():
    with pytest.raises(ValueError, match=r"size is \(height, width\) .* got 32"):
        fold(network("ei_vgg8"), 32)


def test_8_bit_weights_where_they_cannot_be():
    for name, size in (("ei_vgg8", None), ("bn_vgg8", (32, 32)), ("ei_mlp2_mnist", (28, 28))):
        with pytest.raises(ValueError, match="E-I convolutions on a CPU"):
            fold(network(name), size, int8=True)


@on_x86
def test_8_bit_sums_of_more_spikes_than_a_processor_may_add_are_refused(monkeypatch):
    net = network("ei_resnet18").float()
    fold(net, (16, 16), int8=True)
    monkeypatch.setattr("eisnn_zoo.inference.folding.MOST", 2)  # as many blocks as a stage has
    with pytest.raises(ValueError, match="exact for sums of up to 2 spikes"):
        fold(net, (16, 16), int8=True)


@on_x86
def test_8_bit_sums_are_exact_on_processors_that_add_in_pairs():
    code = ("import torch, torch.nn.functional as F\nfrom eisnn_zoo.inference.integer import MOST, IntegerConv2d, round_weights\n"
            "integers, scale = round_weights(torch.ones(8, 64, 3, 3))\nx = torch.full((2, 64, 8, 8), float(MOST))\n"
            "y = IntegerConv2d(integers, scale, 1, 1)(x)\nprint(float((y - F.conv2d(x, torch.ones(8, 64, 3, 3), padding=1)).abs().max() / y.max()))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"})
    assert done.returncode == 0 and float(done.stdout) < 1e-6, done


@since_torch_2_7
def test_compiling_says_nothing_of_a_cuda_that_no_gpu_is_there_for(tmp_path):
    code = "from eisnn_zoo.compiling import prepare_compiler; prepare_compiler(); import torch.utils.cpp_extension"
    quiet = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                           env={**os.environ, "CUDA_HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""})
    assert (quiet.returncode, quiet.stderr) == (0, "")
