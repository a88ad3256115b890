"""eisnn-zoo train, reproduce, finetune and recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError, ZooError
from ..files import quoted
from .options import Data
from .output import Format, check_folder, need, note, render, table

Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Run folder. Default: runs/NAME.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the recipe; may be repeated.")]
Compile = Annotated[bool | None, typer.Option(
    "--compile/--no-compile",
    help="torch.compile the network. Default: where it works, except for E-I networks on one GPU, which have fused kernels.")]
Report = Annotated[list[str] | None, typer.Option("--report-to", help="tensorboard, trackio or wandb (extra: track); repeatable.")]

TRAIN = """[bold]Examples[/bold]

  eisnn-zoo train ei_vgg8_cifar10 --data cifar/

  eisnn-zoo train ei_vgg8_cifar10 --data cifar/ --set epochs=30 --set lr=2e-3

  eisnn-zoo train --resume runs/ei_vgg8_cifar10

  eisnn-zoo train zoo_mlp4_mnist --data mnist/ --record

  eisnn-zoo train --resume runs/zoo_mlp4_mnist --set epochs=30 --set "lr={0: 11e-3, 20: 5e-3}"

  torchrun --no-python --nproc-per-node 4 eisnn-zoo train ei_resnet18_cifar10 --data cifar/ --device cuda

  accelerate launch --multi_gpu --num_processes 4 --no_python eisnn-zoo train ei_resnet18_cifar10 --data cifar/
"""
FINETUNE = """[bold]Examples[/bold]

  eisnn-zoo finetune --model ei_vgg8_cifar10 --data flowers/

  eisnn-zoo predict new.png --model runs/flowers
"""
REPRODUCE = """[bold]Example[/bold]

  eisnn-zoo reproduce ei_resnet18_cifar10 --data cifar/
"""
RECIPES = """[bold]Examples[/bold]

  eisnn-zoo recipes list

  eisnn-zoo recipes show zoo_vgg8_cifar10 > mine.yaml

  eisnn-zoo recipes keys
