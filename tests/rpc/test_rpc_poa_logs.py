"""Logs over JSON-RPC: what is served after any block is enough to follow a log, and checks against its own root."""

import pytest

from merkle.log import EMPTY_ROOT, leaf_hash, root, verify_consistency, verify_inclusion
from node.chain.contracts import anchors, ballots
from node.chain.contracts.addresses import ANCHORS, ELECTIONS
from node.chain.contracts.elections import log_slots
from node.consensus.certificate import Certificate
from node.rpc import poa_logs
from tests.rpc.rpc_harness import GATEWAY_KEY, VALIDATOR_KEYS, Caller, LoneNode, RpcFailure


def raw(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def packed(number: int) -> bytes:
    """The packed open ballot with this number."""
    return ballots.pack_record(number.to_bytes(32, "big"), (1000 + number).to_bytes(32, "big"), 0, b"\1")


def cast(node: LoneNode, election: int, *numbers: int) -> None:
    records = b"".join(map(packed, numbers))
    node.include(node.call_contract(GATEWAY_KEY, "Elections", "castBatch", election, records))


def create(node: LoneNode, election: int) -> None:
    arguments: tuple[object, ...] = (election, "Demo", ["yes", "no"], 3, 0, 0, 0, [], bytes(32))
    node.include(node.call_contract(GATEWAY_KEY, "Elections", "create", *arguments))


def anchor(node: LoneNode, number: int) -> None:
    arguments = (number.to_bytes(32, "big"), bytes([number]) * 32, number, "rfc6962-sha256")
    node.include(node.call_contract(GATEWAY_KEY, "Anchors", "anchor", *arguments))


@pytest.fixture
async def grown(node: LoneNode) -> dict[int, int]:
    """Election 7 grows over several blocks, beyond one tile of hashes; its size after each height."""
    create(node, 5)
    create(node, 7)
    sizes = {2: 0}
    for first, stop in ((0, 1), (1, 3), (3, 70), (70, 71), (71, 200)):
        cast(node, 7, *range(first, stop))
        sizes[node.chain.head.number] = stop
    return sizes


async def test_heads_of_every_height_are_what_storage_proves(
    rpc: Caller, node: LoneNode, grown: dict[int, int]
) -> None:
    hashes = [leaf_hash(ballots.leaf(node.chain.domain, 7, packed(number))) for number in range(200)]
    for height, size in grown.items():
        head = await rpc("poa_getLog", "0x7", hex(height))
        assert (int(head["size"], 16), raw(head["root"])) == (size, root(hashes[:size]))
        assert (head["log"], int(head["blockNumber"], 16)) == ("0x7", height)
        keys = ["0x" + slot.to_bytes(32, "big").hex() for slot in log_slots(7)]
        proof = await rpc("eth_getProof", "0x" + ELECTIONS.hex(), keys, hex(height))
        assert [entry["value"] for entry in proof["storageProof"]] == [hex(size), hex(int(head["root"], 16))]
    assert raw((await rpc("poa_getLog", 5))["root"]) == EMPTY_ROOT
    assert raw((await rpc("poa_getLog", "anchors"))["root"]) == EMPTY_ROOT


async def test_inclusion_and_consistency_at_every_height(rpc: Caller, node: LoneNode, grown: dict[int, int]) -> None:
    roots = {size: raw((await rpc("poa_getLog", 7, hex(height)))["root"]) for height, size in grown.items()}
    for size, log_root in roots.items():
        for index in {0, size // 2, size - 1} - {-1} if size else ():
            answer = await rpc("poa_getLogProof", 7, index, size)
            assert raw(answer["leafHash"]) == leaf_hash(ballots.leaf(node.chain.domain, 7, packed(index)))
            verify_inclusion(
                index=index,
                size=size,
                leaf_hash=raw(answer["leafHash"]),
                proof=[raw(part) for part in answer["proof"]],
                root=log_root,
            )
        for new_size, new_root in roots.items():
            if new_size < size:
                continue
            answer = await rpc("poa_getLogConsistency", 7, size, new_size)
            proof = [raw(part) for part in answer["proof"]]
            verify_consistency(old_size=size, new_size=new_size, proof=proof, old_root=log_root, new_root=new_root)
    for height, size in grown.items():  # sizes that are left out are those after the block
        if size:
            assert (await rpc("poa_getLogProof", 7, 0, None, hex(height)))["size"] == hex(size)
            assert (await rpc("poa_getLogConsistency", 7, 0, None, hex(height)))["to"] == hex(size)


async def test_leaves_give_the_root(
    rpc: Caller, node: LoneNode, grown: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poa_logs, "LEAVES_MAX", 64)
    leaves: list[bytes] = []
    while page := await rpc("poa_getLogLeaves", 7, len(leaves), 1_000_000):
        assert len(page) <= 64
        assert [int(item["index"], 16) for item in page] == list(range(len(leaves), len(leaves) + len(page)))
        leaves += [raw(item["leaf"]) for item in page]
    assert root(map(leaf_hash, leaves)) == raw((await rpc("poa_getLog", 7))["root"])
    early = await rpc("poa_getLogLeaves", 7, 0, 100, "0x4")
    assert [int(item["blockNumber"], 16) for item in early] == [3, 4, 4]


async def test_leaves_are_capped_in_bytes(rpc: Caller, node: LoneNode, monkeypatch: pytest.MonkeyPatch) -> None:
    create(node, 1)
    cast(node, 1, *range(5))
    monkeypatch.setattr(poa_logs, "LEAVES_BYTES_MAX", 2 * len(ballots.leaf(node.chain.domain, 1, packed(0))))
    assert len(await rpc("poa_getLogLeaves", 1, 0, 5)) == 2
    monkeypatch.setattr(poa_logs, "LEAVES_BYTES_MAX", 1)
    assert len(await rpc("poa_getLogLeaves", 1, 4, 5)) == 1


async def test_indexes_are_found_by_ids_as_of_every_height(rpc: Caller, grown: dict[int, int]) -> None:
    ids = [number.to_bytes(32, "big") for number in (0, 1, 2, 69, 70, 199, 200)]
    for height, size in grown.items():
        expected = [hex(number) if (number := int.from_bytes(id_, "big")) < size else None for id_ in ids]
        assert await rpc("poa_getLogIndexes", 7, ["0x" + id_.hex() for id_ in ids], hex(height)) == expected
    assert await rpc("poa_getLogIndexes", "anchors", ["0x" + ids[0].hex()]) == [None]
    assert await rpc("poa_getLogIndexes", "anchors", []) == []


async def test_anchors_are_a_log_of_their_own(rpc: Caller, node: LoneNode) -> None:
    for number in range(1, 6):
        anchor(node, number)
    head = await rpc("poa_getLog", "anchors")
    assert await rpc("poa_getLogIndexes", "anchors", ["0x" + n.to_bytes(32, "big").hex() for n in (3, 9, 1)]) == [
        "0x2",
        None,
        "0x0",
    ]
    leaves = [raw(item["leaf"]) for item in await rpc("poa_getLogLeaves", "anchors", 0, 10)]
    expected = [
        anchors.leaf(node.chain.domain, n.to_bytes(32, "big"), bytes([n]) * 32, n, b"rfc6962-sha256")
        for n in range(1, 6)
    ]
    assert leaves == expected
    assert (head["size"], raw(head["root"])) == ("0x5", root(map(leaf_hash, leaves)))
    answer = await rpc("poa_getLogProof", "anchors", 3, 4)
    proof = [raw(part) for part in answer["proof"]]
    verify_inclusion(
        index=3, size=4, leaf_hash=leaf_hash(leaves[3]), proof=proof, root=root(map(leaf_hash, leaves[:4]))
    )
    keys = [hex(anchors.SIZE_SLOT), hex(anchors.ROOT_SLOT)]
    proved = await rpc("eth_getProof", "0x" + ANCHORS.hex(), keys, "latest")
    assert [entry["value"] for entry in proved["storageProof"]] == ["0x5", hex(int(head["root"], 16))]


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("poa_getLog", [9], "there is no election 9"),
        ("poa_getLog", [7, "0x1"], "there is no election 7 after block 1"),
        ("poa_getLogProof", [7, 200], "leaf 200 is not in a log of 200"),
        ("poa_getLogProof", [7, 1, 201], "'size' is 201, and at most 200"),
        ("poa_getLogProof", [7, 1, 2, "0x3"], "'size' is 2, and at most 1"),
        ("poa_getLogConsistency", [7, 3, 2], "'from' is 3, and at most 2"),
        ("poa_getLogConsistency", [7, 3, 201], "'to' is 201"),
        ("poa_getLog", ["ballots"], "expected 'anchors' or an election's id"),
        ("poa_getLog", [-1], "expected 'anchors' or an election's id"),
        ("poa_getLog", [True], "expected 'anchors' or an election's id"),
    ],
)
async def test_what_is_not_there_is_refused(
    rpc: Caller, grown: dict[int, int], method: str, params: list[object], words: str
) -> None:
    with pytest.raises(RpcFailure, match=words):
        await rpc(method, *params)


