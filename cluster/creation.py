"""Makes a network's folders: keys, genesis, configuration and guards, one self-contained folder per process."""

import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import orjson

from cluster.configs import render, render_client, secrets_folder
from cluster.dev_accounts import DEV_ACCOUNTS, DEV_BALANCE_WEI
from cluster.files import write_atomically
from cluster.network import CONFIG_FILES, FILE, ClusterError, Network, Process, dump
from node.chain.genesis import Genesis, GenesisError, domain_of, genesis_document, parse_genesis
from node.guardfile import create as create_guard
from serving.keyfiles import create_key

KEY_FILES = {"validator": "node.key", "observer": "node.key", "gateway": "gateway.key"}
SECRET_FILE = "master.secret"  # nosec B105 # the name of a file
CLIENT_KEY_FILE = "client.key"  # a gateway account for programs that use the client library, in dev networks
GUARD_FILE = "guard"


def new_keys(folder: Path, kind: str, password: bytes | None = None) -> str:
    """Make the key of a validator or gateway in `folder`, a keystore with a password, and return its address (0x-hex).

    A gateway gets a master secret as well, unless one was put there before: gateways of a network share it.
    Raises ClusterError rather than replace a key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / KEY_FILES[kind]
    try:
        address = "0x" + create_key(path, password).address.hex()
    except FileExistsError:
        raise ClusterError(f"{path} exists already and is left as it is: choose another folder") from None
    if kind == "gateway":
        finish_gateway(folder)
    return address


def finish_gateway(folder: Path) -> None:
    """Make the master secret beside a gateway's key, unless one was put there before."""
    if not (folder / SECRET_FILE).exists():
        write_atomically(folder / SECRET_FILE, f"0x{secrets.token_hex(32)}\n", mode=0o600)


def join(folder: Path, kind: str, address: str, genesis_file: Path) -> None:
    """Make the rest of what a new member of a running network needs besides its configuration.

    `address` is of the key just made, so a validator's guard begins fresh: nothing has ever been signed with that key.
    """
    try:
        document = genesis_file.read_bytes()
        domain = domain_of(parse_genesis(orjson.loads(document)))
    except (OSError, ValueError) as error:
        raise ClusterError(f"--genesis {genesis_file}: {error}") from None
    write_atomically(folder / "genesis.json", document)
    if kind == "validator":
        create_guard(folder / GUARD_FILE, domain, bytes.fromhex(address[2:]))


def _client_key(data_dir: Path, network: Network) -> str:
    """Make the account of the client library and return its address (0x-hex); empty where the network has none.

    Two processes that share an account would fight for its nonces, so the client does not use the gateway's.
    """
    if not network.dev or network.gateway is None:
        return ""
    (data_dir / CLIENT_KEY_FILE).unlink(missing_ok=True)
    return "0x" + create_key(data_dir / CLIENT_KEY_FILE).address.hex()


def _genesis(network: Network, client: str = "", accounts: tuple[bytes, ...] | None = None) -> Genesis:
    alloc = {bytes.fromhex(account[2:]): DEV_BALANCE_WEI for account in DEV_ACCOUNTS} if network.dev else {}

    def addresses(processes: Sequence[Process], *more: str) -> tuple[bytes, ...]:
        return tuple(sorted(bytes.fromhex(text[2:]) for text in (*(one.address for one in processes), *more)))

    names = {bytes.fromhex(process.address[2:]): process.name for process in network if process.address}

    genesis = Genesis(
        chain_id=network.chain_id,
        timestamp=int(time.time()),
        validators=addresses(network.of_kind("validator")),
        gateways=addresses(network.of_kind("gateway"), *((client,) if client else ())),
        alloc=alloc,
        anyone_creates_elections=network.dev,
        accounts=accounts,
        names=names | ({bytes.fromhex(client[2:]): "client"} if client else {}),
    )
    try:
        return parse_genesis(genesis_document(genesis))  # every node will read it with the same eyes
    except GenesisError as error:
        raise ClusterError(f"no network can be made of this: {error}") from None


def create(
    data_dir: Path, network: Network, *, keys: bool = True, accounts: tuple[bytes, ...] | None = None
) -> Network:
    """Write everything that `network` needs below `data_dir` and return it with addresses and genesis hash.

    With `keys`, keys are made here; without, the processes bring their addresses, and their keys stay on their hosts.
    `accounts`: who may send transactions besides members; None: everybody.
    cluster.json is written last: whoever finds it finds a whole network. The caller has made sure that
    there is none yet (`cluster.network.load`).
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    unfinished = data_dir / f"{FILE}.new"
    write_atomically(unfinished, dump(network))
    if keys:
        processes = []
        for process in network:
            if process.kind != "bootnode":
                folder = data_dir / process.name
                if process.kind == "gateway":
                    folder = Path(os.path.normpath(folder / secrets_folder(network, process)))
                # Left by an init that was killed: nothing has ever run on it.
                (folder / KEY_FILES[process.kind]).unlink(missing_ok=True)
                process = replace(process, address=new_keys(folder, process.kind))
            processes.append(process)
        network = replace(network, processes=tuple(processes))
    client = _client_key(data_dir, network) if keys else ""
    genesis = _genesis(network, client, accounts)
    domain = domain_of(genesis)
    network = replace(network, genesis_hash="0x" + domain.genesis_hash.hex())
    document = orjson.dumps(genesis_document(genesis), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    for process in network:
        folder = data_dir / process.name
        folder.mkdir(exist_ok=True)
        write_atomically(folder / "genesis.json", document)
        write_atomically(folder / CONFIG_FILES[process.kind], render(network, process))
        if process.kind == "validator":
            (folder / GUARD_FILE).unlink(missing_ok=True)
            create_guard(folder / GUARD_FILE, domain, bytes.fromhex(process.address[2:]))
    write_atomically(data_dir / "genesis.json", document)
    write_atomically(data_dir / "client.toml", render_client(network))
    write_atomically(unfinished, dump(network))
    unfinished.replace(data_dir / FILE)
    return network


def reconfigure(data_dir: Path, old: Network, new: Network) -> None:
    """Write the configuration of `new` over that of `old`: same processes and keys, other ports or pace.

    Raises ClusterError, before anything is written, when a file was edited by hand.
    """
    for process in old:
        path = data_dir / process.name / CONFIG_FILES[process.kind]
        if path.is_file() and path.read_text() not in (render(old, process), render(new, new.named(process.name))):
            raise ClusterError(f"{path} was edited by hand, so ports and pace are changed there, not by options")
    for process in new:
        write_atomically(data_dir / process.name / CONFIG_FILES[process.kind], render(new, process))
    write_atomically(data_dir / "client.toml", render_client(new))
    write_atomically(data_dir / FILE, dump(new))
