"""Copy and merge chosen datasets, embeddings and patches from one store into another.

All that could stand in the way is looked for first, and nothing is changed where something does.
Then each table appears whole or not at all, and chunk files go over one by one, each checked
against its CRC-32C on the way, so that a copy that was stopped goes on where it was. What the
target holds already is never overwritten.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from featstore.errors import NotInStoreError, StoreError
from featstore.store.layout import create_root, members
from featstore.store.manifest import MANIFEST, store_files, write_manifest
from featstore.store.reader import Store
from featstore.store.rowplan import EmbeddingPlan, PatchPlan
from featstore.store.tableplan import CopiedPart, TablePlan

__all__ = ["Copied", "CopiedPart", "Selection", "copy", "left_notes", "select", "terms_notes"]

RESTRICTED = re.compile(r"gated|login|gpl|non-?commercial|\b(nc|nd)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Copied:
    """What :func:`copy` did.

    Parameters
    ----------
    parts : tuple of CopiedPart
        One for each dataset, each array of embeddings and each patch cache.
    notes : tuple of str
        What the user should know, one line each.
    """

    parts: tuple
    notes: tuple

    @property
    def n_bytes(self):
        """Bytes that were written."""
        return sum(part.n_bytes for part in self.parts)


@dataclass(frozen=True)
class Selection:
    """Datasets, embeddings and patches chosen from a store.

    Parameters
    ----------
    datasets : tuple of str
        Names of datasets.
    arrays : tuple of (str, str)
        Model and dataset of each array of embeddings.
    patches : tuple of str
        Names of the datasets whose cached patches go along.
    patches_left : tuple of PatchesInfo
        Cached patches of chosen datasets that do not.
    """

    datasets: tuple
    arrays: tuple
    patches: tuple = ()
    patches_left: tuple = ()


def copy(source_store, target_path, *, models=None, datasets=None, patches=False, manifest=False):
    """Copy datasets and embeddings into another store, or merge them with what it holds.

    Parameters
    ----------
    source_store : Store
        Where to copy from.
    target_path : path-like
        A local store; made where it is missing.
    models : sequence of str, optional
        Models whose embeddings go along, with all of their parts; all models by default, none where
        it is empty.
    datasets : sequence of str, optional
        Datasets to copy; by default those that the chosen models have embeddings of.
    patches : bool
        Take the cached patches of the datasets along.
    manifest : bool
        Write the SHA-256 of every file of the target when all is there.

    Returns
    -------
    Copied

    Raises
    ------
    NotInStoreError
        If the source does not hold what was chosen.
    StoreError
        If an annotation has another label, position or image in the target, a file of the source is
        damaged, or either store holds a link. Nothing was changed then, or only chunks that are
        whole were added.
    DigestError
        If the target has embeddings of that name by another encoder, or patches that were cut in
        another way; nothing was changed.

    Examples
    --------
    >>> import tempfile, featstore
    >>> from featstore.store.writer import add_annotations
    >>> here, there = tempfile.mkdtemp(), tempfile.mkdtemp()
    >>> source = featstore.create(here)
    >>> add_annotations(here, featstore.AnnotationTable("cells", [7, 8], ["a", "b"]))
    >>> copied = copy(source, there)
    >>> [(part.name, part.copied, part.equal) for part in copied.parts]
    [('annotations/cells', 2, 0)]
    >>> featstore.open(there).annotations("cells").ids
    array([7, 8])
    """
    _refuse_links(source_store._root)
    selection = select(source_store, models=models, datasets=datasets, patches=patches)
    target = _target(target_path)
    tables = {name: TablePlan.make(source_store, target, name) for name in selection.datasets}
    arrays = [
        EmbeddingPlan.make(target, model, tables[dataset]) for model, dataset in selection.arrays
    ]
    arrays += [PatchPlan.make(target, tables[dataset]) for dataset in selection.patches]
    home, notes = _made(target_path), []
    parts = [plan.put(home) for plan in tables.values()]
    parts += [plan.put(home, notes) for plan in arrays]
    notes += terms_notes(source_store, selection) + left_notes(selection)
    if manifest:
        write_manifest(home)
    elif (home / MANIFEST).exists() and any(part.n_bytes for part in parts):
        notes.append(
            f"{MANIFEST} in {home} is older than what was copied; write it again with --manifest"
        )
    return Copied(tuple(parts), tuple(notes))


def select(store, *, models=None, datasets=None, patches=False):
    """Choose from what a store holds.

    Parameters
    ----------
    store : Store
        Where to choose from.
    models, datasets, patches
        As for :func:`copy`.

    Returns
    -------
    Selection

    Raises
    ------
    NotInStoreError
        If a name is not there, or a model has no embeddings of the chosen datasets.
    """
    held = [
        (model, dataset)
        for model in members(store._root, "embeddings")
        for dataset in members(store._root, f"embeddings/{model}")
    ]
    _check_held(store, "dataset", datasets, store.datasets())
    held = [array for array in held if datasets is None or array[1] in datasets]
    _check_held(store, "model", _without_views(models), [model for model, _ in held])
    arrays = [array for array in held if models is None or array[0] in models]
    with_embeddings = sorted({dataset for _, dataset in arrays})
    chosen = datasets or (with_embeddings if models else store.datasets())
    chosen = tuple(dict.fromkeys(chosen))
    cached = tuple(dataset for dataset in store.cached_datasets() if dataset in chosen)
    if patches:
        return Selection(chosen, tuple(arrays), patches=cached)
    left = tuple(store.patches(dataset).info for dataset in cached)
    return Selection(chosen, tuple(arrays), patches_left=left)


def _without_views(models):
    """Refuse names of views: chunks are of whole rows."""
    for name in models or ():
        key, colon, _ = name.partition(":")
        if colon:
            raise NotInStoreError(
                f"{name!r} is a view of what is stored, and embeddings are copied with all of "
                f"their parts; give the model {key!r}, or 'featstore export' the view"
            )
    return models


def _check_held(store, kind, asked, held):
    missing = [name for name in asked or () if name not in held]
    if missing:
        raise NotInStoreError(
            f"no {kind} {missing[0]!r} to copy in {store.path}; it holds "
            f"{', '.join(sorted(set(held))) or 'none'}"
        )


def terms_notes(store, selection):
    """Name the chosen models whose weights may not be passed on freely.

    Returns
    -------
    list of str
        One line for each such model.
    """
    terms = {
        model: store.embeddings(model, dataset).stored_provenance.encoder.terms
        for model, dataset in selection.arrays
    }
    return [
        f"embeddings of {model} come from weights under: {' '.join(text.split())}; check that you "
        "may pass them on"
        for model, text in sorted(terms.items())
        if RESTRICTED.search(text)
    ]


def left_notes(selection):
    """Name the cached patches that do not go along.

    Returns
    -------
    list of str
        One line for each dataset with such patches.
    """
    return [
        f"patches of {patches.dataset} ({_size(patches.n_bytes)}) were left behind; --patches "
        "takes them along"
        for patches in selection.patches_left
    ]


def _size(n_bytes):
    """Size in the unit that gives it one to four digits.

    Examples
    --------
    >>> _size(600), _size(9_437_196), _size(3_328_599_654)
    ('600 B', '9.0 MiB', '3.1 GiB')
    """
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    step = min(max(n_bytes.bit_length() - 1, 0) // 10, len(units) - 1)
    return f"{n_bytes / 2 ** (10 * step):.{1 if step else 0}f} {units[step]}"


# --- the two ends


def _refuse_links(root):
    folder = getattr(root.store, "root", None)
    if folder is not None:
        store_files(folder)


def _target(path):
    """Open the target for looking, or return None where there is nothing yet."""
    if "://" in str(path) or str(path).endswith(".zip"):
        raise StoreError(
            f"{path} cannot be copied into; copy into a folder ('featstore pack' makes a zip of it)"
        )
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    target = Store(path)
    _refuse_links(target._root)
    return target


def _made(path):
    """Make the target where it is missing, whole or not at all; return its folder."""
    path = Path(path)
    if not path.exists():
        beginning = path.with_name(f".{path.name}.next")
        shutil.rmtree(beginning, ignore_errors=True)
        create_root(beginning)
        os.rename(beginning, path)
    elif not any(path.iterdir()):  # may be where a disk is mounted, which nothing can replace
        create_root(path)
    return path
