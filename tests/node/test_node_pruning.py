"""Pruning: kept states answer as an archive's do, the chain goes on alike, and a death at any step costs nothing."""

import contextlib
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import rlp
from hypothesis import given, settings
from hypothesis import strategies as st

from merkle.patricia import EMPTY_ROOT, references
from node import pruning
from node.chain import keyspace
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.errors import LedgerError
from node.chain.state import State, prove_account
from node.ledger import Ledger
from node.leveldb import LevelDB
from node.pruning import oldest_state, prune
from node.rpc.server import RpcServer
from tests.node.conftest import catch_up
from tests.rpc.rpc_harness import ALICE, BOB, GATEWAY_KEY, Caller, LoneNode, MemoryDatabase, RpcFailure

NODE = keyspace.TRIE_NODE
ADDRESSES = [ALICE.address, BOB.address, ANCHORS, ELECTIONS, bytes(20)]
SLOTS = list(range(12))


def copied(database: MemoryDatabase) -> MemoryDatabase:
    copy = MemoryDatabase()
    copy.write(dict(database.scan(b"", b"\xff")))
    return copy


def nodes_of(database: Any) -> set[bytes]:
    return {key for key, _ in database.scan(NODE, b"o")}


def grow(node: LoneNode, steps: Iterable[int]) -> None:
    """A block for each number: empty, a transfer there, one back (so that old nodes return), an anchor, an election."""
    for number, step in enumerate(steps):
        if step == 0:
            node.include()
        elif step in (1, 2):
            sender, to = (ALICE, BOB) if step == 1 else (BOB, ALICE)
            node.include(node.sign(sender, to.address, value=1))
        elif step == 3:
            batch = (node.chain.head.number * 100 + number).to_bytes(32, "big")
            node.include(node.call_contract(GATEWAY_KEY, "Anchors", "anchor", batch, bytes(32), 4, "sha256"))
        else:
            arguments: tuple[object, ...] = (
                node.chain.head.number * 100 + number,
                "Demo",
                ["yes", "no"],
                3,
                0,
                0,
                0,
                [],
                bytes(32),
            )
            node.include(node.call_contract(GATEWAY_KEY, "Elections", "create", *arguments))


def answers(chain: Ledger, database: Any, height: int) -> list[object]:
    """All that a client can ask of the state at a height."""
    header = chain.header(height)
    assert header is not None
    state = State(database, header.state_root)
    found: list[object] = [(state.account(address), state.code(address)) for address in ADDRESSES]
    return found + [prove_account(database, header.state_root, address, SLOTS) for address in ADDRESSES]


def reached_slowly(database: Mapping[bytes, bytes], root: bytes) -> set[bytes]:
    """The keys of all nodes under a root: whatever 32 bytes, however deep in a node's RLP, are some node's hash."""
    found: set[bytes] = set()

    def look(item: Any) -> None:
        if isinstance(item, list):
            for each in item:
                look(each)
        elif len(item) == 32 and NODE + item in database and NODE + item not in found:
            found.add(NODE + item)
            look(rlp.decode(database[NODE + item]))
        elif len(item) > 32:  # an account, which is RLP in RLP; or a path, which is none
            with contextlib.suppress(rlp.DecodingError):
                look(rlp.decode(item))

    look(root)
    return found


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=14), st.integers(1, 16), st.lists(st.integers(0, 4), max_size=4)
)
def test_a_pruned_chain_is_an_archive_from_its_horizon_on(before: list[int], keep: int, after: list[int]) -> None:
    node = LoneNode()
    grow(node, before)
    archive = copied(node.database)
    head = node.chain.head.number
    node.chain.oldest_state = oldest = prune(node.database, node.chain, keep)
    assert oldest == oldest_state(node.database) == max(0, head + 1 - keep)
    everything = dict(archive.scan(b"", b"\xff"))
    kept = set[bytes]()
    for height in range(oldest, head + 1):
        header = node.chain.header(height)
        assert header is not None
        kept |= reached_slowly(everything, header.state_root)
        assert answers(node.chain, node.database, height) == answers(node.chain, archive, height)
    assert nodes_of(node.database) == (kept if oldest else nodes_of(archive))
    others = {key: value for key, value in everything.items() if key[:1] not in (NODE, keyspace.META)}
    assert others == {key: node.database.get(key) for key in others}  # blocks, receipts, records: all of them
    grow(node, after)  # its state roots are checked: `include` builds, and a reopened archive executes
    twin = Ledger(archive, node.chain.genesis)
    catch_up(twin, archive, node.chain)
    assert twin.head == node.chain.head
    assert prune(node.database, node.chain, keep) == max(0, node.chain.head.number + 1 - keep)
    assert answers(node.chain, node.database, node.chain.head.number) == answers(twin, archive, twin.head.number)


