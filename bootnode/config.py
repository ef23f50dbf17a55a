"""bootnode.toml and its overrides from the environment (PSEPHOS_BOOTNODE_…), checked."""

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from node.p2p.endpoint import parse_endpoint
from serving.logs import Format, Level


def _bind(text: str) -> str:
    parse_endpoint(text, port_min=0)
    return text


def _name(text: str) -> str:
    if not 1 <= len(text) <= 64 or not text.isprintable():
        raise ValueError("expected 1 to 64 printable characters")
    return text


def _address(text: str) -> str:
    digits = text.removeprefix("0x")
    if len(text) != 42 or len(digits) != 40 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
        raise ValueError("expected 0x and 40 hexadecimal digits")
    return text.lower()


class LogConfig(BaseModel):
    """How much is logged, and how."""

    model_config = ConfigDict(extra="forbid")

    level: Level = Field(default="INFO", description="the least level that is logged")
    format: Format = Field(default="text", description="lines for people, or JSON objects for machines")


class MetricsConfig(BaseModel):
    """For Prometheus."""

    model_config = ConfigDict(extra="forbid")

    bind: Annotated[str, AfterValidator(_bind)] | None = Field(
        default=None,
        description="host:port where GET /metrics is answered, to anyone; nowhere when left out; port 0: a free one, "
        "which `url_file` names",
    )
    url_file: Path = Field(default=Path("metrics.url"), description="where to write the URL of the metrics")


class LimitsConfig(BaseModel):
    """How much the table holds."""

    model_config = ConfigDict(extra="forbid")

    open_seats: int = Field(default=256, ge=0, le=768, description="records of addresses without a reserved seat")
    record_life_s_max: int = Field(default=7 * 24 * 3600, ge=60, description="a record may not expire later than this")


class BootnodeConfig(BaseSettings):
    """One bootnode. Relative paths are relative to the file's folder."""

    model_config = SettingsConfigDict(env_prefix="PSEPHOS_BOOTNODE_", env_nested_delimiter="__", extra="forbid")

    name: Annotated[str, AfterValidator(_name)] = Field(default="bootnode", description="what logs call it")
    genesis: Path = Field(default=Path("genesis.json"), description="the network whose records it keeps")
    bind: Annotated[str, AfterValidator(_bind)] = Field(default="127.0.0.1:30300", description="host:port of its HTTP")
    data: Path = Field(default=Path("records.json"), description="what it knows, across restarts")
    allow: list[Annotated[str, AfterValidator(_address)]] = Field(
        default=[], max_length=256, description="addresses with a reserved seat, besides the genesis validators"
    )
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
    metrics: MetricsConfig = MetricsConfig()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before the file, whose content comes as arguments."""
        return env_settings, init_settings


def load_config(path: Path) -> BootnodeConfig:
    """Read a configuration file. Raises OSError, tomllib.TOMLDecodeError or pydantic.ValidationError (a ValueError)."""
    with path.open("rb") as file:
        document = tomllib.load(file)
    config = BootnodeConfig(**document)
    folder = path.resolve().parent
    metrics = config.metrics.model_copy(update={"url_file": folder / config.metrics.url_file})
    paths = {"genesis": folder / config.genesis, "data": folder / config.data}
    return config.model_copy(update={**paths, "metrics": metrics})
