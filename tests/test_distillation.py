"""Learning from a trained network."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from training_helpers import digits, recipe, same, weights

from eisnn_zoo.catalog import MODELS
from eisnn_zoo.config import Config
from eisnn_zoo.errors import UsageError
from eisnn_zoo.files import sha256
from eisnn_zoo.locating import locate
from eisnn_zoo.networks import build
from eisnn_zoo.training.data import load_data
from eisnn_zoo.training.distillation import Teacher
from eisnn_zoo.training.engine import Training
from eisnn_zoo.training.provenance import who_knows_held_out
from eisnn_zoo.training.run import Run
from eisnn_zoo.weights import load_network


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    torch.set_num_threads(1)
    return digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def master(data, tmp_path_factory):
    """A trained network, as a run keeps it."""
    folder = tmp_path_factory.mktemp("master")
    Training(recipe(optimizer="muon", lr=2e-2, epochs=6), data, folder, compile=False).fit()
    return folder / "last"


def test_the_distance_is_the_divergence_of_softened_answers(data, master):
    ours = recipe(teacher=str(master), temperature=3.0)
    images = load_data(ours, data)
    teacher = Teacher(ours, locate(str(master)), images, torch.device("cpu"), compile=False)
    x = images.train.x[:20].float() / 255
    with torch.no_grad():
        answers = load_network(locate(str(master)))(x).double()
    logits = torch.randn(20, 10, requires_grad=True)
    distance = teacher.distance(logits, x, full=True)
    distance.backward()

    p, q = (answers / 3).softmax(1), (logits.detach().double() / 3).softmax(1)
    torch.testing.assert_close(distance.double(), 9 * (p * (p / q).log()).sum(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits.grad.double(), 3 * (q - p), rtol=1e-4, atol=1e-4)
    assert abs(teacher.distance(answers.float(), x, full=False)) < 1e-3


def test_the_loss_is_shared_with_a_teacher_that_keeps_its_own_time_steps(data, master, tmp_path):
    values = {"teacher": str(master), "distillation": 0.25, "time_steps": 2, "epochs": 1, "batch_size": 200, "label_smoothing": 0.1}
    training = Training(recipe(**values), data, tmp_path, compile=False)
    network, teacher = copy.deepcopy(training.model), load_network(locate(str(master)))
    assert (network.time_steps, teacher.time_steps) == (2, 4)
    x, y = training.data.train.x.float() / 255, training.data.train.y
    with torch.no_grad():
        ours, theirs = network(x), teacher(x)
    softened = [(z / 2).log_softmax(1) for z in (ours, theirs)]
    distance = 4 * F.kl_div(*softened, reduction="batchmean", log_target=True)
    training.fit()
    assert training.run.history[0]["train_loss"] == pytest.approx((
        0.75 * F.cross_entropy(ours, y, label_smoothing=0.1) + 0.25 * distance).item(), abs=1e-3)


def test_a_teacher_sees_the_images_of_every_epoch(tmp_path, model_folder):
    """Those that grow too: what it cannot take in one of them is said before the first."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 20), ("test", 10)):
        np.savez(tmp_path / f"{split}.npz", x=rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), y=np.arange(n) % 10)
    values = {"model": "ei_resnet18_cifar10", "time_steps": 1, "resolution": {0: 32, 1: 8}}
    ours = recipe(**values, teacher=str(model_folder("ei_vgg8_cifar10")))  # which halves an image five times
    with pytest.raises(UsageError, match="not of 3 x 8 x 8"):
        Teacher(ours, locate(ours.teacher), load_data(ours, tmp_path), torch.device("cpu"), compile=False)


def test_where_the_teacher_is_all_of_the_loss_the_classes_do_not_count(data, master, tmp_path):
    """A network taught by answers alone learns what the teacher knows from images whose classes are wrong."""
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for split in ("train", "test"):
        arrays = dict(np.load(data / f"{split}.npz"))
        if split == "train":
            arrays["y"] = np.random.default_rng(7).permutation(arrays["y"])
        np.savez(wrong / f"{split}.npz", **arrays)
    values = {"optimizer": "muon", "lr": 2e-2, "epochs": 6, "seed": 3, "teacher": str(master)}
    top1 = {}
    for name, part in (("all", 1.0), ("none", None)):
        given = {**values, "distillation": part} if part else {k: v for k, v in values.items() if k != "teacher"}
        training = Training(recipe(**given), wrong, tmp_path / name, compile=False)
        training.fit()
        top1[name] = training.run.history[-1]["valid_top1"]
    Training(recipe(**values, distillation=1.0), data, tmp_path / "right", compile=False).fit()
    assert same(weights(tmp_path / "all"), weights(tmp_path / "right"))
    assert top1["all"] > 70 and top1["none"] < 30, top1


def test_a_run_says_who_taught_it_and_goes_on_with_the_same_teacher(data, master, tmp_path):
    ours = recipe(teacher=str(tmp_path / "teacher"), epochs=2)
    config = Config(MODELS["ei_mlp2_mnist"], load_network(locate(str(master))).config, tuple("0123456789"), "teacher", {}, 28)
    network = load_network(locate(str(master)))
    Run(tmp_path).save_weights("teacher", network, config)
    training = Training(ours, data, tmp_path / "run", compile=False)
    training.fit()
    digest = json.loads((tmp_path / "run" / "environment.json").read_text())["teacher_sha256"]
    assert digest == sha256(tmp_path / "teacher" / "model.safetensors")
    network.head.ei.weight.data *= 1.5
    Run(tmp_path).save_weights("teacher", network, config)
    with pytest.raises(UsageError, match="began with other weights of its teacher"):
        Training(ours, data, tmp_path / "run", compile=False)


