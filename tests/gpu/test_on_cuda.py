"""What only a CUDA device can show; `make test` skips these where there is none."""

import numpy as np
import pytest
import torch

from featstore.encoders.build import build

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

PATCHES = np.random.default_rng(0).integers(0, 256, (8, 160, 160, 3), dtype=np.uint8)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("model", ["timm:test_vit", "timm:test_resnet"])
def test_embeddings_on_the_gpu_point_where_those_on_the_cpu_do(model, precision):
    on_cpu = build(model, random_weights=0).embed(PATCHES)
    on_gpu = build(model, random_weights=0, precision=precision, device="cuda").embed(PATCHES)
    assert on_gpu.device.type == "cuda"
    assert torch.cosine_similarity(on_cpu, on_gpu.cpu()).min() > 0.999


def test_a_network_trains_and_predicts_on_the_gpu():
    from types import SimpleNamespace

    from probes import endtoend

    ids = np.arange(40)
    pixels = np.repeat(np.uint8([40, 200] * 20), 48 * 48 * 3).reshape(40, 48, 48, 3)
    labels = np.array(["dark", "light"] * 20)
    trained = endtoend.train(
        SimpleNamespace(ids=ids, read=lambda asked: pixels[asked]),
        SimpleNamespace(labels_of=lambda asked: labels[asked]),
        SimpleNamespace(train=ids[:30], val=ids[30:], test=ids[:0]),
        network="timm:test_resnet",
        epochs=20,
        max_learning_rate=0.01,
        device="cuda",
    )
    assert trained.device.type == "cuda"
    predicted = trained.classes_[trained.predict_proba(pixels).argmax(axis=1)]
    assert (predicted == labels).mean() > 0.9
