"""The sign guard: what this validator has promised by signing, as records that survive kill -9 and power loss."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgpack

from node.chain.block import Block, pack_block, unpack_block
from node.chain.domain import Domain
from node.chain.errors import PeerError
from node.consensus.codec import pack_signed, pack_statement, unpack_bytes, unpack_signed, unpack_statement
from node.consensus.messages import Kind, SignedStatement, Statement

MAGIC = b"PSG1"
_HEADER_BYTES = 12  # magic or mark (4) ‖ payload length (u32) ‖ CRC-32 of the payload (u32), big-endian

# Entries of a record. All that one step of the engine notes is one record, and each is synced before the next is
# written: so a damaged record that another follows was whole once, which is corruption; a damaged one at the end was
# torn before its sync returned, and nothing was signed on its strength.
_BIND, _SIGNED, _PREPARED, _LOST, _FLOOR, _OVERRIDE = range(6)

# At one round, in the order in which a validator signs.
_RANK = {Kind.ROUND_CHANGE: 0, Kind.PROPOSAL: 1, Kind.PREPARE: 2, Kind.COMMIT: 4}
_RANK_PREPARED = 3


class GuardCorrupt(RuntimeError):
    """The guard is damaged where no torn write explains it, or is not this validator's: signing on would be unsafe."""


@dataclass(frozen=True)
class Prepared:
    """A block that a quorum prepared in `round` of the current height, and the PREPAREs that prove it."""

    round: int
    block: Block
    prepares: tuple[SignedStatement, ...]


@dataclass(frozen=True)
class Overridden:
    """The operators' override with this digest names who decides `height`; they begin in `first_round`."""

    height: int
    first_round: int
    digest: bytes


