import json
import shutil
import zipfile

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import featstore
from featstore.encoders.spec import EncoderSpec
from featstore.errors import AlreadyInStoreError, DigestError, NotInStoreError, StoreError
from featstore.store.exchange import LAYOUTS_OUT, export_embeddings, import_embeddings
from featstore.store.parquet import read_parquet
from featstore.store.writer import add_annotations
from tests.strategies import annotation_ids
from tests.test_featstore.test_store_reading import ONE_VIEW, VIT, seen, write_vit

OUR_LAYOUTS = pytest.mark.parametrize("layout", LAYOUTS_OUT)


@pytest.fixture
def export(filled_store, tmp_path):
    """Export the embeddings of the filled store."""

    def run(layout, name="out", **options):
        path = tmp_path / (f"{name}.parquet" if layout == "parquet" else name)
        export_embeddings(filled_store[0], "tiny", "cells", path, layout=layout, **options)
        return path

    return run


@pytest.fixture
def new_store(tmp_path):
    featstore.create(tmp_path / "new.zarr")
    return tmp_path / "new.zarr"


@pytest.fixture
def bring_in(new_store):
    """Import into an empty store, under the names d and m."""

    def run(path, **options):
        options = {"dataset": "d", "model": "m", **options}
        return import_embeddings(path, new_store, **options)

    return run


def files_of(folder):
    return {file: file.stat().st_size for file in folder.rglob("*")}


# What goes out


def test_hdf5_has_one_file_per_slide_with_the_datasets_that_clam_reads(export, filled_store):
    store, values = filled_store
    table = store.annotations("cells")
    folder = export("hdf5")
    assert sorted(file.name for file in folder.iterdir()) == [f"s{n}.h5" for n in (1, 2, 3, 4)]
    with h5py.File(folder / "s2.h5") as file:
        rows = np.flatnonzero(table.slides == "s2")
        assert file["features"].dtype == np.float32
        assert np.array_equal(file["features"][...], values[rows])
        assert file["annotation_ids"].asstr()[...].tolist() == table.ids[rows].tolist()
        assert file["labels"].asstr()[...].tolist() == table.labels[rows].tolist()
        assert file["coords"].dtype == np.int64
        assert file["coords"].shape == (10, 2)
        assert file["coords"].attrs["name"] == "s2"
        assert json.loads(file.attrs["provenance"])["encoder"]["key"] == "tiny"


def test_coords_are_corners_in_level_0_pixels_at_the_resolution_of_the_slide(
    tmp_path, new_store, write_embeddings, tiny_spec
):
    # 224 px at 0.25 um/px are 112 px at 0.5 um/px; the corner is 56 px from the centre.
    columns = {"x": [100.0, 200.5], "y": [300.0, 10.0], "mpp": [0.5, 0.5], "slide": ["a", "a"]}
    add_annotations(new_store, featstore.AnnotationTable("d", [7, 8], ["u", "v"], columns))
    write_embeddings(new_store, "d", tiny_spec.at(mpp=0.25, input_px=224), np.ones((2, 6)))
    store = featstore.open(new_store)
    export_embeddings(store, "tiny", "d", tmp_path / "out", layout="hdf5")
    with h5py.File(tmp_path / "out" / "a.h5") as file:
        assert file["coords"][...].tolist() == [[44, 244], [145, -46]]
        attributes = dict(file["coords"].attrs)
    assert attributes == {
        "name": "a",
        "overlap": 0,
        "patch_size": 224,
        "patch_level": 0,
        "patch_size_level0": 112,
        "level0_magnification": 20,
        "target_magnification": 40,
    }


def test_where_the_resolution_is_unknown_the_corner_keeps_the_cell_in_the_middle(
    export, filled_store
):
    table = filled_store[0].annotations("cells")
    with h5py.File(export("hdf5") / "s1.h5") as file:
        middle = file["coords"][...] + file["coords"].attrs["patch_size"] / 2
        assert "patch_size_level0" not in file["coords"].attrs
    rows = np.flatnonzero(table.slides == "s1")
    assert np.abs(middle[:, 0] - table.x[rows]).max() <= 0.5


def test_annotations_without_a_place_are_exported_without_coords(
    tmp_path, new_store, write_embeddings, tiny_spec
):
    add_annotations(new_store, featstore.AnnotationTable("d", [7, 8], ["u", "v"]))
    write_embeddings(new_store, "d", tiny_spec, np.ones((2, 6)))
    export_embeddings(featstore.open(new_store), "tiny", "d", tmp_path / "out", layout="hdf5")
    with h5py.File(tmp_path / "out" / "d.h5") as file:
        assert sorted(file) == ["annotation_ids", "features", "labels", "order"]


def test_slides_of_awkward_names_each_have_a_file_in_the_folder(
    tmp_path, new_store, write_embeddings, tiny_spec
):
    slides = ["../up", "/abs/x.tiff", "X.svs", "a b", "a_b", "", ".hidden"]
    table = featstore.AnnotationTable("d", np.arange(7), ["u"] * 7, {"slide": slides})
    add_annotations(new_store, table)
    write_embeddings(new_store, "d", tiny_spec, np.arange(42.0).reshape(7, 6))
    export_embeddings(featstore.open(new_store), "tiny", "d", tmp_path / "out", layout="hdf5")
    assert len(list((tmp_path / "out").iterdir())) == 7
    other = tmp_path / "other.zarr"
    featstore.create(other)
    back = import_embeddings(tmp_path / "out", other, dataset="d", model="tiny")
    assert np.array_equal(back.read(np.arange(7)), np.arange(42.0).reshape(7, 6))
    assert featstore.open(other).annotations("d").slides.tolist() == slides


