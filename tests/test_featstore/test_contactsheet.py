import numpy as np
import pytest
from PIL import Image

from featstore import AnnotationTable, ImageFolder, Patches
from featstore.contactsheet import COLOURS, Group, choose, draw_contact_sheet
from featstore.errors import NotInStoreError


def table(n=30):
    number = np.arange(n)
    columns = {"domain": np.where(number % 3, "A", "B"), "x": number, "y": number}
    return AnnotationTable("d", number, np.where(number % 2, "odd", "even"), columns)


def test_each_label_of_each_domain_is_a_group_of_its_own():
    groups = choose(table(), per_group=3, seed=1)
    assert [(g.domain, g.label, len(g.ids), g.n) for g in groups] == [
        ("A", "even", 3, 10),
        ("A", "odd", 3, 10),
        ("B", "even", 3, 5),
        ("B", "odd", 3, 5),
    ]
    for group in groups:
        assert set(table().labels_of(group.ids)) == {group.label}
        assert set(table().take(group.ids).domains) == {group.domain}
    again = choose(table(), per_group=3, seed=1)
    assert all(np.array_equal(g.ids, h.ids) for g, h in zip(groups, again, strict=True))


def test_ids_that_are_asked_for_are_shown_all_and_no_others():
    groups = choose(table(), ids=[4, 7, 10], per_group=1)
    assert sorted(int(i) for group in groups for i in group.ids) == [4, 7, 10]
    with pytest.raises(NotInStoreError, match="99"):
        choose(table(), ids=[99])


class Colours:
    """Patches of one colour each, which no letter has."""

    patch_px, mpp = 64, 0.25

    def read(self, ids):
        return np.stack([np.full((64, 64, 3), (10 * i, 3, 201), np.uint8) for i in ids])


def test_patches_are_drawn_in_order_inside_a_frame_of_their_labels_colour():
    groups = [Group("a", "", np.array([1, 2]), 2), Group("b", "", np.array([9]), 1)]
    sheet = np.asarray(draw_contact_sheet(Colours(), groups, title="t"))
    runs = {
        value: np.argwhere((sheet == (10 * value, 3, 201)).all(axis=-1)).min(axis=0)
        for value in (1, 2, 9)
    }
    assert runs[1][0] == runs[2][0] < runs[9][0]
    assert runs[1][1] < runs[2][1]
    assert runs[9][1] == runs[1][1]
    for value, colour in ((1, COLOURS[0]), (2, COLOURS[0]), (9, COLOURS[1])):
        frame = sheet[runs[value][0] - 1, runs[value][1]]
        assert "#{:02X}{:02X}{:02X}".format(*frame) == colour


def test_the_middle_of_a_thumbnail_is_the_annotations_centre(tmp_path):
    pixels = np.full((400, 400, 3), 255, np.uint8)
    pixels[198:203, 148:153] = 0  # a dot around (150.5, 200.5)
    Image.fromarray(pixels).save(tmp_path / "i.png")
    columns = {"x": [150.5], "y": [200.5], "image": ["i.png"], "mpp": [0.25]}
    cells = AnnotationTable("d", ["a-very-long-annotation-id-" * 4], ["a"], columns)
    patches = Patches(cells, ImageFolder(str(tmp_path)), 64)
    sheet = np.asarray(draw_contact_sheet(patches, choose(cells), title="t"))
    frame = np.argwhere((sheet == [0xD5, 0x5E, 0x00]).all(axis=-1))
    middle = (frame.min(axis=0) + frame.max(axis=0)) / 2
    box = sheet[frame[:, 0].min() : frame[:, 0].max(), frame[:, 1].min() : frame[:, 1].max()]
    dark = np.argwhere((box < 60).all(axis=-1)) + frame.min(axis=0)
    assert dark.mean(axis=0) == pytest.approx(middle, abs=1.5)
