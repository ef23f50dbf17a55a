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
        self._waiting: dict[bytes, list[asyncio.Future[bool | None]]] = {}  # one future for each who asks
        self._task: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def is_told(self, batch_id: bytes, within_s: float) -> bool | None:
        """Whether one validator says that there is an anchor of a batch; None where nobody says in time. Not proven."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool | None] = loop.create_future()
        self._waiting.setdefault(batch_id, []).append(future)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._ask(), name="anchor lookups")
        timer = loop.call_later(within_s, _answer, future, None)
        try:
            return await future
        finally:
            timer.cancel()
            self._forget(batch_id, future)

    def _forget(self, batch_id: bytes, future: "asyncio.Future[bool | None]") -> None:
        """Ask nobody for those who lost patience: behind slow validators, they would be ever more."""
        waiting = self._waiting.get(batch_id)
        if waiting is not None and future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._waiting[batch_id]

    async def _ask(self) -> None:
        while self._waiting:
            asked = dict(islice(self._waiting.items(), AT_ONCE))
            for batch_id in asked:
                del self._waiting[batch_id]
            told = await self._told(list(asked))
            for futures, is_there in zip(asked.values(), told, strict=True):
                for future in futures:
                    _answer(future, is_there)

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


def _answer(future: "asyncio.Future[bool | None]", is_there: bool | None) -> None:
    if not future.done():  # who asked may have lost patience, or be gone
        future.set_result(is_there)