def test_pandas_and_pyarrow_read_the_parquet_file_without_this_library(export, filled_store):
    store, values = filled_store
    path = export("parquet")
    frame = pd.read_parquet(path)
    assert frame["id"].tolist() == store.annotations("cells").ids.tolist()
    assert np.array_equal(np.stack(frame["embedding"]), values)
    table = pq.read_table(path)
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 6)
    assert json.loads(table.schema.metadata[b"featstore"])["dataset"] == "cells"


def test_numpy_reads_the_folder_without_this_library_and_without_pickle(export, filled_store):
    store, values = filled_store
    folder = export("npy")
    assert np.array_equal(np.load(folder / "values.npy", allow_pickle=False), values)
    ids = np.load(folder / "ids.npy", allow_pickle=False)
    assert ids.tolist() == store.annotations("cells").ids.tolist()
    assert json.loads((folder / "provenance.json").read_text())["encoder"]["dim"] == 6


@OUR_LAYOUTS
def test_an_export_overwrites_nothing(export, layout):
    path = export(layout)
    before = files_of(path) or path.read_bytes()
    with pytest.raises(AlreadyInStoreError, match="is there already"):
        export(layout)
    assert (files_of(path) or path.read_bytes()) == before


@pytest.fixture
def four_chunks(tmp_path, tiny_spec, write_embeddings):
    """A store with 1,000 embeddings in four chunks; and the files of these chunks."""
    slides = np.repeat(["a", "b", "c", "d"], 250)
    table = featstore.AnnotationTable("d", np.arange(1_000), ["u"] * 1_000, {"slide": slides})
    path = tmp_path / "four.zarr"
    featstore.create(path)
    add_annotations(path, table)
    write_embeddings(path, "d", tiny_spec, np.ones((1_000, 6)))
    folder = path / "embeddings" / "tiny" / "d" / "values" / "c"
    return path, [folder / str(number) / "0" for number in range(4)]


@OUR_LAYOUTS
def test_an_export_is_whole_or_not_there_at_all(four_chunks, tmp_path, layout):
    path, chunks = four_chunks
    before = sorted(tmp_path.iterdir())
    chunks[3].write_bytes(chunks[3].read_bytes()[:10])  # found when the rest is written
    with pytest.raises(StoreError):
        export_embeddings(featstore.open(path), "tiny", "d", tmp_path / "out", layout=layout)
    assert sorted(tmp_path.iterdir()) == before
    chunks[3].unlink()
    with pytest.raises(
        NotInStoreError, match=r"768 of 1000 embeddings of .* run 'featstore extract'"
    ):
        export_embeddings(featstore.open(path), "tiny", "d", tmp_path / "out", layout=layout)
    assert sorted(tmp_path.iterdir()) == before


# There and back


@OUR_LAYOUTS
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_export_comes_back_exactly_with_its_provenance(
    tmp_path, new_store, cells, tiny_spec, write_embeddings, bring_in, layout, precision
):
    spec = tiny_spec.at(precision=precision, terms="CC-BY-NC-ND-4.0, gated")
    there = tmp_path / "there.zarr"
    featstore.create(there)
    add_annotations(there, cells)
    write_embeddings(there, "cells", spec, np.random.default_rng(0).normal(size=(40, 6)))
    store = featstore.open(there)
    original = store.embeddings("tiny", "cells")
    path = tmp_path / "out.parquet"
    done = export_embeddings(store, "tiny", "cells", path, layout=layout)
    assert done.terms == "CC-BY-NC-ND-4.0, gated"
    back = bring_in(path, dataset="cells", model="tiny", layout=layout)
    table = featstore.open(new_store).annotations("cells")
    assert back.info == original.info
    assert back.ids.tolist() == original.ids.tolist()
    assert np.array_equal(back.read(back.ids, dtype=None), original.read(back.ids, dtype=None))
    assert table.digest == cells.digest
    for name, column in cells.columns.items():
        assert table.column(name).dtype == column.dtype
        assert np.array_equal(table.column(name), column)
    assert back.provenance.encoder == spec
    assert back.provenance.parts == original.provenance.parts
    assert back.provenance.run["imported"]["created"] == original.provenance.created


