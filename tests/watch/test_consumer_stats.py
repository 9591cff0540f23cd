"""`watch --stats-url`: a running consumer's own figures and rules in the header."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import pytest

from infertool.errors import UsageError
from infertool.net.http_server import HttpServer, Response
from infertool.text.input import parse_stats_url
from infertool.watch.consumer_stats import ConsumerView, StatsFollower, consumer_lines
from infertool.watch.formatting import ASCII, UNICODE
from tests.app.conftest import embedded_bus, session_hub
from tests.app.endpoint import url_of
from tests.bus.conftest import Bus
from tests.support.ports import free_port
from tests.support.running import infertool

__all__ = ["embedded_bus", "session_hub"]
LONG = 120
DOCUMENT: dict[str, Any] = {
    "connections": {"broker": {"up": True, "state": "connected"}, "phoenix": {"up": True, "state": "connected"}},
    "progress": {"idle_s": 0.1, "stuck": False},
    "rate": {"settled": 43.2},
    "latency": {"event": {"p99_ms": 3185.0}},
    "window": {"in_progress": 20, "limit": 200, "paused": False},
    "queue": {"depth": 53, "oldest_s": 6.2, "drain_s": 1.2},
    "process": {"cpu": 0.07, "memory_bytes": 75_000_000},
    "alerts": [],
}


HEAD, TAIL = "● consumer  settled 43/s  p99 3185 ms  window 20/200", "cpu 0.07  memory 71.5 MiB"


def shown(view: ConsumerView, *, ascii_only: bool = False) -> list[str]:
    lines = consumer_lines(view, ASCII if ascii_only else UNICODE)
    return ["".join(text for text, _ in line).strip() for line in lines]


def changed(**parts: Any) -> ConsumerView:
    return ConsumerView({**DOCUMENT, **parts})


def rules(*states: str) -> list[dict[str, str]]:
    return [{"rule": f"Rule{number}", "state": state} for number, state in enumerate(states)]


@pytest.mark.parametrize(
    ("view", "first", "second"),
    [
        (changed(), f"{HEAD}  waiting 53  oldest 6s  empty in 1s  {TAIL}", "rules     none are evaluated"),
        (changed(queue={"depth": 0, "oldest_s": None, "drain_s": 0.0}), f"{HEAD}  waiting 0  {TAIL}", "rules"),
        (changed(alerts=rules("inactive", "resolved")), "● consumer  settled", "rules     2 rules, none fires"),
        (changed(alerts=rules("firing", "inactive", "firing", "pending", "nodata")), "● consumer  settled",
         "rules     ▲ firing: Rule0, Rule2  ▲ pending: Rule3  ▲ nodata: Rule4"),
        (changed(connections={"broker": {"up": False, "state": "lost"}, "phoenix": {"up": None}}),
         "○ consumer  broker lost  settled", "rules"),
        (changed(progress={"stuck": True, "idle_s": 400.0}), "○ consumer  stuck 6m", "rules"),
        (changed(window={"in_progress": 1, "limit": 2, "paused": True}), "● consumer", "rules"),
        (ConsumerView(), "○ consumer waiting for its figures", ""),
        (ConsumerView(fault="http://h has ended"), "○ consumer http://h has ended", ""),
        (ConsumerView(DOCUMENT, "it has ended"), "○ consumer it has ended  settled 43/s", "rules"),
        # Another server, or a newer one.
        (ConsumerView({"rate": 7, "queue": [], "alerts": "x", "window": {"limit": "x"}}), "● consumer", "rules"),
        (ConsumerView({"x": "\x1b[31m"}), "● consumer", "rules"),
    ],
)  # fmt: skip
def test_its_lines(view: ConsumerView, first: str, second: str) -> None:
    lines = shown(view)
    assert [lines[0].startswith(first), lines[1].startswith(second)] == [True, True], lines
    assert all(line.isascii() for line in shown(view, ascii_only=True))


def test_hostile_texts_are_cleaned() -> None:
    view = changed(
        alerts=[{"rule": "x\x1b[31m\ny", "state": "firing"}], connections={"broker": {"up": False, "state": "\x1b"}}
    )
    assert not {"\x1b", "\n"} & set("".join(shown(view)))


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://localhost:9464", "http://localhost:9464"),
        ("localhost:9464", "http://localhost:9464"),
        ("https://h:1/", "https://h:1"),
        ("http://h:1/stats", "http://h:1"),
        ("http://[::1]:9464", "http://[::1]:9464"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert parse_stats_url(text) == url


@pytest.mark.parametrize("text", ["ftp://h:1", "http://", "http://h:x", "http://h:99999", "http://[::1:9"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="is no address of a consumer; write http://HOST:PORT"):
        parse_stats_url(text)


class Views(list[ConsumerView]):
    """The views that a follower gave."""

    def wait_for(self, text: str) -> ConsumerView:
        deadline = time.monotonic() + LONG
        while True:
            found = [view for view in list(self) if text in view.fault or text in json.dumps(view.document)]
            if found:
                return found[-1]
            assert time.monotonic() < deadline, list(self)
            time.sleep(0.02)


@contextmanager
def following(url: str) -> Iterator[Views]:
    views = Views()
    follower = StatsFollower(url, views.append)
    follower.start()
    yield views
    follower.stop()


def serve(port: int, *pieces: bytes, status: HTTPStatus = HTTPStatus.OK) -> HttpServer:
    server = HttpServer("127.0.0.1", port, {"/stats/stream": lambda _: Response(iter(pieces), status=status)}, name="t")
    server.start()
    return server


def event(**document: Any) -> bytes:
    return b"event: stats\ndata: " + json.dumps(document).encode() + b"\n\n"


def test_it_follows_and_connects_again() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with following(url) as views:
        views.wait_for("cannot be reached")
        server = serve(port, event(n="first"), b"garbage\ndata: {no json\n\n", event(n="second"))
        views.wait_for("second")
        assert views.wait_for("has ended").document == {"n": "second"}
        server.close()
        server = serve(port, event(n="third"))
        views.wait_for("third")
        server.close()


def test_another_server_is_told() -> None:
    server = serve(0, b"no", status=HTTPStatus.NOT_FOUND)
    with following(f"http://127.0.0.1:{server.port}") as views:
        views.wait_for("answers 404: it is no consumer with --metrics")
    server.close()


def test_once_shows_a_running_consumer(embedded_bus: Bus) -> None:
    consumer = embedded_bus.consume("--metrics", "0")
    url = url_of(consumer)
    consumer.wait_for("broker connected")

    def watched(*options: str) -> Iterator[str]:
        """Watch for ever longer: a slow machine may need more than seconds to get the figures."""
        known = ("watch", "--phoenix", embedded_bus.hub.url, "--once", "--stats-url", url, *options)
        for seconds in (4, 15, 60, LONG):
            yield infertool(*known, "--for", f"{seconds}s").stdout

    assert any("● consumer  settled 0/s" in text for text in watched())
    name = embedded_bus.queue.removeprefix("/queue/")
    assert any(
        (document.get("consumer") or {}).get("queue", {}).get("name") == name
        for document in map(json.loads, watched("-o", "json"))
    )
    consumer.terminate()
    consumer.finish()


@pytest.mark.parametrize("options", [("--from", "x"), ("--bus", "a", "--bus", "b")])
def test_it_follows_one_running_consumer(options: tuple[str, ...]) -> None:
    done = infertool("watch", "--once", "--stats-url", "localhost:1", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--stats-url follows one running consumer" in done.stderr
