"""The page: what is on it, and what is done when something on it changes."""

from __future__ import annotations

import os
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

# Read when gradio is imported: no usage statistics, no look-up of newer versions.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import numpy as np
import torch

from ..analysis.response import compare_inhibition
from ..errors import UsageError, ZooError
from ..inference.images import ImageError, open_image, preprocess
from ..locating import Located, locate
from ..networks import SpikingNet
from ..shipped import examples_folder
from ..table import default_weights, picture_classifiers
from ..weights import load_network
from . import result

MAX_MEGABYTES = 20
MAX_PIXELS = 50_000_000  # a decoded picture takes three bytes for each
SLIDER_STEPS = 10

INTRODUCTION = """# Turn inhibition up and down

The neurons of this network send **spikes**, all or nothing, as those in a brain do. They look at a picture for a few
moments, the **time steps**, and say what it shows. Some cells are **inhibitory**: they quiet the others, by subtraction and by
division. Turn the two up and down, and see what becomes of the answer.
"""
TRIALS = {"as trained": (1.0, 1.0), "too little subtraction": (0.8, 1.0), "too much subtraction": (1.2, 1.0),
          "too little division": (1.0, 0.25), "too much division": (1.0, 2.0)}


def launch_options() -> dict:
    """What the page needs of ``launch``."""
    return {"css": resources.files(__package__).joinpath("page.css").read_text("utf-8"), "theme": _theme(),
            "max_file_size": MAX_MEGABYTES * 2**20, "allowed_paths": [str(examples_folder())], "footer_links": [],
            "run_history": False, "ssr_mode": False, "share": False, "pwa": False}


def _theme() -> gr.themes.Base:
    fonts = ["system-ui", "Segoe UI", "Helvetica", "Arial", "sans-serif"]  # the reader's own: none is fetched
    theme = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "monospace"])
    return theme.set(block_info_text_color="*neutral_500", body_text_color_subdued="*neutral_500")


def models(first: str | None = None) -> list[tuple[str, str]]:
    """(title, name) of every network to choose from: E-I, for pictures, its weights on this machine; the most accurate first.

    Args:
        first: a name, address or folder to head the list, in place of the most accurate.
    Raises:
        UsageError: first has no inhibitory cells, or takes no pictures. ZooError: it cannot be had, or no weights are here.
    """
    titles = {w.name: f"{w.model.title}, {w.model.dataset.title} ({w.top1:.1f} %)" for w in picture_classifiers()}
    first = default_weights().name if first is None else first
    located = locate(first)
    config = located.config
    if config.model.kind != "ei":
        raise UsageError(f"{config.name} has no inhibitory cells to turn up and down: choose an ei_ network")
    if config.event_input:
        raise UsageError(f"{config.name} takes recordings of events, and the demo shows pictures: choose another network")
    name = located.row.name if located.row else first
    titles = {name: titles.get(name, f"{config.model.title}, {name}"), **titles}
    return [(title, name) for name, title in titles.items()]


@cache
def _network(name: str) -> tuple[Located, SpikingNet]:
    located = locate(name)
    located.config.check_classes()
    return located, load_network(located)


def examples(name: str) -> list[str]:
    """A file of each class of the data set that the network was trained on; of CIFAR-10 where that has none here."""
    dataset = _network(name)[0].config.model.dataset
    own = sorted((examples_folder() / dataset.name).glob("*_*.png")) if dataset else []
    first: dict[str, str] = {}
    for path in own or sorted((examples_folder() / "cifar10").glob("*_*.png")):
        first.setdefault(path.name.partition("_")[0], str(path))
    return list(first.values())


@lru_cache(maxsize=256)  # a large picture is decoded once, not for every move of a slider
def _pixels(picture: str, input_size: tuple[int, int, int]) -> np.ndarray:
    name = Path(picture).name
    return preprocess(open_image(picture, name, MAX_PIXELS), input_size, name)


