"""A node's configuration: TOML, checked by pydantic, every key overridable by an environment variable.

`PSEPHOS_NODE_RPC__BIND=0.0.0.0:8545` stands for `bind` in the table `[rpc]`. Paths are relative to the file's folder.
"""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from node.chain.mempool import MempoolLimits
from node.consensus.events import Policy
from node.pruning import KEEP_MIN
from node.rpc.limits import Limits
from serving.endpoint import is_wildcard, parse_bind
from serving.settings import Bind, Dialled, Host, LogConfig, MetricsConfig, Name, Settings, Table, load_settings


def parse_address(text: str) -> bytes:
    """The 20 bytes of a 0x-hex address. Raises ValueError."""
    address = bytes.fromhex(text[2:]) if text[:2] == "0x" and len(text) == 42 else b""
    if len(address) != 20:  # fromhex skips spaces
        raise ValueError(f"expected an address, 0x and 40 hex digits, not '{text}'")
    return address


def _address(text: str) -> str:
    parse_address(text)
    return text


Address = Annotated[str, AfterValidator(_address)]


def _origin(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", text):
        raise ValueError(f"expected an origin without a path, for instance https://explorer.example, not '{text}'")
    return text


Origin = Annotated[str, AfterValidator(_origin)]


class P2PConfig(Table):
    """`[p2p]`: how this node and its peers reach one another."""

    bind: Bind = Field(default="127.0.0.1:30303", description="Where to listen for peers.")
    advertise: Dialled | None = Field(
        default=None, description="The endpoint peers should dial, when it is not `bind`; host names are allowed."
    )
    bootnodes: list[str] = Field(default_factory=list, description="URLs of bootnodes, for instance http://host:30300.")
    peers_file: Path = Field(default=Path("peers.json"), description="Where found peers are remembered.")
    observers: list[Address] = Field(
        default_factory=list, max_length=256, description="Addresses that may connect and follow without being members."
    )

    @model_validator(mode="after")
    def _can_be_dialled(self) -> Self:
        if self.advertise is None and is_wildcard(parse_bind(self.bind).host):
            raise ValueError(f"'advertise' is needed, since nobody can dial the bound address {self.bind}")
        return self


class OperatorsConfig(Table):
    """`[rpc.operators]`: a listener of its own for `admin`, `debug` and `txpool`; off unless it is bound."""

    bind: Bind | None = Field(
        default=None, description="Where to listen; keep it on loopback. Port 0: a free one, which `url_file` names."
    )
    url_file: Path = Field(default=Path("operators.url"), description="Where to write the URL that is listened at.")
    jwt_secret: Path = Field(
        default=Path("jwt.hex"),
        description="The secret that signs its tokens (HS256), 32 bytes of hex, mode 0600; made when there is none.",
    )


class RpcConfig(Table):
    """`[rpc]`: the JSON-RPC server, which also answers GET /health and GET /ready."""

    bind: Bind = Field(default="127.0.0.1:8001", description="Where to listen for HTTP and WebSocket.")
    dev_accounts: bool = Field(
        default=False,
        description="Sign for callers with the development mnemonic's accounts; on loopback only.",
    )
    hosts: list[Host] = Field(
        default_factory=list,
        description='Names under which callers may reach it, besides addresses and localhost; "*" for any.',
    )
    origins: list[Origin] = Field(
        default_factory=list, description="Web pages, by origin, that may open a WebSocket here; others may not."
    )
    limits: Limits = Field(default_factory=Limits, description="How much one caller may ask for at once.")
    operators: OperatorsConfig = Field(default_factory=OperatorsConfig, description="The operators' listener.")


class ConsensusConfig(Table):
    """`[consensus]`: the pace of this node; none of it is part of a block's validity."""

    block_interval_min_ms: int = Field(default=100, ge=1, description="Least time between blocks when work waits.")
    block_interval_empty_s: float = Field(default=5, gt=0, description="Time between blocks when no work waits.")
    round_timeout_ms: int = Field(default=1000, ge=50, description="How long round 0 may take; doubles up to 8 times.")
    clock_drift_max_s: int = Field(
        default=5, ge=1, description="How far in the future a fresh proposal's timestamp may lie."
    )

    def policy(self) -> Policy:
        """The engine's policy."""
        return Policy(
            block_interval_min_ms=self.block_interval_min_ms,
            block_interval_empty_ms=int(self.block_interval_empty_s * 1000),
            round_timeout_ms=self.round_timeout_ms,
        )


class ChainConfig(Table):
    """`[chain]`: how much of the past is kept."""

    keep_states: int = Field(
        default=0,
        ge=0,
        description="At each start, forget the states before the newest so many blocks, at least 128; 0: forget none. "
        "Blocks, receipts and event logs always stay.",
    )

    @field_validator("keep_states")
    @classmethod
    def _are_enough(cls, value: int) -> int:
        if 0 < value < KEEP_MIN:
            raise ValueError(f"expected 0 for all, or at least {KEEP_MIN}: whoever follows the chain reads the newest")
        return value


class MempoolConfig(Table):
    """`[mempool]`: what waits for a block."""

    transactions_max: int = Field(default=50_000, ge=1, description="Most transactions held at once.")
    bytes_max: int = Field(default=128 << 20, ge=1 << 20, description="Most bytes of transactions held at once.")

    def limits(self) -> MempoolLimits:
        """The mempool's limits."""
        return MempoolLimits(transactions_max=self.transactions_max, bytes_max=self.bytes_max)


class NodeConfig(Settings):
    """One validator's or observer's configuration file."""

    model_config = SettingsConfigDict(
        env_prefix="PSEPHOS_NODE_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    name: Name = Field(description="What logs and peers call this node.")
    genesis: Path = Field(default=Path("genesis.json"), description="The network's genesis file.")
    key: Path = Field(
        default=Path("node.key"), description="The node's private key, 0x-hex or a keystore V3; mode 0600."
    )
    key_password_file: Path | None = Field(
        default=None, description="The file whose first line is the keystore's password; mode 0600."
    )
    guard: Path = Field(default=Path("guard"), description="The sign guard's file; keep it out of backups.")
    data: Path = Field(default=Path("chain"), description="The LevelDB folder.")
    sign: bool = Field(default=True, description="False: follow the chain and sign nothing (an observer).")
    override: Path | None = Field(
        default=None,
        description="Operators' overrides of a quorum lost for good, believed because they are named here.",
    )
    p2p: P2PConfig = Field(default_factory=P2PConfig)
    rpc: RpcConfig = Field(default_factory=RpcConfig)
    consensus: ConsensusConfig = Field(default_factory=ConsensusConfig)
    chain: ChainConfig = Field(default_factory=ChainConfig)
    mempool: MempoolConfig = Field(default_factory=MempoolConfig)
    log: LogConfig = Field(default_factory=LogConfig)
    metrics: MetricsConfig = Field(default_factory=MetricsConfig)


def load_config(path: Path) -> NodeConfig:
    """Read and check the file; paths come back absolute. Raises ConfigError."""
    return load_settings(NodeConfig, path)
