import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from eisnn_zoo import files
from eisnn_zoo import table as weight_table
from eisnn_zoo.catalog import MODELS
from eisnn_zoo.config import base_config, find_model, read_config
from eisnn_zoo.errors import ZooError
from eisnn_zoo.files import sha256
from eisnn_zoo.locating import locate
from eisnn_zoo.sharing import card, packing
from eisnn_zoo.table import read_table
from eisnn_zoo.training.reading import read
from eisnn_zoo.training.recipe_file import load_recipe
from eisnn_zoo.weights import load_network

NAME = "ei_mlp2_mnist"
RECIPE = """model: ei_mlp2_mnist
epochs: 3
holdout: 5
batch_size: 16
time_steps: {0: 1, 1: 2}
optimizer: muon
precision: fp32
"""
METRICS = """epoch,time_steps,lr,train_loss,train_top1,valid_loss,valid_top1,images_per_s,seconds
1,1,0.008,1.5,40.0,1.4,90.0,100.0,3.0
2,2,0.007,1.2,50.0,1.1,70.0,100.0,4.0
3,2,0.006,1.1,55.0,1.2,60.0,100.0,5.0
"""


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.savez(folder / "test.npz", x=rng.integers(0, 256, (30, 28, 28, 1), np.uint8), y=rng.integers(0, 10, 30))
    return folder


@pytest.fixture
def run(tmp_path, model_folder):
    """A finished run."""
    folder = tmp_path / "run"
    folder.mkdir()
    for i, which in enumerate(("best", "last")):
        made = model_folder(NAME, folder=folder / which, time_steps=2)
        state = load_file(made / "model.safetensors")
        state["stages.0.layers.0.current.b_e"] += 0.1 * i
        save_file(state, made / "model.safetensors")
        config = json.loads((made / "config.json").read_text())
        (made / "config.json").write_text(json.dumps({**config, "eisnn_zoo": {"epoch": 2 + i}}))
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "metrics.csv").write_text(METRICS)
    (folder / "environment.json").write_text(json.dumps(
        {"data": str(tmp_path / "data"), "device": "cpu", "device_name": "A processor", "threads": 2, "train_images": 55, "torch": "2"}))
    return folder


def test_pack_makes_a_whole_model_that_loads(run, data, tmp_path, cli, monkeypatch):
    hub = tmp_path / "hub"
    code, out, err = cli("pack", run, "--tag", "zoo", "--data", data, "--hub", hub)
    assert (code, out.strip()) == (0, str(hub / f"{NAME}.zoo")), err
    folder = hub / f"{NAME}.zoo"
    assert {p.name for p in folder.iterdir()} == {"model.safetensors", "config.json", "recipe.yaml", "metrics.csv", "environment.json",
                                                  "curves.png", "README.md", ".eval_results"}
    assert [p.name for p in hub.iterdir() if p.name.startswith(".")] == []

    (row,) = read_table(hub / "weights.toml")
    assert (row.sha256, row.size) == (sha256(folder / "model.safetensors"), (folder / "model.safetensors").stat().st_size)
    config = read_config(folder / "config.json")
    facts = config.facts
    with safe_open(folder / "model.safetensors", "pt") as f:
        assert json.loads(f.metadata()["config"]) == json.loads((folder / "config.json").read_text())
        kinds = {name: f.get_tensor(name).dtype for name in f.keys()}  # noqa: SIM118
    assert kinds.pop("initialised") == torch.bool and set(kinds.values()) == {torch.float16}

    # The accuracy is that of the stored file, by another way of computing it.
    monkeypatch.setattr(weight_table, "hub_folder", lambda: hub)
    monkeypatch.setattr(weight_table, "list_weights", lambda: (row,))
    network = load_network(locate(f"{NAME}.zoo"))
    assert network.time_steps == row.time_steps == 2 and next(network.parameters()).dtype == torch.float32
    test = np.load(data / "test.npz")
    with torch.no_grad():
        right = network(torch.from_numpy(test["x"][:, None, :, :, 0] / np.float32(255))).argmax(1).numpy() == test["y"]
    assert row.top1 == facts["top1"] == facts["top1_best"] == round(100 * right.mean(), 2)
    assert (facts["epoch"], facts["valid_top1"], facts["valid_top1_last"]) == (2, 70.0, 60.0)  # the best at the final T
    assert (facts["held_out"], facts["train_images"], facts["training_seconds"], facts["test_images"]) == (5, 55, 12, 30)
    assert set(facts["operations"]) == {"ei", "folded", "bn", "ann"} and "30 test images (of 10,000)" in row.obtained
    assert os.name == "nt" or folder.stat().st_mode & 0o777 == 0o755, "others may read it"
    everything = "".join(p.read_text("utf-8") for p in folder.rglob("*") if p.suffix in (".json", ".yaml", ".md", ".csv"))
    assert str(tmp_path) not in everything


