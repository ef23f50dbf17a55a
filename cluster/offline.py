"""Opens the database of a node that is stopped, found by its network's folder or its own, for reading."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cluster.network import NODES, ClusterError, load
from node.chain.errors import LedgerError, PeerError
from node.chain.genesis import Genesis, GenesisError, domain_of
from node.config import NodeConfig, load_config
from node.consensus.override import Override, OverrideError
from node.leveldb import DAMAGE, DatabaseError, LevelDB
from node.overridefile import read_overrides
from node.service import load_genesis
from node.store import Store
from serving.settings import ConfigError


@dataclass(frozen=True, slots=True)
class Offline:
    """A stopped node: what it is called, the network's rules, and its final blocks."""

    name: str
    genesis: Genesis
    overrides: tuple[Override, ...]
    database: LevelDB
    store: Store


def node_config(data_dir: Path, name: str | None) -> NodeConfig:
    """The configuration of the node `name` in a network's folder (None: the first), or of the node whose folder it is.

    Raises ClusterError.
    """
    folder = data_dir
    if not (data_dir / "node.toml").is_file():
        network = load(data_dir)
        if network is None:
            raise ClusterError(f"{data_dir} is neither a network's folder nor a node's: it has no node.toml")
        nodes = network.of_kind(*NODES)
        chosen = network.named(name) if name else nodes[0]
        if chosen not in nodes:
            raise ClusterError(f"{chosen.name} keeps no chain: choose one of {', '.join(node.name for node in nodes)}")
        folder = data_dir / chosen.name
    elif name is not None:
        raise ClusterError(f"{data_dir} is one node's folder: leave {name!r} out")
    try:
        return load_config(folder / "node.toml")
    except ConfigError as error:
        raise ClusterError(str(error)) from None


@contextlib.contextmanager
def opened(data_dir: Path, name: str | None) -> Iterator[Offline]:
    """Open a stopped node's database, and close it in the end. Raises ClusterError, also for damage that is met."""
    config = node_config(data_dir, name)
    if not (config.data / "CURRENT").is_file():  # opening would make one
        raise ClusterError(f"there is no database {config.data}: has {config.name} ever run?")
    if (owner := config.data.stat().st_uid) != os.geteuid():  # its new files would be ours, and the node could not open
        raise ClusterError(f"{config.data} belongs to user {owner}, and reading it writes there: run this as that user")
    try:
        genesis = load_genesis(config.genesis)
        overrides = read_overrides(config.override) if config.override else ()
        database = LevelDB(config.data)
    except (DatabaseError, GenesisError, OverrideError) as error:
        raise ClusterError(f"{config.name}: {error}") from None
    try:
        store = Store(database)
        found, expected = store.genesis_hash(), domain_of(genesis).genesis_hash
        if found != expected:
            begins = "nothing" if found is None else f"block 0x{found.hex()}"
            raise ClusterError(f"{config.data} begins with {begins}, and {config.genesis} with 0x{expected.hex()}")
        yield Offline(config.name, genesis, overrides, database, store)
    except (LedgerError, PeerError) as error:
        raise ClusterError(f"{config.name}: its chain cannot be read: {error}") from None
    except DAMAGE as error:
        raise ClusterError(
            f"{config.name}: the database {config.data} is damaged ({error}); move it away, and the node fetches the "
            "chain from its peers"
        ) from None
    finally:
        database.close()


def progress(what: str) -> Progress:
    """A bar on standard error, where a person looks at it; nothing in a pipe."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    bar.add_task(what, total=None)
    return bar
