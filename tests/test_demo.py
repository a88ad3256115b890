"""The demo: one picture under changed inhibition, the page, the command that serves it, and the Space."""

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib")

from conftest import DATA
from training_helpers import free_port

from eisnn_zoo.analysis.interventions import scale_subtraction
from eisnn_zoo.analysis.probes import record, spiking_layers
from eisnn_zoo.analysis.response import CLASSES, Response, compare_inhibition, foremost, raster_band, raster_neurons, respond
from eisnn_zoo.locating import locate
from eisnn_zoo.networks import build
from eisnn_zoo.table import default_weights
from eisnn_zoo.weights import load_network

ROOT = Path(__file__).parent.parent
SHIP = DATA / "cifar10" / "ship_2.png"
VGG, MLP = "ei_vgg8_cifar10.zoo", "ei_mlp4_mnist.zoo"


# ---- what is computed ------------------------------------------------------------------------------------------------


@cache
def digits():
    return load_network(locate(MLP))


def digit(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_a_response_is_what_the_network_does():
    model, x = digits(), digit()
    logits, recorded = record(model, x[None], ["spikes"])
    response = respond(model, x)
    assert torch.allclose(response.probabilities, logits[0].softmax(0), atol=1e-6)
    assert torch.allclose(response.evidence_so_far[-1], logits[0] - logits.mean(), atol=1e-5)
    assert response.rates == pytest.approx([r["spikes"].mean().item() for r in recorded.values()])
    assert response.total_spikes == sum(r["spikes"].sum().item() for r in recorded.values())


@torch.no_grad()
def test_inhibition_is_changed_for_one_response_only():
    model, x = digits(), digit()
    before = model(x[None])
    trained, same = compare_inhibition(model, x)
    assert same is trained and torch.allclose(trained.evidence.mean(0), before[0], atol=1e-5)
    trained, changed = compare_inhibition(model, x, subtraction=0.5)
    with scale_subtraction(model, 0.5):
        assert torch.allclose(changed.evidence.mean(0), model(x[None])[0], atol=1e-5)
    assert changed.total_spikes > trained.total_spikes  # less is taken away
    assert compare_inhibition(model, x, division=2.0)[1].total_spikes < trained.total_spikes
    assert compare_inhibition(model, x, subtraction=50.0)[1].silent and not trained.silent
    assert torch.equal(model(x[None]), before)


@torch.no_grad()
def test_a_resnet_answers_through_its_shortcuts():
    """A last layer that is silent does not make the network so: spikes pass it by."""
    model = build("ei_resnet18").eval()
    model.mark_initialised()
    list(spiking_layers(model).values())[-1].current.b_e.fill_(-9.0)
    response = respond(model, torch.rand(3, 32, 32))
    assert not list(response.spikes.values())[-1].any() and response.evidence.any() and not response.silent


def made(evidence: list[float], *spikes: list[list[int]]) -> Response:
    return Response(torch.tensor([evidence]), {f"layer {i}": torch.tensor(s).float() for i, s in enumerate(spikes)})


def test_classes_keep_their_colours_and_the_new_leader_is_among_them():
    before = made([7.0, 6, 5, 4, 3, 2, 1], [[1]])
    assert foremost(before) == foremost(before, before) == [0, 1, 2, 3, 4]
    assert foremost(made([1.0, 9, 0, 0, 0, 0, 0], [[1]]), before) == [0, 1, 2, 3, 4]
    assert foremost(made([1.0, 0, 0, 0, 0, 0, 9], [[1]]), before) == [0, 1, 2, 3, 6]
    assert len(foremost(made([1.0, 2.0], [[1]]))) == 2 < CLASSES


def test_the_raster_shows_neurons_that_fired_in_either_response():
    before = made([0.0], [[0, 0, 1, 0], [1, 0, 1, 0]], [[0, 0], [0, 0]])
    now = made([0.0], [[0, 1, 0, 0], [0, 0, 0, 0]], [[0, 0], [0, 0]])
    neurons = raster_neurons(before, now)
    assert neurons["layer 0"].tolist() == [2, 0, 1]  # the earliest first; neuron 3 never fired
    assert neurons["layer 1"].tolist() == []
    many = Response(torch.zeros(1, 2), {"layer": torch.ones(1, 1000)})
    assert len(raster_neurons(many)["layer"]) == raster_band(1)


# ---- the page --------------------------------------------------------------------------------------------------------

gradio = pytest.importorskip("gradio", reason='pip install "eisnn-zoo[demo]"')

from eisnn_zoo import demo  # noqa: E402
from eisnn_zoo.demo import page  # noqa: E402
from eisnn_zoo.errors import UsageError  # noqa: E402


def text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html)).strip()


