"""Pictures that do not fit into memory: read batch by batch, they train the same network, bit for bit."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image
from training_helpers import load_folder, recipe, run_two, same, start, weights

from eisnn_zoo.errors import ZooError
from eisnn_zoo.training import data as data_module
from eisnn_zoo.training.data import hold_out, load_data
from eisnn_zoo.training.engine import Training
from eisnn_zoo.training.feeding import Feeding
from eisnn_zoo.training.stopping import Stopped
from eisnn_zoo.training.world import World

# 101 training images: the last batch of 20 holds one, and leaves the second of two processes without any.
VALUES = {"dataset": "folder", "holdout": 25, "epochs": 2, "batch_size": 20, "augment": "crop_flip"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    torch.set_num_threads(1)
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(126):
        place = folder / "abc"[i % 3]
        place.mkdir(exist_ok=True)
        x = rng.integers(0, 100, (30, 40, 3))
        x[:, 10 * (i % 3) : 10 * (i % 3) + 10] += 150
        Image.fromarray(x.astype(np.uint8)).save(place / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def in_memory(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("in_memory") / "run"
    Training(recipe(**VALUES), photos, folder, compile=False).fit()
    return folder


@pytest.fixture
def no_room(monkeypatch):
    monkeypatch.setattr(data_module, "WHOLE", 0)


def test_the_array_that_files_make(photos, monkeypatch):
    whole, _ = load_folder(photos, 3, 32)
    monkeypatch.setattr(data_module, "WHOLE", whole.x.nbytes - 1)
    streamed, _ = load_folder(photos, 3, 32)
    assert streamed.streams and not whole.streams and streamed.x.shape == whole.x.shape and streamed.x.nbytes == whole.x.nbytes
    assert torch.equal(streamed.x[:], whole.x) and torch.equal(streamed.x[3:7], whole.x[3:7])
    for a, b in zip(hold_out(streamed, 40, 1), hold_out(whole, 40, 1)):
        assert a.streams and torch.equal(a.x[:], b.x) and torch.equal(a.y, b.y)
    rows = torch.randperm(126).split(50)
    for r, a in zip(rows, streamed.batches(rows, slice(1, None, 3))):
        assert torch.equal(a.x[1::3], whole.x[r][1::3]) and torch.equal(a.y, whole.y[r])
        assert not a.x[0::3].any() and not a.x[2::3].any(), "a process reads its own part of a batch only"


@pytest.mark.parametrize("mixture", [{}, {"mixup": 0.5}])
def test_streamed_and_in_memory_give_the_same_weights(photos, in_memory, no_room, tmp_path, mixture):
    if mixture:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(data_module, "WHOLE", 2**30)
            Training(recipe(**VALUES, **mixture), photos, tmp_path / "whole", compile=False).fit()
    training = Training(recipe(**VALUES, **mixture), photos, tmp_path / "run", compile=False)
    assert training.data.train.streams and training.data.valid.streams
    training.fit()
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole" if mixture else in_memory))


def test_a_streamed_run_that_was_killed(photos, in_memory, tmp_path):
    run = tmp_path / "run"
    process = start(VALUES, photos, run, whole=0, save_every=0)
    while not (run / "checkpoint.safetensors").exists():
        assert process.is_alive()
        time.sleep(0.01)
    time.sleep(0.1)
    process.kill()
    process.join()
    process = start(VALUES, photos, run, whole=0)
    process.join()
    assert process.exitcode == 0 and same(weights(run), weights(in_memory))


def test_a_teacher_of_streamed_pictures(photos, in_memory, no_room, tmp_path):
    training = Training(recipe(**VALUES | {"epochs": 1}, teacher=str(in_memory / "best")), photos, tmp_path / "run", compile=False)
    assert training.data.train.streams
    training.fit()
    assert len(training.run.history) == 1


def test_a_streamed_run_that_was_interrupted_while_it_evaluated(photos, in_memory, no_room, tmp_path, monkeypatch):
    training = Training(recipe(**VALUES), photos, tmp_path, compile=False)
    read = type(training.data.valid).batches

    def interrupted(self, rows, *rest):
        for part in read(self, rows, *rest):
            if self is training.data.valid:
                os.kill(os.getpid(), signal.SIGINT)
            yield part

    monkeypatch.setattr(type(training.data.valid), "batches", interrupted)
    with pytest.raises(Stopped, match="all saved; go on with: eisnn-zoo train --resume"):
        training.fit()
    monkeypatch.undo()
    assert not (tmp_path / "metrics.csv").exists(), "the epoch was not evaluated yet"
    Training(recipe(**VALUES), photos, tmp_path, compile=False).fit()
    assert same(weights(tmp_path), weights(in_memory))


def test_two_processes_read_half_a_batch_each(photos, in_memory, tmp_path):
    run_two(VALUES, photos, tmp_path / "two", whole=0)
    one, two = weights(in_memory), weights(tmp_path / "two")
    assert all(np.allclose(one[k], two[k], rtol=1e-3, atol=1e-5) for k in one)


def test_a_process_mixes_its_images_with_those_of_the_others(photos, monkeypatch):
    mixed, rows = recipe(**VALUES, mixup=0.5), torch.arange(40).split(20)
    whole = Feeding(mixed, load_data(mixed, photos), World(0, 1, torch.device("cpu")))
    monkeypatch.setattr(data_module, "WHOLE", 0)
    second = Feeding(mixed, load_data(mixed, photos), World(1, 2, torch.device("cpu")))
    assert second.data.train.streams and not whole.data.train.streams
    for part, batch in zip(second.batches(rows, 0, 0), whole.batches(rows, 0, 0), strict=True):
        assert torch.equal(part.x, batch.x[1::2]) and torch.equal(part.target, batch.target[1::2])


def test_a_damaged_picture_is_named(photos, no_room, tmp_path):
    for i in range(30):
        (tmp_path / "photos" / "a").mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28), i * 8).save(tmp_path / "photos" / "a" / f"{i:02}.png")
    training = Training(recipe(**{**VALUES, "holdout": 5}), tmp_path / "photos", tmp_path / "run", compile=False)
    for path in training.data.train.x.paths:
        path.write_bytes(b"no picture")
    with pytest.raises(ZooError, match=r"\d\d\.png: not an image$"):
        training.fit()
