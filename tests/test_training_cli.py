"""The commands train, reproduce, finetune, eval and recipes, as a person types them."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from training_helpers import digits

from eisnn_zoo.locating import from_anywhere, locate
from eisnn_zoo.shipped import examples_folder
from eisnn_zoo.training import engine
from eisnn_zoo.training.finetune import LR, LR_FROZEN, finetune_recipe
from eisnn_zoo.training.recipe_file import recipe_names
from eisnn_zoo.training.run import Run
from eisnn_zoo.weights import create_model

PICTURE = next((examples_folder() / "cifar10").glob("*.png"))
QUICK = [f"--set={pair}" for pair in ("epochs=2", "warmup_epochs=0.5", "batch_size=50")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    torch.set_num_threads(1)
    return digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def trained(cli, data, tmp_path):
    run = tmp_path / "trained"
    assert cli("train", "ei_mlp2_mnist", "--data", data, "--output", run, "--no-compile", *QUICK)[0] == 0
    return run


def test_a_run_is_judged_on_what_it_was_trained_on(cli, tmp_path):
    """Not on what its model's name says; and a folder is no dataset because it has its name."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "CIFAR-10 test"
    folder.mkdir()
    for split, n in (("train", 40), ("test", 20)):
        np.savez(folder / f"{split}.npz", x=rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), y=np.arange(n) % 10)
    run = tmp_path / "run"
    assert cli("train", "ei_mlp2_mnist", "--data", folder, "--output", run, "--no-compile", *QUICK, "--set", "dataset=cifar10")[0] == 0
    found = json.loads(cli("eval", run, "--data", folder, "-f", "json")[1])
    assert found["data"] == "CIFAR-10 test" and found["images"] == 20 and found["difference"] == 0
    found = json.loads(cli("eval", "ei_vgg8_cifar10", "--data", folder, "--dataset", "folder", "-f", "json")[1])
    assert found["data"] == f"{folder}, its validation split" and found["expected_top1"] is None


def test_recipes(cli):
    code, out, _ = cli("recipes", "list", "--format", "json")
    rows = {row["recipe"]: row for row in json.loads(out)}
    assert code == 0 and list(rows) == recipe_names() and rows["ei_vgg8_cifar10"]["paper_top1"] == 87.03
    code, out, err = cli("recipes", "show", "ei_vgg8_cifar10", "--set", "lr=5e-3")
    assert code == 0 and err == "" and yaml.safe_load(out)["lr"] == 5e-3
    code, out, err = cli("recipes", "keys")
    assert code == 0 and "batch_size *" in out and "sgd, muon" in out and err.startswith("* also {first epoch: value}")
    code, out, err = cli("recipes", "show", "ei_vgg8_cifar1")
    assert (code, out) == (2, "") and err.startswith("Error: there is no recipe 'ei_vgg8_cifar1', did you mean 'ei_vgg8_cifar10")


def test_train_then_resume_then_eval(cli, data, trained, tmp_path):
    recipe = yaml.safe_load((trained / "recipe.yaml").read_text())
    assert (recipe["epochs"], recipe["batch_size"], recipe["lr"]) == (2, 50, 2e-3)
    code, out, err = cli("train", "--resume", trained)
    assert (code, out) == (0, "") and "finished already" in err and f"now: eisnn-zoo predict PICTURE --model {trained}" in err
    code, _, err = cli("train", "--resume", trained, "--set", "seed=3")
    assert code == 2 and "with another seed" in err
    code, _, err = cli("train", "--resume", trained, "--set", "epochs=3", "--set", "lr={0: 2e-3, 2: 1e-3}")
    assert code == 0 and "epoch   3" in err
    code, out, err = cli("eval", trained, "--data", data, "--output", tmp_path / "report", "--format", "json")
    found = json.loads(out)
    history = list(csv.DictReader((trained / "metrics.csv").open()))
    assert code == 0 and found["top1"] == max(float(row["valid_top1"]) for row in history) == found["expected_top1"]
    assert found["images"] == 50 and found["difference"] == 0 and found["top5"] >= found["top1"] and found["images_per_s"] > 0
    assert sum(row["images"] for row in found["per_class"]) == 50
    everything = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert np.sum(everything["confusion"]) == sum(bar["images"] for bar in everything["calibration"]) == 50
    assert 0 <= found["calibration_error"] <= 100 and sum(bar["right"] for bar in everything["calibration"]) == found["top1"] / 2
    for name in ("confusion.png", "calibration.png"):
        with Image.open(tmp_path / "report" / name) as picture:
            assert min(picture.size) > 300


