import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import InterpolationMode, functional

from probes.endtoend.augment import (
    COLUMN,
    centre_crop,
    change,
    draw,
    move,
    source_px,
    unchanged,
)
from tests.test_probes.drawn_cells import cells

WHITE = 255


def drawn_for(n, *, any_angle=True, seed=0, jitter_px=0):
    drawn = draw(range(n), any_angle=any_angle, seed=seed, epoch=0)
    move(drawn, jitter_px, range(n), seed=seed, epoch=0)
    return drawn


@given(
    patch_px=st.integers(2, 70),
    extra=st.integers(0, 9),
    jitter_px=st.integers(0, 12),
    seed=st.integers(0, 2**31),
)
def test_a_white_patch_has_no_black_corners_however_it_is_turned_and_moved(
    patch_px, extra, jitter_px, seed
):
    px = source_px(patch_px) + extra
    white = torch.full((4, px, px, 3), WHITE, dtype=torch.uint8)
    changed = change(white, drawn_for(4, seed=seed, jitter_px=jitter_px), patch_px)
    assert changed.shape == (4, patch_px, patch_px, 3)
    # Jitter scales a constant patch as a whole; a corner from outside would differ.
    for patch in changed:
        assert int(patch.max()) - int(patch.min()) <= 1
        assert int(patch.min()) >= 0.85 * WHITE


def test_what_lies_outside_of_the_margin_is_never_seen():
    """A frame of another colour around the source shows where sampling would leave it."""
    framed = torch.full((60, 70, 70, 3), 40, dtype=torch.uint8)
    framed[:, 1:-1, 1:-1] = WHITE
    changed = change(framed, drawn_for(60, jitter_px=30), 48)
    seen = (changed < 0.8 * WHITE).any(dim=3).float().mean(dim=(1, 2))
    # The frame is a pixel wide: a patch may reach it with a row, a column and a turned corner.
    assert 0 < seen.max() < (48 + 47 + 10) / 48**2


@given(px=st.integers(2, 40), patch_px=st.integers(2, 40))
def test_a_patch_that_nothing_happens_to_is_its_centre_byte_for_byte(px, patch_px):
    px, patch_px = max(px, patch_px), min(px, patch_px)
    pixels = torch.from_numpy(
        np.random.default_rng(px).integers(0, 256, (2, px, px, 3), dtype=np.uint8)
    )
    assert torch.equal(change(pixels, unchanged(2), patch_px), centre_crop(pixels, patch_px))


def one(**values):
    drawn = unchanged(2)
    for name, value in values.items():
        drawn[:, COLUMN[name]] = value
    return drawn


def smooth(px=100):
    coarse = torch.rand((2, 3, 12, 12), generator=torch.Generator().manual_seed(3))
    large = torch.nn.functional.interpolate(coarse, size=(px, px), mode="bilinear")
    return (255 * large).to(torch.uint8)


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ({"flip_x": 1}, functional.horizontal_flip),
        ({"flip_y": 1}, functional.vertical_flip),
        ({"degrees": 90}, lambda x: functional.rotate(x, 90)),
        ({"degrees": 33}, lambda x: functional.rotate(x, 33, InterpolationMode.BILINEAR)),
        ({"degrees": -170}, lambda x: functional.rotate(x, -170, InterpolationMode.BILINEAR)),
        ({"right_px": 3, "down_px": -4}, lambda x: torch.roll(x, (4, -3), (2, 3))),
        ({"brightness": 1.1}, lambda x: functional.adjust_brightness(x, 1.1)),
        ({"saturation": 0.9}, lambda x: functional.adjust_saturation(x, 0.9)),
        ({"hue": 0.1}, lambda x: functional.adjust_hue(x, 0.1)),
        ({"hue": -0.07}, lambda x: functional.adjust_hue(x, -0.07)),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_each_change_is_that_of_torchvision(drawn, expected):
    pixels_NCHW = smooth()
    theirs_NHWC = centre_crop(expected(pixels_NCHW).permute(0, 2, 3, 1), 64)
    ours_NHWC = change(pixels_NCHW.permute(0, 2, 3, 1), one(**drawn), 64)
    assert int((ours_NHWC.int() - theirs_NHWC.int()).abs().max()) <= 1


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ({"contrast": 1.1}, lambda x: functional.adjust_contrast(x, 1.1)),
        ({"blur_px": 0.8}, lambda x: functional.gaussian_blur(x, [5, 5], [0.8, 0.8])),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_each_change_of_what_the_network_sees_is_that_of_torchvision(drawn, expected):
    cropped_NCHW = smooth()[:, :, 18:82, 18:82]
    ours_NHWC = change(smooth().permute(0, 2, 3, 1), one(**drawn), 64)
    difference = ours_NHWC.permute(0, 3, 1, 2).int() - expected(cropped_NCHW).int()
    assert int(difference.abs().max()) <= 1


