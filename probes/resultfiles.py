"""Files of results: CSV, Parquet, and folders of both; a file that is read may come from anyone.

Rows are as in :data:`probes.results.RESULT_COLUMNS`; nothing here knows what they mean.
"""

import contextlib
import logging
import os
from pathlib import Path

import numpy as np

from probes.errors import MissingExtraError, ResultsError, require

__all__ = ["TYPES", "is_file", "is_there", "locked", "read", "write"]

logger = logging.getLogger(__name__)

# Of the columns of results that are not text.
TYPES = {
    "repeat": int,
    "size": float,
    "value": float,
    "n_train": int,
    "n_val": int,
    "n_test": int,
    "converged": bool,
    "collapsed": bool,
}

CSV, PARQUET, SCORES = "results.csv", "results.parquet", "scores.parquet"
# Of a table that is meant well: 45 trainings with seven metrics of 100 models take 50 MB.
MOST_BYTES = 2**30


def is_there(path):
    """Whether a place holds results, or a file that should.

    Examples
    --------
    >>> is_there("no/such/place")
    False
    """
    path = Path(path)
    if path.is_dir():
        return any((path / name).exists() for name in (CSV, PARQUET))
    return path.exists()


def is_file(path):
    """Whether results go into one file, by its name; everything else is a folder.

    Examples
    --------
    >>> is_file("results.csv"), is_file("results")
    (True, False)
    """
    path = Path(path)
    return path.suffix in (".csv", ".parquet") and not path.is_dir()


# ---- writing


def write(path, frame, scores):
    """Write rows, and into a folder scores beside them; every file whole or not at all."""
    path = Path(path)
    if is_file(path):
        _write_file(path, frame)
        return
    path.mkdir(parents=True, exist_ok=True)
    if scores is not None:
        _write_file(path / SCORES, scores)
    else:
        (path / SCORES).unlink(missing_ok=True)
    _write_file(path / CSV, frame)
    _write_copy(path / PARQUET, frame)


def _write_copy(path, frame):
    """Write the Parquet file of a folder; where that cannot be, leave no old one there."""
    try:
        _write_file(path, frame)
    except ImportError:
        path.unlink(missing_ok=True)
        logger.info("%s holds the CSV alone: pyarrow is not installed", path.parent)


def _write_file(path, frame):
    partial = path.with_name(f"{path.name}.partial")
    if path.suffix == ".parquet":
        _pyarrow()
        frame.to_parquet(partial, index=False)
    else:
        frame.to_csv(partial, index=False)
    partial.replace(path)


def _pyarrow():
    return require("pyarrow", extra="exchange", purpose="Parquet")


@contextlib.contextmanager
def locked(path):
    """Keep other programs from adding to a place; without locks of files (Windows), do nothing."""
    path = Path(path)
    folder = path.parent if is_file(path) else path
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


# ---- reading


def read(path, columns, score_columns):
    """Read rows (list of dict), and scores (DataFrame or None) where a folder has them."""
    path = Path(path)
    if not path.is_dir():
        return _rows(path, _read_file(path), columns), None
    found = next((path / name for name in (CSV, PARQUET) if (path / name).exists()), None)
    if found is None:
        raise ResultsError(f"{path} holds no results: there is neither {CSV} nor {PARQUET} in it")
    return _rows(found, _read_file(found), columns), _scores(path / SCORES, score_columns)


def _read_file(path):
    import pandas as pd

    _check_file(path)
    try:
        if path.suffix == ".parquet":
            _pyarrow()
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except MissingExtraError:
        raise
    except (OSError, ValueError, TypeError, LookupError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ResultsError(f"cannot read the results {path}: {reason}") from error


def _check_file(path):
    """Refuse what is not there, no file, or larger than any table of results."""
    try:
        size, is_regular = path.stat().st_size, path.is_file()
    except OSError as error:
        raise ResultsError(f"cannot read the results {path}: {error.strerror}") from error
    if not is_regular or size > MOST_BYTES:
        found = f"has {size:,} bytes" if is_regular else "is no regular file"
        raise ResultsError(f"{path} {found}; a table of results has at most {MOST_BYTES:,}")


def _rows(path, frame, columns):
    _check_columns(path, frame, columns)
    typed = [_typed(path, name, frame[name]) for name in columns]
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*typed, strict=True)]


def _check_columns(path, frame, wanted):
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise ResultsError(
            f"{path} is no table of results: it has no column {', '.join(missing)}; make it again "
            "with this version of featstore"
        )


def _typed(path, name, column):
    """Values of a column as Python's own types."""
    kind = TYPES.get(name, str)
    values = []
    for value in column.tolist():
        try:
            values.append(_AS_TYPE[kind](value))
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise ResultsError(
                f"{path} is a damaged table of results: {name} of row {len(values)} is "
                f"{value!r:.60}, which is no {_TYPE_NAMES[kind]}"
            ) from error
    return values


def _as_text(value):
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _as_int(value):
    number = int(value)
    if not isinstance(value, str) and number != value:
        raise ValueError(value)
    return number


def _as_float(value):
    if value == "":
        return np.nan
    number = float(value)
    if np.isinf(number):
        raise ValueError(value)
    return number


# Spreadsheets write them in capitals.
_BOOLS = {"True": True, "False": False, "TRUE": True, "FALSE": False, True: True, False: False}

_AS_TYPE = {
    str: _as_text,
    int: _as_int,
    float: _as_float,
    bool: _BOOLS.__getitem__,
}
_TYPE_NAMES = {str: "text", int: "whole number", float: "number", bool: "True or False"}


def _scores(path, columns):
    """Per-annotation scores of a folder; None where there are none."""
    if not path.exists():
        return None
    frame = _read_file(path)
    _check_columns(path, frame, columns)
    said = [name for name in frame.columns if name.startswith("p ")]
    if not said or not all(frame[name].dtype.kind == "f" for name in said):
        raise ResultsError(f"{path} is no table of scores: it has no probabilities, 'p <class>'")
    texts = [name for name in columns if name != "id"]
    return frame[[*columns, *said]].astype(dict.fromkeys(texts, "category"))