def test_a_compiled_run_goes_on_where_no_compiler_is(cli, trained, monkeypatch):
    environment = json.loads((trained / "environment.json").read_text())
    (trained / "environment.json").write_text(json.dumps({**environment, "compile": True}))
    monkeypatch.setenv("CXX", "no-such-compiler")
    longer = ("--set", "epochs=3", "--set", "lr={0: 2e-3, 2: 1e-3}")
    code, _, err = cli("train", "--resume", trained, *longer)
    assert code == 2 and err.count("\n") == 1 and "no-such-compiler" in err and "--no-compile" in err
    code, _, err = cli("train", "--resume", trained, *longer, "--no-compile")
    assert code == 0 and "this run began compiled and goes on otherwise" in err and "epoch   3" in err


def test_resume_takes_device_and_trackers_from_the_run_and_says_where_threads_are_others(cli, trained):
    begun = json.loads((trained / "environment.json").read_text())
    threads = torch.get_num_threads() + 1
    for changed, code, said in (({"device": "tpu9"}, 2, "--device tpu9"), ({"report_to": ["nobody"]}, 2, "cannot report to 'nobody'"),
                                ({"threads": threads}, 0, f"(OMP_NUM_THREADS={threads} keeps it exact)"),
                                ({"processes": 2, "torch": "2.5"}, 0, "began in 2 processes and goes on in 1: "),
                                ({"torch": "2.5", "device_name": "Abacus"}, 0, "began with torch 2.5 and goes on with "),
                                ({"device_name": "Abacus"}, 0, "began on Abacus and goes on with ")):
        (trained / "environment.json").write_text(json.dumps({**begun, **changed}))
        got, _, err = cli("train", "--resume", trained)
        assert got == code and said in err, err


@pytest.mark.parametrize("changed", [{"data": 5}, {"device": 5}, {"report_to": 5}, {"report_to": [[]]}, "[" * 100_000])
def test_a_run_folder_edited_by_hand_is_one_sentence(cli, trained, changed):
    path = trained / "environment.json"
    path.write_text(changed if isinstance(changed, str) else json.dumps({**json.loads(path.read_text()), **changed}))
    code, _, err = cli("train", "--resume", trained)
    assert code in (1, 2) and err.count("Error: ") == err.count("\n") == 1 and "should not happen" not in err, err


def test_a_checkpoint_without_sound_progress_is_one_sentence(cli, trained):
    path = trained / "checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    progress = json.loads(metadata["progress"])
    save_file(tensors, path, {**metadata, "progress": json.dumps({**progress, "step": "x"})})
    code, _, err = cli("train", "--resume", trained)
    assert code == 1 and "checkpoint.safetensors does not fit this run, or is damaged" in err and "Traceback" not in err


@pytest.mark.parametrize("environment", [{"WORLD_SIZE": "abc"}, {"WORLD_SIZE": "2"}])
def test_processes_that_torchrun_did_not_start(cli, data, tmp_path, monkeypatch, environment):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, _, err = cli("train", "ei_mlp2_mnist", "--data", data, "--output", tmp_path / "run", *QUICK)
    assert code == 2 and "start them by torchrun, or unset WORLD_SIZE" in err


def test_another_ratio_of_cells_trains_and_loads(cli, data, tmp_path):
    run = tmp_path / "run"
    assert cli("train", "ei_mlp2_mnist", "--data", data, "--output", run, "--no-compile", *QUICK, "--set", "ei_ratio=10")[0] == 0
    layer = create_model(str(run)).stages[0].layers[0].current
    assert (layer.n_e, layer.n_i) == (500, 50)
    Image.new("L", (28, 28), 90).save(tmp_path / "grey.png")
    code, out, err = cli("predict", tmp_path / "grey.png", "--model", run, "--format", "json")
    assert code == 0 and len(json.loads(out)[0]["top"]) == 5, err


