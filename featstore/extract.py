"""Patches through encoders into a store: batched, overlapped, and resumable.

Patches are read ahead, the device computes, and a thread writes, at the same time. Batches never
cross a chunk; a chunk is written as soon as its last batch is done, so that an interrupted run has
lost at most the chunks at work.
"""

import contextlib
import os
import time
from dataclasses import asdict, dataclass, field

from featstore.encoders.prepared import prepared
from featstore.errors import EncoderError, require
from featstore.pipeline.clock import Spent
from featstore.pipeline.compiling import choose_compiling
from featstore.pipeline.devices import embedded_on
from featstore.pipeline.forward import Forward, arithmetic, forwards_for
from featstore.pipeline.lanes import embedded_chunks
from featstore.pipeline.plan import Lane
from featstore.pipeline.writing import WriterThread
from featstore.store.patchcache import CachedPatches
from featstore.store.reader import Store
from featstore.store.writer import EmbeddingWriter

torch = require("torch", extra="extract", purpose="extraction")
tqdm = require("tqdm", extra="extract", purpose="extraction").tqdm

__all__ = ["Extraction", "extract", "extract_many"]

MOST_WORKERS = 8  # by default; more rarely help one device


@dataclass(frozen=True)
class Extraction:
    """What a run did for one encoder.

    Parameters
    ----------
    model, dataset : str
        Names in the store.
    rows_before : int
        Embeddings that were there already.
    rows_new : int
        Embeddings made now.
    rows : int
        Annotations of the dataset.
    wall_s : float
        Seconds from the first batch asked for to the last chunk written, of the whole run.
    n_devices : int
        Devices at work.
    spent : Spent
        Where the time went, of the whole run, added up over devices.
    notes : tuple of str
        What was chosen for this encoder, and why.
    """

    model: str
    dataset: str
    rows_before: int
    rows_new: int
    rows: int
    wall_s: float = 0.0
    n_devices: int = 1
    spent: Spent = field(default_factory=Spent)
    notes: tuple[str, ...] = ()

    @property
    def complete(self):
        """Whether every annotation has its embedding."""
        return self.rows_before + self.rows_new == self.rows

    def share(self, part):
        """Share of the time of the devices that a part such as 'wait_s' took, 0 to 1."""
        total_s = self.wall_s * self.n_devices
        return getattr(self.spent, part) / total_s if total_s else 0.0

    @property
    def patches_per_s(self):
        """Patches per second of this run."""
        return self.rows_new / self.wall_s if self.wall_s else 0.0

    def to_json(self):
        """Return plain values, for a line of a log."""
        values = asdict(self)
        return values | values.pop("spent") | {"patches_per_s": self.patches_per_s}


def extract(path, dataset, encoder, patches, **settings):
    """Embed all annotations of a dataset that are not embedded yet, with one encoder.

    Parameters
    ----------
    path, dataset, patches, settings
        As for :func:`extract_many`.
    encoder : Encoder
        What to embed with.

    Returns
    -------
    Extraction
    """
    return extract_many(path, dataset, [encoder], patches, **settings)[0]


def extract_many(
    path,
    dataset,
    encoders,
    patches,
    *,
    batch_size=64,
    workers=None,
    devices=None,
    compiling="off",
    exact=False,
    progress=False,
    on_start=None,
    on_chunk=None,
    should_stop=None,
):
    """Embed all annotations of a dataset that are not embedded yet, with several encoders at once.

    Each patch is read and decoded once.

    Parameters
    ----------
    path : path-like
        A local store.
    dataset : str
        Name of the dataset.
    encoders : list of featstore.encoders.encoder.Encoder
        What to embed with, each under a name of its own; all of the same input size and um/px.
    patches : Patches or CachedPatches
        Pixels by annotation ID, at that size and um/px.
    batch_size : int
        Patches in one forward pass; halved where they do not fit into the device's memory.
    workers : int, optional
        Processes that read patches; 0 reads in a thread of this one. By default 0 for cached
        patches, else as many as there are processors, up to 8.
    devices : list of str, optional
        torch devices, of which each embeds chunks of its own in a process of its own; by default
        the one that the encoders are on.
    compiling : {'auto', 'on', 'off'}
        Whether encoders are compiled; see :mod:`featstore.pipeline.compiling`.
    exact : bool
        Give the same bytes on the same machine every time: deterministic algorithms, nothing
        compiled, no batch halved.
    progress : bool
        Draw a bar with patches/s and the time left on stderr.
    on_start : callable, optional
        Called with an :class:`Extraction` for each encoder before the first batch.
    on_chunk : callable, optional
        Called with the :class:`Extraction` so far when a chunk has been handed over for writing.
    should_stop : callable, optional
        Asked after each chunk; where it says True, the run ends there, as if that were all.

    Returns
    -------
    list of Extraction

    Raises
    ------
    DigestError
        If the store has embeddings of that name by another encoder.
    EncoderError
        If patches and encoders do not fit, an embedding is not finite, or a device fails.
    """
    for encoder in encoders:
        _check_fit(patches, encoder)
    with arithmetic(exact=exact), contextlib.ExitStack() as stack:
        run = _Run(path, dataset, encoders, batch_size, devices, compiling, exact)
        run.open(stack)
        for place in range(len(encoders)):
            if on_start is not None:
                on_start(run.so_far(place))
        bar = tqdm(total=run.n_rows, initial=run.n_before, unit="patch", disable=not progress)
        with bar, WriterThread(run.spent) as writing:
            stopping = should_stop or (lambda: False)
            chunks = run.embedded(patches, _n_workers(workers, patches), bar.update, stopping)
            with contextlib.closing(chunks):
                for chunk in chunks:
                    run.write(writing, chunk)
                    if on_chunk is not None:
                        on_chunk(run.so_far(chunk.place))
        return [run.so_far(place) for place in range(len(encoders))]


