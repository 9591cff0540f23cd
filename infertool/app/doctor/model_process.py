"""The process that tries a model: it loads, warms up, and answers one event. A model may crash it, or hang.

Run as `python -m infertool.app.doctor.model_process CONNECTION`, an inherited socket.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from infertool.errors import InfertoolError
from infertool.models import loader, user_code
from infertool.models.loader import open_model
from infertool.models.user_code import text_of, type_of
from infertool.settings import ModelSettings
from infertool.text import json_text

T = TypeVar("T")
_SHOWN: Final = 120
_HEADER_BYTES: Final = 8


class Trial(msgspec.Struct, frozen=True):
    """What to try: a model, and the event as JSON."""

    model: ModelSettings
    sample: bytes


class Step(msgspec.Struct, frozen=True):
    """How one step went. `text` is the model's name or its result; `error` what happened instead."""

    name: str
    took_s: float
    text: str = ""
    error: str = ""
    advice: str = ""


STEPS: Final = ("model.load", "model.warm_up", "model.sample")
_encode = msgspec.msgpack.Encoder().encode
_decode_trial = msgspec.msgpack.Decoder(Trial).decode
decode_step = msgspec.msgpack.Decoder(Step).decode


def send(connection: socket.socket, message: msgspec.Struct) -> None:
    """Send a message with its length. Raises OSError."""
    content = _encode(message)
    connection.sendall(len(content).to_bytes(_HEADER_BYTES) + content)


def receive(connection: socket.socket) -> bytes:
    """Return the next message; empty at the end of the connection. Raises OSError."""
    head = _exactly(connection, _HEADER_BYTES)
    return _exactly(connection, int.from_bytes(head)) if len(head) == _HEADER_BYTES else b""


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := connection.recv(count - len(data))):
        data += more
    return data


def main(descriptor: int) -> None:
    """Try the model, and tell of each step."""
    # Only doctor ends this process.
    signal.signal(signal.SIGINT, lambda *_: None)
    connection = socket.socket(fileno=descriptor)
    trial = _decode_trial(receive(connection))
    with user_code.kept():
        model = _step(connection, STEPS[0], lambda: open_model(trial.model), lambda model: model.name)
        _step(connection, STEPS[1], lambda: loader.warm_up(model), lambda _: "")
        payload = json_text.loads(trial.sample)
        _step(connection, STEPS[2], lambda: model.predict(payload), _shown)
    # What the model left running must not keep this process.
    sys.stdout.flush()
    os._exit(0)


def _step(connection: socket.socket, name: str, work: Callable[[], T], text: Callable[[T], str]) -> T:
    """Do one step; what it raises ends the process."""
    began = time.monotonic()
    error = advice = ""
    try:
        result = work()
        shown = text(result)
    except InfertoolError as fault:
        error, advice = fault.what, fault.advice
    except BaseException as fault:  # noqa: BLE001  (a model may raise anything)
        error = f"{type_of(fault)}: {text_of(fault)}"
    took_s = time.monotonic() - began
    if error:
        send(connection, Step(name, took_s, error=error, advice=advice))
        os._exit(1)
    send(connection, Step(name, took_s, text=shown))
    return result


def _shown(result: object) -> str:
    text = json_text.dumps(result).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


if __name__ == "__main__":
    main(int(sys.argv[1]))
