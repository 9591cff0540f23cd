"""Queue names in flags, files and the environment: one parser, and no consumer of its own dead letters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from infertool.app import consumer
from infertool.brokers.stomp import conventions
from infertool.cli.common import options
from infertool.cli.common.console import Globals
from infertool.errors import SettingsError, UsageError
from infertool.settings import Settings
from tests.support.running import infertool


def settings(source: str, dead: str) -> Settings:
    flags = {"broker.queue": ("--queue", source), "deadletter.queue": ("--dlq", dead)}
    return Globals().load(flags).settings


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/queue/",
        "/queues/orders",
        "queue/orders",
        "/topic/orders",
        "/temp-queue/x",
        "/Queue/x",
        "/dsub/x",
        "queue://x",
        "/queue/topic://x",
        "/queue//queue/x",
        "/queue/a /queue/b",
        "/queue/x ",
        " /queue/x",
        "/queue/x\t",
        "/queue/a\nb",
        "/queue/" + "x" * 2049,
        "/queue/\udcff",
        "/queue/a*",
        "/queue/a.>.b",
        "/queue/a,",
        ",/queue/a",
        "/queue/a,/topic/b",
        "/queue/a?",
        "/queue/a?b",
        "/queue/a?=b",
        "/queue/?consumer.priority=1",
    ],
)
def test_what_is_no_queue_is_refused_in_either_setting(name: str) -> None:
    with pytest.raises(SettingsError, match=r"--queue: broker.queue"):
        settings(name, "/queue/dead")
    with pytest.raises(SettingsError, match=r"--dlq: deadletter.queue"):
        settings("/queue/in", name)
    assert not conventions.is_queue(name)


@pytest.mark.parametrize(
    "name", ["/queue/a,/queue/b", "a,b", "/queue/a.*", "/queue/>", "*", "/queue/a?consumer.exclusive=true"]
)
def test_dead_letters_go_to_one_queue(name: str) -> None:
    assert not conventions.is_queue(name)
    with pytest.raises(SettingsError, match="many queues or none"):
        settings("/queue/in", name)
    assert settings(name, "/queue/dead").broker.queue


@pytest.mark.parametrize(
    ("typed", "spelt"),
    [
        ("orders", "/queue/orders"),
        ("/queue/orders", "/queue/orders"),
        ("/queue/dlq/c4", "/queue/dlq/c4"),
        ("a,/queue/b", "/queue/a,/queue/b"),
        ("ai.*,x?consumer.priority=5", "/queue/ai.*,/queue/x?consumer.priority=5"),
    ],
)
def test_names_are_spelt_as_the_broker_does(typed: str, spelt: str) -> None:
    assert settings(typed, "/queue/dead").broker.queue == spelt


LOOPS = [
    ("/queue/w", "/queue/w"),
    ("w", "/queue/w"),
    ("/queue/w", "w"),
    ("/queue/w?consumer.exclusive=true", "/queue/w"),
    ("/queue/w.*", "/queue/w.dlq"),
    ("/queue/w.>", "/queue/w.dlq"),
    ("/queue/w.>", "/queue/w"),
    ("/queue/>", "/queue/w"),
    ("/queue/*.dlq", "/queue/w.dlq"),
    ("/queue/*.>", "/queue/w"),
    ("/queue/in,/queue/w", "/queue/w"),
    ("in,w.*", "w.dlq"),
    ("/queue/w.*?consumer.priority=1,/queue/in", "/queue/w.dlq"),
    ("ai.events.*", "ai.events.dlq"),
    # Where a replay keeps letters for a while, and where runs meet.
    ("/queue/w.*", "/queue/w"),
    ("/queue/w.dlq.scan", "/queue/w.dlq"),
    ("/queue/w.dlq.*", "/queue/w.dlq"),
    ("/queue/*.*.lock", "/queue/w.dlq"),
    ("/queue/w", "/queue/w.scan"),
    ("/queue/w", "w.lock"),
]


@pytest.mark.parametrize(("source", "dead"), LOOPS)
def test_a_consumer_of_its_own_dead_letters_is_refused(source: str, dead: str) -> None:
    with pytest.raises(SettingsError, match="--dlq outside"):
        consumer.check_queues(settings(source, dead))


@pytest.mark.parametrize(
    ("source", "dead"),
    [
        ("/queue/w", "/queue/W"),
        ("/queue/w.*", "/queue/dead.w"),
        ("/queue/w.*", "/queue/w.a.dlq"),
        ("/queue/a,/queue/b", "/queue/c"),
        ("/queue/w.d", "/queue/w.dlq"),
        ("/queue/w.*.x", "/queue/w.dlq"),
    ],
)
def test_a_consumer_of_other_queues_is_not(source: str, dead: str) -> None:
    consumer.check_queues(settings(source, dead))


def from_file(folder: Path) -> Mapping[str, str]:
    (folder / "infertool.toml").write_text('[broker]\nqueue = "ai.*"\n[deadletter]\nqueue = "/queue/ai.dlq"\n')
    return {}


def from_environment(_folder: Path) -> Mapping[str, str]:
    return {"INFERTOOL_BROKER__QUEUE": "/queue/ai.*", "INFERTOOL_DEADLETTER__QUEUE": "ai.dlq"}


@pytest.mark.parametrize("given", [from_file, from_environment])
def test_consume_refuses_at_the_start_for_names_from_any_source(
    given: Callable[..., Mapping[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = infertool("consume", **given(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("infertool: broker.queue /queue/ai.* covers deadletter.queue /queue/ai.dlq")


@pytest.mark.parametrize(
    ("source", "dead", "said"),
    [
        ("/queue/a", "a", "both /queue/a"),
        ("/queue/a,/queue/b", "c", "many queues"),
        ("/queue/a.*", "c", "many queues"),
        ("/queue/a?consumer.priority=1", "c", "many queues"),
    ],
)
def test_events_are_sent_to_one_queue_that_is_not_that_of_dead_letters(source: str, dead: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        options.check_sent_to(settings(source, dead))


@pytest.mark.parametrize(
    ("to", "parking", "said"),
    [
        ("/queue/d", None, "the queue itself"),
        (None, "/queue/d", "the queue itself"),
        ("/queue/d.scan", None, "for a while"),
        (None, "/queue/d.lock", "for a while"),
        ("/queue/x", "/queue/x", "--to and --parking are both"),
        (None, "/queue/in", "is consumed"),
        (None, "/queue/more.parked", "is consumed"),
    ],
)
def test_a_replay_into_what_is_read_is_refused(to: str | None, parking: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        options.check_replay(settings("/queue/in,/queue/more.*", "/queue/dead"), "/queue/d", to=to, parking=parking)


def test_a_replay_elsewhere_is_not() -> None:
    options.check_replay(settings("/queue/in", "/queue/dead"), "/queue/d", to="/queue/in", parking="/queue/parked")


@pytest.mark.parametrize(
    "command",
    [
        ("consume", "--queue", "w.*", "--dlq", "w.dlq"),
        ("consume", "--queue", "w", "--dlq", "/queue/w", "--processes", "2"),
        ("loadgen", "--qps", "1", "--queue", "w", "--dlq", "/queue/w"),
        ("loadgen", "--qps", "1", "--queue", "a,b"),
        ("peek-dlq", "a,b"),
        ("peek-dlq", "a.*"),
        ("drain-dlq", "/queue/a?x=y"),
        ("drain-dlq", "a ", "--yes"),
        ("replay-dlq", "d", "--to", "/queue/d", "--yes"),
        ("replay-dlq", "d", "--parking", "d.scan", "--yes"),
        ("replay-dlq", "d", "--parking", "ai.events.raw", "--yes"),
        ("replay-dlq", "d", "--to", "a,b", "--yes"),
    ],
)
def test_every_command_refuses_before_it_connects(command: tuple[str, ...]) -> None:
    done = infertool(*command, INFERTOOL_BROKER__URL="stomp://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("infertool: ")
    assert len(done.stderr.splitlines()) == 1


def test_the_parser_is_one() -> None:
    """What a consumer dead-letters to, every tool opens, and the other way round."""
    for name in ("/queue/dlq/c4", "DLQ.orders", "/queue/my orders", "/queue/a..b", "日本", "/queue/a:b\\c"):
        spelt = settings("/queue/in", name).deadletter.queue
        options.check_replay(settings("/queue/in", "/queue/dead"), spelt, to=None, parking=None)
        assert conventions.queue(name) == conventions.queue(spelt) == spelt
        assert conventions.is_queue(spelt)
