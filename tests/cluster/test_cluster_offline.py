"""`psephos inspect` and `psephos export` on databases that hold what they should, and on some that do not."""

import json
import os
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.cli import main
from cluster.integrity import Verdict, verify
from cluster.network import ClusterError
from cluster.offline import Offline, opened
from node.chain import keyspace
from node.chain.contracts import ballots
from node.chain.genesis import genesis_document
from node.leveldb import LevelDB
from node.pruning import prune
from node.store import Store
from tests.cluster.disk_chain import ELECTION, Chain, number


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    """Five blocks: two elections, a batch of which one ballot is refused, and an anchor."""
    (tmp_path / "validator-1").mkdir()
    chain = Chain(tmp_path / "validator-1" / "chain")
    chain.create()
    chain.create(election=2**200, kinds=3)
    chain.cast([(number(1), number(11), 0), (number(2), number(12), 2), (number(1), number(13), 1)])
    chain.anchor(number(5), number(6))
    chain.grow(sealers=2)
    chain.write_node_files()
    return chain


def offline(chain: Chain) -> Offline:
    return Offline("validator-1", chain.genesis, (), chain.database, Store(chain.database))


def checked(chain: Chain) -> Verdict:
    return verify(offline(chain), None, lambda _what, _done, _total: None)


def psephos(capsysbinary: pytest.CaptureFixture[bytes], *arguments: str) -> tuple[int, str]:
    code = main(arguments)
    return code, capsysbinary.readouterr().out.decode()


# -- integrity -------------------------------------------------------------------------------------------------------


def test_a_sound_chain_is_what_its_blocks_make(chain: Chain) -> None:
    verdict = checked(chain)
    assert (verdict.holds, verdict.blocks, verdict.transactions, verdict.ballots) == (True, 5, 4, 2)
    assert verdict.entries > 50


def test_a_pruned_node_may_lack_old_states_and_nothing_else(chain: Chain) -> None:
    before = len(list(chain.database.scan(keyspace.TRIE_NODE, b"o")))
    assert prune(chain.database, chain.ledger, 2) == 4
    assert len(list(chain.database.scan(keyspace.TRIE_NODE, b"o"))) < before
    after = len(list(chain.database.scan(keyspace.TRIE_NODE, b"o")))
    verdict = checked(chain)
    assert (verdict.faults, verdict.oldest_state, verdict.forgotten) == ([], 4, before - after)
    chain.database.write({keyspace.TRIE_NODE + number(1): b"forged"})
    assert checked(chain).faults == [f"state: key 0x{number(1).hex()} is stored, and no block makes it"]


def test_a_pruned_node_may_not_lack_what_a_kept_state_has(chain: Chain) -> None:
    prune(chain.database, chain.ledger, 2)
    root = chain.ledger.head.state_root
    chain.database.delete([keyspace.TRIE_NODE + root])
    (fault,) = checked(chain).faults
    assert fault.startswith("states from height 4 on: a state that is kept is not whole")


