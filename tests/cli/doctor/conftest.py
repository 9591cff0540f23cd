"""`infertool doctor` as its users run it, and what it found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.activemq import install
from tests.support.hub import HubProcess
from tests.support.rawstomp import RawStomp
from tests.support.running import infertool
from tests.support.strictmq import EVENTS, StrictActiveMQ


@dataclass(frozen=True)
class Found:
    """The results of one run."""

    code: int
    document: dict[str, Any]

    def of(self, name: str) -> dict[str, Any]:
        """Return the first result of a check."""
        return next(each for each in self.document["checks"] if each["check"] == name)

    def named(self, *statuses: str) -> list[str]:
        """Return the names of the checks with one of these statuses."""
        return [each["check"] for each in self.document["checks"] if each["status"] in statuses]


Doctor = Callable[..., Found]


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """Run doctor on settings, given as environment variables by key: `broker__url`."""

    def run(*arguments: str, **settings: str) -> Found:
        state = {"INFERTOOL_CONSUME__STATE_DIR": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        # By default one event in twenty fails on purpose.
        model = {"INFERTOOL_MODEL__SPEC": "sim:?failure_rate=0"}
        # A busy machine's broker answers late.
        waits = {"INFERTOOL_BROKER__RECEIPT_TIMEOUT_S": "60"}
        variables = {f"INFERTOOL_{key.upper()}": value for key, value in settings.items()}
        done = infertool("doctor", "-o", "json", *arguments, **state, **{**model, **waits, **variables})
        assert done.stdout, done.stderr
        found = Found(done.returncode, json.loads(done.stdout))
        for each in found.document["checks"]:
            assert each["value"], each
            assert each["status"] in {"ok", "skip"} or (each["hint"] and each["docs"]), each
        return found

    return run


@pytest.fixture(scope="session")
def hub() -> Iterator[HubProcess]:
    """One embedded channel server."""
    with HubProcess() as server:
        yield server


@pytest.fixture(scope="session")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StrictActiveMQ]:
    """One ActiveMQ whose users have different rights."""
    install()
    broker = StrictActiveMQ(tmp_path_factory.mktemp("strict") / "base")
    try:
        broker.start()
        # Not every user may make the queue of events, which must not depend on the order of tests.
        raw = RawStomp(broker.stomp_port)
        raw.drain(f"/queue/{EVENTS}.in")
        raw.close()
        yield broker
    finally:
        broker.remove()
