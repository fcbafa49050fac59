import numpy as np
import pytest

from featstore import AnnotationTable
from featstore.errors import AnnotationError, NotInStoreError


def test_labels_come_in_the_order_asked(cells):
    asked = cells.ids[[7, 0, 7]]
    assert cells.labels_of(asked).tolist() == cells.labels[[7, 0, 7]].tolist()


def test_taking_rows_keeps_every_column_together(cells):
    taken = cells.take(cells.ids[[5, 2]])
    assert taken.x.tolist() == cells.x[[5, 2]].tolist()
    assert taken.slides.tolist() == ["s2", "s3"]
    assert taken.to_frame().index.tolist() == cells.ids[[5, 2]].tolist()


def test_a_duplicate_id_is_refused_by_name():
    with pytest.raises(AnnotationError, match=r"1 annotation IDs stand more than once in 'd'.*7"):
        AnnotationTable("d", [7, 8, 7], ["a", "b", "a"])


def test_an_empty_label_is_refused_by_id():
    with pytest.raises(AnnotationError, match=r"1 annotations of 'd' have no label.*8"):
        AnnotationTable("d", [7, 8], ["a", ""])


def test_a_column_of_another_length_is_refused():
    with pytest.raises(AnnotationError, match=r"column 'x' of 'd' has the shape \(1,\)"):
        AnnotationTable("d", [7, 8], ["a", "b"], {"x": [1.0]})


def test_a_missing_column_is_named_beside_those_there(cells):
    with pytest.raises(AnnotationError, match="no column 'scanner'; it has id, label, x, y"):
        cells.column("scanner")


def test_an_unknown_id_is_refused(cells):
    with pytest.raises(NotInStoreError, match="not in dataset 'cells'"):
        cells.labels_of(["nobody"])


def test_the_digest_is_of_ids_and_labels_only(cells):
    moved = cells.with_columns(x=cells.x + 1)
    relabelled = AnnotationTable("cells", cells.ids, np.roll(cells.labels, 1))
    assert moved.digest == cells.digest != relabelled.digest


def test_the_digest_does_not_join_ids_and_labels():
    assert (
        AnnotationTable("d", ["a", "b"], ["c", "d"]).digest
        != AnnotationTable("d", ["a"], ["b"]).digest
    )