@dataclass(slots=True)
class GuardState:
    """What has been signed at the highest height signed at, and whether that knowledge can be trusted.

    `signed` holds the statement of the highest round of each kind. `prepared` is the block prepared last, and
    `carried` the one that the highest ROUND-CHANGE carries. `lost`: promises may have been made that are not known
    here, and nothing is signed. `floor`: nothing is signed at or below this height; `asked`: the hash of the set of
    validators who were asked for it, or None for an operator's. `overridden`: the newest override. `mark` begins every
    record but the first: random, so that no transaction can be made that looks like a record inside a torn one.
    """

    domain: Domain
    address: bytes
    height: int = 0
    signed: dict[Kind, Statement] = field(default_factory=dict)
    prepared: Prepared | None = None
    carried: Prepared | None = None
    lost: bool = False
    floor: int = 0
    asked: bytes | None = None
    overridden: Overridden | None = None
    sequence: int = 0
    mark: bytes = MAGIC
    _pending: list[list[object]] = field(default_factory=list, repr=False, compare=False)

    @property
    def round(self) -> int:
        """The highest round signed in at `height`: where a restart resumes."""
        first = self.overridden.first_round if self.overridden and self.overridden.height == self.height else 0
        return max((statement.round for statement in self.signed.values()), default=first)

    def has_signed(self, statement: Statement) -> bool:
        """Whether exactly this is among the statements held; it may be signed again."""
        return statement.height == self.height and self.signed.get(statement.kind) == statement

    def may_sign(self, statement: Statement, newly_prepared: Prepared | None = None) -> bool:
        """The rules: nothing at or below the floor or a height left behind, nothing different at one (round, step),
        no PROPOSAL, PREPARE or COMMIT below a ROUND-CHANGE, no ROUND-CHANGE that forgets what was prepared, and no
        COMMIT of what was not prepared, unless `newly_prepared` is noted in the same record.
        """
        if self.lost or statement.height <= self.floor or statement.height < self.height:
            return False
        if self._is_overridden(statement):
            return False
        round_change = self.signed.get(Kind.ROUND_CHANGE) if statement.height == self.height else None
        if round_change is not None and statement.round < round_change.round:
            return False  # not even again
        if self.has_signed(statement):
            return True
        prepared = newly_prepared or (self.prepared if statement.height == self.height else None)
        if statement.kind is Kind.COMMIT and not _is(prepared, statement.round, statement.block_hash):
            return False
        if statement.kind is Kind.ROUND_CHANGE and not _carries(statement, prepared):
            return False
        if statement.height > self.height:
            return True
        if statement.kind is Kind.ROUND_CHANGE:  # leads to a new round, above all that was signed before
            return not self.signed or statement.round > self.round
        before = self.signed.get(statement.kind)
        return before is None or statement.round > before.round

    def covers(self, statement: Statement) -> bool:
        """Whether this guard accounts for a statement that bears our own signature.

        False means that it is stale: it was restored from a copy, or somebody else holds the key.
        """
        if statement.height <= self.floor or statement.height < self.height or self._is_overridden(statement):
            return True
        before = self.signed.get(statement.kind) if statement.height == self.height else None
        return before is not None and (statement.round < before.round or statement == before)

    def note_signed(self, statements: Sequence[Statement], prepared: Prepared | None = None) -> None:
        """Note what is about to be signed at one height, together with the block just prepared, if any.

        Raises GuardCorrupt when a rule forbids one of the statements: the caller must have asked `may_sign`.
        """
        if prepared is not None:
            self._note(_pack_prepared(statements[0].height, prepared), prepared)
        for statement in statements:
            self._note([_SIGNED, *pack_statement(statement)])

    def note_lost(self) -> None:
        """Note that promises may have been made that are not known here."""
        self._note([_LOST])

    def note_floor(self, height: int, asked: bytes | None = None) -> None:
        """Note that from now on, nothing is signed at or below `height`, and that this makes up for what was lost."""
        self._note(_pack_floor(max(height, self.floor), asked))

    def note_override(self, height: int, digest: bytes) -> None:
        """Note, once, that an override names who decides `height`, which this guard has signed nothing above.

        What was prepared there was prepared by others, and is forgotten; what was signed stays promised in a way that
        needs no record: everything from now on is in a higher round.
        """
        known = self.overridden is not None and self.overridden.digest == digest
        if not known and self.height <= height:
            first_round = self.round + 1 if self.height == height and self.signed else 0
            if self.overridden is not None and self.overridden.height == height:
                first_round = max(first_round, self.overridden.first_round)
            self._note([_OVERRIDE, height, first_round, digest])

    def flush(self) -> tuple[bytes, ...]:
        """All that was noted since the last time, as one record (or none), to be synced before anything is signed."""
        if not self._pending:
            return ()
        self.sequence += 1
        record = _frame(self.mark, self.sequence, self._pending)
        self._pending = []
        return (record,)

    def snapshot_records(self) -> bytes:
        """All of this state as a new guard file: for compaction, which replaces the file in one rename."""
        ranked: list[tuple[int, int, list[object]]] = [
            (statement.round, _RANK[kind], [_SIGNED, *pack_statement(statement)])
            for kind, statement in self.signed.items()
        ]
        prepared = {held.round: held for held in (self.carried, self.prepared) if held is not None}
        ranked.extend((round_, _RANK_PREPARED, _pack_prepared(self.height, held)) for round_, held in prepared.items())
        ranked.sort(key=lambda item: item[:2])
        entries: list[list[object]] = [
            _pack_bind(self.domain, self.address, self.mark),
            *([[_OVERRIDE, over.height, over.first_round, over.digest]] if (over := self.overridden) else []),
            *(entry for _, _, entry in ranked),
            _pack_floor(self.floor, self.asked),
        ]
        if self.lost:
            entries.append([_LOST])
        return _frame(MAGIC, self.sequence, entries)

    def _note(self, entry: list[object], prepared: Prepared | None = None) -> None:
        self._apply(entry, prepared)
        self._pending.append(entry)

    def _apply(self, entry: list[object], noted: Prepared | None = None) -> None:
        """Take one entry in, made now (of what is `noted`) or read back. Raises GuardCorrupt or PeerError."""
        if not entry:
            raise GuardCorrupt("an empty entry")
        if entry[0] == _SIGNED and len(entry) == 6:
            self._apply_signed(unpack_statement(entry[1:]))
        elif entry[0] == _PREPARED and len(entry) == 5:
            height, round_, block, prepares = entry[1:]
            if type(height) is not int or type(round_) is not int or not isinstance(prepares, list):
                raise GuardCorrupt("a prepared entry is [height, round, block, prepares]")
            self._move_to(height)
            self.prepared = noted or Prepared(round_, unpack_block(block), tuple(map(unpack_signed, prepares)))
        elif entry[0] == _LOST and len(entry) == 1:
            self.lost = True
        elif entry[0] == _FLOOR and len(entry) in (2, 3):
            self._apply_floor(*entry[1:])
        elif entry[0] == _OVERRIDE and len(entry) == 4:
            self._apply_override(*entry[1:])
        else:
            raise GuardCorrupt(f"unknown entry {entry[0]!r} of {len(entry)} parts")

    def _apply_floor(self, height: object, asked: object = None) -> None:
        if type(height) is not int or height < self.floor or not (asked is None or isinstance(asked, bytes)):
            raise GuardCorrupt(f"a floor entry is [height, asked], and the height is not below {self.floor}")
        self.lost, self.floor, self.asked = False, height, asked

    def _apply_override(self, height: object, first_round: object, digest: object) -> None:
        if type(height) is not int or type(first_round) is not int or not isinstance(digest, bytes):
            raise GuardCorrupt("an override entry is [height, first round, digest]")
        self._move_to(height)
        self.prepared, self.carried = None, None
        self.signed.clear()
        self.overridden = Overridden(height, first_round, digest)

    def _is_overridden(self, statement: Statement) -> bool:
        """Whether it belongs to the rounds of an overridden height in which nothing is signed any more."""
        over = self.overridden
        return over is not None and statement.height == over.height and statement.round < over.first_round

    def _apply_signed(self, statement: Statement) -> None:
        if not self.may_sign(statement):
            raise GuardCorrupt(f"{statement} breaks an earlier promise at height {self.height}")
        self._move_to(statement.height)
        self.signed[statement.kind] = statement
        if statement.kind is Kind.ROUND_CHANGE:
            self.carried = self.prepared

    def _move_to(self, height: int) -> None:
        if height < self.height:
            raise GuardCorrupt(f"an entry of height {height} after one of {self.height}")
        if height > self.height:
            self.height, self.prepared, self.carried = height, None, None
            self.signed.clear()


