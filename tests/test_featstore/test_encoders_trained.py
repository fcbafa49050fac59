import json
import resource

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import featstore
from featstore.encoders.build import build
from featstore.encoders.precision import recommended_precision
from featstore.encoders.trained import read_trained
from featstore.errors import EncoderError
from featstore.extract import extract
from featstore.patches import patches_of

PX = 32
PATCHES = np.random.default_rng(0).integers(0, 256, (3, PX, PX, 3), dtype=np.uint8)
SPLIT = "sha256:" + "5" * 64
ABOUT = {
    "format": "featstore-probes/endtoend",
    "version": 2,
    "architecture": "test_resnet",
    "arguments": {},
    "classifier": ["fc"],
    "input_px": PX,
    "mean": [0.7, 0.5, 0.6],
    "std": [0.2, 0.3, 0.4],
    "mpp": 0.5,
    "classes": ["look-alike", "mitotic figure"],
    "recipe": {},
    "recipe_text": "end-to-end timm:test_resnet",
    "history": [],
    "split": SPLIT,
    "dataset": "demo",
    "dataset_digest": "sha256:" + "d" * 64,
    "n_train": 13,
    "n_val": 3,
}


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model("test_resnet", num_classes=2).eval()


@pytest.fixture
def saved(tmp_path, network):
    """Save a network with a description, some fields of which are other than they should be."""

    def save(name="Run 7.safetensors", weights=None, about=None, **fields):
        text = json.dumps(ABOUT | fields) if about is None else about
        weights = network.state_dict() if weights is None else weights
        save_file(weights, tmp_path / name, metadata={"about": text})
        return f"file:{tmp_path / name}"

    return save


def logits_of(network, patches, mean, std):
    images = torch.from_numpy(patches).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    with torch.inference_mode():
        return network((images - mean) / std)


def test_the_specification_is_what_the_file_says_and_the_digest_is_over_the_file(saved):
    model = saved()
    encoder = build(model)
    spec = encoder.spec
    assert (spec.key, spec.architecture, spec.input_px, spec.mpp) == (
        "run-7",
        "test_resnet",
        PX,
        0.5,
    )
    assert (spec.mean, spec.std, spec.pooling) == ((0.7, 0.5, 0.6), (0.2, 0.3, 0.4), "average")
    assert spec.weights_from == (
        "file Run 7.safetensors, trained end to end on 13 annotations of 'demo', split " + SPLIT
    )
    assert encoder.trained_on["split"] == SPLIT
    assert encoder.at("bfloat16").trained_on == encoder.trained_on
    other = build(saved("other.safetensors", n_train=14)).spec
    assert other.weights != spec.weights
    assert other.digest != spec.digest


def test_a_resolution_and_a_name_may_be_asked_for(saved):
    model = saved()
    assert build(model, mpp=0.25, key="mine").spec.mpp == 0.25
    assert build(model, mpp=0.25, key="mine").spec.key == "mine"
    assert build(saved(mpp=None)).spec.mpp is None
    assert build("timm:test_resnet", random_weights=0).spec.mpp == 0.25
    assert recommended_precision(model) == "float32"


@pytest.mark.parametrize(
    ("architecture", "pooling"),
    [
        ("test_resnet", "average"),
        ("test_efficientnet", "average"),
        ("test_convnext", "average"),  # with a norm behind its average
        ("test_vit", "class"),
        ("test_vit3", "head"),  # with a norm behind the mean of its tokens
    ],
)
def test_the_classifier_of_the_file_gives_the_networks_logits_on_embeddings(
    saved, architecture, pooling
):
    size = {"img_size": PX} if "vit" in architecture else {}
    whole = timm.create_model(architecture, num_classes=3, **size).eval()
    fields = {"architecture": architecture, "arguments": size, "classes": ["a", "b", "c"]}
    encoder = build(saved(weights=whole.state_dict(), **fields))
    assert encoder.spec.pooling == pooling
    expected = logits_of(whole, PATCHES, ABOUT["mean"], ABOUT["std"])
    with torch.inference_mode():
        found = whole.get_classifier()(encoder.embed(PATCHES))
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("network_name", ["timm:test_resnet", "timm:test_vit"])
def test_what_the_trainer_keeps_is_an_encoder_whose_linear_head_predicts_as_it_does(
    tmp_path, network_name
):
    """The format is held by both sides: the trainer writes it, and nothing of it is shared."""
    endtoend = pytest.importorskip("probes.endtoend")
    ids = np.arange(12)
    pixels = np.random.default_rng(1).integers(0, 256, (12, PX, PX, 3), dtype=np.uint8)
    labels = np.array(["a", "b", "c"] * 4)
    trained = endtoend.train(
        _Rows(ids, pixels),
        _Labels(ids, labels),
        _Split(ids[:9], ids[9:], ids[:0]),
        network=network_name,
        pretrained=None,
        patch_px=PX,
        epochs=1,
    )
    path = tmp_path / "net.safetensors"
    trained.save(path)
    encoder = build(f"file:{path}")
    weights = load_file(path)
    head = json.loads(_metadata(path)["about"])["classifier"][0]
    logits = encoder.embed(pixels) @ weights[f"{head}.weight"].T + weights[f"{head}.bias"]
    found = logits.double().softmax(1).numpy()
    assert np.abs(found - trained.predict_proba(pixels)).max() < 1e-4
    assert encoder.trained_on["split"] == _Split.digest
    assert encoder.trained_on["n_train"] == 9
    assert encoder.trained_on["recipe"] == trained.recipe.text
    assert encoder.spec.mpp == 0.25


