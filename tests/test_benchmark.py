"""What the benchmarks compare is the same computation; early exit; the benchmark command."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from eisnn_zoo import anytime
from eisnn_zoo.classify import softmax
from eisnn_zoo.folding import fold
from eisnn_zoo.networks import build
from eisnn_zoo.stepping import NetworkSteps, stepwise
from eisnn_zoo.timing import alternate

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))


@pytest.mark.parametrize("name, shape, options", [
    ("ei_vgg8", (3, 32, 32), {}), ("ei_resnet18", (3, 16, 16), {"time_steps": 2}), ("ei_mlp4_mnist", (1, 28, 28), {}),
    ("ei_vgg8_cifar10dvs", (2, 2, 32, 32), {"time_steps": 2}),
])
def test_the_literal_formulation_is_the_network(name, shape, options):
    from literal import Literal

    torch.manual_seed(0)
    net = build(name, **options).double().eval()
    net.mark_initialised()
    x = torch.rand(3, *shape, dtype=torch.float64)
    x[0, ..., : shape[-1] // 2] = 0
    literal = Literal(net)
    with torch.inference_mode():
        expected = net(x)
        torch.testing.assert_close(literal(x), expected, rtol=1e-9, atol=1e-9)
    assert {p.data_ptr() for p in literal.parameters()} == {p.data_ptr() for p in net.parameters()}
    assert expected.std() > 0


def test_runs_alternate():
    calls = []
    times = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2, seconds=0)
    assert "".join(calls) == "ab" + "aabb" + "bbaa"  # a warm-up each; then in turn, one untimed call before the timed one
    assert {name: len(t) for name, t in times.items()} == {"a": 2, "b": 2} and all((t >= 0).all() for t in times.values())


EVIDENCE = np.array([  # two steps, two samples, two classes: the first is sure at once and right, the second comes round late
    [[9.0, 0.0], [0.2, 0.0]],
    [[9.0, 0.0], [0.0, 4.0]],
])


def test_early_exit_stops_when_sure():
    logits, steps = anytime.early_exit(anytime.Recorded(EVIDENCE), 0.9)
    assert steps.tolist() == [1, 2]
    np.testing.assert_allclose(logits, [[9, 0], [0.1, 2]])
    assert anytime.early_exit(anytime.Recorded(EVIDENCE), 0.5)[1].tolist() == [1, 1]
    assert anytime.accuracy_by_confidence(EVIDENCE, np.array([0, 1]), [0.5, 0.9]) == [
        {"confidence": 0.5, "top1": 50.0, "average_steps": 1.0}, {"confidence": 0.9, "top1": 100.0, "average_steps": 1.5}]
    with pytest.raises(ValueError, match="confidence"):
        anytime.early_exit(anytime.Recorded(EVIDENCE), 1.5)


def test_accuracy_by_time():
    assert anytime.accuracy_by_time(EVIDENCE, np.array([0, 1])) == [{"time_steps": 1, "top1": 50.0}, {"time_steps": 2, "top1": 100.0}]


def test_earlier_answers_are_those_of_fewer_steps():
    """One forward of T steps holds the answers for every smaller T."""
    net = build("ei_vgg8", time_steps=3).double().eval()
    net.mark_initialised()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        running = anytime.running_logits(net.forward_evidence(x).numpy())
        for t in (1, 2, 3):
            net.time_steps = t
            np.testing.assert_allclose(running[t - 1], net(x).numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name, shape, options", [
    ("ei_vgg8", (3, 32, 32), {}), ("ei_resnet18", (3, 16, 16), {"reset": "hard"}), ("ei_vgg8_cifar10dvs", (4, 2, 32, 32), {"time_steps": 4}),
])
def test_steps_taken_one_by_one_are_those_of_one_forward(name, shape, options):
    """Samples leave on the way, and the others go on as if nothing had happened."""
    torch.manual_seed(0)
    net = build(name, **options).double().eval()
    net.mark_initialised()
    folded = fold(net, shape[-2:])
    x = torch.rand(12, *shape, dtype=torch.float64)
    with torch.inference_mode():
        evidence = folded.forward_evidence(x).numpy()
    confidence = float(np.median(softmax(anytime.running_logits(evidence)[1]).max(-1)))  # half of them are sure after two steps
    single = stepwise(folded)
    for _ in range(2):  # the second batch begins with membranes at rest
        logits, taken = anytime.early_exit(NetworkSteps(single, x, 4), confidence)
        expected, steps = anytime.early_exit(anytime.Recorded(evidence), confidence)
        assert taken.tolist() == steps.tolist() and len(set(steps.tolist())) > 1
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert folded.time_steps == 4


def test_benchmark_command(cli, tmp_path):
    code, out, err = cli("benchmark", "ei_vgg8", "--batch", "1", "--rounds", 1, "--time-steps", 1, "--output", tmp_path, "--format", "csv")
    assert code == 0, err
    rows = list(csv.DictReader(out.splitlines()))
    assert [(r["model"], r["backend"], r["batch"]) for r in rows] == [("ei_vgg8", "torch", "1")]
    assert float(rows[0]["images_per_s"]) == pytest.approx(1e3 / float(rows[0]["p50_ms"]), rel=0.02)
    assert float(rows[0]["p50_ms"]) <= float(rows[0]["p99_ms"])
    saved = list(csv.DictReader((tmp_path / "benchmark.csv").open()))
    assert saved[0]["torch"] == torch.__version__.split("+")[0] or saved[0]["torch"] == torch.__version__
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("arguments, word", [
    (("--backend", "tpu"), "tpu"), (("--batch", "0"), "--batch 0"), (("--batch", "many"), "many"), (("--backend", ","), "--backend"),
])
def test_benchmark_refuses_nonsense(cli, arguments, word):
    code, out, err = cli("benchmark", "ei_vgg8", *arguments)
    assert code == 2 and out == "" and word in err and "Traceback" not in err
