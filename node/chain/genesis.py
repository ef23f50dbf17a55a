"""Block 0: what a network agrees on before its first block, as a document, as values and as a block.

Everything that decides whether a block is valid is committed to by the hash of block 0: gas limit, timestamp and
validators by its header; chain id, block size, gateways, balances and the rest by its state root.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from merkle.keccak import keccak256
from merkle.patricia import EMPTY_ROOT
from node.chain.block import Block, Header
from node.chain.contracts import anchors, registry
from node.chain.contracts import validators as validators_contract
from node.chain.contracts.members import GATEWAYS_MAX as GATEWAYS_MAX
from node.chain.contracts.members import VALIDATORS_MAX as VALIDATORS_MAX
from node.chain.domain import Domain
from node.chain.outcome import Executed
from node.chain.receipt import EMPTY_BLOOM
from node.chain.state import State
from node.chain.stored import block_key, pack_stored
from node.chain.transaction import TRANSACTION_BYTES_MAX

GAS_LIMIT = 2_000_000_000
GAS_LIMIT_MIN = 100_000_000  # half of it, which a block may use, covers the largest transaction
BLOCK_BYTES_MAX = 8 * 1024 * 1024
BLOCK_BYTES_MAX_RANGE = (TRANSACTION_BYTES_MAX + 4096, 64 * 1024 * 1024)
CHAIN_ID_MAX = (1 << 53) - 1  # what JavaScript's numbers hold
ALLOC_MAX = 100_000
ACCOUNTS_MAX = 10_000
NAME_CHARS_MAX = 64
_UINT64_MAX = (1 << 64) - 1
_WEI_MAX = (1 << 256) - 1
_FIELDS = (
    "chainId",
    "timestamp",
    "gasLimit",
    "blockBytesMax",
    "validators",
    "gateways",
    "alloc",
    "anyoneCreatesElections",
    "accounts",
    "names",
)


class GenesisError(ValueError):
    """A genesis document is not valid; the text names the field, its value and what was expected."""


class _NoDatabase:
    def get(self, key: bytes) -> bytes | None:
        return None


@dataclass(frozen=True, kw_only=True)
class Genesis:
    """What a network agrees on. Addresses have 20 bytes; both tuples are ascending and without repeats.

    `timestamp` is in seconds, `alloc` in wei. A block uses at most half of `gas_limit`, and has at most
    `block_bytes_max` bytes with its header. `accounts`: who may send transactions besides validators and gateways,
    ascending; None: everybody. `names` are hints for people, and no part of block 0.
    """

    chain_id: int
    timestamp: int
    validators: tuple[bytes, ...]
    gateways: tuple[bytes, ...] = ()
    gas_limit: int = GAS_LIMIT
    block_bytes_max: int = BLOCK_BYTES_MAX
    alloc: Mapping[bytes, int] = field(default_factory=dict)
    anyone_creates_elections: bool = False
    accounts: tuple[bytes, ...] | None = None
    names: Mapping[bytes, str] = field(default_factory=dict)


def parse_genesis(document: Mapping[str, object]) -> Genesis:
    """The genesis of a JSON document. Raises GenesisError.

    Numbers may be JSON numbers, decimal strings or 0x-hex strings, as in geth's documents.
    """
    for name in document:
        if name not in _FIELDS:
            raise GenesisError(f"genesis field '{name}' is unknown; expected some of {', '.join(_FIELDS)}")
    anyone = document.get("anyoneCreatesElections", False)
    if not isinstance(anyone, bool):
        raise GenesisError(f"genesis field 'anyoneCreatesElections' is {anyone!r}; expected true or false")
    low, high = BLOCK_BYTES_MAX_RANGE
    validators = _addresses(document, "validators", VALIDATORS_MAX)
    if not validators:
        raise GenesisError("genesis field 'validators' is empty; expected at least one address")
    return Genesis(
        chain_id=_number(document.get("chainId"), "chainId", 1, CHAIN_ID_MAX),
        timestamp=_number(document.get("timestamp", 0), "timestamp", 0, _UINT64_MAX),
        validators=validators,
        gateways=_addresses(document, "gateways", GATEWAYS_MAX),
        gas_limit=_number(document.get("gasLimit", GAS_LIMIT), "gasLimit", GAS_LIMIT_MIN, CHAIN_ID_MAX),
        block_bytes_max=_number(document.get("blockBytesMax", BLOCK_BYTES_MAX), "blockBytesMax", low, high),
        alloc=_alloc(document.get("alloc", {})),
        anyone_creates_elections=anyone,
        accounts=_addresses(document, "accounts", ACCOUNTS_MAX) if "accounts" in document else None,
        names=_names(document.get("names", {})),
    )


def genesis_document(genesis: Genesis) -> dict[str, object]:
    """The JSON document that `parse_genesis` reads back as `genesis`."""
    document: dict[str, object] = {
        "chainId": genesis.chain_id,
        "timestamp": genesis.timestamp,
        "gasLimit": genesis.gas_limit,
        "blockBytesMax": genesis.block_bytes_max,
        "validators": [_hex(address) for address in genesis.validators],
        "gateways": [_hex(address) for address in genesis.gateways],
        "alloc": {_hex(address): {"balance": hex(wei)} for address, wei in sorted(genesis.alloc.items())},
        "anyoneCreatesElections": genesis.anyone_creates_elections,
    }
    if genesis.accounts is not None:
        document["accounts"] = [_hex(address) for address in genesis.accounts]
    if genesis.names:
        document["names"] = {_hex(address): name for address, name in sorted(genesis.names.items())}
    return document


def build_genesis(genesis: Genesis) -> Executed:
    """Block 0 and what the database has to write for it."""
    state = State(_NoDatabase(), EMPTY_ROOT)
    for address, wei in genesis.alloc.items():
        state.set_balance(address, wei)
    for address, contract in registry.CONTRACTS.items():
        state.set_code(address, contract.code)
        state.set_nonce(address, 1)  # as EIP-161 gives a new contract
    validators_contract.initialise(
        state,
        validators=genesis.validators,
        gateways=genesis.gateways,
        chain_id=genesis.chain_id,
        block_bytes_max=genesis.block_bytes_max,
        anyone_creates_elections=genesis.anyone_creates_elections,
        accounts=genesis.accounts,
    )
    anchors.initialise(state)
    state_root, writes = state.commit()
    header = Header(
        parent_hash=bytes(32),
        miner=bytes(20),
        state_root=state_root,
        transactions_root=EMPTY_ROOT,
        receipts_root=EMPTY_ROOT,
        logs_bloom=EMPTY_BLOOM,
        number=0,
        gas_limit=genesis.gas_limit,
        gas_used=0,
        timestamp=genesis.timestamp,
        extra_data=validators_hash(genesis.validators),
    )
    writes[block_key(0)] = pack_stored(header.encoded, ())
    return Executed(Block(header), (), (), writes, genesis.validators, state.changed)


def domain_of(genesis: Genesis) -> Domain:
    """The network that this genesis makes. Builds block 0, so keep the answer."""
    return Domain(genesis.chain_id, build_genesis(genesis).block.hash)


def validators_hash(validators: tuple[bytes, ...]) -> bytes:
    """What a header's `extra_data` holds: keccak-256 of the addresses, ascending, one after the other."""
    return keccak256(b"".join(validators))


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _number(value: object, name: str, low: int, high: int) -> int:
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and len(value) <= 80 and value.isascii() and "_" not in value:
        try:
            number = int(value, 16 if value[:2] in ("0x", "0X") else 10)
        except ValueError:
            number = None
    if number is None or not low <= number <= high:
        raise GenesisError(f"genesis field '{name}' is {value!r}; expected a number from {low} to {high}")
    return number


