"""Settings files as every process reads them: paths, variables, and mistakes told without what must not be repeated."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from serving.endpoint import Endpoint, parse_bind, parse_endpoint
from serving.settings import Bind, ConfigError, Dialled, MetricsConfig, Name, Settings, Table, load_settings


class Disk(Table):
    """A table in a table."""

    folder: Path = Path("data")
    more: tuple[Path, ...] = ()


class Key(Table):
    """What names a secret by its hash."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = "0" * 64
    file: Path = Path("k")


class Inner(Table):
    """A table with another in it."""

    disk: Disk = Disk()
    count: int = 1


class Example(Settings):
    """A file with everything that paths can stand in."""

    model_config = SettingsConfigDict(env_prefix="PSEPHOS_EXAMPLE_", env_nested_delimiter="__", extra="forbid")

    name: Name
    bind: Bind = "127.0.0.1:0"
    peer: Dialled | None = None
    key: Path = Path("key")
    password: Path | None = None
    inner: Inner = Inner()
    api_keys: tuple[Key, ...] = ()
    metrics: MetricsConfig = MetricsConfig()


def load(folder: Path, text: str) -> Example:
    path = folder / "example.toml"
    path.write_text(text)
    return load_settings(Example, path)


def test_every_path_is_relative_to_the_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'name = "a"\nkey = "/etc/key"\n[inner.disk]\nmore = ["x/y", "/z"]\n[[api_keys]]\nfile = "x"\n'
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    found = load(tmp_path, text)
    assert (found.key, found.password) == (Path("/etc/key"), None)
    assert found.inner.disk == Disk(folder=tmp_path / "data", more=(tmp_path / "x" / "y", Path("/z")))
    assert found.metrics.url_file == tmp_path / "metrics.url"
    assert found.api_keys[0].file == tmp_path / "x"


def test_a_variable_goes_before_the_file_and_leaves_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSEPHOS_EXAMPLE_INNER__COUNT", "7")
    monkeypatch.setenv("PSEPHOS_EXAMPLE_PASSWORD", "pw")
    found = load(tmp_path, 'name = "a"\n[inner]\ncount = 2\n[inner.disk]\nfolder = "elsewhere"\n')
    assert (found.inner.count, found.inner.disk.folder) == (7, tmp_path / "elsewhere")
    assert found.password == tmp_path / "pw"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name = ""\n', "example.toml: name = '': .*1 to 64 printable"),
        ("", "name: Field required$"),
        ('name = "a"\n[inner]\ncount = "x"\n', r"inner\.count = 'x': .*integer"),
        ('name = "a"\nnaem = 3\n', "naem = 3: Extra inputs"),
        ('name = "a"\nbind = "::1:80"\n', "bind = '::1:80': .*expected a host name"),
        ('name = "a"\npeer = "h:0"\n', "peer = 'h:0': .*HOST:PORT.*from 1"),
        ("name = \n", "is not TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(tmp_path, text)


def test_what_stands_in_keys_is_not_repeated_whatever_is_wrong(tmp_path: Path) -> None:
    for text in (
        '[[api_keys]]\nsha256 = "s3cret"\n',
        'name = "a"\n[[api_keys]]\ns = "s3cret"\n',
        'api_keys = "s3cret"\n',
    ):
        with pytest.raises(ConfigError) as refusal:
            load(tmp_path, text)
        assert "s3cret" not in str(refusal.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration file .*none\.toml; 'psephos init' writes one"):
        load_settings(Example, tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        load_settings(Example, tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_settings(Example, tmp_path / "bytes.toml")


def test_endpoints_to_listen_at_and_to_dial() -> None:
    assert parse_bind("[::]:0") == Endpoint("::", 0) == ("::", 0)
    assert parse_endpoint("a_b.c:1") == ("a_b.c", 1)
    with pytest.raises(ValueError, match="from 1 to 65535"):
        parse_endpoint("[::]:0")
