"""The burst's own arithmetic, and a burst against a gateway that refuses what it cannot serve."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from infertool.load.burst import Burst, Plan, Second, percentile
from tests.support.modelserver import ModelServer, Reply, Request, answer, reply
from tests.support.running import infertool

PLAN = Plan(capacity_per_s=20, factor=10, calm_s=1, burst_s=2, recovery_s=5, shares={"interactive": 0.5, "batch": 0.5})


def test_the_plan() -> None:
    assert [PLAN.rate(at) for at in (0, 0.9, 1, 2.9, 3, 9)] == [10, 10, 200, 200, 10, 10]


@pytest.mark.parametrize(("values", "part", "found"), [([], 0.5, None), ([3], 0.99, 3), ([1, 2, 3, 4], 0.5, 2)])
def test_percentiles(values: list[int], part: float, found: int | None) -> None:
    assert percentile(values, part) == found


@pytest.mark.parametrize(
    ("after", "recovery_s"),
    [
        ([(10, 0), (10, 0), (10, 0)], 0),
        ([(5000, 9), (10, 0), (10, 1), (10, 0), (10, 0), (10, 0)], 3),
        ([(5000, 0), (10, 0), (5000, 0)], None),
        ([(None, 0), (10, 0), (10, 0), (10, 0)], 1),
    ],
)
def test_recovery_is_two_seconds_as_in_the_calm_before(after: list[Any], recovery_s: int | None) -> None:
    burst = Burst("http://127.0.0.1:1", PLAN, lambda _second: None)
    latencies = [10, 900, 900, *(ms for ms, _ in after)]
    refused = [0, 100, 100, *(number for _, number in after)]
    for at, (ms, number) in enumerate(zip(latencies, refused, strict=True)):
        second = Second(at, at in {1, 2}, refused=number, latencies_ms=[] if ms is None else [float(ms)])
        burst.seconds.append(second)
    assert burst.recovery_s() == recovery_s


def test_every_request_has_one_fate_and_who_is_refused_comes_back_once() -> None:
    seen: list[Request] = []

    def handler(request: Request) -> Reply:
        seen.append(request)
        match len(seen) % 4:
            case 0:
                return reply(b"{}", "429 Too Many Requests", retry_after="0")
            case 1:
                return reply(b"{}", "429 Too Many Requests")
            case 2:
                return reply(b"{}", "503 Service Unavailable")
        return answer({"class": "A"})

    server = ModelServer(handler).start()
    shown: list[Second] = []
    plan = Plan(
        capacity_per_s=10, factor=10, calm_s=1, burst_s=1, recovery_s=1, shares={"interactive": 0.5, "batch": 0.5}
    )
    found = asyncio.run(Burst(server.url.removesuffix("/predict"), plan, shown.append).run())
    server.stop()
    fates = found["classes"].values()
    assert found["sent"] + sum(each["returned"] for each in fates) == len(seen)
    assert all(each["told"] == each["returned"] <= each["refused"] for each in fates)
    assert found["failed"] == sum(each["failed"].get("503", 0) for each in fates)
    assert found["served"] == sum(sum(second.served.values()) for second in shown) + sum(
        sum(each["served"].values()) for each in found["seconds"][len(shown) :]
    )
    assert {request.headers["infertool-class"] for request in seen} == {"interactive", "batch"}
    assert found["recovery_s"] is None


@pytest.mark.long
def test_the_demo_answers_every_request() -> None:
    ran = infertool("demo", "--burst", "--for", "2s", "-o", "json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["failed"] == 0, found["classes"]
    assert found["refused"] > 0
    assert all(each["served"] > 0 for each in found["classes"].values())
    # How many depends on the machine.
    assert found["served_on_return_part"] > 0
