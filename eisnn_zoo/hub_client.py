"""Files from the Hugging Face Hub, each failure in one sentence."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UsageError, ZooError


def cached(repo: str, filename: str, revision: str | None = None) -> Path | None:
    """The file where an earlier download left it, without touching the network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, filename, revision=revision)
    return Path(found) if isinstance(found, str) else None


def fetch(repo: str, filename: str, revision: str | None = None) -> Path:
    """The file, from the cache or the Hub.

    Raises:
        UsageError: no such repository, revision or file. ZooError: anything else that came between.
    """
    from huggingface_hub import errors, hf_hub_download

    where = f"{repo}/{filename}" + (f" at {revision}" if revision else "")
    try:
        return Path(hf_hub_download(repo, filename, revision=revision))
    except errors.HFValidationError as error:
        raise UsageError(f"{repo!r} is no repository name: write organisation/name") from error
    except errors.GatedRepoError as error:
        raise ZooError(f"{repo} is gated: accept its terms on the Hub, then run `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise UsageError(f"the Hub has no repository {repo}, or it is private: check the name, or run `hf auth login`") from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(f"{repo} has no revision {revision}") from error
    except errors.RemoteEntryNotFoundError as error:
        raise UsageError(f"{repo} has no file {filename}") from error
    except errors.LocalEntryNotFoundError as error:
        offline = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "the Hub could not be reached"
        raise ZooError(f"{where} is not in the local cache and {offline}: connect and run the command again, or choose a model "
                       "that `eisnn-zoo list --pretrained` shows as here") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "?"
        hint = {401: "run `hf auth login`", 403: "this account may not read it", 429: "too many requests, wait a few minutes"}
        raise ZooError(f"the Hub answered {status} for {where}: {hint.get(status, 'try again later')}") from error
    except OSError as error:
        raise ZooError(f"{where} could not be fetched: {error.strerror or error}") from error
    except Exception as error:  # the client's HTTP library, whichever it is in this version
        raise ZooError(f"{where} could not be fetched ({type(error).__name__}: {error}): try again") from error
