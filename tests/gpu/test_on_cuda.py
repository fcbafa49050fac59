"""What only a CUDA device can show; `make test` skips these where there is none."""

import numpy as np
import pytest
import torch

import featstore
from featstore.encoders.build import build
from featstore.encoders.prepared import prepared
from featstore.extract import extract
from featstore.patches import Patches
from featstore.pipeline.forward import Forward

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
        pretrained=None,
        patch_px=48,
        epochs=20,
        max_learning_rate=0.01,
        device="cuda",
    )
    assert trained.device.type == "cuda"
    predicted = trained.classes_[trained.predict_proba(pixels).argmax(axis=1)]
    assert (predicted == labels).mean() > 0.9


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("model", ["timm:test_vit", "timm:test_resnet"])
def test_passes_that_overlap_give_what_single_passes_give(model, compiled):
    encoder = build(model, random_weights=0, device="cuda")
    forward = Forward(prepared(encoder), batch_size=4, compiled=compiled)
    patches = torch.from_numpy(np.tile(PATCHES, (4, 1, 1, 1))).pin_memory()
    begun = [forward.begin(patches[start : start + 4]) for start in range(0, 32, 4)]
    rows = np.concatenate([forward.finish(one) for one in begun])
    expected = np.tile(encoder.embed_parts(PATCHES).cpu().numpy(), (4, 1))
    np.testing.assert_allclose(rows, expected, atol=1e-4)


def test_a_batch_too_large_for_the_gpu_is_halved():
    encoder = build("timm:vit_tiny_patch16_224", random_weights=0, device="cuda")
    patches = np.zeros((1024, 224, 224, 3), np.uint8)
    alone = Forward(encoder, batch_size=1).embed(patches[:1])
    forward = Forward(encoder, batch_size=1024)
    held = torch.empty(torch.cuda.mem_get_info()[0] - 2**30, dtype=torch.uint8, device="cuda")
    rows = forward.embed(patches)
    del held
    assert forward.batch_size < 1024
    np.testing.assert_allclose(rows, np.repeat(alone, 1024, axis=0), atol=1e-3)


def test_extraction_on_the_gpu_is_near_that_on_the_cpu_and_exact_where_asked(region_store):
    store = featstore.open(region_store)
    patches = Patches.of(store, "midog", patch_px=160)
    for name, device in (("a", "cuda"), ("b", "cuda"), ("c", "cpu")):
        encoder = build("timm:test_resnet", random_weights=0, device=device, key=name)
        extract(region_store, "midog", encoder, patches, exact=True)
    first, again, on_cpu = (
        store.embeddings(f"{name}-random0", "midog").read(patches.ids) for name in "abc"
    )
    assert np.array_equal(first, again)
    np.testing.assert_allclose(first, on_cpu, atol=1e-4)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device on this machine")
def test_two_gpus_share_the_chunks(region_store):
    patches = Patches.of(featstore.open(region_store), "midog", patch_px=160)
    encoder = build("timm:test_vit", random_weights=0, device="cuda:0")
    done = extract(region_store, "midog", encoder, patches, devices=["cuda:0", "cuda:1"])
    assert done.complete
