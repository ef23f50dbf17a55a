"""The validators that the gateway talks to: how each is doing, whom to ask first, and what level follows."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from gateway.jsonrpc import Request, RpcClient, RpcError, RpcFailure, hex_bytes, hex_int
from node.chain.domain import Domain
from node.chain.errors import PeerError
from node.consensus.quorum import quorum

log = logging.getLogger(__name__)

T = TypeVar("T")

LAG_HEIGHTS_MAX = 5  # behind by more is degraded
SLOW_MS = 1_000.0
REVERTED = 3  # JSON-RPC error code of a call that a contract refused
HEIGHT_MAX = (1 << 53) - 1
ADDRESS_BYTES = 20
PROBE_S_MAX = 1.0
FAILURES_KEPT = 8  # of the last probes: one that partly fails is degraded


class ValidatorStatus(Enum):
    """How a validator is doing. DEGRADED is behind, slow or partly failing."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class ValidatorNode:
    """Where a validator is. `p2p_url` is shown and never dialled."""

    node_id: str
    rpc_url: str
    p2p_url: str


DEFAULT_VALIDATORS = tuple(
    ValidatorNode(f"validator-{number}", f"http://127.0.0.1:{8000 + number}", f"127.0.0.1:{30302 + number}")
    for number in (1, 2, 3)
)


class NoValidator(RuntimeError):
    """No validator, or too few, could be asked; the message says what each one said."""


@dataclass(eq=False)
class Validator:
    """One validator and what the last probes and calls showed. `latency_ms` is that of the last answered probe."""

    node: ValidatorNode
    status: ValidatorStatus = ValidatorStatus.UNREACHABLE
    height: int = -1
    address: bytes = b""
    latency_ms: float | None = None
    last_error: str | None = None
    last_seen_at: float | None = None  # seconds since 1970
    probed: bool = False
    reachable: bool = False  # the last probe or call got an answer that makes sense
    busy: int = 0  # calls under way
    recent: list[bool] = field(default_factory=list)  # of the last probes: answered or not
    faults: int = 0  # blocks that did not check, or were held back


