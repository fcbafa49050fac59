import shutil

import numpy as np
import pytest

import featstore
from featstore.encoders.build import build
from featstore.errors import EncoderError, ImageError
from featstore.extract import extract
from featstore.patches import Patches


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
    with pytest.raises(KeyboardInterrupt):
        extract(region_store, "midog", encoder, Stopping(patches, at=patches.ids[400]))
    assert len(chunks_of(region_store, model, "midog")) == 1
    seen = []
    done = extract(
        region_store, "midog", encoder, patches, on_start=lambda *counts: seen.append(counts)
    )
    assert seen == [(256, 600)]
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
    with pytest.raises(ImageError, match=r"002.tiff is missing"):
        extract(region_store, "midog", encoder, patches_of(region_store), workers=2)
    with pytest.raises(ImageError) as caught:
        extract(region_store, "midog", encoder, patches_of(region_store), workers=2)
    assert "\n" not in str(caught.value)
    assert featstore.open(region_store).list()[0].rows == 256
