"""What one command writes, the others open, under any spelling of the name."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.bus.conftest import Bus
from tests.support.running import CREDENTIALS, infertool


@pytest.mark.parametrize(
    ("name", "short"), [("/queue/dlq/c4.@", "/queue/dlq/c4.@"), ("c4.@", "/queue/c4.@"), ("/queue/c 4.@", "c 4.@")]
)
def test_dead_letters_of_a_consumer_are_opened_by_every_tool(bus: Bus, name: str, short: str) -> None:
    own = uuid.uuid4().hex[:6]
    name, short = name.replace("@", own), short.replace("@", own)
    bus.send(3, poison=3)
    assert bus.consume("--dlq", name, "--publish", "none", "--max-messages", "3").finish()["dead_lettered"] == 3
    run = ("--broker", bus.broker.url, "-o", "json")
    for spelt in (name, short):
        peeked = json.loads(infertool("peek-dlq", spelt, *run, **CREDENTIALS).stdout)
        assert len(peeked["letters"]) == 3
    done = infertool("replay-dlq", short, "--limit", "1", "--yes", *run, **CREDENTIALS)
    assert json.loads(done.stdout)["replayed"] == 1, done.stderr
    file = bus.folder / "dead.jsonl"
    done = infertool("drain-dlq", short, "--to", str(file), "--yes", *run, **CREDENTIALS)
    assert json.loads(done.stdout)["removed"] == 2, done.stderr
    assert bus.left() == 1
