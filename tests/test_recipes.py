"""Recipes: the paper's tables row by row, and one clear sentence for every mistake."""

from __future__ import annotations

import pytest
import yaml

from eisnn_zoo.catalog import MODELS, RELEASED
from eisnn_zoo.training.recipe import Recipe
from eisnn_zoo.training.recipe_file import RecipeError, check_recipe, find_recipe, load_recipe, parse_value, recipe_names
from eisnn_zoo.training.recipe_keys import annotated, recipe_keys

# Release's recipes: batch, peak step size, epochs of warm-up (the table of the paper's recipes), T, augmentation.
PAPER = {
    "vgg8_cifar10": (128, 2e-3, 10, 4, "cifar"), "vgg11_cifar10": (128, 2e-3, 10, 4, "cifar"),
    "vgg16_cifar10": (128, 1e-3, 30, 4, "cifar"), "vgg19_cifar10": (128, 1e-3, 30, 4, "cifar"),
    "resnet18_cifar10": (128, 1e-3, 30, 4, "cifar"), "vgg16_cifar100": (128, 1e-3, 30, 4, "cifar"),
    "vgg19_cifar100": (128, 1e-3, 30, 4, "cifar"), "vgg8_cifar10dvs": (32, 1e-3, 10, 10, "cifar10dvs"),
    "vgg11_cifar10dvs": (32, 1e-3, 10, 10, "cifar10dvs"), "vgg8_dvsgesture": (32, 1e-3, 10, 16, "dvsgesture"),
    "resnet18_tinyimagenet200": (128, 3e-3, 10, 4, "tinyimagenet"),
}


@pytest.mark.parametrize("row", RELEASED)
def test_every_row_of_the_paper(row):
    recipe = load_recipe(f"ei_{row}")
    got = (recipe.batch_size, recipe.lr, recipe.warmup_epochs, recipe.final_steps, recipe.augment)
    assert got == PAPER[row]
    assert (recipe.model, recipe.epochs, recipe.optimizer, recipe.momentum, recipe.weight_decay) == (f"ei_{row}", 300, "sgd", 0.9, 5e-4)
    assert recipe.warmup_lr == (1e-3 if "tiny" in row else 1e-7)
    assert recipe.paper[0] == RELEASED[row] and "best epoch on the test set" in recipe.paper[1]
    assert (recipe.holdout, recipe.label_smoothing, recipe.ema, recipe.mixup, recipe.clip_grad) == (0, 0, 0, 0, 0)


def test_every_recipe_is_valid_and_trains_a_model_with_its_data():
    names = recipe_names()
    for name in names:
        recipe = load_recipe(name)
        assert MODELS[recipe.model].dataset.name == recipe.dataset
        assert name.startswith(("zoo_", "ablation_")) or name == recipe.model
    assert {f"bn_{r}" for r in ("vgg8_cifar10", "vgg11_cifar10", "vgg16_cifar10", "vgg19_cifar10", "resnet18_cifar10",
                                "vgg16_cifar100", "vgg19_cifar100", "resnet18_cifar100")} <= set(names)
    assert {f"ei_mlp{d}_mnist" for d in (2, 4, 6, 8, 12, 16)} | {"ei_vgg8_nmnist"} <= set(names)


@pytest.mark.parametrize("name", [n for n in recipe_names() if n.startswith("bn_")])
def test_baselines(name):
    recipe = load_recipe(name)
    assert (recipe.lr, recipe.weight_decay, recipe.warmup_epochs, recipe.batch_size) == (0.1, 1e-4, 0, 128)
    assert recipe.paper[0] == (95.37 if name == "bn_resnet18_cifar10" else None)


