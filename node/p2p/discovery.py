"""Asks bootnodes where peers are, and tells them where we are. What they say is checked, record by record."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence

import aiohttp
import orjson

from node.chain.domain import Domain
from node.chain.errors import PeerError
from node.chain.signing import SigningKey
from node.p2p.policy import NetworkPolicy
from node.p2p.records import RECORD_DOCUMENT_BYTES_MAX, PeerRecord, parse_record, record_document, sign_record

RECORDS_MAX = 1024
ANSWER_BYTES_MAX = RECORDS_MAX * RECORD_DOCUMENT_BYTES_MAX  # more than strangers can make a bootnode answer
_log = logging.getLogger(__name__)


class BadBootnode(Exception):
    """A bootnode's answer is not one. It is asked again later, like one that is down."""


class Discovery:
    """Announces our record to each bootnode and fetches theirs, often at first and after a loss, seldom later."""

    def __init__(
        self,
        key: SigningKey,
        domain: Domain,
        policy: NetworkPolicy,
        *,
        name: str,
        rpc_url: str,
        bootnodes: Sequence[str],
        learn: Callable[[PeerRecord], None],
    ) -> None:
        """`learn` gets each verified record of another address; it is for it to say who is a member."""
        self._key = key
        self._domain = domain
        self._policy = policy
        self._name = name
        self._rpc_url = rpc_url
        self._bootnodes = tuple(url.rstrip("/") for url in bootnodes)
        self._learn = learn
        self._endpoint = ""
        self._record: PeerRecord | None = None
        self._delay_ms = policy.announce_first_ms
        self._hurry = asyncio.Event()
        self._failing: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self, endpoint: str) -> None:
        """Begin to ask; peers are told to dial us at `endpoint`."""
        self._endpoint = endpoint
        if self._bootnodes:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def hurry(self) -> None:
        """A peer was lost and may come back elsewhere: ask again soon."""
        self._delay_ms = self._policy.announce_first_ms
        self._hurry.set()

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=self._policy.bootnode_ms_max / 1000)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            while True:
                self._hurry.clear()
                await asyncio.gather(*(self._ask(client, url) for url in self._bootnodes))
                delay_s = self._delay_ms * (0.5 + 0.5 * random.random()) / 1000  # nosec B311 # no secret
                self._delay_ms = min(self._delay_ms * 2, self._policy.announce_cap_ms)
                try:
                    async with asyncio.timeout(delay_s):  # Python 3.11's wait_for can swallow a cancellation
                        await self._hurry.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(self._delay_ms / 1000)

    async def _ask(self, client: aiohttp.ClientSession, url: str) -> None:
        try:
            await self._announce(client, url)
            await self._fetch(client, url)
        except (aiohttp.ClientError, OSError, ValueError, BadBootnode) as error:  # ValueError: a URL that is none
            if url not in self._failing:
                self._failing.add(url)
                _log.warning("bootnode %s fails us, known peers stay known: %s", url, error or "timeout")
            return
        if url in self._failing:
            self._failing.discard(url)
            _log.info("bootnode %s answers again", url)

    async def _announce(self, client: aiohttp.ClientSession, url: str) -> None:
        record = self._own_record(sequence_min=0)
        status, body = await self._post(client, url, record)
        if status == 409:  # a record of ours is there from a time when our clock was ahead
            standing = body.get("sequence") if isinstance(body, dict) else None
            if type(standing) is not int or not record.sequence <= standing < 2**63:
                raise BadBootnode(f"refused our record as old, and answered {body!r}")
            status, body = await self._post(client, url, self._own_record(sequence_min=standing + 1))
        if status != 200:
            raise BadBootnode(f"refused our record with status {status}: {str(body)[:200]}")

    def _own_record(self, *, sequence_min: int) -> PeerRecord:
        """Our record; a new one from half of its life on, or when a higher sequence is needed."""
        now_s = int(time.time())
        record = self._record
        is_young = record is not None and record.expires_at_s - now_s > self._policy.record_life_s // 2
        if record is None or not is_young or record.sequence < sequence_min:
            record = self._record = sign_record(
                self._key,
                self._domain,
                endpoints=(self._endpoint,),
                sequence=max(time.time_ns() // 1_000_000, sequence_min, record.sequence + 1 if record else 0),
                expires_at_s=now_s + self._policy.record_life_s,
                name=self._name,
                rpc_url=self._rpc_url,
            )
        return record

    async def _post(self, client: aiohttp.ClientSession, url: str, record: PeerRecord) -> tuple[int, object]:
        body = orjson.dumps(record_document(record))
        headers = {"Content-Type": "application/json"}
        async with client.post(f"{url}/records", data=body, headers=headers, allow_redirects=False) as response:
            return response.status, await _read_json(response)

    async def _fetch(self, client: aiohttp.ClientSession, url: str) -> None:
        async with client.get(f"{url}/records", allow_redirects=False) as response:
            if response.status != 200:
                raise BadBootnode(f"answered GET /records with status {response.status}")
            body = await _read_json(response)
        documents = body.get("records") if isinstance(body, dict) else None
        if not isinstance(documents, list):
            raise BadBootnode("answered GET /records with no list of records")
        for document in documents[:RECORDS_MAX]:
            try:
                record = parse_record(document, self._domain)
            except PeerError as error:  # the others may still be good
                _log.debug("bootnode %s has a record that is none: %s", url, error)
                continue
            if record.address != self._key.address:
                self._learn(record)


async def _read_json(response: aiohttp.ClientResponse) -> object:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise BadBootnode(f"answered with more than {ANSWER_BYTES_MAX} bytes")
    try:
        document: object = orjson.loads(bytes(body))
    except orjson.JSONDecodeError:
        raise BadBootnode(f"answered with status {response.status} and no JSON") from None
    return document
