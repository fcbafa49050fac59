import shutil

import numpy as np
import pytest

import featstore
from featstore.datasets.midog import read_midog
from featstore.encoders.build import build
from featstore.errors import EncoderError, ImageError
from featstore.extract import extract
from featstore.images import ImageFolder
from featstore.patches import Patches
from featstore.store.writer import add_annotations
from featstore.survey import check_against_images


@pytest.fixture(scope="module")
def encoder():
    return build("timm:test_vit", random_weights=0, pooling="class+mean")


@pytest.fixture
def store_path(tmp_path, write_midog):
    """A store with a dataset of 600 annotations: three chunks."""
    home = write_midog(cells_per_image=300)
    folder = ImageFolder(str(home / "images"))
    cells = check_against_images(read_midog(home / "MIDOG.json", name="midog").table, folder)
    featstore.create(tmp_path / "lab.zarr")
    add_annotations(tmp_path / "lab.zarr", cells, folder=folder)
    return tmp_path / "lab.zarr"


def patches_of(path, **changes):
    return Patches.of(featstore.open(path), "midog", **{"patch_px": 160, "mpp": 0.25} | changes)


def test_every_annotation_gets_the_embedding_of_its_own_patch(store_path, encoder):
    patches = patches_of(store_path)
    done = extract(store_path, "midog", encoder, patches, batch_size=50, workers=2)
    assert (done.rows_before, done.rows_new) == (0, 600)
    embeddings = featstore.open(store_path).embeddings("test_vit-random0", "midog")
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
    store_path, encoder, chunks_of
):
    patches, model = patches_of(store_path), encoder.spec.key
    with pytest.raises(KeyboardInterrupt):
        extract(store_path, "midog", encoder, Stopping(patches, at=patches.ids[400]))
    assert len(chunks_of(store_path, model, "midog")) == 1
    seen = []
    done = extract(
        store_path, "midog", encoder, patches, on_start=lambda *counts: seen.append(counts)
    )
    assert seen == [(256, 600)]
    assert (done.rows_before, done.rows_new) == (256, 344)
    resumed = chunks_of(store_path, model, "midog")
    shutil.rmtree(store_path / "embeddings" / model)
    extract(store_path, "midog", encoder, patches)
    assert chunks_of(store_path, model, "midog") == resumed


def test_a_finished_run_has_nothing_left_to_do(store_path, encoder):
    extract(store_path, "midog", encoder, patches_of(store_path))
    again = extract(store_path, "midog", encoder, patches_of(store_path))
    assert (again.rows_new, again.patches_per_s) == (0, 0.0)


def test_patches_of_another_size_or_resolution_are_refused(store_path, encoder):
    for changes in ({"patch_px": 224}, {"mpp": 0.5}):
        with pytest.raises(EncoderError, match=r"takes 160 px at 0\.25 um/px and the patches are"):
            extract(store_path, "midog", encoder, patches_of(store_path, **changes))
    assert featstore.open(store_path).list() == []


def test_an_image_that_vanished_stops_the_run_by_name(store_path, encoder):
    folder = featstore.open(store_path).image_folder("midog")
    folder.path("002.tiff").unlink()
    with pytest.raises(ImageError, match=r"002.tiff is missing"):
        extract(store_path, "midog", encoder, patches_of(store_path), workers=2)
    with pytest.raises(ImageError) as caught:
        extract(store_path, "midog", encoder, patches_of(store_path), workers=2)
    assert "\n" not in str(caught.value)
    assert featstore.open(store_path).list()[0].rows == 256
