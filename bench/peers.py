"""The same signed transactions, put by one generator to psephos and to its peers: `python -m bench.peers`.

Each node is started fresh, alone, and measured by what `psephos bench transactions` is made of (bench/peers.md).
What cannot be installed or started is reported as not run; a turn that fails is named, and the others count.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from bench import tables
from cluster.bench import testbed, transactions
from cluster.bench.run import Pace, Run, measure
from cluster.bench.testbed import Testbed
from cluster.bench.wire import Caller, RpcFailed
from cluster.network import ClusterError
from node.rpc.dev_accounts import COUNT as ACCOUNTS
from node.rpc.dev_accounts import MNEMONIC

FOLDER = Path(__file__).resolve().parent / "peers"
REPORT = FOLDER.parent / "peers.md"
BUILD = FOLDER.parent.parent / "build" / "peers"
MODULES = FOLDER / "node_modules"
TABLE_BEGINS, TABLE_ENDS = "<!-- the table: make bench-peers ARGS=--write -->", "<!-- the table ends -->"
INSTALL_WITHIN_S, START_WITHIN_S, POLL_S = 900, 60.0, 0.1
NODE_MAJOR_MIN = 20
CLIENTS, BATCH = 64, 50
IN_FLIGHT_MAX = 10_000
FAILURES_MAX = 2  # turns of a node; then it is not asked again
MODES = ("single", "batch")
PSEPHOS = "psephos, three validators"


class NotRun(RuntimeError):
    """Why a peer was not measured."""


@dataclass(slots=True)
class Peer:
    """One node to compare with: how it is installed and started (a port to a command), and what became of it."""

    name: str
    install: Callable[[], None]
    command: Callable[[int], list[str]]
    share: int = 1  # those that are known to be slow get the first of so many parts of the transactions
    environment: dict[str, str] = field(default_factory=dict)
    version: str = ""
    not_run: str = ""  # why nothing was measured, or why it was given up
    failures: list[str] = field(default_factory=list)
    runs: dict[str, dict[int, Run]] = field(default_factory=lambda: {mode: {} for mode in MODES})  # by turn
    signed: dict[str, set[str]] = field(default_factory=lambda: {mode: set() for mode in MODES})


def _shell(command: Sequence[str], folder: Path) -> None:
    """Run an installer. Raises NotRun with the end of what it said."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotRun(f"{command[0]}: {error}") from None
    if done.returncode:
        raise NotRun(f"{' '.join(command[:3])} failed: {(done.stderr or done.stdout).strip()[-300:]}")