def test_ablations_leave_out_one_thing_each():
    full = load_recipe("ei_vgg8_cifar10").model_dump()
    different = {}
    for name in ("no_init", "no_stabilisation", "no_ste", "no_scaling"):
        recipe = load_recipe(f"ablation_{name}_vgg8_cifar10")
        assert recipe.ablates and recipe.paper[0] is None
        different[name] = {k: v for k, v in recipe.model_dump().items() if v != full[k] and k != "about"}
    assert different == {"no_init": {"init": "default"}, "no_stabilisation": {"stabilisation": "none"},
                         "no_ste": {"stabilisation": "no_ste"}, "no_scaling": {"scale_w_ei_gradient": False}}
    for key, value in (("ei_ratio", "8"), ("dataset", "cifar100"), ("time_steps", "1"), ("resolution", "64")):
        assert load_recipe("ei_vgg8_cifar10", {key: value}).paper[0] is None  # the paper's figure is another network's, or of other data
    for key, value in (("dataset", "cifar100"), ("time_steps", "1"), ("resolution", "16")):
        assert load_recipe("bn_resnet18_cifar10", {key: value}).paper == (None, ""), "nor one that the recipe states"
    assert load_recipe("bn_resnet18_cifar10", {"epochs": "10", "time_steps": "{0: 1, 9: 4}"}).paper[0] == 95.37
    assert load_recipe("bn_resnet18_cifar10", {"time_steps": "1", "paper_top1": "90"}).paper[0] == 90
    assert load_recipe("zoo_vgg8_cifar10").paper == load_recipe("ei_vgg8_cifar10").paper


def test_what_is_shown_can_be_read_again(tmp_path):
    recipe = load_recipe("zoo_vgg8_cifar10", {"lr": "4e-3", "time_steps": "{0: 1, 5: 2}"})
    assert (recipe.lr, recipe.at("time_steps", 4), recipe.at("time_steps", 5), recipe.final_steps) == (4e-3, 1, 2, 2)
    for text in (recipe.dump(), annotated(recipe)):
        (tmp_path / "shown.yaml").write_text(text)
        again = load_recipe(tmp_path / "shown.yaml")
        assert again == recipe and again.sha256 == recipe.sha256
    assert load_recipe("zoo_vgg8_cifar10").sha256 != recipe.sha256
    assert set(yaml.safe_load(recipe.dump())) == set(Recipe.model_fields)


def test_every_key_says_what_it_means():
    rows = {row["key"]: row for row in recipe_keys()}
    assert list(rows) == list(Recipe.model_fields) and all(row["meaning"] for row in rows.values())
    assert rows["model"]["default"] is None and rows["batch_size"]["default"] == 128
    assert rows["optimizer"]["takes"] == "sgd, muon" and (rows["lr"]["takes"], rows["epochs"]["takes"]) == ("number", "whole number")
    assert all(rows[key]["by_epoch"] for key in ("lr", "time_steps", "batch_size", "augment"))
    assert not any(rows[key]["by_epoch"] for key in ("epochs", "seed", "model", "optimizer"))


def test_texts_with_a_comment_are_the_same_texts(tmp_path):
    for about in ("one # two", "First line.\nSecond: line.\n", "it's"):
        recipe = check_recipe({"model": "ei_vgg8_cifar10", "about": about}, "a test")
        (tmp_path / "shown.yaml").write_text(annotated(recipe))
        assert load_recipe(tmp_path / "shown.yaml") == recipe


def test_values_over_the_epochs():
    recipe = load_recipe("ei_vgg8_cifar10", {"epochs": "9", "warmup_epochs": "1", "lr": "{0: 2e-3, 6: 1e-3, 40: 5e-4}",
                                             "augment": "{0: cifar, 6: crop_flip}"})
    assert recipe.cycles == [(0, 6, 2e-3), (6, 9, 1e-3)]
    assert check_recipe({"model": "ei_vgg8", "dataset": "nmnist"}, "a test").final_steps == 10, "the dataset's T"
    assert [recipe.at("augment", epoch) for epoch in (0, 5, 6, 8)] == ["cifar", "cifar", "crop_flip", "crop_flip"]


HEAD = "# a comment\nmodel: ei_vgg8_cifar10\n"


