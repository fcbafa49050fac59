import os
import shutil
import signal

import numpy as np
import pytest

import featstore
from featstore.encoders.build import build
from featstore.errors import EncoderError, ImageError
from featstore.extract import extract, extract_many
from featstore.patches import Patches
from featstore.store.verify import verify


@pytest.fixture(scope="module")
def encoder():
    return build("timm:test_vit", random_weights=0, pooling="class+mean")


def patches_of(path, **changes):
    return Patches.of(featstore.open(path), "midog", **{"patch_px": 160, "mpp": 0.25} | changes)


def test_every_annotation_gets_the_embedding_of_its_own_patch(region_store, encoder):
    patches = patches_of(region_store)
    done = extract(region_store, "midog", encoder, patches, batch_size=50, workers=2)
    assert (done.rows_before, done.rows_new) == (0, 600)
    embeddings = featstore.open(region_store).embeddings("test_vit-random0", "midog")
    asked = embeddings.ids[[599, 0, 256, 255]]
    expected = encoder.embed(patches.read(asked)).numpy()
    assert np.allclose(embeddings.read(asked), expected, atol=1e-5)


class Stopping:
    """Patches that stop the run, as a user's Ctrl-C does, at one annotation."""

    def __init__(self, patches, at):
        self.patches, self.at = patches, at
        self.patch_px, self.mpp = patches.patch_px, patches.mpp

    def read(self, ids):
        if self.at in ids:
            raise KeyboardInterrupt
        return self.patches.read(ids)


def test_an_interrupted_run_goes_on_where_it_stopped_with_the_same_bytes(
    region_store, encoder, chunks_of
):
    patches, model = patches_of(region_store), encoder.spec.key
    stopping = Stopping(patches, at=patches.ids[400])
    with pytest.raises(KeyboardInterrupt):
        extract(region_store, "midog", encoder, stopping, workers=0)
    assert len(chunks_of(region_store, model, "midog")) == 1
    seen = []
    done = extract(region_store, "midog", encoder, patches, on_start=seen.append)
    assert [(begun.rows_before, begun.rows) for begun in seen] == [(256, 600)]
    assert (done.rows_before, done.rows_new) == (256, 344)
    resumed = chunks_of(region_store, model, "midog")
    shutil.rmtree(region_store / "embeddings" / model)
    extract(region_store, "midog", encoder, patches)
    assert chunks_of(region_store, model, "midog") == resumed


def test_a_finished_run_has_nothing_left_to_do(region_store, encoder):
    extract(region_store, "midog", encoder, patches_of(region_store))
    again = extract(region_store, "midog", encoder, patches_of(region_store))
    assert (again.rows_new, again.patches_per_s) == (0, 0.0)


def test_patches_of_another_size_or_resolution_are_refused(region_store, encoder):
    for changes in ({"patch_px": 224}, {"mpp": 0.5}):
        with pytest.raises(EncoderError, match=r"takes 160 px at 0\.25 um/px and the patches are"):
            extract(region_store, "midog", encoder, patches_of(region_store, **changes))
    assert featstore.open(region_store).list() == []


def test_an_image_that_vanished_stops_the_run_by_name(region_store, encoder):
    folder = featstore.open(region_store).image_folder("midog")
    folder.path("002.tiff").unlink()
    patches = patches_of(region_store)
    for workers in (0, 2):
        with pytest.raises(ImageError, match=r"002.tiff is missing") as caught:
            extract(region_store, "midog", encoder, patches, batch_size=256, workers=workers)
        assert "\n" not in str(caught.value)
    assert featstore.open(region_store).list()[0].rows == 256


class Counting:
    """Patches that note how often each was read."""

    def __init__(self, patches):
        self.patches = patches
        self.patch_px, self.mpp = patches.patch_px, patches.mpp
        self.read_ids = []

    def read(self, ids):
        self.read_ids += ids.tolist()
        return self.patches.read(ids)


@pytest.fixture(scope="module")
def convolutional():
    return build("timm:test_resnet", random_weights=0)


