"""Fills an election straight at the validators: `castBatch` transactions of development accounts as its registrars."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from cluster.bench import transactions
from cluster.bench.follower import Follower
from cluster.bench.generator import Generator, Requests
from cluster.bench.run import STALLED_S, until_answered
from cluster.bench.testbed import Testbed
from cluster.bench.votes import OPTIONS
from cluster.bench.wire import Caller, Endpoint
from cluster.network import ClusterError
from node.chain.contracts import ballots
from node.chain.contracts.addresses import ELECTIONS
from node.chain.contracts.elections import ABI, KIND_SEALED
from node.chain.signing import SigningKey
from node.chain.transaction import Transaction, sign_transaction
from node.rpc.dev_accounts import MNEMONIC, derive

REGISTRARS = 12
BALLOTS_A_TRANSACTION = 500
BALLOT_BYTES = 150  # of a packed record: its head and what is sealed
CAST_GAS = 12_000_000
CREATE_GAS = 5_000_000
IN_FLIGHT_MAX = 30_000  # ballots, of some 5 MB
CREATE_WITHIN_S = 20.0


@dataclass(slots=True)
class Filler:
    """Casts sealed ballots of `ballot_bytes` into one election; `count` is how many it has cast."""

    bed: Testbed
    chain_id: int
    election: int
    ballot_bytes: int = BALLOT_BYTES
    count: int = 0
    keys: list[SigningKey] = field(default_factory=lambda: derive(MNEMONIC, REGISTRARS))
    nonces: list[int] = field(default_factory=lambda: [0] * REGISTRARS)

    def ballots(self, first: int, count: int) -> Iterator[bytes]:
        """Packed records of ballots number `first` and so on; what is sealed is as random as a ciphertext."""
        content = self.ballot_bytes - ballots.RECORD_HEAD_BYTES
        for number in range(first, first + count):
            noise = hashlib.shake_256(b"ballot %d" % number).digest(64 + content)
            yield ballots.pack_record(noise[:32], noise[32:64], KIND_SEALED, noise[64:])

    def _transaction(self, sender: int, data: bytes, gas: int) -> Transaction:
        nonce = self.nonces[sender]
        self.nonces[sender] += 1
        return sign_transaction(
            self.keys[sender], chain_id=self.chain_id, nonce=nonce, to=ELECTIONS, gas_limit=gas, data=data
        )

    async def create(self, caller: Caller) -> None:
        """Create the election. Raises ClusterError."""
        registrars = [key.address for key in self.keys]
        arguments = (self.election, "Benchmark", list(OPTIONS), 3, 0, 0, 0, registrars, bytes(32))
        transaction = self._transaction(0, ABI.encode_call("create", *arguments), CREATE_GAS)
        digest = await caller.call("eth_sendRawTransaction", "0x" + transaction.raw.hex())
        deadline = time.monotonic() + CREATE_WITHIN_S
        while (receipt := await caller.call("eth_getTransactionReceipt", digest)) is None:
            if time.monotonic() > deadline:
                raise ClusterError(f"the election is not final after {CREATE_WITHIN_S:.0f} s")
            await caller.call("poa_getBlocks", hex(1 << 32), hex(1), hex(50))  # a pause that the node keeps
        if receipt["status"] != "0x1":
            raise ClusterError("the election could not be created")

    def prepare(self, count: int) -> Requests:
        """Signed requests of the next `count` ballots, which is a multiple of BALLOTS_A_TRANSACTION."""
        endpoint = Endpoint.of(next(iter(self.bed.rpc_urls.values())))
        posts = []
        for number in range(count // BALLOTS_A_TRANSACTION):
            records = b"".join(self.ballots(self.count, BALLOTS_A_TRANSACTION))
            self.count += BALLOTS_A_TRANSACTION
            data = ABI.encode_call("castBatch", self.election, records)
            raw = self._transaction(number % REGISTRARS, data, CAST_GAS).raw
            posts.append(endpoint.post(transactions.body_of([raw])))
        return Requests(posts, BALLOTS_A_TRANSACTION, lanes=REGISTRARS)

    async def send(self, requests: Requests, follower: Follower) -> None:
        """Send, and wait until all is final on all validators. Raises ClusterError when it does not become so."""
        base = follower.records
        total = len(requests.data) * requests.records
        endpoints = [Endpoint.of(url) for url in self.bed.rpc_urls.values()]
        generator = Generator(
            endpoints,
            requests,
            lambda status, body: transactions.judge(status, body) * requests.records,
            clients=REGISTRARS,
            in_flight_max=IN_FLIGHT_MAX,
        )
        follower.on_final = lambda records: generator.settle(records - base)
        try:
            await generator.connect()
            generator.start()
            await until_answered(generator, follower)
            if generator.failures:
                raise ClusterError(f"ballots were refused: {generator.failures[0]}")
            if not await follower.reach(base + total, stalled_s=STALLED_S):
                raise ClusterError(f"{base + total - follower.records} ballots do not become final")
        finally:
            generator.close()


async def new_filler(bed: Testbed, ballot_bytes: int = BALLOT_BYTES) -> Filler:
    """An empty election and who fills it."""
    caller = bed.caller()
    try:
        filler = Filler(bed, int(await caller.call("eth_chainId"), 16), time.time_ns() // 1_000_000, ballot_bytes)
        await filler.create(caller)
    finally:
        caller.close()
    return filler


async def check_logs(bed: Testbed, election: int, expected: int) -> list[str]:
    """Whether the election's log has `expected` ballots, and one root, on every validator; what is wrong, in words."""
    heads = {}
    for name in bed.rpc_urls:
        caller = bed.caller(name)
        head = await caller.call("poa_getLog", hex(election))
        caller.close()
        heads[name] = (int(head["size"], 16), head["root"])
    problems = [
        f"{name} has {size} ballots, and {expected} were cast" for name, (size, _) in heads.items() if size != expected
    ]
    if len({root for _, root in heads.values()}) != 1:
        problems.append(f"the validators' logs differ: {heads}")
    return problems
