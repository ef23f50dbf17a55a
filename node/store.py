"""How final blocks lie in the database: one synced batch a block, from which a restart reads where it was."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgpack

from node.chain import keyspace
from node.chain.block import Block, Header, decode_header
from node.chain.errors import LedgerError
from node.chain.execution import HEADER_BYTES_MAX
from node.chain.outcome import Executed
from node.chain.receipt import EventLog, Receipt, decode_receipt
from node.chain.stored import pack_receipts, unpack_event_logs, unpack_receipts, unpack_stored
from node.chain.transaction import decode_transaction
from node.consensus.certificate import Certificate, pack_certificate, unpack_certificate
from node.consensus.evidence import Evidence, pack_evidence, unpack_evidence
from node.consensus.messages import HEIGHT_MAX
from node.version import VERSION

KEY_CLASSES = {
    "state": keyspace.TRIE_NODE,
    "code": keyspace.CODE,
    "records": keyspace.RECORD,
    "id_runs": keyspace.ID_RUN,
    "blocks": keyspace.BLOCK,
    "block_hashes": keyspace.HEIGHT,
    "certificates": keyspace.CERTIFICATE,
    "receipts": keyspace.RECEIPTS,
    "transactions": keyspace.TRANSACTION,
    "validators": keyspace.VALIDATORS,
    "evidence": keyspace.EVIDENCE,
    "meta": keyspace.META,
}
"""What lies in the database, by the name that operators read, and the one-byte prefix of its keys."""

_HEAD = keyspace.META + b"head"
_GENESIS = keyspace.META + b"genesis"
_FORMAT = keyspace.META + b"format"
FORMAT_VERSION = 5  # of everything in the database; raised by whoever changes what a stored value means
"""1: a ballot's flat record repeated its content; since 2 it says where in the block that stands. 2: with blooms in the
stored receipts. 3: every id was a key, and a ballot's place in its block stood at its nullifier. 4: the index held
every id once more, and leaf hashes stood apart from their entries."""
_HEADER_PREFIX_BYTES = 1 + 3 + HEADER_BYTES_MAX  # array of three, then bytes of at most 65,535


EVIDENCE_MAX = 1_000  # of one validator: enough to show what it is, and no way to fill a disk


class Database(Protocol):
    """What the store needs of a key-value database."""

    def get(self, key: bytes) -> bytes | None: ...

    def write(self, puts: Mapping[bytes, bytes]) -> None: ...

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]: ...


def _at(prefix: bytes, height: int) -> bytes:
    return prefix + height.to_bytes(8, "big")


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, use_list=True, raw=False)


def block_writes(
    executed: Executed, certificate: Certificate | None, *, validators_changed: bool, overridden: bool = False
) -> dict[bytes, bytes]:
    """Everything one final block adds to the database, the state's own writes among it; the head comes last.

    `certificate` is None for block 0 alone. `validators_changed`: the next height has another set than this one.
    `overridden`: this block put an override in place, so its set decided this height, whatever its parent said.
    """
    block = executed.block
    height = block.number
    writes = dict(executed.writes)
    writes[_at(keyspace.RECEIPTS, height)] = pack_receipts(executed.encoded_receipts)
    writes[keyspace.HEIGHT + block.hash] = height.to_bytes(8, "big")
    if certificate is None:
        writes[_GENESIS] = block.hash
        writes[_FORMAT] = FORMAT_VERSION.to_bytes(4, "big")
    else:
        writes[_at(keyspace.CERTIFICATE, height)] = msgpack.packb(pack_certificate(certificate))
    for index, transaction in enumerate(block.transactions):
        writes[keyspace.TRANSACTION + transaction.hash] = height.to_bytes(8, "big") + index.to_bytes(4, "big")
    for changed, at in ((overridden, height), (validators_changed or overridden, height + 1)):
        if changed:
            writes[_at(keyspace.VALIDATORS, at)] = b"".join(executed.next_validators)
    writes[_HEAD] = height.to_bytes(8, "big")
    return writes


class Store:
    """Reads final blocks back. Heights are ints; hashes are 32 bytes; what is not there is None."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._evidence_counts: Counter[bytes] | None = None  # counted when there is first something to keep

    def genesis_hash(self) -> bytes | None:
        """The hash of the block 0 that this database was begun with. Raises LedgerError for another stored format."""
        genesis_hash = self.database.get(_GENESIS)
        if genesis_hash is None:
            return None
        # A database from before the version was stored has format 1.
        version = int.from_bytes(self.database.get(_FORMAT) or b"\1", "big")
        if version > FORMAT_VERSION:
            raise LedgerError(
                f"the database has format {version}, written by a newer psephos; this one, {VERSION}, reads format "
                f"{FORMAT_VERSION}: run the newer one"
            )
        if version < FORMAT_VERSION:
            raise LedgerError(
                f"the database has format {version}, written by an older psephos; this one, {VERSION}, reads format "
                f"{FORMAT_VERSION}: move the folder away and start again, and the node fetches the chain from peers "
                "(one node after the other, while the others still hold it)"
            )
        return genesis_hash

    def head_height(self) -> int:
        """The height of the last final block. Raises LedgerError when the database has none."""
        value = self.database.get(_HEAD)
        if value is None:
            raise LedgerError("the database has no head")
        return int.from_bytes(value, "big")

    def header(self, height: int) -> Header | None:
        """The header at `height`."""
        value = self.database.get(_at(keyspace.BLOCK, height))
        if value is None:
            return None
        unpacker = msgpack.Unpacker()
        unpacker.feed(value[:_HEADER_PREFIX_BYTES])  # the header stands first, and the transactions may be megabytes
        unpacker.read_array_header()
        return decode_header(unpacker.unpack())

    def block(self, height: int) -> Block | None:
        """The block at `height`, its senders as they were verified before it became final."""
        value = self.database.get(_at(keyspace.BLOCK, height))
        if value is None:
            return None
        header, raws, senders = unpack_stored(value)
        transactions = []
        for index, raw in enumerate(raws):
            transaction = decode_transaction(raw)
            transaction.remember_sender(senders[20 * index : 20 * index + 20])
            transactions.append(transaction)
        return Block(decode_header(header), tuple(transactions))

    def receipts(self, height: int) -> tuple[Receipt, ...] | None:
        """The receipts of the block at `height`, in the order of its transactions."""
        encoded = self.encoded_receipts(height)
        return None if encoded is None else tuple(decode_receipt(one, is_certified=True) for one in encoded)

    def encoded_block(self, height: int) -> tuple[bytes, list[bytes]] | None:
        """The block at `height` as header RLP and raw transactions."""
        value = self.database.get(_at(keyspace.BLOCK, height))
        if value is None:
            return None
        header, raws, _ = unpack_stored(value)
        return header, raws

    def encoded_receipts(self, height: int, blooms: Sequence[bytes] | None = None) -> list[bytes] | None:
        """The consensus encodings of the receipts of the block at `height`; cheaper where their blooms are known."""
        value = self.database.get(_at(keyspace.RECEIPTS, height))
        return None if value is None else unpack_receipts(value, blooms)

    def event_logs(self, height: int) -> Iterator[tuple[bytes, tuple[EventLog, ...]]]:
        """Each raw transaction of that block with its event logs, decoded when asked for. Raises LedgerError."""
        encoded, value = self.encoded_block(height), self.database.get(_at(keyspace.RECEIPTS, height))
        if encoded is None or value is None:
            raise LedgerError(f"block {height} is final, and the database lacks it or its receipts")
        _, raws = encoded
        yield from zip(raws, unpack_event_logs(value, len(raws)), strict=True)

    def certificate(self, height: int) -> Certificate | None:
        """The certificate of the block at `height`; block 0 has none."""
        value = self.database.get(_at(keyspace.CERTIFICATE, height))
        return None if value is None else unpack_certificate(_unpack(value))

    def height_of(self, block_hash: bytes) -> int | None:
        """The height of the final block with this hash."""
        value = self.database.get(keyspace.HEIGHT + block_hash)
        return None if value is None else int.from_bytes(value, "big")

    def locate(self, transaction_hash: bytes) -> tuple[int, int] | None:
        """(height, index) of a final transaction."""
        value = self.database.get(keyspace.TRANSACTION + transaction_hash)
        return None if value is None else (int.from_bytes(value[:8], "big"), int.from_bytes(value[8:], "big"))

    def validators(self, height: int) -> tuple[bytes, ...]:
        """The sorted set that decides `height` (1 and up): the last one that was written at or below it."""
        for _, value in self.database.scan(
            _at(keyspace.VALIDATORS, 0), _at(keyspace.VALIDATORS, max(height, 1) + 1), reverse=True
        ):
            return tuple(value[start : start + 20] for start in range(0, len(value), 20))
        raise LedgerError(f"the database knows no validators for height {height}")

    def validator_changes(self, first: int, last: int) -> list[int]:
        """The heights from `first` to `last`, of those above 0, behind which the set is another one, ascending."""
        keys = self.database.scan(_at(keyspace.VALIDATORS, max(first, 1) + 1), _at(keyspace.VALIDATORS, last + 2))
        return [int.from_bytes(key[1:], "big") - 1 for key, _ in keys]

    def put_evidence(self, evidence: Evidence) -> None:
        """Keep an equivocation: one of each validator, height, round and step, and EVIDENCE_MAX of each validator."""
        validator, height, round_, kind = evidence.key
        if self._evidence_counts is None:
            self._evidence_counts = Counter(each.validator for each in self.evidence(0, HEIGHT_MAX))
        key = _at(keyspace.EVIDENCE, height) + round_.to_bytes(4, "big") + bytes((kind,)) + validator
        if self._evidence_counts[validator] < EVIDENCE_MAX and self.database.get(key) is None:
            self._evidence_counts[validator] += 1
            self.database.write({key: msgpack.packb(pack_evidence(evidence))})

    def evidence(self, from_height: int, to_height: int) -> list[Evidence]:
        """What is kept of from_height ≤ height ≤ to_height, in order."""
        pairs = self.database.scan(_at(keyspace.EVIDENCE, from_height), _at(keyspace.EVIDENCE, to_height + 1))
        return [unpack_evidence(_unpack(value)) for _, value in pairs]
