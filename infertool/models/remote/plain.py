"""The plain protocol: an event is posted as JSON, and the answer's JSON is its result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infertool.errors import InferenceError
from infertool.models.port import Payload
from infertool.models.remote.breaker import Breaker
from infertool.models.remote.client import Client
from infertool.models.remote.endpoint import Endpoint


class PlainModel:
    """`POST` of one event, or of a batch as an array that is answered with an array in its order."""

    def __init__(self, client: Client, breaker: Breaker, endpoint: Endpoint) -> None:
        self._client = client
        self._breaker = breaker
        self._endpoint = endpoint

    def predict(self, payload: Payload) -> Any:
        """Return the server's answer."""
        return self._breaker.call(lambda: self._client.post(self._endpoint, payload))

    def predict_batch(self, payloads: Sequence[Payload]) -> Sequence[Any]:
        """Return the server's answers."""
        return self._breaker.call(lambda: self._ask(list(payloads)), events=len(payloads))

    def warm_up(self) -> None:
        """Do nothing: the protocol has no question about readiness, and the circuit waits for a server that is away."""

    def _ask(self, payloads: Sequence[Payload]) -> Sequence[Any]:
        answers = self._client.post(self._endpoint, payloads)
        if isinstance(answers, list) and len(answers) == len(payloads):
            return answers
        got = f"{len(answers)} results" if isinstance(answers, list) else "no array"
        raise InferenceError(f"{self._endpoint.shown} answered a batch of {len(payloads)} events with {got}")
