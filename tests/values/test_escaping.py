"""Untrusted text is escaped wherever it is printed on a terminal."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest

from infertool.cli.common import console, deadletters
from infertool.deadletters import letters
from infertool.errors import RefusedError, UsageError
from infertool.filters import expression
from infertool.telemetry import json_logs
from infertool.text.sanitize import clean, clean_json
from tests.support.messages import message

SOURCES = Path(console.__file__).parents[2]

EVIL = [
    "\x1b]0;pwned\x07", "\x1b[2J", "\x9b31m", "\x90", "\x85", "\u202e", "\u2066", "\u2069", "\u200e", "\u200f",
    "\u061c", "\u200b", "\u200d", "\u2060", "\ufeff", "\u2028", "\u2029", "\r", "\n", "\x0b", "\x0c", "\x08", "\x7f",
    "\0", "\U000e0041", "\u00ad", "\ud800",
]  # fmt: skip


class Tty(io.StringIO):
    """A terminal, as far as a program asks."""

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Tty:
    """Make standard output and error a terminal, in the test itself: pytest puts its own there before."""
    stream = Tty()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream)
    return stream


def check(text: str, lines: int = 1) -> None:
    *shown, rest = text.split("\n")
    assert rest == ""
    assert len(shown) == lines
    assert all(line.isprintable() for line in shown)


@pytest.mark.parametrize("evil", EVIL)
def test_text_and_errors(monkeypatch: pytest.MonkeyPatch, evil: str) -> None:
    tty = terminal(monkeypatch)
    console.out(f"a{evil}b")
    console.err(f"a{evil}b", f"{evil}c")
    check(tty.getvalue(), 3)
    for error in (
        RefusedError(f"it said {evil}", address="x", reason=evil, advice=evil),
        UsageError(f"{evil} is no queue"),
    ):
        tty.seek(0)
        tty.truncate()
        with pytest.raises(SystemExit):
            console.fail(error, debug=False)
        check(tty.getvalue())


@pytest.mark.parametrize("evil", EVIL)
def test_traces_prompts_and_progress(monkeypatch: pytest.MonkeyPatch, evil: str) -> None:
    tty = terminal(monkeypatch)
    monkeypatch.setattr(sys, "stdin", Tty("yes\n"))
    assert console.ask(f"move {evil}?", otherwise="--yes") == "yes"
    console.progress(f"10 of {evil}")
    assert tty.getvalue().replace("\r\x1b[K", "").isprintable()
    tty.seek(0)
    tty.truncate()
    with pytest.raises(SystemExit):
        console.fail(UsageError(f"no {evil}"), debug=True)
    assert all(line.isprintable() for line in tty.getvalue().split("\n"))


@pytest.mark.parametrize("evil", EVIL[:-1])
def test_json_on_a_terminal_is_escaped_and_piped_it_is_exact(monkeypatch: pytest.MonkeyPatch, evil: str) -> None:
    value = {"a": f"x{evil}y", "b": 10**30}
    for stream in (Tty(), io.StringIO()):
        monkeypatch.setattr(sys, "stdout", stream)
        console.emit_json(value)
        assert json.loads(stream.getvalue()) == value
        if stream.isatty():
            check(stream.getvalue())
        elif evil >= "\x7f":
            assert evil in stream.getvalue()


@pytest.mark.parametrize("evil", EVIL[:-1])
def test_json_logs_on_a_terminal(monkeypatch: pytest.MonkeyPatch, evil: str) -> None:
    tty = terminal(monkeypatch)
    json_logs.write_message("warning", f"failed {evil}", {"event_id": evil})
    check(tty.getvalue())
    assert json.loads(tty.getvalue())["event_id"] == evil


def test_an_expression_keeps_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = terminal(monkeypatch)
    with pytest.raises(expression.FilterError) as raised:
        expression.compile("a ==\n\x1b[2J")
    with pytest.raises(SystemExit):
        console.fail(raised.value, debug=False)
    assert tty.getvalue().count("\n") == 3
    assert "\x1b" not in tty.getvalue()


@pytest.mark.parametrize("evil", EVIL)
def test_a_letter_in_full(monkeypatch: pytest.MonkeyPatch, evil: str) -> None:
    tty = terminal(monkeypatch)
    body = json.dumps({"a": f"{evil}"}, ensure_ascii=False).encode("utf-8", "replace")
    found = letters.read(message(body, evil_header=evil, dlq_stage=evil, dlq_error=evil, original_destination=evil))
    lines = deadletters.details(found)
    console.out(*lines, *deadletters.letter_table([found]))
    check(tty.getvalue(), len(lines) + 2)


def test_what_is_escaped_once_stays_so() -> None:
    for evil in EVIL:
        assert clean(clean(evil)) == clean(evil)
        assert clean_json(clean_json(evil)) == clean_json(evil)
    assert clean("日本語 é \\n") == "日本語 é \\n"


def test_only_the_console_writes() -> None:
    """Output that bypasses the console would not be escaped."""
    writes = re.compile(r"std(out|err)\.(buffer\.)?write|\bprint\(|\becho\(|print_exc")
    allowed = {
        "cli/common/console.py",
        "app/process.py",  # output of a model, unchanged
        "telemetry/json_logs.py",
        "embedded/broker/__main__.py",
        "embedded/channel_server/__main__.py",
        "telemetry/uncaught.py",
        "cli/doctor/view.py",  # colours of lines that are clean
        "rpc/__init__.py",  # an example in its docstring
    }
    found = {
        f"{path.relative_to(SOURCES)}: {line.strip()}"
        for path in SOURCES.rglob("*.py")
        if str(path.relative_to(SOURCES)) not in allowed
        for line in path.read_text().split("\n")
        if writes.search(line) and "Console().print(table)" not in line and "def " not in line
    }
    assert {each for each in found if "self._print(" not in each} == set()
