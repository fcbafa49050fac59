import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from featstore.encoders.build import bare_network, build
from featstore.encoders.pooling import embedding_parts
from featstore.encoders.registry import ELSEWHERE, ENCODERS, named, registered
from featstore.encoders.weights import find_weights
from featstore.errors import EncoderError
from featstore.store.layout import check_key

# The paper's eight, as its authors' reference counts them: parameters, tokens at 224 px, prefix
# tokens, length of an embedding.
PAPER = {
    "prov-gigapath": (1_134_953_984, 197, 1, 1536),
    "h-optimus-0": (1_134_774_272, 261, 5, 1536),
    "virchow": (631_229_184, 257, 1, 2560),
    "virchow2": (631_239_424, 261, 5, 2560),
    "uni": (303_350_784, 197, 1, 1024),
    "phikon": (85_798_656, 197, 1, 768),
    "resnet50-imagenet": (23_508_032, 0, 0, 2048),
    "vit-h-imagenet": (630_764_800, 257, 1, 1280),
    "uni2-h": (681_394_176, 265, 9, 1536),
    "h0-mini": (85_739_520, 261, 5, 768),
    "gpfm": (303_227_904, 257, 1, 1024),
}


def test_the_papers_encoders_are_registered_with_the_numbers_of_the_reference():
    for key, expected in PAPER.items():
        row = registered(key)
        found = (row.n_parameters, row.n_tokens, row.n_prefix_tokens, row.spec.dim)
        assert found == expected, key


@pytest.mark.parametrize("key", ENCODERS)
def test_every_build_has_the_parameters_tokens_and_length_that_the_registry_states(key):
    """Without weights: a new timm that builds another network under the same name fails here."""
    row = ENCODERS[key]
    with torch.device("meta"):
        network = bare_network(row.spec).eval()
        features = network.forward_features(torch.empty(1, 3, 224, 224))
    assert sum(weight.numel() for weight in network.parameters()) == row.n_parameters
    assert (features.shape[1] if features.ndim == 3 else 0) == row.n_tokens
    assert getattr(network, "num_prefix_tokens", 0) == row.n_prefix_tokens
    parts = embedding_parts(network, row.spec.pooling)
    assert max(stop for _, stop in parts.values()) == row.spec.dim


def test_every_row_states_what_it_is_and_where_its_weights_and_terms_are():
    for row in ENCODERS.values():
        check_key("model", row.key)
        assert row.spec.terms
        assert row.spec.weights_from
        assert row.access in ("open", "login", "gated")
        assert row.precision in ("float32", "float16", "bfloat16")
        assert all(0 < value < 1 for value in (*row.spec.mean, *row.spec.std))
        if row.access != "open":
            assert row.access in row.spec.terms
    assert not set(ENCODERS) & set(ELSEWHERE)


def test_an_encoder_that_is_no_build_of_timm_says_what_has_it():
    for key in ELSEWHERE:
        with pytest.raises(EncoderError, match=r"is not a build of timm.*featstore import"):
            named(key)
    with pytest.raises(EncoderError, match="no encoder 'uni3'; known are efficientnet-lite0"):
        named("uni3")


def as_transformers_names_it(state):
    """A timm ViT's weights under the names, and in the parts, of the library transformers."""
    renamed = {}
    for name, tensor in state.items():
        name = name.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
        name = name.replace("pos_embed", "embeddings.position_embeddings")
        name = name.replace("cls_token", "embeddings.cls_token")
        name = name.replace("blocks.", "encoder.layer.").replace("mlp.fc1", "intermediate.dense")
        name = name.replace("attn.proj", "attention.output.dense")
        name = name.replace("mlp.fc2", "output.dense").replace("norm1", "layernorm_before")
        name = name.replace("norm2", "layernorm_after")
        name = "layernorm" + name.removeprefix("norm") if name.startswith("norm.") else name
        if ".attn.qkv." in name:
            for part, values in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                place = name.replace("attn.qkv", f"attention.attention.{part}")
                renamed["vit." + place] = values.contiguous()
        else:
            renamed["vit." + name] = tensor
    return renamed


def test_a_vit_of_the_library_transformers_gives_the_embeddings_of_timms(tmp_path):
    network = timm.create_model("test_vit", num_classes=0).eval()
    other = as_transformers_names_it(network.state_dict())
    other["pooler.dense.weight"] = torch.zeros(3, 3)
    save_file(network.state_dict(), tmp_path / "timm.safetensors")
    save_file(other, tmp_path / "other.safetensors")
    patches = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)
    expected = build("timm:test_vit", weights=tmp_path / "timm.safetensors").embed(patches)
    given = build("timm:test_vit", weights=tmp_path / "other.safetensors").embed(patches)
    assert torch.equal(given, expected)


def test_weights_in_the_hubs_cache_are_found_at_the_pinned_revision_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    row = registered("uni")
    assert find_weights(row) is None
    for commit in ("0000aaaa", row.revision + "0123"):
        folder = tmp_path / "models--MahmoodLab--UNI" / "snapshots" / commit
        folder.mkdir(parents=True)
        (folder / row.file).write_bytes(b"")
    path, where = find_weights(row)
    assert where == "hub cache"
    assert path.parent.name.startswith(row.revision)


def test_a_file_with_another_hash_is_taken_only_when_that_is_allowed(tmp_path):
    network = timm.create_model("vit_base_patch16_224", num_classes=0)
    path = tmp_path / "mine.safetensors"
    save_file(network.state_dict(), path)
    message = r"mine.safetensors has the SHA-256 \w{16}\.\.\., the registry has d01642bfeb683c6b"
    with pytest.raises(EncoderError, match=message):
        build("phikon", weights=path)
    encoder = build("phikon", weights=path, allow_other_weights=True)
    assert encoder.spec.weights_from == "file other than the registered one, mine.safetensors"
    assert len(encoder.spec.weights) == 64
