import json
import os
import shutil
import struct
import time

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import featstore
from featstore.encoders.spec import EncoderSpec
from featstore.errors import NotInStoreError, StoreError
from featstore.store.examination import Examination
from featstore.store.lock import writer_lock
from featstore.store.seal import SEAL, canonical, ensure_group, parse, rewrite, seal, sealed
from featstore.store.verify import verify
from featstore.store.writer import EmbeddingWriter, add_annotations, extend_annotations

VALUES = "embeddings/tiny/large/values"


def seal_all(path):
    """Seal what the writer may have left open."""
    for metadata in sorted(path.rglob("zarr.json")):
        seal(metadata.parent)


@pytest.fixture(scope="module")
def large_values():
    return np.random.default_rng(0).normal(size=(600, 6)).astype(np.float32)


@pytest.fixture
def large(tmp_path, tiny_spec, write_embeddings, large_values):
    """A sealed store of 600 annotations; their embeddings are in three chunks of 256 rows."""
    rng = np.random.default_rng(2)
    table = featstore.AnnotationTable(
        "large",
        [f"annotation-number-{n:05d}" for n in range(600)],
        np.where(np.arange(600) % 3, "look-alike", "mitotic figure"),
        {"x": rng.uniform(0, 99, 600), "votes": np.arange(600), "sure": np.arange(600) % 2 == 0},
    )
    path = tmp_path / "large.zarr"
    featstore.create(path)
    add_annotations(path, table, source={"file": "MIDOG.json"})
    write_embeddings(path, "large", tiny_spec, large_values)
    seal_all(path)
    return path


def rules(findings):
    return [(finding.rule, finding.place, finding.severity) for finding in findings]


def ids_of(rows):
    return tuple(f"annotation-number-{n:05d}" for n in rows)