def test_what_of_a_pruned_node_was_not_compared_is_told(
    chain: Chain, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    prune(chain.database, chain.ledger, 2)
    chain.database.close()
    folder = str(chain.folder.parent)
    code, out = psephos(capsysbinary, "inspect", "--data-dir", folder, "--verify")
    assert (code, "not compared: the stored states below height 4" in out) == (0, True)
    integrity = json.loads(psephos(capsysbinary, "inspect", "--data-dir", folder, "--verify", "--json")[1])["integrity"]
    assert (integrity["states_from_height"], integrity["entries_not_kept"] > 0) == (4, True)


def _at(prefix: bytes, height: int) -> bytes:
    return prefix + height.to_bytes(8, "big")


def _another_certificate(database: LevelDB) -> dict[bytes, bytes]:
    value = bytearray(database.get(_at(keyspace.CERTIFICATE, 3)) or b"")
    value[-40] ^= 1  # in the last seal
    return {_at(keyspace.CERTIFICATE, 3): bytes(value)}


def _another_ballot(database: LevelDB) -> dict[bytes, bytes]:
    value = bytearray(database.get(_at(keyspace.BLOCK, 3)) or b"")
    at = value.index(number(2) + number(12)) + 69
    assert value[at] == 2
    value[at] = 1
    return {_at(keyspace.BLOCK, 3): bytes(value)}


def _another_sender(database: LevelDB) -> dict[bytes, bytes]:
    value = bytearray(database.get(_at(keyspace.BLOCK, 3)) or b"")
    value[-1] ^= 1  # the remembered sender, which nobody recovers again
    return {_at(keyspace.BLOCK, 3): bytes(value)}


def _another_record(database: LevelDB) -> dict[bytes, bytes]:
    """A ballot in the flat log is not the one that was cast."""
    for key, value in database.scan(keyspace.RECORD, bytes((keyspace.RECORD[0] + 1,))):
        if number(2) + number(12) in value:
            return {key: value[:-1] + b"\x01"}
    raise AssertionError("the ballot is not in the log")


def _another_id(database: LevelDB) -> dict[bytes, bytes]:
    """The index does not know of the last ballot."""
    key = keyspace.META + b"index"
    value = database.get(key) or b""
    return {key: value[:-1] + bytes((value[-1] - 1,))}


def _more_than_the_blocks_make(_database: LevelDB) -> dict[bytes, bytes]:
    return {keyspace.TRANSACTION + number(99): bytes(12)}


def _a_lower_head(_database: LevelDB) -> dict[bytes, bytes]:
    return {keyspace.META + b"head": (4).to_bytes(8, "big")}


@pytest.mark.parametrize(
    ("tamper", "fault"),
    [
        (_another_certificate, "block 3:"),
        (_another_ballot, "block 3:"),
        (_another_sender, "blocks: height 3 is not what the blocks make"),
        (_another_record, "records: key 0x"),
        (_another_id, "meta: key 0x696e646578 is not what the blocks make"),
        (_more_than_the_blocks_make, "is stored, and no block makes it"),
        (_a_lower_head, "is stored, and no block makes it"),
    ],
)
def test_what_was_changed_behind_the_nodes_back_is_found(
    chain: Chain, tamper: Callable[[LevelDB], dict[bytes, bytes]], fault: str
) -> None:
    chain.database.write(tamper(chain.database))
    verdict = checked(chain)
    assert not verdict.holds
    assert any(fault in found for found in verdict.faults), verdict.faults


def test_a_tally_that_its_ballots_do_not_make_is_told(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both the node and its re-execution would count wrongly: the second count shares no code with them."""
    real = ballots.read_tally
    monkeypatch.setattr(ballots, "read_tally", lambda *found: real(*found)._replace(counts=[2, 0, 0]))
    assert any("tally is [2, 0, 0, 0], its ballots make [1, 0, 1, 0]" in fault for fault in checked(chain).faults)


# -- the command line ------------------------------------------------------------------------------------------------


def test_inspect_shows_head_sizes_elections_and_the_verdict(
    chain: Chain, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    chain.database.close()
    folder = str(chain.folder.parent)
    code, out = psephos(capsysbinary, "inspect", "--data-dir", folder, "--json", "--verify")
    found = json.loads(out)
    assert code == 0
    assert found["head"]["height"] == 5
    assert found["head"]["hash"] == "0x" + chain.ledger.head.hash.hex()
    assert found["anchors"] == 1
    assert found["entries"]["blocks"]["count"] == 6
    assert found["entries"]["certificates"]["count"] == 5
    assert [(one["id"], one["ballots"], one["tally"]) for one in found["elections"]] == [
        (ELECTION, 2, {"a": 1, "b": 0, "c": 1}), (2**200, 0, {"a": 0, "b": 0, "c": 0}),
    ]  # fmt: skip
    assert found["integrity"]["holds"]
    code, out = psephos(capsysbinary, "inspect", "--data-dir", folder, "--verify")
    assert (code, "✓ 5 blocks" in out) == (0, True)


def test_inspect_shows_a_block_by_height_or_hash_and_an_election(
    chain: Chain, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    chain.database.close()
    folder = str(chain.folder.parent)
    _, out = psephos(capsysbinary, "inspect", "--data-dir", folder, "--json", "--block", "3")
    block = json.loads(out)
    assert block["transactions"][0]["ballots"] == {"election": ELECTION, "cast": 3, "accepted": 2}
    assert len(block["sealed_by"]) == 3
    _, out = psephos(capsysbinary, "inspect", "--data-dir", folder, "--json", "--block", block["hash"])
    assert json.loads(out) == block
    _, out = psephos(capsysbinary, "inspect", "--data-dir", folder, "--json", "--election", str(ELECTION))
    assert json.loads(out)["ballots"] == 2
    too_high = (("6", "0 to 5"), ("9" * 19, "0 to 5"), ("9" * 40, "no final block"))
    for bad, message in (*too_high, ("0x12", "no final block"), ("head", "expected a height")):
        assert main(["inspect", "--data-dir", folder, "--block", bad]) == 1
        assert message in capsysbinary.readouterr().err.decode()
    for election in ("8", str(2**256), "-1"):
        assert main(["inspect", "--data-dir", folder, "--election", election]) == 1
        assert f"there is no election {election}" in capsysbinary.readouterr().err.decode()


def test_another_users_database_is_left_alone(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """LevelDB makes files as it opens: root's, and the node could not open its own database any more."""
    chain.database.close()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with (
        pytest.raises(ClusterError, match=f"belongs to user {owner}.*run this as that user"),
        opened(chain.folder.parent, None),
    ):
        pass


def test_a_fault_is_the_exit_code(chain: Chain, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    chain.database.write(_another_record(chain.database))
    chain.database.close()
    code, out = psephos(capsysbinary, "inspect", "--data-dir", str(chain.folder.parent), "--verify")
    assert (code, "✗ records" in out) == (1, True)


def test_export_is_a_json_object_a_line_in_the_order_of_the_chain(
    chain: Chain, capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    chain.database.close()
    folder = str(chain.folder.parent)
    code, out = psephos(capsysbinary, "export", "--data-dir", folder)
    lines: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [line["height"] for line in lines if line["type"] == "block"] == [0, 1, 2, 3, 4, 5]
    cast = [line for line in lines if line["type"] == "ballot"]
    assert [(line["index"], line["outcome"], line["choice"], line["position"]) for line in cast] == [
        (0, "accepted", 0, 0), (1, "accepted", 2, 1), (None, "nullifier_used", 1, 2),
    ]  # fmt: skip
    assert {line["election"] for line in cast} == {str(ELECTION)}
    (anchor,) = (line for line in lines if line["type"] == "anchor")
    assert (anchor["batch_id"], anchor["index"], anchor["leaf_count"]) == ("0x" + number(5).hex(), 0, 7)
    file = tmp_path / "out.jsonl"
    part = ["--only", "ballots", "--from-height", "3", "--to-height", "3", "--out", str(file)]
    assert main(["export", "--data-dir", folder, *part]) == 0
    assert [json.loads(line) for line in file.read_text().splitlines()] == cast


def test_export_refuses_what_is_not_there(chain: Chain, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    chain.database.close()
    folder = str(chain.folder.parent)
    for options, message in (
        (["--only", "votes"], "--only votes: expected some of blocks, ballots, anchors"),
        (["--from-height", "9"], "--from-height 9: validator-1 has blocks 0 to 5"),
    ):
        assert main(["export", "--data-dir", folder, *options]) == 1
        assert message in capsysbinary.readouterr().err.decode()


def test_memory_does_not_grow_with_what_is_exported(tmp_path: Path) -> None:
    """Forty thousand ballots in eighty blocks cost no more than the first few."""
    (tmp_path / "node").mkdir()
    chain = Chain(tmp_path / "node" / "chain")
    chain.create()
    for block in range(80):
        chain.cast((number(1_000 * block + at), number(10**9 + 1_000 * block + at), at % 3) for at in range(500))
    chain.database.close()
    folder = chain.write_node_files()
    assert main(["export", "--data-dir", str(folder), "--to-height", "10", "--out", "/dev/null"]) == 0
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = tmp_path / "all.jsonl"
    assert main(["export", "--data-dir", str(folder), "--out", str(out)]) == 0
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    with out.open("rb") as lines:
        assert sum(1 for _ in lines) == 40_000 + 82
    assert out.stat().st_size > 16 << 20
    assert grown_kib < 8 << 10


def test_a_node_that_runs_and_a_folder_that_holds_nothing_are_told(chain: Chain, tmp_path: Path) -> None:
    with (
        pytest.raises(ClusterError, match="another process uses the database"),
        opened(chain.folder.parent, None),
    ):
        pass
    chain.database.close()
    with pytest.raises(ClusterError, match="is one node's folder"), opened(chain.folder.parent, "validator-2"):
        pass
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "node.toml").write_text('name = "validator-1"\n')
    with pytest.raises(ClusterError, match="has validator-1 ever run"), opened(empty, None):
        pass
    assert not (empty / "chain").exists()
    with pytest.raises(ClusterError, match="neither a network's folder nor a node's"), opened(tmp_path / "none", None):
        pass
    another = genesis_document(replace(chain.genesis, timestamp=chain.genesis.timestamp + 1))
    (chain.folder.parent / "genesis.json").write_text(json.dumps(another))
    with pytest.raises(ClusterError, match="begins with block 0x"), opened(chain.folder.parent, None):
        pass
