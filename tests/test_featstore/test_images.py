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
    assert image.mpp_source == "TIFF resolution tags"


def test_a_tiff_without_a_unit_says_nothing_of_its_resolution(tmp_path):
    image = open_image(write_tiff(tmp_path / "i.tiff", resolution=(72, 72), resolutionunit="NONE"))
    assert image.mpp is None


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
