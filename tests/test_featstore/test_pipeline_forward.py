import logging

import numpy as np
import pytest
import torch

from featstore.encoders.build import build
from featstore.encoders.golden import golden_patches
from featstore.encoders.prepared import prepared
from featstore.errors import EncoderError
from featstore.pipeline.forward import Forward

PATCHES = golden_patches(160, 7)


@pytest.fixture(scope="module")
def encoder():
    return build("timm:test_vit", random_weights=0)


def test_a_pass_gives_all_parts_of_the_encoder_in_float32(encoder):
    rows = Forward(encoder, batch_size=4).embed(PATCHES)
    assert (rows.shape, rows.dtype) == ((7, 128), np.float32)
    np.testing.assert_allclose(rows, encoder.embed_parts(PATCHES), atol=1e-5)


class Small(torch.nn.Module):
    """A device that has memory for so many patches at a time, as the encoder on it tells."""

    def __init__(self, encoder, room):
        super().__init__()
        self.encoder, self.room = encoder, room
        self.spec, self.device = encoder.spec, encoder.device
        self.sizes = []

    def forward(self, patches):
        self.sizes.append(len(patches))
        if len(patches) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 GiB")
        return self.encoder(patches)


def test_a_batch_that_does_not_fit_is_halved_and_the_run_goes_on(encoder, caplog):
    small = Small(encoder, room=2)
    forward = Forward(small, batch_size=7)
    with caplog.at_level(logging.WARNING):
        rows = forward.embed(PATCHES)
    assert small.sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert forward.batch_size == 1
    assert "has no memory for a batch of 7 of 'test_vit-random0': going on with 3" in caplog.text
    np.testing.assert_allclose(rows, encoder.embed_parts(PATCHES), atol=1e-5)
    small.sizes.clear()
    forward.embed(PATCHES[:2])
    assert small.sizes == [1, 1]


@pytest.mark.parametrize(
    ("room", "exact", "message"),
    [
        (0, False, "no memory for a batch of 1 of 'test_vit-random0'; use another device"),
        (2, True, "no memory for a batch of 4 of 'test_vit-random0'; use a smaller --batch-size"),
    ],
)
def test_where_halving_does_not_help_or_would_move_digits_the_run_ends(
    encoder, room, exact, message
):
    with pytest.raises(EncoderError, match=message):
        Forward(Small(encoder, room), batch_size=4, exact=exact).embed(PATCHES)


def test_a_compiled_pass_gives_the_same_and_small_batches_are_not_compiled_again(encoder):
    counters = pytest.importorskip("torch._dynamo.utils").counters
    forward = Forward(prepared(encoder), batch_size=4, compiled=True)
    before = counters["stats"]["unique_graphs"]
    rows = [forward.embed(PATCHES[:n]) for n in (4, 7, 3, 1)]
    assert counters["stats"]["unique_graphs"] - before == 1
    for found in rows:
        assert found.shape == (len(found), 128)
        np.testing.assert_allclose(found, encoder.embed_parts(PATCHES)[: len(found)], atol=1e-4)
