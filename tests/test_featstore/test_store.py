import json
import shutil

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import featstore
from featstore.errors import (
    AlreadyInStoreError,
    DigestError,
    EncoderError,
    NotInStoreError,
    StoreError,
)
from featstore.images import ImageFolder
from featstore.store.layout import create_root, rows_per_chunk
from featstore.store.writer import EmbeddingWriter, add_annotations
from tests.strategies import annotation_ids


@settings(max_examples=40)
@given(ids=annotation_ids, data=st.data())
def test_a_table_comes_back_as_it_was_added(tmp_path, ids, data):
    n = len(ids)
    texts = st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
        min_size=n,
        max_size=n,
    )
    table = featstore.AnnotationTable(
        "d",
        ids,
        data.draw(
            st.lists(st.sampled_from(["mitotic figure", "look-alike"]), min_size=n, max_size=n)
        ),
        {
            "x": np.array(data.draw(st.lists(st.floats(-1e6, 1e6), min_size=n, max_size=n))),
            "votes": np.array(data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))),
            "note": np.array(data.draw(texts)),
        },
    )
    shutil.rmtree(tmp_path / "s.zarr", ignore_errors=True)
    featstore.create(tmp_path / "s.zarr")
    add_annotations(tmp_path / "s.zarr", table)
    back = featstore.open(tmp_path / "s.zarr").annotations("d")
    assert back.ids.tolist() == table.ids.tolist()
    assert back.labels.tolist() == table.labels.tolist()
    for column, values in table.columns.items():
        assert back.column(column).tolist() == values.tolist()


@settings(max_examples=60)
@given(places=st.lists(st.integers(0, 39), max_size=60))
def test_embeddings_come_in_the_order_asked_duplicates_allowed(filled_store, places):
    store, values = filled_store
    embeddings = store.embeddings("tiny", "cells")
    rows = embeddings.read(embeddings.ids[places])
    assert rows.dtype == np.float32
    assert np.array_equal(rows, values[places])


def test_runs_sorted_and_reversed_lists_read_the_same_rows(filled_store):
    store, values = filled_store
    embeddings = store.embeddings("tiny", "cells")
    for places in (slice(5, 30), slice(None, None, -1), slice(0, 40, 3)):
        assert np.array_equal(embeddings.read(embeddings.ids[places]), values[places])
    assert embeddings.read(embeddings.ids[:2], dtype=np.float64).dtype == np.float64


def test_what_a_store_holds_is_listed(filled_store):
    store, _ = filled_store
    assert store.datasets() == ["cells"]
    row = featstore.EmbeddingInfo("tiny", "cells", 40, 6, "float32", True, ("class", "mean"))
    assert store.list() == [row]
    assert store.models("cells") == ["tiny"]


def test_provenance_says_how_embeddings_were_made(filled_store, tiny_spec, cells):
    provenance = filled_store[0].embeddings("tiny", "cells").provenance
    assert provenance.encoder == tiny_spec
    assert provenance.digest == tiny_spec.digest
    assert provenance.dataset_digest == cells.digest
    assert {"python", "numpy", "zarr"} <= set(provenance.versions)


@pytest.fixture
def large_table():
    """More rows than one chunk holds."""
    n = 1_000
    return featstore.AnnotationTable("large", np.arange(n), np.where(np.arange(n) % 2, "a", "b"))


def test_writing_again_after_a_stop_gives_the_same_bytes(
    tmp_path, large_table, tiny_spec, write_embeddings, chunks_of
):
    values = np.random.default_rng(0).normal(size=(1_000, 6))
    for name, stops in (("stopped", (1, 2, None)), ("whole", (None,))):
        path = tmp_path / name
        featstore.create(path)
        add_annotations(path, large_table)
        for n_chunks in stops:
            write_embeddings(path, "large", tiny_spec, values, n_chunks=n_chunks)
            listed = featstore.open(path).list()[0]
            assert listed.complete == (n_chunks is None)
    stopped, whole = (chunks_of(tmp_path / name, "tiny", "large") for name in ("stopped", "whole"))
    assert len(stopped) == 4
    assert stopped == whole


def test_rows_that_are_not_there_yet_are_refused_not_made_up(
    tmp_path, large_table, tiny_spec, write_embeddings
):
    featstore.create(tmp_path / "s")
    add_annotations(tmp_path / "s", large_table)
    write_embeddings(tmp_path / "s", "large", tiny_spec, np.ones((1_000, 6)), n_chunks=2)
    embeddings = featstore.open(tmp_path / "s").embeddings("tiny", "large")
    assert embeddings.info.rows == 512
    assert embeddings.read(np.arange(512)).shape == (512, 6)
    with pytest.raises(
        NotInStoreError,
        match=r"2 of 3 embeddings asked for are not in 'tiny/large' "
        r"yet \(first: ID 512\)",
    ):
        embeddings.read([511, 512, 999])


