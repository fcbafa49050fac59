"""Copy and merge chosen datasets and embeddings from one store into another.

All that could stand in the way is looked for first, and nothing is changed where something does.
Then each table appears whole or not at all, and chunk files go over one by one, each checked
against its CRC-32C on the way, so that a copy that was stopped goes on where it was. What the
target holds already is never overwritten.
"""

import itertools
import os
import re
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from featstore.annotations import AnnotationTable
from featstore.errors import DamagedChunkError, DigestError, NotInStoreError, StoreError
from featstore.store.chunks import CHECKSUM_BYTES, write_file
from featstore.store.layout import (
    check_key,
    create_root,
    fetch,
    local_path,
    members,
    new_array,
    new_group,
    open_root,
    rows_per_chunk,
)
from featstore.store.lock import writer_lock
from featstore.store.manifest import MANIFEST, store_files, write_manifest
from featstore.store.reader import Store
from featstore.store.seal import SEAL
from featstore.store.source import SourceChunks, check_chunk, check_seal
from featstore.store.writer import EmbeddingWriter, extend_annotations

__all__ = ["Copied", "CopiedPart", "Selection", "copy", "select", "terms_notes"]

COMPARED = ("label", "x", "y", "image")  # what makes an annotation the same in two stores
NAMED_CONFLICTS = 3
RESTRICTED = re.compile(r"gated|login|gpl|non-?commercial|\b(nc|nd)\b", re.IGNORECASE)


@dataclass(frozen=True)
class CopiedPart:
    """What :func:`copy` did with one dataset or one array of embeddings.

    Parameters
    ----------
    name : str
        Path in the store.
    copied : int
        Chunk files that were written.
    equal : int
        Chunk files that were there already.
    n_bytes : int
        Bytes that were written.
    """

    name: str
    copied: int
    equal: int
    n_bytes: int


@dataclass(frozen=True)
class Copied:
    """What :func:`copy` did.

    Parameters
    ----------
    parts : tuple of CopiedPart
        One for each dataset and each array of embeddings.
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
    """Datasets and embeddings chosen from a store.

    Parameters
    ----------
    datasets : tuple of str
        Names of datasets.
    arrays : tuple of (str, str)
        Model and dataset of each array of embeddings.
    """

    datasets: tuple
    arrays: tuple


def copy(source_store, target_path, *, models=None, datasets=None, manifest=False):
    """Copy datasets and embeddings into another store, or merge them with what it holds.

    Parameters
    ----------
    source_store : Store
        Where to copy from.
    target_path : path-like
        A local store; made where it is missing.
    models : sequence of str, optional
        Models whose embeddings go along; all by default, none where it is empty.
    datasets : sequence of str, optional
        Datasets to copy; by default those that the chosen models have embeddings of.
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
        If the target has embeddings of that name by another encoder; nothing was changed.

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
    selection = select(source_store, models=models, datasets=datasets)
    target = _target(target_path)
    tables = {name: _TablePlan.make(source_store, target, name) for name in selection.datasets}
    arrays = [
        _ArrayPlan.make(source_store, target, model, tables[dataset])
        for model, dataset in selection.arrays
    ]
    home = _made(target_path)
    parts, notes = [_put_table(plan, home) for plan in tables.values()], []
    for plan in arrays:
        parts.append(_put_array(plan, home, notes))
    notes += terms_notes(source_store, selection)
    if manifest:
        write_manifest(home)
    elif (home / MANIFEST).exists() and any(part.n_bytes for part in parts):
        notes.append(
            f"{MANIFEST} in {home} is older than what was copied; write it again with --manifest"
        )
    return Copied(tuple(parts), tuple(notes))


