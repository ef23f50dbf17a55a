"""web3.py's own reusable module tests against a node: HTTP and WebSocket, blocking and asynchronous.

What is excluded is listed with its reason, and nothing else is.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from web3 import AsyncWeb3, Web3
from web3._utils.module_testing.eth_module import AsyncEthModuleTest, EthModuleTest
from web3._utils.module_testing.net_module import AsyncNetModuleTest, NetModuleTest
from web3._utils.module_testing.persistent_connection_provider import PersistentConnectionProviderTest
from web3._utils.module_testing.utils import RequestMocker
from web3._utils.module_testing.web3_module import AsyncWeb3ModuleTest, Web3ModuleTest

from tests.rpc.rpc_harness import ABIS, ADDRESSES, DEV_KEYS
from tests.rpc.web3_fixtures import ThreadedNode

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # the tests provoke what web3.py warns of
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

NO_EVM = "calls, deploys or overrides a contract compiled for the EVM, which these nodes do not have"
LONDON = "expects a header with 'withdrawalsRoot' (Shanghai); headers here are London's sixteen fields"
FREE = "expects a suggested price above 0; it is 0 here, since the base fee stays 0"
ENS = "web3.py 8.0 resolves names with a normaliser that fails on idna 3.20, before it sends anything"
TYPED = "web3.py 8.0 (web3._utils.abi, async_map_if_collection) fails on any mapping, before it sends anything"
OTHER_CLASS = "expects eth-tester's class of exception; the same refusal is tested in test_rpc_signing.py"

# By name, without the prefix `test_` or `test_async_`, for blocking and asynchronous tests alike.
EXCLUDED = {
    **dict.fromkeys(
        (
            "contract_panic_errors",
            "eth_call",
            "eth_call_continuous_offchain_lookup_raises_with_too_many_requests",
            "eth_call_custom_error_revert_with_msg",
            "eth_call_custom_error_revert_without_msg",
            "eth_call_offchain_lookup",
            "eth_call_offchain_lookup_call_flag_overrides_provider_flag",
            "eth_call_offchain_lookup_calls_raise_for_status_for_4xx_status_code",
            "eth_call_offchain_lookup_raises_for_improperly_formatted_rest_request_response",
            "eth_call_offchain_lookup_raises_if_max_redirects_is_less_than_4",
            "eth_call_offchain_lookup_raises_when_all_supplied_urls_fail",
            "eth_call_offchain_lookup_raises_when_ccip_read_is_disabled",
            "eth_call_offchain_lookup_tries_next_url_for_non_4xx_error_status_and_tests_POST",
            "eth_call_old_contract_state",
            "eth_call_revert_custom_error_with_msg",
            "eth_call_revert_custom_error_without_msg",
            "eth_call_revert_with_msg",
            "eth_call_revert_without_msg",
            "eth_call_with_0_result",
            "eth_call_with_override_code",
            "eth_call_with_override_param_type_check",
            "eth_create_access_list",
            "eth_estimate_gas_custom_error_revert_with_msg",
            "eth_estimate_gas_custom_error_revert_without_msg",
            "eth_estimate_gas_revert_with_msg",
            "eth_estimate_gas_revert_without_msg",
            "eth_estimate_gas_with_override_param_type_check",
            "eth_getTransactionByHash_contract_creation",
            "eth_get_logs_with_logs_none_topic_args",
            "eth_get_logs_with_logs_topic_args",
            "eth_get_storage_at",
            "eth_get_storage_at_ens_name",
            "eth_simulate_v1",
            "sign_authorization_send_raw_and_send_set_code_transactions",
            "batch_requests",
            "batch_requests_initialized_as_object",
            "batch_requests_raises_for_common_unsupported_methods",
            "eth_subscribe_and_process_logs",
            "eth_subscribe_creates_and_handles_logs_subscription_type",
            "subscription_manager_subscribes_to_many_subscriptions",
        ),
        NO_EVM,
    ),
    **dict.fromkeys(
        (
            "asyncio_gather_for_multiple_requests_matches_the_responses",
            "eth_subscribe_creates_and_handles_new_heads_subscription_type",
            "eth_subscribe_new_heads",
            "public_socket_api",
            "run_forever_starts_with_0_subs_and_runs_until_task_cancelled",
        ),
        LONDON,
    ),
    **dict.fromkeys(
        (
            "eth_get_balance_with_ens_name",
            "eth_get_code_ens_address",
            "eth_get_transaction_count_ens_name",
            "eth_sign_ens_names",
            "eth_sign_transaction_ens_names",
            "solidity_keccak_ens",
        ),
        ENS,
    ),
    "eth_gas_price": FREE,
    "invalid_eth_sign_typed_data": OTHER_CLASS,
}
EXCLUDED_ASYNC = {"eth_sign_typed_data": TYPED}
BASES = (
    *(EthModuleTest, NetModuleTest, Web3ModuleTest, AsyncEthModuleTest, AsyncNetModuleTest, AsyncWeb3ModuleTest),
    PersistentConnectionProviderTest,
)


def short(name: str) -> str:
    return name.removeprefix("test_").removeprefix("async_")


def runs(base: type) -> dict[str, Any]:
    """The attributes of a test class that leaves out what is excluded."""
    excluded = EXCLUDED | EXCLUDED_ASYNC if base is AsyncEthModuleTest else EXCLUDED
    return {name: None for name in dir(base) if name.startswith("test_") and short(name) in excluded}


def test_what_is_excluded_exists() -> None:
    """A name that web3.py has dropped, or never had, excludes nothing and is no reason for anything."""
    known = {short(name) for base in BASES for name in dir(base) if name.startswith("test_")}
    assert EXCLUDED.keys() | EXCLUDED_ASYNC.keys() <= known


def checksummed(index: int) -> str:
    return Web3.to_checksum_address(DEV_KEYS[index].address)


@pytest.fixture(scope="module", params=[2.0])
def threaded(request: pytest.FixtureRequest) -> Iterator[ThreadedNode]:
    node = ThreadedNode(quiet_s=request.param)
    node.start()
    yield node
    node.stop()


@pytest.fixture(scope="module")
def w3(threaded: ThreadedNode) -> Iterator[Web3]:
    provider = Web3.HTTPProvider(f"http://127.0.0.1:{threaded.port}")
    yield Web3(provider)
    for _, session in provider._request_session_manager.session_cache.items():  # noqa: PERF102 - it is no dict
        session.close()


class Fixtures:
    """Accounts, blocks and contracts under the names that the module tests ask for."""

    @pytest.fixture
    def request_mocker(self) -> type[RequestMocker]:
        return RequestMocker

    @pytest.fixture(name="skip_if_testrpc")
    def _skip_if_testrpc(self) -> Callable[[Any], None]:
        return lambda _w3: None

    @pytest.fixture(name="async_skip_if_testrpc")
    def _async_skip_if_testrpc(self) -> Callable[[Any], None]:
        return lambda _w3: None

    @pytest.fixture
    def keyfile_account_address(self) -> str:
        return checksummed(1)

    @pytest.fixture
    def async_keyfile_account_address(self) -> str:
        return checksummed(1)

    @pytest.fixture
    def keyfile_account_address_dual_type(self) -> str:
        return checksummed(2)

    @pytest.fixture
    def async_keyfile_account_address_dual_type(self) -> str:
        return checksummed(2)

    @pytest.fixture
    def keyfile_account_pkey(self) -> str:
        return "0x" + DEV_KEYS[0].secret.hex()

    @pytest.fixture
    def mined_txn_hash(self, threaded: ThreadedNode) -> Any:
        return threaded.prepared["mined_txn_hash"]

    @pytest.fixture
    def txn_hash_with_log(self, threaded: ThreadedNode) -> Any:
        return threaded.prepared["txn_hash_with_log"]

    @pytest.fixture
    def math_contract_address(self) -> str:
        return Web3.to_checksum_address(ADDRESSES["Elections"])

    async_math_contract_address = math_contract_address
    emitter_contract_address = math_contract_address
    async_emitter_contract_address = math_contract_address


class BlockingFixtures(Fixtures):
    @pytest.fixture
    def empty_block(self, w3: Web3, threaded: ThreadedNode) -> Any:
        return w3.eth.get_block(threaded.prepared["empty_block"])

    @pytest.fixture
    def block_with_txn(self, w3: Web3, threaded: ThreadedNode) -> Any:
        return w3.eth.get_block(threaded.prepared["block_with_txn"])

    @pytest.fixture
    def block_with_txn_with_log(self, w3: Web3, threaded: ThreadedNode) -> Any:
        return w3.eth.get_block(threaded.prepared["block_with_txn_with_log"])

    @pytest.fixture
    def emitter_contract(self, w3: Web3) -> Any:
        address = Web3.to_checksum_address(ADDRESSES["Elections"])
        return w3.eth.contract(address=address, abi=ABIS["Elections"].json)

    math_contract = emitter_contract


class AsyncFixtures(Fixtures):
    @pytest.fixture
    async def async_empty_block(self, async_w3: Any, threaded: ThreadedNode) -> Any:
        return await async_w3.eth.get_block(threaded.prepared["empty_block"])

    @pytest.fixture
    async def async_block_with_txn(self, async_w3: Any, threaded: ThreadedNode) -> Any:
        return await async_w3.eth.get_block(threaded.prepared["block_with_txn"])

    @pytest.fixture
    async def async_block_with_txn_with_log(self, async_w3: Any, threaded: ThreadedNode) -> Any:
        return await async_w3.eth.get_block(threaded.prepared["block_with_txn_with_log"])

    @pytest.fixture
    def async_emitter_contract(self, async_w3: Any) -> Any:
        address = Web3.to_checksum_address(ADDRESSES["Elections"])
        return async_w3.eth.contract(address=address, abi=ABIS["Elections"].json)

    async_math_contract = async_emitter_contract


class OverHttp:
    @pytest.fixture
    async def async_w3(self, threaded: ThreadedNode) -> AsyncIterator[Any]:
        w3 = AsyncWeb3(AsyncWeb3.AsyncHTTPProvider(f"http://127.0.0.1:{threaded.port}"))
        yield w3
        await w3.provider.disconnect()


class OverWebSocket:
    @pytest.fixture
    async def async_w3(self, threaded: ThreadedNode) -> AsyncIterator[Any]:
        w3 = await AsyncWeb3(AsyncWeb3.WebSocketProvider(f"ws://127.0.0.1:{threaded.port}"))
        yield w3
        await w3.provider.disconnect()


class Version:
    def _check_web3_client_version(self, client_version: str) -> None:
        assert client_version.startswith("psephos/")


def suite(*bases: type) -> Any:
    """A class of the last base's tests, with the others' fixtures and without what is excluded."""
    return type("Suite", bases, runs(bases[-1]))


TestEth = suite(BlockingFixtures, EthModuleTest)
TestNet = suite(NetModuleTest)
TestWeb3 = suite(BlockingFixtures, Version, Web3ModuleTest)
TestAsyncEth = suite(AsyncFixtures, OverHttp, AsyncEthModuleTest)
TestAsyncNet = suite(OverHttp, AsyncNetModuleTest)
TestAsyncWeb3 = suite(AsyncFixtures, BlockingFixtures, OverHttp, Version, AsyncWeb3ModuleTest)
TestWebSocketEth = suite(AsyncFixtures, OverWebSocket, AsyncEthModuleTest)
TestWebSocketNet = suite(OverWebSocket, AsyncNetModuleTest)
TestWebSocketWeb3 = suite(AsyncFixtures, BlockingFixtures, OverWebSocket, Version, AsyncWeb3ModuleTest)
TestWebSocketSubscriptions = pytest.mark.parametrize("threaded", [0.1], indirect=True)(
    suite(AsyncFixtures, OverWebSocket, PersistentConnectionProviderTest)
)
