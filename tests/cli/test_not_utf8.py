"""Bytes that are not UTF-8, in arguments, variables and names of files: one line, or work as ever; never a trace."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.brokers import new_queue
from tests.support.embedded import EmbeddedBroker
from tests.support.rawstomp import RawStomp
from tests.support.running import infertool

ODD = os.fsdecode(b"\xff\xfe")


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    started = EmbeddedBroker().start()
    yield started
    started.stop()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["serve-model", "sim:", "--listen", "0", "--name", ODD], 2, "--name: serve.name is not UTF-8"),
        (["gateway", "keys", "add", "a", "--keys-file", "k", "--certificate", ODD], 2, "--certificate is not UTF-8"),
        (["gateway", "keys", "add", "a", "--keys-file", "k", "--class", ODD], 2, "--class is not UTF-8"),
        (["alerts", "silence", ODD, "1h", "--stats-url", "127.0.0.1:1"], 3, "does not answer"),
        (["consume", "--topic", ODD], 2, "--topic: phoenix.topic is not UTF-8"),
    ],
)
def test_an_argument(arguments: list[str], code: int, words: str) -> None:
    done = infertool(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    [line] = done.stderr.splitlines()
    assert words in line


def test_a_variable() -> None:
    done = infertool("config", "show", INFERTOOL_BROKER__USER=ODD)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "infertool: INFERTOOL_BROKER__USER: broker.user is not UTF-8\n"
    shown = infertool("config", "show", "-o", "json", INFERTOOL_MODEL__SPEC=f"{ODD}.py:predict")
    assert json.loads(shown.stdout)["model.spec"]["value"] == "\N{REPLACEMENT CHARACTER}" * 2 + ".py:predict"


def test_the_name_of_an_archive_is_in_the_summary_of_what_was_done(broker: EmbeddedBroker, tmp_path: Path) -> None:
    queue, raw = new_queue(), RawStomp(broker.stomp_port)
    raw.send(queue, [({"original_destination": f"{queue}.back", "dlq_stage": "infer"}, b"{}")] * 5)
    raw.close()
    archive = f"{tmp_path}/{ODD}.jsonl"
    shown = f"{tmp_path}/\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}.jsonl"
    drained = infertool("drain-dlq", queue, "--broker", broker.url, "--to", archive, "--yes", "-o", "json")
    assert drained.returncode == 0, drained.stderr
    summary = json.loads(drained.stdout)
    assert (summary["file"], summary["archived"], summary["removed"]) == (shown, 5, 5)
    restored = infertool("replay-dlq", "--broker", broker.url, "--from", archive, "--yes", "-o", "json")
    assert restored.returncode == 0, restored.stderr
    summary = json.loads(restored.stdout)
    assert (summary["file"], summary["replayed"]) == (shown, 5)
