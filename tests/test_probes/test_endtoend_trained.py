import json
import resource
from dataclasses import dataclass

import numpy as np
import pytest
import safetensors
import timm
import torch
from safetensors.torch import save_file

from probes.endtoend import TrainedNetwork
from probes.endtoend.augment import centre_crop
from probes.errors import ProbesError
from tests.test_probes.drawn_cells import RESNET, VIT, Pixels, cells, parts, quick, same_weights


@dataclass(frozen=True)
class PixelsAt(Pixels):
    mpp: float = 0.25


@pytest.fixture(scope="module")
def small():
    patches, labels = cells(24)
    return PixelsAt(patches.ids, patches.pixels), labels, parts(patches.ids, train=16, val=4)


@pytest.fixture(scope="module")
def trained(small):
    return quick(*small)


def test_probabilities_are_float64_and_sum_to_1_whatever_the_batch(small, trained):
    pixels = small[0].pixels
    proba = trained.predict_proba(pixels)
    assert proba.dtype == np.float64
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(trained.predict_proba(pixels, batch_size=5), proba, atol=1e-6)
    np.testing.assert_array_equal(trained.predict_proba(pixels), proba)
    assert trained.predict_proba(pixels[:0]).shape == (0, 2)


def test_patches_that_cannot_be_written_to_are_read_all_the_same(small, trained):
    patches, labels, split = small
    locked = patches.pixels.copy()
    locked.flags.writeable = False
    assert same_weights(quick(Pixels(patches.ids, locked), labels, split), trained)
    assert trained.predict_proba(locked).shape == (24, 2)


def test_prediction_sees_the_centre_only(small):
    found = quick(*small, patch_px=32)
    pixels = small[0].pixels
    expected = found.predict_proba(centre_crop(pixels, 32))
    np.testing.assert_array_equal(found.predict_proba(pixels), expected)


def test_pixels_of_another_kind_are_refused(small, trained):
    patches = small[0].pixels
    for wrong in (patches.astype(float), patches[0], patches[:, :20], patches[..., :1]):
        with pytest.raises(ProbesError, match="give square RGB patches"):
            trained.predict_proba(wrong)


def test_saved_and_loaded_networks_predict_the_same(small, trained, tmp_path):
    path = tmp_path / "network.safetensors"
    trained.save(path)
    loaded = TrainedNetwork.load(path, device="cpu")
    pixels = small[0].pixels
    np.testing.assert_array_equal(loaded.predict_proba(pixels), trained.predict_proba(pixels))
    assert loaded.classes_.tolist() == trained.classes_.tolist()
    assert (loaded.recipe, loaded.training) == (trained.recipe, trained.training)
    assert loaded.history == trained.history
    assert (loaded.network, loaded.best_epoch_) == (RESNET, trained.best_epoch_)
    assert [kept.name for kept in tmp_path.iterdir()] == ["network.safetensors"]


@pytest.mark.parametrize("network", [RESNET, VIT])
def test_timm_itself_loads_the_file_and_its_metadata_says_how(small, tmp_path, network):
    path = tmp_path / "network.safetensors"
    found = quick(*small, network=network, epochs=1)
    found.save(path)
    with safetensors.safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
    theirs = timm.create_model(
        about["architecture"],
        num_classes=len(about["classes"]),
        checkpoint_path=str(path),
        **about["arguments"],
    ).eval()
    shape = (1, 1, 1, 3)
    mean, std = (np.float32(about[name]).reshape(shape) for name in ("mean", "std"))
    cropped = centre_crop(small[0].pixels[:3], about["input_px"])
    normalised = (cropped / np.float32(255) - mean) / std
    with torch.inference_mode():
        logits = theirs(torch.from_numpy(normalised).permute(0, 3, 1, 2)).double()
    proba = found.predict_proba(small[0].pixels[:3])
    np.testing.assert_allclose(logits.softmax(1), proba, atol=1e-5)
    assert (about["n_train"], about["n_val"], about["mpp"]) == (16, 4, 0.25)
    assert about["recipe_text"] == found.recipe.text
    assert about["split"].startswith("sha256:")
    heads = tuple(f"{head}." for head in about["classifier"])
    assert sum(key.startswith(heads) for key in theirs.state_dict()) == 2


def test_a_file_of_others_is_not_loaded(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ProbesError, match="not a network saved here"):
        TrainedNetwork.load(tmp_path / "other.safetensors")
    for name in ("text", "missing"):
        with pytest.raises(ProbesError, match="cannot read"):
            TrainedNetwork.load(tmp_path / name)


@pytest.mark.parametrize(
    "change", [{"recipe": {"network": 1}}, {"classes": ["one"]}, {"history": None}], ids=str
)
def test_a_damaged_file_is_refused_in_one_line(trained, tmp_path, change):
    path = tmp_path / "network.safetensors"
    trained.save(path)
    with safetensors.safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, no dict
    save_file(tensors, path, metadata={"about": json.dumps(about | change)})
    with pytest.raises(ProbesError, match="is damaged") as raised:
        TrainedNetwork.load(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("about", ["[" * 10**5, "[1]", "null"])
def test_metadata_that_is_no_description_is_one_line(tmp_path, about):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata={"about": about})
    with pytest.raises(ProbesError, match=r"cannot read|not a network saved here"):
        TrainedNetwork.load(path)


def test_a_small_file_that_names_a_huge_network_takes_no_memory(trained, tmp_path):
    path = tmp_path / "network.safetensors"
    trained.save(path)
    with safetensors.safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
    about["recipe"] |= {"network": "timm:vit_gigantic_patch14_clip_224"}
    save_file({"fc.bias": torch.zeros(2)}, path, metadata={"about": json.dumps(about)})
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ProbesError, match="is damaged"):
        TrainedNetwork.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 2**19  # of 7 GiB
