"""One run of `infertool call`: one call, or many of them, C at a time."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from infertool.cli.call import view
from infertool.cli.common import console
from infertool.cli.common.recent_rate import RecentRate
from infertool.cli.common.signals import repeated, stopped_by_signals
from infertool.codec import BY_NAME, EncodeError
from infertool.errors import ConnectionLostError, InfertoolError, OutputError, UsageError
from infertool.net.connection_state import ConnectionEvent, ConnectionState
from infertool.rpc import Call, Client, Reply
from infertool.settings.broker import BrokerSettings
from infertool.telemetry.latencies import Latencies
from infertool.text import json_text

_PROGRESS_S: Final = 0.25
# Wait after a call that found no connection: the next one would not, either. Seconds.
_AFTER_LOSS_S: Final = 0.1
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked. `payload` is the value, of which the codec makes the body."""

    queue: str
    payload: Any
    timeout_s: float
    codec: str
    headers: dict[str, str]
    priority: int | None
    retry: bool


def read_payload(text: str) -> Any:
    """Return the value of a payload as typed: JSON, @FILE, or - for standard input. Raises `UsageError`."""
    name = "standard input" if text == "-" else text
    try:
        if text == "-":
            if sys.stdin.isatty():
                raise UsageError("there is no payload", advice="write JSON, @FILE, or pipe it to standard input")
            body = sys.stdin.buffer.read()
        elif text.startswith("@"):
            body = Path(text[1:]).read_bytes()
        else:
            body, name = text.encode("utf-8", "surrogateescape"), "the payload"
    except OSError as fault:
        raise UsageError(f"{name} cannot be read: {fault.strerror}") from None
    try:
        return json_text.loads_exact(body)
    except json_text.JsonError as error:
        raise UsageError(f"{name} is not JSON: {error}", advice="""a text is written '"text"'""") from None


@dataclass(slots=True)
class Outcome:
    """What became of many calls. `kinds` counts failures by what they are, `texts` by what they say."""

    calls: int = 0
    answered: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)


class Calls:
    """Runs calls until they have ended or a signal stops them."""

    def __init__(self, settings: BrokerSettings, request: Request, *, as_json: bool, quiet: bool) -> None:
        self._request = request
        self._as_json = as_json
        self._quiet = quiet
        self._client = Client(settings, name="infertool-call", on_connection=self._connection_changed)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._outcome = Outcome()
        self._is_lost = False

    def run(self, count: int, concurrency: int) -> None:
        """Call, and print what came. Raises `InfertoolError`; exits with 130 after a signal."""
        try:
            with stopped_by_signals(self._stop, ""):
                try:
                    self._client.connect()
                    if count == 1:
                        self._run_one()
                    else:
                        self._run_many(count, concurrency)
                finally:
                    self._client.close()
        except InfertoolError as error:
            # What a stop brought about is no failure of its own.
            if not self._stopped.is_set() or isinstance(error, OutputError):
                raise
        if self._stopped.is_set():
            sys.exit(console.EXIT_INTERRUPTED)

    def _stop(self) -> None:
        self._stopped.set()
        self._client.close()

    def _start(self) -> Call:
        request = self._request
        try:
            return self._client.call_nowait(
                request.queue, request.payload, timeout_s=request.timeout_s, codec=BY_NAME[request.codec],
                headers=request.headers, priority=request.priority, retry=request.retry,
            )  # fmt: skip
        except EncodeError as error:
            raise UsageError(f"the payload cannot be written as {request.codec}: {error}") from None

    def _run_one(self) -> None:
        try:
            reply = self._start().result()
            document = view.document(reply)
        except InfertoolError as error:
            if self._as_json and not self._stopped.is_set():
                with console.reporting():
                    console.emit_json(view.failure_document(error))
            raise
        with console.reporting():
            if self._as_json:
                console.emit_json(document)
            else:
                console.out_data(view.body(reply))
        if not self._quiet:
            console.err(view.answered(reply))

    def _run_many(self, count: int, concurrency: int) -> None:
        free = threading.Semaphore(concurrency)
        began, rate = time.monotonic(), RecentRate()

        def ended(call: Call) -> None:
            self._note(call)
            free.release()

        with repeated(lambda: self._show(count, rate), _PROGRESS_S):
            for _ in range(count):
                while not free.acquire(timeout=_POLL_S) and not self._stopped.is_set():
                    pass
                if self._stopped.is_set():
                    break
                if self._is_lost and not self._request.retry:
                    self._stopped.wait(_AFTER_LOSS_S)
                self._start().add_done_callback(ended)  # type: ignore[arg-type]  # a future of this kind
            for _ in range(concurrency):
                while not free.acquire(timeout=_POLL_S) and not self._stopped.is_set():
                    pass
        elapsed_s = time.monotonic() - began
        self._report(elapsed_s)

    def _report(self, elapsed_s: float) -> None:
        """Print the sums. Raises an error with the code of the most frequent failure."""
        with self._lock:
            outcome = self._outcome
        document = view.summary_document(outcome, self._client.counts, elapsed_s)
        if sys.stderr.isatty() and not self._quiet:
            console.progress("")
        with console.reporting(f"{outcome.calls} calls were made"):
            if self._as_json:
                console.emit_json(document)
            else:
                console.out(*view.summary(document))
        failed = outcome.calls - outcome.answered
        if failed and not self._stopped.is_set():
            error = InfertoolError(f"{failed} of {outcome.calls} calls were not answered with a result")
            error.exit_code = outcome.codes.most_common(1)[0][0]  # type: ignore[misc]  # of this error alone
            raise error

    def _note(self, call: Call) -> None:
        error = None if call.cancelled() else call.exception()
        if call.cancelled() or (self._stopped.is_set() and isinstance(error, ConnectionLostError)):
            return
        with self._lock:
            outcome = self._outcome
            outcome.calls += 1
            if error is None:
                outcome.answered += 1
                reply: Reply = call.result()
                outcome.latencies.add([reply.elapsed_s])
                return
            outcome.kinds[view.kind(error)] += 1
            outcome.texts[view.text(error)] += 1
            outcome.codes[error.exit_code if isinstance(error, InfertoolError) else 1] += 1

    def _show(self, count: int, rate: RecentRate) -> None:
        if not self._quiet and sys.stderr.isatty():
            with self._lock:
                line = view.progress(self._outcome, count, rate.of(self._outcome.calls))
            console.progress(line)

    def _connection_changed(self, event: ConnectionEvent) -> None:
        if event.state is ConnectionState.LOST and not self._is_lost:
            self._is_lost = True
            console.err(f"lost {event.address}: {event.reason}; connecting again")
        elif event.state is ConnectionState.CONNECTED and self._is_lost:
            self._is_lost = False
            console.err(f"connected again to {event.address}")
