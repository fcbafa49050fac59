"""What a copy promises: the same bytes, nothing overwritten, and all of it or a way to go on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore, WrapperStore

import featstore
from featstore.encoders.spec import EncoderSpec
from featstore.errors import (
    DamagedChunkError,
    DigestError,
    LockedError,
    NotInStoreError,
    StoreError,
)
from featstore.images import ImageFolder
from featstore.store.lock import writer_lock
from featstore.store.manifest import MANIFEST, check_manifest, write_manifest
from featstore.store.seal import SEAL, parse, seal, seal_of
from featstore.store.transfer import copy
from featstore.store.writer import EmbeddingWriter, add_annotations, extend_annotations

N, DIM = 1_100, 6  # five chunks of 256 rows, the last one not full


def table(ids, **changes):
    """Annotations whose columns follow from their IDs, so that any two tables agree."""
    ids = np.asarray(ids)
    columns = {"x": ids * 0.5, "y": ids * 2.0, "image": np.char.add("i", (ids % 7).astype(str))}
    labels = np.where(ids % 3 == 0, "mitotic figure", "look-alike")
    return featstore.AnnotationTable("large", ids, labels, {**columns, **changes})


def values_of(ids):
    """Embeddings that follow from the IDs."""
    return (np.asarray(ids)[:, None] * 10 + np.arange(DIM)).astype(np.float32)


@pytest.fixture
def store_of(tmp_path, tiny_spec, write_embeddings):
    """Make a store of annotations with these IDs and, unless asked otherwise, embeddings."""

    def make(name, ids, *, embedded=True, spec=tiny_spec, n_chunks=None, **changes):
        path = tmp_path / name
        shutil.rmtree(path, ignore_errors=True)
        featstore.create(path)
        add_annotations(path, table(ids, **changes))
        if embedded:
            write_embeddings(path, "large", spec, values_of(ids), n_chunks=n_chunks)
        return featstore.open(path)

    return make


@pytest.fixture
def source(store_of):
    return store_of("source", np.arange(N))


def chunk_files(path):
    """Content of every chunk file of a store, by its place; of names with a dot first, none."""
    files = {file.relative_to(path): file for file in path.rglob("*") if file.is_file()}
    return {
        name.as_posix(): file.read_bytes()
        for name, file in files.items()
        if "c" in name.parts and not any(part.startswith(".") for part in name.parts)
    }


def contents(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def numbers(copied):
    return {part.name: (part.copied, part.equal) for part in copied.parts}


def read_all(path, model="tiny"):
    embeddings = featstore.open(path, check=True).embeddings(model, "large")
    return embeddings.read(embeddings.ids)


def test_a_copy_has_the_same_chunk_files_and_is_read_the_same(source, tmp_path):
    target = tmp_path / "target"
    copied = copy(source, target)
    assert chunk_files(target) == chunk_files(source.path)
    assert numbers(copied) == {"annotations/large": (5, 0), "embeddings/tiny/large": (5, 0)}
    assert copied.n_bytes == sum(map(len, chunk_files(target).values()))
    there = featstore.open(target)
    assert there.annotations("large").digest == source.annotations("large").digest
    assert there.list() == source.list()
    assert np.array_equal(read_all(target), values_of(np.arange(N)))


def test_copying_again_writes_nothing(source, tmp_path):
    copy(source, tmp_path / "target")
    before = contents(tmp_path / "target")
    again = copy(source, tmp_path / "target")
    assert again.n_bytes == 0
    assert numbers(again) == {"annotations/large": (0, 5), "embeddings/tiny/large": (0, 5)}
    assert contents(tmp_path / "target").keys() == before.keys()
    assert chunk_files(tmp_path / "target") == chunk_files(source.path)


def without_seal(attributes):
    return {key: value for key, value in attributes.items() if key != SEAL}


def test_provenance_and_unknown_attributes_travel_as_they_are_and_image_folders_do_not(
    tmp_path, cells, tiny_spec, write_embeddings
):
    (tmp_path / "images").mkdir()
    featstore.create(tmp_path / "source")
    folder = ImageFolder(str(tmp_path / "images"))
    add_annotations(tmp_path / "source", cells, folder=folder, source={"file": "MIDOG.json"})
    write_embeddings(tmp_path / "source", "cells", tiny_spec, np.ones((40, 6)))
    root = zarr.open_group(tmp_path / "source", mode="r+")
    root["embeddings/tiny/cells"].attrs["remark"] = "kept"
    root["annotations/cells/x"].attrs["unit"] = "px"
    seal(tmp_path / "source/annotations/cells")
    seal(tmp_path / "source/embeddings/tiny/cells")
    copy(featstore.open(tmp_path / "source"), tmp_path / "target")
    there = zarr.open_group(tmp_path / "target", mode="r")
    here = zarr.open_group(tmp_path / "source", mode="r")
    for name in ("embeddings/tiny/cells", "annotations/cells/x", "annotations/cells/label"):
        assert without_seal(there[name].attrs) == without_seal(here[name].attrs)
    attributes = without_seal(there["annotations/cells"].attrs)
    assert attributes.keys() == {"rows", "columns", "digest", "source", "images"}
    assert attributes["images"] == {"whole": False}
    assert featstore.open(tmp_path / "target").image_folder("cells") is None


class FailingStore(WrapperStore):
    """A Zarr store whose connection is lost at one chunk."""

    n_left = 0

    async def get(self, key, prototype, byte_range=None):
        if "/c/" in key and byte_range is None:
            self.n_left -= 1
            if self.n_left < 0:
                raise ConnectionError("lost")
        return await super().get(key, prototype, byte_range)

    async def getsize(self, key):
        """Ask without reading, as a real store does; Zarr's wrapper would read the whole chunk."""
        return await self._store.getsize(key)


