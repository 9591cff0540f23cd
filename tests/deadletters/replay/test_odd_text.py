"""Letters whose headers hold what a terminal obeys: shown on a real terminal, moved as they are."""

from __future__ import annotations

import json
import sys

from tests.deadletters.replay.conftest import DeadLetters
from tests.support.running import CREDENTIALS, environment
from tests.support.terminal import Terminal

EVIL = "\x1b]0;pwned\x07\x1b[2J\x9b31m\u202e\u2066\u200b\u2028\x85"


def shown(dead: DeadLetters, *arguments: str) -> str:
    """Run a command on a terminal; return all that it wrote."""
    command = [sys.executable, "-m", "infertool", *arguments, "--broker", dead.broker.url]
    with Terminal(command, width=400, env=environment(**CREDENTIALS, TERM="dumb")) as terminal:
        written = terminal.finish()
        assert terminal.process.returncode == 0, written
        return written.decode()


def test_nothing_of_a_letter_reaches_the_terminal_raw(dead: DeadLetters) -> None:
    # STOMP escapes colons alone.
    text = EVIL.replace(":", "\\c")
    names = ("event_id", "original_message_id", "dlq_stage", "dlq_error_type", "dlq_error", "dlq_consumer")
    letter = dead.letter(0, original_destination=f"/queue/o{text}", **dict.fromkeys(names, f"x{text}"))
    body = json.dumps({"n": 0, "evil": EVIL}, ensure_ascii=False).encode()
    plain = dead.letter(1, dlq_stage=f"x{text}")
    dead.put([(letter, body), (plain, b'{"n": 1}')])
    for arguments in (
        ["replay-dlq", dead.queue, "--dry-run"],
        ["peek-dlq", dead.queue],
        ["peek-dlq", dead.queue, "--group-by", "stage,error_type"],
        ["peek-dlq", dead.queue, "--id", f"x{EVIL}"],
        ["peek-dlq", dead.queue, "-o", "json"],
        ["peek-dlq", dead.queue, "-o", "jsonl"],
    ):
        text = shown(dead, *arguments)
        assert "pwned" in text, arguments
        raw = {line for line in text.split("\r\n") if not line.isprintable()}
        assert not raw, (arguments, raw)
    dead.replay("--to", dead.origin)
    assert [moved for _, moved in dead.drain(dead.origin)] == [body, b'{"n": 1}']
