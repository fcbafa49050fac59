"""The self-check on a CUDA device; `make test` skips these where there is none."""

import pytest
import torch

from featstore.encoders.build import build
from featstore.selfcheck import selfcheck

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("model", ["timm:test_vit", "timm:test_resnet"])
def test_the_gpu_computes_what_the_cpu_does(model, precision):
    encoder = build(model, random_weights=0)
    found = selfcheck(encoder, device="cuda", precision=precision)
    assert found.ok, found.first_failure
    assert encoder.device.type == "cpu"


def test_float32_is_float32_also_in_convolutions_that_show_it():
    """EfficientNet-Lite0 fails with convolutions in TF32: a cosine of 0.99997."""
    found = selfcheck(build("efficientnet-lite0"), device="cuda", precision="float32")
    assert found.ok, found.first_failure


@pytest.mark.parametrize("model", ["timm:test_vit", "timm:test_resnet"])
def test_a_compiled_encoder_computes_it_too(model):
    encoder = build(model, random_weights=0)
    found = selfcheck(encoder, device="cuda", precision="float16", compiled=True)
    assert found.ok, found.first_failure


def test_cuml_fits_what_our_solver_fits():
    linear_model = pytest.importorskip("cuml.linear_model")

    from featstore_cli.selfcheck import beside_our_solver

    settings = {"penalty": "l2", "C": 1.0, "tol": 1e-8, "max_iter": 1000, "output_type": "numpy"}
    said, same = beside_our_solver(linear_model.LogisticRegression(**settings))
    assert same, said
