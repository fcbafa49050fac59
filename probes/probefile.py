"""Fitted probes as files: arrays and a JSON text in one .npz, never a pickle.

A file may come from anyone. So nothing of it is executed, names, types and sizes are checked before
memory is taken for them, and what does not fit is refused in one line.
"""

import json
import math
import os
import secrets
import struct
import zipfile
import zlib
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from probes.errors import ProbesError

__all__ = ["FORMAT", "load", "read", "save", "write"]

FORMAT, FORMAT_VERSION = "featstore-probes linear probe", 1

# 1,000 classes of the longest embeddings (Virchow's 2,560) in float64 are 20 MiB.
MOST_BYTES = 256 * 2**20

# Names of 1,000 classes with their weights are 100 KiB; what JSON makes of a byte can take 30.
MOST_METADATA_BYTES = 4 * 2**20

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

# What is kept of a fitted probe beside its arrays, with the types it may have.
FITTED = {"C": float, "objective": float, "n_iter": int, "converged": bool, "collapsed": bool}


def save(path, probe):
    """Write a fitted probe.

    Parameters
    ----------
    path : path-like
        Taken as it is; ``.npz`` is the usual ending.
    probe : LogisticProbe
        Fitted.

    Raises
    ------
    ProbesError
        If the labels are neither texts, numbers nor truth values.
    """
    classes = probe.classes_
    if classes.dtype.hasobject:
        classes = np.array(classes.tolist())
    if classes.dtype.kind not in ARRAYS["classes"]:
        raise ProbesError(
            f"labels of type {classes.dtype} cannot be saved; fit on texts, numbers or truth values"
        )
    parameters = probe.get_params()
    if isinstance(probe.class_weight, dict):  # JSON makes texts of all keys
        parameters["class_weight"] = [list(pair) for pair in probe.class_weight.items()]
    metadata = {"parameters": parameters, "encoder_digest": probe.encoder_digest_}
    metadata |= {name: getattr(probe, f"{name}_") for name in FITTED}
    arrays = {"coef": probe.coef_, "intercept": probe.intercept_, "classes": classes}
    write(path, arrays, _plain(metadata))


def load(path, kind):
    """Read a probe from a file that may be anyone's.

    Parameters
    ----------
    path : path-like
    kind : type
        LogisticProbe, or what derives from it.

    Returns
    -------
    LogisticProbe
        Of that kind, fitted.

    Raises
    ------
    ProbesError
        If this is no saved probe, a damaged one, or one of a newer format.
    """
    arrays, metadata = read(path)
    probe = _from_metadata(path, metadata, kind)
    probe.classes_, probe.coef_ = arrays["classes"], arrays["coef"]
    probe.intercept_ = arrays["intercept"]
    probe.n_features_in_ = probe.coef_.shape[1]
    return probe


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
    members = arrays | {TEXT: np.frombuffer(text.encode(), np.uint8)}
    partial = f"{os.fspath(path)}.{secrets.token_hex(4)}.partial"
    try:
        with open(partial, "xb") as file:
            np.savez(file, **members, allow_pickle=False)
        os.replace(partial, path)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise


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
    if set(there) != expected or len(file.infolist()) != len(there):
        raise ValueError(f"it holds {sorted(file.namelist())[:8]!r:.200}, not {sorted(expected)}")
    if {info.compress_type for info in there.values()} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError("it is compressed in a way that NumPy does not use")
    if sum(info.file_size for info in there.values()) > MOST_BYTES:
        raise ValueError(f"it unpacks to more than {MOST_BYTES / 2**20:g} MiB")
    if there[f"{TEXT}.npy"].file_size > MOST_METADATA_BYTES:
        raise ValueError(f"its metadata are more than {MOST_METADATA_BYTES / 2**20:g} MiB")
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
        content = member.read()
    values = np.frombuffer(content, dtype)
    if dtype.kind == "U":
        _check_characters(info, np.frombuffer(content, f"{dtype.byteorder}u4"))
    return values.reshape(shape, order="F" if fortran else "C")


def _check_characters(info, codes):
    """Refuse codes that are no characters: Python fails on these without saying so."""
    if codes.max() > 0x10FFFF or ((codes >= 0xD800) & (codes <= 0xDFFF)).any():
        raise ValueError(f"{info.filename} holds codes that are no characters")


def _check_format(path, metadata):
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ProbesError(f"{path} is no saved probe: its metadata do not say {FORMAT!r}")
    found = metadata.get("format_version")
    if found != FORMAT_VERSION:
        raise ProbesError(
            f"{path} is a saved probe of format {found!r:.40}, this version reads "
            f"{FORMAT_VERSION}; update featstore-probes"
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


def _plain(value):
    """Turn values into lists, texts and numbers of Python, as JSON takes them."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if hasattr(value, "tolist"):  # of NumPy, of torch, of pandas
        return value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return value


def _from_metadata(path, metadata, kind):
    """Make a probe of the parameters in metadata, and give it what was fitted beside arrays."""
    parameters, digest = metadata.get("parameters"), metadata.get("encoder_digest")
    known = kind().get_params()
    fits = (
        isinstance(parameters, dict)
        and set(parameters) <= set(known)
        and isinstance(digest, str)
        and digest.isprintable()  # as it is shown to whoever scores other embeddings
        and all(type(metadata.get(name)) is its for name, its in FITTED.items())
    )
    if not fits:
        raise ProbesError(f"{path} is a damaged probe: its metadata are not those of a probe")
    if isinstance(parameters.get("class_weight"), list):
        parameters["class_weight"] = _pairs(path, parameters["class_weight"])
    probe = kind(**parameters)
    probe.encoder_digest_ = digest
    for name in FITTED:
        setattr(probe, f"{name}_", metadata[name])
    return probe


def _pairs(path, listed):
    try:
        return dict(listed)
    except (TypeError, ValueError) as error:
        raise ProbesError(f"{path} is a damaged probe: class_weight is {listed!r:.80}") from error
