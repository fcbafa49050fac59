"""MIDOG annotation files (2021, 2022, MIDOG++ and files made like them).

COCO-like JSON with one difference that has bitten many: ``bbox`` is [x1, y1, x2, y2], two corners,
and the annotation is the centre of that box.
"""

import json
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
        (file name), ``slide`` (file name without its ending) and, where every image names its
        tumour type, ``domain``.

    Raises
    ------
    AnnotationError
        If the file is not such JSON, a category is not a mitotic figure or a look-alike, an
        annotation names an unknown image, or a box is not [x1, y1, x2, y2].

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
    images = {image["id"]: image for image in content["images"]}
    labels = {row["id"]: _label(row["name"], path) for row in content["categories"]}
    annotations = content["annotations"]
    _check_references(annotations, images, labels, path)
    files = np.array([images[row["image_id"]]["file_name"] for row in annotations])
    centres = _centres(annotations, path)
    columns = {
        "x": centres[:, 0],
        "y": centres[:, 1],
        "image": files,
        "slide": np.array([Path(file).stem for file in files]),
    }
    if all(image.get("tumor_type") for image in images.values()):
        columns["domain"] = np.array([images[row["image_id"]]["tumor_type"] for row in annotations])
    ids = [row["id"] for row in annotations]
    return AnnotationTable(name, ids, [labels[row["category_id"]] for row in annotations], columns)


def _load(path):
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise AnnotationError(f"{path} is not JSON: {error}") from error
    for key in ("images", "categories", "annotations"):
        if not isinstance(content, dict) or not content.get(key):
            raise AnnotationError(
                f"{path} has no {key!r}; a MIDOG file lists images, categories and annotations"
            )
    return content


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
        lost = [row for row in annotations if row.get(key) not in known]
        if lost:
            raise AnnotationError(
                f"{len(lost)} annotations of {path} have an unknown {key} (first: annotation "
                f"{lost[0].get('id')!r} with {lost[0].get(key)!r}); the file lists "
                f"{', '.join(map(str, list(known)[:5]))}, ..."
            )


def _centres(annotations, path):
    try:
        boxes = np.array([row["bbox"] for row in annotations], dtype=float).reshape(-1, 4)
    except (KeyError, TypeError, ValueError) as error:
        raise AnnotationError(f"{path} has an annotation without a bbox of four numbers") from error
    upside_down = np.flatnonzero((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1]))
    if upside_down.size:
        row = upside_down[0]
        raise AnnotationError(
            f"{upside_down.size} boxes of {path} are not [x1, y1, x2, y2] (first: annotation "
            f"{annotations[row]['id']!r} with {boxes[row].tolist()}); corner boxes are needed"
        )
    return (boxes[:, :2] + boxes[:, 2:]) / 2
