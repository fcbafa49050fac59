import dataclasses
import json

import pytest

from featstore import EncoderSpec
from featstore.encoders.registry import ENCODERS, named
from featstore.errors import EncoderError

SPEC = EncoderSpec("tiny", "vit_tiny_patch16_224", weights="abc")

CHANGED = {
    "architecture": "vit_small_patch16_224",
    "build": {"reg_tokens": 4},
    "input_px": 160,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "lanczos",
    "pooling": "class+mean",
    "mpp": 0.5,
    "precision": "bfloat16",
    "weights": "def",
}


@pytest.mark.parametrize("field", CHANGED)
def test_whatever_moves_the_numbers_changes_the_digest(field):
    changed = SPEC.at(**{field: CHANGED[field]})
    assert changed.digest != SPEC.digest
    assert len(SPEC.differences(changed)) == 1
    assert SPEC.differences(changed)[0].startswith(field)


def test_a_name_or_a_licence_does_not():
    assert SPEC.at(key="other", terms="MIT", weights_from="a disk").digest == SPEC.digest


def test_every_field_is_either_identity_or_said_not_to_be():
    fields = {field.name for field in dataclasses.fields(EncoderSpec)}
    assert fields == set(CHANGED) | set(EncoderSpec.NOT_IDENTITY)


def test_a_specification_survives_json():
    back = EncoderSpec.from_json(json.loads(json.dumps(SPEC.to_json())))
    assert back == SPEC
    assert back.digest == SPEC.digest


def test_registered_keys_are_their_own_names():
    assert all(named(key).key == key for key in ENCODERS)


def test_an_unknown_encoder_is_answered_with_those_known():
    with pytest.raises(
        EncoderError, match=r"no encoder 'uni3'; known are efficientnet-lite0, .*timm:NAME"
    ):
        named("uni3")
