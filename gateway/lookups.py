"""Asks validators which batches are anchored: many questions to a call, since anchors come many at a time."""

import asyncio
from itertools import islice

from gateway.jsonrpc import RpcError, RpcFailure
from gateway.validators import Pool

AT_ONCE = 250  # questions to a call


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
        """For each in order. Asked of the log: a view of the contract would cost a validator twenty times as much."""
        ids = ["0x" + batch_id.hex() for batch_id in batch_ids]
        for validator in self._pool.ordered():
            if not validator.reachable and validator.probed:
                continue
            try:
                indexes = await self._pool.call(validator, "poa_getLogIndexes", ("anchors", ids))
            except (RpcFailure, RpcError):
                continue
            if isinstance(indexes, list) and len(indexes) == len(ids):
                return [index is not None for index in indexes]
        return [None] * len(batch_ids)
