"""The gateway's configuration: a TOML file checked by pydantic, each key overridable by PSEPHOS_GATEWAY_… ."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from gateway.sets import check_overrides
from node.chain.contracts.ballots import RECORDS_MAX
from node.chain.genesis import Genesis, GenesisError, domain_of, parse_genesis
from node.chain.transaction import TRANSACTION_BYTES_MAX
from node.consensus.override import FILE_BYTES_MAX, Override, OverrideError, parse_overrides
from serving.endpoint import Endpoint, parse_bind
from serving.hosts import is_loopback
from serving.settings import Bind, ConfigError, Host, LogConfig, MetricsConfig, Name, Settings, Table, load_settings


class ValidatorConfig(Table):
    """One validator that the gateway talks to."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    rpc_url: Annotated[str, Field(pattern=r"^https?://[^\s]+$", description="its JSON-RPC over HTTP")]
    p2p_url: Annotated[str, Field(description="host:port of its p2p listener; shown, never dialled")] = ""


class ElectionsConfig(Table):
    """What the gateway does about elections on its own."""

    auto_create: Annotated[
        bool, Field(description="create an unknown election on its first ballot: for development only")
    ] = False
    auto_create_options: Annotated[int, Field(ge=2, le=64, description="options of an election made so")] = 10


class BatchConfig(Table):
    """How records are gathered into transactions."""

    gather_ms: Annotated[
        int, Field(ge=0, le=10_000, description="how long ballots wait for company; up to four times while others fly")
    ] = 5
    ballots_max: Annotated[int, Field(ge=1, le=RECORDS_MAX, description="most ballots in one transaction")] = 500
    bytes_max: Annotated[
        int, Field(ge=100_000, le=TRANSACTION_BYTES_MAX - 4096, description="most bytes of ballots in one transaction")
    ] = 500_000
    in_flight_max: Annotated[int, Field(ge=1, le=4096, description="most transactions sent and not yet final")] = 2048
    in_flight_bytes_max: Annotated[int, Field(ge=1 << 20, description="most bytes of them")] = 16 << 20


class LimitsConfig(Table):
    """Bounds on what is asked of the gateway."""

    wait_s: Annotated[float, Field(ge=0, le=60, description="how long a caller waits who names no time")] = 2.0
    wait_s_max: Annotated[float, Field(ge=0, le=300, description="the longest that a caller may ask for")] = 30.0
    body_bytes_max: Annotated[int, Field(ge=1 << 17, le=64 << 20, description="largest request body")] = 8 << 20
    connections_max: Annotated[int, Field(ge=8, le=60_000, description="most connections of callers at a time")] = 4096
    sender_s: Annotated[
        float, Field(gt=0, le=60, description="a request that has not arrived by then is given up, and its connection")
    ] = 8.0
    idle_s: Annotated[float, Field(gt=0, le=600, description="how long a connection may stay without a request")] = 75.0
    pending_max: Annotated[int, Field(ge=1, description="most records that are accepted and not final")] = 200_000
    pending_bytes_max: Annotated[int, Field(ge=1 << 20, description="most bytes of them in memory")] = 256 << 20


class RpcConfig(Table):
    """How validators are asked."""

    timeout_ms: Annotated[int, Field(ge=50, le=60_000, description="deadline of one call")] = 2_000
    probe_interval_ms: Annotated[int, Field(ge=50, le=60_000, description="how often each validator is probed")] = 500
    poll_ms: Annotated[
        int, Field(ge=50, le=30_000, description="how long a validator may hold a call for new blocks")
    ] = 2_000
    resend_ms: Annotated[int, Field(ge=100, le=60_000, description="a transaction not final by then is sent again")] = (
        1_000
    )


class AnchorsConfig(Table):
    """How anchors that validators refuse are tried again."""

    attempts_max: Annotated[int, Field(ge=1, le=20, description="refusals after which an anchor is failed")] = 5
    backoff_ms: Annotated[
        int, Field(ge=1, le=60_000, description="pause after the first refusal; doubles with each one after it")
    ] = 500
    retry_failed_s: Annotated[float, Field(gt=0, description="how often failed anchors are tried again")] = 900.0
    stats_refresh_s: Annotated[float, Field(gt=0, description="how old the statistics may be")] = 600.0


class CallbacksConfig(Table):
    """Who may be told of an anchor's end."""

    hosts: Annotated[
        tuple[str, ...],
        Field(
            max_length=100, description="hosts that a callback_url may name, with their port where it is not 80 or 443"
        ),
    ] = ()
    secret: Annotated[
        Path,
        Field(description="what callbacks are signed with, 32 bytes of hex, mode 0600; needed once there are hosts"),
    ] = Path("callback.secret")
    folder: Annotated[Path, Field(description="folder of callbacks that are still to be made")] = Path("callbacks")
    timeout_ms: Annotated[int, Field(ge=50, le=60_000, description="deadline of one callback")] = 5_000
    attempts_max: Annotated[int, Field(ge=1, le=50, description="callbacks that fail so often are given up")] = 10
    backoff_ms: Annotated[int, Field(ge=1, description="pause after the first failure; doubles up to an hour")] = 1_000


Scope = Literal["vote", "anchor", "read", "admin"]


class ApiKeyConfig(Table):
    """One key that callers may use. The key itself is written nowhere: it is 32 random bytes, so its hash is enough."""

    name: Annotated[str, Field(min_length=1, max_length=64, description="what logs call its holder")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, description="what it may do; admin may do everything")]


