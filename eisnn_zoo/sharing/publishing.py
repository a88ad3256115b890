"""A published model's folder: found, checked, and uploaded in one commit."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from .. import hub_client
from ..config import read_config
from ..errors import UsageError, ZooError
from ..files import quoted
from ..locating import Located, is_name
from ..table import TABLE, WEIGHTS, Weights, hub_folder, list_weights, read_table, table_path, weights_of
from . import card
from .verifying import verify

SUFFIXES = {".safetensors", ".json", ".onnx", ".yaml", ".csv", ".png", ".svg", ".md", ".txt"}
_PATH = re.compile(r"(?:(?<![\w:/.~)\]-])|(?<=local-dir:))/(?:home|root|tmp|mnt|data|work|workspace|var|opt|srv|Users|private)/[\w.-]+"
                   r"|\b[A-Za-z]:(?:\\{1,2}|/)(?!/)\w+")


def find(spec: str) -> tuple[Path, Weights]:
    """The folder of a packed model and its row: by name with or without a tag, or by the folder's path.

    Raises:
        UsageError: no such model, or one that was not packed.
    """
    folder = Path(spec)
    if folder.is_dir() and not is_name(spec):
        tables = [t for t in (folder.resolve().parent / TABLE, table_path()) if t.is_file()]
        rows = [row for t in tables for row in read_table(t) if row.folder == folder.resolve().name]
        if rows:
            return folder, rows[0]
        if (folder / "recipe.yaml").is_file() and not (folder / WEIGHTS).is_file():
            from ..training.reading import FOLDER
            from ..training.run import Run

            if Run.existing(folder).recipe.dataset == FOLDER:
                raise UsageError(f"{folder} was trained on one's own pictures, and cards are for the zoo's datasets: share it as it is, "
                                 f"with `hf upload ORG/NAME {quoted(folder / 'best')}`; then --model hf-hub:ORG/NAME takes it")
            raise UsageError(f"{folder} is a run: make a model of it first, with `eisnn-zoo pack {quoted(folder)} --tag TAG --data "
                             "FOLDER`, or publish it with --data FOLDER, the test images that it is measured on")
        raise UsageError(f"{folder} is in no table of weights: only models that `eisnn-zoo pack` made can be published")
    name, _, tag = spec.partition(".")
    rows = [row for row in list_weights() if row.model.name == name and row.folder and tag in ("", row.tag)]
    if not rows:
        have = ", ".join(row.name for row in list_weights() if row.folder) or "none yet"
        foreign = " (its weights are the authors', on the Hub already)" if any(tag in ("", w.tag) for w in weights_of(name)) else ""
        raise UsageError(f"there is no packed model {spec}{foreign}; there are: {have}")
    return hub_folder() / rows[0].folder, rows[0]


def check_request(repo: str, revision: str | None = None, create_pr: bool = False, dry_run: bool = False) -> None:
    """What can be wrong before there is anything to publish. Raises UsageError; ZooError where there is no token (but for a dry run)."""
    from huggingface_hub import get_token
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise hub_client.explain(error, repo, repo) from error
    if repo.count("/") != 1:
        raise UsageError(f"--repo-id {repo}: write organisation/name")
    if create_pr and revision:
        raise UsageError("--create-pr opens a pull request on the main branch: leave out --revision")
    if not dry_run and not get_token():
        raise ZooError("no token to publish with: run `hf auth login`, or set HF_TOKEN")


def check(folder: Path, row: Weights, repo: str) -> dict[str, bytes]:
    """Everything that would be uploaded, by its path in the repository, after every check that needs no network.

    Raises:
        ZooError: the weights are not what the table says, or do not load; a file that could run code, a link, a path of this
            machine in a file; a card the Hub would refuse.
    """
    config = read_config(folder / "config.json")
    failed = [finding for finding in verify(Located(folder / WEIGHTS, config, row)) if finding.problem]
    if failed:
        raise ZooError(f"{folder} cannot be published: {failed[0].problem}")
    files: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise ZooError(f"{path} is a link, not a file: put the file itself there")
        if path.is_file():
            if path.suffix.lower() not in SUFFIXES:
                raise ZooError(f"{path} does not belong to a published model: only {', '.join(sorted(SUFFIXES))} are uploaded")
            files[name] = path.read_bytes()
    files["README.md"] = card.render(config, row, set(files), f"hf-hub:{repo}").encode()
    card.check(files["README.md"].decode())
    for name, data in files.items():
        if Path(name).suffix in (".json", ".yaml", ".csv", ".md", ".txt") and (found := _PATH.search(data.decode("utf-8", "replace"))):
            raise ZooError(f"{folder / name} names a path of this machine, {found[0]}: take it out first")
    return files


def publish(files: dict[str, bytes], row: Weights, repo: str, private: bool = False, revision: str | None = None,
            create_pr: bool = False, say: Callable[[str], object] = lambda _: None) -> str:
    """Uploads files in one commit; the repository is made where there is none. Returns the commit's address.

    Weights that lie there in other files, as an ONNX file made of earlier ones, are deleted in the same commit.

    Raises:
        ZooError: no token, no network, a name that is taken or refused. Nothing is published then; at most an empty
            repository was made.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    check_request(repo, revision, create_pr)
    api = HfApi(endpoint=hub_client.endpoint())
    made = False
    try:
        made = not api.repo_exists(repo)
        if made:
            api.create_repo(repo, private=private)
        else:
            _same_model(api, repo, row)
        if revision:
            api.create_branch(repo, branch=revision, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            operations: list = [CommitOperationDelete(name) for name in api.list_repo_files(repo, revision=revision)
                                if Path(name).suffix in (".onnx", ".safetensors") and name not in files]
            for name, data in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)  # from a file: the client takes large ones only so
                operations.append(CommitOperationAdd(name, path))
            done = api.create_commit(repo, operations, commit_message=f"{row.name}: {row.top1} % top-1", revision=revision,
                                     create_pr=create_pr)
    except ZooError:
        raise
    except Exception as error:  # also those of the client's HTTP library
        failure = hub_client.explain(error, repo, repo)
        rest = "; the repository was made and is empty" if made and _exists(api, repo) else ""
        raise type(failure)(f"nothing was published: {failure}{rest}") from error
    say(f"{len(files)} files in one commit")
    return str(done.pr_url or done.commit_url)


def _exists(api, repo: str) -> bool:
    try:
        return api.repo_exists(repo)
    except Exception:  # whatever it is, the first failure is the one to tell
        return False


def _same_model(api, repo: str, row: Weights) -> None:
    """Raises UsageError where the repository holds something else."""
    present = set(api.list_repo_files(repo)) - {".gitattributes", "README.md"}
    if not present:
        return
    there = ""
    if "config.json" in present:
        config = hub_client.fetch(repo, "config.json")
        try:
            there = read_config(config).model.name
        except ZooError:
            there = "another model"
    if there != row.model.name:
        raise UsageError(f"{repo} already holds {there or 'other files'}: choose another --repo-id for {row.name}")
