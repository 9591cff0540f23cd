"""Gateways side by side: each request has one owner, and any gateway leads to it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.gateway.test_http_command import MODEL, ready
from tests.support.embedded import EmbeddedBroker
from tests.support.ports import free_port
from tests.support.running import LONG, PATIENT_GATEWAY, Running

pytestmark = pytest.mark.long
COUNT = 120


class Pair:
    """Two gateways that know each other, and a consumer, on one broker."""

    def __init__(self, folder: Path, broker: EmbeddedBroker) -> None:
        self._folder = folder
        self._broker = broker.url
        self._ports = {"a": free_port(), "b": free_port()}
        model = folder / "model.py"
        model.write_text(MODEL)
        self.consumer = Running(
            folder / "consumer", "consume", "--broker", broker.url, "--queue", "several", "--dlq", "several.dead",
            "--model", f"{model}:predict", "--reply", "--publish", "none", "--concurrency", "4",
        )  # fmt: skip
        self.gateways = {name: self.start(name) for name in self._ports}

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._ports[name]}"

    def start(self, name: str) -> Running:
        [peer] = set(self._ports) - {name}
        running = Running(
            self._folder / name, "gateway", "--listen", str(self._ports[name]), "--broker", self._broker,
            "--queue", "several", "--state-dir", str(self._folder / f"state-{name}"), "-o", "json",
            INFERTOOL_GATEWAY__NAME=name, INFERTOOL_GATEWAY__PEERS=json.dumps({peer: f"{self.url(peer)}/"}),
            INFERTOOL_GATEWAY__RATE=f"{2 * COUNT}/h", INFERTOOL_GATEWAY__KEEP_S="3600", **PATIENT_GATEWAY,
        )  # fmt: skip
        ready(running)
        return running

    def close(self) -> None:
        for each in (self.consumer, *self.gateways.values()):
            each.kill()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    broker = EmbeddedBroker().start()
    made = Pair(tmp_path_factory.mktemp("several"), broker)
    yield made
    made.close()
    broker.stop()


def asked(url: str, number: int, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{url}/v1/infer", json={"n": number}, headers=named, timeout=LONG)


def test_a_request_is_asked_for_at_another_gateway_than_the_one_that_took_it(pair: Pair) -> None:
    answer = asked(pair.url("a"), 1)
    path = f"/v1/requests/{answer.json()['event_id']}"
    for method, end in (("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "?verbose=1&x=%2F")):
        there = httpx.request(method, f"{pair.url('b')}{path}{end}", timeout=LONG)
        assert (there.status_code, there.headers["location"]) == (307, f"{pair.url('a')}{path}{end}")
    with httpx.Client(follow_redirects=True, timeout=LONG) as client:
        assert client.get(f"{pair.url('b')}{path}").json()["prediction"] == {"got": {"n": 1}}
        assert "event: result" in client.get(f"{pair.url('b')}{path}/events").text
        # Nobody's, and that of a gateway which is no peer.
        for other in (path[:-1] + "c", "/v1/requests/nothing"):
            assert client.get(f"{pair.url('b')}{other}").json()["reason"] == "unknown_request"


def test_both_take_load_while_one_dies_and_comes_back(pair: Pair) -> None:
    """Each accepted request ends with its own result, at its owner, whichever gateway is asked."""

    def accept(number: int) -> tuple[int, str]:
        name = "ab"[number % 2]
        while True:
            try:
                answer = asked(
                    pair.url(name), number, prefer="respond-async", idempotency_key=f"k{number}",
                    infertool_class=("interactive", "batch")[number % 3 > 1],
                )  # fmt: skip
            except httpx.TransportError:
                assert name == "a"
                time.sleep(0.1)
                continue
            assert answer.status_code in {200, 202}, answer.text
            assert answer.json()["event_id"].endswith(f"-{name}")
            return number, answer.json()["event_id"]

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(accept, number) for number in range(COUNT)]
        running[COUNT // 2].result()
        pair.gateways["a"].kill()
        pair.gateways["a"] = pair.start("a")
        accepted = dict(each.result() for each in running)
    assert len(set(accepted.values())) == COUNT
    with httpx.Client(follow_redirects=True, timeout=LONG) as client:
        for number, event_id in accepted.items():
            other = pair.url("ba"[number % 2])
            while (found := client.get(f"{other}/v1/requests/{event_id}")).status_code == 202:
                time.sleep(0.1)
            assert found.json()["prediction"] == {"got": {"n": number}}


def test_limits_and_idempotency_keys_are_those_of_each_gateway(pair: Pair) -> None:
    ids = {asked(pair.url(name), 5, idempotency_key="both").json()["event_id"] for name in "abab"}
    assert len(ids) == 2
    left = [int(asked(pair.url(name), 6).headers["x-ratelimit-remaining"]) for name in "aba"]
    assert left[2] == left[0] - 1
