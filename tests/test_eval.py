"""eval: the same figures from every backend, and without torch where an ONNX file is measured."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eisnn_zoo.errors import ZooError
from eisnn_zoo.locating import locate
from eisnn_zoo.training.augment import pixels
from eisnn_zoo.training.evaluation import Scores, tally
from eisnn_zoo.training.reading import Labelled

IMAGES = sorted((Path(__file__).parent / "data" / "cifar10").glob("*.png"))
LABELS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar")
    x = np.stack([np.asarray(Image.open(p)) for p in IMAGES])
    np.savez(folder / "test.npz", x=x, y=[LABELS.index(p.stem.rpartition("_")[0]) for p in IMAGES])
    return folder


def test_an_onnx_file_is_measured_without_torch(cli, cifar, without_torch, tmp_path):
    with np.load(cifar / "test.npz") as data:  # as the official files have it
        batch = {b"data": data["x"].transpose(0, 3, 1, 2).reshape(len(data["x"]), -1), b"labels": data["y"].tolist()}
    official = tmp_path / "cifar-10-batches-py"
    official.mkdir()
    (official / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    done = without_torch("eval", "ei_vgg8_cifar10", "--backend", "onnx", "--data", tmp_path, "--format", "json")
    assert done.returncode == 0, done.stderr
    onnx = json.loads(done.stdout)
    code, out, err = cli("eval", "ei_vgg8_cifar10", "--data", cifar, "--format", "json", "--batch-size", 7)
    torch_ = json.loads(out)
    assert code == 0 and "torch on cpu" in err and "onnxruntime on cpu" in done.stderr
    assert onnx["images"] == torch_["images"] == 20 and onnx["top1"] >= 70 and abs(onnx["top1"] - torch_["top1"]) <= 5
    assert onnx["loss"] == pytest.approx(torch_["loss"], rel=0.02)
    for found in (onnx, torch_):  # the file's source is known by its checksum
        row = locate("ei_vgg8_cifar10").row
        assert found["expected_top1"] == row.top1 and found["model"] == row.name
        assert found["expected_images"] == 10_000 and found["difference"] is None, "20 images say nothing about a figure on 10,000"


def test_an_output_that_cannot_be_written_is_said_before_the_work(cli, cifar):
    code, out, err = cli("eval", "ei_vgg8_cifar10", "--data", cifar, "--output", cifar / "test.npz" / "report")
    assert (code, out) == (2, "") and "test.npz is a file: name a folder" in err


def test_a_file_that_is_no_array_is_named_without_advice_to_unpickle_it(cli, tmp_path):
    shutil.copy(IMAGES[0], tmp_path / "images.npz")
    code, _, err = cli("eval", "ei_vgg8_cifar10", "--data", tmp_path / "images.npz", "--dataset", "folder")
    assert code == 1 and f"{tmp_path / 'images.npz'} is no sound .npz file" in err and "allow_pickle" not in err
    code, _, err = cli("eval", "ei_vgg8_cifar10", "--data", IMAGES[0], "--dataset", "folder")
    assert code == 2 and f"{IMAGES[0]} is a single picture" in err


def test_own_pictures_through_an_onnx_file(without_torch, tmp_path):
    from eisnn_zoo.table import default_weights

    for path in IMAGES:
        label = path.stem.rpartition("_")[0]
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / path.name).write_bytes(path.read_bytes())
    file = default_weights().local.parent / "model.onnx"
    done = without_torch("eval", file, "--data", tmp_path, "--dataset", "folder", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images"] == 20 and found["top1"] >= 70
    (tmp_path / "bird" / "0.png").write_bytes(b"no picture")
    done = without_torch("eval", file, "--data", tmp_path, "--dataset", "folder")
    assert done.returncode == 1 and done.stdout == "" and "0.png: not an image" in done.stderr and "Traceback" not in done.stderr


def test_a_network_may_be_as_sure_as_numbers_are():
    sure = tally(np.array([[50.0, 0.0], [0.0, 50.0]], np.float32), np.array([0, 0]))
    scores = Scores.of(sure, 1.0)
    assert (scores.top1, scores.loss) == (50, 25)
    with pytest.raises(ZooError, match="no numbers"):
        Scores.of(tally(np.full((3, 2), np.nan, np.float32), np.array([0, 0, 1])), 1.0)


@pytest.mark.parametrize("arguments, code, words", [
    (["gone.onnx"], 2, ["there is no file gone.onnx"]),
    (["ei_vgg8_cifar10", "--backend", "onnx", "--time-steps", "2"], 2, ["4 time steps inside", "--time-steps 2"]),
    (["ei_vgg8_cifar10", "--backend", "onnx", "--time-steps", "1,2"], 2, ["several numbers", "--backend torch"]),
    (["ei_vgg8_cifar10", "--backend", "onnx", "--early-exit", "0.9"], 2, ["--early-exit needs", "--backend torch"]),
    (["ei_mlp4_mnist", "--backend", "onnx"], 2, ["has no ONNX file", "eisnn-zoo export"]),
    (["ei_vgg8_cifar10", "--output", __file__], 2, ["is a file: name a folder"]),
    (["ei_vgg8_cifar10", "--dataset", "mnist"], 2, ["cannot be measured on MNIST", "input channels: 3, there 1"]),
    (["ei_vgg8_cifar10", "--dataset", "cifar100"], 2, ["cannot be measured on CIFAR-100", "classes: 10, there 100"]),
    (["ei_vgg8_cifar10", "--backend", "jax"], 2, ["--backend jax"]),
    (["ei_vgg8_cifar10", "--device", "cuda"], 2, ["--device cuda", "--device cpu"]),
    (["ei_vgg8_cifar10", "--device", "cuda", "--backend", "onnx"], 2, ["onnxruntime-gpu", "--device cpu"]),
    (["ei_vgg8_cifar10", "--device", "tensorrt"], 2, ["onnxruntime-gpu", "TensorRT"]),
])
def test_mistakes_are_one_sentence(cli, cifar, arguments, code, words):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    got, out, err = cli("eval", *arguments, "--data", cifar)
    assert (got, out) == (code, "") and all(word in err for word in words) and err.count("\n") == 1, err


@pytest.mark.parametrize("x, size", [
    (np.random.default_rng(0).integers(0, 256, (3, 3, 20, 20)).astype(np.uint8), 20), (np.arange(2 * 64 * 48, dtype=np.uint8).reshape(1, 2, 64, 48), 32),
    (np.random.default_rng(0).poisson(0.3, (2, 3, 2, 16, 16)).astype(np.int16), 12),
])
def test_arrays_become_what_training_shows_the_network(x, size):
    ours = Labelled(x, np.zeros(len(x), int), ("a",)).pixels(0, 9, size)
    theirs = pixels(torch.from_numpy(x), size).numpy()
    assert ours.dtype == np.float32
    if x.shape[-1] == size:
        assert np.array_equal(ours, theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
