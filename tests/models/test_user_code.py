"""Tracebacks of a model's errors: short, with the model's frames only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from infertool.consumer.attempt import call
from infertool.models import loader
from infertool.models.user_code import LONGEST_CHAIN, LONGEST_LINE, MOST_BYTES, MOST_FRAMES, traceback_of

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


def predict(payload):
    return getattr(Features(), payload["do"])(payload)
"""


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that has the model fail in some way, and returns the lines of its traceback."""
    (tmp_path / "model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    predict = loader.load(f"{tmp_path / 'model.py'}:predict").predict

    def lines(do: str) -> list[str]:
        failure = call(predict, {"do": do}).failure
        assert failure is not None
        return failure.traceback.split("\n")

    return lines


def test_the_models_frames_the_latest_last_and_the_cause(trace: Any) -> None:
    assert trace("scale") == [
        "model.py:75 in predict",
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
    assert trace("scale")[0] == f"{tmp_path}/model.py:75 in predict"
