"""The verbs that hand a store on, called as commands of their own."""

import numpy as np
import pytest
from click.testing import CliRunner

import featstore
from featstore.errors import StoreError
from featstore.store.manifest import check_manifest
from featstore_cli.sharing import COMMANDS


@pytest.fixture
def call():
    """Run one command and give its result; errors are raised."""

    def call_command(name, *words):
        result = CliRunner().invoke(
            COMMANDS[name], [str(word) for word in words], catch_exceptions=False
        )
        assert result.exit_code == 0, result.stderr
        return result

    return call_command


def test_copy_says_what_went_over_and_what_was_there(filled_store, tmp_path, call):
    source, target = filled_store[0].path, tmp_path / "target.zarr"
    copied = call("copy", source, target)
    assert copied.stderr == ""
    lines = [line.split() for line in copied.stdout.splitlines()]
    assert lines[0] == ["part", "chunks", "copied", "chunks", "equal", "bytes"]
    assert lines[2][:3] == ["annotations/cells", "6", "0"]
    assert lines[3] == ["embeddings/tiny/cells", "1", "0", str(40 * 6 * 4 + 4)]
    again = call("copy", source, target).stdout.splitlines()[3].split()
    assert again == ["embeddings/tiny/cells", "0", "1", "0"]


def test_copy_writes_a_manifest_where_one_is_asked_for(filled_store, tmp_path, call):
    call("copy", filled_store[0].path, tmp_path / "target.zarr", "--manifest")
    assert check_manifest(tmp_path / "target.zarr") == []


def test_copy_takes_the_models_and_datasets_that_are_named(
    filled_store, tmp_path, call, tiny_spec, write_embeddings
):
    source = filled_store[0].path
    for key in ("one", "two"):
        write_embeddings(source, "cells", tiny_spec.at(key=key), np.ones((40, 6)))
    target = tmp_path / "target.zarr"
    call("copy", source, target, "--model", "one", "--model", "two", "--dataset", "cells")
    assert featstore.open(target).models("cells") == ["one", "two"]


@pytest.mark.parametrize("verb", ["copy", "pack"])
def test_a_view_alone_is_neither_copied_nor_packed(filled_store, tmp_path, call, verb):
    target = tmp_path / "target.zip"
    with pytest.raises(StoreError, match=r"'tiny:mean' is a view .* the model 'tiny'") as caught:
        call(verb, filled_store[0].path, target, "--model", "tiny:mean")
    assert "\n" not in str(caught.value)
    assert not target.exists()


def test_terms_of_the_weights_are_printed_on_stderr(
    filled_store, tmp_path, call, tiny_spec, write_embeddings
):
    source = filled_store[0].path
    spec = tiny_spec.at(key="gated", terms="CC-BY-NC-ND-4.0, gated")
    write_embeddings(source, "cells", spec, np.ones((40, 6)))
    note = (
        "Note: embeddings of gated come from weights under: CC-BY-NC-ND-4.0, gated; check that "
        "you may pass them on\n"
    )
    assert call("copy", source, tmp_path / "target.zarr").stderr == note
    packed = call("pack", source, tmp_path / "lab.zip", "--model", "gated")
    assert packed.stderr == note
    assert call("pack", source, tmp_path / "tiny.zip", "--model", "tiny").stderr == ""


def test_pack_writes_a_file_that_opens_as_the_store_does(filled_store, tmp_path, call):
    store, values = filled_store
    packed = call("pack", store.path, tmp_path / "lab.zarr.zip")
    assert packed.stdout.startswith(f"packed {store.path} into {tmp_path / 'lab.zarr.zip'}: ")
    embeddings = featstore.open(tmp_path / "lab.zarr.zip").embeddings("tiny", "cells")
    assert np.array_equal(embeddings.read(embeddings.ids), values)


def test_a_conflict_is_an_error_of_one_line(filled_store, tmp_path, call, cells):
    call("copy", filled_store[0].path, tmp_path / "target.zarr")
    featstore.create(tmp_path / "other.zarr")
    from featstore.store.writer import add_annotations

    moved = cells.with_columns(x=cells.x + 1)
    add_annotations(tmp_path / "other.zarr", moved)
    with pytest.raises(StoreError, match=r"40 in x \(first: ") as caught:
        call("copy", tmp_path / "other.zarr", tmp_path / "target.zarr")
    assert "\n" not in str(caught.value)
