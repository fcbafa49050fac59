import json
from io import StringIO

import pandas as pd
import pytest
from click.testing import CliRunner

from featstore.store.seal import seal
from featstore_cli.checking import verify

VALUES = "embeddings/tiny/cells/values"


@pytest.fixture
def lab(filled_store):
    """A sealed store with one chunk of embeddings."""
    path = filled_store[0].path
    for metadata in sorted(path.rglob("zarr.json")):
        seal(metadata.parent)
    return path


def check(*words):
    result = CliRunner().invoke(verify, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def damage(path):
    raw = bytearray(path.read_bytes())
    raw[7] ^= 1
    path.write_bytes(raw)


def test_a_good_store_is_said_to_be_good_in_one_line(lab):
    result = check(lab)
    assert result.exit_code == 0
    assert result.stdout == (
        f"{lab}: everything checked (7 arrays, 7 chunks, 0.0 MiB): no findings\n"
    )


def test_an_error_is_a_line_and_the_exit_code_and_can_be_repaired(lab):
    damage(lab / VALUES / "c/0/0")
    found = check(lab)
    assert found.exit_code == 1
    first, last = found.stdout.splitlines()
    assert first.startswith(f"error M9 {VALUES} chunk 0: does not fit its checksum; 'featstore ver")
    assert first.endswith("and 37 more)")
    assert last.endswith(": 1 error")
    repaired = check(lab, "--repair")
    assert repaired.exit_code == 0
    assert repaired.stdout.startswith(f"dropped M9 {VALUES} chunk 0: ")
    assert repaired.stdout.splitlines()[-1].endswith(": 1 dropped")


def test_a_note_alone_is_no_failure(lab):
    (lab / "README.txt").write_text("ours")
    result = check(lab)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].startswith("note S1 README.txt: is not part of the format")
    assert result.stdout.splitlines()[-1].endswith(": 1 note")


def test_programs_get_every_annotation_id(lab, cells):
    damage(lab / VALUES / "c/0/0")
    damage(lab / "zarr.json")
    as_json = json.loads(check(lab, "--json").stdout)
    assert [row["rule"] for row in as_json] == ["M5", "M9"]
    assert [row["chunk"] for row in as_json] == [None, 0]
    assert as_json[1]["ids"] == cells.ids.tolist()
    as_csv = pd.read_csv(StringIO(check(lab, "--csv").stdout))
    assert json.loads(as_csv["ids"][1]) == cells.ids.tolist()
    assert as_csv["place"].tolist() == [".", VALUES]


def test_a_good_store_is_an_empty_table_to_programs(lab):
    assert json.loads(check(lab, "--json").stdout) == []
    assert check(lab, "--csv").stdout == "severity,rule,place,chunk,ids,message\n"
