import pytest
import torch
import torch.nn.functional as F

import eisnn_zoo
from eisnn_zoo.catalog import MODELS
from eisnn_zoo.count import count
from eisnn_zoo.ei import EISynapses
from eisnn_zoo.networks import SpikingNet, SpikingResNet, build, cells
from eisnn_zoo.networks.vgg import halve
from eisnn_zoo.shapes import resnet_blocks

SMALL = ["ei_vgg8", "bn_vgg8", "ei_resnet18", "bn_resnet18", "ei_mlp2", "bn_mlp2"]


def ready(name: str, **options) -> SpikingNet:
    torch.manual_seed(3)
    net = build(name, **options)
    if net.kind == "ei":
        c, h, w = MODELS[name].input_size
        eisnn_zoo.initialize(net, torch.rand(8, c, h, w), 3)
    return net.eval()


def images(name: str, n: int = 2) -> torch.Tensor:
    return torch.rand(n, *MODELS[name].input_size)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_the_counted_size(name):
    net = build(name, device="meta")
    assert sum(p.numel() for p in net.parameters()) == count(MODELS[name]).params
    assert all(t.device.type == "meta" for t in (*net.parameters(), *net.buffers()))


@pytest.mark.parametrize("name", ["bn_vgg8", "bn_resnet50", "bn_mlp4"])
def test_counted_macs_are_what_torch_counts(name, monkeypatch):
    from torch.utils.flop_counter import FlopCounterMode

    # ours leaves out the padding of small maps, which counts
    monkeypatch.setattr(cells, "conv2d", lambda x, weight, stride, padding: F.conv2d(x, weight, None, stride, padding))
    net = build(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(images(name, 1))
    assert counter.get_total_flops() // 2 == count(MODELS[name]).macs(4)
    with FlopCounterMode(display=False) as counter:
        net(images(name, 1)).sum().backward()
    assert counter.get_total_flops() / 2 == pytest.approx(count(MODELS[name]).training_macs(4), rel=0.02)  # W_EI W_IE is folded once


@pytest.mark.parametrize("name", SMALL)
def test_forward_is_pure(name):
    net = ready(name)
    x, other = images(name), images(name, 5)
    with torch.no_grad():
        first = net(x)
        net(other)
        again = net(x)
    assert torch.equal(first, again) and first.shape == (2, 10)


@pytest.mark.parametrize("name", ["ei_vgg8", "ei_resnet18", "ei_mlp2"])
def test_same_code_in_training_and_evaluation(name):
    net, x = ready(name), images(name)
    with torch.no_grad():
        assert torch.equal(net.train()(x), net.eval()(x))


@pytest.mark.parametrize("train", [True, False])
def test_images_too_small_for_vgg_are_named(train):
    with pytest.raises(ValueError, match="VGG takes images from 32 x 32 pixels up"):
        build("ei_vgg8").train(train)(torch.rand(2, 3, 16, 16))


@pytest.mark.parametrize("side", [2, 7, 8])
def test_the_pool_of_training_is_the_pool(side):
    spikes = torch.randint(2, (3, 5, side, side)).double().contiguous(memory_format=torch.channels_last)
    pools = []
    for training in (True, False):
        x = spikes.clone().requires_grad_()
        y = halve(x, training)
        (y * torch.arange(y.numel()).view_as(y)).sum().backward()
        pools.append((y, x.grad))
    assert torch.equal(pools[0][0], pools[1][0]) and torch.equal(pools[0][1], pools[1][1])


@pytest.mark.parametrize("name", ["ei_vgg8", "ei_resnet18", "ei_mlp2", "bn_vgg8"])
def test_a_static_image_is_the_image_shown_t_times(name):
    net, x = ready(name).double(), images(name).double()
    with torch.no_grad():
        shown = x[:, None].expand(-1, 4, -1, -1, -1)
        torch.testing.assert_close(net(x), net(shown), rtol=1e-9, atol=1e-9)


def test_event_frames():
    net = build("ei_vgg8_cifar10dvs")
    assert net.event_input and net.time_steps == 10
    frames = torch.poisson(torch.full((2, 10, 2, 48, 48), 0.3))
    frames[0, 0] = 0
    eisnn_zoo.initialize(net, frames, 0)
    net.eval()
    with torch.no_grad():
        assert torch.isfinite(net(frames)).all()
        with pytest.raises(ValueError, match="time_steps"):
            net(frames[:, :7])
        net.time_steps = 7
        assert net(frames[:, :7]).shape == (2, 10)


def test_options_round_trip_through_the_configuration():
    options = dict(num_classes=3, in_chans=1, time_steps=2, ei_ratio=8, tau=3.0, threshold=0.5, surrogate="arctan", alpha=2.0,
                   reset="hard", drop_rate=0.1, global_pool="", event_input=True, stabilisation="no_ste")
    net = build("ei_vgg8", **options)
    assert net.config == options
    again = build("ei_vgg8", **net.config)
    assert again.config == options
    layer = again.stages[0].layers[0]
    assert (layer.current.n_i, layer.current.stabilisation, layer.lif.tau) == (8, "no_ste", 3.0)


@pytest.mark.parametrize("wrong, word", [({"ei_ratio": 0}, "ei_ratio"), ({"stabilisation": "some"}, "stabilisation"), ({"global_pool": "mean"}, "global_pool"), ({"tau": 0.5}, "tau"),
                                         ({"drop_rate": 1.0}, "drop_rate"), ({"time_steps": 0}, "time_steps")])
def test_impossible_options(wrong, word):
    with pytest.raises(ValueError, match=word):
        build("ei_vgg8", **wrong)
    with pytest.raises(TypeError):
        build("ei_vgg8", no_such_option=1)


@pytest.mark.parametrize("wrong, words", [
    (lambda: eisnn_zoo.SpikingVGG(9), "no depth 9; choose one of 8, 11, 16, 19"), (lambda: eisnn_zoo.SpikingResNet(8), "no depth 8"),
    (lambda: ready("ei_mlp2")(torch.rand(1, 1, 32, 32)), "expected 784 numbers an image.* got 1024"),
    (lambda: eisnn_zoo.stabilise(torch.ones(2, 2), "off"), "unknown stabilisation off")])
def test_what_cannot_be_is_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


def test_all_trainable_parameters_get_a_gradient():
    for name in SMALL:
        net = ready(name).train()
        net(images(name)).square().sum().backward()
        assert not [n for n, p in net.named_parameters() if p.grad is None], name


@pytest.mark.parametrize("name", ["ei_mlp2", "ei_vgg8", "bn_mlp2"])
def test_per_sample_gradients_by_torch_func(name):
    net, x, y = ready(name).double(), images(name).double(), torch.tensor([1, 2])

    def loss(parameters, x, y):
        return F.cross_entropy(torch.func.functional_call(net, parameters, (x[None],)), y[None])

    parameters = {key: p.detach() for key, p in net.named_parameters()}
    together = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    for i in range(2):
        alone = torch.autograd.grad(F.cross_entropy(net(x[i:i + 1]), y[i:i + 1]), list(net.parameters()))
        for key, expected in zip(parameters, alone):
            torch.testing.assert_close(together[key][i], expected, rtol=1e-8, atol=1e-10 * (1 + expected.abs().max().item()))


@pytest.mark.parametrize("name", ["ei_vgg8", "bn_vgg8", "ei_mlp2"])
def test_images_and_networks_are_mapped_over(name):
    net, other, x = ready(name).double(), ready(name).double(), images(name).double()
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.1)
        torch.testing.assert_close(torch.func.vmap(lambda image: net(image[None])[0])(x), net(x), rtol=1e-9, atol=1e-9)
        parameters, buffers = torch.func.stack_module_state([net, other])
        both = torch.func.vmap(lambda p, b: torch.func.functional_call(net, (p, b), (x,)))(parameters, buffers)
        torch.testing.assert_close(both, torch.stack([net(x), other(x)]), rtol=1e-9, atol=1e-9)


