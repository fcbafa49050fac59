"""Splits as Parquet: a row for each annotation of each part of each split.

For other tools: ``select id from 's.parquet' where repeat = 0 and size = 1 and part = 'test'``.
Rows stand in the order of the draws. What is known of the splits as a whole lies in the metadata of
the file, as JSON, under the name of the format.
"""

import json
from pathlib import Path

import numpy as np

from probes.errors import SplitError, require
from probes.protocols import plain_ids
from probes.splits import files
from probes.splits.split import PARTS, heading

__all__ = ["read_parquet", "write_parquet"]

KEY = files.FORMAT.encode()


def write_parquet(splits, path):
    """Write splits; see :meth:`probes.Splits.save`."""
    pa, pq = _pyarrow()
    rows = [
        files.split_head(split) | {f"n_{part}": len(getattr(split, part)) for part in PARTS}
        for split in splits.members
    ]
    content = {
        **heading(splits),
        "digest": splits.digest,
        "splits": rows,
        **files.labels_to_json(splits),
        "ids": splits.ids.tolist(),
    }
    places, names = _rows_of(rows)
    columns = {
        "split": places.astype(np.int32),
        **{
            name: pa.array([row[name] for row in rows]).take(pa.array(places)).dictionary_encode()
            for name in ("repeat", "size", "train_domain")
        },
        "part": pa.array(names, pa.string()).dictionary_encode(),
        "id": np.concatenate([plain_ids(getattr(s, p)) for s in splits.members for p in PARTS]),
    }
    table = pa.table(columns).replace_schema_metadata({KEY: json.dumps(content, allow_nan=False)})
    partial = Path(f"{path}.partial")
    pq.write_table(table, partial, compression="zstd")
    partial.replace(path)


def read_parquet(path):
    """Read splits; see :func:`probes.load_splits`."""
    pa, pq = _pyarrow()
    try:
        file = pq.ParquetFile(path)
        content = json.loads((file.schema_arrow.metadata or {}).get(KEY, b"null"))
        if not isinstance(content, dict):
            raise SplitError(
                f"{path} is not a file of splits of the format {files.FORMAT!r}; 'featstore split' "
                "makes one"
            )
        return files.checked(path, lambda: _from_parquet(file, content))
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        if isinstance(error, SplitError):
            raise
        raise SplitError(f"cannot read the splits {path}: {str(error).splitlines()[0]}") from error


def _from_parquet(file, content):
    ids = files.ids_from_json(files.field(content, "ids", list))
    rows = files.field(content, "splits", list)
    counts = [[files.field(row, f"n_{part}", int) for part in PARTS] for row in rows]
    if not all(0 <= n <= len(ids) for row in counts for n in row):
        raise ValueError("a part has more annotations than there are")
    files.check_number(sum(row) for row in counts)
    if file.metadata.num_rows != sum(map(sum, counts)):
        raise ValueError(f"it holds {file.metadata.num_rows} rows, not those of its splits")
    table = file.read(columns=["split", "part", "id"])
    places, names, found = (table[name].to_numpy() for name in ("split", "part", "id"))
    if not all(map(np.array_equal, (places, names), _rows_of(rows))):
        raise ValueError("its rows are not in the order of its splits")
    parts = iter(np.split(_places(ids, plain_ids(found)), np.cumsum(np.ravel(counts))[:-1]))
    members = [files.split_from(row, ids, [next(parts) for _ in PARTS]) for row in rows]
    return files.splits_from(content, members, ids)


def _places(ids, found):
    """Where IDs stand among all."""
    places = np.searchsorted(ids, found) if found.dtype.kind == ids.dtype.kind else len(ids)
    if np.max(places, initial=0) >= len(ids) or not np.array_equal(ids[places], found):
        raise ValueError("its rows hold an ID that was not split")
    return places


def _rows_of(rows):
    """Split and part of every row of the file: places (n,) and names (n,)."""
    counts = np.array([row[f"n_{part}"] for row in rows for part in PARTS], np.int64)
    places = np.repeat(np.repeat(np.arange(len(rows)), len(PARTS)), counts)
    return places, np.repeat(np.tile(np.array(PARTS, object), len(rows)), counts)


def _pyarrow():
    purpose = "splits in Parquet"
    return (
        require("pyarrow", extra="exchange", purpose=purpose),
        require("pyarrow.parquet", extra="exchange", purpose=purpose),
    )