class Mortal:
    """A database that dies before its n-th change, or, of a deletion, in the midst of it."""

    def __init__(self, database: MemoryDatabase, changes: int) -> None:
        self._database, self._left = database, changes
        self.get, self.scan = database.get, database.scan

    def _live(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt

    def write(self, puts: Mapping[bytes, bytes]) -> None:
        self._live()
        self._database.write(puts)

    def delete(self, keys: Iterable[bytes]) -> None:
        for key in keys:  # more than a crash does: a batch is there or is not
            self._live()
            self._database.delete([key])


@pytest.mark.parametrize("batch", [1, 7])
def test_killed_anywhere_it_opens_goes_on_and_the_next_start_does_the_rest(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "DELETED_AT_ONCE", batch)
    node = LoneNode()
    grow(node, [1, 3, 2, 4, 0, 3, 1])
    whole = copied(node.database)
    wanted = copied(whole)
    prune(wanted, node.chain, 3)
    for changes in count():
        database = copied(whole)
        try:
            prune(Mortal(database, changes), node.chain, 3)
            died = False
        except KeyboardInterrupt:
            died = True
        opened = Ledger(database, node.chain.genesis)
        assert opened.head == node.chain.head
        assert opened.oldest_state == (5 if changes else 0)  # said before the first deletion
        for height in range(5, 8):
            assert answers(opened, database, height) == answers(node.chain, whole, height)
        assert prune(database, opened, 3) == 5
        assert nodes_of(database) == nodes_of(wanted)
        if not died:
            break
    assert changes > len(nodes_of(whole)) - len(nodes_of(wanted))


def test_a_state_that_is_not_whole_is_no_reason_to_delete_the_rest() -> None:
    node = LoneNode()
    grow(node, [1, 3, 1])
    header = node.chain.header(2)
    assert header is not None
    node.database.delete([NODE + header.state_root])
    before = copied(node.database)
    with pytest.raises(LedgerError, match="not whole"):
        prune(node.database, node.chain, 2)
    assert dict(node.database.scan(b"", b"\xff")) == dict(before.scan(b"", b"\xff"))


def test_an_archive_stays_one_and_a_horizon_never_falls() -> None:
    node = LoneNode()
    grow(node, [1] * 6)
    before = nodes_of(node.database)
    assert prune(node.database, node.chain, 0) == 0
    assert nodes_of(node.database) == before
    assert prune(node.database, node.chain, 2) == 5
    assert prune(node.database, node.chain, 4) == 5
    assert prune(node.database, node.chain, 0) == 5


def test_on_a_real_disk(tmp_path: Path) -> None:
    node = LoneNode()
    grow(node, [1, 3, 2, 4, 1])
    database = LevelDB(tmp_path / "chain")
    database.write(dict(node.database.scan(b"", b"\xff")))
    assert prune(database, Ledger(database, node.chain.genesis), 2) == 4
    database.close()
    database = LevelDB(tmp_path / "chain")
    reopened = Ledger(database, node.chain.genesis)
    assert reopened.oldest_state == 4
    assert answers(reopened, database, 5) == answers(node.chain, node.database, 5)
    prune(node.database, node.chain, 2)
    assert nodes_of(database) == nodes_of(node.database)
    database.close()


async def test_clients_are_told_what_is_kept_and_blocks_are_shown_all_the_same() -> None:
    node = LoneNode()
    grow(node, [1, 3, 2, 1])
    node.chain.oldest_state = prune(node.database, node.chain, 2)
    server = RpcServer(node, ("127.0.0.1", 0))
    host, port = await server.start()
    async with httpx.AsyncClient(timeout=20) as client:
        rpc = Caller(client, f"http://{host}:{port}")
        alice = "0x" + ALICE.address.hex()
        call = {"to": "0x" + ANCHORS.hex(), "data": "0x"}
        calls: list[tuple[str, list[Any]]] = [
            ("eth_getBalance", [alice]),
            ("eth_getTransactionCount", [alice]),
            ("eth_getStorageAt", ["0x" + ANCHORS.hex(), "0x0"]),
            ("eth_getProof", [alice, []]),
            ("eth_getCode", ["0x" + ANCHORS.hex()]),
            ("eth_estimateGas", [{"to": alice}]),
            ("eth_call", [{"to": alice} | call]),
            ("poa_getLog", ["anchors"]),
        ]
        for method, params in calls:
            for block in ("0x2", "earliest", {"blockNumber": "0x0"}):
                with pytest.raises(
                    RpcFailure, match=r"historical state of block \d is not available.* block 3 on"
                ) as no:
                    await rpc(method, *params, block)
                assert no.value.code == -32000
            if method != "eth_call":
                await rpc(method, *params, "0x3")
        assert (await rpc("eth_getBlockByNumber", "0x1", True))["transactions"]
        assert await rpc("eth_getLogs", {"fromBlock": "0x0", "toBlock": "0x2"})
        assert await rpc("eth_feeHistory", "0x4", "latest", [50])
        assert await rpc("poa_getValidatorChanges", 0) == []
    await server.stop()


def test_what_a_node_refers_to_is_found_also_where_it_stands_inside() -> None:
    """Against the RLP library, on every node of a chain."""
    node = LoneNode()
    grow(node, [1, 3, 4, 3, 1])
    database = dict(node.database.scan(NODE, b"o"))
    for data in database.values():
        hashes, _ = references(data)
        assert {NODE + node_hash for node_hash in hashes} <= set(database)
    inside = rlp.encode([b"\x20" + bytes(3), b"ab"])  # a leaf too short for a hash, in a branch
    branch = rlp.encode([rlp.decode(inside), bytes(range(32)), *[b""] * 14, b"value"])
    assert references(branch) == ([bytes(range(32))], [b"value", b"ab"])
    assert EMPTY_ROOT not in {key[1:] for key in database}
