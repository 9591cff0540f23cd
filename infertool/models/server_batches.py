"""Batches to a model server: parts of the size that it takes, and events that fail alone.

A server that takes fewer events in a request says so when it refuses one (Triton: "batch-size must be <= 8"), or
answers 413. From then on batches are sent in parts.

An event fails alone where the server says which: in a 207 answer, whose elements have a `status` and a `body` each, or
by the field `model.error_field` of its result.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeVar

from infertool.errors import InferenceError, ModelUnavailableError
from infertool.models.batch_results import WrongResultsError
from infertool.models.server_client import Endpoint, RequestTooLargeError, excerpt_of, of_status
from infertool.telemetry.logs import log
from infertool.text import json_text

T = TypeVar("T")
R = TypeVar("R")

# Asks for a 207 answer where events of a batch fail; servers that do not know it ignore it.
PREFER: Final = {"Prefer": "multi-status"}
# Wait of an event that the server cannot take now, if it does not say how long. Seconds.
HOLD_S: Final = 0.5

_LIMIT: Final = re.compile(r"batch[- ]?size must be <= (\d+)|batch has at most (\d+) events")


# After this number of requests that the server takes, parts that a 413 made smaller are twice as large: one large event
# may have been the cause.
GROW_AFTER: Final = 50


class Parts:
    """The most events that a server takes in one request. Thread-safe."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._most = self._least_most = sys.maxsize
        self._has_told = False
        self._taken = 0

    def ask(self, items: Sequence[T], send: Callable[[Sequence[T]], Sequence[R]]) -> list[R]:
        """Return the results of `send` for `items`, in as few parts as the server takes. Raises `InferenceError`."""
        results: list[R] = []
        while len(results) < len(items):
            part = items[len(results) : len(results) + self._most]
            try:
                results += send(part)
            except InferenceError as error:
                if not self._learn(error, len(part)):
                    raise
            else:
                self._grow(len(part))
        return results

    def _grow(self, count: int) -> None:
        if count < self._most or self._has_told:
            return
        self._taken += 1
        if self._taken >= GROW_AFTER:
            self._taken, self._most = 0, 2 * self._most

    def _learn(self, error: InferenceError, count: int) -> bool:
        """Return True if the server refused a request for its size: smaller parts make sense."""
        told = _LIMIT.search(str(error))
        most = int(told[1] or told[2]) if told else 0
        if not told and isinstance(error, RequestTooLargeError):
            most = count // 2
        if not 0 < most < count:
            return False
        self._has_told = self._has_told or bool(told)
        self._taken, self._most = 0, min(self._most, most)
        if self._most < self._least_most:
            self._least_most = self._most
            log.info("model %s takes %s events in a request: batches are sent in parts", self._address, self._most)
        return True


class Results:
    """Takes the results of events, or their errors, out of a server's answers. `error_field` marks a failed one."""

    def __init__(self, endpoint: Endpoint, error_field: str) -> None:
        self._endpoint = endpoint
        self._error_field = error_field

    def of_event(self, answer: Any) -> Any:
        """Return the result of one event. Raises `InferenceError` for one that is marked as failed."""
        if error := self._marked(answer):
            raise error
        return answer

    def of_batch(self, status: int, answers: Any, count: int) -> list[Any]:
        """Return the result of each event of a batch, or its error. Raises `InferenceError` for a broken answer."""
        if not isinstance(answers, list) or len(answers) != count:
            got = f"{len(answers)} results" if isinstance(answers, list) else "no array"
            what = f"{self._endpoint.shown} answered a batch of {count} events with {got}"
            raise WrongResultsError(what, retryable=True)
        if status == HTTPStatus.MULTI_STATUS:
            results = [self._of_part(each) for each in answers]
            if count == 1 and isinstance(results[0], InferenceError):
                raise results[0]  # so that the circuit breaker learns of it
            return results
        return [self._marked(each) or each for each in answers] if self._error_field else answers

    def _of_part(self, part: Any) -> Any:
        """Return the result in a part of a 207 answer, or the error that its status means."""
        status = part.get("status") if isinstance(part, dict) else None
        if type(status) is not int:
            return InferenceError(f"{self._endpoint.shown} answered 207 with a part that has no status")
        body = part.get("body")
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return self._marked(body) or body
        pause_s = body.get("retry_after_s") if isinstance(body, dict) else None
        error = of_status(status, f"{self._endpoint.shown} answered {status}{self._excerpt(body)}", _header(pause_s))
        if isinstance(error, ModelUnavailableError) and not error.retry_after_s:
            return ModelUnavailableError(str(error), retry_after_s=HOLD_S)
        return error

    def _marked(self, answer: Any) -> InferenceError | None:
        """Return the error of a result that `error_field` marks as failed."""
        told = answer.get(self._error_field) if self._error_field and isinstance(answer, dict) else None
        if told is None or told is False or told == "":
            return None
        text = f"{self._endpoint.shown} answered with an error{self._excerpt(told)}"
        return InferenceError(text, retryable=answer.get("retryable") is not False)

    def _excerpt(self, told: Any) -> str:
        if isinstance(told, Mapping):
            told = next((told[name] for name in ("detail", "error", "message", "title") if told.get(name)), told)
        return excerpt_of(self._endpoint, told.encode() if isinstance(told, str) else json_text.dumps(told))


def _header(pause_s: Any) -> str | None:
    return str(pause_s) if type(pause_s) in {int, float} else None
