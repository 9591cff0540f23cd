"""Channels that refuse alerts, or ignore everything: never a dead letter without its alert, never silence."""

from __future__ import annotations

from typing import Any

import pytest

from infertool.embedded.channel_server.channels import Answer, Channel, Reply
from tests.bus.conftest import Bus
from tests.bus.faulty import FAILING, LONG, PLAIN, Service, numbers_of, stop
from tests.bus.test_batched_pushes import served_by
from tests.bus.test_settlement import assert_each_once
from tests.consumer.harness import wait_until

QUICK = {"INFERTOOL_CONSUME__RETRY_BASE_S": "0.01"}


@pytest.mark.long
@pytest.mark.parametrize("answer", [{"reason": "bad"}, None], ids=["refused", "crashed"])
def test_alerts_that_are_taken_without_their_payload_only(embedded_bus: Bus, answer: dict[str, Any] | None) -> None:
    bus = embedded_bus
    model = bus.folder / "failing.py"
    model.write_text(FAILING)

    def fault(event: str, payload: dict[str, Any]) -> Answer:
        if event == "inference_failed" and numbers_of(payload):
            if answer is None:
                raise RuntimeError("cannot store this")
            return Reply(answer, status="error")
        return None

    service = Service(fault)
    with served_by(bus, service) as url:
        ids = bus.send(40)
        options = ("--phoenix", url, "--max-messages", "40")
        bus.consume(*options, model=f"{model}:predict", **QUICK).finish()
        assert bus.viewer.wait(40, LONG)
    assert assert_each_once(bus, ids) == (36, 4)
    assert all(bus.viewer.payloads[ids[number]]["status"] == "FAILED" for number in (7, 17, 27, 37))


def test_alerts_that_are_refused_make_no_dead_letters_until_they_are_taken(bus: Bus) -> None:
    model = bus.folder / "failing.py"
    model.write_text(FAILING)
    refused = True

    def fault(event: str, _payload: dict[str, Any]) -> Answer:
        return Reply({"reason": "no alerts"}, status="error") if refused and event == "inference_failed" else None

    service = Service(fault)
    with served_by(bus, service) as url:
        ids = bus.send(20)
        consumer = bus.consume("--phoenix", url, "--max-messages", "20", model=f"{model}:predict", **QUICK)
        assert bus.viewer.wait(18, LONG)
        consumer.wait_for("is no dead letter without an alert")
        assert not bus.dead_ids()
        refused = False
        consumer.finish()
        assert bus.viewer.wait(20, LONG)
    assert assert_each_once(bus, ids) == (18, 2)


@pytest.mark.parametrize("confirm", ["reply", "echo"])
def test_a_channel_that_ignores_everything_is_told_of(embedded_bus: Bus, confirm: str) -> None:
    bus = embedded_bus
    pushes: list[str] = []

    def ignores(_channel: Channel, event: str, _payload: dict[str, Any]) -> Answer:
        pushes.append(event)
        return None

    with served_by(bus, ignores) as url:
        bus.send(50)
        environment = {"INFERTOOL_PHOENIX__PUSH_TIMEOUT_S": "1", "INFERTOOL_CONSUME__STOP_DEADLINE_S": "1"}
        consumer = bus.consume("--phoenix", url, "--confirm", confirm, model=PLAIN, **environment)
        consumer.wait_for(f"phoenix.confirm = {confirm}", times=2)
        wait_until(lambda: len(pushes) >= 50)
        assert len(pushes) == 50
        summary = stop(consumer)
    assert (summary["succeeded"], summary["handed_back"]) == (0, 50)
