"""Stores on other machines, read through fsspec: ``s3://``, ``https://`` and ``http://``.

One request for each file that is needed, and again where the connection or the server fails for a
moment. Every chunk is compared with its checksum as it arrives. Nothing here writes, and nothing
that a remote store says is ever taken for a path of this machine.
"""

import asyncio
import json
import os
import re
from urllib.parse import urlsplit

import numpy as np
from zarr.abc.store import Store
from zarr.core.sync import sync

from featstore.errors import DamagedChunkError, StoreError, require
from featstore.store.chunks import CHECKSUM_BYTES, ChunkFiles, checksum
from featstore.store.manifest import LINE, MANIFEST

__all__ = ["RemoteChunks", "RemoteStore", "open_remote"]

LIBRARIES = {"s3": "s3fs", "https": "aiohttp", "http": "aiohttp"}
PAUSES_S = (0.1, 0.3, 0.9, 2.7)  # before the second to the fifth attempt: servers restart in less
PASSING_STATUS = {408, 429, *range(500, 600)}  # RFC 9110, section 15: worth asking again
REFUSED_STATUS = {401, 403, 407}
CONNECT_S, SILENCE_S = 10, 30  # a live server answers, and goes on sending, well within these
CHUNKS_AT_ONCE = 16  # of about 8 MiB: more would not be faster, and be kept in memory together
CHUNK_KEY = re.compile(r"(?P<array>.+)/c(/\d+)+")
COLUMN_CHUNK_KEY = re.compile(r"(annotations/[^/]+|patches/[^/]+/windows)/[^/]+/c(/\d+)+")


def open_remote(url, storage_options=None):
    """Make a Zarr store of a URL; nothing is fetched yet.

    Parameters
    ----------
    url : str
        ``s3://bucket/...``, ``https://host/...`` or ``http://host/...``.
    storage_options : dict, optional
        For s3fs or fsspec's HTTP file system, for instance ``{"anon": True}``.

    Returns
    -------
    RemoteStore

    Raises
    ------
    StoreError
        If the URL is of another kind, or holds what must not be in it.
    MissingExtraError
        If the library for it is not installed.
    """
    url = str(url).rstrip("/")
    protocol = _checked_protocol(url)
    fsspec = require("fsspec", extra="remote", purpose=f"reading {protocol}:// stores")
    require(LIBRARIES[protocol], extra="remote", purpose=f"reading {protocol}:// stores")
    options = {**(storage_options or {}), "use_listings_cache": False, "skip_instance_cache": True}

    def connect():
        file_system = fsspec.filesystem(protocol, **_with_defaults(protocol, options))
        file_system.retries = 1  # s3fs would try again within each attempt made here
        return file_system

    return RemoteStore(url, connect)


def _checked_protocol(url):
    """Protocol of a URL.

    Examples
    --------
    >>> _checked_protocol("s3://bucket/lab.zarr")
    's3'
    >>> _checked_protocol("file:///lab.zarr")
    Traceback (most recent call last):
    ...
    featstore.errors.StoreError: file:///lab.zarr is not a place that stores are opened from; ...
    """
    protocol, parts = url.partition("://")[0], urlsplit(url)
    if protocol not in LIBRARIES or not parts.netloc:
        raise StoreError(
            f"{url} is not a place that stores are opened from; give a local folder, "
            "s3://bucket/..., https://host/... or http://host/..."
        )
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise StoreError(
            f"the URL of a store on {parts.hostname} has a user, '?' or '#' in it; give the "
            "address alone, and credentials through the environment or storage_options"
        )
    return protocol


def _with_defaults(protocol, options):
    """Options with time limits; what the caller set stays."""
    if protocol == "s3":
        config = {
            "connect_timeout": CONNECT_S,
            "read_timeout": SILENCE_S,
            "retries": {"total_max_attempts": 1},
            **options.get("config_kwargs", {}),
        }
        # More than one request at a time for a file costs a HEAD request for each.
        return {**options, "config_kwargs": config, "max_concurrency": 1}
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    # trust_env: proxies and ~/.netrc as the environment has them
    client = {"timeout": timeout, "trust_env": True, **options.get("client_kwargs", {})}
    return {**options, "client_kwargs": client}


