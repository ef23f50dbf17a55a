"""What the ledger's tests share: a chain over a plain dict, grown by the real rules, that remembers every height."""

from collections.abc import Iterable, Sequence
from typing import Any

from node.chain import keyspace
from node.chain.block import Block, Header
from node.chain.contracts import anchors, ballots, validators
from node.chain.contracts.contract import Abi
from node.chain.domain import Domain
from node.chain.errors import InvalidTransaction
from node.chain.execution import apply_block, build_block, call
from node.chain.genesis import Genesis, build_genesis
from node.chain.outcome import CallResult, Executed
from node.chain.receipt import Receipt
from node.chain.signing import SigningKey
from node.chain.state import State, Values
from node.chain.transaction import Transaction, sign_transaction

KEYS = sorted((SigningKey(bytes([number]) * 32) for number in range(1, 9)), key=lambda key: key.address)
VALIDATORS = tuple(key.address for key in KEYS[:3])
GATEWAY, OTHER_GATEWAY, RICH, POOR, STRANGER = KEYS[3:8]
ETHER = 10**18
START = 1_700_000_000
GENESIS = Genesis(
    chain_id=7770,
    timestamp=START,
    validators=VALIDATORS,
    gateways=tuple(sorted((GATEWAY.address, OTHER_GATEWAY.address))),
    alloc={RICH.address: 1000 * ETHER, GATEWAY.address: ETHER},
)
ABIS: dict[bytes, Abi] = {
    contract.address: contract.abi for contract in (ballots.CONTRACT, anchors.CONTRACT, validators.CONTRACT)
}
ELECTIONS, ANCHORS, VALIDATORS_CONTRACT = ABIS
WRITTEN = {keyspace.TRIE_NODE, keyspace.CODE, keyspace.RECORD, keyspace.BLOCK}  # by the rules; the rest is the store's


class Chain:
    """Blocks on a dict. Each block is built by one proposer and checked as by another validator."""

    def __init__(self, genesis: Genesis = GENESIS) -> None:
        self.genesis = genesis
        first = build_genesis(genesis)
        self.domain = Domain(genesis.chain_id, first.block.hash)
        self.database = dict(first.writes)
        self.blocks: list[Block] = [first.block]
        self.receipts: list[tuple[Receipt, ...]] = [()]
        self.now = genesis.timestamp
        self.validators = genesis.validators  # who decide the next height
        self.dropped: list[tuple[Transaction, InvalidTransaction]] = []
        self.known = Values({}, {})  # as a ledger carries it from block to block

    @property
    def head(self) -> Header:
        return self.blocks[-1].header

    def state(self, height: int = -1) -> State:
        return State(self.database, self.blocks[height].header.state_root)

    def sign(self, key: SigningKey, to: bytes, data: bytes = b"", *, ahead: int = 0, **fields: int) -> Transaction:
        """A transaction with the key's next nonce, or one `ahead` of it."""
        values: dict[str, Any] = {"nonce": self.state().nonce(key.address) + ahead, "gas_limit": 30_000_000, **fields}
        return sign_transaction(key, chain_id=self.genesis.chain_id, to=to, data=data, **values)

    def build(self, transactions: Iterable[Transaction], miner: bytes | None = None) -> Executed:
        """A block on the head, not taken yet; the first validator proposes it if nobody else is named."""
        built = build_block(
            self.database,
            self.head,
            transactions,
            miner=miner or self.validators[0],
            timestamp=self.now,
            genesis=self.genesis,
            domain=self.domain,
        )
        self.dropped = built.dropped
        return built.executed

    def check(self, block: Block) -> Executed:
        """What a validator makes of a proposed block. Raises InvalidBlock."""
        return apply_block(
            self.database,
            self.head,
            block,
            genesis=self.genesis,
            domain=self.domain,
            validators=self.validators,
            known=self.known,
        )

    def take(self, transactions: Iterable[Transaction] = ()) -> tuple[Receipt, ...]:
        """Build the next block, check that a validator who knows the state gets the same, and make it the head."""
        built = self.build(transactions)
        checked = self.check(built.block)
        assert checked == built
        assert {key[:1] for key in checked.writes} <= WRITTEN
        self.keep(checked)
        return checked.receipts

    def keep(self, executed: Executed) -> None:
        """Make a block the head."""
        self.database.update(executed.writes)
        self.known = self.known.then(executed.changed)
        self.validators = executed.next_validators
        self.blocks.append(executed.block)
        self.receipts.append(executed.receipts)

    def send(self, key: SigningKey, to: bytes, name: str, *arguments: object) -> Receipt:
        """One block with one contract call."""
        (receipt,) = self.take([self.sign(key, to, ABIS[to].encode_call(name, *arguments))])
        return receipt

    def run(self, to: bytes, name: str, *arguments: object, height: int = -1, sender: bytes = bytes(20)) -> CallResult:
        """eth_call after the block at `height`."""
        return self.call_raw(to, ABIS[to].encode_call(name, *arguments), height=height, sender=sender)

    def call_raw(self, to: bytes, data: bytes, *, height: int = -1, sender: bytes = bytes(20)) -> CallResult:
        return call(
            self.database,
            self.blocks[height].header,
            sender=sender,
            to=to,
            data=data,
            gas=500_000_000,
            genesis=self.genesis,
            domain=self.domain,
        )

    def view(self, to: bytes, name: str, *arguments: object, height: int = -1) -> Any:
        """What a view returns: a tuple, or the value alone where it is one."""
        result = self.run(to, name, *arguments, height=height)
        assert result.succeeded, ABIS[to].decode_error(result.output)
        values = ABIS[to].decode_result(name, result.output)
        return values[0] if len(values) == 1 else values

    def refusal(self, key: SigningKey, to: bytes, name: str, *arguments: object) -> tuple[str, tuple[Any, ...]]:
        """The named error with which a call fails, both as a call and as a transaction, which changes nothing."""
        result = self.run(to, name, *arguments, sender=key.address)
        assert not result.succeeded
        roots = [self.state().account(address) for address in ABIS]
        receipt = self.send(key, to, name, *arguments)
        assert not receipt.succeeded
        assert receipt.event_logs == ()
        assert [self.state().account(address) for address in ABIS] == roots
        error = ABIS[to].decode_error(result.output)
        assert error is not None
        return error


def create_election(
    chain: Chain,
    election: int = 1,
    *,
    key: SigningKey = GATEWAY,
    title: str = "Demo",
    options: Sequence[str] = ("yes", "no", "neither"),
    kinds: int = 3,
    opens_at: int = 0,
    closes_at: int = 0,
    grace: int = 0,
    registrars: Sequence[bytes] = (),
) -> Receipt:
    """Create an election in a block of its own."""
    words = (title, list(options), kinds, opens_at, closes_at, grace, list(registrars), bytes(32))
    return chain.send(key, ELECTIONS, "create", election, *words)


def pack(*records: tuple[bytes, bytes, int, bytes]) -> bytes:
    """Packed records for castBatch."""
    return b"".join(ballots.pack_record(*record) for record in records)


def word(number: int) -> bytes:
    """32 bytes, as an id."""
    return number.to_bytes(32, "big")
