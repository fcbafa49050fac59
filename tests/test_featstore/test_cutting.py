import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import featstore
from featstore.cutting import cut
from featstore.errors import DigestError, ImageError, LockedError, NotInStoreError
from featstore.patches import Patches, patches_of
from featstore.store.lock import writer_lock
from featstore.store.verify import verify
from featstore.store.writer import PatchWriter, add_annotations, extend_annotations

PX = 160  # 110 patches to a chunk


def patches_in(path, **changes):
    return Patches.of(featstore.open(path), "midog", **{"patch_px": PX, "mpp": 0.25} | changes)


def chunk_files(path):
    folder = path / "patches" / "midog" / "pixels" / "c"
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_the_cache_holds_what_is_cut_from_the_images(region_store):
    patches = patches_in(region_store)
    done = cut(region_store, patches, workers=2)
    assert (done.dataset, done.rows_before, done.rows_new) == ("midog", 0, 600)
    cached = featstore.open(region_store).patches("midog")
    asked = cached.ids[[599, 0, 256, 255, 0]]
    assert np.array_equal(cached.read(asked), patches.read(asked))
    windows, expected = cached.windows, patches.windows()
    assert list(windows.columns) == list(expected.columns)
    for name, values in expected.columns.items():
        assert np.array_equal(windows.column(name), values), name
    assert verify(region_store) == []


def test_a_run_that_is_there_has_nothing_left_to_do(region_store):
    cut(region_store, patches_in(region_store))
    again = cut(region_store, patches_in(region_store))
    assert (again.rows_before, again.rows_new, again.patches_per_s) == (600, 0, 0.0)


def test_patches_come_out_of_the_cache_where_that_has_the_same_bytes(region_store):
    cut(region_store, patches_in(region_store))
    store = featstore.open(region_store)
    ids = store.annotations("midog").ids[::7]
    for patch_px, from_cache in [(PX, True), (64, True), (63, False), (PX + 2, False)]:
        given = patches_of(store, "midog", patch_px=patch_px, mpp=0.25)
        assert isinstance(given, Patches) != from_cache
        assert (given.patch_px, given.mpp) == (patch_px, 0.25)
        cut_anew = patches_in(region_store, patch_px=patch_px).read(ids)
        assert np.array_equal(given.read(ids), cut_anew), patch_px
    assert isinstance(patches_of(store, "midog", patch_px=PX, mpp=0.5), Patches)
    images = store.image_folder("midog").root
    assert isinstance(patches_of(store, "midog", patch_px=PX, mpp=0.25, images=images), Patches)


def test_resampled_patches_serve_their_own_size_alone(region_store):
    cut(region_store, patches_in(region_store, patch_px=64, mpp=0.5))
    store = featstore.open(region_store)
    assert not isinstance(patches_of(store, "midog", patch_px=64, mpp=0.5), Patches)
    assert isinstance(patches_of(store, "midog", patch_px=32, mpp=0.5), Patches)


def test_another_cut_is_refused_and_what_is_there_stays(region_store):
    cut(region_store, patches_in(region_store))
    before = chunk_files(region_store)
    with pytest.raises(DigestError, match=r"patch_px 160 and 64.*--replace"):
        cut(region_store, patches_in(region_store, patch_px=64))
    assert chunk_files(region_store) == before


def test_a_dataset_that_has_grown_is_topped_up(region_store, tmp_path):
    whole = featstore.open(region_store).annotations("midog")
    folder = featstore.open(region_store).image_folder("midog")
    short = tmp_path / "short.zarr"
    featstore.create(short)
    add_annotations(short, whole.take(whole.ids[:250]), folder=folder)
    cut(short, patches_in(short))
    extend_annotations(short, whole)
    with pytest.raises(NotInStoreError, match="350 of 600 patches asked for are not in"):
        featstore.open(short).patches("midog").read(whole.ids)
    # not all are there, so all come from the images
    assert isinstance(patches_of(featstore.open(short), "midog", patch_px=PX, mpp=0.25), Patches)
    done = cut(short, patches_in(short))
    assert (done.rows_before, done.rows_new) == (250, 350)
    cached = featstore.open(short).patches("midog")
    assert np.array_equal(cached.read(whole.ids), patches_in(short).read(whole.ids))
    # neighbours are those of the whole dataset, of the old rows too
    expected = patches_in(short).windows().column("others_in_window")
    assert np.array_equal(cached.windows.column("others_in_window"), expected)


def test_a_damaged_image_stops_the_run_by_name_and_keeps_what_was_whole(region_store):
    image = featstore.open(region_store).image_folder("midog").path("002.tiff")
    content = image.read_bytes()
    image.write_bytes(content[:-5_000])
    patches = patches_in(region_store)
    with pytest.raises(ImageError, match=r"002.tiff is cut short"):
        cut(region_store, patches)
    image.write_bytes(content)
    assert cut(region_store, patches_in(region_store)).rows_new == 600
    assert verify(region_store) == []


CUT = """
import sys, featstore, featstore.cutting
from featstore.patches import Patches
featstore.ahead.UNIT_BYTES = 1
patches = Patches.of(featstore.open(sys.argv[1]), "midog", patch_px=160, mpp=0.25)
print("begun", flush=True)
featstore.cutting.cut(sys.argv[1], patches, workers=2)
"""


def test_a_killed_run_leaves_whole_chunks_and_goes_on_to_the_same_bytes(region_store, tmp_path):
    other = tmp_path / "whole.zarr"
    shutil.copytree(region_store, other)
    cut(other, patches_in(other))
    expected, counts = chunk_files(other), []
    for wait_s in np.linspace(0.0, 0.06, 7):
        process = subprocess.Popen(
            [sys.executable, "-c", CUT, str(region_store)], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(wait_s)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        there = chunk_files(region_store)
        whole = {name: data for name, data in there.items() if "partial" not in name}
        assert whole.items() <= expected.items()
        counts.append(len(whole))
    assert counts == sorted(counts)
    cut(region_store, patches_in(region_store))
    verify(region_store, repair=True)
    assert chunk_files(region_store) == expected


def test_of_two_cuts_begun_together_one_is_told_that_the_other_is_writing(region_store):
    patches = patches_in(region_store, patch_px=32)
    windows, said = patches.windows(), []

    def begin(together, refused):
        together.wait()
        try:
            with PatchWriter(region_store, windows, patches.cut, run={}):
                assert refused.wait(timeout=60)
        except LockedError as error:
            said.append(str(error))
            refused.set()

    for _ in range(10):
        together, refused = threading.Barrier(2), threading.Event()
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(begin, together, refused) for _ in range(2)]:
                done.result()
    assert len(said) == 10
    assert all("is being written to by process" in line for line in said)


def test_an_array_that_was_taken_away_before_its_lock_was_had_is_said_so(tmp_path):
    with (
        pytest.raises(LockedError, match="has taken it away again; start once more"),
        writer_lock(tmp_path / "gone"),
    ):
        pass
