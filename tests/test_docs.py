"""What the README says is what the tables say."""

import importlib.util
import re
from pathlib import Path

import pytest

from eisnn_zoo.catalog import MODELS
from eisnn_zoo.files import add_rows, read_rows

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def test_the_results_table_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    spec = importlib.util.spec_from_file_location("results_table", ROOT / "docs" / "results_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.updated(README) == README, "run python docs/results_table.py"
    assert len(module.rows()) >= 11


def test_what_is_measured_again_keeps_its_place_in_a_table(tmp_path):
    table = tmp_path / "results" / "table.csv"
    add_rows(table, ["model", "batch"], [{"model": m, "batch": b, "ms": 10} for m in "ab" for b in (1, 32)])
    rows = add_rows(table, ["model", "batch"], [{"model": "a", "batch": 32, "ms": 7}, {"model": "c", "batch": 1, "ms": 5, "note": "new"}])
    assert [(row["model"], int(row["batch"]), int(row["ms"])) for row in rows] == [("a", 1, 10), ("a", 32, 7), ("b", 1, 10), ("b", 32, 10), ("c", 1, 5)]
    assert read_rows(table)[1] == {"model": "a", "batch": "32", "ms": "7", "note": ""} and read_rows(tmp_path / "none.csv") == []


@each_page
def test_names_exist(page):
    named = set(re.findall(r"\b(?:ei|bn)_(?:vgg|resnet|mlp)\d+\w*", page.read_text("utf-8")))
    assert named <= set(MODELS), named - set(MODELS)


@each_page
def test_links_lead_somewhere(page):
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text) + re.findall(r'src="(?!https?:)([^"]+)"', text):
        assert (page.parent / target).exists(), target


@each_page
def test_commands_and_their_options_exist(page):
    from typer.main import get_command

    from eisnn_zoo.cli import app

    commands = get_command(app).commands
    text = page.read_text("utf-8").replace("\\\n", " ")
    for line in re.findall(r"(?:^|`|&& )(?:\S*/)?eisnn-zoo ([a-z]+[^`\n#&|]*)", text, re.M):
        name, *rest = line.split()
        assert name in commands, line
        known = {option for command in (commands[name], *getattr(commands[name], "commands", {}).values())
                 for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.partition("=")[0] for word in rest if word.startswith("--")} - {"--help"}
        assert used <= known, f"{line}: {used - known}"


def test_the_citation_is_the_cards():
    from eisnn_zoo.sharing.card_text import BIBTEX

    assert f"```bibtex\n{BIBTEX}\n```" in README
