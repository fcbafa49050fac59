from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from probes.endtoend.network import Classifier
from probes.errors import LossError, OneClassError, ProbesError
from tests.test_probes.drawn_cells import RESNET, Labels, Pixels, cells, parts, quick


@pytest.fixture(scope="module")
def small():
    patches, labels = cells(24)
    return patches, labels, parts(patches.ids, train=16, val=4)


def test_one_class_is_refused(small):
    patches, labels, split = small
    with pytest.raises(
        OneClassError, match=r"8 training annotations hold 1 class\(es\) \['blob'\]"
    ):
        quick(patches, labels, replace(split, train=split.train[::2]))


def test_a_loss_that_is_no_number_names_the_batchs_annotations(small, tmp_path):
    patches, labels, split = small
    source = Classifier(RESNET, n_classes=2, patch_px=48).network.state_dict()
    broken = {key: tensor * float("nan") for key, tensor in source.items()}
    save_file(broken, tmp_path / "broken.safetensors")
    with pytest.raises(
        LossError, match=r"loss is no finite number in epoch 1, step 1, on annotations"
    ) as raised:
        quick(patches, labels, split, pretrained=tmp_path / "broken.safetensors", batch_size=4)
    named = [annotation for annotation in split.train if str(annotation) in str(raised.value)]
    assert len(named) == 4
    assert "\n" not in str(raised.value)


def test_annotations_whose_patches_are_missing_are_named(small):
    patches, labels, split = small
    held = np.setdiff1d(np.arange(24), [3, 17])
    fewer = Pixels(patches.ids[held], patches.pixels[held])
    with pytest.raises(
        ProbesError, match="no patches of 2 of the split's 20 annotations: 1030, 1170; cut them"
    ):
        quick(fewer, labels, split)


@dataclass(frozen=True)
class Unreadable(Pixels):
    def read(self, ids):
        if 1050 in ids and len(ids) < 4:  # more are asked for together at the start
            raise OSError("no file tile-7.tiff\nin the folder")
        return super().read(ids)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_patch_that_cannot_be_read_in_the_midst_is_one_line(small, workers):
    patches, labels, split = small
    source = Unreadable(patches.ids, patches.pixels)
    with pytest.raises(ProbesError, match=r"cannot be read: no file tile-7\.tiff in the") as raised:
        quick(source, labels, split, memory_gib=0, workers=workers, batch_size=3)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_px": 64}, "patch_px=64 is asked and the patches are 48 px wide"),
        ({"device": "tpu9"}, "device='tpu9' cannot be used"),
        ({"devices": 0}, "devices=0 is too small; give at least 1"),
        ({"devices": 9}, "devices=9 and batches of 8 patches; give devices=8 at most"),
        ({"devices": 2, "device": "cpu:0"}, "devices=2 and device='cpu:0' were asked for"),
        ({"workers": -1}, "workers=-1 is too small"),
        ({"augment_on": "gpu"}, "augment_on='gpu'; give 'auto', 'workers' or 'device'"),
        ({"precision": "8"}, "precision='8'; give 32, bf16-mixed"),
        ({"precision": "16-mixed"}, "precision='16-mixed' needs a GPU and device='cpu'"),
        ({"colour": "red"}, "a recipe has no colour; it has name, network"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_named(small, options, message):
    with pytest.raises(ProbesError, match=message) as raised:
        quick(*small, **{"batch_size": 8} | options)
    assert "\n" not in str(raised.value)


def test_patience_without_a_validation_part_is_refused(small):
    patches, labels, split = small
    with pytest.raises(ProbesError, match="patience=2 waits for the validation loss"):
        quick(patches, labels, replace(split, val=split.val[:0]), patience=2)


def test_a_validation_class_that_training_lacks_is_named(small):
    patches, labels, split = small
    other = np.where(labels.ids == split.val[0], "apoptosis", labels.labels)
    with pytest.raises(ProbesError, match=r"\['apoptosis'\], which no training annotation has"):
        quick(patches, Labels(labels.ids, other), split)


def test_bf16_on_a_cpu_trains_and_predicts_in_float32(small):
    found = quick(*small, precision="bf16-mixed")
    assert np.isfinite(found.history[-1]["val_loss"])
    assert {tensor.dtype for tensor in found.classifier.parameters()} == {torch.float32}
    assert found.recipe.precision == "bf16-mixed"
    assert found.predict_proba(small[0].pixels).shape == (24, 2)
