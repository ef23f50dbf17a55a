"""What must hold after every step: one hash per height, the guard's promises, durable before shown, true counts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from merkle import rlp
from merkle.keccak import keccak256
from merkle.log import leaf_hash
from merkle.log import root as log_root
from merkle.patricia import EMPTY_ROOT
from node.chain import keyspace, signing
from node.chain.block import Block, Header
from node.chain.contracts import members
from node.chain.contracts.addresses import ELECTIONS
from node.chain.contracts.ballots import ballot_by_nullifier, read_tally
from node.chain.contracts.elections import LOG_ROOT, require_election
from node.chain.domain import Domain
from node.chain.errors import InvalidSignature
from node.chain.receipt import Receipt
from node.chain.state import State
from node.chain.transaction import Transaction
from node.consensus.certificate import Certificate
from node.consensus.messages import Kind, Recover, SignedStatement, Statement
from node.ledger import Ledger
from tests.sim.foundation import CAST_BATCH, ELECTION, OPTIONS
from tests.sim.model import Box, Council

OF_ITS_OWN = (keyspace.CERTIFICATE, keyspace.EVIDENCE)  # each node has other seals, and caught others lying


class Violation(AssertionError):
    """An invariant does not hold. `invariant` is its short name."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


@dataclass
class Promise:
    """What an honest validator has said at one height: each step, its highest ROUND-CHANGE, its latest COMMIT."""

    steps: dict[tuple[Kind, int], Statement] = field(default_factory=dict)
    round: int = -1
    committed: Statement | None = None