@pytest.mark.parametrize("text, said", [
    (HEAD + "batchsize: 3", r"line 3: unknown key 'batchsize', did you mean 'batch_size'\?"),
    (HEAD + "quux: 3", r"line 3: unknown key 'quux'$"),
    ("model: ei_vgg8_cifar1", r"line 1: model = 'ei_vgg8_cifar1': unknown model .* did you mean 'ei_vgg8_cifar10'\?"),
    (HEAD + "lr: -1e-3", r"line 3: lr = -0\.001: .*greater than 0"),
    (HEAD + "lr: fast", r"line 3: lr = 'fast': .*number"),
    (HEAD + "lr: true", r"line 3: lr = True: .*number"),
    (HEAD + "lr: .nan", r"line 3: lr = nan: .*finite"),
    (HEAD + "lr: 1e300", r"line 3: lr = 1e\+300: .*less than or equal to"),
    (HEAD + "epochs: 100000000000", r"line 3: epochs = 100000000000: .*less than or equal to"),
    (HEAD + "time_steps: {0: 1, 5: 100000000}", r"line 3: time_steps = .*fit into no memory"),
    (HEAD + "resolution: 100000", r"line 3: resolution = 100000: images have 4,096 pixels a side at most"),
    (HEAD + "epochs: 3.5", r"line 3: epochs = 3\.5: .*integer"),
    (HEAD + "epochs: '3'", r"line 3: epochs = '3': .*integer"),
    (HEAD + "epochs: 5\nwarmup_epochs: 5", r"line 4: warmup_epochs = 5: the warm-up must end before"),
    (HEAD + "augment: cifra", r"line 3: augment = 'cifra': .*'cifar'"),
    (HEAD + "time_steps: {1: 2}", r"line 3: time_steps = .*begins with epoch 0"),
    (HEAD + "lr: {5: 1e-3}", r"line 3: lr = .*begins with epoch 0"),
    (HEAD + "lr: {0: fast}", r"line 3: lr = \{0: 'fast'\}: .*number"),
    (HEAD + "lr: {0: 2e-3, 8: -1.0}", r"line 3: lr = .*greater than 0"),
    (HEAD + "lr: {0: 2e-3, 20: 1e-3}\nepochs: 23\nwarmup_epochs: 3", r"line 5: warmup_epochs = 3: .*shortest cycle of lr, 3 epochs"),
    (HEAD + "augment: {1: cifar}", r"line 3: augment = .*begins with epoch 0"),
    (HEAD + "augment: {0: cifra}", r"line 3: augment = .*'cifar'"),
    (HEAD + "lr: {0:1, 30:2}", r"line 3: lr = .*write a space after each colon, as in \{0: 1, 30: 2\}"),
    (HEAD + "time_steps: false", r"line 3: time_steps = False"),
    (HEAD + "time_steps: {}", r"line 3: time_steps = \{\}: \{epoch: value\} begins with epoch 0"),
    (HEAD + "batch_size: 4\naccumulate: 8", r"line 4: accumulate = 8: a batch of 4 has no 8 parts"),
    (HEAD + "resolution: 4", r"line 3: resolution = 4: .*takes a side from 32 pixels"),
    (HEAD + "resolution: {2: 16}", r"line 3: resolution = .*begins with epoch 0"),
    ("model: ei_mlp4_mnist\nresolution: {0: 16, 2: 28}", r"line 2: resolution = .*an MLP takes images of one size"),
    ("model: ei_vgg8_nmnist\nresolution: 16", r"line 2: resolution = 16: nmnist has the size of its sensor"),
    (HEAD + "augment: cifar10dvs", r"line 3: augment = 'cifar10dvs': .*made for events, which cifar10 does not hold"),
    ("model: ei_vgg8_nmnist\naugment: {0: none, 1: cifar}", r"line 2: augment = .*cifar is made for pictures, which nmnist does not"),
    ("model: ei_mlp4_mnist\naugment: tinyimagenet", r"line 2: augment = .*the images have none"),
    ("model: ei_vgg8_nmnist\nmixup: 0.2", r"line 2: mixup = 0\.2: .*nmnist holds events"),
    (HEAD + "about: 2024-99-99", r"is not YAML"),
    (HEAD + "about: &a [x, x]\nseed: [*a, *a]", r"line 4: \*a refers to another value"),
    (HEAD + "epochs: {0: 3}\nbatch_size: 0", r"line 3: epochs = \{0: 3\}: .*integer"),
    (HEAD + "distillation: 0.3", r"line 3: distillation = 0\.3: .*set teacher to trained weights"),
    (HEAD + "deflate_epochs: 1", r"line 3: deflate_epochs = 1: .*set optimizer to muon"),
    ("model: bn_vgg8_cifar10\nhomeostasis: 0.1", r"line 2: homeostasis = 0\.1: bn_vgg8_cifar10 has BatchNorm"),
    ("model: bn_vgg8_cifar10\ninit: standardised", r"line 2: init = 'standardised': bn_vgg8_cifar10 has BatchNorm"),
    (HEAD + "weights: ei_vgg8_cifar10.zoo\ninit: standardised", r"line 4: init = 'standardised': .*this one starts from weights"),
    (HEAD + "optimizer: muon\nscale_w_ei_gradient: false", r"line 4: scale_w_ei_gradient = False: .*set optimizer to sgd"),
    ("model: ei_resnet18\ndataset: folder\nresolution: {0: 64, 3: 32}", r"line 3: resolution = .*read at the size of the last epoch"),
    (HEAD + "alpha: -1.0", r"line 3: alpha = -1\.0: a slope above 0"),
    (HEAD + "time_steps: {0: 1, 3: 0}", r"line 3: time_steps = .*from 1"),
    ("model: ei_vgg8_nmnist\ncutmix: 1.0", r"line 2: cutmix = 1\.0: .*nmnist holds events"),
    (HEAD + "adaptive: 0.5", r"line 3: adaptive = 0\.5: .*set optimizer to muon"),
    ("model: bn_vgg8_cifar10\nscale_w_ei_gradient: false", r"line 2: scale_w_ei_gradient = False: bn_vgg8_cifar10 has BatchNorm"),
    (HEAD + "weights: ei_vgg8_cifar10.zoo\nei_ratio: 8", r"line 4: ei_ratio = 8: .*this one starts from weights"),
    (HEAD + "temperature: 3.0", r"line 3: temperature = 3\.0: .*set teacher to trained weights"),
    (HEAD + "homeostasis: 2", r"line 3: homeostasis = 2: .*less than or equal to 1"),
    (HEAD + "freeze: true", r"line 3: freeze = True: .*set weights"),
    (HEAD + "weights: ei_vgg8_cifar10.zoo\nfreeze: true\nalpha: 2.0", r"line 5: alpha = 2\.0: no gradient passes"),
    (HEAD + "warmup_lr: 1e-3", r"line 3: warmup_lr = 0\.001: .*set warmup_epochs"),
    (HEAD + "teacher: bn_vgg8_cifar10\ndistillation: 1.0\nlabel_smoothing: 0.1", r"line 5: label_smoothing = 0\.1: .*teacher's alone"),
    ("model: ei_resnet18_tinyimagenet200\nresolution: {0: 32, 5: 64}", r"line 2: resolution = .*are read at 32 pixels"),
    (HEAD + "weights: ei_vgg8_cifar10.zoo\nfreeze: true\nhomeostasis: {0: 0.0, 1: 0.1}", r"line 5: homeostasis = .*a frozen network keeps them"),
    (HEAD + "ei_ratio: 0.5", r"line 3: ei_ratio = 0\.5: .*integer"),
    ("model: bn_vgg8_cifar10\nei_ratio: 8", r"line 2: ei_ratio = 8: bn_vgg8_cifar10 has BatchNorm in place of inhibitory cells"),
    (HEAD + "least_inhibition: 0.25", r"line 3: least_inhibition = 0\.25: only muon has that"),
    (HEAD + "optimizer: muon\nleast_inhibition: {0: 0.0, 3: 1.5}", r"line 4: least_inhibition = .*less than or equal to 1"),
    (HEAD + "inhibitory: 0.1", r"line 3: inhibitory = 0\.1: only muon has that"),
    ("model: bn_vgg8_cifar10\nstabilisation: none", r"line 2: stabilisation = 'none': bn_vgg8_cifar10 has BatchNorm"),
    ("model: ei_vgg8\ndataset: mnist", r"ei_vgg8 takes a side from 32 pixels"),
    (HEAD + "lr: {{ LR }}", r"line 3: a key must be a word or a number"),
    (HEAD + "lr: 1e-3\nlr: 2e-3", r"line 4: key 'lr' stands there twice"),
    (HEAD + "lr: {0: 1e-3,\n  0: 2e-3}", r"line 4: key '0' stands there twice"),
    (HEAD + "lr: [1", r"is not YAML: .*line 3"),
    ("model: ei_vgg8_nmnist\ntime_steps: {0: 1, 3: 2}", r"line 2: time_steps = .*fixed number of frames"),
    ("model: ei_vgg8", r"dataset: ei_vgg8 names no dataset"),
    ("model: ei_vgg8\ndataset: cifar11", r"line 2: dataset = 'cifar11': .*did you mean 'cifar10'\?"),
    ("lr: 1e-3", r"the key 'model' is missing"),
    ("just a text", r"holds no 'key: value' lines"),
    ("!!python/object/apply:os.getcwd []", r"is not YAML"),
])
def test_every_mistake_is_one_sentence_with_its_line(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=said) as error:
        load_recipe(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value) and error.value.exit_code == 2


