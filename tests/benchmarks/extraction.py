"""Extraction against the bare forward pass, and against the loop that people write.

All sides of a ratio run in one process, one after another, with the same batch and threads. The
same script prints the figures of a GPU where torch finds one.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
import torchvision
from PIL import Image

import featstore
from featstore.cutting import cut
from featstore.datasets.demo import make_demo
from featstore.datasets.midog import read_midog
from featstore.encoders.build import bare_network, build
from featstore.encoders.precision import cosines
from featstore.encoders.prepared import prepared
from featstore.extract import extract, extract_many
from featstore.images import ImageFolder
from featstore.patches import Patches
from featstore.pipeline.forward import Forward
from featstore.store.writer import add_annotations
from featstore.survey import check_against_images
from tests.benchmarks.clock import best_s

BATCH = 32
N_PATCHES = 512  # two chunks
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = "float16" if DEVICE == "cuda" else "bfloat16"
MODELS = {
    "efficientnet-lite0": {},
    "timm:resnet50": {"random_weights": 0},
    "timm:vit_small_patch16_224": {"random_weights": 0},
}


def run():
    """Yield the lines of each model, of two models in one pass, and of memory."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        store, cells, images = _demo_store(home)
        yield f"on {_machine()}; {N_PATCHES} patches, batches of {BATCH}"
        for model, weights in MODELS.items():
            yield from _one_model(store, cells, images, model, weights)
        yield _two_models(store)
        yield _memory(store, images)


def _machine():
    if DEVICE == "cuda":
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} CPU threads, {torch.backends.cpu.get_cpu_capability()}"


def _demo_store(home):
    made = make_demo(home / "data", images_per_domain=5)
    images = ImageFolder(str(made.images))
    table = read_midog(made.annotations, name="demo").table
    cells = check_against_images(table.take(table.ids[:N_PATCHES]), images)
    store = home / "lab.zarr"
    featstore.create(store)
    add_annotations(store, cells, folder=images)
    cut(store, Patches(cells, images, 224))
    return store, cells, images


def _one_model(store, cells, images, model, weights):
    pixels = Patches(cells, images, 224).read(cells.ids)
    theirs, their_rows = _usual_loop(pixels, model, weights, store.with_suffix(".h5"))
    yield f"{model}: the usual loop {theirs:.1f} patches/s"
    for precision, compiling in (("float32", "off"), (HALF, "off"), (HALF, "on")):
        encoder = build(model, precision=precision, device=DEVICE, key=precision, **weights)
        bare, compile_s = _bare(encoder, pixels, compiling == "on")
        ours = _extracted(store, encoder, compiling)
        rows = featstore.open(store).embeddings(encoder.spec.key, "demo").read(cells.ids)
        shutil.rmtree(store / "embeddings")
        least = _least_cosine(rows, their_rows)
        yield (
            f"  {precision}{', compiled' * (compiling == 'on')}: {ours:.1f} patches/s, "
            f"{ours / bare:.2f} of the bare pass, {ours / theirs:.2f} times the usual loop; "
            f"cosine {least:.5f}, largest difference {np.abs(rows - their_rows).max():.1g}"
            + f"; compiling {compile_s:.0f} s"
            * (compiling == "on")
        )


def _least_cosine(rows, others):
    pair = map(torch.from_numpy, (rows, others))
    return cosines(*pair, {"all": (0, rows.shape[1])})["all"].min()


class _Usual(torch.utils.data.Dataset):
    """Patches one by one through PIL and torchvision, as the usual loop has them."""

    def __init__(self, pixels, spec):
        self.pixels = pixels
        self.transform = torchvision.transforms.Compose(
            [
                torchvision.transforms.ToTensor(),
                torchvision.transforms.Normalize(spec.mean, spec.std),
            ]
        )

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, place):
        return self.transform(Image.fromarray(self.pixels[place]))


