"""What a store in one file promises: it reads as the folder does, and no hostile zip is opened."""

import shutil
import stat
import struct
import subprocess
import zipfile

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import featstore
from featstore.errors import (
    AlreadyInStoreError,
    DamagedChunkError,
    FeatstoreError,
    NotInStoreError,
    StoreError,
)
from featstore.images import ImageFolder
from featstore.store.archive import _write_zip, check_zip, open_zip, pack
from featstore.store.manifest import MANIFEST
from featstore.store.transfer import copy
from featstore.store.writer import add_annotations
from tests.test_featstore.test_store_reading import ONE_VIEW, seen, write_vit


@pytest.fixture
def packed(filled_store, tmp_path):
    """A filled store in one file."""
    pack(filled_store[0].path, tmp_path / "lab.zarr.zip")
    return tmp_path / "lab.zarr.zip"


@settings(max_examples=40)
@given(places=st.lists(st.integers(0, 39), max_size=60))
def test_reading_from_the_zip_is_reading_from_the_folder(filled_store, packed, places):
    store, values = filled_store
    embeddings = featstore.open(packed).embeddings("tiny", "cells")
    assert np.array_equal(embeddings.ids, store.annotations("cells").ids)
    assert np.array_equal(embeddings.read(embeddings.ids[places]), values[places])


def test_views_are_read_from_the_zip_and_packed_with_all_of_their_parts(filled_store, tmp_path):
    store, values = filled_store
    write_vit(store.path, "cells", values)
    zipped = tmp_path / "vit.zip"
    with pytest.raises(NotInStoreError, match="'vit:mean' is a view of what is stored"):
        pack(store.path, zipped, models=["vit:mean"])
    pack(store.path, zipped, models=["vit"])
    for pooling in ONE_VIEW:
        view = featstore.open(zipped).embeddings(f"vit:{pooling}", "cells")
        assert np.array_equal(view.read(view.ids[::-1]), seen(values, pooling)[::-1])
    assert [row.parts for row in featstore.open(zipped).list()] == [("class", "mean", "registers")]


def test_the_zip_lists_what_the_folder_holds(filled_store, packed):
    store, zipped = filled_store[0], featstore.open(packed)
    assert zipped.datasets() == store.datasets()
    assert zipped.list() == store.list()
    assert zipped.annotations("cells").digest == store.annotations("cells").digest
    provenance = [opened.embeddings("tiny", "cells").provenance for opened in (zipped, store)]
    assert provenance[0] == provenance[1]


def test_files_in_the_zip_are_those_of_the_folder_stored_as_they_are(filled_store, packed):
    home = filled_store[0].path
    files = {path.relative_to(home).as_posix(): path for path in home.rglob("*") if path.is_file()}
    plain = {name: path for name, path in files.items() if not path.name.startswith(".")}
    with zipfile.ZipFile(packed) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted([*plain, MANIFEST])
        assert all(archive.read(name) == path.read_bytes() for name, path in plain.items())
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_zarr_reads_the_zip_without_this_library(filled_store, packed):
    group = zarr.open_group(zarr.storage.ZipStore(packed, mode="r"), mode="r")
    assert np.array_equal(group["embeddings/tiny/cells/values"][...], filled_store[1])


