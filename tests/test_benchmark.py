"""What the benchmarks compare is the same computation; early exit; the benchmark command."""

import csv
import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from conftest import since_torch_2_7
from torch import nn

from eisnn_zoo.benchmarking.contenders import Contender
from eisnn_zoo.benchmarking.literal import Literal
from eisnn_zoo.benchmarking.timing import alternate
from eisnn_zoo.catalog import MODELS
from eisnn_zoo.config import base_config
from eisnn_zoo.ei import EISynapses
from eisnn_zoo.inference import anytime
from eisnn_zoo.inference.classify import softmax
from eisnn_zoo.inference.folding import fold
from eisnn_zoo.inference.stepping import NetworkSteps, stepwise
from eisnn_zoo.networks import build
from eisnn_zoo.table import default_weights


@pytest.mark.parametrize("name, shape, options", [
    ("ei_vgg8", (3, 32, 32), {}), ("ei_resnet18", (3, 16, 16), {"time_steps": 2, "reset": "hard"}), ("ei_mlp4_mnist", (1, 28, 28), {}),
    ("ei_vgg8_cifar10dvs", (2, 2, 32, 32), {"time_steps": 2}),
])
def test_the_literal_formulation_is_the_network(name, shape, options):
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
    gradients = []
    for module in (net, literal):
        net.zero_grad()
        module(x).square().sum().backward()
        gradients.append({n: p.grad.clone() for n, p in net.named_parameters()})
    for layer in net.modules():
        if isinstance(layer, EISynapses):
            layer.ei.weight.grad /= layer.fan_in
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, gradients[0][name], rtol=1e-8, atol=1e-10 * p.grad.abs().max().item(), msg=name)


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
    assert anytime.early_exit(anytime.Recorded(np.zeros((2, 1, 2))), 0.5)[1].tolist() == [1], "exactly as sure as asked for"
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
    ("ei_vgg8", (3, 32, 32), {}), ("ei_resnet18", (3, 8, 8), {"reset": "hard"}), ("ei_vgg8_cifar10dvs", (4, 2, 32, 32), {"time_steps": 4}),
])
def test_steps_taken_one_by_one_are_those_of_one_forward(name, shape, options):
    """Samples leave on the way, and the others go on as if nothing had happened."""
    torch.manual_seed(0)
    net = build(name, **options).double().eval()
    net.mark_initialised()
    folded = fold(net, shape[-2:])
    x = torch.rand(6, *shape, dtype=torch.float64)
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


@pytest.mark.parametrize("name", ["vgg8", "vgg16", "resnet18", "resnet50"])
def test_peers_are_made_of_the_baselines_layers(name):
    from eisnn_zoo.benchmarking.peers import body

    def make(n_in: int, n_out: int, kernel: int, stride: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(n_out))

    theirs, width = body(base_config(MODELS[f"ei_{name}"]), make, lambda: nn.AvgPool2d(2))
    ours = build(f"bn_{name}")
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.stages.parameters())
    assert width == ours.num_features and theirs(torch.rand(2, 3, 32, 32)).shape[:2] == (2, width)


def test_peers_have_the_shape_of_our_baseline():
    pytest.importorskip("spikingjelly")
    pytest.importorskip("snntorch")
    from eisnn_zoo.benchmarking.peers import NETWORKS

    for make in NETWORKS.values():
        for name in ("vgg8", "resnet18"):
            ours, theirs = build(f"bn_{name}"), make(base_config(MODELS[f"ei_{name}"]), 2)
            assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())
        for name, shape in (("ei_mlp2_mnist", (1, 28, 28)), ("ei_vgg8_cifar10dvs", (2, 2, 32, 32))):
            theirs, x = make(base_config(MODELS[name]), 2).eval(), torch.rand(3, *shape)
            with torch.inference_mode():
                assert torch.equal(theirs(x), theirs(x)) and theirs(x).shape == (3, 10)  # nothing survives a call