def test_reproduce_writes_one_row(cli, data, tmp_path):
    table = tmp_path / "results" / "results.csv"
    for _ in range(2):  # the second time there is nothing left to train, and the row is replaced
        code, out, err = cli("reproduce", "ei_mlp2_mnist", "--data", data, "--output", tmp_path / "run", "--results", table,
                             "--no-compile", *QUICK)
        assert code == 0 and "last epoch" in out and "best epoch" in out and "test set" in err
    (row,) = csv.DictReader(table.open())
    history = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert float(row["top1_last"]) == float(history[-1]["valid_top1"])
    assert float(row["top1_best"]) == max(float(r["valid_top1"]) for r in history)
    assert (row["model"], row["validation"], row["test_rows"], row["train_rows"]) == ("ei_mlp2_mnist", "test set", "50", "200")
    assert len(row["weights_sha256"]) == len(row["test_sha256"]) == len(row["recipe_sha256"]) == 64
    assert int(row["peak_memory_mb"]) > 50 and row["torch"] == torch.__version__
    code, _, err = cli("reproduce", "ei_mlp2_mnist", "--data", data, "--output", tmp_path / "short", "--results", table, "--no-compile",
                       "--set", "stop_at=1", *QUICK)
    assert code == 0 and "validation top-1 of 1 % reached in epoch 1" in err and "epochs: 1," in err
    assert [row["epochs"] for row in csv.DictReader(table.open())] == ["2", "1"] and (tmp_path / "short" / "curves.png").exists()
    table.write_text("a,b\n1,2\n")
    code, _, err = cli("reproduce", "ei_mlp2_mnist", "--data", data, "--output", tmp_path / "new", "--results", table, "--no-compile", *QUICK)
    assert code == 1 and "is no table of results" in err and table.read_text() == "a,b\n1,2\n"
    assert not (tmp_path / "new").exists(), "said before the training"


@pytest.mark.parametrize("options, saved", [((), 1), (("--save-every", 0), 12)])
def test_checkpoints_come_as_often_as_is_asked(cli, data, tmp_path, monkeypatch, options, saved):
    """After each of eight iterations, and before and after each evaluation; else, in a short run, at its end alone."""
    monkeypatch.setattr(engine, "APART", 60.0)
    saves, save = [], Run.save_checkpoint
    monkeypatch.setattr(Run, "save_checkpoint", lambda *args: saves.append(1) or save(*args))
    assert cli("train", "ei_mlp2_mnist", "--data", data, "--output", tmp_path / "run", "--no-compile", *options, *QUICK)[0] == 0
    assert len(saves) == saved


@pytest.mark.parametrize("classes, freeze", [(1, False), (3, True), (3, False)])
def test_finetune_then_predict(cli, trained, tmp_path, classes, freeze):
    rng = np.random.default_rng(0)
    for label in range(classes):
        folder = tmp_path / "shapes" / f"shape{label}"
        folder.mkdir(parents=True)
        for i in range(12):
            image = rng.integers(0, 90, (40, 40)).astype(np.uint8)
            image[label * 13 : label * 13 + 13] += 150
            Image.fromarray(image).save(folder / f"{i}.png")
    run = tmp_path / "tuned"
    code, out, err = cli("finetune", "--model", trained, "--data", tmp_path / "shapes", "--output", run, "--epochs", 2,
                         "--set", "precision=fp32", "--set", "holdout=3", *(["--freeze"] if freeze else []))
    assert (code, out) == (0, "") and "3 training images held out" in err and f"--model {run}" in err
    assert ("a single class, shape0, of which every answer is right" if classes == 1 else "3 classes: shape0, shape1, shape2") in err
    before, after = create_model(str(trained)), create_model(str(run / "last"))
    assert after.num_classes == classes and all(p.min() >= 0 for n, p in after.named_parameters() if not n.endswith("b_e"))
    kept = [torch.equal(p, q) for p, q in zip(before.stages.parameters(), after.stages.parameters())]
    assert all(kept) if freeze else (classes == 1 or not all(kept))
    assert Run.existing(run).recipe.lr == (LR_FROZEN if freeze else LR), "the output layer alone learns from larger steps"
    code, out, _ = cli("predict", tmp_path / "shapes" / "shape0" / "0.png", "--model", run, "--format", "json", "--device", "cpu")
    (answer,) = json.loads(out)
    assert code == 0 and {t["label"] for t in answer["top"]} == {f"shape{i}" for i in range(classes)}
    for named in (), ("--dataset", "folder"):
        code, out, _ = cli("eval", run, "--data", tmp_path / "shapes", *named, "--format", "json")
        assert code == 0 and json.loads(out)["images"] == 12 * classes
    code, _, err = cli("eval", run, "--data", trained)
    assert code == 2 and "belongs to no dataset of the zoo" in err
    code, _, err = cli("card", run)
    assert code == 2 and f"`hf upload ORG/NAME {run}/best`" in err
    code, _, err = cli("eval", "ei_mlp4_mnist", "--data", tmp_path / "shapes")
    assert code == 1 and "holds no MNIST" in err and "your own pictures are for `eisnn-zoo finetune`" in err