def through_a_connection(path, n_chunks):
    """Open a store that fails after so many chunks have been read."""
    store = featstore.open(path)
    connection = FailingStore(LocalStore(path, read_only=True))
    connection.n_left = n_chunks
    store._root = zarr.open_group(connection, mode="r")
    return store


def test_a_copy_that_is_cut_off_at_any_chunk_goes_on_and_ends_the_same(source, tmp_path):
    whole, target = chunk_files(source.path), tmp_path / "target"
    n_cut, n_chunks = 0, 0
    while True:
        shutil.rmtree(target, ignore_errors=True)
        try:
            copy(through_a_connection(source.path, n_chunks), target)
        except ConnectionError:
            n_cut += 1
            n_chunks += 1
        else:
            break
        there = chunk_files(target) if target.exists() else {}
        assert there.items() <= whole.items()
        assert not list(target.glob(".partial-*"))
        n_before = sum(name.startswith("embeddings") for name in there)
        assert copy(source, target).parts[1].equal == n_before
        assert chunk_files(target) == whole
        assert np.array_equal(read_all(target), values_of(np.arange(N)))
    assert n_cut > len(whole)


def test_a_copy_goes_on_through_all_its_interruptions_until_it_is_done(source, tmp_path):
    n_cut, n_chunks_of_the_table = 0, 10  # read to be compared, and at first to be copied
    while n_cut < 20:
        try:
            copy(through_a_connection(source.path, n_chunks_of_the_table + 1), tmp_path / "target")
        except ConnectionError:
            n_cut += 1
            n_chunks_of_the_table = 5
        else:
            break
    assert n_cut == 4
    assert chunk_files(tmp_path / "target") == chunk_files(source.path)


COPYING = """
import sys, featstore
from featstore.store.transfer import copy
print("begins", flush=True)
copy(featstore.open(sys.argv[1]), sys.argv[2])
"""


def n_files_below(folder):
    return sum(len(files) for _, _, files in os.walk(folder))


