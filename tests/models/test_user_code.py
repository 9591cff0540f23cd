"""Tracebacks of a model's errors: short, with the model's frames only."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infertool.consumer.attempt import Failure, call
from infertool.consumer.batch_calls import call_batch
from infertool.errors import InferenceError, ModelLoadError, ModelUnavailableError
from infertool.models import loader
from infertool.models.user_code import (
    LONGEST_CHAIN,
    LONGEST_HOLD_S,
    LONGEST_LINE,
    MOST_BYTES,
    MOST_FRAMES,
    SHORTEST_HOLD_S,
    traceback_of,
)

MODEL = """
import json


def column(payload):
    secret = "hunter2"
    return payload["amount"]


class Features:
    def scale(self, payload):
        try:
            return column(payload)
        except KeyError as error:
            raise ValueError("no amount in the event") from error

    def implied(self, payload):
        try:
            return column(payload)
        except KeyError:
            raise ValueError("while it was handled")

    def hidden(self, payload):
        try:
            return column(payload)
        except KeyError:
            raise ValueError("nothing else") from None

    def deep(self, payload):
        return self.deep(payload)

    def library(self, payload):
        return json.loads("{")

    def password(self, payload):
        try:
            raise OSError("cannot reach postgres://app:hunter2@db.example.com/orders")
        except OSError as error:
            raise ValueError("away") from error

    def cycle(self, payload):
        first, second = ValueError("first"), ValueError("second")
        first.__cause__, second.__cause__ = second, first
        raise first

    def chain(self, payload, left=20):
        if not left:
            raise ValueError("the first")
        try:
            self.chain(payload, left - 1)
        except ValueError as error:
            raise ValueError(f"number {left}") from error

    def long(self, payload):
        try:
            raise ValueError("\\ud800 \\0 x" * 100_000)
        except ValueError as error:
            raise ValueError("long") from error

    def mute(self, payload):
        class Mute(Exception):
            def __str__(self):
                raise RuntimeError

        try:
            raise Mute
        except Mute as error:
            raise ValueError("of a mute one") from error

    def generated(self, payload):
        exec(compile("def f():\\n  1 / 0\\nf()", "<generated>", "exec"), {})

    def one_of_a_group(self, payload):
        raise ExceptionGroup("a group", [caught(column, payload)])

    def nested(self, payload):
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [caught(self.scale, payload)])])

    def alike(self, payload):
        raise ExceptionGroup("a group", [caught(column, payload), caught(column, payload)])

    def mixed(self, payload):
        raise ExceptionGroup("a group", [caught(column, payload), ExceptionGroup("", [ValueError("no amount")])])

    def as_a_cause(self, payload):
        try:
            self.one_of_a_group(payload)
        except ExceptionGroup as error:
            raise ValueError("no features") from error

    def handled_in_part(self, payload):
        try:
            self.one_of_a_group(payload)
        except* KeyError:
            raise ValueError("no features")

    def many(self, payload):
        raise ExceptionGroup("many", [ValueError(f"number {n}") for n in range(100_000)])

    def deeply_nested(self, payload):
        error = ValueError("the only one")
        for _ in range(100_000):
            error = ExceptionGroup("one more", [error])
        raise error


def caught(function, payload):
    try:
        function(payload)
    except Exception as error:
        return error


def predict(payload):
    return getattr(Features(), payload["do"])(payload)
