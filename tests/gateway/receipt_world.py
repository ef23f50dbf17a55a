"""A chain for receipts: the real rules over a dict, sealed by known keys, with validators that change when a test says.

The contract that changes the validators is no part of it: a block's `extraData` is written over with the wanted set,
which is all that a light client sees of a change.
"""

from collections.abc import Sequence
from dataclasses import replace

from gateway.receipt import LogHead, Receipt, SlotProof, StorageProof, ValidatorSet
from gateway.receipt_check import leaf_data, log_contract
from gateway.records import Anchor, Ballot
from merkle import log
from node.chain.block import Header
from node.chain.contracts import anchors, elections, flatlog
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.domain import Domain
from node.chain.execution import build_block
from node.chain.genesis import Genesis, build_genesis, validators_hash
from node.chain.signing import SigningKey
from node.chain.state import State, prove_account
from node.chain.transaction import Transaction, sign_transaction
from node.consensus.certificate import Certificate, seal_digest
from node.consensus.override import Override
from node.consensus.quorum import proposer, quorum

KEYS = {key.address: key for key in (SigningKey(bytes([number]) * 32) for number in range(1, 9))}
GATEWAY = SigningKey(bytes([99]) * 32)
FIRST = tuple(sorted(KEYS))[:3]
GENESIS = Genesis(chain_id=7770, timestamp=1_700_000_000, validators=FIRST, gateways=(GATEWAY.address,))


def make_ballot(election: int, number: int, kind: int = 0, content: bytes = b"\x01") -> Ballot:
    return Ballot(election, bytes([number]) * 32, bytes([number + 100]) * 32, kind, content)


def make_anchor(number: int) -> Anchor:
    return Anchor(bytes([number]) * 16 + bytes(16), bytes([number + 50]) * 32, number * 1000, "rfc6962-sha256")


class World:
    """Blocks with headers and certificates by height; `sets` as a receipt carries them."""

    def __init__(self, genesis: Genesis = GENESIS) -> None:
        self.genesis = genesis
        first = build_genesis(genesis)
        self.domain = Domain(genesis.chain_id, first.block.hash)
        self.database = dict(first.writes)
        self.headers: list[Header] = [first.block.header]
        self.certificates: list[Certificate | None] = [None]
        self.validators = genesis.validators
        self.sets = [ValidatorSet(first.block.header, None, genesis.validators)]

    def state(self, height: int = -1) -> State:
        return State(self.database, self.headers[height].state_root)

    def call(self, to: bytes, name: str, *arguments: object) -> Transaction:
        abi = elections.ABI if to == ELECTIONS else anchors.ABI
        return sign_transaction(
            GATEWAY,
            chain_id=self.genesis.chain_id,
            nonce=self.state().nonce(GATEWAY.address),
            gas_limit=30_000_000,
            to=to,
            data=abi.encode_call(name, *arguments),
        )

    def block(self, *transactions: Transaction, change_to: Sequence[bytes] | None = None, round_: int = 0) -> Header:
        """The next final block; with `change_to`, it names these validators for the next height."""
        height = len(self.headers)
        miner = proposer(self.validators, height, round_)
        built = build_block(
            self.database,
            self.headers[-1],
            transactions,
            miner=miner,
            timestamp=self.genesis.timestamp + height,
            genesis=self.genesis,
            domain=self.domain,
        )
        assert not built.dropped
        self.database.update(built.executed.writes)
        following = tuple(sorted(change_to)) if change_to is not None else self.validators
        header = replace(built.executed.block.header, extra_data=validators_hash(following))
        certificate = self.seal(header, self.validators[: quorum(len(self.validators))], round_)
        self.headers.append(header)
        self.certificates.append(certificate)
        if change_to is not None:
            self.sets.append(ValidatorSet(header, certificate, following))
        self.validators = following
        return header

    def override(self, *validators: bytes) -> Override:
        """The quorum is lost: from now on these validators decide, by an override that each of them has signed."""
        self.validators = tuple(sorted(validators))
        override = Override(self.domain, len(self.headers) - 1, self.headers[-1].hash, self.validators)
        for address in self.validators:
            override = override.signed(KEYS[address])
        self.block(change_to=self.validators)
        return override

    def seal(self, header: Header, sealers: Sequence[bytes], round_: int = 0) -> Certificate:
        digest = seal_digest(self.domain, header.number, round_, header.hash)
        return Certificate(header.number, round_, header.hash, tuple(KEYS[one].sign(digest) for one in sealers))

    def create(self, election: int) -> None:
        arguments: tuple[object, ...] = (election, "Demo", ["yes", "no"], 3, 0, 0, 0, [], bytes(32))
        self.block(self.call(ELECTIONS, "create", *arguments))

    def cast(self, *cast: Ballot) -> None:
        packed = b"".join(one.packed() for one in cast)
        self.block(self.call(ELECTIONS, "castBatch", cast[0].election, packed))

    def anchor(self, one: Anchor) -> None:
        self.block(self.call(ANCHORS, "anchor", one.batch_id, one.merkle_root, one.leaf_count, one.algorithm))

    def head(self, election: int | None, height: int = -1) -> LogHead:
        """The log head after a block."""
        header, certificate = self.headers[height], self.certificates[height]
        assert certificate is not None
        contract, slots = log_contract(election)
        proved = prove_account(self.database, header.state_root, contract, slots)
        account = proved.account
        storage = StorageProof(
            contract,
            account.balance,
            account.nonce,
            account.code_hash,
            account.storage_root,
            tuple(proved.proof),
            tuple(SlotProof(one.slot, one.value, tuple(one.proof)) for one in proved.storage),
        )
        size, root = (one.value for one in proved.storage)
        sets = tuple(one for one in self.sets if one.header.number < header.number)
        return LogHead(
            self.domain.chain_id,
            self.domain.genesis_hash,
            election,
            size,
            root.to_bytes(32, "big"),
            sets,
            header,
            certificate,
            storage,
        )

    def receipt(self, record: Ballot | Anchor, index: int, height: int = -1) -> Receipt:
        """The receipt of the log's entry `index` after a block."""
        election = record.election if isinstance(record, Ballot) else None
        head = self.head(election, height)
        state = self.state()
        found = None if election is None else elections.read_election(state, election)
        number = flatlog.ANCHORS_LOG if found is None else found.number
        proof = log.inclusion_proof(index, head.size, flatlog.node_reader(state, number))
        return Receipt(head, index, log.leaf_hash(leaf_data(self.domain, record)), tuple(proof), record)


def small_world() -> World:
    """Two elections and some anchors, with two changes of the validators on the way: 3, then 4, then 3 others."""
    world = World()
    world.create(1)
    world.create(1 << 200)
    world.cast(*(make_ballot(1, number) for number in range(5)))
    everybody = sorted(KEYS)
    world.block(change_to=everybody[:4])
    world.cast(make_ballot(1 << 200, 1), make_ballot(1 << 200, 2, 1, b"ciphertext"))
    world.block(change_to=everybody[2:5])
    for number in range(1, 4):
        world.anchor(make_anchor(number))
    world.cast(make_ballot(1, 5, 1, b"more"))
    world.block()
    return world
