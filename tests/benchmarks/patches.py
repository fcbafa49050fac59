"""Cutting patches against the bare cost of what it stands on, on one and on two processes.

Images of 7,168 x 5,120 px with 58 annotations each, as the mean MIDOG region has.
"""

import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import google_crc32c
import imagecodecs
import numpy as np
import tifffile
from numcodecs import Zstd

import featstore
from featstore.ahead import UNIT_BYTES
from featstore.datasets.demo import draw_layout
from featstore.datasets.tissue import paint
from featstore.images import ImageFolder, open_image
from featstore.patches import Patches
from featstore.store.writer import PatchWriter, add_annotations

IMAGE_PX, TILE_PX, JPEG_QUALITY = (7_168, 5_120), 256, 90
N_IMAGES, N_CACHED, N_CELLS, PATCH_PX, MPP, BATCH = 12, 48, 58, 224, 0.25, 64
RUNS = 7


def run():
    """Yield one line per comparison."""
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        _write_images(home)
        for n_processes in (1, 2):
            for name, kinds in COMPARISONS.items():
                yield _line(name, kinds, home, n_processes)
        yield from _cached(home)
        yield from _openslide()
        yield from _compression()


def _write_images(home):
    """One picture of demo tissue, repeated to the size of a region, kept in three ways.

    The files of a kind are one file under several names, opened and read as if they were several.
    """
    layout = draw_layout(images_per_domain=1)[0]
    picture = paint(layout, np.random.default_rng(0))
    repeats = [-(-size // part) for size, part in zip(IMAGE_PX[::-1], picture.shape, strict=False)]
    pixels = np.tile(picture, (*repeats, 1))[: IMAGE_PX[1], : IMAGE_PX[0]]
    options = {"photometric": "rgb", "resolution": (40_000,) * 2, "resolutionunit": "CENTIMETER"}
    tiled = options | {"tile": (TILE_PX, TILE_PX)}
    jpeg = {"compression": "jpeg", "compressionargs": {"level": JPEG_QUALITY}}
    for kind, how in {"jpeg": tiled | jpeg, "strips": options, "tiles": tiled}.items():
        (home / kind).mkdir()
        tifffile.imwrite(home / kind / "0.tiff", pixels, **how)
        for number in range(1, N_CACHED):
            os.link(home / kind / "0.tiff", home / kind / f"{number}.tiff")


def _cells(seed, n_images=N_IMAGES):
    rng = np.random.default_rng(seed)
    n, margin = n_images * N_CELLS, PATCH_PX // 2 + 1
    x, y = (rng.uniform(margin, side - margin, n) for side in IMAGE_PX)
    files = [f"{number}.tiff" for number in range(n_images) for _ in range(N_CELLS)]
    columns = {"x": x, "y": y, "image": files, "mpp": [MPP] * n}
    return featstore.AnnotationTable("d", np.arange(n), ["a"] * n, columns)


def _corners(cells):
    lefts, tops = (
        np.floor(axis - PATCH_PX / 2 + 0.5).astype(int).tolist() for axis in (cells.x, cells.y)
    )
    return list(zip(cells.images.tolist(), lefts, tops, strict=True))


# --- each side is made ready, and gives what is timed


def _ours(home, seed, image):
    cells, unit = _cells(seed), UNIT_BYTES // (3 * PATCH_PX**2)

    def cut():
        patches = Patches(cells, ImageFolder(str(home / image)), PATCH_PX, MPP)
        for start in range(0, len(patches.ids), unit):
            patches.read(patches.ids[start : start + unit])

    return cut


def _bare_decoding(home, seed, image):
    with tifffile.TiffFile(home / image / "0.tiff") as file:
        page = file.pages[0]
        offsets, counts, tables = page.dataoffsets, page.databytecounts, page.jpegtables
    per_row = -(-IMAGE_PX[0] // TILE_PX)
    touched = {
        (name, row * per_row + column)
        for name, left, top in _corners(_cells(seed))
        for row in range(top // TILE_PX, (top + PATCH_PX - 1) // TILE_PX + 1)
        for column in range(left // TILE_PX, (left + PATCH_PX - 1) // TILE_PX + 1)
    }
    files = {name: os.open(home / image / name, os.O_RDONLY) for name, _ in touched}

    def decode():
        for name, index in sorted(touched):
            encoded = os.pread(files[name], counts[index], offsets[index])
            imagecodecs.jpeg_decode(encoded, tables=tables)

    return decode


def _memory_map(home, seed, image):
    corners, unit = _corners(_cells(seed)), UNIT_BYTES // (3 * PATCH_PX**2)
    images = {name for name, _, _ in corners}
    mapped = {name: tifffile.memmap(home / "strips" / name, mode="r") for name in images}

    def cut():
        for start in range(0, len(corners), unit):
            some = corners[start : start + unit]
            patches = np.empty((len(some), PATCH_PX, PATCH_PX, 3), np.uint8)
            for place, (name, left, top) in enumerate(some):
                patches[place] = mapped[name][top : top + PATCH_PX, left : left + PATCH_PX]

    return cut


COMPARISONS = {
    "tiled JPEG against decoding its tiles": ("jpeg", _bare_decoding),
    "uncompressed strips against a memory map": ("strips", _memory_map),
    "uncompressed tiles against a memory map": ("tiles", _memory_map),
}


def _line(name, kinds, home, n_processes):
    image, bare = kinds
    with multiprocessing.get_context("spawn").Pool(n_processes) as pool:
        together = multiprocessing.Manager().Barrier(n_processes)
        work = [(home, seed, image, bare, together) for seed in range(n_processes)]
        times = pool.map(_timed, work, chunksize=1)
    ours_s, bare_s = (max(side) for side in zip(*times, strict=True))
    n = n_processes * N_IMAGES * N_CELLS
    return (
        f"{name}, {n_processes} process{'es' * (n_processes > 1)}: {n / ours_s:.0f} of "
        f"{n / bare_s:.0f} patches/s; ratio {bare_s / ours_s:.2f}"
    )


def _timed(work):
    home, seed, image, bare, together = work
    sides = _ours(home, seed, image), bare(home, seed, image)
    together.wait()
    return _alternately(*sides)


def _alternately(*sides):
    """Seconds of the fastest run of each side, taken in turns: what else runs here hits both."""
    times = []
    for _ in range(RUNS):
        times.append([_seconds(side) for side in sides])
    return tuple(min(side) for side in zip(*times, strict=True))


def _seconds(action):
    started_s = time.perf_counter()
    action()
    return time.perf_counter() - started_s


# --- the cache, and OpenSlide


def _cached(home):
    cells, path = _cells(0, n_images=N_CACHED), home / "lab.zarr"
    featstore.create(path)
    add_annotations(path, cells)
    patches = Patches(cells, ImageFolder(str(home / "jpeg")), PATCH_PX, MPP)
    with PatchWriter(path, patches.windows(), patches.cut, run={}) as writer:
        for chunk in writer.pending():
            writer.write(chunk, patches.read(chunk.ids))
    chunks = path / "patches" / "d" / "pixels" / "c"
    files = [chunks / str(number) / "0/0/0" for number in range(len(list(chunks.iterdir())))]
    shuffled = np.random.default_rng(1).permutation(cells.ids)
    for order, ids in {"chunk order": cells.ids, "shuffled": shuffled}.items():
        for what, bare in {"decoding": _decode_chunk, "reading alone": _read_chunk}.items():
            ours_s, bare_s = _alternately(
                lambda ids=ids: _read(path, ids), lambda bare=bare: [bare(file) for file in files]
            )
            yield (
                f"cache, {order}, against {what} of its chunks in order: {len(ids) / ours_s:.0f} "
                f"of {len(ids) / bare_s:.0f} patches/s; ratio {bare_s / ours_s:.2f}"
            )


def _read(path, ids):
    cached = featstore.open(path).patches("d")
    for start in range(0, len(ids), BATCH):
        cached.read(ids[start : start + BATCH])


def _decode_chunk(file):
    """Put a chunk file through the codecs that its array names, into memory of its own."""
    data = np.frombuffer(file.read_bytes(), np.uint8)
    assert google_crc32c.value(data[:-4]) == int.from_bytes(data[-4:].tobytes(), "little")
    data[:-4].copy()


def _read_chunk(file):
    np.frombuffer(file.read_bytes(), np.uint8)


def _openslide():
    folder = os.environ.get("FEATSTORE_TEST_DATA")
    if not folder:
        yield "OpenSlide: FEATSTORE_TEST_DATA is unset, no slide to compare on"
        return
    import openslide

    name, n = "CMU-1-Small-Region.svs", 300
    slides = ImageFolder(str(Path(folder) / "slides"))
    rng, half = np.random.default_rng(0), PATCH_PX // 2
    x, y = (rng.uniform(half + 1, side - half - 1, n) for side in (2_220, 2_967))
    columns = {"x": x, "y": y, "image": [name] * n, "mpp": [MPP] * n}
    cells = featstore.AnnotationTable("d", np.arange(n), ["a"] * n, columns)
    corners = [(left, top) for _, left, top in _corners(cells)]

    def theirs():
        slide = openslide.OpenSlide(slides.path(name))
        regions = (slide.read_region(corner, 0, (PATCH_PX, PATCH_PX)) for corner in corners)
        return np.stack([np.asarray(region)[..., :3] for region in regions])

    def ours():
        patches = Patches(cells, slides, PATCH_PX, MPP)
        return patches.read(patches.ids)

    equal = np.array_equal(ours(), theirs())
    ours_s, theirs_s = _alternately(ours, theirs)
    yield (
        f"SVS against OpenSlide: {len(cells) / ours_s:.0f} and {len(cells) / theirs_s:.0f} "
        f"patches/s; ratio {theirs_s / ours_s:.2f}; pixels {'equal' if equal else 'DIFFER'}"
    )


def _compression():
    """What zstd would save on real patches, sharp ones at 0.25 um/px and blurred ones."""
    folder = os.environ.get("FEATSTORE_TEST_DATA")
    if not folder:
        yield "zstd: FEATSTORE_TEST_DATA is unset, no real patches to compress"
        return
    files = sorted((Path(folder) / "ami_br_midog21_train").glob("*/*.png"))[:200]
    slide = open_image(Path(folder) / "slides" / "CMU-1-Small-Region.svs")
    corners = np.random.default_rng(0).integers((200, 300), (1_900, 2_500), (64, 2))
    kinds = {
        "sharp patches of AMi-Br": [open_image(file).read(0, 0, 128, 128) for file in files],
        "patches of the SVS": [slide.read(x, y, PATCH_PX, PATCH_PX) for x, y in corners.tolist()],
    }
    for name, patches in kinds.items():
        n_bytes = sum(patch.nbytes for patch in patches)
        n_packed = sum(len(Zstd(level=1).encode(patch.tobytes())) for patch in patches)
        yield f"zstd, {name}: saves {1 - n_packed / n_bytes:.0%}"
