"""What tests share: small real files, a store with embeddings, and the folder of real data."""

import json
import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest

import featstore
from featstore.datasets.midog import read_midog
from featstore.encoders.spec import EncoderSpec
from featstore.images import ImageFolder
from featstore.store.writer import EmbeddingWriter, add_annotations
from featstore.survey import check_against_images

# A busy machine makes single examples slow; what is measured is measured in tests/benchmarks.
hypothesis.settings.register_profile(
    "shared-machine",
    deadline=None,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
hypothesis.settings.load_profile("shared-machine")


@pytest.fixture(scope="session")
def real_data():
    """The folder that FEATSTORE_TEST_DATA names; tests on real data skip where it is unset."""
    folder = os.environ.get("FEATSTORE_TEST_DATA")
    if not folder:
        pytest.skip("FEATSTORE_TEST_DATA is unset: no real data to test on")
    return Path(folder)


@pytest.fixture
def cells():
    """40 annotations with long string IDs, on 4 slides in 2 domains."""
    rng = np.random.default_rng(5)
    number = np.arange(40)
    return featstore.AnnotationTable(
        "cells",
        [f"annotation-number-{n:05d}-of-forty" for n in rng.permutation(number)],
        np.where(number % 3 == 0, "mitotic figure", "look-alike"),
        {
            "x": rng.uniform(0, 99, 40),
            "y": rng.uniform(0, 99, 40),
            "slide": np.array(["s1", "s2", "s3", "s4"])[number % 4],
            "domain": np.array(["A", "B"])[number % 2],
        },
    )


@pytest.fixture
def tiny_spec():
    return EncoderSpec("tiny", "none", pooling="class+mean", dim=6, weights="random:0")


@pytest.fixture
def write_embeddings():
    """Write given values for every annotation of a dataset, as an extraction would."""

    def write(path, dataset, spec, values, *, n_chunks=None):
        parts = {"class": (0, spec.dim // 2), "mean": (spec.dim // 2, spec.dim)}
        with EmbeddingWriter(path, dataset, spec, parts=parts, run={}) as writer:
            for chunk in writer.pending()[:n_chunks]:
                rows = writer.annotations.positions(chunk.ids)
                writer.write(chunk, values[rows])

    return write


@pytest.fixture
def chunks_of():
    """Bytes of every chunk of an array of embeddings, by its place."""

    def chunks(path, model, dataset):
        folder = Path(path) / "embeddings" / model / dataset / "values" / "c"
        return {
            file.relative_to(folder).as_posix(): file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file()
        }

    return chunks


@pytest.fixture
def filled_store(tmp_path, cells, tiny_spec, write_embeddings):
    """A store with the dataset 'cells' and embeddings of it, and the values that went in."""
    path = tmp_path / "lab.zarr"
    featstore.create(path)
    add_annotations(path, cells)
    codes = (cells.labels == "mitotic figure").astype(np.float32)
    values = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    values[:, 0] += 3 * codes
    write_embeddings(path, "cells", tiny_spec, values)
    return featstore.open(path), values


@pytest.fixture
def write_midog(tmp_path):
    """Write a small dataset in MIDOG's format; options break it in one way each."""
    tifffile = pytest.importorskip("tifffile")

    def write(
        *,
        n_images=2,
        cells_per_image=4,
        size=(300, 260),
        resolution=(40_000, 40_000),
        tags=True,
        edit=None,
        folder="midog",
    ):
        home = tmp_path / folder
        (home / "images").mkdir(parents=True)
        rng = np.random.default_rng(3)
        content = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "hard negative"}],
        }
        for image in range(1, n_images + 1):
            width, height = size
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            options = {"resolution": resolution, "resolutionunit": "CENTIMETER"} if tags else {}
            tifffile.imwrite(
                home / "images" / f"{image:03d}.tiff",
                pixels,
                tile=(64, 64),
                photometric="rgb",
                **options,
            )
            content["images"].append(
                {
                    "id": image,
                    "file_name": f"{image:03d}.tiff",
                    "width": width,
                    "height": height,
                    "tumor_type": f"tumour {'AB'[image % 2]}",
                }
            )
            for cell in range(cells_per_image):
                x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
                content["annotations"].append(
                    {
                        "id": 1_000 * image + cell,
                        "image_id": image,
                        "category_id": 1 + cell % 2,
                        "bbox": [x - 25, y - 25, x + 25, y + 25],
                    }
                )
        if edit is not None:
            edit(content)
        (home / "MIDOG.json").write_text(json.dumps(content))
        return home

    return write


@pytest.fixture
def region_folder(write_midog):
    """The image folder of a small MIDOG dataset."""
    return ImageFolder(str(write_midog() / "images"))


@pytest.fixture
def region_store(tmp_path, write_midog):
    """Path of a store with the dataset 'midog': 600 annotations on two images, and these."""
    home = write_midog(cells_per_image=300)
    folder = ImageFolder(str(home / "images"))
    cells = check_against_images(read_midog(home / "MIDOG.json", name="midog").table, folder)
    featstore.create(tmp_path / "lab.zarr")
    add_annotations(tmp_path / "lab.zarr", cells, folder=folder)
    return tmp_path / "lab.zarr"