def test_benchmark_command(cli, tmp_path, monkeypatch):
    from eisnn_zoo.cli import benchmark

    monkeypatch.setattr(benchmark, "find_spec", lambda name: None if name in ("spikingjelly", "snntorch") else find_spec(name))
    code, out, err = cli("benchmark", "ei_mlp12_mnist", "--batch", "1,3,1", "--rounds", 1, "--time-steps", 2, "--peers", "--device", "cpu",
                         "--output", tmp_path, "--format", "csv")
    assert code == 0, err
    assert "pip install spikingjelly" in err and "pip install snntorch" in err
    rows = list(csv.DictReader(out.splitlines()))
    assert [(r["model"], r["backend"], r["batch"]) for r in rows] == [
        ("ei_mlp12_mnist (untrained)", way, batch) for batch in "13" for way in ("torch", "literal")]
    for row in rows:
        assert float(row["images_per_s"]) == pytest.approx(1e3 * int(row["batch"]) / float(row["p50_ms"]), rel=0.05)
        assert float(row["p50_ms"]) <= float(row["p90_ms"]) <= float(row["p99_ms"])
        assert float(row["memory_mb"]) > 100 and float(row["start_s"]) > 0.3  # of a process that had to import torch
        assert (row["times_literal"] == "1.0") == (row["backend"] == "literal") == (row["peak_share"] == "")
    saved = list(csv.DictReader((tmp_path / "benchmark.csv").open()))
    assert len(saved) == 4 and torch.__version__.startswith(saved[0]["torch"]) and float(saved[0]["conv_peak_gflops"]) > 1
    assert saved[0]["device"] == "cpu" and (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")


@since_torch_2_7
def test_networks_of_one_name_are_told_apart(cli, model_folder, tmp_path, monkeypatch):
    sources = []
    monkeypatch.setattr(Contender, "cold", lambda self, batch: sources.append(self.source) or {"start_s": 0.0, "memory_mb": 0})
    runs = [model_folder("ei_mlp2_mnist", folder=tmp_path / name) for name in ("first", "second")]
    code, out, err = cli("benchmark", *runs, runs[0], "ei_mlp4_mnist", "ei_mlp12_mnist", "ei_mlp12_mnist", "--backend", "torch,onnx", "--batch", "1", "--rounds", 1, "--format", "csv")
    assert code == 0, err
    names = [(r["model"], r["backend"]) for r in csv.DictReader(out.splitlines())]
    titles = [f"ei_mlp2_mnist ({run})" for run in runs]
    assert names == [(title, way) for title in (*titles, "ei_mlp4_mnist.zoo", "ei_mlp12_mnist (untrained)") for way in ("torch", "onnx")]
    assert len(set(sources)) == len(names)  # nor are files exported for one of them overwritten by another


def test_an_onnx_file_is_timed_without_torch(without_torch, tmp_path):
    done = without_torch("benchmark", default_weights().local.parent / "model.onnx", "--batch", 2, "--rounds", 1, "--threads", 1,
                         "--output", tmp_path, "--format", "json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["model"], row["backend"], row["batch"]) == (default_weights().name, "onnx", 2)
    assert 0 < row["peak_share"] < 1.5 and 20 < row["memory_mb"] < 1000
    assert "product_peak_gflops" in (tmp_path / "benchmark.csv").read_text() and (tmp_path / "benchmark.png").stat().st_size > 5000


@pytest.mark.parametrize("arguments, code, words", [
    (("--backend", "tpu"), 2, ["tpu"]), (("--batch", "0"), 2, ["--batch 0"]), (("--batch", "many"), 2, ["many"]), (("--backend", ","), 2, ["--backend"]),
    (("--device", "cuda"), 2, ["--device cuda", "--device cpu"]), (("--device", "cuda", "--backend", "onnx"), 2, ["onnxruntime-gpu"]),
    (("model.onnx",), 2, ["there is no file model.onnx"]), (("--output", __file__), 2, ["name a folder"]),
])
def test_benchmark_refuses_nonsense(cli, arguments, code, words):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    got, out, err = cli("benchmark", "ei_vgg8_cifar10", *arguments)
    assert (got, out) == (code, "") and all(word in err for word in words) and "Traceback" not in err


def test_an_onnx_file_is_what_it_is(cli):
    path = default_weights().local.parent / "model.onnx"
    for arguments, word in ((["--backend", "torch"], "for torch name the weights"), (["--peers"], "for --peers name the weights"),
                            (["--time-steps", 3], "export it again with --time-steps 3")):
        code, out, err = cli("benchmark", path, *arguments)
        assert code == 2 and out == "" and word in err


def test_networks_are_timed_as_they_predict(monkeypatch):
    said = []
    monkeypatch.setattr("eisnn_zoo.precision.strict_arithmetic", lambda: said.append(1))
    for way in ("torch", "literal"):
        Contender("ei_mlp4_mnist.zoo", way, device="cpu").open()
    assert len(said) == 2
