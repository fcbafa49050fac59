import json
import multiprocessing
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import featstore
from featstore import AnnotationTable, ImageFolder, Patches
from featstore.datasets.midog import read_midog
from featstore.errors import AnnotationError, ImageError, UpsampledPatchesWarning
from featstore.images import Level
from featstore.store.writer import add_annotations
from featstore.survey import check_against_images
from featstore.windows import CutSpec, neighbours, windows_in


def around(image, x, y, *, name="one"):
    return AnnotationTable(name, [1], ["a"], {"x": [x], "y": [y], "image": [image], "mpp": [0.25]})


@pytest.fixture
def image(region_folder):
    return tifffile.imread(region_folder.path("001.tiff"))


@pytest.mark.parametrize(("x", "first"), [(100.0, 68), (100.5, 69), (99.5, 68), (100.4, 68)])
def test_a_patch_starts_at_its_centre_less_half_and_a_half_pixel_goes_up(
    region_folder, image, x, first
):
    patch = Patches(around("001.tiff", x, 90), region_folder, 64).read([1])[0]
    assert np.array_equal(patch, image[58:122, first : first + 64])


def test_an_odd_patch_has_the_pixel_of_its_centre_in_the_middle(region_folder, image):
    patch = Patches(around("001.tiff", 100.5, 90.5), region_folder, 65).read([1])[0]
    assert np.array_equal(patch[32, 32], image[90, 100])


def test_what_lies_outside_the_image_is_white(region_folder, image):
    patch = Patches(around("001.tiff", 10, 20), region_folder, 64).read([1])[0]
    assert (patch[:, :22] == 255).all()
    assert np.array_equal(patch[12:, 22:], image[:52, :42])


@pytest.mark.parametrize("mpp", [0.5, 0.4, 0.2])
@pytest.mark.filterwarnings("ignore::featstore.errors.UpsampledPatchesWarning")  # 0.2
def test_another_resolution_is_resampled_as_pillow_does_on_the_whole_image(
    region_folder, image, mpp
):
    half = 50 * mpp / 0.25 / 2
    patch = Patches(around("001.tiff", 140.5, 128), region_folder, 50, mpp).read([1])[0]
    box = (140.5 - half, 128 - half, 140.5 + half, 128 + half)
    expected = Image.fromarray(image).resize((50, 50), Image.Resampling.BICUBIC, box=box)
    assert np.abs(patch.astype(int) - np.asarray(expected)).max() <= 1


def test_a_resolution_within_one_per_cent_is_not_resampled(region_folder):
    table = around("001.tiff", 140, 128)
    near = table.with_columns(mpp=[0.2521])
    exact = Patches(table, region_folder, 64).read([1])
    assert np.array_equal(Patches(near, region_folder, 64).read([1]), exact)


WHOLE = np.random.default_rng(7).integers(0, 256, (96, 120, 3), dtype=np.uint8)
MARGIN = 400


def reference_patch(levels, x, y, patch_px, factor):
    """A patch as NumPy and Pillow make it of the whole image, put on white: slow and obvious.

    ``factor`` is pixels of the finest level per pixel of the patch; ``levels`` are (downsample,
    pixels), the finest first.
    """
    downsample, pixels = max(level for level in levels if level[0] <= max(factor, 1) * 1.01)
    edges = ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0))
    white = np.pad(pixels, edges, constant_values=255)
    cx, cy, factor = x / downsample + MARGIN, y / downsample + MARGIN, factor / downsample
    if abs(factor - 1) <= 0.01:
        left, top = (int(np.floor(c - patch_px / 2 + 0.5)) for c in (cx, cy))
        return white[top : top + patch_px, left : left + patch_px]
    half = patch_px * factor / 2
    box = (cx - half, cy - half, cx + half, cy + half)
    resized = Image.fromarray(white).resize((patch_px,) * 2, Image.Resampling.BICUBIC, box=box)
    return np.asarray(resized)


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory):
    """A folder with a small pyramid in it, and its levels."""
    folder = tmp_path_factory.mktemp("pyramid")
    half = np.asarray(Image.fromarray(WHOLE).resize((60, 48), Image.Resampling.BOX))
    options = {"photometric": "rgb", "tile": (16, 32), "compression": "zlib"}
    with tifffile.TiffWriter(folder / "i.tiff") as file:
        file.write(WHOLE, subifds=1, **options)
        file.write(half, subfiletype=1, **options)
    return ImageFolder(str(folder)), [(1, WHOLE), (2, half)]


