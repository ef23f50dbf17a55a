"""The chain as this node holds it: the final head, blocks built and executed on top of it, and what is read back."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from node.chain.block import Block, Header
from node.chain.domain import Domain
from node.chain.errors import LedgerError
from node.chain.execution import apply_block, build_block
from node.chain.genesis import Genesis, build_genesis
from node.chain.outcome import Built, Executed
from node.chain.receipt import EventLog, Receipt
from node.chain.state import State, Values
from node.chain.transaction import Transaction
from node.consensus.certificate import Certificate, sealers
from node.consensus.evidence import Evidence
from node.consensus.messages import SignedStatement
from node.consensus.override import Override, OverrideError, override_after, verify_override
from node.consensus.quorum import proposer, quorum
from node.pruning import oldest_state
from node.recordindex import RUN_KEYS, RecordIndex
from node.rpc.ports import Equivocation, Seal
from node.rpc.ports import Statement as SignedView
from node.store import Database, Store, block_writes

EXECUTED_MAX = 8  # executed blocks kept for one height: one a round, rounds are few
KNOWN_MAX = 8_192  # accounts, and as many slots, remembered for who executes, or asks for the state, next
RECENT_MAX = 64  # final blocks kept decoded, for those who follow the head
RECENT_BYTES_MAX = 8 << 20  # of them as they are encoded; decoded, small transactions take ten times that


class Ledger:
    """Final blocks and the state after them. Nothing here is shown before it is durable.

    Args:
        database: where the blocks lie; block 0 is written when it is empty.
        genesis: the network's parameters.
        overrides: those that the operator has given; see `node.consensus.override`.
        run_keys: how many ids make a run of the index; the same for as long as the database lives.

    Raises:
        OverrideError: an override is of another network, or contradicts what is final here.
        LedgerError: the database belongs to another network, or lacks what it must hold.
    """

    def __init__(
        self,
        database: Database,
        genesis: Genesis,
        overrides: Sequence[Override] = (),
        *,
        run_keys: int = RUN_KEYS,
    ) -> None:
        self.genesis = genesis
        self._store = Store(database)
        self._recent: OrderedDict[int, tuple[Block, tuple[Receipt, ...]]] = OrderedDict()
        self._recent_bytes = 0
        self._executed: OrderedDict[bytes, Executed] = OrderedDict()
        self._known = Values({}, {})  # of the state after the head; another object for each head
        first = build_genesis(genesis)
        self.domain = Domain(genesis.chain_id, first.block.hash)
        found = self._store.genesis_hash()
        self._index = RecordIndex(database, run_keys=run_keys)
        self.get = self._index.get
        if found is None:
            database.write(block_writes(first, None, validators_changed=True))
        elif found != first.block.hash:
            raise LedgerError(
                f"the database belongs to another network: it begins with block 0x{found.hex()}, "
                f"and the genesis file with 0x{first.block.hash.hex()}"
            )
        head = self.header(self._store.head_height())
        if head is None:
            raise LedgerError("the database lacks the block that it names as its head")
        self.oldest_state = oldest_state(database)  # the first height whose state is kept
        self.head: Header = head
        self._overrides = tuple(overrides)
        for override in self._overrides:
            self._check_override(override)
        self.override: Override | None = None  # of the next height
        self.next_validators: tuple[bytes, ...] = ()
        self._choose_next(self._store.validators(head.number + 1))

    # -- growing -------------------------------------------------------------------------------------------------

    def build(self, transactions: Iterable[Transaction], *, miner: bytes, timestamp: int) -> Built:
        """A block of these transactions on the head; what cannot be included is in the answer's `dropped`."""
        built = build_block(
            self,
            self.head,
            transactions,
            miner=miner,
            timestamp=timestamp,
            genesis=self.genesis,
            domain=self.domain,
            override=self.override.validators if self.override else None,
            known=self._values(),
        )
        self._remember(built.executed)
        return built

    def executed(self, block_hash: bytes) -> Executed | None:
        """What `build` or `execute` made of the block with this hash on this head, if they did not long ago."""
        return self._executed.get(block_hash)

    def execute(self, block: Block) -> Executed:
        """Check the block against the head and execute it, once. Raises InvalidBlock or InvalidTransaction."""
        executed = self._executed.get(block.hash)
        if executed is None:
            executed = apply_block(
                self,
                self.head,
                block,
                genesis=self.genesis,
                domain=self.domain,
                validators=self.next_validators,
                override=self.override.validators if self.override else None,
                known=self._values(),
            )
            self._remember(executed)
        return executed

    def writes_of(self, executed: Executed, certificate: Certificate) -> dict[bytes, bytes]:
        """The one batch that makes this block final; call `advance` once it is synced."""
        changed = executed.next_validators != self.next_validators
        overridden = self.override is not None
        writes = block_writes(executed, certificate, validators_changed=changed, overridden=overridden)
        return self._index.pack(executed.block.number, writes)

    def warm(self) -> Iterator[None]:
        """Read what makes later look-ups cheap, a little between any two yields. Nothing needs it to be done."""
        return self._index.fill()

    def advance(self, executed: Executed) -> None:
        """The block's batch is on disk: it is the head now."""
        block = executed.block
        if block.header.parent_hash != self.head.hash:
            raise LedgerError(f"block {block.number} does not follow the head {self.head.number}")
        self._index.add(block.number)
        self.head = block.header
        self._choose_next(executed.next_validators)
        self._executed.clear()
        self._keep_recent(block, executed.receipts)
        self._known = self._known.then(executed.changed)

    def _choose_next(self, named: tuple[bytes, ...]) -> None:
        """Who decides the next height: those that the head names, unless an override names others."""
        self.override = override_after(self.head, self._overrides)
        self.next_validators = self.override.validators if self.override else named

    def _check_override(self, override: Override) -> None:
        verify_override(override)
        if override.domain != self.domain:
            raise OverrideError(f"the override of height {override.height} is of another network")
        parent, block = self.header(override.height), self.header(override.height + 1)
        if parent is not None and parent.hash != override.parent_hash:
            raise OverrideError(
                f"the override follows block 0x{override.parent_hash.hex()}, and the final block {override.height} "
                f"here is 0x{parent.hash.hex()}"
            )
        if block is not None and block.extra_data != override.committed:
            raise OverrideError(
                f"block {block.number} is final here without the override, so its quorum was not lost: do not use it"
            )

    def _remember(self, executed: Executed) -> None:
        self._executed[executed.block.hash] = executed
        if len(self._executed) > EXECUTED_MAX:
            self._executed.popitem(last=False)

    def _keep_recent(self, block: Block, receipts: tuple[Receipt, ...]) -> None:
        self._recent[block.number] = (block, receipts)
        self._recent_bytes += block.bytes_count
        while len(self._recent) > 1 and (len(self._recent) > RECENT_MAX or self._recent_bytes > RECENT_BYTES_MAX):
            _, (oldest, _) = self._recent.popitem(last=False)
            self._recent_bytes -= oldest.bytes_count

    def keep_evidence(self, evidence: Evidence) -> None:
        """Store an equivocation, once."""
        self._store.put_evidence(evidence)

    # -- reading -------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """The state after the head. Changing it changes nothing but itself."""
        return State(self, self.head.state_root, self._values())

    def _values(self) -> Values:
        """What is known of that state; forgotten when it is too much, since it is copied from head to head."""
        if max(len(self._known.accounts), len(self._known.slots)) > KNOWN_MAX:
            self._known = Values({}, {})
        return self._known

    def header(self, height: int) -> Header | None:
        """The final header at `height`."""
        recent = self._recent.get(height)
        return recent[0].header if recent else self._store.header(height)

    def block(self, height: int) -> Block | None:
        """The final block at `height`."""
        recent = self._recent.get(height)
        return recent[0] if recent else self._store.block(height)

    def receipts(self, height: int) -> tuple[Receipt, ...] | None:
        """The receipts of the final block at `height`."""
        recent = self._recent.get(height)
        return recent[1] if recent else self._store.receipts(height)

    def encoded_block(self, height: int) -> tuple[bytes, list[bytes]] | None:
        """The final block at `height` as header RLP and raw transactions."""
        return self._store.encoded_block(height)

    def encoded_receipts(self, height: int) -> list[bytes] | None:
        """The consensus encodings of that block's receipts."""
        recent = self._recent.get(height)
        return self._store.encoded_receipts(height, [receipt.bloom for receipt in recent[1]] if recent else None)

    def event_logs(self, height: int) -> Iterator[tuple[bytes, tuple[EventLog, ...]]]:
        """Each raw transaction of that block with its event logs, decoded no sooner than asked for."""
        return self._store.event_logs(height)

    def certificate(self, height: int) -> Certificate | None:
        """The certificate of the final block at `height`; block 0 has none."""
        return self._store.certificate(height)

    def height_of(self, block_hash: bytes) -> int | None:
        """The height of the final block with this hash."""
        return self._store.height_of(block_hash)

    def locate(self, transaction_hash: bytes) -> tuple[int, int] | None:
        """(height, index) of a final transaction."""
        return self._store.locate(transaction_hash)

    def seals(self, height: int) -> tuple[Seal, ...]:
        """The seals of that block's certificate, with who made them."""
        certificate = self.certificate(height)
        if certificate is None:
            return ()
        return tuple(map(Seal, sealers(certificate, self.domain), certificate.seals))

    def quorum(self, height: int) -> int:
        """How many seals that height needs."""
        return quorum(len(self.validators(height)))

    def proposer(self, height: int, round_: int) -> bytes:
        """Whose turn it is at that height and round."""
        return proposer(self.validators(height), height, round_)

    def equivocations(self, first: int, last: int) -> list[Equivocation]:
        """The evidence kept of first ≤ height ≤ last, in order, ready to be shown and checked."""

        def shown(signed: SignedStatement) -> SignedView:
            statement = signed.statement
            digest = statement.digest(self.domain)
            return SignedView(statement.block_hash, statement.prepared_round, digest, signed.signature)

        return [
            Equivocation(
                validator=evidence.validator,
                height=evidence.first.statement.height,
                round=evidence.first.statement.round,
                step=evidence.first.statement.kind.name,
                first=shown(evidence.first),
                second=shown(evidence.second),
            )
            for evidence in self._store.evidence(first, last)
        ]

    def validators(self, height: int) -> tuple[bytes, ...]:
        """The sorted set that decides `height`."""
        return self.next_validators if height > self.head.number else self._store.validators(height)

    def validator_changes(self, first: int, last: int) -> list[int]:
        """The heights from `first` to `last` whose blocks name another set for the next height, ascending."""
        return self._store.validator_changes(first, min(last, self.head.number))
