import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from eisnn_zoo.catalog import MODELS
from eisnn_zoo.config import base_config
from eisnn_zoo.errors import ZooError
from eisnn_zoo.networks import build
from eisnn_zoo.sharing import card, card_text
from eisnn_zoo.table import Weights, list_weights

FACTS = {"top1": 80.5, "top1_best": 80.5, "top1_last": 80.1, "weights": "best", "valid_top1": 81.0, "validation": "5,000 training images "
         "held out", "held_out": 5000, "train_images": 45000, "epochs": 42, "epochs_planned": 42, "recipe": "zoo_vgg8_cifar10",
         "time_steps": {"0": 1, "36": 4}, "training_seconds": 5400, "test_images": 10000, "data_note": "20 of them are copies",
         "operations": {"folded": {"macs": 1e6, "microjoules": 12.0}}}


def made(name="ei_vgg8_cifar10", files=(), spec="", **facts):
    config = base_config(MODELS[name], "zoo")
    config = replace(config, options={"time_steps": 4, **config.options}, facts={**FACTS, **facts})
    row = Weights(MODELS[name], "zoo", 80.5, "best epoch by images held out", "Apache-2.0", folder="x", sha256="ab" * 32, size=10_000_000)
    return card.render(config, row, set(files), spec)


def test_the_card_is_valid_and_carries_the_result():
    text = made()
    card.check(text)
    data = ModelCard(text).data
    (result,) = data.eval_results
    assert (data.library_name, data.license, result.metric_value, result.dataset_name) == ("eisnn-zoo", "apache-2.0", 80.5, "CIFAR-10")
    assert "arxiv:2509.23253" in data.tags and "timm-compatible" in data.tags and data.datasets == ["uoft-cs/cifar10"]


def test_it_says_what_it_must():
    text = made(files={"curves.png", "recipe.yaml"})
    for words in ("Liu, Ding and Yu", "not by the authors", "not by the paper's recipe", "80.1", "81.0", "5,000 training images held out",
                  "20 of them are copies", "80 Million Tiny Images", "1.5 hours", "T = 1 from epoch 1, then T = 4 from epoch 37",
                  "curves.png", "ab" * 32, "87.03", "**No mean is subtracted", "| folded (what runs) | 1.00 |"):
        assert words in text, words
    first = text[text.index("```python"):].splitlines()[1]
    assert first == "import eisnn_zoo"
    grown = made(epochs=72, epochs_planned=72, lr={"42": 0.005, "0": 0.008, "72": 0.1}, augment={"0": "cifar", "42": "crop_flip"}, remark="Gone on with elsewhere.")
    for words in ("| 0.008 from epoch 1, then 0.005 from epoch 43 |", "| cifar from epoch 1, then crop_flip from epoch 43 |", "Gone on with elsewhere."):
        assert words in grown, words
    assert "run was not finished" not in text and "run was not finished" in made(epochs=3)
    stopped = made(epochs=3, stopped_at=87.9)
    assert "3 of at most 42: to end at 87.9 % on the 5,000 training images held out" in stopped and "not finished" not in stopped
    digest = next(w.sha256 for w in list_weights() if w.name == "bn_vgg8_cifar10.zoo")
    for name, sha, said in (("zoo", digest, ""), ("gone", digest, "not in the zoo, "), ("zoo", "cd", "not in the zoo, ")):  # others of the name
        assert f"| teacher | `bn_vgg8_cifar10.{name}` ({said}sha256 {sha}) |" in made(teacher=f"bn_vgg8_cifar10.{name}", teacher_sha256=sha)
    reproduced = made(recipe="ei_vgg8_cifar10", held_out=0, weights="best")
    assert "not by the authors, by the paper's recipe." in reproduced and "ours was chosen in the same way" in reproduced
    assert "not by the authors." in made(recipe="mine") and "ours and theirs are not chosen in the same way" in text


def test_a_network_without_spikes_is_not_called_a_spiking_one():
    text = made("ann_resnet18_cifar10", recipe="zoo_ann_resnet18_cifar10", operations={})
    for words in ("**without spikes**", "in a single pass", "Neither the network nor the recipe is the paper's", "One inference takes"):
        assert words in text, words
    for words in ("spiking-neural-network", "time steps run", "A spike is a threshold", "Dale's law: every", "at T ="):
        assert words not in text, words