def test_the_same_store_gives_the_same_bytes(filled_store, packed, tmp_path):
    copy(filled_store[0], tmp_path / "copied.zarr")
    pack(filled_store[0].path, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    with zipfile.ZipFile(packed) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_store_comes_out_of_the_zip_as_it_went_in(filled_store, packed, tmp_path, chunks_of):
    copied = copy(featstore.open(packed), tmp_path / "out.zarr")
    assert copied.notes == ()
    assert chunks_of(tmp_path / "out.zarr", "tiny", "cells") == chunks_of(
        filled_store[0].path, "tiny", "cells"
    )
    assert copy(featstore.open(packed), tmp_path / "out.zarr").n_bytes == 0


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this machine")
def test_the_manifest_in_the_zip_checks_what_was_unpacked(packed, tmp_path):
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "unpacked")
    command = ["sha256sum", "--strict", "-c", MANIFEST]
    checked = subprocess.run(command, cwd=tmp_path / "unpacked", capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    assert np.isfinite(
        featstore.open(tmp_path / "unpacked").embeddings("tiny", "cells").to_frame().to_numpy()
    ).all()


def test_only_what_was_chosen_is_packed_and_image_folders_stay(
    filled_store, tmp_path, tiny_spec, write_embeddings
):
    home = filled_store[0].path
    other = featstore.AnnotationTable("other", [1, 2], ["a", "b"])
    add_annotations(home, other, folder=ImageFolder(str(tmp_path / "secret-place")))
    write_embeddings(home, "other", tiny_spec.at(key="small", terms="gated"), np.ones((2, 6)))
    done = pack(home, tmp_path / "one.zip", models=["small"])
    assert done.notes == (
        "embeddings of small come from weights under: gated; check that you may pass them on",
    )
    store = featstore.open(tmp_path / "one.zip")
    assert store.datasets() == ["other"]
    assert [row.model for row in store.list()] == ["small"]
    assert store.image_folder("other") is None
    assert b"secret-place" not in (tmp_path / "one.zip").read_bytes()
    with pytest.raises(NotInStoreError, match="no model 'tiny' to copy"):
        pack(home, tmp_path / "none.zip", models=["tiny"], datasets=["other"])
    assert not (tmp_path / "none.zip").exists()


def test_a_failed_packing_leaves_no_zip_and_overwrites_none(filled_store, packed, tmp_path):
    home, before = filled_store[0].path, packed.read_bytes()
    with pytest.raises(AlreadyInStoreError, match="is there already"):
        pack(home, packed)
    assert packed.read_bytes() == before
    chunk = home / "embeddings/tiny/cells/values/c/0/0"
    content = bytearray(chunk.read_bytes())
    content[100] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(DamagedChunkError, match="values/c/0/0 does not fit its checksum"):
        pack(home, tmp_path / "new.zip")
    for place, message in (
        (tmp_path / "new.tar", "does not end in .zip"),
        (home / "new.zip", "is inside the store"),
        (tmp_path / "nowhere/new.zip", "cannot write"),
    ):
        with pytest.raises(StoreError, match=message):
            pack(home, place)
    assert sorted(path.name for path in tmp_path.glob("*.zip")) == ["lab.zarr.zip"]
    assert not list(tmp_path.glob(".*.next"))


def test_a_link_in_the_store_is_refused_and_not_packed(filled_store, tmp_path):
    (tmp_path / "secret").write_text("text")
    (filled_store[0].path / "annotations/cells/linked").symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError, match="is a link"):
        pack(filled_store[0].path, tmp_path / "new.zip")


def test_a_zip_is_not_packed_and_not_written_to(packed, tmp_path, cells):
    with pytest.raises(StoreError, match="is not on a local disk"):
        pack(packed, tmp_path / "again.zip")
    with pytest.raises(FeatstoreError):
        add_annotations(packed, featstore.AnnotationTable("new", [1], ["a"]))


def test_more_files_than_the_old_zip_format_counts_are_no_matter(tmp_path):
    entries = ((f"{number:05d}", b"") for number in range(65_540))
    assert _write_zip(tmp_path / "many.zip", entries) == 65_541
    check_zip(tmp_path / "many.zip")
    with zipfile.ZipFile(tmp_path / "many.zip") as archive:
        assert len(archive.infolist()) == 65_541


def entry(name, *, mode=stat.S_IFREG | 0o644, flags=0):
    made = zipfile.ZipInfo(name)
    made.create_system = 3
    made.external_attr = mode << 16
    made.flag_bits = flags
    return made


NAMES = {
    "absolute": ("/etc/passwd", "has an absolute path"),
    "upwards": ("../outside", "has a path that leaves its folder"),
    "upwards further in": ("annotations/../../outside", "has a path that leaves its folder"),
    "a single dot": ("./zarr.json", "has a path that leaves its folder or is not plain"),
    "an empty part": ("annotations//zarr.json", "is not plain"),
    "a backslash": ("..\\outside", "has a backslash"),
    "a drive letter": ("C:/outside", "has a backslash or a drive letter"),
    "a line break": ("zarr.json\nmore", "has a control character"),
    "a right-to-left mark": ("zarr\u202ejson", "has a control character"),
}


def refused(path, message):
    with pytest.raises(StoreError, match=message) as caught:
        open_zip(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreError):
        featstore.open(path)


@pytest.mark.parametrize("trick", NAMES)
def test_an_entry_with_a_name_that_is_no_plain_path_is_refused(packed, trick):
    name, message = NAMES[trick]
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(entry(name), b"text")
    refused(packed, message)


def rename_entry(path, old, new):
    """Change a name in the zip's bytes, where zipfile itself would mend it."""
    assert len(old) == len(new)
    content = path.read_bytes()
    assert content.count(old) == 2
    path.write_bytes(content.replace(old, new))


def test_a_name_that_is_cut_short_by_a_zero_is_refused(packed):
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(entry("zarr.jsonXtail"), b"{}")
    rename_entry(packed, b"zarr.jsonXtail", b"zarr.json\0tail")
    refused(packed, "has a control character")