def install_npm() -> None:
    """Exactly what bench/peers/package-lock.json names, once; packages' own scripts are not run. Raises NotRun."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NotRun(f"it needs Node.js {NODE_MAJOR_MIN} with npm")
    lock, stamp = FOLDER / "package-lock.json", MODULES / ".installed-lock.json"
    if not (stamp.is_file() and stamp.read_bytes() == lock.read_bytes()):
        _shell(["npm", "ci", "--ignore-scripts"], FOLDER)
        shutil.copyfile(lock, stamp)


def install_eth_tester() -> None:
    """An environment of its own, with what bench/peers/requirements.txt names, once. Raises NotRun."""
    wanted, place = FOLDER / "requirements.txt", BUILD / "eth-tester"
    stamp = place / "installed.txt"
    if stamp.is_file() and stamp.read_bytes() == wanted.read_bytes():
        return
    BUILD.mkdir(parents=True, exist_ok=True)
    _shell([sys.executable, "-m", "venv", "--clear", str(place)], BUILD)
    pip = [str(place / "bin" / "pip"), "install", "--quiet", "--require-hashes", "--only-binary=:all:"]
    _shell([*pip, "-r", str(wanted)], BUILD)
    shutil.copyfile(wanted, stamp)


def _anvil(port: int) -> list[str]:
    binary = MODULES / "@foundry-rs" / "anvil-linux-amd64" / "bin" / "anvil"
    options = ["--block-time", "1", "--gas-limit", "1000000000", "--accounts", str(ACCOUNTS), "--mnemonic", MNEMONIC]
    return [str(binary), "--port", str(port), "--chain-id", str(testbed.CHAIN_ID), "--silent", *options]


def _hardhat(port: int) -> list[str]:
    cli = MODULES / "hardhat" / "internal" / "cli" / "cli.js"
    return ["node", str(cli), "--config", str(FOLDER / "hardhat.config.js"), "node", "--port", str(port)]


def _ganache(port: int) -> list[str]:
    chain = ["--chain.chainId", str(testbed.CHAIN_ID), "--chain.networkId", str(testbed.CHAIN_ID)]
    wallet = ["--wallet.mnemonic", MNEMONIC, "--wallet.totalAccounts", str(ACCOUNTS)]
    miner = ["--miner.blockGasLimit", "1000000000"]
    cli = MODULES / "ganache" / "dist" / "node" / "cli.js"
    return ["node", str(cli), "--server.port", str(port), "--logging.quiet", *chain, *wallet, *miner]


def _eth_tester(port: int) -> list[str]:
    python = BUILD / "eth-tester" / "bin" / "python"
    return [str(python), str(FOLDER / "eth_tester_server.py"), str(port), str(testbed.CHAIN_ID), MNEMONIC]


def all_peers() -> list[Peer]:
    """Whom psephos is compared with."""
    hardhat = {"PEER_MNEMONIC": MNEMONIC, "HARDHAT_DISABLE_TELEMETRY_PROMPT": "true"}
    return [
        Peer("anvil", install_npm, _anvil),
        Peer("hardhat", install_npm, _hardhat, share=2, environment=hardhat),
        Peer("ganache", install_npm, _ganache, share=20),
        Peer("eth-tester", install_eth_tester, _eth_tester, share=20),
    ]


@contextlib.asynccontextmanager
async def started(peer: Peer) -> AsyncIterator[Testbed]:
    """A fresh node of a peer, alone; ended afterwards. Raises NotRun."""
    port = testbed.free_ports(1)
    with tempfile.TemporaryDirectory(prefix="psephos-peer-") as folder:
        log = Path(folder) / "log"
        process = _spawn(peer, port, log)
        try:
            url = f"http://127.0.0.1:{port}"
            await _answers(peer, url, process, log)
            yield Testbed("", {peer.name: url}, others={peer.name: process.pid})
        finally:
            process.kill()
            process.wait()


def _spawn(peer: Peer, port: int, log: Path) -> "subprocess.Popen[bytes]":
    """Start a node. Raises NotRun."""
    with log.open("wb") as output:
        try:
            return subprocess.Popen(
                peer.command(port),
                cwd=FOLDER,  # where hardhat finds itself
                env={**os.environ, **peer.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise NotRun(f"it does not start: {error}") from None


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-300:]


async def _answers(peer: Peer, url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a node answers, and note its version. Raises NotRun."""
    deadline = time.monotonic() + START_WITHIN_S
    caller = Caller(url, timeout_s=5.0)
    while True:
        try:
            peer.version = str(await caller.call("web3_clientVersion"))
        except RpcFailed as error:
            said = _end_of(log)
            if process.poll() is not None:
                raise NotRun(f"it ended with exit code {process.returncode}: {said}") from None
            if time.monotonic() > deadline:
                raise NotRun(f"it does not answer: {error}; {said}") from None
            await asyncio.sleep(POLL_S)
        else:
            caller.close()
            return


async def once(peer: Peer, mode: str, number: int, count: int, bed: Testbed) -> None:
    """One measured run; noted at the peer. Raises NotRun unless each transaction is in a block and had its effect."""
    urls = list(bed.rpc_urls.values())
    work = await transactions.workload(urls, mode=mode, count=count, batch=BATCH, clients=CLIENTS)
    bodies = b"".join(request.partition(b"\r\n\r\n")[2] for request in work.requests.data)
    peer.signed[mode].add(hashlib.sha256(bodies).hexdigest())
    run = await measure(bed, work, Pace(CLIENTS, in_flight_max=IN_FLIGHT_MAX))
    if run.problems:
        raise NotRun(f"{mode}: {'; '.join(run.problems)[:300]}")
    peer.runs[mode][number] = run


