"""Checks of the Phoenix server: each host, the socket, the topics, and what confirms a push."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from infertool.app.doctor import hosts
from infertool.app.doctor.check import Check
from infertool.app.doctor.push import push
from infertool.app.doctor.result import Finding, fail, failed, ok, skip, warn
from infertool.app.doctor.words import duration
from infertool.errors import JoinRefusedError, SettingsError, UnreachableError
from infertool.net.tls import client_context
from infertool.phoenix.dial import Target, targets
from infertool.phoenix.frames import Frame
from infertool.phoenix.membership import Loss, Membership
from infertool.phoenix.push import announces_batches
from infertool.phoenix.socket import PhoenixSocket
from infertool.settings import Settings

_GOODBYE_S: Final = 1.0
_MARGIN_S: Final = 5.0
_SLOW_S: Final = 1.0


class PhoenixChecks:
    """Makes the checks, and holds the sockets that they opened, until `close`. `pushes`: a result and an alert."""

    def __init__(self, settings: Settings, *, pushes: bool) -> None:
        self._settings = settings
        self._phoenix = settings.phoenix
        self._pushes = pushes
        self._sockets: list[PhoenixSocket] = []
        self._lock = threading.Lock()
        self._closed = False

    def checks(self, load: Check) -> list[Check]:
        """Return the checks. A URL that cannot be used fails in the first one."""
        if self._settings.publish.mode != "phoenix":
            unused = skip(f"results are not published to Phoenix: publish.mode is {self._settings.publish.mode}")
            return [Check(name="phoenix.socket", run=lambda: unused, needs=(load,))]
        try:
            found = targets(self._phoenix)
        except SettingsError as fault:
            error = failed(fault)
            return [Check(name="phoenix.tcp", run=lambda: error, needs=(load,))]
        checks: list[Check] = []
        sockets: list[Check] = []
        limit_s = self._phoenix.connect_timeout_s + _MARGIN_S
        for number, target in enumerate(found):
            place = self._place(target)
            reached = hosts.checks(place, load)
            socket = Check(
                name="phoenix.socket", subject=place.name, run=partial(self._socket, number), needs=reached,
                timeout_s=2 * limit_s,
            )  # fmt: skip
            checks += reached
            sockets.append(socket)
        join = Check(name="phoenix.join", run=self._join, needs_any=tuple(sockets), timeout_s=limit_s)
        public = Check(name="phoenix.public", run=self._public, needs_any=tuple(sockets), timeout_s=2 * limit_s)
        confirm = Check(
            name="phoenix.confirm", run=self._confirm, needs=(join,),
            timeout_s=6 * self._phoenix.push_timeout_s + 3 * limit_s,
        )  # fmt: skip
        return [*checks, *sockets, join, public, confirm]

    def close(self) -> None:
        """Close the sockets."""
        with self._lock:
            self._closed = True
            sockets, self._sockets = self._sockets, []
        for socket in sockets:
            socket.close(_GOODBYE_S)

    def _place(self, target: Target) -> hosts.Place:
        return hosts.Place(
            group="phoenix",
            key="phoenix.url",
            host=target.host,
            port=target.port,
            timeout_s=self._phoenix.connect_timeout_s,
            context=partial(client_context, "phoenix", self._phoenix) if target.secure else None,
            shows_certificate=bool(self._phoenix.tls_cert_file),
            verifies=self._phoenix.tls_verify,
        )

    def _socket(self, number: int) -> Finding:
        socket = PhoenixSocket(replace(self._phoenix, url=_with_one_host(self._phoenix.url, number)))
        began = time.monotonic()
        socket.connect()
        opened_s = time.monotonic() - began
        with self._lock:
            keep = not self._closed
            if keep:
                self._sockets.append(socket)
        if not keep:
            socket.close(_GOODBYE_S)
        beaten = threading.Event()
        began = time.monotonic()
        socket.heartbeat(beaten.set)
        if not beaten.wait(self._phoenix.connect_timeout_s):
            return fail(
                f"opened in {duration(opened_s)}; a heartbeat was not answered within "
                f"{self._phoenix.connect_timeout_s:g} s",
                "is it a Phoenix socket? See the server's log",
            )
        took_s = time.monotonic() - began
        value = f"opened in {duration(opened_s)}, heartbeat answered in {duration(took_s)}"
        if took_s > _SLOW_S:
            return warn(value, "look at the load of the Phoenix server, and at the network to it", took_s, "seconds")
        return ok(value, took_s, "seconds")

    def _joined(self, topic: str) -> tuple[float, Any]:
        """Join a topic, leave it, and return the time until the join's reply, and the response in it."""
        socket = self._sockets[0]
        membership = Membership(socket, topic, socket.join_payload, _Deaf())
        began = time.monotonic()
        response = membership.join(self._phoenix.connect_timeout_s)
        took_s = time.monotonic() - began
        membership.leave()
        return took_s, response

    def _join(self) -> Finding:
        if not self._sockets:
            return skip("phoenix.socket was left out")
        took_s, response = self._joined(self._phoenix.topic)
        batches = "; takes batches of results" if announces_batches(response) else ""
        return ok(f"{self._phoenix.topic} in {duration(took_s)}{batches}", took_s, "seconds")

    def _public(self) -> Finding:
        if not self._sockets:
            return skip("phoenix.socket was left out")
        topics = list(dict.fromkeys((self._phoenix.result_topic, self._phoenix.alert_topic)))
        faults: list[str] = []
        for topic in topics:
            try:
                self._joined(topic)
            except (JoinRefusedError, UnreachableError) as error:
                faults.append(error.what)
        if not faults:
            return ok(f"joined {' and '.join(topics)}", len(topics), "topics")
        hint = "tail, watch and the confirmation by echo need them: check phoenix.result_topic and phoenix.alert_topic"
        found = fail if self._phoenix.confirm == "echo" else warn
        return found("; ".join(faults), hint, len(topics) - len(faults), "topics")

    def _confirm(self) -> Finding:
        mode = self._phoenix.confirm
        if mode == "none":
            return warn(
                "phoenix.confirm is none: nothing shows that a result arrived",
                "set phoenix.confirm to auto: else events are acknowledged whose results are lost",
            )
        if not self._pushes:
            return skip(
                f"phoenix.confirm is {mode}; which one comes is seen with a push",
                "add --push: viewers see a result and an alert",
            )
        return push(self._settings)


class _Deaf:
    """Takes what comes on a topic while it is joined, and does nothing with it."""

    def on_frames(self, frames: Sequence[Frame]) -> None:
        """See `infertool.phoenix.membership.Listener`."""

    def on_joined(self, response: Any) -> None:
        """See `infertool.phoenix.membership.Listener`."""

    def on_lost(self, loss: Loss, reason: str) -> None:
        """See `infertool.phoenix.membership.Listener`."""


def _with_one_host(url: str, number: int) -> str:
    scheme, separator, rest = url.partition("://")
    names, slash, tail = rest.partition("/")
    return f"{scheme}{separator}{names.split(',')[number]}{slash}{tail}"
