import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featstore.errors import ImageError
from featstore.images import ImageFolder, open_image

PIXELS = np.random.default_rng(0).integers(0, 256, (150, 210, 3), dtype=np.uint8)


def write_tiff(path, pixels=PIXELS, **options):
    options = {
        "photometric": "rgb",
        "resolution": (40_000, 40_000),
        "resolutionunit": "CENTIMETER",
    } | options
    tifffile.imwrite(path, pixels, **options)
    return path


def padded_slice(x, y, width, height):
    """The region by slicing a padded copy, the slow and obvious way."""
    margin = 400
    padded = np.pad(PIXELS, ((margin, margin), (margin, margin), (0, 0)), constant_values=255)
    return padded[y + margin : y + margin + height, x + margin : x + margin + width]


@settings(max_examples=60)
@given(
    x=st.integers(-130, 260),
    y=st.integers(-130, 200),
    width=st.integers(1, 120),
    height=st.integers(1, 120),
    options=st.sampled_from(
        [
            {"tile": (64, 48)},
            {"rowsperstrip": 16},
            {"rowsperstrip": 150},
            {"tile": (16, 16), "compression": "zlib", "predictor": True},
        ]
    ),
)
def test_any_region_equals_a_slice_of_the_whole_image(tmp_path, x, y, width, height, options):
    image = open_image(write_tiff(tmp_path / "image.tiff", **options))
    assert np.array_equal(image.read(x, y, width, height), padded_slice(x, y, width, height))


def test_jpeg_tiles_decode_as_the_whole_image_does(tmp_path):
    smooth = np.linspace(0, 255, 128, dtype=np.uint8)[:, None, None].repeat(128, 1).repeat(3, 2)
    path = write_tiff(tmp_path / "jpeg.tiff", smooth, tile=(64, 64), compression="jpeg")
    assert np.array_equal(open_image(path).read(0, 0, 128, 128), tifffile.imread(path))


@pytest.mark.parametrize(
    ("resolution", "unit", "mpp"),
    [
        ((40_000, 40_000), "CENTIMETER", 0.25),
        ((101_600, 101_600), "INCH", 0.25),
        ((20_000, 20_000), "CENTIMETER", 0.5),
    ],
)
def test_um_per_pixel_come_from_the_tags_and_their_unit(tmp_path, resolution, unit, mpp):
    image = open_image(write_tiff(tmp_path / "i.tiff", resolution=resolution, resolutionunit=unit))
    assert image.mpp == pytest.approx(mpp)
    assert image.mpp_source == "resolution tags"


def test_a_tiff_without_a_unit_says_nothing_of_its_resolution(tmp_path):
    image = open_image(write_tiff(tmp_path / "i.tiff", resolution=(72, 72), resolutionunit="NONE"))
    assert image.mpp is None


@pytest.mark.parametrize(
    ("per_inch", "found"),
    [
        ((72, 72), "resolution tags of 352.8 um/px, outside 0.1 to 1.2"),
        (
            (600_000, 600_000),
            "resolution tags of 0.04233 um/px, outside 0.1 to 1.2; with the unit off by ten it "
            "would be 0.4233",
        ),
        ((101_600, 50_800), "resolution tags of 0.25 x 0.5 um/px, which differ"),
    ],
)
def test_resolution_tags_that_cannot_be_meant_count_as_none(tmp_path, per_inch, found):
    path = write_tiff(tmp_path / "i.tiff", resolution=per_inch, resolutionunit="INCH")
    image = open_image(path)
    assert (image.mpp, image.mpp_source, image.mpp_found) == (None, "none", found)


def test_pixels_square_within_one_per_cent_have_a_resolution(tmp_path):
    path = write_tiff(tmp_path / "i.tiff", resolution=(40_000, 40_200))
    assert open_image(path).mpp == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("stated", "mpp", "source"),
    [
        ("0.4990", 0.499, "Aperio MPP"),
        ("0.25.", 0.25, "resolution tags"),
        ("0,4990", 0.25, "resolution tags"),
        (".", 0.25, "resolution tags"),
        ("352.8", 0.25, "resolution tags"),
    ],
)
def test_an_aperio_mpp_that_is_no_number_leaves_it_to_the_tags(tmp_path, stated, mpp, source):
    description = f"Aperio Image Library |AppMag = 20|MPP = {stated}|Left = 25"
    image = open_image(write_tiff(tmp_path / "i.svs", description=description, metadata=None))
    assert image.mpp == pytest.approx(mpp)
    assert image.mpp_source == source


