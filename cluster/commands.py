"""The verbs of `psephos` that make networks and look after their processes."""

import argparse
import os
import re
import signal
import time
from contextlib import closing
from dataclasses import replace

from cluster import status
from cluster.cli import DEFAULT_CHAIN_ID
from cluster.creation import create, reconfigure
from cluster.network import (
    ANYWHERE,
    COMMANDS,
    NODES,
    ClusterError,
    Kind,
    Network,
    Ports,
    Process,
    load,
    local_network,
    require,
)
from cluster.probe import Prober
from cluster.processes import STOP_GRACE_S, ProcessTable
from cluster.supervisor import NAME as SUPERVISOR
from cluster.supervisor import Supervisor, stop_all
from cluster.terminal import own_foreground
from cluster.view import make_console
from node.chain.genesis import CHAIN_ID_MAX

DEFAULT_VALIDATORS = 3
DEFAULT_INTERVAL_MS = 100
START_TIMEOUT_S = 30.0


def _ports(options: argparse.Namespace, known: Ports) -> Ports:
    """The ports that the options name, and those that are known for the others."""

    def chosen(value: int | None, otherwise: int) -> int:
        return otherwise if value is None else value

    return Ports(
        gateway=chosen(options.gateway_port, known.gateway),
        rpc=chosen(options.rpc_port, known.rpc),
        p2p=chosen(options.p2p_port, known.p2p),
        bootnode=chosen(options.bootnode_port, known.bootnode),
    )


def _interval_ms(options: argparse.Namespace, known: int) -> int:
    value: int = known if options.block_interval_ms is None else options.block_interval_ms
    if value < 1:
        raise ClusterError(f"--block-interval-ms {value}: at least 1")
    return value


def _new_network(
    options: argparse.Namespace, *, dev: bool, containers: bool = False, observer: bool = False
) -> Network:
    return local_network(
        DEFAULT_VALIDATORS if options.validators is None else options.validators,
        _ports(options, Ports()),
        chain_id=_chain_id(options),
        dev=dev,
        block_interval_ms=_interval_ms(options, DEFAULT_INTERVAL_MS),
        containers=containers,
        observer=observer,
    )


def _accounts(options: argparse.Namespace) -> tuple[bytes, ...] | None:
    """Who, besides members, may send transactions; None on an open network."""
    for text in options.account:
        if not re.fullmatch(r"0x[0-9a-fA-F]{40}", text):
            raise ClusterError(f"--account {text!r}: expected an address, 0x and 40 hex digits")
    if options.account and not options.closed:
        raise ClusterError("--account lists who may send on a closed network: give --closed as well")
    return tuple(sorted({bytes.fromhex(text[2:]) for text in options.account})) if options.closed else None


def _chain_id(options: argparse.Namespace) -> int:
    value: int = DEFAULT_CHAIN_ID if options.chain_id is None else options.chain_id
    if not 1 <= value <= CHAIN_ID_MAX:
        raise ClusterError(f"--chain-id {value}: from 1 to {CHAIN_ID_MAX}")
    return value


def _adjust(options: argparse.Namespace, network: Network, table: ProcessTable) -> Network:
    """The existing network with the ports and pace that the options ask for; what it cannot become is an error."""
    validators = len(network.of_kind("validator"))
    if options.validators is not None and options.validators != validators:
        raise ClusterError(
            f"{table.data_dir} holds a network of {validators} validators, not {options.validators}: "
            "use another --data-dir for another network"
        )
    if options.chain_id is not None and options.chain_id != network.chain_id:
        raise ClusterError(
            f"{table.data_dir} holds chain {network.chain_id}, not {options.chain_id}: "
            "use another --data-dir for another network"
        )
    ports = _ports(options, network.ports)
    ports.check(len(network.of_kind(*NODES)))
    changed = replace(
        network if ports == network.ports else network.with_ports(ports),
        block_interval_ms=_interval_ms(options, network.block_interval_ms),
    )
    if changed != network:
        stop_all(table, network)  # what still runs, runs on the old configuration
        reconfigure(table.data_dir, network, changed)
    return changed


