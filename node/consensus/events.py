"""What the engine is told (events) and what it asks of its shell (`Ready`); all of it plain data."""

from dataclasses import dataclass, fields
from typing import TypeAlias

from node.chain.block import Block, Header
from node.consensus.certificate import Certificate
from node.consensus.evidence import Evidence
from node.consensus.messages import Message, Unsigned
from node.consensus.override import Override


@dataclass(frozen=True, slots=True)
class Policy:
    """What a node is free to choose: none of it decides what is valid. Milliseconds are monotonic time."""

    block_interval_min_ms: int = 100  # from the parent to the next block when there is work
    block_interval_empty_ms: int = 5_000  # from the parent to an empty block
    round_timeout_ms: int = 1_000  # of round 0; doubles with each round up to eight times
    dead_proposer_timeout_ms: int = 100  # for a proposer that is gone, or silent since it missed its turn
    lagging_grace_ms: int = 250  # how long late messages of the height just decided are no sign of lagging
    future_heights_max: int = 3  # heights beyond the current one whose messages are kept
    future_messages_max: int = 32  # kept for each validator
    future_bytes_max: int = 16 * 2**20  # kept for each validator
    rounds_max: int = 16  # rounds of the current height whose statements are kept for each validator
    blocks_max: int = 4  # blocks of rounds gone by that may yet turn out to be final


@dataclass(frozen=True, slots=True)
class Head:
    """The newest final block that is durable here, and the sorted validators that decide the height after it.

    `override` is there where operators, and not the block itself, have named these validators.
    """

    header: Header
    validators: tuple[bytes, ...]
    override: Override | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """A message and the address that `authenticate` recovered from it. One's own come back this way, too."""

    message: Message
    sender: bytes


@dataclass(frozen=True, slots=True)
class Built:
    """Answer to `Ready.build`: the block, valid by construction, or None when none could be built."""

    height: int
    round: int
    block: Block | None


@dataclass(frozen=True, slots=True)
class Validated:
    """Answer to `Ready.validate`."""

    block_hash: bytes
    valid: bool


@dataclass(frozen=True, slots=True)
class HeadAdvanced:
    """A block is final and durable, decided here or fetched."""

    head: Head


@dataclass(frozen=True, slots=True)
class WorkChanged:
    """Whether there is something to include in the next block."""

    has_work: bool


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """Messages to this address now arrive, after some time in which they may not have."""

    address: bytes


@dataclass(frozen=True, slots=True)
class PeerGone:
    """The connection to this address is lost."""

    address: bytes


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """A peer says that its newest final block has this height."""

    peer: bytes
    height: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. A stale or needless tick is harmless."""


Event: TypeAlias = (
    Received | Built | Validated | HeadAdvanced | WorkChanged | PeerConnected | PeerGone | PeerStatus | Tick
)


@dataclass(frozen=True, slots=True)
class Send:
    """A message that is signed already, for one address, or for everyone when `to` is None."""

    message: Message
    to: bytes | None


@dataclass(frozen=True, slots=True)
class Build:
    """Build a block on the head with oneself as its miner, now; answer with `Built`."""

    height: int
    round: int


@dataclass(frozen=True, slots=True)
class Validate:
    """Execute this block on the head; answer with `Validated`.

    `fresh`: nobody has vouched for it yet, so its timestamp must not lie far in the future. Of a block that a quorum
    has prepared or sealed this is no longer asked; being stricter stalls the network.
    """

    block: Block
    fresh: bool


@dataclass(frozen=True, slots=True)
class Decided:
    """This block is final: write it and its certificate durably, then feed `HeadAdvanced`."""

    block: Block
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Behind:
    """`peer` speaks of `height`, so it holds the block and the certificate of the height before, and we do not."""

    peer: bytes
    height: int


@dataclass(frozen=True, slots=True)
class Lagging:
    """`peer` speaks of `height`, which is final: send it that height's block and certificate."""

    peer: bytes
    height: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A message was dropped because it breaks a rule, for the shell to log and to count against the peer."""

    peer: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Ready:
    """What to do now, in the order of the fields: nothing is signed before `guard` is synced to disk."""

    guard: tuple[bytes, ...] = ()  # records to append to the guard file and sync; a failed sync ends the process
    sign: tuple[Unsigned, ...] = ()  # sign each, send it to everyone, and feed it back as `Received` from oneself
    send: tuple[Send, ...] = ()
    build: Build | None = None
    validate: tuple[Validate, ...] = ()
    decided: Decided | None = None
    behind: Behind | None = None
    lagging: tuple[Lagging, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    refused: tuple[Refused, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return any(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class Status:
    """What the engine is doing, for people to look at. Times are monotonic milliseconds."""

    height: int
    round: int
    step: str  # "waiting", "proposed", "prepared", "decided": how far this round has come
    proposer: bytes
    validators: tuple[bytes, ...]
    prepared_round: int | None
    signs: bool  # whether this node may sign at this height
    guard_lost: bool
    guard_floor: int  # it signs only above this height
    heard_ms: dict[bytes, int]  # when a validator's message last came
    heads: dict[bytes, int]  # the newest final height that each peer has told of
    deadline_ms: int | None
