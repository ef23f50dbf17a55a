"""Bodies that are not what their headers say are their senders' fault: refused with a problem, and no failure here."""

import gzip
import zlib

import orjson
import pytest

from tests.gateway.gateway_network import Network

VOTE = orjson.dumps({"voter_id": "ann", "election_id": 1, "choice": 0})


async def test_compressed_bodies_are_read_and_broken_ones_refused(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    async with network.gateway() as (_, api):
        for path in ("/api/votes/submit", "/api/votes/batch", "/v1/anchor"):
            for form, content in (("gzip", b"abcd"), ("gzip", gzip.compress(VOTE)[:30]), ("deflate", b"\xff\xff")):
                headers = {"content-type": "application/json", "content-encoding": form}
                refused = await network.client.post(api.url + path, content=content, headers=headers)
                assert refused.headers["content-type"] == "application/problem+json"
                told = (refused.status_code, refused.json()["code"])
                assert told in ((400, "unreadable-body"), (400, "not-json")), (path, form, content)
        for form, content in (("gzip", gzip.compress(VOTE)), ("deflate", zlib.compress(VOTE))):
            headers = {"content-type": "application/json", "content-encoding": form}
            taken = await network.client.post(api.url + "/api/votes/submit", content=content, headers=headers)
            assert taken.status_code == 200, taken.text
    assert "a request failed" not in caplog.text
