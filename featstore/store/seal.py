"""Seals: a checksum over each ``zarr.json``, kept in its own attributes.

Chunks carry a CRC-32C; Zarr gives metadata none, so a flipped bit in a category, a weights hash
or a date would pass for the truth. The attribute ``metadata_sha256`` is SHA-256 of the canonical
JSON (RFC 8785) of the file without that attribute. Each file is sealed for itself, so that one
rename changes content and seal together.
"""

import hashlib
import json
import math
from decimal import Decimal
from pathlib import Path

from featstore.store.chunks import write_file

__all__ = ["SEAL", "canonical", "ensure_group", "parse", "rewrite", "seal", "seal_of", "sealed"]

SEAL = "metadata_sha256"


def parse(raw):
    """Read JSON strictly.

    Parameters
    ----------
    raw : bytes
        Content of a file.

    Raises
    ------
    ValueError
        If it is not UTF-8 or not JSON, holds NaN or an infinity, or a key twice: two readers could
        take such a file for two different things.

    Examples
    --------
    >>> parse(b'{"a": 1}')
    {'a': 1}
    >>> parse(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ...
    ValueError: the key 'a' stands twice
    """
    try:
        return json.loads(
            raw.decode("utf-8"), object_pairs_hook=_without_twins, parse_constant=_refuse
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _without_twins(pairs):
    content = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key!r} stands twice")
        content[key] = value
    return content


def _refuse(constant):
    raise ValueError(f"{constant} is not JSON")


def canonical(value):
    """Write JSON in the one form of RFC 8785; integers in all their digits, however large.

    Raises
    ------
    ValueError
        If a number is not finite.

    Examples
    --------
    >>> canonical({"b": [1.0, 0.25, 1e-7], "a": "ä"})
    '{"a":"ä","b":[1,0.25,1e-7]}'
    """
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))  # RFC 8785, section 3.2.3
        return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in keys) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, float):
        return _number(value)
    return json.dumps(value, ensure_ascii=False)


def _number(value):
    """Write a float as ECMAScript prints it (RFC 8785, section 3.2.2.3).

    Examples
    --------
    >>> [_number(value) for value in (-0.0, 333333333.33333329, 1e30, 0.002, 1e-27)]
    ['0', '333333333.3333333', '1e+30', '0.002', '1e-27']
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a JSON number")
    if value == 0:
        return "0"
    negative, figures, exponent = Decimal(repr(value)).normalize().as_tuple()
    digits, point = "".join(map(str, figures)), len(figures) + exponent
    return "-" * negative + _placed(digits, point)


def _placed(digits, point):
    """Digits with the decimal point after the first ``point`` of them."""
    if len(digits) <= point <= 21:
        return digits.ljust(point, "0")
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"


def seal_of(document):
    """Seal that the content of a ``zarr.json`` must carry, 64 hexadecimal digits."""
    attributes = {key: value for key, value in document["attributes"].items() if key != SEAL}
    text = canonical({**document, "attributes": attributes})
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sealed(document):
    """Return the content of a ``zarr.json`` with its seal.

    Examples
    --------
    >>> document = sealed({"zarr_format": 3, "node_type": "group"})
    >>> document["attributes"]["metadata_sha256"][:8], sealed(document) == document
    ('b33e0e35', True)
    """
    whole = {**document, "attributes": dict(document.get("attributes", {}))}
    whole["attributes"][SEAL] = seal_of(whole)
    return whole


def seal(folder):
    """Seal a group, and the arrays directly in it, as they are now.

    Call it when Zarr has written metadata. Zarr's own objects keep what they read before: open them
    anew afterwards.

    Parameters
    ----------
    folder : path-like
        Folder of a group or array.
    """
    for path in [Path(folder) / "zarr.json", *sorted(Path(folder).glob("*/zarr.json"))]:
        document = parse(path.read_bytes())
        if path.parent == Path(folder) or document["node_type"] == "array":
            _replace(path, document)


def rewrite(folder, *, attributes=None, **fields):
    """Change metadata and its seal in one step, which a crash cannot part.

    Parameters
    ----------
    folder : path-like
        Folder of a group or array.
    attributes : dict, optional
        Attributes to set; the others stay.
    **fields
        Other members of ``zarr.json`` to set, such as ``shape``.
    """
    path = Path(folder) / "zarr.json"
    document = parse(path.read_bytes()) | fields
    document["attributes"] = document.get("attributes", {}) | (attributes or {})
    _replace(path, document)


def ensure_group(folder):
    """Make an empty, sealed group where there is none."""
    path = Path(folder) / "zarr.json"
    if not path.exists():
        _replace(path, {"attributes": {}, "zarr_format": 3, "node_type": "group"})


def _replace(path, document):
    """Write a document sealed, where it is not there in just that form."""
    raw = json.dumps(sealed(document), indent=2, ensure_ascii=False).encode("utf-8")
    if not path.exists() or path.read_bytes() != raw:
        write_file(path, raw)
