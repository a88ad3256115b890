"""From a training run to a published model: hub/<model>.<tag>/ and its row in the table of weights."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING

from ..catalog import DATASETS, LICENSE, MODELS, Model
from ..config import Config, base_config, find_model, read_config
from ..errors import UsageError, ZooError
from ..files import alone, read_metrics, sha256, write_atomic
from ..locating import Located
from ..table import WEIGHTS, Weights, place, put_row, read_table
from ..weights import adapt_state, read_tensors, save_network
from . import card, card_text

if TYPE_CHECKING:
    from ..training.reading import Labelled
    from ..training.recipe import Recipe

COUNTED = 100  # test images on whose activity operations are counted
# Copies of a dataset that are known not to be the official files, by the sha256 of their test rows.
COPIES = {
    "23d072a67e402745bbacd08a40c1e9c3587a930413de59138b02be736c60cda1":
        "of the local copy of CIFAR-10 used here, 20 of the 10,000 test rows and 73 of the 50,000 training rows are JPEG "
        "copies of the official pixels; all others are exact",
}


def pack(run: Path, tag: str, data: Path, name: str | None = None, which: str = "best", hub: Path | None = None,
         time_steps: int | None = None, remark: str = "", license: str = LICENSE, say: Callable[[str], object] = lambda _: None) -> Weights:
    """Writes ``hub/<model>.<tag>/``, complete or not at all, then its row in the table of weights.

    The weights are stored in half precision; the accuracy in the row is that of the stored file, computed in float32 by the
    code that predicts.

    Args:
        run: a run folder, as training writes it.
        tag: of the weights, as in ``model.tag``.
        data: folder with the test images of the recipe's dataset.
        name: of the model; the recipe's where None.
        which: "best" (by the run's validation), "last", or the path of a .safetensors file.
        hub: another folder than the zoo's own; the table is then ``weights.toml`` in it.
        time_steps: T with which the network is measured and published; that of the recipe's last epoch where None.
        remark: of the training, for the card, in whole sentences.
        license: of the weights, by its SPDX name.
        say: told what is going on.

    Returns:
        The row.
    Raises:
        UsageError: no such run, tag, model or weights. ZooError: a run that cannot be published.
    """
    from ..training.reading import read
    from ..training.run import Run

    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", tag) or tag == "paper":
        raise UsageError(f"--tag {tag}: small letters, digits, - and _ make a tag; 'paper' is that of the authors' weights")
    if not license.strip():
        raise UsageError(f"--license is empty: name one by its SPDX name, as in {LICENSE}")
    started = Run.existing(run)
    recipe, environment, history = started.recipe, started.environment, read_metrics(run)
    if not history:
        raise ZooError(f"{run / 'metrics.csv'} has no epoch: train further before packing")
    model = _model(recipe, name)
    files = _weight_files(run, which)
    if time_steps and DATASETS[recipe.dataset].event:
        raise UsageError("events come in the number of frames the network was trained on: leave out --time-steps")
    labelled = read(DATASETS[recipe.dataset], data, "test", recipe.final_steps)
    hub, table = place(hub)
    if table.is_file():
        read_table(table)  # one that is damaged is said before the work
    hub.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{model.name}.{tag}.", dir=hub))
    try:
        with alone(beside):
            config = _config(model, tag, run, time_steps)
            state, scores = _measured(files, which, beside, config, labelled, say)
            _records(run, beside, environment, history, recipe)
            number = started.epoch_of(which)
            epoch = next((row for row in history if row["epoch"] == number), None)
            facts = {**_facts(recipe, environment, history, which, epoch, scores), "recipe_sha256": sha256(beside / "recipe.yaml"),
                     "test_images": len(labelled), "test_sha256": labelled.sha256, "operations_images": min(COUNTED, len(labelled)),
                     "operations": _operations(Located(beside / WEIGHTS, config), labelled)}
            if remark:
                facts["remark"] = remark
            if copies := COPIES.get(facts["test_sha256"]):
                facts["data_note"] = copies
            config = replace(config, facts=facts)
            save_network(beside, state, config)
            row = Weights(model, tag, facts["top1"], _obtained(facts, model), license, folder=config.name, sha256=sha256(beside / WEIGHTS),
                          size=(beside / WEIGHTS).stat().st_size, recipe=facts["recipe"], trained=_trained(facts),
                          time_steps=steps if (steps := config.time_steps) != model.time_steps else 0)
            card.write(beside, config, row)
            beside.chmod(0o755)
            _put(beside, hub / config.name)
        _clear(hub, config)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    put_row(row, table)
    return row


def _measured(files: dict[str, Path], which: str, beside: Path, config: Config, labelled: Labelled,
              say: Callable[[str], object]) -> tuple[dict, dict[str, dict[str, float]]]:
    """(the chosen weights in half precision, {weights: their accuracies in %}); the folder then holds the chosen ones."""
    from ..inference.torch_runtime import TorchModel
    from ..training.evaluation import evaluate

    scores: dict[str, dict[str, float]] = {}
    measured: dict[str, dict[str, float]] = {}
    state: dict = {}
    for key in sorted(files, key=lambda key: key == which):  # the weights to publish come last, and stay
        state = _half(files[key], config)
        save_network(beside, state, config)
        digest = sha256(beside / WEIGHTS)
        if digest not in measured:  # the best epoch may be the last
            say(f"measuring the {key} weights on {len(labelled):,} test images")
            scored = evaluate(TorchModel(Located(beside / WEIGHTS, config)), labelled, config.input_size[1])
            measured[digest] = {"top1": round(scored.top1, 2), "top5": round(scored.top5, 2)}
        scores[key] = measured[digest]
        say(f"{key}: {scores[key]['top1']} %")
    return state, scores


def _clear(hub: Path, config: Config) -> None:
    """Of processes that were killed while they packed this model; those that are at work are left alone."""
    for leftover in hub.glob(f".{config.name}.*"):
        with contextlib.suppress(FileNotFoundError), alone(leftover, wait=False) as free:  # another may have finished by now
            if free:
                shutil.rmtree(leftover, ignore_errors=True)


def _model(recipe: Recipe, name: str | None) -> Model:
    if recipe.dataset not in DATASETS:
        raise UsageError("the run trained on one's own pictures: only the zoo's datasets have a test set to measure on")
    paired = f"{recipe.model}_{recipe.dataset}"
    model = find_model(name or (paired if paired in MODELS else recipe.model))
    if model.dataset is None or model.dataset.name != recipe.dataset:
        raise UsageError(f"{model.name} is no model of {recipe.dataset}, on which the run trained: give another --name")
    return model


def _weight_files(run: Path, which: str) -> dict[str, Path]:
    """The chosen weights, and the run's best and last where they are there."""
    found = {key: path for key in ("best", "last") if (path := run / key / WEIGHTS).is_file()}
    if which not in ("best", "last"):
        if Path(which).suffix != ".safetensors" or not Path(which).is_file():
            raise UsageError(f"--weights {which}: best, last, or the path of a .safetensors file")
        return {which: Path(which)}
    if which not in found:
        raise UsageError(f"{run} holds no {which} weights yet: wait for them, or give --weights a .safetensors file")
    return found


def _config(model: Model, tag: str, run: Path, time_steps: int | None) -> Config:
    """The run's own, under the name to publish."""
    configs = [run / key / "config.json" for key in ("last", "best")]
    own = read_config(next(filter(Path.is_file, configs), configs[0]))
    return replace(base_config(model, tag), size=own.size, options={**own.options, "time_steps": time_steps or own.options["time_steps"]})


def _half(path: Path, config: Config) -> dict:
    """The tensors in half precision; those that are no floats as they are."""
    state = adapt_state(read_tensors(path), config.model.name, path, **config.options)
    return {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}


def _operations(located: Located, labelled: Labelled) -> dict[str, dict[str, float]]:
    """Numbers of operations of one inference by variant of the computation, the mean over some test images; none without spikes."""
    import torch

    from ..analysis.energy import operations, totals
    from ..weights import load_network

    if not located.config.model.spiking:
        return {}
    x = torch.from_numpy(labelled.pixels(0, COUNTED, located.config.input_size[1]))
    rows = totals(operations(load_network(located), x.split(10)))
    return {row["variant"]: {k: round(v, 3 if k == "microjoules" else 0) for k, v in row.items() if isinstance(v, float) and v}
            for row in rows}


def _facts(recipe: Recipe, environment: dict, history: list[dict], which: str, epoch: dict | None, scores: dict) -> dict:
    """What the configuration records about the training and its result; epoch is the one in history that the weights are of."""
    from ..training.data import TEST_SET

    held_out = environment.get("valid_images", recipe.holdout) if recipe.holdout else 0
    facts = {
        **scores[which], "measured_on": TEST_SET,
        "weights": which if which in ("best", "last") else "a checkpoint",
        "top1_best": scores.get("best", {}).get("top1"), "top1_last": scores.get("last", {}).get("top1"),
        "valid_top1": epoch and epoch["valid_top1"], "valid_top1_last": history[-1]["valid_top1"],
        "validation": f"{held_out:,} training images held out" if held_out else TEST_SET,
        "recipe": recipe_name(recipe), **_said(recipe),
        "started_from": Path(recipe.weights).name, "started_from_sha256": environment.get("weights_sha256"),
        "teacher": Path(recipe.teacher).name, "teacher_sha256": environment.get("teacher_sha256"),
        "trained_time_steps": epoch and int(epoch["time_steps"]),
        "epoch": epoch and int(epoch["epoch"]), "epochs": len(history), "epochs_planned": recipe.epochs,
        "stopped_at": recipe.stop_at if any(recipe.comparable(i) and recipe.reached(row["valid_top1"])
                                                 for i, row in enumerate(history)) else None,
        "train_images": environment.get("train_images"), "held_out": held_out, "knows_held_out": environment.get("knows_held_out") or None,
        "training_seconds": round(sum(row["seconds"] for row in history)),
        "device": environment.get("device_name"), "threads": environment.get("threads") if environment.get("device") == "cpu" else None,
        "commit": environment.get("commit"), "torch": environment.get("torch"), "stored_as": "float16",
    }
    return {key: value for key, value in facts.items() if value is not None and value != ""}


def _said(recipe: Recipe) -> dict:
    """The recipe's keys, but for those that are as good as not there, and those that the facts have in other words."""
    from ..training.recipe import SAYS

    named = ("model", "dataset", "holdout", "epochs", "weights", "teacher", *SAYS)
    always = ("about", "optimizer", "time_steps", "batch_size", "lr", "seed", "augment", "label_smoothing", "weight_decay", "precision",
              *(("distillation", "temperature") if recipe.teacher else ()))
    return {key: value for key, value in recipe.model_dump().items()
            if key in always or (key not in named and (value or value is False) and value != type(recipe).model_fields[key].default)}


def recipe_name(recipe: Recipe) -> str:
    """Its name among the zoo's recipes; "own" where it is none of them."""
    from ..training.recipe_file import load_recipe, recipe_names

    kept = {"about": "", "paper_top1": None, "paper_source": "", "precision": "auto", "seed": 0}
    names = [name for name in recipe_names() if load_recipe(name).model_copy(update=kept) == recipe.model_copy(update=kept)]
    return names[0] if names else "own"


def _obtained(facts: dict, model: Model) -> str:
    from ..training.data import TEST_SET

    n, all_ = facts["test_images"], model.dataset.test_images
    among = "" if n == all_ else f" (of {all_:,})"
    looked = f"the {n:,} test images{among} were used for no choice"
    if facts["weights"] not in ("best", "last"):
        return f"weights of a checkpoint; {looked}"
    if facts["weights"] == "last":
        return f"last epoch; {looked}"
    if facts["validation"] == TEST_SET:
        return "best epoch on the test set" + (f", {n:,} images{among}" if among else "")
    return f"best epoch by {facts['held_out']:,} training images held out; {looked}"


def _trained(facts: dict) -> str:
    images = f" on {facts['train_images']:,} images" if "train_images" in facts else ""
    after = f" from {facts['started_from']}" if "started_from" in facts else ""
    taught = f", taught by {facts['teacher']}" if "teacher" in facts else ""
    took = card_text.duration(facts["training_seconds"])
    n = facts["epochs"]
    return f"{n} epoch{'s' * (n != 1)}{after}{images}{taught}, {took} on {card_text.machine(facts) or 'a CPU'}"


def _records(run: Path, folder: Path, environment: dict, history: list[dict], recipe: Recipe) -> None:
    """How the weights came about, without the paths of the machine they came about on."""
    shutil.copyfile(run / "metrics.csv", folder / "metrics.csv")
    places = {key: _of_any_system(getattr(recipe, key).removeprefix("local-dir:")) for key in ("weights", "teacher")}
    names = {key: path.name for key, path in places.items() if path.is_absolute()}
    if names:
        write_atomic(folder / "recipe.yaml", recipe.model_copy(update=names).dump())
    else:
        shutil.copyfile(run / "recipe.yaml", folder / "recipe.yaml")
    public = {key: value for key, value in environment.items() if not (isinstance(value, str) and _of_any_system(value).is_absolute())}
    write_atomic(folder / "environment.json", json.dumps(public, indent=2) + "\n")
    if (run / "curves.png").is_file():
        shutil.copyfile(run / "curves.png", folder / "curves.png")
    else:
        from ..training.plots import curves

        curves(history, folder / "curves.png", recipe.paper[0])


def _of_any_system(path: str) -> PurePath:
    """A run may have trained on Windows and be packed elsewhere."""
    return windows if (windows := PureWindowsPath(path)).drive else PurePath(path)


def _put(beside: Path, folder: Path) -> None:
    """Renames a finished folder into place; what was there before is gone only then."""
    if not folder.exists():
        os.replace(beside, folder)
        return
    old = beside.with_name(f"{beside.name}.old")
    os.replace(folder, old)
    try:
        os.replace(beside, folder)
    except BaseException:
        os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