def test_a_run_is_packed_to_the_same_file_again(run, data, tmp_path, cli):
    digests = {packing.pack(run, "zoo", data, hub=tmp_path / str(i)).sha256 for i in range(4)}
    assert len(digests) == 1
    code, _, err = cli("pack", run, "--tag", "zoo", "--data", data, "--hub", tmp_path / "hub", "--license", "")
    assert code == 2 and "--license is empty" in err and not (tmp_path / "hub").exists()


def test_a_model_can_be_published_with_another_t(run, data, tmp_path, cli):
    code, _, err = cli("pack", run, "--tag", "zoo", "--data", data, "--hub", tmp_path / "hub", "--time-steps", 3)
    folder = tmp_path / "hub" / f"{NAME}.zoo"
    assert code == 0 and load_network(locate(str(folder))).time_steps == 3, err
    assert read_table(tmp_path / "hub" / "weights.toml")[0].time_steps == 3
    assert "last trained with T = 2, and run with T = 3" in (folder / "README.md").read_text()


@pytest.mark.parametrize("address", ["", "local-dir:"])
def test_a_model_says_from_which_weights_it_went_on_and_who_taught_it(address, run, data, tmp_path):
    (run / "recipe.yaml").write_text(RECIPE + f"weights: {address}{tmp_path}/begun\nteacher: {address}{tmp_path}/master\n")
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "weights_sha256": "ab12", "teacher_sha256": "cd34"}))
    row = packing.pack(run, "more", data, hub=tmp_path / "hub")
    folder = tmp_path / "hub" / f"{NAME}.more"
    card, recipe = ((folder / name).read_text() for name in ("README.md", "recipe.yaml"))
    assert row.trained.startswith("3 epochs from begun on 55 images, taught by master, ")
    assert "| begun from | `begun` (not in the zoo, sha256 ab12) |" in card and "| teacher | `master` (not in the zoo, sha256 cd34) |" in card
    assert "| teacher's part in the loss | 0.5 |" in card and "| temperature of its answers | 2.0 |" in card
    assert "weights: begun\n" in recipe and "teacher: master\n" in recipe
    assert read_config(folder / "config.json").facts["recipe_sha256"] == sha256(folder / "recipe.yaml")
    assert not [p for p in folder.iterdir() if p.is_file() and str(tmp_path).encode() in p.read_bytes()]


@pytest.mark.parametrize("stop_at, says", [(65.0, "3 of at most 9: to end at 65 % on the 5 training images held out"),
                                           (90.0, "3 of the 9 of its recipe: the run was not finished")])  # 90 % it had at another T
def test_the_card_says_why_a_run_ended_before_its_last_epoch(stop_at, says, run, data, tmp_path):
    (run / "recipe.yaml").write_text(RECIPE.replace("epochs: 3", f"epochs: 9\nstop_at: {stop_at}"))
    row = packing.pack(run, "zoo", data, hub=tmp_path / "hub")
    assert f"| epochs | {says} |" in (tmp_path / "hub" / row.folder / "README.md").read_text()


