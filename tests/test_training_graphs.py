"""Iterations recorded as CUDA graphs are the same iterations; on a processor, replayed by hand."""

from __future__ import annotations

import contextlib
import types

import pytest
import torch
from training_helpers import digits, recipe, same, weights

from eisnn_zoo.training import setup
from eisnn_zoo.training.engine import Diverged, Training
from eisnn_zoo.training.graphs import WARM, Graphs, Plain
from eisnn_zoo.training.iteration import Iteration

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
RECIPES = {
    "sgd, clipped": {"clip_grad": 0.5},
    "deflated muon in parts, T grown": {"optimizer": "muon", "deflate_epochs": 1, "time_steps": {0: 1, 2: 2}, "accumulate": 2, "epochs": 4},
    "slope, batch and parts change": {"alpha": {0: 2.0, 1: 6.0}, "batch_size": {0: 32, 2: 40}, "accumulate": {0: 1, 2: 2}, "epochs": 3},
    "homeostasis": {"model": "ei_mlp4_mnist", "optimizer": "muon", "init": "standardised", "homeostasis": {0: 0.1, 2: 0.0},
                    "least_inhibition": 0.5, "epochs": 3},
    "batch normalisation, averaged": {"model": "bn_mlp2_mnist", "ema": 0.9, "augment": "crop_flip"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return digits(tmp_path_factory.mktemp("digits"), train=230)  # 7 batches of 32 and a rest


def run(data, folder, device="cpu", **values):
    training = Training(recipe(**{"batch_size": 32, **values}), data, folder, device, compile=False)
    training.fit()
    return training


@pytest.mark.parametrize("values", RECIPES.values(), ids=RECIPES)
def test_what_is_recorded_is_the_whole_iteration(data, tmp_path, monkeypatch, values):
    """A recording holds the setting and the tensors of the batch that it was made with, and sees another batch only through them."""
    def record(self, setting, inputs):
        recorded.append(setting)
        self.inputs, self.results = [x.clone() for x in inputs], torch.zeros(3)
        first = types.SimpleNamespace(replay=lambda: self.results.copy_(self.plain.gradients(setting, *self.inputs)))
        self.recorded = first, types.SimpleNamespace(replay=self.plain.step)

    run(data, tmp_path / "plain", **values)
    recorded: list = []
    monkeypatch.setattr(Graphs, "possible", lambda world: True)
    monkeypatch.setattr(Graphs, "_record", record)
    monkeypatch.setattr(Iteration, "stream", lambda self: contextlib.nullcontext())
    run(data, tmp_path / "recorded", **values)
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "recorded"))
    expected = [(1, True), (1, False), (2, False)] if "deflate_epochs" in values else [(4, False)] * (1 + ("homeostasis" in values))
    if "alpha" not in values:
        assert [(s.time_steps, s.deflated) for s in recorded] == expected
    else:
        assert [(s.alpha, s.images, s.part) for s in recorded] == [(2.0, 32, 32), (6.0, 32, 32), (6.0, 40, 20)]
    assert all(s.whole for s in recorded)


def test_the_compiler_is_left_out_where_all_layers_are_fused(monkeypatch):
    monkeypatch.setattr(setup, "fused_on", lambda device: True)
    gpu = torch.device("cuda")
    assert setup.fused_throughout(recipe(), gpu) and not setup.fused_throughout(recipe(), torch.device("cpu"))
    assert not setup.fused_throughout(recipe(model="bn_mlp2_mnist"), gpu)
    assert not setup.fused_throughout(recipe(stabilisation="none"), gpu)


def test_each_setting_is_warm_before_it_is_recorded():
    run, recorded = [], []

    def record(setting, inputs):
        recorded.append((setting, len(run)))
        graphs.inputs, graphs.results = list(inputs), torch.zeros(2)
        graphs.recorded = (types.SimpleNamespace(replay=lambda: None),) * 2

    graphs = Graphs(Plain(lambda setting, x: run.append(setting) or x, lambda: None), [])
    graphs._record = record
    for setting in ["a"] * (WARM + 2) + ["b"] * (WARM + 1):
        graphs.gradients(setting, torch.ones(2))
    assert run == ["a"] * WARM + ["b"] * WARM and recorded == [("a", WARM), ("b", 2 * WARM)]


def test_what_cannot_be_recorded_runs_as_it_is(caplog):
    run = []
    graphs = Graphs(Plain(lambda setting, x: run.append(setting) or x, lambda: run.append("step")), [])
    caplog.set_level("INFO")
    for _ in range(WARM + 2):  # without a GPU no graph can be made
        assert graphs.gradients("a", torch.ones(2)).tolist() == [1, 1]
        graphs.step()
    assert run == ["a", "step"] * (WARM + 2) and not graphs.recorded and not graphs.inputs
    assert caplog.text.count("not recorded as CUDA graphs") == 1


VGG8 = {"model": "ei_vgg8", "dataset": "mnist", "resolution": 32, "optimizer": "muon", "epochs": 2}
CONVOLUTIONS = {"ei_vgg8": VGG8,
                "ei_vgg8, homeostasis": VGG8 | {"augment": "trivial", "init": "standardised", "homeostasis": 0.1, "least_inhibition": 0.25},
                "bn_resnet18": {"model": "bn_resnet18", "dataset": "mnist", "resolution": 16, "epochs": 2}}


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("values", (RECIPES | CONVOLUTIONS).values(), ids=RECIPES | CONVOLUTIONS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu_recorded_iterations_give_the_same_weights(data, tmp_path, monkeypatch, values, precision):
    recorded, record = [], Graphs._record
    monkeypatch.setattr(Graphs, "_record", lambda self, *args: record(self, *args) or recorded.append(bool(self.recorded)))
    run(data, tmp_path / "recorded", "cuda", precision=precision, **values)
    assert recorded and all(recorded)
    monkeypatch.setenv("EISNN_ZOO_GRAPHS", "0")
    run(data, tmp_path / "plain", "cuda", precision=precision, **values)
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "recorded"))


@pytest.mark.cuda
@needs_gpu
def test_on_a_gpu_a_run_goes_on_within_an_epoch(data, tmp_path):
    values = RECIPES["deflated muon in parts, T grown"]
    run(data, tmp_path / "whole", "cuda", **values)
    part = Training(recipe(**{"batch_size": 32, **values}), data, tmp_path / "part", "cuda", compile=False)
    iteration = part._iteration

    def stop_in_the_third_epoch(*batch):
        part.stop = part.asked = part.step == 21
        return iteration(*batch)

    part._iteration = stop_in_the_third_epoch
    with pytest.raises(Exception, match="iteration 22"):
        part.fit()
    run(data, tmp_path / "part", "cuda", **values)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "part"))


@pytest.mark.cuda
@needs_gpu
def test_on_a_gpu_a_loss_that_overflows_ends_the_run_before_the_step(data, tmp_path):
    training = Training(recipe(batch_size=32), data, tmp_path, "cuda", compile=False)
    iteration = training._iteration

    def spoil(*batch):
        if training.step == 5:
            training.model.stages[0].layers[0].current.b_e.data.fill_(float("nan"))
        return iteration(*batch)

    training._iteration = spoil
    with pytest.raises(Diverged, match="iteration 6"):
        training.fit()
    assert training.model.head.ee.weight.isfinite().all()
