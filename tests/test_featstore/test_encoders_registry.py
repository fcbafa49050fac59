import dataclasses
import json
import os
import subprocess
import sys
from io import StringIO

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from featstore.encoders.build import bare_network, build
from featstore.encoders.pooling import embedding_parts
from featstore.encoders.registry import ELSEWHERE, ENCODERS, named, registered
from featstore.encoders.weights import find_weights
from featstore.errors import EncoderError
from featstore.store.layout import check_key
from featstore_cli.main import featstore

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
    kept = (*row.parts, *row.parts_on_request)
    assert tuple(embedding_parts(network, "+".join(kept))) == kept
    assert ("registers" in kept) == (row.n_prefix_tokens > 1)


@pytest.mark.parametrize("row", [row for row in ENCODERS.values() if row.hub.startswith("timm/")])
def test_weights_of_timm_have_the_architecture_and_normalisation_that_timm_states(row):
    config = timm.get_pretrained_cfg(row.hub.removeprefix("timm/"), allow_unregistered=False)
    assert (config.architecture, config.hf_hub_id) == (row.spec.architecture, row.hub)
    assert (config.mean, config.std) == (row.spec.mean, row.spec.std)
    assert config.license.split("-")[0] == row.spec.terms.replace(" ", "-").lower().split("-")[0]
    size_px, is_smaller = config.input_size[-1], config.crop_pct < 1
    assert f"Resize {int(size_px / config.crop_pct)} {config.interpolation}" in row.transform
    assert (f"CenterCrop {size_px}" in row.transform) == is_smaller


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
        assert row.transform
        assert "timm 1.0.31" in row.source
        assert bool(row.hub) == (row.key != "efficientnet-lite0")
    assert not set(ENCODERS) & set(ELSEWHERE)


def test_an_encoder_that_is_no_build_of_timm_says_what_to_install():
    for key, row in ELSEWHERE.items():
        assert row.install.startswith(("pip install ", "git clone "))
        with pytest.raises(EncoderError, match=r"is not a build of timm.*featstore import") as told:
            named(key)
        assert row.install in str(told.value)
        assert row.home in str(told.value)
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


@pytest.fixture
def put_in_cache(tmp_path, monkeypatch):
    """Put a file into the hub's cache, as the library does: a blob, and a link to it."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    def put(row, commit, *, is_main=False, mtime=None):
        home = tmp_path / f"models--{row.hub.replace('/', '--')}"
        blob, link = home / "blobs" / commit, home / "snapshots" / commit / row.file
        for folder in (blob.parent, link.parent, home / "refs"):
            folder.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(b"")
        link.symlink_to(blob)
        if mtime is not None:
            os.utime(link.parent, (mtime, mtime))
        if is_main:
            (home / "refs" / "main").write_text(commit)
        return blob

    return put


def test_without_a_pinned_revision_main_is_found_and_else_what_came_last(put_in_cache):
    row = registered("dinov2-s")
    put_in_cache(row, "aaaa", mtime=3)
    put_in_cache(row, "cccc", mtime=2)
    assert find_weights(row)[0].parent.name == "aaaa"
    put_in_cache(row, "bbbb", is_main=True, mtime=1)
    assert find_weights(row)[0].parent.name == "bbbb"


def test_a_link_to_a_file_that_is_gone_is_not_found(put_in_cache):
    row = registered("uni")
    blob = put_in_cache(row, row.revision + "0123")
    assert find_weights(row) is not None
    blob.unlink()
    assert find_weights(row) is None


def test_the_cache_is_where_the_library_has_it():
    """Read there when it is imported, here when it is asked for: so in a process of its own."""
    script = """
import importlib, json, os, sys
from huggingface_hub import constants
from featstore.encoders.weights import hub_cache
for variables in json.loads(sys.argv[1]):
    os.environ.update(variables)
    assert str(hub_cache()) == importlib.reload(constants).HF_HUB_CACHE, variables
    for name in variables:
        del os.environ[name]
"""
    cases = [
        {},
        {"XDG_CACHE_HOME": "/a"},
        {"HF_HOME": "~/b", "XDG_CACHE_HOME": "/a"},
        {"HUGGINGFACE_HUB_CACHE": "/c", "HF_HOME": "/b"},
        {"HF_HUB_CACHE": "$HOME/d", "HUGGINGFACE_HUB_CACHE": "/c"},
        {"HF_HOME": "b"},
    ]
    names = {name for case in cases for name in case}
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(cases)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


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


def listed(*words, width=200):
    result = CliRunner().invoke(featstore, ["encoders", *words], env={"COLUMNS": str(width)})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_list_says_what_this_machine_can_load_now(put_in_cache):
    put_in_cache(registered("uni"), registered("uni").revision + "0123")
    last = {line.split()[0]: line for line in listed().splitlines() if line}
    assert last["efficientnet-lite0"].endswith("  here (package)")
    assert last["uni"].endswith("  here (hub cache)")
    assert last["phikon"].endswith("  to get with --download")
    assert last["h-optimus-0"].endswith("  to get with --download after login")
    assert last["virchow2"].endswith("  to ask for at the hub, then --download")
    assert "pip install transformers " in last["phikon-v2"]
    assert set(last) >= {*ENCODERS, *ELSEWHERE}


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_list_fits_the_terminal(width):
    lines = listed(width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert set(ENCODERS) | set(ELSEWHERE) <= {line.split()[0] for line in lines if line}


def test_one_encoder_is_shown_with_all_that_is_known_and_what_to_do(put_in_cache):
    shown = listed("virchow2", width=100)
    for fact in (
        "to_get_weights         1. ask for access at https://huggingface.co/paige-ai/Virchow2\n",
        "2. log in on this machine: hf auth login\n",
        "3. fetch: featstore extract STORE --dataset D --model virchow2 --download\n",
        "parts                  class, mean\n",
        "parts_on_request       registers\n",
        "transform              Resize 224 bicubic\n",
        "source                 parameters, tokens and dim: counted on the build",
    ):
        assert fact in shown
    fields = {line.split()[0].removeprefix("recommended_") for line in shown.splitlines()}
    assert {field.name for field in dataclasses.fields(registered("uni"))} - {"spec"} <= fields
    put_in_cache(registered("virchow2"), registered("virchow2").revision)
    assert "to_get_weights" not in listed("virchow2")
    assert "weights_file" in listed("virchow2")


def test_an_encoder_of_elsewhere_is_shown_with_what_to_install():
    shown = listed("conch")
    assert "1. install: pip install git+https://github.com/mahmoodlab/CONCH.git\n" in shown
    assert "4. bring the embeddings in: featstore import\n" in shown


def test_programs_get_every_field_of_every_encoder():
    rows = json.loads(listed("--json"))
    assert [row["key"] for row in rows] == [*ENCODERS, *ELSEWHERE]
    gigapath = next(row for row in rows if row["key"] == "prov-gigapath")
    assert gigapath["build"]["patch_size"] == 16
    assert gigapath["n_parameters"] == 1_134_953_984
    assert gigapath["parts"] == ["class", "mean"]
    table = pd.read_csv(StringIO(listed("--csv")), dtype=str).set_index("key")
    assert table.loc["prov-gigapath", "n_parameters"] == "1134953984"
    assert table.loc["virchow2", "build"].startswith("img_size=224, init_values=1e-05")
    assert pd.read_csv(StringIO(listed("uni", "--csv"))).set_index("field").value["dim"] == "1024"
