"""eisnn-zoo pack, card, publish, download, verify and convert: weights on their way to the Hub and back."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ..catalog import LICENSE
from ..config import MAX_STEPS
from ..errors import UsageError, ZooError
from .output import Format, check_file, check_folder, is_terminal, need, note, render, table

PACK = """[bold]Examples[/bold]

  eisnn-zoo pack runs/zoo_vgg8_cifar10 --tag mine --data cifar/ --hub models/

  eisnn-zoo publish models/ei_vgg8_cifar10.mine --repo-id me/ei_vgg8_cifar10 --dry-run
"""
CARD = """[bold]Examples[/bold]

  eisnn-zoo card ei_vgg8_cifar10.zoo

  eisnn-zoo card hub/ei_vgg8_cifar10.zoo --output hub/ei_vgg8_cifar10.zoo/README.md
"""
PUBLISH = """[bold]Examples[/bold]

  eisnn-zoo publish ei_vgg8_cifar10.zoo --repo-id me/ei_vgg8_cifar10 --dry-run

  eisnn-zoo publish runs/mine --data cifar/ --repo-id me/mine --private
"""
DOWNLOAD = """[bold]Examples[/bold]

  eisnn-zoo download ei_resnet18_cifar10 ei_vgg16_cifar100

  eisnn-zoo download ei_resnet18_cifar10 --to models/    (then, without a network: predict x.png --model models/NAME)
"""
VERIFY = """[bold]Examples[/bold]

  eisnn-zoo verify

  eisnn-zoo verify ei_resnet18_cifar10.paper models/ei_vgg8_cifar10.paper
"""
CONVERT = """[bold]Examples[/bold]

  eisnn-zoo convert CIFAR10-VGG8/model.safetensors vgg8.safetensors

  eisnn-zoo convert vgg8.safetensors back.safetensors
"""


License = Annotated[str, typer.Option("--license", help="SPDX name of the weights' licence, for the card.")]


def register(app: typer.Typer) -> None:
    app.command("download", epilog=DOWNLOAD)(download)
    app.command("verify", epilog=VERIFY)(verify)
    app.command("convert", epilog=CONVERT)(convert)
    app.command("pack", epilog=PACK)(pack)
    app.command("card", epilog=CARD)(card)
    app.command("publish", epilog=PUBLISH)(publish)


def pack(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    tag: Annotated[str, typer.Option("--tag", help="Of the weights, as in MODEL.TAG.")],
    data: Annotated[Path, typer.Option("--data", help="Folder with the test images, on which the weights are measured.")],
    name: Annotated[str | None, typer.Option("--name", metavar="MODEL", help="Default: the model of the run's recipe.")] = None,
    weights: Annotated[str, typer.Option("--weights", help="best, last, or a .safetensors file.")] = "best",
    time_steps: Annotated[int | None, typer.Option(
        "--time-steps", "-T", min=1, max=MAX_STEPS,
        help="Number of time steps to publish with. Default: that of the recipe's last epoch.")] = None,
    remark: Annotated[str, typer.Option("--remark", help="On the training, for the card, in whole sentences.")] = "",
    license: License = LICENSE,
    hub: Annotated[Path | None, typer.Option(
        "--hub", help="Folder to write to, with a table weights.toml of its own. Default: hub/ of this checkout.")] = None,
) -> None:
    """Make a published model of a run: weights in half precision, measured, with configuration, record and card."""
    from ..sharing.packing import pack
    from ..table import installed, place

    need("train")
    if hub is None and installed():
        raise UsageError("the package is installed, not a checkout with a hub/ of its own: name the folder to write to with --hub")
    check_folder(hub, "--hub")
    row = pack(run, tag, data, name, weights, hub, time_steps, remark, license, say=note)
    folder, table = place(hub)
    print(folder / row.folder)
    note(f"{row.name}: {row.top1} % top-1, {row.size / 1e6:.1f} MB; its row is in {table}")


def card(
    model: Annotated[str, typer.Argument(help="Name of a packed model, or its folder.")],
    repo_id: Annotated[str, typer.Option("--repo-id", metavar="ORG/NAME", help="For a copy on the Hub.")] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file.")] = None,
) -> None:
    """Print a model's card, made from its configuration and the table of weights."""
    from ..files import write_atomic
    from ..sharing import card as cards
    from ..sharing.publishing import check_request, find

    if repo_id:
        check_request(repo_id, dry_run=True)
    folder, row = find(model)
    text = cards.of_folder(folder, row, repo_id)
    cards.check(text)
    if output is None:
        print(text, end="")
    else:
        check_file(output, suffix=".md", what="a card")
        write_atomic(output, text)
        note(f"wrote {output}")


