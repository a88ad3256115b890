"""Files from the Hugging Face Hub: whole or not at all, each failure in one sentence.

The Hub's client names a cached file by the hash that the Hub gave for it, so that a truncated or altered file is found out
here, without a network, before anything reads it.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
from pathlib import Path

from .errors import UsageError, ZooError
from .files import FULL, sha256

_logger = logging.getLogger("eisnn_zoo")


def endpoint() -> str | None:
    """HF_ENDPOINT as it is now; None: the Hub itself."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _folder(repo: str, cache_dir: str | Path | None = None) -> Path:
    """Of a repository, in the cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(cache_dir or HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def cached(repo: str, filename: str, revision: str | None = None, cache_dir: str | Path | None = None) -> Path | None:
    """The file where an earlier download left it, without touching the network."""
    if not _folder(repo, cache_dir).is_dir():  # the client is slow to import
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, filename, cache_dir, revision)
    return Path(found) if isinstance(found, str) else None


def obtain(repo: str, filename: str, revision: str | None = None, cache_dir: str | Path | None = None) -> Path:
    """The cached file where it is there and whole, else a new one. Raises: see :func:`fetch`."""
    path = cached(repo, filename, revision, cache_dir)
    return path if path is not None and is_whole(path) else fetch(repo, filename, revision, cache_dir)


def fetch(repo: str, filename: str, revision: str | None = None, cache_dir: str | Path | None = None) -> Path:
    """The file as the Hub has it now; from the cache where that is the same, or where the Hub is out of reach.

    A file whose content is not what the Hub's hash says is fetched again, once.

    Raises:
        UsageError: no such repository, revision or file. ZooError: anything else that came between.
    """
    where = f"{repo}/{filename}" + (f" at {revision}" if revision else "")
    if not where.isprintable():
        raise UsageError(f"{where!r} names nothing on the Hub: check the repository and the revision")
    path = _download(repo, filename, revision, cache_dir, where)
    if is_whole(path):
        return path
    _logger.warning("%s is truncated or altered: its hash is not the Hub's; fetching %s again", path, where)
    try:
        path = _download(repo, filename, revision, cache_dir, where, again=True)
    except ZooError as error:
        raise ZooError(f"the cached file {path} is truncated or altered and cannot be fetched again: {error}") from error
    if is_whole(path):
        return path
    for altered in (path.resolve(), _led_to(path), path):
        altered.unlink(missing_ok=True)
    raise ZooError(f"{where} arrived altered twice, its hash is not the one that {endpoint() or 'the Hub'} states, and was thrown "
                   "away: try again later, or by another HF_ENDPOINT")


def _download(repo: str, filename: str, revision: str | None, cache_dir: str | Path | None, where: str, again: bool = False) -> Path:
    from huggingface_hub import hf_hub_download

    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.ERROR)  # the client logs each of its retries; the sentence in the end is enough
    try:
        return Path(hf_hub_download(repo, filename, revision=revision, cache_dir=cache_dir, endpoint=endpoint(), force_download=again))
    except Exception as error:  # also those of the client's HTTP library, whichever it is in this version
        raise explain(error, repo, where) from error
    finally:
        log.setLevel(level)


def commit(path: Path) -> str | None:
    """The commit that a cached file belongs to, so that its neighbours can be had from the same one."""
    found = re.match(r".*/snapshots/([^/]+)/", path.as_posix())  # the last of that name: the cache itself may lie below another
    return found[1] if found else None


def _led_to(path: Path) -> Path:
    """By a link, one step alone: what bears the Hub's hash may itself be a link, into a store that all repositories share."""
    return Path(os.path.normpath(path.parent / os.readlink(path))) if path.is_symlink() else path


def recorded_hash(path: Path) -> str | None:
    """The hash the Hub gave for a cached file, sha256 for large files and git's sha1 for small ones; None where unknown."""
    kept = _led_to(path)
    return kept.name if kept.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", kept.name) else None


def is_whole(path: Path) -> bool:
    """Whether a file is what the Hub's hash says; True where there is no hash to compare with."""
    recorded = recorded_hash(path)
    if recorded is None:
        return True
    try:
        if len(recorded) == 64:
            return sha256(path) == recorded
        data = path.read_bytes()
    except OSError:
        return False
    git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    return recorded in (git, hashlib.sha1(data, usedforsecurity=False).hexdigest())  # some mirrors state the plain one


