"""Extraction from slides against the bare forward pass on data in memory."""

import tempfile
from pathlib import Path

import torch

import featstore
from featstore.datasets.demo import make_demo
from featstore.datasets.midog import read_midog
from featstore.encoders.build import build
from featstore.extract import extract
from featstore.images import ImageFolder
from featstore.patches import Patches
from featstore.store.writer import add_annotations
from featstore.survey import check_against_images
from tests.benchmarks.clock import best_s

BATCH = 64


def run():
    """Yield one line per model."""
    with tempfile.TemporaryDirectory() as home:
        yield from _compare(Path(home))


def _compare(home):
    made = make_demo(home / "data", images_per_domain=2)
    folder = ImageFolder(str(made.images))
    cells = check_against_images(read_midog(made.annotations, name="demo").table, folder)
    for model, random_weights in (("efficientnet-lite0", None), ("timm:vit_tiny_patch16_224", 0)):
        encoder = build(model, random_weights=random_weights)
        patches = Patches(cells, folder, encoder.spec.input_px)
        batch = torch.from_numpy(patches.read(cells.ids[:BATCH]))
        bare = BATCH / best_s(lambda batch=batch, encoder=encoder: encoder.embed(batch))
        store = home / f"{encoder.spec.key}.zarr"
        featstore.create(store)
        add_annotations(store, cells, folder=folder)
        whole = extract(store, "demo", encoder, patches, batch_size=BATCH, workers=2).patches_per_s
        yield f"{encoder.spec.key:32} {whole:.0f} of {bare:.0f} patches/s; ratio {whole / bare:.2f}"