@OUR_LAYOUTS
@settings(max_examples=15)
@given(ids=annotation_ids, data=st.data())
def test_whatever_the_ids_and_slides_no_embedding_is_lost_or_moved(
    tmp_path, write_embeddings, tiny_spec, layout, ids, data
):
    n = len(ids)
    slides = data.draw(st.lists(st.sampled_from(["a", "ä/b", "c"]), min_size=n, max_size=n))
    for name in ("from.zarr", "to.zarr", "out"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    featstore.create(tmp_path / "from.zarr")
    featstore.create(tmp_path / "to.zarr")
    table = featstore.AnnotationTable("d", ids, ["u"] * n, {"slide": slides})
    add_annotations(tmp_path / "from.zarr", table)
    values = np.arange(6.0 * n).reshape(n, 6)
    write_embeddings(tmp_path / "from.zarr", "d", tiny_spec, values)
    out = tmp_path / "out" if layout != "parquet" else tmp_path / "out.parquet"
    if out.is_file():
        out.unlink()
    export_embeddings(featstore.open(tmp_path / "from.zarr"), "tiny", "d", out, layout=layout)
    back = import_embeddings(out, tmp_path / "to.zarr", dataset="d", model="tiny")
    assert back.ids.tolist() == table.ids.tolist()
    assert np.array_equal(back.read(table.ids), values)


def test_rounded_embeddings_never_pass_for_those_in_full_precision(export, bring_in, filled_store):
    store, values = filled_store
    path = export("npy", dtype="float16")
    back = bring_in(path)
    assert back.info.dtype == "float16"
    assert np.array_equal(back.read(back.ids), values.astype(np.float16).astype(np.float32))
    assert back.digest != store.embeddings("tiny", "cells").digest
    with pytest.raises(DigestError):
        import_embeddings(path, store.path, dataset="cells", model="tiny")


@OUR_LAYOUTS
def test_an_export_of_chosen_rows_meets_a_dataset_in_another_order(
    tmp_path, export, cells, layout, filled_store
):
    other = tmp_path / "other.zarr"
    featstore.create(other)
    add_annotations(other, cells.take(cells.ids[::-1]))
    back = import_embeddings(export(layout), other, dataset="cells", model="tiny")
    assert np.array_equal(back.read(cells.ids), filled_store[1])


@OUR_LAYOUTS
@pytest.mark.parametrize(
    "pooling", ["class", "mean", "class+mean", "registers+class", ONE_VIEW[-1]]
)
def test_a_view_comes_back_exactly_with_its_digest_and_parts(
    tmp_path, filled_store, bring_in, layout, pooling
):
    store, values = filled_store
    write_vit(store.path, "cells", values)
    view, path = store.embeddings(f"vit:{pooling}", "cells"), tmp_path / "out.parquet"
    done = export_embeddings(store, f"vit:{pooling}", "cells", path, layout=layout)
    assert done.shape == view.shape
    back = bring_in(path, dataset="cells", model="new", layout=layout)
    assert np.array_equal(back.read(view.ids), seen(values, pooling))
    assert (back.model, back.digest) == ("new", view.digest)
    assert back.provenance.spec == VIT.at(key="new", pooling=pooling, dim=view.shape[1])
    assert back.parts == view.provenance.parts
    assert list(back.parts) == pooling.split("+")
    for name in pooling.split("+"):
        part = back.view(name)
        assert np.array_equal(part.read(part.ids), seen(values, name))
        assert part.digest == store.embeddings(f"vit:{name}", "cells").digest


@OUR_LAYOUTS
def test_a_model_without_a_pooling_is_exported_as_it_is_shown(tmp_path, filled_store, layout):
    store, values = filled_store
    write_vit(store.path, "cells", values)
    path = tmp_path / "out.parquet"
    assert export_embeddings(store, "vit", "cells", path, layout=layout).shape == (40, 2)
    featstore.create(tmp_path / "b")
    back = import_embeddings(path, tmp_path / "b", dataset="cells", model="vit", layout=layout)
    assert back.digest == VIT.digest
    assert back.parts == {"class": (0, 2)}
    with pytest.raises(DigestError, match="holds the parts class, mean, registers; class were ask"):
        import_embeddings(path, store.path, dataset="cells", model="vit", layout=layout)


def test_a_view_is_imported_under_a_name_of_its_own(export, bring_in, new_store):
    with pytest.raises(
        StoreError,
        match=r"'vit:class\+mean' is that of a view; import it under .*such as 'vit-class-mean'$",
    ):
        bring_in(export("npy"), model="vit:class+mean")
    assert featstore.open(new_store).datasets() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": {"class": [0, 3], "mean": [4, 6]}}, "'mean' is 4 to 6, and 3 is where it must"),
        ({"parts": {"class": [0, 3], "mean": [3, 9]}}, "default view 'class\\+mean' is 9 long"),
        ({"parts": {"class": "03", "mean": "36"}}, "not a start and a stop"),
        ({"parts": {"class": [0, 3], "mean": 6}}, "provenance that cannot be read"),
        ({"parts": {"class": [-3, 3], "mean": [3, 6]}}, "'class' is -3 to 3, and 0 is where it"),
        ({"dim": "6"}, "its encoder has dim '6'"),
        ({"dim": 7}, "default view 'class\\+mean' is 6 long, its encoder says 7"),
    ],
)
def test_a_provenance_whose_parts_make_no_sense_is_refused(
    export, bring_in, new_store, change, message
):
    path = export("npy")
    provenance = json.loads((path / "provenance.json").read_text())
    provenance["encoder"] |= {key: value for key, value in change.items() if key == "dim"}
    provenance |= {key: value for key, value in change.items() if key == "parts"}
    (path / "provenance.json").write_text(json.dumps(provenance))
    with pytest.raises(StoreError, match=message):
        bring_in(path)
    assert featstore.open(new_store).datasets() == []


