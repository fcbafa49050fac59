"""A small synthetic dataset in the MIDOG format, for demonstrations, tests and first steps.

Everything here is drawn: no pixel, cell or annotation is of real tissue, and a number measured on
it says nothing of a real encoder, stain, scanner or tumour. What is real is the form: tiled TIFF
regions with their resolution, and a JSON file with corner boxes, as the MIDOG challenges give them.

What lies where is drawn here; :mod:`featstore.datasets.tissue` paints it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featstore.datasets.tissue import DOMAINS, Domain, paint
from featstore.errors import AnnotationError, ImageError, require

__all__ = ["DemoFiles", "ImageLayout", "draw_layout", "make_demo"]

ANNOTATIONS_NAME = "midog_demo.json"
BOX_PX = 50  # MIDOG: every box is 50 x 50 px around the centre
CATEGORIES = {1: "mitotic figure", 2: "hard negative"}  # numbers and names of MIDOG 2021 and 2022
MITOTIC_SHARE = 0.45  # MIDOG 2022: 9,501 of 20,552
HALF_PIXEL_SHARE = 0.15  # MIDOG 2021: 676 of 4,435 centres

PIXELS_PER_CM = 40_000  # 0.25 um/px, as the MIDOG scanners have
TILE_PX = 256  # usual in scanner files; TIFF asks for multiples of 16
JPEG_QUALITY = 90  # no visible blocks, about 0.3 MB per image
CC0_URL = "https://creativecommons.org/publicdomain/zero/1.0/"

# Sizes in px at 0.25 um/px, judged beside real patches: a nucleus is 7 to 10 um wide, a cell 15.
SITE_SPACING_PX = 57
SITE_JITTER_PX = 15
ANNOTATED_SPACING_PX = 96  # so that a patch shows its own cell, and seldom another near it
SITE_TAKEN_SHARE = 0.85  # of the places that no annotated cell takes
MARGIN_PX = BOX_PX // 2 + 1  # whole boxes inside the image, many 224 px patches not


@dataclass(frozen=True)
class DemoFiles:
    """Where a demo dataset lies and how much it holds.

    Parameters
    ----------
    annotations : pathlib.Path
        The JSON file.
    images : pathlib.Path
        The folder of the TIFF files.
    n_images, n_annotations : int
        How many of each.
    """

    annotations: Path
    images: Path
    n_images: int
    n_annotations: int


@dataclass(frozen=True, eq=False)
class ImageLayout:
    """What lies where on one image, before any pixel is drawn.

    Parameters
    ----------
    number : int
        Number of the image, from 1.
    domain : Domain
        The look of the image.
    image_px : tuple of int
        Width and height.
    centres : ndarray of shape (n, 2)
        x and y of the annotated cells, in px, whole or half.
    mitotic : ndarray of bool, shape (n,)
        True for a mitotic figure, False for a look-alike.
    others : ndarray of shape (m, 2)
        x and y of the ordinary nuclei, in px.
    """

    number: int
    domain: Domain
    image_px: tuple[int, int]
    centres: np.ndarray
    mitotic: np.ndarray
    others: np.ndarray

    @property
    def file_name(self):
        """File name of the image, as in MIDOG."""
        return f"{self.number:03d}.tiff"


def make_demo(
    folder, *, seed=0, images_per_domain=6, cells_per_image=(36, 50), image_px=(1280, 1024)
):
    """Write a synthetic dataset of mitotic figures and look-alikes in the MIDOG format.

    Parameters
    ----------
    folder : path-like
        Made if missing. Gets ``midog_demo.json`` and ``images/001.tiff``, ``images/002.tiff``, ...
    seed : int, default=0
        Every number drawn comes from it: the same seed gives the same bytes.
    images_per_domain : int, default=6
        Images in each of the five domains.
    cells_per_image : tuple of int, default=(36, 50)
        Fewest and most annotated cells on an image.
    image_px : tuple of int, default=(1280, 1024)
        Width and height of an image.

    Returns
    -------
    DemoFiles

    Raises
    ------
    AnnotationError
        If an image cannot hold both classes or so many cells.
    ImageError
        If ``folder`` holds images that another hand has put there.
    MissingExtraError
        If tifffile is not installed.

    Notes
    -----
    The classes differ in raggedness, darkness, edge, membrane and cytoplasm, and overlap in each;
    about a tenth of the cells is drawn between the two. No image is of real tissue.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     demo = make_demo(folder, images_per_domain=1, cells_per_image=(2, 4),
    ...                      image_px=(320, 256))
    ...     print(demo.n_images, sorted(path.name for path in demo.images.iterdir())[:2])
    5 ['001.tiff', '002.tiff']
    """
    folder = Path(folder)
    layouts = draw_layout(
        seed=seed,
        images_per_domain=images_per_domain,
        cells_per_image=cells_per_image,
        image_px=image_px,
    )
    files = _prepare_folder(folder, layouts)
    for layout in layouts:
        pixels = paint(layout, _generators(seed, layout.number)[1])
        _write_tiff(files.images / layout.file_name, pixels)
    return files


def draw_layout(*, seed=0, images_per_domain=6, cells_per_image=(36, 50), image_px=(1280, 1024)):
    """Draw which cells lie where, without drawing a pixel.

    Parameters
    ----------
    seed, images_per_domain, cells_per_image, image_px
        As in `make_demo`.

    Returns
    -------
    list of ImageLayout
        One per image, the domains in turn.

    Raises
    ------
    AnnotationError
        If an image cannot hold both classes or so many cells.

    Examples
    --------
    >>> layouts = draw_layout()
    >>> len(layouts), layouts[0].file_name, layouts[0].domain.name
    (30, '001.tiff', 'demo tumour A, scanner 1')
    """
    domains = [domain for domain in DOMAINS for _ in range(images_per_domain)]
    return [
        _lay_out(number, domain, cells_per_image, image_px, _generators(seed, number)[0])
        for number, domain in enumerate(domains, start=1)
    ]


def _generators(seed, number):
    """Give one generator for the layout of an image and one for its pixels."""
    return [
        np.random.default_rng(child) for child in np.random.SeedSequence([seed, number]).spawn(2)
    ]


def _lay_out(number, domain, cells_per_image, image_px, rng):
    sites = _draw_sites(image_px, rng)
    free = _spread(sites, image_px, rng)
    _check_cells(cells_per_image, len(free), image_px)
    annotated = free[: rng.integers(*cells_per_image, endpoint=True)]
    others = np.delete(sites, annotated, axis=0)
    return ImageLayout(
        number=number,
        domain=domain,
        image_px=image_px,
        centres=_to_half_pixels(sites[annotated], rng),
        mitotic=_draw_classes(len(annotated), rng),
        others=others[rng.random(len(others)) < SITE_TAKEN_SHARE],
    )


def _draw_sites(image_px, rng):
    """Draw places for cells: a hexagonal grid, shaken until it no longer looks like one."""
    width, height = image_px
    columns = np.arange(SITE_SPACING_PX / 4, width, SITE_SPACING_PX)
    rows = np.arange(SITE_SPACING_PX / 4, height, SITE_SPACING_PX * np.sqrt(3) / 2)
    x, y = np.meshgrid(columns, rows)
    x[1::2] += SITE_SPACING_PX / 2
    sites = np.column_stack([x.ravel(), y.ravel()])
    sites += rng.uniform(-SITE_JITTER_PX, SITE_JITTER_PX, sites.shape)
    return np.clip(sites, 0, np.array(image_px) - 1)


def _spread(sites, image_px, rng):
    """Choose sites inside the margin that keep their distance, as many as there is room for."""
    inside = np.all((sites >= MARGIN_PX) & (sites <= np.array(image_px) - MARGIN_PX), axis=1)
    chosen = []
    for candidate in rng.permutation(np.flatnonzero(inside)):
        distance_px = np.hypot(*(sites[chosen] - sites[candidate]).T)
        if np.all(distance_px >= ANNOTATED_SPACING_PX):
            chosen.append(candidate)
    return np.array(chosen, int)


def _check_cells(cells_per_image, n_free, image_px):
    fewest, most = cells_per_image
    if not 2 <= fewest <= most <= n_free:
        raise AnnotationError(
            f"cells_per_image=({fewest}, {most}) does not fit an image of {image_px[0]} x "
            f"{image_px[1]} px, which has room for {n_free}; give the fewest and the most, from 2 "
            f"(one of each class), or larger images"
        )


def _to_half_pixels(points, rng):
    halves = rng.random(points.shape) < HALF_PIXEL_SHARE
    return np.floor(points) + 0.5 * halves


def _draw_classes(n_cells, rng):
    """Draw the class of each cell; the first two differ, so that both classes are there."""
    mitotic = rng.random(n_cells) < MITOTIC_SHARE
    mitotic[:2] = True, False
    return mitotic


def _prepare_folder(folder, layouts):
    """Write the annotations, and make the folder for the images unless another's are in it."""
    annotations, images = folder / ANNOTATIONS_NAME, folder / "images"
    if not annotations.exists() and images.exists() and any(images.iterdir()):
        raise ImageError(
            f"{images} holds files, but no {ANNOTATIONS_NAME} lies beside it, so the demo has not "
            f"written them; give another folder"
        )
    images.mkdir(parents=True, exist_ok=True)
    content = _as_midog(layouts)
    annotations.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return DemoFiles(annotations, images, len(layouts), len(content["annotations"]))


