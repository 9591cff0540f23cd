"""A check, the list of all names, and the selection of checks by names and categories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from infertool.app.doctor.result import Finding
from infertool.errors import UsageError
from infertool.text.input import nearest

# Every check there is, in the order in which results are shown, and what it looks at.
NAMES: Final[Mapping[str, str]] = {
    "settings.load": "files, environment and flags give valid settings",
    "settings.consistent": "no two settings exclude each other",
    "settings.secrets": "files of secrets can be read, by their owner alone",
    "settings.certificates": "own certificates, and for how long they are valid",
    "environment.python": "version of Python and of infertool",
    "environment.packages": "packages that the settings need are installed",
    "environment.files": "limit of open files",
    "environment.clock": "the clock of this machine, against that of servers",
    "broker.tcp": "a host of the broker URL takes connections",
    "broker.tls": "the certificate of a host is accepted, and for how long",
    "broker.login": "the broker accepts the login; its product and version",
    "broker.heartbeat": "heartbeats that were agreed on",
    "broker.capabilities": "what the broker can do",
    "broker.window": "messages that may be in progress",
    "broker.queue": "right to consume the queue of events",
    "broker.depth": "messages and consumers of the queue of events",
    "broker.oldest": "age of the oldest message",
    "broker.dlq": "right to send to the dead-letter queue, and its messages",
    "broker.policy": "what the broker does with messages that it gives up",
    "broker.round_trip": "a message through a temporary queue",
    "phoenix.tcp": "a host of the Phoenix URL takes connections",
    "phoenix.tls": "the certificate of a host is accepted, and for how long",
    "phoenix.socket": "the socket opens and answers a heartbeat",
    "phoenix.join": "the service topic can be joined",
    "phoenix.public": "the public topics can be joined",
    "phoenix.confirm": "what confirms a push",
    "model.load": "the model loads",
    "model.warm_up": "the model warms up",
    "model.sample": "the model answers one event",
    "gateway.keys": "the gateway's API keys can be read, and last",
    "gateway.key_set": "the key set of tokens can be read",
    "paths.state": "the state folder can be written",
    "paths.disk": "free space of the state folder's disk",
    "telemetry.metrics": "the address of the metrics endpoint is free",
    "telemetry.rules": "alert rules can be used, and their sinks exist",
    "telemetry.consumer": "what a running consumer says of itself",
    "telemetry.traces": "the OTLP endpoint takes connections",
    "telemetry.alertmanager": "the Alertmanager answers",
    "telemetry.webhook": "the webhook's host takes connections",
    "telemetry.command": "the command of alerts exists",
}
CATEGORIES: Final = tuple(dict.fromkeys(name.partition(".")[0] for name in NAMES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One look at one thing. `subject` tells checks of a name apart, such as hosts.

    `needs` are checks without which this one makes no sense: it is skipped unless they passed. `run` may raise
    `InfertoolError`. With `needs_any`, one of those is enough. A check that has not ended after `timeout_s` has failed.
    """

    name: str
    run: Callable[[], Finding]
    subject: str = ""
    needs: tuple[Check, ...] = ()
    needs_any: tuple[Check, ...] = ()
    timeout_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Selection:
    """Names and categories to run, all if `only` is empty, and those to leave out."""

    only: frozenset[str] = frozenset()
    skip: frozenset[str] = frozenset()

    def select(self, checks: Sequence[Check]) -> list[Check]:
        """Return what is to be run, in order: what is named, and what that needs; nothing that is left out."""
        wanted = [check for check in checks if not self.only or _is_among(check.name, self.only)]
        needed = {id(each) for check in wanted for each in _with_needs(check)}
        return [check for check in checks if id(check) in needed and not _is_among(check.name, self.skip)]

    def asks_for(self, name: str) -> bool:
        """Return True if the check of this name is to be run, whatever others need."""
        return (not self.only or _is_among(name, self.only)) and not _is_among(name, self.skip)


def selection(only: Sequence[str], skip: Sequence[str]) -> Selection:
    """Return the selection by lists of names, each with commas. Raises `UsageError` for an unknown one."""
    return Selection(_names("--only", only), _names("--skip", skip))


def _names(option: str, lists: Sequence[str]) -> frozenset[str]:
    names = [name.strip() for each in lists for name in each.split(",")]
    for name in names:
        if name not in NAMES and name not in CATEGORIES:
            meant = nearest(name, (*CATEGORIES, *NAMES))
            advice = f"did you mean {meant}?" if meant else f"categories are {', '.join(CATEGORIES)}"
            raise UsageError(f"{option}: there is no check or category {name!r}", advice=advice)
    return frozenset(names)


def _is_among(name: str, names: frozenset[str]) -> bool:
    return name in names or name.partition(".")[0] in names


def _with_needs(check: Check) -> list[Check]:
    return [check, *(each for need in (*check.needs, *check.needs_any) for each in _with_needs(need))]
