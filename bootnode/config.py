"""bootnode.toml and its overrides from the environment (PSEPHOS_BOOTNODE_…), checked."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from serving.endpoint import Endpoint, parse_bind
from serving.settings import Bind, LogConfig, MetricsConfig, Name, Settings, Table, load_settings


def _address(text: str) -> str:
    digits = text.removeprefix("0x")
    if len(text) != 42 or len(digits) != 40 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
        raise ValueError("expected 0x and 40 hexadecimal digits")
    return text.lower()


class LimitsConfig(Table):
    """How much the table holds."""

    open_seats: int = Field(default=256, ge=0, le=768, description="records of addresses without a reserved seat")
    record_life_s_max: int = Field(default=7 * 24 * 3600, ge=60, description="a record may not expire later than this")


class BootnodeConfig(Settings):
    """One bootnode. Relative paths are relative to the file's folder."""

    model_config = SettingsConfigDict(
        env_prefix="PSEPHOS_BOOTNODE_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    name: Name = Field(default="bootnode", description="what logs call it")
    genesis: Path = Field(default=Path("genesis.json"), description="the network whose records it keeps")
    bind: Bind = Field(default="127.0.0.1:30300", description="host:port of its HTTP")
    data: Path = Field(default=Path("records.json"), description="what it knows, across restarts")
    allow: list[Annotated[str, AfterValidator(_address)]] = Field(
        default=[], max_length=256, description="addresses with a reserved seat, besides the genesis validators"
    )
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
    metrics: MetricsConfig = MetricsConfig()

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        return parse_bind(self.bind)


def load_config(path: Path) -> BootnodeConfig:
    """Read and check the file; paths come back absolute. Raises ConfigError."""
    return load_settings(BootnodeConfig, path)