async def test_changes_of_the_validators(rpc: Caller, node: LoneNode, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await rpc("poa_getValidatorChanges", 0) == []
    for _ in range(4):
        node.include()
    sets = {3: VALIDATOR_KEYS[:2], 4: VALIDATOR_KEYS}
    for height, keys in sets.items():  # as the store writes them when a block names another set
        node.database.write({b"v" + (height + 1).to_bytes(8, "big"): b"".join(key.address for key in keys)})
    node.chain.next_validators = tuple(key.address for key in VALIDATOR_KEYS)
    changes = await rpc("poa_getValidatorChanges", 0)
    assert [[raw(address) for address in change["validators"]] for change in changes] == [
        [key.address for key in keys] for keys in sets.values()
    ]
    for height, change in zip(sets, changes, strict=True):
        header = node.chain.header(height)
        assert header is not None
        assert raw(change["header"]) == header.encoded
        fields = change["certificate"]
        seals = tuple(raw(seal) for seal in fields["seals"])
        sealed = Certificate(int(fields["height"], 16), int(fields["round"], 16), raw(fields["blockHash"]), seals)
        assert sealed == node.chain.certificate(height)
    assert await rpc("poa_getValidatorChanges", 4) == changes[1:]
    assert await rpc("poa_getValidatorChanges", 0, "0x3") == changes[:1]
    monkeypatch.setattr(poa_logs, "CHANGES_MAX", 1)
    assert await rpc("poa_getValidatorChanges", 0) == changes[:1]
