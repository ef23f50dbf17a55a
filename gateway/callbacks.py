"""Tells backends of the end of their anchors: signed POSTs to allowlisted hosts, tried again until they are taken."""

import asyncio
import hmac
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from gateway.config import CallbacksConfig
from gateway.disk import make_folder, sync_folder
from gateway.problems import Problem
from serving.keyfiles import read_secret

log = logging.getLogger(__name__)

WAITING_MAX = 10_000
URL_BYTES_MAX = 2_048
BACKOFF_S_MAX = 3_600.0
AT_ONCE = 8
WRITERS = 16
_PORTS = {"http": 80, "https": 443}


@dataclass(eq=False, slots=True)
class _Entry:
    """Who is to be told of one batch. `ended`: there is nothing to tell after `body`."""

    batch_id: bytes
    url: str
    body: dict[str, Any] | None = None
    ended: bool = False
    task: asyncio.Task[None] | None = None


class Callbacks:
    """Each registered callback is a small file until it has been made, so that a restart forgets none."""

    def __init__(self, config: CallbacksConfig, http: httpx.AsyncClient) -> None:
        """Raises SecretError where hosts are allowed and there is no secret to sign with."""
        self._config = config
        self._http = http
        self._hosts = frozenset(host.lower() for host in config.hosts)
        self._secret = read_secret(config.secret, "the callbacks' secret") if self._hosts else b""
        self._entries: dict[bytes, _Entry] = {}  # those that are still to be made
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._writing = [asyncio.Lock() for _ in range(WRITERS)]  # one at a time has to do with a batch's file

    async def start(self) -> None:
        for entry in await asyncio.to_thread(self._load):
            self._entries[entry.batch_id] = entry
            self._begin(entry)

    async def stop(self) -> None:
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def check(self, url: str) -> None:
        """Raise Problem 403 unless a callback may go to this URL."""
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            raise Problem(422, "not-valid", "callback_url is no URL.") from None
        host = (parts.hostname or "").lower()
        usual = port == _PORTS.get(parts.scheme)
        plain = not (parts.username or parts.password or parts.fragment) and len(url) <= URL_BYTES_MAX
        allowed = (usual and host in self._hosts) or f"{host}:{port}" in self._hosts
        if parts.scheme not in _PORTS or not plain or not allowed:
            detail = "callback_url is no http or https URL of a host that this gateway's `callbacks.hosts` lists."
            raise Problem(403, "callback-not-allowed", detail)

    def __len__(self) -> int:
        """How many are still to be made."""
        return len(self._entries)

    def waiting(self) -> list[bytes]:
        """The batch ids whose end is not known here yet: a failure that was told is none, it may be mended since."""
        return [entry.batch_id for entry in self._entries.values() if not entry.ended]

    async def register(self, batch_id: bytes, url: str) -> None:
        """Remember durably whom to tell. Raises Problem 503 when it cannot be remembered."""
        if len(self._entries) >= WAITING_MAX and batch_id not in self._entries:
            raise Problem(503, "too-many-callbacks", "Too many callbacks wait already; try again later.")
        entry = _Entry(batch_id, url)
        async with self._lock(batch_id):
            await self._keep(entry)
            old, self._entries[batch_id] = self._entries.get(batch_id), entry
        if old is not None and old.task is not None:
            old.task.cancel()

    def url(self, batch_id: bytes) -> str | None:
        """Whom the end of a batch is told to."""
        entry = self._entries.get(batch_id)
        return None if entry is None else entry.url

    async def restore(self, batch_id: bytes, url: str | None) -> None:
        """Undo a `register`: the anchor was not taken after all."""
        if url is not None:
            await self.register(batch_id, url)
        else:
            await self.forget(batch_id)

    async def forget(self, batch_id: bytes) -> None:
        """Tell nobody of a batch after all."""
        if (entry := self._entries.get(batch_id)) is not None:
            await self._drop(entry)

    async def _drop(self, entry: _Entry) -> None:
        """Forget an entry, unless another one has taken its place."""
        async with self._lock(entry.batch_id):
            if self._entries.get(entry.batch_id) is entry:
                del self._entries[entry.batch_id]
                await asyncio.to_thread(self._path(entry).unlink, missing_ok=True)

    async def tell(self, batch_id: bytes, body: dict[str, Any], *, ended: bool) -> None:
        """Begin to tell whoever asked. `ended`: nothing else will come of this batch."""
        entry = self._entries.get(batch_id)
        if entry is None or entry.ended:
            return
        entry.body, entry.ended = body, ended
        try:
            async with self._lock(batch_id):
                if self._entries.get(batch_id) is not entry:
                    return  # somebody else is to be told, and will be
                await self._keep(entry)
        except Problem as problem:
            log.warning("a callback is only in memory: %s", problem.detail)
        self._begin(entry)

    def _begin(self, entry: _Entry) -> None:
        if entry.body is None:
            return
        if entry.task is not None:
            entry.task.cancel()
        entry.task = asyncio.create_task(self._deliver(entry, entry.body))

    async def _deliver(self, entry: _Entry, body: dict[str, Any]) -> None:
        pause_s = self._config.backoff_ms / 1000
        for attempt in range(1, self._config.attempts_max + 1):
            async with self._at_once:
                fault = await self._post(entry.url, body)
            if fault is None:
                break
            log.warning("callback of batch %s, attempt %d: %s", body["batch_id"], attempt, fault)
            if attempt == self._config.attempts_max:
                log.error("callback of batch %s is given up", body["batch_id"])
                break
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, BACKOFF_S_MAX)
        if entry.ended:
            await self._drop(entry)
        else:
            entry.body = None

    async def _post(self, url: str, body: dict[str, Any]) -> str | None:
        """What went wrong, or None."""
        data = json.dumps(body).encode()
        headers = {"content-type": "application/json", "psephos-signature": sign(self._secret, data, int(time.time()))}
        try:
            async with (
                asyncio.timeout(self._config.timeout_ms / 1000),  # of all of it: the client's is for each read
                self._http.stream("POST", url, content=data, headers=headers, timeout=None) as response,
            ):  # what it says is of no interest, and may be long
                return None if response.is_success else f"answered {response.status_code}"
        except TimeoutError:
            return f"no answer within {self._config.timeout_ms} ms"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"{type(error).__name__}: {error}"

    def _lock(self, batch_id: bytes) -> asyncio.Lock:
        return self._writing[batch_id[0] % WRITERS]

    def _path(self, entry: _Entry) -> Path:
        return self._config.folder / f"{entry.batch_id.hex()}.json"

    async def _keep(self, entry: _Entry) -> None:
        try:
            await asyncio.to_thread(self._write, entry)
        except OSError as error:
            raise Problem(503, "not-durable", f"The callback cannot be remembered: {error.strerror}.") from None

    def _write(self, entry: _Entry) -> None:
        path = self._path(entry)
        make_folder(path.parent)
        fresh = path.with_suffix(".new")
        document = {"batch_id": entry.batch_id.hex(), "url": entry.url, "body": entry.body, "ended": entry.ended}
        with open(fresh, "w", encoding="utf-8") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
        sync_folder(path.parent)

    def _load(self) -> list[_Entry]:
        entries = []
        for path in sorted(self._config.folder.glob("*.json"))[:WAITING_MAX]:
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                entry = _Entry(bytes.fromhex(found["batch_id"]), found["url"], found["body"], found["ended"])
                self.check(entry.url)  # the list of hosts may have changed
            except (ValueError, KeyError, TypeError, OSError, Problem) as error:
                log.warning("callback %s is left alone: %s", path, error)
            else:
                entries.append(entry)
        return entries


def sign(secret: bytes, body: bytes, timestamp: int) -> str:
    """`t=SECONDS,v1=HEX`: HMAC-SHA-256 over time, dot and body, so that an old callback cannot be played again."""
    digest = hmac.digest(secret, str(timestamp).encode() + b"." + body, "sha256")
    return f"t={timestamp},v1={digest.hex()}"
