"""Interrupted at any moment, a run goes on to the same weights, bit for bit."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import time
import types

import numpy as np
import pytest
import torch
from training_helpers import digits, recipe, same, start, weights

from eisnn_zoo.config import read_config
from eisnn_zoo.errors import UsageError, ZooError
from eisnn_zoo.locating import locate
from eisnn_zoo.training import engine
from eisnn_zoo.training.engine import Diverged, Training
from eisnn_zoo.training.run import Run
from eisnn_zoo.training.stopping import Stopped, signals
from eisnn_zoo.training.world import World
from eisnn_zoo.weights import load_network

# Everything that holds state: averaged weights, a mixture of images, T grown on the way, a partial last batch.
VALUES = {"epochs": 3, "ema": 0.9, "mixup": 0.2, "time_steps": {0: 1, 1: 2}, "batch_size": 60, "label_smoothing": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run that nobody interrupted."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole") / "run"
    Training(recipe(**VALUES), data, folder, compile=False).fit()
    return folder


def table(run):
    """metrics.csv without what depends on the clock."""
    return [line.rsplit(",", 2)[0] for line in (run / "metrics.csv").read_text().splitlines()]


def test_same_seed_same_weights_another_seed_others(data, whole, tmp_path):
    for seed, equal in ((2025, True), (7, False)):
        Training(recipe(**VALUES, seed=seed), data, tmp_path / str(seed), compile=False).fit()
        assert same(weights(tmp_path / str(seed)), weights(whole)) is equal


def test_killed_at_random_moments(data, whole, tmp_path):
    rng = random.Random(3)
    run = tmp_path / "run"
    for _ in range(4):
        process = start(VALUES, data, run, save_every=0)
        for _ in range(rng.randint(1, 3)):  # checkpoints to wait for
            seen = stamp(run)
            while process.is_alive() and stamp(run) == seen:
                time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    process = start(VALUES, data, run)
    process.join()
    assert process.exitcode == 0
    assert same(weights(run), weights(whole)) and same(weights(run, "best"), weights(whole, "best"))
    assert table(run) == table(whole)
    assert not list(run.glob("**/.*")), "halves of files were left behind"


def stamp(run):
    try:
        return (run / "checkpoint.safetensors").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_muon_in_bf16_goes_on_to_the_same_weights(data, tmp_path, compile):
    values = {"optimizer": "muon", "lr": 0.01, "momentum": 0.95, "precision": "bf16", "batch_size": 60, "homeostasis": {0: 0.1, 1: 0.0}}
    Training(recipe(**values), data, tmp_path / "whole", compile=compile).fit()
    training = Training(recipe(**values), data, tmp_path / "run", compile=compile)
    iterate = training._iteration

    def interrupted(*batch):
        training.asked = training.step == 2
        return iterate(*batch)

    training._iteration = interrupted
    with pytest.raises(Stopped, match="iteration 3 of 8"):
        training.fit()
    Training(recipe(**values), data, tmp_path / "run", compile=compile).fit()
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole")) and table(tmp_path / "run") == table(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_says_how_to_go_on(data, whole, tmp_path, number, request):
    was, before = signal.getsignal(number), signal.default_int_handler
    request.addfinalizer(lambda: signal.signal(number, was))
    signal.signal(number, before)  # a suite that nohup started ignores hang-ups
    training = Training(recipe(**VALUES), data, tmp_path / "run", compile=False)
    iterate, count = training._iteration, 0

    def interrupted(*batch):
        nonlocal count
        count += 1
        if count == 6:
            os.kill(os.getpid(), number)
        return iterate(*batch)

    training._iteration = interrupted
    with pytest.raises(Stopped, match=r"iteration 6 of 12.*eisnn-zoo train --resume .*run") as stop:
        training.fit()
    assert stop.value.exit_code == 130
    assert signal.getsignal(number) is before
    resumed = Training(recipe(**VALUES), data, tmp_path / "run", compile=False)
    assert resumed.step == 6
    resumed.fit()
    assert same(weights(tmp_path / "run"), weights(whole)) and table(tmp_path / "run") == table(whole)


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals(lambda: pytest.fail("a hang-up that is to be ignored")):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_sigint_stops_at_once(data, tmp_path):
    training = Training(recipe(), data, tmp_path, compile=False)
    iterate = training._iteration

    def interrupted(*batch):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        return iterate(*batch)

    training._iteration = interrupted
    with pytest.raises(KeyboardInterrupt):
        training.fit()
    assert training.step == 0


def test_sigint_during_evaluation(data, whole, tmp_path):
    training = Training(recipe(**VALUES), data, tmp_path / "run", compile=False)
    evaluate = training.evaluate

    def interrupted(each):
        os.kill(os.getpid(), signal.SIGINT)
        return evaluate(each)

    training.evaluate = interrupted
    with pytest.raises(Stopped):
        training.fit()
    Training(recipe(**VALUES), data, tmp_path / "run", compile=False).fit()
    assert same(weights(tmp_path / "run"), weights(whole)) and table(tmp_path / "run") == table(whole)


@pytest.mark.parametrize("apart, saved", [(60.0, 1), (0.0, 2)])
def test_short_epochs_are_not_each_saved(data, whole, tmp_path, monkeypatch, apart, saved):
    """Killed in the last epoch, a run goes on from its last checkpoint, or from the start where there is none, to the same end."""
    monkeypatch.setattr(engine, "APART", apart)
    killed = Training(recipe(**VALUES), data, tmp_path, compile=False)
    epoch = killed._epoch

    def ends(number, *rest):
        if number == 2:
            raise MemoryError
        epoch(number, *rest)

    killed._epoch = ends
    with pytest.raises(MemoryError):
        killed.fit()
    assert len(table(tmp_path)) == 3 and (tmp_path / "checkpoint.safetensors").exists() is (apart == 0)
    training, saves = Training(recipe(**VALUES), data, tmp_path, compile=False), []
    save = training.run.save_checkpoint
    training.run.save_checkpoint = lambda *args: saves.append(1) or save(*args)
    training.fit()
    assert len(saves) == saved  # at the end alone, or before and after the evaluation of the epoch that was missing
    assert same(weights(tmp_path), weights(whole)) and table(tmp_path) == table(whole)


def test_the_best_weights_of_epochs_that_were_lost_are_replaced(data, tmp_path, monkeypatch):
    """Killed after an epoch that was the best and is in no checkpoint, the run goes on otherwise, as on another machine."""
    monkeypatch.setattr(engine, "APART", 60.0)
    values = {"epochs": 4, "batch_size": 100}

    def train(top1, saved, dies):
        training = Training(recipe(**values), data, tmp_path, compile=False)
        training.evaluate = lambda each: types.SimpleNamespace(loss=1.0, top1=top1[training.epoch])
        epoch = training._epoch

        def begin(number, *rest):
            if number == saved:
                training._save()
            if number == dies:
                raise MemoryError
            epoch(number, *rest)

        training._epoch = begin
        training.fit()

    with pytest.raises(MemoryError):
        train([50.0, 60.0, 90.0], saved=1, dies=3)
    assert read_config(tmp_path / "best" / "config.json").facts["epoch"] == 3
    train([0.0, 40.0, 30.0, 20.0], saved=None, dies=None)
    facts = read_config(tmp_path / "best" / "config.json").facts
    assert (facts["epoch"], facts["top1"]) == (2, 40.0) and table(tmp_path)[2].split(",")[7] == "40.0"


def test_best_weights_are_of_the_epoch_that_their_own_file_says(data, whole, tmp_path):
    """Killed between the renames of the two files, their config.json is that of an earlier one."""
    run = Run(shutil.copytree(whole, tmp_path / "run"))
    path = run.folder / "best" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "eisnn_zoo": {**config["eisnn_zoo"], "epoch": 77}}))
    assert run.epoch_of("best") == config["eisnn_zoo"]["epoch"] != 77 and run.epoch_of("nothing") == 0


def test_full_disk_leaves_the_previous_checkpoint_whole(data, whole, tmp_path):
    run = tmp_path / "run"
    process = start(VALUES, data, run, save_every=0)
    while not (run / "checkpoint.safetensors").exists():
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    before = (run / "checkpoint.safetensors").read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    training = Training(recipe(**VALUES), data, run, compile=False)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))  # what a full disk is to one file
    try:
        with pytest.raises(ZooError, match=r"checkpoint.safetensors cannot be written .* whole"):
            training.fit(save_every=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (run / "checkpoint.safetensors").read_bytes() == before
    assert not list(run.glob(".*"))
    Training(recipe(**VALUES), data, run, compile=False).fit()
    assert same(weights(run), weights(whole))


def test_a_signal_that_comes_while_processes_exchange_is_not_lost(data, tmp_path, monkeypatch):
    training = Training(recipe(**VALUES), data, tmp_path / "run", compile=False)
    total = World.total

    def interrupted(self, values):
        if training.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)  # until Python has called the handler
        return total(self, values)

    monkeypatch.setattr(World, "total", interrupted)
    with pytest.raises(Stopped, match="stopped at iteration 4 of"):  # the next exchange tells all processes
        training.fit()


def test_one_process_at_a_time_trains_in_a_folder(data, whole, tmp_path):
    run = tmp_path / "run"
    process = start(VALUES, data, run, save_every=0)
    while not stamp(run):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGSTOP)  # it is going on, however long this takes
    with pytest.raises(UsageError, match="run is being trained by another process: let it end"):
        Training(recipe(**VALUES), data, run, compile=False)
    os.kill(process.pid, signal.SIGCONT)
    process.join()
    assert process.exitcode == 0 and same(weights(run), weights(whole)) and table(run) == table(whole)
    assert Training(recipe(**VALUES), data, run, compile=False).finished


def test_a_file_that_cannot_be_written_is_named(data, tmp_path):
    (tmp_path / "metrics.csv").mkdir()
    with pytest.raises(ZooError, match=r"metrics.csv cannot be written \(Is a directory\).* once it can be, go on with eisnn-zoo train"):
        Training(recipe(), data, tmp_path, compile=False).fit()


def test_a_run_that_died_while_it_began_is_no_run_yet(data, tmp_path, cli):
    Training(recipe(), data, tmp_path, compile=False)
    for name in ("environment.json", "recipe.yaml"):
        (tmp_path / name).rename(tmp_path / "away")
        code, _, err = cli("train", "--resume", tmp_path)
        assert code == 2 and f"{tmp_path} is no run: it holds no {name}" in err
        (tmp_path / "away").rename(tmp_path / name)
    assert not Training(recipe(), data, tmp_path, compile=False).finished


def test_a_run_in_a_folder_of_any_name_is_read(data, tmp_path):
    folder = tmp_path / "a\\b"
    Training(recipe(epochs=1), data, folder, compile=False).fit()
    assert locate(str(folder)).config.name == "ei_mlp2_mnist.a_b"


def test_a_run_does_not_go_on_with_other_data(data, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for sizes, said in (({"train": 64}, "began with 200 training images and the data has 64"), ({"test": 9}, "50 validation images")):
        other = digits(tmp_path / str(sizes), **sizes)
        with pytest.raises(UsageError, match=f"{said}.*choose another --output"):
            Training(recipe(**VALUES), other, run, compile=False)


def test_a_run_does_not_go_on_with_as_many_images_of_another_kind(data, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    with np.load(data / "test.npz") as file:
        arrays = dict(file)
    other = tmp_path / "other"
    for change in ({"y": (arrays["y"] + 1) % 10}, {"x": arrays["x"][::-1]}):
        shutil.copytree(data, other, dirs_exist_ok=True)
        np.savez(other / "test.npz", **{**arrays, **change})
        with pytest.raises(UsageError, match=r"began with other images, classes or labels than .* choose another --output"):
            Training(recipe(**VALUES), other, run, compile=False)
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({key: value for key, value in environment.items() if key != "data_identity"}))
    assert Training(recipe(**VALUES), other, run, compile=False).finished, "a run from before digests were kept is taken at its word"


def test_a_run_does_not_go_on_from_other_weights(data, whole, tmp_path):
    shutil.copytree(whole / "best", tmp_path / "weights")
    values = {"weights": str(tmp_path / "weights"), "epochs": 1}
    Training(recipe(**values), data, tmp_path / "run", compile=False).fit()
    shutil.copytree(whole / "last", tmp_path / "weights", dirs_exist_ok=True)
    network = load_network(locate(str(whole / "last")))
    network.head.ei.weight.data *= 1.5
    Run(tmp_path).save_weights("weights", network, locate(str(whole / "last")).config)
    with pytest.raises(UsageError, match=r"began with other weights .*weights than those that are there now"):
        Training(recipe(**values), data, tmp_path / "run", compile=False)


def test_a_last_epoch_of_another_t_claims_no_accuracy(data, tmp_path, monkeypatch):
    """What it was measured with is not what it is run with."""
    training = Training(recipe(epochs=3, time_steps={0: 1, 2: 2}), data, tmp_path, compile=False)
    save = training.run.save_weights
    claims = []
    monkeypatch.setattr(training.run, "save_weights", lambda name, model, config: (claims.append((name, config.facts)), save(name, model, config)))
    training.fit(save_every=0)
    assert [(name, facts["epoch"], "top1" in facts, "measured_on" in facts) for name, facts in claims] == [
        ("last", 1, False, False), ("last", 2, False, False), ("best", 3, True, True), ("last", 3, True, True)]


def test_the_surrogates_slope_is_resumed(data, tmp_path):
    """0 is the network's own slope, whichever was set before."""
    values = {"epochs": 2, "alpha": {0: 2.0, 1: 0.0}}
    Training(recipe(**values), data, tmp_path / "whole", compile=False).fit()
    training = Training(recipe(**values), data, tmp_path / "run", compile=False)
    training.evaluate = lambda each: interrupt()

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.fit()
    Training(recipe(**values), data, tmp_path / "run", compile=False).fit()
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    resumed, whole = (Training(recipe(**values), data, tmp_path / name, compile=False) for name in ("run", "whole"))
    assert (resumed.best, resumed.best_loss) == (whole.best, whole.best_loss) and resumed.best_loss > 0, "which decide between equals"