def select(store, *, models=None, datasets=None):
    """Choose from what a store holds.

    Parameters
    ----------
    store : Store
        Where to choose from.
    models, datasets : sequence of str, optional
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
    _check_held(store, "model", models, [model for model, _ in held])
    arrays = [array for array in held if models is None or array[0] in models]
    with_embeddings = sorted({dataset for _, dataset in arrays})
    chosen = datasets or (with_embeddings if models else store.datasets())
    return Selection(tuple(dict.fromkeys(chosen)), tuple(arrays))


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
        model: store.embeddings(model, dataset).provenance.encoder.terms
        for model, dataset in selection.arrays
    }
    return [
        f"embeddings of {model} come from weights under: {' '.join(text.split())}; check that you "
        "may pass them on"
        for model, text in sorted(terms.items())
        if RESTRICTED.search(text)
    ]


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


# --- annotation tables


@dataclass(frozen=True)
class _TablePlan:
    """How the table of one dataset comes into the target.

    Parameters
    ----------
    store : Store
        The source.
    theirs : AnnotationTable
        The source's table.
    ours : AnnotationTable or None
        The target's table.
    merged : AnnotationTable
        What the target will hold.
    """

    store: Store
    theirs: AnnotationTable
    ours: AnnotationTable | None
    merged: AnnotationTable

    @classmethod
    def make(cls, store, target, dataset):
        check_key("dataset", dataset)
        theirs = store.annotations(dataset)
        for column in theirs.columns:
            check_key("column", column)
        if target is None or dataset not in target.datasets():
            return cls(store, theirs, None, theirs)
        ours = target.annotations(dataset)
        _check_same_cells(ours, theirs, target.path)
        new = theirs.take(theirs.ids[~np.isin(theirs.ids, ours.ids)])
        return cls(store, theirs, ours, ours.extended(new) if len(new) else ours)

    @property
    def name(self):
        return f"annotations/{self.theirs.name}"

    @property
    def aligned(self):
        """Whether a row of the source's table is the same row of the target's."""
        return np.array_equal(self.merged.ids[: len(self.theirs)], self.theirs.ids)

    def source_rows(self, ids):
        """Row of each ID in the source's table; -1 where it has none."""
        rows = np.full(len(ids), -1)
        known = np.isin(ids, self.theirs.ids)
        rows[known] = self.theirs.positions(ids[known])
        return rows


def _check_same_cells(ours, theirs, target_path):
    """Refuse tables in which an ID has another label, position or image."""
    if ours.ids.dtype.kind != theirs.ids.dtype.kind:
        raise StoreError(
            f"the annotation IDs of {ours.name!r} are integers in one store and strings in the "
            f"other (first in {target_path}: {ours.ids.tolist()[0]!r}, to copy: "
            f"{theirs.ids.tolist()[0]!r}); nothing was changed"
        )
    common = theirs.ids[np.isin(theirs.ids, ours.ids)]
    ours, theirs = ours.take(common), theirs.take(common)
    conflicts = {column: _differing(ours, theirs, column) for column in COMPARED}
    if any(conflicts.values()):
        counts = ", ".join(f"{len(found)} in {name}" for name, found in conflicts.items() if found)
        first = list(itertools.chain(*conflicts.values()))[:NAMED_CONFLICTS]
        raise StoreError(
            f"annotations of {ours.name!r} are not the same in {target_path}: {counts} (first: "
            f"{'; '.join(first)}); nothing was changed, copy into another store or mend one of them"
        )


def _differing(ours, theirs, column):
    """Describe each annotation with another value in the two tables of the same IDs."""
    known = [{"label", *table.columns} for table in (ours, theirs)]
    if not all(column in columns for columns in known):
        return []
    here, there = ours.column(column), theirs.column(column)
    if (here.dtype.kind == "U") != (there.dtype.kind == "U"):
        here, there = here.astype(str), there.astype(str)
    same = (here == there) | ((here != here) & (there != there))  # NaN is NaN
    return [
        f"ID {ours.ids[row].item()!r} {column} {here[row].item()!r} here, "
        f"{there[row].item()!r} there"
        for row in np.flatnonzero(~same)
    ]


def _put_table(plan, home):
    n_columns = 2 + len(plan.merged.columns)
    if plan.ours is None:
        return _copy_table(plan, home)
    if len(plan.merged) == len(plan.ours):
        return CopiedPart(plan.name, 0, n_columns, 0)
    extend_annotations(home, plan.merged)
    folder = home / plan.name
    n_bytes = sum((folder / file).stat().st_size for file in store_files(folder))
    return CopiedPart(plan.name, n_columns, 0, n_bytes)


