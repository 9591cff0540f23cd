"""Changing payloads before a replay: what a function does to one letter is that letter's matter alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infertool.deadletters import letters
from infertool.deadletters.replay import editing
from infertool.deadletters.replay.editing import Edit, EditError
from tests.deadletters.replay.conftest import DeadLetters
from tests.support.messages import message

ODD = """
import sys

class Mute(Exception):
    def __str__(self):
        sys.exit("no text")

class Proxy:
    @property
    def __class__(self):
        raise LookupError("not here")

def leave(payload):
    sys.exit(0)

def mute(payload):
    raise Mute

def several(payload):
    raise ExceptionGroup("both", [ValueError("a"), OSError("b")])

def proxy(payload):
    return Proxy()

def endless(payload):
    payload["self"] = payload
    return payload

def fix(payload):
    print("seen", payload)
    payload["fixed"] = True
    return payload
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "odd.py"
    path.write_text(ODD)
    return path


def edit(script: Path, function: str) -> Edit:
    found = editing.parse([], f"{script}:{function}")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("leave", "--edit raised SystemExit: 0"),
        ("mute", "--edit raised Mute: Mute"),
        (
            "several",
            "--edit raised ExceptionGroup(OSError, ValueError): both (2 sub-exceptions): ValueError: a; OSError: b",
        ),
        ("proxy", "its edited payload is not JSON: LookupError: not here"),
        ("endless", "its edited payload is not JSON: "),
    ],
)
def test_whatever_a_function_does_it_is_the_fault_of_its_letter(script: Path, function: str, says: str) -> None:
    with pytest.raises(EditError) as caught:
        edit(script, function).body(letters.read(message(b'{"n": 1}')))
    assert str(caught.value).startswith(says)


def test_what_a_function_prints_is_no_output(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = edit(script, "fix").body(letters.read(message(b'{"n": 1}')))
    assert json.loads(body) == {"n": 1, "fixed": True}
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "seen {'n': 1}\n")


@pytest.mark.parametrize(("assignments", "function"), [(["fixed=true"], None), ([], "fix")])
def test_javas_utf8_is_json(script: Path, assignments: list[str], function: str | None) -> None:
    """ActiveMQ sends an emoji of a JMS TextMessage as two surrogates of three bytes each."""
    changes = editing.parse(assignments, f"{script}:{function}" if function else None)
    assert changes is not None
    body = changes.body(letters.read(message(b'{"t": "\xed\xa0\xbd\xed\xb8\x80"}')))
    assert json.loads(body) == {"t": "\N{GRINNING FACE}", "fixed": True}


def test_a_function_that_exits_holds_up_no_other_letter(dead: DeadLetters, script: Path) -> None:
    script.write_text(
        script.read_text() + "\ndef some(payload):\n    return leave(0) if payload['n'] == 1 else fix(payload)\n"
    )
    dead.fill(3)
    summary = dead.replay("--edit", f"{script}:some")
    assert (summary["replayed"], summary["kept"]) == (2, 1)
    assert list(summary["reasons"]) == ["--edit raised SystemExit: 0"]
    assert (dead.numbers(dead.origin), dead.numbers(dead.queue)) == ([0, 2], [1])