def test_packing_again_replaces_and_failing_leaves_what_was_there(run, data, tmp_path, monkeypatch):
    hub = tmp_path / "hub"
    other = packing.pack(run, "other", data, hub=hub)
    (hub / f".{NAME}.zoo.killed").mkdir()
    (going := hub / f".{NAME}.zoo.going").mkdir()
    with files.alone(going):  # as another process that packs the same does
        first = packing.pack(run, "zoo", data, hub=hub)
        assert going.is_dir() and not (hub / f".{NAME}.zoo.killed").exists()
    second = packing.pack(run, "zoo", data, which="last", hub=hub)
    assert first.sha256 != second.sha256 and "last epoch" in second.obtained
    table = (hub / "weights.toml").read_text()
    assert [row.name for row in read_table(hub / "weights.toml")] == [other.name, second.name]
    assert sha256(hub / second.folder / "model.safetensors") == second.sha256
    rename, trouble = os.replace, [OSError("in use")]

    def refused_once(source, target):
        if target == hub / second.folder and trouble:
            raise trouble.pop()
        rename(source, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="in use"):
        patch.setattr(os, "replace", refused_once)
        packing.pack(run, "zoo", data, hub=hub)
    assert sha256(hub / second.folder / "model.safetensors") == second.sha256, "what had made room for the new one is back"
    monkeypatch.setattr(card, "render", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        packing.pack(run, "zoo", data, hub=hub)
    assert sorted(p.name for p in hub.iterdir()) == [other.folder, second.folder, "weights.toml"]
    assert (hub / "weights.toml").read_text() == table
    assert sha256(hub / second.folder / "model.safetensors") == second.sha256
    (hub / "weights.toml").write_text("damaged")
    with pytest.raises(ZooError, match="no table of weights"):
        packing.pack(run, "zoo", data, hub=hub)
    assert sha256(hub / second.folder / "model.safetensors") == second.sha256


def test_a_graphics_card_has_no_threads_and_copies_of_a_dataset_are_said(run, data, tmp_path, monkeypatch):
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "device": "cuda", "device_name": "A graphics card"}))
    monkeypatch.setitem(packing.COPIES, read(MODELS[NAME].dataset, data, "test").sha256, "some rows are copies")
    row = packing.pack(run, "zoo", data, hub=tmp_path / "hub")
    text = (tmp_path / "hub" / row.folder / "README.md").read_text()
    assert row.trained.endswith("on A graphics card") and "| machine | A graphics card |" in text
    assert "The data: some rows are copies." in text


def test_the_recipe_is_named_where_the_zoo_has_it():
    """Whatever its seed is, and the precision that a machine chose."""
    recipe = load_recipe("zoo_mlp4_mnist")
    assert packing.recipe_name(recipe.model_copy(update={"seed": 3, "precision": "bf16"})) == "zoo_mlp4_mnist"
    assert packing.recipe_name(recipe.model_copy(update={"epochs": 3})) == "own"


def test_a_checkpoint_by_its_path(run, data, tmp_path):
    path = tmp_path / "some.safetensors"
    shutil.copy(run / "best" / "model.safetensors", path)
    shutil.rmtree(run / "last")
    row = packing.pack(run, "some", data, which=str(path), hub=tmp_path / "hub")
    facts = read_config(tmp_path / "hub" / row.folder / "config.json").facts
    assert row.obtained.startswith("weights of a checkpoint") and "top1_last" not in facts and "epoch" not in facts


@pytest.mark.parametrize("change, arguments, word", [
    (lambda r: None, ["--tag", "paper"], "authors"), (lambda r: None, ["--tag", "../x"], "--tag ../x"),
    (lambda r: None, ["--tag", "a", "--name", "ei_vgg8_cifar10"], "no model of mnist"),
    (lambda r: None, ["--tag", "a", "--weights", "x.pth"], "x.pth"),
    (lambda r: (r / "recipe.yaml").unlink(), ["--tag", "a"], "no run"),
    (lambda r: (r / "metrics.csv").write_text("epoch\n"), ["--tag", "a"], "metrics.csv"),
    (lambda r: (r / "environment.json").write_text("{"), ["--tag", "a"], "environment.json"),
    (lambda r: shutil.rmtree(r / "best"), ["--tag", "a"], "no best weights"),
])
def test_what_cannot_be_packed(change, arguments, word, run, data, tmp_path, cli):
    change(run)
    code, out, err = cli("pack", run, "--data", data, "--hub", tmp_path / "hub", *arguments)
    assert code in (1, 2) and out == "" and word in err and err.count("\n") == 1
    assert not list((tmp_path / "hub").glob("*")) if (tmp_path / "hub").exists() else True


def test_weights_too_large_for_half_precision(run, data, tmp_path, cli):
    state = load_file(run / "best" / "model.safetensors")
    state["stages.0.layers.0.current.b_e"][0] = 1e6
    save_file(state, run / "best" / "model.safetensors")
    code, _, err = cli("pack", run, "--tag", "a", "--data", data, "--hub", tmp_path / "hub")
    assert code == 1 and "not finite" in err and not list((tmp_path / "hub").iterdir())


