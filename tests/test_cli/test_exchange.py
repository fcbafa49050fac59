import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import featstore
from featstore.errors import NotInStoreError, StoreError
from featstore_cli.exchange import COMMANDS
from tests.test_featstore.test_store_reading import write_vit


@pytest.fixture
def call():
    """Run a verb as the command line does; our own errors are raised."""

    def run(verb, *words, code=0):
        result = CliRunner().invoke(COMMANDS[verb], [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


NAMES = ("--model", "tiny", "--dataset", "cells")


@pytest.mark.parametrize(
    ("layout", "to", "files"),
    [("hdf5", "out", "4 files"), ("parquet", "out.parquet", "1 file"), ("npy", "out", "8 files")],
)
def test_what_is_exported_can_be_imported_into_a_new_store(
    call, filled_store, tmp_path, layout, to, files
):
    store, values = filled_store
    done = call("export", store.path, *NAMES, "--to", tmp_path / to, "--layout", layout)
    assert done.stdout == (
        f"exported 'tiny/cells' to {tmp_path / to}: 40 embeddings of 6, float32, {files}\n"
    )
    new = tmp_path / "new.zarr"
    done = call("import", new, *NAMES, "--from", tmp_path / to)
    assert done.stdout == f"imported 'tiny/cells' into {new}: 40 embeddings of 6, float32\n"
    back = featstore.open(new).embeddings("tiny", "cells")
    assert np.array_equal(back.read(back.ids), values)


@pytest.mark.parametrize(("model", "dim"), [("vit", 2), ("vit:mean", 2), ("vit:class+mean", 4)])
def test_a_view_is_exported_by_its_name_and_imported_under_another(
    call, filled_store, tmp_path, model, dim
):
    store, values = filled_store
    write_vit(store.path, "cells", values)
    out, new = tmp_path / "out", tmp_path / "new.zarr"
    names = ("--dataset", "cells", "--model")
    done = call("export", store.path, *names, model, "--to", out, "--layout", "npy")
    assert done.stdout.startswith(f"exported '{model}/cells' to {out}: 40 embeddings of {dim}, ")
    call("import", new, *names, "vit-view", "--from", out)
    view = store.embeddings(model, "cells")
    back = featstore.open(new).embeddings("vit-view", "cells")
    assert back.digest == view.digest
    assert np.array_equal(back.read(view.ids), view.read(view.ids))
    with pytest.raises(StoreError, match="'vit:mean' is that of a view"):
        call("import", new, *names, "vit:mean", "--from", out)
    with pytest.raises(NotInStoreError, match="its parts are class, mean, registers"):
        call("export", store.path, *names, "vit:cls", "--to", tmp_path / "o", "--layout", "npy")


def test_the_terms_of_an_encoder_are_said_when_its_embeddings_leave(
    call, filled_store, tiny_spec, write_embeddings, tmp_path
):
    store, values = filled_store
    spec = tiny_spec.at(key="gated", terms="CC-BY-NC-ND-4.0, gated")
    write_embeddings(store.path, "cells", spec, values)
    out = tmp_path / "out"
    words = ("--model", "gated", "--dataset", "cells", "--to", out, "--layout", "npy")
    done = call("export", store.path, *words)
    assert "go with its embeddings: CC-BY-NC-ND-4.0, gated" in done.stderr


def test_features_of_a_slide_come_in_with_a_label_for_all(call, tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["features"] = np.ones((3, 4), np.float32)
        file["coords"] = np.zeros((3, 2), np.int64)
    words = ("--from", tmp_path / "s.h5", "--label", "tissue", "--patch-px", 512)
    call("import", tmp_path / "new.zarr", *NAMES, *words)
    table = featstore.open(tmp_path / "new.zarr").annotations("cells")
    assert table.labels.tolist() == ["tissue"] * 3
    assert table.x.tolist() == [256] * 3


def test_a_refused_import_says_what_to_do(call, tmp_path):
    np.save(tmp_path / "v.npy", np.ones((2, 3)))
    with pytest.raises(StoreError, match="--label TEXT"):
        call("import", tmp_path / "new.zarr", *NAMES, "--from", tmp_path / "v.npy")
    call("import", tmp_path / "new.zarr", *NAMES, "--from", tmp_path / "nowhere", code=2)
