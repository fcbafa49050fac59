"""Ways out of a store: views, frames, AnnData, xarray, batches, comparisons, other libraries."""

import itertools
import json
import pickle

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import featstore
from featstore.encoders.spec import EncoderSpec
from featstore.errors import NotInStoreError, StoreError
from featstore.store.compare import compare
from featstore.store.writer import EmbeddingWriter, add_annotations

PARTS = {"class": (0, 2), "mean": (2, 4), "registers": (4, 6)}
VIT = EncoderSpec("vit", "none", pooling="class", dim=2, weights="random:7")
ONE_VIEW = [
    "+".join(names) for n in (1, 2, 3) for names in itertools.permutations(PARTS, n)
]  # every way to name some of the parts


def write_vit(path, dataset, values, *, spec=VIT, parts=PARTS):
    """Write embeddings with all of their parts side by side."""
    with EmbeddingWriter(path, dataset, spec, parts=parts, run={}) as writer:
        for chunk in writer.pending():
            writer.write(chunk, values[writer.annotations.positions(chunk.ids)])


def seen(values, pooling, parts=PARTS):
    """What a view is of these values, worked out without the library."""
    return np.concatenate([values[:, slice(*parts[name])] for name in pooling.split("+")], axis=1)


@pytest.fixture
def vit_store(filled_store):
    """The filled store with a model of three parts, of which the class token is shown."""
    store, values = filled_store
    write_vit(store.path, "cells", values)
    return store, values


@pytest.fixture
def embeddings(filled_store):
    return filled_store[0].embeddings("tiny", "cells")


def test_a_model_shows_the_part_that_its_pooling_names(vit_store):
    store, values = vit_store
    shown = store.embeddings("vit", "cells")
    assert (shown.model, shown.shape, shown.digest) == ("vit", (40, 2), VIT.digest)
    assert np.array_equal(shown.read(shown.ids[::-2]), values[::-2, :2])
    assert shown.provenance.spec == VIT
    assert shown.provenance.parts == {"class": (0, 2)}
    assert shown.parts == shown.stored_provenance.parts == PARTS


@given(pooling=st.sampled_from(ONE_VIEW), places=st.lists(st.integers(0, 39), max_size=60))
def test_any_parts_are_read_in_the_order_in_which_they_are_named(vit_store, pooling, places):
    store, values = vit_store
    view = store.embeddings(f"vit:{pooling}", "cells")
    expected = seen(values, pooling)
    assert view.shape == expected.shape
    assert np.array_equal(view.read(view.ids[places]), expected[places])
    assert view.provenance.spec.dim == expected.shape[1]
    assert np.array_equal(seen(expected, pooling, view.provenance.parts), expected)


def test_parts_that_stand_side_by_side_are_read_as_one_slice(vit_store):
    shown = vit_store[0].embeddings("vit", "cells")
    for pooling, runs in {
        "class+mean": ((0, 4),),
        "class+mean+registers": ((0, 6),),
        "mean+class": ((2, 4), (0, 2)),
        "class+registers": ((0, 2), (4, 6)),
    }.items():
        assert shown.view(pooling)._view.runs == runs


def test_a_view_has_a_name_and_a_digest_of_its_own(vit_store):
    shown = vit_store[0].embeddings("vit", "cells")
    views = {pooling: shown.view(pooling) for pooling in ONE_VIEW}
    assert views.pop("class").model == "vit"
    assert {view.model for view in views.values()} == {f"vit:{pooling}" for pooling in views}
    assert all(view.digest == VIT.at(pooling=name).digest for name, view in views.items())
    assert len({shown.digest, *(view.digest for view in views.values())}) == len(ONE_VIEW)
    assert views["mean"].provenance.spec == VIT.at(pooling="mean")
    assert views["mean"].view("class").digest == shown.digest


def test_the_default_view_asked_for_by_its_name_is_the_default_view(vit_store):
    store, values = vit_store
    named = store.embeddings("vit:class", "cells")
    assert (named.model, named.digest) == ("vit", VIT.digest)
    assert np.array_equal(named.read(named.ids), values[:, :2])


