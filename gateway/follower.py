"""Follows the chain block by block, believing nothing that is not certified by the validators it knows."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from gateway.jsonrpc import RpcError, RpcFailure, hex_bytes, hex_int
from gateway.sets import ValidatorSets
from gateway.validators import NoValidator, Pool, Validator
from gateway.verify import FinalBlock, Head, NotProven, check_final, check_next, decode_final_block
from node.chain.block import Header, decode_header
from node.chain.domain import Domain
from node.chain.errors import PeerError
from node.chain.genesis import validators_hash
from node.consensus.certificate import Certificate

log = logging.getLogger(__name__)

BLOCKS_MAX = 64
JUMP_HEIGHTS = 2_000  # further behind than this, the head is taken by its certificate alone
PAUSE_S = 0.2
CHANGES_MAX = 4_096  # of the validators, in one jump
HELD_BACK_S = 1.0  # how long a validator may hold back a block that another one has


class HeldBack(PeerError):
    """A validator that does not serve a block that it says it has."""


class Follower:
    """Keeps `head`, the last block that this gateway has verified, and hands each verified block to `on_block`.

    After a jump over blocks that it did not see, `on_jump` is called instead: what was in flight has to be asked for.
    While `wants_blocks` says that nobody reads what is in blocks, they are neither decoded nor checked nor handed on:
    finality is the header's. Of a stranger's transfer that spares the gateway three quarters of its time.
    """

    def __init__(
        self,
        pool: Pool,
        domain: Domain,
        head: Head,
        sets: ValidatorSets,
        first_header: Header,
        *,
        poll_s: float,
        on_block: Callable[[FinalBlock], None],
        on_jump: Callable[[], None],
        wants_blocks: Callable[[], bool] = lambda: True,
    ) -> None:
        self._pool = pool
        self._domain = domain
        self._poll_s = poll_s
        self._on_block = on_block
        self._on_jump = on_jump
        self._wants_blocks = wants_blocks
        self._task: asyncio.Task[None] | None = None
        self._advanced = asyncio.Event()
        sets.override_after(head.header)  # given after the head was verified, as is usual: it comes to a lost quorum
        self.head = Head(head.header, sets.latest)
        self.sets = sets
        self.first_header = first_header  # that of block 0
        self.caught_up = False

    async def start(self) -> None:
        self._pool.set_size = len(self.head.validators)
        self._task = asyncio.create_task(self._run(), name="follower")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def wait_for(self, height: int, timeout_s: float) -> bool:
        """Whether the verified head reaches a height within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.head.header.number < height:
                    await self._advanced.wait()
        except TimeoutError:
            return False
        return True

    async def fetch(self, height: int) -> FinalBlock:
        """A checked block of the past or present. Raises NoValidator when no validator serves a provable one."""
        faults = []
        for validator in self._pool.ordered():
            try:
                blocks = await self._get_blocks(validator, height, 1, 0)
                if not blocks or blocks[0].header.number != height:
                    raise NotProven(f"did not serve block {height}")
                check_final(blocks[0], self.validators_at(height), self._domain)
            except (RpcFailure, RpcError, PeerError) as error:
                faults.append(f"{validator.node.node_id}: {error}")
            else:
                return blocks[0]
        raise NoValidator(f"no validator proves block {height}: " + "; ".join(faults))

    def validators_at(self, height: int) -> tuple[bytes, ...]:
        """The validators that decide a height, at most the one after the head."""
        return self.sets.at(height)

    async def blocks(self, validator: Validator, height: int, count: int = BLOCKS_MAX) -> list[FinalBlock]:
        """Blocks as one validator serves them, unchecked; fewer than `count` where they are many or large.

        Raises RpcFailure, RpcError or PeerError.
        """
        return await self._get_blocks(validator, height, count, 0)

    async def _run(self) -> None:
        while True:
            validator = self._choose()
            try:
                advanced = await self._step(validator)
            except (RpcFailure, RpcError) as error:
                log.debug("%s: %s", validator.node.node_id, error)
                await asyncio.sleep(PAUSE_S)
            except PeerError as error:
                # It lies or is broken: others are asked first from now on, and its word for a height counts for less.
                validator.faults += 1
                if not isinstance(error, HeldBack):
                    log.warning("⚠ %s serves what does not check: %s", validator.node.node_id, error)
                elif validator.faults == 1:
                    log.warning("⚠ %s %s", validator.node.node_id, error)
                await asyncio.sleep(PAUSE_S)
            except Exception:
                # A validator's doing or a mistake of ours: whoever stops following would never confirm anything again.
                validator.faults += 1
                log.exception("what %s serves cannot be followed", validator.node.node_id)
                await asyncio.sleep(PAUSE_S)
            else:
                self.caught_up = self.head.header.number >= self._pool.best_height()
                if not advanced and not self.caught_up:
                    await asyncio.sleep(PAUSE_S)

    def _choose(self) -> Validator:
        """The one that is furthest ahead, among those that answer and were caught at the fewest faults."""
        mine = self.head.header.number
        return min(
            self._pool.ordered(),  # stable: among equals the order of the pool holds
            key=lambda one: (not one.reachable, one.faults, -max(one.height - mine, 0) // BLOCKS_MAX),
        )

    async def _step(self, validator: Validator) -> bool:
        """Ask one validator for what follows the head; whether there was anything."""
        height = self.head.header.number
        if validator.height - height > JUMP_HEIGHTS:
            return await self._jump(validator)
        claimed = validator.height
        items = await self._follow(validator, height + 1)
        if not items and claimed > height:
            raise HeldBack(f"says that it has block {claimed}, and does not serve block {height + 1}")
        for item in items:
            wanted = self._wants_blocks()
            block = _block(item, contents=wanted)
            check_next(self.head, block, self._domain, contents=wanted)
            await self._advance(block, validator)
            if wanted:
                self._on_block(block)
            elif self._wants_blocks():  # since a moment ago; what was sent before a restart may be in this block
                self._on_jump()
            await asyncio.sleep(0)
        return bool(items)

    async def _follow(self, validator: Validator, height: int) -> list[Any]:
        """Blocks from `height` on as they are served; waits for the first, unless another validator gets ahead."""
        loop = asyncio.get_running_loop()
        poll = asyncio.create_task(self._get_items(validator, height, BLOCKS_MAX, self._poll_s))
        ahead_since_s: float | None = None
        try:
            while not poll.done():
                # Once somebody has the block, an honest and quick validator is about to answer; another is left.
                if ahead_since_s is None and self._pool.best_height() >= height:
                    ahead_since_s = loop.time()
                if not validator.reachable:
                    raise RpcFailure("cannot be reached any more")
                if ahead_since_s and loop.time() - ahead_since_s > HELD_BACK_S:
                    if validator.height >= height:
                        raise HeldBack(f"holds back block {height}")
                    raise RpcFailure("is behind another one, or that one lies")
                change = asyncio.create_task(self._pool.changed())
                try:
                    await asyncio.wait((poll, change), timeout=HELD_BACK_S, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    change.cancel()
            return poll.result()
        finally:
            if not poll.done():
                poll.cancel()
                await asyncio.gather(poll, return_exceptions=True)

    async def _jump(self, validator: Validator) -> bool:
        """Take the validator's head by its certificate, and what changed the validators up to it by theirs."""
        blocks = await self._get_blocks(validator, validator.height, 1, 0)
        if not blocks:
            raise HeldBack(f"says that it has block {validator.height}, and does not serve it")
        header = blocks[0].header
        if header.number <= self.head.header.number:
            return False
        sets = self.sets.copy()
        await self._prove_changes(sets, validator, header.number - 1)
        check_final(blocks[0], sets.decide(header), self._domain)
        before, self.sets = self.sets, sets
        try:
            await self._advance(blocks[0], validator)
        except BaseException:
            self.sets = before  # the head is still the old one, and later sets do not fit it
            raise
        log.info("took block %d by its certificate", header.number)
        self._on_jump()
        return True

    async def _prove_changes(self, sets: ValidatorSets, validator: Validator, last: int) -> None:
        """Bring `sets` up to what block `last` names; each change is sealed by the validators before it."""
        height = self.head.header.number + 1
        taken = 0
        while height <= last:
            answer = await self._pool.call(validator, "poa_getValidatorChanges", (hex(height), hex(last)))
            if not isinstance(answer, list) or (taken := taken + len(answer)) > CHANGES_MAX:
                raise NotProven(f"answered poa_getValidatorChanges with something else than {CHANGES_MAX} changes")
            if not answer:
                return
            for item in answer:
                header, certificate, validators = _change(item)
                if not height <= header.number <= last:
                    raise NotProven(f"gave a change in block {header.number} that was not asked for")
                sets.prove(header, certificate, validators, self._domain)
                height = header.number + 1

    async def _advance(self, block: FinalBlock, validator: Validator) -> None:
        validators = self.sets.latest
        if validators_hash(validators) != block.header.extra_data:
            # The set changes with the next height: the header says to which, the validator says who that is.
            number = hex(block.header.number)
            answer = await self._pool.call(validator, "poa_getValidators", (number,))
            named = answer.get("next") if isinstance(answer, dict) else None
            if not isinstance(named, list):
                raise NotProven("answered poa_getValidators without the next validators")
            validators = tuple(hex_bytes(address) for address in named)
            self.sets.note(block.header, validators)
            log.info("the validators change to %d at height %d", len(validators), block.header.number + 1)
        self.sets.override_after(block.header)
        self._pool.set_size = len(self.sets.latest)
        self.head = Head(block.header, self.sets.latest)
        self._advanced.set()
        self._advanced = asyncio.Event()

    async def _get_blocks(self, validator: Validator, height: int, count: int, wait_s: float) -> list[FinalBlock]:
        return [_block(item) for item in await self._get_items(validator, height, count, wait_s)]

    async def _get_items(self, validator: Validator, height: int, count: int, wait_s: float) -> list[Any]:
        parameters = (hex(height), hex(count), hex(int(wait_s * 1000)))
        answer = await self._pool.call(validator, "poa_getBlocks", parameters, wait_s + 2.0)
        if not isinstance(answer, list) or len(answer) > count:
            raise NotProven(f"answered poa_getBlocks with something else than at most {count} blocks")
        return answer


def _block(item: Any, *, contents: bool = True) -> FinalBlock:
    """A block as `poa_getBlocks` gives it. Raises NotProven, RpcFailure or InvalidBlock when it has another form.

    Without `contents` it has no transactions and no receipts.
    """
    try:
        return decode_final_block(
            hex_bytes(item["header"]),
            [hex_bytes(raw) for raw in item["transactions"]] if contents else (),
            [hex_bytes(receipt) for receipt in item["receipts"]] if contents else (),
            _certificate(item["certificate"]),
        )
    except (KeyError, TypeError) as error:
        raise NotProven(f"a served block has another form: {error!r}") from None


def _certificate(seals: Any) -> Certificate:
    return Certificate(
        hex_int(seals["height"]),
        hex_int(seals["round"]),
        hex_bytes(seals["blockHash"]),
        tuple(hex_bytes(seal) for seal in seals["seals"]),
    )


def _change(item: Any) -> tuple[Header, Certificate, tuple[bytes, ...]]:
    """A change as `poa_getValidatorChanges` gives it. Raises NotProven, RpcFailure or InvalidBlock."""
    try:
        validators = tuple(hex_bytes(address) for address in item["validators"])
        return decode_header(hex_bytes(item["header"])), _certificate(item["certificate"]), validators
    except (KeyError, TypeError) as error:
        raise NotProven(f"a served change of the validators has another form: {error!r}") from None
