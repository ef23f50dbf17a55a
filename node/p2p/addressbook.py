"""What is known of where peers can be dialled, pure: their signed records, and what they said in their hello."""

from collections.abc import Mapping
from dataclasses import dataclass

from node.chain.domain import Domain
from node.chain.errors import PeerError
from node.p2p.endpoint import parse_endpoint
from node.p2p.records import PeerRecord, parse_record, record_document

PEERS_MAX = 1024
FORMAT_VERSION = 1


class ForeignBook(ValueError):
    """A stored address book is of another network or format, or is damaged."""


@dataclass(slots=True)
class _Entry:
    heard: str = ""  # the endpoint of its hello, in a session whose certificate proved the address
    record: PeerRecord | None = None


class AddressBook:
    """Endpoints by address. Everything in it comes from the peer itself; nobody else's word is kept."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._entries: dict[bytes, _Entry] = {}

    def learn_record(self, record: PeerRecord) -> bool:
        """Keep a verified record if it is newer than ours; True when it names an endpoint that was not known."""
        entry = self._entry(record.address)
        if entry is None or (entry.record is not None and entry.record.sequence >= record.sequence):
            return False
        known = set(self.endpoints(record.address))
        entry.record = record
        return not known.issuperset(record.endpoints)

    def learn_endpoint(self, address: bytes, endpoint: str) -> bool:
        """Keep the endpoint that a peer gave in its hello; False when nothing new is in it."""
        entry = self._entry(address)
        if entry is None or not endpoint or entry.heard == endpoint:
            return False
        entry.heard = endpoint
        return True

    def _entry(self, address: bytes) -> _Entry | None:
        entry = self._entries.get(address)
        if entry is None and len(self._entries) < PEERS_MAX:
            entry = self._entries[address] = _Entry()
        return entry

    def endpoints(self, address: bytes) -> tuple[str, ...]:
        """Where to dial the peer, the best guess first; an expired record is still a hint."""
        entry = self._entries.get(address)
        if entry is None:
            return ()
        known = ((entry.heard,) if entry.heard else ()) + (entry.record.endpoints if entry.record else ())
        return tuple(dict.fromkeys(known))

    def addresses(self) -> set[bytes]:
        """The peers of which at least one endpoint is known."""
        return {address for address in self._entries if self.endpoints(address)}

    def document(self) -> dict[str, object]:
        """The whole book as JSON, for `load`."""
        return {
            "version": FORMAT_VERSION,
            "genesisHash": "0x" + self._domain.genesis_hash.hex(),
            "peers": [
                {
                    "address": "0x" + address.hex(),
                    "endpoint": entry.heard,
                    "record": record_document(entry.record) if entry.record else None,
                }
                for address, entry in sorted(self._entries.items())
            ],
        }

    def load(self, document: object) -> None:
        """Take over what `document` made. Raises ForeignBook, having kept what was good up to there."""
        if not isinstance(document, Mapping) or document.get("version") != FORMAT_VERSION:
            raise ForeignBook(f"expected an address book of version {FORMAT_VERSION}")
        genesis_hash = "0x" + self._domain.genesis_hash.hex()
        if document.get("genesisHash") != genesis_hash:
            raise ForeignBook(f"genesisHash is {document.get('genesisHash')!r}, expected {genesis_hash}")
        peers = document.get("peers")
        if not isinstance(peers, list) or len(peers) > PEERS_MAX:
            raise ForeignBook(f"peers: expected a list of at most {PEERS_MAX}")
        for peer in peers:
            try:
                self._load_peer(peer)
            except (PeerError, KeyError, TypeError, ValueError) as error:
                raise ForeignBook(f"a peer in it is damaged: {error}") from None

    def _load_peer(self, peer: Mapping[str, object]) -> None:
        address, endpoint = bytes.fromhex(str(peer["address"])[2:]), str(peer["endpoint"])
        if len(address) != 20:
            raise ValueError(f"address {peer['address']!r}: expected 20 bytes")
        if endpoint:
            parse_endpoint(endpoint)
            self.learn_endpoint(address, endpoint)
        if peer["record"] is not None:
            self.learn_record(parse_record(peer["record"], self._domain))
