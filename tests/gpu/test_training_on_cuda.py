"""Training where only a CUDA device can show it; `make test` skips these where there is none."""

import numpy as np
import pytest
import torch

from probes.endtoend.augment import change, draw
from probes.errors import LossError
from tests.test_probes.drawn_cells import EFFICIENTNET, VIT, cells, parts, quick

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.fixture(scope="module")
def small():
    patches, labels = cells(160, px=68)
    return patches, labels, parts(patches.ids, train=96, val=24)


def test_patches_are_changed_on_the_gpu_as_on_the_cpu():
    pixels = torch.from_numpy(cells(64, px=68)[0].pixels)
    drawn = draw(range(64), any_angle=True, seed=0, epoch=0)
    there = change(pixels.cuda(), drawn, 48)
    assert there.is_cuda
    difference = (there.cpu().int() - change(pixels, drawn, 48).int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01


@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed", "auto"])
def test_planted_signal_is_found_in_every_precision(small, precision):
    patches, labels, split = small
    options = {"device": "cuda", "precision": precision, "epochs": 8, "max_learning_rate": 5e-3}
    found = quick(*small, **options)
    assert found.device.type == "cuda"
    assert {tensor.dtype for tensor in found.classifier.parameters()} == {torch.float32}
    predicted = found.classes_[found.predict_proba(patches.read(split.test)).argmax(axis=1)]
    assert (predicted == labels.labels_of(split.test)).mean() > 0.9


def test_predictions_on_the_gpu_repeat_and_are_near_those_on_the_cpu(small, tmp_path):
    found = quick(*small, device="cuda", network=EFFICIENTNET)
    pixels = small[0].pixels
    proba = found.predict_proba(pixels)
    np.testing.assert_array_equal(found.predict_proba(pixels), proba)
    found.save(tmp_path / "network.safetensors")
    on_cpu = type(found).load(tmp_path / "network.safetensors", device="cpu")
    np.testing.assert_allclose(on_cpu.predict_proba(pixels), proba, atol=5e-3)


@pytest.mark.parametrize("augment_on", ["workers", "device"])
def test_a_training_goes_on_from_its_checkpoint(small, tmp_path, augment_on):
    options = {"device": "cuda", "network": VIT, "augment_on": augment_on, "precision": "16-mixed"}
    kept = {"checkpoints": tmp_path, "checkpoint_every_s": 0}
    whole = quick(*small, **options, **kept)
    (tmp_path / "last.ckpt").unlink()
    resumed = quick(*small, **options, **kept)
    for row, other in zip(whole.history, resumed.history, strict=True):
        assert row["val_loss"] == pytest.approx(other["val_loss"], rel=1e-2)


def test_a_loss_that_is_no_number_is_found_though_looked_at_late(small, tmp_path):
    options = {"device": "cuda", "max_learning_rate": 1e30, "batch_size": 4}
    with pytest.raises(LossError, match="is no finite number in epoch 1, step"):
        quick(*small, **options, checkpoints=tmp_path, checkpoint_every_s=0)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_two_gpus_train_as_one_does_with_batch_normalisation(small):
    options = {"network": EFFICIENTNET, "device": "cuda", "augment_on": "workers"}
    one, two = (quick(*small, **options, devices=n) for n in (1, 2))
    for row, other in zip(one.history, two.history, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], abs=1e-3)