def test_of_files_without_a_provenance_no_pooling_is_known(tmp_path, bring_in):
    np.save(tmp_path / "v.npy", np.ones((5, 3), np.float32))
    back = bring_in(tmp_path / "v.npy", label="u")
    assert (back.provenance.encoder.pooling, back.info.parts) == ("unknown", ())
    with pytest.raises(NotInStoreError, match="'m/d' has no view 'class'; its parts are none"):
        back.view("class")


# What other tools write


def write_slide(path, values, coords=None, **attributes):
    with h5py.File(path, "w") as file:
        # As CLAM and TRIDENT write: chunks of one row, room to grow.
        options = {"chunks": (1, *values.shape[1:]), "maxshape": (None, *values.shape[1:])}
        file.create_dataset("features", data=values, **options)
        if coords is not None:
            file.create_dataset("coords", data=coords, chunks=(1, 2), maxshape=(None, 2))
            file["coords"].attrs.update(attributes)


@pytest.fixture
def trident_folder(tmp_path):
    """Two slides, 3 and 5 patches of 512 level-0 pixels."""
    folder = tmp_path / "features_uni_v1"
    folder.mkdir()
    rng = np.random.default_rng(0)
    values = {}
    for name, n in (("slide-A", 3), ("slide-B", 5)):
        values[name] = rng.normal(size=(n, 8)).astype(np.float32)
        corners = np.arange(2 * n).reshape(n, 2) * 512
        write_slide(
            folder / f"{name}.h5", values[name], corners, patch_size=256, patch_size_level0=512
        )
    return folder, values


def test_a_folder_of_trident_comes_in_with_ids_slides_and_centres(
    trident_folder, bring_in, new_store
):
    folder, values = trident_folder
    back = bring_in(folder, label="tissue")
    assert back.ids.tolist() == [f"slide-A-{n}" for n in range(3)] + [
        f"slide-B-{n}" for n in range(5)
    ]
    assert np.array_equal(back.read(back.ids), np.concatenate(list(values.values())))
    table = featstore.open(new_store).annotations("d")
    assert set(table.labels) == {"tissue"}
    assert table.slides.tolist() == ["slide-A"] * 3 + ["slide-B"] * 5
    assert table.x[:2].tolist() == [256, 1280]
    assert table.y[:2].tolist() == [768, 1792]
    encoder = back.provenance.encoder
    assert encoder.architecture == "unknown"
    assert encoder.weights.startswith("imported:")
    assert encoder.mpp is None
    assert featstore.open(new_store).source("d")["reader"] == "hdf5"


def test_labels_of_slides_come_from_a_csv_as_clam_has_it(
    trident_folder, bring_in, new_store, tmp_path
):
    csv = tmp_path / "labels.csv"
    csv.write_text("case_id,slide_id,label\np1,slide-A,tumour\np2,slide-B,normal\n")
    bring_in(trident_folder[0], labels=csv)
    table = featstore.open(new_store).annotations("d")
    assert table.labels.tolist() == ["tumour"] * 3 + ["normal"] * 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("slide,label\nslide-A,tumour\n", "no label for slide 'slide-B'"),
        ("slide,label\nslide-A,u\nslide-A,v\n", "'slide-A' more than once"),
        ("patient,label\np,u\n", "'label' and one of 'id', 'slide' or 'slide_id' are needed"),
    ],
)
def test_a_csv_that_does_not_label_every_slide_once_is_refused(
    trident_folder, bring_in, new_store, tmp_path, content, message
):
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(StoreError, match=message):
        bring_in(trident_folder[0], labels=tmp_path / "labels.csv")
    assert featstore.open(new_store).datasets() == []


def test_a_file_of_clam_may_have_a_leading_axis_and_no_size_of_its_patches(
    tmp_path, bring_in, new_store
):
    values = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["features"] = values
        file["coords"] = np.array([[0, 0], [256, 0], [512, 256]], dtype=np.int32)
    back = bring_in(tmp_path / "s.h5", label="u")
    assert np.array_equal(back.read(["s-2", "s-0"]), values[0, [2, 0]])
    columns = featstore.open(new_store).annotations("d").columns
    assert columns["corner_x"].tolist() == [0, 256, 512]
    assert "x" not in columns
    bring_in(tmp_path / "s.h5", label="u", dataset="known", patch_px=256)
    assert featstore.open(new_store).annotations("known").x.tolist() == [128, 384, 640]


def test_labels_given_for_a_dataset_that_is_there_must_be_its_own(trident_folder, bring_in):
    bring_in(trident_folder[0], label="tissue")
    bring_in(trident_folder[0], label="tissue", model="again")
    with pytest.raises(StoreError, match="8 annotations have other labels"):
        bring_in(trident_folder[0], label="tumour", model="third")


def test_without_labels_nothing_is_imported_and_the_user_is_told_how(
    trident_folder, bring_in, new_store
):
    before = files_of(new_store)
    with pytest.raises(StoreError, match=r"no labels and .* give --label TEXT .* or --labels CSV"):
        bring_in(trident_folder[0])
    assert files_of(new_store) == before


def test_two_imports_of_other_files_are_never_taken_for_the_same(trident_folder, bring_in):
    folder, values = trident_folder
    bring_in(folder, label="u")
    write_slide(folder / "slide-A.h5", values["slide-A"] + 1)
    write_slide(folder / "slide-B.h5", values["slide-B"])
    with pytest.raises(DigestError, match="weights: imported:"):
        bring_in(folder, label="u")