def test_a_view_that_is_not_there_is_answered_with_the_parts_that_are(vit_store, filled_store):
    store = vit_store[0]
    with pytest.raises(
        NotInStoreError,
        match=r"'tiny/cells' has no view 'registers'; its parts are class, mean: name some of "
        r"them, each once, joined by '\+'$",
    ):
        store.embeddings("tiny:registers", "cells")
    for pooling in ("", "mean+mean", "class+", "class+cls", "mean:class", " mean"):
        with pytest.raises(NotInStoreError, match="its parts are class, mean, registers"):
            store.embeddings(f"vit:{pooling}", "cells")
    with pytest.raises(NotInStoreError, match=r"no embeddings 'virchow/cells' in .*; it holds"):
        store.embeddings("virchow:mean", "cells")


def test_embeddings_without_known_parts_are_read_whole(filled_store):
    store, values = filled_store
    write_vit(store.path, "cells", values, spec=VIT.at(key="theirs", dim=6), parts={})
    all_of_it = {"all": (0, 6)}
    write_vit(store.path, "cells", values, spec=VIT.at(key="whole", dim=6), parts=all_of_it)
    for model in ("theirs", "theirs:class", "whole", "whole:class", "whole:all"):
        embeddings = store.embeddings(model, "cells")
        assert np.array_equal(embeddings.read(embeddings.ids), values), model
    with pytest.raises(NotInStoreError, match="has no view 'mean'; its parts are none"):
        store.embeddings("theirs:mean", "cells")


def test_all_that_is_stored_is_a_view_as_well(vit_store):
    store, values = vit_store
    whole = store.embeddings("vit:mean", "cells").whole
    assert whole.model == "vit:class+mean+registers"
    assert np.array_equal(whole.read(whole.ids), values)
    assert store.embeddings("tiny", "cells").whole.model == "tiny"


def test_the_list_has_the_length_that_is_shown_and_the_parts_that_are_stored(vit_store):
    store, values = vit_store
    write_vit(store.path, "cells", values, spec=VIT.at(key="theirs", dim=6), parts={})
    rows = {row.model: (row.dim, row.parts) for row in store.list()}
    assert rows == {
        "theirs": (6, ()),
        "tiny": (6, ("class", "mean")),
        "vit": (2, ("class", "mean", "registers")),
    }
    assert store.models("cells") == ["theirs", "tiny", "vit"]
    info = store.embeddings("vit:mean+registers", "cells").info
    assert (info.model, info.dim, info.rows) == ("vit:mean+registers", 4, 40)


def test_frames_batches_anndata_and_xarray_are_of_the_view(vit_store):
    store, values = vit_store
    pooling = "registers+class"
    view, expected = store.embeddings(f"vit:{pooling}", "cells"), seen(values, pooling)
    assert np.array_equal(view.to_frame().to_numpy(), expected)
    assert np.array_equal(np.concatenate([rows for _, rows in view.batches(16)]), expected)
    data = view.to_anndata()
    assert np.array_equal(data.X, expected)
    assert data.uns["provenance"]["digest"] == view.digest
    assert data.uns["provenance"]["parts"] == {"registers": [0, 2], "class": [2, 4]}
    array = view.to_xarray()
    assert np.array_equal(array.values, expected)
    assert (array.name, array.attrs["encoder_digest"]) == ("vit-registers+class", view.digest)


def test_a_view_travels_to_another_process(vit_store):
    view = vit_store[0].embeddings("vit:mean", "cells")
    again = pickle.loads(pickle.dumps(view))
    assert (again.model, again.digest) == (view.model, view.digest)
    assert np.array_equal(again.read(view.ids), view.read(view.ids))


def test_a_view_is_read_through_zarr_where_chunks_are_laid_out_in_another_way(vit_store):
    store, values = vit_store
    place = store.path / "embeddings/vit/cells/values"
    zarr.create_array(place, data=values, chunks=(16, 3), overwrite=True)
    for pooling in ("mean", "registers+class"):
        view = featstore.open(store.path).embeddings(f"vit:{pooling}", "cells")
        assert view._files is None
        assert np.array_equal(view.read(view.ids[::-3]), seen(values, pooling)[::-3])