def test_another_encoder_under_the_same_name_is_refused_with_what_differs(filled_store, tiny_spec):
    store, _ = filled_store
    with pytest.raises(
        DigestError, match=r"precision: float32, bfloat16\); give the new one another"
    ):
        EmbeddingWriter(store.path, "cells", tiny_spec.at(precision="bfloat16"), parts={}, run={})


def test_a_value_that_is_not_finite_stops_the_run_and_names_its_annotation(
    tmp_path, large_table, tiny_spec, write_embeddings
):
    featstore.create(tmp_path / "s")
    add_annotations(tmp_path / "s", large_table)
    values = np.ones((1_000, 6))
    values[300, 2] = np.nan
    with pytest.raises(EncoderError, match="embedding of annotation 300 is not finite as float32"):
        write_embeddings(tmp_path / "s", "large", tiny_spec, values)
    assert featstore.open(tmp_path / "s").list()[0].rows == 256
    half = tiny_spec.at(key="half", precision="float16")
    with pytest.raises(EncoderError, match="annotation 0 is not finite as float16"):
        write_embeddings(tmp_path / "s", "large", half, np.full((1_000, 6), 1e6))


def test_names_that_would_leave_their_folder_are_refused(filled_store, cells, tiny_spec):
    store, _ = filled_store
    for name in ("../up", "a/b", "Upper", "", ".hidden", "a\nb"):
        with pytest.raises(StoreError, match="is not allowed"):
            add_annotations(store.path, featstore.AnnotationTable(name, [1], ["a"]))
        with pytest.raises(StoreError, match="is not allowed"):
            EmbeddingWriter(store.path, "cells", tiny_spec.at(key=name), parts={}, run={})
        with pytest.raises(NotInStoreError):
            store.annotations(name)
        with pytest.raises(NotInStoreError):
            store.embeddings(name, "cells")


def test_a_dataset_is_never_overwritten_and_a_failed_one_leaves_no_trace(filled_store, cells):
    store, _ = filled_store
    before = sorted(str(path) for path in store.path.rglob("*"))
    with pytest.raises(AlreadyInStoreError, match="'annotations/cells' is in"):
        add_annotations(store.path, cells)
    with pytest.raises(StoreError, match="column name 'Bad Name' is not allowed"):
        add_annotations(store.path, featstore.AnnotationTable("new", [1], ["a"], {"Bad Name": [1]}))
    with pytest.raises(TypeError):
        add_annotations(
            store.path, featstore.AnnotationTable("new", [1], ["a"]), source={"not": object()}
        )
    assert sorted(str(path) for path in store.path.rglob("*")) == before


def test_what_is_no_store_is_said_so(tmp_path):
    (tmp_path / "file").write_text("text")
    zarr.open_group(tmp_path / "other.zarr", mode="w")
    for name in ("file", "other.zarr", "."):
        with pytest.raises(StoreError, match="is not a featstore store"):
            featstore.open(tmp_path / name)
    with pytest.raises(NotInStoreError, match="no store at"):
        featstore.open(tmp_path / "nowhere")
    with pytest.raises(AlreadyInStoreError):
        featstore.create(tmp_path / "other.zarr")


def test_a_newer_format_is_refused(tmp_path):
    create_root(tmp_path / "s.zarr").attrs["featstore"] = {"format": "2.0"}
    with pytest.raises(StoreError, match=r"has the format 2.0, this installation reads up to 1\."):
        featstore.open(tmp_path / "s.zarr")


def test_what_is_not_there_is_answered_with_what_is(filled_store):
    store, _ = filled_store
    with pytest.raises(
        NotInStoreError, match=r"no embeddings 'virchow/cells' in .*; it holds tiny/cells"
    ):
        store.embeddings("virchow", "cells")
    with pytest.raises(NotInStoreError, match=r"no dataset 'midog' in .*; it holds cells"):
        store.annotations("midog")


def test_changed_labels_are_found_when_the_table_is_read(filled_store):
    store, _ = filled_store
    attributes = store.path / "annotations/cells/label/zarr.json"
    content = json.loads(attributes.read_text())
    content["attributes"]["categories"].reverse()
    attributes.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="annotations 'cells' are damaged"):
        store.annotations("cells")


