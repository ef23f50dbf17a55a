"""The parts of `psephos chaos` that need no network: plans from seeds, disks read back, the picture, its arguments."""

import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.canvas import Canvas, text_width
from cluster.chart import Band, Curve, Panel, draw
from cluster.disks import read_disk
from cluster.faults import KINDS, Fault, draw_plan, parse_kinds
from cluster.history import Ballot
from cluster.network import ClusterError, Network, Ports, local_network
from node.chain import keyspace
from node.chain.contracts.elections import ABI
from tests.cluster.disk_chain import ELECTION, Chain, number

RED, BLUE = (200, 0, 0), (0, 0, 200)


@pytest.fixture
def network() -> Network:
    return local_network(3, Ports(), chain_id=1, dev=True, block_interval_ms=100)


# -- plans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_is_drawn_from_its_seed_and_keeps_within_bounds(network: Network, seed: int) -> None:
    plan = draw_plan(seed, 100.0, tuple(KINDS), network, every_s=2.0)
    assert plan == draw_plan(seed, 100.0, tuple(KINDS), network, every_s=2.0)
    assert plan != draw_plan(seed + 1, 100.0, tuple(KINDS), network, every_s=2.0)
    assert len(plan) > 10
    held: dict[str, float] = {}
    for fault in plan:
        assert 0 <= fault.at_s <= fault.ends_s <= 100.01
        for target in fault.targets:
            assert network.named(target).kind == KINDS[fault.kind].of
            assert held.get(target, 0.0) <= fault.at_s, f"{target} is disturbed twice at {fault}"
            held[target] = fault.ends_s


def test_only_the_wanted_faults_come(network: Network) -> None:
    plan = draw_plan(1, 200.0, parse_kinds("pause, blackout"), network, every_s=1.0)
    assert {fault.kind for fault in plan} == {"pause", "blackout"}
    blackout = next(fault for fault in plan if fault.kind == "blackout")
    assert blackout.targets == ("validator-1", "validator-2", "validator-3")
    with pytest.raises(ClusterError, match="expected some of kill, pause"):
        parse_kinds("kill,meteor")
    without_bootnode = replace(network, processes=network.processes[1:])
    assert draw_plan(1, 50.0, ("bootnode",), without_bootnode, every_s=1.0) == []
    assert all(isinstance(fault, Fault) for fault in plan)


# -- disks -----------------------------------------------------------------------------------------------------------


def test_a_disk_is_read_and_proven(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "chain")
    chain.create()
    first = chain.cast([(number(1), number(11), 0), (number(2), number(12), 2), (number(1), number(13), 1)])
    chain.grow()
    second = chain.grow(ABI.encode_call("cast", ELECTION, number(3), number(14), 0, b"\x02"))
    chain.database.close()
    disk = read_disk("validator-1", chain.folder, chain.genesis, ELECTION)
    assert disk.faults == ()
    assert len(disk.hashes) == 5
    assert disk.counts == (1, 0, 2)
    assert disk.ballots == (
        Ballot(number(1), number(11), b"\0", 2, first),
        Ballot(number(2), number(12), b"\x02", 2, first),
        Ballot(number(3), number(14), b"\x02", 4, second),
    )


def test_what_is_wrong_on_a_disk_is_told(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "chain")
    chain.create()
    chain.cast([(number(1), number(11), 0), (number(2), number(12), 2)])
    chain.grow(sealers=1)
    locked = read_disk("validator-1", chain.folder, chain.genesis, ELECTION)
    assert "another process uses" in locked.faults[0]
    # An entry of the flat log that says another place in the block; the block's place by its hash, gone.
    records = chain.database.scan(keyspace.RECORD, b"\xff")
    ((key, row),) = [pair for pair in records if pair[1].startswith(number(1) + number(11))]
    assert row[75] != 1
    chain.database.write({key: row[:75] + b"\x01" + row[76:], b"h" + chain.ledger.head.hash: number(1)[-8:]})
    chain.database.close()
    faults = "\n".join(read_disk("validator-1", chain.folder, chain.genesis, ELECTION).faults)
    assert "ballot 0 is not in the log as in block 2" in faults
    assert "block 3 is not found by its hash" in faults
    assert "block 3: " in faults.replace("block 3 is", "")  # its certificate has one seal of the two it needs
    assert read_disk("v", chain.folder, chain.genesis, 77).faults[-1] == "there is no election 77"
    stranger = replace(chain.genesis, chain_id=8)
    assert "block 0 is another network's" in read_disk("v", chain.folder, stranger, ELECTION).faults


# -- the picture -----------------------------------------------------------------------------------------------------


def decode(png: bytes) -> list[bytes]:
    """The rows of an 8-bit RGB picture without filters, chunk by chunk as the specification has it."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, kinds, data, size = 8, [], b"", (0, 0)
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        kinds.append(kind)
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
            assert body[8:] == bytes((8, 2, 0, 0, 0))
        if kind == b"IDAT":
            data += body
        at += 12 + length
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]
    raw, stride = zlib.decompress(data), 1 + 3 * size[0]
    assert len(raw) == stride * size[1]
    rows = [raw[start : start + stride] for start in range(0, len(raw), stride)]
    assert all(row[0] == 0 for row in rows)
    return [row[1:] for row in rows]


def test_a_canvas_becomes_a_png() -> None:
    canvas = Canvas(40, 20)
    canvas.box(2, 3, 4, 5, RED)
    canvas.box(-5, -5, 100, 7, BLUE, opacity=0.5)
    canvas.line(10, 10, 30, 18, BLUE, width=1)
    canvas.text(35, 10, "I", RED, scale=1)
    rows = decode(canvas.png())
    assert rows[3][6:9] == bytes(RED)
    assert rows[8][6:9] == rows[3][18:21] == b"\xff" * 3
    assert rows[0][:3] == bytes((128, 128, 228))
    assert rows[10][30:33] == rows[18][90:93] == bytes(BLUE)
    assert rows[10][3 * 37 : 3 * 38] == bytes(RED)  # the stem of the letter
    assert canvas.pixel(37, 16) == RED
    assert text_width("abc", 2) == 36


def test_a_run_is_drawn_with_its_faults() -> None:
    panel = Panel("height", [Curve("v", [(0, 5), (50, 10), (100, 20)], RED)])
    without = decode(draw("t", [panel], ["v"], [], [], 100.0))
    bands = [Band("v", 20.0, 40.0, BLUE)]
    marked = decode(draw("t", [panel], ["v"], bands, [("pause", BLUE)], 100.0))
    assert sum(row.count(bytes(RED)) for row in without) > 200
    changed = {
        x // 3 for one, other in zip(without, marked, strict=True) for x in range(len(one)) if one[x] != other[x]
    }
    width = 1280 - 120 - 24
    assert {120 + width * 30 // 100} <= changed
    assert 120 + width * 60 // 100 not in changed
    assert decode(draw("nothing", [Panel("empty", [])], [], [], [], 0.0))


# -- the command -----------------------------------------------------------------------------------------------------


def test_chaos_says_what_it_needs(tmp_path: Path) -> None:
    def psephos(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "cluster", *arguments, "--data-dir", str(tmp_path / "d")]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert "holds no network yet" in psephos("chaos").stderr
    assert psephos("init").returncode == 0
    idle = psephos("chaos", "--duration", "5")
    assert idle.returncode == 1
    assert "bootnode does not run: `psephos up --detach" in idle.stderr
    assert "--duration 1: at least 5" in psephos("chaos", "--duration", "1").stderr
    assert "--faults meteor: expected some of" in psephos("chaos", "--faults", "meteor").stderr