class RatesConfig(Table):
    """How often one caller may come; 0 is no limit, since a backend is one caller."""

    client_per_s: Annotated[float, Field(ge=0, description="requests a second of one API key, or of one address")] = 0.0
    client_burst: Annotated[int, Field(ge=1, description="how many of them may come at once")] = 100
    voter_per_minute: Annotated[float, Field(ge=0, description="votes a minute of one voter in one election")] = 0.0
    voter_burst: Annotated[int, Field(ge=1, description="how many of them may come at once")] = 5


class GatewayConfig(Settings):
    """All settings of one gateway. Paths are relative to the configuration file's folder."""

    model_config = SettingsConfigDict(
        env_prefix="PSEPHOS_GATEWAY_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    name: Annotated[Name, Field(description="what logs call it")] = "gateway"
    genesis: Annotated[Path, Field(description="the network's genesis document")] = Path("genesis.json")
    key: Annotated[
        Path, Field(description="its account's private key, one line of 0x-hex or a keystore V3, mode 0600")
    ] = Path("gateway.key")
    key_password_file: Annotated[
        Path | None, Field(description="the file whose first line is the keystore's password, mode 0600")
    ] = None
    master_secret: Annotated[
        Path, Field(description="the secret that voters' nullifiers derive from, 32 bytes of hex, mode 0600")
    ] = Path("master.secret")
    election_keys: Annotated[Path, Field(description="folder of elections' random keys, erased in the end")] = Path(
        "election-keys"
    )
    journal: Annotated[Path, Field(description="folder of what is accepted and not yet final")] = Path("journal")
    spool: Annotated[Path, Field(description="folder that takes over when the journal's disk fails")] = Path("spool")
    state: Annotated[Path, Field(description="file with the last verified head and tallies")] = Path("verified.json")
    bind: Annotated[Bind, Field(description="host:port of the HTTP API")] = "127.0.0.1:8000"
    hosts: Annotated[
        tuple[Host, ...],
        Field(
            max_length=100,
            description="names under which callers without an API key may reach it, besides addresses, localhost and "
            'names without a dot; "*" for any',
        ),
    ] = ()
    validators: Annotated[tuple[ValidatorConfig, ...], Field(min_length=1, max_length=100)]
    overrides: Annotated[
        tuple[Path, ...],
        Field(
            max_length=100, description="override files of a quorum lost for good, believed because they are named here"
        ),
    ] = ()
    elections: ElectionsConfig = ElectionsConfig()
    batch: BatchConfig = BatchConfig()
    limits: LimitsConfig = LimitsConfig()
    rpc: RpcConfig = RpcConfig()
    anchors: AnchorsConfig = AnchorsConfig()
    callbacks: CallbacksConfig = CallbacksConfig()
    api_keys: Annotated[tuple[ApiKeyConfig, ...], Field(max_length=1000)] = ()
    allow_anonymous: Annotated[
        bool, Field(description="serve callers without an API key on other addresses than loopback, too")
    ] = False
    rates: RatesConfig = RatesConfig()
    log: LogConfig = LogConfig()
    metrics: MetricsConfig = MetricsConfig()

    @field_validator("validators")
    @classmethod
    def _check_names(cls, value: tuple[ValidatorConfig, ...]) -> tuple[ValidatorConfig, ...]:
        names = [validator.name for validator in value]
        if len(set(names)) != len(names):
            raise ValueError(f"two validators have one name: {names}")
        return value

    @property
    def endpoint(self) -> Endpoint:
        """Host and port of `bind`."""
        return parse_bind(self.bind)


def load_config(path: Path) -> GatewayConfig:
    """Read and check a configuration file; its paths come back absolute. Raises ConfigError."""
    config = load_settings(GatewayConfig, path)
    check_exposure(config)
    return config


def check_exposure(config: GatewayConfig) -> None:
    """Raise ConfigError where strangers could reach an API that asks nobody for a key."""
    loopback = is_loopback(config.endpoint.host)
    if not (config.api_keys or config.allow_anonymous or loopback):
        raise ConfigError(
            f"bind = {config.bind!r} lets other machines in and there are no api_keys: add one (`psephos api-key` "
            "makes it), bind to 127.0.0.1, or set allow_anonymous (PSEPHOS_GATEWAY_ALLOW_ANONYMOUS=true)"
        )


def load_overrides(paths: Sequence[Path], genesis: Genesis) -> tuple[Override, ...]:
    """Read override files and check their signatures. Raises ConfigError."""
    found: list[Override] = []
    for path in paths:
        try:
            with path.open("rb") as file:
                overrides = parse_overrides(file.read(FILE_BYTES_MAX + 1))
            check_overrides(overrides, domain_of(genesis).genesis_hash)
        except OSError as error:
            raise ConfigError(f"override {path}: {error.strerror}") from None
        except OverrideError as error:
            raise ConfigError(f"override {path}: {error}") from None
        found += overrides
    return tuple(found)


def load_genesis(path: Path) -> Genesis:
    """Read and check a genesis document. Raises ConfigError."""
    try:
        return parse_genesis(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"genesis {path}: {error.strerror}") from None
    except (ValueError, GenesisError) as error:
        raise ConfigError(f"genesis {path}: {error}") from None
