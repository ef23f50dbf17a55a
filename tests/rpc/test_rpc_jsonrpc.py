"""JSON-RPC 2.0: the specification's own examples and its edges, over real HTTP."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.rpc import jsonrpc
from node.rpc.limits import Limits
from tests.rpc.rpc_harness import ALICE, BOB, Caller, LoneNode


def call(method: str = "eth_chainId", **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "id": 1} | more


async def answer_to(rpc: Caller, document: Any) -> Any:
    response = await rpc.post(document)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    return response.json()


async def error_of(rpc: Caller, document: Any) -> tuple[int, Any]:
    answer = await answer_to(rpc, document)
    assert set(answer) == {"jsonrpc", "id", "error"}
    assert answer["jsonrpc"] == "2.0"
    return answer["error"]["code"], answer["id"]


@pytest.mark.parametrize("id_", [1, 0, -3, "a", "", "1", 1.5, 2**53, None])
async def test_the_id_comes_back_as_it_was(rpc: Caller, id_: Any) -> None:
    assert await answer_to(rpc, call(id=id_)) == {"jsonrpc": "2.0", "id": id_, "result": "0x1e5a"}


@pytest.mark.parametrize("id_", [True, False, [], {}, [1]])
async def test_an_id_of_another_type_is_no_request(rpc: Caller, id_: Any) -> None:
    assert await error_of(rpc, call(id=id_)) == (-32600, None)


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
        b'[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0", "method"',
        b"",
        b"\xff\xfe",
        b"nope",
        b"[" * 5_000,
        b'{"jsonrpc":"2.0","method":"eth_chainId","id":NaN}',
    ],
)
async def test_what_is_not_json_is_a_parse_error(rpc: Caller, body: bytes) -> None:
    assert await error_of(rpc, body) == (-32700, None)


@pytest.mark.parametrize(
    ("document", "id_"),
    [
        ({"jsonrpc": "2.0", "method": 1, "params": "bar"}, None),
        ({"jsonrpc": "2.0", "method": 1, "id": 7}, 7),
        ({"jsonrpc": "2.0", "id": "x"}, "x"),
        ({"jsonrpc": "1.0", "method": "eth_chainId", "id": 7}, 7),
        ({"jsonrpc": 2.0, "method": "eth_chainId", "id": 7}, 7),
        ({"method": "eth_chainId", "id": 7}, 7),
        ({"jsonrpc": "2.0", "method": "eth_chainId", "params": "bar", "id": 7}, 7),
        ({"jsonrpc": "2.0", "method": "eth_chainId", "params": 0, "id": 7}, 7),
        ({}, None),
        ([], None),
        (1, None),
        ("eth_chainId", None),
        (None, None),
    ],
)
async def test_invalid_requests(rpc: Caller, document: Any, id_: Any) -> None:
    assert await error_of(rpc, document) == (-32600, id_)


@pytest.mark.parametrize("params", [[], {}, None])
async def test_no_parameters_in_any_form(rpc: Caller, params: Any) -> None:
    assert (await answer_to(rpc, call(params=params)))["result"] == "0x1e5a"


async def test_an_unknown_method(rpc: Caller) -> None:
    answer = await answer_to(rpc, call("eth_mine" + "x" * 500))
    assert answer["error"]["code"] == -32601
    assert "eth_mine" in answer["error"]["message"]
    assert len(answer["error"]["message"]) < 200


async def test_a_notification_is_executed_and_not_answered(rpc: Caller, node: LoneNode) -> None:
    raw = "0x" + node.sign(ALICE, BOB.address).raw.hex()
    response = await rpc.post({"jsonrpc": "2.0", "method": "eth_sendRawTransaction", "params": [raw]})
    assert (response.status_code, response.content) == (204, b"")
    assert len(node.mempool) == 1


@pytest.mark.parametrize("method", ["eth_chainId", "no_such", "eth_getBalance"])
async def test_a_notification_gets_no_error_either(rpc: Caller, method: str) -> None:
    response = await rpc.post({"jsonrpc": "2.0", "method": method})
    assert (response.status_code, response.content) == (204, b"")


async def test_a_mixed_batch_as_in_the_specification(rpc: Caller) -> None:
    batch = [
        call(id="1"),
        {"jsonrpc": "2.0", "method": "eth_blockNumber"},
        call("web3_sha3", params=["0x"], id="2"),
        {"foo": "boo"},
        call("foo.get", params={"name": "myself"}, id="5"),
        call("net_version", id="9"),
        1,
        [],
    ]
    answers = await answer_to(rpc, batch)
    assert [answer["id"] for answer in answers] == ["1", "2", None, "5", "9", None, None]
    codes = [answer.get("error", {}).get("code") for answer in answers]
    assert codes == [None, None, -32600, -32601, None, -32600, -32600]
    assert answers[4]["result"] == "7770"


async def test_a_batch_of_notifications_is_not_answered(rpc: Caller) -> None:
    response = await rpc.post([{"jsonrpc": "2.0", "method": "eth_chainId"}] * 3)
    assert (response.status_code, response.content) == (204, b"")


async def test_a_batch_of_one_is_answered_by_a_list(rpc: Caller) -> None:
    assert await answer_to(rpc, [call()]) == [{"jsonrpc": "2.0", "id": 1, "result": "0x1e5a"}]


async def test_nested_batches_are_no_requests(rpc: Caller) -> None:
    answers = await answer_to(rpc, [[call()], [[]]])
    assert [answer["error"]["code"] for answer in answers] == [-32600, -32600]


class TestLimits:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(batch_items_max=3, body_bytes_max=2_000, response_bytes_max=3_000, sender_timeout_s=0.2)

    async def test_a_batch_over_the_limit_is_refused_whole(self, rpc: Caller) -> None:
        assert len(await answer_to(rpc, [call()] * 3)) == 3
        answer = await answer_to(rpc, [call()] * 4)
        assert answer["error"] == {"code": -32600, "message": "batch too large: 4 requests, at most 3"}
        assert answer["id"] is None

    async def test_a_body_over_the_limit(self, rpc: Caller) -> None:
        response = await rpc.post(json.dumps(call(params=["x" * 3_000])).encode())
        assert response.status_code == 413
        assert "at most 2000 bytes" in response.json()["error"]["message"]

    async def test_a_response_over_the_limit(self, rpc: Caller) -> None:
        assert (await error_of(rpc, call("poa_getContracts")))[0] == -32003

    async def test_the_responses_of_a_batch_are_limited_together(self, rpc: Caller) -> None:
        block = call("eth_getBlockByNumber", params=["0x0"])
        first, second, third = await answer_to(rpc, [block, block, block])
        assert first["result"]["number"] == "0x0"
        assert [answer.get("error", {}).get("code") for answer in (second, third)] == [None, -32003] or (
            second["error"]["code"] == third["error"]["code"] == -32003
        )

    async def test_a_body_that_does_not_come(self, server_url: str, rpc: Caller) -> None:
        host, port = server_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
        writer.write(head.encode())
        async with asyncio.timeout(5):
            answer = await reader.read()  # to the end: the server closes the connection
        assert answer.startswith(b"HTTP/1.1 408 ")
        writer.close()
        await writer.wait_closed()
        assert await rpc("eth_chainId") == "0x1e5a"


async def test_only_json_is_taken(rpc: Caller) -> None:
    body = json.dumps(call()).encode()
    response = await rpc.http.post(rpc.url, content=body, headers={"content-type": "text/plain"})
    assert response.status_code == 415
    assert "application/json" in response.json()["error"]["message"]
    charset = {"content-type": "application/json; charset=utf-8"}
    assert (await rpc.http.post(rpc.url, content=body, headers=charset)).json()["result"] == "0x1e5a"


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("eth_getBalance", [], "missing value for required argument 0 (address)"),
        ("eth_getBalance", [None], "missing value for required argument 0 (address)"),
        ("eth_getBalance", ["0x12"], "invalid argument 0 (address): hex string has length 2, want 40"),
        ("eth_getBalance", [5], "invalid argument 0 (address): not a hex string"),
        ("eth_getBalance", ["0x" + "00" * 20, "latest", 1], "too many arguments, want at most 2"),
        ("eth_getBalance", {"adress": "0x"}, "unknown parameter 'adress'; the method's parameters are: address, block"),
        ("eth_getBlockByNumber", ["0x0", "yes"], "invalid argument 1 (full): expected true or false, not 'yes'"),
        ("eth_chainId", [1], "too many arguments, want at most 0"),
        ("eth_call", [{"to": "0x1"}], "invalid argument 0 (transaction): field 'to': hex string of odd length"),
        (
            "eth_getBlockByNumber",
            ["0x01"],
            "invalid argument 0 (block): hex number with leading zero digits; expected a hex block number or one of "
            "latest, safe, finalized, earliest, pending, not '0x01'",
        ),
    ],
)
async def test_malformed_parameters_are_named(rpc: Caller, method: str, params: Any, message: str) -> None:
    answer = await answer_to(rpc, call(method, params=params))
    assert answer["error"] == {"code": -32602, "message": message}


async def test_parameters_by_name(rpc: Caller) -> None:
    by_name = call("eth_getBalance", params={"block": "0x0", "address": "0x" + ALICE.address.hex()})
    assert (await answer_to(rpc, by_name))["result"] == hex(1_000 * 10**18)


async def test_our_own_fault_is_an_internal_error_that_tells_nothing(
    rpc: Caller, node: LoneNode, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("secret detail")

    node.syncing = fail  # type: ignore[method-assign]
    answer = await answer_to(rpc, call("eth_syncing"))
    assert answer["error"] == {"code": -32603, "message": "internal error"}
    assert "secret detail" in caplog.text
    caplog.clear()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
REQUESTS = st.fixed_dictionaries(
    {}, optional={"jsonrpc": st.sampled_from(["2.0", "1.0", 2]), "method": JSON, "params": JSON, "id": JSON}
)


@given(JSON | REQUESTS | st.lists(REQUESTS, max_size=3))
def test_reading_never_fails_and_invents_nothing(document: Any) -> None:
    body = json.dumps(document, ensure_ascii=True).encode("utf-8", "replace")
    message = jsonrpc.read(body, batch_items_max=10, depth_max=64)
    assert message.is_batch == (isinstance(document, list) and bool(document))
    for item in message.items:
        if isinstance(item, jsonrpc.Request):
            assert isinstance(item.method, str)
            assert isinstance(item.params, (list, dict))
        assert item.id is None or isinstance(item.id, (str, int, float))
        assert not isinstance(item.id, bool)


@given(st.binary(max_size=60))
def test_reading_takes_any_bytes(body: bytes) -> None:
    assert jsonrpc.read(body, batch_items_max=10, depth_max=64).items
