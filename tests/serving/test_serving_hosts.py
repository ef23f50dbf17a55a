"""Names in Host headers: addresses and listed names are answered; strangers' are not, however often they ask."""

import pytest

from serving.hosts import KNOWN_MAX, Hosts, host_of, parse_host

OURS = (None, "", "localhost:1", "127.0.0.1", "10.0.0.7:8001", "[fe80::1]:80", "validator-1:8001")
STRANGE = (
    "evil.example",
    "localhost.evil.example",
    "validator-1.evil.example",
    "127.0.0.1.nip.io",
    "[evil]",
    "[e.vil]:1",
)
PLAIN = ("gateway", "Blockchain-Service:8003", "my_app:80", "gateway.")


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8001", "localhost"),
        ("Node.Example.:80", "node.example"),
        ("127.0.0.1:8001", "127.0.0.1"),
        ("[::1]:8001", "::1"),
        ("[::1]", "::1"),
        ("", ""),
    ],
)
def test_the_name_in_a_host_header(header: str, host: str) -> None:
    assert host_of(header) == host


@pytest.mark.parametrize("plain", [False, True])
def test_addresses_and_listed_names_are_answered_and_no_others(plain: bool) -> None:
    hosts = Hosts(["Validator-1"], plain=plain)
    for _ in range(2):  # what was answered is remembered, what was refused is refused again
        assert all(hosts.allow(header) for header in OURS)
        assert not any(hosts.allow(header) for header in STRANGE)
        assert [hosts.allow(header) for header in PLAIN] == [plain] * len(PLAIN)
    anybody = Hosts(["*"])
    assert all(anybody.allow(header) for header in (*OURS, *STRANGE, *PLAIN))


def test_many_headers_are_answered_alike_and_few_are_remembered() -> None:
    hosts = Hosts(["a.example"])
    for _ in range(2):
        assert all(hosts.allow(f"10.0.0.1:{port}") for port in range(1, 10 * KNOWN_MAX))
        assert hosts.allow("a.example:1")
        assert not hosts.allow("b.example:1")
    assert len(hosts._known) == KNOWN_MAX


def test_a_listed_host_is_a_name_without_a_port() -> None:
    assert [parse_host(text) for text in ("node.example.", "*", "a_b")] == ["node.example", "*", "a_b"]
    for text in ("node.example:80", "http://node", "", "a b", "*.example"):
        with pytest.raises(ValueError, match="a host name without a port"):
            parse_host(text)
