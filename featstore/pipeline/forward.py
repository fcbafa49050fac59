"""An encoder at work on one device: patches in host memory in, embeddings in host memory out.

On a GPU, patches are copied on a stream of their own while the batch before is computed, and
embeddings come back while the next one is. A batch that does not fit into memory is halved.
"""

import contextlib
import logging
import os

from featstore.encoders.encoder import refused_in_one_line
from featstore.errors import EncoderError, require

torch = require("torch", extra="extract", purpose="extraction")

__all__ = ["Forward", "arithmetic", "forwards_for"]

# Without it, cuBLAS may add in another order from run to run.
DETERMINISTIC_CUBLAS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}

logger = logging.getLogger(__name__)


class Forward:
    """The forward pass of an encoder, batch by batch.

    Parameters
    ----------
    encoder : featstore.encoders.encoder.Encoder
        On its device; :func:`featstore.encoders.prepared.prepared` makes it faster.
    batch_size : int
        Patches in one pass, at most.
    compiled : bool
        Compile the encoder, at its first batch; smaller batches are then filled up, so that
        nothing is compiled again.
    exact : bool
        Refuse a batch that does not fit into memory, since halving it moves the last digits.

    Attributes
    ----------
    batch_size : int
        As it is now, after it was halved.

    Examples
    --------
    >>> import numpy as np
    >>> from featstore.encoders.build import build
    >>> forward = Forward(build("timm:test_vit", random_weights=0), batch_size=2)
    >>> forward.embed(np.zeros((3, 160, 160, 3), np.uint8)).shape
    (3, 128)
    """

    def __init__(self, encoder, *, batch_size, compiled=False, exact=False):
        self.encoder = encoder
        self.batch_size = batch_size
        self.compiled = compiled
        self._exact = exact
        self._call = _compiled(encoder) if compiled else encoder
        on_gpu = encoder.device.type == "cuda"
        self._copies = torch.cuda.Stream(encoder.device) if on_gpu else None

    def embed(self, patches_NHWC):
        """Embed patches and wait for them.

        Parameters
        ----------
        patches_NHWC : ndarray or torch.Tensor of uint8, shape (N, input_px, input_px, 3)
            On the CPU.

        Returns
        -------
        ndarray of float32, shape (N, D)
            All parts of the encoder.

        Raises
        ------
        EncoderError
            If not even one patch fits into the device's memory.
        """
        return self.finish(self.begin(patches_NHWC))

    def begin(self, patches_NHWC):
        """Begin to embed patches; :meth:`finish` takes what this returns.

        On a CPU, that is all of the work; a GPU goes on beside Python.
        """
        patches, begun, start = torch.as_tensor(patches_NHWC), [], 0
        while start < len(patches):
            piece = patches[start : start + self.batch_size]
            rows = self._launched(self._filled(piece), len(piece))
            if rows is None:
                self._halve()
            else:
                begun.append(rows)
                start += len(piece)
        return begun

    def finish(self, begun):
        """Wait for embeddings; shape (N, D), float32."""
        for rows in begun:
            rows.wait()
        gathered = [rows.values for rows in begun]
        return (gathered[0] if len(gathered) == 1 else torch.cat(gathered)).numpy()

    def _filled(self, piece):
        """Fill a piece up to a whole batch for a compiled pass, which is for that size alone."""
        missing = self.batch_size - len(piece)
        if not (self.compiled and missing):
            return piece
        return torch.cat([piece, piece.new_zeros((missing, *piece.shape[1:]))])

    @torch.inference_mode()
    def _launched(self, piece, n):
        """Begin one pass; None where the device has no memory for it."""
        encoder, device = self.encoder, self.encoder.device
        try:
            with (
                refused_in_one_line(encoder, device, encoder.spec.precision),
                torch.backends.cudnn.flags(
                    enabled=True,
                    benchmark=not self._exact,
                    deterministic=self._exact,
                    allow_tf32=False,
                ),
            ):
                if self._copies is None:
                    rows = self._call(piece.to(self.encoder.device))[:n]
                    return _Rows(rows.cpu())
                return self._begun_on_gpu(piece, n)
        except torch.OutOfMemoryError:
            return None

    def _begun_on_gpu(self, piece, n):
        computing = torch.cuda.current_stream(self.encoder.device)
        with torch.cuda.stream(self._copies):
            patches = piece.to(self.encoder.device, non_blocking=True)
        computing.wait_stream(self._copies)
        patches.record_stream(computing)
        with torch.cuda.device(self.encoder.device):
            rows = self._call(patches)[:n]
            values = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
            values.copy_(rows, non_blocking=True)
            there = torch.cuda.Event()
            there.record(computing)
        return _Rows(values, there, piece)

    def _halve(self):
        """Go on with half the batch, once the memory of the failed pass is free."""
        if self._copies:
            torch.cuda.synchronize(self.encoder.device)
            torch.cuda.empty_cache()
        if self.batch_size == 1 or self._exact:
            raise EncoderError(
                f"{self.encoder.device} has no memory for a batch of {self.batch_size} of "
                f"{self.encoder.spec.key!r}; "
                + ("use a smaller --batch-size" if self.batch_size > 1 else "use another device")
            )
        device, key, half = self.encoder.device, self.encoder.spec.key, self.batch_size // 2
        said = "%s has no memory for a batch of %d of %r: going on with %d"
        logger.warning(said, device, self.batch_size, key, half)
        self.batch_size = half


def forwards_for(encoders, lanes, *, batch_size, compiled, exact):
    """Return a :class:`Forward` for each encoder, of batches no larger than its largest chunk."""
    longest = {lane.place: max(map(len, lane.chunks)) for lane in lanes}
    return [
        Forward(
            encoder,
            batch_size=min(batch_size, longest.get(place, 1)),
            compiled=compiled[place],
            exact=exact,
        )
        for place, encoder in enumerate(encoders)
    ]


@contextlib.contextmanager
def arithmetic(*, exact):
    """Have torch compute in the same order every time, where that is asked for."""
    if not exact:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    for name, value in DETERMINISTIC_CUBLAS.items():
        os.environ.setdefault(name, value)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


class _Rows:
    """Embeddings on their way back; the patches they are of stay in memory until they are there."""

    def __init__(self, values, there=None, patches=None):
        self.values = values
        self._there = there
        self._patches = patches

    def wait(self):
        if self._there is not None:
            self._there.synchronize()
        self._patches = None


def _compiled(encoder):
    """Compile with frozen weights: they become constants, laid out as the processor likes them."""
    torch._dynamo.reset()  # else it gives up after eight encoders in one process
    return torch.compile(encoder, options={"freezing": True}, dynamic=False)
