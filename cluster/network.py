"""What a cluster consists of: its processes, hosts and ports, written as cluster.json in the data directory."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

FORMAT = 1
FILE = "cluster.json"
VALIDATORS_MAX = 7
LOCAL = "127.0.0.1"
ANYWHERE = "0.0.0.0"  # nosec B104 # on a host of its own, which only its operator can firewall

Kind = Literal["bootnode", "validator", "observer", "gateway"]  # an observer is a node that follows and signs nothing
CONFIG_FILES: Mapping[Kind, str] = {
    "bootnode": "bootnode.toml",
    "validator": "node.toml",
    "observer": "node.toml",
    "gateway": "gateway.toml",
}
COMMANDS: Mapping[Kind, str] = {"bootnode": "bootnode", "validator": "node", "observer": "node", "gateway": "gateway"}
NODES: tuple[Kind, ...] = ("validator", "observer")


class ClusterError(RuntimeError):
    """What a person did, or what the machine lacks: one sentence that says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The first port of each range, so that several clusters can stand side by side."""

    gateway: int = 8000
    rpc: int = 8001
    p2p: int = 30303
    bootnode: int = 30300

    def check(self, nodes: int, *, hosts_apart: bool = False) -> None:
        """Raise ClusterError for a port outside 1..65535 and for ranges of `nodes` ports that overlap.

        With `hosts_apart` each process has a host of its own, so that only a node's two ports can meet.
        """
        owners: dict[int, str] = {}
        wanted = [("--gateway-port", self.gateway, 1), ("--rpc-port", self.rpc, nodes)]
        wanted += [("--p2p-port", self.p2p, nodes), ("--bootnode-port", self.bootnode, 1)]
        for option, first, count in wanted:
            for port in range(first, first + count):
                if not 1 <= port <= 65535:
                    raise ClusterError(f"{option} {first}: port {port} is outside 1 to 65535; choose a lower one")
                if hosts_apart and self.rpc != self.p2p:
                    continue
                if port in owners:
                    raise ClusterError(f"port {port} belongs to both {owners[port]} and {option}; move one of the two")
                owners[port] = option


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the network.

    `host` is where others reach it, `bind` the local address it listens on. `port` is its HTTP port (JSON-RPC of a
    validator, the API of gateway and bootnode); `p2p_port` is a validator's other port, 0 elsewhere. `address` is
    its account (0x-hex), empty for the bootnode, which has none. An observer has all that a validator has, save votes.
    """

    name: str
    kind: Kind
    bind: str
    host: str
    port: int
    p2p_port: int = 0
    address: str = ""

    @property
    def url(self) -> str:
        """The base URL under which other processes and people reach its HTTP port."""
        return f"http://{self.host}:{self.port}"

    @property
    def ports(self) -> tuple[int, ...]:
        """All TCP ports it listens on."""
        return (self.port, self.p2p_port) if self.p2p_port else (self.port,)


@dataclass(frozen=True, slots=True)
class Network:
    """All processes of one chain, in the order in which they are started.

    With `containers`, each has a host of its own that bears its name, and the gateway's secrets a folder of their own.
    """

    chain_id: int
    dev: bool
    block_interval_ms: int
    processes: tuple[Process, ...]
    genesis_hash: str = ""
    containers: bool = False

    def __iter__(self) -> Iterator[Process]:
        return iter(self.processes)

    def of_kind(self, *kinds: Kind) -> tuple[Process, ...]:
        """The processes of these kinds, in order."""
        return tuple(process for process in self.processes if process.kind in kinds)

    @property
    def gateway(self) -> Process | None:
        """The first gateway, if the network has one."""
        return next(iter(self.of_kind("gateway")), None)

    def named(self, name: str) -> Process:
        """The process called `name`; ClusterError lists the names there are."""
        for process in self.processes:
            if process.name == name:
                return process
        raise ClusterError(f"no process is called {name!r} here: there are {', '.join(p.name for p in self.processes)}")

    def with_ports(self, ports: Ports) -> "Network":
        """The same network with its ports counted from `ports` again."""
        moved = {}
        for kinds, first in ((("bootnode",), ports.bootnode), (NODES, ports.rpc), (("gateway",), ports.gateway)):
            for index, process in enumerate(self.of_kind(*kinds)):
                p2p_port = ports.p2p + index if kinds == NODES else 0
                moved[process.name] = replace(process, port=first + index, p2p_port=p2p_port)
        return replace(self, processes=tuple(moved[process.name] for process in self.processes))

    @property
    def ports(self) -> Ports:
        """The first port of each range that it uses now."""
        validators, bootnodes, gateways = (self.of_kind(kind) for kind in ("validator", "bootnode", "gateway"))
        default = Ports()
        return Ports(
            gateway=gateways[0].port if gateways else default.gateway,
            rpc=validators[0].port if validators else default.rpc,
            p2p=validators[0].p2p_port if validators else default.p2p,
            bootnode=bootnodes[0].port if bootnodes else default.bootnode,
        )