def test_a_table_that_cannot_be_written_is_said_before_training(cli, data, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = cli("reproduce", "zoo_mlp4_mnist", "--data", data, "--results", tmp_path / "file" / "x.csv", "--output", tmp_path / "run")
    assert code == 2 and f"--results {tmp_path / 'file'}" in err and "is a file" in err and not (tmp_path / "run").exists()


def test_weights_that_are_no_longer_published_are_named_with_the_way_out(cli, data, tmp_path):
    code, _, err = cli("train", "zoo_mlp4_mnist", "--data", data, "--set", "weights=ei_mlp4_mnist.gone", "--output", tmp_path / "run")
    assert code == 2 and "weights = ei_mlp4_mnist.gone: " in err and "--set weights=RUN/best takes" in err


def test_a_folder_named_like_weights_is_not_what_is_finetuned(trained, tmp_path, monkeypatch):
    """The name means the weights wherever it is said."""
    shutil.copytree(trained, tmp_path / "ei_vgg8_cifar10")
    monkeypatch.chdir(tmp_path)
    tuned = finetune_recipe("ei_vgg8_cifar10", {})
    assert locate(tuned.weights) == locate("ei_vgg8_cifar10") and from_anywhere(tuned.weights) == "ei_vgg8_cifar10"
    assert (tuned.augment, finetune_recipe("ei_mlp4_mnist", {}).augment) == ("crop_flip", "none"), "a digit has no mirror image"


@pytest.mark.parametrize("options, twice", [
    (["--set", "weights=x"], "--model"), (["--lr", 0.1, "--set", "lr=0.2"], "--lr"), (["--epochs", 2, "--set", "epochs=3"], "--epochs"),
    (["--freeze", "--set", "freeze=false"], "--freeze")])
def test_what_is_said_twice_is_refused(cli, data, options, twice):
    code, _, err = cli("finetune", "--model", "ei_mlp4_mnist", "--data", data, *options)
    assert code == 2 and f"and {twice} say the same thing" in err


def test_frozen_by_a_key_is_frozen_by_the_option():
    assert finetune_recipe("ei_mlp4_mnist", {"freeze": True}).lr == LR_FROZEN != finetune_recipe("ei_mlp4_mnist", {}).lr


def test_a_run_that_goes_on_by_its_recipe_says_what_changed(cli, data, trained):
    path = trained / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "processes": 2, "compile": True}))
    again = "train", "ei_mlp2_mnist", "--data", data, "--output", trained, *QUICK
    assert "began in 2 processes and goes on in 1: " in (err := cli(*again, "--no-compile")[2]) and "began compiled and goes on" in err
    assert "began compiled" not in cli(*again)[2], "as it began"


