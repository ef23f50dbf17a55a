"""What the benchmarks' tables say: medians of runs that take turns, peers compared in pairs, profiles that add up."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

from bench import profile, tables, targets
from bench.sampled import START
from cluster.bench import speed
from cluster.bench.run import Run
from cluster.bench.speed import Speed, SpeedProbe, work

peers = importlib.import_module("bench.peers")  # beside a folder of that name, which mypy takes for the module


# -- profiles --------------------------------------------------------------------------------------------------------


def test_a_profiles_rows_add_up() -> None:
    rows: list[tuple[float, Sequence[str]]] = [
        (30.0, ["/x/merkle/keccak.py:keccak256", "/x/merkle/patricia.py:_walk", "/x/node/chain/state.py:commit"]),
        (20.0, ["/x/node/leveldb.py:LevelDB.get", "/x/merkle/patricia.py:_walk"]),
        (10.0, ["<native>", "/usr/asyncio/runners.py:Runner.run", "/x/node/service.py:run"]),
        (5.0, ["thread recover"]),
        (1.0, ["/usr/json/decoder.py:x"]),
    ]
    whole = profile.rooms_us(rows, 80.0)
    assert sum(whole.values()) == pytest.approx(80.0)
    assert (whole["trie and log"], whole["signatures"], whole[profile.LOOP_ROOM]) == (30.0, 5.0, 10.0)
    assert (whole["store (LevelDB, guard, journal)"], whole[profile.NATIVE_ROOM]) == (20.0, 14.0)
    assert sum(profile.rooms_us(rows, 60.0).values()) == pytest.approx(60.0)


def test_a_profiles_columns_add_up_to_what_proc_says(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = {
        "validator-1": {"signatures": 10.0, profile.LOOP_ROOM: 2.0},
        "validator-2": {"signatures": 20.0},
        "gateway": {profile.OTHER_ROOM: 3.0},
        "bootnode": {},
    }
    taken_us = {name: sum(rooms.values()) for name, rooms in spent.items()} | {"generator": 7.0}
    figures = {
        "kind": "votes", "mode": "batch", "final": 1e6, "records_a_request": 500, "clients": 16, "per_second": 1.0,
        "processes": {name: {"us_a_record": us} for name, us in taken_us.items()},
        "cpu_us_a_record": sum(taken_us.values()), "machine": {"busy_cores": 1.0, "cores": 2, "others_cores": 0.0},
    }  # fmt: skip
    run = Run(figures, [], 0.0, 1.0, [], [])
    validator, gateway, bootnode, whole = profile.columns_of(run, spent).values()
    assert validator == {"signatures": 15.0, profile.LOOP_ROOM: 1.0}
    assert (sum(gateway.values()), sum(bootnode.values()), sum(whole.values())) == (3.0, 0.0, 42.0)
    text = profile.table_of(run, spent)
    assert "| **sum** | **16.0** | **3.0** | **0.0** | **42.0** |" in text
    other = profile.table_of_catch_up(
        {"kind": "catch-up", "mode": "ballots", "records": 10, "blocks": 2, "us_a_record": 5.0, "seconds": 1.0}
        | {"server_us_a_record": 1.0, "per_second": 10.0},
        {profile.START_ROOM: 4.0, "execution": 1.0},
    )
    assert "| **sum** | **5.0** |" in other
    assert profile.sections(f"{text}\n\n{other}\n") == {"votes, batch": text, "catch-up, ballots": other}


def test_time_of_imports_and_before_the_sampler_is_the_starts() -> None:
    imported = [
        "/x/node/chain/block.py:Header",
        "/x/node/chain/block.py:<module>",
        "<frozen importlib._bootstrap>:_load",
    ]
    assert profile.room_of(imported) == profile.room_of([START]) == profile.START_ROOM
    assert profile.room_of(imported[:2]) == "codec (RLP, msgpack, JSON models)"


SAMPLED = """
import signal, sys, time
from pathlib import Path
from bench.sampled import Sampler
def burn(until_s):
    while time.process_time() < until_s: pass
