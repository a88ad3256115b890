"""Probes change nothing and show what the formulas say."""

import pytest
import torch

from eisnn_zoo.analysis import QUANTITIES, probe, record, spiking_layers, stream
from eisnn_zoo.analysis.energy import operations
from eisnn_zoo.analysis.explain import occlusion
from eisnn_zoo.analysis.interventions import accuracy
from eisnn_zoo.analysis.response import respond
from eisnn_zoo.analysis.similarity import cka
from eisnn_zoo.ei_init import initialize
from eisnn_zoo.inference.folding import fold
from eisnn_zoo.networks import build

NETWORKS = {"ei_vgg8": (2, 3, 32, 32), "ei_resnet18": (2, 3, 8, 8), "ei_mlp2_mnist": (3, 1, 28, 28),
            "ei_vgg8_dvsgesture": (2, 3, 2, 32, 32)}


def network(name: str = "ei_vgg8", **options):
    x = torch.rand(NETWORKS[name], generator=torch.Generator().manual_seed(1))
    if x.dim() == 5:
        options["time_steps"] = 3
    model = build(name, **options)
    initialize(model, x, seed=0)
    return model.eval(), x


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_logits_are_the_same_bits(name):
    model, x = network(name)
    sized = (fold(model, tuple(x.shape[-2:])),) if model.depth == 8 else ()
    for m in (model, fold(model), *sized):
        without = m(x)
        logits, recorded = record(m, x, QUANTITIES, literal=model)
        assert torch.equal(logits, without)
        assert torch.equal(m(x), without)
        assert list(recorded) == list(spiking_layers(model))
        for values in recorded.values():
            steps = values["spikes"].shape[:2]
            assert all(v.shape[:2] == steps == (model.time_steps, len(x)) for v in values.values())


@torch.no_grad()
def test_membrane_and_spikes_obey_the_neuron():
    for reset in ("soft", "hard"):
        model, x = network("ei_mlp2_mnist", reset=reset, tau=3.0, threshold=0.7)
        _, recorded = record(model, x, ["I", "membrane", "spikes"])
        for r in recorded.values():
            assert torch.equal(r["spikes"], (r["membrane"] - 0.7 >= 0).float())
            left = r["membrane"][0] - 0.7 * r["spikes"][0] if reset == "soft" else r["membrane"][0] * (1 - r["spikes"][0])
            torch.testing.assert_close(r["membrane"][1], left * (1 - 1 / 3) + r["I"][1])


@torch.no_grad()
def test_currents_obey_the_formula_and_agree_when_folded():
    model, x = network()
    model.double()
    _, plain = record(model, x.double(), QUANTITIES)
    folded = fold(model)
    _, short = record(folded, x.double(), ["I_IE", "I_div", "D", "I"])
    _, long = record(folded, x.double(), ["I_EE", "I_sub"], literal=model)
    for name, layer in spiking_layers(model).items():
        r, ei = plain[name], layer.current
        expected = ei.g_e[:, None, None] * (r["I_EE"] - r["I_sub"]) / r["D"] + ei.b_e[:, None, None]
        torch.testing.assert_close(r["I"], expected, rtol=1e-9, atol=1e-9)
        for quantity in short[name]:
            torch.testing.assert_close(short[name][quantity], r[quantity], rtol=1e-9, atol=1e-9)
        for quantity in long[name]:
            torch.testing.assert_close(long[name][quantity], r[quantity])


@torch.no_grad()
def test_a_compiled_network_can_be_probed():
    model, x = network("ei_mlp2_mnist")
    compiled = torch.compile(model, backend="eager")
    without = compiled(x)
    logits, recorded = record(compiled, x, ["spikes"])
    assert torch.equal(logits, without)
    assert recorded["stages.0.layers.0"]["spikes"].sum() > 0


def test_streaming_keeps_nothing_and_takes_the_hooks_away():
    model, x = network("ei_mlp2_mnist")
    model.train()

    class Count:
        layers = images = 0

        def see(self, activity):
            assert not model.training
            self.layers += 1
            self.images += activity["spikes"].shape[1]

    count = Count()
    stream(model, (x for _ in range(5)), count)
    assert (count.layers, count.images) == (5, 15)
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())


@torch.no_grad()
@pytest.mark.parametrize("look", [
    lambda m, x: record(m, x, ["spikes"])[0], lambda m, x: cka(m, m, [x]), lambda m, x: torch.tensor(accuracy(m, [(x, torch.zeros(6))])),
    lambda m, x: torch.tensor([r["acs"] for r in operations(m, [x])]), lambda m, x: respond(m, x[0]).evidence,
    lambda m, x: occlusion(m, x[0], 0)])
def test_a_network_in_training_is_looked_at_in_evaluation(look):
    """By BatchNorm's running statistics and without dropout, and nothing of it moves: not the mode of a frozen part either."""
    model, x = build("bn_mlp4_mnist", drop_rate=0.5), torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    model.train()
    for _ in range(20):
        model(x)
    expected = look(model.eval(), x)
    model.train()
    model.stages[0].eval()
    state, modes = {k: v.clone() for k, v in model.state_dict().items()}, [m.training for m in model.modules()]
    assert torch.equal(look(model, x), expected) and expected.isfinite().all()
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


@torch.no_grad()
def test_sentences():
    model, x = network("ei_mlp2_mnist")
    with pytest.raises(ValueError, match="no spiking layer 'head'"), probe(model, print, layers=["head"]):
        pass
    with pytest.raises(ValueError, match="unknown quantity 'voltage'"):
        record(model, x, ["voltage"])
    with pytest.raises(ValueError, match="pass literal="):
        record(fold(model), x, ["I_EE"])
    with pytest.raises(ValueError, match="no E-I layer"):
        record(build("bn_mlp2_mnist").eval(), x, ["I_div"])
    assert not any(m._forward_hooks for m in model.modules())
