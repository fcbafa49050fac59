"""MIDOG annotation files (2021, 2022, MIDOG++ and files made like them).

COCO-like JSON with one difference that has bitten many: ``bbox`` is [x1, y1, x2, y2], two corners,
and the annotation is the centre of that box.
"""

from pathlib import Path

import numpy as np

from featstore.annotations import AnnotationTable
from featstore.datasets.labels import SPELLINGS, LabelMap
from featstore.datasets.reading import LeftOut, Reading
from featstore.datasets.releases import (
    MIDOG_RELEASES,
    canonical_domain,
    check_counts,
    check_image_names,
    recognise_midog,
    release_named,
)
from featstore.datasets.untrusted import (
    finite,
    id_column,
    is_id,
    load_json,
    one_line,
    short,
    text_column,
)
from featstore.errors import AnnotationError

__all__ = ["BOX_PX", "read_midog"]

BOX_PX = 50  # every box of every MIDOG release
MOST_VOTES = 20  # experts per annotation; MIDOG++ has two or three
SAME_PX = 1e-6  # sizes of boxes differ by rounding only


def read_midog(path, *, name, labels=None, release=None, box_px=BOX_PX):
    """Read a MIDOG-format JSON.

    Parameters
    ----------
    path : path-like
        The JSON file.
    name : str
        Name of the dataset.
    labels : mapping of str to str, optional
        Labels of the file's categories, before the spellings that are known anyway.
    release : {'midog2021', 'midog2022', 'midog++'}, optional
        Which release the file is, or is a part of. By default that is found out, where the image
        numbers and file names leave no doubt.
    box_px : float or None, default=50
        Width and height that every box must have; None takes boxes of any size.

    Returns
    -------
    Reading
        Columns ``x``, ``y`` (box centres in pixels of the image, half-pixels kept), ``image``
        (file name), ``slide`` (file name without its ending), ``domain`` where the images name
        their tumour type or the release is known (empty for an image without either), and
        ``vote_1``, ``vote_2``, ... where annotations carry the votes of experts.

    Raises
    ------
    AnnotationError
        If the file is not such JSON, the category of an annotation is not a mitotic figure or a
        look-alike, an annotation names an unknown image, an image file stands twice, or a box is
        not [x1, y1, x2, y2] of the size asked for.

    Warns
    -----
    KnownCountsWarning
        If the file is a known release and gives other numbers than were published.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "MIDOG.json"
    >>> _ = file.write_text('''{
    ...   "images": [{"id": 1, "file_name": "001.tiff", "tumor_type": "canine lymphoma"}],
    ...   "categories": [{"id": 1, "name": "mitotic figure"}],
    ...   "annotations": [{"id": 5, "image_id": 1, "category_id": 1, "bbox": [10, 20, 60, 70]}]}''')
    >>> cells = read_midog(file, name="midog").table
    >>> cells.x, cells.y, cells.labels
    (array([35.]), array([45.]), array(['mitotic figure'], dtype='<U14'))
    """
    content = _load(path)
    annotations = content["annotations"]
    images = _by_id(content["images"], "image", path)
    categories = _by_id(content["categories"], "category", path)
    ids = [_id_of(row, "annotation", path) for row in annotations]
    _check_references(annotations, images, categories, path)
    files = _image_files(annotations, images, path)
    known = _release(release, files, path)
    domain_of, notes = _domains(annotations, images, known, path)
    label_map = LabelMap(labels)
    columns = _columns(annotations, images, files, domain_of, box_px, path)
    columns |= _votes(annotations, categories, label_map, path)
    labels_of_row = _labels(annotations, categories, label_map, path)
    table = AnnotationTable(name, id_column(ids, path), labels_of_row, columns)
    if known is not None:
        check_counts(known, table, path)
    return Reading(table, _without_annotations(annotations, images), notes)


def _columns(annotations, images, files, domain_of, box_px, path):
    centres = _centres(annotations, images, box_px, path)
    of_row = [row["image_id"] for row in annotations]
    columns = {
        "x": centres[:, 0],
        "y": centres[:, 1],
        "image": text_column([files[image] for image in of_row], "image", path),
        "slide": text_column([Path(files[image]).stem for image in of_row], "slide", path),
    }
    domains = text_column([domain_of[image] for image in of_row], "domain", path)
    return columns | {"domain": domains} if domains.any() else columns


