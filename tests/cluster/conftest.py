"""Ports that nobody uses."""

import socket

import pytest


@pytest.fixture
def unused_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
