"""From the bytes of one message to the bytes of its answer: find the method, read parameters, call, catch, encode."""

import asyncio
import inspect
import logging
import time
from collections.abc import Collection, Mapping, Sequence

from node.chain.errors import InvalidTransaction
from node.rpc import jsonrpc
from node.rpc.jsonrpc import Invalid, Request, RpcError
from node.rpc.limits import Limits
from node.rpc.methods import Method
from node.rpc.pacing import Pace
from node.rpc.until import until
from serving.distribution import Calls
from serving.logs import REQUEST_ID

logger = logging.getLogger(__name__)

UNKNOWN = "unknown"  # stands for whatever a caller made up, so that names stay few


class Dispatcher:
    """Answers JSON-RPC messages with a fixed registry of methods.

    Args:
        elsewhere: names of methods that the operators' listener answers, and not this one.
        calls: where it is noted how long each took.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        limits: Limits,
        elsewhere: Collection[str] = (),
        calls: Calls | None = None,
    ) -> None:
        self._methods = methods
        self._limits = limits
        self._elsewhere = elsewhere
        self._calls = calls or Calls()

    async def answer(self, body: bytes) -> bytes | None:
        """The answer to one message, or None when it held nothing but notifications."""
        limits = self._limits
        message = jsonrpc.read(body, batch_items_max=limits.batch_items_max, depth_max=limits.json_depth_max)
        deadline_s = asyncio.get_running_loop().time() + limits.call_timeout_s
        if not message.is_batch:
            return await self._answer_one(message.items[0], limits.response_bytes_max, deadline_s)
        return await self._answer_batch(message.items, deadline_s)

    async def _answer_one(self, item: Request | Invalid, bytes_max: int, deadline_s: float) -> bytes | None:
        if isinstance(item, Invalid):
            return jsonrpc.write_error(item.id, item.error)
        return _write(item, await self._outcome(item, deadline_s), bytes_max)

    async def _answer_batch(self, items: Sequence[Request | Invalid], deadline_s: float) -> bytes | None:
        pace = Pace()
        bulk = await self._bulk_outcomes(items, deadline_s)
        responses: list[bytes] = []
        left = self._limits.response_bytes_max
        for position, item in enumerate(items):
            if position in bulk and isinstance(item, Request):
                response = _write(item, bulk[position], left)
            else:
                response = await self._answer_one(item, left, deadline_s)
            if response is not None:
                responses.append(response)
                left = max(0, left - len(response))
            await pace.breathe()
        return jsonrpc.write_batch(responses) if responses else None

    async def _outcome(self, request: Request, deadline_s: float) -> object:
        """The result of a request; an RpcError where that is the outcome."""
        began_s = time.perf_counter()
        outcome = await self._called(request, deadline_s)
        name = request.method if request.method in self._methods else UNKNOWN
        self._note(name, began_s, int(isinstance(outcome, RpcError)), 1)
        return outcome

    def _note(self, name: str, began_s: float, failures: int, count: int) -> None:
        seconds = time.perf_counter() - began_s
        self._calls.note(name, seconds, failures=failures)
        if logger.isEnabledFor(logging.DEBUG) and REQUEST_ID.get():  # whoever gives an id wants to find it
            logger.debug("%d × %s in %.1f ms, %d failed", count, name, seconds * 1000, failures)

    async def _called(self, request: Request, deadline_s: float) -> object:
        try:
            method, arguments = self._resolve(request)
            if method.bulk is not None:
                return (await self._call_bulk(method, [arguments], deadline_s))[0]
            if asyncio.get_running_loop().time() >= deadline_s:  # one that never waits would not notice
                raise TimeoutError
            result = method.handler(*arguments)
            return await until(deadline_s, result) if inspect.iscoroutine(result) else result
        except Exception as error:
            return _as_rpc_error(error, request.method)

    async def _bulk_outcomes(self, items: Sequence[Request | Invalid], deadline_s: float) -> dict[int, object]:
        """The outcomes, by position, of the requests whose method answers many of one batch together."""
        outcomes: dict[int, object] = {}
        groups: dict[str, list[tuple[int, list[object]]]] = {}
        for position, item in enumerate(items):
            if isinstance(item, Invalid) or item.method not in self._methods:
                continue
            method = self._methods[item.method]
            if method.bulk is None:
                continue
            try:
                groups.setdefault(item.method, []).append((position, method.arguments(item.params)))
            except RpcError as error:
                outcomes[position] = error
        for name, calls in groups.items():
            began_s = time.perf_counter()
            try:
                results = await self._call_bulk(self._methods[name], [arguments for _, arguments in calls], deadline_s)
            except Exception as error:
                results = [_as_rpc_error(error, name)] * len(calls)
            self._note(name, began_s, sum(isinstance(result, RpcError) for result in results), len(results))
            outcomes.update({position: result for (position, _), result in zip(calls, results, strict=True)})
        return outcomes

    async def _call_bulk(
        self, method: Method, calls: Sequence[Sequence[object]], deadline_s: float
    ) -> Sequence[object]:
        assert method.bulk is not None
        results = await until(deadline_s, method.bulk(calls))
        return [_as_rpc_error(result, method.name) if isinstance(result, Exception) else result for result in results]

    def _resolve(self, request: Request) -> tuple[Method, list[object]]:
        method = self._methods.get(request.method)
        if method is None:
            name = request.method[:80]
            if request.method in self._elsewhere:
                raise RpcError(
                    jsonrpc.METHOD_NOT_FOUND,
                    f"the method {name} is for operators: answered on the listener of [rpc.operators], for a token",
                )
            raise RpcError(jsonrpc.METHOD_NOT_FOUND, f"the method {name} does not exist/is not available")
        return method, method.arguments(request.params)


def _write(request: Request, outcome: object, bytes_max: int) -> bytes | None:
    if request.is_notification:
        return None
    if isinstance(outcome, RpcError):
        return jsonrpc.write_error(request.id, outcome)
    response = jsonrpc.write_result(request.id, outcome)
    if len(response) > bytes_max:
        error = RpcError(jsonrpc.RESPONSE_TOO_LARGE, f"response too large: ask for less, {bytes_max} bytes are left")
        return jsonrpc.write_error(request.id, error)
    return response


def _as_rpc_error(error: Exception, method: str) -> RpcError:
    """What the caller is told. What is our own fault is told in the log, not to the caller."""
    if isinstance(error, RpcError):
        return error
    if isinstance(error, InvalidTransaction):
        return RpcError(jsonrpc.SERVER_ERROR, str(error))
    if isinstance(error, TimeoutError):
        return RpcError(jsonrpc.TIMED_OUT, "request timed out")
    logger.error("JSON-RPC method %s failed", method, exc_info=error)
    return RpcError(jsonrpc.INTERNAL_ERROR, "internal error")
