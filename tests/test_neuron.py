import pytest
import torch

from eisnn_zoo.neuron import LIF, SURROGATES, spike


def test_membrane_by_hand():
    # v: 0.8 | 0.4+0.8=1.2 spike -> 0.2 | 0.1+0.8=0.9 | 0.45+0.8=1.25 spike -> 0.25
    current = torch.full((4, 1), 0.8)
    assert LIF()(current, 4).flatten().tolist() == [0, 1, 0, 1]
    # hard reset forgets the rest: 1.2 -> 0 | 0.8 | 0.4+0.8=1.2 spike
    assert LIF(reset="hard")(current, 4).flatten().tolist() == [0, 1, 0, 1]
    strong = torch.tensor([2.5, 0.2, 0.2])[:, None]
    assert LIF()(strong, 3).flatten().tolist() == [1, 0, 0]  # 1.5 stays, 0.95, 0.675
    assert LIF(tau=4.0)(strong, 3).flatten().tolist() == [1, 1, 0]  # 1.5 stays, 1.325 spike, 0.44
    assert LIF(reset="hard", tau=4.0)(strong, 3).flatten().tolist() == [1, 0, 0]
    assert LIF(threshold=3.0)(strong, 3).sum() == 0


def test_threshold_itself_fires():
    assert spike(torch.tensor([0.0, -1e-9]), "sigmoid", 4.0).tolist() == [1, 0]


def test_a_held_current_is_the_current_repeated():
    current = torch.rand(1, 5, 7)
    assert torch.equal(LIF()(current, 6), LIF()(current.expand(6, -1, -1), 6))


@pytest.mark.parametrize("steps", [3, 8])
def test_a_current_of_other_steps_is_refused(steps):
    with pytest.raises(ValueError, match=f"currents of 4 steps.* of {steps}"):
        LIF()(torch.rand(steps, 2, 5), 4)


def test_two_calls_do_not_interact():
    lif, a, b = LIF(), torch.rand(4, 3), torch.rand(4, 3)
    first = lif(a, 4)
    lif(b, 4)
    assert torch.equal(lif(a, 4), first)


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("alpha", [1.0, 4.0])
def test_surrogate_is_the_gradient_and_has_area_one(name, alpha):
    u = torch.linspace(-60, 60, 240_001, dtype=torch.float64, requires_grad=True)
    spike(u, name, alpha).sum().backward()
    assert u.grad.sum().item() * (u[1] - u[0]).item() == pytest.approx(1, abs=0.02)
    assert torch.equal(u.grad, SURROGATES[name](u.detach(), alpha))
    assert u.grad.argmax() in range(119_000, 121_001)  # steepest at the threshold


def test_slopes_of_all_kinds_compile():
    """A second slope, or dynamic shapes, makes the number a symbol to torch.compile."""
    for alpha, dynamic in ((4.0, None), (2.0, None), (3.0, True)):
        lif, current = LIF(alpha=alpha), torch.rand(3, 2, 5, generator=torch.Generator().manual_seed(0)) * 2
        plain, compiled = (current.clone().requires_grad_() for _ in range(2))
        lif(plain, 3).sum().backward()
        torch.compile(lif, backend="aot_eager", dynamic=dynamic)(compiled, 3).sum().backward()
        torch.testing.assert_close(compiled.grad, plain.grad)


def test_sigmoid_surrogate_is_the_derivative_of_a_sigmoid():
    u = torch.randn(50, dtype=torch.float64, requires_grad=True)
    spike(u, "sigmoid", 4.0).sum().backward()
    v = u.detach().clone().requires_grad_()
    torch.sigmoid(4 * v).sum().backward()
    torch.testing.assert_close(u.grad, v.grad)


def test_gradient_through_time_with_detached_reset():
    """ds_t/dI_k = g(u_t) (1/2)^(t-k): the reset sends no gradient back."""
    current = torch.tensor([0.9, 0.7, 0.4], dtype=torch.float64)[:, None].requires_grad_()
    LIF()(current, 3)[2].sum().backward()
    v = 0.0
    for i in (0.9, 0.7, 0.4):
        u = v / 2 + i
        v = u - (u >= 1)
    slope = SURROGATES["sigmoid"](torch.tensor(u - 1, dtype=torch.float64), 4.0)
    torch.testing.assert_close(current.grad.flatten(), slope * torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("wrong", [{"tau": 1.0}, {"threshold": 0.0}, {"surrogate": "relu"}, {"alpha": -1.0}, {"reset": "none"}])
def test_impossible_options(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LIF(**wrong)


@pytest.mark.parametrize("key", ["threshold", "alpha"])
def test_infinite_options(key):
    with pytest.raises(ValueError, match=f"{key} must be above 0 and finite, got inf"):
        LIF(**{"tau": 2.0, key: float("inf")})
