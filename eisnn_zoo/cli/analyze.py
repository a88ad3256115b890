"""eisnn-zoo analyze and explain: a network seen from inside."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from .options import Dataset, Steps
from .output import check_folder, need, note

if TYPE_CHECKING:
    from ..analysis.batches import Batches
    from ..config import Config
    from ..training.data import Images

STUDIES = ("rates", "balance", "gain", "divisors", "parameters", "trains", "similarity", "interventions", "energy")

ANALYZE = """[bold]Examples[/bold]

  eisnn-zoo analyze ei_vgg8_cifar10 --data cifar/

  eisnn-zoo analyze ei_resnet18_cifar10 --data cifar/ --what rates,energy --images 500

  eisnn-zoo analyze ei_vgg8_cifar10 --data cifar/ --twin bn_vgg8_cifar10

  eisnn-zoo analyze --evolution runs/zoo_mlp4_mnist
"""
EXPLAIN = """[bold]Example[/bold]

  eisnn-zoo explain photo.png --model ei_vgg8_cifar10 --output why/
"""


def register(app: typer.Typer) -> None:
    app.command("analyze", epilog=ANALYZE)(analyze)
    app.command("explain", epilog=EXPLAIN)(explain)


def analyze(
    model: Annotated[str | None, typer.Argument(
        help="Name, name.tag, hf-hub:org/name, folder, or weight file.", show_default=False)] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Folder of the data set the network was trained on.")] = None,
    what: Annotated[str, typer.Option("--what", "-w", help=f"Studies, by commas: all, or some of {', '.join(STUDIES)}.")] = "all",
    images: Annotated[int, typer.Option("--images", "-n", min=4, help="Number of test images, drawn at random.")] = 200,
    twin: Annotated[str | None, typer.Option("--twin", help="A second network to compare with: the BN baseline, say.")] = None,
    dataset: Dataset = None,
    evolution: Annotated[Path | None, typer.Option(
        "--evolution", metavar="RUN", help="How a run trained with --record developed, instead of a network.")] = None,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", help="Folder. Default: analysis/NAME; with --evolution, RUN/evolution.")] = None,
    time_steps: Steps = None,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=4, help="Images computed together.")] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of the choice of images, lesions and noise.")] = 0,
) -> None:
    """Study a network on real images: rates, balance, gain, lesions, energy ... as CSV, PNG and one HTML report."""
    chosen = _studies(what)
    need("analysis")
    check_folder(output)
    if evolution is not None:
        if model or data or twin or what != "all":
            raise UsageError("--evolution takes all from the run: leave out MODEL, --data, --what and --twin")
        from .evolution import draw

        draw(evolution, output)
        return
    if model is None or data is None:
        raise UsageError("name a network and its data, or a recorded run: eisnn-zoo analyze ei_vgg8_cifar10 --data FOLDER, or "
                         "eisnn-zoo analyze --evolution RUN")
    from ..analysis.interventions import accuracy
    from ..analysis.report import write_page, write_study
    from ..analysis.studies import EI_ONLY
    from ..analysis.studies import STUDIES as RUN
    from ..analysis.subject import Subject
    from ..locating import locate
    from ..precision import strict_arithmetic
    from ..training.data import Images
    from ..training.evaluation import test_images
    from ..weights import load_network

    located, beside = locate(model), locate(twin) if twin else None
    for each in filter(None, (located, beside)):
        each.config.check_classes()
        each.config.check_spiking()
    if beside and _inputs(beside.config) != _inputs(located.config):
        raise UsageError(f"--twin {twin} takes other inputs than {located.config.name}: name one that was trained on the same data")
    steps = time_steps or located.config.time_steps
    labelled, title, _ = test_images(located.config, data, dataset, steps)
    strict_arithmetic()
    network = load_network(located, time_steps=steps)
    other = load_network(beside, time_steps=steps) if beside else None
    if network.kind != "ei":
        left_out = [key for key in chosen if key in EI_ONLY]
        if left_out:
            note(f"{located.config.name} has no inhibitory cells: {', '.join(left_out)} left out")
        chosen = [key for key in chosen if key not in EI_ONLY]
        if not chosen:
            raise UsageError(f"--what {what} asks of inhibition, and {located.config.name} has none")
    batches = _drawn(Images.of(labelled), images, batch_size, located.config.input_size[1], seed)
    if not len(batches):
        raise UsageError(f"{data} holds {len(labelled.y)} images of {title}: a study needs at least 4")
    subject = Subject(network, batches, other, seed)
    if other and not subject.matched:
        note(f"--twin {twin} has other layers than {located.config.name}: the two are compared by similarity alone")

    folder = output or Path("analysis") / located.config.name
    folder.mkdir(parents=True, exist_ok=True)
    sections = []
    for key in chosen:
        start = time.perf_counter()
        study = RUN[key](subject)
        seen, paths = write_study(folder, study)
        sections.append(seen)
        note(f"{key}: {' '.join(study.seen)} ({time.perf_counter() - start:.0f} s)")
        print(*paths, sep="\n")
    facts = {f"{subject.thing}s": str(len(batches)), "top-1 accuracy on them": f"{accuracy(network, batches):.1f} %",
             "time steps T": str(steps), "layers of neurons": str(len(subject.layers)),
             "parameters": f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M"}
    subtitle = f"An {'excitatory-inhibitory' if network.kind == 'ei' else 'ordinary'} spiking network, studied on {title}"
    print(write_page(folder, located.config.name, subtitle + (f", beside {twin}" if twin else ""), facts, sections,
                     f"Images drawn with seed {seed}."))


def _inputs(config: Config) -> tuple:
    return config.input_size, config.event_input


def _drawn(found: Images, images: int, batch_size: int, side: int, seed: int) -> Batches:
    """So many of the images, or all; but for the last of them, where they make no batch of the 4 that CKA compares at least."""
    import torch

    from ..analysis.batches import Batches
    from ..training.augment import pixels

    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[:images].sort().values
    part, rest = found[order], len(order) % batch_size
    kept = len(order) - rest if rest < 4 else len(order)
    if 0 < kept < len(order):
        note(f"{rest} of {len(order)} images are left out: batches of less than 4 tell nothing of similarity (--batch-size)")
    return Batches(part.x[:kept], part.y[:kept], lambda x: pixels(x, side), batch_size)


def explain(
    image: Annotated[str, typer.Argument(help="A picture (or a recording of events), an address, or - for stdin.")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Default: the most accurate E-I network that is here.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder. Default: explain/NAME of the picture.")] = None,
    time_steps: Steps = None,
) -> None:
    """Show how the network comes to its answer for one picture: spikes, currents, membranes, evidence, occlusion."""
    need("analysis")
    if not image:
        raise UsageError("the picture's name is empty: name a file, an address, or - for stdin")
    folder = output or Path("explain") / (re.sub(r'[<>:"/\\|?*]', "_", Path(image).stem) if image != "-" else "stdin")
    check_folder(folder)
    from ..analysis.explain import explain as explanation
    from ..analysis.prose import Prose
    from ..analysis.report import section, still, write_page
    from ..figures import to_png
    from ..files import write_atomic
    from ..inference.classify import read_input
    from ..locating import locate
    from ..precision import strict_arithmetic
    from ..table import default_weights
    from ..weights import load_network

    located = locate(default_weights().name if model is None else model)
    steps = time_steps or located.config.time_steps
    located.config.check_classes()
    located.config.check_spiking()
    x = read_input(image, located.config, steps)
    strict_arithmetic()
    network = load_network(located, time_steps=steps)
    result = explanation(network, x, located.config.label_names)
    folder.mkdir(parents=True, exist_ok=True)
    png = to_png(result.figure)
    write_atomic(folder / "explain.png", png)
    prose = Prose("How the answer came about", "What happened, from the pixels to the class?", "", result.reading)
    seen = section("picture", prose, result.seen, still(png, result.figure))
    page = write_page(folder, f"{result.label}: {100 * result.probability:.1f} %", f"{Path(image).name} as {located.config.name} sees it",
                      result.facts, [seen])
    note(" ".join(result.seen))
    print(folder / "explain.png", page, sep="\n")


def _studies(what: str) -> list[str]:
    asked = [part.strip() for part in what.split(",") if part.strip()]
    if asked == ["all"]:
        return list(STUDIES)
    unknown = [part for part in asked if part not in STUDIES]
    if unknown or not asked:
        raise UsageError(f"--what {what}: choose all, or some of {', '.join(STUDIES)}, separated by commas")
    return [key for key in STUDIES if key in asked]
