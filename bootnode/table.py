"""The table of peer records, pure: bounded, with reserved seats, the newest record of each address."""

from collections.abc import Iterable
from dataclasses import dataclass

from node.chain.domain import Domain
from node.chain.errors import PeerError
from node.p2p.records import PeerRecord, parse_record, record_document

FORMAT_VERSION = 1


class Refused(PeerError):
    """The table does not take this record."""


class Outdated(Refused):
    """A record with a higher sequence is there, or another one with the same."""

    def __init__(self, standing: int) -> None:
        super().__init__(f"sequence: a record with sequence {standing} is there already")
        self.standing = standing


class ForeignTable(ValueError):
    """A stored table is of another network or format, or is damaged."""


@dataclass(slots=True)
class _Seat:
    record: PeerRecord
    taken_at: int  # the table's own count of changes, by which the stalest open seat is found


class Table:
    """Records of one network. Whoever has a reserved seat keeps it, whatever strangers send.

    Strangers share the open seats, and a new one takes the seat of whoever has been silent longest. Nothing is deleted
    for being expired: where a peer once was is still a hint where to dial.
    """

    def __init__(self, domain: Domain, *, reserved: Iterable[bytes], open_seats: int, record_life_s_max: int) -> None:
        self._domain = domain
        self._reserved = frozenset(reserved)
        self._open_seats = open_seats
        self._record_life_s_max = record_life_s_max
        self._seats: dict[bytes, _Seat] = {}
        self._open_count = 0
        self._changes = 0

    def put(self, document: object, *, now_s: int) -> bool:
        """Take a record as JSON; False when it is the one that stands. Raises InvalidRecord or Refused."""
        record = parse_record(document, self._domain)
        if record.expires_at_s <= now_s:
            raise Refused(f"expiresAt: {record.expires_at_s} is over, it is {now_s} here")
        if record.expires_at_s > now_s + self._record_life_s_max:
            raise Refused(f"expiresAt: at most {self._record_life_s_max} s from now are allowed")
        return self._seat(record)

    def _seat(self, record: PeerRecord) -> bool:
        standing = self._seats.get(record.address)
        if standing is not None:
            if standing.record == record:
                return False
            if standing.record.sequence >= record.sequence:
                raise Outdated(standing.record.sequence)
        elif record.address not in self._reserved:
            self._make_room()
            self._open_count += 1
        self._changes += 1
        self._seats[record.address] = _Seat(record, self._changes)
        return True

    def _make_room(self) -> None:
        if self._open_seats == 0:
            raise Refused("address: has no reserved seat, and there are no others")
        if self._open_count < self._open_seats:
            return
        strangers = (address for address in self._seats if address not in self._reserved)
        del self._seats[min(strangers, key=lambda address: self._seats[address].taken_at)]
        self._open_count -= 1

    def __len__(self) -> int:
        return len(self._seats)

    def records(self) -> list[PeerRecord]:
        """All records, those with a reserved seat first, by address."""
        seats = sorted(self._seats.items(), key=lambda item: (item[0] not in self._reserved, item[0]))
        return [seat.record for _, seat in seats]

    def document(self) -> dict[str, object]:
        """What GET /records answers and what is kept on disk."""
        return {
            "version": FORMAT_VERSION,
            "genesisHash": "0x" + self._domain.genesis_hash.hex(),
            "records": [record_document(record) for record in self.records()],
        }

    def load(self, document: object) -> None:
        """Take over what `document` made, expired records too. Raises ForeignTable."""
        if not isinstance(document, dict) or document.get("version") != FORMAT_VERSION:
            raise ForeignTable(f"expected a table of version {FORMAT_VERSION}")
        genesis_hash = "0x" + self._domain.genesis_hash.hex()
        if document.get("genesisHash") != genesis_hash:
            raise ForeignTable(f"genesisHash is {document.get('genesisHash')!r}, expected {genesis_hash}")
        records = document.get("records")
        if not isinstance(records, list):
            raise ForeignTable("records: expected a list")
        for record in records:
            try:
                self._seat(parse_record(record, self._domain))
            except PeerError as error:
                raise ForeignTable(f"a record in it is damaged: {error}") from None