burn(0.5 + time.process_time())
sampler = Sampler(Path(sys.argv[1]))
signal.signal(signal.SIGPROF, sampler.note)
sampler.begin_with_start()
burn(0.5 + time.process_time())
print(time.process_time() * 1e6)
sampler.toggle(0, None)
"""


def test_a_sampler_from_the_start_tells_all_that_a_process_took(tmp_path: Path) -> None:
    path = tmp_path / "samples.json"
    done = subprocess.run([sys.executable, "-c", SAMPLED, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = {tuple(stack): us for us, stack in json.loads(path.read_text())}
    start_us, burnt_us = rows.pop((START,)), sum(us for stack, us in rows.items() if "<string>:burn" in stack)
    assert start_us > 0.5e6
    assert burnt_us == pytest.approx(0.5e6, rel=0.1)
    assert start_us + sum(rows.values()) == pytest.approx(float(done.stdout), rel=0.05)


def test_a_profiles_rooms_are_places_of_the_code() -> None:
    """A room whose file was renamed would silently lose its time to another."""
    root = Path(profile.__file__).resolve().parent.parent
    files = [
        path.as_posix() for room in ("merkle", "node", "gateway", "serving") for path in (root / room).rglob("*.py")
    ]
    own = [mark for _, marks in profile.ROOMS for mark in marks if mark.startswith(("merkle/", "node/", "gateway/"))]
    assert own
    assert [mark for mark in own if not any(mark in file for file in files)] == []


def test_a_target_is_held_against_its_bound() -> None:
    (row,) = [row for row in targets.ROWS if row.name == "growth"]
    medians: dict[str, Any] = {
        "ratio": 1.3,
        "bytes_a_record": {"validator-1": 400.0, "validator-2": 449.0},
        "resident_bytes": {"validator-1": 200e6},
        "restarted_bytes": 251e6,
    }
    found = targets.Found([medians, {**medians, "ratio": 1.1}, {**medians, "ratio": 1.4}])
    cells = [[cell.strip() for cell in line.split("|")] for line in targets.lines_of(row, found, {}, 0.0)]
    assert [line[5] for line in cells] == ["✗", "✓", "✗", "–"]  # the last is missing: not measured, never met
    assert cells[0][3:5] == ["**1.30×**", "1.10 – 1.40×"]
    before = {row.targets[3].what: "| as it was |", row.targets[0].what: "| replaced |"}
    lines = list(targets.lines_of(row, found, before, 0.0))
    assert [line for line in lines if "as it was" in line or "replaced" in line] == ["| as it was |"]


def test_a_rate_says_what_slowed_cores_took_from_it() -> None:
    rate = targets.Target("x", lambda figures: figures["rate"], 1.0, True, "/s")
    row = targets.Row("one", ("--count", "1000"), (rate, replace(rate, what="y", unit=" ms")))
    runs: list[dict[str, Any]] = [
        {"rate": 750.0, "speed": Speed(2.0, 1.8)}, {"rate": 500.0, "speed": Speed(3.0, 1.5)}, {"rate": 1_100.0},
    ]  # fmt: skip
    lines = targets.text_of({"one": targets.Found(runs[:2])}, [row], "", {}).splitlines()[2:4]
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    # The work takes 1.5 ms at full speed: 0.75 and 0.5 of it, and so 1,000 a second both times.
    assert [line[6:8] for line in cells] == [["0.62", "1,000/s"], ["0.62", ""]]
    lines = targets.text_of({"one": targets.Found(runs)}, [row], "", {}).splitlines()[2:3]
    assert lines[0].split("|")[7].strip() == "", "a run that does not tell is not guessed at"


def test_growth_says_what_it_had_been_at_one_speed() -> None:
    (row,) = [row for row in targets.ROWS if row.name == "growth"]
    growth = replace(row, targets=row.targets[:1])
    run: dict[str, Any] = {"ratio": 1.3, "ratio_at_equal_speed": 1.1, "speed": Speed(2.0, 1.5)}
    cells = [cell.strip() for cell in next(targets.lines_of(growth, targets.Found([run] * 2), {}, 1.5)).split("|")]
    assert cells[3:8] == ["**1.30×**", "1.30 – 1.30×", "✗", "0.75", "1.10×"], "the verdict is the measured one's"
    earlier = {"ratio": 1.3, "speed": Speed(2.0, 1.5)}
    assert next(targets.lines_of(growth, targets.Found([earlier]), {}, 1.5)).split("|")[7].strip() == ""


def test_the_cores_speed_is_sampled_while_something_else_runs() -> None:
    with SpeedProbe() as probe:
        burnt = sum(work() for _ in range(20))
    assert 0 < probe.speed.fast_ms <= probe.speed.mean_ms
    assert burnt > 0


def test_a_lap_knows_nothing_of_the_time_before(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = Pipe()
    samples = iter([4.0, 2.0, 1.0, 3.0])
    monkeypatch.setattr(speed, "work", lambda: next(samples))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for word in ("lap", "lap", "lap", "end"):
        ours.send(word)
    speed._sample(theirs)
    assert [ours.recv()[0] for _ in range(4)] == [4.0, 2.0, 1.0, 2.5]


def test_runs_take_turns_one_that_fails_is_tried_again_and_no_run_begins_too_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rate = targets.Target("x", lambda figures: figures["rate"], 1.0, True)
    one, two = (targets.Row(name, ("--count", "1000"), (rate,)) for name in ("one", "two"))
    now_s, begun, told = 0.0, [], []

    def run_once(row: targets.Row, number: int) -> dict[str, Any]:
        nonlocal now_s
        now_s += 10 if row.name == "one" else 15
        begun.append((row.name, number))
        if row.name == "one" and number == 2:
            raise targets.Failed("it fell over")
        return {"rate": float(number)}

    monkeypatch.setattr(targets, "run_once", run_once)
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    session = targets.Session([one, two], 3, 84.0, lambda: told.append(len(begun)))
    session.run()
    turns = [("one", 1), ("two", 1), ("one", 2), ("two", 2), ("one", 3)]  # at 60 s: a `two` would end at 75 s
    assert begun == [*turns, ("two", 3)]
    assert told == list(range(1, 7))  # after each, so that an interruption loses none
    assert session.found["one"].failures == ["run 2: it fell over"]
    assert (session.found["one"].left_out, session.found["two"].left_out) == (1, 0)  # the second try was too late
    text = targets.text_of(session.found, [one, two], "Machine: this.", {})
    assert "| 2 on " in text.splitlines()[2]
    assert "| 3 on " in text.splitlines()[3]
    assert "- one: run 2: it fell over" in text
    assert "- one: 2 runs, 1 fewer than wanted" in text
    assert targets.scaled(one, 0.25).command == ("--count", "250")


def test_a_run_that_is_given_up_is_stopped_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(targets, "OUT", tmp_path)
    monkeypatch.setattr(targets, "RUN_WITHIN_S", 0.5)
    sleeps = targets.Row("sleeps", ("-c", "import time; time.sleep(60)"), ())
    with pytest.raises(targets.Failed, match="not over after"):
        targets.run_once(sleeps, 1)
    with pytest.raises(targets.Failed, match="exit code 3: what happened"):
        targets.run_once(targets.Row("falls", ("-c", "print('what  happened'); exit(3)"), (), plots=False), 1)


def run_of(rate: float, *, spent_us: float = 1.0) -> Run:
    processes = {"node": {"us_a_record": spent_us}, "generator": {"us_a_record": 1e9}}
    figures = {"per_second": rate, "processes": processes, "generator_was_limit": False}
    return Run(figures, [], 0.0, 1.0, [], [])


def test_peers_are_compared_run_by_run_and_whoever_is_missing_is_named() -> None:
    psephos, fast, absent, flaky = (peers.Peer(name, lambda: None, lambda _: []) for name in ("psephos", "f", "a", "y"))
    absent.not_run = "it is | not\nto be had"
    for number, (own, other) in enumerate([(100.0, 50.0), (10.0, 100.0), (90.0, 100.0)], 1):
        psephos.runs["single"][number] = run_of(own)
        fast.runs["single"][number] = run_of(other, spent_us=7.0)
    flaky.runs["single"][2] = run_of(20.0)
    flaky.failures.append("run 1, single: it\n fell")
    assert sorted(peers.ratios(psephos, fast, "single")) == [0.1, 0.9, 2.0]
    text = peers.text_of(psephos, [fast, absent, flaky], 400, "Machine: this.")
    assert "| f | **100** (50 – 100) | **0.90** (0.10 – 2.00) | – |  | 7; 0 |" in text
    assert "| a | not run: it is / not to be had |" in text
    assert "| y | **20** (20 – 20) | **0.50** (0.50 – 0.50) |" in text
    assert "- y: run 1, single: it fell" in text
    told = peers.document(psephos, [fast, absent])
    assert told["f"]["psephos_ratio"] == {"single": 0.9}
    assert told["a"] == {
        "per_second": {}, "psephos_ratio": {}, "runs": {}, "failures": [], "not_run": absent.not_run,
    }  # fmt: skip
    psephos.signed["batch"], fast.signed["batch"] = {"aa"}, {"bb"}
    assert "✗ the nodes did not get the same bytes" in peers.text_of(psephos, [fast], 400, "")


async def test_a_peer_that_falls_over_is_noted_and_asked_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    falls = peers.Peer("falls", lambda: None, lambda _: [sys.executable, "-c", "exit('no such thing')"])
    absent = peers.Peer("absent", lambda: None, lambda _: ["/no/such/program"])
    told: list[int] = []
    await peers.compare([falls, absent], 200, 5, float("inf"), lambda: told.append(1))
    for peer, said in ((falls, "exit code 1: no such thing"), (absent, "it does not start")):
        assert len(peer.failures) == peers.FAILURES_MAX
        assert said in peer.not_run
        assert not any(peer.runs.values())
    assert len(told) == 2 * peers.FAILURES_MAX
    assert "left out" not in capsys.readouterr().out
    late = peers.Peer("late", lambda: None, lambda _: [])
    await peers.compare([late], 200, 5, time.monotonic() - 1, lambda: told.append(1))
    assert "run 1 of 5 would last beyond" in capsys.readouterr().out
    assert late.failures == []


def test_a_table_is_put_beside_prose_that_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.md"
    path.write_text("# Head\n\n<!-- a -->\nold\n<!-- b -->\n\n## Prose\n")
    for _ in range(2):
        tables.put(path, "<!-- a -->", "<!-- b -->", "| new |\n")
        assert path.read_text() == "# Head\n\n<!-- a -->\n\n| new |\n\n<!-- b -->\n\n## Prose\n"
    assert tables.between(path, "<!-- a -->", "<!-- b -->") == "| new |"
    with pytest.raises(ValueError, match="expected the markers"):
        tables.put(path, "<!-- a -->", "<!-- c -->", "x")
    assert list(tmp_path.iterdir()) == [path]
    assert tables.row(["a|b", "c\nd"]) == "| a/b | c d |"
    for report, begins, ends in (
        (targets.REPORT, targets.TABLE_BEGINS, targets.TABLE_ENDS),
        (peers.REPORT, peers.TABLE_BEGINS, peers.TABLE_ENDS),
        (profile.REPORT, profile.TABLES_BEGIN, profile.TABLES_END),
    ):
        text = report.read_text()
        assert (text.count(begins), text.count(ends)) == (1, 1), report
