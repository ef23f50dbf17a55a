"""Web pages in a browser beside a gateway that asks for no keys: they can neither post nor read under a turned name."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gateway.api import documented
from gateway.config import ApiKeyConfig, load_config
from gateway.server import OPERATIONS
from serving.settings import ConfigError
from tests.gateway.gateway_network import Caller, Network, judge
from tests.gateway.test_gateway_access import key_for

VOTE = {"voter_id": "ann", "election_id": 1, "choice": 0}
POSTS = [one.path for one in (*OPERATIONS, *documented.OPERATIONS) if one.method == "POST"]
BODILESS = [one.path for one in OPERATIONS if one.method == "POST" and one.body is None]
FORMS = [
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "TEXT/PLAIN;a=b",
    "json",
    "",
]
OURS = ["application/json", "application/json; charset=utf-8", "Application/JSON"]


@pytest.fixture
async def api(network: Network) -> AsyncIterator[Caller]:
    async with network.gateway(hosts=("gateway.example",)) as (_, caller):
        yield caller


def there(path: str) -> str:
    for name in ("election_id", "batch_id", "anchor_id"):
        path = path.replace(f"{{{name}}}", "1")
    return path


async def send(api: Caller, method: str, path: str, content: bytes | None, **headers: str) -> httpx.Response:
    """A request with these headers and no others that matter; its answer is held to the documentation."""
    shown = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await api._client.request(method, api.url + path, content=content, headers=shown)
    judge().check(answer)
    return answer


def code(answer: httpx.Response) -> tuple[int, Any]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize("path", POSTS)
async def test_what_a_form_can_send_is_not_taken(api: Caller, path: str) -> None:
    body = orjson.dumps(VOTE)
    for form in FORMS:
        for content in (body, b"", None):
            answer = await send(api, "POST", there(path), content, Content_Type=form)
            assert code(answer) == (415, "not-json-type"), (form, content)
    bare = await send(api, "POST", there(path), body)  # a script's Blob without a type comes so
    assert code(bare) == (415, "not-json-type")


async def chunks() -> AsyncIterator[bytes]:
    yield orjson.dumps(VOTE)


async def test_a_body_without_a_length_is_a_body(api: Caller) -> None:
    answer = await api._client.post(f"{api.url}/api/votes/submit", content=chunks())
    assert code(answer) == (415, "not-json-type")


async def test_no_vote_comes_of_a_form(api: Caller) -> None:
    for form in FORMS:
        await send(api, "POST", "/api/votes/submit", orjson.dumps(VOTE), Content_Type=form, Prefer="wait=20")
    other = await api.vote("ann", 1, wait=20)
    assert other.status_code == 200, "ann has not voted before"


@pytest.mark.parametrize("type_", OURS)
async def test_json_is_taken_however_it_is_written(api: Caller, type_: str) -> None:
    answer = await send(api, "POST", "/api/votes/submit", orjson.dumps(VOTE), Content_Type=type_, Prefer="wait=20")
    assert answer.status_code == 200, answer.text


async def test_what_needs_no_body_needs_no_type(api: Caller) -> None:
    assert sorted(BODILESS) == [
        "/api/admin/validators/refresh-status",
        "/api/elections/{election_id}/cancel",
        "/api/elections/{election_id}/close",
        "/v1/anchor/{anchor_id}/retry",
    ]
    for path in BODILESS:
        for more in ({}, {"Content_Type": "application/json"}):
            answer = await send(api, "POST", there(path), None, **more)
            assert answer.status_code not in (403, 415), (path, answer.text)


@pytest.mark.parametrize(
    "page",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "elsewhere"},
    ],
)
async def test_pages_of_other_origins_post_nothing(api: Caller, page: dict[str, str]) -> None:
    for path in POSTS:
        answer = await send(api, "POST", there(path), None, **page)
        assert code(answer) == (403, "foreign-page"), path
    reading = await send(api, "GET", "/health", None, **page)
    assert reading.status_code == 200, "reading does no harm: the page is not shown the answer"
    assert not [name for name in reading.headers if name.startswith("access-control")]


@pytest.mark.parametrize("site", ["same-origin", "none", None])
async def test_pages_of_its_own_origin_may_post(api: Caller, site: str | None) -> None:
    own = {"Origin": api.url, "Content-Type": "application/json"}
    if site is not None:  # so a browser speaks through a proxy that gives the request another Host
        own |= {"Sec-Fetch-Site": site, "Origin": "https://votes.example"}
    answer = await send(api, "POST", "/api/votes/submit", orjson.dumps(VOTE), Prefer="wait=20", **own)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "host", ["rebound.example:8000", "127.0.0.1.nip.io", "a.gateway.example", "localhost.evil.example"]
)
async def test_under_a_turned_name_nothing_is_answered(api: Caller, host: str) -> None:
    for path in (
        "/health",
        "/ready",
        "/docs",
        "/openapi.json",
        "/api/votes/results?election_id=1",
        "/log/anchors/head",
    ):
        answer = await send(api, "GET", path, None, Host=host)
        assert code(answer) == (403, "host-not-listed")
        assert "'hosts'" in answer.json()["detail"]
    posted = await send(api, "POST", "/api/votes/submit", orjson.dumps(VOTE), Host=host, Content_Type=OURS[0])
    assert code(posted) == (403, "host-not-listed")


@pytest.mark.parametrize(
    "host", ["gateway.example", "Gateway.Example.:80", "blockchain-service:8003", "localhost", "[::1]:1"]
)
async def test_known_names_and_addresses_are_answered(api: Caller, host: str) -> None:
    for path in ("/health", "/ready", "/docs", "/api/elections"):
        assert (await send(api, "GET", path, None, Host=host)).status_code == 200


async def test_who_has_a_key_is_no_page(network: Network) -> None:
    """A page cannot have the key, so that behind a proxy any name and any origin are as good as another."""
    key, entry = key_for("vote")
    async with network.gateway(api_keys=(ApiKeyConfig(**entry),)) as (_, api):
        proxied = {"Host": "votes.example", "Origin": "https://votes.example", "Sec-Fetch-Site": "cross-site"}
        body = orjson.dumps(VOTE)
        bare = await send(api, "POST", "/api/votes/submit", body, Content_Type=OURS[0], **proxied)
        assert code(bare) == (401, "no-api-key")
        with_key = proxied | {"Authorization": f"Bearer {key}", "Prefer": "wait=20"}
        assert code(await send(api, "POST", "/api/votes/submit", body, **with_key)) == (415, "not-json-type")
        answer = await send(api, "POST", "/api/votes/submit", body, Content_Type=OURS[0], **with_key)
        assert answer.status_code == 200, answer.text


def test_a_host_that_no_header_can_match_is_told(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('hosts = ["https://votes.example"]\n[[validators]]\nname = "v"\nrpc_url = "http://v:1"\n')
    with pytest.raises(ConfigError, match=r"hosts\.0.*a host name without a port"):
        load_config(path)