class RemoteStore(Store):
    """A store on another machine as Zarr sees it: read-only, retried, with checked chunks.

    Parameters
    ----------
    url : str
        Where it is.
    connect : callable
        Makes a ``fsspec.asyn.AsyncFileSystem`` for this store alone; called again in a forked
        process, which fsspec's thread does not come along to.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, url, connect):
        super().__init__(read_only=True)
        self.url = url
        self._connect = connect
        self._connected, self._connected_in = connect(), os.getpid()
        self._path = self._file_system._strip_protocol(url)
        self._with_checksum = {}
        self._failures, self._passing = _failures_of(url), _passing_of(url)

    @property
    def _file_system(self):
        if self._connected_in != os.getpid():
            self._connected, self._connected_in = self._connect(), os.getpid()
        return self._connected

    def __repr__(self):
        return self.url

    def __eq__(self, other):
        return isinstance(other, RemoteStore) and other._file_system is self._file_system

    __hash__ = None

    async def get(self, key, prototype, byte_range=None):
        """Fetch one file; None where there is none.

        Raises
        ------
        StoreError
            If the server refuses or cannot be reached.
        DamagedChunkError
            If a chunk does not fit its checksum, twice.
        """
        if byte_range is not None:
            raise StoreError(f"{key} of {self.url} is not laid out as a store's arrays are")
        content = await self._checked(key)
        if content is None:
            return self._missing(key)
        self._note_codecs(key, content)
        return prototype.buffer.from_bytes(content)

    async def _checked(self, key):
        """Fetch a file, and again if it does not fit its checksum: the way may be to blame."""
        for _ in range(2):
            content = await self._fetched(key)
            if content is None or self._is_whole(key, content):
                return content
        raise DamagedChunkError(
            f"{key} of {self.url} has {len(content)} bytes that do not fit its checksum; "
            "its owner can drop it with 'featstore verify --repair' and make it again"
        )

    def _missing(self, key):
        """Rows may not be there yet; a column of a table that Zarr asks for must be."""
        if COLUMN_CHUNK_KEY.fullmatch(key):
            raise StoreError(
                f"{key} of {self.url} is not there; its owner must copy the store again"
            )

    def fetch(self, keys):
        """Fetch files at the same time, in the order of their keys; where one fails, end them all.

        Returns
        -------
        list of bytes or None
            None where there is no such file.
        """
        return sync(self._together(keys))

    async def _together(self, keys):
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._checked(key)) for key in keys]
        except ExceptionGroup as failures:
            first = failures.exceptions[0]
            raise first from first.__cause__
        return [task.result() for task in tasks]

    async def get_partial_values(self, prototype, key_ranges):
        """Fetch several files."""
        return await asyncio.gather(
            *(self.get(key, prototype, byte_range) for key, byte_range in key_ranges)
        )

    async def exists(self, key):
        """Whether a file is there; asks for the whole file, as not all servers know HEAD."""
        return await self._fetched(key) is not None

    async def set(self, key, value=None):
        """Refuse, as ``delete`` does."""
        raise StoreError(f"{self.url} is read only; 'featstore copy' makes a local copy")

    delete = set

    async def list(self):
        """Names of all files."""
        for name in await self._names(""):
            yield name

    async def list_prefix(self, prefix):
        """Names of the files below a folder."""
        for name in await self._names(prefix):
            yield name

    async def list_dir(self, prefix):
        """Names of the files and folders in a folder."""
        for name in sorted({rest.partition("/")[0] for rest in await self._below(prefix)}):
            yield name

    @property
    def listable(self):
        """Whether there is any way to find out what the store holds."""
        return self.url.startswith("s3:") or sync(self._fetched(MANIFEST)) is not None

    async def _below(self, prefix):
        """Paths below a folder, relative to it."""
        start = f"{prefix.strip('/')}/".lstrip("/")
        return [name.removeprefix(start) for name in await self._names(prefix)]

    async def _names(self, prefix):
        """Paths of the files below a folder, relative to the store."""
        start = f"{prefix.strip('/')}/".lstrip("/")
        if not self.url.startswith("s3:"):
            return [name for name in await self._manifest() if name.startswith(start)]
        path = f"{self._path}/{start}"
        found = await self._attempted(path, lambda: self._file_system._find(path))
        return [name.removeprefix(f"{self._path}/") for name in found or ()]

    async def _manifest(self):
        content = await self._fetched(MANIFEST)
        if content is None:
            raise StoreError(
                f"{self.url} cannot be listed: a web server shows what is in a store only by its "
                f"{MANIFEST}, and there is none; ask for datasets and embeddings by name"
            )
        matches = [LINE.fullmatch(line) for line in content.decode(errors="replace").splitlines()]
        if None in matches:
            raise StoreError(
                f"line {matches.index(None) + 1} of {self.url}/{MANIFEST} is not a SHA-256 and a "
                "file name; its owner can write it again with 'featstore copy --manifest'"
            )
        return [match[2] for match in matches]

    async def _fetched(self, key):
        path = f"{self._path}/{key}"
        return await self._attempted(path, lambda: self._file_system._cat_file(path))

    async def _attempted(self, path, request):
        """Make a request until it succeeds; None where there is nothing at that path."""
        for pause_s in (*PAUSES_S, None):
            try:
                return await self._on_its_loop(request())
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None
            except self._failures as error:
                if pause_s is None or not self._may_pass(error):
                    raise self._explained(path, error) from error
            await asyncio.sleep(pause_s)

    def _may_pass(self, error):
        status = _status(error)
        return isinstance(error, self._passing) if status is None else status in PASSING_STATUS

    def _explained(self, path, error):
        """One line of a failure that stays."""
        status, text = _status(error), " ".join(str(error).split()) or type(error).__name__
        no_credentials = isinstance(error, PermissionError) or "redential" in type(error).__name__
        if status in REFUSED_STATUS or no_credentials:
            return StoreError(
                f"{path} is refused ({status or text}); give credentials through the environment "
                'or storage_options, or {"anon": True} for a public bucket'
            )
        if self._may_pass(error):
            found = text if status is None else f"the server answers {status}"
            return StoreError(
                f"{path} cannot be read ({found}, {len(PAUSES_S) + 1} times); check address and "
                "network, and run the same again"
            )
        found = text if status is None else f"the server answers {status}"
        return StoreError(f"{path} cannot be read ({found}); check address and storage_options")

    async def _on_its_loop(self, coroutine):
        """Await on fsspec's event loop, which is where its connections live."""
        loop = self._file_system.loop
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))

    def _note_codecs(self, key, content):
        """Remember of an array whether its chunks end in a checksum."""
        if not key.endswith("/zarr.json"):
            return
        try:
            codecs = json.loads(content).get("codecs", [])
            ends_in_checksum = bool(codecs) and codecs[-1]["name"] == "crc32c"
        except (ValueError, AttributeError, KeyError, TypeError):
            return  # whoever asked for this file will say what is wrong with it
        self._with_checksum[key.removesuffix("/zarr.json")] = ends_in_checksum

    def _is_whole(self, key, content):
        chunk = CHUNK_KEY.fullmatch(key)
        if chunk is None or not self._with_checksum.get(chunk["array"]):
            return True
        sum_of = checksum(np.frombuffer(content, np.uint8)[:-CHECKSUM_BYTES])
        return sum_of == content[-CHECKSUM_BYTES:]


