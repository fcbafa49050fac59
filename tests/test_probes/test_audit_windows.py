from itertools import pairwise
from types import SimpleNamespace as Level

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.windows import CutSpec, neighbours, windows_in
from probes.audit.windows import Windows
from probes.errors import AuditError, PositionError
from tests.test_probes.conftest import Table

MITOTIC = "mitotic figure"
# Quarters of a pixel: sums and differences of them are exact.
centres = st.lists(
    st.tuples(st.integers(-80, 240), st.integers(-80, 240)), min_size=1, max_size=25
).map(lambda quarters: np.array(quarters) / 4)


def table_of(x, y, *, images=None, mpp=None, **columns):
    ids = np.arange(len(x)) + 1_000
    columns |= {"x": np.asarray(x, float), "y": np.asarray(y, float)}
    columns["image"] = np.array(["one.tiff"] * len(x)) if images is None else np.array(images)
    if mpp is not None:
        columns["mpp"] = np.broadcast_to(np.asarray(mpp, float), len(x))
    labels = np.where(np.arange(len(x)) % 2, MITOTIC, "look-alike")
    return Table(ids, labels, columns)


def pairs_of(windows, **options):
    return {
        (row, other)
        for rows, others in windows.pairs(**options)
        for row, other in zip(rows.tolist(), others.tolist(), strict=True)
    }


def pixels(windows, row):
    """Pixels under a window of whole pixels, by the image that they are of."""
    left, top, side = (int(a[row]) for a in (windows.lefts, windows.tops, windows.sides))
    across, down = range(left, left + side), range(top, top + side)
    return {(int(windows.images[row]), x, y) for x in across for y in down}


def shared_area(windows, row, other):
    """Area in px that two windows share, from their four edges."""
    lengths = [
        min(first[row], first[other]) + windows.sides[row] - max(first[row], first[other])
        for first in (windows.lefts, windows.tops)
    ]
    return np.prod(np.maximum(lengths, 0)) if windows.images[row] == windows.images[other] else 0


@given(
    points=centres,
    patch_px=st.integers(1, 300),
    mpp=st.sampled_from([0.25, 0.5, 1.0]),
    of_image=st.sampled_from([0.25, 0.2475, 0.2524, 0.253, 0.2, 0.23, 0.5, 0.499]),
)
def test_windows_are_those_that_featstore_cuts(points, patch_px, mpp, of_image):
    x, y = points.T
    image = Level(levels=[Level(width_px=999, height_px=999, downsample=1.0)])
    cut = windows_in(image, x, y, np.full(len(x), of_image), CutSpec(patch_px, mpp))
    ours = Windows.of(table_of(x, y, mpp=of_image), patch_px=patch_px, mpp=mpp)
    assert ours.lefts.tolist() == cut.lefts.tolist()
    assert ours.tops.tolist() == cut.tops.tolist()
    assert ours.sides.tolist() == cut.sizes.tolist()


@given(points=centres, patch_px=st.integers(1, 60), of_image=st.sampled_from([0.25, 0.2, 0.5]))
def test_centres_in_a_window_are_those_that_featstore_counts(points, patch_px, of_image):
    x, y = points.T
    table = table_of(x, y, mpp=of_image)
    image = Level(levels=[Level(width_px=999, height_px=999, downsample=1.0)])
    cut = windows_in(image, x, y, table.columns["mpp"], CutSpec(patch_px, 0.25))
    n_others, with_mitotic = neighbours(cut, [1.0], x, y, table.labels)
    ours = Windows.of(table, patch_px=patch_px, mpp=0.25)
    counted, mitotic = np.zeros(len(x), int), np.zeros(len(x), bool)
    for rows, others in ours.pairs():
        inside = ours.hold(rows, others)
        np.add.at(counted, rows[inside], 1)
        mitotic[rows[inside & (table.labels[others] == MITOTIC)]] = True
    assert counted.tolist() == n_others.tolist()
    assert mitotic.tolist() == with_mitotic.tolist()


