"""The configuration files of a network's processes: TOML with each key explained, rendered from its description."""

import json
import os

from cluster.network import LOCAL, Network, Process
from serving.hosts import is_address

METRICS_PORT = 9700  # of the first process on a host

_COMMON = """\
# Written by psephos. Paths are relative to this folder. Any key can be overridden by an environment variable:
# {prefix}_ and the key in capitals, with two underscores after a table's name ({example}).
"""

_NODE = """
name = {name}            # what logs and peers call this node
genesis = "genesis.json"      # the network's rules; must be the same file everywhere
key = "node.key"              # the node's private key, 0x-hex or a keystore V3, mode 0600
# key_password_file = "…"     # a keystore's password, on the first line of a file of mode 0600
guard = "guard"               # what was signed, so that nothing is signed twice; keep it out of backups
data = "chain"                # the LevelDB folder; one process at a time
sign = {sign}                 # false: follow the chain and sign nothing
# override = "override.json"  # only where operators replace a quorum lost for good: docs/OPERATIONS.md

[p2p]
bind = {p2p_bind}             # where peers are listened for
advertise = {p2p_advertise}   # where peers should dial; host names are allowed
bootnodes = {bootnodes}       # where peers are found at first
peers_file = "peers.json"     # found peers, so that the bootnode may die
{observers}         # who may connect and follow without being a validator, for instance to become one

[rpc]
bind = {rpc_bind}             # JSON-RPC over HTTP and WebSocket, GET /health, GET /ready
dev_accounts = {dev_accounts}         # sign for callers with the development mnemonic's accounts; on loopback only
hosts = {hosts}                    # names by which callers may reach it, besides addresses and localhost
# [rpc.limits] holds what one caller may ask for at once; docs/RPC.md lists it

[rpc.operators]               # admin, debug and txpool: a listener of its own that asks for tokens, as geth's does
bind = "127.0.0.1:0"          # keep it on loopback; 0: any free port, which operators.url names
jwt_secret = "jwt.hex"        # signs the tokens (HS256); 32 bytes of hex, mode 0600, made when there is none

[consensus]                   # the pace; no part of a block's validity
block_interval_min_ms = {interval}    # least time between blocks when work waits
block_interval_empty_s = 5    # time between blocks when none does
round_timeout_ms = 1000       # how long round 0 may take; doubles up to eight times

[chain]
keep_states = 0               # at each start, forget the states before the newest so many blocks, 128 or more; 0: none

[log]
level = "INFO"                # DEBUG, INFO, WARNING or ERROR
format = "text"               # text for people, json for machines

[metrics]
bind = {metrics}         # GET /metrics, to whoever asks. Port 0: a free one, which metrics.url names
"""

_BOOTNODE = """
name = {name}            # what logs call it
genesis = "genesis.json"      # the network whose records it keeps
bind = {bind}                 # HTTP: POST and GET /records, GET /health, GET /ready
data = "records.json"         # what it knows, across restarts

[log]
level = "INFO"                # DEBUG, INFO, WARNING or ERROR
format = "text"               # text for people, json for machines

[metrics]
bind = {metrics}         # GET /metrics, to whoever asks. Port 0: a free one, which metrics.url names
"""

_GATEWAY = """
name = {name}            # what logs call it
genesis = "genesis.json"      # the network's rules; the certificates it checks hang on them
key = {key}           # its account's private key, 0x-hex or a keystore V3, mode 0600; one process at a time
# key_password_file = "…"     # a keystore's password, on the first line of a file of mode 0600
master_secret = {secret}   # turns voter ids into nullifiers; shared by all gateways of a network. Losing it
                              # permits double votes, leaking it unmasks voters
journal = "journal"           # accepted and not yet final; synced before anything is acknowledged
spool = "spool"               # where that goes when the journal's disk fails: better another disk
state = "verified.json"       # the last verified head and tallies, answered from when no validator can be reached
bind = {bind}                 # the HTTP API
hosts = {hosts}                    # names by which callers without an API key may reach it, besides addresses,
                              # localhost and names without a dot, as containers have

[elections]
auto_create = {auto_create}            # an unknown election is created on its first ballot: for development only

[batch]
gather_ms = 5                 # how long ballots are gathered for one transaction
ballots_max = 500             # most ballots in one transaction

[limits]
wait_s = 2.0                  # how long a caller waits for finality who names no time (`Prefer: wait=SECONDS`)

[log]
level = "INFO"                # DEBUG, INFO, WARNING or ERROR
format = "text"               # text for people, json for machines

[metrics]
bind = {metrics}         # GET /metrics, to whoever asks. Port 0: a free one, which metrics.url names
{validators}"""

_GATEWAY_VALIDATOR = """
[[validators]]
name = {name}
rpc_url = {rpc_url}
p2p_url = {p2p_url}
"""


