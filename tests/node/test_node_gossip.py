"""What peers are told of new transactions: clients' whole, gateways' by hash, and only what still waits."""

from node.chain.signing import SigningKey
from node.chain.transaction import Transaction, sign_transaction
from node.gossip import Gossip, announcement
from node.p2p.kinds import Kind
from node.payloads import HASHES_MAX, unpack_hashes, unpack_transactions

CLIENT, GATEWAY = SigningKey(bytes([3] * 32)), SigningKey(bytes([4] * 32))


def make(key: SigningKey, nonce: int) -> Transaction:
    return sign_transaction(key, chain_id=7770, nonce=nonce, to=bytes(20), gas_limit=21_000)


def test_a_gateways_transactions_are_announced_later_and_only_where_they_still_wait() -> None:
    mempool: set[bytes] = set()
    gossip = Gossip(mempool, is_gateway=GATEWAY.address.__eq__)
    theirs, own = [make(CLIENT, nonce) for nonce in range(3)], [make(GATEWAY, nonce) for nonce in range(3)]
    mempool.update(transaction.hash for transaction in (*theirs, *own))
    assert gossip.put([own[0], theirs[0]]) == (True, True)
    assert gossip.put([theirs[1], own[1]]) == (False, False), "both are due already"
    [(kind, payload)] = gossip.send()
    assert (kind, unpack_transactions(payload)) == (Kind.TRANSACTIONS, [theirs[0].raw, theirs[1].raw])
    assert gossip.put([own[2]]) == (False, False)
    assert gossip.put([theirs[2]]) == (True, False)
    mempool.remove(own[1].hash)  # it is final
    [(kind, payload)] = gossip.announce()
    assert (kind, unpack_hashes(payload)) == (Kind.TRANSACTION_HASHES, [own[0].hash, own[2].hash])
    assert gossip.put([own[1]]) == (False, True)
    assert list(gossip.announce()) == []
    assert len(list(gossip.send())) == 1
    assert list(gossip.send()) == []


def test_many_hashes_are_told_in_messages_that_peers_take() -> None:
    hashes = [number.to_bytes(32, "big") for number in range(HASHES_MAX + 1)]
    assert [unpack_hashes(payload) for _, payload in announcement(hashes)] == [hashes[:-1], hashes[-1:]]
