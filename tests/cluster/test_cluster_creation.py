"""A made network: whole, self-contained, its secrets closed to others, and made again when a crash cut it short."""

import json
import os
import stat
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from eth_account import Account

from cluster.cli import main
from cluster.configs import render
from cluster.creation import create, new_keys, reconfigure
from cluster.dev_accounts import DEV_ACCOUNTS, DEV_BALANCE_WEI, DEV_MNEMONIC
from cluster.network import FILE, ClusterError, Network, Ports, dump, load, local_network, parse
from gateway.config import load_config as load_gateway
from node.chain.genesis import domain_of, parse_genesis
from node.config import load_config
from node.guardfile import GuardFile
from serving.keyfiles import load_key


def blank(validators: int = 3, *, dev: bool = True, containers: bool = False) -> Network:
    return local_network(
        validators, Ports(), chain_id=7770, dev=dev, block_interval_ms=150, containers=containers
    )


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Network]:
    return tmp_path / "data", create(tmp_path / "data", blank())


def test_the_development_accounts_are_those_of_the_mnemonic() -> None:
    Account.enable_unaudited_hdwallet_features()
    found = [Account.from_mnemonic(DEV_MNEMONIC, account_path=f"m/44'/60'/0'/0/{i}").address for i in range(64)]
    assert tuple(found) == DEV_ACCOUNTS


def test_every_folder_is_self_contained(made: tuple[Path, Network]) -> None:
    data_dir, network = made
    assert load(data_dir) == network
    genesis = parse_genesis(json.loads((data_dir / "genesis.json").read_text()))
    domain = domain_of(genesis)
    assert network.genesis_hash == "0x" + domain.genesis_hash.hex()
    assert genesis.alloc == {bytes.fromhex(account[2:]): DEV_BALANCE_WEI for account in DEV_ACCOUNTS}
    assert genesis.anyone_creates_elections
    for process in network:
        assert (data_dir / process.name / "genesis.json").read_bytes() == (data_dir / "genesis.json").read_bytes()
    for process in network.of_kind("validator"):
        config = load_config(data_dir / process.name / "node.toml")
        key = load_key(config.key)
        assert "0x" + key.address.hex() == process.address
        assert key.address in genesis.validators
        GuardFile(config.guard, domain, key.address)
        assert config.rpc.bind == f"127.0.0.1:{process.port}"
        assert config.p2p.bind == config.p2p.advertise == f"127.0.0.1:{process.p2p_port}"
        assert config.p2p.bootnodes == ["http://127.0.0.1:30300"]
        assert config.consensus.block_interval_min_ms == 150
    gateway = network.gateway
    assert gateway is not None
    client = load_key(data_dir / "client.key")
    assert genesis.gateways == tuple(sorted((bytes.fromhex(gateway.address[2:]), client.address)))


def test_secrets_are_closed_to_others(made: tuple[Path, Network]) -> None:
    data_dir, _ = made
    secret_files = [*data_dir.rglob("*.key"), *data_dir.rglob("master.secret")]
    assert len(secret_files) == 6
    for path in secret_files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(bytes.fromhex(path.read_text().strip().removeprefix("0x"))) == 32


def test_the_other_configuration_files_say_what_the_network_is(made: tuple[Path, Network]) -> None:
    data_dir, network = made
    gateway = tomllib.loads((data_dir / "gateway" / "gateway.toml").read_text())
    assert gateway["bind"] == "127.0.0.1:8000"
    assert gateway["elections"] == {"auto_create": True}
    assert [validator["rpc_url"] for validator in gateway["validators"]] == [
        "http://127.0.0.1:8001",
        "http://127.0.0.1:8002",
        "http://127.0.0.1:8003",
    ]
    client = tomllib.loads((data_dir / "client.toml").read_text())
    assert client["genesis_hash"] == network.genesis_hash
    assert client["gateway_url"] == "http://127.0.0.1:8000"


def test_outside_development_nobody_is_funded_and_nothing_is_created_on_demand(tmp_path: Path) -> None:
    network = create(tmp_path, blank(dev=False))
    genesis = parse_genesis(json.loads((tmp_path / "genesis.json").read_text()))
    assert not genesis.alloc
    assert not genesis.anyone_creates_elections
    gateway = network.gateway
    assert gateway is not None
    assert "auto_create = false" in render(network, gateway)


