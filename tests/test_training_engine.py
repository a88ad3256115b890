"""What one training step computes, alone and among several processes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from training_helpers import digits, free_port, recipe, run_two, weights

from eisnn_zoo.catalog import MODELS
from eisnn_zoo.config import Config
from eisnn_zoo.ei import EISynapses
from eisnn_zoo.errors import UsageError, ZooError
from eisnn_zoo.files import sha256
from eisnn_zoo.inference.torch_runtime import TorchModel
from eisnn_zoo.locating import locate
from eisnn_zoo.networks import build
from eisnn_zoo.training import engine, feeding
from eisnn_zoo.training.augment import AUGMENTATIONS, pixels
from eisnn_zoo.training.data import Images, load_data
from eisnn_zoo.training.engine import Training
from eisnn_zoo.training.evaluation import Scores, tally
from eisnn_zoo.training.run import Run
from eisnn_zoo.training.run import environment as run_environment
from eisnn_zoo.training.setup import check_parts, make_model
from eisnn_zoo.training.stopping import Stopped
from eisnn_zoo.training.validation import validate
from eisnn_zoo.training.world import World
from eisnn_zoo.weights import create_model


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    torch.set_num_threads(1)
    return digits(tmp_path_factory.mktemp("digits"))


def losses(run):
    with (run / "metrics.csv").open() as f:
        return [float(row["train_loss"]) for row in csv.DictReader(f)]


def one_step(data, folder, **values):
    training = Training(recipe(**values), data, folder, compile=False)
    training.model.train()
    loss, right, _ = training._iteration(training.feeding.batch(training.data.train[torch.arange(50)], 0, 0))
    return training, loss, right


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_an_iteration_is_the_recipe_written_out(data, tmp_path, smoothing):
    training, loss, right = one_step(data, tmp_path, label_smoothing=smoothing)
    model = make_model(training.recipe, training.data, _first(training))
    x, y = training.data.train.x[:50].float() / 255, training.data.train.y[:50]
    logits = model(x)
    expected = F.cross_entropy(logits, y, label_smoothing=smoothing)
    expected.backward()
    rate = 2e-3
    for (name, p), q in zip(model.named_parameters(), training.model.parameters()):
        assert not torch.equal(p, q), name
        stepped = p.detach() - rate * (p.grad + 5e-4 * p.detach())
        stepped = stepped if name.endswith("b_e") else stepped.clamp(min=0)
        assert torch.allclose(stepped, q, rtol=1e-5, atol=1e-8), name
    assert loss == pytest.approx(expected.item(), rel=1e-6) and right == int((logits.argmax(1) == y).sum())


def _first(training):
    from eisnn_zoo.training.augment import pixels
    from eisnn_zoo.training.engine import INIT_BATCH
    from eisnn_zoo.training.schedule import batches

    rows = next(batches(len(training.data.train), INIT_BATCH, training.recipe.seed, 0))
    return pixels(training.data.train.x[rows])


def test_numbers_too_small_for_a_processor_are_zero_in_all_its_threads(data, tmp_path):
    code = f"""
import torch
from training_helpers import recipe
from eisnn_zoo.training.engine import Training
torch.set_num_threads(2)
Training(recipe(), {str(data)!r}, {str(tmp_path / "run")!r}, compile=False)
halves = (torch.full((10**6,), 1e-30) * 1e-10).chunk(2)
print([half.count_nonzero().item() for half in halves])
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent, check=True)
    assert shown.stdout.strip() == "[0, 0]"


def test_a_batch_in_parts_is_the_same_step(data, tmp_path):
    whole, parts = (one_step(data, tmp_path / str(n), accumulate=n) for n in (1, 3))
    assert parts[1] == pytest.approx(whole[1], rel=1e-6) and parts[2] == whole[2]
    for p, q in zip(whole[0].model.parameters(), parts[0].model.parameters()):
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-7)


