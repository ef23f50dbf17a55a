"""What JSON-RPC needs of the node around it: Protocols, so that this room knows neither sockets of peers nor disks.

Addresses have 20 bytes, hashes 32; a height is a block's number. Everything shown here is final: a block that has no
certificate yet is reachable by none of these.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from node.chain.block import Block, Header
from node.chain.domain import Domain
from node.chain.errors import InvalidTransaction
from node.chain.genesis import Genesis
from node.chain.mempool import Mempool
from node.chain.receipt import EventLog, Receipt
from node.chain.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Syncing:
    """How far catching up has come, in heights: where it started, where it is, the highest that a peer reported."""

    starting: int
    current: int
    highest: int


@dataclass(frozen=True, slots=True)
class Seal:
    """One validator's commit signature (65 bytes, r ‖ s ‖ y parity) in a certificate, with the signer recovered."""

    validator: bytes
    signature: bytes


class Certificate(Protocol):
    """What makes a block final: the round that decided it and the commit seals of a quorum."""

    @property
    def height(self) -> int: ...
    @property
    def round(self) -> int: ...
    @property
    def block_hash(self) -> bytes: ...
    @property
    def seals(self) -> tuple[bytes, ...]: ...


class Peer(Protocol):
    """A connected peer: its address, its name as it calls itself, and the endpoint (host:port) of the connection."""

    @property
    def address(self) -> bytes: ...
    @property
    def name(self) -> str: ...
    @property
    def endpoint(self) -> str: ...


class ConsensusStatus(Protocol):
    """Where this node's consensus stands: the height being decided, its round and step; times are monotonic."""

    @property
    def height(self) -> int: ...
    @property
    def round(self) -> int: ...
    @property
    def step(self) -> str: ...
    @property
    def proposer(self) -> bytes: ...
    @property
    def validators(self) -> tuple[bytes, ...]: ...
    @property
    def prepared_round(self) -> int | None: ...
    @property
    def signs(self) -> bool: ...
    @property
    def guard_lost(self) -> bool: ...
    @property
    def guard_floor(self) -> int: ...
    @property
    def heard_ms(self) -> dict[bytes, int]: ...
    @property
    def heads(self) -> dict[bytes, int]:
        """The newest final height that each peer has told of."""

    @property
    def deadline_ms(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Statement:
    """One of two contradicting statements: what was signed, its digest (32 bytes) and the signature (65 bytes)."""

    block_hash: bytes | None
    prepared_round: int | None
    digest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two different statements that one validator signed at one height, round and step."""

    validator: bytes
    height: int
    round: int
    step: str
    first: Statement
    second: Statement


class Watcher(Protocol):
    """Who is told at once what happens on the node; must be quick, and raise nothing."""

    def head_advanced(self) -> None:
        """A block has become final, and is shown from now on."""

    def transactions_added(self, transactions: Sequence[Transaction]) -> None:
        """These have entered the mempool."""


class Chain(Protocol):
    """The final chain, read only. `None` means: there is no such thing (yet)."""

    @property
    def domain(self) -> Domain: ...
    @property
    def genesis(self) -> Genesis: ...
    @property
    def head(self) -> Header: ...

    @property
    def oldest_state(self) -> int:
        """The first height whose state is kept; 0 in an archive."""

    def header(self, height: int) -> Header | None: ...
    def height_of(self, block_hash: bytes) -> int | None: ...
    def block(self, height: int) -> Block | None:
        """The block, with every sender known, so that showing one costs no signature."""

    def receipts(self, height: int) -> tuple[Receipt, ...] | None: ...
    def encoded_block(self, height: int) -> tuple[bytes, list[bytes]] | None:
        """The block as header RLP and raw transactions."""

    def encoded_receipts(self, height: int) -> list[bytes] | None:
        """The consensus encodings of the block's receipts."""

    def event_logs(self, height: int) -> Iterator[tuple[bytes, tuple[EventLog, ...]]]:
        """Each raw transaction of a final block with its event logs, decoded no sooner than they are asked for."""

    def certificate(self, height: int) -> Certificate | None:
        """The certificate of a height above 0; genesis has none."""

    def seals(self, height: int) -> tuple[Seal, ...]:
        """The seals of that height's certificate with their signers; empty where there is no certificate."""

    def locate(self, transaction_hash: bytes) -> tuple[int, int] | None:
        """Height and index of a final transaction."""

    def validators(self, height: int) -> tuple[bytes, ...]:
        """The sorted set that decides that height (any height up to head + 1)."""

    def validator_changes(self, first: int, last: int) -> list[int]:
        """The heights from `first` to `last` whose blocks name another set for the next height, ascending."""

    def quorum(self, height: int) -> int:
        """How many seals that height needs."""

    def proposer(self, height: int, round_: int) -> bytes:
        """Whose turn it is at that height (up to head + 1) and round."""

    def equivocations(self, first: int, last: int) -> list[Equivocation]:
        """The evidence kept of first ≤ height ≤ last, in order."""

    def get(self, key: bytes) -> bytes | None:
        """The database, as the `Reader` that `node.chain.state.State` takes."""


class NodePort(Protocol):
    """The running node, as far as JSON-RPC may see it."""

    @property
    def name(self) -> str: ...
    @property
    def address(self) -> bytes: ...
    @property
    def client_version(self) -> str: ...
    @property
    def chain(self) -> Chain: ...
    @property
    def mempool(self) -> Mempool: ...

    async def submit(self, transactions: Sequence[bytes]) -> list[bytes | InvalidTransaction]:
        """Take raw signed transactions into the mempool and gossip them; its hash or the refusal, in order."""

    def peers(self) -> Sequence[Peer]: ...

    def syncing(self) -> Syncing | None:
        """None when this node is at the highest height that it knows of."""

    def consensus(self) -> ConsensusStatus:
        """What the engine is doing; its times are `time.monotonic` in milliseconds."""

    def watch(self, watcher: Watcher) -> None:
        """Tell `watcher` from now on."""

    def unwatch(self, watcher: Watcher) -> None:
        """Tell it no more; harmless when it was not told."""

    async def wait_for_height(self, height: int, timeout_s: float) -> bool:
        """Wait until `height` is final here; False when the time is over first."""

    def ready(self) -> tuple[bool, str]:
        """Whether this node can serve, and one sentence that says why or why not."""