def flip(path, bit):
    """Flip one bit of a file; return what was there."""
    raw = bytearray(path.read_bytes())
    before = bytes(raw)
    raw[bit // 8 % len(raw)] ^= 1 << bit % 8
    path.write_bytes(raw)
    return before


def write_chunk(path, data):
    """Write a chunk with a checksum that holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data + struct.pack("<I", google_crc32c.value(data)))


def test_a_store_as_it_was_written_has_no_findings(large, filled_store):
    assert verify(large) == []
    seal_all(filled_store[0].path)
    assert verify(str(filled_store[0].path)) == []


METADATA = [
    ".",
    "annotations",
    "annotations/large",
    "annotations/large/id",
    "annotations/large/label",
    "annotations/large/x",
    "embeddings",
    "embeddings/tiny",
    "embeddings/tiny/large",
    VALUES,
]


@pytest.mark.parametrize("place", METADATA)
def test_a_flipped_bit_in_metadata_is_found_and_named(large, place):
    """Some 200 bits of the file, at every place in a byte, and in each run the same ones."""
    path = large / place / "zarr.json"
    meant = json.loads(path.read_bytes())
    n_bits = 8 * path.stat().st_size
    for bit in range(0, n_bits, n_bits // 200 | 1):
        before = flip(path, bit)
        findings = verify(large)
        if findings == []:
            assert parse(path.read_bytes()) == meant, bit  # white space: it still means the same
        else:
            errors = [finding for finding in findings if finding.severity == "error"]
            assert errors[0].place == place, bit
        path.write_bytes(before)


COLUMN_CHUNKS = {"id": "c/0/0", "label": "c/0", "x": "c/0", "votes": "c/0", "sure": "c/0"}


@settings(max_examples=150)
@given(column=st.sampled_from(sorted(COLUMN_CHUNKS)), bit=st.integers(0, 2**20))
def test_a_flipped_bit_in_a_column_is_found_and_named(large, column, bit):
    path = large / "annotations/large" / column / COLUMN_CHUNKS[column]
    before = flip(path, bit)
    findings = verify(large)
    path.write_bytes(before)
    assert rules(findings) == [("M9", f"annotations/large/{column}", "error")]
    assert findings[0].chunk == 0
    if column != "id":
        assert findings[0].ids == ids_of(range(600))
    else:  # the damaged ID is named as it now reads
        assert len(set(findings[0].ids) & set(ids_of(range(600)))) >= 599
    assert "copy the dataset again" in findings[0].message


@settings(max_examples=150)
@given(chunk=st.integers(0, 2), bit=st.integers(0, 2**20))
def test_a_flipped_bit_in_embeddings_is_found_and_named(large, chunk, bit):
    path = large / VALUES / "c" / str(chunk) / "0"
    before = flip(path, bit)
    findings = verify(large)
    path.write_bytes(before)
    assert rules(findings) == [("M9", VALUES, "error")]
    assert findings[0].chunk == chunk
    assert findings[0].ids == ids_of(range(600)[chunk * 256 : (chunk + 1) * 256])
    assert str(findings[0]).startswith(
        f"error M9 {VALUES} chunk {chunk}: does not fit its checksum"
    )


def test_a_repaired_store_is_filled_again_with_the_same_bytes(
    large, tiny_spec, write_embeddings, large_values, chunks_of
):
    before = chunks_of(large, "tiny", "large")
    flip(large / VALUES / "c/1/0", 12_345)
    (large / VALUES / "c/2/0").write_bytes(before["2/0"][:-1])
    write_chunk(large / VALUES / "c/3/0", before["0/0"][:-4])
    findings = verify(large, repair=True)
    assert rules(findings) == [(rule, VALUES, "dropped") for rule in ("M9", "M8", "M10")]
    assert rules(verify(large)) == [("S3", VALUES, "note")]
    assert verify(large)[0].ids == ids_of(range(256, 600))
    write_embeddings(large, "large", tiny_spec, large_values)
    assert chunks_of(large, "tiny", "large") == before
    assert verify(large) == []


def test_nothing_is_dropped_that_cannot_be_made_again_or_told_to_be_bad(large):
    flip(large / "annotations/large/x/c/0", 100)
    flip(large / VALUES / "c/1/0", 100)
    document = parse((large / VALUES / "zarr.json").read_bytes())
    document["chunk_grid"]["configuration"]["chunk_shape"] = [257, 6]
    (large / VALUES / "zarr.json").write_text(json.dumps(document))
    before = sorted(large.rglob("*"))
    findings = verify(large, repair=True)
    assert rules(findings) == [
        ("M9", "annotations/large/x", "error"),
        ("M6", VALUES, "error"),
        ("M9", VALUES, "error"),  # found without knowing the shape, and so without IDs
    ]
    assert "put the zarr.json of array and group right first" in findings[2].message
    assert [path for path in sorted(large.rglob("*")) if path.name != ".lock"] == [
        path for path in before if path.name != ".lock"
    ]


def test_nothing_is_dropped_while_the_metadata_of_the_group_is_in_doubt(large):
    flip(large / VALUES / "c/1/0", 100)
    group = zarr.open_group(large / "embeddings/tiny/large", mode="r+")
    group.attrs["note"] = "changed and not sealed"
    assert rules(verify(large, repair=True)) == [
        ("M6", "embeddings/tiny/large", "error"),
        ("M9", VALUES, "error"),
    ]
    assert (large / VALUES / "c/1/0").exists()


@pytest.mark.parametrize("place", ["embeddings/tiny/large", VALUES])
def test_nothing_is_dropped_under_a_living_writer(large, place):
    flip(large / VALUES / "c/1/0", 100)
    with writer_lock(large / place):
        finding = verify(large, repair=True)[0]
    assert finding.severity == "error"
    assert f"not dropped: {large}/{place} is being written to by" in finding.message


def test_a_truncated_and_an_empty_chunk_are_found(large):
    for size in (0, 3, 100, 256 * 6 * 4):
        os.truncate(large / VALUES / "c/1/0", size)
        findings = verify(large)
        assert rules(findings) == [("M8", VALUES, "error")]
        assert findings[0].message.startswith(f"has {size:,} bytes instead of 6,148")
        assert findings[0].ids == ids_of(range(256, 512))


def test_missing_pieces_are_named(large):
    shutil.rmtree(large / "annotations/large/x")
    (large / "annotations/large/votes/c/0").unlink()
    (large / "annotations/large/sure/zarr.json").unlink()
    (large / VALUES / "c/0/0").unlink()
    assert rules(verify(large)) == [
        ("M11", "annotations/large/x", "error"),
        ("M4", "annotations/large/sure", "error"),
        ("M11", "annotations/large/votes", "error"),
        ("S3", VALUES, "note"),
    ]
    shutil.rmtree(large / "annotations/large")
    findings = verify(large)
    assert rules(findings)[0] == ("M16", "embeddings/tiny/large", "error")
    shutil.rmtree(large / VALUES)
    shutil.rmtree(large / "annotations")
    assert ("M4", VALUES, "error") in rules(verify(large))
    assert ("M4", "annotations", "error") in rules(verify(large))


def test_a_chunk_too_many_is_found_and_a_file_too_many_is_noted(large):
    good = (large / VALUES / "c/0/0").read_bytes()
    for place in ("c/3/0", "c/0/1", "c/00/0", "c/readme", "c/0/0x"):
        (large / VALUES / place).parent.mkdir(exist_ok=True)
        (large / VALUES / place).write_bytes(good)
    (large / "annotations/large/x/c/1").write_bytes(good)
    (large / "README.txt").write_text("ours")
    (large / "manifest-sha256.txt").write_text("of 'featstore copy', and allowed")
    (large / "notes").mkdir()
    (large / ".DS_Store").write_text("not looked at")
    (large / "annotations/large/more").mkdir()
    findings = verify(large)
    found = [(rule, severity) for rule, _, severity in rules(findings)]
    assert found.count(("M10", "error")) == 6
    assert ("M10", "annotations/large/x/c/1", "error") in rules(findings)
    notes = [finding.place for finding in findings if finding.rule == "S1"]
    assert notes == ["notes", "README.txt", "annotations/large/more"]


def test_a_link_is_found_and_never_followed(large, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("not ours")
    (large / "link").symlink_to(secret)
    (large / VALUES / "c/1/0").unlink()
    (large / VALUES / "c/1/0").symlink_to(secret)
    (large / "annotations/large/zarr.json").rename(tmp_path / "moved.json")
    (large / "annotations/large/zarr.json").symlink_to(tmp_path / "moved.json")
    (large / "embeddings/other").symlink_to(tmp_path)
    findings = verify(large, repair=True)
    links = [finding.place for finding in findings if finding.rule == "M3"]
    assert links == ["link", "annotations/large/zarr.json", "embeddings/other", f"{VALUES}/c/1/0"]
    assert ("M4", "annotations/large", "error") in rules(findings)
    assert secret.read_text() == "not ours"
    assert (large / VALUES / "c/1/0").is_symlink()


def test_a_pipe_does_not_stop_the_check(large):
    (large / "annotations/large/x/c/0").unlink()
    os.mkfifo(large / "annotations/large/x/c/0")
    assert rules(verify(large)) == [
        ("M3", "annotations/large/x/c/0", "error"),
        ("M11", "annotations/large/x", "error"),
    ]


@pytest.mark.parametrize("place", ["embeddings/tiny/large", VALUES])
def test_a_lock_that_is_a_link_is_not_written_through(large, tmp_path, place):
    (tmp_path / "victim").write_text("{}")
    (large / place / ".lock").unlink(missing_ok=True)
    (large / place / ".lock").symlink_to(tmp_path / "victim")
    flip(large / VALUES / "c/1/0", 100)
    findings = verify(large, repair=True)
    assert rules(findings) == [("M3", f"{place}/.lock", "error"), ("M9", VALUES, "error")]
    assert findings[1].message.endswith("not dropped: its lock is a symbolic link")
    assert (tmp_path / "victim").read_text() == "{}"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_found_behind_a_checksum_that_holds(large, large_values, value):
    rows = large_values[256:512].copy()
    rows[[9, 44]] = value
    write_chunk(large / VALUES / "c/1/0", rows.tobytes())
    findings = verify(large)
    assert rules(findings) == [("M20", VALUES, "error")]
    assert findings[0].chunk == 1
    assert findings[0].ids == ids_of([265, 300])
    assert str(findings[0]).endswith(
        "(annotation IDs annotation-number-00265, annotation-number-00300)"
    )


def test_values_behind_the_last_row_are_found(large, large_values):
    rows = np.zeros((256, 6), np.float32)
    rows[:88] = large_values[512:]
    write_chunk(large / VALUES / "c/2/0", rows.tobytes())
    assert rules(verify(large)) == [("M20", VALUES, "error")]


def test_an_array_that_waits_for_its_top_up_is_noted_not_blamed(large):
    """600 rows of which 550 were there when the last chunk was written."""
    provenance = parse((large / "embeddings/tiny/large/zarr.json").read_bytes())["attributes"][
        "provenance"
    ]
    table = featstore.open(large).annotations("large")
    provenance |= {"dataset_rows": 550, "dataset_digest": table.digest_of_first(550)}
    rewrite(large / "embeddings/tiny/large", attributes={"provenance": provenance})
    assert verify(large) == []
    rows = np.full((256, 6), np.nan, np.float32)
    rows[:38] = 1
    write_chunk(large / VALUES / "c/2/0", rows.tobytes())
    findings = verify(large)
    assert rules(findings) == [("S3", VALUES, "note")]
    assert findings[0].ids == ids_of(range(550, 600))
    rewrite(large / VALUES, shape=[550, 6])
    assert verify(large) == findings
    provenance |= {"dataset_digest": table.digest_of_first(549)}
    rewrite(large / "embeddings/tiny/large", attributes={"provenance": provenance})
    assert rules(verify(large))[0] == ("M19", "embeddings/tiny/large", "error")


def test_a_table_that_grew_and_its_top_up_are_as_the_format_wants(
    large, tiny_spec, write_embeddings, large_values, chunks_of
):
    rng = np.random.default_rng(3)
    more = featstore.AnnotationTable(
        "large",
        ids_of(range(600, 900)),
        ["look-alike"] * 300,
        {"x": rng.uniform(0, 99, 300), "votes": np.arange(300), "sure": np.ones(300, bool)},
    )
    extend_annotations(large, featstore.open(large).annotations("large").extended(more))
    seal_all(large)
    findings = verify(large)
    assert rules(findings) == [("S3", VALUES, "note")]
    assert findings[0].ids == ids_of(range(600, 900))
    values = np.concatenate([large_values, rng.normal(size=(300, 6))])
    for n_chunks in (0, 1, None):
        write_embeddings(large, "large", tiny_spec, values, n_chunks=n_chunks)
        seal_all(large)
        assert {finding.rule for finding in verify(large)} <= {"S3"}
    assert verify(large) == []
    assert len(chunks_of(large, "tiny", "large")) == 4


def test_a_folder_that_cannot_be_listed_is_a_finding(large):
    exam = Examination(large)
    assert exam.scan("embeddings/gone") == ([], [])
    assert str(exam.findings[0]).startswith(
        "error M4 embeddings/gone: cannot be listed (No such file or directory)"
    )


def test_repair_does_not_reach_through_a_link(large, tmp_path):
    outside = tmp_path / "outside"
    (outside / ".table.previous").mkdir(parents=True)
    shutil.rmtree(large / "annotations")
    (large / "annotations").symlink_to(outside)
    assert rules(verify(large, repair=True))[0] == ("M3", "annotations", "error")
    assert [path.name for path in outside.iterdir()] == [".table.previous"]


def changed(path, change):
    """Change metadata and seal it, as a forger would."""
    document = parse((path / "zarr.json").read_bytes())
    change(document)
    (path / "zarr.json").write_text(json.dumps(sealed(document)))


def provenance_of(document):
    return document["attributes"]["provenance"]


FORGED = [
    (
        "M17",
        "embeddings/tiny/large",
        lambda d: provenance_of(d)["encoder"].update(weights="random:1"),
    ),
    (
        "M17",
        "embeddings/tiny/large",
        lambda d: provenance_of(d).update(digest="sha256:" + 64 * "0"),
    ),
    (
        "M19",
        "embeddings/tiny/large",
        lambda d: provenance_of(d).update(dataset_digest="sha256:" + 64 * "0"),
    ),
    ("M16", "embeddings/tiny/large", lambda d: provenance_of(d).update(dataset="other")),
    ("M18", "embeddings/tiny/large", lambda d: provenance_of(d)["parts"].update(more=[5, 7])),
    ("M18", "embeddings/tiny/large", lambda d: provenance_of(d)["parts"].update(more=[7, 8])),
    ("M18", "embeddings/tiny/large", lambda d: provenance_of(d)["parts"].update(mean=[6, 3])),
    ("M18", "embeddings/tiny/large", lambda d: provenance_of(d)["parts"].update(mean=[3.0, 6])),
    ("M18", "embeddings/tiny/large", lambda d: provenance_of(d)["parts"].pop("class")),
    ("M18", "embeddings/tiny/large", lambda d: provenance_of(d)["encoder"].update(dim=3)),
    ("M18", VALUES, lambda d: d.update(shape=[600, 9])),
    ("M5", "embeddings/tiny/large", lambda d: provenance_of(d)["parts"].update(mean=[-3, 6])),
    ("M5", "embeddings/tiny/large", lambda d: provenance_of(d)["parts"].update(mean="36")),
    ("M5", "embeddings/tiny/large", lambda d: provenance_of(d)["parts"].update({"a+b": [6, 7]})),
    ("M5", "embeddings/tiny/large", lambda d: provenance_of(d).update(created="yesterday")),
    ("M15", "annotations/large", lambda d: d["attributes"].update(digest="sha256:" + 64 * "0")),
    ("M15", "annotations/large/label", lambda d: d["attributes"]["categories"].reverse()),
    ("M13", "annotations/large/label", lambda d: d["attributes"]["categories"].pop()),
    ("M12", "annotations/large/x", lambda d: d.update(shape=[599])),
    ("M7", "annotations/large/x", lambda d: d.update(fill_value=0)),
    ("M7", "annotations/large/x", lambda d: d.update(dimension_names=None)),
    ("M7", "annotations/large/x", lambda d: d["codecs"].pop()),
    ("M7", "annotations/large/x", lambda d: d["codecs"][0].clear()),
    ("M7", "annotations/large/x", lambda d: d["codecs"][0]["configuration"].update(endian="big")),
    ("M7", "annotations/large/x", lambda d: d.update(data_type="string")),
    ("M7", "annotations/large/x", lambda d: d.update(shape=[])),
    ("M7", VALUES, lambda d: d.update(data_type="float64")),
    ("M7", VALUES, lambda d: d.update(surprise={"must_understand": True})),
    ("M19", VALUES, lambda d: d.update(shape=[601, 6])),
    ("M18", VALUES, lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[256, 3])),
    ("M8", VALUES, lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[2**70, 6])),
]


def test_parts_of_which_some_are_shown_are_as_the_format_wants(large, large_values):
    """Of new stores; of old ones, which hold the shown part alone; and where none are known."""
    parts = {"class": (0, 2), "mean": (2, 4), "registers": (4, 6)}
    for key, dim, stored in (("vit", 2, parts), ("old", 6, {"class": (0, 6)}), ("theirs", 6, {})):
        spec = EncoderSpec(key, "none", pooling="class", dim=dim, weights="random:7")
        with EmbeddingWriter(large, "large", spec, parts=stored, run={}) as writer:
            for chunk in writer.pending():
                writer.write(chunk, large_values[writer.annotations.positions(chunk.ids)])
    assert verify(large) == []
    group = large / "embeddings/vit/large"
    changed(group, lambda d: provenance_of(d)["encoder"].update(dim=6))
    assert "its default view 'class' is 2 long, its encoder says 6" in str(verify(large)[0])
    changed(group, lambda d: provenance_of(d)["encoder"].update(dim=2))
    changed(group, lambda d: provenance_of(d)["parts"].pop("registers"))
    assert "has 6 to a row, its provenance makes 4" in str(verify(large)[0])


@pytest.mark.parametrize(("rule", "place", "change"), FORGED)
def test_metadata_with_a_seal_that_holds_must_still_be_right(large, rule, place, change):
    changed(large / place, change)
    findings = verify(large)
    where = place if rule != "M15" else "annotations/large"
    assert (rule, where, "error") in rules(findings)
    assert "M6" not in {finding.rule for finding in findings}


def test_hostile_values_of_columns_are_found(large):
    column = large / "annotations/large"
    raw = (column / "id/c/0/0").read_bytes()[:-4]
    width = len(raw) // 600
    write_chunk(column / "id/c/0/0", raw[:width] + raw)
    assert "M8" in {finding.rule for finding in verify(large)}
    write_chunk(column / "id/c/0/0", raw[:width] + raw[:-width])
    finding = verify(large)[0]
    assert (finding.rule, finding.ids) == ("M14", ids_of([0]))
    write_chunk(column / "id/c/0/0", b"\xff" + raw[1:])
    assert rules(verify(large))[0] == ("M13", "annotations/large/id", "error")
    write_chunk(column / "id/c/0/0", b"\x1b" + raw[1:])
    assert rules(verify(large))[0] == ("M14", "annotations/large", "error")
    assert "\x1b" not in "".join(map(str, verify(large)))


def test_a_newer_format_is_not_guessed_at(large):
    changed(large, lambda d: d["attributes"]["featstore"].update(format="2.0"))
    findings = verify(large)
    assert rules(findings) == [("M1", ".", "error")]
    assert "has the format 2.0, this installation checks up to 1.0; pip install" in str(findings[0])
    changed(large, lambda d: d["attributes"]["featstore"].update(format="1.1"))
    assert rules(verify(large)) == [("M1", ".", "note")]


def test_what_is_unknown_is_kept_and_allowed(large):
    rewrite(large / "embeddings/tiny/large", attributes={"lab": {"room": 7.0}})
    rewrite(large / VALUES, attributes={"units": "none"})
    assert verify(large) == []
    changed(large / "embeddings/tiny", lambda d: d["attributes"].update(ours=2**60))
    assert verify(large) == []


def test_metadata_without_a_seal_or_changed_behind_it_is_found(large):
    zarr.open_group(large / "annotations/large", mode="r+").attrs["note"] = "added"
    assert rules(verify(large)) == [("M6", "annotations/large", "error")]
    seal(large / "annotations/large")
    assert verify(large) == []
    document = parse((large / VALUES / "zarr.json").read_bytes())
    del document["attributes"][SEAL]
    (large / VALUES / "zarr.json").write_text(json.dumps(document))
    assert rules(verify(large)) == [("M6", VALUES, "error")]


def test_a_seal_outlives_another_layout_of_the_same_json(large):
    for path in large.rglob("zarr.json"):
        document = json.loads(path.read_text())
        backwards = dict(reversed(document.items()))
        path.write_text(json.dumps(backwards, ensure_ascii=True, separators=(" ,\n", ":\t")))
    assert verify(large) == []


def test_names_that_the_format_does_not_allow_are_found(large):
    (large / "annotations/large").rename(large / "annotations/Large\x1b[2J")
    found = verify(large)
    assert found[0].rule == "M2"
    assert "\x1b" not in str(found[0])


def test_leftovers_of_dead_runs_are_noted_and_dropped(large):
    chunk = large / VALUES / "c/0"
    places = [
        large / ".partial-0123",
        large / "annotations/.large.next",
        chunk / ".0.partial-12345678",
        chunk / "0.abc.partial",
    ]
    for place in places[:2]:
        place.mkdir()
        (place / "zarr.json").write_text("{}")
    for place in places[2:]:
        place.write_bytes(b"half")
    assert [(rule, kind) for rule, _, kind in rules(verify(large))] == [("S2", "note")] * 4
    young = verify(large, repair=True)
    assert [(finding.rule, finding.severity) for finding in young] == [
        ("S2", "note"),
        ("S2", "note"),
        ("S2", "dropped"),
        ("S2", "dropped"),
    ]
    assert "touched less than 60 minutes ago" in young[0].message
    for place in places[:2]:
        for path in (place / "zarr.json", place):
            os.utime(path, (time.time() - 4_000,) * 2)
    assert [finding.severity for finding in verify(large, repair=True)] == ["dropped"] * 2
    assert verify(large) == []


def test_a_table_that_stood_aside_is_put_back_not_dropped(large):
    home = large / "annotations"
    (home / "large").rename(home / ".large.previous")
    assert {"S2", "M16"} == {finding.rule for finding in verify(large)}
    assert verify(large, repair=True) == []
    assert (home / "large/zarr.json").exists()


def test_a_damaged_zarr_json_is_one_finding(large):
    path = large / "annotations/large/x/zarr.json"
    for raw in (
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": 1, "a": 1}',
        b"[" * 100_000,
        b'{"attributes": {"a": "\\ud800"}}',
        b'{"attributes": {"a": 1e999}}',
    ):
        path.write_bytes(raw)
        assert rules(verify(large)) == [
            ("M5" if raw != b"[]" else "M7", "annotations/large/x", "error")
        ]


def test_what_is_no_store_is_said_so(tmp_path):
    with pytest.raises(NotInStoreError, match="no store at"):
        verify(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="is not a featstore store"):
        verify(tmp_path)
    with pytest.raises(StoreError, match="is not on a local disk"):
        verify("s3://lab/mitosis.zarr")


def test_canonical_numbers_are_those_of_rfc_8785():
    """Appendix B of the RFC: IEEE 754 bits and what they are written as."""
    for bits, written in {
        0x0000000000000000: "0",
        0x8000000000000000: "0",
        0x0000000000000001: "5e-324",
        0x7FEFFFFFFFFFFFFF: "1.7976931348623157e+308",
        0x4340000000000000: "9007199254740992",
        0x4430000000000000: "295147905179352830000",
        0x44B52D02C7E14AF5: "9.999999999999997e+22",
        0x44B52D02C7E14AF6: "1e+23",
        0x444B1AE4D6E2EF4E: "999999999999999700000",
        0x444B1AE4D6E2EF50: "1e+21",
        0x3EB0C6F7A0B5ED8C: "9.999999999999997e-7",
        0x3EB0C6F7A0B5ED8D: "0.000001",
        0x41B3DE4355555553: "333333333.3333332",
        0xBECBF647612F3696: "-0.0000033333333333333333",
        0x43143FF3C1CB0959: "1424953923781206.2",
    }.items():
        assert canonical(struct.unpack(">d", struct.pack(">Q", bits))[0]) == written


def test_canonical_keys_are_sorted_as_rfc_8785_sorts_them():
    """Section 3.2.3: by UTF-16 code units, so an emoji stands before U+FB33."""
    keys = ["€", "\r", "\ufb33", "1", "😀", "\x80", "ö"]
    order = ["\r", "1", "\x80", "ö", "€", "😀", "\ufb33"]
    assert list(json.loads(canonical(dict.fromkeys(keys)))) == order


def test_a_group_made_here_is_sealed_and_one_that_is_there_is_left(tmp_path):
    ensure_group(tmp_path / "g")
    before = (tmp_path / "g/zarr.json").read_bytes()
    assert SEAL in json.loads(before)["attributes"]
    rewrite(tmp_path / "g", attributes={"a": 1})
    ensure_group(tmp_path / "g")
    assert zarr.open_group(tmp_path / "g", mode="r").attrs["a"] == 1


def test_a_writer_goes_on_in_a_sealed_store(large, tiny_spec):
    parts = {"class": (0, 3), "mean": (3, 6)}
    with EmbeddingWriter(large, "large", tiny_spec, parts=parts, run={}) as writer:
        assert writer.pending() == []
    assert verify(large) == []