def test_a_run_whose_folder_is_deleted_says_so(data, tmp_path):
    training = Training(recipe(), data, tmp_path / "run", compile=False)
    iterate = training._iteration

    def sabotaged(*batch):
        shutil.rmtree(tmp_path / "run")
        return iterate(*batch)

    training._iteration = sabotaged
    with pytest.raises(ZooError, match=r"checkpoint.safetensors cannot be written: its folder is gone$"):
        training.fit(save_every=0)


def test_overflow_names_iteration_layer_and_checkpoint(data, tmp_path):
    training = Training(recipe(), data, tmp_path / "run", compile=False)
    iterate = training._iteration

    def sabotaged(*batch):
        if training.step == 5:
            with torch.no_grad():
                training.model.stages[0].layers[0].current.g_e[3] = float("inf")
        return iterate(*batch)

    training._iteration = sabotaged
    with pytest.raises(Diverged, match=r"iteration 6: the current of layer stages\.0\.layers\.0 overflowed first.*checkpoint"):
        training.fit(save_every=0)
    assert "diverged: the loss is" in (tmp_path / "run" / "log.txt").read_text()
    assert Training(recipe(), data, tmp_path / "run", compile=False).step == 5


@pytest.mark.parametrize("value, said", [
    (float("nan"), r"gradient overflowed first in stages\.0\.layers\.0\.current\.b_e"),
    (1e30, r"all currents and gradients are finite, the largest gradient is stages\.0\.layers\.0\.current\.b_e's, 1e\+30"),
])
def test_overflow_of_a_gradient_is_found_before_the_step(data, tmp_path, value, said):
    training = Training(recipe(epochs=1), data, tmp_path / "run", compile=False)
    before = {k: v.clone() for k, v in training.model.state_dict().items()}
    training.model.stages[0].layers[0].current.b_e.register_hook(lambda grad: torch.full_like(grad, value))
    with pytest.raises(Diverged, match=said + "; nothing was saved yet"):
        training.fit()
    assert all(torch.equal(v, before[k]) for k, v in training.model.state_dict().items())