def test_the_answer_is_the_networks_and_follows_inhibition():
    trained = page.answer(VGG, str(SHIP), 4, 1.0, 1.0)
    assert "It says ship ." in text(trained) and "Inhibition is as trained." in text(trained)
    assert trained.count("data:image/svg+xml") == 3
    changed = page.answer(VGG, str(SHIP), 4, 0.8, 1.0)
    assert "times as many as with inhibition as trained" in text(changed) and "As trained, it says ship" in text(changed)
    assert changed.count("data:image/svg+xml") == 4  # both rasters
    silent = text(page.answer(VGG, str(SHIP), 4, 2.0, 1.0))
    assert "No answer : not one spike reaches the output." in silent
    assert text(page.answer(VGG, str(SHIP), 4, 1.0, 1.0)) == text(trained)
    assert text(page.answer(VGG, str(SHIP), 8, 1.0, 1.0)) != text(trained)


@pytest.mark.parametrize("content, word", [(None, "no such file"), (b"", "the file is empty"), (b"hello", "not an image")])
def test_what_is_no_picture_is_one_sentence_in_the_page(tmp_path, content, word):
    path = tmp_path / "my <photo>.png"
    if content is not None:
        path.write_bytes(content)
    html = page.answer(VGG, str(path), 4, 1.0, 1.0)
    assert html.startswith('<p class="problem"') and html.count("<") == 2  # the name is text, not markup
    assert word in html and str(tmp_path) not in html


def test_only_pictures_given_to_the_page_are_opened(tmp_path):
    cache, secret = tmp_path / "cache", tmp_path / "secret.png"
    cache.mkdir()
    for path in (given := cache / "given.png", secret):
        path.write_bytes(SHIP.read_bytes())
    (cache / "link.png").symlink_to(secret)
    assert page._kept({"path": str(given)}, cache) == str(given)
    for path in (secret, cache / ".." / "secret.png", cache / "link.png", ""):
        assert page._kept({"path": str(path)}, cache) is None, path
    assert page._kept(None, cache) is None and page._kept({}, cache) is None
    (read,) = [event.fn for event in page.build().fns.values()
               if event.inputs and isinstance(event.inputs[0], gradio.Image) and isinstance(event.outputs[0], gradio.State)]
    assert read({"path": str(SHIP)}) is None, "as the page is built"


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MAX_PIXELS", 1000)
    page._pixels.cache_clear()
    html = page.answer(VGG, str(SHIP), 4, 1.0, 1.0)
    assert 'class="problem"' in html and "32 x 32 pixels" in html


def test_no_picture_is_a_hint():
    assert "choose one of the examples" in page.answer(VGG, None, 4, 1.0, 1.0)


def test_only_networks_that_are_here_have_inhibition_and_take_pictures(model_folder):
    default = default_weights().name
    names = [name for _, name in page.models()]
    assert names[0] == default and {VGG, MLP} <= set(names)
    assert [name for _, name in page.models(MLP)][:2] == [MLP, default]
    own = str(model_folder("ei_mlp2_mnist"))
    assert page.models(own)[0] == (f"E-I MLP-2, {own}", own)
    with pytest.raises(UsageError, match="no inhibitory cells"):
        page.models(str(model_folder("bn_mlp2_mnist")))
    with pytest.raises(UsageError, match="recordings of events"):
        page.models(str(model_folder("ei_vgg8_nmnist")))