def up(options: argparse.Namespace) -> int:
    """Make the network on first use, start it, and stay with it."""
    console = make_console()
    table = ProcessTable(options.data_dir)
    network = load(options.data_dir)
    if network is None:
        with console.status("making keys, genesis and configuration …"):
            network = create(table.data_dir, _new_network(options, dev=True))
        console.print(
            f"[green]✓[/green] new network in {table.data_dir}: chain {network.chain_id}, "
            f"genesis {network.genesis_hash}",
            soft_wrap=True,
        )
    else:
        strange = [process.name for process in network if process.host != process.bind]
        if strange:
            raise ClusterError(
                f"{strange[0]} was made for a host of its own: run it there, `psephos "
                f"{COMMANDS[network.named(strange[0]).kind]} --config …`"
            )
        network = _adjust(options, network, table)
        console.print(f"resuming the network in {table.data_dir}: chain {network.chain_id}", soft_wrap=True)
    with own_foreground():
        return Supervisor(network, table, console, ready_timeout_s=options.ready_timeout_s).run(detach=options.detach)


def down(options: argparse.Namespace) -> int:
    """Stop a foreground `up`, if there is one, and whatever else runs."""
    network = require(options.data_dir)
    table = ProcessTable(options.data_dir)
    owner = table.alive(SUPERVISOR)
    running = [process.name for process in network if table.alive(process.name)]
    if owner is not None:
        table.signal(SUPERVISOR, signal.SIGTERM)
        deadline = time.monotonic() + 3 * STOP_GRACE_S + 5
        while table.alive(SUPERVISOR) and time.monotonic() < deadline:
            time.sleep(0.05)
    stop_all(table, network)
    print(f"stopped {', '.join(running)}" if running else "nothing runs")
    return 0


def start(options: argparse.Namespace) -> int:
    """Start one process and wait until it answers."""
    process = require(options.data_dir).named(options.name)
    table = ProcessTable(options.data_dir)
    running = table.alive(process.name)
    if running is not None:
        raise ClusterError(f"{process.name} runs already (pid {running.pid})")
    identity = table.start(process)
    deadline = time.monotonic() + START_TIMEOUT_S
    with closing(Prober()) as prober:
        while not prober.ask([process])[process.name].healthy:
            if table.alive(process.name) is None:
                raise ClusterError(f"{process.name} {table.exit_reason(process.name)}")
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{process.name} (pid {identity.pid}) runs but does not answer after {START_TIMEOUT_S:.0f} s: "
                    f"see {table.log_file(process.name)}"
                )
            time.sleep(0.1)
    print(f"{process.name} runs (pid {identity.pid}) and answers at {process.url}")
    return 0


def _signal(options: argparse.Namespace, number: signal.Signals, done: str) -> int:
    process = require(options.data_dir).named(options.name)
    table = ProcessTable(options.data_dir)
    identity = table.signal(process.name, number)
    if number == signal.SIGKILL:
        table.wait_gone([identity])
    print(f"{process.name} (pid {identity.pid}) {done}")
    return 0


def init(options: argparse.Namespace) -> int:
    """Write a network's folders and start nothing."""
    existing = load(options.data_dir)
    if existing is not None:
        if options.if_missing:
            print(f"{options.data_dir} holds chain {existing.chain_id} already")
            return _say_where_to_look(options)
        raise ClusterError(f"{options.data_dir} holds a network already: choose another --data-dir")
    network = _new_network(options, dev=options.dev, containers=options.containers, observer=options.observer)
    network = create(options.data_dir, network, accounts=_accounts(options))
    print(f"{options.data_dir}: chain {network.chain_id}, genesis {network.genesis_hash}")
    for process in network:
        print(f"  {process.name:<12} {process.url}  {process.address}".rstrip())
    return _say_where_to_look(options)


def _say_where_to_look(options: argparse.Namespace) -> int:
    """What a person does next who has just said `docker compose up`, which tells the published ports by variables."""
    gateway, rpc = os.environ.get("PSEPHOS_PUBLISHED_GATEWAY"), os.environ.get("PSEPHOS_PUBLISHED_RPC", "").split()
    if options.containers and gateway:
        print(
            f"\nOnce `docker compose ps` says healthy:\n  votes and anchors   http://127.0.0.1:{gateway}  (page: /docs)"
        )
        print(f"  JSON-RPC            {'  '.join(f'http://127.0.0.1:{port}' for port in rpc)}")
        print("  what happens        docker compose logs --follow gateway validator-1\n")
    return 0


