"""Embeddings of annotated cells: extracted once, kept with their provenance, read by ID.

>>> import featstore, tempfile
>>> featstore.create(tempfile.mkdtemp() + "/mitosis.zarr").datasets()
[]
"""

from featstore import errors
from featstore.annotations import AnnotationTable
from featstore.version import __version__

__all__ = [
    "AnnotationTable",
    "CachedPatches",
    "EmbeddingInfo",
    "Embeddings",
    "EncoderSpec",
    "ImageFolder",
    "Patches",
    "PatchesInfo",
    "Store",
    "__version__",
    "create",
    "errors",
    "open",
]

_HOMES = {
    "CachedPatches": "featstore.store.patchcache",
    "EmbeddingInfo": "featstore.store.reader",
    "Embeddings": "featstore.store.reader",
    "EncoderSpec": "featstore.encoders.spec",
    "ImageFolder": "featstore.images",
    "Patches": "featstore.patches",
    "PatchesInfo": "featstore.store.patchcache",
    "Store": "featstore.store.reader",
}


def __getattr__(name):
    """Import the larger parts when they are first used: ``import featstore`` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'featstore' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def open(path, *, check=False, storage_options=None):
    """Open a store for reading.

    Parameters
    ----------
    path : path-like
        Folder of the store, or its ``s3://``, ``https://`` or ``http://`` address.
    check : bool
        Compare the checksum of every chunk that is read; remote reads always do.
    storage_options : dict, optional
        For fsspec, where the store is on another machine, such as ``{"anon": True}``.

    Returns
    -------
    Store

    Raises
    ------
    StoreError
        If there is no store, or one of a newer format.
    """
    from featstore.store.reader import Store

    return Store(path, check=check, storage_options=storage_options)


def create(path):
    """Make an empty store where nothing is, and open it.

    Raises
    ------
    AlreadyInStoreError
        If the place is taken.
    """
    from featstore.store.layout import create_root

    create_root(path)
    return open(path)
