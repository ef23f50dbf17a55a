"""Closed networks: whose transactions are valid, in blocks and in the mempool, and that genesis commits to it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.chain.contracts import members
from node.chain.contracts.proposals import NOBODY, Kind
from node.chain.errors import InvalidBlock, InvalidTransaction
from node.chain.execution import apply_block
from node.chain.genesis import GenesisError, build_genesis, genesis_document, parse_genesis
from node.chain.mempool import Mempool, MempoolLimits
from node.chain.signing import SigningKey
from tests.chain.conftest import GATEWAY, GENESIS, KEYS, OTHER_GATEWAY, POOR, RICH, STRANGER, VALIDATORS_CONTRACT, Chain

NOT_AUTHORIZED = "sender account not authorized to send transactions"
CLOSED = replace(GENESIS, accounts=(RICH.address,))


def pool_of(chain: Chain) -> Mempool:
    return Mempool(MempoolLimits(), chain_id=chain.genesis.chain_id, gas_max=chain.genesis.gas_limit // 2)


def test_a_document_without_accounts_keeps_its_genesis_hash() -> None:
    """The hash is the one of before there were closed networks."""
    assert build_genesis(GENESIS).block.hash.hex() == "037b743d785cfab7601fdb0167b4d2e7e64e7141ccd15945a81c4513a3154c4e"
    assert "accounts" not in genesis_document(GENESIS)


def test_the_hash_commits_to_the_accounts_and_an_empty_list_is_a_closed_network() -> None:
    choices: list[tuple[bytes, ...] | None] = [None, (), (RICH.address,), (POOR.address,)]
    assert len({build_genesis(replace(GENESIS, accounts=accounts)).block.hash for accounts in choices}) == 4
    for accounts in choices:
        genesis = replace(GENESIS, accounts=accounts)
        assert parse_genesis(genesis_document(genesis)) == genesis


@pytest.mark.parametrize("accounts", ["0x", [1], ["0x" + "11" * 20] * 2, ["0x" + VALIDATORS_CONTRACT.hex()], None])
def test_a_list_of_something_else_is_refused(accounts: Any) -> None:
    with pytest.raises(GenesisError, match="genesis field 'accounts'"):
        parse_genesis(genesis_document(GENESIS) | {"accounts": accounts})


@settings(max_examples=25, deadline=None)
@given(st.none() | st.sets(st.sampled_from(KEYS), max_size=4), st.sampled_from(KEYS))
def test_who_may_send_is_who_is_listed_or_a_member(listed: set[SigningKey] | None, key: SigningKey) -> None:
    accounts = None if listed is None else tuple(sorted(one.address for one in listed))
    chain = Chain(replace(GENESIS, accounts=accounts))
    members_ = {*GENESIS.validators, *GENESIS.gateways}
    may = listed is None or key in listed or key.address in members_
    transaction = chain.sign(key, POOR.address)
    mempool = pool_of(chain)
    if may:
        mempool.add(transaction, state=chain.state())
        assert chain.take([transaction])[0].succeeded
    else:
        with pytest.raises(InvalidTransaction, match=NOT_AUTHORIZED):
            mempool.add(transaction, state=chain.state())
        chain.take([transaction])
        assert [str(error) for _, error in chain.dropped] == [
            f"{NOT_AUTHORIZED}: genesis lists 'accounts', and 0x{key.address.hex()} is none of them, "
            "no validator and no gateway"
        ]
        assert chain.blocks[-1].transactions == ()


def test_a_block_with_a_strangers_transaction_is_not_valid() -> None:
    """As an open network builds it, on the same accounts: what is wrong is the sender alone."""
    closed, open_ = Chain(CLOSED), Chain(GENESIS)
    block = open_.build([open_.sign(STRANGER, POOR.address)]).block
    forged = replace(block, header=replace(block.header, parent_hash=closed.head.hash))
    with pytest.raises(InvalidBlock, match=f"transaction 0: {NOT_AUTHORIZED}"):
        apply_block(
            closed.database, closed.head, forged, genesis=CLOSED, domain=closed.domain, validators=CLOSED.validators
        )


def test_who_becomes_a_gateway_may_send_and_who_was_one_may_not() -> None:
    chain = Chain(replace(CLOSED, accounts=()))
    mempool = pool_of(chain)
    with pytest.raises(InvalidTransaction, match=NOT_AUTHORIZED):
        mempool.add(chain.sign(STRANGER, POOR.address), state=chain.state())
    for kind, account in ((Kind.ADD_GATEWAY, STRANGER), (Kind.REMOVE_GATEWAY, OTHER_GATEWAY)):
        for key in KEYS[:2]:
            chain.send(key, VALIDATORS_CONTRACT, "propose", kind, account.address, NOBODY)
    assert members.is_gateway(chain.state(), STRANGER.address)
    mempool.add(chain.sign(STRANGER, POOR.address), state=chain.state())
    mempool.add(chain.sign(GATEWAY, POOR.address), state=chain.state())
    with pytest.raises(InvalidTransaction, match=NOT_AUTHORIZED):
        mempool.add(chain.sign(OTHER_GATEWAY, POOR.address), state=chain.state())