def test_a_tiff_whose_white_is_zero_is_inverted(tmp_path):
    path = write_tiff(tmp_path / "i.tiff", PIXELS[:, :, 0], photometric="miniswhite")
    region = open_image(path).read(3, 4, 20, 30)
    assert np.array_equal(region, 255 - PIXELS[4:34, 3:23, :1].repeat(3, axis=2))


@pytest.mark.parametrize(
    ("pixels", "options", "colours"),
    [
        (np.dstack([PIXELS, PIXELS[:, :, :1]]), {"photometric": "separated"}, "SEPARATED in 4"),
        (PIXELS, {"photometric": "cielab"}, "CIELAB in 3"),
        (PIXELS, {"photometric": "ycbcr"}, "YCBCR in 3"),
        (
            PIXELS[:, :, 0],
            {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)},
            "PALETTE in 1",
        ),
        (PIXELS, {"photometric": "minisblack", "planarconfig": "contig"}, "MINISBLACK in 3"),
    ],
)
def test_a_tiff_of_other_colours_is_refused_in_one_line(tmp_path, pixels, options, colours):
    path = write_tiff(tmp_path / "i.tiff", pixels, **options)
    with pytest.raises(ImageError, match=f"i.tiff has the colours {colours} samples .* save it as"):
        open_image(path)


def test_aperio_tiles_of_ycbcr_under_a_tag_of_rgb_are_refused(tmp_path):
    path = write_tiff(tmp_path / "i.svs", tile=(64, 64))
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["Compression"].overwrite(33003)
    with pytest.raises(ImageError, match=r"colours RGB in 3 samples \(compression 33003\)"):
        open_image(path)


def test_a_real_aperio_slide_opens_with_its_resolution(real_data):
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    image = open_image(path)
    assert (image.width_px, image.height_px, image.mpp) == (2220, 2967, 0.499)
    assert image.mpp_source == "Aperio MPP"
    whole = tifffile.imread(path)
    assert np.array_equal(image.read(300, 1234, 224, 224), whole[1234:1458, 300:524])


def test_png_grey_and_alpha_become_three_colours(tmp_path):
    Image.fromarray(PIXELS[:, :, 0]).save(tmp_path / "grey.png")
    write_tiff(tmp_path / "grey.tiff", PIXELS[:, :, 0], photometric="minisblack")
    write_tiff(
        tmp_path / "rgba.tiff", np.dstack([PIXELS, PIXELS[:, :, :1]]), extrasamples=["unassalpha"]
    )
    for name in ("grey.png", "grey.tiff"):
        region = open_image(tmp_path / name).read(3, 4, 20, 30)
        assert np.array_equal(region, PIXELS[4:34, 3:23, :1].repeat(3, axis=2))
    region = open_image(tmp_path / "rgba.tiff").read(3, 4, 20, 30)
    assert np.array_equal(region, PIXELS[4:34, 3:23])


