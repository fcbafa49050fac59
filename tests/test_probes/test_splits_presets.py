"""The paper's experiments by name."""

from pathlib import Path

import pytest

import probes
from probes.errors import SplitError
from probes.splits import PRESETS
from tests.test_probes.splitting import column_of


@pytest.mark.parametrize(
    ("n", "n_test", "n_train"),
    [(20_552, 4_110, [13, 132, 1_316, 13_154]), (72_845, 14_569, [47, 467, 4_663, 46_621])],
)
def test_twenty_trainings_have_the_papers_sizes(make_table, n, n_test, n_train):
    """Of 72,845: 58,276 are not tested; of 58.3, 582.8, 5,827.6 and all, a fifth validates."""
    splits = probes.preset("ganz2024-sizes", make_table(n))
    assert len(splits) == 20
    assert [len(split.train) for split in splits] == n_train * 5
    assert {len(split.test) for split in splits} == {n_test}


def test_five_domains_give_twenty_five_trainings(make_table):
    splits = probes.preset("ganz2024-domains", make_table(2_000, n_domains=5))
    assert len(splits) == 25
    assert {split.train_domain for split in splits} == set("ABCDE")


def test_by_slide_the_same_sizes_are_drawn_and_no_slide_is_on_both_sides(make_table):
    table = make_table(20_552, n_slides=354)
    splits = probes.preset("ganz2024-sizes-by-slide", table)
    assert [split.size for split in splits] == [0.001, 0.01, 0.1, 1.0] * 5
    slide_of = column_of(table, "slide")
    for split in splits:
        train, test = (
            {slide_of[each] for each in part.tolist()} for part in (split.train, split.test)
        )
        assert not train & test
        assert len(split.test) == pytest.approx(4_110, abs=60)
        assert len(split.train) == pytest.approx(13_154 * split.size, abs=60)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_call_of_its_maker_and_is_told_of_in_the_docs(make_table, name):
    table, known = make_table(2_000), PRESETS[name]
    drawn = probes.preset(name, table, one_class="keep", seed=7)
    assert drawn.digest == known.make(table, **known.options, one_class="keep", seed=7).digest
    page = (Path(__file__).parents[2] / "docs" / "splits.md").read_text()
    assert f"`{name}`" in page
    assert known.trainings in page
    assert known.source in page


def test_an_unknown_preset_is_refused_with_those_that_there_are(make_table):
    with pytest.raises(SplitError, match="preset 'ganz' is unknown; there are ganz2024-sizes, gan"):
        probes.preset("ganz", make_table())
