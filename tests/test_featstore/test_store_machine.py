"""Add, extract, cut, grow and copy in any order: what was written is what is read."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import featstore
from featstore.encoders.spec import EncoderSpec
from featstore.errors import NotInStoreError
from featstore.store.transfer import copy
from featstore.store.verify import verify
from featstore.store.writer import EmbeddingWriter, add_annotations, extend_annotations
from tests.test_featstore.test_store_patchcache import cut, pixels_of

DIM = 3
SPEC = EncoderSpec("tiny", "none", dim=DIM, weights="random:0")


def embedding_of(ids):
    """What the encoder of this test makes of an annotation: numbers that only its ID decides."""
    return np.stack([ids, ids % 7, -ids], axis=1).astype(np.float32)


def table(n):
    ids = np.arange(n) * 3 + 1
    return featstore.AnnotationTable("d", ids, np.where(ids % 2, "a", "b"), {"x": ids / 2})


class Stores(RuleBasedStateMachine):
    """A store that grows and is filled, and a second one that copies of it go to."""

    @initialize(n=st.integers(1, 700))
    def make(self, n):
        self.home = Path(tempfile.mkdtemp())
        self.n, self.n_copied, self.embedded, self.copied = n, 0, set(), set()
        self.cached, self.copied_cache = set(), set()
        featstore.create(self.here)
        add_annotations(self.here, table(n))

    @property
    def here(self):
        return self.home / "here"

    @property
    def there(self):
        return self.home / "there"

    @rule(more=st.integers(1, 400))
    def grow(self, more):
        self.n += more
        extend_annotations(self.here, table(self.n))

    @rule(n_chunks=st.integers(0, 3))
    def extract(self, n_chunks):
        with EmbeddingWriter(self.here, "d", SPEC, parts={"all": (0, DIM)}, run={}) as writer:
            for chunk in writer.pending()[:n_chunks]:
                writer.write(chunk, embedding_of(chunk.ids))
                self.embedded |= set(chunk.ids.tolist())

    @rule(n_chunks=st.integers(0, 3))
    def cut(self, n_chunks):
        self.cached |= set(cut(self.here, n_chunks=n_chunks, dataset="d"))

    @rule(patches=st.booleans())
    def copy(self, patches):
        copied = copy(featstore.open(self.here), self.there, patches=patches)
        assert bool(copied.notes) == bool(self.cached and not patches)
        self.n_copied, self.copied = self.n, set(self.embedded)
        self.copied_cache = set(self.cached) if patches else self.copied_cache

    @rule(places=st.lists(st.integers(0, 2_000), max_size=30))
    def read(self, places):
        ids = table(self.n).ids[[place % self.n for place in places]]
        if not self.embedded:
            return
        embeddings = featstore.open(self.here).embeddings("tiny", "d")
        if set(ids.tolist()) <= self.embedded:
            assert np.array_equal(embeddings.read(ids), embedding_of(ids))
        else:
            with pytest.raises(NotInStoreError):
                embeddings.read(ids)

    @precondition(lambda self: self.cached)
    @rule(places=st.lists(st.integers(0, 2_000), max_size=30))
    def read_patches(self, places):
        ids = table(self.n).ids[[place % self.n for place in places]]
        patches = featstore.open(self.here).patches("d")
        if set(ids.tolist()) <= self.cached:
            assert np.array_equal(patches.read(ids), pixels_of(ids))
        else:
            with pytest.raises(NotInStoreError):
                patches.read(ids)

    @precondition(lambda self: self.n_copied)
    @rule()
    def read_the_copy(self):
        store = featstore.open(self.there)
        assert store.annotations("d").ids.tolist() == table(self.n_copied).ids.tolist()
        if self.copied:
            ids = np.array(sorted(self.copied))
            assert np.array_equal(store.embeddings("tiny", "d").read(ids), embedding_of(ids))
        if self.copied_cache:
            ids = np.array(sorted(self.copied_cache))
            assert np.array_equal(store.patches("d").read(ids), pixels_of(ids))

    @invariant()
    def nothing_is_damaged(self):
        for store in (self.here, self.there):
            if store.exists():
                assert [str(f) for f in verify(store) if f.severity == "error"] == []

    @invariant()
    def the_list_counts_what_is_there(self):
        for row in featstore.open(self.here).list():
            assert (row.rows, row.complete) == (len(self.embedded), len(self.embedded) == self.n)
        if self.cached:
            info = featstore.open(self.here).patches("d").info
            assert (info.rows, info.complete) == (len(self.cached), len(self.cached) == self.n)

    def teardown(self):
        shutil.rmtree(self.home, ignore_errors=True)


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
