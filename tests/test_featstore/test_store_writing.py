"""What a writer promises: nothing half-written, whatever ends it, and the same bytes in the end."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from multiprocessing import Process, Queue

import numpy as np
import pytest
import zarr

import featstore
from featstore.encoders.spec import EncoderSpec
from featstore.errors import (
    AnnotationError,
    DamagedChunkError,
    DigestError,
    LockedError,
    NotInStoreError,
    StoreError,
)
from featstore.store.chunks import ChunkFiles
from featstore.store.layout import open_root, replaced_group
from featstore.store.lock import writer_lock
from featstore.store.writer import EmbeddingWriter, add_annotations, extend_annotations

N, DIM = 2_000, 6
PARTS = {"class": (0, 3), "mean": (3, 6)}  # as write_embeddings has them


def table(n, name="large"):
    labels = np.where(np.arange(n) % 2, "a", "b")
    return featstore.AnnotationTable(name, np.arange(n), labels, {"x": np.arange(n) * 0.5})


def values(n):
    return np.random.default_rng(0).normal(size=(N, DIM)).astype(np.float32)[:n]


@pytest.fixture
def store_of(tmp_path):
    """Make a store with the first n annotations."""

    def make(name, n=N):
        featstore.create(tmp_path / name)
        add_annotations(tmp_path / name, table(n))
        return tmp_path / name

    return make


def test_a_chunk_file_is_what_zarr_itself_would_write(
    store_of, tiny_spec, write_embeddings, chunks_of, tmp_path
):
    path = store_of("s")
    write_embeddings(path, "large", tiny_spec, values(N))
    ours = zarr.open_array(path / "embeddings/tiny/large/values", mode="r")
    theirs = zarr.create_array(
        tmp_path / "zarr/embeddings/tiny/large/values",
        shape=ours.shape,
        chunks=ours.chunks,
        dtype=ours.dtype,
        fill_value=np.nan,
        compressors=[zarr.codecs.Crc32cCodec()],
    )
    theirs[:] = values(N)
    assert chunks_of(path, "tiny", "large") == chunks_of(tmp_path / "zarr", "tiny", "large")


def test_a_grown_dataset_is_topped_up_with_what_is_missing_only(
    store_of, tiny_spec, write_embeddings, chunks_of
):
    path = store_of("grown", 1_100)
    write_embeddings(path, "large", tiny_spec, values(N))
    before = chunks_of(path, "tiny", "large")
    extend_annotations(path, table(N))
    embeddings = featstore.open(path).embeddings("tiny", "large")
    assert (embeddings.info.rows, embeddings.info.complete, embeddings.shape) == (
        1_100,
        False,
        (N, DIM),
    )
    assert np.array_equal(embeddings.read(np.arange(1_100)), values(1_100))
    with pytest.raises(NotInStoreError, match="1 of 2 embeddings asked for"):
        embeddings.read([1_099, 1_100])
    with EmbeddingWriter(path, "large", tiny_spec, parts=PARTS, run={}) as writer:
        asked = [chunk.ids for chunk in writer.pending()]
        assert np.concatenate(asked).tolist() == list(range(1_100, N))
    write_embeddings(path, "large", tiny_spec, values(N))
    embeddings = featstore.open(path).embeddings("tiny", "large")
    assert embeddings.info.complete
    assert embeddings.provenance.dataset_rows == N
    assert np.array_equal(embeddings.read(np.arange(N)), values(N))
    after = chunks_of(path, "tiny", "large")
    assert {key for key in before if before[key] != after[key]} == {"4/0"}


@pytest.mark.parametrize("n_chunks", [0, 1, 2])
def test_a_top_up_that_stops_goes_on(store_of, tiny_spec, write_embeddings, n_chunks):
    path = store_of("grown", 1_100)
    write_embeddings(path, "large", tiny_spec, values(N), n_chunks=3)
    extend_annotations(path, table(N))
    write_embeddings(path, "large", tiny_spec, values(N), n_chunks=n_chunks)
    write_embeddings(path, "large", tiny_spec, values(N))
    embeddings = featstore.open(path).embeddings("tiny", "large")
    assert embeddings.info.complete
    assert np.array_equal(embeddings.read(np.arange(N)), values(N))


def test_a_table_may_only_grow_at_its_end(store_of):
    path = store_of("s", 100)
    short, there = table(50), table(100)
    swapped = there.take(there.ids[::-1])
    moved = table(120).with_columns(x=np.arange(120) * 0.25)
    for other in (short, swapped):
        with pytest.raises(StoreError, match="does not begin with the 100 annotations"):
            extend_annotations(path, other)
    with pytest.raises(
        AnnotationError,
        match=r"99 annotations of 'large' have another x there "
        r"\(first: ID 1, here 0.5, there 0.25\)",
    ):
        extend_annotations(path, moved)
    assert len(featstore.open(path).annotations("large")) == 100


def test_a_crash_while_a_table_is_swapped_is_mended(store_of):
    path = store_of("s", 100)
    root = open_root(path, mode="r+")
    folder = path / "annotations"
    with replaced_group(root, "annotations/large") as group:
        group.attrs["rows"] = 1
        shutil.copytree(folder / ".large.next", folder / "saved")
    (folder / "large").rename(folder / ".large.previous")
    (folder / "saved").rename(folder / ".large.next")
    assert featstore.open(path).datasets() == []
    open_root(path, mode="r+")
    assert featstore.open(path).datasets() == ["large"]
    assert sorted(entry.name for entry in folder.iterdir()) == ["large", "zarr.json"]


VIT = EncoderSpec("vit", "none", pooling="class", dim=2, weights="random:7")
VIT_PARTS = {"class": (0, 2), "mean": (2, 6)}


def write_vit(path, spec=VIT, parts=VIT_PARTS):
    with EmbeddingWriter(path, "large", spec, parts=parts, run={}) as writer:
        for chunk in writer.pending():
            width = max((stop for _, stop in parts.values()), default=spec.dim)
            writer.write(chunk, values(N)[chunk.ids, :width])


def test_a_row_is_as_long_as_its_parts_or_as_the_encoder_says_where_there_are_none(store_of):
    path = store_of("s")
    write_vit(path)
    write_vit(path, VIT.at(key="plain", dim=4), {})
    embeddings = zarr.open_group(path, mode="r")["embeddings"]
    widths = {model: embeddings[f"{model}/large/values"].shape for model in ("vit", "plain")}
    assert widths == {"vit": (N, 6), "plain": (N, 4)}


def test_parts_stand_in_the_order_of_their_columns_whatever_the_order_given(store_of):
    path = store_of("s")
    write_vit(path, parts={"mean": (2, 6), "class": [0, 2]})
    assert featstore.open(path).list()[0].parts == ("class", "mean")
    write_vit(path)


def test_other_parts_than_those_that_are_there_are_refused_with_both(store_of):
    path = store_of("s")
    write_vit(path, parts={"class": (0, 2)})
    with pytest.raises(
        DigestError,
        match=r"^'embeddings/vit/large' holds the parts class; class, mean were asked for; extract "
        "with --parts class, or give the new one another --name$",
    ):
        write_vit(path)
    both, none = VIT.at(key="both"), VIT.at(key="none")
    write_vit(path, both)
    with pytest.raises(DigestError, match=r"holds the parts class, mean; .* --parts class\+mean"):
        write_vit(path, both, {"class": (0, 2)})
    with pytest.raises(DigestError, match="mean 2:6; class 0:2, mean 2:5 were asked for; give"):
        write_vit(path, both, {"class": (0, 2), "mean": (2, 5)})
    write_vit(path, none, {})
    with pytest.raises(DigestError, match="holds the parts none; class were asked for; give the"):
        write_vit(path, none, {"class": (0, 2)})


def test_another_pooling_whose_parts_are_there_needs_no_extraction(store_of):
    path = store_of("s")
    write_vit(path)
    for pooling, dim in (("mean", 4), ("mean+class", 6)):
        with pytest.raises(
            DigestError,
            match="^'embeddings/vit/large' holds the parts class, mean: no extraction is needed "
            rf"for pooling '{re.escape(pooling)}', read it as 'vit:{re.escape(pooling)}'$",
        ):
            write_vit(path, VIT.at(pooling=pooling, dim=dim))
    other = r"made by another encoder than is asked for \(pooling: class, "
    with pytest.raises(DigestError, match=other + r"registers\)"):
        write_vit(path, VIT.at(pooling="registers"), {**VIT_PARTS, "registers": (6, 8)})
    with pytest.raises(DigestError, match=other + r"mean; mpp: 0.25, 0.5\)"):
        write_vit(path, VIT.at(pooling="mean", dim=4, mpp=0.5))


@pytest.mark.parametrize(
    ("spec", "parts", "problem"),
    [
        (VIT, {"class": (0, 2), "mean": (3, 6)}, "'mean' is 3 to 6, and 2 is where it must start"),
        (VIT, {"class": (0, 2), "mean": (1, 6)}, "'mean' is 1 to 6, and 2 is where it must start"),
        (VIT.at(dim=6), VIT_PARTS, "its default view 'class' is 2 long, its encoder says 6"),
        (VIT.at(pooling="average"), VIT_PARTS, "its default view 'average' is 6 long, its encoder"),
        (VIT, {"Class": (0, 2)}, "its part 'Class' has a name that is not allowed"),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_anything_is_made(store_of, spec, parts, problem):
    path = store_of("s")
    with pytest.raises(StoreError, match=f"'vit' cannot be stored by the parts given .*{problem}"):
        write_vit(path, spec, parts)
    assert featstore.open(path).list() == []


def test_rows_without_all_of_their_parts_are_refused(store_of):
    path = store_of("s")
    with EmbeddingWriter(path, "large", VIT, parts=VIT_PARTS, run={}) as writer:
        first = writer.pending()[0]
        for rows in (values(256)[:, :2], values(255), values(256)[0]):
            with pytest.raises(StoreError, match=r"\(256, 6\) is needed .* \(parts class, mean\)"):
                writer.write(first, rows)
        writer.write(first, values(256))


def test_parts_are_topped_up_as_whole_rows(store_of):
    path = store_of("grown", 1_100)
    with EmbeddingWriter(path, "large", VIT, parts=VIT_PARTS, run={}) as writer:
        for chunk in writer.pending():
            writer.write(chunk, values(N)[chunk.ids])
    extend_annotations(path, table(N))
    write_vit(path)
    for model, columns in (("vit", slice(0, 2)), ("vit:mean", slice(2, 6))):
        embeddings = featstore.open(path).embeddings(model, "large")
        assert np.array_equal(embeddings.read(np.arange(N)), values(N)[:, columns])


def test_embeddings_of_other_annotations_are_not_added_to(store_of, tiny_spec, write_embeddings):
    path = store_of("s")
    write_embeddings(path, "large", tiny_spec, values(N))
    shutil.rmtree(path / "annotations/large")
    other = table(N)
    add_annotations(path, featstore.AnnotationTable("large", other.ids + 1, other.labels))
    with pytest.raises(DigestError, match="the first 2000 annotations of 'large' are not those"):
        EmbeddingWriter(path, "large", tiny_spec, parts=PARTS, run={})


WRITER = """
import sys, time
import numpy as np
from featstore.encoders.spec import EncoderSpec
from featstore.store.writer import EmbeddingWriter
rows = np.load(sys.argv[2])
spec = EncoderSpec("tiny", "none", pooling="class+mean", dim=6, weights="random:0")
parts = {"class": (0, 3), "mean": (3, 6)}
print("ready", flush=True)
with EmbeddingWriter(sys.argv[1], "large", spec, parts=parts, run={}) as writer:
    for chunk in writer.pending():
        writer.write(chunk, rows[writer.annotations.positions(chunk.ids)])