def test_parts_too_small_for_batch_normalisation():
    for values, images, processes, part in (({"batch_size": 50}, 51, 1, 1), ({"batch_size": 50}, 53, 2, 1), ({"batch_size": 50}, 51, 2, 0),
                                            ({"batch_size": 50, "accumulate": 8}, 100, 1, 1), ({"batch_size": {0: 50, 1: 99}}, 100, 1, 1)):
        with pytest.raises(UsageError, match=rf"batch_size = \d+: of {images} images it leaves a part of {part} at the end of an epoch"):
            check_parts(recipe(model="bn_mlp2_mnist", **values), images, processes)
    with pytest.raises(UsageError, match="a part of 1 at"):  # of two processes the first has 7 images, in parts of 3
        check_parts(recipe(model="bn_mlp2_mnist", batch_size=13, accumulate=3), 26, 2)
    small = {"model": "bn_resnet18_cifar10", "resolution": 8, "batch_size": 8}  # its last maps have one place
    with pytest.raises(UsageError, match="a part of 1 at"):
        check_parts(recipe(**small, time_steps=1), 9, 1)
    check_parts(recipe(**small, time_steps=2), 9, 1)
    check_parts(recipe(model="bn_mlp2_mnist", batch_size=50), 52, 1)
    check_parts(recipe(model="ei_mlp2_mnist", batch_size=50), 51, 2)
    check_parts(recipe(model="bn_mlp2_mnist", batch_size=50, weights="some", freeze=True), 51, 2)  # whose statistics stay
    check_parts(recipe(model="bn_vgg8_cifar10", batch_size=50), 51, 1)


def test_images_are_augmented_at_the_size_of_their_epoch():
    """TinyImageNet's training images have 64 pixels a side, and the network's own size is 32."""
    images = Images(torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8), torch.arange(6))
    ours = recipe(model="ei_resnet18_tinyimagenet200", augment="tinyimagenet", epochs=3, resolution={0: 16, 1: 24, 2: 32})
    feed = feeding.Feeding(ours, types.SimpleNamespace(size=32), World(0, 1, torch.device("cpu")))
    for epoch, side in enumerate((16, 24, 32)):
        expected = AUGMENTATIONS["tinyimagenet"](images.x, torch.Generator().manual_seed(ours.seed * 1_000_003 + 5), side)
        assert torch.equal(feed.batch(images, epoch, 5).x, pixels(expected, side)) and expected.shape[-1] == side


def test_the_batch_grows_during_training(data, tmp_path, monkeypatch):
    sizes = []
    counted = Training._iteration
    monkeypatch.setattr(Training, "_iteration", lambda self, batch, ahead: sizes.append((self.epoch, batch.images, self.schedule.lr(self.step))) or counted(self, batch, ahead))
    values = {"epochs": 3, "batch_size": {0: 50, 1: 150}, "accumulate": {1: 3, 0: 1}, "lr": {0: 1e-3, 1: 2e-3}}
    training = Training(recipe(**values, warmup_epochs=0.5), data, tmp_path, compile=False)
    training.fit()
    assert [(epoch, n) for epoch, n, _ in sizes] == [(0, 50)] * 4 + [(1, 150), (1, 50), (2, 150), (2, 50)]
    rates = [rate for *_, rate in sizes]
    assert rates[0] == rates[4] == 1e-7 and rates[2] == 1e-3 and rates[5] == 2e-3  # warm-ups of half an epoch of its own
    assert training.schedule.starts == [0, 4, 6, 8] and training.step == 8


def test_clipping_and_averaging(data, tmp_path):
    free, clipped = (one_step(data, tmp_path / str(c), clip_grad=c, weight_decay=0.0, ema=0.75) for c in (0.0, 1e-3))
    start_ = make_model(free[0].recipe, free[0].data, _first(free[0]))
    moved = [torch.cat([(p - q).flatten() for p, q in zip(t[0].model.parameters(), start_.parameters())]).norm() for t in (free, clipped)]
    assert moved[1] <= 1.01 * 2e-3 * 1e-3 < moved[0]
    training = free[0]
    first = [p.clone() for p in training.model.parameters()]  # the average starts at the weights after the first step
    training._iteration(training.feeding.batch(training.data.train[torch.arange(50, 100)], 0, 1))
    for mean, p, q in zip(training.judged.parameters(), first, training.model.parameters()):
        assert torch.allclose(mean, 0.75 * p + 0.25 * q, atol=1e-7)


