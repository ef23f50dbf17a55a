"""web3.py, unchanged and without middleware, against a running network."""

import secrets
from typing import Any

import httpx
import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from web3 import Web3
from web3.exceptions import ContractCustomError, Web3RPCError
from web3.types import RPCEndpoint

from tests.e2e.harness import Cluster, until
from tests.e2e.recount import header_hash

pytestmark = pytest.mark.e2e

MNEMONIC = "test test test test test test test test test test test junk"


def connect(running: Cluster, number: int = 1) -> Web3:
    w3 = Web3(Web3.HTTPProvider(running.rpc_url(number)))
    assert w3.is_connected()
    return w3


def account(index: int) -> LocalAccount:
    Account.enable_unaudited_hdwallet_features()
    found: LocalAccount = Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
    return found


def contract(w3: Web3, name: str) -> Any:  # web3 makes its methods from the ABI
    found = w3.provider.make_request(RPCEndpoint("poa_getContracts"), [])["result"][name]
    return w3.eth.contract(address=Web3.to_checksum_address(found["address"]), abi=found["abi"])


def test_blocks_and_chain(running: Cluster) -> None:
    w3 = connect(running)
    assert w3.eth.chain_id == 7770
    assert w3.net.version == "7770"
    assert w3.client_version
    genesis = w3.eth.get_block(0)
    assert genesis["number"] == 0
    assert len(genesis["extraData"]) == 32
    for tag in ("latest", "safe", "finalized"):
        block = w3.eth.get_block(tag)
        raw = running.call(1, "eth_getBlockByHash", block["hash"].to_0x_hex(), False)
        assert header_hash(raw) == block["hash"].to_0x_hex()


def test_signed_transfer_of_every_type(running: Cluster) -> None:
    w3 = connect(running)
    sender, receiver = account(1), Account.create()
    amount = Web3.to_wei(1, "ether")
    fees: tuple[dict[str, Any], ...] = (
        {"gasPrice": 0},
        {"gasPrice": 0, "accessList": []},
        {"maxFeePerGas": 10**9, "maxPriorityFeePerGas": 0},
    )
    for count, fee in enumerate(fees, 1):
        transaction: dict[str, Any] = {
            "to": receiver.address,
            "value": amount,
            "nonce": w3.eth.get_transaction_count(sender.address, "pending"),
            "gas": 21_000 + 2_400 * ("accessList" in fee),
            "chainId": w3.eth.chain_id,
            **fee,
        }
        if "accessList" in fee:
            transaction["type"] = 1
        sent = w3.eth.send_raw_transaction(sender.sign_transaction(transaction).raw_transaction)
        receipt = w3.eth.wait_for_transaction_receipt(sent, timeout=20, poll_latency=0.05)
        assert receipt["status"] == 1
        assert receipt["gasUsed"] == 21_000
        assert w3.eth.get_balance(receiver.address) == count * amount
        found = w3.eth.get_transaction(sent)
        assert found["from"] == sender.address
        assert found["blockNumber"] == receipt["blockNumber"]


def test_contract_calls_events_and_custom_errors(running: Cluster) -> None:
    w3 = connect(running, 2)
    elections = contract(w3, "Elections")
    owner = account(2)
    number = secrets.randbelow(1 << 62) + 1000

    def send(call: Any) -> Any:
        transaction = call.build_transaction(
            {
                "from": owner.address,
                "nonce": w3.eth.get_transaction_count(owner.address, "pending"),
                "maxFeePerGas": 0,
                "maxPriorityFeePerGas": 0,
            }
        )
        sent = w3.eth.send_raw_transaction(owner.sign_transaction(transaction).raw_transaction)
        return w3.eth.wait_for_transaction_receipt(sent, timeout=20, poll_latency=0.05)

    created = send(
        elections.functions.create(number, "From web3", ["yes", "no"], 3, 0, 0, 3600, [owner.address], bytes(32))
    )
    assert created["status"] == 1
    (event,) = elections.events.ElectionCreated().process_receipt(created)
    assert event["args"] == {"election": number, "creator": owner.address, "title": "From web3"}

    nullifier, record_id = secrets.token_bytes(32), secrets.token_bytes(32)
    cast = send(elections.functions.cast(number, nullifier, record_id, 0, b"\x01"))
    assert cast["status"] == 1
    sealed = send(elections.functions.cast(number, secrets.token_bytes(32), secrets.token_bytes(32), 1, b"sealed"))
    assert elections.functions.tally(number).call() == [[0, 1], 1, 2]
    found, ballot = elections.functions.ballotByNullifier(number, nullifier).call()
    assert found
    assert ballot == (0, nullifier, record_id, 0, b"\x01", cast["blockNumber"])

    events = elections.events.BallotsCast().get_logs(
        from_block=created["blockNumber"], to_block="latest", argument_filters={"election": number}
    )
    assert [(event["args"]["firstIndex"], event["args"]["count"]) for event in events] == [(0, 1), (1, 1)]
    assert events[1]["transactionHash"] == sealed["transactionHash"]

    error = Web3.keccak(text="AlreadyCast(bytes32,uint256)")[:4]
    with pytest.raises(ContractCustomError) as refusal:
        elections.functions.cast(number, nullifier, secrets.token_bytes(32), 0, b"\x00").call({"from": owner.address})
    assert str(refusal.value.data or refusal.value).startswith(error.to_0x_hex())


def test_what_gateways_do_is_seen_by_web3(running: Cluster) -> None:
    w3 = connect(running, 3)
    batch = "8b4b8a31-7d4e-4a2b-9a34-" + secrets.token_hex(6)
    root = secrets.token_hex(32)
    body = {"batch_id": batch, "merkle_root": root, "product_count": 12, "algorithm": "sha256"}
    with httpx.Client(base_url=running.gateway_url, trust_env=False, timeout=15) as client:
        answer = client.post("/v1/anchor", json=body)
        assert answer.is_success, answer.text
        told = client.get(f"/v1/anchor/{batch}")
    assert told.is_success, told.text
    anchors = contract(w3, "Anchors")
    key = bytes.fromhex(batch.replace("-", "")) + bytes(16)

    def stored() -> bool:
        found, anchor = anchors.functions.anchorOf(key).call()
        return bool(found) and anchor[2].hex() == root and anchor[3] == 12 and anchor[4] == "sha256"

    until(stored, 15, "the anchor is final on validator 3")


def test_contract_creation_is_refused_by_name(running: Cluster) -> None:
    w3 = connect(running)
    deployer = account(3)
    creation: dict[str, Any] = {
        "data": "0x6001600101",
        "nonce": w3.eth.get_transaction_count(deployer.address, "pending"),
        "gas": 100_000,
        "gasPrice": 0,
        "chainId": w3.eth.chain_id,
    }
    with pytest.raises(Web3RPCError, match="contract creation is not supported"):
        w3.eth.send_raw_transaction(deployer.sign_transaction(creation).raw_transaction)
