"""What people are told about settings is what the programs read."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from bootnode.config import BootnodeConfig
from bootnode.config import load_config as load_bootnode
from cluster.cli import build_parser
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


def commands(text: str) -> Iterator[list[str]]:
    """The words behind each `psephos` in fences and code spans, up to a comment or the command's end."""
    fences = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(fences).replace("\\\n", " ").splitlines()
    prose = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", prose)]
    for line in (*lines, *spans):
        command = re.sub(r"\s#.*|[&|;)].*|\s\d?>.*", "", line)
        found = re.search(r"(?:^|\s)(?:\S*/bin/)?psephos\s+(\S.*)", command)
        if found and not re.search(r"\b(git|psephos environment)\b", command):
            yield found[1].replace("[", "").replace("]", "").split()


def test_every_command_of_the_documents_exists() -> None:
    """Each verb, each of its actions, and each option; what is left out or stands for something is the reader's."""
    checked = 0
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for words in commands(document.read_text()):
            parser, told = build_parser(), f"{document.name}: psephos {' '.join(words)}"
            for word in words:
                nested = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
                if word.startswith("--"):
                    assert word.partition("=")[0] in parser._option_string_actions, told
                elif nested and word != "…":
                    assert word in nested[0].choices, told
                    parser = nested[0].choices[word]
            checked += 1
    assert checked > 50


def test_links_between_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for document in (path for path in documents if "node_modules" not in path.parts):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
