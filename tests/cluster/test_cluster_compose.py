"""What docker-compose.yml and the Dockerfile promise, as far as it can be read; scripts/compose-check.sh runs them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from cluster.cli import main
from cluster.network import COMMANDS, CONFIG_FILES, load
from node.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "psephos"}
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_what_compose_asks_for_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PSEPHOS_PUBLISHED_GATEWAY", "8000")
    monkeypatch.setenv("PSEPHOS_PUBLISHED_RPC", "8001 8002")
    arguments = list(SERVICES["init"]["command"])
    arguments[arguments.index("/network")] = str(tmp_path)
    for _ in range(2):  # every `up` of compose runs it again
        assert main(arguments) == 0
        assert "http://127.0.0.1:8000  (page: /docs)" in capsys.readouterr().out
    network = load(tmp_path)
    assert network is not None
    assert {process.name for process in network} == set(OURS) - {"init"}
    for process in network:
        service = SERVICES[process.name]
        config = f"/network/{process.name}/{CONFIG_FILES[process.kind]}"
        assert service["command"] == [COMMANDS[process.kind], "--config", config]
        assert [text.rsplit(":", 1)[1] for text in service["ports"]] == [str(process.port)]
    assert network.named("gateway").port == 8003


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert 0 < service["pids_limit"] <= 256
    assert service["logging"]["options"]["max-size"]
    assert service["restart"] == ("no" if name == "init" else "unless-stopped")
    assert "privileged" not in service
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:"), f"{port} is open to other machines"


def test_each_volume_belongs_to_one_service() -> None:
    used: dict[str, list[str]] = {}
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            used.setdefault(volume.split(":")[0], []).append(name)
    named = {volume: names for volume, names in used.items() if not volume.startswith(".")}
    assert set(named) == set(COMPOSE["volumes"])
    for volume, names in named.items():
        assert len(set(names) - {"init"}) <= 1, f"{volume} is seen by {names}"
    assert SERVICES["gateway"]["volumes"][1].endswith("gateway-secrets:ro")


def test_the_image_is_of_this_version_and_runs_as_nobody() -> None:
    assert f'org.opencontainers.image.version="{VERSION}"' in DOCKERFILE
    assert "USER 10001:10001" in DOCKERFILE
    assert "--require-hashes" in DOCKERFILE
    assert "HEALTHCHECK" in DOCKERFILE
    assert DOCKERFILE.count("\nFROM python:3.11-slim") == 2


def test_the_image_holds_every_room_and_nothing_else() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench"}
    assert set(re.findall(r"^COPY (\w+) /app/", DOCKERFILE, re.MULTILINE)) == rooms
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == rooms | {"LICENSE", "pyproject.toml", "requirements.lock"}
    for name in {process for process in OURS if process != "init"} | {"gateway-secrets"}:
        assert re.search(rf"\b{name}\b", DOCKERFILE), f"/network/{name} is not made, so its volume would be root's"
