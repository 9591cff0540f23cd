"""The gateway's clients against `infertool gateway` itself, on the embedded broker with a real consumer."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.gateway.test_http_command import MODEL, ready
from tests.support.embedded import EmbeddedBroker
from tests.support.running import LONG, PATIENT_GATEWAY, Running, infertool
from tests.support.scripted_http import Asked, ScriptedHttp, Told, serving

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


class Bus:
    """A gateway that can be killed and started again, and a consumer, on one broker."""

    def __init__(self, folder: Path, broker: EmbeddedBroker, **environ: str) -> None:
        self._folder = folder
        self._environ = environ
        model = folder / "model.py"
        model.write_text(MODEL)
        self.state = folder / "state"
        self._options = [
            "gateway", "--listen", "0", "--broker", broker.url, "--queue", f"q.{folder.name}", "-o", "json",
            "--state-dir", str(self.state),
        ]  # fmt: skip
        self.consumer = Running(
            folder / "consumer", "consume", "--broker", broker.url, "--queue", f"q.{folder.name}", "--dlq", "gw.dead",
            "--model", f"{model}:predict", "--reply", "--publish", "none", "-o", "json", **environ,
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        self.gateway = Running(self._folder / "gateway", *self._options, **PATIENT_GATEWAY, **self._environ)
        self.url = ready(self.gateway)["url"]

    def kill(self) -> None:
        self.gateway.process.kill()
        self.gateway.process.wait()

    def close(self) -> None:
        for each in (self.consumer, self.gateway):
            each.terminate()
            each.finish()


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    running = EmbeddedBroker().start()
    yield running
    running.stop()


def wait_for(server: ScriptedHttp, count: int) -> None:
    import time

    deadline = time.monotonic() + LONG
    while len({each.headers["webhook-id"] for each in server.asked}) < count:
        assert time.monotonic() < deadline, server.asked
        time.sleep(0.02)


@pytest.mark.long
def test_webhooks_of_a_gateway_that_is_killed(broker: EmbeddedBroker, tmp_path: Path) -> None:
    """Each accepted request's end is told, also after kill -9; a URL that is not allowed is refused at once."""
    taking: list[bool] = []

    def answer(asked: Asked) -> Told:
        return Told(200 if taking else 503)

    with serving(answer) as receiver:
        hosts = json.dumps([f"127.0.0.1:{receiver.port}"])
        bus = Bus(
            tmp_path, broker, INFERTOOL_GATEWAY__WEBHOOK_HOSTS=hosts, INFERTOOL_GATEWAY__WEBHOOK_SECRET=SECRET
        )  # fmt: skip
        try:
            refused = httpx.post(
                f"{bus.url}/v1/infer", json={}, headers={"infertool-webhook": "https://169.254.169.254/"}, timeout=LONG
            )
            assert (refused.status_code, refused.json().get("reason")) == (400, "webhook_refused"), refused.text
            ids = [
                httpx.post(
                    f"{bus.url}/v1/infer",
                    json={"n": number, "fail": number == 3},
                    headers={"infertool-webhook": f"{receiver.url}/in", "prefer": "respond-async"},
                    timeout=LONG,
                ).json()["event_id"]
                for number in range(4)
            ]
            wait_for(receiver, 4)
            bus.kill()
            taking.append(True)
            shown = infertool("gateway", "webhooks", "--state-dir", str(bus.state), "-o", "json")
            assert {each["id"] for each in json.loads(shown.stdout)["webhooks"]} <= set(ids)
            bus.start()
            # The second attempt is due 5 s after the first.
            while True:
                shown = infertool("gateway", "webhooks", "--state", "all", "--state-dir", str(bus.state), "-o", "json")
                counts = json.loads(shown.stdout)["counts"]
                if counts["delivered"] == 4:
                    break
        finally:
            bus.close()
    told = {each.headers["webhook-id"]: json.loads(each.body) for each in receiver.asked}
    assert told.keys() == {f"msg_{each}" for each in ids}
    assert [told[f"msg_{each}"]["type"] for each in ids] == [*["inference.succeeded"] * 3, "inference.failed"]
    assert told[f"msg_{ids[1]}"]["data"]["prediction"] == {"got": {"n": 1, "fail": False}}
    assert told[f"msg_{ids[3]}"]["data"]["replay"] == f"infertool replay-dlq --id {ids[3]}"


@pytest.mark.long
def test_submit_over_kill_9_of_gateway_and_client(broker: EmbeddedBroker, tmp_path: Path) -> None:
    """Both die in the middle. Run again, each line has its result, and none was inferred twice by its gateway."""
    path = tmp_path / "events.jsonl"
    path.write_text("".join(f'{{"n": {number}, "sleep": 0.005}}\n' for number in range(400)))
    bus = Bus(tmp_path, broker)
    try:
        arguments = ["submit", str(path), "--follow", "--class", "batch", "--concurrency", "8"]
        first = Running(tmp_path / "first", *arguments, "--url", bus.url)
        assert first.process.stdout
        for _ in range(40):
            assert first.process.stdout.readline(), first.log.read_text()
        bus.kill()
        first.kill()
        first.process.stdout.close()
        bus.start()
        again = infertool(*arguments, "--url", bus.url)
        third = infertool(*arguments, "--url", bus.url)
    finally:
        bus.close()
    assert again.returncode == third.returncode == 0, again.stderr
    results = {each["line"]: each for each in map(json.loads, again.stdout.splitlines())}
    assert {line: each["prediction"]["got"]["n"] for line, each in results.items()} == {
        number + 1: number for number in range(400)
    }
    assert len({each["event_id"] for each in results.values()}) == 400
    # All that it tells the third time is from the store.
    assert {each["line"]: each["event_id"] for each in map(json.loads, third.stdout.splitlines())} == {
        line: each["event_id"] for line, each in results.items()
    }
    assert "400 of them the gateway had already" in third.stderr
    known = int(again.stderr.split(" of them the gateway had already")[0].rpartition("; ")[2].replace(",", ""))
    assert known >= 40


@pytest.mark.long
def test_loadgen_through_a_gateway_that_refuses(broker: EmbeddedBroker, tmp_path: Path) -> None:
    """Ten times the capacity: what is refused is told when to come back, and comes back then."""
    classes = {"interactive": {"weight": 8, "budget": "500ms", "priority": 8}}
    bus = Bus(
        tmp_path, broker, INFERTOOL_GATEWAY__CLASSES=json.dumps(classes),
        INFERTOOL_GATEWAY__DEFAULT_CLASS="interactive", INFERTOOL_GATEWAY__DISPATCH_AHEAD_S="0.4",
        INFERTOOL_CONSUME__CONCURRENCY="2",
    )  # fmt: skip
    event = tmp_path / "event.json"
    event.write_text('{"sleep": 0.05}')
    try:
        done = infertool(
            "loadgen", "--http", bus.url, "--qps", "200", "--duration", "5s", "--payload", str(event),
            "--obey-retry-after", "-o", "json", "--assert", "lost == 0 && timed_out == 0 && failures == 0",
        )  # fmt: skip
    finally:
        bus.close()
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["sent"] == report["results"] + report["shed"] + report["unavailable"]
    assert report["shed"] > 0
    assert report["statuses"].keys() <= {"200", "202", "429 over_budget", "503 draining"}
    assert report["retried"] > 0
    assert report["retry_served"] > 0
