"""The gateway behind nginx: whose address counts, and streams that arrive as they are sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.gateway.test_access import LONG, Gateway
from tests.support.embedded import EmbeddedBroker
from tests.support.nginx import Nginx
from tests.support.responder import Responder

pytestmark = pytest.mark.nginx
DOCUMENT = Path(__file__).parents[2] / "docs" / "gateway-access.md"
LOCATION = """
proxy_pass http://127.0.0.1:8080;
proxy_http_version 1.1;
proxy_set_header Connection "";
proxy_set_header Host $host;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_request_buffering off;
proxy_buffering off;
proxy_read_timeout 75s;
client_max_body_size 16m;
"""


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    found = EmbeddedBroker().start()
    try:
        yield found.url
    finally:
        found.stop()


def in_front_of(gateway: Gateway, folder: Path) -> Nginx:
    location = LOCATION.replace("http://127.0.0.1:8080", gateway.url)
    return Nginx(folder / "nginx", location.replace("\n", "\n            "))


def client_at(address: str, proxy: Nginx) -> httpx.Client:
    """Return a client that connects to nginx from an address of the loopback network."""
    return httpx.Client(base_url=proxy.url, transport=httpx.HTTPTransport(local_address=address), timeout=LONG)


def test_the_document_shows_what_is_tested() -> None:
    text = DOCUMENT.read_text()
    assert not [line for line in LOCATION.strip().splitlines() if line not in text]


def test_each_client_behind_nginx_has_its_own_limits_whatever_it_writes(broker: str, tmp_path: Path) -> None:
    with (
        Responder(broker, "nginx.in"),
        Gateway(tmp_path, broker, "nginx.in", rate="2/h", trusted_proxies='["127.0.0.1"]') as gateway,
        in_front_of(gateway, tmp_path) as proxy,
        client_at("127.0.0.2", proxy) as one,
        client_at("127.0.0.3", proxy) as other,
    ):
        forged = [{}, {"X-Forwarded-For": "198.51.100.1"}, {"X-Forwarded-For": "198.51.100.2, 127.0.0.1"}]
        said = [one.post("/v1/infer", json=1, headers=each) for each in forged]
        assert [each.status_code for each in said] == [200, 200, 429]
        assert said[2].json()["reason"] == "rate_limited"
        assert int(said[2].headers["Retry-After"]) > 1000
        assert other.post("/v1/infer", json=1, headers={"X-Forwarded-For": "127.0.0.2"}).status_code == 200


def test_a_stream_through_nginx_arrives_as_it_is_sent(broker: str, tmp_path: Path) -> None:
    with (
        Gateway(tmp_path, broker, "nginx.later") as gateway,
        in_front_of(gateway, tmp_path) as proxy,
        client_at("127.0.0.2", proxy) as client,
        client.stream("POST", "/v1/infer", json={"a": 1}, headers={"Accept": "text/event-stream"}) as answer,
    ):
        assert answer.status_code == 200
        lines = answer.iter_lines()
        # Nobody serves the queue yet, so this is not the end of a whole answer.
        first = next(line for line in lines if line.startswith("event:"))
        assert first in {"event: queued", "event: started"}
        with Responder(broker, "nginx.later"):
            assert (
                next(line for line in lines if line.startswith(("event: result", "event: failed"))) == "event: result"
            )
