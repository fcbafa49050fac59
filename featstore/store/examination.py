"""What a verification has found so far, and its way to read a store that nobody vouches for.

Nothing here follows a symbolic link, opens a device, or takes memory for what a file only claims.
"""

import contextlib
import importlib.resources
import json
import os
import re
import shutil
import stat
import time
from dataclasses import dataclass
from functools import cache

import numpy as np

from featstore.errors import LockedError, StoreError, require
from featstore.store.chunks import CHECKSUM_BYTES, MADE_BY, checksum
from featstore.store.layout import check_key
from featstore.store.lock import writer_lock
from featstore.store.seal import SEAL, parse, seal_of

__all__ = ["COPY_AGAIN", "Examination", "Finding", "Metadata", "beside", "printable"]

MOST_METADATA_BYTES = 64 * 2**20
MOST_CHUNK_BYTES = 2**31  # rule M8
LEFTOVER_AGE_S = 3_600  # a run that has not touched its files for an hour is dead
LEFTOVER = re.compile(r"\..*\.(next|previous)|\..*partial-.*|.+\.partial")  # ours, and Zarr's own
SHOWN_IDS = 3
ARRAYS = ("column", "values", "pixels")  # definitions in schema.json
ARRAY_DEPTH = {"embeddings": 4, "patches": 3}  # names in the path of an array of rows
COPY_AGAIN = "copy it again from where it came"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as the format page wants it.

    Parameters
    ----------
    rule : str
        Number in docs/store-format.md: M for MUST, S for SHOULD.
    place : str
        Array, group or file, relative to the store.
    chunk : int or None
        Number of the chunk, where it is one.
    ids : tuple
        Annotation IDs concerned; empty where it is all of the place, or none.
    message : str
        What was found and what to do.
    severity : str
        'error', 'note', or 'dropped' where it was repaired.

    Examples
    --------
    >>> print(Finding("M9", "embeddings/uni/demo/values", 3, (7, 8), "does not fit its checksum"))
    error M9 embeddings/uni/demo/values chunk 3: does not fit its checksum (annotation IDs 7, 8)
    """

    rule: str
    place: str
    chunk: int | None
    ids: tuple
    message: str
    severity: str = "error"

    def __str__(self):
        chunk = "" if self.chunk is None else f" chunk {self.chunk}"
        return f"{self.severity} {self.rule} {self.place}{chunk}: {self.message}{self._shown_ids}"

    @property
    def _shown_ids(self):
        if not self.ids:
            return ""
        first = ", ".join(map(printable, self.ids[:SHOWN_IDS]))
        more = len(self.ids) - SHOWN_IDS
        return f" (annotation IDs {first}{f' and {more:,} more' if more > 0 else ''})"


@dataclass(frozen=True)
class Metadata:
    """A ``zarr.json``, as far as it can be believed.

    Parameters
    ----------
    document : dict or None
        Its content; None where it is not there, not valid, or not what was sealed.
    sealed : bool
        Whether the seal is there and holds.
    claimed : object
        Its content, whatever it is worth.
    """

    document: dict | None = None
    sealed: bool = False
    claimed: object = None


def printable(text, most=160):
    """Text that cannot play with a terminal, cut where it is long.

    Examples
    --------
    >>> printable("a" + chr(27) + "[2J")
    "'a\\\\x1b[2J'"
    """
    text = str(text) if str(text).isprintable() else ascii(str(text))
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def beside(names, *known):
    """Names that are not among the known ones."""
    return [name for name in names if name not in known]


class Examination:
    """Findings, and how much was looked at.

    Parameters
    ----------
    root : pathlib.Path
        Folder of the store.
    repair : bool
        Drop chunks of embeddings and patches that are bad, and leftovers of dead runs.

    Attributes
    ----------
    findings : list of Finding
        In the order found.
    n_arrays, n_chunks, n_bytes : int
        What was read.
    """

    def __init__(self, root, *, repair=False):
        self.root = root
        self.repair = repair
        self.findings = []
        self.n_arrays = self.n_chunks = self.n_bytes = 0

    def add(self, rule, place, message, *, chunk=None, ids=(), severity="error"):
        """Record a finding."""
        self.findings.append(
            Finding(rule, printable(place, 400), chunk, tuple(ids), message, severity)
        )

    def scan(self, place):
        """Names of plain folders and plain files in a folder; all else is a finding.

        Names with a dot first are not part of the store.
        """
        folders, files = [], []
        try:
            with os.scandir(self.root / place) as entries:
                listed = sorted(entries, key=lambda entry: (len(entry.name), entry.name))
        except OSError as error:
            self.add("M4", place, f"cannot be listed ({error.strerror}); {COPY_AGAIN}")
            listed = []
        for entry in listed:
            self._sort_in(entry, place, folders, files)
        return folders, files

    def _sort_in(self, entry, place, folders, files):
        here = f"{place}/{entry.name}".removeprefix("./")
        if entry.is_symlink():
            self.add("M3", here, "is a symbolic link, which was not followed; put a copy there")
        elif LEFTOVER.fullmatch(entry.name):
            self._leftover(here)
        elif entry.name.startswith("."):
            return
        elif entry.is_dir(follow_symlinks=False):
            folders.append(entry.name)
        elif entry.is_file(follow_symlinks=False):
            files.append(entry.name)
        else:
            self.add("M3", here, "is neither file nor folder; remove it")

    def unknown(self, place, names, *, what="is not part of the format and was not checked"):
        """Note files or folders that the format does not know."""
        for name in names:
            self.add("S1", f"{place}/{name}".removeprefix("./"), what, severity="note")

    def is_named_well(self, place, kind, name):
        """Whether the format allows a name; one that it does not is a finding."""
        try:
            check_key(kind, name)
        except StoreError as error:
            self.add("M2", f"{place}/{name}", f"{printable(error)}; it was not checked")
            return False
        return True

    def metadata(self, place, kind):
        """Read the ``zarr.json`` of a group or array and hold it against seal and schema.

        Parameters
        ----------
        place : str
            Folder, relative to the store.
        kind : str
            Definition in schema.json.
        """
        raw = self._read_metadata(place)
        if raw is None:
            return Metadata()
        try:
            claimed = parse(raw)
            problem = _schema_problem(claimed, kind)
            attributes = claimed.get("attributes") if isinstance(claimed, dict) else None
            broken = isinstance(attributes, dict) and self._seal_is_broken(place, claimed)
        except (ValueError, RecursionError) as error:
            self.add("M5", place, f"zarr.json is damaged: {printable(error)}; {COPY_AGAIN}")
            return Metadata()
        if problem is not None:
            rule = "M7" if kind in ARRAYS else "M5"
            self.add(rule, place, f"zarr.json is not as the schema wants it: {problem}")
        good = problem is None and not broken
        return Metadata(claimed if good else None, good and SEAL in attributes, claimed)

    def _read_metadata(self, place):
        try:
            with open(self._opened(self.root / place / "zarr.json"), "rb") as file:
                raw = file.read(MOST_METADATA_BYTES + 1)
        except FileNotFoundError:
            self.add("M4", place, f"has no zarr.json; {COPY_AGAIN}")
            return None
        except OSError as error:
            self.add("M4", place, f"zarr.json cannot be read ({error.strerror}); {COPY_AGAIN}")
            return None
        self.n_bytes += len(raw)
        if len(raw) > MOST_METADATA_BYTES:
            self.add("M5", place, f"zarr.json is larger than {MOST_METADATA_BYTES:,} bytes")
            return None
        return raw

    def _seal_is_broken(self, place, document):
        """Whether a seal is there and does not hold; one that is missing is a finding as well."""
        seal, expected = document["attributes"].get(SEAL), seal_of(document)
        if seal is None:
            self.add(
                "M6",
                place,
                f"zarr.json has no seal ({SEAL}): a flipped bit in it could not be found; if it is "
                "as it should be, seal it with featstore.store.seal.seal",
            )
        elif seal != expected:
            self.add(
                "M6",
                place,
                f"zarr.json is not what was sealed; {COPY_AGAIN}, or, if it was changed on "
                "purpose, seal it with featstore.store.seal.seal",
            )
        return seal is not None and seal != expected

    def payload(self, place, n_bytes):
        """Read a chunk file.

        Parameters
        ----------
        place : str
            The file, relative to the store.
        n_bytes : int or None
            How many bytes it must hold beside the checksum, where that is known.

        Returns
        -------
        data : ndarray of uint8, or None
            Without the checksum; None where size or reading failed.
        problem : (rule, message) or None
            What is wrong with it.
        """
        try:
            with open(self._opened(self.root / place), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                problem = _size_problem(size, n_bytes)
                if problem is not None:
                    return None, ("M8", problem)
                data = np.frombuffer(file.read(size), np.uint8)
        except OSError as error:
            return None, ("M8", f"cannot be read ({error.strerror})")
        self.n_chunks += 1
        self.n_bytes += size
        holds = checksum(data[:-CHECKSUM_BYTES]) == data[-CHECKSUM_BYTES:].tobytes()
        return data[:-CHECKSUM_BYTES], None if holds else ("M9", "does not fit its checksum")

    @staticmethod
    def _opened(path):
        """Open a plain file, and nothing else: no link, and no pipe to wait at."""
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        handle = os.open(path, flags)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError(0, "not a plain file")
        return handle

    def bad_chunk(self, problem, array, file, *, chunk, ids, may_drop):
        """Record a bad chunk of rows; drop it where that is asked for and safe."""
        rule, message = problem
        made_by = MADE_BY[array.rpartition("/")[2]]
        if not may_drop:
            advice = "; put the zarr.json of array and group right first, then verify again"
        elif not self.repair:
            advice = f"; 'featstore verify --repair' drops it, '{made_by}' makes it again"
        else:
            kept = self._why_kept(file, array)
            if kept is None:
                text = f"{message}; dropped, '{made_by}' makes it again"
                self.add(rule, array, text, chunk=chunk, ids=ids, severity="dropped")
                return
            advice = f"; not dropped: {kept}"
        self.add(rule, array, message + advice, chunk=chunk, ids=ids)

    def _why_kept(self, file, array):
        """Delete a file below an array of rows under its locks, or say why not."""
        # a writer locks the array, a copy its group: neither may be at work
        folders = [self.root / array, (self.root / array).parent]
        if any((folder / ".lock").is_symlink() for folder in folders):
            return "its lock is a symbolic link"
        try:
            with contextlib.ExitStack() as locks:
                for folder in folders:
                    locks.enter_context(writer_lock(folder))
                _remove(self.root / file)
        except LockedError as error:
            return str(error)
        except OSError as error:
            return error.strerror
        return None

    def _leftover(self, place):
        """Note, or drop, what a run left that did not end."""
        parts = place.split("/")
        depth = ARRAY_DEPTH.get(parts[0], len(parts))
        in_array = len(parts) > depth and parts[depth - 1] in MADE_BY
        if not self.repair:
            message = "is left of a run that did not end; 'featstore verify --repair' drops it"
            self.add("S2", place, message, severity="note")
            return
        array = "/".join(parts[:depth])
        kept = self._why_kept(place, array) if in_array else _removed_when_old(self.root / place)
        if kept is None:
            self.add("S2", place, "was left of a run that did not end; dropped", severity="dropped")
        else:
            message = f"is left of a run that may go on; not dropped: {kept}"
            self.add("S2", place, message, severity="note")


def _size_problem(size, n_bytes):
    if n_bytes is not None and size != n_bytes + CHECKSUM_BYTES:
        return f"has {size:,} bytes instead of {n_bytes + CHECKSUM_BYTES:,}"
    if not CHECKSUM_BYTES < size <= MOST_CHUNK_BYTES:
        return f"has {size:,} bytes; a chunk has 5 to {MOST_CHUNK_BYTES:,}"
    return None


def _removed_when_old(path):
    """Delete what no run has touched for an hour, or say why not."""
    newest_s = max(entry.lstat().st_mtime for entry in [path, *path.rglob("*")])
    if time.time() - newest_s < LEFTOVER_AGE_S:
        return f"it was touched less than {LEFTOVER_AGE_S // 60} minutes ago"
    _remove(path)
    return None


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@cache
def _schema():
    text = importlib.resources.files("featstore.store").joinpath("schema.json").read_text("utf-8")
    return json.loads(text)


@cache
def _validator(kind):
    jsonschema = require("jsonschema", extra="all", purpose="verifying a store")
    schema = {**_schema(), "$ref": f"#/$defs/{kind}"}
    return jsonschema.Draft202012Validator(schema)


def _schema_problem(document, kind):
    """Name the first thing that the schema does not allow; None where there is none."""
    jsonschema = require("jsonschema", extra="all", purpose="verifying a store")
    error = jsonschema.exceptions.best_match(_validator(kind).iter_errors(document))
    return None if error is None else f"{printable(error.json_path)}: {printable(error.message)}"
