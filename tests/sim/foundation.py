"""What every simulated network of one size begins with, made once: keys, genesis, and block 1 with an election."""

from dataclasses import dataclass
from functools import cache

from merkle.keccak import keccak256
from node.chain.block import Block
from node.chain.contracts.addresses import ELECTIONS
from node.chain.contracts.elections import ABI
from node.chain.domain import Domain
from node.chain.genesis import Genesis
from node.chain.signing import SigningKey
from node.chain.transaction import sign_transaction
from node.consensus.certificate import Certificate, seal_digest
from node.consensus.quorum import proposer
from node.ledger import Ledger
from tests.sim.clock import WALL_START_S
from tests.sim.disk import SimDatabase

CHAIN_ID = 7770
ELECTION = 1
OPTIONS = 3
GATEWAY_KEYS = tuple(SigningKey(keccak256(b"sim gateway %d" % number)) for number in range(2))
CAST_BATCH = ABI.encode_call("castBatch", ELECTION, b"")[:4]
CREATE_GAS = 5_000_000
RUN_KEYS = 8  # ids in a run of the index: a simulated network must get there within a few ballots


@dataclass(frozen=True)
class Foundation:
    """`image` is the database of a node whose head is block 1; `blocks` are blocks 0 and 1."""

    keys: tuple[SigningKey, ...]
    genesis: Genesis
    domain: Domain
    image: dict[bytes, bytes]
    blocks: list[Block]


@cache
def foundation(count: int, candidates: int = 0) -> Foundation:
    """A network of `count` validators, whose keys are in the order of their addresses; the candidates' come after."""
    made = [SigningKey(keccak256(b"sim validator %d" % number)) for number in range(count + candidates)]
    keys = tuple(sorted(made[:count], key=lambda key: key.address))
    genesis = Genesis(
        chain_id=CHAIN_ID,
        timestamp=WALL_START_S - 1_000,
        validators=tuple(key.address for key in keys),
        gateways=tuple(sorted(key.address for key in GATEWAY_KEYS)),
    )
    database = SimDatabase()
    ledger = Ledger(database, genesis)
    options = [f"option {number}" for number in range(OPTIONS)]
    data = ABI.encode_call("create", ELECTION, "simulated", options, 1, 0, 0, 0, [], bytes(32))
    gateway = GATEWAY_KEYS[0]
    creation = sign_transaction(gateway, chain_id=CHAIN_ID, nonce=0, to=ELECTIONS, gas_limit=CREATE_GAS, data=data)
    miner = proposer(genesis.validators, 1, 0)
    executed = ledger.build([creation], miner=miner, timestamp=WALL_START_S - 999).executed
    digest = seal_digest(ledger.domain, 1, 0, executed.block.hash)
    certificate = Certificate(1, 0, executed.block.hash, tuple(key.sign(digest) for key in keys))
    database.write(ledger.writes_of(executed, certificate))
    genesis_header = ledger.header(0)
    assert genesis_header is not None
    assert executed.receipts[0].succeeded, "the election was created"
    first = [Block(genesis_header), executed.block]
    return Foundation((*keys, *made[count:]), genesis, ledger.domain, database.image(), first)