GARBAGE = {
    "a negative start": {"class": [-2, 2], "mean": [2, 6]},
    "a part out of range": {"class": [0, 2], "mean": [2, 60]},
    "parts that overlap": {"class": [0, 2], "mean": [1, 6]},
    "parts with a gap": {"class": [0, 2], "mean": [3, 6]},
    "parts that start late": {"class": [2, 4], "mean": [4, 6]},
    "parts that end early": {"class": [0, 2], "mean": [2, 4]},
    "a part backwards": {"class": [0, 2], "mean": [6, 2]},
    "an empty part": {"class": [0, 2], "none": [2, 2], "mean": [2, 6]},
    "texts": {"class": ["0", "2"], "mean": ["2", "6"]},
    "a text": {"class": "02", "mean": "26"},
    "fractions": {"class": [0.0, 2.0], "mean": [2.0, 6.0]},
    "truth values": {"class": [False, 2], "mean": [2, 6]},
    "nothing": {"class": [], "mean": None},
    "one number": {"class": 2},
    "three numbers": {"class": [0, 2, 4], "mean": [2, 6]},
    "a list": [["class", 0, 6]],
    "a name with a plus": {"class+mean": [0, 6]},
    "a name of terminal codes": {"class": [0, 2], "\x1b[2J" * 99: [2, 6]},
    "a shown part of another length": {"class": [0, 3], "mean": [3, 6]},
    "a whole row of another length": {"other": [0, 6]},
    "no parts": {},
}


def provenance_changed(store, change):
    """Open a store after a change that its owner never made."""
    file = store.path / "embeddings/vit/cells/zarr.json"
    content = json.loads(file.read_text())
    change(content["attributes"]["provenance"])
    file.write_text(json.dumps(content))
    return featstore.open(store.path)


@pytest.mark.parametrize("parts", GARBAGE.values(), ids=GARBAGE)
def test_parts_that_make_no_sense_are_one_error_and_never_a_wrong_view(vit_store, parts):
    hostile = provenance_changed(vit_store[0], lambda provenance: provenance.update(parts=parts))
    for model in ("vit", "vit:class", "vit:mean"):
        with pytest.raises(StoreError, match="'embeddings/vit/cells'") as caught:
            hostile.embeddings(model, "cells").read(hostile.annotations("cells").ids[:1])
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p["encoder"].update(dim=6),
        lambda p: p["encoder"].update(dim="2"),
        lambda p: p["encoder"].update(dim=True),
        lambda p: p["encoder"].update(dim=0),
        lambda p: p["encoder"].update(pooling=None),
        lambda p: p["encoder"].update(pooling=["class"]),
        lambda p: p["encoder"].update(pooling="class+mean"),
        lambda p: p["encoder"].update(pooling="unheard of"),
        lambda p: p.update(cut={"patch_px": 6, "mpp": None}),
    ],
)
def test_an_encoder_that_does_not_fit_its_parts_is_one_error(vit_store, change):
    hostile = provenance_changed(vit_store[0], change)
    with pytest.raises(StoreError, match="'embeddings/vit/cells'"):
        hostile.embeddings("vit", "cells").read(hostile.annotations("cells").ids[:1])


def test_types_convert_on_the_way_and_none_keeps_the_one_on_disk(embeddings):
    assert embeddings.read(embeddings.ids[:2], dtype=np.float16).dtype == np.float16
    assert embeddings.read(embeddings.ids[:2], dtype=None).dtype == np.float32


def test_frames_anndata_and_xarray_hold_rows_and_columns_in_the_order_asked(
    embeddings, filled_store
):
    store, values = filled_store
    asked = embeddings.ids[[30, 2]]
    frame = embeddings.to_frame(asked)
    assert frame.index.tolist() == asked.tolist()
    assert np.array_equal(frame.to_numpy(), values[[30, 2]])
    data = embeddings.to_anndata(asked)
    assert np.array_equal(data.X, values[[30, 2]])
    assert data.obs["slide"].tolist() == store.annotations("cells").slides[[30, 2]].tolist()
    array = embeddings.to_xarray()
    assert array.dims == ("annotation", "feature")
    assert np.array_equal(array.values, values)
    assert array.coords["label"].values.tolist() == store.annotations("cells").labels.tolist()


