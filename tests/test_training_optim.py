"""Optimizers under Dale's law, the step size, and the order of the images."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from training_helpers import recipe

from eisnn_zoo.ei import EILinear, EIReadout
from eisnn_zoo.errors import ZooError
from eisnn_zoo.networks import build
from eisnn_zoo.training import optim
from eisnn_zoo.training.optim import EIMuon, ProjectedSGD, deflate, orthogonalise
from eisnn_zoo.training.run import Run
from eisnn_zoo.training.schedule import batches, rate
from eisnn_zoo.training.setup import make_optimizer


@pytest.mark.parametrize("optimizer", [EIMuon, ProjectedSGD])
def test_parameters_alone_and_impossible_steps_are_refused(optimizer):
    with pytest.raises(TypeError, match="takes the network itself"):
        optimizer(nn.Linear(2, 2).parameters(), lr=1e-3)
    with pytest.raises(ValueError, match="-1"):
        optimizer(nn.Linear(2, 2), lr=-1.0)


def test_orthogonalise_keeps_directions_and_evens_out_sizes():
    torch.manual_seed(0)
    for shape in ((6, 20), (20, 6), (3, 8, 8)):
        g = torch.randn(*shape) * 100
        o = orthogonalise(g)
        sizes = torch.linalg.svdvals(o)
        assert o.shape == g.shape and sizes.min() > 0.6 and sizes.max() < 1.3
        u, _, vh = torch.linalg.svd(g, full_matrices=False)
        assert ((u @ vh * o).sum((-2, -1)) > 0.95 * (o.norm(dim=(-2, -1)) * (u @ vh).norm(dim=(-2, -1)))).all()


@pytest.mark.parametrize("dtype, near", [(torch.float64, 1e-7), (torch.float32, 2e-3)])
def test_orthogonalising_without_the_matrix_is_orthogonalising_with_it(dtype, near):
    """Newton-Schulz as it is written down, of gradients as these networks have them: one direction far above all others, and few at all."""
    torch.manual_seed(10)
    drive = torch.rand(40, 1, dtype=dtype) * torch.rand(1, 90, dtype=dtype)
    for g in (drive + 0.01 * torch.randn(40, 90, dtype=dtype), drive + 0.01 * torch.randn(40, 5, dtype=dtype) @ torch.randn(5, 90, dtype=dtype)):
        x = g.double() / g.double().norm()
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x - 4.7750 * a @ x + 2.0315 * a @ a @ x
        for turned in (False, True):
            o = orthogonalise(g.T if turned else g).double()
            assert ((o.T if turned else o) - x).norm() < near * x.norm()


def test_the_direction_of_a_step_is_computed_as_the_recipe_computes(monkeypatch):
    seen = []
    monkeypatch.setattr(optim, "_iterate", lambda x, steps: seen.append(x.dtype) or x)
    monkeypatch.setattr(optim, "_iterate_without", lambda x, steps: seen.append(x.dtype) or x)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        model = build("ei_mlp2")
        model.mark_initialised()
        optimizer = make_optimizer(recipe(optimizer="muon", precision=precision), model, 0)
        model(torch.rand(4, 1, 28, 28)).sum().backward()
        optimizer.step()
        assert set(seen) == {dtype}
        seen.clear()


def test_deflation_takes_out_the_strongest_input_direction_and_nothing_else():
    torch.manual_seed(8)
    u, s, vh = torch.linalg.svd(torch.randn(12, 30), full_matrices=False)
    s[0] = 5 * s[1]
    v = torch.ones(30)
    for shape in (slice(None), slice(0, 1)):
        g = (u * s)[shape] @ vh
        for _ in range(4):
            out = deflate(g, v)
        expected = (u[:, 1:] * s[1:]) @ vh[1:] if shape == slice(None) else g  # of a single row nothing would be left
        torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
    assert abs(v @ vh[0]).item() == pytest.approx(1, abs=1e-5), "the direction is kept for the next step"
    deflate(torch.zeros(12, 30), v)
    assert abs(v @ vh[0]).item() == pytest.approx(1, abs=1e-5), "and not lost where there is no gradient"


def test_muon_is_deflated_in_its_first_steps_alone():
    """Under one common drive of all cells the deflated weights stay, and move as soon as the steps are over."""
    torch.manual_seed(9)
    layer = EILinear(30, 20)
    drive = torch.rand(30) + 0.1
    optimizer = EIMuon(layer, lr=0.01, deflate=3, momentum=0.0)
    moved = []
    for _ in range(5):
        before = layer.ee.weight.detach().clone()
        for p in layer.parameters():
            p.grad = torch.zeros_like(p)
        layer.ee.weight.grad = torch.outer(-torch.rand(20) - 0.1, drive) + 1e-3 * torch.randn(20, 30)
        optimizer.step()
        moved.append(abs(((layer.ee.weight.detach() - before) @ drive).mean()).item())
    assert max(moved[:3]) < 0.1 * min(moved[3:])


def test_muon_solves_a_convex_problem():
    """Minimise the distance of every parameter of an E-I layer to a given one: the answer is that one."""
    torch.manual_seed(1)
    layer = EILinear(12, 8)
    goal = {name: torch.rand_like(p) + 0.5 * p.detach() for name, p in layer.named_parameters()}
    start = {name: (p.detach() - goal[name]).norm() for name, p in layer.named_parameters()}
    optimizer = EIMuon(layer, lr=0.1, adaptive=0.5)
    for step in range(400):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - step / 400)
        optimizer.zero_grad()
        sum((p - goal[name]).square().sum() for name, p in layer.named_parameters()).backward()
        optimizer.step()
    for name, p in layer.named_parameters():
        assert (p - goal[name]).norm() < 0.01 * start[name], name


def test_first_steps_are_relative_to_the_initial_size():
    torch.manual_seed(2)
    layer = EILinear(30, 20)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    for p in layer.parameters():
        p.grad = -torch.rand_like(p) - 0.1  # only upwards, so that nothing is projected
    EIMuon(layer, lr=0.01, adaptive=0.125, inhibitory=0.25).step()
    for name, p in layer.named_parameters():
        step, size = (p.detach() - before[name]).square().mean().sqrt(), before[name].square().mean().sqrt()
        share = 0.01 * {"ee.weight": 1, "ie.weight": 0.25, "g_i": 0.25 * 0.125}.get(name, 0.125)
        assert step.item() == pytest.approx(share * (1 if name == "b_e" else size.item()), rel=0.15), name


def test_muon_steps_along_its_nesterov_momentum():
    torch.manual_seed(11)
    layer = nn.Linear(6, 4, bias=False)
    optimizer, size = EIMuon(layer, lr=0.01, momentum=0.9), layer.weight.detach().square().mean().sqrt()
    one, two = torch.randn(2, 4, 6)
    for gradient in (one, two):
        before = layer.weight.detach().clone()
        layer.weight.grad = gradient.clone()
        optimizer.step()
    direction = orthogonalise(two + 0.9 * (0.9 * one + two))
    expected = 0.01 * size * direction / direction.square().mean().sqrt()
    torch.testing.assert_close(before - layer.weight, expected, rtol=1e-3, atol=1e-6)


def test_muons_other_parameters_take_adams_steps():
    torch.manual_seed(12)
    layer = nn.Linear(1, 5)
    bias = layer.bias
    optimizer, size = EIMuon(layer, lr=0.01, adaptive=1.0, betas=(0.9, 0.99)), bias.detach().square().mean().sqrt()
    one, two = torch.randn(2, 5)
    for gradient in (one, two):
        before = bias.detach().clone()
        bias.grad = gradient.clone()
        optimizer.step()
    mean = 0.1 * (0.9 * one + two) / (1 - 0.9**2)
    square = 0.01 * (0.99 * one**2 + two**2) / (1 - 0.99**2)
    torch.testing.assert_close(before - bias, 0.01 * size * mean / square.sqrt(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("least", [0.0, 0.25])
def test_a_cell_keeps_its_inhibition(least):
    """Pushed down for long, W_EI ends at its least part of what it was before the first step, across a stop as well."""
    torch.manual_seed(2)
    layer = nn.Sequential(EILinear(12, 8))
    start = layer[0].ei.weight.detach().square().mean().sqrt()
    optimizer = EIMuon(layer, lr=0.2, least_inhibition=least)
    for step in range(60):
        if step == 30:
            state, optimizer = optimizer.state_dict(), EIMuon(layer, lr=0.2, least_inhibition=least)
            optimizer.load_state_dict(state)
        for name, p in layer.named_parameters():
            p.grad = torch.ones_like(p) if name.endswith("ei.weight") else torch.zeros_like(p)
        optimizer.step()
    torch.testing.assert_close(layer[0].ei.weight.detach(), torch.full((8, 2), least * start.item()))


@pytest.mark.parametrize("make", [lambda m: EIMuon(m, lr=0.3), lambda m: ProjectedSGD(m, lr=1.0, momentum=0.9, weight_decay=0.1)])
def test_dales_law_holds_after_every_step(make):
    torch.manual_seed(3)
    model = nn.Sequential(EILinear(10, 8), EIReadout(8, 4))
    optimizer = make(model)
    touched = 0
    for _ in range(20):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
        constrained = [p for name, p in model.named_parameters() if not name.endswith("b_e")]
        assert all(p.min() >= 0 for p in constrained)
        touched += sum(int((p == 0).sum()) for p in constrained)
    assert touched > 0 and model[0].b_e.min() < 0, "gradients must have pushed against the constraint, and b_E is free"


def test_sgd_is_torchs_own_and_a_projection():
    torch.manual_seed(4)
    one, two = EILinear(10, 8), EILinear(10, 8)
    two.load_state_dict(one.state_dict())
    options = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
    ours, plain = ProjectedSGD(one, **options), torch.optim.SGD(two.parameters(), **options)
    for _ in range(10):
        for p, q in zip(one.parameters(), two.parameters()):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        ours.step()
        plain.step()
        with torch.no_grad():
            for name, q in two.named_parameters():
                if name != "b_e":
                    q.clamp_(min=0)
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("make", [lambda m: EIMuon(m, lr=0.01, deflate=4), lambda m: ProjectedSGD(m, lr=0.01, momentum=0.9)])
def test_state_saves_and_resumes_bit_for_bit(tmp_path, make, dtype):
    def steps(model, optimizer, first, last):
        for i in range(first, last):
            draw = torch.Generator().manual_seed(i)
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=draw).to(dtype)
            optimizer.step()

    def fresh():
        torch.manual_seed(5)
        model = build("ei_mlp2_mnist", input_size=(6, 6)).to(dtype)
        return model, make(model)

    whole, optimizer = fresh()
    steps(whole, optimizer, 0, 6)
    half, optimizer = fresh()
    steps(half, optimizer, 0, 3)
    Run(tmp_path).save_checkpoint({"model": half}, optimizer, {"step": 3})
    resumed, optimizer = fresh()
    assert Run(tmp_path).load_checkpoint({"model": resumed}, optimizer) == {"step": 3}
    steps(resumed, optimizer, 3, 6)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))


def test_what_a_recipe_says_reaches_the_optimizer():
    model = build("ei_mlp2_mnist")
    said = recipe(optimizer="muon", lr=0.02, momentum=0.8, adaptive=0.5, inhibitory=0.25, weight_decay=0.01)
    groups = make_optimizer(said, model, 7).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    of = {names[id(p)].split("current.")[-1]: group for group in groups for p in group["params"] if "current" in names[id(p)]}
    assert {name: group["scale"] for name, group in of.items()} == {
        "ee.weight": 1.0, "ie.weight": 0.25, "ei.weight": 0.5, "g_e": 0.5, "b_e": 0.5, "g_i": 0.125}
    assert (of["ee.weight"]["momentum"], of["ee.weight"]["weight_decay"], of["ee.weight"]["deflate"]) == (0.8, 0.01, 7)
    (group,) = make_optimizer(recipe(lr=0.02, momentum=0.8, weight_decay=0.01), model, 0).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.02, 0.8, 0.01)


def test_a_checkpoint_whose_parameters_are_counted_otherwise_is_refused(tmp_path):
    model = build("ei_mlp2_mnist", input_size=(6, 6))
    optimizer, other = EIMuon(model), EIMuon(model)
    for p in model.parameters():
        p.grad = torch.rand_like(p)
    optimizer.step()
    Run(tmp_path).save_checkpoint({"model": model}, optimizer, {"step": 1})
    other.param_groups[0]["params"].reverse()
    with pytest.raises(ZooError, match="does not fit this run"):
        Run(tmp_path).load_checkpoint({"model": model}, other)


def test_parameters_that_begin_late_are_corrected_by_their_own_count():
    torch.manual_seed(6)
    late, alone = EILinear(10, 8), EILinear(10, 8)
    alone.load_state_dict(late.state_dict())
    optimizers = EIMuon(late, lr=0.01, deflate=1), EIMuon(alone, lr=0.01, deflate=1)
    late.b_e.grad, late.ee.weight.grad = torch.ones(8), torch.rand(8, 10)
    for _ in range(3):
        optimizers[0].step()
    for layer, optimizer in zip((late, alone), optimizers):
        layer.b_e.grad = layer.ee.weight.grad = None
        layer.g_e.grad, layer.ie.weight.grad = torch.ones(8), torch.ones(2, 10).tril()
        optimizer.step()
    assert torch.equal(late.g_e, alone.g_e) and torch.equal(late.ie.weight, alone.ie.weight)


def test_a_resumed_step_count_stays_where_an_unbroken_one_is():
    """With the parameters: elsewhere the powers of the decay rates would be rounded differently after a resume, and read in every step."""
    model, like = build("ei_mlp2_mnist", input_size=(6, 6)), build("ei_mlp2_mnist", input_size=(6, 6)).to("meta")
    optimizer, resumed = EIMuon(model), EIMuon(like)
    for p in model.parameters():
        p.grad = torch.rand_like(p)
    optimizer.step()
    resumed.load_state_dict(optimizer.state_dict())
    assert {state["step"].device.type for state in resumed.state.values()} == {"meta"}


def test_warmup_then_cosine():
    rates = [rate(i, 100, 10, 2e-3, 1e-7) for i in range(101)]
    assert rates[0] == 1e-7 and rates[5] == pytest.approx((2e-3 + 1e-7) / 2) and rates[10] == 2e-3
    assert rates[55] == pytest.approx(1e-3) and rates[100] == pytest.approx(0, abs=1e-12)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rate(0, 100, 0, 0.1, 1e-7) == 0.1
    assert rates[30] == pytest.approx(2e-3 * (1 + math.cos(math.pi * 20 / 90)) / 2)


@pytest.mark.parametrize(("shape", "most", "late"), [("cosine", 0.3455, 0.0955), ("linear", 0.4, 0.2), ("flat", 1.0, 0.5)])
def test_each_shape_of_the_rate_ends_at_zero(shape, most, late):
    rates = [rate(i, 100, 0, 1.0, 0.0, shape) for i in range(101)]
    assert rates[0] == 1 and rates[100] == pytest.approx(0, abs=1e-12)
    assert rates[60] == pytest.approx(most, abs=1e-4) and rates[80] == pytest.approx(late, abs=1e-4)
    assert rates == sorted(rates, reverse=True)


def test_muons_weight_decay_shrinks_the_weights_alone():
    layer = EILinear(4, 4)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    for p in layer.parameters():
        p.grad = torch.zeros_like(p)
    EIMuon(layer, lr=0.1, inhibitory=0.5, weight_decay=0.5).step()
    for name, p in layer.named_parameters():
        factor = {"ee.weight": 0.95, "ie.weight": 0.975}.get(name, 1.0)
        torch.testing.assert_close(p.detach(), factor * before[name])


def test_batches_show_every_image_once_in_an_order_of_the_epoch():
    epochs = [list(batches(107, 10, seed=1, epoch=e)) for e in (0, 0, 1)]
    assert [len(b) for b in epochs[0]] == [10] * 10 + [7]
    assert sorted(torch.cat(epochs[0]).tolist()) == list(range(107))
    assert torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1])) and not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[2]))
    assert torch.equal(torch.cat(list(batches(107, 10, 1, 0, skip=4))), torch.cat(epochs[0][4:]))


@pytest.mark.parametrize("make", [lambda m: EIMuon(m, lr=8e-3, least_inhibition=0.25), lambda m: ProjectedSGD(m, lr=0.01, momentum=0.9)])
def test_copies_step_as_the_original_does(make, tmp_path):
    model = build("ei_mlp2_mnist")
    model.mark_initialised()
    optimizer = make(model)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(3))).square().sum().backward()
        optimizer.step()
        return [p.detach().clone() for p in model.parameters()]

    step(model, optimizer)
    torch.save({"model": model, "optimizer": optimizer}, tmp_path / "both.pt")
    saved = torch.load(tmp_path / "both.pt", weights_only=False)
    copied = copy.deepcopy((model, optimizer))
    expected = step(model, optimizer)
    for pair in (copied, (saved["model"], saved["optimizer"])):
        assert pair[1].model is pair[0] and all(map(torch.equal, step(*pair), expected))


def test_hooks_of_a_step_run_once():
    model = build("ei_mlp2_mnist")
    torch.optim.SGD([torch.zeros(1)], lr=1.0)  # which wraps the class's own step
    optimizer, seen = ProjectedSGD(model, lr=0.1), []
    optimizer.register_step_post_hook(lambda *_: seen.append(1))
    model.mark_initialised()
    model(torch.rand(2, 1, 28, 28)).sum().backward()
    optimizer.step()
    assert seen == [1]


def test_muon_sorts_parameters_itself():
    model = build("ei_mlp2_mnist")
    model.stages.requires_grad_(False)
    optimizer = EIMuon(model)
    model.stages.requires_grad_(True)
    with pytest.raises(ValueError, match="make a new one once other parameters are to learn"):
        optimizer.add_param_group({"params": list(model.stages.parameters())})