def test_mixtures_change_images_and_targets(data, tmp_path):
    _, plain, _ = one_step(data, tmp_path / "a")
    for i, values in enumerate(({"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0})):
        training, loss, _ = one_step(data, tmp_path / str(i), **values)
        _, _, target, y = training.feeding.batch(training.data.train[torch.arange(50)], 0, 0)
        assert target.shape == (50, 10) and torch.allclose(target.sum(1), torch.ones(50))
        assert (target.gather(1, y[:, None]) < 1).any(), "no image was mixed with another"
        assert np.isfinite(loss) and loss != plain


def test_images_are_mixed_as_far_as_the_recipe_says(data):
    """Beta(0.01, 0.01) takes nearly all of one image, Beta(100, 100) nearly half of each."""
    images = load_data(recipe(), data)
    for alpha, low, high in ((0.01, 0.0, 0.05), (100.0, 0.4, 0.5)):
        feed = feeding.Feeding(recipe(mixup=alpha), images, World(0, 1, torch.device("cpu")))
        least = [feed.batch(images.train[torch.arange(50)], 0, step).target.topk(2, 1).values[:, 1].max().item() for step in range(20)]
        assert low <= float(np.median(least)) <= high


@pytest.mark.parametrize("values", [{"init": "default"}, {"stabilisation": "no_ste"}, {"stabilisation": "none"},
                                    {"scale_w_ei_gradient": False}])
def test_every_ablation_reaches_the_layers(data, tmp_path, values):
    full = Training(recipe(), data, tmp_path / "full", compile=False)
    ablated = Training(recipe(**values), data, tmp_path / "ablated", compile=False)
    layer = ablated.model.stages[0].layers[0].current
    assert layer.stabilisation == values.get("stabilisation", "adaptive")
    assert layer.scale_w_ei_gradient is values.get("scale_w_ei_gradient", True)
    same_start = torch.equal(ablated.model.head.ee.weight, make_model(full.recipe, full.data, _first(full)).head.ee.weight)
    assert same_start is (values.get("init") is None)


def test_without_the_scaling_of_its_gradient_w_ei_moves_d_times_as_far(data, tmp_path):
    scaled, free = (one_step(data, tmp_path / str(on), scale_w_ei_gradient=on, weight_decay=0.0, lr=1e-4)[0].model for on in (True, False))
    for a, b in zip(*([m for m in net.modules() if isinstance(m, EISynapses)] for net in (scaled, free))):
        start = 1 / a.n_i  # of W_EI, by E-I Init
        torch.testing.assert_close(b.ei.weight - start, a.fan_in * (a.ei.weight - start), rtol=0.02, atol=2e-6 * a.fan_in)
        torch.testing.assert_close(a.ee.weight, b.ee.weight)


def test_bf16_trains_and_stays_under_dales_law(data, tmp_path):
    training = Training(recipe(precision="bf16", optimizer="muon", lr=0.01, momentum=0.9), data, tmp_path, compile=False)
    training.fit()
    assert losses(tmp_path)[1] < losses(tmp_path)[0]
    assert all(v.min() >= 0 for k, v in weights(tmp_path).items() if not k.endswith(("b_e", "initialised")))


def test_what_a_run_leaves_behind(data, tmp_path, monkeypatch):
    Training(recipe(), data, tmp_path / "run", compile=False).fit()
    names = {p.relative_to(tmp_path / "run").as_posix() for p in (tmp_path / "run").glob("**/*") if p.is_file()}
    weight_files = {f"{which}/{file}" for which in ("best", "last") for file in ("config.json", "model.safetensors")}
    assert names == weight_files | {"recipe.yaml", "environment.json", "metrics.csv", "curves.png", "log.txt", "checkpoint.safetensors"}
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["torch"] == torch.__version__ and environment["validation"] == "test set" and environment["tf32"] is False
    monkeypatch.setattr("eisnn_zoo.training.run.installed", lambda: True)  # in a repository that is another's
    assert run_environment(torch.device("cpu"))["commit"] == ""
    assert "epoch   2" in (tmp_path / "run" / "log.txt").read_text()
    model = create_model(str(tmp_path / "run" / "last"))
    assert model.config["time_steps"] == 4 and bool(model.initialised)


def test_grown_time_steps_end_in_the_published_network(data, tmp_path):
    Training(recipe(time_steps={0: 1, 1: 3}), data, tmp_path, compile=False).fit()
    with (tmp_path / "metrics.csv").open() as f:
        assert [row["time_steps"] for row in csv.DictReader(f)] == ["1", "3"]
    assert create_model(str(tmp_path)).time_steps == 3


def test_the_rate_and_the_augmentation_change_with_the_cycle(data, tmp_path, monkeypatch):
    seen = []
    for name in ("none", "crop_flip"):
        monkeypatch.setitem(feeding.AUGMENTATIONS, name, lambda x, rng, size, name=name: seen.append(name) or x)
    training = Training(recipe(epochs=5, warmup_epochs=1, lr={0: 4e-3, 2: 1e-3}, augment={0: "none", 2: "crop_flip"}), data, tmp_path / "a",
                        compile=False)
    n = training.schedule.starts[1]
    assert training.schedule.lr(n) == 4e-3 and training.schedule.lr(2 * n) == 1e-7 and training.schedule.lr(3 * n) == 1e-3  # peaks, and a warm-up each
    assert training.schedule.lr(2 * n - 1) < 4e-3 and training.schedule.lr(5 * n) == pytest.approx(0, abs=1e-9)
    training.fit()
    assert seen == ["none"] * 2 * n + ["crop_flip"] * 3 * n


def test_images_grow_during_training(tmp_path):
    draw = np.random.default_rng(0)
    for split, n in (("train", 40), ("test", 20)):
        np.savez(tmp_path / f"{split}.npz", x=draw.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), y=np.arange(n) % 10)
    training = Training(recipe(model="ei_resnet18_cifar10", epochs=3, batch_size=20, time_steps=1, resolution={0: 8, 1: 12}),
                        tmp_path, tmp_path, compile=False)
    seen = []
    training.model.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].shape[-1]))
    training.fit()
    with (tmp_path / "metrics.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert [row["resolution"] for row in rows] == ["8", "12", "12"] and seen == sorted(seen) and set(seen) == {8, 12}
    for which, among in (("best", rows[1:]), ("last", rows[-1:])):  # an epoch on smaller images is not compared
        config = json.loads((tmp_path / which / "config.json").read_text())
        assert config["pretrained_cfg"]["input_size"] == [3, 12, 12], "published with the size it was last trained on"
        assert config["eisnn_zoo"]["top1"] == max(float(row["valid_top1"]) for row in among)


@pytest.mark.parametrize("losses, best", [((1.0, 1.0), 1), ((1.0, 0.5), 2), ((0.5, 1.0), 1)])
def test_the_best_is_the_first_of_equally_good_epochs_or_the_surer_one(data, tmp_path, losses, best):
    training = Training(recipe(), data, tmp_path, compile=False)
    scores, left = training.evaluate(), list(losses)
    training.evaluate = lambda each: replace(scores, loss=left.pop(0))
    training.fit()
    epochs = [json.loads((tmp_path / which / "config.json").read_text())["eisnn_zoo"]["epoch"] for which in ("best", "last")]
    assert epochs == [best, 2]


def test_the_command_that_goes_on_can_be_pasted():
    assert Run(Path("runs/my photos")).resume == "eisnn-zoo train --resume 'runs/my photos'"


def test_a_run_ends_at_the_accuracy_it_was_to_reach(data, tmp_path):
    for _ in range(2):  # going on with it trains no further
        Training(recipe(epochs=50, stop_at=30), data, tmp_path, compile=False).fit()
        with (tmp_path / "metrics.csv").open() as f:
            top1 = [float(row["valid_top1"]) for row in csv.DictReader(f)]
        assert len(top1) < 50 and top1[-1] >= 30 > max([0, *top1[:-1]])


def test_a_run_told_later_to_end_finishes_the_epoch_it_is_in(data, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "APART", 1e9)  # as where epochs are short: nothing but the end saves the last weights
    training = Training(recipe(epochs=9), data, tmp_path, compile=False)
    descend = training.iteration.descend

    def ask_in_the_third_epoch() -> None:
        descend()
        training.asked = training.step == 9

    monkeypatch.setattr(training.iteration, "descend", ask_in_the_third_epoch)
    with pytest.raises(Stopped):
        training.fit()
    Training(recipe(epochs=9, stop_at=0.5), data, tmp_path, compile=False).fit()
    config = json.loads((tmp_path / "last" / "config.json").read_text())
    assert len(losses(tmp_path)) == config["eisnn_zoo"]["epoch"] == 3


def test_the_surrogates_slope_changes_over_training(data, tmp_path):
    one, other = (Training(recipe(alpha=alpha), data, tmp_path / name, compile=False)
                  for name, alpha in (("own", 0), ("steeper", {0: 4.0, 1: 8.0})))
    one.fit()
    other.fit()
    assert {m.alpha for m in other.model.modules() if hasattr(m, "alpha")} == {8.0}
    assert losses(tmp_path / "own")[0] == losses(tmp_path / "steeper")[0]  # 4 is the network's own
    assert losses(tmp_path / "own")[1] != losses(tmp_path / "steeper")[1]


def test_how_much_inhibition_cells_keep_changes_over_training(data, tmp_path):
    kept = {}
    for name, least in (("never", 0.0), ("later", {0: 0.0, 1: 0.5})):
        training = Training(recipe(optimizer="muon", lr=0.8, adaptive=1.0, least_inhibition=least), data, tmp_path / name, compile=False)
        training.fit()
        kept[name] = min((m.ei.weight * m.n_i).min().item() for m in training.model.modules() if isinstance(m, EISynapses))
    assert losses(tmp_path / "never")[0] == losses(tmp_path / "later")[0]
    assert kept["never"] < 0.4 and kept["later"] == pytest.approx(0.5)


@pytest.mark.parametrize("values", [{"model": "ei_mlp2", "dataset": "cifar100"}, {"model": "bn_vgg8", "dataset": "cifar100"},
                                    {"model": "ei_resnet18", "dataset": "mnist"}, {"model": "ei_mlp2_mnist", "resolution": 14}])
def test_an_architecture_fits_the_dataset_it_is_trained_on(tmp_path, values):
    draw = np.random.default_rng(0)
    shape = (28, 28, 1) if values.get("dataset", "mnist") == "mnist" else (32, 32, 3)
    classes = 100 if "cifar100" in values.values() else 10
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", x=draw.integers(0, 256, (4, *shape), dtype=np.uint8), y=[0, 1, 2, classes - 1])
    Training(recipe(epochs=1, batch_size=4, time_steps=1, **values), tmp_path, tmp_path / "run", compile=False).fit()
    located = locate(str(tmp_path / "run" / "best"))
    size, network = located.config.input_size, TorchModel(located)
    assert size[0] == shape[-1] and network(np.zeros((1, *size), np.float32)).shape == (1, classes)


def test_weights_with_the_same_classes_keep_their_output_layer(data, tmp_path):
    """A trained network goes on from where it was, and its run says which weights those were."""
    values = {"epochs": 6, "optimizer": "muon", "lr": 1e-2, "momentum": 0.95}
    Training(recipe(**values), data, tmp_path / "first", compile=False).fit()
    again = Training(recipe(**values, weights=str(tmp_path / "first" / "last"), homeostasis=0.1), data, tmp_path / "second", compile=False)
    for name, p in weights(tmp_path / "first").items():
        assert np.array_equal(p, again.model.state_dict()[name]), name
    assert again.iteration.homeostasis.trained, "its cells stay where they are"
    again.fit()
    assert losses(tmp_path / "second")[0] < losses(tmp_path / "first")[2]
    assert again.run.environment["weights_sha256"] == sha256(tmp_path / "first" / "last" / "model.safetensors")
    pictures = np.load(data / "train.npz")
    np.savez(tmp_path / "nine.npz", x=pictures["x"][pictures["y"] < 9], y=pictures["y"][pictures["y"] < 9])
    other = recipe(**values, dataset="folder", weights=str(tmp_path / "first" / "last"))
    model = Training(other, tmp_path / "nine.npz", tmp_path / "third", compile=False).model
    assert model.num_classes == 9 and model.stages.state_dict().keys() == again.model.stages.state_dict().keys()


def test_of_a_frozen_network_nothing_but_the_output_layer_moves(data, tmp_path):
    """Not BatchNorm's running means either."""
    network = build("bn_mlp2_mnist")
    Run(tmp_path).save_weights("best", network, Config(MODELS["bn_mlp2_mnist"], network.config, tuple("0123456789"), size=28))
    values = {"model": "bn_mlp2_mnist", "weights": str(tmp_path / "best"), "freeze": True}
    Training(recipe(**values), data, tmp_path / "run", compile=False).fit()
    before, after = weights(tmp_path, "best"), weights(tmp_path / "run")
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {"head.weight", "head.bias"}


@pytest.mark.parametrize("other, said", [("ei_resnet18", "they are of E-I ResNet-18, and the recipe's model is E-I MLP-2"),
                                         ("ei_mlp2", "they take 3 channels, and the images have 1")])
def test_weights_of_another_network_are_refused(data, tmp_path, other, said):
    config = Config(MODELS[other], {"in_chans": 3, "num_classes": 2, "time_steps": 1}, ("a", "b"))
    Run(tmp_path).save_weights("best", build(other, **config.options), config)
    with pytest.raises(UsageError, match=said):
        Training(recipe(weights=str(tmp_path / "best")), data, tmp_path / "run", compile=False)


def test_scores_against_counting_by_hand():
    images = Images(torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1) * 51, torch.tensor([0, 1, 1, 2, 2, 2]), ("a", "b", "c"))

    class Fixed(torch.nn.Module):
        def forward(self, x):
            answers = {0.0: 0, 0.2: 1, 0.4: 0, 0.6: 2, 0.8: 2, 1.0: 1}
            return F.one_hot(torch.tensor([answers[round(v, 1)] for v in x.flatten().tolist()]), 3).float()

    scores = validate(Fixed(), images, 1, 4, World(0, 1, torch.device("cpu")))
    assert scores.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 2]]
    assert scores.top1 == pytest.approx(100 * 4 / 6) and scores.top5 == 100 and scores.images == 6
    assert scores.per_class == [100, 50, pytest.approx(200 / 3)]
    right, wrong = np.log(np.e + 2) - 1, np.log(np.e + 2)
    assert scores.loss == pytest.approx((4 * right + 2 * wrong) / 6)
    assert scores.confidence == pytest.approx(100 * np.e / (np.e + 2))
    assert scores.calibration_error == pytest.approx(abs(scores.confidence - scores.top1))


