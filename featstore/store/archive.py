"""A store in a single file: a zip that opens without being unpacked.

The zip is written uncompressed, so that a chunk in it is the chunk file as it is, and with the same
bytes each time. A zip from elsewhere is looked through before anything in it is read.
"""

import hashlib
import json
import os
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from zarr.storage import ZipStore  # here, since this module is imported for zips alone

from featstore.errors import AlreadyInStoreError, DamagedChunkError, StoreError
from featstore.store.layout import local_path
from featstore.store.manifest import MANIFEST, manifest_line, store_files
from featstore.store.reader import Store
from featstore.store.seal import SEAL, sealed
from featstore.store.source import check_chunk, check_seal
from featstore.store.transfer import left_notes, select, terms_notes

__all__ = ["CheckedZip", "Packed", "check_zip", "open_zip", "pack"]

FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold
LOCAL_HEADER_BYTES = 30  # APPNOTE.TXT 4.3.7, without name and extra field
DEFLATE_AT_MOST = 1_032  # bytes out of one byte in (zlib's technical details)
FLAG_ENCRYPTED = 0x1 | 0x40 | 0x2000  # APPNOTE.TXT 4.4.4: bits 0, 6 and 13


@dataclass(frozen=True)
class Packed:
    """What :func:`pack` wrote.

    Parameters
    ----------
    path : pathlib.Path
        The zip.
    n_files : int
        Files in it, the manifest among them.
    n_bytes : int
        Size of the zip.
    notes : tuple of str
        What the user should know, one line each.
    """

    path: Path
    n_files: int
    n_bytes: int
    notes: tuple


def pack(store_path, zip_path, *, models=None, datasets=None, patches=False):
    """Write datasets and embeddings of a local store into one zip, with a manifest.

    Parameters
    ----------
    store_path : path-like
        A local store.
    zip_path : path-like
        Where nothing is yet; ``featstore.open`` knows a zip by the ending ``.zip``.
    models, datasets, patches
        As for :func:`featstore.store.transfer.copy`.

    Returns
    -------
    Packed

    Raises
    ------
    AlreadyInStoreError
        If there is a file of that name.
    NotInStoreError
        If the store does not hold what was chosen.
    StoreError
        If the store holds a link or a damaged chunk; no zip is left then.

    Examples
    --------
    >>> import tempfile, featstore
    >>> folder = tempfile.mkdtemp()
    >>> store = featstore.create(folder + "/lab.zarr")
    >>> pack(folder + "/lab.zarr", folder + "/lab.zarr.zip").n_files
    4
    """
    store, zip_path = Store(store_path), Path(zip_path)
    home = local_path(store._root)
    _check_place(home, zip_path)
    selection = select(store, models=models, datasets=datasets, patches=patches)
    names = [name for name in store_files(home) if _is_chosen(name, selection)]
    n_files = _write_zip(zip_path, ((name, _content(home, name)) for name in names))
    notes = tuple(terms_notes(store, selection) + left_notes(selection))
    return Packed(zip_path, n_files, zip_path.stat().st_size, notes)


def _check_place(home, zip_path):
    if zip_path.suffix != ".zip":
        raise StoreError(f"{zip_path} does not end in .zip, by which a single file is known")
    if zip_path.exists():
        raise AlreadyInStoreError(f"{zip_path} is there already; choose another name, or delete it")
    if home.resolve() in zip_path.resolve().parents:
        raise StoreError(f"{zip_path} is inside the store; write the zip beside it")


def _is_chosen(name, selection):
    groups = [f"annotations/{dataset}" for dataset in selection.datasets]
    groups += [f"embeddings/{model}/{dataset}" for model, dataset in selection.arrays]
    groups += [f"patches/{dataset}" for dataset in selection.patches]
    above = {"", "annotations", "embeddings"} | {f"embeddings/{m}" for m, _ in selection.arrays}
    above |= {"patches"} if selection.patches else set()
    folder, _, file = name.rpartition("/")
    return name.startswith(tuple(f"{group}/" for group in groups)) or (
        file == "zarr.json" and folder in above
    )


def _content(home, name):
    """Content of one file, fit to leave the machine."""
    data = (home / name).read_bytes()
    if name.endswith("zarr.json"):
        check_seal(data, str(home / name))
        return _without_local_facts(data)
    if "/c/" in name:
        check_chunk(data, str(home / name))
    return data


def _without_local_facts(data):
    """Drop paths of this machine, and a listing that the choice may have made untrue."""
    metadata = json.loads(data)
    root = metadata.get("attributes", {}).get("images", {}).pop("root", None)
    listing = metadata.pop("consolidated_metadata", None)
    if root is None and listing is None:
        return data
    whole = sealed(metadata) if SEAL in metadata.get("attributes", {}) else metadata
    return json.dumps(whole, indent=2, ensure_ascii=False).encode()