class Referee:
    """Knows the one chain that honest nodes have made, and everything that honest validators have signed."""

    def __init__(
        self, domain: Domain, validators: tuple[bytes, ...], first: list[Block], recover: Recover = signing.recover
    ) -> None:
        self.domain = domain
        self._recover = recover
        self.blocks = list(first)
        self.council = Council(validators, len(first) + 1)
        self.box = Box(domain, ELECTION, OPTIONS)
        self.acknowledged: dict[bytes, bytes] = {}  # nullifier → content
        self.faulty: set[bytes] = set()  # validators from whom anything must be expected
        self._promises: dict[bytes, dict[int, Promise]] = {}
        self._transactions: set[bytes] = set()
        self._said: dict[tuple[Kind, int, int, bytes | None], set[bytes]] = {}  # who said what, honest or not
        self._headers: dict[bytes, Header] = {}  # of each proposed block
        self._stored: dict[bytes, bytes] = {}  # what the first database holds that was audited at the last height
        self._agreed: dict[bytes, list[tuple[bytes, ...]]] = {}  # state root → next validators that were found right

    @property
    def height(self) -> int:
        """The height of the newest block that any honest node holds."""
        return len(self.blocks) - 1

    @property
    def validators(self) -> tuple[bytes, ...]:
        """Who decides the next height, ascending."""
        return self.council.at(self.height + 1)

    def are_final(self, transactions: Iterable[Transaction]) -> bool:
        """Whether all of these are on the chain."""
        return all(transaction.hash in self._transactions for transaction in transactions)

    def override(self, validators: Iterable[bytes]) -> None:
        """Operators name who decides the next height. What was said of it before binds nobody any more."""
        self.council.override(validators)
        self._said = {key: signers for key, signers in self._said.items() if key[1] <= self.height}
        for promises in self._promises.values():
            if self.height + 1 in promises:
                promises[self.height + 1].committed = None

    # -- final blocks --------------------------------------------------------------------------------------------

    def final(
        self,
        name: str,
        ledger: Ledger,
        durable_height: int,
        block: Block,
        receipts: tuple[Receipt, ...],
        certificate: Certificate,
    ) -> None:
        """An honest node shows a block as final."""
        if durable_height != block.number or ledger.head.hash != block.hash:
            raise Violation("durable before shown", f"{name} shows {block.number}; on disk is {durable_height}")
        self._certified(name, block, certificate)
        if block.number < len(self.blocks):
            if self.blocks[block.number].hash != block.hash:
                raise Violation("agreement", f"{name} has another block {block.number} than those before it")
        elif block.number > len(self.blocks):
            raise Violation("agreement", f"{name} has a block {block.number} on one that nobody has")
        else:
            self._grow(name, block, receipts)
        if block.number == self.height:
            self._compare(name, ledger)

    def booted(self, name: str, ledger: Ledger, durable_height: int) -> None:
        """An honest node has started. It may hold one block that it wrote in its last moment and told nobody of."""
        height = ledger.head.number
        block, receipts, certificate = ledger.block(height), ledger.receipts(height), ledger.certificate(height)
        if height == self.height + 1 and block is not None and receipts is not None and certificate is not None:
            self.final(name, ledger, durable_height, block, receipts, certificate)
        elif height > self.height or ledger.head.hash != self.blocks[height].hash:
            raise Violation("agreement", f"{name} starts with another block {height} than the others have")

    def _certified(self, name: str, block: Block, certificate: Certificate) -> None:
        numbers = (3, self.domain.chain_id, block.number, certificate.round)
        kind, chain_id, height, round_ = map(rlp.encode_int, numbers)
        encoded = [kind, chain_id, self.domain.genesis_hash, height, round_, block.hash]
        digest = keccak256(b"\x19psephos" + rlp.encode([*encoded]))
        try:
            signers = {self._recover(digest, seal) for seal in certificate.seals}
        except InvalidSignature as error:
            raise Violation("certificates", f"{name}, block {block.number}: {error}") from None
        validators = self.council.at(block.number)
        if 3 * len(signers.intersection(validators)) < 2 * len(validators):
            raise Violation("certificates", f"{name}: block {block.number} has seals of {len(signers)} validators")
        turn = validators.index(block.header.miner) if block.header.miner in validators else None
        if turn is None or (turn - block.number) % len(validators) > certificate.round:
            raise Violation("proposers", f"{name}: the miner of block {block.number} was not its proposer")

    def _grow(self, name: str, block: Block, receipts: tuple[Receipt, ...]) -> None:
        if (
            block.header.parent_hash != self.blocks[-1].hash
            or block.header.timestamp < self.blocks[-1].header.timestamp
        ):
            raise Violation("chain", f"{name}: block {block.number} does not follow its parent")
        if block.number in self.council.overridden and block.transactions:
            raise Violation("override", f"{name}: block {block.number} puts an override in place, and more")
        self.blocks.append(block)
        wrong = self.council.grow(block, receipts)
        if wrong or block.header.extra_data != self.council.committed(block.number + 1):
            raise Violation("set changes", f"{name}, block {block.number}: {wrong or 'it names other validators'}")
        for transaction, receipt in zip(block.transactions, receipts, strict=True):
            if transaction.hash in self._transactions:
                raise Violation("once", f"transaction 0x{transaction.hash.hex()} is on the chain twice")
            self._transactions.add(transaction.hash)
            if transaction.to == ELECTIONS and transaction.data[:4] == CAST_BATCH and receipt.succeeded:
                self.box.cast(transaction.data)

    def _compare(self, name: str, ledger: Ledger) -> None:
        """The newest state against the recounts, once for each state root; `audit` looks into every database."""
        header = ledger.head
        if ledger.validators(header.number + 1) not in self._agreed.get(header.state_root, ()):
            self._compare_tally(name, ledger)
            self._compare_sets(name, ledger)
            self._agreed.setdefault(header.state_root, []).append(ledger.validators(header.number + 1))

    def _compare_tally(self, name: str, ledger: Ledger) -> None:
        state = State(ledger, ledger.head.state_root)  # as the database has it, not as the ledger remembers it
        tally = read_tally(state, require_election(state, ELECTION))
        if tally.counts != self.box.counts:
            raise Violation("tally", f"{name} counts {tally.counts}, a recount of the chain {self.box.counts}")

    def _compare_sets(self, name: str, ledger: Ledger) -> None:
        height, state = ledger.head.number, State(ledger, ledger.head.state_root)
        here = (members.current_validators(state), members.next_validators(state), ledger.validators(height))
        named = self.council.at(height + 1) if height + 1 not in self.council.overridden else here[1]
        if here != (self.council.at(height), named, self.council.at(height)):
            raise Violation("set changes", f"{name} has other validators of heights {height} and {height + 1}")
        if ledger.validators(height + 1) not in (here[1], self.council.at(height + 1)):
            raise Violation("set changes", f"{name} expects others to decide height {height + 1} than were voted for")

    # -- signatures ----------------------------------------------------------------------------------------------

    def said(self, signer: bytes, statement: Statement, block: Block | None) -> None:
        """A statement leaves some node, honest or not, with the block that it carries."""
        what = None if statement.kind is Kind.ROUND_CHANGE else statement.block_hash
        if signer in self.council.at(statement.height):
            self._said.setdefault((statement.kind, statement.height, statement.round, what), set()).add(signer)
        if block is not None:
            self._headers[block.hash] = block.header

    def proposes(self, name: str, proposal: Statement, changes: tuple[SignedStatement, ...]) -> None:
        """An honest proposer proposes again what was prepared in the highest round of those that it is shown."""
        claims = [each.statement for each in changes if each.statement.prepared_round is not None]
        highest = max((claim.prepared_round or 0 for claim in claims), default=0)
        blocks = {claim.block_hash for claim in claims if claim.prepared_round == highest}
        if blocks and proposal.block_hash not in blocks:
            raise Violation("highest prepared", f"{name} signs {proposal}, and round {highest} prepared another block")
        header = self._headers.get(proposal.block_hash or b"")
        if header is not None and proposal.height in self.council.overridden:
            placed = (header.transactions_root, header.extra_data)
            if placed != (EMPTY_ROOT, self.council.committed(proposal.height)):
                raise Violation("override", f"{name} proposes what does not put it in place, and nothing else")

    def _have_said(self, kind: Kind, height: int, round_: int, block_hash: bytes | None = None) -> bool:
        """Whether a quorum may have said this: of a faulty validator, nobody knows what it says to whom."""
        validators = set(self.council.at(height))
        signers = (self._said.get((kind, height, round_, block_hash), set()) | self.faulty) & validators
        return 3 * len(signers) >= 2 * len(validators)

    def _proposer(self, statement: Statement) -> bytes:
        validators = self.council.at(statement.height)
        return validators[(statement.height + statement.round) % len(validators)]

    def _justified(self, name: str, prepare: Statement) -> None:
        """An honest validator prepares only what the proposer of that round proposed, and could justify."""
        height, round_, block_hash = prepare.height, prepare.round, prepare.block_hash
        proposer = self._proposer(prepare)
        if proposer not in self._said.get((Kind.PROPOSAL, height, round_, block_hash), set()):
            raise Violation("proposers", f"{name} signs {prepare}, which the proposer did not propose")
        if round_ == 0:
            return
        if not self._have_said(Kind.ROUND_CHANGE, height, round_):
            raise Violation("justified rounds", f"{name} signs {prepare}, and no quorum has changed to that round")
        earlier = range(round_)
        header = self._headers.get(block_hash or b"")
        again = header is None or header.miner != proposer
        if again and not any(self._have_said(Kind.PREPARE, height, each, block_hash) for each in earlier):
            raise Violation("justified blocks", f"{name} signs {prepare}, which no quorum has prepared before")
        for (kind, of_height, of_round, other), signers in self._said.items():
            is_rival = (kind, of_height) == (Kind.COMMIT, height) and of_round < round_ and other != block_hash
            if is_rival and 3 * len(signers - self.faulty) >= 2 * len(self.council.at(height)):
                raise Violation("locked blocks", f"{name} signs {prepare}; another is final since round {of_round}")

    def signed(self, name: str, signer: bytes, statement: Statement, durable_height: int, *, is_noted: bool) -> None:
        """A statement of an honest validator leaves its node. `is_noted`: its guard on disk knows of it."""
        if not is_noted:
            raise Violation("noted before signed", f"{name} signs {statement}, and its guard on disk does not know it")
        if durable_height < statement.height - 1:
            raise Violation("durable before signed", f"{name} signs {statement}; its disk ends at {durable_height}")
        if signer not in self.council.at(statement.height):
            raise Violation("only validators sign", f"{name} signs {statement}, and is none at that height")
        heights = self._promises.setdefault(signer, {})
        promise = heights.setdefault(statement.height, Promise())
        step = (statement.kind, statement.round)
        first = promise.steps.get(step)
        if first == statement:
            return  # said again, which is allowed at any time
        if first is not None:
            raise Violation("guard: no two things at one step", f"{name} signs {statement} after {first}")
        promise.steps[step] = statement
        if statement.kind is Kind.ROUND_CHANGE:
            self._carries(name, statement, promise)
            promise.round = max(promise.round, statement.round)
        elif statement.round < promise.round:
            raise Violation("guard: nothing below a ROUND-CHANGE", f"{name} signs {statement} after {promise.round}")
        elif statement.kind is Kind.COMMIT:
            promise.committed = statement
        elif statement.kind is Kind.PREPARE and signer != self._proposer(statement):
            self._justified(name, statement)

    @staticmethod
    def _carries(name: str, change: Statement, promise: Promise) -> None:
        locked = promise.committed
        if locked is None:
            return
        carried = -1 if change.prepared_round is None else change.prepared_round
        if carried < locked.round or (carried == locked.round and change.block_hash != locked.block_hash):
            raise Violation("guard: a ROUND-CHANGE carries what is prepared", f"{name} signs {change} after {locked}")

    def accused(self, name: str, validator: bytes) -> None:
        """An honest node holds evidence against a validator."""
        if validator not in self.faulty:
            raise Violation("evidence", f"{name} holds evidence against the honest 0x{validator.hex()}")

    # -- clients -------------------------------------------------------------------------------------------------

    def acknowledge(self, nullifier: bytes, content: bytes) -> None:
        """A client was told that its ballot is final."""
        if self.box.ballots.get(nullifier, (b"", b""))[1] != content:
            raise Violation("acknowledged is on the chain", f"ballot 0x{nullifier.hex()} is acknowledged and not there")
        self.acknowledged[nullifier] = content

    # -- the end -------------------------------------------------------------------------------------------------

    def audit(self, name: str, ledger: Ledger, image: Mapping[bytes, bytes]) -> None:
        """Compare everything that a node's database holds with the one chain. `image`: its pairs."""
        for height, block in enumerate(self.blocks[: ledger.head.number + 1]):
            found = ledger.header(height)
            if found is None or found.hash != block.hash:
                raise Violation("agreement", f"{name}'s database has another block {height}")
        if ledger.head.number < self.height:
            return
        stored = {key: value for key, value in image.items() if key[:1] not in OF_ITS_OWN}
        self._stored = self._stored or stored
        if stored != self._stored:
            key = min(key for key in stored | self._stored if stored.get(key) != self._stored.get(key))
            raise Violation("one chain, one database", f"{name} has something else under 0x{key.hex()} than others")
        self._compare_tally(name, ledger)
        self._compare_sets(name, ledger)
        state = State(ledger, ledger.head.state_root)
        election = require_election(state, ELECTION)
        root = state.storage(ELECTIONS, election.base + LOG_ROOT).to_bytes(32, "big")
        if root != log_root(map(leaf_hash, self.box.leaves)):
            raise Violation("tally", f"{name}'s log has another root than a recount")
        for nullifier, content in self.acknowledged.items():
            ballot = ballot_by_nullifier(state, election, nullifier)
            if ballot is None or ballot[4] != content:
                raise Violation("acknowledged is on the chain", f"{name} has not ballot 0x{nullifier.hex()}")
