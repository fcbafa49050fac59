"""diff: of all that is stored, or of the views that are named."""

import numpy as np
import pytest
from click.testing import CliRunner

import featstore
from featstore.errors import NotInStoreError
from featstore.store.writer import add_annotations
from featstore_cli.comparing import diff
from tests.test_featstore.test_store_reading import VIT, write_vit


@pytest.fixture
def call():
    """Compare two places; our own errors are raised."""

    def run(here, there, *options, code=0):
        result = CliRunner().invoke(diff, [str(here), str(there), *options])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def two(filled_store):
    """Two models that differ in their patch means alone."""
    store, values = filled_store
    write_vit(store.path, "cells", values)
    moved = values.copy()
    moved[7, 3] += 1
    write_vit(store.path, "cells", moved, spec=VIT.at(key="other"))
    return store.path


def test_every_part_that_is_stored_is_compared_unless_a_view_is_named(two, call):
    drifted = "largest difference of an entry 1"
    assert drifted in call(f"{two}:vit/cells", f"{two}:other/cells").stdout
    assert drifted in call(f"{two}:vit:mean/cells", f"{two}:other:mean/cells").stdout
    same = call(f"{two}:vit:class/cells", f"{two}:other:class/cells").stdout
    assert "largest difference of an entry 0" in same


def test_another_default_view_of_the_same_parts_is_a_difference(two, call):
    path, values = two, np.ones((40, 6), np.float32)
    write_vit(path, "cells", values, spec=VIT.at(key="mean", pooling="mean"))
    lines = call(f"{path}:vit/cells", f"{path}:mean/cells").stdout.splitlines()
    assert ["default", "view", "class", "mean"] in [line.split() for line in lines]


def test_two_of_other_lengths_are_told_which_part_both_hold(two, call):
    old = np.ones((40, 2), np.float32)
    write_vit(two, "cells", old, spec=VIT.at(key="old"), parts={"class": (0, 2)})
    told = call(f"{two}:vit/cells", f"{two}:old/cells").stderr
    assert told == (
        "embeddings of 6 and of 2 were not compared row by row; both hold class: name it as in "
        "STORE:MODEL:class/DATASET\n"
    )
    assert call(f"{two}:vit:class/cells", f"{two}:old/cells").stderr == ""
    alone = call(f"{two}:vit:mean+registers/cells", f"{two}:vit:mean/cells").stderr
    assert alone.startswith("embeddings of 4 and of 2 were not compared")


def test_a_view_that_is_not_there_and_a_place_that_is_none_are_refused(two, call):
    with pytest.raises(NotInStoreError, match="has no view 'cls'; its parts are class, mean, reg"):
        call(f"{two}:vit:cls/cells", f"{two}:vit/cells")
    for place in ("vit/cells", f"{two}:vit", f"{two}:/cells"):
        call(place, f"{two}:vit/cells", code=2)


def test_a_store_may_have_colons_in_its_path(tmp_path, cells, call):
    path = tmp_path / "run-16:23:05.zarr"
    featstore.create(path)
    add_annotations(path, cells)
    write_vit(path, "cells", np.ones((40, 6), np.float32))
    for model in ("vit", "vit:mean"):
        assert "cosine" in call(f"{path}:{model}/cells", f"{path}:{model}/cells").stdout