def _as_midog(layouts):
    """Give the content of the JSON file: the keys of MIDOG's."""
    cells = [cell for layout in layouts for cell in _annotations_of(layout)]
    return {
        "info": {"description": "featstore demo: synthetic, no real tissue", "version": "1.0"},
        "licenses": [{"id": 1, "name": "CC0", "url": CC0_URL}],
        "images": [_image_entry(layout) for layout in layouts],
        "categories": [{"id": key, "name": name} for key, name in CATEGORIES.items()],
        "annotations": [{"id": number, **cell} for number, cell in enumerate(cells, start=1)],
    }


def _image_entry(layout):
    return {
        "id": layout.number,
        "file_name": layout.file_name,
        "width": layout.image_px[0],
        "height": layout.image_px[1],
        "tumor_type": layout.domain.name,
        "license": 1,
    }


def _annotations_of(layout):
    corners = np.hstack([layout.centres - BOX_PX / 2, layout.centres + BOX_PX / 2])
    return [
        {
            "bbox": [int(value) if value.is_integer() else value for value in corner],
            "category_id": 1 if mitotic else 2,
            "image_id": layout.number,
        }
        for corner, mitotic in zip(corners.tolist(), layout.mitotic, strict=True)
    ]


def _write_tiff(path, rgb):
    """Write a tiled JPEG TIFF whose tags say 0.25 um/px, with nothing in it that changes."""
    tifffile = require("tifffile", extra="extract", purpose="making the demo dataset")
    partial = path.with_suffix(".partial")
    tifffile.imwrite(
        partial,
        rgb,
        photometric="rgb",
        tile=(TILE_PX, TILE_PX),
        compression="jpeg",
        compressionargs={"level": JPEG_QUALITY},
        resolution=(PIXELS_PER_CM, PIXELS_PER_CM),
        resolutionunit="CENTIMETER",
        description="featstore demo: synthetic, no real tissue",
        software="featstore",
        metadata=None,
    )
    partial.replace(path)