def local_network(
    validators: int,
    ports: Ports,
    *,
    chain_id: int,
    dev: bool,
    block_interval_ms: int,
    containers: bool = False,
    observer: bool = False,
) -> Network:
    """One bootnode, `validators` validators, an observer if there shall be one, and one gateway, without addresses yet.

    All on 127.0.0.1; with `containers`, each on a host of its own that bears its name, listening on every interface.
    """
    if not 1 <= validators <= VALIDATORS_MAX:
        raise ClusterError(f"--validators {validators}: from 1 to {VALIDATORS_MAX} can be started together")
    ports.check(validators + observer, hosts_apart=containers)
    names: list[tuple[str, Kind]] = [("bootnode", "bootnode")]
    names += [(f"validator-{number}", "validator") for number in range(1, validators + 1)]
    names += [("observer", "observer")] if observer else []
    names += [("gateway", "gateway")]
    processes = tuple(
        Process(name, kind, ANYWHERE if containers else LOCAL, name if containers else LOCAL, 1)
        for name, kind in names
    )
    return Network(chain_id, dev, block_interval_ms, processes, containers=containers).with_ports(ports)


def dump(network: Network) -> str:
    """The text of cluster.json."""
    document = {
        "format": FORMAT,
        "chainId": network.chain_id,
        "genesisHash": network.genesis_hash,
        "dev": network.dev,
        "blockIntervalMs": network.block_interval_ms,
        "containers": network.containers,
        "processes": [asdict(process) for process in network],
    }
    return json.dumps(document, indent=2) + "\n"


def parse(text: str, source: Path) -> Network:
    """Read cluster.json's text; ClusterError when it is damaged or from another version. `source` is for messages."""
    try:
        document: dict[str, Any] = json.loads(text)
        if document["format"] != FORMAT:
            raise ClusterError(
                f"{source} has format {document['format']}, this program writes format {FORMAT}: "
                "use the version that made it, or another --data-dir"
            )
        return Network(
            chain_id=int(document["chainId"]),
            dev=bool(document["dev"]),
            block_interval_ms=int(document["blockIntervalMs"]),
            processes=tuple(Process(**process) for process in document["processes"]),
            genesis_hash=str(document["genesisHash"]),
            containers=bool(document.get("containers", False)),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"{source} is damaged ({error!r}): restore it, or choose another --data-dir") from None


def load(data_dir: Path) -> Network | None:
    """The network that lives in `data_dir`, None where nothing has been made yet.

    Raises ClusterError for a folder that holds something else, which must not be written into.
    """
    source = data_dir / FILE
    if source.is_file():
        return parse(source.read_text(), source)
    if not data_dir.exists():
        return None
    if not data_dir.is_dir():
        raise ClusterError(f"{data_dir} is not a folder: choose another --data-dir")
    if (data_dir / f"{FILE}.new").is_file():  # an init that was killed; nothing has ever run on those keys
        return None
    strangers = sorted(str(path.relative_to(data_dir)) for path in data_dir.rglob("*") if not path.is_dir())
    if strangers:
        raise ClusterError(
            f"{data_dir} holds files of something else ({', '.join(strangers[:3])}{', …' if strangers[3:] else ''}): "
            "choose another --data-dir, or empty it"
        )
    return None


def require(data_dir: Path) -> Network:
    """As `load`, but a missing network is an error too."""
    network = load(data_dir)
    if network is None:
        raise ClusterError(f"{data_dir} holds no network yet: `psephos up --data-dir {data_dir}` makes one")
    return network