def test_a_level_of_a_pyramid_moves_a_window_by_no_more_than_the_page_says():
    levels = [Level(width_px=9_000, height_px=9_000, downsample=1.0)]
    levels.append(Level(width_px=2_250, height_px=2_250, downsample=4.0))
    x = np.arange(1_000, 1_020, 0.5)
    cut = windows_in(Level(levels=levels), x, x, np.full(40, 0.25), CutSpec(224, 1.008))
    ours = Windows.of(table_of(x, x, mpp=0.25), patch_px=224, mpp=1.008)
    assert (cut.factors == 1).all()
    assert np.abs(ours.sides / (cut.sizes * 4) - 1).max() <= 0.01
    middles = ours.lefts + ours.sides / 2, (cut.lefts + cut.sizes / 2) * 4
    assert np.abs(middles[0] - middles[1]).max() <= 0.5 * 4


@given(
    points=centres,
    patch_px=st.integers(1, 12),
    images=st.lists(st.integers(0, 2), min_size=25, max_size=25),
    at_once=st.sampled_from([1, 7, 2**20]),
)
def test_pairs_are_those_whose_windows_share_a_pixel(points, patch_px, images, at_once):
    x, y = points.T
    windows = Windows.of(table_of(x, y, images=images[: len(x)]), patch_px=patch_px, mpp=0.25)
    sets = [pixels(windows, row) for row in range(len(x))]
    rows = range(len(x))
    assert pairs_of(windows, at_once=at_once) == {
        (a, b) for a in rows for b in rows if a != b and sets[a] & sets[b]
    }


@given(
    points=centres,
    patch_px=st.integers(1, 30),
    images=st.lists(st.integers(0, 2), min_size=25, max_size=25),
)
def test_images_of_different_resolution_have_windows_of_their_own(points, patch_px, images):
    x, y = points.T
    images = np.array(images[: len(x)])
    mpp = np.array([0.25, 0.5, 0.125])[images]  # sides are whole, halved or doubled: exact
    windows = Windows.of(table_of(x, y, images=images, mpp=mpp), patch_px=patch_px, mpp=0.25)
    rows = range(len(x))
    assert pairs_of(windows) == {
        (a, b) for a in rows for b in rows if a != b and shared_area(windows, a, b) > 0
    }


def test_where_one_image_ends_another_does_not_begin():
    """Where the grid of one image ends, the next begins at the same pixels."""
    x, y = [0, 50, 100, 100, 150, 200], [0, 50, 100, 100, 150, 200]
    for across, down in ((x, [7] * 6), ([7] * 6, y), (x, y)):
        table = table_of(across, down, images=["a"] * 3 + ["b"] * 3)
        assert pairs_of(Windows.of(table, patch_px=10, mpp=0.25)) == set()


def test_windows_that_touch_do_not_overlap_and_one_pixel_nearer_they_do():
    for apart, expected in ((224, set()), (223, {(0, 1), (1, 0)}), (0, {(0, 1), (1, 0)})):
        for x, y in (([500, 500 + apart], [9, 9]), ([9, 9], [500, 500 + apart])):
            windows = Windows.of(table_of(x, y), patch_px=224, mpp=0.25)
            assert pairs_of(windows) == expected


def test_a_halfway_centre_goes_up_so_that_half_a_pixel_can_part_two_patches():
    # corners at floor(100 - 112 + .5) = -12 and floor(323.5 - 112 + .5) = 212: 224 px apart
    windows = Windows.of(table_of([100, 323.5], [50, 50]), patch_px=224, mpp=0.25)
    assert windows.lefts.tolist() == [-12, 212]
    assert pairs_of(windows) == set()


def test_a_block_is_cut_between_rows_and_no_row_is_in_two():
    x = np.random.default_rng(0).integers(0, 60, 50)
    windows = Windows.of(table_of(x, x), patch_px=16, mpp=0.25)
    blocks = [rows for rows, _ in windows.pairs(at_once=40)]
    assert len(blocks) > 5
    together = np.concatenate(blocks)
    assert (np.diff(together) >= 0).all()
    assert all(not set(a.tolist()) & set(b.tolist()) for a, b in pairwise(blocks))


