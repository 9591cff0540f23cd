"""The message through a queue of the connection's own, where the broker does not confirm it or refuses it."""

from __future__ import annotations

import uuid

import pytest

from infertool import brokers
from infertool.app.doctor.result import Status
from infertool.app.doctor.round_trip import round_trip
from infertool.brokers.memory.faults import Effect, Operation
from infertool.brokers.memory.server import Server
from infertool.errors import ReceiptTimeoutError
from infertool.settings.broker import BrokerSettings
from tests.support.brokers import TIMEOUT_S


@pytest.mark.parametrize("effect", [Effect.SILENCE, Effect.REFUSE])
def test_what_the_broker_says_is_told(effect: Effect) -> None:
    with Server(f"round-trip-{uuid.uuid4().hex}") as server:
        broker = brokers.open(BrokerSettings(url=server.url, receipt_timeout_s=0.2), name="test", on_connection=None)
        broker.connect()
        server.faults.plan(Operation.SEND, effect, reason="it takes nothing")
        try:
            if effect is Effect.SILENCE:
                with pytest.raises(ReceiptTimeoutError, match="no receipt in time"):
                    round_trip(broker, TIMEOUT_S)
            else:
                finding, _ = round_trip(broker, TIMEOUT_S)
                assert finding.status is Status.FAIL
                assert "it takes nothing" in finding.value
        finally:
            broker.close(TIMEOUT_S)