def _usual_loop(pixels, model, weights, path):
    """Run DataLoader, timm in float32 and h5py appended to per batch: patches/s, and embeddings."""
    encoder = build(model, **weights)
    network = bare_network(encoder.spec)
    network.load_state_dict(encoder.network.state_dict())
    network = network.eval().to(DEVICE)
    started_s = time.perf_counter()
    loader = torch.utils.data.DataLoader(
        _Usual(pixels, encoder.spec), batch_size=BATCH, num_workers=2, pin_memory=DEVICE == "cuda"
    )
    with torch.inference_mode(), h5py.File(path, "w") as file:
        for batch in loader:
            rows = network(batch.to(DEVICE)).cpu().numpy()
            if "features" not in file:
                shape = (0, rows.shape[1])
                file.create_dataset("features", shape, "f4", maxshape=(None, rows.shape[1]))
            features = file["features"]
            features.resize(len(features) + len(rows), axis=0)
            features[-len(rows) :] = rows
    wall_s = time.perf_counter() - started_s
    with h5py.File(path) as file:
        return len(pixels) / wall_s, file["features"][:]


def _bare(encoder, pixels, compiled):
    """Patches/s of the forward pass alone, on data in memory, and the seconds of its first pass."""
    forward = Forward(prepared(encoder), batch_size=BATCH, compiled=compiled)
    first_s = best_s(lambda: forward.embed(pixels[:BATCH]), runs=1)
    return len(pixels) / best_s(lambda: forward.embed(pixels), runs=1), first_s


def _extracted(store, encoder, compiling):
    """Patches/s of a whole extraction; of what follows the first chunk, where it is compiled."""
    opened = featstore.open(store)
    patches = opened.patches("demo")
    seen = []
    done = extract(
        store,
        "demo",
        encoder,
        patches,
        batch_size=BATCH,
        compiling=compiling,
        on_chunk=lambda so_far: seen.append((so_far.rows_new, so_far.wall_s)),
    )
    if compiling == "off":
        return done.patches_per_s
    (first_rows, first_s), (last_rows, last_s) = seen[0], seen[-1]
    return (last_rows - first_rows) / (last_s - first_s)


def _two_models(store):
    encoders = [build(model, device=DEVICE, **weights) for model, weights in MODELS.items()][:2]
    patches = featstore.open(store).patches("demo")
    pixels = patches.read(patches.ids)
    apart_s = sum(N_PATCHES / _bare(encoder, pixels, compiled=False)[0] for encoder in encoders)
    done = extract_many(store, "demo", encoders, patches, batch_size=BATCH)
    shutil.rmtree(store / "embeddings")
    return (
        f"two encoders in one pass: {done[0].wall_s / apart_s:.2f} of the sum of their bare passes"
    )


def _memory(store, images):
    """Peak memory of a process that extracts few and many patches."""
    few, many = (_peak_mib(store, images, times) for times in (4, 16))
    return (
        f"peak memory of the process: {few:.0f} MiB for {4 * N_PATCHES:,} patches, {many:.0f} MiB "
        f"for {16 * N_PATCHES:,}"
    )


def _peak_mib(store, images, times):
    words = [
        sys.executable,
        "-m",
        "tests.benchmarks.extraction",
        str(store),
        images.root,
        str(times),
    ]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def _extract_repeatedly(store, folder, times):
    """Extract every annotation a number of times, under IDs of their own; print the peak in MiB."""
    cells, images = featstore.open(store).annotations("demo"), ImageFolder(folder)
    n = len(cells)
    columns = {name: np.tile(values, times) for name, values in cells.columns.items()}
    table = featstore.AnnotationTable(
        "many", np.arange(n * times), np.tile(cells.labels, times), columns
    )
    place = Path(tempfile.mkdtemp(dir=Path(store).parent)) / "many.zarr"
    featstore.create(place)
    add_annotations(place, table, folder=images)
    encoder = build("timm:test_vit", random_weights=0, precision=HALF)
    extract(place, "many", encoder, Patches(table, images, 160), workers=0)
    print(_peak_of_this_process_mib())


def _peak_of_this_process_mib():
    """Peak of the resident memory; getrusage would count the parent's, from before exec."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024


if __name__ == "__main__":
    _extract_repeatedly(sys.argv[1], sys.argv[2], int(sys.argv[3]))