def _check_fit(patches, encoder):
    spec = encoder.spec
    if (patches.patch_px, patches.mpp) != (spec.input_px, spec.mpp):
        raise EncoderError(
            f"{spec.key!r} takes {spec.input_px} px at {spec.mpp} um/px and the patches are "
            f"{patches.patch_px} px at {patches.mpp} um/px; cut them as its specification says"
        )


def _n_workers(workers, patches):
    if workers is not None:
        return workers
    return 0 if isinstance(patches, CachedPatches) else min(os.cpu_count() or 1, MOST_WORKERS)


class _Run:
    """The encoders of a run, their writers, and what has been done so far."""

    def __init__(self, path, dataset, encoders, batch_size, devices, compiling, exact):
        self.spent = Spent()
        self._path = path
        self._dataset = dataset
        self._n_missing = [_rows_missing(path, one.spec.key, dataset) for one in encoders]
        self._encoders = [
            prepared(encoder) if n_missing else encoder
            for encoder, n_missing in zip(encoders, self._n_missing, strict=True)
        ]
        self._batch_size = batch_size
        self._devices = devices or [str(encoders[0].device)]
        self._exact = exact
        self._choices = [
            self._chosen(encoder, n_missing, compiling)
            for encoder, n_missing in zip(self._encoders, self._n_missing, strict=True)
        ]
        self._writers, self._pending = [], []
        self._rows_new = [0] * len(encoders)
        self._started_s = time.perf_counter()

    def _chosen(self, encoder, n_missing, compiling):
        mode = "off" if self._exact or not n_missing else compiling
        forward = Forward(encoder, batch_size=self._batch_size, exact=self._exact)
        return choose_compiling(mode, forward, n_missing, n_devices=len(self._devices))

    def open(self, stack):
        """Take the locks of all arrays, and list what is missing in them."""
        for encoder, choice in zip(self._encoders, self._choices, strict=True):
            run = {
                "device": ", ".join(self._devices),
                "batch_size": self._batch_size,
                "compiled": choice.compiled,
                "exact": self._exact,
            }
            if encoder.trained_on:
                run["trained_on"] = encoder.trained_on
            writer = EmbeddingWriter(
                self._path, self._dataset, encoder.spec, parts=encoder.parts, run=run
            )
            self._writers.append(stack.enter_context(writer))
            self._pending.append(writer.pending())
        self._started_s = time.perf_counter()

    @property
    def n_rows(self):
        """Embeddings that there will be, of all encoders."""
        return sum(len(writer.annotations) for writer in self._writers)

    @property
    def n_before(self):
        """Embeddings that were there already, of all encoders."""
        return self.n_rows - sum(len(chunk.ids) for chunks in self._pending for chunk in chunks)

    def so_far(self, place):
        """Say what has been done for one encoder."""
        rows = len(self._writers[place].annotations)
        return Extraction(
            model=self._encoders[place].spec.key,
            dataset=self._dataset,
            rows_before=rows - sum(len(chunk.ids) for chunk in self._pending[place]),
            rows_new=self._rows_new[place],
            rows=rows,
            wall_s=time.perf_counter() - self._started_s,
            n_devices=len(self._devices),
            spent=Spent(**asdict(self.spent)),
            notes=(self._choices[place].reason,),
        )

    def write(self, writing, chunk):
        """Hand a chunk over to be written."""
        pending = self._pending[chunk.place][chunk.number]
        writing.write(self._writers[chunk.place], pending, chunk.values)
        self._rows_new[chunk.place] += len(pending.ids)

    def embedded(self, patches, workers, on_rows, stopping):
        """Yield the chunks of all encoders that are missing, as they are done."""
        table = self._writers[0].annotations
        lanes = [
            Lane(place, [table.positions(chunk.ids) for chunk in chunks], list(range(len(chunks))))
            for place, chunks in enumerate(self._pending)
            if chunks
        ]
        if lanes:
            yield from self._embedded(lanes, table.ids, patches, workers, on_rows, stopping)

    def _embedded(self, lanes, ids, patches, workers, on_rows, stopping):
        """Embed on one device here, or on several in processes of their own."""
        arguments = (lanes, patches, ids)
        run = {"spent": self.spent, "on_rows": on_rows, "stopping": stopping}
        run |= {"batch_size": self._batch_size, "workers": workers}
        passes = {"compiled": [choice.compiled for choice in self._choices], "exact": self._exact}
        if len(self._devices) > 1:
            encoders = [encoder.cpu() for encoder in self._encoders]
            return embedded_on(self._devices, encoders, *arguments, **run, **passes)
        forwards = forwards_for(self._encoders, lanes, batch_size=self._batch_size, **passes)
        return embedded_chunks(forwards, *arguments, **run)


def _rows_missing(path, model, dataset):
    """Embeddings that a store lacks, before its array is locked."""
    store = Store(path)
    rows = {info.model: info.rows for info in store.list() if info.dataset == dataset}
    return len(store.annotations(dataset)) - rows.get(model, 0)
