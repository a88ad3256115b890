"""Networks without spikes: the baseline's layers with rectified currents, and what of the zoo is not for them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import DATA, since_torch_2_7
from training_helpers import recipe

from eisnn_zoo.analysis import probe
from eisnn_zoo.catalog import MODELS
from eisnn_zoo.errors import UsageError
from eisnn_zoo.files import read_metrics
from eisnn_zoo.inference.folding import fold
from eisnn_zoo.locating import locate
from eisnn_zoo.networks import build
from eisnn_zoo.training.diagnose import first_overflow
from eisnn_zoo.training.engine import Training


@pytest.fixture
def colours(tmp_path):
    """Pictures whose class is the brightest of three colours, in CIFAR-10's size."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split, n in (("train", 60), ("test", 20)):
        rng = np.random.default_rng(n)
        y = rng.integers(0, 3, n)
        x = rng.integers(0, 100, (n, 32, 32, 3))
        x[np.arange(n), :, :, y] += 150
        np.savez(folder / f"{split}.npz", x=x.astype(np.uint8), y=y)
    return folder


def test_there_is_one_for_each_network_of_cifar10_and_its_weights_are_named_as_the_baselines():
    names = [m for m in MODELS if m.startswith("ann_")]
    assert names == [f"ann_{a}_cifar10" for a in ("vgg8", "vgg11", "vgg16", "vgg19", "resnet18")]
    for name in names:
        ours, baseline = build(name), build(name.replace("ann_", "bn_"))
        assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in baseline.state_dict().items()}


def test_vgg8_is_the_ordinary_network():
    torch.manual_seed(0)
    ours = build("ann_vgg8_cifar10")
    ours(torch.rand(20, 3, 32, 32))  # BatchNorm sees some
    ours.eval()
    x = image = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        for stage in ours.stages:
            for layer in stage.layers:
                bn = layer.current.bn
                x = F.conv2d(x, layer.current.conv.weight, padding=1)
                x = F.relu(F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias))
            x = F.avg_pool2d(x, 2)
        expected = F.linear(x.flatten(1), ours.head.weight, ours.head.bias)
        torch.testing.assert_close(ours(image), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fold(ours, (32, 32))(image), expected, rtol=1e-4, atol=1e-5)


def test_steps_of_time_are_all_alike():
    ours = build("ann_resnet18_cifar10").eval()
    x = torch.rand(2, 3, 8, 8)
    assert ours.time_steps == 1
    with torch.no_grad():
        once, ours.time_steps = ours(x), 3
        evidence = ours.forward_evidence(x)
    assert evidence.shape == (3, 2, 10)
    torch.testing.assert_close(evidence, once.expand(3, -1, -1), rtol=1e-4, atol=1e-5)


def test_it_trains_and_teaches_a_spiking_network(colours, tmp_path):
    values = {"batch_size": 20, "epochs": 3, "optimizer": "muon", "lr": 1e-2}
    Training(recipe(model="ann_vgg8_cifar10", **values), colours, tmp_path / "master", compile=False).fit()
    (first, *_, last) = read_metrics(tmp_path / "master")
    assert last["train_loss"] < first["train_loss"] / 2 and last["train_top1"] > 90
    values |= {"epochs": 1, "time_steps": 2, "teacher": str(tmp_path / "master" / "best")}
    training = Training(recipe(model="ei_vgg8_cifar10", **values), colours, tmp_path / "pupil", compile=False)
    assert training.iteration.teacher.plain.time_steps == 1 and training.model.time_steps == 2
    training.fit()
    assert np.isfinite(read_metrics(tmp_path / "pupil")[0]["train_loss"])


def test_there_is_nothing_to_record(cli, colours, tmp_path):
    arguments = ("train", "zoo_ann_resnet18_cifar10", "--data", colours, "--output", tmp_path / "run")
    for option in (["--record"], ["--record-at", "5"]):
        code, _, err = cli(*arguments, *option)
        assert code == 2 and "ann_resnet18_cifar10 has no spikes: leave it out" in err
    assert not (tmp_path / "run").exists()


def test_what_overflows_is_named():
    ours = build("ann_vgg8_cifar10")
    ours.stages[2].layers[0].current.bn.weight.data.fill_(float("inf"))
    assert first_overflow(ours, torch.rand(2, 3, 32, 32)) == "the current of layer stages.2.layers.0 overflowed first"


@pytest.mark.parametrize(("key", "value", "says"), [
    ("alpha", 2.0, "has no spikes, and no surrogate"), ("time_steps", 4, "time is nothing to it"),
    ("time_steps", {0: 1, 2: 2}, "time is nothing to it"), ("homeostasis", 0.1, "BatchNorm in place of inhibitory cells")])
def test_recipes_say_what_it_has_not(key, value, says):
    with pytest.raises(UsageError, match=says):
        recipe(model="ann_vgg8_cifar10", epochs=3, optimizer="muon", **{key: value})
    assert recipe(model="ann_vgg8_cifar10").final_steps == 1


def test_analysis_is_refused_and_prediction_is_not(cli, model_folder, colours):
    folder = model_folder("ann_vgg8_cifar10")
    spiking = model_folder("ei_vgg8_cifar10")
    picture = DATA / "cifar10" / "ship_1.png"
    for arguments in (["analyze", folder, "--data", colours], ["analyze", spiking, "--data", colours, "--twin", folder],
                      ["explain", picture, "--model", folder]):
        code, _, err = cli(*arguments)
        assert code == 2 and "ann_vgg8_cifar10 has no spikes" in err and "Traceback" not in err, err
    for options in ([], ["--early-exit", "0.6"], ["--time-steps", "2"]):
        assert cli("predict", picture, "--model", folder, *options)[0] == 0
    with pytest.raises(ValueError, match="no spiking layers"), probe(build("ann_vgg8_cifar10"), lambda activity: None):
        pass


@since_torch_2_7
def test_the_file_of_onnx_answers_alike(model_folder, tmp_path):
    pytest.importorskip("onnxscript")
    from eisnn_zoo.inference.export import export
    from eisnn_zoo.inference.onnx_runtime import OnnxModel
    from eisnn_zoo.weights import load_network

    located = locate(str(model_folder("ann_vgg8_cifar10")))
    export(located, tmp_path / "m.onnx")
    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        expected = load_network(located).eval()(x)
    np.testing.assert_allclose(OnnxModel(tmp_path / "m.onnx", "cpu")(x.numpy()), expected.numpy(), rtol=1e-3, atol=1e-4)


def test_an_output_layer_that_overflows_is_named():
    network = build("ann_vgg8_cifar10")
    network.head.weight.data.fill_(float("inf"))
    assert first_overflow(network, torch.rand(2, 3, 32, 32)) == "the current of layer head overflowed first"
