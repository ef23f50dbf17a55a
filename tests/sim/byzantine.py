"""Liars: real nodes whose mouth has a mind of its own. Each sees what its node would say, and says other things too.

A twin needs nothing of this: it is one key on two honest nodes. What is here signs with the liar's own key, plays back
what others said, and knows messages that the same keys signed in other networks.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Protocol

from node import payloads
from node.chain.block import Block, pack_block
from node.chain.domain import Domain
from node.chain.signing import SigningKey
from node.consensus.certificate import Certificate, pack_certificate
from node.consensus.codec import decode_message, encode_message
from node.consensus.messages import (
    NOTHING_ATTACHED,
    Attachments,
    Message,
    SignedStatement,
    Statement,
    Unsigned,
)
from node.consensus.messages import (
    Kind as Step,
)
from node.consensus.quorum import proposer
from node.p2p.kinds import Kind
from node.runtime import Peers
from tests.sim.foundation import Foundation
from tests.sim.network import SimNetwork
from tests.sim.node import Process
from tests.sim.override import CLINGS, QuorumLoss
from tests.sim.scheduler import Scheduler

REPLAY_US = 60_000


class Audience(Protocol):
    """What a liar knows of its world."""

    random: Random
    scheduler: Scheduler
    network: SimNetwork
    foundation: Foundation
    overheard: list[tuple[bytes, bytes]]
    round_changes: dict[tuple[int, int], dict[bytes, SignedStatement]]
    proposed: dict[bytes, Block]
    quorum_loss: QuorumLoss


class Liar:
    """The `Peers` of a lying process: passes on what its node says, and lies in its own way."""

    def __init__(self, world: Audience, process: Process, peers: Peers, lie: str) -> None:
        self._world = world
        self._process = process
        self._peers = peers
        self._random = world.random
        self._key: SigningKey = process.machine.key
        self._domain = world.foundation.domain
        self._others: dict[tuple[int, int], Block] = {}  # by (height, round): the other block of an equivocator
        self._speak: Callable[[Message, bytes], None] = {
            "equivocate": self._equivocate,
            "bad justification": self._justify_badly,
            CLINGS: self._cling,
        }.get(lie, self._say)
        self._clings = lie == CLINGS
        self._is_bad_server = lie == "bad blocks"
        if lie == "replay":
            world.scheduler.after(REPLAY_US, self._replay)
        elif lie == "foreign":
            world.scheduler.after(REPLAY_US, self._speak_foreign)

    # -- the port ------------------------------------------------------------------------------------------------

    def send(self, peer: bytes, kind: Kind, payload: bytes) -> bool:
        if kind is Kind.BLOCKS and self._is_bad_server:
            payload = self._spoil(payload)
        if kind is Kind.CONSENSUS and self._clings:
            payload = self._claim_the_lost(decode_message(payload).statement) or payload
        return self._peers.send(peer, kind, payload)

    def broadcast(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.CONSENSUS:
            self._speak(decode_message(payload), payload)
        else:
            self._peers.broadcast(kind, payload)

    def drop(self, peer: bytes, reason: str) -> None:
        self._peers.drop(peer, reason)

    # -- ways to lie ---------------------------------------------------------------------------------------------

    def _say(self, _message: Message, payload: bytes) -> None:
        self._peers.broadcast(Kind.CONSENSUS, payload)

    def _sign(self, statement: Statement, attachments: Attachments = NOTHING_ATTACHED) -> bytes:
        unsigned = Unsigned(statement, attachments)
        return encode_message(unsigned.signed(self._key.sign(unsigned.digest(self._domain))))

    def _equivocate(self, message: Message, payload: bytes) -> None:
        """Two blocks at one step, one for each half of the others, and votes for both."""
        statement, attached = message.statement, message.attachments
        at = (statement.height, statement.round)
        if statement.kind is Step.PROPOSAL and attached.block is not None and not attached.prepares:
            other = self._another(attached.block)
            if other is not None:
                self._others[at] = other
                changed = Attachments(other, attached.round_changes)
                self._halve(payload, self._sign(Statement(Step.PROPOSAL, *at, other.hash), changed))
                for kind in (Step.PREPARE, Step.COMMIT):
                    self._peers.broadcast(Kind.CONSENSUS, self._sign(Statement(kind, *at, other.hash)))
                return
        elif statement.kind in (Step.PREPARE, Step.COMMIT) and at in self._others:
            self._halve(payload, self._sign(Statement(statement.kind, *at, self._others[at].hash)))
            return
        self._say(message, payload)

    def _another(self, block: Block) -> Block | None:
        """As valid a block as this one, with fewer transactions or later."""
        ledger = self._process.ledger
        if block.number != ledger.head.number + 1:
            return None
        transactions = block.transactions[:-1]
        return ledger.build(
            transactions, miner=block.header.miner, timestamp=block.header.timestamp + (not block.transactions)
        ).executed.block

    def _halve(self, first: bytes, second: bytes) -> None:
        peers = sorted(self._world.network.peers_of(self._process))
        self._random.shuffle(peers)
        for position, peer in enumerate(peers):
            self._peers.send(peer, Kind.CONSENSUS, first if position % 2 else second)

    def _justify_badly(self, message: Message, payload: bytes) -> None:
        """What the rules forbid, signed properly. Half of its own turns it lets pass, so that rounds change."""
        statement = message.statement
        if statement.kind is not Step.PROPOSAL or self._random.random() < 0.5:
            self._say(message, payload)
        ledger = self._process.ledger
        if statement.height == ledger.head.number + 1:
            for round_ in (statement.round, statement.round + 1):
                lie = self._random.choice((self._proposal_in_a_stolen_turn, self._unjustified, self._claim))
                self._peers.broadcast(Kind.CONSENSUS, self._sign(*lie(statement.height, round_)))

    def _cling(self, message: Message, payload: bytes) -> None:
        self._say(message, self._claim_the_lost(message.statement) or payload)

    def _claim_the_lost(self, statement: Statement) -> bytes | None:
        """A ROUND-CHANGE that claims what the lost prepared: the votes of those who go on may be a quorum, too."""
        if statement.kind is not Step.ROUND_CHANGE:
            return None
        for block_hash, votes in self._world.quorum_loss.prepares.items():
            block = self._world.proposed.get(block_hash)
            prepared = min(vote.statement.round for vote in votes.values())
            if block is None or block.number != statement.height or prepared >= statement.round:
                continue
            own = Statement(Step.PREPARE, statement.height, prepared, block_hash)
            all_votes = votes | {self._key.address: SignedStatement(own, self._key.sign(own.digest(self._domain)))}
            going_on = self._process.ledger.next_validators
            prepares = [all_votes[each] for each in going_on if each in all_votes]
            prepares = [each for each in prepares if each.statement == own]
            claim = Statement(Step.ROUND_CHANGE, statement.height, statement.round, block_hash, prepared)
            return self._sign(claim, Attachments(block, (), tuple(prepares)))
        return None

    def _own_block(self, miner: bytes) -> Block:
        ledger = self._process.ledger
        return ledger.build((), miner=miner, timestamp=ledger.head.timestamp).executed.block

    def _proposal_in_a_stolen_turn(self, height: int, round_: int) -> tuple[Statement, Attachments]:
        """Another's turn taken, with either name on the block, and with a true quorum where there is one."""
        whose_turn = proposer(self._process.ledger.next_validators, height, round_)
        block = self._own_block(self._random.choice((whose_turn, self._key.address)))
        changes = self._world.round_changes.get((height, round_), {})
        return Statement(Step.PROPOSAL, height, round_, block.hash), Attachments(block, tuple(changes.values()))

    def _unjustified(self, height: int, round_: int) -> tuple[Statement, Attachments]:
        """A fresh block, and no quorum of ROUND-CHANGEs, or one that is the same validator again and again."""
        block = self._own_block(self._key.address)
        statement = Statement(Step.ROUND_CHANGE, height, max(1, round_), None)
        change = SignedStatement(statement, self._key.sign(statement.digest(self._domain)))
        count = self._random.choice((0, 1, len(self._world.foundation.keys)))
        return Statement(Step.PROPOSAL, height, round_, block.hash), Attachments(block, (change,) * count)

    def _claim(self, height: int, round_: int) -> tuple[Statement, Attachments]:
        """A ROUND-CHANGE that claims a block as prepared with PREPAREs that are its own, or a vote for that block."""
        block = self._own_block(self._key.address)
        statement = Statement(Step.PREPARE, height, round_, block.hash)
        prepare = SignedStatement(statement, self._key.sign(statement.digest(self._domain)))
        forged = [replace(prepare, signature=key.sign(bytes(32))) for key in self._world.foundation.keys]
        claim = Statement(Step.ROUND_CHANGE, height, round_ + 1, block.hash, round_)
        return self._random.choice(
            [
                (claim, Attachments(block, (), (prepare,) * len(forged))),
                (claim, Attachments(block, (), tuple(forged))),
                (statement, NOTHING_ATTACHED),
                (Statement(Step.COMMIT, height, round_, block.hash), NOTHING_ATTACHED),
                (Statement(Step.ROUND_CHANGE, height, round_ + 50, None), NOTHING_ATTACHED),
            ]
        )

    def _spoil(self, payload: bytes) -> bytes:
        """Blocks that were never final, or whose certificates do not say so."""
        items: list[tuple[bytes, list[bytes], object]] = []
        for block, certificate in payloads.unpack_blocks(payload):
            seals = certificate.seals
            match self._random.randrange(4):
                case 0:
                    seals = seals[:-1]
                case 1:
                    seals = (seals[0],) * len(seals)
                case 2:
                    block = self._another(block) or block
            header, raws = pack_block(block)
            assert isinstance(header, bytes)
            assert isinstance(raws, list)
            spoilt = Certificate(certificate.height, certificate.round, certificate.block_hash, seals)
            items.append((header, raws, pack_certificate(spoilt)))
        return payloads.pack_blocks(items)

    def _replay(self) -> None:
        """Say again what was said before, of any height: the own words to all, and another's to that one.

        Now and then to all in that other's name, for which one is thrown out.
        """
        if not self._process.is_running:
            return
        self._world.scheduler.after(self._random.randint(1, 2 * REPLAY_US), self._replay)
        if self._world.overheard:
            signer, payload = self._random.choice(self._world.overheard)
            if signer == self._key.address or self._random.random() < 0.05:
                self._peers.broadcast(Kind.CONSENSUS, payload)
            else:
                self._peers.send(signer, Kind.CONSENSUS, payload)

    def _speak_foreign(self) -> None:
        """Play what the same keys signed in other networks: another chain id, another genesis."""
        if not self._process.is_running:
            return
        self._world.scheduler.after(self._random.randint(1, 2 * REPLAY_US), self._speak_foreign)
        domains = (
            Domain(self._domain.chain_id + 1, self._domain.genesis_hash),
            Domain(self._domain.chain_id, bytes(32)),
        )
        domain, height = self._random.choice(domains), self._process.runtime.engine.height
        kind = self._random.choice((Step.PREPARE, Step.COMMIT, Step.ROUND_CHANGE))
        round_ = self._random.randint(1, 9) if kind is Step.ROUND_CHANGE else 0
        block_hash = None if kind is Step.ROUND_CHANGE else self._random.randbytes(32)
        statement = Statement(kind, height, round_, block_hash)
        for key in self._world.foundation.keys:
            payload = encode_message(Message(SignedStatement(statement, key.sign(statement.digest(domain)))))
            if key is self._key:
                self._peers.broadcast(Kind.CONSENSUS, payload)
            elif self._random.random() < 0.1:
                self._peers.send(key.address, Kind.CONSENSUS, payload)
