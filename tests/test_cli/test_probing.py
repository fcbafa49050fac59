"""probe, curve and domains on the views of a model."""

import json

import pytest
from click.testing import CliRunner

import probes
from featstore.errors import NotInStoreError
from featstore_cli.probing import COMMANDS
from tests.test_featstore.test_store_reading import seen, write_vit


@pytest.fixture
def vit(filled_store):
    """A store with a model of three parts; and these, side by side."""
    store, values = filled_store
    write_vit(store.path, "cells", values)
    return store, values


@pytest.fixture
def rows_of(vit, tmp_path):
    """Run a verb on some models of the store, and give its rows."""

    def run(verb, *models, splits=True):
        chosen = [word for model in models for word in ("--model", model)]
        on = ["--splits", tmp_path / "splits.json"] if splits else []
        words = [vit[0].path, "--dataset", "cells", *chosen, *on, "--objective", "l2", "--json"]
        result = CliRunner().invoke(COMMANDS[verb], [str(word) for word in words])
        if result.exception is not None:
            raise result.exception
        return json.loads(result.stdout)

    cells = vit[0].annotations("cells")
    probes.monte_carlo(cells, repeats=2, train=(1.0,), val=0.0).save(tmp_path / "splits.json")
    return run


@pytest.mark.parametrize("pooling", ["class", "mean", "registers+class"])
def test_a_probe_is_fitted_on_the_view_that_is_named(rows_of, vit, tmp_path, pooling):
    store, values = vit
    (row,) = rows_of("probe", f"vit:{pooling}")
    assert row["model"] == ("vit" if pooling == "class" else f"vit:{pooling}")
    cells, split = store.annotations("cells"), probes.load_splits(tmp_path / "splits.json")[-1]
    source = probes.protocols.InMemory(cells.ids, seen(values, pooling))
    fitted = probes.LogisticProbe("l2").fit(source.read(split.train), cells.labels_of(split.train))
    expected = probes.evaluate(fitted, source, cells, split).auroc
    assert row["auroc"] == pytest.approx(expected)


@pytest.mark.parametrize(("verb", "splits"), [("curve", True), ("domains", False)])
def test_views_of_a_model_stand_beside_each_other_each_once(rows_of, verb, splits):
    rows = rows_of(verb, "vit", "vit:class", "vit:mean", "vit:class+mean", splits=splits)
    models = list(dict.fromkeys(row["model"] for row in rows))
    assert models == ["vit", "vit:mean", "vit:class+mean"]
    of_each = [sum(row["model"] == name for row in rows) for name in ("vit", "vit:mean")]
    assert of_each[0] == of_each[1]


def test_without_a_name_each_model_is_probed_as_it_is_shown(rows_of):
    assert {row["model"] for row in rows_of("curve")} == {"tiny", "vit"}


@pytest.mark.parametrize("verb", ["probe", "curve"])
def test_a_view_that_is_not_there_is_refused_with_the_parts_that_are(rows_of, verb):
    with pytest.raises(NotInStoreError, match="has no view 'cls'; its parts are class, mean, reg"):
        rows_of(verb, "vit:cls")