def test_containers_reach_each_other_by_name(tmp_path: Path) -> None:
    network = create(tmp_path, blank(containers=True))
    config = load_config(tmp_path / "validator-2" / "node.toml")
    assert config.p2p.bind == "0.0.0.0:30304"
    assert config.p2p.advertise == "validator-2:30304"
    assert config.p2p.bootnodes == ["http://bootnode:30300"]
    assert network.named("gateway").url == "http://gateway:8000"


def test_an_observer_is_let_in_and_signs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--data-dir", str(tmp_path / "d"), "--observer"]) == 0
    network = load(tmp_path / "d")
    assert network is not None
    (observer,) = network.of_kind("observer")
    config = load_config(tmp_path / "d" / "observer" / "node.toml")
    assert not config.sign
    assert not config.guard.exists()
    assert (config.rpc.bind, config.p2p.bind) == ("127.0.0.1:8004", "127.0.0.1:30306")
    assert "0x" + load_key(config.key).address.hex() == observer.address
    genesis = parse_genesis(json.loads(config.genesis.read_text()))
    assert bytes.fromhex(observer.address[2:]) not in genesis.validators
    for validator in network.of_kind("validator"):
        config = load_config(tmp_path / "d" / validator.name / "node.toml")
        assert config.p2p.observers == [observer.address]


def test_a_containers_secrets_are_outside_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSEPHOS_GATEWAY_ALLOW_ANONYMOUS", "true")
    network = create(tmp_path, blank(containers=True))
    for name in ("gateway.key", "master.secret"):
        assert [path.parent.name for path in tmp_path.rglob(name)] == ["gateway-secrets"]
    gateway = load_gateway(tmp_path / "gateway" / "gateway.toml")
    key = load_key(gateway.key)
    assert "0x" + key.address.hex() == network.named("gateway").address
    assert gateway.master_secret.is_file()
    client = tomllib.loads((tmp_path / "client.toml").read_text())
    assert (tmp_path / client["master_secret"]).samefile(gateway.master_secret)
    assert parse(dump(network), tmp_path) == network