"""


def test_a_writer_killed_at_any_instant_loses_the_chunk_at_work_and_goes_on(
    store_of, tiny_spec, write_embeddings, chunks_of, tmp_path
):
    """50 instants, spread over the whole of a run; a dead owner's lock never stands in the way."""
    write_embeddings(store_of("whole"), "large", tiny_spec, values(N))
    whole = chunks_of(tmp_path / "whole", "tiny", "large")
    np.save(tmp_path / "rows.npy", values(N))
    path = store_of("killed")
    rng = np.random.default_rng(0)
    n_finished = 0
    for _ in range(50):
        words = [sys.executable, "-c", WRITER, str(path), str(tmp_path / "rows.npy")]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.06))
            process.send_signal(signal.SIGKILL)
        there = chunks_of(path, "tiny", "large")
        there = {key: data for key, data in there.items() if "/." not in f"/{key}"}
        assert all(data == whole[key] for key, data in there.items())
        if len(there) == len(whole):
            n_finished += 1
            shutil.rmtree(path / "embeddings/tiny")
    write_embeddings(path, "large", tiny_spec, values(N))
    there = chunks_of(path, "tiny", "large")
    assert {key: data for key, data in there.items() if "/." not in f"/{key}"} == whole


def hold_lock(folder, queue):
    with writer_lock(folder):
        queue.put(os.getpid())
        time.sleep(60)