def test_a_network_is_published_as_the_run_made_it(run, data, tmp_path, model_folder):
    """Its image size and its options are the run's, not those that the model's name stands for."""
    name = "ei_vgg8_cifar10"
    for which in ("best", "last"):
        shutil.rmtree(run / which)
        model_folder(name, folder=run / which, size=40, time_steps=2, ei_ratio=8, stabilisation="none")
    (run / "recipe.yaml").write_text(RECIPE.replace("ei_mlp2_mnist", name) + "resolution: 40\nei_ratio: 8\nstabilisation: none\n")
    rng = np.random.default_rng(0)
    np.savez(data / "test.npz", x=rng.integers(0, 256, (4, 32, 32, 3), np.uint8), y=[0, 1, 2, 3])
    row = packing.pack(run, "large", data, hub=tmp_path / "hub")
    folder = tmp_path / "hub" / row.folder
    config, network = read_config(folder / "config.json"), load_network(locate(str(folder)))
    assert config.input_size == (3, 40, 40) and "40 x 40" in (folder / "README.md").read_text()
    layer = network.stages[0].layers[0].current
    assert (network.time_steps, layer.n_i, layer.stabilisation) == (2, 8, "none")


def test_the_table_keeps_its_comment_and_reads_back(tmp_path):
    path = tmp_path / "weights.toml"
    path.write_text("# What it is.\n")
    row = weight_table.Weights(weight_table.MODELS[NAME], "zoo", 90.5, 'a "quoted" text \\ with µ', "Apache-2.0", folder="x", sha256="0" * 64, size=3)
    weight_table.put_row(row, path)
    weight_table.put_row(replace(row, tag="b"), path)
    assert path.read_text().startswith("# What it is.\n\n[[weights]]\n")
    weight_table.put_row(replace(row, tag="c", top1=0.0), path)  # a network that gets nothing right is a row, too
    assert read_table(path).pop().top1 == 0.0
    weight_table.put_row(replace(row, tag="c"), path)
    assert read_table(path) == [row, replace(row, tag="b"), replace(row, tag="c")] and len(tomllib.loads(path.read_text())["weights"]) == 3
    path.write_text("[[weights]]\nmodel = 3\n")
    with pytest.raises(ZooError, match="no table of weights"):
        weight_table.put_row(row, path)
    assert path.read_text() == "[[weights]]\nmodel = 3\n"


def test_publishing_a_run_packs_it_on_the_way(run, data, tmp_path, cli):
    before = sorted(p.name for p in tmp_path.iterdir())
    code, out, err = cli("publish", run, "--repo-id", "me/mine", "--dry-run")
    assert code == 2 and out == "" and "--data" in err
    code, out, err = cli("publish", run, "--repo-id", "me/mine", "--data", data, "--license", "cc-by-4.0", "--dry-run")
    assert code == 0, err
    assert "model.safetensors" in out and "README.md" in out and "all checks passed" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_two_processes_lose_no_weights_of_the_table(tmp_path):
    code = ("import sys; from pathlib import Path; from eisnn_zoo.table import MODELS, Weights, put_row\n"
            "for i in range(15): put_row(Weights(MODELS['ei_mlp4_mnist'], f'{sys.argv[2]}{i}', 9.0, 'o', 'l', folder='x'), Path(sys.argv[1]))")
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "weights.toml"), who]) for who in "ab"]
    assert [writer.wait(120) for writer in writers] == [0, 0] and len(read_table(tmp_path / "weights.toml")) == 30


def test_what_is_being_packed_is_not_taken_for_a_leftover(run, data, tmp_path, monkeypatch):
    measured, found = packing._measured, []

    def watched(weights, which, beside, *rest):
        with files.alone(beside, wait=False) as free:
            found.append(free)
        return measured(weights, which, beside, *rest)

    monkeypatch.setattr(packing, "_measured", watched)
    packing.pack(run, "zoo", data, hub=tmp_path / "hub")
    assert found == [False]


def test_a_leftover_that_is_gone_meanwhile_is_no_error(tmp_path):
    config = base_config(find_model(NAME), "zoo")
    (tmp_path / f".{config.name}.killed").symlink_to(tmp_path / "gone")
    packing._clear(tmp_path, config)