def _write_zip(zip_path, entries):
    """Write entries and their manifest under another name, then rename; return their number."""
    partial = zip_path.with_name(f".{zip_path.name}.next")
    lines = []
    try:
        with open(partial, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, data in entries:
                    archive.writestr(_entry(name), data)
                    lines.append(manifest_line(name, hashlib.sha256(data).hexdigest()))
                archive.writestr(_entry(MANIFEST), "".join(lines))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, zip_path)
    except OSError as error:
        raise StoreError(
            f"cannot write {zip_path}: {error.strerror}; make room or choose another place"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return len(lines) + 1


def _entry(name):
    """Describe an entry by its name alone: no time, no owner, no system."""
    entry = zipfile.ZipInfo(name, FIRST_DATE)
    entry.create_system = 3  # Unix, so that the mode below is read as one
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry


class CheckedZip(ZipStore):
    """A zip whose damage is reported as any other store's is."""

    async def get(self, key, prototype, byte_range=None):
        """Read one entry, or part of it.

        Raises
        ------
        DamagedChunkError
            If the entry does not fit the checksum that the zip has of it.
        """
        try:
            return await super().get(key, prototype, byte_range)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise DamagedChunkError(
                f"{key} in {self.path} is damaged ({error}); get the file again"
            ) from error


def open_zip(path):
    """Open a zip for Zarr, after :func:`check_zip`.

    Parameters
    ----------
    path : path-like
        A zip.

    Returns
    -------
    CheckedZip
        Read-only.

    Raises
    ------
    StoreError
        If the file is no zip, or an entry is refused.
    """
    check_zip(path)
    return CheckedZip(Path(path), mode="r", read_only=True)


def check_zip(path):
    """Look through the entries of a zip, and read none of them.

    Raises
    ------
    StoreError
        If the file is no zip; if an entry has a name that leaves its folder or is not the one that
        stands at its beginning, is a link, encrypted, or compressed by anything but deflate, or
        stands twice; or if sizes do not fit the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_entries(path, archive.infolist())
            for entry in archive.infolist():
                archive.open(entry).close()  # compares the entry's two headers
    except StoreError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise StoreError(f"{path} is not a zip that can be read ({error}); get it again") from error


def _check_entries(path, entries):
    for entry in entries:
        problem = _problem_of_name(entry) or _problem_of_kind(entry) or _problem_of_size(entry)
        if problem:
            raise StoreError(f"{path} is refused: its entry {entry.orig_filename!r} {problem}")
    _check_spans(path, entries, os.stat(path).st_size)


def _problem_of_name(entry):
    """Say what is wrong with the name of an entry; None where nothing is."""
    name = entry.orig_filename
    if not name.isprintable():
        return "has a control character in its name"
    if "\\" in name or ":" in name:
        return "has a backslash or a drive letter in its name"
    if name.startswith("/"):
        return "has an absolute path"
    if any(part in ("", ".", "..") for part in name.removesuffix("/").split("/")):
        return "has a path that leaves its folder or is not plain"
    return None


def _problem_of_kind(entry):
    """Say what is wrong with the kind of an entry; None where nothing is."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or no plain file"
    if entry.flag_bits & FLAG_ENCRYPTED:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed by method {entry.compress_type}; only deflate is read"
    return None


def _problem_of_size(entry):
    """Say what is wrong with the sizes of an entry; None where nothing is."""
    if entry.is_dir() and entry.file_size:
        return "is a folder with content"
    if entry.compress_type == zipfile.ZIP_STORED and entry.file_size != entry.compress_size:
        return f"declares {entry.file_size} bytes and stores {entry.compress_size}"
    if entry.file_size > DEFLATE_AT_MOST * entry.compress_size:
        return f"declares {entry.file_size} bytes, more than {entry.compress_size} can hold"
    return None


def _check_spans(path, entries, n_bytes):
    """Refuse names that stand twice, and entries that overlap or end behind the file."""
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    following = [entry.header_offset for entry in ordered[1:]] + [n_bytes]
    seen = set()
    for entry, limit in zip(ordered, following, strict=True):
        name = entry.filename.removesuffix("/")
        if name in seen:
            raise StoreError(f"{path} is refused: its entry {name!r} stands twice")
        seen.add(name)
        end = entry.header_offset + LOCAL_HEADER_BYTES + entry.compress_size
        if entry.header_offset < 0 or end > limit:
            raise StoreError(
                f"{path} is refused: its entry {name!r} declares {entry.compress_size} bytes, more "
                "than there is room for"
            )
