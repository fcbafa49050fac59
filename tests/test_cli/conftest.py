"""Run the command line as a user does, in this process."""

from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from featstore_cli.main import featstore


@dataclass
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def lines(self):
        return self.out.splitlines()


@pytest.fixture
def run():
    """Run ``featstore`` with these words; an error that is not ours is raised."""

    def run_words(*words):
        result = CliRunner().invoke(featstore, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run_words


@pytest.fixture
def ok(run):
    """Run a command that must succeed."""

    def run_words(*words):
        outcome = run(*words)
        assert outcome.code == 0, outcome.err
        return outcome

    return run_words


@pytest.fixture
def midog_store(tmp_path, write_midog, ok):
    """A store with a small MIDOG dataset, embedded by a small random network."""
    home = write_midog(n_images=4, cells_per_image=40)
    store = tmp_path / "lab.zarr"
    ok("add", store, "midog", "--annotations", home / "MIDOG.json", "--images", home / "images")
    ok(
        "extract",
        store,
        "--model",
        "timm:test_vit",
        "--random-weights",
        0,
        "--dataset",
        "midog",
        "--precision",
        "float32",
        "--workers",
        0,
        "--quiet",
    )
    return store