def test_a_patch_without_margin_turns_by_quarters_only():
    small = torch.arange(40 * 8 * 8 * 3).reshape(40, 8, 8, 3).remainder(251).to(torch.uint8)
    drawn = drawn_for(40, any_angle=False)
    assert set(drawn[:, COLUMN["degrees"]].tolist()) == {0, 90, 180, 270}
    assert change(small, drawn, 8).shape == (40, 8, 8, 3)


def test_what_is_drawn_depends_on_seed_epoch_and_number_and_each_matters():
    drawn = {
        (seed, epoch, number): tuple(
            draw([number], any_angle=True, seed=seed, epoch=epoch)[0].tolist()
        )
        for seed in range(3)
        for epoch in range(3)
        for number in range(3)
    }
    assert len(set(drawn.values())) > 20
    together = draw([2, 0, 1], any_angle=True, seed=2, epoch=1)
    assert [tuple(row.tolist()) for row in together] == [
        drawn[2, 1, number] for number in (2, 0, 1)
    ]


def test_chances_and_strengths_are_those_that_the_docs_give():
    drawn = drawn_for(2_000, jitter_px=5)
    of = {name: drawn[:, column] for name, column in COLUMN.items()}
    happened = {
        "degrees": (of["degrees"] != 0, 0.5),
        "flip_x": (of["flip_x"] == 1, 0.5),
        "flip_y": (of["flip_y"] == 1, 0.5),
        "hue": (of["hue"] != 0, 0.5),
        "blur_px": (of["blur_px"] > 0, 0.1),
    }
    for name, (happens, chance) in happened.items():
        assert happens.mean() == pytest.approx(chance, abs=0.04), name
    for name in ("brightness", "contrast", "saturation"):
        assert 0.1 - 0.01 < np.abs(of[name] - 1).max() <= 0.1 + 1e-6
        assert ((of[name] != 1) == (of["hue"] != 0)).all()
    assert 0.09 < np.abs(of["hue"]).max() <= 0.1
    assert 170 < np.abs(of["degrees"]).max() <= 180
    assert 0.1 <= of["blur_px"][of["blur_px"] > 0].min() < of["blur_px"].max() <= 1
    assert set(of["right_px"].tolist()) == set(of["down_px"].tolist()) == set(range(-5, 6))


def test_one_thread_and_two_give_the_same_bytes():
    pixels = torch.from_numpy(cells(32, px=68)[0].pixels)
    drawn = drawn_for(32)
    threads = torch.get_num_threads()
    found = []
    for n in (1, 2):
        torch.set_num_threads(n)
        found.append(change(pixels, drawn, 48))
    torch.set_num_threads(threads)
    assert torch.equal(*found)


@given(px=st.integers(1, 40), patch_px=st.integers(1, 40), kept_px=st.integers(1, 40))
def test_crops_keep_the_annotations_pixel_and_may_be_taken_in_turn(px, patch_px, kept_px):
    px, kept_px, patch_px = sorted((px, kept_px, patch_px), reverse=True)
    marked = np.zeros((1, px, px, 3))
    marked[:, px // 2, px // 2] = 1
    cropped = centre_crop(marked, patch_px)
    assert cropped[0, patch_px // 2, patch_px // 2, 0] == 1
    np.testing.assert_array_equal(centre_crop(centre_crop(marked, kept_px), patch_px), cropped)