class _Rows:
    mpp = 0.25

    def __init__(self, ids, values):
        self.ids, self.values = ids, values

    def read(self, ids):
        return self.values[ids]


class _Labels:
    name, digest = "toy", "sha256:" + "a" * 64

    def __init__(self, ids, labels):
        self.ids, self.labels = ids, labels

    def labels_of(self, ids):
        return self.labels[ids]


class _Split:
    digest = SPLIT

    def __init__(self, train, val, test):
        self.train, self.val, self.test = train, val, test


def _metadata(path):
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return file.metadata()


def test_provenance_names_the_split_that_a_network_was_trained_on(saved, region_store):
    encoder = build(saved(), mpp=0.25)
    patches = patches_of(featstore.open(region_store), "midog", patch_px=PX)
    extract(region_store, "midog", encoder, patches, workers=0)
    provenance = featstore.open(region_store).embeddings("run-7", "midog").provenance
    assert provenance.run["trained_on"] == {
        "split": SPLIT,
        "dataset": "demo",
        "dataset_digest": ABOUT["dataset_digest"],
        "n_train": 13,
        "recipe": ABOUT["recipe_text"],
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": 3}, "version 2 and says"),
        ({"format": "other"}, "no network that 'featstore train' kept"),
        ({"architecture": "hf-hub:someone/net"}, "architecture='hf-hub:someone/net'"),
        ({"architecture": "local-dir:/tmp"}, "architecture='local-dir:/tmp'"),
        ({"architecture": "resnet50.of_nobody"}, "should be a network of timm"),
        ({"architecture": 5}, "architecture=5"),
        ({"arguments": {"pretrained": True}}, "arguments={'pretrained': True}"),
        ({"arguments": {"img_size": 10**6}}, "arguments={'img_size': 1000000}"),
        ({"arguments": []}, r"arguments=\[\], which should be names with values"),
        ({"input_px": 10**9}, "input_px=1000000000, which should be a number from 1 to 4,096"),
        ({"input_px": True}, "input_px=True"),
        ({"mean": [0.5, 0.5]}, "three finite numbers"),
        ({"mean": [0.5, 0.5, float("nan")]}, "three finite numbers"),
        ({"std": [0.5, 0.0, 0.5]}, "three finite numbers, each above 0"),
        ({"mpp": -1}, "mpp=-1"),
        ({"mpp": float("inf")}, "mpp=inf"),
        ({"mpp": 0}, "mpp=0"),
        ({"split": "the best one"}, "split='the best one', which should be a digest"),
        ({"dataset": "a\nb"}, "should be a text of one line"),
        ({"recipe_text": "r" * 501}, "should be a text of one line"),
        ({"n_train": -4}, "n_train=-4"),
        ({"architecture": "test_vit"}, "does not fit VisionTransformer: .* missing"),
    ],
)
def test_a_description_that_cannot_be_is_one_line(saved, fields, message):
    with pytest.raises(EncoderError, match=message) as caught:
        build(saved(**fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("about", ["[" * 10**5, "[1]", "null", "{", '{"version": 1' + "0" * 5000])
def test_metadata_that_is_no_description_is_one_line(saved, about):
    with pytest.raises(EncoderError, match="no network that 'featstore train' kept"):
        read_trained(saved(about=about))


def test_a_small_file_that_names_a_huge_network_takes_no_memory(saved, network):
    weights = {"fc.weight": torch.zeros(2, 2)}
    huge = {"architecture": "vit_gigantic_patch14_clip_224", "arguments": {"img_size": PX}}
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EncoderError, match="does not fit VisionTransformer: 583 tensors are miss"):
        build(saved(weights=weights, **huge))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 2**19  # of 7 GiB
    widened = network.state_dict() | {"fc.bias": torch.zeros(2, dtype=torch.complex64)}
    with pytest.raises(EncoderError, match="no plain tensor of real numbers"):
        build(saved(weights=widened))


def test_files_that_are_none_and_options_that_do_not_go_with_one_are_refused(saved, tmp_path):
    with pytest.raises(EncoderError, match="there is no file"):
        build(f"file:{tmp_path}/nowhere.safetensors")
    with pytest.raises(EncoderError, match="there is no file"):
        build(f"file:{tmp_path}")
    (tmp_path / "text.safetensors").write_text("no tensors" * 100)
    with pytest.raises(EncoderError, match="cannot be read as safetensors"):
        build(f"file:{tmp_path}/text.safetensors")
    with pytest.raises(EncoderError, match="leave out --weights"):
        build(saved(), random_weights=0)
    with pytest.raises(EncoderError, match="gives no name in a store; give --name"):
        build(saved("___.safetensors"))
