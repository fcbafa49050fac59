"""Where the time of an extraction goes, added up over the devices at work."""

import time
from contextlib import contextmanager
from dataclasses import dataclass, fields

__all__ = ["Spent"]


@dataclass
class Spent:
    """Seconds that parts of a run took.

    Parameters
    ----------
    decode_s, write_s : float
        In the background: reading and decoding patches, in all workers together, and writing
        chunks.
    wait_s, encode_s, stall_s : float
        In the foreground: waiting for patches, in the forward pass, and waiting for the disk.
    """

    decode_s: float = 0.0
    write_s: float = 0.0
    wait_s: float = 0.0
    encode_s: float = 0.0
    stall_s: float = 0.0

    def count_decoding(self, seconds):
        """Add what reading and decoding a unit took."""
        self.decode_s += seconds

    @contextmanager
    def on(self, part):
        """Count the time of a block as ``part``, such as 'wait_s'."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.perf_counter() - started_s)

    def add(self, other):
        """Add what another process spent."""
        for entry in fields(self):
            setattr(self, entry.name, getattr(self, entry.name) + getattr(other, entry.name))