"""


def register(app: typer.Typer) -> None:
    app.command("train", epilog=TRAIN)(train)
    app.command("reproduce", epilog=REPRODUCE)(reproduce)
    app.command("finetune", epilog=FINETUNE)(finetune)
    recipes = typer.Typer(help="The training recipes.", no_args_is_help=True, epilog=RECIPES)
    recipes.command("list")(list_recipes)
    recipes.command("show")(show_recipe)
    recipes.command("keys")(show_keys)
    app.add_typer(recipes, name="recipes")


def train(
    recipe: Annotated[str | None, typer.Argument(help="Name of a recipe, or a .yaml file.", show_default=False)] = None,
    data: Annotated[Path | None, typer.Option(
        "--data", help="Folder with the dataset; if files are missing, the error says which.")] = None,
    output: Output = None,
    device: Device = "auto",
    set_: Set = None,
    resume: Annotated[Path | None, typer.Option(
        "--resume", help="Go on with this run; all else is read from its folder. --set may change epochs still to come.")] = None,
    compile: Compile = None,
    report_to: Report = None,
    save_every: Annotated[float, typer.Option(
        "--save-every", min=0, help="Seconds between checkpoints within an epoch. They also come after epochs, at least 5 s apart.")] = 300,
    record: Annotated[bool, typer.Option(
        "--record", help="Keep histograms of parameters, currents and rates at about 12 epochs, for `analyze --evolution`.")] = False,
    record_at: Annotated[str | None, typer.Option(
        "--record-at", metavar="EPOCHS", help="Record at these epochs instead: all, or 0,1,10 (0: the start).",
    )] = None,
) -> None:
    """Train a network by a recipe. A run that was interrupted, at any moment, goes on with --resume."""
    need("train")
    moments = record_at or ("auto" if record else None)
    if resume is not None:
        if recipe or output or report_to:
            raise UsageError("--resume takes everything from the run: leave out RECIPE, --output and --report-to")
        _say_next(_resume(resume, data, device, compile, save_every, moments, _settings(set_)))
        return
    if recipe is None or data is None:
        raise UsageError("name a recipe and its data: eisnn-zoo train ei_vgg8_cifar10 --data FOLDER")
    from ..training.recipe_file import load_recipe

    run = output or Path("runs") / Path(recipe).stem
    _say_next(_fit(load_recipe(recipe, _settings(set_)), data, run, device, compile, report_to, save_every, moments))


def reproduce(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe: ei_vgg8_cifar10, zoo_vgg8_cifar10 ...")],
    data: Data,
    output: Output = None,
    device: Device = "auto",
    set_: Set = None,
    compile: Compile = None,
    report_to: Report = None,
    results: Annotated[Path, typer.Option(
        "--results", help="Table to which the measurement is added.")] = Path("results/results.csv"),
) -> None:
    """Train by a recipe, evaluate on the test images, compare with the paper, and record the result.

    An unfinished run of this recipe in the run folder goes on.
    """
    need("train")
    from ..catalog import DATASETS
    from ..training.reading import FOLDER, read
    from ..training.recipe_file import load_recipe
    from ..training.results import append, measure, read_table

    name = Path(recipe).stem
    loaded = load_recipe(recipe, _settings(set_))
    if loaded.dataset == FOLDER:
        raise UsageError(f"the recipe {name} trains on your own pictures: use `eisnn-zoo train`")
    test = read(DATASETS[loaded.dataset], data, "test", loaded.final_steps)  # missing data is said before hours of training,
    read_table(results)  # a file that is no table,
    check_folder(results.parent, "--results")  # and a folder that cannot be written to
    training = _fit(loaded, data, output or Path("runs") / name, device, compile, report_to)
    if not training.world.first:
        return
    said = name + (f" with {', '.join(set_)}" if set_ else "")
    row = measure(training.run, said, test, str(training.device), training.memory)
    append(row, results)
    paper, source = training.recipe.paper
    figures = [{"": "last epoch", "top-1 (%)": row["top1_last"]}, {"": "best epoch", "top-1 (%)": row["top1_best"]}]
    figures.append({"": f"paper ({source})" if source else "paper", "top-1 (%)": paper})
    print(table(figures))
    note(f"\n{name}: epochs: {row['epochs']}, judged by: {row['validation']}. Added to {results}.")


def finetune(
    model: Annotated[str, typer.Option("--model", "-m", help="Name, name.tag, hf-hub:org/name, folder, or weight file.")],
    data: Annotated[Path, typer.Option(
        "--data", help="Pictures in one folder per class, or an .npz file (x: uint8 [N, H, W, C], y).")],
    output: Output = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Train the output layer alone.")] = False,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Default: 10.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Step size, relative to each weight's own size.")] = None,
    device: Device = "auto",
    set_: Set = None,
    report_to: Report = None,
) -> None:
    """Train a trained network on your own pictures: 1 to 1000 classes, Dale's law kept."""
    need("train")
    from ..training.finetune import finetune_recipe
    from ..training.recipe_file import parse_value

    given = {key: value for key, value in (("epochs", epochs), ("lr", lr), ("freeze", freeze or None)) if value is not None}
    settings = _settings(set_)
    for key in settings.keys() & {"weights", *given}:
        option = "model" if key == "weights" else key
        raise UsageError(f"--set {key}={settings[key]} and --{option} say the same thing: leave one of them out")
    recipe = finetune_recipe(model, {key: parse_value(key, value) for key, value in settings.items()} | given)
    where = data.resolve()
    run = output or Path("runs") / ((where.stem if where.is_file() else where.name) or "finetuned")
    training = _fit(recipe, data, run, device, False, report_to)
    _say_next(training)


def list_recipes(format: Annotated[Format, typer.Option("--format", "-f")] = Format.table) -> None:
    """Show the recipes and the figures they are to reproduce."""
    need("train")
    from ..training.recipe_file import load_recipe, recipe_names

    rows = []
    for name in recipe_names():
        recipe = load_recipe(name)
        rows.append({"recipe": name, "model": recipe.model, "time_steps": recipe.final_steps, "epochs": recipe.epochs,
                     "paper_top1": recipe.paper[0], "about": recipe.about})
    columns = {"recipe": "recipe", "time_steps": "T", "epochs": "epochs", "paper_top1": "paper (%)", "about": "about"}
    print(render(rows, format, columns))


def show_recipe(
    name: Annotated[str, typer.Argument(help="Name of a recipe, or a .yaml file.")],
    set_: Set = None,
) -> None:
    """Print a recipe with every key and its meaning, ready to be changed and trained."""
    need("train")
    from ..training.recipe_file import load_recipe
    from ..training.recipe_keys import annotated

    print(annotated(load_recipe(name, _settings(set_))))


def show_keys(format: Annotated[Format, typer.Option("--format", "-f")] = Format.table) -> None:
    """Show what can be written into a recipe, and with --set: every key, what it takes, its default and its meaning."""
    need("train")
    from ..training.recipe_keys import explained, recipe_keys

    rows = recipe_keys()
    if format is Format.table:
        rows = [{"key": row["key"] + (" *" if row["by_epoch"] else ""), "meaning": explained(row),
                 "default": str(row["default"]).lower() if isinstance(row["default"], bool) else row["default"]} for row in rows]
    print(render(rows, format, {"key": "key", "default": "default", "meaning": "meaning"}))
    if format is Format.table:
        note("* also {first epoch: value}, as in --set \"time_steps={0: 1, 30: 2}\"")


