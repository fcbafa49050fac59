"""Small tables and sources that tests of probes share; nothing here knows of a store."""

from dataclasses import dataclass

import numpy as np
import pytest

from probes.protocols import InMemory, positions


@dataclass
class Table:
    """The least that :class:`probes.protocols.LabelTable` asks for."""

    ids: np.ndarray
    labels: np.ndarray
    columns: dict
    name: str = "toy"
    digest: str = "sha256:toy"

    def labels_of(self, ids):
        return self.labels[positions(self.ids, ids)]

    def column(self, name):
        return self.columns[name]


@pytest.fixture
def make_table():
    """Make a table of n annotations with shuffled IDs, slides and domains."""

    def make(n=600, *, n_slides=30, n_domains=3, share=0.45, seed=0):
        rng = np.random.default_rng(seed)
        slides = rng.integers(0, n_slides, n)
        labels = np.where(rng.random(n) < share, "mitotic figure", "look-alike")
        columns = {
            "slide": slides.astype(str),
            "domain": np.array(list("ABCDEFG"))[slides % n_domains],
        }
        return Table(rng.permutation(n) + 10, labels, columns)

    return make


@pytest.fixture
def make_source():
    """Make embeddings in which a direction tells the classes, turned away in each next domain."""

    def make(table, *, dim=8, signal=1.5, shift=0.0, seed=0):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=(len(table.ids), dim))
        sign = np.where(table.labels == "mitotic figure", 1, -1)
        domain = np.unique(table.column("domain"), return_inverse=True)[1]
        values[:, 0] += signal * sign * np.cos(shift * domain)
        values[:, 1] += signal * sign * np.sin(shift * domain)
        return InMemory(table.ids, values.astype(np.float32))

    return make


@pytest.fixture
def data():
    """Embeddings of float32 in which two directions tell 'a' from 'b'."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 12)).astype(np.float32)
    y = np.where(X[:, 0] + 0.5 * X[:, 1] + rng.normal(size=300) > 0, "b", "a")
    return X, y
