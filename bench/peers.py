"""The same signed transactions, put by one generator to psephos and to its peers: `python -m bench.peers`.

Each node is started fresh, alone, and measured by what `psephos bench transactions` is made of (bench/peers.md).
What cannot be installed or started is reported as not run.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

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
SLOW_SHARE = 10  # peers that are known to be slow get this part of the transactions: the first ones
MODES = ("single", "batch")


class NotRun(RuntimeError):
    """Why a peer was not measured."""


@dataclass(slots=True)
class Peer:
    """One node to compare with: how it is installed and started (a port to a command), and what became of it."""

    name: str
    install: Callable[[], None]
    command: Callable[[int], list[str]]
    slow: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    version: str = ""
    not_run: str = ""
    runs: dict[str, list[Run]] = field(default_factory=lambda: {mode: [] for mode in MODES})
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
        Peer("hardhat", install_npm, _hardhat, environment=hardhat),
        Peer("ganache", install_npm, _ganache, slow=True),
        Peer("eth-tester", install_eth_tester, _eth_tester, slow=True),
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


async def once(peer: Peer, mode: str, count: int, bed: Testbed) -> None:
    """One measured run; noted at the peer."""
    urls = list(bed.rpc_urls.values())
    work = await transactions.workload(urls, mode=mode, count=count, batch=BATCH, clients=CLIENTS)
    bodies = b"".join(request.partition(b"\r\n\r\n")[2] for request in work.requests.data)
    peer.signed[mode].add(hashlib.sha256(bodies).hexdigest())
    run = await measure(bed, work, Pace(CLIENTS, in_flight_max=IN_FLIGHT_MAX))
    if run.problems:
        raise NotRun(f"{mode}: {'; '.join(run.problems)[:300]}")
    peer.runs[mode].append(run)


async def compare(peers: Sequence[Peer], count: int, runs: int) -> Peer:
    """Measure psephos and all peers, turn by turn, so that what else happens on the machine meets all alike."""
    psephos = Peer("psephos, three validators", lambda: None, lambda _: [])
    for peer in peers:
        try:
            peer.install()
        except NotRun as error:
            peer.not_run = str(error)
    for number in range(runs):
        for mode in MODES:
            for peer in (psephos, *peers):
                if peer.not_run:
                    continue
                print(f"run {number + 1} of {runs}, {mode}: {peer.name} …", flush=True)
                try:
                    if peer is psephos:
                        async with testbed.fresh(kinds=("bootnode", "validator")) as bed:
                            await once(peer, mode, count, bed)
                    else:
                        async with started(peer) as bed:
                            share = max(count // SLOW_SHARE, 2 * BATCH) if peer.slow else count
                            await once(peer, mode, share, bed)
                except (NotRun, ClusterError, RpcFailed) as error:
                    peer.not_run = str(error)
    return psephos


def median(peer: Peer, mode: str, figure: Callable[[dict[str, Any]], float]) -> float:
    """The median of a figure over the peer's runs; 0 where there is none."""
    values = [figure(run.figures) for run in peer.runs[mode]]
    return statistics.median(values) if values else 0.0


def table(psephos: Peer, peers: Sequence[Peer]) -> str:
    """Markdown: transactions a second, psephos against each peer, and what a transaction costs."""
    lines = [
        "| node | single, a second | psephos ÷ it | batches of 50, a second | psephos ÷ it | CPU µs a transaction |",
        "|---|---|---|---|---|---|",
    ]
    for peer in (psephos, *peers):
        name = f"{peer.name} ({peer.version})" if peer.version else peer.name
        if peer.not_run:
            lines.append(f"| {name} | not run: {peer.not_run.replace('|', '/').replace(chr(10), ' ')} | | | | |")
            continue
        cells = [name]
        for mode in MODES:
            own, other = (median(one, mode, lambda figures: figures["per_second"]) for one in (psephos, peer))
            cells += [f"{other:,.0f}", "" if peer is psephos or not other else f"{own / other:.2f}"]
        spent = [median(peer, mode, _cpu_us) for mode in MODES]
        cells.append(" / ".join(f"{value:,.0f}" for value in spent))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def document(psephos: Peer, peers: Sequence[Peer]) -> dict[str, Any]:
    """Transactions a second by node and mode, and what psephos is of each peer."""
    found: dict[str, Any] = {}
    for peer in (psephos, *peers):
        rates = {mode: median(peer, mode, lambda figures: figures["per_second"]) for mode in MODES}
        own = {mode: median(psephos, mode, lambda figures: figures["per_second"]) for mode in MODES}
        ratios = {mode: own[mode] / rates[mode] for mode in MODES if rates[mode]}
        found[peer.name] = {"per_second": rates, "psephos_ratio": ratios, "not_run": peer.not_run}
    return found


def _cpu_us(figures: dict[str, Any]) -> float:
    """What all processes but the generator took for a transaction."""
    return float(sum(taken["us_a_record"] for name, taken in figures["processes"].items() if name != "generator"))


def same_bytes(psephos: Peer, peers: Sequence[Peer]) -> str:
    """Whether all that got as many transactions got the same bytes, in words."""
    alike = [peer for peer in peers if not peer.slow and not peer.not_run]
    for mode in MODES:
        if len(set().union(*(peer.signed[mode] for peer in (psephos, *alike)))) > 1:
            return "✗ the nodes did not get the same bytes"
    digests = ", ".join(f"{mode} {next(iter(psephos.signed[mode]), '–')[:16]}…" for mode in MODES)
    return f"The same bytes for each (SHA-256 of all requests: {digests}); slow ones got the first of them."


def main() -> int:
    """The exit code: 0 when psephos was measured; peers that were not run are named in the table."""
    parser = argparse.ArgumentParser(description="psephos and its peers, the same signed transactions")
    parser.add_argument("--count", type=int, default=20_000, help="transactions a run (default: 20,000)")
    parser.add_argument("--runs", type=int, default=3, help="medians of so many (default: 3)")
    parser.add_argument("--only", action="append", metavar="PEER", help="only this peer; once for each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the medians and the ratios")
    parser.add_argument("--write", action="store_true", help="put the table into bench/peers.md")
    options = parser.parse_args()
    peers = [peer for peer in all_peers() if not options.only or peer.name in options.only]
    if options.count < 2 * BATCH or not peers:
        parser.error(f"--count from {2 * BATCH}; --only one of {', '.join(peer.name for peer in all_peers())}")
    psephos = uvloop.run(compare(peers, options.count, options.runs))
    told = [
        f"{options.count:,} transfers, {CLIENTS} connections, {options.runs} runs, medians; "
        f"{len(os.sched_getaffinity(0))} cores; CPU: single / batch, the generator left out.",
        same_bytes(psephos, peers),
    ]
    text = table(psephos, peers) + "\n\n" + "\n".join(told)
    print("\n" + text)
    if options.json is not None:
        options.json.write_text(json.dumps(document(psephos, peers), indent=1) + "\n")
    if options.write:
        before, _, rest = REPORT.read_text().partition(TABLE_BEGINS)
        REPORT.write_text(f"{before}{TABLE_BEGINS}\n\n{text}\n\n{TABLE_ENDS}{rest.partition(TABLE_ENDS)[2]}")
    return 1 if psephos.not_run or told[1].startswith("✗") else 0


if __name__ == "__main__":
    sys.exit(main())