# ---- common ----------------------------------------------------------------------------------------------------------


def _settings(pairs: list[str] | None) -> dict[str, str]:
    settings = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not (equals and key.strip() and value.strip()):
            raise UsageError(f"--set {pair}: write key=value, as in --set lr=2e-3")
        settings[key.strip()] = value.strip()
    return settings


def _fit(recipe, data: Path, run: Path, device: str, compile: bool | None, report_to: list[str] | None,
         save_every: float = 300, record_at: str | None = None):
    """Trains, and returns the finished training."""
    from ..catalog import MODELS
    from ..inference.torch_runtime import KINDS, torch_device
    from ..locating import from_anywhere
    from ..training.engine import Training
    from ..training.reading import FOLDER
    from ..training.record import choose_epochs, planned, record
    from ..training.run import Run

    check_folder(run)
    if run.resolve() == data.resolve():
        raise UsageError(f"{run} is the folder of the data: name another with --output")
    recipe = recipe.model_copy(update={key: from_anywhere(spec) for key in ("weights", "teacher") if (spec := getattr(recipe, key))})
    device = str(torch_device(device, KINDS))  # others have no float64, which sums need
    moments = choose_epochs(record_at, recipe.epochs) if record_at else planned(run)
    if moments and not MODELS[recipe.model].spiking:
        raise UsageError(f"--record keeps what neurons do, and {recipe.model} has no spikes: leave it out")
    begun = Run(run).environment if Run(run).checkpoint.exists() else None
    if begun and compile is None:
        compile = begun.get("compile")
    training = Training(recipe, data, run, device, compile, report_to or ())
    if training.world.first:
        if begun:
            _say_what_changed(begun, training.environment, compile)
        going_on = f", going on from iteration {training.step}" if training.step else ""
        going_on = ", finished already" if training.finished else going_on
        held = "streamed from their files" if training.data.train.streams else "in memory"
        note(f"{run}: {recipe.model}, {len(training.data.train)} images {held}, {training.recipe.precision}, "
             f"validation: {training.data.validation}{going_on}")
        if recipe.dataset == FOLDER:
            classes = training.data.label_names
            note(f"{len(classes)} classes: {', '.join(classes[:10])}{' ...' if len(classes) > 10 else ''}" if len(classes) > 1 else
                 f"a single class, {classes[0]}, of which every answer is right: --data is to hold one folder per class")
        for doubt in training.doubts:
            note(doubt)
    record(training, moments)
    training.fit(save_every)
    training.world.leave()
    return training


def _say_next(training) -> None:
    if training.world.first:
        what = "RECORDING" if training.model.event_input else "PICTURE"
        note(f"now: eisnn-zoo predict {what} --model {quoted(training.run.folder)}")


def _resume(folder: Path, data: Path | None, device: str, compile: bool | None, save_every: float, record_at: str | None,
            settings: dict[str, str]):
    from ..training.recipe_file import load_recipe
    from ..training.run import Run

    begun = Run.existing(folder).environment
    try:
        where = data or Path(begun["data"])
        device = str(begun["device"]) if device == "auto" else device
        compile = begun["compile"] if compile is None else compile
        report_to = list(map(str, begun["report_to"]))
    except KeyError as error:
        raise ZooError(f"{folder / 'environment.json'} lacks {error}: this run cannot be gone on with") from error
    except TypeError as error:
        raise ZooError(f"{folder / 'environment.json'} is damaged ({error}): this run cannot be gone on with") from error
    recipe = load_recipe(folder / "recipe.yaml", settings)  # set on the way: what lies ahead may change
    return _fit(recipe, where, folder, device, compile, report_to, save_every, record_at)


def _say_what_changed(begun: dict, now: dict, compile: bool | None) -> None:
    """Of a run that goes on: what of its environment keeps it from ending bit for bit as it would have."""
    otherwise = "sums are rounded in another order"
    for key, before, after in (("threads", "with {} threads", "with {}"), ("processes", "in {} processes", "in {}"),
                               ("device_name", "on {}", "with {}"), ("torch", "with torch {}", "with {}")):
        if begun.get(key, now[key]) != now[key]:
            remedy = f" (OMP_NUM_THREADS={begun[key]} keeps it exact)" if key == "threads" else ""
            note(f"this run began {before.format(begun[key])} and goes on {after.format(now[key])}: {otherwise}{remedy}")
    if compile != begun.get("compile"):
        note(f"this run began {'compiled' if begun.get('compile') else 'without compiling'} and goes on otherwise: {otherwise}")