def answer(name: str, picture: str | None, steps: int, subtraction: float, division: float) -> str:
    """What the page shows of one picture, as HTML; a sentence where it cannot be used."""
    try:
        if picture is None:
            return result.hint("Drop a picture on the left, or choose one of the examples.")
        located, network = _network(name)
        network.time_steps = int(steps)
        pixels = _pixels(picture, located.config.input_size)
        responses = compare_inhibition(network, torch.from_numpy(pixels), subtraction, division)
        return result.render(pixels, located.config, *responses)
    except ImageError as error:
        return result.problem(f"{error}. Choose another picture.")
    except ZooError as error:
        return result.problem(str(error))


def build(first: str | None = None) -> gr.Blocks:
    """The page, ready to launch. Arguments and errors as in :func:`models`."""
    choices = models(first)
    name = choices[0][1]
    pictures = examples(name)
    with gr.Blocks(title="eisnn-zoo", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(INTRODUCTION, elem_id="introduction")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                picture = gr.Image(pictures[0], label="Picture", sources=["upload", "clipboard"], height=230, buttons=[],
                                   placeholder=f"Drop a picture here, or click: up to {MAX_MEGABYTES} MB",
                                   elem_id="picture")
                file = gr.State(pictures[0])
                gallery = gr.Dataset(label="Examples", components=[gr.Image(render=False)], samples=[[p] for p in pictures],
                                     samples_per_page=len(pictures), elem_id="examples")
                model = gr.Dropdown(choices, value=name, label="Network", elem_id="model")
                steps = gr.Slider(1, label="Time steps T", step=1, elem_id="steps", **_steps(name))
            with gr.Column(scale=5, min_width=560):
                with gr.Row(elem_id="knobs"):
                    subtraction = gr.Slider(0, 2, 1, step=0.02, label="Subtraction", elem_id="subtraction", min_width=140,
                                            info="What inhibition takes away from excitation. 1: as trained. 0: nothing.")
                    division = gr.Slider(0.1, 2, 1, step=0.05, label="Division", elem_id="division", min_width=140,
                                         info="What inhibition divides the rest by, like a volume knob. 1: as trained.")
                with gr.Row(elem_id="trials"):
                    trials = {label: gr.Button(label, size="sm", min_width=100) for label in TRIALS}
                shown = gr.HTML(elem_id="shown")

        def choose(name: str, picture: str | None):
            """Another network's examples, the first of them in place of an example of other data, and its time steps."""
            files = examples(name)
            foreign = picture is not None and Path(picture).name in _all_examples() - {Path(p).name for p in files}
            return gr.Dataset(samples=[[p] for p in files]), files[0] if foreign else gr.skip(), gr.Slider(**_steps(name))

        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        # The file as it came, not gradio's reading of it: one place says what is a picture and how large it may be.
        picture.change(lambda upload: _kept(upload, Path(picture.GRADIO_CACHE)), picture, file, preprocess=False, **quiet)
        gallery.click(lambda sample: sample[0], gallery, picture, **quiet)
        model.change(choose, [model, file], [gallery, picture, steps], **quiet)
        for label, levels in TRIALS.items():
            trials[label].click(lambda levels=levels: levels, None, [subtraction, division], **quiet)
        # One at a time, as inhibition is changed in the network itself; while a slider moves, its last position counts.
        gr.on([page.load, file.change, model.change, steps.change, subtraction.change, division.change], answer,
              [model, file, steps, subtraction, division], shown, trigger_mode="always_last", concurrency_limit=1, **quiet)
    return page


def _kept(upload: dict | None, cache: Path) -> str | None:
    """The file of a picture that was given to the page; None of any other file, whose path whoever talks to the page may name."""
    path = upload and upload.get("path")
    return path if path and Path(path).resolve().is_relative_to(cache.resolve()) else None


def _steps(name: str) -> dict:
    """The slider of T for a network."""
    trained = _network(name)[0].config.time_steps
    return {"maximum": max(SLIDER_STEPS, trained), "value": trained, "info": f"Moments for which it looks: {trained} as trained."}


@cache
def _all_examples() -> set[str]:
    return {path.name for path in examples_folder().glob("*/*.png")}