def keys(options: argparse.Namespace) -> int:
    """Keys, where they are used."""
    from cluster import keys as one  # not at the top: a name of its own here, and most verbs touch no key

    return one.run(options)


def _remote(kind: Kind, number: int | None, text: str, default: int) -> Process:
    """One process on a host of its own, from ADDRESS@HOST[:PORT]; the port is p2p for validators, HTTP for others."""
    option = f"--{kind} {text}"
    address, at, place = text.rpartition("@")
    if kind != "bootnode" and (not at or not re.fullmatch(r"0x[0-9a-fA-F]{40}", address)):
        raise ClusterError(f"{option}: expected ADDRESS@HOST, the address as `psephos keys new` prints it")
    host, colon, port = place.partition(":")
    if not re.fullmatch(r"[A-Za-z0-9.-]+", host) or (colon and not port.isdecimal()):
        raise ClusterError(f"{option}: expected a host name or an IPv4 address, and a port after a colon if need be")
    name = kind if number is None else f"{kind}-{number}"
    ports = Ports()
    chosen = int(port) if colon else default
    if kind == "validator":
        return Process(name, kind, ANYWHERE, host, ports.rpc, chosen, address.lower())
    return Process(name, kind, ANYWHERE, host, chosen, 0, address.lower())


def genesis(options: argparse.Namespace) -> int:
    """Make a network from addresses whose keys were made elsewhere."""
    if load(options.data_dir) is not None:
        raise ClusterError(f"{options.data_dir} holds a network already: choose another --data-dir")
    ports = Ports()
    groups: list[tuple[Kind, list[str], int]] = [
        ("bootnode", options.bootnode, ports.bootnode),
        ("validator", options.validator, ports.p2p),
        ("gateway", options.gateway, ports.gateway),
    ]
    processes = [
        _remote(kind, index if kind == "validator" or len(texts) > 1 else None, text, port)
        for kind, texts, port in groups
        for index, text in enumerate(texts, 1)
    ]
    addresses = [process.address for process in processes if process.address]
    if len(set(addresses)) != len(addresses):
        raise ClusterError("an address is given twice: each validator and each gateway has a key of its own")
    interval_ms = _interval_ms(options, DEFAULT_INTERVAL_MS)
    network = Network(_chain_id(options), options.dev, interval_ms, tuple(processes))
    network = create(options.data_dir, network, keys=False, accounts=_accounts(options))
    print(f"{options.data_dir}: chain {network.chain_id}, genesis {network.genesis_hash}")
    for process in network:
        print(f"  copy {options.data_dir / process.name} to {process.host}, beside its key if it has one")
    return 0


def chaos(options: argparse.Namespace) -> int:
    """Disturb the network and check what it promised."""
    from cluster import chaos as one  # not at the top: the other verbs need neither the node's rules nor the gateway's

    return one.run(options)


def govern(options: argparse.Namespace) -> int:
    """Validators and gateways: who they are, and votes on others."""
    from cluster import governance  # not at the top: the other verbs need no contract

    return governance.run(options)


def mend(options: argparse.Namespace) -> int:
    """What is done to a node that is stopped."""
    from cluster import mending  # not at the top: the other verbs need no node

    return mending.guard(options) if options.verb == "guard" else mending.override(options)


def run(options: argparse.Namespace) -> int:
    """Run the verb that `options` name."""
    verbs = {
        "up": up,
        "down": down,
        "status": status.run,
        "start": start,
        "kill": lambda o: _signal(o, signal.SIGKILL, "was killed"),
        "pause": lambda o: _signal(o, signal.SIGSTOP, "is paused"),
        "resume": lambda o: _signal(o, signal.SIGCONT, "goes on"),
        "chaos": chaos,
        "validators": govern,
        "gateways": govern,
        "guard": mend,
        "override": mend,
        "init": init,
        "keys": keys,
        "genesis": genesis,
    }
    try:
        return verbs[options.verb](options)
    except PermissionError as error:
        raise ClusterError(f"no permission for {error.filename}: run as its owner, or use another --data-dir") from None