def test_top_5_is_among_the_five_best():
    logits = -np.arange(8.0)[None].repeat(8, 0)
    scores = Scores.of(tally(logits, np.arange(8)), 1.0)
    assert (scores.top1, scores.top5) == (100 / 8, 500 / 8)


def test_confidence_is_held_against_accuracy_bin_by_bin():
    """Too sure of some and not sure enough of others is not made good by a right mean."""
    logits = np.log([[0.9, 0.1]] * 5 + [[0.6, 0.4]] * 5 + [[np.nan, 1.0]])
    scores = Scores.of(tally(logits[:10], np.array([0, 0, 0, 1, 1, 0, 0, 0, 0, 0])), 1.0)
    assert scores.top1 == pytest.approx(80) and scores.confidence == pytest.approx(75)
    assert scores.calibration_error == pytest.approx(100 * (abs(4.5 - 3) + abs(3 - 5)) / 10)
    assert [tuple(b) for b in scores.bins if b[0]] == [(5, pytest.approx(3), 5), (5, pytest.approx(4.5), 3)]
    with pytest.raises(ZooError, match="no numbers"):  # of a network that diverged
        Scores.of(tally(logits, np.zeros(11, int)), 1.0)


MUON = {"optimizer": "muon", "lr": 0.01, "momentum": 0.95}


