"""The option --solver of probe, curve and domains."""

import json

import pytest
import torch
from click.testing import CliRunner

import probes
from featstore_cli.main import featstore


def run(*words):
    return CliRunner().invoke(featstore, [str(word) for word in words])


@pytest.fixture
def words(filled_store, tmp_path):
    """Words of each verb on a small store."""
    store, _ = filled_store
    splits = probes.monte_carlo(store.annotations("cells"), repeats=2, train=[1.0])
    splits.save(tmp_path / "splits.json")
    on = [store.path, "--dataset", "cells", "--objective", "l2"]
    return {
        "probe": ["probe", *on, "--model", "tiny", "--splits", tmp_path / "splits.json"],
        "curve": ["curve", *on, "--splits", tmp_path / "splits.json"],
        "domains": ["domains", *on, "--repeats", 1],
    }


@pytest.mark.parametrize("verb", ["probe", "curve", "domains"])
def test_scikit_learn_gives_what_our_solver_gives(words, verb):
    ours, theirs = (run(*words[verb], "--json", "--solver", name) for name in ("lbfgs", "sklearn"))
    assert ours.exit_code == theirs.exit_code == 0, theirs.output
    values = [
        [row.get("value", row.get("auroc")) for row in json.loads(done.stdout)]
        for done in (ours, theirs)
    ]
    assert values[0] == pytest.approx(values[1])
    if verb == "probe":
        n_iter = [json.loads(done.stdout)[0]["iterations"] for done in (ours, theirs)]
        assert n_iter[0] != n_iter[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("verb", ["probe", "curve", "domains"])
def test_cuml_without_cuda_ends_in_one_line_that_says_what_to_do(words, verb):
    done = run(*words[verb], "--solver", "cuml")
    assert done.exit_code == 1
    (line,) = done.stderr.strip().splitlines()
    assert "pip install 'featstore-probes[gpu]'. Use solver='lbfgs' on a CPU" in line
