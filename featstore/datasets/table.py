"""Tables of patches that are already cropped: a CSV with a file and a label in each row."""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from featstore.annotations import AnnotationTable
from featstore.errors import AnnotationError, ImageError

__all__ = ["read_patch_table"]

OPTIONAL = ("slide", "domain")


def read_patch_table(
    path, *, name, images=None, id="id", file="file", label="label", slide=None, domain=None
):
    """Read a CSV of cropped patches.

    Parameters
    ----------
    path : path-like
        CSV with a header.
    name : str
        Name of the dataset.
    images : path-like, optional
        Folder of the patch files; the CSV's own folder by default. A file that is not at the place
        the CSV names is looked for by its name in the folders below, where it must be the only one.
    id, file, label : str
        Names of the columns.
    slide, domain : str, optional
        Names of these columns; columns called ``slide`` and ``domain`` are taken without asking.

    Returns
    -------
    AnnotationTable
        ``image`` is the patch file, relative to the folder. All further columns of the CSV are
        kept, their names in lower case.

    Raises
    ------
    AnnotationError
        If a column is missing, or a row has no ID or label.
    ImageError
        If a patch file is missing or its name stands for several files.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> (folder / "normal").mkdir(); (folder / "normal" / "7.png").touch()
    >>> _ = (folder / "labels.csv").write_text("uid,png,kind\\n7,7.png,normal\\n")
    >>> cells = read_patch_table(folder / "labels.csv", name="lab", id="uid", file="png",
    ...                          label="kind")
    >>> cells.ids, cells.images
    (array([7]), array(['normal/7.png'], dtype='<U12'))
    """
    frame = _load(path)
    roles = {"id": id, "file": file, "label": label}
    asked = {"slide": slide, "domain": domain}
    roles |= {role: asked[role] or role for role in OPTIONAL if asked[role] or role in frame}
    _check_columns(frame, roles, path)
    folder = Path(images) if images is not None else Path(path).parent
    named = frame[roles["file"]].fillna("").astype(str).tolist()
    columns = {"image": np.array(_PatchFiles(folder).relative(named))}
    columns |= {role: _values(frame[roles[role]]) for role in OPTIONAL if role in roles}
    columns |= _further_columns(frame, taken=roles)
    ids = frame[roles["id"]].fillna("").to_numpy(dtype=str)
    labels = frame[roles["label"]].fillna("").astype(str).to_numpy(dtype=str)
    return AnnotationTable(name, _integers_where_all_are(ids), labels, columns)


def _load(path):
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype=object, keep_default_na=False, na_values=[""])
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # pandas' parser errors, and bytes that are no text
        raise AnnotationError(f"{path} is not a CSV with a header: {error}") from error
    if frame.empty:
        raise AnnotationError(f"{path} holds no rows; one row per patch is needed")
    return frame


def _check_columns(frame, roles, path):
    for role, column in roles.items():
        if column not in frame:
            raise AnnotationError(
                f"{path} has no column {column!r} for the {role}; it has {', '.join(frame)}. "
                f"Name one with --{role}"
            )


def _integers_where_all_are(texts):
    """Turn IDs into integers where that loses nothing; '007' stays a string."""
    canonical = all(re.fullmatch(r"0|-?[1-9][0-9]{0,17}", text) for text in texts.tolist())
    return texts.astype(np.int64) if canonical else texts


def _further_columns(frame, *, taken):
    further = {}
    for column in frame.columns.difference(list(taken.values()), sort=False):
        key = re.sub(r"[^a-z0-9._-]+", "_", str(column).lower()).strip("._-")
        if key and key not in {"id", "label", "image", *taken, *further}:
            further[key] = _values(frame[column])
    return further


def _values(series):
    """Numbers where all values are numbers, else text with missing values as ''."""
    import pandas as pd

    try:
        return pd.to_numeric(series).to_numpy(dtype=float)
    except (ValueError, TypeError):
        return series.fillna("").astype(str).to_numpy(dtype=str)


class _PatchFiles:
    """Patch files in a folder, found by path or, failing that, by name."""

    def __init__(self, folder):
        if not folder.is_dir():
            raise ImageError(f"the folder of patch files {folder} does not exist; give --images")
        self.folder = folder
        self._by_name = None

    def relative(self, named):
        return [self._relative(file) for file in named]

    def _relative(self, file):
        if not file or Path(file).is_absolute() or ".." in Path(file).parts:
            raise ImageError(f"patch file {file!r} is not a path within {self.folder}")
        if (self.folder / file).is_file():
            return Path(file).as_posix()
        found = self._below().get(Path(file).name, [])
        if len(found) != 1:
            problem = "is missing" if not found else f"could be any of {', '.join(found[:3])}"
            raise ImageError(
                f"patch file {file!r} {problem} in {self.folder}; give --images or "
                "paths relative to it"
            )
        return found[0]

    def _below(self):
        if self._by_name is None:
            self._by_name = defaultdict(list)
            for path in sorted(self.folder.rglob("*")):
                if path.is_file():
                    self._by_name[path.name].append(path.relative_to(self.folder).as_posix())
        return self._by_name