@pytest.mark.parametrize("n_files", [1, 5, 14, 20, 25, 30])
def test_a_copy_that_is_killed_goes_on_and_ends_the_same(store_of, tmp_path, n_files):
    source, target = store_of("source", np.arange(10_000)), tmp_path / "target"
    command = [sys.executable, "-c", COPYING, str(source.path), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        while process.poll() is None and n_files_below(target) < n_files:
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
    whole = chunk_files(source.path)
    assert chunk_files(target).items() <= whole.items()
    copy(source, target)
    assert chunk_files(target) == whole
    assert np.array_equal(read_all(target), values_of(np.arange(10_000)))


def test_incomplete_embeddings_are_copied_as_far_as_they_go(store_of, tmp_path):
    source = store_of("source", np.arange(N), n_chunks=2)
    copied = copy(source, tmp_path / "target")
    assert numbers(copied)["embeddings/tiny/large"] == (2, 0)
    assert featstore.open(tmp_path / "target").list() == source.list()


def test_only_the_chosen_models_and_datasets_are_copied(
    source, tmp_path, tiny_spec, cells, write_embeddings
):
    add_annotations(source.path, cells)
    other = tiny_spec.at(key="other", weights="random:1")
    write_embeddings(source.path, "large", other, values_of(np.arange(N)))
    for number, (choice, names) in enumerate(
        [
            ({"models": ["other"]}, ["annotations/large", "embeddings/other/large"]),
            ({"datasets": ["cells"]}, ["annotations/cells"]),
            ({"models": []}, ["annotations/cells", "annotations/large"]),
            (
                {"models": ["tiny"], "datasets": ["large", "cells"]},
                ["annotations/large", "annotations/cells", "embeddings/tiny/large"],
            ),
        ]
    ):
        assert list(numbers(copy(source, tmp_path / str(number), **choice))) == names
    for choice, message in (
        ({"models": ["virchow"]}, r"no model 'virchow' to copy in .*; it holds other, tiny"),
        ({"datasets": ["midog"]}, r"no dataset 'midog' to copy in .*; it holds cells, large"),
        ({"models": ["tiny"], "datasets": ["cells"]}, "no model 'tiny' .* it holds none"),
    ):
        with pytest.raises(NotInStoreError, match=message):
            copy(source, tmp_path / "none", **choice)
    assert not (tmp_path / "none").exists()


CHANGES = {
    "label": lambda ids: {},
    "x": lambda ids: {"x": np.where(ids < 2, 7.25, ids * 0.5)},
    "y": lambda ids: {"y": np.where(ids < 2, np.nan, ids * 2.0)},
    "image": lambda ids: {"image": np.where(ids < 2, "z", np.char.add("i", (ids % 7).astype(str)))},
}


@pytest.mark.parametrize("column", CHANGES)
def test_an_annotation_that_is_another_in_the_target_is_named_and_nothing_is_changed(
    source, store_of, tmp_path, column
):
    target = store_of("target", np.arange(600), **CHANGES[column](np.arange(600)))
    if column == "label":
        shutil.rmtree(target.path)
        featstore.create(target.path)
        labels = table(np.arange(600)).labels.copy()
        labels[:2] = "other"
        there = table(np.arange(600))
        add_annotations(
            target.path, featstore.AnnotationTable("large", there.ids, labels, there.columns)
        )
    before = contents(target.path)
    with pytest.raises(
        StoreError, match=rf"2 in {column} \(first: ID 0 {column} .* here, .* there"
    ):
        copy(source, target.path)
    assert contents(target.path) == before


def test_a_conflict_counts_every_column_and_names_the_first_three(source, store_of):
    ids = np.arange(10)
    target = store_of("target", ids, x=ids + 0.25, y=ids * 2.0 + (ids > 7))
    with pytest.raises(StoreError) as caught:
        copy(source, target.path)
    text = str(caught.value)
    assert "10 in x, 2 in y" in text
    assert text.count(" here, ") == 3
    assert "ID 0 x 0.25 here, 0.0 there" in text
    assert "\n" not in text


def test_integer_and_string_ids_are_not_merged(source, tmp_path):
    featstore.create(tmp_path / "target")
    add_annotations(tmp_path / "target", featstore.AnnotationTable("large", ["1"], ["a"]))
    with pytest.raises(StoreError, match="are integers in one store and strings in the other"):
        copy(source, tmp_path / "target")


def test_columns_that_only_one_store_has_are_no_conflict_until_rows_are_added(source, store_of):
    more = store_of("more", np.arange(N), votes=np.arange(N))
    assert numbers(copy(source, more.path))["annotations/large"] == (0, 6)
    fewer = store_of("fewer", np.arange(10), votes=np.arange(10))
    before = contents(fewer.path)
    with pytest.raises(featstore.errors.FeatstoreError, match=r"differ in their columns \(votes\)"):
        copy(source, fewer.path)
    assert contents(fewer.path) == before


def test_a_target_that_is_the_beginning_of_the_source_grows_to_the_same_bytes(
    store_of, tiny_spec, write_embeddings
):
    for n_before in (100, 256, 300, 1_024):
        young = store_of("source", np.arange(n_before))
        target = young.path.parent / f"target-{n_before}"
        copy(young, target)
        extend_annotations(young.path, table(np.arange(N)))
        write_embeddings(young.path, "large", tiny_spec, values_of(np.arange(N)))
        copy(featstore.open(young.path), target)
        assert chunk_files(target) == chunk_files(young.path)
        assert np.array_equal(read_all(target), values_of(np.arange(N)))
        provenance = [
            featstore.open(path).embeddings("tiny", "large").provenance
            for path in (target, young.path)
        ]
        assert provenance[0] == provenance[1]


def test_a_source_that_is_the_beginning_of_the_target_adds_embeddings_and_no_rows(store_of):
    source = store_of("source", np.arange(600))
    target = store_of("target", np.arange(N), embedded=False)
    copied = copy(source, target.path)
    assert numbers(copied)["annotations/large"] == (0, 5)
    embeddings = featstore.open(target.path).embeddings("tiny", "large")
    assert np.array_equal(embeddings.read(np.arange(600)), values_of(np.arange(600)))
    with pytest.raises(NotInStoreError, match="1 of 2 embeddings asked for are not in"):
        embeddings.read([0, 1_000])


def test_embeddings_of_a_table_in_another_order_are_put_in_the_order_of_the_target(store_of):
    source = store_of("source", np.arange(N)[::-1])
    target = store_of("target", np.arange(N), embedded=False)
    before = target.annotations("large").ids
    copy(source, target.path)
    embeddings = featstore.open(target.path, check=True).embeddings("tiny", "large")
    assert np.array_equal(embeddings.ids, before)
    assert np.array_equal(embeddings.read(before), values_of(before))
    assert embeddings.info.complete
    assert embeddings.provenance.created == source.embeddings("tiny", "large").provenance.created


def test_tables_that_overlap_are_joined_behind_the_rows_of_the_target(store_of):
    target = store_of("target", np.arange(700))
    source = store_of("source", np.arange(500, 1_500))
    copied = copy(source, target.path)
    assert copied.notes == ()
    store = featstore.open(target.path)
    assert np.array_equal(store.annotations("large").ids, np.arange(1_500))
    assert np.array_equal(read_all(target.path), values_of(np.arange(1_500)))
    assert copy(source, target.path).n_bytes == 0


def test_rows_that_share_a_chunk_with_missing_ones_are_left_to_extraction_and_said_so(store_of):
    target = store_of("target", np.arange(300), embedded=False)
    source = store_of("source", np.arange(200, 1_400))
    copied = copy(source, target.path)
    (note,) = copied.notes
    assert note.startswith("56 embeddings of embeddings/tiny/large were not copied")
    embeddings = featstore.open(target.path).embeddings("tiny", "large")
    assert np.array_equal(embeddings.read(np.arange(256, 1_400)), values_of(np.arange(256, 1_400)))


@settings(max_examples=12)
@given(
    ours=st.lists(st.integers(0, 60), min_size=1, max_size=40, unique=True),
    theirs=st.lists(st.integers(0, 60), min_size=1, max_size=40, unique=True),
)
def test_after_a_merge_every_id_of_both_stores_is_read_as_it_was(store_of, ours, theirs):
    target, source = store_of("target", ours), store_of("source", theirs)
    copy(source, target.path)
    ids = featstore.open(target.path).annotations("large").ids
    assert ids[: len(ours)].tolist() == ours
    assert ids[len(ours) :].tolist() == [id_ for id_ in theirs if id_ not in ours]
    assert np.array_equal(read_all(target.path), values_of(ids))


def test_embeddings_by_another_encoder_are_refused_with_what_differs(source, store_of, tiny_spec):
    target = store_of("target", np.arange(10), spec=tiny_spec.at(pooling="mean+class"))
    before = contents(target.path)
    with pytest.raises(
        DigestError, match=r"another encoder .*\(pooling: mean\+class, class\+mean\)"
    ):
        copy(source, target.path)
    assert contents(target.path) == before


VIT = EncoderSpec("vit", "none", pooling="class", dim=2, weights="random:7")
VIT_PARTS = {"class": (0, 2), "mean": (2, 6)}


def write_vit(path, parts=VIT_PARTS):
    with EmbeddingWriter(path, "large", VIT, parts=parts, run={}) as writer:
        for chunk in writer.pending():
            width = max(stop for _, stop in parts.values())
            writer.write(chunk, values_of(chunk.ids)[:, :width])


def test_embeddings_are_copied_and_merged_with_all_of_their_parts(store_of, tmp_path):
    source = store_of("source", np.arange(600), embedded=False)
    write_vit(source.path)
    targets = tmp_path / "new", store_of("other", np.arange(600)[::-1], embedded=False).path
    for target in targets:
        copy(source, target)
        there = featstore.open(target)
        assert there.embeddings("vit", "large").stored_provenance.parts == VIT_PARTS
        assert there.list()[0].parts == ("class", "mean")
        mean = there.embeddings("vit:mean", "large")
        assert np.array_equal(mean.read(np.arange(600)), values_of(np.arange(600))[:, 2:])


def test_a_view_alone_is_not_copied(source, tmp_path):
    for name in ("tiny:mean", "tiny:class+mean"):
        with pytest.raises(
            NotInStoreError,
            match=r"is a view of what is stored, .* give the model 'tiny', or 'featstore export'",
        ):
            copy(source, tmp_path / "target", models=[name])
    assert not (tmp_path / "target").exists()


def test_embeddings_that_hold_other_parts_are_refused_with_both(store_of):
    target, source = (store_of(n, np.arange(300), embedded=False) for n in ("target", "source"))
    write_vit(target.path, {"class": (0, 2)})
    write_vit(source.path)
    before = contents(target.path)
    with pytest.raises(
        DigestError,
        match=r"holds the parts class 0:2 in .* and class 0:2, mean 2:6 in the store to copy; "
        "nothing was changed",
    ):
        copy(source, target.path)
    assert contents(target.path) == before


def test_parts_that_make_no_sense_are_not_copied(source, tmp_path):
    metadata = source.path / "embeddings/tiny/large/zarr.json"
    document = parse(metadata.read_bytes())
    document["attributes"]["provenance"]["parts"]["mean"] = [-3, 6]
    metadata.write_text(json.dumps(document))
    seal(metadata.parent)
    with pytest.raises(StoreError, match=r"cannot be read by its parts \(its part 'mean' is -3"):
        copy(source, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_embeddings_of_another_run_are_kept_and_said_so(source, store_of, tmp_path):
    copy(source, tmp_path / "target")
    chunk = tmp_path / "target/embeddings/tiny/large/values/c/3/0"
    source_chunk = source.path / "embeddings/tiny/large/values/c/2/0"
    kept = source_chunk.read_bytes()
    chunk.write_bytes(kept)
    copied = copy(source, tmp_path / "target")
    assert chunk.read_bytes() == kept
    assert numbers(copied)["embeddings/tiny/large"] == (0, 4)
    assert "1 chunks of embeddings/tiny/large are in" in copied.notes[0]


def test_an_array_that_is_being_written_to_is_left_alone(source, tmp_path):
    copy(source, tmp_path / "target")
    with (
        writer_lock(tmp_path / "target/embeddings/tiny/large"),
        pytest.raises(LockedError, match="is being written to by process"),
    ):
        copy(source, tmp_path / "target")


def test_a_target_is_made_in_new_folders_and_in_empty_ones(source, tmp_path):
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "empty", tmp_path / "new/folder/lab.zarr"):
        copy(source, target)
        assert chunk_files(target) == chunk_files(source.path)


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


@settings(max_examples=10)
@given(place=st.integers(0, 4), bit=st.integers(0, 8 * (256 * DIM * 4 + 4) - 1))
def test_a_flipped_bit_in_the_source_is_refused_and_its_chunk_named(source, tmp_path, place, bit):
    target, file = tmp_path / "target", f"embeddings/tiny/large/values/c/{place}/0"
    shutil.rmtree(target, ignore_errors=True)
    flip(source.path / file, bit)
    with pytest.raises(DamagedChunkError, match=file):
        copy(source, target)
    assert not (target / file).exists()
    flip(source.path / file, bit)
    copy(source, target)
    assert chunk_files(target) == chunk_files(source.path)


def test_a_flipped_bit_in_a_column_or_in_the_target_is_refused_too(source, tmp_path):
    copy(source, tmp_path / "target")
    flip(tmp_path / "target/embeddings/tiny/large/values/c/1/0", 77)
    with pytest.raises(DamagedChunkError, match="target/embeddings/tiny/large/values/c/1/0 does"):
        copy(source, tmp_path / "target")
    flip(source.path / "annotations/large/x/c/0", 77)
    with pytest.raises(StoreError):
        copy(source, tmp_path / "new")
    assert not (tmp_path / "new/annotations/large").exists()


def test_what_is_copied_is_sealed_and_metadata_that_is_not_what_was_sealed_is_refused(
    source, tmp_path
):
    for name in ("annotations/large", "embeddings/tiny/large"):
        seal(source.path / name)
    copy(featstore.open(source.path), tmp_path / "target")
    for name in ("annotations/large", "annotations/large/x", "embeddings/tiny/large/values"):
        document = parse((tmp_path / "target" / name / "zarr.json").read_bytes())
        assert document["attributes"][SEAL] == seal_of(document)
    for number, name in enumerate(["annotations/large/x", "embeddings/tiny/large"]):
        edit_json(source.path / name / "zarr.json", lambda m: m["attributes"].update(new=1))
        with pytest.raises(StoreError, match=f"{name}/zarr.json of .* is not what was sealed"):
            copy(featstore.open(source.path), tmp_path / f"new-{number}")
        seal(source.path / name)


def test_a_chunk_of_another_size_is_refused(source, tmp_path):
    chunk = source.path / "embeddings/tiny/large/values/c/1/0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(DamagedChunkError, match="has 6147 bytes instead of 6148"):
        copy(source, tmp_path / "target")


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("name", ["annotations/large/x/c/0", "embeddings/tiny", "annotations/new"])
def test_a_link_in_either_store_is_refused_and_not_followed(source, tmp_path, side, name):
    copy(source, tmp_path / "target")
    secret = tmp_path / "secret"
    place = tmp_path / side / name
    if place.exists():
        place.rename(secret)
    else:
        secret.mkdir()
    place.symlink_to(secret)
    with pytest.raises(StoreError, match="is a link; a store holds plain files only"):
        copy(source, tmp_path / "target")


def test_a_pipe_in_a_store_is_refused_and_not_waited_for(source, tmp_path):
    os.mkfifo(source.path / "annotations/large/pipe")
    with pytest.raises(StoreError, match="is neither a file nor a folder"):
        copy(source, tmp_path / "target")


def edit_json(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


HOSTILE = {
    "another codec": (
        "embeddings/tiny/large/values",
        lambda m: m["codecs"].pop(),
        "is not laid out as a store's arrays are",
    ),
    "the other byte order": (
        "embeddings/tiny/large/values",
        lambda m: m["codecs"][0]["configuration"].update(endian="big"),
        "is not laid out as a store's arrays are",
    ),
    "more rows than annotations": (
        "embeddings/tiny/large/values",
        lambda m: m["shape"].__setitem__(0, 10**12),
        "expected at most 1100 whole rows",
    ),
    "a row in pieces": (
        "embeddings/tiny/large/values",
        lambda m: m["chunk_grid"]["configuration"]["chunk_shape"].__setitem__(1, 3),
        "expected at most 1100 whole rows",
    ),
    "other annotations": (
        "embeddings/tiny/large",
        lambda m: m["attributes"]["provenance"].update(dataset_digest="sha256:0"),
        "are not those",
    ),
}


@pytest.mark.parametrize("trick", HOSTILE)
def test_arrays_that_are_not_what_a_store_holds_are_refused(source, tmp_path, trick):
    name, edit, message = HOSTILE[trick]
    edit_json(source.path / name / "zarr.json", edit)
    seal(source.path / name)
    with pytest.raises(StoreError, match=message):
        copy(source, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("terms", "named"),
    [
        ("CC-BY-NC-ND-4.0, gated", True),
        ("non-commercial use", True),
        ("GPL-3.0", True),
        ("Hugging Face login", True),
        ("Apache-2.0", False),
        ("MIT and CC-BY-4.0", False),
        ("", False),
    ],
)
def test_restricted_terms_of_the_weights_are_said(store_of, tmp_path, tiny_spec, terms, named):
    source = store_of("source", np.arange(10), spec=tiny_spec.at(terms=terms))
    for _ in range(2):  # when there is nothing left to copy, too
        notes = copy(source, tmp_path / "target").notes
        assert notes == (
            (
                f"embeddings of tiny come from weights under: {terms}; check that you may pass "
                "them on",
            )
            if named
            else ()
        )


def test_only_local_folders_are_copied_into(source, tmp_path):
    for name in ("s3://lab/store.zarr", tmp_path / "store.zarr.zip"):
        with pytest.raises(StoreError, match="cannot be copied into; copy into a folder"):
            copy(source, name)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("text")
    with pytest.raises(StoreError, match="is not a featstore store"):
        copy(source, tmp_path / "other")


def test_a_manifest_names_every_file_and_finds_what_changed(source):
    manifest = write_manifest(source.path)
    assert check_manifest(source.path) == []
    names = [line[66:] for line in manifest.read_text().splitlines()]
    files = [file.relative_to(source.path) for file in source.path.rglob("*") if file.is_file()]
    shown = [file.as_posix() for file in files if not file.name.startswith(".")]
    assert names == sorted(name for name in shown if name != MANIFEST)
    flip(source.path / "embeddings/tiny/large/values/c/1/0", 5)
    (source.path / "annotations/large/y/c/0").unlink()
    (source.path / "new").write_text("text")
    assert check_manifest(source.path) == [
        "annotations/large/y/c/0 is listed and not there",
        "new is there and not listed",
        "embeddings/tiny/large/values/c/1/0 is not the file that was listed",
    ]


def sha256sum(folder):
    command = ["sha256sum", "--strict", "-c", MANIFEST]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this machine")
def test_sha256sum_checks_a_store_without_this_library(source):
    write_manifest(source.path)
    checked = sha256sum(source.path)
    assert checked.returncode == 0, checked.stderr
    flip(source.path / "annotations/large/zarr.json", 9)
    checked = sha256sum(source.path)
    assert checked.returncode == 1
    assert "annotations/large/zarr.json: FAILED" in checked.stdout


def test_a_manifest_that_lists_files_elsewhere_opens_none_of_them(source, tmp_path):
    manifest = write_manifest(source.path)
    (tmp_path / "secret").write_text("text")
    with manifest.open("a") as file:
        file.write(f"{'0' * 64}  ../secret\n")
    assert check_manifest(source.path) == ["../secret is listed and not there"]
    manifest.write_text("nonsense\n")
    with pytest.raises(StoreError, match=r"line 1 of .* is 'nonsense'; expected 64"):
        check_manifest(source.path)
    manifest.unlink()
    with pytest.raises(NotInStoreError, match=r"no manifest-sha256\.txt in"):
        check_manifest(source.path)
    manifest.symlink_to(tmp_path / "secret")
    with pytest.raises(NotInStoreError):
        check_manifest(source.path)


def test_names_that_a_manifest_cannot_hold_are_refused(source):
    for name in ("a\nb", "a\\b"):
        (source.path / name).write_text("text")
        with pytest.raises(StoreError, match="rename or remove it"):
            write_manifest(source.path)
        (source.path / name).unlink()


def test_a_copy_into_a_store_with_a_manifest_says_that_it_is_old(source, tmp_path):
    copy(source, tmp_path / "target", models=[])
    write_manifest(tmp_path / "target")
    (note,) = copy(source, tmp_path / "target").notes
    assert note.startswith("manifest-sha256.txt in ")
    assert check_manifest(tmp_path / "target") != []
    assert copy(source, tmp_path / "target", manifest=True).notes == ()
    assert check_manifest(tmp_path / "target") == []
    assert copy(source, tmp_path / "target").notes == ()
