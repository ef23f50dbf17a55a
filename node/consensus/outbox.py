"""Collects what one step of the engine asks for, and hands it out as one `Ready`."""

from node.chain.block import Block
from node.consensus.certificate import Certificate
from node.consensus.events import Behind, Build, Decided, Lagging, Ready, Refused, Send, Validate
from node.consensus.evidence import Evidence
from node.consensus.messages import Message, Unsigned


class Outbox:
    """The mutable side of `Ready`, for one step."""

    def __init__(self) -> None:
        self._sign: list[Unsigned] = []
        self._send: list[Send] = []
        self._build: Build | None = None
        self._validate: list[Validate] = []
        self._decided: Decided | None = None
        self._behind: Behind | None = None
        self._lagging: list[Lagging] = []
        self._evidence: list[Evidence] = []
        self._refused: list[Refused] = []

    def sign(self, unsigned: Unsigned) -> None:
        self._sign.append(unsigned)

    def send(self, message: Message, to: bytes | None) -> None:
        self._send.append(Send(message, to))

    def build(self, height: int, round_: int) -> None:
        self._build = Build(height, round_)

    def validate(self, block: Block, *, fresh: bool) -> None:
        self._validate.append(Validate(block, fresh))

    def decide(self, block: Block, certificate: Certificate) -> None:
        self._decided = Decided(block, certificate)

    def behind(self, peer: bytes, height: int) -> None:
        if self._behind is None or height > self._behind.height:
            self._behind = Behind(peer, height)

    def lagging(self, peer: bytes, height: int) -> None:
        self._lagging.append(Lagging(peer, height))

    def evidence(self, evidence: Evidence) -> None:
        self._evidence.append(evidence)

    def refuse(self, peer: bytes, reason: str) -> None:
        self._refused.append(Refused(peer, reason))

    def ready(self, guard: tuple[bytes, ...]) -> Ready:
        """Everything collected, with the guard's record of this step."""
        return Ready(
            guard=guard,
            sign=tuple(self._sign),
            send=tuple(self._send),
            build=self._build,
            validate=tuple(self._validate),
            decided=self._decided,
            behind=self._behind,
            lagging=tuple(self._lagging),
            evidence=tuple(self._evidence),
            refused=tuple(self._refused),
        )