def test_settings_from_the_command_line_are_checked_too():
    with pytest.raises(RecipeError, match=r"unknown key 'epoch', did you mean 'epochs'\?"):
        load_recipe("ei_vgg8_cifar10", {"epoch": "3"})
    with pytest.raises(RecipeError, match=r"^lr=\{0: 1, 0: 2\}: .*key '0' stands there twice$"):
        load_recipe("ei_vgg8_cifar10", {"lr": "{0: 1, 0: 2}"})
    with pytest.raises(RecipeError, match=r"^--set lr: lr = 'x'"):
        load_recipe("ei_vgg8_cifar10", {"lr": "x"})
    with pytest.raises(RecipeError, match=r"lr=\[1: the value is not YAML"):
        load_recipe("ei_vgg8_cifar10", {"lr": "[1"})


def test_augmentation_that_changes_under_homeostasis_is_doubted():
    values = {"model": "ei_vgg8_cifar10", "epochs": 9, "augment": {0: "trivial", 6: "cifar"}}
    assert check_recipe(values, "test").doubts == [] == check_recipe({**values, "homeostasis": {0: 0.1, 6: 0.0}}, "test").doubts
    (doubt,) = check_recipe({**values, "homeostasis": 0.1}, "test").doubts
    assert "in epoch 7 augment changes from trivial to cifar" in doubt and '--set "homeostasis={0: 0.1, 6: 0}"' in doubt
    assert check_recipe({**values, "homeostasis": parse_value("homeostasis", "{0: 0.1, 6: 0}")}, "test").doubts == []