# ---- failures --------------------------------------------------------------------------------------------------------


def explain(error: BaseException, repo: str, where: str) -> ZooError:
    """One sentence and the next step for whatever the Hub's client raised about ``where``."""
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError):
        return UsageError(f"{repo!r} is no repository name: write organisation/name")
    if isinstance(error, errors.GatedRepoError):
        return ZooError(f"{repo} is gated: accept its terms on the Hub, then run `hf auth login`")
    if isinstance(error, errors.RepositoryNotFoundError):
        return UsageError(f"the Hub has no repository {repo}, or it is private: check the name, or run `hf auth login`")
    if isinstance(error, errors.RevisionNotFoundError):
        return UsageError(f"the Hub has no {where}: check the revision")
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return UsageError(f"the Hub has no {where}: check the name")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return ZooError(f"HF_HUB_OFFLINE is set and {where} is not in the local cache: unset it and run the command again, or "
                        "choose a model that `eisnn-zoo list --pretrained` shows as here")
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        return _status(error.response.status_code, where)
    if isinstance(error, (errors.LocalEntryNotFoundError, ValueError)) and error.__cause__ is not None:
        return explain(error.__cause__, repo, where)
    return _broken(error, where)


def _status(status: int, where: str) -> ZooError:
    hints = {401: "run `hf auth login`, or set HF_TOKEN", 403: "this account has no right to it; log in with another one",
             404: "check the name", 409: "somebody else changed it meanwhile, run the command again", 413: "it is too large",
             429: "too many requests, wait a few minutes"}
    hint = hints.get(status, "the Hub is in trouble, try again later" if status >= 500 else "try again later")
    return ZooError(f"the Hub answered {status} for {where}: {hint}")


def _broken(error: BaseException, where: str) -> ZooError:
    """Connections and disks."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in FULL:
        return ZooError(f"the disk is full, {where} was not stored: make room, or set HF_HOME to a folder on another disk")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ZooError(f"{error.filename or 'the cache'} cannot be written: set HF_HOME to a folder of your own, or use "
                        "`eisnn-zoo download --to FOLDER`")
    if "home directory" in text:
        return ZooError(f"there is no folder to keep {where} in, since this user has no home: set HF_HOME to a folder that can be written")
    if isinstance(error, (UnicodeDecodeError, FileExistsError, NotADirectoryError, IsADirectoryError)):
        repo = "/".join(where.split("/")[:2])
        return ZooError(f"what the cache holds of {where} is damaged ({kind}): delete {_folder(repo)} and run the command again")
    if isinstance(error, UnicodeEncodeError) and error.encoding == "ascii":
        return ZooError("HF_TOKEN holds letters that no token has: set it anew, or run `hf auth login`")
    if kind in ("UnsupportedProtocol", "InvalidURL"):
        return ZooError(f"{endpoint()} is no address of a Hub ({text}): check HF_ENDPOINT, which begins with https://")
    if kind == "FileMetadataError":
        return ZooError(f"{endpoint() or 'the Hub'} does not answer as a Hub does: check HF_ENDPOINT, proxy and firewall")
    if "CERTIFICATE_VERIFY_FAILED" in text or "SSL" in text:
        return ZooError(f"no trusted connection for {where} ({text}): check the clock, and SSL_CERT_FILE behind a company's proxy")
    if "Timeout" in kind or isinstance(error, TimeoutError):
        return ZooError(f"{endpoint() or 'the Hub'} took too long over {where}: try again, or raise HF_HUB_DOWNLOAD_TIMEOUT")
    if "Consistency check failed" in text or "RemoteProtocol" in kind:
        return ZooError(f"the connection broke before {where} was whole: run the command again")
    if "Connect" in kind or "Proxy" in kind or isinstance(error, ConnectionError) or kind == "LocalEntryNotFoundError":
        return ZooError(f"{endpoint() or 'the Hub'} could not be reached and {where} is not in the local cache: connect and run "
                        "the command again, or set HF_ENDPOINT to a mirror")
    reason = getattr(error, "strerror", None) or text or kind
    return ZooError(f"{where} could not be fetched ({kind}: {reason}): try again")
