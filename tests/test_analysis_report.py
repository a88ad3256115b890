"""analyze and explain end to end on a small network: files, page, sentences. The browser test is slow."""

import csv
import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eisnn_zoo.config import base_config, find_model

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from eisnn_zoo.analysis import explain as module
from eisnn_zoo.analysis.batches import Batches
from eisnn_zoo.analysis.explain import _example, explain, occlusion
from eisnn_zoo.analysis.prose import PROSE, Prose
from eisnn_zoo.analysis.report import render, section, still
from eisnn_zoo.analysis.response import Response, respond
from eisnn_zoo.analysis.studies import EI_ONLY, STUDIES
from eisnn_zoo.analysis.subject import Subject, decimals, microjoules
from eisnn_zoo.cli import analyze as command
from eisnn_zoo.ei_init import initialize
from eisnn_zoo.figures import new, to_png
from eisnn_zoo.networks import build
from eisnn_zoo.training import plots
from eisnn_zoo.weights import create_model


@cache
def small(kind: str = "ei"):
    model = build(f"{kind}_mlp2_mnist")
    torch.manual_seed(0)
    initialize(model, torch.rand(8, 1, 28, 28), seed=0)
    return model.eval()


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    x = rng.integers(0, 256, (24, 28, 28, 1), dtype=np.uint8)
    x[0] = 0  # a black image: silence in the first layer
    np.savez(folder / "test.npz", x=x, y=rng.integers(0, 10, 24))
    return folder


class FakeActivity(dict):
    def __init__(self, values, **attributes):
        super().__init__(values)
        vars(self).update(attributes)


def rows(path):
    return list(csv.DictReader(path.open()))


def test_every_study_is_named_and_described_once():
    assert tuple(STUDIES) == command.STUDIES == tuple(PROSE)
    assert set(EI_ONLY) < set(STUDIES)


