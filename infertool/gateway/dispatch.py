"""Sends requests to the broker and takes their replies, on threads of its own: the event loop never waits for a broker.

Messages are not persistent: the store holds each request until its end, and the gateway sends again what was with a
broker whose connection is lost. So a call here never retries by itself.

A broker may end the connection because of one message, such as one that is too large for it, and all others that it has
not confirmed are lost as well. What was lost twice so is sent alone: then the broker's word is about it. What ends the
connection at each try fails.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, Protocol

from infertool.errors import ConnectionLostError
from infertool.gateway import outcomes, outgoing
from infertool.gateway.held import Held
from infertool.gateway.outcomes import Unsent
from infertool.gateway.request import Outcome
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.net.timing import FullJitter
from infertool.rpc import Call, Client, NewCall
from infertool.settings.broker import BrokerSettings

_log = logging.getLogger(__name__)
_JOIN_S: Final = 5.0
# Losses of the connection in a row after which a request is sent alone, and after which it fails.
_SUSPECT: Final = 2
_MOST_LOSSES: Final = 6
# Longest wait for the broker's word of what is sent alone. Seconds.
_ALONE_S: Final = 10.0


class Listener(Protocol):
    """Hears of calls and of the connection, on any thread."""

    def call_ended(self, held: Held, end: Outcome | Unsent | None, *, is_answered: bool = False) -> None:
        """Take the end of a call; None if the request was not sent, since it had ended.

        `is_answered`: a consumer has answered.
        """

    def call_confirmed(self, held: Held) -> None:
        """Note that the broker has a request."""

    def connection_changed(self) -> None:
        """Look at `Dispatcher.connected` again."""


class Dispatcher:
    """A connection to the broker, made in the background and again after a loss. Thread-safe.

    Raises `SettingsError` and `UsageError` for a broker that none can be.
    """

    def __init__(self, settings: BrokerSettings, listener: Listener) -> None:
        self._settings = settings
        self._listener = listener
        self._client = self._new_client()
        self._backoff = FullJitter(settings.reconnect_base_s, settings.reconnect_max_s)
        self._batches: queue.SimpleQueue[Sequence[Held] | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        # Set when the broker has answered for a request.
        self._answered = threading.Event()
        self._reason = "not connected yet"
        self._was_connected = False
        # How the broker spells the queues of the models.
        self._spelt: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="infertool-gateway-dispatch", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client.connected

    @property
    def state(self) -> str:
        """The connection, for people."""
        return f"connected to {self._client.address}" if self.connected else self._reason

    @property
    def counts(self) -> Mapping[str, int]:
        """Replies that were of no use: late, unknown or second ones."""
        counts = self._client.counts
        return {"late": counts.late, "duplicate": counts.duplicates, "unknown": counts.unknown}

    def start(self) -> None:
        """Begin to connect, and to send."""
        self._thread.start()

    def send(self, batch: Sequence[Held]) -> None:
        """Send requests. Returns at once; `call_ended` is called for each."""
        self._batches.put(batch)

    def close(self) -> None:
        """End the connection, and with it the calls. May take some seconds."""
        self._closed.set()
        self._batches.put(None)
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        # It also ends the wait of a thread that the broker keeps waiting.
        self._client.close()

    def _new_client(self) -> Client:
        return Client(self._settings, name="infertool-gateway", on_connection=self._connection_changed)

    def _run(self) -> None:
        self._connect()
        while batch := self._batches.get():
            self._send(batch)

    def _connect(self) -> None:
        attempt = 0
        while not self._closed.is_set():
            try:
                self._client.connect()
            except Exception as error:  # noqa: BLE001  (whatever it is, another try may connect)
                attempt += 1
                self._reason = str(error)
                _log.warning("the broker cannot be reached: %s; it is tried again", error)
                self._client.close()
                self._client = self._new_client()
                self._closed.wait(self._backoff.wait(attempt))
            else:
                self._was_connected = True
                _log.info("broker connected: %s", self._client.address)
                self._listener.connection_changed()
                return

    def _connection_changed(self, event: ConnectionEvent) -> None:
        if event.state is ConnectionState.LOST:
            self._reason = event.reason or "the connection is lost"
            _log.warning("broker lost: %s: %s; it is tried again", event.address, self._reason)
        elif event.state is ConnectionState.CONNECTED and self._was_connected:
            _log.info("broker connected: %s", event.address)
        self._listener.connection_changed()

    def _send(self, batch: Sequence[Held]) -> None:
        """Send requests, in one write where the broker's adapter can."""
        now, client = time.monotonic(), self._client
        starting: list[tuple[Held, NewCall]] = []
        for held in batch:
            if held.outcome is not None or held.expires <= now:
                self._listener.call_ended(held, None)
                continue
            try:
                starting.append((held, self._new_call(held, now)))
            except Exception as error:  # noqa: BLE001  (an earlier process may have taken it, for another broker)
                self._listener.call_ended(held, outcomes.failed(held.request, error))
        suspects = sorted((each for each in starting if each[0].losses >= _SUSPECT), key=lambda each: each[0].losses)
        if crowd := [each for each in starting if each[0].losses < _SUSPECT]:
            self._start(crowd)
        while suspects:
            held, new = suspects.pop(0)
            client.wait_for_confirmations(_ALONE_S)
            self._answered.clear()
            if self._start([(held, new)]):
                self._answered.wait(_ALONE_S)
            if not held.is_confirmed:
                # The connection may be about to end: the others must not be lost with it once more.
                for other, _ in suspects:
                    self._listener.call_ended(other, Unsent("another request was not confirmed"))
                return

    def _start(self, starting: Sequence[tuple[Held, NewCall]]) -> bool:
        """Start calls. Return False if they have ended at once."""
        for held, _ in starting:
            held.is_confirmed = False
        try:
            calls = self._client.start_all([new for _, new in starting])
        except ConnectionLostError as error:
            for held, _ in starting:
                self._listener.call_ended(held, Unsent(str(error)))
        except Exception as error:  # noqa: BLE001  (whatever it is, the requests have ended)
            for held, _ in starting:
                self._listener.call_ended(held, outcomes.failed(held.request, error))
        else:
            for (held, _), call in zip(starting, calls, strict=True):
                call.add_done_callback(partial(self._ended, held))
            return True
        return False

    def _new_call(self, held: Held, now: float) -> NewCall:
        client, request = self._client, held.request
        priority = held.priority if client.capabilities.priorities else None
        queue = self._spelt.get(request.queue)
        if queue is None:
            queue = self._spelt[request.queue] = client.conventions.queue(request.queue)
        message, used = outgoing.message(request, queue, priority)
        return NewCall(message, held.expires - now, used, partial(self._sent, held))

    def _sent(self, held: Held, error: Exception | None) -> None:
        if error is None:
            held.is_confirmed, held.losses = True, 0
        self._answered.set()
        if error is None and (held.accepted is not None or held.was_unsent):
            self._listener.call_confirmed(held)

    def _ended(self, held: Held, call: Call) -> None:
        end = outcomes.of_call(call, held.request)
        if isinstance(end, Unsent) and not end.is_unroutable and not held.is_confirmed:
            held.losses += 1
            if held.losses >= _MOST_LOSSES:
                why = "the connection to the broker ended each time it was sent"
                end = outcomes.failed(held.request, ConnectionLostError(why, address=self._client.address))
        self._listener.call_ended(held, end, is_answered=call.reply is not None)