def test_imported_ids_must_be_those_of_the_dataset(export, tmp_path, cells, new_store):
    path = export("npy")
    add_annotations(new_store, cells.take(cells.ids[:39]))
    with pytest.raises(
        StoreError, match=r"1 IDs are only in the files, 0 only in the store .*--dataset"
    ):
        import_embeddings(path, new_store, dataset="cells", model="tiny")
    featstore.create(tmp_path / "third.zarr")
    changed = featstore.AnnotationTable("cells", cells.ids, ["other"] * 40)
    add_annotations(tmp_path / "third.zarr", changed)
    with pytest.raises(StoreError, match=r"40 annotations have other labels"):
        import_embeddings(path, tmp_path / "third.zarr", dataset="cells", model="tiny")
    assert featstore.open(tmp_path / "third.zarr").list() == []


@OUR_LAYOUTS
def test_a_provenance_that_was_changed_on_the_way_is_refused(export, bring_in, layout):
    path = export(layout)
    if layout == "hdf5":
        for slide in path.iterdir():
            with h5py.File(slide, "r+") as file:
                file.attrs["provenance"] = file.attrs["provenance"].replace("random:0", "random:1")
    elif layout == "npy":
        text = (path / "provenance.json").read_text()
        (path / "provenance.json").write_text(text.replace("random:0", "random:1"))
    else:
        table = pq.read_table(path)
        old = table.schema.metadata[b"featstore"].decode()
        new = table.replace_schema_metadata({"featstore": old.replace("random:0", "random:1")})
        pq.write_table(new, path)
    with pytest.raises(StoreError, match="was changed: it says sha256"):
        bring_in(path)


def test_a_row_that_is_not_finite_is_named_and_nothing_is_written(tmp_path, bring_in, new_store):
    values = np.ones((5, 3), np.float32)
    values[3, 1] = np.inf
    np.save(tmp_path / "v.npy", values)
    before = files_of(new_store)
    with pytest.raises(StoreError, match=r"embedding of 'v-3' .* is not finite"):
        bring_in(tmp_path / "v.npy", label="u")
    assert files_of(new_store) == before


