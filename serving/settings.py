"""A process's settings: a TOML file checked by pydantic, every key overridable by an environment variable.

`PSEPHOS_NODE_RPC__BIND=0.0.0.0:8545` stands for `bind` in the table `[rpc]`. Paths are relative to the file's folder.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsError

from serving.endpoint import parse_bind, parse_endpoint
from serving.hosts import parse_host
from serving.logs import Format, Level

NAME_CHARACTERS_MAX = 64


class ConfigError(RuntimeError):
    """A file that cannot be used; the message names it, the key, the value and what was expected."""


def _bind(text: str) -> str:
    parse_bind(text)
    return text


def _dialled(text: str) -> str:
    parse_endpoint(text)
    return text


def _name(text: str) -> str:
    if not 1 <= len(text) <= NAME_CHARACTERS_MAX or not text.isprintable():
        raise ValueError(f"expected 1 to {NAME_CHARACTERS_MAX} printable characters")
    return text


Bind = Annotated[str, AfterValidator(_bind)]  # host:port to listen at; port 0 lets the system choose
Dialled = Annotated[str, AfterValidator(_dialled)]  # host:port to connect to
Host = Annotated[str, AfterValidator(parse_host)]  # a name without a port, or "*" for any
Name = Annotated[str, AfterValidator(_name)]  # what logs call somebody


class Table(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LogConfig(Table):
    """`[log]`: lines on standard error."""

    level: Level = Field(default="INFO", description="the least level that is logged")
    format: Format = Field(default="text", description="lines for people, or JSON objects for machines")


class MetricsConfig(Table):
    """`[metrics]`: for Prometheus."""

    bind: Bind | None = Field(
        default=None,
        description="host:port where GET /metrics is answered, to anyone; nowhere when left out; port 0: a free one, "
        "which `url_file` names",
    )
    url_file: Path = Field(default=Path("metrics.url"), description="where to write the URL of the metrics")


class Settings(BaseSettings):
    """The whole file of one process. A class of it sets `env_prefix` and, so, what its variables are called."""

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


Model = TypeVar("Model", bound=Settings)
Part = TypeVar("Part", bound=BaseModel)


def load_settings(model: type[Model], path: Path) -> Model:
    """Read and check a configuration file; its paths come back absolute. Raises ConfigError."""
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}; 'psephos init' writes one") from None
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    try:
        settings = model(**document)
    except SettingsError as error:
        variable = f"{model.model_config.get('env_prefix', '')}…"
        raise ConfigError(f"a variable {variable}: {error}; lists and tables are JSON") from None
    except ValidationError as error:
        raise ConfigError(f"{path}: {'; '.join(_faults(error))}") from None
    return _placed(settings, path.resolve().parent)


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        where = ".".join(map(str, fault["loc"])) or "file"
        yield f"{where}{_found(fault)}: {fault['msg']}"


def _found(fault: Mapping[str, Any]) -> str:
    """What stands there; of tables nothing, nor of API keys, where a key itself may stand in place of its hash."""
    value = fault.get("input")
    is_told = isinstance(value, str | int | float) and fault["loc"][:1] != ("api_keys",)
    return f" = {value!r}" if is_told else ""


def _placed(part: Part, folder: Path) -> Part:
    """The same with every path in it, in tables and lists, too, taken to be relative to `folder`."""
    placed = {name: _moved(getattr(part, name), folder) for name in type(part).model_fields}
    return part.model_copy(update=placed)


def _moved(value: Any, folder: Path) -> Any:
    if isinstance(value, Path):
        return folder / value
    if isinstance(value, BaseModel):
        return _placed(value, folder)
    if isinstance(value, tuple | list):
        return type(value)(_moved(one, folder) for one in value)
    return value
