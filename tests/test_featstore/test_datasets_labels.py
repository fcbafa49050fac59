import pytest

from featstore.annotations import LOOK_ALIKE, MITOTIC_FIGURE
from featstore.datasets.labels import SPELLINGS, LabelMap, known_label
from featstore.errors import AnnotationError


def test_every_spelling_means_one_of_the_two_labels_in_any_case():
    assert set(SPELLINGS.values()) == {MITOTIC_FIGURE, LOOK_ALIKE}
    for name, label in SPELLINGS.items():
        assert known_label(f" {name.upper().replace(' ', '_')} ") == label


@pytest.mark.parametrize("name", ["", "mitotic", "negative", "non-figure", None, 2])
def test_what_is_not_listed_means_nothing(name):
    assert known_label(name) is None


def test_what_the_caller_says_comes_before_what_is_known():
    labels = LabelMap({"Hard negative": "negative"})
    assert labels.of("hard negative") == "negative"
    assert labels.of("mitose") == MITOTIC_FIGURE
    assert LabelMap(None).of("hard negative") == LOOK_ALIKE


@pytest.mark.parametrize("asked", [{"": "a"}, {"a": ""}, {"a": " "}, {"a": None}, {"a": "b\nc"}])
def test_a_name_or_a_label_that_is_none_is_refused(asked):
    with pytest.raises(AnnotationError, match="both need a name"):
        LabelMap(asked)