def test_a_finished_run_goes_on_by_a_longer_recipe(data, tmp_path):
    """To the weights of a run by the longer recipe alone."""
    short = {"epochs": 2, "time_steps": {0: 1, 1: 2}, "warmup_epochs": 0.5, "optimizer": "muon", "lr": 0.01}
    longer = {**short, "epochs": 4, "lr": {0: 0.01, 2: 0.005}, "time_steps": {0: 1, 1: 2, 2: 1, 3: 2}, "augment": {0: "none", 2: "crop_flip"},
              "batch_size": {0: 50, 2: 90}, "accumulate": {0: 1, 2: 2}}
    Training(recipe(**short), data, tmp_path / "run", compile=False).fit()
    for values, key in (({"seed": 7}, "seed"), ({"lr": {0: 0.02, 2: 0.005}}, "lr"), ({"augment": "crop_flip"}, "augment"), ({"time_steps": 3}, "time_steps"),
                        ({"batch_size": 90}, "batch_size")):
        with pytest.raises(UsageError, match=f"a run of another recipe, with another {key}:"):
            Training(recipe(**{**longer, **values}), data, tmp_path / "run", compile=False)
    with pytest.raises(UsageError, match=r'--set epochs=3 --set "lr={0: 0.01, 2: 0.005}"'):  # the cosine would have been another
        Training(recipe(**{**short, "epochs": 3}), data, tmp_path / "run", compile=False)
    for name in ("run", "whole"):
        Training(recipe(**longer), data, tmp_path / name, compile=False).fit()
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole")) and table(tmp_path / "run") == table(tmp_path / "whole")
    assert (tmp_path / "run" / "recipe.yaml").read_text() == (tmp_path / "whole" / "recipe.yaml").read_text()


