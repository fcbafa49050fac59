"""Whether a file of a store is in the store: a stranger's store may hold links to anywhere."""

import os

from featstore.errors import StoreError

__all__ = ["refuse_outside"]


def refuse_outside(folder, key):
    """Refuse a file that a symbolic link puts outside of its store.

    Parameters
    ----------
    folder : path-like
        Folder of the store.
    key : str
        Path of the file, relative to it.

    Raises
    ------
    StoreError
        If the file, links followed, lies somewhere else.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> home = pathlib.Path(tempfile.mkdtemp())
    >>> (home / "secret").symlink_to("/etc/hostname")
    >>> refuse_outside(home, "zarr.json")
    >>> refuse_outside(home, "secret")
    Traceback (most recent call last):
    ...
    featstore.errors.StoreError: secret of ... is a link that leads out of the store; ...
    """
    home = os.path.realpath(folder)
    if os.path.commonpath([home, os.path.realpath(os.path.join(home, key))]) != home:
        raise StoreError(
            f"{key} of {folder} is a link that leads out of the store; it was not followed, ask "
            "for a copy that holds the file itself"
        )
