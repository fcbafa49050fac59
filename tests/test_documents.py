"""What README.md, docs/ and examples/ tell a reader to run, run."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot
import pytest
from click.testing import CliRunner

from featstore_cli.main import VERBS, featstore
from probes.errors import CollapsedProbeWarning

HOME = Path(__file__).parents[1]
PAGES = [HOME / "README.md", *sorted((HOME / "docs").rglob("*.md"))]


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.M | re.S)


def run_command(*words):
    """Run a command; a probe on a random encoder may collapse, as long as it says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", CollapsedProbeWarning)
        result = CliRunner().invoke(featstore, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory):
    """What ``make demo`` leaves, made small; its pretrained encoder included."""
    home = tmp_path_factory.mktemp("demo")
    results = home / "demo-results"
    run_command("demo", "--quick", "--out", results)
    to_store = ["--dataset", "demo", "--quiet"]
    run_command("extract", results / "demo.zarr", "--model", "efficientnet-lite0", *to_store)
    return home


def test_the_demo_leaves_what_it_says(demo_folder):
    there = {path.name for path in (demo_folder / "demo-results").iterdir()}
    assert there == {
        "data",
        "demo.zarr",
        "splits.json",
        "end_to_end.csv",
        "learning_curve.csv",
        "learning_curve.png",
        "domains.csv",
        "domains.png",
        "report.html",
    }


def test_the_demo_goes_on_with_what_is_there(demo_folder):
    store = demo_folder / "demo-results" / "demo.zarr"
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    again = run_command("demo", "--quick", "--out", demo_folder / "demo-results")
    assert "data is there; going on with it" in again
    assert "embeddings are there" in again
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name
)
def test_the_python_on_a_page_runs(page, demo_folder, monkeypatch):
    matplotlib.use("agg")
    monkeypatch.chdir(demo_folder)
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_on_a_page_have_verbs_and_options_that_exist(page):
    text = page.read_text()
    for line in re.findall(r"^\$? ?featstore (.+)$", "\n".join(blocks(page, "")), flags=re.M):
        words = line.split("#")[0].split()
        assert words[0] in VERBS, line
        command = featstore.get_command(None, words[0])
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("script", sorted((HOME / "examples").glob("*.py")), ids=lambda p: p.name)
def test_an_example_runs(script, demo_folder):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), "demo-results"],
        cwd=demo_folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "timm", "cuml", "lightning"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import probes, featstore
probes.LogisticProbe, probes.learning_curve, probes.cross_domain
from featstore_cli.main import run
sys.argv = ["featstore", *sys.argv[1:]]
run()
"""


def run_without_torch(*words):
    return subprocess.run(
        [sys.executable, "-c", BLOCKED, *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )


def test_a_laptop_without_torch_lists_and_probes(demo_folder):
    store = demo_folder / "demo-results" / "demo.zarr"
    listed = run_without_torch("list", store)
    assert listed.returncode == 0, listed.stderr
    assert "efficientnet-lite0" in listed.stdout
    curve = run_without_torch(
        "curve",
        store,
        "--dataset",
        "demo",
        "--model",
        "efficientnet-lite0",
        "--splits",
        demo_folder / "demo-results" / "splits.json",
        "--csv",
    )
    assert curve.returncode == 0, curve.stderr


def test_what_needs_torch_says_so_in_one_line(demo_folder):
    store = demo_folder / "demo-results" / "demo.zarr"
    for words, extra in [
        (["extract", store, "--model", "efficientnet-lite0"], "extract"),
        (["train", store, "--splits", "none.json"], "train"),
    ]:
        refused = run_without_torch(*words, "--dataset", "demo")
        assert refused.returncode == 1
        assert refused.stderr.startswith("Error: ")
        assert f"pip install 'featstore-probes[{extra}]'" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


def comparable(line):
    """Words of a line of output, numbers as numbers; speeds are different each time."""
    if "patches/s" in line:
        line = line.split(" in ")[0]
    return [float(word) if re.fullmatch(r"-?[0-9.]+", word) else word for word in line.split()]


def test_the_quickstart_prints_on_the_real_patches_what_it_says(real_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ami_br").symlink_to(real_data / "ami_br_midog21_train")
    page = "\n".join(blocks(HOME / "docs" / "quickstart.md", ""))
    for step in re.split(r"^\$ featstore ", page.split("import featstore")[0], flags=re.M)[1:]:
        command, *expected = step.rstrip().split("\n")
        result = CliRunner().invoke(featstore, command.split())
        assert result.exit_code == 0, result.output
        printed = result.stdout.rstrip().split("\n")
        for line, line_expected in zip(printed, expected, strict="--csv" not in command):
            for word, word_expected in zip(
                comparable(line), comparable(line_expected), strict=True
            ):
                assert word == pytest.approx(word_expected, abs=0.004), line
