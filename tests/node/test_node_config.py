"""Configuration and key files: what is wrong is named with its key, its value and what was expected."""

from pathlib import Path

import pytest

from node.config import load_config, parse_address
from node.rpc.limits import Limits
from serving.endpoint import parse_endpoint
from serving.keyfiles import SecretError, create_key, load_key
from serving.settings import ConfigError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_defaults_and_paths_relative_to_the_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "node.toml", 'name = "validator-1"\n[rpc]\nbind = "127.0.0.1:9001"\n'))
    assert config.genesis == tmp_path / "genesis.json"
    assert config.guard == tmp_path / "guard"
    assert config.p2p.peers_file == tmp_path / "peers.json"
    assert config.rpc.bind == "127.0.0.1:9001"
    assert config.consensus.policy().block_interval_min_ms == 100
    assert config.override is None


def test_an_override_is_named_and_observers_are_listed(tmp_path: Path) -> None:
    text = f'name = "a"\noverride = "override.json"\n[p2p]\nobservers = ["0x{"ab" * 20}"]\n'
    config = load_config(write(tmp_path / "node.toml", text))
    assert config.override == tmp_path / "override.json"
    assert [parse_address(each) for each in config.p2p.observers] == [b"\xab" * 20]


def test_limits_of_json_rpc_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "node.toml", 'name = "a"\n[rpc.limits]\nlogs_max = 5\n')
    assert load_config(path).rpc.limits == Limits(logs_max=5)
    monkeypatch.setenv("PSEPHOS_NODE_RPC__LIMITS__BATCH_ITEMS_MAX", "7")
    assert load_config(path).rpc.limits == Limits(logs_max=5, batch_items_max=7)


@pytest.mark.parametrize("line", ["logs_max = 0", 'logs_max = "many"', "logs_most = 5"])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match="logs_m"):
        load_config(write(tmp_path / "node.toml", f'name = "a"\n[rpc.limits]\n{line}\n'))


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "node.toml", 'name = "a"\n[rpc]\nbind = "127.0.0.1:9001"\n[p2p]\nbind = "127.0.0.1:1"\n')
    monkeypatch.setenv("PSEPHOS_NODE_RPC__BIND", "0.0.0.0:8545")
    monkeypatch.setenv("PSEPHOS_NODE_P2P__BOOTNODES", '["http://bootnode:30300"]')
    config = load_config(path)
    assert config.rpc.bind == "0.0.0.0:8545"
    assert config.p2p.bootnodes == ["http://bootnode:30300"]
    assert config.p2p.bind == "127.0.0.1:1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name = "a"\nnaem = "b"\n', "naem"),
        ('name = "a"\n[p2p]\nobservers = ["0x12"]\n', "0x and 40 hex digits, not '0x12'"),
        ('name = "a"\n[rpc]\nbind = "8001"\n', r"rpc\.bind = '8001'.*HOST:PORT"),
        ('name = "a"\n[consensus]\nblock_interval_min_ms = 0\n', r"consensus\.block_interval_min_ms = 0"),
        ('name = "a"\n[p2p]\nbind = "0.0.0.0:30303"\n', "'advertise' is needed"),
        ('name = "a"\n[p2p]\nadvertise = "a host:30303"\n', "expected a host name"),
        ('name = "a"\n[rpc]\nhosts = ["node.example:8001"]\n', "a host name without a port.*'node.example:8001'"),
        ('name = "a"\n[rpc]\norigins = ["https://a.example/"]\n', "an origin without a path.*'https://a.example/'"),
        ("name = \n", "not TOML"),
        ('name = "line\\nbreak"\n', "name = .*1 to 64 printable characters"),
        ('name = ""\n', "name = ''.*1 to 64 printable characters"),
        ("", "name"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_config(write(tmp_path / "node.toml", text))


def test_a_variable_that_is_no_json_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSEPHOS_NODE_P2P__BOOTNODES", "http://bootnode:30300")
    with pytest.raises(ConfigError, match=r"PSEPHOS_NODE_.*p2p.*lists and tables are JSON"):
        load_config(write(tmp_path / "node.toml", 'name = "a"\n'))


@pytest.mark.parametrize("prefix", ["", "0x"])
def test_a_key_that_stands_where_its_file_should_be_named_is_not_repeated(tmp_path: Path, prefix: str) -> None:
    key = "5eC7" * 16
    with pytest.raises(SecretError, match="expected the name of a file") as refusal:
        load_key(tmp_path / f"{prefix}{key}")
    assert key not in str(refusal.value)


def test_half_a_key_does_not_stand_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", fails)
        with pytest.raises(OSError, match="No space left"):
            create_key(tmp_path / "node.key")
    made = create_key(tmp_path / "node.key")
    assert load_key(tmp_path / "node.key").address == made.address


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="psephos init"):
        load_config(tmp_path / "node.toml")


def test_endpoints() -> None:
    assert parse_endpoint("validator-1:30303") == ("validator-1", 30303)
    assert parse_endpoint("[::1]:80") == ("::1", 80)
    for text in ("host", ":80", "host:", "host:http", "host:70000"):
        with pytest.raises(ValueError, match="HOST:PORT"):
            parse_endpoint(text)


def test_a_key_file_comes_back_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    key = create_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_key(path).address == key.address
    with pytest.raises(FileExistsError):
        create_key(path)
    path.chmod(0o640)
    with pytest.raises(SecretError, match="chmod 600"):
        load_key(path)


@pytest.mark.parametrize("content", ["", "0x12", "zz" * 32, "00" * 32, "ff" * 32])
def test_a_bad_key_file_is_refused_and_never_quoted(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "node.key", content)
    path.chmod(0o600)
    with pytest.raises(SecretError, match="64 hexadecimal digits") as caught:
        load_key(path)
    assert not content or content not in str(caught.value)


def test_a_missing_key_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="psephos keys new"):
        load_key(tmp_path / "node.key")