def _copy_table(plan, home):
    """Copy the columns of a table, whose place in the target is empty."""
    source, n_bytes = plan.store._root, 0
    columns = ["id", "label", *plan.theirs.columns]
    with new_group(open_root(home, mode="r+"), plan.name) as group:
        for column in columns:
            chunks = SourceChunks(source, f"{plan.name}/{column}")
            n_bytes += _copy_column(chunks, group, column)
        attributes = _attributes(source, plan.name)
        attributes.pop("images", None)  # a path of the source's machine
        group.attrs.update(attributes)
    return CopiedPart(plan.name, len(columns), 0, n_bytes)


def _copy_column(chunks, group, column):
    _array_like(chunks.array, group, column, chunks.array.shape, chunks.array.chunks)
    n_bytes = 0
    for place in chunks.places():
        data = chunks.raw(place)
        if data is None:
            raise DamagedChunkError(
                f"chunk {'/'.join(map(str, place))} of {chunks.name!r} is not there; get the store "
                "again"
            )
        write_file(local_path(group).joinpath(column, "c", *map(str, place)), data)
        n_bytes += len(data)
    return n_bytes


def _array_like(array, group, name, shape, chunk_shape):
    """Make an empty array that differs from another at most in its number of rows."""
    made = new_array(
        group,
        name,
        shape=shape,
        chunk_shape=chunk_shape,
        dtype=array.dtype,
        dimension_names=array.metadata.dimension_names,
    )
    attributes = {key: value for key, value in array.attrs.items() if key != SEAL}
    if attributes:
        made.attrs.update(attributes)


def _attributes(root, name):
    """Attributes of a group of the source, all but the seal, which is of that one file."""
    check_seal(fetch(root, f"{name}/zarr.json"), f"{name}/zarr.json of {root.store}")
    return {key: value for key, value in root[name].attrs.items() if key != SEAL}


# --- embeddings


@dataclass(frozen=True)
class _ArrayPlan:
    """How the embeddings of one model of one dataset come into the target.

    Parameters
    ----------
    model : str
        Name of the model.
    table : _TablePlan
        The dataset's table.
    chunks : SourceChunks
        The source's chunks.
    """

    model: str
    table: _TablePlan
    chunks: SourceChunks

    @classmethod
    def make(cls, store, target, model, table):
        check_key("model", model)
        dataset = table.theirs.name
        plan = cls(model, table, SourceChunks(store._root, f"embeddings/{model}/{dataset}/values"))
        plan.provenance.check_rows(table.theirs)
        plan._check_shape()
        if target is not None and f"{plan.name}/values" in target._root:
            plan._check_same_encoder(target)
        return plan

    @property
    def name(self):
        return f"embeddings/{self.model}/{self.table.theirs.name}"

    @cached_property
    def provenance(self):
        return self.table.store.embeddings(self.model, self.table.theirs.name).provenance

    def _check_shape(self):
        array, n_annotations = self.chunks.array, len(self.table.theirs)
        whole_rows = array.ndim == 2 and array.chunks[1] == array.shape[1]
        if not whole_rows or array.dtype.kind != "f" or array.shape[0] > n_annotations:
            raise StoreError(
                f"{self.name!r} of {self.table.store.path} has the shape {array.shape} in chunks "
                f"of {array.chunks} of {array.dtype}; expected at most {n_annotations} whole rows "
                "of floating-point numbers"
            )

    def _check_same_encoder(self, target):
        there = target.embeddings(self.model, self.table.theirs.name)
        if there.digest != self.provenance.digest:
            differing = "; ".join(there.provenance.encoder.differences(self.provenance.encoder))
            raise DigestError(
                f"{self.name!r} in {target.path} was made by another encoder than the one to copy "
                f"({differing}); nothing was changed, copy into another store"
            )
        ours, theirs = target._root[f"{self.name}/values"], self.chunks.array
        if (ours.shape[1], ours.dtype) != (theirs.shape[1], theirs.dtype):
            raise DigestError(
                f"{self.name!r} has {ours.shape[1]} {ours.dtype} to a row in {target.path} and "
                f"{theirs.shape[1]} {theirs.dtype} in the store to copy; nothing was changed"
            )

    def attributes(self):
        """Attributes of the source's group, to be kept as they are."""
        return _attributes(self.table.store._root, self.name)