def test_batches_cover_every_row_once(embeddings, filled_store):
    ids, rows = zip(*embeddings.batches(16), strict=True)
    assert [len(batch) for batch in ids] == [16, 16, 8]
    assert np.array_equal(np.concatenate(rows), filled_store[1])
    assert np.concatenate(ids).tolist() == embeddings.ids.tolist()


def test_a_comparison_names_fields_and_the_worst_annotations(
    filled_store, tiny_spec, write_embeddings
):
    store, values = filled_store
    moved = values.copy()
    moved[7] *= -1
    moved[9, 0] += 1
    other = tiny_spec.at(key="other", precision="bfloat16")
    write_embeddings(store.path, "cells", other, moved)
    here, there = (store.embeddings(model, "cells") for model in ("tiny", "other"))
    result = compare(here, there)
    assert result.fields["encoder.precision"] == ("float32", "bfloat16")
    assert (result.n_common, result.n_only_here, result.n_only_there) == (40, 0, 0)
    assert result.ids[:2].tolist() == here.ids[[7, 9]].tolist()
    assert result.cosines[0] == pytest.approx(-1, abs=1e-3)
    assert result.cosines[2:].min() > 0.999
    assert compare(here, here).fields == {}


def test_views_are_compared_as_they_are_and_all_that_is_stored_where_that_is_given(
    vit_store, filled_store
):
    store, values = vit_store
    moved = values.copy()
    moved[7, 3] += 1  # in the patch mean
    write_vit(store.path, "cells", moved, spec=VIT.at(key="other"))
    here, there = (store.embeddings(model, "cells") for model in ("vit", "other"))
    assert compare(here, there).largest_differences.max() == 0
    assert compare(here.view("mean"), there.view("mean")).ids[0] == here.ids[7]
    whole = compare(here.whole, there.whole)
    assert whole.largest_differences.max() == pytest.approx(1)
    assert whole.fields.keys() - {"created"} == {"encoder.key"}
    fields = compare(here, here.view("mean+registers")).fields
    assert fields["dim"] == (2, 4)
    assert fields["encoder.pooling"] == ("class", "mean+registers")


def test_embeddings_without_a_common_id_cannot_be_compared(
    filled_store, tmp_path, tiny_spec, write_embeddings
):
    store, _ = filled_store
    featstore.create(tmp_path / "b")
    add_annotations(tmp_path / "b", featstore.AnnotationTable("d", ["nobody"], ["a"]))
    write_embeddings(tmp_path / "b", "d", tiny_spec, np.ones((1, 6)))
    other = featstore.open(tmp_path / "b").embeddings("tiny", "d")
    with pytest.raises(StoreError, match="have no annotation ID in common"):
        compare(store.embeddings("tiny", "cells"), other)


def test_tensorstore_opens_every_array(filled_store):
    tensorstore = pytest.importorskip("tensorstore")
    store, values = filled_store
    for folder in sorted(path.parent for path in store.path.rglob("c")):
        opened = tensorstore.open({"driver": "zarr3", "kvstore": f"file://{folder}"}).result()
        assert opened.shape
        if folder.name == "values":
            assert np.array_equal(opened.read().result(), values)
            assert [label.label for label in opened.domain] == ["annotation", "feature"]


def test_xarray_opens_a_dataset_of_its_columns(filled_store):
    xarray = pytest.importorskip("xarray")
    store, values = filled_store
    opened = xarray.open_zarr(store.path / "embeddings/tiny/cells", consolidated=False)
    assert np.array_equal(opened["values"].values, values)
    columns = xarray.open_zarr(store.path / "annotations/cells", consolidated=False)
    assert columns["x"].values.tolist() == store.annotations("cells").x.tolist()


def test_the_zarrs_pipeline_reads_the_same(filled_store):
    pytest.importorskip("zarrs")
    store, values = filled_store
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        array = zarr.open_array(store.path / "embeddings/tiny/cells/values", mode="r")
        assert np.array_equal(array[...], values)