@settings(max_examples=150)
@given(
    centres=st.lists(
        st.tuples(*(st.integers(-40, 280).map(lambda half: half / 2) for _ in "xy")),
        min_size=1,
        max_size=4,
    ),
    patch_px=st.integers(1, 40),
    mpp=st.one_of(st.sampled_from([0.25, 0.2501, 0.5, 0.5049, 1.0]), st.floats(0.1, 2.0)),
)
@pytest.mark.filterwarnings("ignore::featstore.errors.UpsampledPatchesWarning")
def test_any_patch_equals_one_made_of_the_whole_image(pyramid, centres, patch_px, mpp):
    folder, levels = pyramid
    n = len(centres)
    columns = {"x": [x for x, _ in centres], "y": [y for _, y in centres], "image": ["i.tiff"] * n}
    cells = AnnotationTable("d", np.arange(n), ["a"] * n, columns | {"mpp": [0.25] * n})
    patches = Patches(cells, folder, patch_px, mpp).read(np.arange(n))
    for patch, (x, y) in zip(patches, centres, strict=True):
        expected = reference_patch(levels, x, y, patch_px, mpp / 0.25)
        assert np.abs(patch.astype(int) - expected).max() <= 1  # rounding of the kernel's weights


def test_a_finer_resolution_than_the_images_is_a_warning_that_says_by_how_much(region_folder):
    with pytest.warns(UpsampledPatchesWarning) as caught:
        Patches(around("001.tiff", 100, 90), region_folder, 64, 0.125)
    assert str(caught[0].message) == (
        "0.125 um/px was asked for and the images of 1 of 1 annotations of 'one' have up to 0.25: "
        "their patches are enlarged up to 2 times and show no more than the image does"
    )


def test_windows_say_where_patches_lie_and_who_else_is_in_them(region_folder):
    columns = {
        "x": [100.0, 131.5, 132.0, 10.0],
        "y": [90.0, 90.0, 58.0, 259.0],
        "image": ["001.tiff"] * 4,
        "mpp": [0.25] * 4,
    }
    labels = ["look-alike", "mitotic figure", "look-alike", "look-alike"]
    cells = AnnotationTable("d", [1, 2, 3, 4], labels, columns)
    windows = Patches(cells, region_folder, 64).windows()
    assert windows.column("native_mpp").tolist() == [0.25] * 4
    assert windows.column("resample_factor").tolist() == [1.0] * 4
    # patch 1 covers [68, 132) and [58, 122), patch 2 [100, 164), patch 3 ends before y = 90
    assert windows.column("others_in_window").tolist() == [1, 2, 0, 0]
    assert windows.column("mitotic_figure_in_window").tolist() == [True, False, False, False]
    # 001.tiff is 300 x 260 px: 22 columns and 31 rows of the last patch lie outside
    outside = 1 - (64 - 22) * (64 - 31) / 64**2
    assert windows.column("padded_fraction") == pytest.approx([0, 0, 0, outside])
    coarse = Patches(cells, region_folder, 32, 0.5).windows()
    assert coarse.column("resample_factor").tolist() == [2.0] * 4
    assert coarse.column("padded_fraction") == pytest.approx([0, 0, 0, outside], abs=0.02)


def brute_force_neighbours(cells, patch_px):
    """All pairs, one by one."""
    x, y = cells.x, cells.y
    counts, mitotic = [], []
    for row in range(len(cells)):
        left, top = (int(np.floor(c[row] - patch_px / 2 + 0.5)) for c in (x, y))
        others = [
            other
            for other in range(len(cells))
            if other != row
            and cells.images[other] == cells.images[row]
            and left <= x[other] < left + patch_px
            and top <= y[other] < top + patch_px
        ]
        counts.append(len(others))
        mitotic.append(any(cells.labels[other] == "mitotic figure" for other in others))
    return counts, mitotic


def test_neighbours_are_those_of_a_count_of_all_pairs(region_folder):
    rng, n = np.random.default_rng(2), 120
    columns = {
        "x": rng.integers(0, 600, n) / 2,
        "y": rng.integers(0, 520, n) / 2,
        "image": rng.choice(["001.tiff", "002.tiff"], n),
        "mpp": [0.25] * n,
    }
    cells = AnnotationTable("d", np.arange(n), rng.choice(["mitotic figure", "a"], n), columns)
    windows = Patches(cells, region_folder, 64).windows()
    counts, mitotic = brute_force_neighbours(cells, 64)
    assert windows.column("others_in_window").tolist() == counts
    assert windows.column("mitotic_figure_in_window").tolist() == mitotic