def test_a_name_that_is_another_in_the_entry_itself_is_refused(packed):
    content = packed.read_bytes()
    place = content.rindex(b"annotations/cells/label/zarr.json")
    packed.write_bytes(content[:place] + b"annotations/cells/other" + content[place + 23 :])
    refused(packed, "is not a zip that can be read .* differ")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_an_entry_that_is_a_link_or_no_file_is_refused(packed, kind):
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(entry("annotations/link", mode=kind | 0o777), b"/etc/passwd")
    refused(packed, "'annotations/link' is a link or no plain file")


def test_a_name_that_stands_twice_is_refused(packed):
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(entry("zarr.json"), b"{}")
    refused(packed, r"'zarr\.json' stands twice")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_deflate_is_read(packed, method):
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(entry("new"), b"text", compress_type=method)
    refused(packed, f"is compressed by method {method}; only deflate is read")


def central(path, name, offset, form, value):
    """Change a field of an entry in the zip's central directory (APPNOTE.TXT 4.3.12)."""
    content = bytearray(path.read_bytes())
    place = content.rindex(name.encode()) - 46
    assert content[place : place + 4] == b"PK\x01\x02"
    struct.pack_into(form, content, place + offset, value)
    path.write_bytes(content)


FIELDS = {
    "encrypted": (8, "<H", 1, "is encrypted"),
    "strongly encrypted": (8, "<H", 0x41, "is encrypted"),
    "stored, and larger than it is": (24, "<I", 2**31, "declares 2147483648 bytes and stores"),
    "kept with more bytes than the file has": (20, "<I", 2**31, "and stores 2147483648"),
    "of an unknown method": (10, "<H", 99, "is compressed by method 99"),
}


@pytest.mark.parametrize("trick", FIELDS)
def test_a_directory_that_does_not_fit_its_entries_is_refused(packed, trick):
    offset, form, value, message = FIELDS[trick]
    central(packed, "annotations/cells/zarr.json", offset, form, value)
    refused(packed, message)


def test_both_sizes_beyond_the_end_of_the_file_are_refused(packed):
    for offset in (20, 24):
        central(packed, "annotations/cells/zarr.json", offset, "<I", 2**20)
    refused(packed, "declares 1048576 bytes, more than there is room for")


def test_entries_that_share_their_bytes_are_refused(packed):
    with zipfile.ZipFile(packed) as archive:
        first = archive.infolist()[0].header_offset
    central(packed, "annotations/cells/zarr.json", 42, "<I", first)
    refused(packed, "more than there is room for")


def test_a_deflated_entry_that_declares_more_than_it_can_hold_is_refused(packed):
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(entry("new"), b"text" * 99, compress_type=zipfile.ZIP_DEFLATED)
    central(packed, "new", 24, "<I", 2**31)
    refused(packed, "declares 2147483648 bytes, more than .* can hold")


def test_a_zip_made_by_other_tools_with_folders_and_deflate_is_read(filled_store, tmp_path):
    shutil.make_archive(str(tmp_path / "other.zarr"), "zip", filled_store[0].path)
    embeddings = featstore.open(tmp_path / "other.zarr.zip").embeddings("tiny", "cells")
    assert np.array_equal(embeddings.read(embeddings.ids), filled_store[1])


def test_a_flipped_bit_in_the_zip_is_found_and_named(filled_store, packed, tmp_path):
    content = bytearray(packed.read_bytes())
    chunk = (filled_store[0].path / "embeddings/tiny/cells/values/c/0/0").read_bytes()
    content[content.index(chunk) + 17] ^= 1
    packed.write_bytes(content)
    with pytest.raises(DamagedChunkError, match=r"tiny/cells/values/c/0/0 in .* is damaged"):
        copy(featstore.open(packed), tmp_path / "target")


@settings(max_examples=40)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_refused_or_harms_no_embedding(
    filled_store, packed, tmp_path, place, bit
):
    content = bytearray(packed.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(content)
    try:
        embeddings = featstore.open(damaged).embeddings("tiny", "cells")
        rows = embeddings.read(featstore.open(damaged).annotations("cells").ids)
    except FeatstoreError:
        return
    assert np.array_equal(rows, filled_store[1])


def test_what_is_no_zip_is_said_so(tmp_path):
    for content in (b"", b"text", b"PK\x05\x06" + bytes(10)):
        (tmp_path / "no.zip").write_bytes(content)
        refused(tmp_path / "no.zip", "is not a zip that can be read .*; get it again")
