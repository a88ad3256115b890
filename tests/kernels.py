"""The fused kernels against the plain path: on a GPU, or in Triton's interpreter. test_fused.py runs this in a process of its
own, since Triton decides when it is imported which of the two it will be."""

from __future__ import annotations

import pytest
import torch

from eisnn_zoo import fused, fusing
from eisnn_zoo.analysis.probes import record
from eisnn_zoo.networks import SpikingMLP
from eisnn_zoo.networks.cells import Cells
from eisnn_zoo.neuron import LIF, SURROGATES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MAPS, WIDE, FLAT = (3, 5, 6), (2, 2, 130), (20,)


def drives(steps_in, shape, dtype=torch.float32):
    """net as a slice of something wider, I_div with zeros, and the first slice silent; g_E, b_E."""
    rng = torch.Generator().manual_seed(0)
    n = steps_in * 3
    joint = torch.rand(n, *shape[:-1], shape[-1] + 3, generator=rng) * 2 - 0.3
    i_div = torch.rand(n, *shape, generator=rng)
    i_div[i_div < 0.2] = 0
    joint[0], i_div[0] = 0, 0
    gains = torch.rand(shape[-1], generator=rng) + 0.5, torch.randn(shape[-1], generator=rng)
    return [x.to(DEVICE, dtype) for x in (joint, i_div)] + [x.to(DEVICE) for x in gains]


def both(lif, steps_in, time_steps, values):
    """[spikes, gradients ...] of the kernels, and of torch."""
    results = []
    for kernel in (True, False):
        joint, i_div, g_e, b_e = inputs = [v.clone().requires_grad_() for v in values]
        net = joint[..., : i_div.shape[-1]]
        if kernel:
            spikes = fused.divide_and_fire(net, i_div, g_e, b_e, lif, steps_in, time_steps)
        else:
            spikes = fusing.divide_and_fire_plainly(net.float(), i_div.float(), g_e, b_e, lif, steps_in, time_steps)
        weights = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
        results.append([spikes.detach().float(), *torch.autograd.grad((spikes.float() * weights).sum(), inputs)])
    return results


def assert_same(results, close=1e-5):
    (spikes, *gradients), (expected, *others) = results
    assert torch.equal(spikes, expected) and 0.1 < expected.mean() < 0.9
    for a, b in zip(gradients, others):
        torch.testing.assert_close(a, b, rtol=close, atol=close * b.abs().max().item())


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("steps_in, time_steps, shape", [(4, 4, MAPS), (1, 4, MAPS), (5, 5, FLAT), (1, 1, FLAT)])
def test_every_neuron(name, reset, steps_in, time_steps, shape):
    assert_same(both(LIF(tau=3.0, threshold=0.7, surrogate=name, reset=reset), steps_in, time_steps, drives(steps_in, shape)))


def test_more_channels_than_a_tile():
    assert_same(both(LIF(), 4, 4, drives(4, WIDE)))


def test_half_precision_drives_are_computed_in_float32():
    results = both(LIF(), 4, 4, drives(4, MAPS, torch.bfloat16))
    assert results[0][1].dtype == torch.bfloat16
    assert_same(results, 2e-2)  # gradients of half precision drives are of half precision


def test_maps_that_lie_channels_first():
    values = drives(4, MAPS)
    values[:2] = [v.movedim(-1, 1).contiguous().movedim(1, -1) for v in values[:2]]
    assert_same(both(LIF(), 4, 4, values))


class Net(torch.nn.Module):
    """A held image through two layers of maps."""

    def __init__(self):
        super().__init__()
        cells = Cells("ei", 4, device=DEVICE)
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList([cells.conv(3, 8, 3), cells.conv(8, 6, 3, 2)])

    def forward(self, x):
        return self.layers[1](self.layers[0](x, 4, 1), 4, 4)


def image():
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    x[0, :, :5] = 0
    return x.to(memory_format=torch.channels_last)


def with_and_without(net, x, monkeypatch, bf16=False):
    """(output, gradients of all parameters), and how often the kernels ran."""
    results, calls = [], []
    kernel = fused.divide_and_fire
    monkeypatch.setattr(fusing, "_tried", lambda *_: lambda *a: calls.append(1) or kernel(*a))
    for setting in ("1", "0"):
        monkeypatch.setenv("EISNN_ZOO_FUSED", setting)
        net.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=bf16):
            out = net(x)
        out.float().square().sum().backward()
        results.append((out.detach(), [p.grad.clone() for p in net.parameters()]))
    return results, len(calls)