def test_midog_plusplus_has_the_published_share_of_patches_with_others_and_padding(real_data):
    name = "MIDOG++.json"
    content = json.loads((real_data / "annotations" / name).read_text())
    sizes = {image["file_name"]: (image["width"], image["height"]) for image in content["images"]}
    cells = read_midog(real_data / "annotations" / name, name="m").table
    in_2022 = ~np.isin(cells.domains, ["canine soft tissue sarcoma", "human melanoma"])
    n_padded, n_beyond, n_others, n_with_figure = 0, 0, 0, 0
    for file in np.unique(cells.images):
        of_image = cells.take(cells.ids[cells.images == file])
        image = SimpleNamespace(levels=[Level(*sizes[file], 1.0)])
        mpp = np.full(len(of_image), 0.25)
        windows = windows_in(image, of_image.x, of_image.y, mpp, CutSpec(224, 0.25))
        n_padded += (windows.padded > 0).sum()
        (width, height), x, y = sizes[file], of_image.x, of_image.y
        n_beyond += ((x < 112) | (y < 112) | (x + 112 > width) | (y + 112 > height)).sum()
        if in_2022[cells.images == file].all():
            others, figure = neighbours(windows, [1.0], of_image.x, of_image.y, of_image.labels)
            n_others += (others > 0).sum()
            n_with_figure += (figure & (of_image.labels == "look-alike")).sum()
    # 1,557 of all 26,286 reach out, one of them by half a pixel, which the rule of whole pixels
    # takes back in; and of MIDOG 2022's 20,552, all but two of which are here, 17.3 % have another
    # annotation less than 112 px away and 6.0 % of the look-alikes a mitotic figure. A patch of
    # 224 px has one edge at exactly 112 px, and with both the shares would be 17.7 and 6.1 %.
    assert (n_beyond, n_padded) == (1_557, 1_556)
    n_look_alikes = (in_2022 & (cells.labels == "look-alike")).sum()
    assert 17.3 < 100 * n_others / in_2022.sum() < 17.7
    assert 5.95 < 100 * n_with_figure / n_look_alikes < 6.15


def test_whole_patch_files_are_resized_to_the_size_asked(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    table = AnnotationTable("lab", ["p"], ["a"], {"image": ["p.png"], "mpp": [np.nan]})
    folder = ImageFolder(str(tmp_path), whole=True)
    as_is = Patches(table, folder, 128, mpp=None).read(["p"])[0]
    resized = Patches(table, folder, 224, mpp=None).read(["p"])[0]
    assert np.array_equal(as_is, pixels)
    expected = Image.fromarray(pixels).resize((224, 224), Image.Resampling.BICUBIC)
    assert np.array_equal(resized, np.asarray(expected))


def test_patch_files_of_known_resolution_are_cut_around_their_middle(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    table = AnnotationTable("lab", ["p"], ["a"], {"image": ["p.png"], "mpp": [0.25]})
    patch = Patches(table, ImageFolder(str(tmp_path), whole=True), 64, mpp=0.25).read(["p"])[0]
    assert np.array_equal(patch, pixels[32:96, 32:96])


def test_patches_come_in_the_order_asked_and_may_repeat(write_midog):
    home = write_midog()
    folder = ImageFolder(str(home / "images"))
    cells = check_against_images(read_midog(home / "MIDOG.json", name="m").table, folder)
    patches = Patches(cells, folder, 32)
    both = patches.read([2003, 1001, 2003])
    assert np.array_equal(both[0], both[2])
    assert np.array_equal(both[1], patches.read([1001])[0])


def test_patches_travel_to_a_worker_process_without_their_open_files(region_folder):
    patches = Patches(around("001.tiff", 100, 90), region_folder, 64)
    first = patches.read([1])
    assert np.array_equal(pickle.loads(pickle.dumps(patches)).read([1]), first)


def count_wrong(patches, expected, seed, found):
    """Read all patches in an order of one's own, and say how many are not as they must be."""
    wrong = 0
    for row in np.random.default_rng(seed).permutation(len(expected)):
        try:
            wrong += not np.array_equal(patches.read([row])[0], expected[row])
        except ImageError:
            wrong += 1
    found.put(wrong)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # forking is what is tested
def test_forked_workers_read_right_patches_from_a_file_that_the_parent_has_open(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "i.tiff", pixels, tile=(16, 16), photometric="rgb")
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(8, 512, 16), np.arange(8, 512, 16)))
    columns = {"x": x, "y": y, "image": ["i.tiff"] * len(x), "mpp": [0.25] * len(x)}
    cells = AnnotationTable("d", np.arange(len(x)), ["a"] * len(x), columns)
    patches = Patches(cells, ImageFolder(str(tmp_path)), 16)
    expected = np.array(
        [
            pixels[row - 8 : row + 8, column - 8 : column + 8]
            for row, column in zip(y, x, strict=True)
        ]
    )
    assert np.array_equal(patches.read([0])[0], expected[0])
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    workers = [
        context.Process(target=count_wrong, args=(patches, expected, seed, found))
        for seed in range(4)
    ]
    for worker in workers:
        worker.start()
    assert [found.get(timeout=60) for _ in workers] == [0, 0, 0, 0]
    for worker in workers:
        worker.join()


def move_one_outside(content):
    content["annotations"][1]["bbox"] = [-45, 100, 5, 150]


