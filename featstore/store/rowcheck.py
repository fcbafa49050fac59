"""The check of an array of rows, embeddings or patches, and of where it came from."""

import hashlib
import json

import numpy as np

from featstore.encoders.spec import EncoderSpec
from featstore.store.examination import COPY_AGAIN, beside, printable
from featstore.store.gridcheck import chunk_bytes, chunk_shape, chunks_of
from featstore.store.parts import StoredRow
from featstore.store.patchcache import WINDOW_COLUMNS
from featstore.store.tablecheck import AGAIN, Table, check_table, chosen

__all__ = ["EmbeddingCheck", "PatchCheck"]


class RowCheck:
    """The check of one array of rows.

    Parameters
    ----------
    exam : Examination
        Takes the findings.
    place : str
        Its group, relative to the store.
    dataset : str
        Name of the dataset, as the group says.
    tables : dict of str to Table
        What is known of each dataset.
    """

    group = ""  # definition of the group in schema.json
    array = ""  # name of the array, and its definition
    also = ()  # what else is in the group
    spec = ""  # name of the specification in the provenance
    not_identity = ()  # fields of it that the digest leaves out
    digest_rule = shape_rule = ""
    unmade = ""  # what is said of annotations without a row

    def __init__(self, exam, place, dataset, tables):
        self.exam, self.place, self.dataset = exam, place, dataset
        self.table = tables.get(dataset, Table((), None))
        if dataset not in tables:
            message = f"there is no dataset {printable(dataset)} in the store; copy it here as well"
            exam.add("M16", place, message)

    def run(self):
        """Check the group, where its rows came from, and every chunk of them."""
        folders, files = self.exam.scan(self.place)
        others = beside(folders, self.array, *self.also)
        self.exam.unknown(self.place, [*others, *beside(files, "zarr.json")])
        group = self.exam.metadata(self.place, self.group)
        provenance = None if group.document is None else group.document["attributes"]["provenance"]
        if provenance is not None:
            self._check_provenance(provenance)
        for name in beside((self.array, *self.also), *folders):
            self.exam.add("M4", f"{self.place}/{name}", f"is not there; {COPY_AGAIN}")
        layout = None
        if self.array in folders:
            layout = self._check_array(provenance, group_sealed=group.sealed)
        self._check_beside(folders, layout)

    def _check_beside(self, folders, layout):
        """Check what stands beside the array; nothing unless a subclass says so."""

    def _check_provenance(self, provenance):
        if provenance["dataset"] != self.dataset:
            message = f"its provenance is of the dataset {printable(provenance['dataset'])}"
            self.exam.add("M16", self.place, message)
        if provenance["digest"] != self._digest_of(provenance[self.spec]):
            message = f"its digest is not that of its {self.spec}'s specification; {COPY_AGAIN}"
            self.exam.add(self.digest_rule, self.place, message)
        table, n_rows = self.table.table, provenance["dataset_rows"]
        if table is None:
            return
        if n_rows > len(table) or table.digest_of_first(n_rows) != provenance["dataset_digest"]:
            message = f"was made of other annotations than the first {n_rows:,} of {self.dataset}"
            self.exam.add("M19", self.place, message)

    def _digest_of(self, spec):
        """Digest of a specification, with fields that only a newer version knows."""
        identity = {key: value for key, value in spec.items() if key not in self.not_identity}
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def _check_array(self, provenance, *, group_sealed):
        """Check every chunk, then note what is not there yet; return the array's metadata."""
        self.exam.n_arrays += 1
        place = f"{self.place}/{self.array}"
        metadata = self.exam.metadata(place, self.array)
        layout = self._layout(place, metadata.document, provenance)
        may_drop = layout is not None and metadata.sealed and group_sealed
        n_settled = provenance["dataset_rows"] if provenance else layout and layout["shape"][0]
        there = np.zeros(len(self.table.names), bool)
        for number, file in chunks_of(self.exam, place, layout):
            rows, problem, bad = self._check_chunk(file, number, layout, n_settled)
            if problem is not None:
                ids = chosen(self.table.names, bad)
                self.exam.bad_chunk(problem, place, file, chunk=number, ids=ids, may_drop=may_drop)
            there[rows[rows < len(there)]] = True
        if layout is not None and not there.all():
            missing = chosen(self.table.names, np.flatnonzero(~there))
            message = f"{len(missing):,} annotations are {self.unmade}"
            self.exam.add("S3", place, message, ids=missing, severity="note")
        return layout

    def _layout(self, place, layout, provenance):
        """Metadata of the array, where its chunks are whole rows; else None."""
        if layout is None:
            return None
        n_rows, *row = layout["shape"]
        n_there = len(self.table.names)
        if n_there and n_rows > n_there:
            message = f"has {n_rows:,} rows, its dataset {n_there:,}; {COPY_AGAIN}"
            self.exam.add("M19", place, message)
        if provenance is not None:
            self._check_rows_against(place, n_rows, row, provenance)
        if chunk_shape(layout)[1:] != row:
            self.exam.add(self.shape_rule, place, f"its chunks are not of whole rows; {COPY_AGAIN}")
            return None
        return layout

    def _check_rows_against(self, place, n_rows, row, provenance):
        n_settled, made = provenance["dataset_rows"], self._row_of(provenance)
        if n_settled > n_rows:
            message = f"has {n_rows:,} rows, its provenance is of {n_settled:,}; {COPY_AGAIN}"
            self.exam.add("M19", place, message)
        if row != made:
            found, wanted = (" x ".join(f"{size:,}" for size in sizes) for sizes in (row, made))
            message = f"has {found} to a row, its provenance makes {wanted}; {COPY_AGAIN}"
            self.exam.add(self.shape_rule, place, message)

    def _row_of(self, provenance):
        """Shape of a row as its provenance has it."""
        raise NotImplementedError

    def _check_chunk(self, file, number, layout, n_settled):
        """Check one chunk.

        Returns
        -------
        rows : ndarray of int64
            Rows of the array that the chunk holds, bad or not; rows to be topped up are left out.
        problem : (rule, message) or None
            What is wrong.
        bad : ndarray of int64
            Rows concerned.
        """
        none = np.arange(0)
        if number is None and layout is not None:
            return none, ("M10", f"{printable(file)} is outside of the chunk grid"), none
        data, problem = self.exam.payload(file, None if layout is None else chunk_bytes(layout))
        if layout is None:
            return none, problem, none
        n_per_chunk = chunk_shape(layout)[0]
        start = number * n_per_chunk
        rows = np.arange(start, min(start + n_per_chunk, layout["shape"][0]))
        if problem is not None:
            return rows, problem, rows
        values = data.view(np.dtype(layout["data_type"]).newbyteorder("<")).reshape(n_per_chunk, -1)
        awaited = (rows >= n_settled) & (start < n_settled)
        return self._check_rows(values[: len(rows)], values[len(rows) :], rows, awaited)

    def _check_rows(self, inside, padding, rows, awaited):
        """Check the rows of a chunk that is whole, and what is behind the last of them."""
        raise NotImplementedError


