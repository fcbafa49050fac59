"""Kinds of slides: pyramids, um/px out of each format's own tags, and another reader's pixels."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from featstore.errors import ImageError
from featstore.images import Level, open_image
from featstore.images.image import downsample_of
from tests.ndpi import write_ndpi

Y, X = np.mgrid[0:512, 0:640]
SMOOTH = np.stack([X * 0.39, Y * 0.49, (X + Y) % 256 * 0.9], axis=-1).astype(np.uint8)
PER_CM = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
LEVELS = (Level(640, 512, 1.0), Level(320, 256, 2.0), Level(160, 128, 4.0))


def shrunk(pixels, factor):
    size = pixels.shape[1] // factor, pixels.shape[0] // factor
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def write_ome(path, *, unit="µm", size=0.25, bigtiff=False, channel_pages=False):
    """An OME-TIFF as QuPath writes them: levels below the first page, um/px in the XML alone."""
    metadata = {"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeY": size}
    metadata |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    options = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
    pixels = SMOOTH
    if channel_pages:
        metadata["axes"], options["photometric"] = "CYX", "minisblack"
        pixels = np.moveaxis(SMOOTH, -1, 0)
    with tifffile.TiffWriter(path, bigtiff=bigtiff, ome=True) as file:
        file.write(pixels, subifds=0 if channel_pages else 2, metadata=metadata, **options)
        if not channel_pages:
            for factor in (2, 4):
                file.write(shrunk(SMOOTH, factor), subfiletype=1, **options)
    return path


def write_svs(path, *, description="Aperio Image|AppMag = 40|MPP = 0.2500", jpeg=True):
    """An Aperio slide: levels as pages of tiles; thumbnail, label and macro as pages of strips."""
    tiles = {"tile": (64, 64), "photometric": "rgb"}
    tiles |= {"compression": "jpeg", "compressionargs": {"level": 90}} if jpeg else {}
    strips = {"photometric": "rgb", "rowsperstrip": 16}
    with tifffile.TiffWriter(path) as file:
        file.write(SMOOTH, description=description, metadata=None, **tiles)
        file.write(shrunk(SMOOTH, 3), description="Aperio thumbnail", metadata=None, **strips)
        for factor in (2, 4):
            file.write(shrunk(SMOOTH, factor), description=description, metadata=None, **tiles)
        file.write(np.zeros((100, 90, 3), np.uint8), description="label", metadata=None, **strips)
    return path


@pytest.mark.parametrize("bigtiff", [False, True])
def test_an_ome_tiff_has_its_levels_and_its_um_per_pixel(tmp_path, bigtiff):
    image = open_image(write_ome(tmp_path / "i.ome.tif", bigtiff=bigtiff))
    assert image.levels == LEVELS
    assert (image.mpp, image.mpp_source) == (0.25, "OME-XML PhysicalSize")
    for level, factor in enumerate((1, 2, 4)):
        expected = shrunk(SMOOTH, factor)[40:90, 30:100]
        assert np.array_equal(image.read(30, 40, 70, 50, level=level), expected)


@pytest.mark.parametrize(
    ("unit", "size"), [("µm", 0.25), ("nm", 250), ("mm", 0.00025), ("cm", 0.000025)]
)
def test_um_per_pixel_of_ome_xml_come_in_its_unit(tmp_path, unit, size):
    assert open_image(write_ome(tmp_path / "i.ome.tif", unit=unit, size=size)).mpp == 0.25


def test_an_ome_xml_off_by_ten_counts_as_none_only_where_no_scanner_has_it(tmp_path):
    image = open_image(write_ome(tmp_path / "i.ome.tif", unit="mm", size=0.25))
    assert image.mpp is None
    assert image.mpp_found == "OME-XML PhysicalSize of 250 um/px, outside 0.05 to 10"


def test_an_ome_tiff_with_a_page_for_each_colour_is_not_taken_for_a_grey_one(tmp_path):
    path = write_ome(tmp_path / "i.ome.tif", channel_pages=True)
    with pytest.raises(ImageError, match="keeps its colours in separate planes"):
        open_image(path)


def test_ome_xml_cannot_make_this_machine_open_another_file(tmp_path):
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels DimensionOrder="XYCZT" ID="Pixels:0" SizeC="1" SizeT="1" SizeX="640" SizeY="512" '
        'SizeZ="2" Type="uint8" PhysicalSizeX="0.25"><TiffData IFD="0"><UUID '
        'FileName="../secret.tif">urn:uuid:1</UUID></TiffData></Pixels></Image></OME>'
    )
    tifffile.imwrite(tmp_path / "i.tif", SMOOTH, photometric="rgb", description=xml, metadata=None)
    image = open_image(tmp_path / "i.tif")
    assert image.mpp == 0.25
    assert np.array_equal(image.read(0, 0, 640, 512), SMOOTH)


def test_levels_of_an_svs_are_its_tiled_pages_and_never_the_thumbnail(tmp_path):
    path = write_svs(tmp_path / "i.svs")
    image = open_image(path)
    assert image.levels == LEVELS
    assert (image.mpp, image.mpp_source) == (0.25, "Aperio MPP")
    with tifffile.TiffFile(path) as file:
        for level, page in enumerate((0, 2, 3)):
            whole = file.pages[page].asarray()
            assert np.array_equal(image.read(10, 20, 90, 80, level=level), whole[20:100, 10:100])


def test_an_aperio_mpp_that_its_objective_contradicts_counts_as_none(tmp_path):
    path = write_svs(tmp_path / "i.svs", description="Aperio Image|AppMag = 40|MPP = 2.5")
    image = open_image(path)
    assert image.mpp is None
    assert image.mpp_found == (
        "Aperio MPP of 2.5 um/px, which does not go with 40x; with the unit off by ten it would be "
        "0.25"
    )


@pytest.mark.parametrize(
    ("per_cm", "found"),
    [
        (4_000, "resolution tags of 2.5 um/px, outside 0.1 to 1.2; with the unit off by ten it "
         "would be 0.25"),
        (400_000, "resolution tags of 0.025 um/px, outside 0.1 to 1.2; with the unit off by ten it "
         "would be 0.25"),
        (101_600, "resolution tags of 0.09843 um/px, outside 0.1 to 1.2; with inch for centimetre "
         "or back it would be 0.25"),
    ],
)  # fmt: skip
def test_tags_in_the_wrong_unit_count_as_none_and_the_slip_is_named(tmp_path, per_cm, found):
    resolution = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "i.tiff", SMOOTH, photometric="rgb", **resolution)
    image = open_image(tmp_path / "i.tiff")
    assert (image.mpp, image.mpp_found) == (None, found)


def test_an_ndpi_is_read_by_its_restart_markers_as_openslide_reads_it(tmp_path):
    pytest.importorskip("openslide")
    from featstore.images.vendor import compare_readers

    levels = [SMOOTH, shrunk(SMOOTH, 2)]
    path = write_ndpi(tmp_path / "i.ndpi", levels, mpp=0.23, objective=40)
    image = open_image(path)
    assert image.levels == LEVELS[:2]
    assert (image.mpp, image.mpp_source) == (pytest.approx(0.23, rel=1e-4), "resolution tags")
    assert compare_readers(path) == 0
    for level, pixels in enumerate(levels):
        region = image.read(33, 9, 200, 100, level=level).astype(int)
        assert np.abs(region - pixels[9:109, 33:233]).mean() < 1.5  # what JPEG loses


def test_an_ndpi_decodes_only_the_parts_that_a_region_touches(tmp_path):
    path = write_ndpi(tmp_path / "i.ndpi", [SMOOTH], mpp=0.23, objective=40)
    image = open_image(path)
    image.read(32, 8, 64, 16)
    assert image.n_decoded == 4  # of 32 x 8 px


def test_an_ndpi_whose_tags_contradict_its_objective_has_no_resolution(tmp_path):
    path = write_ndpi(tmp_path / "i.ndpi", [SMOOTH], mpp=0.92, objective=40)
    assert "which does not go with 40x" in open_image(path).mpp_found


def test_a_real_svs_reads_the_same_through_openslide(real_data):
    pytest.importorskip("openslide")
    from featstore.images.vendor import OpenSlideImage, compare_readers

    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    assert compare_readers(path) == 0
    theirs = OpenSlideImage(path)
    assert (theirs.mpp, theirs.mpp_source) == (0.499, "OpenSlide mpp-x")
    outside = theirs.read(-20, 2960, 60, 60)
    assert (outside[:, :20] == 255).all()
    assert (outside[7:] == 255).all()
    assert np.array_equal(outside, open_image(path).read(-20, 2960, 60, 60))


def test_a_slide_of_another_vendor_that_is_none_is_refused_in_one_line(tmp_path):
    pytest.importorskip("openslide")
    (tmp_path / "i.mrxs").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"i.mrxs is not a slide that OpenSlide reads"):
        open_image(tmp_path / "i.mrxs")


def test_a_png_says_its_resolution_where_a_scanner_could_have_it_and_a_jpeg_never(tmp_path):
    picture = Image.fromarray(SMOOTH)
    for name, dpi, mpp, source in [
        ("fine.png", 101_600, 0.25, "PNG pHYs"),
        ("default.png", 72, None, "none"),
        ("any.jpg", 50_800, None, "none"),  # 16 bits: 0.25 um/px would wrap around to 0.7
    ]:
        picture.save(tmp_path / name, dpi=(dpi, dpi))
        read = open_image(tmp_path / name)
        assert read.mpp_source == source, name
        assert read.mpp == (mpp and pytest.approx(mpp, rel=1e-3)), name


def test_a_tiff_is_known_by_its_first_bytes_where_its_name_says_nothing(tmp_path):
    tifffile.imwrite(tmp_path / "plain.tiff", SMOOTH, photometric="rgb", **PER_CM)
    (tmp_path / "plain.tiff").rename(tmp_path / "scan")
    assert open_image(tmp_path / "scan").mpp == pytest.approx(0.25)


@pytest.mark.parametrize("options", [{}, {"tile": (64, 64)}, {"tile": (64, 64), "big": True}])
def test_uncompressed_pixels_are_mapped_and_the_same(tmp_path, options):
    rgba = np.dstack([SMOOTH, SMOOTH[..., :1]])
    for name, pixels in {"rgb.tiff": SMOOTH, "rgba.tiff": rgba}.items():
        how = {key: value for key, value in options.items() if key != "big"}
        extra = {"extrasamples": ["unassalpha"]} if pixels.shape[-1] == 4 else {}
        tifffile.imwrite(
            tmp_path / name, pixels, photometric="rgb", bigtiff="big" in options, **how, **extra
        )
        image = open_image(tmp_path / name)
        assert np.array_equal(image.read(-9, 400, 200, 150)[:112, 9:], SMOOTH[400:, :191])
        assert image.n_decoded == 0


def test_windows_of_one_call_decode_each_tile_once(tmp_path):
    tifffile.imwrite(
        tmp_path / "i.tiff", SMOOTH, tile=(64, 64), photometric="rgb", compression="zlib"
    )
    image = open_image(tmp_path / "i.tiff")
    rng = np.random.default_rng(0)
    lefts, tops = rng.integers(-30, 600, 200), rng.integers(-30, 480, 200)
    into = np.empty((200, 70, 50, 3), np.uint8)
    image.read_windows(lefts, tops, into)
    assert image.n_decoded == 80  # all of 10 x 8
    for left, top, region in zip(lefts.tolist(), tops.tolist(), into, strict=True):
        assert np.array_equal(region, image.read(left, top, 50, 70))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((25_000, 15_000), 4.0), ((25_001, 15_001), 4.0), ((33_334, 20_000), 3.0), ((387, 463), None)],
)
def test_a_level_is_a_whole_number_of_times_smaller_where_that_explains_its_size(size, expected):
    assert downsample_of((100_003, 60_001), size) == expected


def test_a_tiff_of_the_other_byte_order_is_read_and_one_that_only_says_so_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "big.tiff", SMOOTH, photometric="rgb", byteorder=">", **PER_CM)
    image = open_image(tmp_path / "big.tiff")
    assert image.mpp == pytest.approx(0.25)
    assert np.array_equal(image.read(0, 0, 640, 512), SMOOTH)
    content = (tmp_path / "big.tiff").read_bytes()
    (tmp_path / "wrong.tiff").write_bytes(b"II*\0" + content[4:])
    with pytest.raises(ImageError, match=r"wrong.tiff is not a readable TIFF: .*; copy it again"):
        open_image(tmp_path / "wrong.tiff")


def test_a_missing_tile_is_an_error_where_a_region_needs_it(tmp_path):
    path = tmp_path / "i.tiff"
    tifffile.imwrite(path, SMOOTH, tile=(64, 64), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as file:
        counts = list(file.pages[0].databytecounts)
        counts[11] = 0
        file.pages[0].tags["TileByteCounts"].overwrite(counts)
    image = open_image(path)
    assert image.read(0, 0, 64, 64).shape == (64, 64, 3)
    with pytest.raises(ImageError, match="tile 11 is missing; copy the file again"):
        image.read(60, 60, 10, 10)


@pytest.mark.parametrize("suffix", [".tiff", ".png"])
def test_an_image_of_one_pixel_is_refused(tmp_path, suffix):
    path = tmp_path / f"one{suffix}"
    Image.fromarray(SMOOTH[:1, :1]).save(path)
    with pytest.raises(ImageError, match="is 1 x 1 px, too small to show a cell"):
        open_image(path)


def test_a_declared_size_of_100000_px_that_no_file_bears_out_is_refused(tmp_path):
    path = tmp_path / "i.tiff"
    for options in ({"tile": (64, 64)}, {"rowsperstrip": 512}):
        tifffile.imwrite(path, SMOOTH, photometric="rgb", compression="zlib", **options)
        with tifffile.TiffFile(path, mode="r+") as file:
            for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
                if name in file.pages[0].tags:
                    file.pages[0].tags[name].overwrite(100_000)
        with pytest.raises(ImageError, match=r"100000 x 100000 px|too large to decode"):
            open_image(path)


@pytest.mark.parametrize("ome", [True, False])
def test_a_further_picture_of_half_the_size_is_no_level(tmp_path, ome):
    options = {"photometric": "rgb", "tile": (64, 64)}
    with tifffile.TiffWriter(tmp_path / "i.tif", ome=ome) as file:
        file.write(SMOOTH, **options)
        file.write(255 - shrunk(SMOOTH, 2), **options)
    assert open_image(tmp_path / "i.tif").levels == LEVELS[:1]


def test_a_tiff_with_its_thumbnail_first_is_refused(tmp_path):
    options = {"photometric": "rgb", "tile": (64, 64)}
    for factor in (2, 4):
        with tifffile.TiffWriter(tmp_path / "i.tif") as file:
            file.write(shrunk(SMOOTH, factor), **options)
            file.write(SMOOTH, **options)
        with pytest.raises(ImageError, match="on its first page, which is not its finest"):
            open_image(tmp_path / "i.tif")


def test_a_mapped_file_that_is_cut_while_it_is_read_is_an_error_and_no_crash(tmp_path):
    path = tmp_path / "i.tiff"
    tifffile.imwrite(path, SMOOTH, photometric="rgb")
    image = open_image(path)
    image.read(0, 0, 10, 10)
    with open(path, "r+b") as file:
        file.truncate(5_000)
    with pytest.raises(ImageError, match="was changed while it was read"):
        image.read(0, 400, 100, 100)