@pytest.mark.parametrize("values, compile, apart", [
    ({"accumulate": 2}, False, 2e-4),
    ({"homeostasis": 0.1}, False, 2e-4),
    (MUON, False, 2e-3),  # its directions are computed in bf16,
    ({**MUON, "precision": "bf16"}, False, 5e-3),  # where a sum in another order is another spike
    pytest.param({**MUON, "precision": "bf16"}, True, 5e-3, marks=pytest.mark.slow),
])
def test_two_processes_are_one_with_twice_the_batch(data, tmp_path, values, compile, apart):
    values = {"batch_size": 40, **values}
    run_two(values, data, tmp_path / "two", compile=compile)
    Training(recipe(**values), data, tmp_path / "one", compile=compile).fit()
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=apart)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert "optimizer" in values or all(np.allclose(one[k], two[k], rtol=1e-3, atol=1e-5) for k in one)
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["processes"] == 2


def test_several_processes_judge_the_network_that_is_saved(data, tmp_path):
    """BatchNorm's statistics are each process's own until the next forward pass in training."""
    values = {"model": "bn_mlp2_mnist", "optimizer": "sgd", "lr": 0.1, "batch_size": 40}
    run_two(values, data, tmp_path / "two")
    alone = Training(recipe(**values), data, tmp_path / "one", compile=False)
    scores = validate(create_model(str(tmp_path / "two" / "last")), alone.data.valid, 28, 250, alone.world)
    with (tmp_path / "two" / "metrics.csv").open() as f:
        assert float(list(csv.DictReader(f))[-1]["valid_loss"]) == pytest.approx(scores.loss, abs=1e-4)