def test_a_living_writer_is_named_and_a_dead_ones_lock_is_taken_over(tmp_path):
    queue = Queue()
    process = Process(target=hold_lock, args=(tmp_path, queue))
    process.start()
    pid = queue.get(timeout=30)
    with (
        pytest.raises(
            LockedError, match=f"written to by process {pid} on {socket.gethostname()} since"
        ),
        writer_lock(tmp_path),
    ):
        pass
    process.kill()
    process.join()
    with writer_lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert (tmp_path / ".lock").read_text() == ""


def test_the_lock_of_another_host_is_respected_and_that_of_a_reused_number_is_not(tmp_path):
    owner = {"host": "elsewhere", "pid": 1, "started": "1", "since": "today"}
    (tmp_path / ".lock").write_text(json.dumps(owner))
    with pytest.raises(LockedError, match="process 1 on elsewhere"), writer_lock(tmp_path):
        pass
    owner |= {"host": socket.gethostname(), "pid": os.getpid(), "started": "long ago"}
    (tmp_path / ".lock").write_text(json.dumps(owner))
    with writer_lock(tmp_path):
        pass
    (tmp_path / ".lock").write_text('{"host": "cut sho')
    with writer_lock(tmp_path):
        pass


def race(path, start, queue):
    start.get()
    try:
        with writer_lock(path):
            queue.put("held")
            time.sleep(0.5)
    except LockedError:
        queue.put("refused")


