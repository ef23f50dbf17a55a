"""Signing for callers: the mnemonic's keys, and signatures that eth-account recovers; nothing of it off loopback."""

import json

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct, encode_typed_data

from cluster.dev_accounts import DEV_ACCOUNTS, DEV_MNEMONIC
from node.rpc.dev_accounts import COUNT, MNEMONIC, derive
from node.rpc.methods import BadValue
from node.rpc.server import RpcServer
from node.rpc.typed_data import parse_typed_data
from tests.rpc.rpc_harness import BOB, CHAIN_ID, DEV_KEYS, Caller, LoneNode, RpcFailure

DEV = "0x" + DEV_KEYS[0].address.hex()
TO = "0x" + BOB.address.hex()
MAIL = {
    "types": {
        "EIP712Domain": [
            {"name": "name", "type": "string"},
            {"name": "chainId", "type": "uint256"},
            {"name": "verifyingContract", "type": "address"},
            {"name": "salt", "type": "bytes32"},
        ],
        "Person": [{"name": "name", "type": "string"}, {"name": "wallets", "type": "address[]"}],
        "Mail": [
            {"name": "from", "type": "Person"},
            {"name": "to", "type": "Person[2]"},
            {"name": "contents", "type": "bytes"},
            {"name": "weight", "type": "int16"},
            {"name": "grid", "type": "uint8[2][]"},
            {"name": "urgent", "type": "bool"},
            {"name": "tag", "type": "bytes4"},
        ],
    },
    "primaryType": "Mail",
    "domain": {"name": "Ether Mail", "chainId": CHAIN_ID, "verifyingContract": DEV, "salt": "0x" + "07" * 32},
    "message": {
        "from": {"name": "Cow", "wallets": [DEV, TO]},
        "to": [{"name": "Bob", "wallets": []}, {"name": "Eve", "wallets": [TO]}],
        "contents": "0x00ff",
        "weight": -300,
        "grid": [[1, 2], [3, 4]],
        "urgent": True,
        "tag": "0xdeadbeef",
    },
}


def test_the_keys_are_those_of_the_mnemonic() -> None:
    Account.enable_unaudited_hdwallet_features()
    assert MNEMONIC == DEV_MNEMONIC
    assert [key.address.hex() for key in derive(MNEMONIC, COUNT)] == [text[2:].lower() for text in DEV_ACCOUNTS]
    for index in (0, 7):
        oracle = Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
        assert derive(MNEMONIC, index + 1)[index].secret == bytes(oracle.key)
    other = "legal winner thank year wave sausage worth useful legal winner thank yellow"
    assert derive(other, 1)[0].secret == bytes(Account.from_mnemonic(other).key)


async def test_accounts_are_those_that_genesis_funds(rpc: Caller) -> None:
    assert await rpc("eth_accounts") == ["0x" + key.address.hex() for key in DEV_KEYS]


async def test_sending_fills_in_what_is_left_out(rpc: Caller, node: LoneNode) -> None:
    first = await rpc("eth_sendTransaction", {"from": DEV, "to": TO, "value": "0x1"})
    second = await rpc("eth_sendTransaction", {"from": DEV, "to": TO, "value": "0x2"})
    assert [(await rpc("eth_getTransactionByHash", sent))["nonce"] for sent in (first, second)] == ["0x0", "0x1"]
    node.mine()
    receipt = await rpc("eth_getTransactionReceipt", second)
    assert (receipt["status"], receipt["gasUsed"], receipt["type"]) == ("0x1", "0x5208", "0x2")
    priced = await rpc("eth_sendTransaction", {"from": DEV, "to": TO, "gasPrice": "0x5"})
    shown = await rpc("eth_getTransactionByHash", priced)
    assert (shown["type"], shown["gasPrice"], shown["from"]) == ("0x0", "0x5", DEV)
    tip = await rpc("eth_sendTransaction", {"from": DEV, "to": TO, "maxPriorityFeePerGas": "0x3"})
    shown = await rpc("eth_getTransactionByHash", tip)
    assert (shown["maxFeePerGas"], shown["maxPriorityFeePerGas"]) == ("0x3", "0x3")
    replaced = {"from": DEV, "to": TO, "nonce": "0x2", "gasPrice": "0x4"}
    with pytest.raises(RpcFailure, match="replacement transaction underpriced"):
        await rpc("eth_sendTransaction", replaced)
    with pytest.raises(RpcFailure, match="nonce too low"):
        await rpc("eth_sendTransaction", replaced | {"nonce": "0x0"})


@pytest.mark.parametrize("fields", [{}, {"gasPrice": "0x7"}, {"accessList": [{"address": TO, "storageKeys": []}]}])
async def test_signed_transactions_are_the_callers(rpc: Caller, fields: dict[str, object]) -> None:
    request = {"from": DEV, "to": TO, "gas": "0x7530", "value": "0x9", "nonce": "0x5", "data": "0x01", **fields}
    signed = await rpc("eth_signTransaction", request)
    assert Account.recover_transaction(signed["raw"]).lower() == DEV
    assert (signed["tx"]["nonce"], signed["tx"]["chainId"]) == ("0x5", hex(CHAIN_ID))


async def test_messages_and_typed_data(rpc: Caller) -> None:
    signature = await rpc("eth_sign", DEV, "0x" + "tö".encode().hex())
    assert Account.recover_message(encode_defunct(text="tö"), signature=signature).lower() == DEV
    assert await rpc("personal_sign", "0x" + "tö".encode().hex(), DEV) == signature
    signature = await rpc("eth_signTypedData", DEV, MAIL)
    assert await rpc("eth_signTypedData_v4", DEV, json.dumps(MAIL)) == signature
    assert Account.recover_message(encode_typed_data(full_message=MAIL), signature=signature).lower() == DEV


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"to": [{"name": "Bob", "wallets": []}]}, "Expected 2 items for array type Person[2], got 1 items"),
        ({"weight": 40_000}, "'message.weight': 40000 does not fit 16 bits"),
        ({"tag": "0x00"}, "'message.tag': hex string has length 2"),
        ({"urgent": 1}, "expected true or false"),
        ({"from": "Cow"}, "expected an object of type Person"),
    ],
)
def test_typed_data_that_does_not_fit_its_types(change: dict[str, object], expected: str) -> None:
    document = json.loads(json.dumps(MAIL))
    document["message"] |= change
    with pytest.raises(BadValue) as refusal:
        parse_typed_data(document)
    assert expected in str(refusal.value)


async def test_strangers_accounts_and_chains_are_refused(rpc: Caller) -> None:
    with pytest.raises(RpcFailure, match="unknown account"):
        await rpc("eth_sendTransaction", {"from": TO, "to": DEV})
    with pytest.raises(RpcFailure, match="chainId does not match"):
        await rpc("eth_sendTransaction", {"from": DEV, "to": TO, "chainId": "0x1"})
    with pytest.raises(RpcFailure, match="contract creation is not supported"):
        await rpc("eth_sendTransaction", {"from": DEV, "data": "0x6001"})


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
async def test_off_loopback_or_unasked_there_are_no_accounts(node: LoneNode, host: str) -> None:
    server = RpcServer(node, (host, 0), dev_accounts=host == "0.0.0.0")
    methods = server._api.methods
    assert methods["eth_accounts"].handler() == []
    with pytest.raises(Exception, match="unknown account"):
        methods["eth_sign"].handler(DEV_KEYS[0].address, b"")
    await server.stop()