def test_gradient_checkpointing_changes_nothing():
    grads = []
    for on in (False, True):
        net = ready("ei_vgg8").train()
        net.set_grad_checkpointing(on)
        torch.manual_seed(9)
        net(torch.rand(2, 3, 32, 32)).square().sum().backward()
        grads.append([p.grad for p in net.parameters()])
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b)


def test_initialised_network_fires_in_every_layer():
    from eisnn_zoo.neuron import LIF

    net, rates = SpikingResNet(18), []
    for m in net.modules():
        if isinstance(m, LIF):
            m.register_forward_hook(lambda m, a, s: rates.append(s.mean().item()))
    eisnn_zoo.initialize(net, torch.rand(8, 3, 32, 32), 0)
    assert len(rates) == 20 and min(rates) > 0.02 and max(rates) < 0.7


def test_dales_law_after_project():
    net = ready("ei_vgg8")
    with torch.no_grad():
        for p in net.parameters():
            p.sub_(0.02)
    net.project_()
    layers = [m for m in net.modules() if isinstance(m, EISynapses)]
    assert len(layers) == 6
    for layer in layers:
        assert all((p >= 0).all() for n, p in layer.named_parameters() if n != "b_e")


def test_features_are_dropped_before_the_output_layer_in_training_alone():
    net, x = ready("ei_mlp2", drop_rate=0.5), images("ei_mlp2")
    with torch.no_grad():
        features = net.forward_features(x)
        whole, logits = net.forward_head(features, pre_logits=True), net(x)
        assert torch.equal(net(x), logits)
        dropped = net.train().forward_head(features, pre_logits=True)
        assert not torch.equal(net(x), logits)
    assert ((dropped == 0) | (dropped == 2 * whole)).all() and 0.4 < (dropped[whole > 0] == 0).float().mean() < 0.6