def test_of_writers_that_race_for_a_lock_one_gets_it(tmp_path):
    start, queue = Queue(), Queue()
    processes = [Process(target=race, args=(tmp_path, start, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    for _ in processes:
        start.put(None)
    outcomes = sorted(queue.get(timeout=30) for _ in processes)
    for process in processes:
        process.join()
    assert outcomes == ["held", "refused", "refused", "refused"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 KiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(place)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("this user may not mount a small tmpfs")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_fills_up_keeps_what_was_written(small_disk, tiny_spec, chunks_of):
    path, n = small_disk / "s", 1_000
    featstore.create(path)
    add_annotations(path, featstore.AnnotationTable("large", np.arange(n), np.full(n, "a")))
    wide = tiny_spec.at(dim=100)
    rows = np.random.default_rng(0).normal(size=(n, 100)).astype(np.float32)
    with EmbeddingWriter(path, "large", wide, parts={}, run={}) as writer:
        first, second, *_ = writer.pending()
        writer.write(first, rows[first.ids])
        writer.write(second, rows[second.ids])
        third = writer.pending()[0]
        full = r"cannot write .*2/0: No space left on device; what was written before is kept"
        with pytest.raises(StoreError, match=full):
            writer.write(third, rows[third.ids])
    assert set(chunks_of(path, "tiny", "large")) == {"0/0", "1/0"}
    embeddings = featstore.open(path).embeddings("tiny", "large")
    assert np.array_equal(embeddings.read(first.ids), rows[first.ids])


def test_a_chunk_of_another_size_or_content_is_named_when_it_is_read(filled_store, tmp_path):
    store, _ = filled_store
    chunk = store.path / "embeddings/tiny/cells/values/c/0/0"
    data = bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(data)
    checked = featstore.open(store.path, check=True).embeddings("tiny", "cells")
    with pytest.raises(DamagedChunkError, match=r"chunk 0 of .* does not fit its checksum"):
        checked.read(checked.ids[:1])
    chunk.write_bytes(data[:-8])
    with pytest.raises(DamagedChunkError, match=r"chunk 0 of .* has \d+ bytes"):
        store.embeddings("tiny", "cells").read(store.annotations("cells").ids[:1])


def test_an_array_that_is_laid_out_in_another_way_is_read_through_zarr(tmp_path):
    array = zarr.create_array(tmp_path / "a", shape=(4, 2), chunks=(2, 1), dtype="f4")
    assert ChunkFiles.of(tmp_path / "a", array) is None