def _put_array(plan, home, notes):
    root = open_root(home, mode="r+")
    if f"{plan.name}/values" not in root:
        _begin_array(plan, root)
    if plan.table.aligned and _same_state(plan, root):
        return _copy_chunks(plan, home, notes)
    return _write_rows(plan, home, notes)


def _begin_array(plan, root):
    """Make the array without its chunks, as the source's or for the rows of the target's table."""
    array, attributes = plan.chunks.array, plan.attributes()
    shape, chunk_shape = array.shape, array.chunks
    if not plan.table.aligned:
        merged = plan.table.merged
        shape = (len(merged), array.shape[1])
        chunk_shape = (rows_per_chunk(*shape, array.dtype), array.shape[1])
        rows = {"dataset_digest": merged.digest, "dataset_rows": len(merged)}
        attributes["provenance"] = {**attributes["provenance"], **rows}
    with new_group(root, plan.name) as group:
        _array_like(array, group, "values", shape, chunk_shape)
        group.attrs.update(attributes)


def _same_state(plan, root):
    """Whether chunk files of the source can stand in the target as they are."""
    ours, theirs = root[f"{plan.name}/values"], plan.chunks.array
    n_embedded = root[plan.name].attrs["provenance"]["dataset_rows"]
    return (ours.shape, ours.chunks, n_embedded) == (
        theirs.shape,
        theirs.chunks,
        plan.provenance.dataset_rows,
    )


def _copy_chunks(plan, home, notes):
    """Copy the chunk files that the target does not have."""
    done = CopiedPart(plan.name, 0, 0, 0)
    n_other = 0
    with writer_lock(home / plan.name):
        for place in plan.chunks.places():
            file = home.joinpath(plan.name, "values", "c", *map(str, place))
            if file.exists():
                equal = plan.chunks.checksum(place) == _checksum_of(file)
                n_other += not equal
                done = replace(done, equal=done.equal + equal)
            elif (data := plan.chunks.raw(place)) is not None:
                write_file(file, data)
                done = replace(done, copied=done.copied + 1, n_bytes=done.n_bytes + len(data))
    if n_other:
        notes.append(
            f"{n_other} chunks of {plan.name} are in {home} with other values (the same encoder, "
            "another run) and were kept; 'featstore diff' says how far the two are apart"
        )
    return done


def _checksum_of(file):
    data = file.read_bytes()
    check_chunk(data, str(file))
    return data[-CHECKSUM_BYTES:]


def _write_rows(plan, home, notes):
    """Bring embeddings into the order and the chunks of the target."""
    spec, dataset = plan.provenance.encoder.at(key=plan.model), plan.table.theirs.name
    provenance, n_left, written = plan.provenance, 0, []
    with EmbeddingWriter(home, dataset, spec, parts=provenance.parts, run=provenance.run) as writer:
        pending = writer.pending()
        for chunk in pending:
            values = plan.chunks.rows(plan.table.source_rows(chunk.ids))
            there = ~np.isnan(values[:, 0])
            if there.all():
                writer.write(chunk, values)
                written.append(home / plan.name / "values" / "c" / str(chunk.number) / "0")
            else:
                n_left += int(there.sum())
    if n_left:
        notes.append(
            f"{n_left} embeddings of {plan.name} were not copied: they share chunks with "
            "annotations that the source has no embeddings of; 'featstore extract' makes them"
        )
    n_bytes = sum(file.stat().st_size for file in written)
    n_before = open_root(home)[f"{plan.name}/values"].nchunks - len(pending)
    return CopiedPart(plan.name, len(written), n_before, n_bytes)
