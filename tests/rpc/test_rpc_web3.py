"""web3.py as it comes, without middleware, against a node: reads, sends, calls, waits, filters; warnings are errors."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from eth_account import Account
from web3 import AsyncWeb3, Web3
from web3.exceptions import BlockNotFound, ContractCustomError, TransactionNotFound, Web3RPCError

from tests.rpc.rpc_harness import ABIS, ADDRESSES, ALICE, BOB, CHAIN_ID, ETHER, GATEWAY_KEY, LoneNode

T = TypeVar("T")
GATEWAY = Account.from_key(GATEWAY_KEY.secret)
OWNER = Account.from_key(ALICE.secret)


@pytest.fixture
def live(node: LoneNode) -> LoneNode:
    """The node makes a block with each transaction."""
    node.mines_at_once = True
    return node


async def in_thread(url: str, script: Callable[[Any], T]) -> T:
    """Run a blocking script with the ordinary, synchronous web3.py."""

    def run() -> T:
        provider = Web3.HTTPProvider(url)
        try:
            return script(Web3(provider))
        finally:
            for _, session in provider._request_session_manager.session_cache.items():  # noqa: PERF102 - it is no dict
                session.close()

    return await asyncio.to_thread(run)


def contract(w3: Any, name: str) -> Any:
    address = Web3.to_checksum_address(ADDRESSES[name])
    return w3.eth.contract(address=address, abi=ABIS[name].json)


async def test_reading_blocks_and_recomputing_their_hashes(server_url: str, live: LoneNode) -> None:
    for _ in range(3):
        live.include(live.sign(ALICE, BOB.address, value=1))

    def script(w3: Any) -> None:
        assert w3.is_connected()
        assert w3.client_version == "psephos/test"
        assert w3.eth.chain_id == CHAIN_ID
        assert w3.net.version == str(CHAIN_ID)
        assert w3.eth.block_number == 3
        assert w3.eth.syncing is False
        parent = w3.eth.get_block(0)
        for height in (1, 2, 3):
            block = w3.eth.get_block(height, full_transactions=True)
            assert block["parentHash"] == parent["hash"]
            assert w3.eth.get_block(block["hash"])["number"] == height
            (transaction,) = block["transactions"]
            assert transaction["from"] == OWNER.address
            assert w3.eth.get_transaction(transaction["hash"]) == transaction
            assert w3.eth.get_transaction_receipt(transaction["hash"])["status"] == 1
            parent = block
        assert w3.eth.get_block("pending")["number"] == 4
        assert w3.eth.get_block_receipts(3)[0]["gasUsed"] == 21_000
        assert w3.eth.fee_history(2, "latest", [50.0])["baseFeePerGas"] == [0, 0, 0]
        with pytest.raises(BlockNotFound):
            w3.eth.get_block(99)
        with pytest.raises(TransactionNotFound):
            w3.eth.get_transaction(b"\x01" * 32)

    await in_thread(server_url, script)


async def test_a_signed_transfer(server_url: str, live: LoneNode) -> None:
    def script(w3: Any) -> None:
        receiver = Web3.to_checksum_address(b"\x77" * 20)
        fields = {"to": receiver, "value": 3 * ETHER, "gas": 21_000, "chainId": CHAIN_ID, "maxFeePerGas": 0}
        fields |= {"maxPriorityFeePerGas": 0, "nonce": w3.eth.get_transaction_count(OWNER.address)}
        signed = OWNER.sign_transaction(fields)
        receipt = w3.eth.wait_for_transaction_receipt(w3.eth.send_raw_transaction(signed.raw_transaction), timeout=5)
        assert (receipt["status"], receipt["gasUsed"], receipt["effectiveGasPrice"]) == (1, 21_000, 0)
        assert w3.eth.get_balance(receiver) == 3 * ETHER
        assert w3.eth.get_balance(OWNER.address) == 997 * ETHER
        assert w3.eth.get_balance(receiver, receipt["blockNumber"] - 1) == 0
        with pytest.raises(Web3RPCError, match="nonce too low"):
            w3.eth.send_raw_transaction(OWNER.sign_transaction(fields | {"value": 1}).raw_transaction)

    await in_thread(server_url, script)


async def test_contracts_by_their_abi(server_url: str, live: LoneNode) -> None:
    def send(w3: Any, function: Any) -> Any:
        """Let web3.py fill in everything: gas, fees, nonce, chain id."""
        unsigned = function.build_transaction({"from": GATEWAY.address, "nonce": next_nonce(w3)})
        raw = GATEWAY.sign_transaction(unsigned).raw_transaction
        receipt = w3.eth.wait_for_transaction_receipt(w3.eth.send_raw_transaction(raw), timeout=5)
        assert receipt["status"] == 1
        return receipt

    def next_nonce(w3: Any) -> Any:
        return w3.eth.get_transaction_count(GATEWAY.address, "pending")

    def script(w3: Any) -> None:
        elections, anchors = contract(w3, "Elections"), contract(w3, "Anchors")
        created = elections.events.ElectionCreated.create_filter(from_block="latest")
        receipt = send(w3, elections.functions.create(5, "Lunch", ["soup", "salad"], 3, 0, 0, 60, [], bytes(32)))
        (event,) = elections.events.ElectionCreated().process_receipt(receipt)
        assert (event["args"]["election"], event["args"]["title"]) == (5, "Lunch")
        assert [entry["args"]["election"] for entry in created.get_new_entries()] == [5]
        assert created.get_new_entries() == []

        receipt = send(w3, elections.functions.cast(5, b"\x01" * 32, b"\x02" * 32, 0, b"\x01"))
        counts, sealed, total = elections.functions.tally(5).call()
        assert (list(counts), sealed, total) == ([0, 1], 0, 1)
        assert elections.functions.tally(5).call(block_identifier=receipt["blockNumber"] - 1)[2] == 0
        assert elections.functions.election(5).call()[0] == "Lunch"
        (cast,) = elections.events.BallotsCast.get_logs(from_block=0, argument_filters={"election": 5})
        assert cast["args"]["count"] == 1
        assert elections.events.BallotsCast.get_logs(from_block=0, argument_filters={"election": 6}) == []

        send(w3, anchors.functions.anchor(b"\x03" * 32, b"\x04" * 32, 8, "sha256"))
        assert anchors.functions.anchorOf(b"\x03" * 32).call()[0] is True
        validators = contract(w3, "Validators").functions.validators().call()
        assert [bytes.fromhex(address[2:]) for address in validators] == list(live.chain.next_validators)

        with pytest.raises(ContractCustomError) as refused:
            elections.functions.tally(404).call()
        assert refused.value.data == "0x" + ABIS["Elections"].encode_error("UnknownElection", 404).hex()
        with pytest.raises(ContractCustomError):
            elections.functions.close(404).estimate_gas({"from": GATEWAY.address})

    await in_thread(server_url, script)


async def test_proofs_and_storage(server_url: str, live: LoneNode) -> None:
    def script(w3: Any) -> None:
        address = Web3.to_checksum_address(ADDRESSES["Validators"])
        assert int.from_bytes(w3.eth.get_storage_at(address, 4), "big") == CHAIN_ID
        assert bytes(w3.eth.get_code(address)) == b"\xfepsephos:Validators:1"
        proof = w3.eth.get_proof(address, [4], "latest")
        assert proof["nonce"] == 1
        assert int.from_bytes(proof["storageProof"][0]["value"], "big") == CHAIN_ID
        assert w3.keccak(proof["accountProof"][0]) == w3.eth.get_block("latest")["stateRoot"]

    await in_thread(server_url, script)


async def test_filters_of_blocks_and_transactions(server_url: str, node: LoneNode) -> None:
    def script(w3: Any) -> None:
        blocks, waiting = w3.eth.filter("latest"), w3.eth.filter("pending")
        hashes = [w3.eth.send_raw_transaction(node.sign(key, key.address).raw) for key in (ALICE, BOB)]
        assert sorted(waiting.get_new_entries()) == sorted(hashes)
        assert blocks.get_new_entries() == []
        loop.call_soon_threadsafe(node.mine)
        while not (found := blocks.get_new_entries()):
            pass
        assert found == [w3.eth.get_block(1)["hash"]]
        assert waiting.get_new_entries() == []
        assert w3.eth.uninstall_filter(blocks.filter_id)

    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        await in_thread(server_url, script)


async def test_the_asynchronous_client_with_a_local_account(server_url: str, live: LoneNode) -> None:
    w3: Any = AsyncWeb3(AsyncWeb3.AsyncHTTPProvider(server_url))
    try:
        nonce = await w3.eth.get_transaction_count(OWNER.address)
        fields = {"to": GATEWAY.address, "value": 1, "nonce": nonce, "chainId": CHAIN_ID}
        fields["gas"] = await w3.eth.estimate_gas({"from": OWNER.address, "to": GATEWAY.address, "value": 1})
        fields["gasPrice"] = await w3.eth.gas_price
        raw = OWNER.sign_transaction(fields).raw_transaction
        receipt = await w3.eth.wait_for_transaction_receipt(await w3.eth.send_raw_transaction(raw), timeout=5)
        assert receipt["blockNumber"] == await w3.eth.block_number
        assert await w3.eth.get_balance(GATEWAY.address) == 1_000 * ETHER + 1
        async with w3.batch_requests() as batch:
            for height in range(2):
                batch.add(w3.eth.get_block(height))
            assert [block["number"] for block in await batch.async_execute()] == [0, 1]
    finally:
        await w3.provider.disconnect()