class Pool:
    """Probes every validator, keeps their status, and asks the least loaded of the best first."""

    def __init__(
        self,
        nodes: Iterable[ValidatorNode],
        rpc: RpcClient,
        domain: Domain,
        *,
        timeout_s: float,
        probe_interval_s: float,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.validators = [Validator(node) for node in nodes]
        self._rpc = rpc
        self._domain = domain
        self._timeout_s = timeout_s
        self._probe_interval_s = probe_interval_s
        self._now_s = now_s
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._summary = ""
        self.set_size = len(self.validators)  # of the deciding set, once it is known

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._watch(validator)) for validator in self.validators]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reachable_count(self) -> int:
        return sum([validator.reachable for validator in self.validators])  # asked for each record: a list is quicker

    def has_quorum(self) -> bool:
        """Whether as many validators as decide a block can be reached from here."""
        return self.reachable_count() >= quorum(self.set_size)

    def level(self) -> int:
        """1: all validators; 2: a quorum; 3: less."""
        reached = self.reachable_count()
        if reached < quorum(self.set_size):
            return 3
        return 1 if reached == len(self.validators) else 2

    def best_height(self) -> int:
        """The highest height that a reachable validator names, of those that were caught at the fewest faults."""
        reachable = [validator for validator in self.validators if validator.reachable]
        least = min((validator.faults for validator in reachable), default=0)
        return max((validator.height for validator in reachable if validator.faults == least), default=-1)

    def ordered(self) -> list[Validator]:
        """Whom to ask first: healthy before degraded before unreachable, those with few faults, the least busy ones."""
        rank = {ValidatorStatus.HEALTHY: 0, ValidatorStatus.DEGRADED: 1, ValidatorStatus.UNREACHABLE: 2}
        return sorted(
            self.validators,
            key=lambda one: (rank[one.status], one.faults, one.busy, -one.height // 4, one.latency_ms or 0.0),
        )

    async def changed(self) -> None:
        """Return at the next change of any validator's status or height."""
        await self._changed.wait()

    async def call(
        self, validator: Validator, method: str, parameters: Sequence[object], timeout_s: float | None = None
    ) -> Any:
        """Ask one validator. Raises RpcFailure (which marks it unreachable where it did not answer) or RpcError."""
        validator.busy += 1
        try:
            url = validator.node.rpc_url
            return await self._rpc.call(url, method, parameters, timeout_s or self._timeout_s)
        except RpcFailure as failure:
            self._failed(validator, failure)
            raise
        finally:
            validator.busy -= 1

    async def batch(
        self, validator: Validator, requests: Sequence[Request], timeout_s: float | None = None
    ) -> list[Any]:
        """Ask one validator several things at once; refused ones come back as RpcError. Raises RpcFailure."""
        validator.busy += 1
        try:
            return await self._rpc.batch(validator.node.rpc_url, requests, timeout_s or self._timeout_s)
        except RpcFailure as failure:
            self._failed(validator, failure)
            raise
        finally:
            validator.busy -= 1

    async def ask(
        self, method: str, parameters: Sequence[object], *, read: Callable[[Any], T] = lambda answer: answer
    ) -> T:
        """What `read` makes of the first answer that it takes (it raises RpcFailure for one that is none).

        Raises NoValidator, or an RpcError when all refuse. The refusal of a contract (code 3) is an answer; any other
        makes the next validator the one to ask.
        """
        faults = []
        refusal: RpcError | None = None
        for validator in self.ordered():
            if not validator.reachable and validator.probed and self.reachable_count():
                continue
            try:
                return read(await self.call(validator, method, parameters))
            except RpcFailure as failure:
                faults.append(f"{validator.node.node_id}: {failure}")
            except RpcError as error:
                if error.code == REVERTED:
                    raise
                refusal = error
        if refusal is not None:
            raise refusal
        raise NoValidator("no validator answers: " + "; ".join(faults))

    async def ask_checked(self, method: str, parameters: Sequence[object], check: Callable[[Any], T]) -> T:
        """What `check` makes of the first answer that it takes: it raises for one that proves nothing.

        Raises NoValidator when there is no such answer.
        """
        faults = []
        for validator in self.ordered():
            if not validator.reachable and validator.probed and self.reachable_count():
                continue
            try:
                return check(await self.call(validator, method, parameters))
            except (RpcFailure, RpcError, PeerError, KeyError, TypeError, ValueError) as error:
                faults.append(f"{validator.node.node_id}: {error}")
        raise NoValidator(f"no validator proves an answer to {method}: " + "; ".join(faults))

    async def ask_all(self, method: str, parameters: Sequence[object]) -> list[Any]:
        """The answers of all that answer, refusals as RpcError. Raises NoValidator when nobody does.

        Who did not answer lately is not waited for, unless the others' answers are no quorum.
        """
        rest = [one for one in self.validators if one.probed and not one.reachable]
        answers = await self._answers([one for one in self.validators if one not in rest], method, parameters)
        if sum(not isinstance(answer, RpcFailure) for answer in answers) < quorum(self.set_size):
            answers += await self._answers(rest, method, parameters)
        given = [answer for answer in answers if not isinstance(answer, RpcFailure)]
        if not given:
            raise NoValidator("no validator answers: " + "; ".join(map(str, answers)))
        return given

    async def _answers(self, asked: Sequence[Validator], method: str, parameters: Sequence[object]) -> list[Any]:
        """What each of these says; RpcError and RpcFailure in place of an answer."""
        calls = (self.call(validator, method, parameters) for validator in asked)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, (RpcFailure, RpcError)):
                raise answer
        return answers

    async def ask_quorum(self, method: str, parameters: Sequence[object]) -> list[Any]:
        """The answers of at least a quorum, refusals as RpcError. Raises NoValidator when fewer answer."""
        given = await self.ask_all(method, parameters)
        needed = quorum(self.set_size)
        if len(given) < needed:
            raise NoValidator(
                f"{len(given)} of {len(self.validators)} validators answer, {needed} are needed to be sure"
            )
        return given

    async def probe_all(self) -> None:
        """Probe every validator now."""
        await asyncio.gather(*(self.probe(validator) for validator in self.validators))

    async def probe(self, validator: Validator) -> None:
        """Ask one validator how it is, and set its status."""
        begin = time.monotonic()
        try:
            status = await self._rpc.call(validator.node.rpc_url, "poa_status", (), min(self._timeout_s, PROBE_S_MAX))
            if not isinstance(status, dict) or "height" not in status:
                raise RpcFailure("answered poa_status with something else than a status")
            genesis_hash = hex_bytes(status.get("genesisHash"))
            if genesis_hash != self._domain.genesis_hash:
                raise RpcFailure(f"belongs to another network (genesis 0x{genesis_hash.hex()})")
            height, address = hex_int(status["height"]), hex_bytes(status.get("address"))
            if height > HEIGHT_MAX or len(address) != ADDRESS_BYTES:
                raise RpcFailure("answered poa_status with a height or an address that there cannot be")
            validator.height, validator.address = height, address
        except RpcError as error:
            self._failed(validator, RpcFailure(f"refuses poa_status: {error}"))
            return
        except RpcFailure as failure:
            self._failed(validator, failure)
            return
        validator.latency_ms = (time.monotonic() - begin) * 1000
        validator.last_seen_at = self._now_s()
        _note(validator, True)
        validator.reachable = True
        behind = self.best_height() - validator.height > LAG_HEIGHTS_MAX
        partly = validator.recent.count(False) * 4 >= FAILURES_KEPT
        slow = validator.latency_ms > SLOW_MS
        degraded = behind or partly or slow
        if not degraded:
            validator.last_error = None
        self._set(validator, ValidatorStatus.DEGRADED if degraded else ValidatorStatus.HEALTHY)

    async def _watch(self, validator: Validator) -> None:
        pause_s = self._probe_interval_s
        while True:
            await self.probe(validator)
            # A dead validator is probed less and less often, up to eight times the interval or 2 s.
            down = not validator.reachable
            pause_s = min(pause_s * 2, self._probe_interval_s * 8, 2.0) if down else self._probe_interval_s
            await asyncio.sleep(pause_s)

    def _failed(self, validator: Validator, failure: RpcFailure) -> None:
        validator.last_error = str(failure)
        _note(validator, False)
        validator.reachable = False
        # One that answers at all, if with an error, is not gone; it helps nobody either way.
        status = ValidatorStatus.DEGRADED if failure.status else ValidatorStatus.UNREACHABLE
        self._set(validator, status)

    def _set(self, validator: Validator, status: ValidatorStatus) -> None:
        before, validator.status = validator.status, status
        first, validator.probed = not validator.probed, True
        self._changed.set()
        self._changed = asyncio.Event()
        if before is status and not first:
            return
        name = validator.node.node_id
        if status is ValidatorStatus.HEALTHY:
            log.info("✓ %s is healthy", name)
        elif status is ValidatorStatus.DEGRADED:
            log.warning("⚠ %s %s", name, validator.last_error or "is behind or slow")
        else:
            log.warning("✗ %s is unreachable: %s", name, validator.last_error)
        healthy = sum(one.status is ValidatorStatus.HEALTHY for one in self.validators)
        summary = f"{healthy}/{len(self.validators)}"
        if summary != self._summary and all(one.probed for one in self.validators):
            self._summary = summary
            log.info("Validator health check: %s healthy", summary)


def _note(validator: Validator, answered: bool) -> None:
    validator.recent.append(answered)
    del validator.recent[:-FAILURES_KEPT]
