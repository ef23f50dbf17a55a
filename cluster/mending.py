"""`psephos guard` and `psephos override`: what an operator does to a node that is stopped, knowing what it risks."""

import argparse
from pathlib import Path

from cluster.files import write_atomically
from cluster.keys import open_key
from cluster.network import ClusterError
from node.chain.errors import LedgerError
from node.chain.genesis import GenesisError, domain_of
from node.config import NodeConfig, load_config, parse_address
from node.consensus.guard import GuardCorrupt, GuardState, replay
from node.consensus.override import Override, OverrideError, verify_override
from node.guardfile import GuardError, GuardFile
from node.ledger import Ledger
from node.leveldb import DatabaseError, LevelDB
from node.overridefile import override_text, read_overrides
from node.service import load_genesis
from serving.keyfiles import SecretError, load_key
from serving.settings import ConfigError

_RISK = """\
A lost guard means: this validator may have signed what nobody here remembers. Signing again too low, it could sign a
second, different thing at the same height and round. Two such signatures are proof of equivocation; with as few as
f + 1 validators doing it, TWO DIFFERENT BLOCKS CAN BECOME FINAL at one height, and what one of them confirmed is gone.

Safe: a height that is at least 2 above the highest head of ANY validator of this network (`psephos status`, or
`poa_status` of each). A running network does this by itself: where the other validators are a quorum, start the node
and wait. Only where they are none (1 or 2 validators, or too many guards lost at once) is this command needed; then
the height must be below the next one, and you vouch that this key has signed nothing above it: that no copy of
it runs, and that this node was not in the middle of signing the next height when its guard was lost.
"""


def guard(options: argparse.Namespace) -> int:
    """Show or resume a guard."""
    try:
        config = load_config(_config_file(options.folder))
        key, genesis = load_key(config.key, config.key_password_file), load_genesis(config.genesis)
        if options.action == "show":
            return _show_guard(config, replay(_guard_bytes(config), domain_of(genesis), key.address), options.folder)
        return _resume_guard(options, GuardFile(config.guard, domain_of(genesis), key.address))
    except (ConfigError, GenesisError, GuardError, GuardCorrupt, SecretError, OSError) as error:
        raise ClusterError(str(error)) from None


def _config_file(folder: Path) -> Path:
    return folder / "node.toml" if folder.is_dir() else folder


def _guard_bytes(config: NodeConfig) -> bytes:
    try:
        return config.guard.read_bytes()
    except FileNotFoundError:
        raise ClusterError(
            f"there is no guard {config.guard}: a node that starts without one treats it as lost"
        ) from None


def _show_guard(config: NodeConfig, replayed: tuple[GuardState, int], folder: Path) -> int:
    state, whole_bytes = replayed
    size = config.guard.stat().st_size
    print(f"guard of 0x{state.address.hex()} on chain {state.domain.chain_id}: {config.guard}, {size} bytes")
    if whole_bytes < size:
        print(f"  torn: the last {size - whole_bytes} bytes are no whole record; nothing was signed on their strength")
    if state.lost:
        print(
            f"  LOST: it signs nothing until the others' heads say where it is safe (`psephos guard resume {folder}`)"
        )
    if state.floor:
        print(f"  signs nothing at or below height {state.floor}")
    if state.overridden is not None:
        over = state.overridden
        print(f"  override 0x{over.digest.hex()} at height {over.height}, from round {over.first_round} on")
    print(f"  height {state.height}, round {state.round}" if state.height else "  has never signed")
    for kind, statement in sorted(state.signed.items()):
        block = "" if statement.block_hash is None else f" block 0x{statement.block_hash.hex()}"
        print(f"    {kind.name:<12} round {statement.round}{block}")
    if state.prepared is not None:
        print(f"  prepared block 0x{state.prepared.block.hash.hex()} in round {state.prepared.round}")
    return 0


def _resume_guard(options: argparse.Namespace, file: GuardFile) -> int:
    try:
        state = file.state
        if not state.lost:
            raise ClusterError("this guard is not lost: the node signs by itself, and nothing is to be resumed")
        print(_RISK)
        if options.above is None or not options.yes:
            print("Nothing was changed. To do it: --above HEIGHT --yes")
            return 1
        if options.above < max(state.height, state.floor):
            raise ClusterError(f"--above {options.above}: this guard knows of height {max(state.height, state.floor)}")
        state.note_floor(options.above)
        file.append(state.flush())
        print(f"noted: 0x{state.address.hex()} signs only above height {options.above}")
        return 0
    finally:
        file.close()


# --- override ------------------------------------------------------------------------------------------------------


def override(options: argparse.Namespace) -> int:
    """Make, sign or show an override."""
    try:
        if options.action == "make":
            return _make_override(options)
        (found,) = _one(read_overrides(options.file))
        if options.action == "sign":
            for path in options.key:
                found = found.signed(open_key(path, options.password_file))
            write_atomically(options.file, override_text(found))
        return _show_override(found)
    except (ConfigError, DatabaseError, GenesisError, SecretError, LedgerError, OverrideError, OSError) as error:
        raise ClusterError(str(error)) from None


def _one(overrides: tuple[Override, ...]) -> tuple[Override, ...]:
    if len(overrides) != 1:
        raise ClusterError(f"the file holds {len(overrides)} overrides, expected one")
    return overrides


def _make_override(options: argparse.Namespace) -> int:
    """An override of the height after the head of a stopped node."""
    config = load_config(_config_file(options.folder))
    try:
        validators = tuple(sorted({parse_address(text) for text in options.validator}))
    except ValueError as error:
        raise ClusterError(str(error)) from None
    if options.out.exists():
        raise ClusterError(f"{options.out} exists already and is left as it is")
    database = LevelDB(config.data)
    try:
        ledger = Ledger(database, load_genesis(config.genesis))
    finally:
        database.close()
    if validators == ledger.next_validators:
        raise ClusterError("these are the validators that decide the next height anyway: there is nothing to override")
    made = Override(ledger.domain, ledger.head.number, ledger.head.hash, validators)
    write_atomically(options.out, override_text(made))
    print(f"{options.out}: to be signed by each of its validators: psephos override sign {options.out} --key node.key")
    return _show_override(made)


def _show_override(found: Override) -> int:
    print(f"chain {found.domain.chain_id}, genesis 0x{found.domain.genesis_hash.hex()}")
    print(f"above height {found.height}, block 0x{found.parent_hash.hex()}, these validators decide:")
    signers = found.signers()
    for address in found.validators:
        print(f"  0x{address.hex()}  {'signed' if address in signers else 'has not signed'}")
    try:
        verify_override(found)
    except OverrideError as error:
        print(f"not complete: {error}")
        return 0
    print('complete. It holds for a node whose node.toml names it (override = "…"), and for nobody else.')
    return 0
