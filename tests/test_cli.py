import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from eisnn_zoo import table
from eisnn_zoo.catalog import DATASETS, MODELS
from eisnn_zoo.cli import output
from eisnn_zoo.table import list_weights, weights_of

HEAVY = "{'torch', 'timm', 'torchvision', 'onnxruntime', 'matplotlib'}"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list"], ["list", "--pretrained"], ["info", "ei_resnet18_cifar10"], ["predict", "--help"]])
def test_light_commands_import_nothing_heavy(arguments):
    code = (f"import sys\nfrom eisnn_zoo.cli import main\nsys.argv = ['eisnn-zoo', *{arguments!r}]\ntry:\n    main()\nexcept SystemExit as stop:\n"
            f"    assert not stop.code\nprint('HEAVY', sorted({HEAVY} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("HEAVY []")


def test_list_filters(cli):
    rows = json.loads(cli("list", "--format", "json")[1])
    assert [r["model"] for r in rows] == list(MODELS)
    rows = json.loads(cli("list", "ei_*", "--dataset", "cifar10", "--sort", "params", "--format", "json")[1])
    assert rows and all(r["dataset"] == "CIFAR-10" for r in rows)
    assert [r["params_m"] for r in rows] == sorted(r["params_m"] for r in rows)
    rows = json.loads(cli("list", "--min-acc", 91, "--format", "json")[1])
    assert {r["model"] for r in rows} >= {"ei_resnet18_cifar10.paper", "ei_vgg19_cifar10.paper"} and all(r["top1"] >= 91 for r in rows)
    rows = json.loads(cli("list", "--max-params", 6, "--format", "json")[1])
    assert rows and max(r["params_m"] for r in rows) <= 6
    rows = json.loads(cli("list", "*.paper", "--format", "json")[1])
    assert len(rows) == 11 and all("paper" in r["weights"] for r in rows)
    shown = {r["model"]: r["top1"] for r in json.loads(cli("list", "--format", "json")[1])}
    assert all(shown[w.model.name] <= max(v.top1 for v in weights_of(w.model.name) if v.local) for w in list_weights() if w.local), \
        "of the weights that the name alone takes"
    tops = [r["top1"] for r in json.loads(cli("list", "--pretrained", "--sort", "top1", "--format", "json")[1])]
    assert tops == sorted(tops, reverse=True)


@pytest.mark.parametrize("arguments, word", [*(([*command, ""], "name is empty") for command in (
                                                 ["predict", __file__, "--model"], ["eval", "--data", ".", "--"], ["export"],
                                                 ["explain", __file__, "--model"], ["finetune", "--data", ".", "--model"])),
                                             (["card", "ei_mlp4_mnist.zoo", "-o", "x.safetensors"], "a card ends in .md"),
                                             (["list", "--dataset", "imagenet"], "cifar10"), (["list", "zzz"], "no model fits"),
                                             (["predict", "ei_vgg8_cifar10", __file__], "photo.png --model ei_vgg8_cifar10"),
                                             (["eval", "--model", "ei_vgg8_cifar10", "--data", "."], "eval MODEL"),
                                             (["download", "-m", "ei_vgg8_cifar10"], "download MODEL"),
                                             (["info", "ei_vgg88"], "did you mean"),
                                             (["info", "resnet18"], "did you mean ei_resnet18_cifar10 or"),
                                             (["predict", "x.png", "--model", "ei_vgg11"], "one that is here: ei_vgg11_cifar10."),
                                             (["info", "ei_vgg8_cifar10.x"], "its tags")])
def test_wrong_requests(arguments, word, cli):
    code, out, err = cli(*arguments)
    assert code == 2 and out == "" and word in err


def test_info_says_what_there_is_to_know(cli):
    code, out, _ = cli("info", "ei_resnet18_cifar10")
    assert code == 0
    for word in ("14,401,204", "2,851 million", "92.06", "CIFAR-10", "airplane", "vwOvOwv/DeepEISNN", "2509.23253"):
        assert word in out, word
    facts = json.loads(cli("info", "ei_resnet18_cifar10", "--format", "json")[1])
    assert facts["parameters"] == 14_401_204 and {row["tag"] for row in facts["weights"]} == {"paper", "zoo"}


def test_info_tells_the_cost_of_the_weights_as_published(cli, monkeypatch):
    rows = tuple(replace(w, time_steps=2) if w.name == "ei_resnet18_cifar10.zoo" else w for w in list_weights())
    monkeypatch.setattr(table, "list_weights", lambda: rows)  # as if they were published with another T than the network's own
    found = json.loads(cli("info", "ei_resnet18_cifar10", "-f", "json")[1])
    weights = next(row for row in found["weights"] if row["tag"] == "zoo")
    part = weights["time_steps"] / found["time_steps"]  # but of the first layer, which a picture passes once
    assert 0.99 * part < weights["macs_per_inference"] / found["macs_per_inference"] < 1.01 * part and part == 0.5


def test_info_of_every_model(cli):
    for name in MODELS:
        assert cli("info", name)[0] == 0


def test_no_command_shows_the_help(cli):
    code, out, err = cli()
    assert code == 2 and "predict" in out + err
    assert cli("--version")[1].strip().count(".") == 2
    assert cli("predct", "x.png")[0] == 2


def test_label_lists_fit_their_datasets():
    for dataset in DATASETS.values():
        assert len(dataset.label_names) == len(set(dataset.label_names)) == dataset.num_classes


def test_an_extra_that_holds_another_one_asks_for_both(monkeypatch):
    from eisnn_zoo.cli import output
    from eisnn_zoo.errors import ZooError

    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.1")
    with pytest.raises(ZooError) as refused:
        output.need("analysis")
    assert all(name in str(refused.value) for name in ("jinja2", "pydantic", "pyyaml", "matplotlib"))


def test_numbers_below_each_other_have_as_many_decimals():
    from eisnn_zoo.cli.output import table

    rows = [{"top1": 88.5, "T": 4, "lr": 1e-07, "value": 0.5}, {"top1": 100.0, "T": 16, "lr": 0.02, "value": "many"}, {"top1": 7, "T": 1},
            {"top1": 87.03}]
    assert table(rows).splitlines() == ["  top1   T     lr  value",
                                        " 88.50   4  1e-07  0.5",
                                        "100.00  16   0.02  many",
                                        "  7.00   1      -  -",
                                        " 87.03   -      -  -"]


def test_notes_move_no_cursor(capsys):
    output.note("a\x1b[2J\x9b2J\rb\tc\nd")
    assert capsys.readouterr().err == "a\ufffd[2J\ufffd2J\ufffdb\tc\nd\n"


@pytest.mark.parametrize("arguments", [("predict", Path(__file__).parent / "data" / "cifar10" / "ship_2.png"), ("export", "ei_mlp2_mnist"),
                                       ("benchmark", "ei_mlp2_mnist"), ("eval", "ei_mlp2_mnist", "--data", ".")])
def test_more_steps_than_fit_into_memory(cli, arguments):
    code, _, err = cli(*arguments, "--time-steps", 10_001)
    assert code == 2 and ("10000" in err or "10,000" in err), err


def test_no_line_of_empty_headings():
    assert output.table([{"key": "a", "value": 1}], {"key": "", "value": ""}) == "a  1"


def test_no_color_where_nobody_wants_it(monkeypatch):
    monkeypatch.setattr(output, "is_terminal", lambda stream: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert not output.plain(sys.stdout)
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.plain(sys.stdout)
