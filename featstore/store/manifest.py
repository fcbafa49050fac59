"""The manifest of a store: the SHA-256 of every file, for whoever is handed the store.

``sha256sum -c manifest-sha256.txt``, run inside the store's folder, needs nothing of this library.
No name that a manifest lists is ever opened: files are found by walking the store, and looked up in
the manifest.
"""

import hashlib
import os
import re
import stat
from pathlib import Path

from featstore.errors import NotInStoreError, StoreError
from featstore.store.chunks import write_file
from featstore.store.layout import local_path, open_root

__all__ = ["MANIFEST", "check_manifest", "manifest_line", "store_files", "write_manifest"]

MANIFEST = "manifest-sha256.txt"  # BagIt's name for the same thing (RFC 8493, section 2.1.3)
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")  # '*' marks binary mode (GNU coreutils)


def store_files(folder):
    """List the files of a store; the manifest and whatever has a dot first are not any.

    Parameters
    ----------
    folder : path-like
        Folder of a store.

    Returns
    -------
    list of str
        Paths in the store, '/' between folders, sorted.

    Raises
    ------
    StoreError
        If there is a link, a pipe or the like, or a name that a line of text cannot hold.
    """
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in [*folders, *files]:
            _check_plain(Path(place, name))
        found += [Path(place, name) for name in files if not name.startswith(".")]
    names = sorted(path.relative_to(folder).as_posix() for path in found)
    return [name for name in names if name != MANIFEST]


def _check_plain(path):
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise StoreError(f"{path} is a link; a store holds plain files only, remove it")
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise StoreError(f"{path} is neither a file nor a folder; remove it from the store")
    if "\\" in path.name or not path.name.isprintable():
        raise StoreError(
            f"the file name {path.name!r} in {path.parent} holds a backslash or a control "
            "character; rename or remove it"
        )


def manifest_line(name, sha256):
    """Return one line of a manifest.

    Examples
    --------
    >>> manifest_line("zarr.json", "e3b0c442")
    'e3b0c442  zarr.json\\n'
    """
    return f"{sha256}  {name}\n"


def write_manifest(path):
    """Write the SHA-256 of every file of a store into its manifest.

    Parameters
    ----------
    path : path-like
        A local store.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    StoreError
        If there is no local store, or it holds a link.

    Examples
    --------
    >>> import tempfile, featstore
    >>> folder = tempfile.mkdtemp()
    >>> store = featstore.create(folder)
    >>> write_manifest(folder).name, check_manifest(folder)
    ('manifest-sha256.txt', [])
    """
    home = local_path(open_root(path))
    lines = [manifest_line(name, _sha256(home / name)) for name in store_files(home)]
    write_file(home / MANIFEST, "".join(lines).encode())
    return home / MANIFEST


def check_manifest(path):
    """Compare a store with its manifest.

    Parameters
    ----------
    path : path-like
        A local store.

    Returns
    -------
    list of str
        One line for each file that is not as the manifest says; empty where all are.

    Raises
    ------
    NotInStoreError
        If the store has no manifest.
    StoreError
        If a line of the manifest cannot be read, or the store holds a link.
    """
    home = local_path(open_root(path))
    listed, there = _read_manifest(home / MANIFEST), store_files(home)
    missing = [f"{name} is listed and not there" for name in sorted(set(listed) - set(there))]
    unlisted = [f"{name} is there and not listed" for name in there if name not in listed]
    changed = [
        f"{name} is not the file that was listed"
        for name in there
        if name in listed and _sha256(home / name) != listed[name]
    ]
    return missing + unlisted + changed


def _read_manifest(path):
    if path.is_symlink() or not path.is_file():
        raise NotInStoreError(
            f"no {MANIFEST} in {path.parent}; 'featstore copy --manifest' and 'featstore pack' "
            "write one"
        )
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    matches = [LINE.fullmatch(line) for line in lines]
    if None in matches:
        number = matches.index(None)
        raise StoreError(
            f"line {number + 1} of {path} is {lines[number][:80]!r}; expected 64 hexadecimal "
            "digits, two spaces and a file name"
        )
    return {match[2]: match[1] for match in matches}


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
