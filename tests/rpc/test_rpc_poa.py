"""`poa_` methods: what they answer is enough to verify the chain with nothing but keccak, RLP and secp256k1."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from merkle.patricia import ordered_root
from node.chain.block import decode_header
from node.chain.receipt import decode_receipt
from node.chain.signing import recover
from node.consensus.certificate import Certificate, seal_digest, verify_certificate
from node.rpc.limits import Limits
from node.rpc.server import RpcServer
from tests.rpc.rpc_harness import ABIS, ADDRESSES, ALICE, BOB, GATEWAY_KEY, VALIDATOR_KEYS, Caller, LoneNode

VALIDATORS = ["0x" + key.address.hex() for key in VALIDATOR_KEYS]


def raw(text: str) -> bytes:
    return bytes.fromhex(text[2:])


async def test_validators(rpc: Caller, node: LoneNode) -> None:
    node.include()
    expected = {
        "height": "0x1",
        "validators": VALIDATORS,
        "quorum": "0x2",
        "next": VALIDATORS,
        "gateways": ["0x" + GATEWAY_KEY.address.hex()],
    }
    assert await rpc("poa_getValidators") == expected
    assert await rpc("poa_getValidators", "0x0") == expected | {"height": "0x0"}


async def test_a_certificate_names_its_sealers(rpc: Caller, node: LoneNode) -> None:
    block = node.include().block
    block_hash = "0x" + block.hash.hex()
    certificate = await rpc("poa_getCertificate", "latest")
    assert (certificate["height"], certificate["round"], certificate["blockHash"]) == ("0x1", "0x0", block_hash)
    assert [seal["validator"] for seal in certificate["seals"]] == VALIDATORS[:2]
    digest = seal_digest(node.chain.domain, 1, 0, block.hash)
    for seal in certificate["seals"]:
        assert recover(digest, raw(seal["signature"])) == raw(seal["validator"])
    assert await rpc("poa_getCertificate", block_hash) == certificate
    assert await rpc("poa_getCertificate", {"blockNumber": "0x1"}) == certificate
    assert await rpc("poa_getCertificate", "0x0") is None


async def test_contracts(rpc: Caller) -> None:
    contracts = await rpc("poa_getContracts")
    assert {name: raw(contract["address"]) for name, contract in contracts.items()} == ADDRESSES
    assert {name: contract["abi"] for name, contract in contracts.items()} == {n: abi.json for n, abi in ABIS.items()}


def cast(node: LoneNode, election: int, *nullifiers: int) -> Any:
    packed = b"".join(
        n.to_bytes(32, "big") + (1000 + n).to_bytes(32, "big") + b"\0" + (1).to_bytes(4, "big") + b"\1"
        for n in nullifiers
    )
    return node.call_contract(GATEWAY_KEY, "Elections", "castBatch", election, packed)


async def test_status_counts_what_is_final(rpc: Caller, node: LoneNode) -> None:
    for election in (1, 2):
        arguments: tuple[object, ...] = (election, "Demo", ["yes", "no"], 3, 0, 0, 0, [], bytes(32))
        node.include(node.call_contract(GATEWAY_KEY, "Elections", "create", *arguments))
    node.include(cast(node, 1, 1, 2, 3), cast(node, 2, 1))
    status = await rpc("poa_status")
    assert (status["ballots"], status["anchors"]) == ("0x4", "0x0")  # counted from storage
    node.include(cast(node, 1, 3, 4, 5), cast(node, 2, 2))  # 3 is there already
    node.include(node.call_contract(GATEWAY_KEY, "Anchors", "anchor", bytes(32), bytes(32), 1, ""))
    node.include(node.sign(ALICE, BOB.address))
    await rpc("eth_sendRawTransaction", "0x" + node.sign(ALICE, BOB.address).raw.hex())
    status = await rpc("poa_status")
    assert status == {
        "name": "validator-1",
        "address": VALIDATORS[0],
        "clientVersion": "psephos/test",
        "chainId": "0x1e5a",
        "genesisHash": "0x" + node.chain.domain.genesis_hash.hex(),
        "height": "0x6",
        "blockHash": "0x" + node.chain.head.hash.hex(),
        "round": "0x3",
        "peers": [
            {"address": VALIDATORS[n], "name": f"validator-{n}", "endpoint": f"127.0.0.1:3030{n}", "height": height}
            for n, height in ((1, "0x4"), (2, None))
        ],
        "peerCount": "0x2",
        "mempool": "0x1",
        "ballots": "0x7",
        "anchors": "0x1",
        "syncing": False,
        "validator": True,
    }


def verified(node: LoneNode, view: dict[str, Any]) -> int:
    """Check an encoded block as a follower would; its height."""
    header = decode_header(raw(view["header"]))
    assert ordered_root([raw(item) for item in view["transactions"]]) == header.transactions_root
    assert ordered_root([raw(item) for item in view["receipts"]]) == header.receipts_root
    receipts = [decode_receipt(raw(item)) for item in view["receipts"]]
    assert sum(len(receipt.event_logs) for receipt in receipts) <= len(view["transactions"])
    if header.number == 0:
        assert view["certificate"] is None
        return 0
    fields = view["certificate"]
    seals = tuple(raw(seal) for seal in fields["seals"])
    certificate = Certificate(int(fields["height"], 16), int(fields["round"], 16), raw(fields["blockHash"]), seals)
    verify_certificate(certificate, header, tuple(key.address for key in VALIDATOR_KEYS), node.chain.domain)
    return header.number


async def test_blocks_for_followers_can_be_verified(rpc: Caller, node: LoneNode) -> None:
    node.include(node.sign(ALICE, BOB.address), node.sign(ALICE, BOB.address))
    node.include(node.call_contract(GATEWAY_KEY, "Anchors", "anchor", bytes(32), bytes(32), 1, ""))
    blocks = await rpc("poa_getBlocks", 0, 10)
    assert [verified(node, view) for view in blocks] == [0, 1, 2]
    assert await rpc("poa_getBlocks", "0x1", "0x1") == blocks[1:2]
    assert await rpc("poa_getBlocks", 3, 10) == []
    assert await rpc("poa_getBlocks", 0, 0) == []


class TestPollLimits:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(poll_blocks_max=3, poll_bytes_max=1_500, poll_wait_ms_max=100, polls_waiting_max=1)

    async def test_blocks_are_capped_in_number_and_bytes(self, rpc: Caller, node: LoneNode) -> None:
        assert len(await rpc("poa_getBlocks", 0, 64)) == 1
        for _ in range(3):
            node.include()
        heads = await rpc("poa_getBlocks", 0, 64)
        assert len(heads) == 2  # headers of some 550 bytes each
        node.include(node.sign(ALICE, BOB.address, bytes(4_000)))
        assert len(await rpc("poa_getBlocks", 4, 64)) == 1  # one at least, however large
        assert len(await rpc("poa_getBlocks", 3, 64)) == 1

    async def test_waiting_is_bounded(self, rpc: Caller) -> None:
        started = time.monotonic()
        polls = await asyncio.gather(*(rpc("poa_getBlocks", 5, 1, 60_000) for _ in range(2)))
        assert polls == [[], []]
        assert time.monotonic() - started < 5


async def test_a_poll_waits_for_the_next_block(rpc: Caller, node: LoneNode) -> None:
    poll = asyncio.create_task(rpc("poa_getBlocks", 1, 4, 20_000))
    await node.polled.wait()
    assert not poll.done()
    node.include(node.sign(ALICE, BOB.address))
    async with asyncio.timeout(5):
        (view,) = await poll
    assert verified(node, view) == 1
    assert await rpc("poa_getBlocks", 2, 4, 1) == []


async def test_a_poll_does_not_keep_the_server_from_stopping(node: LoneNode) -> None:
    server = RpcServer(node, ("127.0.0.1", 0))
    host, port = await server.start()
    async with httpx.AsyncClient(timeout=20) as client:
        poll = asyncio.create_task(Caller(client, f"http://{host}:{port}")("poa_getBlocks", 1, 1, 20_000))
        await node.polled.wait()
        async with asyncio.timeout(5):
            await server.stop()
            with pytest.raises(httpx.TransportError):
                await poll
    await server.stop()


async def test_a_taken_port_is_an_os_error(node: LoneNode) -> None:
    first = RpcServer(node, ("127.0.0.1", 0))
    bound = await first.start()
    second = RpcServer(node, bound)
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    await second.stop()
    await first.stop()
