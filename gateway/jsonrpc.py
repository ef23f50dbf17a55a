"""JSON-RPC 2.0 as a client, over one pool of connections; every call has a deadline."""

import itertools
import logging
import re
import uuid
from collections.abc import Sequence
from typing import Any

import aiohttp
import orjson

from serving.logs import REQUEST_ID, REQUEST_ID_HEADER


class RpcFailure(RuntimeError):
    """A validator that did not answer, or with what is no JSON-RPC. `status` is its HTTP status, 0 for none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class RpcError(RuntimeError):
    """A validator's refusal: JSON-RPC error code, message, and the data of a reverted call."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


ANSWER_BYTES_MAX = 256 << 20  # 64 of the largest blocks, in hex
MESSAGE_CHARS_MAX = 500  # of a refusal: it is logged, shown, and kept
Request = tuple[str, Sequence[object]]

log = logging.getLogger(__name__)

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}", re.ASCII)


class RpcClient:
    """Posts calls and batches of calls to any URL."""

    def __init__(self, *, connections_max: int, hosts: int = 1) -> None:
        """Of `connections_max` each of so many hosts has its part: one that does not answer takes nobody else's."""
        self._connections_max, self._per_host_max = connections_max, max(connections_max // hosts, 2)
        self._session: aiohttp.ClientSession | None = None  # made where a loop runs
        self._name = uuid.uuid4().hex[:8]
        self._numbers = itertools.count(1)

    async def close(self) -> None:
        """End all connections."""
        if self._session is not None:
            await self._session.close()

    async def call(self, url: str, method: str, parameters: Sequence[object], timeout_s: float) -> Any:
        """The result of one call. Raises RpcFailure or RpcError."""
        answer = await self._post(url, _request(1, method, parameters), timeout_s)
        if not isinstance(answer, dict):
            raise RpcFailure(f"answered a call of {method} with something else than an object")
        outcome = _outcome(answer)
        if isinstance(outcome, RpcError):
            raise outcome
        return outcome

    async def batch(self, url: str, requests: Sequence[Request], timeout_s: float) -> list[Any]:
        """The results of several calls in their order; a refused one is its RpcError. Raises RpcFailure."""
        body = [_request(number, method, parameters) for number, (method, parameters) in enumerate(requests)]
        answers = await self._post(url, body, timeout_s)
        if isinstance(answers, dict):  # the whole batch was refused
            outcome = _outcome(answers)
            raise RpcFailure(f"refused a batch of {len(requests)}: {outcome}")
        if not isinstance(answers, list):
            raise RpcFailure("answered a batch with something else than a list")
        found = [answer for answer in answers if isinstance(answer, dict) and isinstance(answer.get("id"), int)]
        by_id = {answer["id"]: _outcome(answer) for answer in found}
        if any(number not in by_id for number in range(len(requests))):
            raise RpcFailure(f"answered {len(by_id)} calls of a batch of {len(requests)}")
        return [by_id[number] for number in range(len(requests))]

    async def _post(self, url: str, body: object, timeout_s: float) -> Any:
        session = self._session or self._open()
        # A caller's request keeps its id on the way to the validators; what nobody asked for has one of its own.
        request_id = REQUEST_ID.get() or f"{self._name}-{next(self._numbers)}"
        headers = {"Content-Type": "application/json", REQUEST_ID_HEADER: request_id}
        try:
            return await _exchange(session, url, orjson.dumps(body), headers, timeout_s)
        except RpcFailure as failure:
            log.debug("request %s to %s: %s", request_id, url, failure)
            raise

    def _open(self) -> aiohttp.ClientSession:
        # httpx takes 1,000 to 1,400 µs of CPU for a call of this kind, this client 180: docs/adr/0005.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections_max, limit_per_host=self._per_host_max),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # nobody was asked to compress, and a little can be made to unfold into much
            skip_auto_headers=("Accept-Encoding", "User-Agent"),
        )
        return self._session


async def _exchange(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str], timeout_s: float
) -> Any:
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with session.post(url, data=body, headers=headers, timeout=timeout, allow_redirects=False) as response:
            status, content = response.status, await _content(response)
    except TimeoutError:
        raise RpcFailure(f"no answer within {timeout_s:g} s") from None
    except aiohttp.ClientConnectorError as error:
        raise RpcFailure(f"cannot connect: {error.os_error.strerror or error.os_error}") from None
    except (aiohttp.ClientError, OSError) as error:
        raise RpcFailure(str(error) or type(error).__name__) from None
    if status != 200:
        raise RpcFailure(f"returned status {status}", status)
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise RpcFailure(f"answered with something else than JSON: {error}") from None


async def _content(response: aiohttp.ClientResponse) -> bytes:
    """The body, of which no validator may send more than fits in here. Raises RpcFailure."""
    parts, size = [], 0
    while part := await response.content.readany():
        parts.append(part)
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            response.close()
            raise RpcFailure(f"answered with more than {ANSWER_BYTES_MAX} bytes")
    return b"".join(parts)


def _request(number: int, method: str, parameters: Sequence[object]) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": list(parameters)}


def _outcome(answer: dict[str, Any]) -> Any:
    error = answer.get("error")
    if error is None:
        return answer.get("result")
    if not isinstance(error, dict):
        return RpcError(-32603, str(error)[:MESSAGE_CHARS_MAX])
    code, message = error.get("code"), str(error.get("message", ""))[:MESSAGE_CHARS_MAX]
    return RpcError(code if type(code) is int else -32603, message, error.get("data"))


def hex_int(value: object) -> int:
    """The integer of a JSON-RPC quantity of at most 256 bits. Raises RpcFailure."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise RpcFailure(f"{str(value)[:80]!r} is no quantity")


def hex_bytes(value: object) -> bytes:
    """The bytes of JSON-RPC data. Raises RpcFailure."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return bytes.fromhex(value[2:])
        except ValueError:
            pass
    raise RpcFailure(f"{str(value)[:80]!r} is no hex data")
