"""The numbers of the authors' code, met by ours: logits, loss, firing rates, gradients, and E-I Init from a seed."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import draw
import pytest
import torch
import torch.nn.functional as F

import eisnn_zoo
from eisnn_zoo.networks import FAMILIES
from eisnn_zoo.neuron import LIF
from eisnn_zoo.release import _numbers, release_names

FOLDER = Path(__file__).parent / "golden"
FORWARD = sorted(p.stem for p in FOLDER.glob("*.json") if not p.stem.startswith("init_"))
INIT = sorted(p.stem for p in FOLDER.glob("init_*.json"))


def golden(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())


def network(g: dict, dtype: torch.dtype):
    channels = draw.SHAPES[g["dataset"]][0]
    kind = "bn" if g["name"].startswith("bn_") else "ei"
    return FAMILIES[g["arch"].lower()](g["depth"], kind, in_chans=channels, time_steps=g["T"], dtype=dtype).eval()


@pytest.mark.parametrize("name", FORWARD)
def test_forward_and_gradients_in_float64(name):
    g = golden(name)
    model = network(g, torch.float64)
    eisnn_zoo.load_release_state(model, {k: torch.from_numpy(v) for k, v in draw.state(g).items()})
    rates = []
    for module in model.modules():
        if isinstance(module, LIF):
            module.register_forward_hook(lambda m, args, spikes: rates.append(spikes.mean().item()))
    logits = model(torch.from_numpy(draw.inputs(g)))
    loss = F.cross_entropy(logits, torch.arange(g["batch"]) % logits.shape[1])
    loss.backward()

    torch.testing.assert_close(logits.detach(), torch.tensor(g["logits"], dtype=torch.float64), rtol=1e-6, atol=1e-9)
    assert loss.item() == pytest.approx(g["loss"], rel=1e-6)
    assert rates == pytest.approx(g["firing_rates"], rel=1e-6)
    gradients = {k: p.grad for k, p in model.named_parameters()}
    checked = 0
    for ours, theirs in release_names(model, _numbers(g["state"]))[0].items():
        expected = g["grad_norm_sum"].get(theirs)
        if expected is not None:
            grad = gradients[ours]
            assert grad.norm().item() == pytest.approx(expected[0], rel=1e-6)
            assert grad.sum().item() == pytest.approx(expected[1], rel=1e-6, abs=1e-9 * max(1, expected[0]))
            checked += 1
    assert checked >= 2


def init_errors(name: str) -> list[tuple[str, float, float]]:
    """(release's name, relative error of the sum, of the norm) of every parameter after E-I Init in float32."""
    g = golden(name)
    g["name"] = name.removeprefix("init_")
    model = network(g, torch.float32)
    eisnn_zoo.initialize(model, torch.from_numpy(draw.inputs(g)).float(), g["seed"])
    errors, state = [], model.state_dict()
    for ours, theirs in release_names(model, _numbers(g["param_sum_norm"]))[0].items():
        total, norm = g["param_sum_norm"][theirs]
        value = state[ours].double()
        errors.append((theirs, abs(value.sum().item() - total) / max(abs(total), 1e-9), abs(value.norm().item() - norm) / max(norm, 1e-9)))
    return errors


@pytest.mark.parametrize("name", INIT)
def test_init_from_a_seed(name):
    """The same weights as the release from the same seed. One flipped spike changes every later layer's statistics, and
    which way a sum rounds depends on the width of the processor's vectors: the goldens were made with AVX2."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the goldens were computed with AVX2")
    code = f"import json, test_golden; print(json.dumps(test_golden.init_errors({name!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True,
                          env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": f"{FOLDER}{os.pathsep}{FOLDER.parent}"})
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert max(max(e[1:]) for e in errors) < 1e-4, max(errors, key=lambda e: max(e[1:]))


@pytest.mark.parametrize("name", INIT)
def test_init_on_any_processor(name):
    """The first two layers exactly, the later ones to the few per cent that flipped spikes move them."""
    errors = init_errors(name)
    assert max(max(e[1:]) for e in errors[:4]) < 1e-6
    assert max(max(e[1:]) for e in errors) < 0.05
