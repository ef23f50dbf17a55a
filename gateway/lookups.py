"""Asks validators which batches are anchored: many questions to a call, since anchors come many at a time."""

import asyncio
from itertools import islice

from gateway.calls import anchor_of_call
from gateway.jsonrpc import Request, RpcError, RpcFailure, hex_bytes
from gateway.validators import REVERTED, Pool
from node.chain.contracts.addresses import ANCHORS

AT_ONCE = 250  # questions to a call
_TO = "0x" + ANCHORS.hex()


class AnchorLookups:
    """One call is under way at a time; what is asked meanwhile goes together into the next one."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: dict[bytes, asyncio.Future[bool | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def is_told(self, batch_id: bytes) -> bool | None:
        """Whether one validator says that there is an anchor of a batch; None where nobody says. Not proven."""
        future = self._waiting.get(batch_id)
        if future is None:
            future = self._waiting[batch_id] = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._ask(), name="anchor lookups")
        return await asyncio.shield(future)  # who loses patience takes the answer from nobody else

    async def _ask(self) -> None:
        while self._waiting:
            asked = dict(islice(self._waiting.items(), AT_ONCE))
            for batch_id in asked:
                del self._waiting[batch_id]
            told = await self._told(list(asked))
            for future, is_there in zip(asked.values(), told, strict=True):
                future.set_result(is_there)

    async def _told(self, batch_ids: list[bytes]) -> list[bool | None]:
        calls: list[Request] = []
        for batch_id in batch_ids:
            call = {"to": _TO, "data": "0x" + anchor_of_call(batch_id).hex()}
            calls.append(("eth_call", (call, "latest")))
        for validator in self._pool.ordered():
            if not validator.reachable and validator.probed:
                continue
            try:
                return [_is_there(answer) for answer in await self._pool.batch(validator, calls)]
            except RpcFailure:
                continue
        return [None] * len(batch_ids)


def _is_there(answer: object) -> bool | None:
    """`found`, the first word of what anchorOf returns. Raises RpcFailure where it is something else."""
    if isinstance(answer, RpcError):
        return False if answer.code == REVERTED else None
    return any(hex_bytes(answer)[:32])