def test_analyze_writes_a_report_that_needs_nothing_else(cli, model_folder, mnist, tmp_path):
    out = tmp_path / "out"
    twin = model_folder("bn_mlp2_mnist")
    code, stdout, stderr = cli("analyze", model_folder("ei_mlp2_mnist"), "--data", mnist, "--images", 12, "--batch-size", 5,
                               "--twin", twin, "-o", out)
    assert code == 0, stderr
    written = {f"{out / key}.{kind}" for key in STUDIES for kind in ("csv", "png")} | {str(out / "report.html")}
    assert set(stdout.split()) == written == {str(p) for p in out.iterdir()}
    for key in STUDIES:
        assert rows(out / f"{key}.csv")
        assert (out / f"{key}.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text("utf-8")
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*", page)  # nothing from outside
    assert "url(" not in page and "<script" not in page
    assert page.count("data:image/png;base64,") == len(STUDIES)
    assert all(f'id="{key}"' in page and PROSE[key].title in page for key in STUDIES)
    words = re.sub(r"base64,[^\"]*", "", page)
    assert not re.search(r"\bnan\b|\bNone\b", words)
    energy = rows(out / "energy.csv")
    assert {r["variant"] for r in energy} == {"ei", "folded", "bn", "ann"}
    assert {r["networks"] for r in rows(out / "similarity.csv")} == {"this network", "this network • the twin"}
    assert "10</b><span>images" in page  # two images make no batch for CKA and are left out


def test_analyze_a_baseline(cli, model_folder, mnist, tmp_path):
    out = tmp_path / "out"
    code, _, stderr = cli("analyze", model_folder("bn_mlp2_mnist"), "--data", mnist, "--what", "gain,balance,rates", "-o", out)
    assert code == 0, stderr
    assert "balance left out" in stderr
    assert {p.name for p in out.iterdir()} == {"rates.csv", "rates.png", "gain.csv", "gain.png", "report.html"}


def test_numbers_in_sentences():
    assert [decimals(x) for x in (-0.001, 0.456)] == ["0.00", "0.46"]
    assert [microjoules(x) for x in (2222.2, 115.4)] == ["2,222 µJ", "115 µJ"]


def test_analyze_sentences(cli, model_folder, mnist, tmp_path):
    folder = model_folder("bn_mlp2_mnist")
    for arguments, words in ((("--what", "rates,soul"), "--what rates,soul: choose all"),
                             (("--what", "lesion"), "some of rates, balance"),
                             (("--what", "balance"), "asks of inhibition"),
                             (("--output", mnist / "test.npz"), "is a file: name a folder"),
                             (("--data", tmp_path / "none"), "no folder")):
        code, stdout, stderr = cli("analyze", folder, "--data", mnist, "-o", tmp_path / "out", *arguments)
        assert code and not stdout
        assert words in stderr and "Traceback" not in stderr


def test_explain_command(cli, model_folder, tmp_path):
    from PIL import Image

    picture = tmp_path / "seven <b>.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)).save(picture)
    out = tmp_path / "why"
    code, stdout, stderr = cli("explain", picture, "--model", model_folder("ei_mlp2_mnist"), "-o", out)
    assert code == 0, stderr
    assert stdout.split() == [str(out / "explain.png"), str(out / "report.html")]
    page = (out / "report.html").read_text("utf-8")
    assert "seven &lt;b&gt;.png" in page  # names are text, not markup
    assert "The network says" in stderr
    code, _, stderr = cli("explain", tmp_path / "none.png", "--model", model_folder("ei_mlp2_mnist", "other"))
    assert (code, "no such file" in stderr) == (1, True)


@pytest.mark.parametrize("classes", [10, 17])  # of 17 and more sorting mixes equal values
def test_a_network_that_says_nothing_is_explained(classes, tmp_path):
    model = build("ei_mlp2", num_classes=classes).eval()
    model.mark_initialised()
    names = tuple(f"$class_{k}" + "$" * (k % 2) for k in range(classes))  # no formulas
    found = explain(model, torch.zeros(1, 28, 28), names)
    to_png(found.figure)
    assert found.seen == ["No spike reaches the output layer: the network has no answer, all classes are as probable.",
                          "0.0 % of its neurons fired at all."]
    plots.confusion(np.eye(classes), names, tmp_path / "confusion.png")


@torch.no_grad()
def test_it_is_said_from_which_step_the_answer_stands():
    model = create_model("ei_mlp4_mnist.zoo").eval()
    pictures = torch.rand(40, 1, 28, 28, generator=torch.Generator().manual_seed(0)).square()
    answers = model.forward_evidence(pictures).cumsum(0).argmax(2).T.tolist()  # of each picture, by step
    for picture, by_step in zip(pictures, answers):
        if len(set(by_step)) > 1:
            changed = max(t for t, k in enumerate(by_step) if k != by_step[-1])  # from 0; the answer stands from the next
            assert explain(model, picture, tuple("abcdefghij")).facts["answer stands from step"] == str(changed + 2)
            return
    raise AssertionError("no answer changed")


def test_networks_without_classes_are_refused(cli, mnist, model_folder, tmp_path):
    folder, picture = model_folder("ei_mlp2_mnist", global_pool=""), next((Path(__file__).parent / "data" / "mnist").glob("*.png"))
    for arguments in (["analyze", folder, "--data", mnist], ["analyze", "ei_mlp4_mnist", "--data", mnist, "--twin", folder],
                      ["explain", picture, "--model", folder, "--output", tmp_path / "x"]):
        code, _, err = cli(*arguments)
        assert code == 2 and "gives features, no classes" in err


def test_every_study_of_events_and_of_one_layer():
    """A recording is not an image: its events are lost, not its contrast."""
    frames = torch.poisson(torch.full((8, 3, 2, 8, 8), 0.4), generator=torch.Generator().manual_seed(0))
    model = build("ei_mlp2", in_chans=2, input_size=(8, 8), time_steps=3, event_input=True)
    initialize(model, frames, seed=0)
    subject = Subject(model, Batches(frames, torch.arange(8) % 10, lambda x: x, 4))
    found = {key: study(subject) for key, study in STUDIES.items()}
    words = " ".join(sentence for study in found.values() for sentence in study.seen)
    assert "image" not in words and "recording" in words and "of 3 frames" in words and "light" not in words
    assert {r["changed"] for r in found["gain"].rows} == {"weight of an event", "share of events kept"}
    assert {r["intervention"] for r in found["interventions"].rows} >= {"Events lost", "Events weaker"}
    weaker = [r["top1"] for r in found["interventions"].rows if r["how"] == "as it is"]
    assert len(set(weaker)) == 1  # what an event counts is divided out exactly
    energy = {r["input"] for r in found["energy"].rows if r["layer"] == "stages.0.layers.0"}
    assert energy == {"spikes"}  # an event costs an accumulation, as a spike does
    assert not any(study.figure.axes == [] for study in found.values())
    assert "of 1 layer." in words and not re.search(r"1 layers|quietest|last layer", words)


def study(key: str, model, twin=None):
    """On eight images of MNIST's size; its figure is drawn."""
    x = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    found = STUDIES[key](Subject(model, Batches(x, torch.arange(8) % 10, lambda x: x, 4), twin))
    to_png(found.figure)
    return found


def deep(kind: str = "ei"):
    model = build(f"{kind}_mlp4_mnist")
    initialize(model, torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(1)), seed=0)
    return model.eval()


