"""A gateway on Kafka: classes and models by topics, waits, polls, streams, cancels, and what a restart takes up."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.gateway.test_http_command import MODEL, ready
from tests.support.kafka import Kafka
from tests.support.rawkafka import RawKafka
from tests.support.running import LONG, Running

pytestmark = [pytest.mark.kafka, pytest.mark.long]


class Scene:
    """A gateway with a topic for each of two models, and a consumer of both topics with weights."""

    def __init__(self, folder: Path, kafka: Kafka, topics: dict[str, str], replies: str) -> None:
        self._folder = folder
        self._replies = {"INFERTOOL_BROKER__REPLY_TOPIC": replies}
        # A group of its own: another worker kills consumers, whose group then waits for them.
        first = next(iter(topics.values()))
        self._url = kafka.topic_url(first, group=first)
        self._topics = topics
        self.model = folder / "model.py"
        self.model.write_text(MODEL)
        self.gateway, self.url = self.start_gateway()
        self.consumer = self.start_consumer()

    def start_gateway(self) -> tuple[Running, str]:
        gateway = Running(
            self._folder / "gateway", "gateway", "--listen", "0", "--broker", self._url, "--state-dir",
            str(self._folder / "state"), "-o", "json", **self._replies,
            INFERTOOL_GATEWAY__MODELS=json.dumps(self._topics),
        )  # fmt: skip
        return gateway, str(ready(gateway)["url"])

    def start_consumer(self) -> Running:
        queues = ",".join(f"{topic}={weight}" for topic, weight in zip(self._topics.values(), (8, 1), strict=True))
        consumer = Running(
            self._folder / "consumer", "consume", "--broker", self._url, "--queue", queues, "--model",
            f"{self.model}:predict", "--reply", "--publish", "none",
            INFERTOOL_CONSUME__STATE_DIR=str(self._folder / "consumer-state"),
        )  # fmt: skip
        consumer.wait_for("broker connected")
        return consumer

    def ask(self, payload: dict[str, object], model: str = "urgent", **headers: str) -> httpx.Response:
        named = {"infertool-model": model, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return httpx.post(f"{self.url}/v1/infer", json=payload, headers=named, timeout=LONG)

    def path(self, answer: httpx.Response) -> str:
        """Return the URL of a request that was answered."""
        return f"{self.url}/v1/requests/{answer.json()['event_id']}"

    def ended(self, asked: httpx.Response) -> dict[str, object]:
        """Return the document of a request once it has ended."""
        deadline = time.monotonic() + LONG
        while (answer := httpx.get(self.path(asked), timeout=LONG)).status_code == 202:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.1)
        found: dict[str, object] = answer.json()
        return found

    def close(self) -> None:
        self.gateway.kill()
        self.consumer.kill()


@pytest.fixture(scope="module")
def scene(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    raw = RawKafka(kafka.client())
    topics = {name: raw.topic() for name in ("urgent", "normal")}
    raw.topics(*(f"{topic}.dlq" for topic in topics.values()))
    made = Scene(tmp_path_factory.mktemp("kafka-gateway"), kafka, topics, raw.topic(4))
    yield made
    made.close()
    raw.close()


@pytest.mark.parametrize("model", ["urgent", "normal"])
def test_each_model_has_its_topic_and_each_form_of_asking_its_answer(scene: Scene, model: str) -> None:
    waited = scene.ask({"n": 1}, model, prefer="wait=60")
    assert waited.status_code == 200, waited.text
    assert waited.json()["prediction"] == {"got": {"n": 1}}

    polled = scene.ask({"n": 2}, model, prefer="respond-async")
    # The result may be there before the answer is.
    assert polled.status_code in {200, 202}, polled.text
    assert scene.ended(polled)["prediction"] == {"got": {"n": 2}}

    events = scene.ask({"n": 3}, model, accept="text/event-stream").text
    names = [line.removeprefix("event: ") for line in events.splitlines() if line.startswith("event: ")]
    assert names in (["queued", "started", "result"], ["started", "result"], ["result"]), events

    failed = scene.ask({"fail": True}, model, prefer="wait=60")
    assert (failed.status_code, failed.json()["reason"]) == (500, "inference_failed"), failed.text


def test_what_is_given_up_is_cancelled_and_what_was_accepted_survives_the_gateways_death(scene: Scene) -> None:
    scene.consumer.kill()
    kept, given_up = (scene.ask({"n": number}, prefer="respond-async") for number in (4, 5))
    assert (kept.status_code, given_up.status_code) == (202, 202)
    cancelled = httpx.delete(scene.path(given_up), timeout=LONG)
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled"), cancelled.text

    scene.gateway.kill()
    scene.gateway, scene.url = scene.start_gateway()
    scene.consumer = scene.start_consumer()
    found = scene.ended(kept)
    assert (found["status"], found["prediction"]) == ("succeeded", {"got": {"n": 4}})
