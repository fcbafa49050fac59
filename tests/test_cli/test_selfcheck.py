import json
import re
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from featstore_cli.selfcheck import beside_our_solver

PAGE = Path(__file__).parents[2] / "docs" / "selfcheck.md"
VIT = ["selfcheck", "--model", "timm:test_vit", "--random-weights", 0, "--device", "cpu"]
LITE = ["selfcheck", "--model", "efficientnet-lite0", "--device", "cpu"]


def test_machine_table_and_verdict_stand_in_this_order(ok):
    lines = ok(*VIT, "--precision", "float32").lines
    names = ["encoder", "torch", "device", "precision", "batches", "golden patches"]
    assert [line.split(": ")[0] for line in lines[:6]] == names
    assert lines[0] == "encoder: test_vit-random0, weights random:0, parts class+mean"
    assert lines[3] == "precision: float32 (asked for)"
    assert re.fullmatch(r"golden patches: SHA-256 [0-9a-f]{16}, 160 px", lines[5])
    rows = [line for line in lines if line.endswith("  yes")]
    assert [row.split("  ")[0] for row in rows[::2]] == [
        "CPU float32",
        "batches of 1",
        "batches of 3",
        "the same again",
    ]
    assert lines[-2].startswith("cuML: ")
    assert lines[-1] == (
        "passed: in float32 on cpu, whatever the batch, embeddings are those of float32 on the CPU "
        "to a cosine of 0.99999"
    )


def test_a_precision_that_loses_digits_ends_with_what_to_do(run):
    said = run(*LITE, "--precision", "bfloat16")
    assert said.code == 1
    assert re.fullmatch(
        r"Error: part 'average' in bfloat16 on cpu against CPU float32: a cosine of 0\.998\d+, "
        r"0\.999 is needed; use --precision float32\n",
        said.err,
    )
    assert "passed" not in said.out


def test_the_precision_taken_where_none_is_asked_for_passes(ok):
    said = ok(*LITE)
    assert "precision: float32 (" in said.out
    assert "asked for" not in said.out


def test_json_and_csv_hold_nothing_but_rows(ok):
    words = [*VIT, "--pooling", "mean", "--parts", "mean", "--batch-size", 2]
    said = ok(*words, "--precision", "float16", "--json")
    rows = json.loads(said.out)
    assert [row["part"] for row in rows] == ["mean"] * 4
    assert all(row["ok"] for row in rows)
    assert rows[0]["encoder"] == "test_vit-random0"
    assert (rows[0]["precision"], rows[0]["batch_size"], rows[0]["compiled"]) == (
        "float16",
        2,
        False,
    )
    assert "passed: " in said.err
    frame = pd.read_csv(StringIO(ok(*words, "--precision", "float32", "--csv").out))
    assert frame["allowed"].tolist() == [0.99999, 0.99999, 0.99999, 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "abacus"], "Error: device 'abacus' cannot be used"),
        (["--pooling", "average"], "Error: pooling 'average' does not fit VisionTransformer"),
        (["--weights", "w.pth"], "Error: weights from a file and random weights were asked for"),
    ],
)
def test_what_cannot_be_checked_is_one_line(run, words, message):
    said = run(*VIT, *words)
    assert said.code == 1
    assert said.err.startswith(message)
    assert len(said.err.splitlines()) == 1


def test_another_solver_is_told_from_one_that_fits_something_else():
    said, same = beside_our_solver(LogisticRegression(C=1.0, tol=1e-8, max_iter=1000))
    assert same
    assert re.fullmatch(
        r"coefficients \de-\d+ of their length from ours, AUROC (\S+), ours \1", said
    )
    assert not beside_our_solver(LogisticRegression(C=1.01, tol=1e-8, max_iter=1000))[1]


def comparable(line):
    """Words of a line, without what is of the machine or of its last digits."""
    line = (
        line.split(": ")[0] if line.startswith(("torch", "device", "precision", "golden")) else line
    )
    return [word for word in line.split() if not re.fullmatch(r"[0-9.e-]+[,;]?", word)]


def test_the_page_shows_what_is_printed(run):
    page = re.findall(r"^```\n(\$ .*?)^```", PAGE.read_text(), flags=re.M | re.S)
    assert len(page) == 2
    for block in page:
        command, *expected = block.rstrip().split("\n")
        said = run(*command.removeprefix("$ featstore ").split())
        printed = [*said.out.splitlines(), *said.err.splitlines()]
        assert [comparable(line) for line in printed] == [comparable(line) for line in expected]
