"""Recording a training run changes nothing, survives a kill, and is drawn as what it was."""

from __future__ import annotations

import csv
import random
import re
import signal
import time
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from training_helpers import digits, recipe, same, start, weights

from eisnn_zoo.analysis.evolution import Evolution, coefficient, mean_of, read_evolution, silent_layers, zeros
from eisnn_zoo.analysis.evolution_figures import course, whole
from eisnn_zoo.analysis.evolution_studies import evolution_studies
from eisnn_zoo.analysis.histograms import BINS, NOT_FINITE, ZERO, count, quantiles, shares
from eisnn_zoo.analysis.snapshot import load_snapshots, take
from eisnn_zoo.ei_init import initialize
from eisnn_zoo.errors import ZooError
from eisnn_zoo.networks import build
from eisnn_zoo.training.engine import Training
from eisnn_zoo.training.record import choose_epochs, planned, record

# Everything that could tell a recorded run from another: averaged weights, dropped-in random numbers, T grown on the way.
VALUES = {"epochs": 3, "ema": 0.9, "mixup": 0.2, "time_steps": {0: 1, 1: 2}, "batch_size": 60}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    torch.set_num_threads(1)
    return digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def recorded(data, tmp_path_factory):
    """A run that nobody interrupted, recorded at every epoch but one."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    training = Training(recipe(**VALUES), data, folder, compile=False)
    record(training, [0, 1, 3])
    training.fit()
    return folder


def kept(run):
    return {p.name: p.read_bytes() for p in (run / "evolution").glob("epoch_*")}


# ---- histograms --------------------------------------------------------------------------------------------------------


def test_histograms_know_their_entries():
    x = torch.tensor([0.0, 0.0, 1.0, -1.0, 30.0, float("inf"), float("nan"), 1e-12, 1e20])
    counts = count(x)
    assert counts.shape == (BINS,) and counts.sum() == 9
    assert counts[ZERO] == 2 and counts[NOT_FINITE] == 2
    assert counts[:ZERO].sum() == 1 and counts[ZERO + 1] == 1 and counts[NOT_FINITE - 1] == 1  # too small, too large
    c = counts.numpy()
    assert shares(c, np.array([-2, -0.5, 0.5, 2, 100])) == pytest.approx(np.array([1, 3, 1, 1]) / 7)


def test_quantiles_of_a_known_distribution():
    x = torch.linspace(-1, 3, 40_001)
    found = quantiles(count(x).numpy(), (0.05, 0.5, 0.95))
    assert found == pytest.approx([-0.8, 1.0, 2.8], rel=0.01)
    assert quantiles(count(x).numpy(), (0.5,), positive=True) == pytest.approx([1.5], rel=0.01)
    mostly = torch.cat([torch.zeros(60), torch.ones(40)])
    assert quantiles(count(mostly).numpy(), (0.3,)) == [0.0]
    assert quantiles(count(mostly).numpy(), (0.3,), positive=True) == pytest.approx([1.0], rel=0.03)
    assert quantiles(count(torch.zeros(3)).numpy(), (0.5,), positive=True) == [None]


def test_a_snapshot_says_what_the_network_does(tmp_path):
    model = build("ei_mlp2_mnist", time_steps=3, threshold=0.7)
    x = torch.rand(12, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    initialize(model, x, seed=0)
    layer = model.stages[0].layers[0]
    with torch.no_grad():
        layer.current.ee.weight[:100] = 0
        layer.current.b_e[:50] = -1e3  # never fire
    snapshot = take(model, x.split(5), epoch=7)
    path = snapshot.save(tmp_path)
    assert path.name == "epoch_0007.npz" and path.stat().st_size < 60_000
    (again,) = _read(tmp_path)
    assert (again.epoch, again.images, again.time_steps, again.threshold) == (7, 12, 3, 0.7)
    assert again.activity == snapshot.activity
    run = Evolution("run", [again], [])
    assert "(threshold: 0.7)" in evolution_studies(run)[-1].seen[-1]
    (membranes,) = [ax for ax in whole(run).axes if ax.get_title("left") == "membrane"]
    assert [line.get_xdata() for line in membranes.lines if line.get_linestyle() == ":"] == [[0.7, 0.7]]
    name, w_ee = snapshot.activity[0]["layer"], layer.current.ee.weight
    assert snapshot.histograms[name, "W_EE"][ZERO] == (w_ee == 0).sum()
    assert zeros(snapshot, name, ("W_EE",)) == pytest.approx((w_ee == 0).double().mean().item())
    assert snapshot.histograms[name, "I"].sum() == 12 * 500  # a still image's current counts once,
    assert snapshot.histograms[name, "membrane"].sum() == 3 * 12 * 500  # its membrane at every step
    assert snapshot.histograms[name, "rate"][ZERO] >= 50 and snapshot.histograms[name, "rate"].sum() == 500
    low, middle = quantiles(snapshot.histograms[name, "I"], (0.01, 0.5))
    assert low < -900 < middle


def _read(folder):
    (folder / "evolution").mkdir()
    for path in folder.glob("epoch_*"):
        path.rename(folder / "evolution" / path.name)
    return load_snapshots(folder)


# ---- recording ---------------------------------------------------------------------------------------------------------


def test_recording_changes_nothing(data, recorded, tmp_path):
    plain = tmp_path / "run"
    Training(recipe(**VALUES), data, plain, compile=False).fit()
    assert same(weights(plain), weights(recorded)) and same(weights(plain, "best"), weights(recorded, "best"))
    assert not (plain / "evolution").exists()
    assert [s.epoch for s in load_snapshots(recorded)] == [0, 1, 3]
    assert {s.time_steps for s in load_snapshots(recorded)} == {2}  # the last T throughout, so that epochs compare


def test_the_last_record_is_of_the_published_weights(data, recorded):
    """Which are the averaged ones."""
    last = load_snapshots(recorded)[-1]
    for key, value in weights(recorded).items():
        if key.endswith("ee.weight"):
            layer = key.removesuffix(".current.ee.weight").removesuffix(".ee.weight")
            assert np.array_equal(last.histograms[layer, "W_EE"], count(torch.from_numpy(value)).numpy()), key


def test_a_killed_run_keeps_its_record_whole(data, recorded, tmp_path):
    rng = random.Random(5)
    run = tmp_path / "run"
    for _ in range(4):
        before = len(kept(run))
        process = start(VALUES, data, run, recorded=planned(run) or [0, 1, 3], save_every=0)
        while process.is_alive() and len(kept(run)) == before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
    process = start(VALUES, data, run, recorded=planned(run))
    process.join()
    assert process.exitcode == 0
    assert kept(run) == kept(recorded) and not list((run / "evolution").glob(".*"))
    assert same(weights(run), weights(recorded))


def test_a_run_that_stops_early_records_its_end(data, tmp_path):
    training = Training(recipe(epochs=5, stop_at=0.5), data, tmp_path / "run", compile=False)
    record(training, [0, 5])
    training.fit()
    assert [s.epoch for s in load_snapshots(tmp_path / "run")] == [0, len(training.run.history)] and len(training.run.history) < 5


def test_a_run_that_goes_on_longer_records_its_new_end(data, tmp_path):
    for epochs, lr in ((1, 2e-3), (3, {0: 2e-3, 1: 1e-3})):
        training = Training(recipe(epochs=epochs, lr=lr), data, tmp_path / "run", compile=False)
        record(training, planned(tmp_path / "run") or [0, 1])
        training.fit()
    assert [s.epoch for s in load_snapshots(tmp_path / "run")] == [0, 1, 3]


def test_layers_count_by_their_size():
    layers = [{"layer": "a", "parameter": "W_EE", "zeros": 0.5, "n": 100}, {"layer": "b", "parameter": "W_EE", "zeros": 0.0, "n": 300}]
    activity = [{"mean": 0.4, "neurons": 10}, {"mean": 5e-4, "neurons": 30}]
    s = SimpleNamespace(parameters=layers, activity=activity)
    assert (zeros(s), zeros(s, "a"), mean_of(s, "mean"), silent_layers(s)) == (0.125, 0.5, pytest.approx(0.100375), [2])


def test_the_epochs_chosen_by_default():
    assert choose_epochs("auto", 1) == [0, 1] and choose_epochs("auto", 4) == [0, 1, 2, 3, 4]
    chosen = choose_epochs("auto", 300)
    gaps = np.diff(chosen)
    assert (chosen[0], chosen[1], chosen[-1]) == (0, 1, 300) and 10 <= len(chosen) <= 13 and (np.diff(gaps) >= 0).all()


# ---- the commands ------------------------------------------------------------------------------------------------------


def test_train_record_resume_analyze(cli, data, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    settings = [f"--set={pair}" for pair in ("epochs=2", "warmup_epochs=0.5", "batch_size=50")]
    code, _, err = cli("train", "ei_mlp2_mnist", "--data", data, "--output", run, "--no-compile", "--record-at", "0,2", *settings)
    assert code == 0, err
    code, stdout, err = cli("analyze", "--evolution", run, "-o", out)
    assert code == 0, err
    keys = ("course", "distributions", "bimodality", "currents")
    assert set(stdout.split()) == {str(p) for p in out.iterdir()} == {
        str(out / name) for name in (*(f"{key}.{kind}" for key in keys for kind in ("csv", "png")), "evolution.png",
                                     "evolution.gif", "report.html")}
    with Image.open(BytesIO((out / "evolution.gif").read_bytes())) as gif:
        assert gif.n_frames == 2 and (out / "evolution.gif").stat().st_size < 300_000
    rows = list(csv.DictReader((out / "course.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "2"] and float(rows[0]["mean"]) > 0
    page = (out / "report.html").read_text("utf-8")
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*", page) and page.count("base64,") == 5
    assert not re.search(r"\bnan\b|\bNone\b", re.sub(r"base64,[^\"]*", "", page))
    again = kept(run)
    (run / "evolution" / "epoch_0002.npz").unlink()  # as if the run had stopped before
    (run / "checkpoint.safetensors").unlink()
    assert cli("train", "--resume", run)[0] == 0  # the run knows what it records
    assert kept(run) == again


def test_firing_that_collapsed_is_said(cli, data, tmp_path):
    run = tmp_path / "run"
    training = Training(recipe(model="ei_mlp4_mnist", epochs=1), data, run, compile=False)
    with torch.no_grad():
        training.model.stages[1].layers[0].current.b_e.fill_(-50)
    record(training, [0])
    assert silent_layers(load_snapshots(run)[0]) == [2, 3]
    code, stdout, err = cli("analyze", "--evolution", run)
    assert code == 0 and "Firing has collapsed: of 3 layers these are all but silent: 2, 3." in err
    assert "evolution.gif" not in stdout and (run / "evolution" / "report.html").exists()  # one moment does not move


def test_a_baseline_has_a_course_and_currents(cli, data, tmp_path):
    run = tmp_path / "run"
    training = Training(recipe(model="bn_mlp2_mnist", epochs=1), data, run, compile=False)
    record(training, [0, 1])
    training.fit()
    code, stdout, err = cli("analyze", "--evolution", run)
    assert code == 0 and "bimodality" not in stdout and "currents.csv" in stdout, err
    assert err.count("after epoch 1") == 1
    assert all(ax.get_visible() for ax in course(read_evolution(run)).axes)  # no place is kept for synapses that it does not have


def test_bimodality_on_the_scale_that_tells():
    assert coefficient({"parameter": "W_EE", "bimodality": 0.9, "bimodality_log": 0.4}) == 0.4
    assert coefficient({"parameter": "b_E", "bimodality": 0.9, "bimodality_log": 0.4}) == 0.9
    assert coefficient({"parameter": "W_EI", "bimodality": None, "bimodality_log": None}) is None


def test_mistakes_are_one_sentence(cli, data, recorded, tmp_path):
    run = tmp_path / "run"
    for arguments, said in (
            (("analyze", "--evolution", tmp_path / "no"), "there is no run folder"),
            (("analyze", "--evolution", tmp_path), "train with `eisnn-zoo train RECIPE --record`"),
            (("analyze", "--evolution", tmp_path, "ei_vgg8_cifar10"), "leave out MODEL, --data, --what and --twin"),
            (("analyze",), "name a network and its data, or a recorded run"),
            (("train", "ei_mlp2_mnist", "--data", data, "-o", run, "--record-at", "0,x"), "--record-at 0,x: all, or epochs from 0"),
            (("train", "ei_mlp2_mnist", "--data", data, "-o", run, "--record-at", "101"), "to 100, separated by commas")):
        code, stdout, err = cli(*arguments)
        assert code == 2 and not stdout and said in err and err.count("\n") == 1, err
    assert not run.exists()
    (tmp_path / "evolution").mkdir()
    whole = kept(recorded)["epoch_0001.npz"]
    for broken in (b"", whole[:200], whole[:-400], b"PK" + b"x" * 500):
        (tmp_path / "evolution" / "epoch_0001.npz").write_bytes(broken)
        with pytest.raises(ZooError, match=r"epoch_0001\.npz is no record of an epoch, or is damaged"):
            load_snapshots(tmp_path)
