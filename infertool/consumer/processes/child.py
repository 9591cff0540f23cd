"""The entry of a worker process: load the model, answer requests, and end when told to.

Run as `python -m infertool.consumer.processes.child CONNECTION PERMITS`, both inherited sockets.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence

from infertool.codec import BY_NAME, JSON, Codec
from infertool.consumer.attempt import Tried, call
from infertool.consumer.batch_calls import batch_function, call_batch
from infertool.consumer.documents import unencodable
from infertool.consumer.processes import wire
from infertool.errors import InfertoolError
from infertool.hangup import lossy, separate_stderr, shield_stderr
from infertool.models import loader, user_code
from infertool.models.loader import open_model
from infertool.models.port import Cached, LoadedModel
from infertool.models.user_code import text_of, type_of
from infertool.telemetry import logs, uncaught
from infertool.text.sanitize import printable

_PAGE = os.sysconf("SC_PAGE_SIZE")


def main(connection_fd: int, permits_fd: int) -> None:
    """Serve until no more permits can come."""
    shield_stderr()
    sys.stdout = lossy(sys.stdout)  # it leads to standard error
    sys.excepthook = uncaught.say_trace
    for number in (signal.SIGINT, signal.SIGTERM):
        # Only the consumer ends this process. Not SIG_IGN: processes that the model starts would inherit it.
        signal.signal(number, lambda *_: None)
    connection = socket.socket(fileno=connection_fd)
    incoming = wire.Incoming(connection)
    config = wire.decode_config(incoming.wait() or sys.exit())
    if config.json_logs:
        _log_as_json()
    separate_stderr()
    try:
        with user_code.kept():
            model = open_model(config.model)
            loader.warm_up(model)
        server = Server(model, config, connection)
    except InfertoolError as error:
        # The name of a file may be no UTF-8.
        texts = map(printable, (error.what, error.advice, traceback.format_exc()))
        wire.send(connection, wire.StartFailed(*texts))
        return
    wire.send(connection, wire.Ready(printable(model.name), model.version(), server.in_batches))
    server.serve(Requests(incoming, socket.socket(fileno=permits_fd)))
    wire.send(connection, wire.Closed(printable(_close(model))))


def _log_as_json() -> None:
    logs.set_up("info", "json")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # printed lines come between the records, in order


def _close(model: LoadedModel) -> str:
    try:
        model.close()
    except BaseException as error:  # noqa: BLE001  (a model may raise anything; all requests are answered)
        return f"{type_of(error)}: {text_of(error)}"
    return ""


class Requests:
    """Iterates over groups to be tried, with their numbers. A group that the iterator has returned has begun."""

    def __init__(self, incoming: wire.Incoming, permits: socket.socket) -> None:
        self._incoming = incoming
        self._permits = permits

    def __iter__(self) -> Iterator[tuple[int, list[bytes], list[Codec]]]:
        """Yield until no more permits can come."""
        request = wire.Request(0, [], [])
        while permit := self._permits.recv(wire.PERMIT_BYTES):
            number = int.from_bytes(permit)
            # The numbers between two permits are those of groups that were taken back.
            while number >= request.first + len(request.groups):
                message = self._incoming.wait()
                if message is None:
                    return
                request = wire.decode_request(message)
            place = number - request.first
            bodies = request.groups[place]
            names = request.codecs[place] if request.codecs else ()
            yield number, bodies, [BY_NAME[name] for name in names] or [JSON] * len(bodies)


class Server:
    """Answers requests with `model`."""

    def __init__(self, model: LoadedModel, config: wire.WorkerConfig, connection: socket.socket) -> None:
        """Raise `ModelLoadError` if the configuration is for batches and the model has no `predict_batch`."""
        self._predict = model.predict
        self._predict_batch = batch_function(model, asked=config.in_batches)
        self.in_batches = self._predict_batch is not None
        self._config = config
        self._connection = connection
        self._tasks = 0
        self._memory = os.open("/proc/self/statm", os.O_RDONLY)
        self._pid = os.getpid()

    def serve(self, requests: Iterable[tuple[int, list[bytes], list[Codec]]]) -> None:
        """Answer requests until they end, or until a limit is reached."""
        for number, bodies, codecs in requests:
            started = time.monotonic()
            tried = self._call(bodies, codecs)
            if os.getpid() != self._pid:
                os._exit(0)  # the model has forked, and this is the copy: the request is not its own
            parts = tried if isinstance(tried, int) else list(map(_part, tried, codecs))
            # It leaves after an answer alone: a batch to be tried in parts would come back whole, for ever.
            leaving = "" if isinstance(parts, int) else self._limit_reached(len(bodies))
            wire.send(self._connection, wire.Reply(number, parts, time.monotonic() - started, leaving))
            if leaving:
                return

    def _call(self, bodies: Sequence[bytes], codecs: Sequence[Codec]) -> list[Tried] | int:
        payloads = [used.decode(body) for body, used in zip(bodies, codecs, strict=True)]
        if self._predict_batch:
            return call_batch(self._predict_batch, payloads)
        return [call(self._predict, payload) for payload in payloads]

    def _limit_reached(self, tasks: int) -> str:
        """Return the limit that is reached after this number of further events, or an empty text."""
        config = self._config
        self._tasks += tasks
        if config.max_tasks and self._tasks >= config.max_tasks:
            return "tasks"
        if config.memory_bytes and int(os.pread(self._memory, 100, 0).split()[1]) * _PAGE > config.memory_bytes:
            return "memory"
        return ""


def _part(tried: Tried, used: Codec) -> wire.Part:
    if tried.failure is not None:
        return wire.Part(b"", tried.processing_s, tried.failure, started=tried.started)
    prediction = tried.prediction
    cached = type(prediction) is Cached  # not isinstance: `__class__` of a proxy may raise
    result = prediction.result if cached else prediction
    try:
        return wire.Part(used.encode(result), tried.processing_s, None, cached, isinstance(result, dict), tried.started)
    except BaseException as error:  # noqa: BLE001  (the result's own code may raise anything)
        return wire.Part(b"", tried.processing_s, unencodable(error), started=tried.started)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