async def turn(peer: Peer, mode: str, number: int, count: int) -> None:
    """One run of a node that is started for it; what went wrong is noted at the peer."""
    began_s = time.monotonic()
    share = max(count // peer.share, 2 * BATCH)
    try:
        async with _own_network() if peer.name == PSEPHOS else started(peer) as bed:
            await once(peer, mode, number, share, bed)
    except (NotRun, ClusterError, RpcFailed, OSError, TimeoutError) as error:
        peer.failures.append(f"run {number}, {mode}: {error}")
        if len(peer.failures) == FAILURES_MAX:
            peer.not_run = peer.failures[-1]
        told = f"✗ {error}"
    else:
        told = f"{peer.runs[mode][number].figures['per_second']:,.0f} a second"
    print(f"  {told} ({time.monotonic() - began_s:.0f} s)", flush=True)


def _own_network() -> AbstractAsyncContextManager[Testbed]:
    return testbed.fresh(kinds=("bootnode", "validator"))


async def compare(nodes: Sequence[Peer], count: int, runs: int, ends_s: float, tell: Callable[[], None]) -> None:
    """Measure all nodes, turn by turn, so that what else happens on the machine meets all alike; `tell` after each run.

    No run of all begins that would last beyond `ends_s`, of time.monotonic.
    """
    for peer in nodes:
        try:
            peer.install()
        except NotRun as error:
            peer.not_run = str(error)
            print(f"{peer.name}: not run: {error}", flush=True)
    longest_s = 0.0
    for number in range(1, runs + 1):
        began_s = time.monotonic()
        if began_s + longest_s > ends_s:
            print(f"run {number} of {runs} would last beyond the time that was given: left out", flush=True)
            return
        for mode in MODES:
            for peer in nodes:
                if not peer.not_run:
                    print(f"{time.strftime('%H:%M:%S')} run {number} of {runs}, {mode}: {peer.name} …", flush=True)
                    await turn(peer, mode, number, count)
                    tell()
        longest_s = max(longest_s, time.monotonic() - began_s)


def median(peer: Peer, mode: str, figure: Callable[[dict[str, Any]], float]) -> float:
    """The median of a figure over the peer's runs; 0 where there is none."""
    values = [figure(run.figures) for run in peer.runs[mode].values()]
    return statistics.median(values) if values else 0.0


def ratios(psephos: Peer, peer: Peer, mode: str) -> list[float]:
    """What psephos was of a peer in each run that both have."""
    own, other = psephos.runs[mode], peer.runs[mode]
    return [_rate(own[number].figures) / _rate(other[number].figures) for number in own.keys() & other.keys()]


def _rate(figures: dict[str, Any]) -> float:
    return float(figures["per_second"])


def table(psephos: Peer, peers: Sequence[Peer]) -> str:
    """Markdown: transactions a second, psephos against each peer, and what a transaction costs."""
    head = (
        "node",
        "single, a second",
        "psephos ÷ it",
        "batches of 50, a second",
        "psephos ÷ it",
        "CPU µs a transaction",
    )
    lines = [tables.row(head), "|" + "---|" * len(head)]
    for peer in (psephos, *peers):
        cells = [f"{peer.name} ({peer.version})" if peer.version else peer.name]
        if not any(peer.runs.values()):
            cells += [f"not run: {peer.not_run}" if peer.not_run else "not yet run", *[""] * (len(head) - 2)]
            lines.append(tables.row(cells))
            continue
        for mode in MODES:
            cells += _cells(psephos, peer, mode)
        cells.append(f"{median(peer, 'single', _cpu_us):,.0f}; {median(peer, 'batch', _cpu_us):,.0f}")
        lines.append(tables.row(cells))
    return "\n".join(lines)


def _cells(psephos: Peer, peer: Peer, mode: str) -> list[str]:
    """A mode's median rate with its bounds, and the median of the ratios with theirs."""
    rates = [_rate(run.figures) for run in peer.runs[mode].values()]
    if not rates:
        return ["–", ""]
    rate = f"**{statistics.median(rates):,.0f}** ({min(rates):,.0f} – {max(rates):,.0f})"
    shares = [] if peer is psephos else ratios(psephos, peer, mode)
    return [rate, f"**{statistics.median(shares):.2f}** ({min(shares):.2f} – {max(shares):.2f})" if shares else ""]


def document(psephos: Peer, peers: Sequence[Peer]) -> dict[str, Any]:
    """Transactions a second by node and mode, and what psephos is of each peer: medians."""
    found: dict[str, Any] = {}
    for peer in (psephos, *peers):
        measured = [mode for mode in MODES if peer.runs[mode]]
        shares = {mode: ratios(psephos, peer, mode) for mode in measured}
        found[peer.name] = {
            "per_second": {mode: median(peer, mode, _rate) for mode in measured},
            "psephos_ratio": {mode: statistics.median(values) for mode, values in shares.items() if values},
            "runs": {mode: [run.figures for run in peer.runs[mode].values()] for mode in measured},
            "failures": peer.failures,
            "not_run": peer.not_run,
        }
    return found


def _cpu_us(figures: dict[str, Any]) -> float:
    """What all processes but the generator took for a transaction."""
    return float(sum(taken["us_a_record"] for name, taken in figures["processes"].items() if name != "generator"))


def same_bytes(psephos: Peer, peers: Sequence[Peer]) -> str:
    """Whether all that got as many transactions got the same bytes, in words."""
    alike = [peer for peer in (psephos, *peers) if peer.share == 1]
    for mode in MODES:
        if len(set().union(*(peer.signed[mode] for peer in alike))) > 1:
            return "✗ the nodes did not get the same bytes"
    digests = ", ".join(f"{mode} {next(iter(psephos.signed[mode]), '–')[:16]}…" for mode in MODES)
    parts = ", ".join(f"{peer.name} the first 1/{peer.share}" for peer in peers if peer.share > 1)
    return f"The same bytes for each (SHA-256 of all requests: {digests}){'; ' if parts else ''}{parts} of them."


def text_of(psephos: Peer, peers: Sequence[Peer], count: int, where: str) -> str:
    """The table, and what must be said of it."""
    runs = max(len(psephos.runs[mode]) for mode in MODES)
    lines = [
        f"{count:,} transfers, {CLIENTS} connections, {runs} runs; medians, and in brackets the least and the most. A "
        "ratio is of two nodes in one run. CPU: single; batch, the generator left out. In each run all transactions "
        "were in blocks, and all that they moved had arrived; a run that fails this is named here, not counted.",
        same_bytes(psephos, peers),
        where,
    ]
    limited = [
        f"- {peer.name}: the generator was the limit in a run of {mode}."
        for peer in (psephos, *peers)
        for mode in MODES
        if any(run.figures["generator_was_limit"] for run in peer.runs[mode].values())
    ]
    failed = [f"- {peer.name}: {' '.join(one.split())}" for peer in (psephos, *peers) for one in peer.failures]
    return "\n\n".join([table(psephos, peers), *lines, "\n".join(limited + failed)]).strip()


def main() -> int:
    """The exit code: 0 when psephos was measured, and each peer that was named; others' absence is in the table."""
    parser = argparse.ArgumentParser(description="psephos and its peers, the same signed transactions")
    parser.add_argument("--count", type=int, default=20_000, help="transactions a run (default: 20,000)")
    parser.add_argument("--runs", type=int, default=3, help="medians of so many (default: 3)")
    parser.add_argument("--within", type=float, default=60.0, metavar="MIN", help="begin no run that would last longer")
    parser.add_argument("--only", action="append", metavar="PEER", help="only this peer; once for each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the medians and the ratios")
    parser.add_argument("--write", action="store_true", help="put the table into bench/peers.md, after each turn")
    options = parser.parse_args()
    peers = [peer for peer in all_peers() if not options.only or peer.name in options.only]
    if options.count < 2 * BATCH or not peers or options.runs < 1:
        known = ", ".join(peer.name for peer in all_peers())
        parser.error(f"--count from {2 * BATCH}; --runs from 1; --only one of {known}")
    psephos = Peer(PSEPHOS, lambda: None, lambda _: [])
    where = tables.machine_line()

    def tell() -> None:
        if options.write:
            text = text_of(psephos, peers, options.count, where)
            tables.put(REPORT, TABLE_BEGINS, TABLE_ENDS, text)

    ends_s = time.monotonic() + 60 * options.within
    uvloop.run(compare([psephos, *peers], options.count, options.runs, ends_s, tell))
    tell()
    text = text_of(psephos, peers, options.count, where)
    print("\n" + text)
    if options.json is not None:
        options.json.write_text(json.dumps(document(psephos, peers), indent=1) + "\n")
    wanted = [psephos, *(peer for peer in peers if options.only)]
    measured = all(peer.runs[mode] for peer in wanted for mode in MODES)
    return 0 if measured and "✗ the nodes" not in text else 1


if __name__ == "__main__":
    sys.exit(main())