class EmbeddingCheck(RowCheck):
    """The check of one array of embeddings."""

    group, array = "embeddings", "values"
    spec, not_identity = "encoder", EncoderSpec.NOT_IDENTITY
    digest_rule, shape_rule = "M17", "M18"
    unmade = "not embedded yet; 'featstore extract' goes on"

    def _check_provenance(self, provenance):
        super()._check_provenance(provenance)
        problem = _stored_row(provenance).problem
        if problem is not None:
            self.exam.add("M18", self.place, f"{printable(problem)}; {COPY_AGAIN}")

    def _row_of(self, provenance):
        return [_stored_row(provenance).width]

    def _check_rows(self, inside, padding, rows, awaited):
        """Every row is finite, but those to be topped up; behind the last one is NaN only."""
        bad = ~_finite(inside)
        if bad.any():
            missing = awaited & np.isnan(inside).all(axis=1)
            rows, bad = rows[~missing], bad[~missing]
        if bad.any():
            problem = ("M20", f"{bad.sum():,} of its rows are not finite")
        elif not np.isnan(padding).all():
            problem = ("M20", "holds values behind the last row of the array")
        else:
            problem = None
        return rows, problem, rows[bad]


def _stored_row(provenance):
    encoder = provenance["encoder"]
    return StoredRow(provenance["parts"], encoder["pooling"], encoder["dim"])


def _finite(values):
    """Tell from the exponents whether all of a row is finite; NumPy itself is slow on float16.

    Examples
    --------
    >>> _finite(np.array([[1, 65_504], [np.inf, 0], [np.nan, 0]], "<f2"))
    array([ True, False, False])
    """
    exponent = {2: 0x7C00, 4: 0x7F80_0000}[values.itemsize]
    bits = values.view(f"<u{values.itemsize}") & exponent
    if bits.size == 0 or bits.max() < exponent:
        return np.ones(len(values), bool)
    return (bits < exponent).all(axis=1)


class PatchCheck(RowCheck):
    """The check of the cached patches of one dataset."""

    group, array, also = "patches", "pixels", ("windows",)
    spec = "cut"
    digest_rule, shape_rule = "M21", "M22"
    unmade = "not cut yet; 'featstore cut' goes on"

    def _row_of(self, provenance):
        return [provenance["cut"]["patch_px"], provenance["cut"]["patch_px"], 3]

    def _check_rows(self, inside, padding, rows, awaited):
        """Whatever is inside is a patch; behind the last one is 0 only."""
        problem = (
            ("M24", "holds pixels behind the last row of the array") if padding.any() else None
        )
        return rows[~awaited], problem, rows[:0]

    def _check_beside(self, folders, layout):
        """Check the windows, and that each patch has one."""
        if "windows" not in folders:
            return  # a finding already
        place, again = f"{self.place}/windows", AGAIN["patches"]
        checked = check_table(self.exam, place, self.dataset)
        for column in beside(WINDOW_COLUMNS, *(checked.listed or WINDOW_COLUMNS)):
            self.exam.add("M23", f"{place}/{column}", f"the column is not there; {again}")
        windows, table = checked.table, self.table.table
        if windows is None:
            return
        if layout is not None and len(windows) < layout["shape"][0]:
            message = f"has {len(windows):,} rows, the patches {layout['shape'][0]:,}; {again}"
            self.exam.add("M23", place, message)
        if table is not None and windows.digest != table.digest_of_first(len(windows)):
            message = f"is not of the first {len(windows):,} annotations of {self.dataset}"
            self.exam.add("M23", place, f"{message}; {again}")
