"""Warnings of embeddings whose network has seen what it is tested on."""

from types import SimpleNamespace

import numpy as np
import pytest

from featstore_cli.seen import is_of, say_seen

LABELS = SimpleNamespace(name="midog", digest="sha256:" + "d" * 64)


def split(digest, train, test):
    return SimpleNamespace(
        digest=digest, train=np.array(train), val=np.array([9]), test=np.array(test)
    )


OWN = split("own", [0, 1, 2, 3], [6, 7])
SMALLER = split("smaller", [0, 1], [6, 7])
LEAKING = split("leaking", [4, 5], [3, 7])
LEAKING_VAL = split("leaking val", [4, 5], [8, 9])


@pytest.fixture
def warned(capsys):
    """What is said of embeddings with this in their provenance."""

    def said(trained_on, tested, splits):
        run = {} if trained_on == "nothing" else {"trained_on": trained_on}
        source = SimpleNamespace(model="own", provenance=SimpleNamespace(run=run))
        say_seen([source], LABELS, tested, splits)
        return capsys.readouterr().err

    return said


def test_splits_that_test_what_the_networks_own_split_trains_on_are_counted(warned):
    seen = {"split": "own", "dataset": "midog"}
    every = [OWN, SMALLER, LEAKING, LEAKING_VAL]
    assert "2 of 4 splits test it on what it has seen" in warned(seen, every, every)
    assert "1 of 1 splits" in warned(seen, [LEAKING], every)
    assert warned(seen, [OWN, SMALLER], every) == ""


def test_where_its_own_split_is_not_in_the_file_every_split_may_test_what_was_seen(warned):
    assert "2 of 2 splits" in warned(
        {"split": "own", "dataset": "midog"}, *[[SMALLER, LEAKING]] * 2
    )
    assert "1 of 1 splits" in warned({"split": None, "dataset": "midog"}, [OWN], [OWN])


@pytest.mark.parametrize("seen", ["nothing", None, "text", [1], {}, {"dataset": "ccmct"}], ids=str)
def test_nothing_is_said_of_other_encoders_and_of_networks_of_other_datasets(warned, seen):
    assert warned(seen, [LEAKING], [OWN, LEAKING]) == ""
    assert not is_of(seen, LABELS)


def test_a_dataset_is_known_by_its_digest_under_another_name():
    assert is_of({"dataset": "copy", "dataset_digest": LABELS.digest}, LABELS)
