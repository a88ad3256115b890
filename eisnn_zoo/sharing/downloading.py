"""Weights fetched ahead of use, into the Hub's cache or a folder that needs no network."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from .. import hub_client
from ..errors import UsageError
from ..files import write_atomic
from ..locating import Located, is_address, locate
from ..table import WEIGHTS, list_weights


def choose(specs: list[str], everything: bool) -> list[str]:
    """What to fetch. Raises UsageError where nothing, or both kinds of choice, were given."""
    if everything and specs:
        raise UsageError("--all fetches every model: leave the names out")
    if everything:
        return [row.name for row in list_weights()]
    if not specs:
        raise UsageError("name a model, as in `eisnn-zoo download ei_resnet18_cifar10`, or use --all")
    return specs


def download(spec: str, to: Path | None = None, revision: str | None = None) -> Path:
    """Fetches one model: its weight file's path, or the folder made for it below ``to``.

    The folder holds the weights bit for bit as they were published, and a config.json that every command reads.

    Args:
        spec: a name, or hf-hub:organisation/name.
        revision: branch, tag or commit on the Hub.
    Raises:
        UsageError, ZooError: see :func:`~eisnn_zoo.locating.locate` and :func:`~eisnn_zoo.hub_client.fetch`.
    """
    located = locate(_at(spec, revision), revision)
    if not (located.row or is_address(spec)):
        raise UsageError(f"{spec} is no model on the Hub: give a name of `eisnn-zoo list --pretrained`, or hf-hub:organisation/name")
    if revision and located.row and located.row.folder:
        raise UsageError(f"{located.config.name} comes with the package and has no --revision")
    if to is None:
        return located.path
    name = spec.partition(":")[2].partition("@")[0].replace("/", "--") if is_address(spec) else located.config.name
    folder = to / name
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / WEIGHTS, lambda beside: shutil.copyfile(located.path, beside))
    write_atomic(folder / "config.json", _config(located))
    return folder


def _at(spec: str, revision: str | None) -> str:
    """The address with the revision; a name as it is."""
    if not (revision and is_address(spec)):
        return spec
    if "@" in spec:
        raise UsageError(f"{spec} names a revision already: leave out --revision {revision}")
    return f"{spec}@{revision}"


def _config(located: Located) -> str:
    """config.json in our form, whichever layout the weights have, with where they came from."""
    beside = located.path.parent / "config.json"
    if located.row is None or located.row.folder:
        return beside.read_text("utf-8")
    row = located.row
    source = {"source": f"{row.repo}/{row.file}", "commit": hub_client.commit(located.path), "obtained": row.obtained,
              "source_sha256": hub_client.recorded_hash(located.path)}
    config = replace(located.config, facts={key: value for key, value in source.items() if value})
    return config.text