def test_a_dataset_added_without_images_takes_its_mpp_from_those_given_later(write_midog, tmp_path):
    home = write_midog(resolution=(20_000, 20_000), edit=move_one_outside)
    cells = read_midog(home / "MIDOG.json", name="m").table
    featstore.create(tmp_path / "lab.zarr")
    add_annotations(tmp_path / "lab.zarr", cells)
    store = featstore.open(tmp_path / "lab.zarr")
    patches = Patches.of(store, "m", patch_px=32, mpp=0.5, images=home / "images")
    folder = ImageFolder(str(home / "images"))
    checked = check_against_images(cells, folder, outside="keep")
    assert set(patches.annotations.column("mpp")) == {0.5}
    assert np.array_equal(
        patches.read(cells.ids), Patches(checked, folder, 32, 0.5).read(cells.ids)
    )
    with pytest.raises(ImageError, match="does not know where the images of 'm' are; give"):
        Patches.of(store, "m", patch_px=32)


def test_a_resolution_cannot_be_asked_of_patches_that_have_none(tmp_path):
    table = AnnotationTable("lab", ["p"], ["a"], {"image": ["p.png"], "mpp": [np.nan]})
    with pytest.raises(AnnotationError, match="resolution of 'lab' is unknown"):
        Patches(table, ImageFolder(str(tmp_path), whole=True), 64, mpp=0.25)
    with pytest.raises(AnnotationError, match="cut from larger images"):
        Patches(table, ImageFolder(str(tmp_path)), 64, mpp=None)


def test_resampled_patches_share_decoded_tiles(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 768, 3), dtype=np.uint8)
    tiled = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib"}
    tifffile.imwrite(tmp_path / "i.tiff", pixels, **tiled)
    rng, n = np.random.default_rng(1), 200
    columns = {"x": rng.uniform(0, 768, n), "y": rng.uniform(0, 1024, n), "image": ["i.tiff"] * n}
    cells = AnnotationTable("d", np.arange(n), ["a"] * n, columns | {"mpp": [0.25] * n})
    patches = Patches(cells, ImageFolder(str(tmp_path)), 32, 0.4)
    patches.read(patches.ids)
    assert patches._open("i.tiff").n_decoded <= 192  # of 16 x 12


def test_what_lies_inside_has_no_padding_whatever_the_resolution(region_folder):
    rng, n = np.random.default_rng(0), 50
    columns = {"x": rng.uniform(60, 240, n), "y": rng.uniform(60, 200, n)}
    columns |= {"image": ["001.tiff"] * n, "mpp": [0.25] * n}
    cells = AnnotationTable("d", np.arange(n), ["a"] * n, columns)
    for mpp in (0.26, 0.3, 0.37, 0.5):
        padded = Patches(cells, region_folder, 40, mpp).windows().column("padded_fraction")
        assert (padded == 0).all()
    edge = cells.with_columns(x=np.full(n, 299.9))
    assert (Patches(edge, region_folder, 40, 0.37).windows().column("padded_fraction") > 0.4).all()


def test_an_image_that_was_exchanged_is_noticed(write_midog):
    home = write_midog()
    folder = ImageFolder(str(home / "images"))
    cells = check_against_images(read_midog(home / "MIDOG.json", name="m").table, folder)
    tags = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER", "photometric": "rgb"}
    tifffile.imwrite(folder.path("002.tiff"), np.zeros((130, 150, 3), np.uint8), **tags)
    patches = Patches(cells, folder, 32)
    patches.read(cells.ids[:2])
    with pytest.raises(ImageError, match=r"002.tiff is 150 x 130 px and was 300 x 260 px when"):
        patches.read(cells.ids)


def test_a_whole_patch_that_is_not_square_is_not_squeezed(tmp_path):
    Image.new("RGB", (128, 64)).save(tmp_path / "p.png")
    table = AnnotationTable("lab", ["p"], ["a"], {"image": ["p.png"], "mpp": [0.25]})
    folder = ImageFolder(str(tmp_path), whole=True)
    with pytest.raises(ImageError, match="128 x 64 px and would be squeezed"):
        Patches(table, folder, 64, mpp=None).read(["p"])
    assert Patches(table, folder, 32, mpp=0.25).read(["p"]).shape == (1, 32, 32, 3)


def test_no_annotations_give_no_patches(region_folder):
    patches = Patches(around("001.tiff", 100, 90), region_folder, 64)
    assert patches.read([]).shape == (0, 64, 64, 3)


@pytest.mark.parametrize(
    ("patch_px", "mpp"), [(0, 0.25), (5_000, 0.25), (64, -1), (64, float("nan")), (64, 1e9)]
)
def test_patches_of_no_possible_size_are_refused(patch_px, mpp):
    with pytest.raises(AnnotationError, match="were asked for; give"):
        CutSpec(patch_px, mpp)