def publish(
    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="Name of a packed model, its folder, or a run.")],
    repo_id: Annotated[str, typer.Option("--repo-id", metavar="ORG/NAME", help="Where on the Hub.")],
    data: Annotated[Path | None, typer.Option("--data", help="For a run: the test images, on which it is measured first.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="For a run: of its weights, as in MODEL.TAG. Default: zoo.")] = None,
    license: Annotated[str | None, typer.Option(
        "--license", help=f"For a run: SPDX name of the weights' licence, for the card. Default: {LICENSE}.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and show what would go; no network.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch to publish to; made where there is none.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead of publishing.")] = False,
) -> None:
    """Upload a model to the Hugging Face Hub, after all checks, in one commit."""
    from ..sharing import publishing
    from ..table import WEIGHTS

    publishing.check_request(repo_id, revision, create_pr, dry_run)
    with tempfile.TemporaryDirectory() as place:
        if data is None:
            folder, row = publishing.find(model)
            if tag or license is not None:
                raise UsageError(f"{row.name} is packed, and --tag and --license were fixed then: leave them out")
        else:  # what would be packed is published, and nothing of it stays here
            from ..sharing.packing import pack

            need("train")
            if (Path(model) / WEIGHTS).is_file():
                raise UsageError(f"{model} is a packed model, which has been measured: leave out --data")
            row = pack(Path(model), tag or "zoo", data, hub=Path(place), license=LICENSE if license is None else license, say=note)
            folder = Path(place) / row.folder
        files = publishing.check(folder, row, repo_id)
    if dry_run:
        print(table([{"file": name, "bytes": len(data)} for name, data in files.items()]))
        note(f"\n{len(files)} files, {sum(map(len, files.values())) / 1e6:.1f} MB, would go to {repo_id} in one commit; all checks passed")
        return
    _no_bars_in_pipes()
    print(publishing.publish(files, row, repo_id, private, revision, create_pr, say=note))


def download(
    models: Annotated[list[str] | None, typer.Argument(metavar="MODEL", help="Names, or hf-hub:org/name.", show_default=False)] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Make a folder for each here. Default: the Hub's cache.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every model with trained weights.")] = False,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit on the Hub.")] = None,
) -> None:
    """Fetch trained weights ahead of use."""
    from ..sharing.downloading import choose, download

    check_folder(to, "--to")
    _no_bars_in_pipes()
    failed = 0
    chosen = choose(models or [], everything)
    for spec in chosen:
        try:
            print(download(spec, to, revision), flush=True)
        except ZooError as error:
            if len(chosen) == 1:
                raise
            failed += 1
            note(f"Error: {error}")
    if failed:
        note(f"{failed} of {len(chosen)} models could not be fetched")
        raise typer.Exit(1)


def verify(
    models: Annotated[list[str] | None, typer.Argument(
        metavar="MODEL|DIR", help="Names, folders or weight files. Default: all that are here.", show_default=False)] = None,
    format: Annotated[Format, typer.Option("--format", "-f")] = Format.table,
) -> None:
    """Check weights that are here: hash, names and shapes, finite values, Dale's law, and the accuracy on record."""
    from ..sharing.verifying import verify
    from ..table import list_weights

    if not models:
        models = [row.name for row in list_weights() if row.local]
        if not models:
            raise UsageError("no weights are here: name a folder, or fetch some with `eisnn-zoo download`")
    rows = []
    for spec in models:
        try:
            for finding in verify(_here(spec)):
                rows.append({"model": spec, "check": finding.check, "ok": "no" if finding.problem else "yes",
                             "seen": finding.problem or finding.seen})
        except ZooError as error:
            if len(models) == 1:
                raise
            rows.append({"model": spec, "check": "found" if isinstance(error, UsageError) else "read", "ok": "no", "seen": str(error)})
    print(render(rows, format))
    gone = [row["model"] for row in rows if row["check"] == "found"]
    bad = sorted({row["model"] for row in rows if row["ok"] == "no"} - set(gone))
    said = [f"{', '.join(bad)} did not pass: do not use these weights"] if bad else []
    if gone:
        said.append(f"{', '.join(gone)}: not here, and not checked")
    if said:
        raise ZooError("; ".join(said))


def _here(spec: str):
    """Weights without fetching anything, and without the checks that are to be reported."""
    from ..config import read_config
    from ..locating import Located, is_address, is_name, locate, released_config
    from ..sharing.publishing import find
    from ..table import WEIGHTS, rows_of

    path = Path(spec.removeprefix("local-dir:"))
    if path.is_dir() and not is_name(spec):
        if not (path / WEIGHTS).is_file():  # a run
            return locate(spec)
        try:
            folder, row = find(str(path.resolve()))
        except UsageError:  # a folder that is in no table
            return locate(spec)
        return Located(folder / WEIGHTS, read_config(folder / "config.json"), row)
    if is_address(spec):
        raise UsageError(f"{spec}: verify looks at what is here; fetch it with `eisnn-zoo download {spec} --to FOLDER` first")
    if "/" in spec or path.is_file() or spec.startswith("local-dir:") or path.suffix == ".safetensors":
        return locate(spec)
    _, rows = rows_of(spec)
    if not rows:
        return locate(spec)  # says that there are none
    for row in rows:
        if (local := row.local) is not None:
            config = local.parent / "config.json"
            return Located(local, read_config(config) if row.folder else released_config(row.model, config), row)
    raise UsageError(f"the weights {rows[0].name} are not here: fetch them with `eisnn-zoo download {rows[0].name}`")


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors file in the authors' layout, or in ours.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write, in the other layout.")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model of the weights, where no config.json lies beside them.")] = None,
    like: Annotated[Path | None, typer.Option("--like", help="A checkpoint of the authors, as a pattern for their layout.")] = None,
) -> None:
    """Convert a checkpoint between the authors' layout and ours, bit for bit."""
    from ..sharing.converting import convert

    done = convert(checkpoint, out, model, like)
    print(out)
    note(done)


def _no_bars_in_pipes() -> None:
    """Progress bars are for people."""
    import sys

    if not is_terminal(sys.stderr):
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