@pytest.mark.parametrize("key", ["teacher", "weights"])
def test_weights_that_know_held_out_images_are_doubted(data, tmp_path, key):
    """Whether they were trained without them is told by their seed and how many they held out."""
    for name, values in (("all", {}), ("fewer", {"holdout": 20}), ("more", {"holdout": 60}), ("otherwise", {"holdout": 60, "seed": 5})):
        Training(recipe(epochs=1, **values), data, tmp_path / name, compile=False).fit()
        training = Training(recipe(**{key: str(tmp_path / name / "last")}, holdout=40), data, tmp_path / f"from {name}", compile=False)
        if name == "more":
            assert training.doubts == []
        else:
            (doubt,) = training.doubts
            assert doubt.startswith(f"{key} = {tmp_path / name / 'last'}: ") and "2025, 40)" in doubt
    assert Training(recipe(**{key: str(tmp_path / "all" / "last")}), data, tmp_path / "on test", compile=False).doubts == []
    located = locate(str(tmp_path / "more" / "last"))
    for facts in ({}, {"seed": 2025, "held_out": "some"}):  # the authors' weights say nothing, other people's anything
        unknown = replace(located, config=replace(located.config, facts=facts))
        assert list(who_knows_held_out(recipe(holdout=40), training.data, {key: unknown})) == [key]


@pytest.mark.parametrize("key", ["teacher", "weights"])
def test_what_weights_learned_from_is_doubted_with_them(data, tmp_path, key):
    Training(recipe(epochs=1), data, tmp_path / "all", compile=False).fit()
    Training(recipe(epochs=1, holdout=40, **{key: str(tmp_path / "all" / "last")}), data, tmp_path / "child", compile=False).fit()
    training = Training(recipe(holdout=40, weights=str(tmp_path / "child" / "last")), data, tmp_path / "grandchild", compile=False)
    assert len(training.doubts) == 1 and "the teacher that they came from did not" in training.doubts[0]


def test_published_weights_are_doubted_where_there_are_fewer_images(data, tmp_path):
    """They were trained on thousands of digits, of which others were held out."""
    held_out = locate("ei_mlp4_mnist.zoo").config.facts["held_out"]
    few = recipe(model="ei_mlp4_mnist", holdout=40, weights="ei_mlp4_mnist.zoo")
    assert held_out > 40 and len(Training(few, data, tmp_path / "run", compile=False).doubts) == 1


def test_weights_trained_on_other_images_are_doubted(data, tmp_path):
    """One picture more, and others are held out."""
    Training(recipe(epochs=1, holdout=40), data, tmp_path / "before", compile=False).fit()
    more = digits(tmp_path / "more", train=201)
    training = Training(recipe(holdout=40, weights=str(tmp_path / "before" / "last")), more, tmp_path / "run", compile=False)
    assert len(training.doubts) == 1 and "their data were others" in training.doubts[0]


def test_weights_without_a_pool_are_gone_on_with_and_teach_nobody(data, tmp_path):
    """As timm's users keep backbones: their answers are maps."""
    network = build("ei_mlp2_mnist", global_pool="")
    Run(tmp_path).save_weights("maps", network, Config(MODELS["ei_mlp2_mnist"], network.config, tuple("0123456789"), "maps", {}, 28))
    training = Training(recipe(weights=str(tmp_path / "maps"), epochs=1), data, tmp_path / "run", compile=False)
    training.fit()
    assert training.model.global_pool == "avg" and locate(str(tmp_path / "run")).config.check_classes() is None
    with pytest.raises(UsageError, match="gives features, no classes"):
        Training(recipe(teacher=str(tmp_path / "maps")), data, tmp_path / "taught", compile=False)


@pytest.mark.parametrize("model, options, said", [
    ("ei_mlp2_mnist", {"num_classes": 4}, "its classes are others"),
    ("ei_mlp2_mnist", {"input_size": (20, 20)}, "it takes images of 1 x 20 x 20, and not of 1 x 28 x 28"),
    ("ei_vgg8", {"in_chans": 1}, "it takes images of 1 x 32 x 32, and not of 1 x 28 x 28"),
    ("ei_resnet18", {}, "it takes images of 3 x 32 x 32, and not of 1 x 28 x 28"),
])
def test_a_teacher_of_other_classes_or_images_is_refused(data, tmp_path, model, options, said):
    network = build(model, **{"num_classes": 10, **options})
    classes = tuple(map(str, range(network.config["num_classes"])))
    Run(tmp_path).save_weights("teacher", network, Config(MODELS[model], network.config, classes, "teacher", {}, 20 if "input_size" in options else 32))
    with pytest.raises(UsageError, match=said):
        Training(recipe(teacher=str(tmp_path / "teacher")), data, tmp_path / "run", compile=False)
    assert not (tmp_path / "run").exists()