def test_a_parquet_file_of_another_tool_comes_in_by_the_names_of_its_columns(
    tmp_path, bring_in, new_store
):
    frame = pd.DataFrame(
        {
            "cell": [5, 3],
            "Patient ID": ["p", None],
            "vector": [np.ones(3, np.float32), np.zeros(3, np.float32)],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    back = bring_in(tmp_path / "t.parquet", ids="cell", values="vector", label="u")
    assert back.read([3, 5])[:, 0].tolist() == [0, 1]
    assert featstore.open(new_store).annotations("d").column("patient_id").tolist() == ["p", ""]


def test_parquet_columns_of_any_kind_come_along(tmp_path, bring_in, new_store):
    frame = pd.DataFrame(
        {
            "embedding": [np.ones(2), np.zeros(2)],
            "scanner": pd.Categorical(["s", "t"]),
            "scanned": pd.to_datetime(["2024-05-01", None]),
            "grade": pd.Categorical([3, 1]),
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    bring_in(tmp_path / "t.parquet", label="u")
    columns = featstore.open(new_store).annotations("d").columns
    assert columns["scanner"].tolist() == ["s", "t"]
    assert columns["scanned"].tolist() == ["2024-05-01 00:00:00", ""]
    assert columns["grade"].tolist() == [3, 1]


def test_lists_of_different_length_are_no_embeddings(tmp_path, bring_in):
    for rows in ([[1.0, 2.0], [1.0]], [[1.0, 2.0, 3.0], [1.0]], [[1.0], None]):
        pq.write_table(pa.table({"embedding": rows}), tmp_path / "t.parquet")
        with pytest.raises(StoreError, match="length"):
            bring_in(tmp_path / "t.parquet", label="u")


# Zarr of other tools


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("zipped", [False, True])
def test_an_array_of_another_tool_comes_in_with_an_array_of_ids(
    tmp_path, bring_in, zarr_format, zipped
):
    values = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    group = zarr.open_group(tmp_path / "t.zarr", mode="w", zarr_format=zarr_format)
    group.create_array("deep/features", data=values, chunks=(7, 5))
    group.create_array("cell", data=np.arange(100, 130))
    path = tmp_path / "t.zarr"
    if zipped:
        shutil.make_archive(tmp_path / "t.zarr", "zip", path)
        path = tmp_path / "t.zarr.zip"
    back = bring_in(path, ids="cell", label="u")  # the one matrix is found by itself
    assert np.array_equal(back.read(np.arange(100, 130)), values)


def test_the_features_of_a_real_slide_come_in_from_wsidata(real_data, bring_in):
    path = real_data / "interop" / "wsidata_sample.zarr.zip"
    table = "tables/resnet50_tiles"
    numbered = bring_in(path, values=f"{table}/X", ids=f"{table}/obs/tile_id", label="tile")
    assert numbered.shape == (52, 2048)
    assert numbered.ids.tolist() == list(range(52))
    named = bring_in(
        path, values=f"{table}/X", ids=f"{table}/obs/_index", label="tile", dataset="named"
    )
    assert named.ids[:2].tolist() == ["0", "1"]
    expected = zarr.open_array(
        zarr.storage.ZipStore(path, mode="r"), path=f"{table}/X", mode="r", zarr_format=2
    )[...]
    assert np.array_equal(numbered.read(numbered.ids), expected)
    assert np.array_equal(named.read(named.ids), expected)


def test_sharded_arrays_of_javascript_and_rust_come_in(real_data, bring_in):
    interop = real_data / "interop"
    rust = bring_in(interop / "zarrs_rust_sharded_v3.zarr", values="group/array", label="u")
    assert np.array_equal(rust.read(rust.ids), np.arange(64).reshape(8, 8))
    javascript = bring_in(
        interop / "zarrita_js_v3" / "2d.chunked.compressed.sharded.i2", label="u", dataset="js"
    )
    assert np.array_equal(javascript.read(javascript.ids), np.arange(1, 17).reshape(4, 4))
    flat = interop / "zarrita_js_v3" / "1d.contiguous.compressed.sharded.f4"
    with pytest.raises(StoreError, match=r"0 arrays that could be embeddings"):
        bring_in(flat, label="u", dataset="flat")


# Hostile files


def refused(bring_in, new_store, path, message, **options):
    before = files_of(new_store)
    with pytest.raises(StoreError, match=message) as caught:
        bring_in(path, label="u", **options)
    assert "\n" not in str(caught.value)
    assert files_of(new_store) == before


@pytest.mark.parametrize("name", ["features", "coords", "annotation_ids", "labels", "order"])
def test_hdf5_links_are_not_followed(tmp_path, bring_in, new_store, name):
    write_slide(tmp_path / "secret.h5", np.ones((3, 2), np.float32), np.ones((3, 2)))
    for kind in (h5py.ExternalLink(tmp_path / "secret.h5", name), h5py.SoftLink("/elsewhere")):
        with h5py.File(tmp_path / "s.h5", "w") as file:
            file["features"] = np.ones((3, 2), np.float32)
            if name == "features":
                del file["features"]
            file[name] = kind
        refused(bring_in, new_store, tmp_path / "s.h5", "links are not followed")


def test_hdf5_groups_by_link_are_not_followed(tmp_path, bring_in, new_store):
    write_slide(tmp_path / "secret.h5", np.ones((3, 2), np.float32))
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["features"] = np.ones((3, 2), np.float32)
        file["columns"] = h5py.ExternalLink(tmp_path / "secret.h5", "/")
        file["other"] = h5py.ExternalLink(tmp_path / "secret.h5", "/")
    refused(bring_in, new_store, tmp_path / "s.h5", "links are not followed")
    refused(bring_in, new_store, tmp_path / "s.h5", "not followed", values="other/features")


def test_hdf5_views_of_other_files_are_not_read(tmp_path, bring_in, new_store):
    write_slide(tmp_path / "secret.h5", np.ones((3, 2), np.float32))
    virtual = h5py.VirtualLayout((3, 2), np.float32)
    virtual[...] = h5py.VirtualSource(tmp_path / "secret.h5", "features", (3, 2))
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_virtual_dataset("features", virtual)
    refused(bring_in, new_store, tmp_path / "s.h5", "keeps its values in other files")
    (tmp_path / "raw").write_bytes(b"\0" * 24)
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file.create_dataset("features", (3, 2), np.float32, external=str(tmp_path / "raw"))
    refused(bring_in, new_store, tmp_path / "e.h5", "keeps its values in other files")


def test_hdf5_objects_references_and_text_of_any_length_are_not_read(tmp_path, bring_in, new_store):
    for kind in (h5py.ref_dtype, h5py.string_dtype(), h5py.vlen_dtype(np.float32)):
        with h5py.File(tmp_path / "s.h5", "w") as file:
            file["features"] = np.ones((3, 2), np.float32)
            file.create_dataset("annotation_ids", (3,), dtype=kind)
        refused(bring_in, new_store, tmp_path / "s.h5", "only numbers and plain text are read")


@pytest.mark.parametrize("rows", [10**12, 10**9])
def test_hdf5_rows_that_are_declared_and_not_there_take_no_memory(
    tmp_path, bring_in, new_store, rows
):
    with h5py.File(tmp_path / "chunked.h5", "w") as file:
        file.create_dataset("features", (rows, 8), np.float32, chunks=(1024, 8))
    refused(bring_in, new_store, tmp_path / "chunked.h5", "chunks; it was not written whole")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file.create_dataset("features", (rows, 8), np.float32)
    refused(bring_in, new_store, tmp_path / "plain.h5", "declares the shape")


def test_hdf5_chunks_that_swell_are_refused_before_they_are_unpacked(tmp_path, bring_in, new_store):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        shape = (100_000, 512)  # 200 MB of zeros in a file of 0.2 MB
        zeros = file.create_dataset("features", shape, np.float32, chunks=shape, compression="gzip")
        zeros[...] = 0
    refused(bring_in, new_store, tmp_path / "s.h5", "made to fill the memory")


def test_hdf5_filters_from_plugins_are_not_loaded(tmp_path, bring_in, new_store):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        settings_ = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings_.set_chunk((3, 2))
        settings_.set_filter(32_767, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((3, 2))
        dataset = h5py.h5d.create(file.id, b"features", h5py.h5t.IEEE_F32LE, space, settings_)
        h5py.Dataset(dataset)[...] = 1
    refused(bring_in, new_store, tmp_path / "s.h5", "HDF5 filter 32767, a plugin")


def test_what_is_no_hdf5_or_cut_short_is_said_in_one_line(tmp_path, bring_in, new_store):
    write_slide(tmp_path / "s.h5", np.ones((300, 20), np.float32))
    (tmp_path / "s.h5").write_bytes((tmp_path / "s.h5").read_bytes()[:-4_000])
    refused(bring_in, new_store, tmp_path / "s.h5", "cannot be read as HDF5")
    (tmp_path / "t.h5").write_text("text")
    refused(bring_in, new_store, tmp_path / "t.h5", "cannot be read as HDF5")


def test_pickled_numpy_files_are_not_loaded(tmp_path, bring_in, new_store):
    np.save(tmp_path / "v.npy", np.array([[print]], dtype=object), allow_pickle=True)
    refused(bring_in, new_store, tmp_path / "v.npy", "cannot be read as a plain .npy file")
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "folder" / "values.npy", np.ones((1, 2)))
    np.save(tmp_path / "folder" / "ids.npy", np.array([print]), allow_pickle=True)
    refused(bring_in, new_store, tmp_path / "folder", "cannot be read as a plain .npy file")


def test_a_numpy_header_that_declares_more_than_the_file_holds_takes_no_memory(
    tmp_path, bring_in, new_store
):
    for shape in ((10**12, 8), (2**40, 2**40), (-1, 4)):
        with (tmp_path / "v.npy").open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(b"\0" * 64)
        refused(bring_in, new_store, tmp_path / "v.npy", "cannot be read as a plain .npy file")


@pytest.mark.parametrize("layout", ["npy", "hdf5"])
def test_links_in_a_folder_are_not_followed(export, tmp_path, bring_in, new_store, layout):
    folder = export(layout)
    file = next(file for file in folder.iterdir() if file.suffix in (".npy", ".h5"))
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    refused(bring_in, new_store, folder, "is a link")


def test_a_parquet_file_cut_short_or_swollen_is_refused(tmp_path, bring_in, new_store):
    pq.write_table(pa.table({"embedding": [[1.0, 2.0]] * 50}), tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-40])
    refused(bring_in, new_store, tmp_path / "t.parquet", "cannot be read as Parquet")
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(40_000_000, np.float32)), 1_000)
    pq.write_table(pa.table({"embedding": zeros}), tmp_path / "z.parquet", compression="zstd")
    assert (tmp_path / "z.parquet").stat().st_size < 1_000_000
    refused(bring_in, new_store, tmp_path / "z.parquet", "made to fill the memory")


def test_one_long_text_repeated_in_parquet_takes_no_memory(tmp_path, bring_in, new_store):
    table = pa.table({"label": ["x" * 100_000] * 1_000, "embedding": [[1.0]] * 1_000})
    pq.write_table(table, tmp_path / "t.parquet")
    refused(bring_in, new_store, tmp_path / "t.parquet", "made to fill the memory")


def hostile_zarr(path, edit, *, zarr_format=2):
    array = zarr.create_array(
        path, shape=(6, 4), chunks=(3, 4), dtype="float32", zarr_format=zarr_format
    )
    array[...] = 1
    file = path / (".zarray" if zarr_format == 2 else "zarr.json")
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "|O", "filters": [{"id": "pickle"}]}, "objects are never decoded"),
        ({"dtype": "|O", "filters": [{"id": "json2"}]}, "objects are never decoded"),
        ({"dtype": "|O", "filters": None}, "objects are never decoded"),
        ({"dtype": [["a", "|O"]]}, "objects are never decoded"),
        ({"filters": [{"id": "pickle"}]}, "needs the codec 'pickle'"),
        ({"compressor": {"id": "nowhere"}}, "needs the codec 'nowhere'"),
        ({"shape": [10**12, 4]}, "chunks are not there"),
        ({"shape": [10**12, 4], "chunks": [10**12, 4]}, "declares the shape"),
        ({"chunks": [0, 4]}, "cannot be read"),
        ({"chunks": "all"}, "cannot be read"),
        ({"shape": None}, "cannot be read|could be embeddings"),
    ],
)
def test_zarr_2_metadata_is_checked_before_anything_is_decoded(
    tmp_path, bring_in, new_store, changes, message
):
    path = hostile_zarr(tmp_path / "t.zarr", lambda content: content.update(changes))
    refused(bring_in, new_store, path, message, values="/")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codecs": [{"name": "bytes"}, {"name": "numcodecs.pickle"}]}, "'numcodecs.pickle'"),
        ({"data_type": "bytes"}, "objects are never decoded"),
        ({"data_type": {"name": "struct"}}, "objects are never decoded"),
        ({"shape": [10**12, 4]}, "chunks are not there"),
        ({"storage_transformers": [{"name": "x"}]}, "storage transformers"),
        ({"chunk_grid": {"name": "mine"}}, "grid is not regular"),
    ],
)
def test_zarr_3_metadata_is_checked_before_anything_is_decoded(
    tmp_path, bring_in, new_store, changes, message
):
    path = hostile_zarr(tmp_path / "t.zarr", lambda content: content.update(changes), zarr_format=3)
    refused(bring_in, new_store, path, message, values="/")


