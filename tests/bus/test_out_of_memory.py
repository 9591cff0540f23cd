"""The kernel kills a worker process because memory has run out, as it does in a container."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.bus.conftest import Bus
from tests.bus.test_consumer_processes import children
from tests.support.memorylimit import MemoryLimit, memory_limit
from tests.support.present import present

LONG = 180
LIMIT = 600_000_000
MODEL = "fixtures/models/misbehaves.py:Misbehaves"
EVENTS = 7
SAYS = re.compile(r"worker process (\d+) was killed by SIGKILL \(by the kernel if memory ran out; see dmesg\)")


@pytest.fixture
def limit() -> Iterator[MemoryLimit | None]:
    """Asked for before the bus, which ends the consumers that are under it."""
    with memory_limit(LIMIT) as made:
        yield made


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("deed", ["hog", "kill"])
def test_the_event_in_work_is_tried_once_more_and_the_others_go_on(
    limit: MemoryLimit | None, embedded_bus: Bus, deed: str, batch_size: int
) -> None:
    """Events before the deadly one, and behind it. `kill` is the same signal, for where no limit can be set."""
    if deed == "hog" and limit is None:
        pytest.skip("this machine does not let a process limit the memory of another")
    bus = embedded_bus
    raw = bus.raw()
    first, rest = ["first-0", "first-1"], [f"{n}" for n in range(EVENTS)]
    raw.send(bus.queue, (({"event_id": event_id}, b"{}") for event_id in first))
    consumer = bus.consume(
        "--executor", "processes", "--workers", "2", "--max-messages", f"{len(first) + len(rest)}",
        "--batch-size", f"{batch_size}", model=MODEL, INFERTOOL_CONSUME__RETRY_BASE_S="0.01",
    )  # fmt: skip
    assert bus.viewer.wait(len(first), LONG)
    if limit:
        limit.hold(consumer.process.pid, *(process.pid for process in children(consumer)))
    raw.send(
        bus.queue,
        (({"event_id": event_id}, json.dumps({"do": deed if event_id == "3" else ""}).encode()) for event_id in rest),
    )
    raw.close()
    summary = consumer.finish()
    assert (summary["succeeded"], summary["dead_lettered"]) == (len(first) + len(rest) - 1, 1)
    assert bus.dead_ids() == ["3"]
    assert bus.left() == 0
    alert = bus.viewer.payloads["3"]
    assert (alert["error_type"], list(bus.viewer.alerts)) == ("WorkerDied", ["3"])
    assert "was killed by SIGKILL (by the kernel if memory ran out" in alert["error"]
    log = consumer.log.read_text()
    deaths = SAYS.findall(log)
    assert len(deaths) == len(set(deaths)) == 2
    assert "Traceback" not in log
    if deed == "hog":
        assert present(limit).kills() == 2
