"""What the README says is what the tables say."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import eisnn_zoo
from eisnn_zoo.catalog import MODELS
from eisnn_zoo.files import add_rows, read_rows
from eisnn_zoo.sharing import card
from eisnn_zoo.table import list_weights
from eisnn_zoo.training.recipe_file import load_recipe, recipe_names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *(ROOT / f / "README.md" for f in ("benchmarks", "results")),
         *sorted((ROOT / "hub").glob("*/README.md")), ROOT / "CHANGELOG.md"]
BEFORE = {getattr(load_recipe(name), key) for name in recipe_names() for key in ("weights", "teacher")}  # named for what came of them
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@pytest.fixture
def script(monkeypatch):
    """A script of docs/, as a module: script("ingredients")."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))

    def load(name: str):
        spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_the_results_table_is_up_to_date(script):
    module = script("results_table")
    assert f"<!-- results -->\n\n{module.table()}\n\n<!-- end of results -->" in README, "run python docs/results_table.py"
    assert len(module.rows()) >= 11


@pytest.mark.parametrize("row", [w for w in list_weights() if w.folder], ids=lambda row: row.name)
def test_cards_are_what_their_folders_say(row):
    folder = ROOT / "hub" / row.folder
    assert card.of_folder(folder, row) == (folder / "README.md").read_text("utf-8"), f"run eisnn-zoo card {row.name} -o {folder}/README.md"


def test_generated_tables_are_what_their_sources_say(script):
    text = (ROOT / "docs" / "training.md").read_text("utf-8")
    for name in ("ingredients", "time_to_accuracy"):
        module = script(name)
        assert module.page(read_rows(module.TABLE)) in text, f"run python docs/{name}.py"
    assert script("homeostasis").page() in text


def test_the_code_in_the_readme_runs(tmp_path, monkeypatch, capsys):
    import torch

    from eisnn_zoo.locating import locate

    monkeypatch.chdir(tmp_path)
    shutil.copy(locate("ei_vgg8_cifar10").path.parent / "model.onnx", "vgg8.onnx")
    shutil.copy(ROOT / "tests" / "data" / "cifar10" / "ship_1.png", "photo.png")
    pixels = torch.rand(2, 3, 32, 32)
    names = {"torch": torch, "pixels": pixels, "loader": [(pixels, torch.tensor([3, 5]))] * 2,
             "names": list(locate("ei_vgg8_cifar10").config.label_names)}
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(block, names)
    assert names["evidence"].shape == (4, 2, 10) and names["fast"](pixels).shape == (2, 10) and names["transform"]
    assert eisnn_zoo.create_model("local-dir:mine").initialised and locate("mine/").config.name == "ei_vgg8_cifar10"
    assert all(p.min() >= 0 for n, p in names["model"].named_parameters() if n.split(".")[-2] in ("ee", "ie", "ei")), "Dale's law is kept"
    assert capsys.readouterr().out == "ship\n"


def test_what_is_measured_again_keeps_its_place_in_a_table(tmp_path):
    table = tmp_path / "results" / "table.csv"
    add_rows(table, ["model", "batch"], [{"model": m, "batch": b, "ms": 10} for m in "ab" for b in (1, 32)])
    rows = add_rows(table, ["model", "batch"], [{"model": "a", "batch": 32, "ms": 7}, {"model": "c", "batch": 1, "ms": 5, "note": "new"}])
    assert [(row["model"], int(row["batch"]), int(row["ms"])) for row in rows] == [("a", 1, 10), ("a", 32, 7), ("b", 1, 10), ("b", 32, 10), ("c", 1, 5)]
    assert read_rows(table)[1] == {"model": "a", "batch": "32", "ms": "7", "note": ""} and read_rows(tmp_path / "none.csv") == []


def test_what_is_said_of_the_python_interface_is_what_the_code_says(script):
    assert script("api").page() == (ROOT / "docs" / "api.md").read_text("utf-8"), "run python docs/api.py"
    said = {name for _, names in script("api").PARTS.values() for name in names}
    assert said >= {*eisnn_zoo.__all__} - {"__version__"}, "every public name is described"


def test_two_processes_lose_no_rows_of_a_table(tmp_path):
    code = ("import sys; from pathlib import Path; from eisnn_zoo.files import add_rows\n"
            "for i in range(30): add_rows(Path(sys.argv[1]), ['who', 'i'], [{'who': sys.argv[2], 'i': i}])")
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "table.csv"), who]) for who in "ab"]
    assert [writer.wait(120) for writer in writers] == [0, 0] and len(read_rows(tmp_path / "table.csv")) == 60


@each_page
def test_names_exist(page):
    text = page.read_text("utf-8")
    named = set(re.findall(r"\b(?:ei|bn|ann)_(?:vgg|resnet|mlp)\d+\w*", text))
    assert named <= set(MODELS), named - set(MODELS)
    tagged = set(re.findall(r"\b((?:ei|bn|ann)_(?:vgg|resnet|mlp)\d+\w*\.[a-z]+)\b", text)) - {f"{name}.onnx" for name in named}
    assert tagged <= (known := {w.name for w in list_weights()} | BEFORE), tagged - known
    recipes = set(re.findall(r"\b(?:zoo|ablation)_\w+", text)) - {"zoo_"}
    assert recipes <= set(recipe_names()), recipes - set(recipe_names())


@each_page
def test_links_lead_somewhere(page):
    text = page.read_text("utf-8")
    for target in re.findall(r'src="(?!https?:)([^"]+)"', text):
        assert (page.parent / target).exists(), target
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_commands_and_their_options_exist(page):
    from typer.main import get_command

    from eisnn_zoo.cli import app

    commands = get_command(app).commands
    text = page.read_text("utf-8").replace("\\\n", " ")
    code = "\n".join(map("".join, re.findall(r"```\w*\n(.*?)```|`([^`\n]+)`|^ {4}([^\n]+)", text, re.S | re.M)))
    for line in re.findall(r"(?:^|&& )(?:\S*/)?eisnn-zoo ([a-z]+[^\n#&|]*)", code, re.M):
        name, *rest = line.split()
        assert name in commands, line
        known = {option for command in (commands[name], *getattr(commands[name], "commands", {}).values())
                 for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.partition("=")[0] for word in rest if word.startswith("--")} - {"--help"}
        assert used <= known, f"{line}: {used - known}"


def test_the_citation_is_the_cards():
    from eisnn_zoo.sharing.card_text import BIBTEX

    assert f"```bibtex\n{BIBTEX}\n```" in README
