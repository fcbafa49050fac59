"""MIDOG annotation files (2021, 2022, MIDOG++ and files made like them).

COCO-like JSON with one difference that has bitten many: ``bbox`` is [x1, y1, x2, y2], two corners,
and the annotation is the centre of that box.
"""

import json
import reprlib
from pathlib import Path

import numpy as np

from featstore.annotations import AnnotationTable
from featstore.errors import AnnotationError

__all__ = ["LOOK_ALIKE", "MITOTIC_FIGURE", "read_midog"]

MITOTIC_FIGURE = "mitotic figure"
LOOK_ALIKE = "look-alike"

# Spellings in the files of the challenges, lower case.
LABEL_OF_CATEGORY = {
    "mitotic figure": MITOTIC_FIGURE,
    "mitose": MITOTIC_FIGURE,
    "look-alike": LOOK_ALIKE,
    "hard negative": LOOK_ALIKE,
    "hard negative (non-mitotic cell)": LOOK_ALIKE,
    "hard negative look-alike": LOOK_ALIKE,
    "non-mitotic cell": LOOK_ALIKE,
    "non mitosis": LOOK_ALIKE,
    "not mitotic figure": LOOK_ALIKE,
}


def read_midog(path, *, name):
    """Read a MIDOG-format JSON.

    Parameters
    ----------
    path : path-like
        The JSON file.
    name : str
        Name of the dataset.

    Returns
    -------
    AnnotationTable
        Columns ``x``, ``y`` (box centres in pixels of the image, half-pixels possible), ``image``
        (file name), ``slide`` (file name without its ending) and, where an annotated image names
        its tumour type, ``domain`` (empty for the images that do not).

    Raises
    ------
    AnnotationError
        If the file is not such JSON, the category of an annotation is not a mitotic figure or a
        look-alike, an annotation names an unknown image, or a box is not [x1, y1, x2, y2].

    Examples
    --------
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "MIDOG.json"
    >>> _ = file.write_text('''{
    ...   "images": [{"id": 1, "file_name": "001.tiff", "tumor_type": "canine lymphoma"}],
    ...   "categories": [{"id": 1, "name": "mitotic figure"}],
    ...   "annotations": [{"id": 5, "image_id": 1, "category_id": 1, "bbox": [10, 20, 60, 70]}]}''')
    >>> cells = read_midog(file, name="midog")
    >>> cells.x, cells.y, cells.labels
    (array([35.]), array([45.]), array(['mitotic figure'], dtype='<U14'))
    """
    content = _load(path)
    annotations = content["annotations"]
    images = _by_id(content["images"], "image", path)
    categories = _by_id(content["categories"], "category", path)
    ids = [_id_of(row, "annotation", path) for row in annotations]
    _check_references(annotations, images, categories, path)
    label_of = _labels(annotations, categories, path)
    labels = [label_of[row["category_id"]] for row in annotations]
    return AnnotationTable(name, ids, labels, _columns(annotations, images, path))


def _columns(annotations, images, path):
    files = np.array([_file_of(images[row["image_id"]], path) for row in annotations])
    centres = _centres(annotations, path)
    columns = {
        "x": centres[:, 0],
        "y": centres[:, 1],
        "image": files,
        "slide": np.array([Path(file).stem for file in files]),
    }
    domains = np.array([_domain_of(images[row["image_id"]]) for row in annotations])
    return columns | {"domain": domains} if domains.any() else columns


def _load(path):
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path} is not JSON: {error}") from error
    for key in ("images", "categories", "annotations"):
        if not isinstance(content, dict) or not content.get(key):
            raise AnnotationError(
                f"{path} has no {key!r}; a MIDOG file lists images, categories and annotations"
            )
        _check_objects(content[key], key, path)
    return content


def _check_objects(rows, key, path):
    wrong = rows if not isinstance(rows, list) else [r for r in rows if not isinstance(r, dict)]
    if wrong or not isinstance(rows, list):
        first = wrong[0] if isinstance(wrong, list) else wrong
        raise AnnotationError(
            f"{key!r} of {path} holds {reprlib.repr(first)}; a list of objects is needed"
        )


def _is_id(value):
    return isinstance(value, (int, str)) and not isinstance(value, bool) and value != ""


def _id_of(row, kind, path):
    if not _is_id(row.get("id")):
        raise AnnotationError(
            f"{path} has the {kind} {reprlib.repr(row)} without an id; give it a number or a text"
        )
    return row["id"]


def _by_id(rows, kind, path):
    """Images or categories by their IDs, which must be unique."""
    found = {}
    for row in rows:
        key = _id_of(row, kind, path)
        if key in found:
            raise AnnotationError(f"{path} has two of the {kind} id {key!r}; IDs must be unique")
        found[key] = row
    return found


def _file_of(image, path):
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise AnnotationError(
            f"{path} has {reprlib.repr(name)} as file_name of the image {image['id']!r}; a file "
            "name is needed"
        )
    return name


def _domain_of(image):
    return str(image.get("tumor_type") or "").strip()


def _labels(annotations, categories, path):
    """Labels of the categories that annotations use; others may be anything."""
    used = {row["category_id"] for row in annotations}
    return {key: _label(row.get("name"), path) for key, row in categories.items() if key in used}


def _label(category, path):
    label = LABEL_OF_CATEGORY.get(str(category).strip().lower())
    if label is None:
        raise AnnotationError(
            f"{path} has the category {category!r}, which is neither a mitotic figure nor a "
            f"look-alike; known are {', '.join(LABEL_OF_CATEGORY)}"
        )
    return label


def _check_references(annotations, images, labels, path):
    for key, known in (("image_id", images), ("category_id", labels)):
        lost = [row for row in annotations if not (_is_id(row.get(key)) and row[key] in known)]
        if lost:
            raise AnnotationError(
                f"{len(lost)} annotations of {path} have an unknown {key} (first: annotation "
                f"{lost[0]['id']!r} with {reprlib.repr(lost[0].get(key))}); the file lists "
                f"{', '.join(map(str, list(known)[:5]))}, ..."
            )


def _centres(annotations, path):
    boxes = np.array([_box(row, path) for row in annotations])
    upside_down = np.flatnonzero((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1]))
    if upside_down.size:
        row = upside_down[0]
        raise AnnotationError(
            f"{upside_down.size} boxes of {path} are not [x1, y1, x2, y2] (first: annotation "
            f"{annotations[row]['id']!r} with {boxes[row].tolist()}); corner boxes are needed"
        )
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _box(row, path):
    box = row.get("bbox")
    try:
        corners = np.array(box, dtype=float)
    except (TypeError, ValueError, OverflowError):
        corners = np.array([])
    if corners.shape != (4,) or not np.isfinite(corners).all():
        raise AnnotationError(
            f"the bbox of annotation {row['id']!r} of {path} is {reprlib.repr(box)}; four finite "
            "numbers are needed"
        )
    return corners