def test_images_are_found_again_when_store_and_images_move_together(tmp_path, cells):
    home = tmp_path / "here"
    (home / "images").mkdir(parents=True)
    featstore.create(home / "s.zarr")
    add_annotations(home / "s.zarr", cells, folder=ImageFolder(str(home / "images")))
    home.rename(tmp_path / "there")
    folder = featstore.open(tmp_path / "there/s.zarr").image_folder("cells")
    assert folder == ImageFolder(str(tmp_path / "there/images"))


def test_eight_encoders_on_both_datasets_of_the_paper_stay_under_a_thousand_files():
    dims = {
        1536: "float16",
        2560: "float16",
        1024: "float32",
        768: "float32",
        2048: "float32",
        1280: "float32",
    }
    paper = [1536, 1536, 2560, 2560, 1024, 768, 2048, 1280]
    chunks = [
        -(-rows // rows_per_chunk(rows, dim, dims[dim]))
        for dim in paper
        for rows in (20_552, 72_845)
    ]
    assert sum(chunks) + 4 * len(chunks) < 1_000


def test_zarr_reads_every_array_without_this_library(filled_store):
    store, values = filled_store
    group = zarr.open_group(store.path, mode="r")
    assert np.array_equal(group["embeddings/tiny/cells/values"][...], values)
    assert group["embeddings/tiny/cells/values"].metadata.dimension_names == (
        "annotation",
        "feature",
    )
    ids = group["annotations/cells/id"][...]
    assert bytes(ids[0]).rstrip(b"\0").decode() == store.annotations("cells").ids[0]


def test_a_column_whose_values_are_lost_is_not_made_up(filled_store):
    store, _ = filled_store
    shutil.rmtree(store.path / "annotations/cells/domain/c")
    with pytest.raises(StoreError, match="annotations 'cells' are damaged: the values of 'domain'"):
        store.annotations("cells")


def test_an_array_that_never_got_a_chunk_is_taken_away_again(filled_store, tiny_spec):
    store, _ = filled_store
    with EmbeddingWriter(store.path, "cells", tiny_spec.at(key="new"), parts={}, run={}):
        pass
    assert [row.model for row in store.list()] == ["tiny"]


@pytest.mark.parametrize(
    "key",
    [
        "zarr.json",
        "annotations/cells/zarr.json",
        "annotations/cells/x/c/0",
        "annotations/cells/label/zarr.json",
        "embeddings/tiny/cells/values/c/0/0",
        "embeddings/tiny/cells/values/c",
        "embeddings/tiny",
    ],
)
def test_a_link_out_of_the_store_is_not_followed(filled_store, tmp_path, key):
    store, _ = filled_store
    inside, outside = store.path / key, tmp_path / "elsewhere"
    inside.rename(outside)
    inside.symlink_to(outside)
    with pytest.raises(StoreError, match="is a link that leads out of the store"):
        read_everything(store.path)


def read_everything(path):
    opened = featstore.open(path)
    opened.annotations("cells")
    embeddings = opened.embeddings("tiny", "cells")
    embeddings.read(embeddings.ids)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("annotations/cells/x", "'x' declares 8000000000000 bytes and holds 320"),
        ("embeddings/tiny/cells/values", "chunk 0 of .* has 964 bytes"),
    ],
)
def test_a_shape_that_is_not_there_is_refused_before_memory_is_taken(filled_store, name, message):
    store, _ = filled_store
    file = store.path / name / "zarr.json"
    content = json.loads(file.read_text())
    wide = 10**12 if name.endswith("x") else 10**9
    place = 0 if name.endswith("x") else 1
    content["shape"][place] = wide
    content["chunk_grid"]["configuration"]["chunk_shape"][place] = wide
    file.write_text(json.dumps(content))
    if name.endswith("values"):
        with pytest.raises(StoreError, match=r"shape \[40, 1000000000\], its parts make rows of 6"):
            read_everything(store.path)
        made_to_fit(file.parent.parent / "zarr.json", wide)
    with pytest.raises(StoreError, match=message):
        read_everything(store.path)


def made_to_fit(file, wide):
    """Change a provenance to be of rows as wide as the array now says."""
    content = json.loads(file.read_text())
    content["attributes"]["provenance"]["parts"] = {"class": [0, 3], "mean": [3, wide]}
    content["attributes"]["provenance"]["encoder"]["dim"] = wide
    file.write_text(json.dumps(content))