def _text(value: str) -> str:
    return json.dumps(value)  # a JSON string of printable ASCII is a TOML basic string


def _listen(process: Process, port: int) -> str:
    return _text(f"{process.bind}:{port}")


def _metrics(network: Network, process: Process) -> str:
    """Where its metrics are: on loopback, save in containers; at a known port, the next one for a next process."""
    host = process.bind if network.containers else LOCAL
    neighbours = [other for other in network if other.host == process.host]
    return _text(f"{host}:{0 if process.host == LOCAL else METRICS_PORT + neighbours.index(process)}")


def _hosts(process: Process) -> str:
    """The names that its JSON-RPC or HTTP API answers to, besides addresses."""
    return json.dumps([] if is_address(process.host) else [process.host])


def _node(network: Network, process: Process) -> str:
    observers = [observer.address for observer in network.of_kind("observer") if observer != process]
    return _COMMON.format(prefix="PSEPHOS_NODE", example="PSEPHOS_NODE_RPC__BIND") + _NODE.format(
        name=_text(process.name),
        p2p_bind=_listen(process, process.p2p_port),
        p2p_advertise=_text(f"{process.host}:{process.p2p_port}"),
        bootnodes=json.dumps([bootnode.url for bootnode in network.of_kind("bootnode")]),
        rpc_bind=_listen(process, process.port),
        sign="false" if process.kind == "observer" else "true",
        observers=f"observers = {json.dumps(observers)}" if observers else '# observers = ["0x…"]',
        dev_accounts="true" if network.dev else "false",
        metrics=_metrics(network, process),
        hosts=_hosts(process),
        interval=network.block_interval_ms,
    )


def _bootnode(network: Network, process: Process) -> str:
    return _COMMON.format(prefix="PSEPHOS_BOOTNODE", example="PSEPHOS_BOOTNODE_LOG__LEVEL") + _BOOTNODE.format(
        name=_text(process.name), bind=_listen(process, process.port), metrics=_metrics(network, process)
    )


def secrets_folder(network: Network, process: Process) -> str:
    """Where the gateway's key and secret lie, seen from its folder: a prefix of paths, empty for the folder itself.

    A container's data volume is written to, and copied for backups; what must not leak is in another, read-only one.
    """
    return f"../{process.name}-secrets/" if network.containers else ""


def _gateway(network: Network, process: Process) -> str:
    validators = "".join(
        _GATEWAY_VALIDATOR.format(
            name=_text(validator.name),
            rpc_url=_text(validator.url),
            p2p_url=_text(f"{validator.host}:{validator.p2p_port}"),
        )
        for validator in network.of_kind("validator")
    )
    return _COMMON.format(prefix="PSEPHOS_GATEWAY", example="PSEPHOS_GATEWAY_BATCH__GATHER_MS") + _GATEWAY.format(
        name=_text(process.name),
        bind=_listen(process, process.port),
        key=_text(f"{secrets_folder(network, process)}gateway.key"),
        secret=_text(f"{secrets_folder(network, process)}master.secret"),
        hosts=_hosts(process),
        auto_create="true" if network.dev else "false",
        metrics=_metrics(network, process),
        validators=validators,
    )


def render(network: Network, process: Process) -> str:
    """The configuration file of one process of `network`."""
    writers = {"bootnode": _bootnode, "validator": _node, "observer": _node, "gateway": _gateway}
    return writers[process.kind](network, process)


def render_client(network: Network) -> str:
    """client.toml: what somebody who checks receipts, or uses the client library, has to know."""
    gateway = network.gateway
    lines = [
        "# Written by psephos: how a client finds this network, and what it must insist on.",
        f"chain_id = {network.chain_id}",
        f"genesis_hash = {_text(network.genesis_hash)}",
        'genesis = "genesis.json"',
        f"gateway_url = {_text(gateway.url if gateway else '')}",
        f"rpc_urls = {json.dumps([validator.url for validator in network.of_kind('validator')])}",
    ]
    if network.dev and gateway is not None:
        secret = f"{gateway.name}/{secrets_folder(network, gateway)}master.secret"
        lines += [
            "",
            "# For gateway.blockchain_client: an account of its own, and the gateway's secret, so that a voter who",
            "# uses both roads counts once.",
            'key = "client.key"',
            f"master_secret = {_text(os.path.normpath(secret))}",
        ]
    for validator in network.of_kind("validator"):
        lines += [
            "",
            "[[validators]]",
            f"node_id = {_text(validator.name)}",
            f"rpc_url = {_text(validator.url)}",
            f"p2p_url = {_text(f'{validator.host}:{validator.p2p_port}')}",
        ]
    if network.dev:
        lines += ["", "[elections]", "auto_create = true"]
    return "\n".join(lines) + "\n"
