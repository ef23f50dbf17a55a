"""What people are told about settings is what the programs read."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from bootnode.config import BootnodeConfig
from bootnode.config import load_config as load_bootnode
from cluster.creation import create
from cluster.network import Ports, local_network
from gateway.config import GatewayConfig
from gateway.config import load_config as load_gateway
from node.config import NodeConfig
from node.config import load_config as load_node

ROOT = Path(__file__).resolve().parents[2]


def variables(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """The environment variables that override a configuration's keys."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from variables(field.annotation, f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}"


@pytest.mark.parametrize(
    ("model", "prefix"),
    [(NodeConfig, "PSEPHOS_NODE_"), (BootnodeConfig, "PSEPHOS_BOOTNODE_"), (GatewayConfig, "PSEPHOS_GATEWAY_")],
)
def test_the_example_lists_every_variable_and_no_other(model: type[BaseModel], prefix: str) -> None:
    listed = re.findall(rf"^#({prefix}\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    listed = [name for name in listed if not re.fullmatch(r"PSEPHOS_(GATEWAY|BOOTNODE)_PORT", name)]  # compose's
    assert sorted(listed) == sorted(variables(model, prefix))


def test_every_program_reads_what_is_written_for_it(tmp_path: Path) -> None:
    network = create(tmp_path, local_network(3, Ports(), chain_id=7770, dev=True, block_interval_ms=100))
    assert load_bootnode(tmp_path / "bootnode" / "bootnode.toml").bind == "127.0.0.1:30300"
    assert load_node(tmp_path / "validator-3" / "node.toml").rpc.bind == "127.0.0.1:8003"
    gateway = load_gateway(tmp_path / "gateway" / "gateway.toml")
    assert gateway.bind == "127.0.0.1:8000"
    assert gateway.elections.auto_create
    assert [validator.name for validator in gateway.validators] == [p.name for p in network.of_kind("validator")]
    for path in (gateway.genesis, gateway.key, gateway.master_secret):
        assert path.is_file()


def test_links_between_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for document in (path for path in documents if "node_modules" not in path.parts):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