@pytest.mark.parametrize("name", ["ei_mlp4_mnist", "ei_resnet18"])  # the second has more layers than are drawn
def test_weights_and_gains_of_a_layer_are_drawn_side_by_side(name):
    ridges = study("parameters", build(name)).figure.axes[:5]  # W_EE, W_IE, W_EI, g_I, g_E; all b_E are 0
    assert len({ax.get_ylim() for ax in ridges}) == 1
    layers = [[tuple(ridge.get_facecolor()[0]) for ridge in ax.collections] for ax in ridges]
    assert len(layers[0]) > 3 and all(own == layers[0] for own in layers)


def test_an_axis_in_percent_has_no_other_labels():
    axis = study("trains", small()).figure.axes[0].yaxis
    labels = [text.get_text() for text in axis.get_ticklabels(which="both") if text.get_text()]
    assert labels and all(re.fullmatch(r"[\d.]+%", text) for text in labels)


def test_a_baseline_has_no_empty_axes():
    found = study("gain", small("bn"))
    assert [ax.get_title("left") for ax in found.figure.axes] == ["Light", "Contrast"]
    assert found.seen[0].startswith("The first layer's current follows the light with exponent") and "division" not in "".join(found.seen)
    result = explain(small("bn"), torch.rand(1, 28, 28), tuple("abcdefghij"))
    assert all(ax.get_visible() and ax.has_data() for ax in result.figure.axes) and "subtractive" not in result.reading
    assert result.figure.axes[-1].get_xlabel() == "time step"


def test_a_silent_layer_has_no_similarity():
    model = deep()
    with torch.no_grad():
        model.stages[1].layers[0].current.b_e.fill_(-50)
    found = study("similarity", model, deep())
    assert "These layers of this network are silent, or answer all images alike, and are left empty: 2, 3." in found.seen
    assert not any("of the twin are silent" in sentence for sentence in found.seen)
    empty = {(r["layer"], r["with_layer"]) for r in found.rows if r["networks"] == "this network" and r["cka"] is None}
    assert empty == {(f"stages.{i}.layers.0", f"stages.{j}.layers.0") for i in range(3) for j in range(3) if max(i, j) > 0}
    assert not re.search("nan", " ".join([*found.seen, *(text.get_text() for ax in found.figure.axes for text in ax.texts)]))


def test_a_twin_of_another_depth_is_not_compared_layer_by_layer():
    twin, other = small("bn"), deep("bn")
    assert "The same layers of the two networks agree at" in " ".join(study("similarity", small(), twin).seen)
    found = study("similarity", small(), other)
    assert found.seen[:2] == ["The network has a single layer.", "The twin has other layers (3, this network 1): each is compared with each."]
    words = [[text.get_text() for text in study("energy", small(), t).figure.axes[0].get_yticklabels()] for t in (twin, other)]
    assert "BN twin, its own spikes" in words[0] and "BN twin, the same spikes" in words[1]


def test_lesions_are_of_whole_cells():
    model = build("ei_mlp4_mnist", ei_ratio=50)  # 10, 10 and 6 inhibitory cells
    initialize(model, torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(1)), seed=0)
    found = study("interventions", model)
    assert {r["level"]: r["cells"] for r in found.rows if r["how"] == "random"} == {0.02: 0, 0.05: 0, 0.1: 3, 0.25: 6}
    assert "(0 of 26, 0.0 %)" in found.seen[1]
    assert sorted(found.figure.axes[0].lines[0].get_xdata()) == pytest.approx([0, 0, 0, 3 / 26, 6 / 26])


def test_calibration_shows_how_many_images_there_are(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(plots, "to_png", lambda figure, dpi: drawn.append(figure) or to_png(figure, dpi))
    plots.calibration(np.array([[0, 0, 0], [1, 0.5, 1], [400, 350, 360]]), tmp_path / "calibration.png")
    shares, images = ([bar.get_height() for bar in ax.patches] for ax in drawn[0].axes)
    assert shares == [1, 0.9] and images == [1, 400]


@torch.no_grad()
def test_explanation_agrees_with_the_network():
    labels = tuple("abcdefghij")
    x = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(3))
    for kind in ("ei", "bn"):
        model = small(kind)
        before = model(x[None])
        result = explain(model, x.numpy(), labels)
        p = before.softmax(1)[0]
        assert result.label == labels[p.argmax()]
        assert result.probability == pytest.approx(p.max().item(), abs=1e-6)
        assert torch.equal(model(x[None]), before)
        assert not any(m._forward_hooks for m in model.modules())


def test_explain_frames_of_events():
    model = build("ei_mlp2", in_chans=2, input_size=(8, 8), time_steps=2, event_input=True)
    frames = torch.poisson(torch.full((2, 2, 8, 8), 0.3), generator=torch.Generator().manual_seed(0))
    initialize(model, torch.stack([frames, frames.flip(-1)]), seed=0)
    result = explain(model, frames, tuple(f"gesture {i}" for i in range(10)))
    assert result.facts["time steps T"] == "2"


