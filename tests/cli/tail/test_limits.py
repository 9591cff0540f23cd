"""An expression that does not end on one event: this event is named, the others are shown."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.channels.conftest import Pusher
from tests.cli.tail.conftest import output
from tests.support.running import Running


def test_loops_in_loops(tailing: Callable[..., Running], pusher: Pusher) -> None:
    running = tailing("--where", "l.all(x, l.all(y, l.all(z, x + y + z >= 0)))", "--count", "2", "-o", "jsonl")
    pusher.push("new_result", *({"event_id": f"e{n}", "l": list(range(size))} for n, size in enumerate((2, 5000, 3))))
    assert [json.loads(line)["payload"]["event_id"] for line in output(running)] == ["e0", "e2"]
    said = running.log.read_text()
    assert "--where 'l.all(x, l.all(y" in said
    assert "e1: it takes more than 2 s" in said