def create_records(domain: Domain, address: bytes, *, lost: bool = False, mark: bytes = MAGIC) -> bytes:
    """A new guard file: of a validator that has never signed, or (`lost`) of one whose guard is gone.

    `mark`: four random bytes, which nobody else may know.
    """
    entries: list[list[object]] = [_pack_bind(domain, address, mark)]
    if lost:
        entries.append([_LOST])
    return _frame(MAGIC, 0, entries)


def replay(data: bytes, domain: Domain, address: bytes) -> tuple[GuardState, int]:
    """The state that a guard file holds, and how many of its bytes are whole: beyond them is a torn tail, to be cut.

    Raises GuardCorrupt when the damage is not at the end, or the file belongs to another validator or network.
    """
    state = GuardState(domain, address)
    position = 0
    while position < len(data):
        payload = _payload_at(data, position, state.mark if position else MAGIC)
        if payload is None:
            if position == 0 or _record_after(data, position, state):
                raise GuardCorrupt(f"the guard is damaged at byte {position}, which is not its end")
            break
        try:
            _replay_record(state, payload, first=position == 0)
        except (PeerError, GuardCorrupt) as error:
            raise GuardCorrupt(f"the guard's record at byte {position}: {error}") from None
        position += _HEADER_BYTES + len(payload)
    if position == 0:
        raise GuardCorrupt("the guard is empty")
    return state, position


def _replay_record(state: GuardState, payload: bytes, *, first: bool) -> None:
    sequence, entries = _unpack_payload(payload)
    if first:
        mark = _mark_of(entries)
        if mark is None or entries[0] != _pack_bind(state.domain, state.address, mark):
            raise GuardCorrupt(
                f"expected the guard of 0x{state.address.hex()} on chain {state.domain.chain_id} with genesis "
                f"0x{state.domain.genesis_hash.hex()}, found {_describe_bind(entries)}"
            )
        state.mark = mark
        entries = entries[1:]
    elif sequence != state.sequence + 1:
        raise GuardCorrupt(f"record {sequence} follows record {state.sequence}")
    state.sequence = sequence
    for entry in entries:
        state._apply(entry)


