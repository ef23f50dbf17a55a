"""What an operator does by hand: a new member's folder, a lost guard, an override; and the words about tolerance."""

from pathlib import Path

import pytest

from cluster.cli import main
from cluster.governance import strength
from node.chain.genesis import domain_of
from node.consensus.guard import replay
from node.consensus.messages import Kind, Statement
from node.guardfile import GuardFile
from node.overridefile import read_overrides
from node.service import load_genesis
from serving.keyfiles import load_key


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A validator's folder of a network that has not run yet."""
    assert main(["init", "--data-dir", str(tmp_path / "data"), "--validators", "2"]) == 0
    return tmp_path / "data" / "validator-1"


def open_guard(folder: Path) -> GuardFile:
    genesis = load_genesis(folder / "genesis.json")
    return GuardFile(folder / "guard", domain_of(genesis), load_key(folder / "node.key").address)


def test_a_new_members_key_comes_with_a_fresh_guard_and_the_genesis(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    assert main(["keys", "new", "--folder", str(new), "--genesis", str(folder / "genesis.json")]) == 0
    address = capsys.readouterr().out.split()[-1]
    key = load_key(new / "node.key")
    assert address == "0x" + key.address.hex()
    assert (new / "genesis.json").read_bytes() == (folder / "genesis.json").read_bytes()
    domain = domain_of(load_genesis(new / "genesis.json"))
    guard, _ = replay((new / "guard").read_bytes(), domain, key.address)
    assert not guard.lost
    assert main(["keys", "new", "--folder", str(tmp_path / "x"), "--genesis", str(folder / "node.toml")]) == 1


def test_guard_show(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["guard", "show", str(folder)]) == 0
    assert "has never signed" in capsys.readouterr().out
    guard = open_guard(folder)
    guard.state.note_signed([Statement(Kind.PREPARE, 7, 2, b"\xab" * 32)])
    guard.append(guard.state.flush())
    guard.close()
    with (folder / "guard").open("ab") as file:
        file.write(b"PSG1torn")
    before = (folder / "guard").read_bytes()
    assert main(["guard", "show", str(folder / "node.toml")]) == 0
    told = capsys.readouterr().out
    for part in ("height 7, round 2", "PREPARE", "ab" * 32, "the last 8 bytes are no whole record"):
        assert part in told
    assert (folder / "guard").read_bytes() == before, "looking changes nothing"
    (folder / "guard").unlink()
    assert main(["guard", "show", str(folder)]) == 1
    assert "treats it as lost" in capsys.readouterr().err
    assert not (folder / "guard").exists()


def test_guard_resume_needs_a_lost_guard_a_height_and_a_yes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    resume = ["guard", "resume", str(folder)]
    assert main([*resume, "--above", "5", "--yes"]) == 1
    assert "not lost" in capsys.readouterr().err
    (folder / "guard").unlink()
    for missing in ([], ["--above", "5"], ["--yes"]):
        assert main([*resume, *missing]) == 1
        told = capsys.readouterr().out
        assert "TWO DIFFERENT BLOCKS CAN BECOME FINAL" in told
        assert "Nothing was changed" in told
    guard = open_guard(folder)
    assert guard.state.lost
    assert main([*resume, "--above", "5", "--yes"]) == 1
    assert "another process uses the guard" in capsys.readouterr().err
    guard.close()
    assert main([*resume, "--above", "5", "--yes"]) == 0
    guard = open_guard(folder)
    assert (guard.state.lost, guard.state.floor) == (False, 5)
    guard.state.note_lost()
    guard.append(guard.state.flush())
    guard.close()
    assert main([*resume, "--above", "4", "--yes"]) == 1
    assert "this guard knows of height 5" in capsys.readouterr().err


def test_an_override_is_made_signed_and_shown(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "override.json"
    address = "0x" + load_key(folder / "node.key").address.hex()
    make = ["override", "make", str(folder), "--validator", address, "--out", str(file)]
    assert main(make) == 0
    assert f"{address}  has not signed" in capsys.readouterr().out
    assert main(make) == 1
    assert "exists already" in capsys.readouterr().err
    stranger = folder.parent / "validator-2" / "node.key"
    assert main(["override", "sign", str(file), "--key", str(folder / "node.key")]) == 0
    assert "complete. It holds for a node" in capsys.readouterr().out
    (made,) = read_overrides(file)
    assert (made.height, made.domain.genesis_hash) == (0, made.parent_hash)
    assert main(["override", "sign", str(file), "--key", str(stranger)]) == 0
    assert "a signature too many" in capsys.readouterr().out
    both = ["0x" + load_key(key).address.hex() for key in (folder / "node.key", stranger)]
    arguments = ["override", "make", str(folder), "--out", str(tmp_path / "same.json")]
    assert main([*arguments, "--validator", both[0], "--validator", both[1]]) == 1
    assert "nothing to override" in capsys.readouterr().err
    assert main([*arguments, "--validator", "0x12"]) == 1
    assert "expected an address" in capsys.readouterr().err


def test_propose_without_a_node_or_a_key_says_what_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_dir = str(folder.parent)
    assert main(["validators", "list", "--data-dir", data_dir]) == 1
    assert "start one, or name a node with --rpc" in capsys.readouterr().err
    assert main(["gateways", "list", "--rpc", "http://127.0.0.1:1", "--data-dir", data_dir]) == 1
    assert "no answer from http://127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "quorum", "crashed", "byzantine"),
    [(1, 1, 0, 0), (2, 2, 0, 0), (3, 2, 1, 0), (4, 3, 1, 1), (5, 4, 1, 1), (6, 4, 2, 1), (7, 5, 2, 2)],
)
def test_what_a_set_can_bear_is_told_as_it_is(count: int, quorum: int, crashed: int, byzantine: int) -> None:
    expected = f"{count} validators, quorum {quorum}: survive {crashed} crashed and {byzantine} Byzantine"
    assert strength(count) == expected