@pytest.mark.parametrize("batch_size", [64, 100])
def test_encoders_of_one_pass_give_what_each_gives_alone_and_read_each_patch_once(
    region_store, encoder, convolutional, chunks_of, batch_size
):
    encoders, settings = [encoder, convolutional], {"batch_size": batch_size, "workers": 0}
    patches = Counting(patches_of(region_store))
    together = extract_many(region_store, "midog", encoders, patches, **settings)
    assert [done.rows_new for done in together] == [600, 600]
    assert sorted(patches.read_ids) == sorted(patches.patches.ids.tolist())
    found = {one.spec.key: chunks_of(region_store, one.spec.key, "midog") for one in encoders}
    shutil.rmtree(region_store / "embeddings")
    for one in encoders:
        extract(region_store, "midog", one, patches.patches, **settings)
        assert chunks_of(region_store, one.spec.key, "midog") == found[one.spec.key]


def test_a_pass_of_several_encoders_does_only_what_each_of_them_lacks(
    region_store, encoder, convolutional, chunks_of
):
    patches, settings = patches_of(region_store), {"workers": 0, "exact": True}
    extract(region_store, "midog", convolutional, patches, **settings)
    key = convolutional.spec.key
    whole = chunks_of(region_store, key, "midog")
    (region_store / "embeddings" / key / "midog" / "values" / "c" / "1" / "0").unlink()
    done = extract_many(region_store, "midog", [encoder, convolutional], patches, **settings)
    assert [(one.rows_before, one.rows_new) for one in done] == [(0, 600), (344, 256)]
    assert chunks_of(region_store, key, "midog") == whole


def test_devices_share_the_chunks_and_give_the_same_bytes_as_one(
    region_store, encoder, convolutional, chunks_of
):
    encoders, patches = [encoder, convolutional], patches_of(region_store)
    counted = []
    done = extract_many(
        region_store,
        "midog",
        encoders,
        patches,
        workers=0,
        devices=["cpu", "cpu"],
        exact=True,
        on_chunk=counted.append,
    )
    assert [one.complete for one in done] == [True, True]
    assert done[0].n_devices == 2
    assert len(counted) == 6
    assert verify(region_store) == []
    keys = [one.spec.key for one in encoders]
    shared = [chunks_of(region_store, key, "midog") for key in keys]
    shutil.rmtree(region_store / "embeddings")
    extract_many(region_store, "midog", encoders, patches, workers=0, exact=True)
    assert [chunks_of(region_store, key, "midog") for key in keys] == shared


def test_an_error_on_one_of_several_devices_ends_the_run_by_name(region_store, encoder):
    featstore.open(region_store).image_folder("midog").path("002.tiff").unlink()
    with pytest.raises(ImageError, match=r"002.tiff is missing"):
        extract(region_store, "midog", encoder, patches_of(region_store), devices=["cpu", "cpu"])


class Deadly(Stopping):
    """Patches that end the process that reads them, as the kernel does when memory is short."""

    def read(self, ids):
        if self.at in ids:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.patches.read(ids)


def test_a_device_whose_process_is_killed_is_named_and_what_is_there_is_whole(
    region_store, encoder
):
    patches = patches_of(region_store)
    deadly = Deadly(patches, at=patches.ids[-1])
    with pytest.raises(EncoderError, match=r"process of device cpu ended with exit code -9"):
        extract(region_store, "midog", encoder, deadly, workers=0, devices=["cpu", "cpu"])
    done = extract(region_store, "midog", encoder, patches, workers=0)
    assert done.complete
    assert verify(region_store) == []


def test_parts_are_kept_beside_what_is_shown_and_other_poolings_are_views_of_them(region_store):
    whole = build("timm:test_vit", random_weights=0, key="whole")
    patches = patches_of(region_store)
    extract(region_store, "midog", whole, patches, workers=0)
    store = featstore.open(region_store)
    for pooling in ("class", "mean", "class+mean"):
        alone = build("timm:test_vit", random_weights=0, pooling=pooling, key=f"a-{pooling[-4:]}")
        expected = alone.embed(patches.read(patches.ids[:5])).numpy()
        view = store.embeddings(f"whole-random0:{pooling}", "midog")
        np.testing.assert_allclose(view.read(patches.ids[:5]), expected, atol=1e-5)
        assert view.digest == alone.spec.digest
    assert store.embeddings("whole-random0", "midog").shape == (600, 64)


def test_where_the_time_went_adds_up(region_store, encoder):
    done = extract(region_store, "midog", encoder, patches_of(region_store), workers=0)
    parts = ("wait_s", "encode_s", "stall_s")
    assert 0.5 < sum(map(done.share, parts)) <= 1
    assert done.spent.decode_s > 0
    assert done.spent.write_s > 0
    assert done.to_json()["encode_s"] == done.spent.encode_s