def test_examples_are_of_the_networks_data_one_of_each_class():
    for name, folder in ((VGG, "cifar10"), (MLP, "mnist")):
        files = [Path(p) for p in page.examples(name)]
        assert {p.parent.name for p in files} == {folder}
        assert sorted(p.name.partition("_")[0] for p in files) == sorted(locate(name).config.label_names)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_a_taken_port_and_a_foreign_address_are_one_sentence(cli):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, err = cli("demo", "--port", port)
    assert (code, out, err.count("\n")) == (2, "", 1) and f"--port {port} is taken" in err
    code, _, err = cli("demo", "--host", "203.0.113.1", "--port", free_port())  # of no machine: RFC 5737
    assert code == 2 and err.count("\n") == 1 and "203.0.113.1" in err


def test_without_gradio_the_command_says_what_to_install(cli, monkeypatch):
    from importlib.metadata import PackageNotFoundError, version

    def without(name):
        if name == "gradio":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("importlib.metadata.version", without)
    code, out, err = cli("demo")
    assert (code, out) == (1, "") and err == 'Error: this command needs gradio: pip install "eisnn-zoo[demo]"\n'
    monkeypatch.setattr("importlib.metadata.version", lambda name: "5.0" if name == "gradio" else version(name))
    code, out, err = cli("demo")
    assert (code, out) == (1, "") and 'needs gradio<7,>=6.31 (here is 5.0): pip install "eisnn-zoo[demo]"' in err


def test_another_host_is_said(cli, monkeypatch):
    launched = {}

    class Page:
        def launch(self, **options):
            launched.update(options)
            return None, "http://localhost/", None

        def close(self, verbose):
            launched["closed"] = True

    sleep = time.sleep

    def interrupted(seconds):
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        sleep(seconds)

    monkeypatch.setattr(demo, "build", lambda first: Page())
    monkeypatch.setattr(time, "sleep", interrupted)
    code, out, err = cli("demo", "--host", "0.0.0.0", "--port", free_port())
    assert (code, out) == (0, "http://localhost/\n") and "0.0.0.0: whoever can reach this machine" in err
    assert launched["server_name"] == "0.0.0.0" and launched["closed"] and launched["share"] is False
    code, _, err = cli("demo", "--port", free_port())
    assert code == 0 and "whoever" not in err and launched["server_name"] == "127.0.0.1" and not launched["inbrowser"]


@contextmanager
def served(tmp_path):
    """The command as a user starts it, and its address; ended by Ctrl-C, which must leave no traceback."""
    # A suite started in the background ignores SIGINT, and its children would inherit that.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from eisnn_zoo.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, "demo", "--no-browser", "--port", free_port()], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
                               env={**os.environ, "GRADIO_TEMP_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)})
    try:
        address = process.stdout.readline().strip()
        assert address, process.communicate()[1]
        yield address
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "Ctrl-C ends it\nended\n")
    finally:
        process.kill()
        process.wait()


def test_the_page_is_served_to_this_machine_alone(tmp_path):
    with served(tmp_path) as address:
        host, port = urllib.parse.urlsplit(address).netloc.split(":")
        assert host == "127.0.0.1"
        with urllib.request.urlopen(address, timeout=60) as answer:
            html = answer.read().decode()
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', html)
        if sys.platform == "linux":  # where all of 127.0.0.0/8 is this machine
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", int(port)), timeout=60).close()
        refused = urllib.request.Request(f"{address}gradio_api/file={ROOT / 'pyproject.toml'}")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(refused, timeout=60)


