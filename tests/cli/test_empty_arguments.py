"""An empty argument, such as an unset variable leaves, is refused: it must not mean the default."""

from __future__ import annotations

import pytest

from infertool.cli.main import refuse_empty
from infertool.errors import UsageError
from tests.support.running import infertool

# Each has an empty value at a place where it could be taken for the default or for another value.
COMMANDS = [
    ["replay-dlq", "", "--yes"],
    ["replay-dlq", "--yes", ""],
    ["replay-dlq", "--to", "", "--yes"],
    ["replay-dlq", "--to=", "--yes"],
    ["replay-dlq", "--id", "", "--yes"],
    ["replay-dlq", "--id", "a", "--id", "", "--yes"],
    ["replay-dlq", "--from", "", "--yes"],
    ["replay-dlq", "--error", "", "--yes"],
    ["replay-dlq", "--where", "", "--yes"],
    ["replay-dlq", "--stage=", "--yes"],
    ["replay-dlq", "--broker", "", "--yes"],
    ["replay-dlq", "--to-broker", "", "--yes"],
    ["replay-dlq", "--parking", "", "--yes"],
    ["replay-dlq", "--audit", "", "--yes"],
    ["replay-dlq", "--limit", "", "--yes"],
    ["drain-dlq", ""],
    ["drain-dlq", "--to", "", "--yes"],
    ["drain-dlq", "x", "--yes="],
    ["drain-dlq", "x", "--discard", "--yes="],
    ["peek-dlq", ""],
    ["peek-dlq", "--id", ""],
    ["peek-dlq", "--group-by", ""],
    ["consume", "--queue", ""],
    ["consume", "--model="],
    ["loadgen", "--qps", ""],
    ["loadgen", "report", ""],
    ["tail", ""],
    ["watch", "--record", ""],
    ["dev", "--broker-port", ""],
    ["config", "show", "--profile", ""],
    ["--config", "", "config", "show"],
    [""],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_it_is_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="is empty") as caught:
        refuse_empty(arguments)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("arguments", [COMMANDS[0], COMMANDS[3], COMMANDS[17], COMMANDS[29]], ids=" ".join)
def test_the_refusal_is_one_line(arguments: list[str]) -> None:
    done = infertool(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "is empty" in done.stderr


@pytest.mark.parametrize(
    "arguments", [[], ["replay-dlq", "--set", "x=", "--yes"], ["x", "--set=x="], ["--where", "a == ''"], ["-"], [" "]]
)
def test_arguments_with_text_are_accepted(arguments: list[str]) -> None:
    refuse_empty(arguments)
