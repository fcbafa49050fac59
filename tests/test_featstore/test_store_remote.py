import collections
import contextlib
import http.server
import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import boto3
import numpy as np
import pytest
from click.testing import CliRunner

import featstore
from featstore.encoders.spec import EncoderSpec
from featstore.errors import DamagedChunkError, NotInStoreError, StoreError
from featstore.store.manifest import MANIFEST, write_manifest
from featstore.store.transfer import copy
from featstore.store.writer import add_annotations
from featstore_cli.main import featstore as command_line
from tests.test_featstore.test_store_patchcache import cut, pixels_of

pytest.importorskip("s3fs")
pytest.importorskip("aiohttp")
moto_server = pytest.importorskip("moto.server")

N, ROWS_PER_CHUNK = 3_000, 256
N_CHUNKS = 12
KEYS = {"key": "testing", "secret": "testing"}


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serve files of a folder; ``server.fault(n_th_request, path)`` says how to fail, if at all."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with self.server.lock:
            self.server.n_requests += 1
            self.server.requests[self.path] += 1
            number = self.server.n_requests
        fault = self.server.fault(number, self.path)
        file = self.server.folder / self.path.lstrip("/")
        if fault == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif isinstance(fault, str) and "://" in fault:
            self._answer(302, Location=fault)
        elif isinstance(fault, int) or not file.is_file():
            self._answer(fault if isinstance(fault, int) else 404)
        else:
            self._send(file.read_bytes(), fault)

    def _answer(self, status, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, content, fault):
        self.send_response(200)
        self.close_connection = fault in ("short", "silently short")
        if fault == "silently short":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.close_connection else content)

    def log_message(self, *about):
        """Stay quiet."""


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.lock = folder, threading.Lock()
        self.requests, self.n_requests = collections.Counter(), 0
        self.fault = lambda number, path: None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def chunk_requests(self):
        return {path: n for path, n in self.requests.items() if "/values/c/" in path}


@pytest.fixture
def lab(tmp_path, write_embeddings):
    """A store with 3,000 annotations and their embeddings in 12 chunks."""
    ids = np.random.default_rng(2).permutation(N) + 10_000
    labels = np.where(ids % 3 == 0, "mitotic figure", "look-alike")
    cells = featstore.AnnotationTable("cells", ids, labels, {"x": ids / 7, "slide": ids % 9})
    home = tmp_path / "there" / "lab.zarr"
    home.parent.mkdir()
    featstore.create(home)
    add_annotations(home, cells)
    spec = EncoderSpec("tiny", "none", pooling="class+mean", dim=6, weights="random:0")
    values = np.random.default_rng(1).normal(size=(N, 6)).astype(np.float32)
    write_embeddings(home, "cells", spec, values)
    return home