def test_the_batch_size_within_a_begun_cycle_stays(data, tmp_path):
    """Step sizes follow from the number of iterations of the whole cycle."""
    values = {"epochs": 3, "time_steps": 1, "warmup_epochs": 0}
    begun = recipe(**values)
    later = recipe(**values, batch_size={0: 50, 2: 100})
    assert later.departs(begun, 2) == "batch_size" and later.departs(begun, 0) == ""
    assert recipe(**{**values, "epochs": 2}).departs(begun, 1) == "epochs"
    cycles = {"lr": {0: 2e-3, 2: 1e-3}}
    assert recipe(**values, **cycles, batch_size={0: 50, 2: 100}).departs(recipe(**values, **cycles), 2) == ""


def test_what_an_epoch_computes_cannot_change_while_it_runs(data, tmp_path):
    training = Training(recipe(), data, tmp_path, compile=False)
    training.asked = True
    with pytest.raises(Stopped, match="iteration 1 of 8"):
        training.fit()
    with pytest.raises(UsageError, match="with another alpha"):
        Training(recipe(alpha={0: 2.0, 1: 4.0}), data, tmp_path, compile=False)
    assert Training(recipe(alpha={0: 0.0, 1: 2.0}), data, tmp_path, compile=False).step == 1


def test_a_run_keeps_the_precision_that_was_measured_when_it_began(data, tmp_path, monkeypatch):
    for measured in ("fp32", "bf16"):
        monkeypatch.setattr("eisnn_zoo.training.setup.faster_precision", lambda _device: measured)
        assert Training(recipe(precision="auto"), data, tmp_path, compile=False).recipe.precision == "fp32"


def test_a_folder_holds_one_run(data, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    with pytest.raises(ZooError, match="another recipe"):
        Training(recipe(**{**VALUES, "lr": 0.02}), data, run, compile=False)
    (run / "checkpoint.safetensors").write_bytes((run / "checkpoint.safetensors").read_bytes()[:1000])
    with pytest.raises(ZooError, match=r"checkpoint\.safetensors does not fit this run, or is damaged"):
        Training(recipe(**VALUES), data, run, compile=False)