def test_occlusion_finds_the_part_that_counts():
    class Corner(torch.nn.Module):  # class 1 is the light in the upper left quarter
        def forward(self, x):
            light = x[:, 0, :4, :4].mean((1, 2))
            return torch.stack([torch.full_like(light, 0.5), light], 1)

    x = torch.zeros(1, 16, 16)
    x[0, :4, :4] = 1
    worth = occlusion(Corner(), x, target=1)
    assert worth[:4, :4].min() > 0
    assert worth[8:, 8:].abs().max() == 0
    assert worth.max() == worth[:4, :4].max()


def test_occlusion_paints_in_the_pictures_own_colour():
    class Light(torch.nn.Module):
        def forward(self, x):
            return torch.stack([torch.zeros(len(x)), x.mean((1, 2, 3))], 1)

    assert occlusion(Light(), torch.full((1, 16, 16), 0.5), target=1).abs().max() == 0


def test_the_cell_that_is_shown_fired_at_half_of_the_steps():
    spikes = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])[:, None]
    membrane = torch.tensor([[1.0, 1.0, 0.0], [9.0, 0.5, 0.0]])[:, None]
    layer = SimpleNamespace(lif=SimpleNamespace(threshold=1.0))
    activity = FakeActivity({"spikes": spikes, "membrane": membrane, "I": membrane}, layer=layer, literal=None)
    assert _example(activity, 1).spikes.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("classes, stands", [([0, 1, 0, 0], 3), ([1, 1, 1, 1], 1), ([0, 0, 0, 1], 4)])
def test_an_answer_stands_once_it_stays(classes, stands, monkeypatch):
    """Also where another class leads by no more than rounding."""
    evidence = torch.zeros(4, 10)
    so_far = torch.nn.functional.one_hot(torch.tensor(classes), 10).float()
    monkeypatch.setattr(Response, "evidence_so_far", property(lambda self: so_far))
    monkeypatch.setattr(module, "respond", lambda *args: replace(respond(*args), evidence=evidence + 1))
    assert explain(small(), torch.rand(1, 28, 28), tuple("abcdefghij")).facts["answer stands from step"] == str(stands)


def test_evidence_is_the_mean_logit_so_far_less_that_of_all_classes():
    evidence = torch.tensor([[3.0, 1.0], [1.0, 5.0]])
    assert Response(evidence, {}).evidence_so_far.tolist() == [[1.0, -1.0], [-0.5, 0.5]]


def test_a_twin_of_other_inputs_is_refused(cli, model_folder, mnist):
    code, _, err = cli("analyze", model_folder("ei_mlp2_mnist"), "--data", mnist, "--twin", model_folder("bn_vgg8"))
    assert code == 2 and "takes other inputs than" in err
    events = base_config(find_model("ei_vgg8_nmnist"))
    assert command._inputs(events) != command._inputs(replace(events, options={**events.options, "event_input": False}))


def test_the_page_escapes_names():
    figure, _ = new()
    picture = section("key", Prose("T", "Q?", "", "<b>bold</b>"), ["5 < 6"], still(b"png", figure))
    page = render("<script>", "a & b", {"<i>": "1 < 2"}, [picture], "Images drawn with seed 7.")
    assert "Images drawn with seed 7. Layers are numbered" in page
    assert "<script>" not in page and "5 &lt; 6" in page and "1 &lt; 2" in page and "<b>bold</b>" in page


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_report_opens_in_a_browser(cli, model_folder, mnist, tmp_path):
    out = tmp_path / "out"
    code, _, stderr = cli("analyze", model_folder("ei_mlp2_mnist"), "--data", mnist, "-o", out, "--what", "rates,balance")
    assert code == 0, stderr
    page = out / "report.html"
    check = ("<script>window.onerror = m => document.title = 'error ' + m; window.onload = () => document.title = "
             "[...document.images].every(i => i.complete && i.naturalWidth > 500) ? 'all pictures' : 'missing';</script>")
    (out / "checked.html").write_text(page.read_text("utf-8").replace("</main>", "</main>" + check), "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
               "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}",
               "--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1200,1600"]
    dom = subprocess.run([CHROMIUM, *options, "--dump-dom", (out / "checked.html").as_uri()], capture_output=True, text=True,
                         timeout=120)
    assert "<title>all pictures</title>" in dom.stdout
    shot = tmp_path / "report.png"
    subprocess.run([CHROMIUM, *options, f"--screenshot={shot}", page.as_uri()], capture_output=True, timeout=120, check=True)
    from PIL import Image

    assert np.asarray(Image.open(shot).convert("L")).std() > 10  # something was drawn