def test_codecs_inside_of_shards_are_checked_too(tmp_path, bring_in, new_store):
    array = zarr.create_array(
        tmp_path / "t.zarr", shape=(8, 4), shards=(4, 4), chunks=(2, 4), dtype="float32"
    )
    array[...] = 1
    file = tmp_path / "t.zarr" / "zarr.json"
    content = json.loads(file.read_text())
    content["codecs"][0]["configuration"]["codecs"].append({"name": "evil"})
    file.write_text(json.dumps(content))
    refused(bring_in, new_store, tmp_path / "t.zarr", "needs the codec 'evil'")


def test_zarr_chunks_that_are_missing_are_not_made_up(tmp_path, bring_in, new_store):
    path = hostile_zarr(tmp_path / "t.zarr", lambda content: None)
    (path / "1.0").unlink()
    refused(bring_in, new_store, path, "1 of its 2 chunks are not there")


def test_zarr_chunks_of_garbage_are_an_error_in_one_line(tmp_path, bring_in, new_store):
    path = hostile_zarr(tmp_path / "t.zarr", lambda content: None)
    (path / "1.0").write_bytes(b"garbage")
    refused(bring_in, new_store, path, "do not decode")


def test_zarr_links_and_zip_entries_out_of_the_archive_are_refused(tmp_path, bring_in, new_store):
    path = hostile_zarr(tmp_path / "t.zarr", lambda content: None)
    (path / "1.0").rename(tmp_path / "secret")
    (path / "1.0").symlink_to(tmp_path / "secret")
    refused(bring_in, new_store, path, "is a link")
    linked = zipfile.ZipInfo("linked")
    linked.external_attr = 0o120777 << 16
    for number, entry in enumerate(["../up", "/abs", linked]):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            archive.writestr(entry, "text")
        refused(bring_in, new_store, tmp_path / f"{number}.zip", "is not read")


