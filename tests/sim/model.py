"""Plain recounts, written apart from the contracts: one election's ballots, and the votes on who validates."""

from collections.abc import Iterable, Sequence

from merkle.keccak import keccak256
from node.chain.block import Block
from node.chain.contracts.addresses import VALIDATORS
from node.chain.contracts.validators import ABI
from node.chain.domain import Domain
from node.chain.receipt import Receipt
from node.chain.transaction import Transaction

PROPOSE = ABI.encode_call("propose", 0, bytes(20), bytes(20))[:4]
ADD, REMOVE, REPLACE = 1, 2, 3


class Box:
    """An election that is always open, to which only gateways cast. `ballots`: nullifier → (record id, content)."""

    def __init__(self, domain: Domain, election: int, options: int) -> None:
        self.ballots: dict[bytes, tuple[bytes, bytes]] = {}
        self.counts = [0] * options
        self.leaves: list[bytes] = []
        self._record_ids: set[bytes] = set()
        network = domain.chain_id.to_bytes(8, "big") + domain.genesis_hash
        self._prefix = b"\x01" + network + b"\x01" + election.to_bytes(32, "big")

    def cast(self, calldata: bytes) -> None:
        """Take in the calldata of a `castBatch` that succeeded."""
        length = int.from_bytes(calldata[68:100], "big")
        packed = calldata[100 : 100 + length]
        while packed:
            size = 69 + int.from_bytes(packed[65:69], "big")
            self._put(packed[:size])
            packed = packed[size:]

    def _put(self, record: bytes) -> None:
        nullifier, record_id, kind, content = record[:32], record[32:64], record[64], record[69:]
        if nullifier in self.ballots or record_id in self._record_ids:
            return
        if kind != 0 or len(content) != 1 or content[0] >= len(self.counts):
            return
        self.ballots[nullifier] = (record_id, content)
        self._record_ids.add(record_id)
        self.counts[content[0]] += 1
        self.leaves.append(self._prefix + record)


class Council:
    """Who validates each height. A vote counts while its voter stays; a proposal ends when whom it names changes."""

    def __init__(self, validators: Iterable[bytes], heights: int) -> None:
        self._sets = [tuple(sorted(validators))] * heights
        self._votes: dict[tuple[int, bytes, bytes], set[bytes]] = {}  # (kind, account, replacement) → voters
        self.overridden: set[int] = set()  # heights whose sets operators have named

    def at(self, height: int) -> tuple[bytes, ...]:
        """The set that decides `height`, or the newest that is known."""
        return self._sets[min(height, len(self._sets) - 1)]

    def committed(self, height: int) -> bytes:
        """What the block before `height` says of its set."""
        return keccak256(b"".join(self.at(height)))

    def grow(self, block: Block, receipts: Sequence[Receipt]) -> str:
        """Take in a final block; what is wrong with its votes, or nothing."""
        members = set(self._sets[-1])
        for transaction, receipt in zip(block.transactions, receipts, strict=True):
            if transaction.to == VALIDATORS and transaction.data[:4] == PROPOSE and receipt.succeeded:
                if transaction.sender not in members:
                    return f"0x{transaction.sender.hex()} votes and is no validator"
                self._vote(transaction, members)
        self._sets.append(tuple(sorted(members)))
        return ""

    def override(self, validators: Iterable[bytes]) -> None:
        """Operators name who decides the next height."""
        before, chosen = set(self._sets[-1]), set(validators)
        self._sets[-1] = tuple(sorted(chosen))
        self.overridden.add(len(self._sets) - 1)
        self._forget(before ^ chosen)

    def _vote(self, transaction: Transaction, members: set[bytes]) -> None:
        data = transaction.data
        kind, account, replacement = int.from_bytes(data[4:36], "big"), data[48:68], data[80:100]
        voters = self._votes.setdefault((kind, account, replacement), set())
        voters.add(transaction.sender)
        if 2 * len(voters) <= len(members):
            return
        removed = set() if kind == ADD else {account}
        added = {account} if kind == ADD else {replacement} if kind == REPLACE else set()
        members -= removed
        members |= added
        self._forget(removed | added)

    def _forget(self, changed: set[bytes]) -> None:
        self._votes = {
            proposal: voters - changed for proposal, voters in self._votes.items() if not changed & set(proposal[1:])
        }
