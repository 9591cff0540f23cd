"""A client that asks for more than its share, beside others that ask all the time: through a gateway, to a consumer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.test_http_command import MODEL, ready
from tests.support.embedded import EmbeddedBroker
from tests.support.running import LONG, PATIENT_GATEWAY, Running

pytestmark = pytest.mark.long
BUDGET_S = 8.0
OTHERS, OF_EACH = 8, 7
INFERENCE_S = 0.1
REFUSALS = 20


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    broker = EmbeddedBroker().start()
    model = tmp_path / "model.py"
    model.write_text(MODEL)
    consumer = Running(
        tmp_path / "consumer", "consume", "--broker", broker.url, "--queue", "greedy", "--dlq", "greedy.dead",
        "--model", f"{model}:predict", "--reply", "--publish", "none", "--concurrency", "4",
    )  # fmt: skip
    gateway = Running(
        tmp_path / "gateway", "gateway", "--listen", "0", "--broker", broker.url, "--queue", "greedy", "-o", "json",
        "--state-dir", str(tmp_path / "state"), INFERTOOL_GATEWAY__TRUSTED_PROXIES='["127.0.0.1"]',
        INFERTOOL_GATEWAY__CLASSES=json.dumps({"standard": {"budget": f"{BUDGET_S}s"}}),
        INFERTOOL_GATEWAY__DISPATCH_AHEAD_S="0.2", **PATIENT_GATEWAY,
    )  # fmt: skip
    yield ready(gateway)["url"]
    gateway.kill()
    consumer.kill()
    broker.stop()


class Scene:
    """The clients. `ended` are the documents of requests that have ended."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.ended: list[dict[str, Any]] = []
        self.refused = 0
        self.is_over = False

    async def post(self, client: int, prefer: str) -> httpx.Response:
        headers = {"x-forwarded-for": f"10.0.0.{client}", "prefer": prefer}
        return await self._http.post("/v1/infer", json={"sleep": INFERENCE_S}, headers=headers)

    async def ask_again_and_again(self, client: int) -> None:
        while not self.is_over:
            answer = await self.post(client, "wait=240")
            if answer.status_code == 200:
                self.ended.append(answer.json())
            else:
                assert answer.status_code == 429, answer.text
                self.refused += 1
                await asyncio.sleep(INFERENCE_S)

    async def rate(self) -> float:
        metrics = (await self._http.get("/metrics")).text
        [line] = [each for each in metrics.splitlines() if each.startswith("infertool_gateway_drain_per_s{")]
        return float(line.rpartition(" ")[2])

    async def greedy(self) -> tuple[list[dict[str, Any]], float]:
        """Ask until there were refusals; return what became of what was accepted, and the highest rate meanwhile."""
        ended, paths, refused, rate = list[dict[str, Any]](), [], 0, 0.0
        while refused < REFUSALS:
            answer = await self.post(200, "respond-async")
            if not refused:
                rate = max(rate, await self.rate())
            if answer.status_code == 202:
                paths.append(answer.headers["location"])
            elif answer.status_code == 200:  # it has ended before the answer was made
                ended.append(answer.json())
            else:
                assert answer.json()["reason"] == "over_budget", answer.text
                refused += 1
        return [*ended, *[await self.ended_document(200, path) for path in paths]], rate

    async def ended_document(self, client: int, path: str) -> dict[str, Any]:
        while True:
            answer = await self._http.get(path, headers={"x-forwarded-for": f"10.0.0.{client}"})
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
            await asyncio.sleep(INFERENCE_S)


def test_what_is_accepted_of_a_greedy_client_is_within_its_budget(url: str) -> None:
    async def run() -> tuple[Scene, list[dict[str, Any]], float]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=LONG, limits=limits) as http:
            scene = Scene(http)
            async with asyncio.TaskGroup() as others:
                for client in range(OTHERS):
                    for _ in range(OF_EACH):
                        others.create_task(scene.ask_again_and_again(client))
                while len(scene.ended) < 4 * OTHERS * OF_EACH:  # noqa: ASYNC110  (of any kind)
                    await asyncio.sleep(INFERENCE_S)
                documents, rate = await scene.greedy()
                scene.is_over = True
            return scene, documents, rate

    scene, documents, rate = asyncio.run(run())
    assert documents
    ends = [each["finished_ms"] for each in (*documents, *scene.ended)]
    # In work, not in time: a busy machine is a slow one.
    ahead = [sum(each["accepted_ms"] <= end <= each["finished_ms"] for end in ends) for each in documents]
    assert max(ahead) <= 1.5 * BUDGET_S * rate
    # The others have far less waiting than the budget allows.
    assert scene.refused == 0
