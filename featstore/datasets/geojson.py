"""GeoJSON as QuPath exports it: features with a geometry in pixels and a classification.

A file says nothing of the image it belongs to; that comes from the caller or from the file's name.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featstore.annotations import AnnotationTable
from featstore.datasets.labels import LabelMap
from featstore.datasets.reading import Reading, left_out_by
from featstore.datasets.untrusted import (
    check_nonempty,
    finite,
    id_column,
    is_id,
    load_json,
    one_line,
    short,
    text_column,
)
from featstore.errors import AnnotationError, ImageError

__all__ = ["GEOJSON_SUFFIX", "is_geojson", "read_geojson"]

GEOJSON_SUFFIX = ".geojson"
# Endings that a GeoJSON file may leave away; one of another kind it has to give in full.
TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".svs", ".ndpi", ".scn", ".bif", ".svslide", ".qptiff")
IMAGE_SUFFIXES = (*TIFF_SUFFIXES, ".png", ".jpg", ".jpeg", ".mrxs", ".vms", ".vmu", ".czi", ".dcm")
# How deep the positions of a geometry lie in its coordinates.
DEPTH_OF_GEOMETRY = {"Point": 0, "MultiPoint": 1, "Polygon": 2, "MultiPolygon": 3}
# Before version 0.3 QuPath gave all objects of a kind one ID.
ID_OF_ALL = re.compile(r"Path\w*Object")


def is_geojson(content):
    """Whether parsed JSON is a GeoJSON feature, a collection, or a list of features.

    Examples
    --------
    >>> is_geojson({"type": "FeatureCollection", "features": []}), is_geojson({"images": []})
    (True, False)
    """
    if isinstance(content, list):
        return True
    return isinstance(content, dict) and content.get("type") in ("FeatureCollection", "Feature")


def read_geojson(path, *, name, image=None, images=None, labels=None):
    """Read annotations that QuPath exported as GeoJSON.

    Parameters
    ----------
    path : path-like
        A file (a collection, a list of features or one feature), or a folder of ``.geojson``
        files, one for each image.
    name : str
        Name of the dataset.
    image : str, optional
        File name of the image that the file is of; not with a folder.
    images : path-like, optional
        Folder of the images. Without ``image``, the one is taken that is called like the GeoJSON
        file without ``.geojson``, or like that without the ending of an image.
    labels : mapping of str to str, optional
        Labels of the file's classifications. The known spellings of mitotic figures and
        look-alikes get their label; all others stay as they are.

    Returns
    -------
    Reading
        Columns ``x``, ``y`` (the point, or the middle of the smallest upright box around a
        polygon, in pixels of the image), ``image``, ``slide`` and, where the file has them,
        ``object_type``. Each point of a MultiPoint is an annotation, ``<id>-1``, ``<id>-2``, ...
        Features without a classification and other geometries are left out and counted.

    Raises
    ------
    AnnotationError
        If the file is not GeoJSON, a position is not two finite numbers, an ID stands twice, or
        it is unclear which image it is of.
    ImageError
        If the folder of images does not exist.

    Notes
    -----
    IDs are the features' own. Where a file has none, or the one that old versions of QuPath gave
    to all, annotations are counted, ``<image>-<place in the file>``, and a note says so.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "a.svs.geojson"
    >>> _ = file.write_text('''{"type": "Feature", "id": "e5-07",
    ...   "geometry": {"type": "Point", "coordinates": [10.5, 20]},
    ...   "properties": {"objectType": "annotation", "classification": {"name": "Mitosis"}}}''')
    >>> cells = read_geojson(file, name="lab").table
    >>> cells.ids, cells.x, cells.y, cells.labels, cells.images
    (array(['e5-07'], dtype='<U5'), array([10.5]), array([20.]),
     array(['mitotic figure'], dtype='<U14'), array(['a.svs'], dtype='<U5'))
    """
    files = _files(path, image)
    names = _image_names(files, image, images)
    label_map = LabelMap(labels)
    kept, reasons, notes, classes = [], [], [], []
    for file, image_name in zip(files, names, strict=True):
        rows, file_notes = _read_file(file, image_name)
        notes += file_notes
        for row in rows:
            (reasons if row.reason else kept).append(row)
        classes += [row.label for row in rows if row.label]
    label_map.check_names(classes, path)
    lost = [(row.reason, row.id) for row in reasons]
    check_nonempty(kept, path, ", ".join(map(str, left_out_by(lost))) or "it holds no features")
    return Reading(_table(name, kept, label_map, path), left_out_by(lost), tuple(notes))


@dataclass(frozen=True)
class _Row:
    """One point or polygon, or why it is left out."""

    id: object
    image: str
    label: str = ""
    object_type: str = ""
    x: float = np.nan
    y: float = np.nan
    reason: str = ""


def _table(name, kept, label_map, path):
    images = [row.image for row in kept]
    columns = {
        "x": np.array([row.x for row in kept]),
        "y": np.array([row.y for row in kept]),
        "image": text_column(images, "image", path),
        "slide": text_column([_bare(image) for image in images], "slide", path),
    }
    if any(row.object_type for row in kept):
        types = [row.object_type for row in kept]
        columns["object_type"] = text_column(types, "object_type", path)
    labels = [label_map.of(row.label) or row.label for row in kept]
    ids = id_column([row.id for row in kept], path)
    return AnnotationTable(name, ids, text_column(labels, "label", path), columns)


def _files(path, image):
    """Give the file itself, or all GeoJSON files of a folder, sorted by name."""
    folder = Path(path)
    if not folder.is_dir():
        return [folder]
    files = sorted(file for file in folder.iterdir() if _is_geojson_name(file))
    if not files:
        raise AnnotationError(f"the folder {path} holds no {GEOJSON_SUFFIX} files")
    if image is not None:
        raise AnnotationError(
            f"image {image!r} is asked for, and {path} is a folder with a file for each image; "
            "give one file, or call each like its image"
        )
    return files


def _is_geojson_name(file):
    return file.name.lower().endswith(GEOJSON_SUFFIX)


def _image_names(files, image, images):
    """Image file of each GeoJSON file; no two have the same."""
    if image is not None:
        return [one_line(image, "image", files[0])]
    there = _images_in(images)
    names = [_image_of(file, there, images) for file in files]
    file_of = {}
    for file, name in zip(files, names, strict=True):
        if file_of.setdefault(name, file) != file:
            raise AnnotationError(
                f"{file_of[name]} and {file} would both be of the image {name!r}; call each like "
                "its image"
            )
    return names


def _images_in(images):
    if images is None:
        return None
    if not Path(images).is_dir():
        raise ImageError(f"the folder of images {images} does not exist; give --images")
    return sorted(file.name for file in Path(images).iterdir())


def _image_of(file, there, images):
    """Find the image by name: the whole of it first, then without the ending."""
    asked = file.name[: -len(GEOJSON_SUFFIX)] if _is_geojson_name(file) else file.stem
    if there is None:
        return one_line(asked, "the name of its image", file)
    found = [name for name in there if name == asked]
    found = found or [name for name in there if _bare(name) == asked]
    found = found or [name for name in there if _bare(name) == _bare(asked)]
    if len(found) != 1:
        problem = f"could be any of {', '.join(found[:3])}" if found else "is not there"
        raise AnnotationError(
            f"the image of {file}, {asked!r}, {problem} in {images}; name it with --image"
        )
    return one_line(found[0], "the name of its image", file)


def _bare(name):
    """Give a file name without the ending of an image.

    Examples
    --------
    >>> _bare("a.1.svs"), _bare("a.ome.tif"), _bare("a.1")
    ('a.1', 'a', 'a.1')
    """
    ending = next((end for end in IMAGE_SUFFIXES if name.lower().endswith(end)), "")
    bare = name[: len(name) - len(ending)]
    return bare[:-4] if ending and bare.lower().endswith(".ome") else bare


def _read_file(path, image):
    """Rows of all features of a file, and notes."""
    features = _features(load_json(path), path)
    ids, notes = _ids(features, image, path)
    rows = [
        row
        for feature, number in zip(features, ids, strict=True)
        for row in _rows_of(feature, number, image, path)
    ]
    return rows, notes


def _features(content, path):
    features = content
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        features = content.get("features")
    elif is_geojson(content) and isinstance(content, dict):
        features = [content]
    if not isinstance(features, list):
        raise AnnotationError(
            f"{path} is not GeoJSON: it holds {short(content)}, and a FeatureCollection, a list of "
            "features or one feature is needed"
        )
    for feature in features:
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            raise AnnotationError(f"{path} holds {short(feature)} where GeoJSON has a feature")
    return features


def _ids(features, image, path):
    """IDs of the features, or counted ones where they do not have their own."""
    found = [feature.get("id") for feature in features]
    wrong = [value for value in found if value is not None and not is_id(value)]
    if wrong:
        raise AnnotationError(f"{path} has the id {short(wrong[0])}; a text or a number is needed")
    if features and all(_is_own(value) for value in found):
        return [_checked_id(value, path) for value in found], []
    note = (
        f"the features of {path} have no IDs of their own: they are counted, {_bare(image)}-1, ..."
    )
    return [f"{_bare(image)}-{place}" for place in range(1, len(features) + 1)], [note]


def _is_own(value):
    return value is not None and not (isinstance(value, str) and ID_OF_ALL.fullmatch(value))


def _checked_id(value, path):
    return value if isinstance(value, int) else one_line(value, "an id", path)


def _rows_of(feature, number, image, path):
    """Rows of one feature: one, several for a MultiPoint, or one that says why it is left out."""
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    label = _classification(properties, number, path)
    geometry = feature.get("geometry")
    kind = str(geometry.get("type") or "") if isinstance(geometry, dict) else ""
    object_type = properties.get("objectType", properties.get("object_type"))
    if object_type is not None:
        object_type = one_line(object_type, f"objectType of the feature {short(number)}", path)
    if not label:
        return [_Row(number, image, reason="without a classification")]
    if kind not in DEPTH_OF_GEOMETRY:
        reason = f"of the geometry {short(kind)}" if kind else "without a geometry"
        return [_Row(number, image, label, reason=reason)]
    centres = _centres(geometry, kind, number, path)
    if not centres:
        return [_Row(number, image, label, reason="without coordinates")]
    ids = [number] if kind != "MultiPoint" else [f"{number}-{k + 1}" for k in range(len(centres))]
    return [
        _Row(id, image, label, object_type or "", *centre)
        for id, centre in zip(ids, centres, strict=True)
    ]


def _classification(properties, number, path):
    """Name of the class; QuPath writes parts of a derived class as a list in newer versions."""
    found = properties.get("classification")
    if isinstance(found, dict):
        names = found.get("names")
        found = found.get("name") or (": ".join(map(_part, names)) if _is_texts(names) else None)
    if found is None or found == "":
        return ""
    return one_line(found, f"classification of the feature {short(number)}", path).strip()


def _is_texts(names):
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _part(name):
    return name.strip()


def _centres(geometry, kind, number, path):
    """Each point, or the middle of the box around a polygon; none where there is no position."""
    positions = _positions(geometry.get("coordinates"), DEPTH_OF_GEOMETRY[kind])
    if positions is None:
        raise AnnotationError(
            f"the coordinates of the feature {short(number)} of {path} are "
            f"{short(geometry.get('coordinates'))}; a {kind} of finite numbers is needed"
        )
    if kind in ("Point", "MultiPoint") or not positions:
        return positions
    across, down = zip(*positions, strict=True)
    return [((min(across) + max(across)) / 2, (min(down) + max(down)) / 2)]


def _positions(coordinates, depth):
    """All (x, y) at that depth, or None where one is not two finite numbers."""
    if not isinstance(coordinates, list):
        return None
    if depth == 0:
        numbers = [finite(value) for value in coordinates[:2]]
        return [tuple(numbers)] if len(numbers) == 2 and None not in numbers else None
    parts = [_positions(part, depth - 1) for part in coordinates]
    return None if None in parts else [position for part in parts for position in part]