def test_palette_and_transparent_pngs_become_three_colours_on_white(tmp_path):
    alpha = np.full((150, 210, 1), 255, np.uint8)
    alpha[:70] = 0
    Image.fromarray(np.dstack([PIXELS, alpha])).save(tmp_path / "alpha.png")
    palette = Image.new("P", (8, 8))
    palette.putpalette([200, 10, 30, 0, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=1)
    region = open_image(tmp_path / "alpha.png").read(0, 0, 210, 150)
    assert (region[:70] == 255).all()
    assert np.array_equal(region[70:], PIXELS[70:])
    assert open_image(tmp_path / "palette.png").read(0, 0, 2, 1).tolist() == [
        [[200, 10, 30], [255, 255, 255]]
    ]


def png(width, height, *, bits, colour_type, rows=b""):
    """Bytes of a PNG with any header, as Pillow itself does not write it."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    framed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def test_sixteen_bit_and_cmyk_rasters_are_refused(tmp_path):
    Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 256).save(tmp_path / "grey.png")
    (tmp_path / "rgb.png").write_bytes(png(1, 1, bits=16, colour_type=2, rows=bytes(7)))
    Image.fromarray(PIXELS).convert("CMYK").save(tmp_path / "cmyk.jpg")
    for name, kind in [("grey.png", "16-bit"), ("rgb.png", "16-bit"), ("cmyk.jpg", "CMYK")]:
        with pytest.raises(ImageError, match=f"{name} holds {kind} pixels; 8-bit grey"):
            open_image(tmp_path / name)


@pytest.mark.parametrize("side", [12_000, 60_000])  # a warning of Pillow's, and an error
def test_a_png_over_pillows_limit_is_refused_in_one_line(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png(side, side, bits=8, colour_type=0))
    with pytest.raises(ImageError, match=r"bomb.png is over \d+ px, too large .* tiled TIFF"):
        open_image(tmp_path / "bomb.png")


def test_images_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "broken.tiff").write_bytes(b"II*\0" + bytes(40))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    write_tiff(tmp_path / "deep.tiff", PIXELS.astype(np.uint16))
    for name, message in [
        ("none.tiff", "is missing"),
        ("broken.tiff", "not a readable TIFF"),
        ("broken.png", "not a readable PNG"),
        ("deep.tiff", "holds uint16"),
    ]:
        with pytest.raises(ImageError, match=message):
            open_image(tmp_path / name)


@pytest.mark.parametrize("options", [{"tile": (64, 64), "compression": "zlib"}, {}])
def test_a_tiff_cut_short_is_noticed_when_it_is_opened(tmp_path, options):
    path = write_tiff(tmp_path / "i.tiff", **options)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ImageError, match=r"i.tiff is cut short: it has \d+ bytes and its tiles"):
        open_image(path)


@settings(max_examples=60)
@given(data=st.data())
def test_a_tiff_damaged_anywhere_is_an_image_error_or_an_image(tmp_path, data):
    content = bytearray(write_tiff(tmp_path / "i.tiff", PIXELS[:20, :20]).read_bytes())
    for place in data.draw(st.lists(st.integers(0, 300), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    kept = data.draw(st.integers(0, len(content)))
    (tmp_path / "i.tiff").write_bytes(content[:kept])
    try:
        region = open_image(tmp_path / "i.tiff").read(0, 0, 5, 5)
    except ImageError as error:
        region, message = None, str(error)
    assert "\n" not in message if region is None else region.shape == (5, 5, 3)


def test_opening_junk_logs_nothing_and_leaves_the_logger_as_it_was(tmp_path, caplog):
    (tmp_path / "broken.tiff").write_bytes(b"II*\0nothing")
    with pytest.raises(ImageError, match="not a readable TIFF"):
        open_image(tmp_path / "broken.tiff")
    assert caplog.records == []
    tifffile.logger().error("heard again")
    assert [record.message for record in caplog.records] == ["heard again"]


def overwrite_size(path, **tags):
    with tifffile.TiffFile(path, mode="r+") as file:
        for name, value in tags.items():
            file.pages[0].tags[name].overwrite(value)


@pytest.mark.parametrize(
    ("options", "tags", "message"),
    [
        ({"tile": (64, 64)}, {"ImageLength": 10**9}, r"lists 12 of the \d+ tiles of its"),
        (
            {"rowsperstrip": 150},
            {"ImageWidth": 10**6, "ImageLength": 10**6, "RowsPerStrip": 10**6},
            "tiles of 1000000 x 1000000 px, which are too large",
        ),
        ({"tile": (64, 64)}, {"ImageWidth": 0}, "says it is 0 x 150 px"),
    ],
)
def test_a_tiff_of_an_absurd_size_is_refused_when_it_is_opened(tmp_path, options, tags, message):
    path = write_tiff(tmp_path / "i.tiff", **options)
    overwrite_size(path, **tags)
    with pytest.raises(ImageError, match=message):
        open_image(path)


def test_a_truncated_tile_is_an_error_not_a_black_patch(tmp_path):
    path = write_tiff(tmp_path / "i.tiff", tile=(64, 64), compression="zlib")
    content = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[-1]
    path.write_bytes(content[: offset + 3] + bytes(len(content) - offset - 3))
    with pytest.raises(ImageError, match="tile 11 cannot be read"):
        open_image(path).read(200, 140, 10, 10)


@pytest.mark.parametrize("escape", ["../secret.tiff", "/etc/passwd", "a/../../b.tiff"])
def test_an_image_name_cannot_lead_out_of_its_folder(escape):
    with pytest.raises(ImageError, match="is not a path within"):
        ImageFolder("images").path(escape)
