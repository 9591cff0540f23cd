"""Letters in groups."""

from __future__ import annotations

import pytest

from infertool.deadletters.letters import DeadLetter, read
from infertool.deadletters.selection import FIELDS, group, parse_fields
from infertool.errors import UsageError
from infertool.message import BodyKind
from tests.support.messages import text_message
from tests.support.present import present


def letter(number: int, **headers: str) -> DeadLetter:
    return read(text_message(f"ID:{number}", "/queue/d", headers, b"{}", BodyKind.TEXT, False, 0, ""))


def died(number: int, at: str, **headers: str) -> DeadLetter:
    return letter(number, dlq_format="infertool/1", dlq_stage="infer", dlq_failed_at=at, **headers)


def test_groups_count_and_know_first_last_and_a_sample() -> None:
    letters = [
        died(1, "2026-01-01T00:00:05Z", dlq_error_type="A"),
        died(2, "2026-01-01T00:00:09Z", dlq_error_type="A"),
        died(3, "2026-01-01T00:00:01Z", dlq_error_type="A"),
        died(4, "2026-01-01T00:00:00Z", dlq_error_type="B"),
        letter(5),
    ]
    first, second, third = group(letters, ("stage", "error_type"))
    assert (first.values, first.count, first.sample.message.id) == (("infer", "A"), 3, "ID:2")
    assert present(first.last) - present(first.first) == 8
    assert (second.values, second.count) == (("", ""), 1)
    assert (second.first, second.last) == (None, None)
    assert (third.values, third.first) == (("infer", "B"), third.last)


def test_letters_without_a_time_count_and_do_not_hide_the_others_times() -> None:
    (only,) = group([letter(1), letter(2, timestamp="5000"), letter(3)], ("stage",))
    assert (only.count, only.first, only.last, only.sample.message.id) == (3, 5.0, 5.0, "ID:2")


def test_every_field_has_a_value_for_every_letter() -> None:
    for each in (letter(1), died(2, "no time")):
        assert all(isinstance(FIELDS[field](each), str) for field in FIELDS)


def test_fields() -> None:
    assert parse_fields("stage, error_type") == ("stage", "error_type")
    with pytest.raises(UsageError, match="did you mean 'stage'"):
        parse_fields("stagge")
    with pytest.raises(UsageError, match="known: stage"):
        parse_fields("stage,,")
