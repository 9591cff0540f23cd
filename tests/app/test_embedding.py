"""A Python program runs consumers: start, snapshot, stop; and its process stays as it was."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from infertool.app import (
    BrokerSettings,
    ConsumerApp,
    ConsumeSettings,
    DeadLetterSettings,
    ModelSettings,
    PhoenixSettings,
    PublishSettings,
    Settings,
    Supervisor,
    Until,
)
from infertool.errors import ModelLoadError, UnreachableError
from infertool.telemetry.signals import Signal, Succeeded
from tests.bus.conftest import Bus
from tests.bus.test_settlement import assert_each_once
from tests.support.running import environment

LONG = 120
MODEL = "sim:?min_ms=0&max_ms=0&failure_rate=0"
DOCUMENT = Path(__file__).parents[2] / "docs" / "embedding.md"


def settings_of(bus: Bus, **consume: Any) -> Settings:
    return Settings(
        # Names as people write them; the adapter knows how the broker spells them.
        broker=BrokerSettings(url=bus.broker.url, queue=bus.queue.removeprefix("/queue/")),
        deadletter=DeadLetterSettings(queue=bus.dlq.removeprefix("/queue/")),
        phoenix=PhoenixSettings(url=bus.hub.url),
        model=ModelSettings(spec=MODEL),
        consume=ConsumeSettings(state_dir=str(bus.folder / "state"), **consume),
    )


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def process_state() -> dict[str, object]:
    """Return what belongs to the whole process, and is not a consumer's to change."""
    root = logging.getLogger()
    return {
        "hooks": (threading.excepthook, sys.excepthook, sys.unraisablehook),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "descriptors": [(status.st_dev, status.st_ino) for status in map(os.fstat, range(3))],
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "collector": (gc.isenabled(), gc.get_threshold()),
        "limits": (sys.getrecursionlimit(), socket.getdefaulttimeout(), sys.getswitchinterval()),
        "logging": (list(root.handlers), root.level, logging.getLogger("infertool").propagate),
        "folder": os.getcwd(),  # noqa: PTH109
    }


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_start_snapshot_and_stop_change_nothing_of_the_process(embedded_bus: Bus, executor: str) -> None:
    bus = embedded_bus
    ids = bus.send(50, poison=1)
    signals: list[Signal] = []
    before = process_state()
    with ConsumerApp(settings_of(bus, executor=executor, workers=1), observers=[signals.append]) as consumer:
        consumer.start()
        wait_for(lambda: consumer.snapshot().settled == 50)
        assert process_state() == before
        snapshot = consumer.snapshot()
        assert snapshot.links == {"broker": "connected", "phoenix": "connected"}
        assert (snapshot.counts["succeeded"], snapshot.counts["dead_lettered"]) == (49, 1)
        assert not consumer.join(0)
        consumer.stop()
        assert consumer.join(LONG)
    assert process_state() == before
    assert any(isinstance(each, Succeeded) for each in signals)
    assert bus.viewer.wait(50, LONG)
    assert_each_once(bus, ids)


def test_run_ends_by_itself_and_hands_over_documents(embedded_bus: Bus) -> None:
    bus = embedded_bus
    ids = bus.send(20)
    settings = replace(settings_of(bus), publish=PublishSettings(mode="stdout"))
    documents: list[bytes] = []
    with ConsumerApp(settings, Until(max_messages=20), write=documents.extend) as consumer:
        consumer.run()
    assert {orjson.loads(document)["event_id"] for document in documents} == set(ids)
    assert bus.left() == 0


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_write_that_raises_ends_the_run_and_loses_nothing(embedded_bus: Bus, concurrency: int) -> None:
    bus = embedded_bus
    bus.send(20)
    settings = replace(settings_of(bus, concurrency=concurrency), publish=PublishSettings(mode="stdout"))

    def write(documents: Sequence[bytes]) -> None:
        raise ValueError("no room")

    with ConsumerApp(settings, write=write) as consumer, pytest.raises(ValueError, match="no room"):
        consumer.run()
    assert bus.left() == 20


def test_two_consumers_in_one_process_share_the_work(embedded_bus: Bus) -> None:
    bus = embedded_bus
    settings = settings_of(bus)
    with ConsumerApp(settings) as one, ConsumerApp(settings) as other:
        one.start()
        other.start()
        ids = bus.send(200)
        wait_for(lambda: one.snapshot().settled + other.snapshot().settled == 200)
    assert bus.viewer.wait(200, LONG)
    assert_each_once(bus, ids)


def test_a_supervisor_runs_replicas(embedded_bus: Bus) -> None:
    bus = embedded_bus
    ids = bus.send(100)
    before = process_state()
    supervisor = Supervisor(settings_of(bus, processes=2), Until(idle_s=1.0))
    supervisor.run()
    assert process_state() == before
    assert supervisor.snapshot().counts["succeeded"] == 100
    assert bus.viewer.wait(100, LONG)
    assert_each_once(bus, ids)


def test_a_stop_before_the_start_ends_the_run_at_once(embedded_bus: Bus) -> None:
    with ConsumerApp(settings_of(embedded_bus)) as consumer:
        consumer.stop()
        consumer.run()
    assert consumer.snapshot().settled == 0


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_model_that_cannot_be_loaded_is_told_by_start(embedded_bus: Bus, executor: str) -> None:
    settings = replace(settings_of(embedded_bus, executor=executor, workers=1), model=ModelSettings(spec="no.such:f"))
    with ConsumerApp(settings) as consumer, pytest.raises(ModelLoadError):
        consumer.start()


def test_what_ends_a_started_consumer_is_told_by_join_and_by_the_end_of_the_block(embedded_bus: Bus) -> None:
    settings = replace(settings_of(embedded_bus), broker=BrokerSettings(url="stomp://127.0.0.1:1"))
    consumer = ConsumerApp(settings)
    consumer.start()
    with pytest.raises(UnreachableError):
        consumer.join(LONG)
    consumer.close()
    consumer = ConsumerApp(settings)
    with pytest.raises(UnreachableError), consumer:  # noqa: PT012  (the end of the block raises)
        consumer.start()
        wait_for(lambda: not any(thread.name == "consumer" for thread in threading.enumerate()))


def test_the_example_of_the_documentation_runs(embedded_bus: Bus, tmp_path: Path) -> None:
    bus = embedded_bus
    [example] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    for written, ours in (
        ("stomp://127.0.0.1:61613", bus.broker.url),
        ("ai.events.raw", bus.queue),
        ("ws://127.0.0.1:4000/socket/websocket", bus.hub.url),
        ("sim:", MODEL),
    ):
        assert written in example
        example = example.replace(written, ours)
    bus.send(100)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, env=environment(XDG_STATE_HOME=str(tmp_path)),
        capture_output=True, text=True, timeout=LONG, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("100 0 ")