# ---- in a browser ----------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def png(width: int, height: int) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("1", (width, height)).save(out, format="png")
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_person_at_the_page(tmp_path):
    browsers = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with served(tmp_path) as address, browsers.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        requests, errors = [], []
        tab.on("request", lambda r: requests.append(r.url))
        tab.on("pageerror", lambda e: errors.append(str(e)))
        tab.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        shown = tab.locator("#shown")
        see = browsers.expect
        see.set_options(timeout=30_000)

        def upload(name: str, data: bytes) -> None:
            tab.get_by_role("button", name="Remove Image").click()
            see(shown).to_contain_text("Drop a picture")
            (tmp_path / name).write_bytes(data)
            tab.locator("#picture input[type=file]").set_input_files(tmp_path / name)

        tab.goto(address)
        see(shown).to_contain_text("It says airplane")  # the first example
        tab.locator("#model input").click()
        tab.get_by_role("option", name="VGG-8").click()  # which too much subtraction silences
        see(shown).to_contain_text("It says airplane")
        upload("ship.png", SHIP.read_bytes())
        see(shown).to_contain_text("It says ship")
        tab.get_by_role("button", name="too little subtraction").click()
        see(shown).to_contain_text("times as many as with inhibition as trained")
        see(tab.locator("#subtraction input[type=range]")).to_have_value("0.8")
        tab.locator("#subtraction input[type=range]").focus()
        tab.keyboard.press("End")
        see(shown).to_contain_text("No answer")
        tab.get_by_role("button", name="as trained", exact=True).click()
        see(shown).to_contain_text("It says ship")
        assert tab.evaluate("[...document.querySelectorAll('#shown img')].every(i => i.complete && i.naturalWidth > 20)")

        tab.locator("#model input").click()
        tab.get_by_role("option", name="MNIST").click()
        see(shown).to_contain_text("It knows 0, 1, 2")
        tab.locator("#examples button").nth(7).click()
        see(shown).to_contain_text("It says 7")
        assert errors == []

        upload("wide.png", png(10_000, 6_000))
        see(shown).to_contain_text("wide.png: 10000 x 6000 pixels are more than the 50 million")
        upload("heavy.png", bytes(21 * 2**20))
        see(tab.get_by_text("exceed the maximum allowed size of 20")).to_be_visible()

        phone = browser.new_page(viewport={"width": 390, "height": 844})
        phone.goto(address)
        see(phone.locator("#shown")).to_contain_text("It says airplane")
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390
        assert all(url.startswith((address, "data:", "blob:")) for url in requests), requests
        browser.close()


# ---- the Space -------------------------------------------------------------------------------------------------------

SPACE = ROOT / "hub" / "space"


def layout(blocks) -> tuple:
    """What is on a page and what happens there, without the numbers that each building of it gives anew."""
    config = blocks.get_config_file()
    order = {c["id"]: i for i, c in enumerate(config["components"])}
    kept = ("label", "info", "elem_id", "choices", "minimum", "maximum")
    parts = [(c["type"], [c["props"].get(key) for key in kept]) for c in config["components"]]
    events = [([(order.get(part), event) for part, event in d["targets"]], [order[i] for i in d["inputs"]],
               [order[i] for i in d["outputs"]]) for d in config["dependencies"]]
    return parts, events


def test_the_space_shows_the_same_page():
    import importlib.util

    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    assert layout(app.demo) == layout(demo.build())


def test_the_space_installs_what_the_package_asks_for():
    import yaml
    from packaging.requirements import Requirement

    facts = yaml.safe_load((SPACE / "README.md").read_text("utf-8").split("---")[1])
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]["demo"]
    wanted = next(r for r in map(Requirement, extra) if r.name == "gradio")
    assert facts["sdk"] == "gradio" and facts["sdk_version"] in wanted.specifier
    assert (SPACE / facts["app_file"]).is_file() and len(facts["short_description"]) <= 60  # the Hub's limit
    assert "eisnn-zoo[demo]" in (SPACE / "requirements.txt").read_text().split()
