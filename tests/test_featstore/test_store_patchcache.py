"""What the patch cache promises: the pixels that went in, by ID, whatever happened between."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import featstore
from featstore.errors import (
    AnnotationError,
    DamagedChunkError,
    DigestError,
    LockedError,
    NotInStoreError,
    StoreError,
)
from featstore.store.archive import pack
from featstore.store.layout import open_root, rows_per_chunk
from featstore.store.lock import writer_lock
from featstore.store.patchcache import UNKNOWN_LEVEL, PatchesInfo
from featstore.store.seal import parse, rewrite, sealed
from featstore.store.transfer import copy
from featstore.store.verify import verify
from featstore.store.writer import (
    PatchWriter,
    add_annotations,
    extend_annotations,
    remove_patches,
)
from featstore.windows import CutSpec
from featstore_cli.sharing import COMMANDS

PX = 6
CUT = CutSpec(PX, 0.25)
N = 1_100  # five chunks of 256 patches, the last one not full
PIXELS = "patches/cells/pixels"


def table(ids):
    """Annotations whose columns follow from their IDs, so that any two tables agree."""
    ids = np.asarray(ids)
    labels = np.where(ids % 3 == 0, "mitotic figure", "look-alike")
    return featstore.AnnotationTable("cells", ids, labels, {"x": ids * 0.5, "y": ids * 2.0})


def pixels_of(ids, patch_px=PX):
    """Patches that follow from the IDs."""
    within = np.arange(patch_px * patch_px * 3, dtype=np.int64)
    mixed = (np.asarray(ids, np.int64)[:, None] + 1) * 2_654_435_761 + within**2 * 40_503
    return (mixed >> 9).astype(np.uint8).reshape(-1, patch_px, patch_px, 3)


def windows_of(annotations, *, factor=1.0):
    """Windows that follow from the IDs."""
    ids = annotations.ids
    return featstore.AnnotationTable(
        annotations.name,
        ids,
        annotations.labels,
        {
            "native_mpp": np.where(ids % 4 == 0, np.nan, 0.25),
            "read_level": ids % 2,
            "resample_factor": np.full(len(ids), factor),
            "padded_fraction": ids % 5 / 10,
            "others_in_window": ids % 3,
            "mitotic_figure_in_window": ids % 7 == 0,
        },
    )


def cut(path, *, n_chunks=None, spec=CUT, factor=1.0, dataset="cells"):
    """Cut patches that are not there yet, as 'featstore cut' would; return their IDs."""
    done = []
    windows = windows_of(featstore.open(path).annotations(dataset), factor=factor)
    with PatchWriter(path, windows, spec, run={"workers": 0}) as writer:
        for chunk in writer.pending()[:n_chunks]:
            writer.write(chunk, pixels_of(chunk.ids, spec.patch_px))
            done += chunk.ids.tolist()
    return done


def files_of(path):
    """Content of every file of a store, by its place; of names with a dot first, none."""
    files = {file.relative_to(path).as_posix(): file for file in Path(path).rglob("*")}
    return {
        name: file.read_bytes()
        for name, file in files.items()
        if file.is_file() and not any(part.startswith(".") for part in name.split("/"))
    }


def chunks_of(path):
    """Content of every chunk of pixels."""
    return {name: data for name, data in files_of(path).items() if f"{PIXELS}/c/" in name}


@pytest.fixture
def store_of(tmp_path):
    """Make a store of annotations with these IDs and, unless asked otherwise, their patches."""

    def make(name, ids, *, n_chunks=None, **options):
        path = tmp_path / name
        shutil.rmtree(path, ignore_errors=True)
        featstore.create(path)
        add_annotations(path, table(ids))
        if n_chunks != 0:
            cut(path, n_chunks=n_chunks, **options)
        return path

    return make


@pytest.fixture
def lab(store_of):
    return store_of("lab.zarr", np.arange(N))


def errors_of(path):
    return [str(finding) for finding in verify(path) if finding.severity == "error"]


def assert_holds(path, ids):
    patches = featstore.open(path, check=True).patches("cells")
    assert np.array_equal(patches.read(ids), pixels_of(ids))


# --- reading what was written


@settings(max_examples=25)
@given(data=st.data())
def test_patches_come_as_they_were_written_in_the_order_asked(store_of, data):
    """Grown tables, duplicates and crops among them."""
    n_before, more = data.draw(st.integers(1, 600)), data.draw(st.integers(0, 400))
    path = store_of("s.zarr", np.arange(n_before) * 3)
    n = n_before + more
    if more:
        extend_annotations(path, table(np.arange(n) * 3))
        cut(path)
    patch_px = data.draw(st.sampled_from([6, 4, 2]))
    ids = data.draw(st.lists(st.integers(0, n - 1).map(lambda row: row * 3), max_size=60))
    patches = featstore.open(path, check=True).patches("cells").cropped(patch_px)
    first = (PX - patch_px) // 2
    centre = slice(first, first + patch_px)
    assert patches.shape == (n, patch_px, patch_px, 3)
    assert np.array_equal(patches.read(ids), pixels_of(ids)[:, centre, centre])


def test_a_cache_says_what_it_holds(lab):
    store = featstore.open(lab)
    patches = store.patches("cells")
    assert store.cached_datasets() == ["cells"]
    assert (patches.dataset, patches.patch_px, patches.mpp) == ("cells", PX, 0.25)
    assert (patches.cut, patches.shape) == (CUT, (N, PX, PX, 3))
    assert patches.ids.tolist() == list(range(N))
    n_bytes = sum(map(len, chunks_of(lab).values()))
    assert patches.info == PatchesInfo("cells", N, PX, 0.25, n_bytes, True)
    provenance = patches.provenance
    assert (provenance.digest, provenance.dataset_rows) == (CUT.digest, N)
    assert provenance.run == {"workers": 0}
    keys = {"cut", "digest", "dataset", "dataset_digest", "dataset_rows", "run", "versions"}
    assert set(provenance.to_json()) == keys | {"created"}
    windows = windows_of(table(np.arange(N)))
    for column, values in windows.columns.items():
        assert np.array_equal(
            patches.windows.column(column), values, equal_nan=column == "native_mpp"
        )


def test_patches_that_are_not_there_are_answered_with_those_that_are(lab):
    store = featstore.open(lab)
    for name in ("midog", "../up", ""):
        with pytest.raises(NotInStoreError, match=r"no patches of .* in .*; it holds cells \('fea"):
            store.patches(name)
    featstore.create(lab / "../other")
    with pytest.raises(NotInStoreError, match="it holds none yet"):
        featstore.open(lab / "../other").patches("cells")
    with pytest.raises(NotInStoreError, match="1 of 2 annotation IDs asked for are not in"):
        store.patches("cells").read([0, N])


def test_a_patch_that_is_not_cut_yet_is_refused_and_named(store_of):
    path = store_of("s", np.arange(N), n_chunks=2)
    patches = featstore.open(path).patches("cells")
    assert (patches.info.rows, patches.info.complete) == (512, False)
    assert patches.read(np.arange(512)).shape == (512, PX, PX, 3)
    with pytest.raises(
        NotInStoreError,
        match=r"2 of 4 patches asked for are not in 'patches/cells' yet \(first: ID 900\); run "
        "'featstore cut' again",
    ):
        patches.read([511, 900, 512, 3])


def test_rows_of_a_chunk_that_waits_for_its_top_up_are_not_there(store_of):
    path = store_of("s", np.arange(300))
    extend_annotations(path, table(np.arange(700)))
    for n_chunks, n_there in ((0, 300), (0, 300), (1, 512), (1, 700)):
        cut(path, n_chunks=n_chunks)
        patches = featstore.open(path).patches("cells")
        assert patches.info.rows == n_there
        assert np.array_equal(patches.read(np.arange(n_there)), pixels_of(np.arange(n_there)))
        missing = [id_ for finding in verify(path) for id_ in finding.ids]
        assert missing == list(range(n_there, 700))
        for missing in range(n_there, 700, 97):
            with pytest.raises(NotInStoreError, match=rf"\(first: ID {missing}\)"):
                patches.read([0, missing])


def test_chunks_behind_one_that_waits_for_its_top_up_are_there(store_of):
    path = store_of("s", np.arange(300))
    extend_annotations(path, table(np.arange(700)))
    with PatchWriter(path, windows_of(table(np.arange(700))), CUT, run={}) as writer:
        _, last = writer.pending()
        writer.write(last, pixels_of(last.ids))
    patches = featstore.open(path).patches("cells")
    assert patches.info.rows == 300 + 188
    assert np.array_equal(patches.read([600, 2]), pixels_of([600, 2]))
    with pytest.raises(NotInStoreError, match=r"1 of 2 patches .* \(first: ID 511\)"):
        patches.read([600, 511])


def test_a_table_that_grew_leaves_the_cache_as_it_is_until_it_is_topped_up(store_of):
    path = store_of("s", np.arange(300))
    extend_annotations(path, table(np.arange(700)))
    patches = featstore.open(path).patches("cells")
    assert (patches.info.rows, patches.info.complete, len(patches.windows)) == (300, False, 300)
    assert np.array_equal(patches.read([299, 0]), pixels_of([299, 0]))
    for missing in (300, 699):
        with pytest.raises(NotInStoreError, match=rf"1 of 2 patches .*\(first: ID {missing}\)"):
            patches.read([299, missing])
    assert [finding.rule for finding in verify(path)] == ["S3"]


def test_a_chunk_is_whole_patches_of_about_eight_mib():
    n_per_chunk = rows_per_chunk(20_552, 224 * 224 * 3, "uint8")
    assert n_per_chunk == 55
    assert 0.9 < n_per_chunk * 224 * 224 * 3 / 2**23 <= 1


def test_reading_copies_each_patch_once(tmp_path):
    """Several patches of each chunk, in no order, whole and cropped: no second copy of them."""
    path, spec, ids = tmp_path / "s", CutSpec(96, 0.25), np.arange(600)
    featstore.create(path)
    add_annotations(path, table(ids))
    cut(path, spec=spec)
    asked = np.random.default_rng(0).permutation(ids)[:400]
    for patches in (featstore.open(path).patches("cells").cropped(px) for px in (96, 80)):
        patches.read(asked[:2])
        tracemalloc.start()
        read = patches.read(asked)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1.05 * read.nbytes
        inside = slice(48 - patches.patch_px // 2, 48 + patches.patch_px // 2)
        assert np.array_equal(read, pixels_of(asked, 96)[:, inside, inside])


def test_workers_read_the_same_whether_forked_or_spawned(lab):
    patches = featstore.open(lab).patches("cells").cropped(4)
    expected = patches.read([5, 700, 5])
    patches.read(patches.ids)
    assert len(pickle.dumps(patches)) < 50_000  # none of the 138,240 bytes that were mapped
    assert np.array_equal(pickle.loads(pickle.dumps(patches)).read([5, 700, 5]), expected)
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            for read in pool.map(patches.read, [[5, 700, 5]] * 4):
                assert np.array_equal(read, expected)


def test_other_libraries_read_the_same_pixels(lab):
    array = zarr.open_array(lab / PIXELS, mode="r")
    assert np.array_equal(array[...], pixels_of(np.arange(N)))
    assert array.metadata.dimension_names == ("annotation", "y", "x", "rgb")
    tensorstore = pytest.importorskip("tensorstore")
    opened = tensorstore.open({"driver": "zarr3", "kvstore": f"file://{lab / PIXELS}"}).result()
    assert np.array_equal(opened.read().result(), pixels_of(np.arange(N)))
    assert [label.label for label in opened.domain] == ["annotation", "y", "x", "rgb"]


def test_a_chunk_file_is_what_zarr_itself_would_write(lab, tmp_path):
    ours = zarr.open_array(lab / PIXELS, mode="r")
    theirs = zarr.create_array(
        tmp_path / "zarr" / PIXELS,
        shape=ours.shape,
        chunks=ours.chunks,
        dtype=ours.dtype,
        fill_value=0,
        compressors=[zarr.codecs.Crc32cCodec()],
    )
    theirs[:] = pixels_of(np.arange(N))
    assert chunks_of(tmp_path / "zarr") == chunks_of(lab)


def test_a_damaged_chunk_is_named_with_what_makes_it_again(lab):
    flip(lab / PIXELS / "c/1/0/0/0", 100)
    patches = featstore.open(lab, check=True).patches("cells")
    with pytest.raises(
        DamagedChunkError, match=r"chunk 1 of .* does not fit its checksum .*'featstore cut' makes"
    ):
        patches.read([300])
    (lab / PIXELS / "c/1/0/0/0").write_bytes(b"short")
    with pytest.raises(DamagedChunkError, match=r"chunk 1 of .* has 5 bytes"):
        featstore.open(lab).patches("cells").read([300])


# --- what a cache can stand in for


@pytest.mark.parametrize(
    ("asked", "factor", "served"),
    [
        (CUT, 1.0, True),
        (replace(CUT, patch_px=4), 1.0, True),
        (replace(CUT, patch_px=5), 1.0, False),  # half a pixel aside
        (replace(CUT, patch_px=8), 1.0, False),
        (replace(CUT, mpp=0.5), 1.0, False),
        (replace(CUT, mpp=None), 1.0, False),
        (replace(CUT, patch_px=4, outside="black"), 1.0, False),
        (replace(CUT, patch_px=4, resampling="nearest"), 1.0, False),
        (CUT, 2.0, True),
        (replace(CUT, patch_px=4), 2.0, False),  # resampling reaches over the edge of the crop
    ],
)
def test_a_cache_serves_what_cutting_anew_would_give(store_of, asked, factor, served):
    path = store_of("s", np.arange(10), factor=factor)
    assert featstore.open(path).patches("cells").serves(asked) is served


def test_whole_patch_files_serve_their_own_size_only(store_of):
    whole = CutSpec(PX, None)
    patches = featstore.open(store_of("s", np.arange(10), spec=whole)).patches("cells")
    assert patches.serves(whole)
    assert patches.mpp is None
    assert not patches.serves(replace(whole, patch_px=4))


def test_a_crop_is_a_cache_of_its_own_size(lab):
    patches = featstore.open(lab).patches("cells")
    small = patches.cropped(4)
    assert (small.patch_px, small.cut, small.shape) == (4, replace(CUT, patch_px=4), (N, 4, 4, 3))
    assert small.serves(replace(CUT, patch_px=2))
    assert not small.serves(CUT)
    assert np.array_equal(small.cropped(2).read([7]), pixels_of([7])[:, 2:4, 2:4])
    for patch_px in (8, 5, 0, -2):
        with pytest.raises(StoreError, match=f"have 6 px, of which {patch_px} px are no centre"):
            patches.cropped(patch_px)


# --- writing


@pytest.mark.parametrize("stops", [(1, None), (2, 1, None), (0, 4, None)])
def test_cutting_again_after_a_stop_gives_the_same_bytes(store_of, lab, stops):
    path = store_of("stopped", np.arange(N), n_chunks=0)
    for n_chunks in stops:
        cut(path, n_chunks=n_chunks)
    assert len(chunks_of(path)) == 5
    assert chunks_of(path) == chunks_of(lab)
    assert errors_of(path) == []


def test_what_was_cut_before_a_table_grew_is_not_cut_again(store_of, lab):
    path = store_of("grown", np.arange(600))
    before = chunks_of(path)
    extend_annotations(path, table(np.arange(N)))
    with PatchWriter(path, windows_of(table(np.arange(N))), CUT, run={}) as writer:
        asked = np.concatenate([chunk.ids for chunk in writer.pending()])
        assert asked.tolist() == list(range(600, N))
    cut(path)
    after = chunks_of(path)
    assert after == chunks_of(lab)
    assert [name for name in before if before[name] != after[name]] == [f"{PIXELS}/c/2/0/0/0"]
    assert verify(path) == []


def test_windows_are_replaced_whole_and_keep_what_others_noted(store_of):
    path = store_of("s", np.arange(300))
    rewrite(path / "patches/cells/windows", attributes={"lab": "ours"})
    extend_annotations(path, table(np.arange(700)))
    cut(path, n_chunks=0)
    assert len(featstore.open(path).patches("cells").windows) == 700
    assert zarr.open_group(path / "patches/cells/windows", mode="r").attrs["lab"] == "ours"
    assert errors_of(path) == []


def test_a_crash_while_windows_are_swapped_is_mended(lab):
    home = lab / "patches/cells"
    (home / "windows").rename(home / ".windows.previous")
    with pytest.raises(StoreError, match="'patches/cells/windows' is not in"):
        _ = featstore.open(lab).patches("cells").windows
    open_root(lab, mode="r+")
    assert len(featstore.open(lab).patches("cells").windows) == N
    (home / "windows").rename(home / ".windows.previous")
    assert {"M4", "S2"} <= {finding.rule for finding in verify(lab)}
    assert verify(lab, repair=True) == []


def test_patches_cut_in_another_way_are_refused_with_what_differs(lab):
    windows = windows_of(table(np.arange(N)))
    with pytest.raises(
        DigestError,
        match=r"'patches/cells' was cut in another way than is asked for \(patch_px 6 and 8; mpp "
        r"0.25 and 0.5\); 'featstore cut --replace' removes",
    ):
        PatchWriter(lab, windows, CutSpec(8, 0.5), run={})
    cut(lab)  # the lock was given back


def test_windows_of_other_annotations_are_refused(store_of):
    path = store_of("s", np.arange(300), n_chunks=0)
    whole = windows_of(table(np.arange(300)))
    for windows in (whole.take(whole.ids[::-1]), whole.take(whole.ids[:299])):
        with pytest.raises(AnnotationError, match="are not of the 300 annotations of 'cells' in"):
            PatchWriter(path, windows, CUT, run={})
    columns = {name: values for name, values in whole.columns.items() if name != "read_level"}
    lacking = featstore.AnnotationTable("cells", whole.ids, whole.labels, columns)
    with pytest.raises(AnnotationError, match="'cells' has no column 'read_level'"):
        PatchWriter(path, lacking, CUT, run={})
    text = whole.with_columns(resample_factor=["one"] * 300)
    with pytest.raises(
        AnnotationError, match="'resample_factor' of the windows of 'cells' holds t"
    ):
        PatchWriter(path, text, CUT, run={})
    with pytest.raises(StoreError, match="column name 'Bad Name' is not allowed"):
        PatchWriter(path, whole.with_columns(**{"Bad Name": whole.ids}), CUT, run={})
    assert not (path / "patches").exists()


def test_patches_of_other_annotations_are_not_added_to(lab):
    shutil.rmtree(lab / "annotations/cells")
    add_annotations(lab, table(np.arange(N) + 1))
    with pytest.raises(DigestError, match="the first 1100 annotations of 'cells' are not those"):
        PatchWriter(lab, windows_of(table(np.arange(N) + 1)), CUT, run={})


def test_pixels_of_another_shape_or_type_are_refused(store_of):
    path = store_of("s", np.arange(300), n_chunks=0)
    with PatchWriter(path, windows_of(table(np.arange(300))), CUT, run={}) as writer:
        chunk = writer.pending()[0]
        good = pixels_of(chunk.ids)
        for bad in (good[:-1], good[:, :4], good[..., :1], good.astype(float), good[..., 0]):
            with pytest.raises(StoreError, match=r"\(256, 6, 6, 3\) of uint8 are needed"):
                writer.write(chunk, bad)
    assert not (path / "patches/cells").exists()


def test_one_process_at_a_time_cuts(lab):
    with writer_lock(lab / PIXELS):
        with pytest.raises(LockedError, match="patches/cells/pixels is being written to by"):
            cut(lab)
        with pytest.raises(LockedError):
            remove_patches(lab, "cells")
    assert_holds(lab, np.arange(N))


def test_a_cache_is_taken_away_and_cut_anew_in_another_way(lab):
    remove_patches(lab, "cells")
    assert featstore.open(lab).cached_datasets() == []
    assert [entry.name for entry in (lab / "patches").iterdir()] == ["zarr.json"]
    with pytest.raises(NotInStoreError, match="no patches of 'cells'"):
        remove_patches(lab, "cells")
    cut(lab, spec=CutSpec(4, 0.5))
    assert featstore.open(lab).patches("cells").cut == CutSpec(4, 0.5)
    assert verify(lab) == []


def test_a_cache_with_damaged_metadata_can_be_taken_away(lab):
    (lab / "patches/cells/zarr.json").write_bytes(b"{")
    (lab / "patches/cells/windows/id/zarr.json").write_bytes(b"{")
    (lab / PIXELS / "zarr.json").write_bytes(b"{")
    remove_patches(lab, "cells")
    assert featstore.open(lab).cached_datasets() == []


CUTTING = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.test_featstore.test_store_patchcache import cut
print("ready", flush=True)
cut(sys.argv[1])
"""