def test_weights_named_by_a_relative_path_are_found_from_elsewhere(cli, trained, data, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    settings = "--set", "weights=base", "--set", "teacher=local-dir:base", "--set", "distillation=0.5", *QUICK
    code, _, err = cli("train", "ei_mlp2_mnist", "--data", data, "--output", "run", "--no-compile", *settings)
    assert code == 0, err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, _, err = cli("train", "--resume", tmp_path / "run")
    assert code == 0, err


def test_eval_says_that_a_whole_folder_holds_training_images(cli, data, tmp_path):
    run = tmp_path / "run"
    np.savez(tmp_path / "digits.npz", **np.load(data / "train.npz"), label_names=list("0123456789"))
    data = tmp_path / "digits.npz"
    code, _, err = cli("finetune", "--model", "ei_mlp4_mnist", "--data", data, "--output", run, "--epochs", 1)
    assert code == 0 and "trained on images that are held out" not in err, "published weights know no pictures of one's own"
    assert json.loads((run / "last" / "config.json").read_text())["eisnn_zoo"]["held_out"] == 20, "a tenth"
    found = json.loads(cli("eval", run, "--data", data, "--dataset", "folder", "--format", "json")[1])
    assert "too high a figure" in found["data"]


def test_eval_matches_classes_by_name_not_by_order(cli, trained, tmp_path):
    """Folders sort their classes their own way: a digit's folder means the digit."""
    for label in ("7", "3"):
        (tmp_path / "some" / label).mkdir(parents=True)
        Image.new("L", (28, 28), 5).save(tmp_path / "some" / label / "0.png")
    code, out, _ = cli("eval", trained, "--data", tmp_path / "some", "--dataset", "folder", "--format", "json")
    assert code == 0 and {row["class"] for row in json.loads(out)["per_class"] if row["images"]} == {"3", "7"}
    (tmp_path / "some" / "3").rename(tmp_path / "some" / "cat")
    code, _, err = cli("eval", trained, "--data", tmp_path / "some", "--dataset", "folder")
    assert code == 1 and "a class 'cat' that" in err


@pytest.mark.parametrize("arguments, code, said", [
    (["train"], 2, "name a recipe and its data"),
    (["train", "ei_vgg8_cifar10"], 2, "name a recipe and its data"),
    (["train", "ei_mlp2_mnist", "--resume", "x"], 2, "--resume takes everything from the run"),
    (["train", "--resume", "x", "--report-to", "wandb"], 2, "--resume takes everything from the run"),
    (["train", "--resume", "nowhere"], 2, "nowhere is no run"),
    (["train", "ei_mlp2_mnist", "--data", "nowhere"], 2, "there is no folder nowhere"),
    (["train", "ei_mlp2_mnist", "--data", ".", "--set", "lr"], 2, "--set lr: write key=value"),
    (["train", "ei_mlp2_mnist", "--data", ".", "--device", "tpu9"], 2, "--device tpu9"),
    (["train", "ei_mlp2_mnist", "--data", ".", "--output", __file__], 2, "is a file: name a folder"),
    (["train", "ei_mlp2_mnist", "--data", ".", "--device", "cpu", "--compile"], 2, "needs the C++ compiler no-such-compiler"),
    (["reproduce", "ei_vgg8_cifar10", "--data", "."], 1, "holds no CIFAR-10: unpack"),
    (["finetune", "--model", "ei_mlp4_mnist", "--data", ".", "--output", "."], 2, "is the folder of the data"),
    (["finetune", "--model", "ei_mlp4_mnist", "--data", str(PICTURE)], 2, "a single picture: give the folder"),
    (["eval", "ei_vgg8_cifar10", "--data", "nowhere"], 2, "make it and unpack https"),
    (["info", "."], 2, "info knows the zoo's own models"),
    (["eval", "gone.onnx", "--data", "."], 2, "there is no file gone.onnx"),
    (["finetune", "--model", "ei_mlp12_mnist", "--data", "."], 2, "has no trained weights"),
    (["eval", "ei_mlp12_mnist", "--data", "."], 2, "has no trained weights"),
    (["eval", "ei_mlp4_mnist", "--data", ".", "--output", "report.png"], 2, "that is the name of a file: name a folder"),
])
def test_mistakes_are_one_sentence(cli, tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    got, out, err = cli(*arguments)
    assert (got, out) == (code, "") and said in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_mlp_is_finetuned_at_its_own_size(cli, data, tmp_path):
    code, _, err = cli("finetune", "--model", "ei_mlp4_mnist", "--data", data / "train.npz", "--set", "resolution=14", "--output", tmp_path / "run")
    assert code == 2 and "they take images of 28 x 28 pixels, and these have 14 x 14" in err


def test_eval_refuses_another_datasets_classes(cli, trained, data):
    for name, said in (("cifar100", "cannot be measured on CIFAR-100: classes: 10, there 100"), ("mnst", "there is no dataset 'mnst'")):
        code, _, err = cli("eval", trained, "--data", data, "--dataset", name)
        assert code > 0 and said in err


def test_help_imports_no_torch():
    code = ("import sys; from eisnn_zoo.cli import app\n"
            "for command in ('train', 'reproduce', 'finetune', 'eval', 'recipes'):\n"
            "    try: app([command, '--help'])\n"
            "    except SystemExit as stop: assert not stop.code\n"
            "print(sorted({'torch', 'timm', 'matplotlib', 'yaml'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_eval_by_time_and_early_exit(cli, data, trained, tmp_path):
    whole = json.loads(cli("eval", trained, "--data", data, "--time-steps", 3, "--format", "json")[1])
    code, out, err = cli("eval", trained, "--data", data, "--time-steps", "1,3", "--early-exit", 1, "--output", tmp_path, "--format", "json")
    found = json.loads(out)
    assert code == 0, err
    assert [row["time_steps"] for row in found["by_time"]] == [1, 3]
    assert found["by_time"][1]["top1"] == pytest.approx(whole["top1"], abs=2.1)  # one image of 50 may tip
    (early,) = found["early_exit"]
    assert early["top1"] == found["by_time"][1]["top1"] and early["average_steps"] == 3  # nobody is ever wholly sure
    assert json.loads((tmp_path / "time_steps.json").read_text()) == found and (tmp_path / "time_steps.png").stat().st_size > 5000
    assert json.loads(cli("eval", trained, "--data", data, "-T", "1,2", "--early-exit", 0.01, "--format", "json")[1])["early_exit"][0]["average_steps"] == 1
    for wrong in (["--time-steps", "1,x"], ["--time-steps", "0"], ["--early-exit", "1.5"]):
        code, out, err = cli("eval", trained, "--data", data, *wrong)
        assert code == 2 and out == "" and wrong[0] in err