"""


@pytest.fixture
def fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that has the model fail in some way, and returns the failure."""
    (tmp_path / "model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    predict = loader.load(f"{tmp_path / 'model.py'}:predict").predict

    def failure(do: str) -> Failure:
        found = call(predict, {"do": do}).failure
        assert found is not None
        return found

    return failure


@pytest.fixture
def trace(fail: Any) -> Any:
    """Return a function that has the model fail in some way, and returns the lines of its traceback."""
    return lambda do: fail(do).traceback.split("\n")


def test_the_models_frames_the_latest_last_and_the_cause(trace: Any) -> None:
    assert trace("scale") == [
        "model.py:115 in predict",
        "model.py:15 in Features.scale",
        "caused by KeyError: 'amount'",
        "model.py:13 in Features.scale",
        "model.py:7 in column",
    ]


def test_what_was_handled_is_a_cause_unless_it_is_hidden(trace: Any) -> None:
    assert "caused by KeyError: 'amount'" in trace("implied")
    assert not any("caused by" in line for line in trace("hidden"))


def test_no_code_and_no_values(trace: Any) -> None:
    for do in ("scale", "password"):
        assert not any("hunter2" in line for line in trace(do))
    assert "caused by OSError: cannot reach postgres://app:********@db.example.com/orders" in trace("password")


def test_a_recursion_is_short_and_shows_where_it_ended(trace: Any) -> None:
    lines = trace("deep")
    assert len(lines) == MOST_FRAMES + 1
    assert lines[0].startswith("... ")
    assert lines[-1].endswith("in Features.deep")


def test_frames_of_libraries_are_shown_from_their_folder_on(trace: Any) -> None:
    assert trace("library")[1] == "model.py:33 in Features.library"
    assert trace("library")[-1].startswith(f"{Path(sys.modules['json'].__file__ or '').parent}/decoder.py:")


def test_a_chain_is_cut_and_may_be_a_circle(trace: Any) -> None:
    assert sum("caused by" in line for line in trace("chain")) == LONGEST_CHAIN - 1
    assert [line for line in trace("cycle") if "caused by" in line] == ["caused by ValueError: second"]


def test_unusual_messages(trace: Any) -> None:
    assert all(len(line) <= LONGEST_LINE + 50 for line in trace("long"))
    assert len("\n".join(trace("long")).encode()) <= MOST_BYTES
    assert "caused by Mute: Mute" in trace("mute")
    assert trace("generated")[-1] == "<generated>:2 in f"


def test_an_error_without_frames_of_the_model_has_no_traceback() -> None:
    assert traceback_of(ValueError("never raised")) == ""
    simulated = loader.load("sim:?failure_rate=1&min_ms=0&max_ms=0").predict
    failure = call(simulated, {}).failure
    assert failure is not None
    assert failure.traceback == ""


def test_a_folder_that_is_gone(trace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert trace("scale")[0] == f"{tmp_path}/model.py:115 in predict"


def test_the_only_member_of_a_group_is_the_error(fail: Any) -> None:
    group = ["member of ExceptionGroup: a group (1 sub-exception)", "model.py:115 in predict"]
    failure = fail("one_of_a_group")
    assert (failure.error_type, failure.error, failure.retryable) == ("KeyError", "'amount'", True)
    origin = ["model.py:109 in caught", "model.py:7 in column"]
    assert failure.traceback.split("\n") == [*origin, *group, "model.py:74 in Features.one_of_a_group"]
    failure = fail("nested")
    assert (failure.error_type, failure.error) == ("ValueError", "no amount in the event")
    assert failure.traceback.split("\n")[:2] == ["model.py:109 in caught", "model.py:15 in Features.scale"]
    assert "caused by KeyError: 'amount'" in failure.traceback
    failure = fail("deeply_nested")
    assert (failure.error_type, failure.error) == ("ValueError", "the only one")
    assert failure.traceback.split("\n")[-1] == "model.py:104 in Features.deeply_nested"


def test_the_members_of_a_group_are_told(fail: Any) -> None:
    failure = fail("alike")
    assert (failure.error_type, failure.error) == ("KeyError", "'amount'")
    failure = fail("mixed")
    assert failure.error_type == "ExceptionGroup(KeyError, ValueError)"
    assert failure.error == "a group (2 sub-exceptions): KeyError: 'amount'; ValueError: no amount"
    lines = failure.traceback.split("\n")
    assert lines[:2] == ["model.py:109 in caught", "model.py:7 in column"]
    assert "beside ValueError: no amount" in lines
    failure = fail("many")
    assert failure.error_type == "ValueError"
    assert failure.error.endswith("ValueError: number 3; ValueError: number 4")
    assert failure.traceback.count("beside") == LONGEST_CHAIN - 2


def test_a_group_among_the_causes_is_opened(fail: Any) -> None:
    lines = fail("as_a_cause").traceback.split("\n")
    assert lines[:2] == ["model.py:115 in predict", "model.py:89 in Features.as_a_cause"]
    assert lines[2:5] == ["caused by KeyError: 'amount'", "model.py:109 in caught", "model.py:7 in column"]
    failure = fail("handled_in_part")
    assert (failure.error_type, failure.error) == ("ValueError", "no features")
    assert "caused by KeyError: 'amount'" in failure.traceback


def test_a_group_is_tried_again_or_held_as_its_members() -> None:
    def outcomes(*members: BaseException) -> tuple[bool, float | None]:
        def predict(_payload: Any) -> Any:
            raise BaseExceptionGroup("several", members)

        alone, several = call_batch(predict, [1]), call_batch(predict, [1, 2])
        assert isinstance(alone, list)
        failure = alone[0].failure
        assert failure is not None
        assert isinstance(several, int) == (failure.hold_s is None)
        return failure.retryable, failure.hold_s

    away, refused = ModelUnavailableError("away", retry_after_s=3), InferenceError("no amount", retryable=False)
    assert outcomes(away) == outcomes(away, ModelUnavailableError("away", retry_after_s=2)) == (True, 3)
    assert outcomes(away, ValueError()) == outcomes(ValueError()) == (True, None)
    assert outcomes(refused) == outcomes(ValueError(), refused) == outcomes(SystemExit()) == (False, None)


class ForgetfulError(InferenceError):
    """Does not call the base class's `__init__`."""

    def __init__(self, field: str) -> None:
        self.field = field


class ForgetfulAwayError(ModelUnavailableError):
    def __init__(self, field: str) -> None:
        self.field = field


class ExitsError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class OddError(InferenceError):
    def __init__(self) -> None:
        self.retryable: Any = np.array([True, False])


@pytest.mark.parametrize(
    ("error", "told", "hold_s"),
    [
        (ForgetfulError("amount"), "amount", None),
        (ForgetfulAwayError("gpu"), "gpu", 1),
        (ExitsError(), "ExitsError", None),
        (OddError(), "OddError", None),
        (ExceptionGroup("several", [ForgetfulError("amount"), ExitsError()]), "several", None),
    ],
)
def test_an_exception_whose_class_is_odd_fails_its_event_alone(
    error: Exception, told: str, hold_s: float | None
) -> None:
    def predict(_payload: Any) -> Any:
        raise error

    alone, returned = call_batch(predict, [1]), call_batch(lambda _payloads: [error], [1])
    for failure in (
        call(predict, {}).failure,
        *(each[0].failure for each in (alone, returned) if not isinstance(each, int)),
    ):
        assert failure is not None
        assert (failure.retryable, failure.hold_s) == (True, hold_s)
        assert told in failure.error


@pytest.mark.parametrize(
    ("asked", "hold_s"),
    [
        (2, 2), ("2", 2), (None, 1), ("soon", 1), (math.nan, 1), (math.inf, LONGEST_HOLD_S), (1e11, LONGEST_HOLD_S),
        (10**400, 1), (0, SHORTEST_HOLD_S), (-5.0, SHORTEST_HOLD_S), (np.float32(2), 2), (np.array([1, 2]), 1),
    ],
)  # fmt: skip
def test_an_event_is_held_for_a_time_within_bounds(asked: Any, hold_s: float) -> None:
    def predict(_payload: Any) -> Any:
        raise ModelUnavailableError("busy", retry_after_s=asked)

    failure = call(predict, {}).failure
    assert failure is not None
    assert failure.hold_s == hold_s


def test_a_model_that_cannot_be_loaded_names_the_member(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("raise ExceptionGroup('', [OSError('no weights')])")
    with pytest.raises(ModelLoadError, match=r"cannot be imported: OSError: no weights;"):
        loader.load(f"{tmp_path / 'model.py'}:predict")
