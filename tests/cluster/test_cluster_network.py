"""cluster.json: what is written is read back, ports never overlap unnoticed, strange folders are left alone."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.network import (
    FILE,
    ClusterError,
    Network,
    Ports,
    dump,
    load,
    local_network,
    parse,
    require,
)

ports = st.integers(-5, 70_000)


def three(**changes: int) -> Network:
    return local_network(3, Ports(**changes), chain_id=7770, dev=True, block_interval_ms=100)


@given(st.integers(1, 7), st.integers(1, 2**62), st.booleans(), st.integers(1, 10_000), st.booleans())
def test_round_trip(validators: int, chain_id: int, dev: bool, interval_ms: int, containers: bool) -> None:
    network = local_network(
        validators, Ports(), chain_id=chain_id, dev=dev, block_interval_ms=interval_ms, containers=containers
    )
    network = replace(network, genesis_hash="0x" + "ab" * 32)
    assert parse(dump(network), Path("cluster.json")) == network


def test_the_ports_that_the_documents_promise() -> None:
    found = {process.name: process.ports for process in three()}
    assert found == {
        "bootnode": (30300,),
        "validator-1": (8001, 30303),
        "validator-2": (8002, 30304),
        "validator-3": (8003, 30305),
        "gateway": (8000,),
    }
    assert {process.bind for process in three()} == {"127.0.0.1"}


@given(st.integers(1, 7), ports, ports, ports, ports)
def test_overlapping_or_impossible_ports_are_refused(count: int, gateway: int, rpc: int, p2p: int, boot: int) -> None:
    chosen = Ports(gateway, rpc, p2p, boot)
    used = [gateway, boot, *range(rpc, rpc + count), *range(p2p, p2p + count)]
    fine = len(set(used)) == len(used) and min(used) >= 1 and max(used) <= 65_535
    if fine:
        chosen.check(count)
        network = local_network(count, chosen, chain_id=1, dev=False, block_interval_ms=1)
        assert sorted(port for process in network for port in process.ports) == sorted(used)
        assert network.ports == chosen
    else:
        with pytest.raises(ClusterError):
            chosen.check(count)


def test_hosts_apart_may_use_one_port_twice() -> None:
    chosen = Ports(gateway=8003)
    with pytest.raises(ClusterError, match="port 8003 belongs to both"):
        chosen.check(3)
    chosen.check(3, hosts_apart=True)
    with pytest.raises(ClusterError, match="port 9000 belongs to both"):
        Ports(rpc=9000, p2p=9000).check(3, hosts_apart=True)


@pytest.mark.parametrize("validators", [0, 8, -1])
def test_one_to_seven_validators(validators: int) -> None:
    with pytest.raises(ClusterError, match="from 1 to 7"):
        local_network(validators, Ports(), chain_id=1, dev=False, block_interval_ms=1)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ClusterError, match=r"bootnode, validator-1, validator-2, validator-3, gateway"):
        three().named("validator-4")


def test_nothing_there_yet(tmp_path: Path) -> None:
    assert load(tmp_path / "absent") is None
    assert load(tmp_path) is None
    (tmp_path / "validator-1").mkdir()  # a volume's empty mount point
    assert load(tmp_path) is None
    with pytest.raises(ClusterError, match="psephos up"):
        require(tmp_path)


def test_a_foreign_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"")
    with pytest.raises(ClusterError, match=r"photos/cat\.png.*another --data-dir"):
        load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ClusterError, match="not a folder"):
        load(tmp_path / "file")


def test_an_init_that_was_killed_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / f"{FILE}.new").write_text(dump(three()))
    (tmp_path / "validator-1").mkdir()
    (tmp_path / "validator-1" / "node.key").write_text("half")
    assert load(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "chainId": "x"}'])
def test_a_damaged_file_is_no_foreign_folder(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ClusterError, match="is damaged"):
        load(tmp_path)


def test_another_format_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(dump(three()).replace('"format": 1', '"format": 9'))
    with pytest.raises(ClusterError, match="format 9"):
        load(tmp_path)