@pytest.mark.parametrize("classes", [1, 2, 1000])
def test_reset_classifier(classes):
    net = ready("ei_vgg8", ei_ratio=8).double()
    net.reset_classifier(classes)
    assert net(images("ei_vgg8").double()).shape == (2, classes) and net.head.n_i == max(1, classes // 8)
    assert net.head.ee.weight.dtype == torch.float64 and not net.head.training
    assert net.config["num_classes"] == classes


def test_the_whole_graph_compiles():
    """No break in the graph, forward and backward, and the compiled network gives the same logits."""
    net, x = ready("ei_mlp2"), images("ei_mlp2", 3)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), net(x), rtol=1e-5, atol=1e-5)
    compiled(x).sum().backward()
    assert net.stages[0].layers[0].current.ee.weight.grad.abs().sum() > 0
    for name in ("ei_vgg8", "bn_vgg8"):
        with torch.no_grad():
            torch.compile(ready(name), fullgraph=True, backend="eager")(images(name))


def test_public_names_are_not_hidden_by_modules():
    """A submodule of the same name would replace the function as soon as anything imports it."""
    from importlib.util import find_spec

    for name in eisnn_zoo.__all__:
        getattr(eisnn_zoo, name)
        assert find_spec(f"eisnn_zoo.{name}") is None, name


@pytest.mark.parametrize("depth, strides", [(34, [2, 1]), (50, [1, 2, 1])])
def test_a_stage_halves_its_maps_once_and_in_a_3x3(depth, strides):
    for i, stage in enumerate(resnet_blocks(depth)):
        assert [conv.stride for conv in stage[0].layers] == (strides if i else [1] * len(strides))
        assert all(conv.stride == 1 for block in stage[1:] for conv in block.layers)
        assert all(block.shortcut is None for block in stage[1:])
