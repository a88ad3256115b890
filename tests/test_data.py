"""Reading data: official files, .npz, folders of pictures, recordings of events; and saying what is wrong with them."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import sys
import unicodedata
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training_helpers import load, load_folder

from eisnn_zoo.catalog import DATASETS
from eisnn_zoo.config import base_config, find_model
from eisnn_zoo.errors import UsageError, ZooError
from eisnn_zoo.inference.events import read_recording
from eisnn_zoo.inference.inputs import expand
from eisnn_zoo.training import events
from eisnn_zoo.training.data import DataError, hold_out, load_data
from eisnn_zoo.training.reading import read
from eisnn_zoo.training.recipe_file import check_recipe

DATA = Path(__file__).parent / "data"
RNG = np.random.default_rng(0)


def test_a_class_whose_pictures_lie_deeper_is_not_left_out(tmp_path):
    for place in ("a/x/1.png", "a/y/2.png", "b/3.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / place)
    with pytest.raises(ZooError, match=r"a holds pictures only in folders of its own.*move them up"):
        load_folder(tmp_path, 3, 8)
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "0.png")
    (tmp_path / "notes" / "old").mkdir(parents=True)
    assert load_folder(tmp_path, 3, 8)[0].y.tolist() == [0, 0, 0, 1]


# ---- official files ----------------------------------------------------------------------------------------------------


def cifar_batch(path, n, key, **changed):
    rows = RNG.integers(0, 256, (n, 3072)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({b"data": changed.get("data", rows), key: changed.get("labels", list(range(n)))}, protocol=2))
    return rows.reshape(n, 3, 32, 32)


def test_cifar10_in_the_official_files(tmp_path):
    made = [cifar_batch(tmp_path / "cifar-10-batches-py" / f"data_batch_{i}", 4, b"labels") for i in range(1, 6)]
    images = load(DATASETS["cifar10"], tmp_path, "train")
    assert np.array_equal(images.x, np.concatenate(made)) and images.y.tolist() == list(range(4)) * 5
    assert images.label_names[3] == "cat" and len(images) == 20
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(DataError, match=r"data_batch_3 is missing or damaged.*unpack the official archive"):
        load(DATASETS["cifar10"], tmp_path, "train")


def test_cifar100_and_a_pickle_that_would_run_code(tmp_path):
    made = cifar_batch(tmp_path / "test", 6, b"fine_labels")
    assert np.array_equal(load(DATASETS["cifar100"], tmp_path, "test").x, made)

    class Evil:
        def __reduce__(self):
            return print, ("run",)

    (tmp_path / "test").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match=r"test is missing or damaged .*print has no place in a data file"):
        load(DATASETS["cifar100"], tmp_path, "test")
    (tmp_path / "test").write_bytes(b"cnumpy.f2py.__main__\nndarray\n.")  # to import that module is to run it
    with pytest.raises(DataError, match=r"numpy\.f2py\.__main__\.ndarray has no place"):
        load(DATASETS["cifar100"], tmp_path, "test")


@pytest.mark.parametrize("changed, word", [({"labels": [0.5, 1, 2]}, "labels float64"), ({"data": np.full((3, 3072), 300.7)}, "pixels are float64")])
def test_official_files_of_other_numbers_are_not_rounded(tmp_path, changed, word):
    cifar_batch(tmp_path / "test", 3, b"fine_labels", **changed)
    with pytest.raises(DataError, match=f"test is missing or damaged .*{word}"):
        load(DATASETS["cifar100"], tmp_path, "test")


def idx(array, opener, path):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with opener(path, "wb") as f:
        f.write(header + array.tobytes())


def test_mnist_in_the_official_files(tmp_path):
    x, y = RNG.integers(0, 256, (5, 28, 28)).astype(np.uint8), np.array([3, 1, 4, 1, 5], np.uint8)
    raw = tmp_path / "MNIST" / "raw"
    idx(x, open, raw / "t10k-images-idx3-ubyte")
    idx(y, gzip.open, raw / "t10k-labels-idx1-ubyte.gz")
    images = load(DATASETS["mnist"], tmp_path, "test")
    assert np.array_equal(images.x[:, 0], x) and images.y.tolist() == y.tolist()
    with pytest.raises(DataError, match="holds no MNIST: put the four idx files"):
        load(DATASETS["mnist"], tmp_path, "train")
    (raw / "t10k-images-idx3-ubyte").write_bytes((raw / "t10k-images-idx3-ubyte").read_bytes()[:-1])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte is damaged"):
        load(DATASETS["mnist"], tmp_path, "test")


@pytest.mark.parametrize("header", [
    struct.pack(">iiii", 0x803, 10, 0, 28), struct.pack(">iiii", 0x803, -1, 28, 28), struct.pack(">iiii", 0xD03, 10, 28, 28),
    struct.pack(">iiii", 0x803, 40, 14, 14), struct.pack(">iiii", 0x803, 2**30, 28, 28), b"\0\0\x08"])
def test_idx_files_that_lie_are_damaged(tmp_path, header):
    raw = tmp_path / "MNIST" / "raw"
    idx(np.zeros(10, np.uint8), open, raw / "t10k-labels-idx1-ubyte")
    with gzip.open(raw / "t10k-images-idx3-ubyte.gz", "wb") as file:
        file.write(header + bytes(7840))
    with pytest.raises(DataError, match=r"fetch (it|them) again"):
        load(DATASETS["mnist"], tmp_path, "test")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have names in Unicode alone")
def test_classes_whose_names_are_no_text(tmp_path):
    for name in (b"tea", b"caf\xe9"):
        os.mkdir(folder := os.fsencode(tmp_path) + b"/" + name)
        Image.new("RGB", (32, 32)).save(os.fsdecode(folder + b"/a.png"))
    with pytest.raises(DataError, match=r"udce9' is no name for a class: write it in UTF-8"):
        load_folder(tmp_path, 3, 32)


def picture(path, value, size=(64, 64), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def test_tinyimagenet_in_its_folders(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for i, wnid in enumerate(("n02", "n01")):
        picture(root / "train" / wnid / "images" / f"{wnid}_0.png", (100 * i, 7, 7))
    picture(root / "train" / ".ipynb_checkpoints" / "images" / "x.png", (1, 1, 1))  # is no class
    for name, value in (("val_0.png", (9, 9, 9)), ("val_1.png", (50, 50, 50))):
        picture(root / "val" / "images" / name, value)
    (root / "val" / "val_annotations.txt").write_text("val_0.png\tn02\t0\t0\t63\t63\nval_1.png\tn01\t0\t0\t63\t63\n")
    train, test = (load(DATASETS["tinyimagenet200"], tmp_path, split) for split in ("train", "test"))
    assert train.x.shape == (2, 3, 64, 64) and train.y.tolist() == [0, 1] and train.x[:, 0, 0, 0].tolist() == [100, 0]
    assert test.x.shape == (2, 3, 32, 32) and test.y.tolist() == [1, 0] and test.x[1].unique().tolist() == [50]
    (root / "val" / "val_annotations.txt").write_text("val_0.png\tn99\n")
    with pytest.raises(ZooError, match=r"val_annotations\.txt is missing or damaged"):
        load(DATASETS["tinyimagenet200"], tmp_path, "test")


# ---- .npz --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrays, said", [
    ({"x": np.zeros((2, 32, 32, 3), np.uint8)}, "no sound .npz file with x, y"),
    ({"x": np.zeros((2, 32, 32, 3), np.float32), "y": np.zeros(2, int)}, r"x must be uint8 \[N, H, W, C\]"),
    ({"x": np.zeros((2, 32, 32, 3), np.uint8), "y": np.zeros(3, int)}, "one whole number each"),
    ({"x": np.zeros((2, 32, 32, 3), np.uint8), "y": np.array([0, 10])}, "labels run from 0 to 10, CIFAR-10 has 10 classes"),
    ({"x": np.zeros((2, 32, 32, 1), np.uint8), "y": np.zeros(2, int)}, "1 channels, CIFAR-10 has 3"),
    ({"x": np.zeros((0, 32, 32, 3), np.uint8), "y": np.zeros(0, int)}, "no test images"),
    ({"x": np.array([{}]), "y": np.zeros(1, int)}, "no sound .npz file"),  # would need pickle
])
def test_npz_that_does_not_fit(tmp_path, arrays, said):
    np.savez(tmp_path / "test.npz", **arrays)
    with pytest.raises(DataError, match=said) as error:
        load(DATASETS["cifar10"], tmp_path, "test")
    assert str(tmp_path) in str(error.value)


def test_damaged_and_missing(tmp_path):
    (tmp_path / "train.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(DataError, match=r"train\.npz is no sound \.npz"):
        load(DATASETS["cifar10"], tmp_path, "train")
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere"):
        load(DATASETS["cifar10"], tmp_path / "nowhere", "train")
    for dataset in DATASETS.values():
        with pytest.raises(DataError, match=f"holds no {dataset.title}: (unpack|put) .*or put test.npz there"):
            load(dataset, tmp_path, "test")


def test_validation_is_the_test_set_or_held_out(tmp_path):
    for split, n in (("train", 20), ("test", 5)):
        x = RNG.integers(0, 256, (n, 28, 28, 1)).astype(np.uint8)
        np.savez(tmp_path / f"{split}.npz", x=x, y=np.arange(n) % 10)
    data = load_data(check_recipe({"model": "ei_mlp2_mnist"}, ""), tmp_path)
    assert (len(data.train), len(data.valid), data.validation, data.size) == (20, 5, "test set", 28)
    data = load_data(check_recipe({"model": "ei_mlp2_mnist", "holdout": 8, "seed": 3}, ""), tmp_path)
    assert (len(data.train), len(data.valid), data.validation) == (12, 8, "8 training images held out")
    everything = load(DATASETS["mnist"], tmp_path, "train")
    rest, aside = hold_out(everything, 8, 3)
    both = torch.cat([rest.x, aside.x]).flatten(1)
    assert torch.equal(aside.x, data.valid.x)
    assert {tuple(r) for r in both.tolist()} == {tuple(r) for r in everything.x.flatten(1).tolist()}
    rows = read(DATASETS["mnist"], tmp_path, "train")
    digests = {each.sha256 for each in (rows, replace(rows, y=rows.y[::-1].copy()), replace(rows, x=255 - rows.x), read(DATASETS["mnist"], tmp_path, "train"))}
    assert len(digests) == 3, "a checksum is of images and of their classes"
    with pytest.raises(UsageError, match="20 of its 20 training images cannot be set aside for validation: lower holdout"):
        load_data(check_recipe({"model": "ei_mlp2_mnist", "holdout": 20}, ""), tmp_path)


# ---- one's own pictures --------------------------------------------------------------------------------------------------


def test_pictures_in_class_folders_are_prepared_as_for_a_prediction(tmp_path):
    from eisnn_zoo.inference.images import open_image, preprocess

    noise = Image.fromarray(RNG.integers(0, 256, (40, 70, 3)).astype(np.uint8))
    (tmp_path / "train" / "b").mkdir(parents=True)
    noise.save(tmp_path / "train" / "b" / "0.png")
    picture(tmp_path / "train" / "a" / "1.png", 200, (10, 50), "L")
    picture(tmp_path / "val" / "b" / "2.png", (1, 2, 3))
    train, valid = load_folder(tmp_path, 3, 32)
    assert train.label_names == ("a", "b") and train.y.tolist() == [0, 1] and valid.y.tolist() == [1]
    expected = preprocess(open_image(tmp_path / "train" / "b" / "0.png"), (3, 32, 32))
    assert np.array_equal(train.x[1].float().numpy() / np.float32(255), expected)
    assert load_folder(tmp_path, 1, 28)[0].x.shape == (2, 1, 28, 28)


def test_what_lies_deeper_in_a_class_counts_and_what_is_hidden_does_not(tmp_path):
    for name in ("a/0.png", "a/more/1.png", "b/2.png", ".ipynb_checkpoints/0-checkpoint.png", "a/.thumbs/0.png"):
        picture(tmp_path / name, 0)
    (tmp_path / "b" / "._2.png").write_bytes(b"what macOS leaves on a stick")
    train, _ = load_folder(tmp_path, 3, 32)
    assert train.label_names == ("a", "b") and train.y.tolist() == [0, 0, 1]
    assert [Path(name).name for name in expand([str(tmp_path)])] == ["0.png", "1.png", "2.png"]


def test_the_last_picture_of_a_class_is_not_held_out(tmp_path):
    y = np.repeat(np.arange(25), [1] * 24 + [6])
    np.savez(tmp_path / "mine.npz", x=np.zeros((30, 8, 8, 3), np.uint8), y=y)
    values = {"model": "ei_resnet18", "dataset": "folder", "epochs": 1}
    for seed in range(5):
        data = load_data(check_recipe({**values, "seed": seed}, ""), tmp_path / "mine.npz")
        assert data.valid.y.tolist() == [24] * 3 and set(data.train.y.tolist()) == set(range(25))
    data = load_data(check_recipe({**values, "holdout": 7}, ""), tmp_path / "mine.npz")  # more than there are to spare
    assert len(data.valid) == 7 and data.valid.y.tolist().count(24) >= 5


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
def test_every_name_of_a_validation_split(tmp_path, name):
    for split, value in (("train", 10), (name, 20)):
        picture(tmp_path / "pictures" / split / "a" / "0.png", value, (32, 32), "L")
        (tmp_path / "arrays").mkdir(exist_ok=True)
        np.savez(tmp_path / "arrays" / f"{split}.npz", x=np.full((1, 32, 32, 1), value, np.uint8), y=[0])
    for kind in ("pictures", "arrays"):
        train, valid = load_folder(tmp_path / kind, 1, 32)
        assert valid is not None and (train.x.max(), valid.x.max()) == (10, 20)


def test_a_class_can_be_called_train(tmp_path):
    for name in ("bus", "car", "train"):
        picture(tmp_path / name / "0.png", 0)
    train, valid = load_folder(tmp_path, 3, 32)
    assert train.label_names == ("bus", "car", "train") and valid is None
    picture(tmp_path / "train" / "a" / "0.png", 0)
    assert load_folder(tmp_path, 3, 32)[0].label_names == ("a",)


@pytest.mark.parametrize("make, said", [
    (lambda r: (r / "a").mkdir(), "no pictures in one folder per class"),
    (lambda r: picture(r / "0.png", 0), "no pictures in one folder per class"),
    (lambda r: (picture(r / "a" / "0.png", 0), (r / "a" / "1.png").write_bytes(b"x")), r"1\.png: not an image"),
    (lambda r: (picture(r / "train" / "a" / "0.png", 0), picture(r / "val" / "b" / "0.png", 0)), "b is a class that .* does not have"),
    (lambda r: (picture(r / "train" / "a" / "0.png", 0), (r / "val").mkdir()), "val holds no pictures"),
    (lambda r: [((r / str(i)).mkdir(), (r / str(i) / "0.png").touch()) for i in range(1001)], "holds 1001 classes, the most is 1000"),
])
def test_folders_that_do_not_fit(tmp_path, make, said):
    make(tmp_path)
    with pytest.raises(ZooError, match=said):
        load_folder(tmp_path, 3, 32)


def test_own_npz(tmp_path):
    np.savez(tmp_path / "mine.npz", x=RNG.integers(0, 256, (4, 20, 30, 1)).astype(np.uint8), y=[0, 2, 2, 1], label_names=["p", "q", "r"])
    train, valid = load_folder(tmp_path / "mine.npz", 3, 32)
    assert train.x.shape == (4, 3, 32, 32) and train.label_names == ("p", "q", "r") and valid is None
    np.savez(tmp_path / "bad.npz", x=np.zeros((1, 8, 8, 2), np.uint8), y=[0])
    with pytest.raises(ZooError, match="pictures of 2 channels"):
        load_folder(tmp_path / "bad.npz", 3, 32)
    np.savez(tmp_path / "bad.npz", x=np.zeros((1, 8, 8, 3), np.uint8), y=[5], label_names=["p"])
    with pytest.raises(DataError, match="1 label_names, but labels up to 5"):
        load_folder(tmp_path / "bad.npz", 3, 32)
    np.savez(tmp_path / "bad.npz", x=np.zeros((1, 8, 8, 3), np.uint8), y=[0], label_names=["p", "p"])
    with pytest.raises(DataError, match="label_names holds 'p' twice"):
        load_folder(tmp_path / "bad.npz", 3, 32)
    np.savez(tmp_path / "many.npz", x=np.zeros((1, 8, 8, 3), np.uint8), y=[999])
    assert len(load_folder(tmp_path / "many.npz", 3, 8)[0].label_names) == 1000
    np.savez(tmp_path / "many.npz", x=np.zeros((1, 8, 8, 3), np.uint8), y=[1000])
    with pytest.raises(DataError, match="labels run from 1000 to 1000; they must count from 0, to 999 at most"):
        load_folder(tmp_path / "many.npz", 3, 8)


def test_classes_of_the_own_validation_split(tmp_path):
    def split(name: str, y: list[int], **names) -> None:
        np.savez(tmp_path / f"{name}.npz", x=np.zeros((len(y), 8, 8, 3), np.uint8), y=y, **names)

    split("train", [0, 1, 2], label_names=["p", "q", "r"])
    split("val", [0, 1, 1], label_names=["r", "p"])  # by name
    train, valid = load_folder(tmp_path, 3, 32)
    assert valid.label_names == train.label_names and valid.y.tolist() == [2, 0, 0]
    split("val", [0, 1])  # without names of its own: by number
    valid = load_folder(tmp_path, 3, 32)[1]
    assert valid.label_names == ("p", "q", "r") and valid.y.tolist() == [0, 1]
    split("val", [0], label_names=["z"])
    with pytest.raises(DataError, match="holds a class 'z' that the training split does not have"):
        load_folder(tmp_path, 3, 32)


def test_files_that_are_not_what_their_name_says(tmp_path):
    np.save(tmp_path / "train.npy", np.zeros((3, 8, 8, 3), np.uint8))
    (tmp_path / "train.npy").rename(tmp_path / "train.npz")
    with pytest.raises(ZooError, match=r"train\.npz is no sound \.npz file with x, y"):
        load_folder(tmp_path, 3, 32)
    with pytest.raises(DataError, match=r"train\.npz is no sound \.npz file with x, y"):
        load(DATASETS["cifar10"], tmp_path, "train")
    packed = bytearray(gzip.compress(bytes(range(256)) * 40))
    packed[20:40] = bytes(20)
    for name in ("images-idx3", "labels-idx1"):
        (tmp_path / f"t10k-{name}-ubyte.gz").write_bytes(packed)
    with pytest.raises(DataError, match="is damaged"):
        load(DATASETS["mnist"], tmp_path, "test")


def test_label_names_are_texts(tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.zeros((1, 8, 8, 3), np.uint8), y=[0], label_names=[3])
    with pytest.raises(DataError, match="label_names must be a list of texts"):
        load_folder(tmp_path / "mine.npz", 3, 32)


def test_pictures_are_read_at_the_size_they_are_trained_at(tmp_path):
    picture(tmp_path / "a" / "0.png", 0)
    picture(tmp_path / "b" / "0.png", 1)
    for resolution, side in ((0, 32), (48, 48), ({0: 32, 2: 64}, 64)):
        values = {"model": "ei_vgg8_cifar10", "dataset": "folder", "epochs": 3, "holdout": 1, "resolution": resolution}
        data = load_data(check_recipe(values, "test"), tmp_path)
        assert data.size == side and data.train.x.shape[-2:] == (side, side)


# ---- events ----------------------------------------------------------------------------------------------------------------


def plain_frames(x, y, p, steps, size):
    """Event by event."""
    out = np.zeros((steps, 2, size, size), int)
    for t in range(steps):
        each = len(x) // steps
        for i in range(t * each, len(x) if t == steps - 1 else (t + 1) * each):
            out[t, p[i], y[i], x[i]] += 1
    return out


def test_names_of_classes_are_the_same_however_their_accents_are_written(tmp_path):
    """A folder that went through macOS may have an accent apart from its letter."""
    for split, form in (("train", "NFD"), ("val", "NFC")):
        for name in ("Zander", "\xc4pfel"):
            (tmp_path / split / unicodedata.normalize(form, name)).mkdir(parents=True)
            Image.new("RGB", (8, 8), (len(name), 0, 0)).save(tmp_path / split / unicodedata.normalize(form, name) / "a.png")
    train, valid = load_folder(tmp_path, 3, 8)
    assert train.label_names == valid.label_names == ("Zander", "\xc4pfel")
    assert train.x[:, 0, 0, 0].tolist() == valid.x[:, 0, 0, 0].tolist() == [6, 5]
    (tmp_path / "train" / "\xc4pfel").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "train" / "\xc4pfel" / "a.png")
    with pytest.raises(ZooError, match="holds two folders"):
        load_folder(tmp_path, 3, 8)


@pytest.mark.parametrize("steps", [1, 7, 10])
def test_frames_of_real_recordings(steps):
    with np.load(DATA / "nmnist_3.npz") as data:
        x, y, p, offset, label = (data[k] for k in ("x", "y", "p", "offset", "label"))
    got, labels = events.read_npz(DATA / "nmnist_3.npz", DATASETS["nmnist"], steps)
    assert got.shape == (3, steps, 2, 34, 34) and np.array_equal(labels, label)
    for i, (a, b) in enumerate(pairwise(offset)):
        assert np.array_equal(got[i], plain_frames(x[a:b], y[a:b], p[a:b], steps, 34))
        each = (b - a) // steps
        assert got[i].sum((1, 2, 3)).tolist() == [each] * (steps - 1) + [b - a - each * (steps - 1)]


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5])
def test_frames_of_hardly_any_events(n):
    x, y, p = RNG.integers(0, 6, n), RNG.integers(0, 6, n), RNG.integers(0, 2, n)
    assert np.array_equal(events.frames(x, y, p, 4, 6), plain_frames(x, y, p, 4, 6))


def test_many_events_on_one_pixel_do_not_overflow():
    zeros = np.zeros(1000, int)
    assert events.frames(zeros, zeros, zeros, 2, 4)[:, 0, 0, 0].tolist() == [500, 500]
    assert events.frames(*[np.zeros(80_000, int)] * 3, 2, 4)[:, 0, 0, 0].tolist() == [40_000, 40_000]


def test_nmnist_in_the_official_files(tmp_path):
    x, y, p = RNG.integers(0, 34, (3, 50))[:2].tolist() + [RNG.integers(0, 2, 50).tolist()]
    raw = np.zeros((50, 5), np.uint8)
    raw[:, 0], raw[:, 1] = x, y
    raw[:, 2] = (np.array(p) << 7) | RNG.integers(0, 128, 50)
    (tmp_path / "Test" / "7").mkdir(parents=True)
    raw.tofile(tmp_path / "Test" / "7" / "00001.bin")
    images = load(DATASETS["nmnist"], tmp_path, "test", time_steps=5)
    assert images.y.tolist() == [7] and np.array_equal(images.x[0], plain_frames(x, y, p, 5, 34))
    (tmp_path / "Test" / "7" / "00002.bin").write_bytes(b"123")
    with pytest.raises(ZooError, match=r"00002\.bin is damaged"):
        load(DATASETS["nmnist"], tmp_path, "test")


@pytest.mark.parametrize("model, trained_on", [("ei_vgg8_dvsgesture", "nmnist"), ("ei_vgg8", "nmnist"), ("ei_vgg8_nmnist", "cifar10dvs"), ("ei_vgg8_nmnist", None)])
def test_a_recording_is_read_with_the_sensor_that_the_network_was_trained_on(tmp_path, model, trained_on):
    dataset = DATASETS[trained_on or "nmnist"]
    x, y, p = *RNG.integers(0, dataset.sensor, (2, 60)), RNG.integers(0, 2, 60)
    np.savez(tmp_path / "one.npz", x=x, y=y, p=p)
    np.savez(tmp_path / "test.npz", x=x, y=y, p=p, offset=np.array([0, 60]), label=np.array([1]))
    base = base_config(find_model(model))
    config = replace(base, size=48, facts={"dataset": trained_on} if trained_on else {})
    expected = read(dataset, tmp_path, "test", 3).pixels(0, 1, 48)[0]
    assert np.array_equal(read_recording(str(tmp_path / "one.npz"), config, 3), expected)


def recording(path, n=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, t=np.arange(n), x=RNG.integers(0, 128, n), y=RNG.integers(0, 128, n), p=RNG.integers(0, 2, n))


def test_event_sets_unpacked_by_spikingjelly(tmp_path):
    for label in range(11):
        recording(tmp_path / "g" / "events_np" / "train" / str(label) / "user01_0.npz")
    train = load(DATASETS["dvsgesture"], tmp_path / "g", "train")
    assert train.x.shape == (11, 16, 2, 128, 128) and train.y.tolist() == list(range(11))
    with np.load(tmp_path / "g" / "events_np" / "train" / "10" / "user01_0.npz") as data:  # folders sort as texts: 0, 1, 10, 2
        assert np.array_equal(train.x[2], plain_frames(data["x"], data["y"], data["p"], 16, 128))
    for name in DATASETS["cifar10dvs"].label_names:
        for i in range(11):
            recording(tmp_path / "c" / "events_np" / name / f"cifar10_{name}_{i:02}.npz", 10)
    sizes = {split: load(DATASETS["cifar10dvs"], tmp_path / "c", split, 2).y.bincount().tolist() for split in ("train", "test")}
    assert sizes == {"train": [10] * 10, "test": [1] * 10}


@pytest.mark.parametrize("change, said", [
    ({"x": np.full(4, 34)}, "lies outside the 34x34 pixels"),
    ({"p": np.full(4, 2)}, "polarity is neither 0 nor 1"),
    ({"y": np.zeros(3, int)}, "one whole number each"),
    ({"x": np.zeros(4)}, "one whole number each"),
    ({"label": np.array([[1]])}, "lists of whole numbers"),
    ({"label": np.array([1.5])}, "lists of whole numbers"),
    ({"label": np.array(1)}, "lists of whole numbers"),
    ({"label": np.array([], int), "offset": np.array([0])}, "lists of whole numbers"),
    ({"offset": np.array([0.0, 4.0])}, "lists of whole numbers"),
    ({"offset": np.array([0, 3])}, "offset does not cut 4 events into 1 recordings"),
    ({"label": np.ones(3, int), "offset": np.array([0, 3, 2, 4], np.uint64)}, "offset does not cut 4 events into 3 recordings"),
    ({"label": np.array([10])}, "labels run from 10 to 10"),
])
def test_events_that_do_not_fit(tmp_path, change, said):
    whole = {"x": np.zeros(4, int), "y": np.zeros(4, int), "p": np.zeros(4, int), "offset": np.array([0, 4]), "label": np.array([1])}
    np.savez(tmp_path / "test.npz", **{**whole, **change})
    with pytest.raises(ZooError, match=said):
        load(DATASETS["nmnist"], tmp_path, "test")


def test_the_archives_name_numpys_arrays_as_numpy_1_did(tmp_path):
    made = cifar_batch(tmp_path / "test", 6, b"fine_labels")
    old = (tmp_path / "test").read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in old
    (tmp_path / "test").write_bytes(old)
    assert np.array_equal(load(DATASETS["cifar100"], tmp_path, "test").x, made)