def _address(value: object, name: str) -> bytes:
    if isinstance(value, str) and len(value) == 42 and value[:2] == "0x":
        try:
            address = bytes.fromhex(value[2:])
        except ValueError:
            address = b""
        if len(address) == 20:  # fromhex skips spaces
            return address
    raise GenesisError(f"genesis field '{name}' has {value!r}; expected an address: 0x and 40 hex digits")


def _addresses(document: Mapping[str, object], name: str, count_max: int) -> tuple[bytes, ...]:
    values = document.get(name, [])
    if not isinstance(values, list) or len(values) > count_max:
        raise GenesisError(f"genesis field '{name}' is {values!r:.100}; expected a list of up to {count_max} addresses")
    addresses = [_address(value, name) for value in values]
    counts = Counter(addresses)
    for address in addresses:
        if counts[address] > 1:
            raise GenesisError(f"genesis field '{name}' has {_hex(address)} more than once; expected each address once")
        if address in registry.CONTRACTS:
            raise GenesisError(f"genesis field '{name}' has {_hex(address)}; expected no native contract")
    return tuple(sorted(addresses))


def _alloc(value: object) -> dict[bytes, int]:
    if not isinstance(value, dict) or len(value) > ALLOC_MAX:
        raise GenesisError(
            f"genesis field 'alloc' is {value!r:.100}; expected an object of up to {ALLOC_MAX} addresses"
        )
    alloc: dict[bytes, int] = {}
    for key, entry in value.items():
        address = _address(key, "alloc")
        if not isinstance(entry, dict) or set(entry) != {"balance"}:
            raise GenesisError(f"genesis field 'alloc.{key}' is {entry!r:.100}; expected {{\"balance\": wei}}")
        if address in alloc:
            raise GenesisError(f"genesis field 'alloc' has {key} more than once; expected each address once")
        alloc[address] = _number(entry["balance"], f"alloc.{key}.balance", 0, _WEI_MAX)
    if sum(alloc.values()) > _WEI_MAX:
        raise GenesisError("genesis field 'alloc' adds up to 2^256 wei or more; expected less")
    return alloc


def _names(value: object) -> dict[bytes, str]:
    if not isinstance(value, dict) or len(value) > VALIDATORS_MAX + GATEWAYS_MAX:
        raise GenesisError(f"genesis field 'names' is {value!r:.100}; expected an object from address to name")
    names: dict[bytes, str] = {}
    for key, name in value.items():
        if not isinstance(name, str) or not 1 <= len(name) <= NAME_CHARS_MAX:
            raise GenesisError(
                f"genesis field 'names.{key}' is {name!r:.100}; expected up to {NAME_CHARS_MAX} characters"
            )
        names[_address(key, "names")] = name
    return names