def test_a_closed_network_lists_who_may_send(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    someone = "0x" + "5a" * 20
    assert main(["init", "--data-dir", str(tmp_path / "a"), "--closed", "--account", someone]) == 0
    assert main(["init", "--data-dir", str(tmp_path / "b"), "--closed"]) == 0
    assert main(["init", "--data-dir", str(tmp_path / "c")]) == 0
    documents = [json.loads((tmp_path / name / "genesis.json").read_bytes()) for name in "abc"]
    lists = [parse_genesis(document).accounts for document in documents]
    assert lists == [(bytes.fromhex(someone[2:]),), (), None]
    assert main(["init", "--data-dir", str(tmp_path / "d"), "--account", someone]) != 0
    assert main(["init", "--data-dir", str(tmp_path / "d"), "--closed", "--account", "0x5a"]) != 0
    assert "expected an address" in capsys.readouterr().err


def test_an_interrupted_creation_is_done_again(tmp_path: Path) -> None:
    first = create(tmp_path, blank())
    (tmp_path / FILE).rename(tmp_path / f"{FILE}.new")  # as if killed before the last step
    assert load(tmp_path) is None
    second = create(tmp_path, blank())
    assert load(tmp_path) == second
    assert second.genesis_hash != first.genesis_hash


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    address = new_keys(tmp_path, "gateway")
    secret = (tmp_path / "master.secret").read_text()
    with pytest.raises(ClusterError, match="exists already"):
        new_keys(tmp_path, "gateway")
    assert "0x" + load_key(tmp_path / "gateway.key").address.hex() == address
    (tmp_path / "gateway.key").unlink()
    new_keys(tmp_path, "gateway")
    assert (tmp_path / "master.secret").read_text() == secret


def test_ports_move_and_keys_stay(made: tuple[Path, Network]) -> None:
    data_dir, network = made
    moved = replace(network.with_ports(Ports(9000, 9001, 9101, 9100)), block_interval_ms=20)
    key = (data_dir / "validator-1" / "node.key").read_text()
    reconfigure(data_dir, network, moved)
    assert load(data_dir) == moved
    assert load_config(data_dir / "validator-1" / "node.toml").rpc.bind == "127.0.0.1:9001"
    assert (data_dir / "validator-1" / "node.key").read_text() == key


def test_a_file_that_was_edited_is_not_overwritten(made: tuple[Path, Network]) -> None:
    data_dir, network = made
    path = data_dir / "validator-3" / "node.toml"
    path.write_text(path.read_text() + "# mine\n")
    with pytest.raises(ClusterError, match=r"node\.toml was edited"):
        reconfigure(data_dir, network, network.with_ports(Ports(rpc=9001)))
    assert load(data_dir) == network


def test_init_refuses_a_network_and_if_missing_accepts_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["init", "--validators", "1", "--data-dir", str(tmp_path / "d")]
    assert main(arguments) == 0
    before = (tmp_path / "d" / FILE).read_text()
    assert main(arguments) == 1
    assert "holds a network already" in capsys.readouterr().err
    assert main([*arguments, "--if-missing"]) == 0
    assert (tmp_path / "d" / FILE).read_text() == before


def test_keys_new_and_genesis_never_move_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    addresses = []
    for host, kind in (("alpha", "validator"), ("beta", "validator"), ("gamma", "gateway")):
        assert main(["keys", "new", "--folder", str(tmp_path / host), "--kind", kind]) == 0
        addresses.append(capsys.readouterr().out.strip())
    arguments = ["genesis", "--data-dir", str(tmp_path / "out"), "--bootnode", "boot.example"]
    arguments += ["--validator", f"{addresses[0]}@alpha.example", "--validator", f"{addresses[1]}@beta.example:4000"]
    arguments += ["--gateway", f"{addresses[2]}@gamma.example", "--chain-id", "99"]
    assert main(arguments) == 0
    assert not list((tmp_path / "out").rglob("*.key"))
    assert not list((tmp_path / "out").rglob("master.secret"))
    os.replace(tmp_path / "beta" / "node.key", tmp_path / "out" / "validator-2" / "node.key")
    config = load_config(tmp_path / "out" / "validator-2" / "node.toml")
    assert "0x" + load_key(config.key).address.hex() == addresses[1]
    assert config.p2p.advertise == "beta.example:4000"
    assert config.p2p.bootnodes == ["http://boot.example:30300"]
    assert config.metrics.bind == "127.0.0.1:9700"
    genesis = parse_genesis(json.loads(config.genesis.read_text()))
    assert genesis.chain_id == 99
    assert genesis.validators == tuple(sorted(bytes.fromhex(address[2:]) for address in addresses[:2]))


def test_processes_that_share_a_host_share_no_port(tmp_path: Path) -> None:
    arguments = ["genesis", "--data-dir", str(tmp_path / "out"), "--bootnode", "alpha.example"]
    assert main([*arguments, "--validator", f"0x{'11' * 20}@alpha.example"]) == 0
    binds = [
        tomllib.loads((tmp_path / "out" / file).read_text())["metrics"]["bind"]
        for file in ("bootnode/bootnode.toml", "validator-1/node.toml")
    ]
    assert binds == ["127.0.0.1:9700", "127.0.0.1:9701"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--validator", "0x12@host"], "expected ADDRESS@HOST"),
        (["--validator", "0x" + "1" * 40], "expected ADDRESS@HOST"),
        (["--validator", "0x" + "1" * 40 + "@ho st"], "host name"),
        (["--validator", "0x" + "1" * 40 + "@a", "--validator", "0x" + "1" * 40 + "@b"], "given twice"),
        (["--validator", "0x" + "1" * 40 + "@a", "--chain-id", "0"], "--chain-id 0"),
    ],
)
def test_genesis_names_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["genesis", "--data-dir", str(tmp_path / "out"), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_one_network_cannot_become(made: tuple[Path, Network], capsys: pytest.CaptureFixture[str]) -> None:
    data_dir, network = made
    for option, value, message in (("--validators", "4", "3 validators, not 4"), ("--chain-id", "5", "chain 7770")):
        assert main(["up", "--data-dir", str(data_dir), option, value]) == 1
        assert message in capsys.readouterr().err
    assert (data_dir / FILE).read_text() == dump(network)