def _load(path):
    content = load_json(path)
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
            f"{key!r} of {path} holds {short(first)}; a list of objects is needed"
        )


def _id_of(row, kind, path):
    if not is_id(row.get("id")):
        raise AnnotationError(
            f"{path} has the {kind} {short(row)} without an id; give it a number or a text"
        )
    return row["id"]


def _by_id(rows, kind, path):
    """Images or categories by their IDs, which must be unique."""
    found = {}
    for row in rows:
        key = _id_of(row, kind, path)
        if key in found:
            raise AnnotationError(
                f"{path} has two of the {kind} id {short(key)}; IDs must be unique"
            )
        found[key] = row
    return found


def _check_references(annotations, images, labels, path):
    for key, known in (("image_id", images), ("category_id", labels)):
        lost = [row for row in annotations if not (is_id(row.get(key)) and row[key] in known)]
        if lost:
            raise AnnotationError(
                f"{len(lost)} annotations of {path} have an unknown {key} (first: annotation "
                f"{short(lost[0]['id'])} with {short(lost[0].get(key))}); the file lists "
                f"{', '.join(map(short, list(known)[:5]))}, ..."
            )


def _image_files(annotations, images, path):
    """File names by image ID; an image without annotations may have none."""
    used = {row["image_id"] for row in annotations}
    files, image_of = {}, {}
    for key, image in images.items():
        if key not in used and not isinstance(image.get("file_name"), str):
            continue
        file = one_line(image.get("file_name"), f"file_name of the image {short(key)}", path)
        if file in image_of:
            raise AnnotationError(
                f"{path} names the image file {file!r} twice, as image {short(image_of[file])} and "
                f"{short(key)}; it is unclear whose annotations are on it: keep one"
            )
        files[key] = image_of.setdefault(file, key) and file
    return files


def _release(asked, files, path):
    """Take the release asked for, if the images agree with it, or the one the file must be."""
    if asked is None:
        return recognise_midog(files)
    release = release_named(asked, among=tuple(known.key for known in MIDOG_RELEASES))
    check_image_names(release, files, path)
    return release


def _domains(annotations, images, release, path):
    """Domain by ID of the annotated images: the tumour type, else the release's for the number."""
    used = dict.fromkeys(row["image_id"] for row in annotations)
    told = {key: _tumour_type(images[key], path) for key in used}
    domain_of = {key: canonical_domain(domain) for key, domain in told.items()}
    if release is not None:
        domain_of = {key: domain_of[key] or release.domain_of(key) for key in used}
    notes = [
        f"domain {domain!r} is written {canonical_domain(domain)!r}, as elsewhere"
        for domain in sorted(set(told.values()))
        if domain != canonical_domain(domain)
    ]
    if not any(domain_of.values()):
        notes.append(
            "no domains: no image has a tumor_type, and the image numbers and names are not those "
            "of a known release; if they are part of one, name it with --release "
            + ", ".join(known.key for known in MIDOG_RELEASES)
        )
    return domain_of, tuple(notes)


def _tumour_type(image, path):
    value = image.get("tumor_type")
    if not isinstance(value, str) or not value.strip():
        return ""
    return one_line(value, f"tumor_type of the image {short(image['id'])}", path).strip()


def _labels(annotations, categories, label_map, path):
    """Label of each annotation; a category that none of them uses may be anything."""
    label_map.check_names([row.get("name") for row in categories.values()], path)
    used = {row["category_id"] for row in annotations}
    label_of = {key: _label(categories[key].get("name"), label_map, path) for key in used}
    labels = [label_of[row["category_id"]] for row in annotations]
    return text_column(labels, "label", path)


def _label(category, label_map, path):
    label = label_map.of(category) if isinstance(category, str) else None
    if label is None:
        raise AnnotationError(
            f"{path} has the category {short(category)}, which is neither a mitotic figure nor a "
            f"look-alike; known are {', '.join(SPELLINGS)}; name its label with --map-label"
        )
    return one_line(label, "label", path)