def test_names_that_would_leave_the_store_are_refused_before_reading(tmp_path, bring_in):
    np.save(tmp_path / "v.npy", np.ones((2, 2)))
    for names in ({"dataset": "../up"}, {"model": "a/b"}):
        with pytest.raises(StoreError, match="is not allowed"):
            bring_in(tmp_path / "v.npy", label="u", **names)


def test_integers_that_float32_cannot_hold_are_not_taken_for_embeddings(
    tmp_path, bring_in, new_store
):
    np.save(tmp_path / "v.npy", np.ones((2, 2), np.int64))
    refused(bring_in, new_store, tmp_path / "v.npy", "integers of at most 16 bits")
    np.save(tmp_path / "u.npy", np.ones(4))
    refused(bring_in, new_store, tmp_path / "u.npy", "shape")


def test_a_wrong_layout_and_a_missing_path_are_answered_with_what_there_is(
    tmp_path, bring_in, new_store, filled_store
):
    refused(bring_in, new_store, tmp_path / "nowhere", "does not exist")
    (tmp_path / "empty").mkdir()
    refused(bring_in, new_store, tmp_path / "empty", "give --layout")
    refused(bring_in, new_store, tmp_path / "empty", "no layout 'csv'", layout="csv")
    with pytest.raises(StoreError, match="there are hdf5, parquet, npy"):
        export_embeddings(filled_store[0], "tiny", "cells", tmp_path / "o", layout="csv")


def test_an_import_that_was_stopped_goes_on_where_it_was(tmp_path, bring_in, new_store):
    values = np.random.default_rng(0).normal(size=(1_000, 6)).astype(np.float32)
    np.save(tmp_path / "v.npy", values)
    back = bring_in(tmp_path / "v.npy", label="u")
    chunks = sorted((new_store / "embeddings/m/d/values/c").rglob("0"))
    chunks[-1].unlink()
    back = bring_in(tmp_path / "v.npy")
    assert back.info.complete
    assert np.array_equal(back.read(back.ids), values)


def test_the_specification_of_an_import_reads_back(tmp_path, bring_in):
    np.save(tmp_path / "v.npy", np.ones((2, 3), np.float16))
    encoder = bring_in(tmp_path / "v.npy", label="u").provenance.encoder
    assert EncoderSpec.from_json(encoder.to_json()) == encoder
    assert encoder.precision == "float16"


@settings(max_examples=30)
@given(data=st.data())
def test_a_parquet_file_with_a_damaged_footer_is_read_or_refused_in_one_line(tmp_path, data):
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(80, dtype=np.float32)), 4)
    table = pa.table({"id": list(range(20)), "embedding": vectors, "label": ["a", "b"] * 10})
    path = tmp_path / "t.parquet"
    pq.write_table(table, path)
    content = bytearray(path.read_bytes())
    n_footer = int.from_bytes(content[-8:-4], "little")
    for place in data.draw(st.lists(st.integers(9, 8 + n_footer), min_size=1, max_size=3)):
        content[-place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        parcel = read_parquet(path)
        rows = parcel.rows.run(0, parcel.rows.shape[0])
    except StoreError as error:
        rows, message = None, str(error)
    assert "\n" not in message if rows is None else rows.ndim == 2
