"""Weights that mean nothing yet are drawn by E-I Init on the first training batch, or warned of; all others are left alone."""

import copy
import logging

import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch._subclasses import FakeTensorMode
from torch.nn.parallel import DistributedDataParallel

import eisnn_zoo
from eisnn_zoo.networks import SpikingMLP, SpikingVGG, build


def digits(n: int = 16) -> torch.Tensor:
    return torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(n))


def weights(net) -> list[torch.Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def same(a, b) -> bool:
    return all(map(torch.equal, a, b))


def test_network_that_saw_no_data_warns_once_and_says_what_to_do(caplog):
    net, x = SpikingVGG(8).eval(), torch.rand(1, 3, 32, 32)
    with caplog.at_level(logging.WARNING, "eisnn_zoo"), torch.no_grad():
        assert torch.isfinite(net(x)).all()
        net(x)
    assert [r.message for r in caplog.records if "initialize(" in r.message] and len(caplog.records) == 1


def test_normalised_pixels_are_warned_of_once(caplog):
    net, x = eisnn_zoo.create_model("ei_mlp4_mnist", pretrained=True), torch.rand(2, 1, 28, 28)
    with caplog.at_level(logging.WARNING, "eisnn_zoo"), torch.no_grad():
        copy.deepcopy(net)(x)
        assert not caplog.records
        net((x - 0.5) / 0.5)
        net((x - 0.5) / 0.5)
    assert len(caplog.records) == 1 and "without mean and standard deviation" in caplog.text


@pytest.mark.parametrize("size", [None, (32, 32)])
def test_a_folded_network_warns_of_them_too(caplog, size):
    folded = eisnn_zoo.fold(eisnn_zoo.create_model("ei_vgg8_cifar10", pretrained=True), size)
    with caplog.at_level(logging.WARNING, "eisnn_zoo"), torch.no_grad():
        folded(torch.rand(1, 3, 32, 32) - 0.5)
    assert len(caplog.records) == 1 and "without mean and standard deviation" in caplog.text


def test_first_training_forward_is_e_i_init(caplog):
    torch.manual_seed(11)
    net = SpikingMLP(4).train()
    before = net.stages[0].layers[0].current.ee.weight.clone()
    x = digits()
    with caplog.at_level(logging.INFO, "eisnn_zoo"):
        net(x)
    assert net.initialised and not torch.equal(before, net.stages[0].layers[0].current.ee.weight)
    other = SpikingMLP(4)
    eisnn_zoo.initialize(other, x, seed=int(caplog.text.split("with seed ")[1]))
    assert same(weights(net), weights(other))
    after = net.head.ee.weight.clone()
    net(x)
    assert torch.equal(after, net.head.ee.weight)


def test_networks_of_one_process_are_drawn_apart_and_all_again_by_the_same_seed():
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        nets = [SpikingMLP(2).train() for _ in range(2)]
        for net in nets:
            net(digits())
        found.append([weights(net) for net in nets])
    assert not same(*found[0]) and all(map(same, *found))


@pytest.mark.parametrize("way", ["submodule", "vector", "functional"])
def test_weights_that_come_by_another_way_are_not_drawn_again(way):
    net, trained = SpikingMLP(2).train(), SpikingMLP(2)
    eisnn_zoo.initialize(trained, digits(), 3)
    expected = weights(trained)
    if way == "submodule":
        net.stages.load_state_dict(trained.stages.state_dict())
        net.head.load_state_dict(trained.head.state_dict())
    elif way == "vector":
        torch.nn.utils.vector_to_parameters(torch.nn.utils.parameters_to_vector(trained.parameters()), net.parameters())
    if way == "functional":
        torch.func.functional_call(net, dict(trained.named_parameters()), (digits(),))
    else:
        net(digits())
    assert same(expected, weights(trained if way == "functional" else net))


def test_copies_and_other_types_of_a_fresh_network_are_drawn():
    for net in (copy.deepcopy(SpikingMLP(2)), SpikingMLP(2).double(), SpikingMLP(2).bfloat16()):
        before = weights(net)
        net.train()(digits().to(before[0].dtype))
        assert net.initialised and not same(before, weights(net))


def test_torch_func_asks_for_a_network_that_saw_data():
    net = SpikingMLP(2).train()
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    gradient = torch.func.grad(lambda p: torch.func.functional_call(net, p, (digits(),)).sum())
    with pytest.raises(RuntimeError, match=r"initialize.*before"):
        gradient(parameters)
    net.mark_initialised()
    assert torch.isfinite(gradient(parameters)["head.ee.weight"]).all()


def test_copies_of_data_parallel_ask_for_a_network_that_saw_data():
    net = SpikingMLP(2).train()
    copy_ = net._replicate_for_data_parallel()
    with pytest.raises(RuntimeError, match=r"DataParallel.*initialize.*before"):
        copy_(digits())


def test_an_empty_batch_draws_nothing():
    net = SpikingMLP(2).train()
    before = weights(net)
    assert net(digits()[:0]).shape == (0, 10)
    assert same(before, weights(net)) and not net.initialised
    net(digits())
    assert net.initialised and not same(before, weights(net))


@pytest.mark.parametrize("training", [True, False])
def test_fake_tensors_are_not_looked_at(training, caplog):
    with FakeTensorMode(), caplog.at_level(logging.WARNING, "eisnn_zoo"):
        assert SpikingMLP(2).train(training)(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert not caplog.records


def test_what_is_no_network_of_the_zoo_is_named():
    with pytest.raises(TypeError, match="not wrapped, got Sequential"):
        eisnn_zoo.initialize(torch.nn.Sequential(eisnn_zoo.EILinear(3, 4)), torch.rand(2, 3), 0)
    with pytest.raises(TypeError, match="not wrapped, got Sequential"):
        eisnn_zoo.fold(torch.nn.Sequential(eisnn_zoo.EILinear(3, 4)))


def test_bytes_are_no_pixels():
    net = SpikingMLP(2).train()
    with pytest.raises(ValueError, match=r"as floats, got torch.uint8: x.float\(\) / 255"):
        net(torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
    assert not net.initialised


def test_under_autocast_the_same_weights_are_drawn():
    nets = SpikingMLP(2), SpikingMLP(2)
    for net, enabled in zip(nets, (True, False)):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            eisnn_zoo.initialize(net, digits(), 5)
    assert same(*map(weights, nets))


def test_automatic_init_on_normalised_pixels_says_so_and_goes_on(caplog):
    net = SpikingMLP(2).train()
    with caplog.at_level(logging.WARNING, "eisnn_zoo"):
        assert torch.isfinite(net(torch.randn(4, 1, 28, 28))).all()
    assert "non-negative" in caplog.text
    with pytest.raises(ValueError, match="non-negative"):
        eisnn_zoo.initialize(net, torch.randn(4, 1, 28, 28), 0)


def test_initialised_is_saved_with_the_weights(caplog):
    net = SpikingMLP(2)
    eisnn_zoo.initialize(net, digits(), 0)
    other = SpikingMLP(2).eval()
    other.load_state_dict(net.state_dict())
    with caplog.at_level(logging.WARNING, "eisnn_zoo"), torch.no_grad():
        other(torch.rand(1, 1, 28, 28))
    assert not caplog.records


def test_init_that_fails_changes_nothing():
    """The first layers can be drawn, and then one sends nothing: its firing threshold is out of reach."""
    net = build("ei_vgg8")
    net.stages[1].layers[0].lif.threshold = 1e9
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ValueError, match="this layer's input is silent"):
        eisnn_zoo.initialize(net, torch.rand(4, 3, 32, 32), 0)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items()) and net.training and net._unsure and net._fresh


@pytest.mark.parametrize("strict", [True, False])
def test_loaded_weights_are_never_drawn_again(strict):
    """Whatever the file says of itself: it may come from a network that was trained without E-I Init."""
    net = SpikingMLP(2)
    state = {name: torch.rand_like(p) for name, p in net.named_parameters()}
    net.load_state_dict({**net.state_dict(), **state} if strict else state, strict=strict)
    assert not net.initialised
    before = weights(net)
    net.train()(digits())
    assert same(before, weights(net)) and net.initialised  # trained from here on


def test_a_constructors_weights_that_come_back_are_drawn():
    """A search for a learning rate keeps the first state, tries, and puts it back; a load that fits nothing loads nothing."""
    net = SpikingMLP(4).train()
    first = copy.deepcopy(net.state_dict())
    net(digits())
    net.load_state_dict(first)
    seen = weights(net)
    net(digits())
    assert net.initialised and not same(weights(net), seen)
    other = SpikingMLP(4).train()
    seen = weights(other)
    other.load_state_dict({f"model.{key}": value for key, value in first.items()}, strict=False)
    other(digits())
    assert not same(weights(other), seen)


@pytest.mark.parametrize("each", [True, False])
def test_weights_that_are_drawn_anew_wait_for_data_again(each):
    with torch.device("meta"):
        net = SpikingMLP(4)
    net.to_empty(device="cpu")
    net.initialised.fill_(True)  # as memory that nobody wrote may have it
    for module in net.modules() if each else [net]:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    seen = weights(net)
    net.train()(digits())
    assert net.initialised and not same(weights(net), seen)
    net.reset_parameters()
    assert not net.initialised


def test_a_forward_before_training_leaves_e_i_init_for_the_first_training_batch():
    net = SpikingMLP(2).eval()
    before = weights(net)
    net(digits())
    assert same(before, weights(net))
    net.train()(digits())
    assert net.initialised and not same(before, weights(net))


@pytest.mark.parametrize("shape", [(4, 3, 16, 16), (4, 1, 32, 32), (3, 32, 32), (4, 10, 3, 32, 32)])
def test_a_first_batch_of_a_wrong_size_spoils_nothing(shape):
    net = build("ei_vgg8").train()
    before = weights(net)
    with pytest.raises((RuntimeError, ValueError)):
        net(torch.rand(shape))
    assert same(before, weights(net)) and not net.initialised
    net(torch.rand(4, 3, 32, 32))
    assert net.initialised


def test_a_network_compiled_before_its_first_batch_is_drawn_too():
    plain, compiled = SpikingMLP(2).train(), SpikingMLP(2).train()
    program = torch.compile(compiled, backend="eager")
    for net in (plain, program):
        torch.manual_seed(4)
        net(digits())
    assert compiled.initialised and same(weights(plain), weights(compiled))
    program(digits())
    assert same(weights(plain), weights(compiled))


def test_a_copy_that_takes_the_weights_of_another_is_as_sure_as_that(caplog):
    net = SpikingMLP(2)
    average = copy.deepcopy(net)  # as averaged weights begin
    net.train()(digits())
    with torch.no_grad():
        for ours, theirs in zip((*average.parameters(), *average.buffers()), (*net.parameters(), *net.buffers())):
            ours.copy_(theirs)
    with caplog.at_level(logging.WARNING, "eisnn_zoo"):
        average.eval()(digits())
    assert not caplog.records


def _process(rank: int, file: str, results) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)
    torch.manual_seed(42 + rank)  # each its own, as timm has it
    net = SpikingMLP(2).train()
    parallel = DistributedDataParallel(net)
    parallel(digits(16 + rank)).sum().backward()
    results.put([p.detach().numpy() for p in net.parameters()])
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_processes_begin_with_the_same_weights(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    processes = [context.Process(target=_process, args=(rank, str(tmp_path / "meet"), results)) for rank in range(2)]
    for process in processes:
        process.start()
    a, b = results.get(), results.get()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0, 0] and all((x == y).all() for x, y in zip(a, b))
