"""The benchmark: its arithmetic against slow oracles, its generator against servers that misbehave, and a real run."""

import asyncio
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

from cluster.bench import anchors, figures, machine, testbed, transactions, votes
from cluster.bench.follower import Follower, log_reader, transactions_reader
from cluster.bench.generator import Generator, Requests
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
