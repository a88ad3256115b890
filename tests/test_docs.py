"""What the README says is what the tables say."""

import importlib.util
import re
from pathlib import Path

from eisnn_zoo.catalog import MODELS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_the_results_table_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    spec = importlib.util.spec_from_file_location("results_table", ROOT / "docs" / "results_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.updated(README) == README, "run python docs/results_table.py"
    assert len(module.rows()) >= 11


def test_names_in_the_readme_exist():
    named = set(re.findall(r"\b(?:ei|bn)_(?:vgg|resnet|mlp)\d+\w*", README))
    assert named and named <= set(MODELS), named - set(MODELS)


def test_links_in_the_readme_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", README) + re.findall(r'src="(?!https?:)([^"]+)"', README):
        assert (ROOT / target).exists(), target


def test_commands_in_the_readme_exist():
    from typer.main import get_command

    from eisnn_zoo.cli import app

    commands = set(get_command(app).commands)
    used = set(re.findall(r"^(?:\S*/)?eisnn-zoo ([a-z]+)", README, re.M)) | set(re.findall(r"`eisnn-zoo ([a-z]+)", README))
    assert used and used <= commands, used - commands


def test_the_citation_is_the_cards():
    from eisnn_zoo.sharing.card import BIBTEX

    assert f"```bibtex\n{BIBTEX}\n```" in README