class RemoteChunks(ChunkFiles):
    """The chunk files of one remote array of rows, some of them fetched at a time.

    Zarr would leave requests behind, still running, where one of them fails.
    """

    def read(self, rows, within, dtype, *, check=True):
        """Gather rows as :meth:`ChunkFiles.read` does; checksums are compared always."""
        numbers = rows // self.shape[0]
        gathered = np.empty((len(rows), *self._shape_of(within)), dtype)
        there = np.zeros(len(rows), bool)
        asked = np.unique(numbers)
        for start in range(0, len(asked), CHUNKS_AT_ONCE):
            together = asked[start : start + CHUNKS_AT_ONCE].tolist()
            self._fetch(together)
            here = np.isin(numbers, together)
            gathered[here], there[here] = super().read(rows[here], within, dtype)
        self._mapped.clear()
        return gathered, there

    def _fetch(self, numbers):
        keys = [self.path(number).path for number in numbers]
        contents = self.folder.store.fetch(keys)
        self._mapped = dict(zip(numbers, contents, strict=True))

    def map(self, number, *, check=True):
        """View rows of a chunk that was fetched; None where there is no such file."""
        content = self._mapped[number]
        if content is None:
            return None
        if len(content) != self.n_bytes:
            raise DamagedChunkError(self._problem(number, f"has {len(content)} bytes"))
        return self._rows(number, content, check=False)  # compared when it was fetched


def _passing_of(url):
    """Errors of the libraries for a failure that may be over in a moment."""
    import aiohttp

    passing = ConnectionError, TimeoutError, aiohttp.ClientConnectionError
    passing += (aiohttp.ClientPayloadError,)
    if not url.startswith("s3:"):
        return passing
    from botocore.exceptions import ConnectionError as NoConnectionError
    from s3fs.core import S3_RETRYABLE_ERRORS

    return (*passing, NoConnectionError, *S3_RETRYABLE_ERRORS)


def _failures_of(url):
    """Errors of the libraries for a request that went wrong, for a moment or for good."""
    import aiohttp

    # TypeError: a storage option that the library does not know
    failures = *_passing_of(url), OSError, aiohttp.ClientError, TypeError
    if not url.startswith("s3:"):
        return failures
    from botocore.exceptions import BotoCoreError, ClientError

    return (*failures, BotoCoreError, ClientError)


def _status(error):
    """HTTP status of a failure; None where the server gave no answer."""
    if getattr(error, "status", None) is not None:
        return error.status
    for one in (error, error.__cause__):
        answer = getattr(one, "response", None)
        if isinstance(answer, dict):
            return answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return None
