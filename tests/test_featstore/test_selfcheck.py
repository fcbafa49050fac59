import math
import shutil

import numpy as np
import pytest
import torch

from featstore.encoders.build import build
from featstore.encoders.golden import golden_patches
from featstore.errors import EncoderError
from featstore.selfcheck import selfcheck

IN_FLOAT32 = {"device": "cpu", "precision": "float32"}
AGAINST = ["CPU float32", "batches of 1", "batches of 3", "the same again"]


@pytest.fixture
def vit():
    return build("timm:test_vit", random_weights=0)


def in_half_the_bits():
    return torch.is_autocast_enabled("cpu")


def failures(found):
    return {line.against for line in found.comparisons if not line.ok}


@pytest.mark.parametrize(
    ("model", "weights", "parts"),
    [
        ("timm:test_vit", {"random_weights": 0}, ["class", "mean"]),
        ("timm:test_resnet", {"random_weights": 0}, ["average"]),
        ("efficientnet-lite0", {}, ["average"]),
    ],
)
def test_a_cpu_agrees_with_itself_in_float32(model, weights, parts):
    found = selfcheck(build(model, **weights), **IN_FLOAT32)
    assert found.ok
    assert found.first_failure is None
    assert [line.against for line in found.comparisons] == list(np.repeat(AGAINST, len(parts)))
    assert [line.part for line in found.comparisons] == parts * len(AGAINST)
    assert {line.allowed for line in found.comparisons[: -len(parts)]} == {0.99999}
    for line in found.comparisons[-len(parts) :]:  # the same again, equal to the bit
        assert (line.least_cosine, line.largest_difference, line.allowed) == (1.0, 0.0, 1.0)


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling on a CPU needs g++")
def test_a_compiled_encoder_is_held_against_one_that_is_not(vit):
    found = selfcheck(vit, **IN_FLOAT32, compiled=True)
    assert found.ok
    assert found.compiled


def test_bfloat16_is_refused_for_an_encoder_that_loses_digits_in_it():
    found = selfcheck(build("efficientnet-lite0"), device="cpu", precision="bfloat16")
    assert failures(found) == {"CPU float32"}
    assert found.first_failure.part == "average"
    assert 0.998 < found.first_failure.least_cosine < found.first_failure.allowed == 0.999


def test_the_encoder_stays_as_it_was(vit):
    patches = golden_patches(160, 2)
    before = vit.embed_parts(patches)
    assert selfcheck(vit, device="cpu", precision="bfloat16").ok
    assert vit.spec.precision == "float32"
    assert torch.equal(vit.embed_parts(patches), before)


@pytest.mark.parametrize("batch_size", [1, 5, 11])
def test_any_batch_size_can_be_tried(vit, batch_size):
    found = selfcheck(vit, **IN_FLOAT32, batch_size=batch_size)
    assert found.ok
    assert found.batch_size == batch_size


def test_a_network_that_looks_across_the_batch_is_found(vit):
    vit.network.norm.register_forward_hook(lambda module, args, rows: rows - rows.mean(0))
    found = selfcheck(vit, **IN_FLOAT32)
    assert failures(found) == {"batches of 1", "batches of 3"}


def test_a_result_that_is_another_each_time_is_found(vit):
    calls = []

    def drift(module, args, rows):
        calls.append(1)
        return rows * (1 + 1e-6 * len(calls))

    vit.network.norm.register_forward_hook(drift)
    assert failures(selfcheck(vit, **IN_FLOAT32)) == {"the same again"}


def test_a_factor_is_found_which_no_cosine_shows(vit):
    def double(module, args, rows):
        return 2 * rows if in_half_the_bits() else rows

    vit.network.norm.register_forward_hook(double)
    found = selfcheck(vit, device="cpu", precision="bfloat16")
    assert failures(found) == {"CPU float32"}
    assert found.first_failure.least_cosine > 0.999


def test_what_is_not_finite_fails_wherever_it_comes_from(vit):
    def overflow(module, args, rows):
        return rows * math.inf if in_half_the_bits() else rows

    hook = vit.network.norm.register_forward_hook(overflow)
    found = selfcheck(vit, device="cpu", precision="float16")
    assert failures(found) == set(AGAINST)
    assert all(math.isnan(line.least_cosine) for line in found.comparisons)
    assert math.isfinite(found.first_failure.largest_value)
    hook.remove()
    with torch.no_grad():
        vit.network.norm.weight[0] = math.nan
    found = selfcheck(vit, **IN_FLOAT32)
    assert failures(found) == set(AGAINST)
    assert math.isnan(found.first_failure.largest_value)


def test_a_device_that_cannot_run_the_encoder_says_so_in_one_line(vit):
    def no_kernel(module, args, rows):
        if in_half_the_bits():
            raise RuntimeError("no kernel image is available.\nCompile with TORCH_USE_CUDA_DSA")
        return rows

    vit.network.norm.register_forward_hook(no_kernel)
    with pytest.raises(EncoderError) as caught:
        selfcheck(vit, device="cpu", precision="bfloat16")
    assert str(caught.value) == (
        "cpu cannot run 'test_vit-random0' in bfloat16: no kernel image is available; "
        "use another --precision or --device, or --compile off"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "abacus", "precision": "float32"}, "device 'abacus' cannot be used"),
        ({"device": "cpu", "precision": "int8"}, "precision 'int8' is unknown; take float32, "),
    ],
)
def test_what_cannot_be_tried_is_said_in_one_line(vit, settings, message):
    with pytest.raises(EncoderError, match=message) as caught:
        selfcheck(vit, **settings)
    assert "\n" not in str(caught.value)


def test_a_check_starts_from_float32(vit):
    with pytest.raises(EncoderError, match="is on cpu in bfloat16; a check starts from it on the"):
        selfcheck(vit.at("bfloat16"), **IN_FLOAT32)


def test_golden_patches_are_the_same_each_time_and_for_any_number_of_them():
    patches = golden_patches(160)
    assert patches.shape == (8, 160, 160, 3)
    assert patches.dtype == np.uint8
    assert patches.tobytes() == golden_patches(160).tobytes()
    assert np.array_equal(golden_patches(160, 11)[:8], patches)
    assert len({patch.tobytes() for patch in patches}) == 8


def test_golden_patches_are_those_that_figures_were_published_of():
    """Their bytes may differ by a value on other processors; their colours may not."""
    colours = golden_patches(160, 5).mean((1, 2))
    expected = [
        [201.55, 141.27, 203.79],
        [179.08, 124.67, 238.28],
        [205.29, 156.5, 161.31],
        [165.87, 103.25, 146.27],
        [222.04, 182.08, 218.38],
    ]
    assert colours == pytest.approx(np.array(expected), abs=0.1)


def test_a_check_names_its_patches(vit):
    first, second = (selfcheck(vit, **IN_FLOAT32, batch_size=size) for size in (4, 16))
    assert first.patches_sha256 == second.patches_sha256
    assert len(first.patches_sha256) == 64
