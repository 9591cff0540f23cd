"""Checks that several commands share: queue names, files that must differ, join parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infertool import brokers
from infertool.brokers import registry, weighted_queues
from infertool.deadletters.replay import companions
from infertool.errors import SettingsError, UsageError
from infertool.text import json_text

if TYPE_CHECKING:
    from infertool.settings import BrokerSettings, Settings
    from infertool.settings.load import Loaded


_JSON_ADVICE = """write for example '{"room":"a"}'"""
_SOURCE, _DEAD = "broker.queue", "deadletter.queue"


def check_apart(written: str, target: Path | None, *read: tuple[str, Path | None]) -> None:
    """Raise `UsageError` if the option `written` and another option, which reads, name the same file."""
    for option, source in read:
        if target is not None and source is not None and _are_same(target, source):
            raise UsageError(f"{written} {target} is the file of {option}: the output would be written into the input")


def _are_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist yet
        return one.resolve() == other.resolve()


def parse_json(text: str) -> dict[str, Any]:
    """Return the parameters of `--join-params`, a JSON object. Raises `UsageError`, which does not show them."""
    try:
        params = json_text.loads(text)
    except json_text.JsonError as error:
        raise UsageError(f"--join-params is not JSON: {error}", advice=_JSON_ADVICE) from error
    if not isinstance(params, dict):
        raise UsageError("--join-params must be a JSON object", advice=_JSON_ADVICE)
    return params


def parse_pairs(option: str, pairs: Sequence[str], example: str) -> dict[str, str]:
    """Return the values of a repeatable option `name=value`. Raises `UsageError`, which does not show them."""
    params: dict[str, str] = {}
    for number, pair in enumerate(pairs, 1):
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise UsageError(
                f"{option} number {number} is no name=value", advice=f"write for example {option} {example}"
            )
        if name in params:
            raise UsageError(f"{option} gives {name} twice", advice="give each name once")
        params[name] = value
    return params


def in_full(loaded: Loaded) -> Loaded:
    """Return the settings with full queue names, as the broker spells them. Raises `SettingsError`.

    With an invalid broker URL they are returned unchanged: the connection reports the error.
    """
    try:
        return dataclasses.replace(loaded, settings=brokers.with_full_names(loaded.settings))
    except SettingsError as fault:
        if fault.key not in {_SOURCE, _DEAD}:
            return loaded
        origin = loaded.origins[fault.key]
        raise SettingsError(f"{origin}: {fault.what}", key=fault.key, origin=origin, advice=fault.advice) from None


def check_sent_to(settings: Settings) -> str:
    """Return the queue that events are sent to. Raises `SettingsError` for several, and for the dead-letter queue."""
    target = settings.broker.queue
    if not brokers.conventions(settings.broker.url).is_queue(target):
        raise SettingsError(
            f"broker.queue {target} names many queues or has options; events are sent to one",
            key=_SOURCE,
            advice="name one with --queue",
        )
    if target == settings.deadletter.queue:
        raise SettingsError(
            f"broker.queue and deadletter.queue are both {target}: each event would count as a dead letter",
            key=_DEAD,
            advice="name another with --dlq",
        )
    return target


def check_replay(
    settings: Settings, queue: str, *, to: str | None, parking: str | None, to_broker: BrokerSettings | None = None
) -> None:
    """Raise `UsageError` if a replay would send letters to their own queue, or park them in a consumed queue.

    With `to_broker` replays go there, where a queue of the same name is another one.
    """
    stays = to_broker is None or _is_same(settings.broker, to_broker)
    for option, target in (("--to", to), ("--parking", parking)):
        if target == queue and (stays or option == "--parking"):
            raise UsageError(f"{option} {target} is the queue itself")
        if target in companions.beside(queue):
            raise UsageError(f"{option} {target} is where a replay of {queue} keeps letters for a while")
    if parking is None:
        return
    if parking == to and stays:
        raise UsageError(f"--to and --parking are both {parking}: what is parked would be replayed")
    covers = brokers.conventions(settings.broker.url).covers
    if any(covers(source, parking) for source in weighted_queues.names(settings.broker.queue)):
        raise UsageError(
            f"--parking {parking} is consumed: it is in broker.queue {settings.broker.queue}",
            advice="name a queue that nobody consumes",
        )


def _is_same(one: BrokerSettings, other: BrokerSettings) -> bool:
    """Return True if both may be one broker, as far as their URLs tell."""
    ours, theirs = registry.parse(one.url), registry.parse(other.url)
    return ours.vhost == theirs.vhost and not set(ours.hosts).isdisjoint(theirs.hosts)