def _unpack_payload(payload: bytes) -> tuple[int, list[list[object]]]:
    unpacked = unpack_bytes(payload)
    if not isinstance(unpacked, list) or len(unpacked) != 2:
        raise GuardCorrupt("a record is [sequence, entries]")
    sequence, entries = unpacked
    if type(sequence) is not int or not isinstance(entries, list) or not all(isinstance(e, list) for e in entries):
        raise GuardCorrupt("a record is [sequence, entries]")
    return sequence, entries


def _mark_of(entries: list[list[object]]) -> bytes | None:
    """The mark that a file's first entry names; one of version 1 has none, and its records begin like the first."""
    bind = entries[0] if entries else []
    if len(bind) == 5:
        return MAGIC
    mark = bind[5] if len(bind) == 6 else None
    return mark if isinstance(mark, bytes) and len(mark) == len(MAGIC) else None


def _describe_bind(entries: list[list[object]]) -> str:
    if entries and len(entries[0]) in (5, 6) and entries[0][0] == _BIND:
        _, _, chain_id, genesis_hash, address = entries[0][:5]
        if isinstance(genesis_hash, bytes) and isinstance(address, bytes):
            return f"that of 0x{address.hex()} on chain {chain_id!r} with genesis 0x{genesis_hash.hex()}"
    return "no binding"


def _frame(mark: bytes, sequence: int, entries: list[list[object]]) -> bytes:
    payload = bytes(msgpack.packb([sequence, entries], use_bin_type=True))
    return mark + len(payload).to_bytes(4, "big") + zlib.crc32(payload).to_bytes(4, "big") + payload


def _payload_at(data: bytes, position: int, mark: bytes) -> bytes | None:
    """The payload of a whole record that begins here, or None."""
    header = data[position : position + _HEADER_BYTES]
    if len(header) < _HEADER_BYTES or header[:4] != mark:
        return None
    length = int.from_bytes(header[4:8], "big")
    end = position + _HEADER_BYTES + length
    if length == 0 or end > len(data):  # no length is too large: a snapshot holds two of the largest blocks
        return None  # no record is empty; one would look whole where a torn write left zeros behind the magic
    payload = data[position + _HEADER_BYTES : end]
    return payload if zlib.crc32(payload) == int.from_bytes(header[8:], "big") else None


def _record_after(data: bytes, position: int, state: GuardState) -> bool:
    """Whether a whole, later record begins anywhere after `position`, which proves that what is there was synced."""
    position = data.find(state.mark, position + 1)
    while position >= 0:
        payload = _payload_at(data, position, state.mark)
        if payload is not None and _later(payload, state.sequence):
            return True
        position = data.find(state.mark, position + 1)
    return False


def _later(payload: bytes, sequence: int) -> bool:
    try:
        return _unpack_payload(payload)[0] > sequence
    except (PeerError, GuardCorrupt):
        return False


def _pack_bind(domain: Domain, address: bytes, mark: bytes) -> list[object]:
    version = [] if mark == MAGIC else [mark]
    return [_BIND, 1 + len(version), domain.chain_id, domain.genesis_hash, address, *version]


def _pack_floor(height: int, asked: bytes | None) -> list[object]:
    return [_FLOOR, height] if asked is None else [_FLOOR, height, asked]


def _pack_prepared(height: int, prepared: Prepared) -> list[object]:
    prepares = [pack_signed(signed) for signed in prepared.prepares]
    return [_PREPARED, height, prepared.round, pack_block(prepared.block), prepares]


def _is(prepared: Prepared | None, round_: int, block_hash: bytes | None) -> bool:
    return prepared is not None and prepared.round == round_ and prepared.block.hash == block_hash


def _carries(round_change: Statement, prepared: Prepared | None) -> bool:
    if prepared is None:
        return round_change.prepared_round is None
    return round_change.prepared_round is not None and _is(
        prepared, round_change.prepared_round, round_change.block_hash
    )
