"""Reading and writing a store against NumPy, h5py and zarr-python on the same arrays."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import zarr

import featstore
from featstore.encoders.spec import EncoderSpec
from featstore.store.writer import EmbeddingWriter, add_annotations
from tests.benchmarks.clock import best_s, line

SIZES = {"ccmct": (72_845, 2_560, "float16"), "midog": (20_552, 1_536, "float32")}
N_RANDOM = 5_000


def run():
    """Yield one line per comparison."""
    with tempfile.TemporaryDirectory() as home:
        for name, size in SIZES.items():
            yield from _compare(Path(home) / name, name, *size)
        yield from _opening(Path(home) / "many")


def _compare(home, name, rows, dim, dtype):
    values = np.random.default_rng(0).standard_normal((rows, dim), np.float32).astype(dtype)
    embeddings, write_s, stored = _write(home, values)
    zarr_s = best_s(lambda: _zarr_write(home / "plain", values, stored), runs=2)
    yield line(f"{name}: write", write_s, "zarr without checksum", zarr_s)
    _write_peers(home, values)
    load_s = best_s(lambda: np.load(home / "values.npy"), runs=5)
    read_s = best_s(lambda: embeddings.read(embeddings.ids, dtype=None), runs=5)
    yield line(f"{name}: full read", read_s, "np.load", load_s)
    chosen = np.random.default_rng(1).integers(rows, size=N_RANDOM)
    mapped = np.load(home / "values.npy", mmap_mode="r")
    random_s = best_s(lambda: embeddings.read(chosen, dtype=None), runs=7)
    work = f"{name}: {N_RANDOM} random IDs"
    yield line(work, random_s, "memory map", best_s(lambda: mapped[chosen], runs=7))
    for layout in ("contiguous", "appended"):
        h5py_s = best_s(lambda layout=layout: _h5py_read(home, layout, chosen), runs=2)
        yield line(work, random_s, f"h5py, {layout}", h5py_s)


def _write_peers(home, values):
    np.save(home / "values.npy", values)
    with h5py.File(home / "values.h5", "w") as file:
        file.create_dataset("contiguous", data=values)
        # chunked as by the loops that append a batch at a time
        file.create_dataset("appended", data=values, chunks=True, maxshape=(None, values.shape[1]))


def _write(home, values):
    rows, dim = values.shape
    featstore.create(home / "s.zarr")
    add_annotations(
        home / "s.zarr", featstore.AnnotationTable("d", np.arange(rows), np.full(rows, "a"))
    )
    precision = "float32" if values.dtype == np.float32 else "bfloat16"

    def once(key="m"):
        spec = EncoderSpec(key, "none", dim=dim, weights="random:0", precision=precision)
        with EmbeddingWriter(home / "s.zarr", "d", spec, parts={}, run={}) as writer:
            for chunk in writer.pending():
                writer.write(chunk, values[chunk.ids[0] : chunk.ids[-1] + 1])

    write_s = min(best_s(once, runs=1), best_s(lambda: once("again"), runs=1))
    embeddings = featstore.open(home / "s.zarr").embeddings("m", "d")
    return embeddings, write_s, zarr.open_array(home / "s.zarr/embeddings/m/d/values", mode="r")


def _zarr_write(path, values, stored):
    shutil.rmtree(path, ignore_errors=True)
    array = zarr.create_array(
        path, shape=values.shape, chunks=stored.chunks, dtype=values.dtype, compressors=None
    )
    array[:] = values


def _h5py_read(home, layout, chosen):
    with h5py.File(home / "values.h5") as file:
        distinct, place = np.unique(chosen, return_inverse=True)
        return file[layout][distinct][place]


COLD = """
import featstore
embeddings = featstore.open({path!r}).embeddings("m0", "d")
embeddings.read([3])
"""


def _opening(path):
    featstore.create(path)
    add_annotations(path, featstore.AnnotationTable("d", np.arange(300), np.full(300, "a")))
    for number in range(100):
        spec = EncoderSpec(f"m{number}", "none", dim=8, weights="random:0")
        with EmbeddingWriter(path, "d", spec, parts={}, run={}) as writer:
            for chunk in writer.pending():
                writer.write(chunk, np.ones((len(chunk.ids), 8)))
    list_s = best_s(lambda: featstore.open(path).list(), runs=5)
    yield f"open and list 100 arrays: {1e3 * list_s:.0f} ms"
    cold = [sys.executable, "-c", COLD.format(path=str(path))]
    cold_s = best_s(lambda: subprocess.run(cold, check=True), runs=5)
    zarr_s = best_s(
        lambda: subprocess.run([sys.executable, "-c", "import zarr"], check=True), runs=5
    )
    yield line("one ID from a cold process", cold_s, "import zarr", zarr_s)
