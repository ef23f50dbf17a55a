"""The benchmark: its arithmetic against slow oracles, its generator against servers that misbehave, and a real run."""

import asyncio
import importlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import profile, tables, targets
from bench.sampled import START
from cluster.bench import anchors, figures, machine, testbed, transactions, votes
from cluster.bench.follower import Follower, log_reader, transactions_reader
from cluster.bench.generator import Generator, Requests
from cluster.bench.run import Run
from cluster.bench.wire import Caller, Endpoint, RpcFailed
from cluster.cli import main
from merkle.keccak import keccak256
from node.chain.transaction import decode_transaction

STEPS = st.lists(st.tuples(st.floats(0, 5, allow_nan=False), st.integers(1, 50)), max_size=30)


def series_of(steps: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    at_s, records, series = 0.0, 0, [(0.0, 0)]
    for wait_s, more in steps:
        at_s, records = at_s + wait_s + 0.01, records + more
        series.append((at_s, records))
    return series


# -- arithmetic ------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_least_value_that_covers_its_share(values: list[float], percent: int) -> None:
    found = figures.percentile(sorted(values), percent)
    assert found in values
    assert 100 * sum(value <= found for value in values) >= percent * len(values)
    assert 100 * sum(value < found for value in values) < percent * len(values)


@given(STEPS, st.floats(0, 100, allow_nan=False), st.integers(0, 2_000))
def test_a_series_is_read_as_a_slow_reader_would(steps: list[tuple[float, int]], at_s: float, records: int) -> None:
    series = series_of(steps)
    assert figures.final_at(series, at_s) == max(count for when, count in series if when <= at_s)
    assert figures.reached_s(series, records) == min(
        (when for when, count in series if count >= records), default=float("inf")
    )


@given(STEPS, st.floats(0, 50, allow_nan=False), st.floats(0, 50, allow_nan=False))
def test_the_longest_gap_is_the_longest_silence(steps: list[tuple[float, int]], one: float, other: float) -> None:
    series, begins, ends = series_of(steps), min(one, other), max(one, other)
    gap = figures.longest_gap_s(series, begins, ends)
    inside = sorted([begins, ends, *(when for when, _ in series if begins < when < ends)])
    assert gap == max(inside[at + 1] - inside[at] for at in range(len(inside) - 1))


def test_a_death_is_judged_by_what_is_final_before_and_after() -> None:
    before = [(second / 10, 100 * second) for second in range(1, 101)]  # 1,000 a second for 10 s
    after = [(11.5 + second / 10, 10_000 + 50 * second) for second in range(1, 101)]  # 1.5 s of silence, then 500
    told = figures.around_death([(0.0, 0), *before, *after], 0.0, 10.0, 21.5, 2.0)
    assert told["per_second_before"] == pytest.approx(1_000)
    assert told["ratio"] == pytest.approx(0.5, abs=0.01)
    assert told["ratio_with_settling"] == pytest.approx(5_000 / 11.5 / 1_000)
    assert told["longest_gap_s"] == pytest.approx(1.6)
    assert told["longest_gap_settled_s"] == pytest.approx(0.1)


def test_medians_keep_the_shape_and_the_worst_verdict() -> None:
    runs = [
        {
            "per_second": rate,
            "checked": rate != 3,
            "generator_was_limit": rate == 3,
            "deep": {"p99": rate * 2},
            "kind": "x",
        }
        for rate in (1, 9, 3)
    ]
    told = figures.medians(runs)
    assert told == {"per_second": 3, "checked": False, "generator_was_limit": True, "deep": {"p99": 6}, "kind": "x"}
    chunks: list[dict[str, Any]] = [{"chunks": [{"us": us}, {"us": 10 * us}]} for us in (4, 1, 2)]
    assert figures.medians(chunks) == {"chunks": [{"us": 2}, {"us": 20}]}
    assert figures.medians([*chunks, {"chunks": []}]) == chunks[0]  # of other lengths: nothing to merge


# -- the generator ---------------------------------------------------------------------------------------------------

Answer = Callable[[int, bytes], tuple[float, bytes]]  # number and body of a request: how long to wait, what to say


def http(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Type: a/b\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


@asynccontextmanager
async def server(answer: Answer, *, piece: int = 1 << 20) -> AsyncIterator[tuple[Endpoint, list[bytes]]]:
    """An HTTP server that says what `answer` says, in pieces; b"" closes the connection. And all bodies it was sent."""
    bodies: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                bodies.append(await reader.readexactly(length))
                wait_s, said = answer(len(bodies) - 1, bodies[-1])
                await asyncio.sleep(wait_s)
                if not said:
                    break
                for at in range(0, len(said), piece):
                    writer.write(said[at : at + piece])
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            tasks.discard(task)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Endpoint("127.0.0.1", listening.sockets[0].getsockname()[1], "/x"), bodies
    finally:
        listening.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def taken(status: int, body: bytes) -> int:
    return int(status == 200 and body == b"yes")


async def run(generator: Generator) -> None:
    await generator.connect()
    generator.start()
    async with asyncio.timeout(10):
        await generator.wait()
    generator.close()


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
async def test_every_request_is_sent_once_and_judged_however_its_answer_arrives(piece: int) -> None:
    def answer(number: int, body: bytes) -> tuple[float, bytes]:
        if int(body) % 5 == 0:
            return 0, http(b"no", 409)
        if int(body) % 3 == 0:  # chunked, as some servers answer
            return 0, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nye\r\n1\r\ns\r\n0\r\n\r\n"
        return 0, http(b"yes")

    async with server(answer, piece=piece) as (endpoint, bodies):
        requests = Requests([endpoint.post(b"%d" % number) for number in range(60)], 1)
        generator = Generator([endpoint], requests, taken, clients=7)
        await run(generator)
    assert sorted(map(int, bodies)) == list(range(60))
    assert [bool(one) for one in generator.taken] == [number % 5 != 0 for number in range(60)]
    assert len(generator.failures) == 3
    assert generator.failures[0].startswith("409 no")
    assert all(0 < sent <= answered for sent, answered in zip(generator.sent, generator.answered, strict=True))


async def test_lanes_keep_their_order_and_what_is_in_flight_is_bounded() -> None:
    async with server(lambda _number, _body: (0, http(b"yes"))) as (endpoint, bodies):
        requests = Requests([endpoint.post(b"%d" % number) for number in range(40)], 1, lanes=4)
        generator = Generator([endpoint], requests, taken, clients=4, in_flight_max=10)
        await generator.connect()
        generator.start()
        async with asyncio.timeout(10):
            while sum(generator.taken) < 10:  # noqa: ASYNC110 - it has no event for this
                await asyncio.sleep(0.005)
        generator.pump()
        await asyncio.sleep(0.05)
        assert len(bodies) == 10  # nothing is final, so nothing more goes out
        for final in range(1, 41):
            generator.settle(final)
        async with asyncio.timeout(10):
            await generator.wait()
        generator.close()
    for lane in range(4):
        assert [number for number in map(int, bodies) if number % 4 == lane] == list(range(lane, 40, 4))


async def test_an_open_loop_counts_from_when_a_request_was_due() -> None:
    """A server that stalls for 0.3 s delays all that was due meanwhile, and that must show (coordinated omission)."""

    def answer(number: int, _body: bytes) -> tuple[float, bytes]:
        return (0.3 if number == 20 else 0), http(b"yes")

    async with server(answer) as (endpoint, _):
        requests = Requests([endpoint.post(b"%d" % number) for number in range(60)], 1)
        generator = Generator([endpoint], requests, taken, clients=1, rate=200)
        await run(generator)
    latencies = [end - due for end, due in zip(generator.answered, generator.due, strict=True)]
    assert generator.due[59] - generator.due[0] == pytest.approx(59 / 200)
    assert latencies[20] >= 0.3
    assert latencies[40] >= 0.15  # due 0.1 s into the stall
    assert sum(one > 0.1 for one in latencies) > 20


async def test_a_lost_connection_is_replaced_and_its_request_sent_again() -> None:
    async with server(lambda number, _body: (0, b"" if number in (3, 4) else http(b"yes"))) as (endpoint, bodies):
        requests = Requests([endpoint.post(b"%d" % number) for number in range(12)], 1)
        generator = Generator([endpoint], requests, taken, clients=2)
        await run(generator)
    assert sum(generator.taken) == 12
    assert len(bodies) == 14
    assert set(map(int, bodies)) == set(range(12))


async def test_a_caller_tells_what_was_refused() -> None:
    said = iter([b'{"result": 7}', b'{"error": {"code": 1, "message": "not so"}}', b"", b'{"result": 8}'])
    async with server(lambda _number, _body: (0, http(body) if (body := next(said)) else b"")) as (endpoint, _):
        caller = Caller(f"http://127.0.0.1:{endpoint.port}/x")
        assert await caller.call("a") == 7
        with pytest.raises(RpcFailed, match="not so"):
            await caller.call("b")
        with pytest.raises(RpcFailed, match="closed"):
            await caller.call("c")
        assert await caller.call("d") == 8
        caller.close()


async def test_a_node_that_is_a_block_behind_is_waited_for() -> None:
    """It may not have the election yet, or the block at which another node was when the run began."""
    said = iter([b'{"result": "0x0"}', b'{"error": {"message": "there is no election"}}'])
    later = {
        b"eth_blockNumber": b'{"result": "0x1"}',
        b"poa_getLog": b'{"result": {"blockNumber": "0x1", "size": "0x5"}}',
    }

    def answer(_number: int, body: bytes) -> tuple[float, bytes]:
        return 0, http(next(said, None) or later[json.loads(body)["method"].encode()])

    async with server(answer) as (endpoint, _):
        url = f"http://127.0.0.1:{endpoint.port}/x"
        follower = Follower({"behind": url}, log_reader(7), {})
        await follower.start()
        assert follower.records == 5
        await follower.stop()
        caller = Caller(url)
        assert await transactions_reader(9)(caller) == (1, 0)
        caller.close()


# -- what is sent ----------------------------------------------------------------------------------------------------


def test_transfers_are_the_same_bytes_each_time_and_nonces_go_on() -> None:
    one, other = (transactions.sign(7770, [0, 5], 12, 3) for _ in range(2))
    assert one.requests.data == other.requests.data
    decoded = [[decode_transaction(raw) for raw in raws] for raws in one.raws]
    assert [[each.nonce for each in group] for group in decoded] == [[0, 1, 2], [5, 6, 7], [3, 4, 5], [8, 9, 10]]
    assert len({each.sender for group in decoded for each in group}) == 2
    assert one.hashes[1][2] == keccak256(one.raws[1][2])
    assert len(json.loads(one.requests.data[0])) == 3
    assert transactions.judge(200, b'[{"id":1,"result":"0xaa"},{"id":2,"error":{}},{"id":3,"result":"0xbb"}]') == 2


def test_votes_are_all_different_and_counted_beforehand() -> None:
    requests, counts = votes.prepare("http://127.0.0.1:1", 9, 1_000, 250, "v")
    sent = [vote for data in requests.data for vote in json.loads(data.partition(b"\r\n\r\n")[2])["votes"]]
    assert len(requests.data) == 4
    assert len({vote["voter_id"] for vote in sent}) == len({vote["transaction_id"] for vote in sent}) == 1_000
    assert [sum(vote["choice"] == option for vote in sent) for option in range(3)] == [counts[o] for o in range(3)]
    assert len(set(counts.values())) > 1
    assert votes.judge_one(200, b'{"status":"confirmed"}') == 1
    assert votes.judge_one(202, b'{"status":"pending"}') == 0
    assert anchors.judge(409, b"") == 0


def test_what_a_process_takes_is_read_from_proc(tmp_path: Path) -> None:
    program = "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        found = machine.taken_by(process.pid)
        assert found is not None
        assert 0.28 <= found.cpu_s < 2
        assert 1 << 20 < found.resident_bytes <= machine.resident_peak_bytes(process.pid)
        process.communicate("\n", timeout=20)
    assert machine.taken_by(process.pid) is None
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(1234))
    (tmp_path / "c").write_bytes(bytes(66))
    assert machine.folder_bytes(tmp_path) == 1300


peers = importlib.import_module("bench.peers")  # beside a folder of that name, which mypy takes for the module


# -- the profile and the targets -------------------------------------------------------------------------------------


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
    cells = [[cell.strip() for cell in line.split("|")] for line in targets.lines_of(row, found, {})]
    assert [line[5] for line in cells] == ["✗", "✓", "✗", "–"]  # the last is missing: not measured, never met
    assert cells[0][3:5] == ["**1.30×**", "1.10 – 1.40×"]
    before = {row.targets[3].what: "| as it was |", row.targets[0].what: "| replaced |"}
    assert [line for line in targets.lines_of(row, found, before) if "as it was" in line or "replaced" in line] == [
        "| as it was |"
    ]


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


# -- the command -----------------------------------------------------------------------------------------------------


def psephos(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-P", "-m", "cluster", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["votes", "--count", "0"], "--count 0: from 1 to"),
        (["votes", "--kill-at", "1"], "--kill-at 1: from 0.01 to 0.99"),
        (["votes", "--kill-at", "0.5", "--rpc", "http://x", "--gateway", "http://y"], "needs a network of its own"),
        (["votes", "--rpc", "http://x"], "named by --gateway and --rpc"),
        (["growth", "--folder", "/nowhere/at/all"], "there is no such folder"),
        (["transactions", "--rpc", "http://127.0.0.1:1"], "eth_chainId"),
    ],
)
def test_the_command_says_what_it_wants(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 1
    assert told in capsys.readouterr().err


@pytest.mark.e2e
def test_votes_are_measured_on_a_network_of_its_own(tmp_path: Path) -> None:
    """Also across the death of a validator; all is cleaned up afterwards."""
    began_s = time.time()
    done = psephos(
        "votes", "--count", "600", "--clients", "40", "--rate", "300", "--kill-at", "0.5",
        "--folder", str(tmp_path), "--json", str(tmp_path / "told.json"), "--plot", str(tmp_path / "run.png"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    median = told["median"]
    assert (median["records"], median["final"], median["refused"], median["checked"]) == (600, 600, 0, True)
    assert 2 / 300 * 299 < median["seconds"] < time.time() - began_s
    assert median["per_second"] == pytest.approx(600 / median["seconds"])
    assert 0 < median["latency_ms"]["p50"] <= median["latency_ms"]["p99"] <= median["latency_ms"]["max"]
    assert set(median["processes"]) == {"generator", "bootnode", "validator-1", "validator-2", "validator-3", "gateway"}
    total = sum(taken["us_a_record"] for taken in median["processes"].values())
    assert median["cpu_us_a_record"] == pytest.approx(total)
    assert median["death"]["ratio"] >= 0  # a slow machine may finish nothing more in so short a run
    assert set(median["bytes_a_record"]) == {"validator-1", "validator-2", "gateway"}
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert "checked afterwards" in done.stdout
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.e2e
async def test_a_network_that_runs_is_measured_by_its_urls() -> None:
    async with testbed.fresh() as bed:
        rpc = [word for url in bed.rpc_urls.values() for word in ("--rpc", url)]
        for arguments in (
            ["votes", "--gateway", bed.gateway_url, *rpc, "--count", "200", "--clients", "20", "--runs", "2"],
            ["transactions", *rpc, "--count", "200", "--mode", "batch"],  # whose accounts have nonces by then
        ):
            done = await asyncio.to_thread(psephos, *arguments)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "checked afterwards" in done.stdout
            assert "the network's processes are not known here" in done.stdout


@pytest.mark.e2e
def test_a_wiped_validator_catches_up_and_is_compared(tmp_path: Path) -> None:
    picture = tmp_path / "run.png"
    done = psephos("catch-up", "--count", "1000", "--json", str(tmp_path / "told.json"), "--plot", str(picture))
    assert done.returncode == 0, done.stdout + done.stderr
    median = json.loads((tmp_path / "told.json").read_text())["median"]
    assert median["records"] == 1_000
    assert median["heights"][-1][1] >= median["blocks"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert median["checked"] is True
    assert median["per_second"] == pytest.approx(1_000 / median["seconds"])
