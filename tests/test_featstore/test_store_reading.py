"""Ways out of a store: parts, frames, AnnData, xarray, batches, comparisons, other libraries."""

import numpy as np
import pytest
import zarr

import featstore
from featstore.errors import NotInStoreError, StoreError
from featstore.store.compare import compare


@pytest.fixture
def embeddings(filled_store):
    return filled_store[0].embeddings("tiny", "cells")


def test_a_part_is_read_alone(embeddings, filled_store):
    _, values = filled_store
    mean = embeddings.part("mean")
    assert mean.shape == (40, 3)
    assert np.array_equal(mean.read(mean.ids[::-2]), values[::-2, 3:])
    assert (mean.model, mean.digest) == ("tiny:mean", embeddings.digest)
    with pytest.raises(NotInStoreError, match="has no part 'register'; it has class, mean"):
        embeddings.part("register")


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
    assert compare(here, here.part("mean")).fields["dim"] == (6, 3)


def test_embeddings_without_a_common_id_cannot_be_compared(
    filled_store, tmp_path, tiny_spec, write_embeddings
):
    store, _ = filled_store
    featstore.create(tmp_path / "b")
    from featstore.store.writer import add_annotations

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
