"""What the engine knows of the other validators, across heights: who is there, who is silent, who is behind."""

from collections.abc import Sequence
from typing import Any

from node.consensus.messages import Message

TRACKED_MAX = 4096  # addresses; beyond, nothing new is noted of addresses that are not known yet


class Peers:
    """Connections, silence and reported heads by address."""

    def __init__(self) -> None:
        self._connected: dict[bytes, None] = {}
        self._missed: dict[bytes, None] = {}  # missed their turn to propose, and have been silent since
        self._latest: dict[bytes, Message] = {}  # the newest statement of each, bare
        self._told: dict[bytes, tuple[int, int]] = {}  # (height, ms) of the last final height offered to each
        self._behind: dict[bytes, int] = {}  # the highest future height each was reported to speak of
        self.heard_ms: dict[bytes, int] = {}
        self.heads: dict[bytes, int] = {}

    def connect(self, address: bytes) -> None:
        if len(self._connected) < TRACKED_MAX:
            self._connected[address] = None
        self._told.pop(address, None)

    def disconnect(self, address: bytes) -> None:
        self._connected.pop(address, None)

    def is_connected(self, address: bytes) -> bool:
        return address in self._connected

    def hear(self, message: Message, sender: bytes, now_ms: int) -> None:
        """Note an authentic message of a current or future height from a validator."""
        self._missed.pop(sender, None)
        self.heard_ms[sender] = now_ms
        held = self._latest.get(sender)
        statement = message.statement
        if held is None or (held.statement.height, held.statement.round) <= (statement.height, statement.round):
            self._latest[sender] = message.bare

    def latest(self, address: bytes) -> Message | None:
        """The statement of the highest (height, round) held under this validator's signature, bare.

        A newcomer is shown its own, so that it finds out when its guard is stale; the signature proves it.
        """
        return self._latest.get(address)

    def miss_turn(self, address: bytes) -> None:
        self._missed[address] = None

    def is_dead(self, address: bytes) -> bool:
        """Whether a proposer deserves only a short timer: not connected, or silent since it missed its turn."""
        return address not in self._connected or address in self._missed

    def report_head(self, peer: bytes, height: int) -> None:
        if peer in self.heads or len(self.heads) < TRACKED_MAX:
            self.heads[peer] = height

    def quorum_head(self, others: Sequence[bytes], needed: int) -> int | None:
        """The highest head among `others`, once as many as `needed` of them have reported one."""
        reported = [self.heads[other] for other in others if other in self.heads]
        return max(reported) if len(reported) >= needed else None

    def is_news(self, peer: bytes, height: int) -> bool:
        """Whether this is a higher future height than any that the peer was seen to speak of."""
        if height <= self._behind.get(peer, -1):
            return False
        self._behind[peer] = height
        return True

    def may_tell(self, peer: bytes, height: int, now_ms: int, interval_ms: int) -> bool:
        """Whether to offer the peer this final height: at once if higher than the last one, else not too often."""
        told_height, told_ms = self._told.get(peer, (-1, now_ms - interval_ms))
        if height <= told_height and now_ms - told_ms < interval_ms:
            return False
        self._told[peer] = (height, now_ms)
        return True

    def retain(self, validators: Sequence[bytes]) -> None:
        """Forget those that are neither validators now nor connected, which bounds what is remembered."""
        tables: tuple[dict[bytes, Any], ...] = (
            self._missed,
            self._latest,
            self._told,
            self._behind,
            self.heard_ms,
            self.heads,
        )
        for table in tables:
            for address in [each for each in table if each not in validators and each not in self._connected]:
                del table[address]