def test_it_says_nothing_that_is_not_so():
    assert "best epoch by validation" in made() and "large pictures lose" in made()
    events = made("ei_vgg8_nmnist", held_out=0, validation="test set")
    assert "the scaling of gradients" not in made(optimizer="muon") and "the scaling of gradients" in made(optimizer="sgd")
    assert "best epoch on the test images" in events and "large pictures lose" not in events
    for name, dataset in (("ei_vgg8_nmnist", "N-MNIST"), ("ei_mlp4_mnist", "MNIST")):
        assert f"This is not a recipe of the paper, which has none for this network on {dataset}." in made(name, recipe="zoo_x")
    config = base_config(MODELS["ei_vgg8_cifar10"], "zoo")
    config = replace(config, options={**config.options, "ei_ratio": 8}, facts=FACTS)
    row = Weights(config.model, "zoo", 80.5, "last epoch", "Apache-2.0", folder="x", sha256="ab" * 32, size=1)
    params = sum(p.numel() for p in build("ei_vgg8_cifar10", ei_ratio=8).parameters())
    assert f"{params:,} parameters" in card.render(config, row, set())


def test_a_baseline_claims_nothing_of_inhibition():
    text = made("bn_vgg8_cifar10", recipe="zoo_bn_vgg8_cifar10", operations={"bn": {"acs": 1e6}}).replace(card_text.PAPER, "")
    for words in ("Dale", "inhibition", "E-I Init", "never negative", "5e-4"):
        assert words not in text, words
    for words in ("batch normalisation: the baseline", "not the paper's recipe", "weight decay 1e-4", "| this network |"):
        assert words in text, words


def test_it_speaks_only_of_files_that_are_there():
    assert "onnx" not in made().lower() and "curves.png" not in made() and "metrics.csv" not in made()
    assert "--model model.onnx" in made(files={"model.onnx"})
    assert 'create_model("hf-hub:me/net"' in made(spec="hf-hub:me/net") and 'create_model("ei_vgg8_cifar10.zoo"' in made()


@pytest.mark.parametrize("name", [n for n, m in MODELS.items() if m.dataset])
def test_every_model_can_have_one(name):
    text = made(name)
    card.check(text)
    assert "None" not in text and "{" not in text.replace(card_text.BIBTEX, "")


def test_of_a_configuration_that_records_nothing():
    config = base_config(MODELS["ei_mlp2_mnist"], "zoo")
    row = Weights(MODELS["ei_mlp2_mnist"], "zoo", 90.0, "somehow", "Apache-2.0", folder="x", sha256="0" * 64, size=1)
    text = card.render(config, row, set())
    card.check(text)
    assert "None" not in text


@pytest.mark.parametrize("text, word", [("# no metadata\n", "lack"), ("---\nlicense: [\n---\n", "not valid"), ("---\n- a\n---\n", "not valid")])
def test_a_card_that_is_refused(text, word):
    with pytest.raises(ZooError, match=word):
        card.check(text)


def test_command_and_file(tmp_path, cli, model_folder):
    from eisnn_zoo.config import read_config
    from eisnn_zoo.table import put_row

    folder = model_folder("ei_mlp2_mnist", "zoo", folder=tmp_path / "hub" / "ei_mlp2_mnist.zoo")
    row = Weights(MODELS["ei_mlp2_mnist"], "zoo", 90.0, "somehow", "Apache-2.0", folder=folder.name, sha256="0" * 64, size=1)
    put_row(row, folder.parent / "weights.toml")
    code, out, err = cli("card", folder)
    assert code == 0 and out == card.of_folder(folder, row), err
    loads = re.search(r'import eisnn_zoo\nimport timm\n.*?(?=\ntransform)', out, re.S)[0]
    subprocess.run([sys.executable, "-c", loads], cwd=folder.parent, check=True)
    card.write(folder, read_config(folder / "config.json"), row)
    assert (folder / "README.md").read_text() == out and "value: 90.0" in (folder / ".eval_results" / "mnist.yaml").read_text()
    assert cli("card", folder, "--output", tmp_path / "card.md")[1] == "" and (tmp_path / "card.md").read_text() == out
    assert json.loads((folder / "config.json").read_text())["architecture"] == "ei_mlp2_mnist"
    assert cli("card", "ei_nothing")[0] == 2
