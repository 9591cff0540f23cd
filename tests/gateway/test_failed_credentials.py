"""Wrong credentials: how many of an address are answered with 401, and what comes then."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from infertool.errors import SettingsError
from infertool.gateway import failed_credentials
from infertool.gateway.failed_credentials import FailedCredentials
from infertool.gateway.gatekeeper import Gatekeeper
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.rate import NANOSECONDS, Rate
from infertool.gateway.tokens import refusal
from infertool.settings import GatewaySettings
from tests.gateway.test_gatekeeper import store
from tests.gateway.test_keys import made

HERE = "198.51.100.1"


def asked(gatekeeper: Gatekeeper, address: str = HERE, **sent: Any) -> Problem | str:
    """Return the client, or why there is none."""
    parts = {"authorization": None, "api_key": None, "certificate_name": None, "address": address} | sent
    try:
        return asyncio.run(gatekeeper.identify(**parts)).client
    except Problem as problem:
        return problem


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": f"ik_{'a' * 10}_{'b' * 52}"},
        {"authorization": f"Bearer ik_{'a' * 10}_{'b' * 52}"},
        {"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."},
        {"authorization": "Basic YTpi"},
        {"api_key": "secret"},
    ],
)
def test_more_than_the_rate_are_told_when_to_come_back_and_right_ones_pass(
    tmp_path: Path, wrong: dict[str, str]
) -> None:
    path = tmp_path / "keys.json"
    entry, secret = made("team")
    store(path, entry)
    now = 5 * NANOSECONDS
    gatekeeper = Gatekeeper(GatewaySettings(keys_file=str(path), failed_credentials="3/30s"))
    gatekeeper._failures._clock = lambda: now

    def reasons(number: int, address: str = HERE) -> list[Reason]:
        answers = [asked(gatekeeper, address, **wrong) for _ in range(number)]
        return [answer.reason for answer in answers if isinstance(answer, Problem)]

    assert reasons(5) == [Reason.INVALID_CREDENTIALS] * 3 + [Reason.TOO_MANY_FAILURES] * 2
    now += 2_500_000_000
    told = asked(gatekeeper, **wrong)
    assert isinstance(told, Problem)
    assert (told.reason.status, told.retry_after_s, told.members) == (429, 8, {"retry_after_ms": 7500})
    # One who shares the address is not locked out, and another address has failures of its own.
    assert asked(gatekeeper, api_key=secret) == "key:team"
    assert isinstance(nobody := asked(gatekeeper), Problem)
    assert nobody.reason is Reason.UNAUTHENTICATED
    assert reasons(1, "198.51.100.2") == reasons(1, "2001:db8::1") == [Reason.INVALID_CREDENTIALS]
    assert reasons(3, "2001:db8::2")[1:] == [Reason.INVALID_CREDENTIALS, Reason.TOO_MANY_FAILURES]
    # It is exact.
    now += 7_500_000_000 - 1
    assert reasons(1) == [Reason.TOO_MANY_FAILURES]
    now += 1
    assert reasons(2) == [Reason.INVALID_CREDENTIALS, Reason.TOO_MANY_FAILURES]


def test_memory_does_not_grow_with_addresses() -> None:
    clock = count(0, 1000)
    failures = FailedCredentials(Rate.parse("3/m"), most=1000, clock=lambda: next(clock))
    for number in range(20_000):
        assert failures.failed(f"address:{number}", refusal("no")).reason is Reason.INVALID_CREDENTIALS
        assert len(failures) <= 1000
    for _ in range(3):
        last = failures.failed("address:19999", refusal("no"))
    assert last.reason is Reason.TOO_MANY_FAILURES
    assert failed_credentials.MOST < 100_000
    # After a time in which nobody failed they are forgotten.
    clock = count(3600 * NANOSECONDS)
    for number in range(600):
        failures.failed(f"later:{number % 2}", refusal("no"))
    assert len(failures) == 2


def test_without_a_limit_and_with_one_that_is_none() -> None:
    failures = FailedCredentials(None)
    assert {failures.failed("a", refusal("no")).reason for _ in range(100)} == {Reason.INVALID_CREDENTIALS}
    assert len(failures) == 0
    with pytest.raises(SettingsError, match="failed_credentials"):
        Gatekeeper(GatewaySettings(failed_credentials="often"))
