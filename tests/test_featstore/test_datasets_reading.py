from featstore.annotations import AnnotationTable
from featstore.datasets.reading import LeftOut, Reading, left_out_by


def test_counts_are_per_domain_image_and_label_and_add_up():
    table = AnnotationTable(
        "d",
        [1, 2, 3, 4],
        ["a", "b", "a", "a"],
        {"image": ["x", "x", "y", "x"], "domain": ["A", "A", "B", "A"]},
    )
    rows = Reading(table).counts().to_numpy().tolist()
    assert rows == [["A", "x", "a", 2], ["A", "x", "b", 1], ["B", "y", "a", 1]]


def test_a_line_of_what_was_left_out_names_the_first_three():
    assert str(LeftOut("deleted", 3, first=(1, 2, 3))) == "3 annotations deleted (1, 2, 3)"
    assert str(LeftOut("deleted", 4, first=(1, 2, 3, 4))) == "4 annotations deleted (1, 2, 3, ...)"
    assert str(LeftOut("deleted", 1_000)) == "1,000 annotations deleted"


def test_a_file_with_many_reasons_makes_no_endless_list():
    parts = left_out_by((f"of class {number}", number) for number in range(5_000))
    assert len(parts) == 21
    assert sum(part.n for part in parts) == 5_000
    assert str(parts[-1]) == "4,980 annotations for 4980 other reasons"
