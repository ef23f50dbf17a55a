"""The health check finds the process of its folder by itself, and says yes to a living one alone."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cluster.healthcheck import BINDS, Unhealthy, endpoint, find_config, main


class Answers(BaseHTTPRequestHandler):
    """200 to /health of a living process; the server's `status` otherwise."""

    def do_GET(self) -> None:
        self.send_response(getattr(self.server, "status", 200) if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: what pytest shows of a failure is enough."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    one = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield one
    one.shutdown()
    thread.join()
    one.server_close()


def bind_of(name: str, port: int, host: str = "0.0.0.0") -> str:
    line = f'bind = "{host}:{port}"\n'
    return f"[p2p]\nbind = '127.0.0.1:1'\n[rpc]\n{line}" if name == "node.toml" else line


@pytest.mark.parametrize("name", sorted(BINDS))
def test_it_finds_its_process(
    tmp_path: Path, name: str, server: HTTPServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / name).write_text(bind_of(name, server.server_port))
    for place in (tmp_path, folder):
        monkeypatch.chdir(place)
        assert main([]) == 0
    server.status = 503  # type: ignore[attr-defined]
    assert main([]) == 1
    assert "answers /health with 503" in capsys.readouterr().err
    monkeypatch.setenv(BINDS[name][1], "127.0.0.1:9")
    assert main([str(folder / name)]) == 1
    assert "127.0.0.1:9 does not answer" in capsys.readouterr().err


def test_where_to_ask(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    for text, expected in (
        ("", ("127.0.0.1", 8001)),
        ("[rpc]\nbind = '[::]:7'\n", ("::1", 7)),
        ("[rpc]\nbind = '10.1.2.3:8'\n", ("10.1.2.3", 8)),
    ):
        config.write_text(text)
        assert endpoint(config, {}) == expected


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(Unhealthy, match="holds 0 configuration files"):
        find_config(tmp_path)
    for name in ("node.toml", "gateway.toml"):
        (tmp_path / name).write_text("bind = 'nowhere'\n")
    with pytest.raises(Unhealthy, match="holds 2 configuration files"):
        find_config(tmp_path)
    with pytest.raises(Unhealthy, match="'nowhere' is not HOST:PORT"):
        endpoint(tmp_path / "gateway.toml", {})
    with pytest.raises(Unhealthy, match="is none of"):
        endpoint(tmp_path / "other.toml", {})
