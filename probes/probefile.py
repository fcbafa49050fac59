"""Fitted probes as files: arrays and a JSON text in one .npz, never a pickle.

A file may come from anyone. So nothing of it is executed, names, types and sizes are checked before
memory is taken for them, and what does not fit is refused in one line.
"""

import json
import math
import os
import struct
import tempfile
import zipfile
import zlib
from importlib.metadata import version

import numpy as np

from probes.errors import ProbesError

__all__ = ["FORMAT", "read", "write"]

FORMAT, FORMAT_VERSION = "featstore-probes linear probe", 1

# 1,000 classes of the longest embeddings (Virchow's 2,560) in float64 are 20 MiB.
MOST_BYTES = 256 * 2**20

# What zipfile, zlib, json and NumPy raise on bytes that are not theirs.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)

ARRAYS = {"coef": "f", "intercept": "f", "classes": "iufUb"}  # and the kinds of their types
TEXT = "metadata"


def write(path, arrays, metadata):
    """Write arrays and metadata; the file is there whole, or not at all.

    Parameters
    ----------
    path : path-like
        Taken as it is; ``.npz`` is the usual ending.
    arrays : dict of ndarray
        ``coef``, ``intercept`` and ``classes``.
    metadata : dict
        What JSON can hold; format and versions are added.
    """
    versions = {name: version(name) for name in ("featstore-probes", "numpy", "scikit-learn")}
    text = json.dumps(
        {"format": FORMAT, "format_version": FORMAT_VERSION, **metadata, "versions": versions}
    )
    folder = os.path.dirname(os.path.abspath(path))
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file:
        try:
            np.savez(
                file, **arrays, **{TEXT: np.frombuffer(text.encode(), np.uint8)}, allow_pickle=False
            )
        except BaseException:
            os.unlink(file.name)
            raise
    os.replace(file.name, path)


def read(path):
    """Read arrays and metadata, from a file that may be anyone's.

    Returns
    -------
    arrays : dict of ndarray
        Of fitting shapes, finite, classes sorted and distinct.
    metadata : dict

    Raises
    ------
    ProbesError
        If this is no saved probe, a damaged one, or one of a newer format.
    """
    with open(path, "rb") as stream:
        try:
            with zipfile.ZipFile(stream) as file:
                arrays = _members(file)
            metadata = json.loads(arrays.pop(TEXT).tobytes())
        except DAMAGE as error:
            reason = " ".join(str(error).split()) or "it ends too early"
            raise ProbesError(f"{path} is no saved probe, or a damaged one ({reason})") from error
    _check_format(path, metadata)
    _check_arrays(path, **arrays)
    return arrays, metadata


def _members(file):
    """Arrays of a zip file, by name."""
    there = {info.filename: info for info in file.infolist()}
    expected = {f"{name}.npy" for name in (*ARRAYS, TEXT)}
    if set(there) != expected:
        raise ValueError(f"it holds {sorted(there)[:8]}, not {sorted(expected)}")
    if {info.compress_type for info in there.values()} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError("it is compressed in a way that NumPy does not use")
    if sum(info.file_size for info in there.values()) > MOST_BYTES:
        raise ValueError(f"it unpacks to more than {MOST_BYTES / 2**20:g} MiB")
    return {
        name.removesuffix(".npy"): _array(file, info, ARRAYS.get(name.removesuffix(".npy"), "u"))
        for name, info in there.items()
    }


def _array(file, info, kinds):
    """One member; its header is held against its size before it is read."""
    with file.open(info) as member:
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError(f"{info.filename} is in another version of the .npy format")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        if dtype.kind not in kinds or dtype.itemsize == 0:
            raise ValueError(f"{info.filename} is of type {dtype}")
        n_bytes = math.prod(shape) * dtype.itemsize
        if n_bytes != info.file_size - member.tell():
            raise ValueError(f"{info.filename} claims a shape {shape} that it does not have")
        values = np.frombuffer(member.read(), dtype)
    return values.reshape(shape, order="F" if fortran else "C")


def _check_format(path, metadata):
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ProbesError(f"{path} is no saved probe: its metadata do not say {FORMAT!r}")
    found = metadata.get("format_version")
    if found != FORMAT_VERSION:
        raise ProbesError(
            f"{path} is a saved probe of format {found!r}, this version reads {FORMAT_VERSION}; "
            "update featstore-probes"
        )


def _check_arrays(path, coef, intercept, classes):
    n_rows = 1 if classes.size == 2 else classes.size
    fits = (
        classes.ndim == 1
        and classes.size >= 2
        and (classes[:-1] < classes[1:]).all()
        and coef.ndim == 2
        and len(coef) == n_rows
        and coef.shape[1] >= 1
        and intercept.shape == (n_rows,)
    )
    if not fits:
        raise ProbesError(
            f"{path} is a damaged probe: coef {coef.shape}, intercept {intercept.shape} and "
            f"classes {classes.shape} do not fit each other"
        )
    if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
        raise ProbesError(f"{path} is a damaged probe: it has weights that are not finite")