def _votes(annotations, categories, label_map, path):
    """Columns vote_1, vote_2, ... of what each expert said, '' where fewer voted."""
    votes = [_votes_of(row, path) for row in annotations]
    said = {key: _vote(key, categories, label_map) for row in votes for key in row}
    return {
        f"vote_{place + 1}": text_column(
            [said[row[place]] if place < len(row) else "" for row in votes], "labels", path
        )
        for place in range(max(map(len, votes)))
    }


def _votes_of(row, path):
    votes = row.get("labels")
    if votes is None:
        return []
    if not isinstance(votes, list) or not all(map(is_id, votes)) or len(votes) > MOST_VOTES:
        raise AnnotationError(
            f"the labels of annotation {short(row['id'])} of {path} are {short(votes)}; a list of "
            f"at most {MOST_VOTES} category ids is needed, the votes of the experts"
        )
    return votes


def _vote(category_id, categories, label_map):
    """Label that a vote is for, the category's own name where it has none, else the number."""
    name = categories.get(category_id, {}).get("name")
    if not isinstance(name, str):
        return short(category_id)
    return label_map.of(name) or short(name).strip("'\"")


def _without_annotations(annotations, images):
    used = {row["image_id"] for row in annotations}
    names = [
        image["file_name"] if isinstance(image.get("file_name"), str) else key
        for key, image in images.items()
        if key not in used
    ]
    if not names:
        return ()
    return (LeftOut("without annotations", len(names), "images", tuple(map(_shown, names[:3]))),)


def _shown(name):
    return short(name).strip("'\"")


def _centres(annotations, images, box_px, path):
    boxes = np.array([_box(row, path) for row in annotations])
    _check_boxes(boxes, annotations, images, box_px, path)
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _box(row, path):
    box = row.get("bbox")
    corners = list(map(finite, box)) if isinstance(box, list) and len(box) == 4 else [None]
    if None in corners:
        raise AnnotationError(
            f"the bbox of annotation {short(row['id'])} of {path} is {short(box)}; four finite "
            "numbers are needed"
        )
    return corners


def _check_boxes(boxes, annotations, images, box_px, path):
    """Refuse boxes that are not two corners, or not of the one size that the files have."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    fitting = np.zeros(len(boxes), bool)
    if box_px is not None:
        fitting = (abs(sizes - box_px) <= SAME_PX).all(axis=1)
    impossible = (sizes <= 0).any(axis=1) | _larger_than_image(sizes, annotations, images)
    impossible &= ~fitting
    wrong = impossible if box_px is None else ~fitting
    rows = boxes, annotations, path
    if _look_like_widths(boxes, wrong, impossible, box_px):
        _refuse(
            ~fitting,
            "look like [x, y, width, height], as COCO has them",
            "MIDOG's are [x1, y1, x2, y2], and the centres would be wrong: write x + width and "
            "y + height instead",
            rows,
        )
    problem = "are not [x1, y1, x2, y2], or are larger than their image"
    _refuse(impossible, problem, "corner boxes are needed", rows)
    problem = f"are not {box_px} x {box_px} px, as MIDOG's are"
    _refuse(wrong, problem, "if they are meant so, take any size with --box-px 0", rows)


def _look_like_widths(boxes, wrong, impossible, box_px):
    """Whether the last two numbers of the boxes that do not fit are sizes, not a corner."""
    if box_px is not None and wrong.any() and (boxes[wrong, 2:] == box_px).all():
        return True
    one_size = (boxes[:, 2:] == boxes[0, 2:]).all() and len(np.unique(boxes[:, :2], axis=0)) > 1
    return bool(impossible.all() or one_size)


def _larger_than_image(sizes, annotations, images):
    pixels = [
        [finite(images[row["image_id"]].get(side)) or np.inf for side in ("width", "height")]
        for row in annotations
    ]
    return (sizes > np.array(pixels)).any(axis=1)


def _refuse(wrong, problem, remedy, what):
    boxes, annotations, path = what
    if wrong.any():
        row = np.flatnonzero(wrong)[0]
        raise AnnotationError(
            f"{wrong.sum()} boxes of {path} {problem} (first: annotation "
            f"{short(annotations[row]['id'])} with {boxes[row].tolist()}); {remedy}"
        )