def test_accelerate_starts_processes_as_torchrun_does(data, tmp_path):
    pytest.importorskip("accelerate")
    values = [f"--set={key}={value}" for key, value in {"epochs": 1, "warmup_epochs": 0, "batch_size": 50}.items()]
    train = ["eisnn_zoo", "train", "ei_mlp2_mnist", "--data", data, "--device", "cpu", "--no-compile", *values, "--output"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", free_port()]
    for command, run in (([*launch, "-m"], "two"), ([sys.executable, "-m"], "one")):
        subprocess.run([*map(str, [*command, *train, tmp_path / run])], check=True, timeout=120,
                       env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=2e-4)
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["processes"] == 2


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_trackers_get_every_epoch(data, tmp_path, monkeypatch, name):
    logged = []
    run = types.SimpleNamespace(log=lambda row, step: logged.append((step, row["valid_top1"])))
    begun = []
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(init=lambda **options: begun.append(options) or run))
    training = Training(recipe(), data, tmp_path / "run", compile=False, report_to=[name])
    training.fit()
    assert begun[0]["project"] == "eisnn-zoo" and begun[0]["name"].startswith("run") and begun[0]["config"]["lr"] == 2e-3
    assert [step for step, _ in logged] == [4, 8]

    Training(recipe(), data, tmp_path / "run", compile=False, report_to=[name])  # gone on with: the same run
    Training(recipe(), data, tmp_path / "another" / "run", compile=False, report_to=[name])
    key = "id" if name == "wandb" else "name"
    assert all(options["resume"] == "allow" for options in begun)
    assert begun[1] == begun[0] and begun[2][key] != begun[0][key]


def test_a_tracker_that_is_not_there(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match="pip install wandb"):
        Training(recipe(), data, tmp_path / "a", compile=False, report_to=["wandb"])
    with pytest.raises(UsageError, match="choose among tensorboard"):
        Training(recipe(), data, tmp_path / "a", compile=False, report_to=["csv"])
    assert not (tmp_path / "a").exists(), "said before anything was made"


def test_a_tracker_that_cannot_start(data, tmp_path, monkeypatch):
    def init(**_):
        raise RuntimeError("nobody is logged in")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    with pytest.raises(UsageError, match=r"wandb cannot start: nobody is logged in \(WANDB_MODE=offline"):
        Training(recipe(), data, tmp_path, compile=False, report_to=["wandb"])


def test_tensorboard(data, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Training(recipe(), data, tmp_path, compile=False, report_to=["tensorboard"]).fit()
    seen = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train_loss")
    assert [e.step for e in seen] == [4, 8] and [e.value for e in seen] == pytest.approx(losses(tmp_path))
