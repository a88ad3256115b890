"""The table of ablations says what happened to the runs it is given."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from training_helpers import digits, recipe

from eisnn_zoo.errors import UsageError
from eisnn_zoo.training.engine import Diverged, Training
from eisnn_zoo.training.record import record

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def ablations():
    sys.path.insert(0, str(DOCS))
    try:
        spec = importlib.util.spec_from_file_location("ablations", DOCS / "ablations.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["ablations"] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    data = digits(folder / "data")
    changes = {"whole": {}, "no_init": {"init": "default"}, "no_ste": {"stabilisation": "no_ste"}, "ratio16": {"ei_ratio": 16},
               "no_scaling": {"scale_w_ei_gradient": False}, "no_stabilisation": {"stabilisation": "none"}, "longer": {"epochs": 3}}
    for name, change in changes.items():
        training = Training(recipe(**{"model": "ei_mlp4_mnist", **change}), data, folder / name, compile=False)
        if name == "no_stabilisation":
            training.data.train.x[:100] = 0
        record(training, [] if name == "no_scaling" else [0, 2])
        if name == "no_stabilisation":
            with pytest.raises(Diverged):
                training.fit()
        else:
            training.fit()
    return folder


def test_the_table_says_what_happened(ablations, runs, tmp_path):
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "ablations.md"
    page.write_text("before\n<!-- ablations -->\nold\n<!-- end of ablations -->\nafter\n")
    names = ("no_ste", "ratio16", "no_stabilisation", "no_init", "whole", "no_scaling")
    ablations.write([runs / name for name in names], tmp_path)
    rows = list(csv.DictReader((tmp_path / "results" / "ablations.csv").open()))
    assert [row["ablation"] for row in rows] == [
        "the whole method", "without E-I Init", "without adaptive stabilization", "without the straight-through estimator",
        "without the 1/d scaling", "E:I ratio 16:1"]
    found = {row["ablation"]: row for row in rows}
    whole = found["the whole method"]
    assert whole["outcome"] == "learns" and float(whole["top1_epoch_2"]) > 20 and float(whole["mean_rate"]) > 0.01
    assert found["without E-I Init"]["outcome"].startswith("firing collapses: layers ")
    assert found["without adaptive stabilization"]["outcome"].startswith("numbers explode: the loss is ")
    assert found["without adaptive stabilization"]["top1_epoch_1"] == ""
    assert found["without the straight-through estimator"]["outcome"].startswith("nothing changes: the weights are those")
    assert "the whole method" in found["E:I ratio 16:1"]["outcome"]
    assert found["without the 1/d scaling"]["mean_rate"] == ""  # not recorded
    text = page.read_text()
    assert text.startswith("before") and text.endswith("after\n") and "old" not in text
    assert all(f"| {name} |" in text for name in found) and "seed 2025" in text
    with Image.open(tmp_path / "docs" / "ablations.png") as picture:
        assert min(picture.size) > 300


def test_runs_that_are_no_ablations_of_one(ablations, runs, tmp_path):
    with pytest.raises(UsageError, match=r"differs from .* in more than an ablation: epochs"):
        ablations.write([runs / "whole", runs / "longer"], tmp_path)
    with pytest.raises(UsageError, match="one of the whole method"):
        ablations.write([runs / "no_ste"], tmp_path)
    with pytest.raises(UsageError, match="is no run"):
        ablations.write([tmp_path], tmp_path)
    assert not list(tmp_path.iterdir())
