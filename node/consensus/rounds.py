"""What belongs to the current round of a height, and is forgotten when the next begins."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from node.chain.block import Block
from node.consensus.messages import NOTHING_ATTACHED, Kind, Message, SignedStatement


@dataclass(slots=True)
class CurrentRound:
    """One round, as this node lives it. Times are monotonic milliseconds."""

    number: int
    sent_ms: int  # when its messages were last sent to everyone; at first, when it began
    retry_ms: int  # no block is asked for before
    sent_times: int = 0
    timer_ms: int | None = None  # when its timer started
    proposal: Message | None = None  # the one accepted
    block: Block | None = None  # the proposal's, with the body that its hash names
    fresh: bool = True  # no quorum has prepared the block before
    awaited: tuple[SignedStatement, ...] | None = None  # what justifies the block that is being built
    own: dict[Kind, Message] = field(default_factory=dict)  # this node's signed messages of this round

    def keep_own(self, message: Message) -> None:
        """Keep an own message, to say it again; one that came back bare does not replace the whole."""
        kind = message.statement.kind
        held = self.own.get(kind)
        if message.statement.round == self.number and (held is None or held.attachments is NOTHING_ATTACHED):
            self.own[kind] = message

    def current(self) -> Iterator[Message]:
        """The own messages in the order in which they were made."""
        for kind in (Kind.ROUND_CHANGE, Kind.PROPOSAL, Kind.PREPARE, Kind.COMMIT):
            if kind in self.own:
                yield self.own[kind]