def test_values_of_epochs_that_never_come_are_doubted():
    (doubt,) = load_recipe("zoo_mlp4_mnist", {"epochs": "14"}).doubts
    assert doubt == "time_steps: 4 from epoch 15 on never comes, as training ends after epoch 14"
    assert not [name for name in recipe_names() if load_recipe(name).doubts]


@pytest.mark.parametrize("key, value", [("ei_ratio", 8), ("init", "default"), ("time_steps", 2), ("scale_w_ei_gradient", False)])
def test_another_task_has_another_figure(key, value):
    """What the paper reports of a network is no figure of another."""
    before = load_recipe("ei_vgg8_cifar10")
    assert before.task != before.model_copy(update={key: value}).task


def test_a_path_is_taken_as_it_is():
    assert load_recipe("zoo_mlp4_mnist", {"weights": "my #2/best", "about": "'it''s'"}).weights == "my #2/best"
    assert parse_value("about", "'it''s'") == "it's"


def test_a_recipe_that_is_not_there():
    with pytest.raises(RecipeError, match=r"did you mean 'ei_vgg8_cifar10'\?|did you mean 'zoo_vgg8_cifar10'\?"):
        find_recipe("ei_vgg8_cifr10")
    with pytest.raises(RecipeError, match=r"cannot read recipe .*nowhere\.yaml"):
        load_recipe("nowhere.yaml")
