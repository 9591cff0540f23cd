"""Checks of the broker: each host of its URL, then what the first host that accepts the login tells."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from infertool.app.doctor import hosts, queue_checks
from infertool.app.doctor.check import Check
from infertool.app.doctor.clock import Skew
from infertool.app.doctor.queue_checks import Opened
from infertool.app.doctor.result import Finding, failed, ok, skip, warn
from infertool.app.doctor.round_trip import round_trip
from infertool.app.doctor.words import duration
from infertool.brokers import registry
from infertool.brokers.examining import ConnectionFacts, Examined
from infertool.brokers.port import Capabilities
from infertool.brokers.registry import BrokerUrl
from infertool.consumer.tuning import asks_for_batches, window
from infertool.errors import InfertoolError, SettingsError
from infertool.net.tls import client_context
from infertool.settings import Settings

_NAME: Final = "infertool-doctor"
_GOODBYE_S: Final = 2.0
# A server that does not answer the login is identified for a while, and RabbitMQ gets two connections.
_MARGIN_S: Final = 8.0
_ON_HOSTS: Final = ("broker.tcp",)


class BrokerChecks:
    """Makes the checks, and holds the connections that they opened, until `close`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: list[Opened] = []
        self._lock = threading.Lock()
        self._closed = False
        self.skews: list[Skew] = []

    def checks(self, load: Check) -> list[Check]:
        """Return the checks. A URL that cannot be used fails in the first one."""
        try:
            url = registry.parse(self._settings.broker.url)
            registry.adapter(url.scheme)
        except SettingsError as fault:
            error = failed(fault)
            return [Check(name=name, run=lambda: error, needs=(load,)) for name in _ON_HOSTS]
        found: list[Check] = []
        logins: list[Check] = []
        limit_s = 2 * self._settings.broker.connect_timeout_s + _MARGIN_S
        for host in url.hosts:
            place = self._place(url, *host)
            reached = hosts.checks(place, load) if host[1] else (load,)
            found += reached if host[1] else ()
            login = Check(
                name="broker.login",
                subject=place.name if host[1] else host[0],
                run=partial(self._login, replace(url, hosts=(host,))),
                needs=reached,
                timeout_s=limit_s,
            )
            logins.append(login)
        return [*found, *logins, *self._after_login(tuple(logins))]

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, []
        for each in opened:
            with suppress(InfertoolError):
                each.broker.close(_GOODBYE_S)

    def _after_login(self, logins: tuple[Check, ...]) -> list[Check]:
        wait_s = self._settings.broker.receipt_timeout_s
        runs: dict[str, Callable[[Opened], Finding]] = {
            "broker.heartbeat": self._heartbeat,
            "broker.capabilities": lambda opened: ok(_words(opened.broker.capabilities)),
            "broker.window": self._window,
            "broker.queue": partial(queue_checks.queue, self._settings, wait_s),
            "broker.depth": partial(queue_checks.depth, self._settings, wait_s),
            "broker.oldest": partial(queue_checks.oldest, self._settings, wait_s),
            "broker.dlq": partial(queue_checks.dlq, self._settings, wait_s),
            "broker.policy": partial(queue_checks.policy, self._settings, wait_s),
            "broker.round_trip": self._round_trip,
        }
        limit_s = 2 * wait_s + _MARGIN_S
        return [
            Check(name=name, run=partial(self._on_first, run), needs_any=logins, timeout_s=limit_s)
            for name, run in runs.items()
        ]

    def _on_first(self, run: Callable[[Opened], Finding]) -> Finding:
        return run(self._opened[0]) if self._opened else skip("broker.login was left out")

    def _place(self, url: BrokerUrl, host: str, port: int) -> hosts.Place:
        broker = self._settings.broker
        return hosts.Place(
            group="broker",
            key="broker.url",
            host=host,
            port=port,
            timeout_s=broker.connect_timeout_s,
            context=partial(client_context, "broker", broker) if registry.has_tls(url.scheme) else None,
            shows_certificate=bool(broker.tls_cert_file),
            verifies=broker.tls_verify,
        )

    def _login(self, url: BrokerUrl) -> Finding:
        broker = registry.adapter(url.scheme).open_broker(self._settings.broker, url, name=_NAME, on_connection=None)
        began = time.monotonic()
        broker.connect()
        took_s = time.monotonic() - began
        facts = broker.connection_facts() if isinstance(broker, Examined) else None
        with self._lock:
            keep = not self._closed
            if keep:
                self._opened.append(Opened(broker, facts))
        if not keep:
            broker.close(_GOODBYE_S)
        user = url.user or self._settings.broker.user
        product = facts.product if facts else url.scheme
        who = f"as {user}" if user else "without a user"
        return ok(f"{product}, {who}, in {duration(took_s)}", took_s, "seconds")

    def _heartbeat(self, opened: Opened) -> Finding:
        facts = opened.facts
        if facts is None:
            return skip("this kind of broker has none")
        if facts.sends_every_s is None or facts.receives_every_s is None:
            missing = [name for name, every in _ways(facts) if every is None]
            hint = "set broker.heartbeat_s above 0; without heartbeats a dead connection is found late"
            return warn(f"none {' and none '.join(missing)}", hint)
        value = ", ".join(f"{name} every {duration(every)}" for name, every in _ways(facts) if every)
        return ok(value, facts.receives_every_s, "seconds")

    def _window(self, opened: Opened) -> Finding:
        most = opened.broker.capabilities.max_unacked
        consume = self._settings.consume
        in_batches = asks_for_batches(consume)
        chosen = window(consume, self._settings.publish.room, None, most, in_batches=in_batches)
        value = f"{chosen} messages in progress; the broker surely gives {most} to a subscription"
        if consume.window > most:
            return warn(value, f"set consume.window to {most} or less, or raise the broker's limit", chosen, "messages")
        return ok(value, chosen, "messages")

    def _round_trip(self, opened: Opened) -> Finding:
        facts = opened.facts or ConnectionFacts(product="")
        if not opened.broker.capabilities.reply_addresses:
            return skip("this broker has no temporary queues")
        if facts.no_round_trip:
            return skip(facts.no_round_trip)
        finding, skew = round_trip(opened.broker, self._settings.broker.receipt_timeout_s)
        if skew and facts.stamps:
            self.skews.append(skew)
        return finding


def _ways(facts: ConnectionFacts) -> tuple[tuple[str, float | None], ...]:
    return ("sent", facts.sends_every_s), ("received", facts.receives_every_s)


def _words(has: Capabilities) -> str:
    yes = [
        name
        for name, flag in (
            ("atomic moves", has.atomic_move), ("selectors", has.selectors), ("exclusive consumers", has.exclusive),
            ("priorities", has.priorities), ("expiry", has.expiry), ("delivery counts", has.delivery_count),
            ("reply addresses", has.reply_addresses),
        )
        if flag
    ]  # fmt: skip
    no = [] if has.atomic_move else ["moves in two steps"]
    return ", ".join([*yes, *no, f"browsing {has.browse}"])