@pytest.fixture
def web(lab):
    """A web server of the folder that the store is in."""
    server = _Server(lab.parent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def s3(lab, monkeypatch):
    """A real S3 endpoint that holds the store as s3://cells-of-labs/lab.zarr; gives a client."""
    for name, value in {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    with contextlib.closing(boto3.client("s3")) as client:
        client.create_bucket(Bucket="cells-of-labs")
        for file in filter(lambda file: file.is_file(), lab.parent.rglob("*")):
            key = file.relative_to(lab.parent).as_posix()
            client.put_object(Bucket="cells-of-labs", Key=key, Body=file.read_bytes())
        yield client
        # All servers of one process share their buckets: leave none to the next test.
        for object_ in client.list_objects_v2(Bucket="cells-of-labs")["Contents"]:
            client.delete_object(Bucket="cells-of-labs", Key=object_["Key"])
    server.stop()


def id_lists(ids):
    rng = np.random.default_rng(8)
    return {
        "whole": ids,
        "sorted": np.sort(ids),
        "random": rng.choice(ids, 100, replace=False),
        "duplicates": rng.choice(ids[:40], 90),
        "one": ids[1_500:1_501],
        "none": ids[:0],
        "a run": ids[700:900],
    }


def assert_reads_the_same(remote, local, names=None):
    here, there = local.embeddings("tiny", "cells"), remote.embeddings("tiny", "cells")
    np.testing.assert_array_equal(there.ids, here.ids)
    for name, ids in id_lists(here.ids).items():
        if names is None or name in names:
            np.testing.assert_array_equal(there.read(ids), here.read(ids), err_msg=name)
    for pooling in ("mean", "mean+class"):
        ours, theirs = (
            store.embeddings(f"tiny:{pooling}", "cells").read(here.ids[:300], dtype=np.float64)
            for store in (local, remote)
        )
        np.testing.assert_array_equal(theirs, ours, err_msg=pooling)
    ours, theirs = local.annotations("cells"), remote.annotations("cells")
    assert theirs.digest == ours.digest
    for column in ("label", "x", "slide"):
        np.testing.assert_array_equal(theirs.column(column), ours.column(column))


def assert_patches_read_the_same(remote, n_chunks):
    patches, ids = remote.patches("cells"), remote.annotations("cells").ids
    for name, asked in id_lists(ids[: n_chunks * ROWS_PER_CHUNK]).items():
        np.testing.assert_array_equal(patches.read(asked), pixels_of(asked), err_msg=name)
    small = patches.cropped(4).read(ids[:300])
    np.testing.assert_array_equal(small, pixels_of(ids[:300])[:, 1:5, 1:5])
    assert len(patches.windows) == N
    with pytest.raises(NotInStoreError, match="are not in 'patches/cells' yet"):
        patches.read(ids[-1:])


# --- the web


def test_cached_patches_on_the_web_read_as_here(lab, web):
    cut(lab, n_chunks=9)
    write_manifest(lab)
    store = featstore.open(f"{web.url}/lab.zarr")
    assert_patches_read_the_same(store, 9)
    assert store.cached_datasets() == ["cells"]
    assert store.patches("cells").info == featstore.open(lab).patches("cells").info


def test_cached_patches_in_a_bucket_read_as_here(lab, s3):
    cut(lab, n_chunks=9)
    for file in filter(Path.is_file, (lab / "patches").rglob("*")):
        key = file.relative_to(lab.parent).as_posix()
        s3.put_object(Bucket="cells-of-labs", Key=key, Body=file.read_bytes())
    store = featstore.open("s3://cells-of-labs/lab.zarr")
    assert_patches_read_the_same(store, 9)
    assert store.cached_datasets() == ["cells"]
    assert store.patches("cells").info == featstore.open(lab).patches("cells").info


def test_cached_patches_on_the_web_are_read_by_workers(lab, web):
    """Forked ones use what they got from their parent, spawned ones what was pickled."""
    cut(lab)
    patches = featstore.open(f"{web.url}/lab.zarr").patches("cells")
    ids = patches.ids[[5, 2_000]]
    patches.read(ids)
    process = multiprocessing.get_context("fork").Process(
        target=lambda: os._exit(int(not np.array_equal(patches.read(ids), pixels_of(ids))))
    )
    process.start()
    process.join(30)
    assert process.exitcode == 0
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(patches.read, [ids]), pixels_of(ids))


def test_patches_are_fetched_as_the_chunks_that_hold_them(lab, web):
    cut(lab)
    patches = featstore.open(f"{web.url}/lab.zarr").patches("cells")
    web.requests.clear()
    patches.read(patches.ids[[300, 1_000, 301]])
    chunks = {path: n for path, n in web.requests.items() if "/pixels/c/" in path}
    place = "/lab.zarr/patches/cells/pixels/c"
    assert chunks == {f"{place}/1/0/0/0": 1, f"{place}/3/0/0/0": 1}


def test_windows_that_are_lost_on_the_way_are_not_made_up(lab, web):
    cut(lab)
    (lab / "patches/cells/windows/read_level/c/0").unlink()
    patches = featstore.open(f"{web.url}/lab.zarr").patches("cells")
    with pytest.raises(StoreError, match=r"windows/read_level/c/0 of .* is not there"):
        _ = patches.windows


def test_a_store_on_the_web_reads_as_the_same_store_here(web, lab):
    assert_reads_the_same(featstore.open(f"{web.url}/lab.zarr"), featstore.open(lab))


def test_each_chunk_that_holds_the_ids_is_asked_for_once_and_no_other(web, lab):
    ids = featstore.open(lab).embeddings("tiny", "cells").ids
    there = featstore.open(f"{web.url}/lab.zarr/").embeddings("tiny", "cells")
    for name, asked in id_lists(ids).items():
        web.requests.clear()
        there.read(asked)
        rows = np.flatnonzero(np.isin(ids, asked))
        needed = np.unique(rows // ROWS_PER_CHUNK)
        paths = {f"/lab.zarr/embeddings/tiny/cells/values/c/{k}/0": 1 for k in needed}
        assert web.chunk_requests() == paths, name


def test_a_view_of_parts_that_lie_apart_asks_for_each_chunk_once(web, lab):
    here = featstore.open(lab).embeddings("tiny", "cells")
    for pooling in ("mean", "mean+class"):
        there = featstore.open(f"{web.url}/lab.zarr").embeddings(f"tiny:{pooling}", "cells")
        web.requests.clear()
        rows = there.read(here.ids)
        assert np.array_equal(rows, np.roll(here.read(here.ids), 3, axis=1)[:, : rows.shape[1]])
        assert list(web.chunk_requests().values()) == [1] * N_CHUNKS


def test_parts_that_make_no_sense_on_the_web_are_one_error(web, lab):
    metadata = lab / "embeddings/tiny/cells/zarr.json"
    content = json.loads(metadata.read_text())
    content["attributes"]["provenance"]["parts"]["mean"] = [-3, 6]
    metadata.write_text(json.dumps(content))
    there = featstore.open(f"{web.url}/lab.zarr")
    for model in ("tiny", "tiny:class"):
        with pytest.raises(StoreError, match=r"of http.* cannot be read by its parts \(its part"):
            there.embeddings(model, "cells").read([10_000])


def test_a_column_of_annotations_is_asked_for_once(web):
    featstore.open(f"{web.url}/lab.zarr").annotations("cells")
    columns = {path: n for path, n in web.requests.items() if "/c/" in path}
    assert len(columns) == 4
    assert set(columns.values()) == {1}


def test_chunks_are_asked_for_at_the_same_time(web, lab):
    ids = featstore.open(lab).embeddings("tiny", "cells").ids
    there = featstore.open(f"{web.url}/lab.zarr").embeddings("tiny", "cells")
    there.read(ids[:1])
    waiting, four_wait = [], threading.Event()

    def answer_once_four_wait(number, path):
        waiting.append(path)
        if len(waiting) == 4:
            four_wait.set()
        return None if four_wait.wait(timeout=20) else 500

    web.fault = answer_once_four_wait
    assert there.read(ids).shape == (N, 6)
    assert len(waiting) == N_CHUNKS


@pytest.mark.parametrize("fault", ["drop", 503, "short"])
def test_reading_survives_a_server_that_fails_every_third_request(web, lab, fault):
    web.fault = lambda number, path: fault if number % 3 == 0 else None
    assert_reads_the_same(featstore.open(f"{web.url}/lab.zarr"), featstore.open(lab), ["whole"])


def test_a_chunk_cut_short_without_a_word_is_seen_and_asked_for_again(web, lab):
    def cut_the_first_of_each_chunk(number, path):
        return "silently short" if "/values/c/" in path and web.requests[path] == 1 else None

    web.fault = cut_the_first_of_each_chunk
    assert_reads_the_same(featstore.open(f"{web.url}/lab.zarr"), featstore.open(lab), ["whole"])


def test_a_server_that_stays_broken_is_named_in_one_line(web):
    opened = featstore.open(f"{web.url}/lab.zarr")
    web.fault = lambda number, path: 503
    with pytest.raises(StoreError, match=r"zarr.json cannot be read \(the server answers 503, 5"):
        opened.embeddings("tiny", "cells")


def test_a_server_that_is_not_there_is_named_in_one_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/lab.zarr"
        with pytest.raises(StoreError, match=r"cannot be read .*Connect.*5 times") as problem:
            featstore.open(url)
    assert "\n" not in str(problem.value)


def test_what_is_not_there_is_asked_for_once(web):
    with pytest.raises(StoreError, match=r"nothing.zarr is not a featstore store"):
        featstore.open(f"{web.url}/nothing.zarr")
    assert set(web.requests.values()) == {1}


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_names_credentials_and_is_not_asked_again(web, status):
    web.fault = lambda number, path: status
    with pytest.raises(StoreError, match=rf"is refused \({status}\); give credentials"):
        featstore.open(f"{web.url}/lab.zarr")
    assert set(web.requests.values()) == {1}


def test_another_refusal_is_one_line_too(web):
    web.fault = lambda number, path: 451
    with pytest.raises(StoreError, match="the server answers 451"):
        featstore.open(f"{web.url}/lab.zarr")


def test_an_option_that_the_library_does_not_know_is_one_line(web):
    with pytest.raises(StoreError, match="check address and storage_options"):
        featstore.open(f"{web.url}/lab.zarr", storage_options={"anon": True})


def test_headers_go_along(web, lab):
    heard = []

    class Listening(_Handler):
        def do_GET(self):
            heard.append(self.headers["X-Lab"])
            super().do_GET()

    web.RequestHandlerClass = Listening
    featstore.open(f"{web.url}/lab.zarr", storage_options={"headers": {"X-Lab": "ours"}})
    assert set(heard) == {"ours"}


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_chunk_is_named_and_others_are_read(web, lab, damage):
    ids = featstore.open(lab).embeddings("tiny", "cells").ids
    chunk = lab / "embeddings/tiny/cells/values/c/7/0"
    content = bytearray(chunk.read_bytes())
    content[1_000] ^= 4
    chunk.write_bytes({"flipped": content, "cut": content[:-100], "empty": b""}[damage])
    there = featstore.open(f"{web.url}/lab.zarr").embeddings("tiny", "cells")
    with pytest.raises(DamagedChunkError, match=r"embeddings/tiny/cells/values/c/7/0 of http"):
        there.read(ids)
    assert there.read(ids[: 7 * ROWS_PER_CHUNK]).shape == (7 * ROWS_PER_CHUNK, 6)


def test_a_damaged_column_is_named(web, lab):
    column = lab / "annotations/cells/id/c/0"
    column.write_bytes(column.read_bytes()[:-1] + b"?")
    opened = featstore.open(f"{web.url}/lab.zarr")
    with pytest.raises(StoreError, match=r"annotations/cells/id/c/0 of http"):
        opened.embeddings("tiny", "cells").read([10_000])
    with pytest.raises(StoreError, match=r"annotations/cells/id/c/0 of http"):
        opened.annotations("cells")


def test_a_column_that_is_not_there_is_named(web, lab):
    (lab / "annotations/cells/x/c/0").unlink()
    with pytest.raises(StoreError, match=r"annotations/cells/x/c/0 of http.* is not there"):
        featstore.open(f"{web.url}/lab.zarr").annotations("cells")


def test_rows_that_are_not_embedded_yet_are_named(web, lab):
    (lab / "embeddings/tiny/cells/values/c/3/0").unlink()
    ids = featstore.open(lab).embeddings("tiny", "cells").ids
    there = featstore.open(f"{web.url}/lab.zarr").embeddings("tiny", "cells")
    with pytest.raises(NotInStoreError, match="256 of 3000 embeddings"):
        there.read(ids)


LOSE_THE_SERVER = """
import sys, featstore
(url,) = sys.argv[1:]
embeddings = featstore.open(url).embeddings("tiny", "cells")
embeddings.read(embeddings.ids[:1])
try:
    embeddings.read(embeddings.ids)
except featstore.errors.StoreError as error:
    sys.exit(f"Error: {error}")
"""


@pytest.mark.parametrize("status", [403, 503])
def test_a_program_that_loses_its_server_ends_in_one_line(web, status):
    web.fault = lambda number, path: status if re.search(r"values/c/\d*[1-9]/", path) else None
    ask = [sys.executable, "-c", LOSE_THE_SERVER, f"{web.url}/lab.zarr"]
    ended = subprocess.run(ask, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert str(status) in ended.stderr


# --- listing


def test_a_web_server_is_listed_by_the_manifest(web, lab):
    (lab / "embeddings/tiny/cells/values/c/3/0").unlink()
    write_manifest(lab)
    opened = featstore.open(f"{web.url}/lab.zarr")
    assert opened.datasets() == ["cells"]
    assert opened.list() == featstore.open(lab).list()
    assert [row.complete for row in opened.list()] == [False]
    with pytest.raises(NotInStoreError, match=r"no embeddings 'uni/cells' .* holds tiny/cells"):
        opened.embeddings("uni", "cells")


def test_without_a_manifest_a_web_server_is_read_by_name_only(web):
    opened = featstore.open(f"{web.url}/lab.zarr")
    for listing in (opened.list, opened.datasets, lambda: opened.embeddings("tiny", "cells").info):
        with pytest.raises(StoreError, match=rf"cannot be listed: .* {MANIFEST}.* by name"):
            listing()
    with pytest.raises(NotInStoreError, match=r"no embeddings 'uni/cells' .* check the name"):
        opened.embeddings("uni", "cells")
    with pytest.raises(NotInStoreError, match=r"no dataset 'cell' .* check the name"):
        opened.annotations("cell")
    assert opened.embeddings("tiny", "cells").read([10_000]).shape == (1, 6)


def test_the_command_line_lists_a_web_server_or_says_why_not(web, lab):
    ask = ["list", f"{web.url}/lab.zarr"]
    refused = CliRunner().invoke(command_line, ask)
    assert refused.exit_code == 1
    assert "cannot be listed" in refused.stderr
    write_manifest(lab)
    listed = CliRunner().invoke(command_line, ask)
    assert listed.exit_code == 0, listed.output
    assert listed.output == CliRunner().invoke(command_line, ["list", str(lab)]).output


def test_a_manifest_that_is_none_is_refused(web, lab):
    (lab / MANIFEST).write_text("<html>not found</html>\n")
    with pytest.raises(StoreError, match=rf"line 1 of http.*{MANIFEST} is not"):
        featstore.open(f"{web.url}/lab.zarr").datasets()


# --- strangers


def test_a_server_does_not_lead_to_files_of_this_machine(web, lab, tmp_path):
    secret = tmp_path / "zarr.json"
    secret.write_bytes((lab / "zarr.json").read_bytes())
    web.fault = lambda number, path: f"file://{secret}"
    with pytest.raises(StoreError, match="cannot be read"):
        featstore.open(f"{web.url}/lab.zarr")


def test_names_in_a_manifest_that_leave_the_store_are_no_names(web, lab):
    lines = [f"{'0' * 64}  {name}\n" for name in HOSTILE_NAMES]
    (lab / MANIFEST).write_text("".join(lines))
    opened = featstore.open(f"{web.url}/lab.zarr")
    assert opened.datasets() == []
    assert opened.list() == []


HOSTILE_NAMES = [
    "annotations/../../../etc/passwd",
    "embeddings/.hidden/cells/zarr.json",
    "/etc/annotations/passwd/x",
    "embeddings/C:\\/cells/zarr.json",
]


@pytest.mark.parametrize(
    "url",
    [
        "file:///tmp/lab.zarr",
        "memory://lab.zarr",
        "simplecache::http://127.0.0.1:1/lab.zarr",
        "https:///lab.zarr",
        "https://me:secret@host/lab.zarr",
        "https://host/lab.zarr?signature=secret",
    ],
)
def test_other_addresses_are_refused_and_secrets_not_repeated(url):
    with pytest.raises(StoreError) as problem:
        featstore.open(url)
    assert "secret" not in str(problem.value)


def test_images_of_a_remote_store_are_not_looked_for_here(web, lab):
    group = featstore.store.layout.open_root(lab, mode="r+")["annotations/cells"]
    group.attrs["images"] = {"root": "../../../etc", "whole": False}
    assert featstore.open(f"{web.url}/lab.zarr").image_folder("cells") is None


def test_nothing_is_written_to_another_machine(web, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="make the store in a local folder"):
        featstore.create(f"{web.url}/new.zarr")
    with pytest.raises(StoreError, match="only local stores can be written to"):
        add_annotations(f"{web.url}/lab.zarr", featstore.AnnotationTable("d", [1], ["a"]))
    assert not (tmp_path / "http:").exists()


# --- copies


def test_a_copy_from_a_server_that_drops_every_third_request_has_the_same_bytes(
    web, lab, tmp_path, chunks_of
):
    write_manifest(lab)
    web.fault = lambda number, path: "drop" if number % 3 == 0 else None
    here = tmp_path / "here.zarr"
    copy(featstore.open(f"{web.url}/lab.zarr"), here)
    assert len(chunks_of(lab, "tiny", "cells")) == N_CHUNKS
    assert chunks_of(here, "tiny", "cells") == chunks_of(lab, "tiny", "cells")
    assert_reads_the_same(featstore.open(here), featstore.open(lab))


# --- S3


def test_a_store_on_s3_reads_and_lists_as_the_same_store_here(s3, lab):
    opened, here = featstore.open("s3://cells-of-labs/lab.zarr"), featstore.open(lab)
    assert_reads_the_same(opened, here)
    assert opened.datasets() == ["cells"]
    assert opened.list() == here.list()
    with pytest.raises(NotInStoreError, match="it holds tiny/cells"):
        opened.embeddings("uni", "cells")


def test_s3_is_asked_for_each_chunk_once(s3, lab, caplog):
    ids = featstore.open(lab).embeddings("tiny", "cells").ids
    there = featstore.open("s3://cells-of-labs/lab.zarr").embeddings("tiny", "cells")
    with caplog.at_level("INFO", logger="werkzeug"):
        there.read(ids[[0, 600, 601, 2_999]])
    asked = [line for line in caplog.messages if "/values/c/" in line]
    assert len(asked) == 3
    assert all("GET" in line for line in asked)


def test_rows_that_are_missing_on_s3_are_counted(s3, lab):
    key = "lab.zarr/embeddings/tiny/cells/values/c/3/0"
    s3.delete_object(Bucket="cells-of-labs", Key=key)
    (lab / key.removeprefix("lab.zarr/")).unlink()
    listed = featstore.open("s3://cells-of-labs/lab.zarr").list()
    assert listed == featstore.open(lab).list()
    assert not listed[0].complete


def test_anonymous_reading_works_on_public_files_and_is_refused_on_others(s3, lab):
    anonymous = {"anon": True}
    with pytest.raises(StoreError, match=r"is refused \(403\); give credentials"):
        featstore.open("s3://cells-of-labs/lab.zarr", storage_options=anonymous)
    for found in s3.list_objects_v2(Bucket="cells-of-labs")["Contents"]:
        s3.put_object_acl(Bucket="cells-of-labs", Key=found["Key"], ACL="public-read")
    opened = featstore.open("s3://cells-of-labs/lab.zarr", storage_options=anonymous)
    assert opened.embeddings("tiny", "cells").read([10_000]).shape == (1, 6)


def test_without_any_credentials_the_error_names_them(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StoreError, match="give credentials"):
        featstore.open("s3://cells-of-labs/lab.zarr")


def test_a_bucket_that_is_not_there_is_no_store(s3):
    with pytest.raises(StoreError, match=r"s3://no-such-bucket/lab.zarr is not a featstore store"):
        featstore.open("s3://no-such-bucket/lab.zarr")


def test_a_damaged_chunk_on_s3_is_named(s3):
    key = "lab.zarr/embeddings/tiny/cells/values/c/0/0"
    s3.put_object(Bucket="cells-of-labs", Key=key, Body=b"short")
    there = featstore.open("s3://cells-of-labs/lab.zarr").embeddings("tiny", "cells")
    with pytest.raises(DamagedChunkError, match=r"values/c/0/0 of s3://cells-of-labs/lab.zarr"):
        there.read(there.ids)


@pytest.mark.parametrize("fault", ["drop", 503, "short"])
def test_s3_reading_survives_an_endpoint_that_fails_every_third_request(web, lab, fault):
    """Our own server is endpoint enough for GET: /bucket/key, where the folder is the bucket."""
    (lab.parent / "bucket").mkdir()
    lab.rename(lab.parent / "bucket" / "lab.zarr")
    web.fault = lambda number, path: fault if number % 3 == 0 else None
    options = {**KEYS, "endpoint_url": web.url}
    opened = featstore.open("s3://bucket/lab.zarr", storage_options=options)
    here = featstore.open(lab.parent / "bucket" / "lab.zarr")
    assert_reads_the_same(opened, here, ["whole"])


def test_an_s3_endpoint_that_is_not_there_is_one_line():
    options = {**KEYS, "endpoint_url": "http://127.0.0.1:1"}
    with pytest.raises(StoreError, match=r"cannot be read .*5 times") as problem:
        featstore.open("s3://bucket/lab.zarr", storage_options=options)
    assert "\n" not in str(problem.value)


# --- the page


def test_the_code_on_the_page_runs(web, s3, lab):
    for found in s3.list_objects_v2(Bucket="cells-of-labs")["Contents"]:
        s3.put_object_acl(Bucket="cells-of-labs", Key=found["Key"], ACL="public-read")
    s3.put_bucket_acl(Bucket="cells-of-labs", ACL="public-read")
    page = (Path(__file__).parents[2] / "docs" / "remote.md").read_text()
    (block,) = re.findall(r"^```py\n(.*?)^```", page, flags=re.M | re.S)
    named = {}
    exec(block.replace("https://data.example.org", web.url), named)
    assert named["bucket"].list() == featstore.open(lab).list()


def test_the_command_line_lists_a_bucket(s3, lab):
    listed = CliRunner().invoke(command_line, ["list", "s3://cells-of-labs/lab.zarr"])
    assert listed.exit_code == 0, listed.output
    assert listed.output == CliRunner().invoke(command_line, ["list", str(lab)]).output