@pytest.mark.parametrize("make, x, layers", [
    (Net, image(), 2),
    (lambda: SpikingMLP(4).to(DEVICE), torch.rand(3, 1, 28, 28).to(DEVICE), 3),
])
def test_networks_use_them_and_compute_the_same(make, x, layers, monkeypatch):
    net = make()
    if hasattr(net, "mark_initialised"):
        net.mark_initialised()
    ((out, gradients), (expected, others)), calls = with_and_without(net, x, monkeypatch)
    assert calls == layers and torch.equal(out, expected) and expected.std() > 0
    for a, b in zip(gradients, others):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


def test_an_empty_batch_is_answered():
    net = SpikingMLP(4).to(DEVICE)
    net.mark_initialised()
    assert net(torch.zeros(0, 1, 28, 28, device=DEVICE)).shape == (0, 10)


def test_currents_are_summed_in_training(monkeypatch):
    net, x, found = Net(), image(), []
    for setting in ("1", "0"):
        monkeypatch.setenv("EISNN_ZOO_FUSED", setting)
        net.train()
        for layer in net.layers:
            layer.current.sums = torch.ones(layer.current.n_e + 1, device=DEVICE)
        net(x)
        found.append([layer.current.sums - 1 for layer in net.layers])
        net.eval()(x)
        assert all(torch.equal(layer.current.sums - 1, kept) for layer, kept in zip(net.layers, found[-1]))
    for kernel, plain in zip(*found):
        assert kernel[-1] in (plain[-1], 4 * plain[-1])  # the drives of a held image count once, or in every step
        torch.testing.assert_close(kernel[:-1] / kernel[-1], plain[:-1] / plain[-1])
        assert plain[:-1].abs().min() > 0


def test_under_autocast(monkeypatch):
    ((out, _), (expected, _)), calls = with_and_without(Net(), image(), monkeypatch, bf16=True)
    assert calls == 2 and out.dtype == expected.dtype == torch.bfloat16 and torch.equal(out, expected)


def test_a_probe_sees_currents(monkeypatch):
    net = SpikingMLP(4).to(DEVICE)
    net.mark_initialised()
    monkeypatch.setattr(fusing, "_tried", lambda *_: pytest.fail("a hook was overlooked"))
    _, seen = record(net, torch.rand(2, 1, 28, 28).to(DEVICE), ["I", "spikes"])
    assert len(seen) == 3


@pytest.mark.parametrize("watch", ["full_backward", "forward", "everywhere"])
def test_hooks_see_what_they_were_put_on(watch):
    net, seen = SpikingMLP(4).to(DEVICE), []
    net.mark_initialised()
    current = net.stages[1].layers[0].current
    handle = {"full_backward": current.register_full_backward_hook, "forward": current.register_forward_hook,
              "everywhere": torch.nn.modules.module.register_module_forward_hook}[watch](lambda module, *_: seen.append(module))
    try:
        net(torch.rand(2, 1, 28, 28).to(DEVICE)).sum().backward()
    finally:
        handle.remove()
    assert any(module is current for module in seen)


def test_layers_derived_from_ours_compute_as_they_say():
    net = SpikingMLP(4).to(DEVICE)
    net.mark_initialised()
    current = net.stages[1].layers[0].current
    current.__class__ = type("Silent", (type(current),), {"forward": lambda self, x: 0 * torch.nn.functional.linear(x, self.ee.weight)})
    assert (net(torch.rand(2, 1, 28, 28).to(DEVICE)) == 0).all()


def test_torch_func_takes_the_plain_path(monkeypatch):
    net = SpikingMLP(4).to(DEVICE)
    net.mark_initialised()
    parameters, x = {key: p.detach() for key, p in net.named_parameters()}, torch.rand(2, 1, 28, 28).to(DEVICE)
    gradient = torch.func.grad(lambda p: torch.func.functional_call(net, p, (x,)).square().sum())
    with monkeypatch.context() as fused_once:
        fused_once.setattr(fusing, "_tried", lambda *_: pytest.fail("the kernels do not know torch.func"))
        found = gradient(parameters)
    net(x).square().sum().backward()
    for key, p in net.named_parameters():
        torch.testing.assert_close(found[key], p.grad, rtol=1e-4, atol=1e-5 * p.grad.abs().max().item())


def test_kernels_that_differ_or_fail_are_not_used(monkeypatch):
    layer, right = Net().layers[0], fused.divide_and_fire
    x = image()

    def fails(*_):
        raise RuntimeError("out of luck")

    for kernel, used in ((right, True), (lambda *a: 1 - right(*a), False), (fails, False)):
        fusing._tried.cache_clear()
        monkeypatch.setattr(fused, "divide_and_fire", kernel)
        assert (fusing.fused_kernel(layer.current, layer.lif, x) is kernel) is used
    fusing._tried.cache_clear()
    monkeypatch.setattr(fused, "divide_and_fire", right)
    monkeypatch.setenv("EISNN_ZOO_FUSED", "0")
    assert fusing.fused_kernel(layer.current, layer.lif, x) is None