def test_an_unknown_resolution_is_taken_to_be_that_of_the_patches_and_counted():
    table = table_of([5, 50, 95], [5, 5, 5], images=["a", "b", "b"], mpp=[0.5, np.nan, np.nan])
    windows = Windows.of(table, patch_px=20, mpp=0.25)
    assert windows.sides.tolist() == [10, 20, 20]
    assert windows.n_assumed == 2


def test_positions_without_an_image_are_on_the_slide():
    table = table_of([5, 6], [5, 5], slide=np.array(["s1", "s2"]))
    del table.columns["image"]
    assert pairs_of(Windows.of(table, patch_px=20, mpp=0.25)) == set()
    table = table_of([5, 6], [5, 5], images=["p1.png", "p2.png"], slide=np.array([7, 7]))
    assert len(pairs_of(Windows.of(table, patch_px=20, mpp=0.25, image="slide"))) == 2


@pytest.mark.parametrize("nothing", [None, np.nan, ""])
def test_an_image_that_pandas_says_nothing_of_is_no_image_of_that_name(nothing):
    table = table_of([1, 2, 3], [1, 1, 1])
    table.columns["image"] = np.array([nothing, "a", nothing], object)
    with pytest.raises(PositionError, match="2 of 3 annotations of 'toy' have no image"):
        Windows.of(table, patch_px=4, mpp=0.25)


def test_images_named_in_any_kind_of_text_are_told_apart():
    names = [f"slide of a long name {number}" for number in (1, 2, 1)]
    for kind in (object, np.dtypes.StringDType(), str):
        table = table_of([1, 2, 3], [1, 1, 1], images=np.array(names, kind))
        assert pairs_of(Windows.of(table, patch_px=4, mpp=0.25)) == {(0, 2), (2, 0)}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": None}, "'toy' has no column 'x'; where patches lie is not known"),
        ({"image": None}, "'toy' has no column 'image' or 'slide'; which image a position is on"),
        (
            {"y": [1, np.nan, np.nan]},
            "2 of 3 annotations of 'toy' have no position .first: ID 1001",
        ),
        ({"x": [1, np.inf, 3]}, "1 of 3 annotations of 'toy' have no position .first: ID 1001"),
        ({"x": ["1", "2", "3"]}, "column 'x' of 'toy' holds text"),
        ({"image": ["a", "", "a"]}, "1 of 3 annotations of 'toy' have no image .first: ID 1001"),
        ({"mpp": [0.25, 0.5, 0.5]}, r"\[1000, 1001\] of 'toy' lie on one image and give it 0.25 a"),
        ({"mpp": [0.25, np.nan, 0.25]}, r"\[1000, 1001\] .* give it 0.25 and nan um per pixel"),
        ({"mpp": [-1, -1, -1]}, "column 'mpp' of 'toy' holds -1 .ID 1000.; um per pixel above 0"),
        ({"x": [0, 1e30, 0], "y": [0, 1e30, 1]}, "which is no image; check them"),
    ],
)
def test_what_is_missing_or_makes_no_sense_is_said_in_one_line(columns, message):
    table = table_of([1, 2, 3], [1, 1, 1])
    for name, values in columns.items():
        table.columns[name] = None if values is None else np.array(values)
        if values is None:
            del table.columns[name]
    with pytest.raises(PositionError, match=message) as refused:
        pairs_of(Windows.of(table, patch_px=4, mpp=0.25))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("patch_px", value) for value in (0, 4.5, np.inf)]
    + [("mpp", value) for value in (0.0, -1.0, np.nan)],
)
def test_a_patch_without_a_size_is_refused(name, value):
    with pytest.raises(AuditError, match=r"is no patch; give 1, 2, \.\.\. px at a number above 0"):
        Windows.of(table_of([1], [1]), **({"patch_px": 4, "mpp": 0.25} | {name: value}))