def test_a_cut_killed_at_any_instant_leaves_whole_chunks_and_goes_on(store_of, lab):
    whole, path = chunks_of(lab), store_of("killed", np.arange(N), n_chunks=0)
    root, n_partial = str(Path(__file__).parents[2]), 0
    for n_chunks in (0, 1, 1, 2, 3, 4, 5, 1, 3):
        words = [sys.executable, "-c", CUTTING, str(path), root]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            while process.poll() is None and len(list(path.glob(f"{PIXELS}/c/*"))) < n_chunks:
                time.sleep(0.0005)
            process.send_signal(signal.SIGKILL)
        there = chunks_of(path)
        assert there.items() <= whole.items()
        assert errors_of(path) == []
        n_partial += 0 < len(there) < len(whole)
        if there == whole:
            remove_patches(path, "cells")
    cut(path)
    assert chunks_of(path) == whole
    assert n_partial > 0


# --- checking and repairing


def flip(path, bit):
    """Flip one bit of a file; return what was there."""
    raw = bytearray(path.read_bytes())
    before = bytes(raw)
    raw[bit // 8 % len(raw)] ^= 1 << bit % 8
    path.write_bytes(raw)
    return before


def test_a_flipped_bit_in_every_file_of_a_cache_is_found_and_named(lab):
    assert verify(lab) == []
    for name in files_of(lab / "patches"):
        path, place = lab / "patches" / name, f"patches/{name}"
        for bit in range(3, 8 * path.stat().st_size, path.stat().st_size * 8 // 7 | 1):
            before = flip(path, bit)
            findings = verify(lab)
            if findings == []:
                assert json.loads(path.read_bytes()) == json.loads(before)  # white space
            else:
                assert place.startswith(findings[0].place)
            path.write_bytes(before)


def test_damaged_windows_are_made_again_by_the_next_cut(lab):
    before, home = files_of(lab), lab / "patches/cells/windows"
    for name, content in files_of(home).items():
        for share in (0.3, 0.9):
            flip(home / name, int(share * 8 * len(content)))
            cut(lab)
            assert files_of(lab) == before, name
    (home / "id/c/0").unlink()
    cut(lab)
    shutil.rmtree(home)
    cut(lab)
    assert files_of(lab) == before


def test_a_repaired_cache_is_filled_again_with_the_same_bytes(lab):
    before = chunks_of(lab)
    flip(lab / PIXELS / "c/1/0/0/0", 12_345)
    (lab / PIXELS / "c/2/0/0/0").write_bytes(b"cut short")
    (lab / PIXELS / "c/3/0/0/0").unlink()
    advice = "'featstore verify --repair' drops it, 'featstore cut' makes it again"
    assert [finding.message.endswith(advice) for finding in verify(lab)] == [True, True, False]
    findings = verify(lab, repair=True)
    assert [(finding.rule, finding.severity) for finding in findings] == [
        ("M9", "dropped"),
        ("M8", "dropped"),
        ("S3", "note"),
    ]
    assert findings[0].ids == tuple(range(256, 512))
    (note,) = verify(lab)
    assert (note.rule, note.ids) == ("S3", tuple(range(256, 1_024)))
    assert note.message == "768 annotations are not cut yet; 'featstore cut' goes on"
    assert featstore.open(lab).patches("cells").info.rows == N - 768
    cut(lab)
    assert chunks_of(lab) == before
    assert verify(lab) == []


def provenance_of(document):
    return document["attributes"]["provenance"]


def make_smaller(document):
    document["shape"] = [N, 4, 4, 3]
    document["chunk_grid"]["configuration"]["chunk_shape"] = [256, 4, 4, 3]


NO_DIGEST = "sha256:" + 64 * "0"
FORGED = [
    ("M21", "patches/cells", lambda d: provenance_of(d)["cut"].update(outside="black")),
    ("M21", "patches/cells", lambda d: provenance_of(d).update(digest=NO_DIGEST)),
    ("M5", "patches/cells", lambda d: provenance_of(d).pop("cut")),
    ("M5", "patches/cells", lambda d: provenance_of(d)["cut"].update(patch_px=0)),
    ("M16", "patches/cells", lambda d: provenance_of(d).update(dataset="other")),
    ("M19", "patches/cells", lambda d: provenance_of(d).update(dataset_digest=NO_DIGEST)),
    ("M22", PIXELS, lambda d: d.update(shape=[N, 6, 5, 3])),
    ("M22", PIXELS, lambda d: d.update(shape=[N, 8, 8, 3])),
    ("M22", PIXELS, make_smaller),
    ("M19", PIXELS, lambda d: d.update(shape=[N + 1, 6, 6, 3])),
    ("M7", PIXELS, lambda d: d.update(data_type="int8")),
    ("M7", PIXELS, lambda d: d.update(fill_value=1)),
    ("M7", PIXELS, lambda d: d.update(shape=[N, 108])),
    ("M7", PIXELS, lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[256])),
    ("M7", PIXELS, lambda d: d.update(dimension_names=["annotation", "x", "y", "rgb"])),
    ("M23", "patches/cells/windows/read_level", lambda d: d["attributes"]["columns"].pop(3)),
    ("M15", "patches/cells/windows", lambda d: d["attributes"].update(digest=NO_DIGEST)),
    ("M12", "patches/cells/windows/id", lambda d: d["attributes"].update(rows=3)),
]


@pytest.mark.parametrize(("rule", "place", "change"), FORGED)
def test_metadata_with_a_seal_that_holds_must_still_be_right(lab, rule, place, change):
    folder = lab / (place if rule not in ("M23", "M12") else "patches/cells/windows")
    document = parse((folder / "zarr.json").read_bytes())
    change(document)
    (folder / "zarr.json").write_text(json.dumps(sealed(document)))
    found = [(finding.rule, finding.place, finding.severity) for finding in verify(lab)]
    assert (rule, place, "error") in found
    assert "M6" not in {rule for rule, _, _ in found}


def test_windows_must_be_those_of_the_annotations(store_of, lab):
    other = store_of("other", np.arange(N)[::-1])
    shutil.rmtree(lab / "patches/cells/windows")
    assert "M4 patches/cells/windows: is not there" in errors_of(lab)[0]
    shutil.copytree(other / "patches/cells/windows", lab / "patches/cells/windows")
    assert "M23 patches/cells/windows: is not of the first 1,100" in errors_of(lab)[0]
    with pytest.raises(StoreError, match="which are not the windows of its 1100 patches"):
        copy(featstore.open(lab), lab / "../target", patches=True)
    shutil.rmtree(lab / "patches/cells/windows")
    short = store_of("short", np.arange(300))
    shutil.copytree(short / "patches/cells/windows", lab / "patches/cells/windows")
    assert "M23 patches/cells/windows: has 300 rows, the patches 1,100" in errors_of(lab)[0]


def test_pixels_behind_the_last_row_are_found(lab):
    chunk = zarr.open_array(lab / PIXELS, mode="r")
    raw = np.concatenate([pixels_of(np.arange(1_024, 1_100)), pixels_of(np.arange(180))])
    array = zarr.open_array(lab / PIXELS, mode="r+")
    rewrite(lab / PIXELS, shape=[1_280, PX, PX, 3])
    zarr.open_array(lab / PIXELS, mode="r+")[1_024:] = raw
    rewrite(lab / PIXELS, shape=[N, PX, PX, 3])
    assert (chunk.shape, array.shape) == ((N, PX, PX, 3),) * 2
    assert "M24 patches/cells/pixels chunk 4: holds pixels behind the last row" in errors_of(lab)[0]


def test_leftovers_in_a_cache_are_dropped(lab):
    (lab / PIXELS / "c/0/0/0/.0.partial-12345678").write_bytes(b"half")
    aside = lab / "patches/.old.partial-0123"
    aside.mkdir()
    assert [finding.rule for finding in verify(lab)] == ["S2", "S2"]
    os.utime(aside, (time.time() - 4_000,) * 2)
    assert {finding.severity for finding in verify(lab, repair=True)} == {"dropped"}
    assert verify(lab) == []


def test_a_cache_without_its_dataset_is_found_and_strange_files_are_noted(lab):
    (lab / "patches/cells/thumbnails").mkdir()
    (lab / "patches/README").write_text("ours")
    notes = [finding.place for finding in verify(lab) if finding.rule == "S1"]
    assert notes == ["patches/README", "patches/cells/thumbnails"]
    shutil.rmtree(lab / "annotations/cells")
    assert "M16 patches/cells: there is no dataset cells" in errors_of(lab)[0]
    (lab / "patches/zarr.json").unlink()
    assert "M4 patches: has no zarr.json" in errors_of(lab)[0]


# --- sharing


def numbers(copied):
    return {part.name: (part.copied, part.equal) for part in copied.parts}


def test_patches_stay_behind_unless_they_are_asked_for(lab, tmp_path):
    copied = copy(featstore.open(lab), tmp_path / "without")
    assert copied.notes == (
        "patches of cells (135.0 KiB) were left behind; --patches takes them along",
    )
    assert not (tmp_path / "without/patches").exists()
    assert verify(tmp_path / "without") == []


def test_a_copy_has_the_same_files_and_copying_again_writes_nothing(lab, tmp_path):
    target = tmp_path / "target"
    copied = copy(featstore.open(lab), target, patches=True)
    assert copied.notes == ()
    assert numbers(copied) == {"annotations/cells": (4, 0), "patches/cells": (5 + 8, 0)}
    here, there = files_of(lab), files_of(target)
    assert {name for name in here if here[name] != there[name]} == set()
    assert copied.n_bytes == sum(len(data) for name, data in there.items() if "/c/" in name)
    again = copy(featstore.open(lab), target, patches=True)
    assert (again.n_bytes, numbers(again)["patches/cells"]) == (0, (0, 5))
    assert files_of(target) == there


def test_an_interrupted_copy_goes_on_and_ends_the_same(lab, tmp_path):
    target = tmp_path / "target"
    copy(featstore.open(lab), target, patches=True)
    for number in (1, 4):
        shutil.rmtree(target / PIXELS / f"c/{number}")
    shutil.rmtree(target / PIXELS / "c/0")
    copied = copy(featstore.open(lab), target, patches=True)
    assert numbers(copied)["patches/cells"] == (3, 2)
    assert files_of(target) == files_of(lab)


def test_a_damaged_chunk_is_not_copied(lab, tmp_path):
    flip(lab / PIXELS / "c/2/0/0/0", 99)
    with pytest.raises(DamagedChunkError, match="patches/cells/pixels/c/2/0/0/0 of"):
        copy(featstore.open(lab), tmp_path / "target", patches=True)
    assert errors_of(tmp_path / "target") == []


def test_an_unfinished_cache_is_copied_as_far_as_it_goes(store_of, tmp_path):
    source = store_of("source", np.arange(N), n_chunks=2)
    copy(featstore.open(source), tmp_path / "target", patches=True)
    assert chunks_of(tmp_path / "target") == chunks_of(source)
    assert featstore.open(tmp_path / "target").patches("cells").info.rows == 512


def test_a_target_that_is_the_beginning_of_the_source_grows_to_all_of_it(store_of, lab):
    for n_before in (100, 256, 600):
        target = store_of("target", np.arange(n_before))
        copy(featstore.open(lab), target, patches=True)
        assert_holds(target, np.arange(N))
        assert verify(target) == []
        windows = [featstore.open(path).patches("cells").windows for path in (lab, target)]
        assert windows[0].column("read_level").tolist() == windows[1].column("read_level").tolist()


def test_patches_of_a_table_in_another_order_are_put_in_the_order_of_the_target(store_of, lab):
    target = store_of("target", np.arange(N)[::-1], n_chunks=0)
    copy(featstore.open(lab), target, patches=True)
    assert_holds(target, np.arange(N))
    windows = featstore.open(target).patches("cells").windows
    assert windows.ids.tolist() == list(range(N))[::-1]
    expected = windows_of(windows).column("others_in_window")
    assert windows.column("others_in_window").tolist() == expected.tolist()
    assert verify(target) == []


def test_rows_that_wait_for_their_top_up_are_not_copied_as_patches(store_of):
    source = store_of("source", np.arange(300))
    extend_annotations(source, table(np.arange(700)))
    cut(source, n_chunks=0)
    target = store_of("target", np.arange(700)[::-1], n_chunks=0)
    (note,) = copy(featstore.open(source), target, patches=True).notes
    assert note.startswith("112 patches of patches/cells were not copied")
    assert_holds(target, np.arange(188))
    assert featstore.open(target).patches("cells").info.rows == 188
    assert errors_of(target) == []


@settings(max_examples=12)
@given(
    ours=st.lists(st.integers(0, 60), min_size=1, max_size=40, unique=True),
    theirs=st.lists(st.integers(0, 60), min_size=1, max_size=40, unique=True),
)
def test_after_a_merge_every_id_of_both_stores_is_read_as_it_was(store_of, ours, theirs):
    target, source = store_of("target", ours), store_of("source", theirs)
    copy(featstore.open(source), target, patches=True)
    store = featstore.open(target)
    ids = store.annotations("cells").ids
    assert set(ids.tolist()) == {*ours, *theirs}
    assert_holds(target, ids)
    windows = store.patches("cells").windows
    assert windows.column("padded_fraction").tolist() == (ids % 5 / 10).tolist()
    assert verify(target) == []


def test_annotations_that_the_source_has_no_patches_of_wait_for_the_cut(store_of):
    target = store_of("target", np.arange(300), n_chunks=0)
    source = store_of("source", np.arange(200, 1_400))
    (note,) = copy(featstore.open(source), target, patches=True).notes
    assert note.startswith("56 patches of patches/cells were not copied")
    assert note.endswith("'featstore cut' makes them")
    assert_holds(target, np.arange(256, 1_400))
    patches = featstore.open(target).patches("cells")
    unknown = patches.windows.column("read_level") == UNKNOWN_LEVEL
    assert patches.windows.ids[unknown].tolist() == list(range(200))
    assert patches.serves(replace(CUT, patch_px=4))
    assert errors_of(target) == []
    cut(target)
    assert verify(target) == []
    assert_holds(target, np.arange(1_400))
    assert not (featstore.open(target).patches("cells").windows.column("read_level") < 0).any()


def test_patches_cut_in_another_way_are_not_merged(store_of, lab):
    target = store_of("target", np.arange(10), spec=CutSpec(8, 0.25))
    before = files_of(target)
    with pytest.raises(DigestError, match=r"cut in another way .*\(patch_px 8 and 6\); nothing"):
        copy(featstore.open(lab), target, patches=True)
    assert files_of(target) == before


def test_other_pixels_in_the_target_are_kept_and_said_so(store_of, lab, tmp_path):
    copy(featstore.open(lab), tmp_path / "target", patches=True)
    other = chunks_of(lab)[f"{PIXELS}/c/3/0/0/0"]
    (tmp_path / "target" / PIXELS / "c/2/0/0/0").write_bytes(other)
    (note,) = copy(featstore.open(lab), tmp_path / "target", patches=True).notes
    assert note.startswith("1 chunks of patches/cells are in")
    assert (tmp_path / "target" / PIXELS / "c/2/0/0/0").read_bytes() == other


def test_a_zip_holds_patches_where_they_are_asked_for(lab, tmp_path):
    without = pack(lab, tmp_path / "without.zip")
    assert "patches of cells (135.0 KiB) were left behind" in without.notes[0]
    with zipfile.ZipFile(without.path) as archive:
        assert not [name for name in archive.namelist() if name.startswith("patches")]
    assert featstore.open(without.path).cached_datasets() == []
    packed = pack(lab, tmp_path / "lab.zarr.zip", patches=True)
    assert packed.notes == ()
    store = featstore.open(packed.path)
    assert store.cached_datasets() == ["cells"]
    assert store.patches("cells").info == featstore.open(lab).patches("cells").info
    copy(store, tmp_path / "out", patches=True)
    assert files_of(tmp_path / "out") == files_of(lab)


def test_the_command_line_takes_patches_along_where_asked(lab, tmp_path):
    target, packed = str(tmp_path / "target"), str(tmp_path / "lab.zip")
    left = CliRunner().invoke(COMMANDS["copy"], [str(lab), target], catch_exceptions=False)
    assert "Note: patches of cells (135.0 KiB) were left behind" in left.stderr
    for name, words in (("copy", [str(lab), target]), ("pack", [str(lab), packed])):
        done = CliRunner().invoke(COMMANDS[name], [*words, "--patches"], catch_exceptions=False)
        assert (done.exit_code, done.stderr) == (0, "")
    for place in (target, packed):
        assert featstore.open(place).patches("cells").info.complete


@settings(max_examples=20)
@given(rows=st.lists(st.integers(0, 511), max_size=40), patch_px=st.sampled_from([6, 2]))
def test_a_zip_reads_as_the_folder_does(store_of, tmp_path, rows, patch_px):
    path = store_of("lab.zarr", np.arange(N), n_chunks=2)
    (tmp_path / "lab.zip").unlink(missing_ok=True)
    pack(path, tmp_path / "lab.zip", patches=True)
    stores = featstore.open(path), featstore.open(tmp_path / "lab.zip")
    read = [store.patches("cells").cropped(patch_px).read(rows) for store in stores]
    assert np.array_equal(*read)
    with pytest.raises(NotInStoreError, match=r"1 of .* \(first: ID 512\)"):
        stores[1].patches("cells").read([*rows, 512])
