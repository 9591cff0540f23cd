"""Refusals, as RFC 9457 problems with a stable `reason`."""

from __future__ import annotations

from enum import Enum
from http import HTTPStatus
from typing import Any

from infertool.errors import InfertoolError

CONTENT_TYPE = "application/problem+json"


class Reason(Enum):
    """Why a request is refused: the name, in lower case, is `reason`; the value is the status and the title."""

    BODY_TOO_LARGE = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large")
    BODY_TIMEOUT = (HTTPStatus.REQUEST_TIMEOUT, "The body did not arrive in time")
    CONTENT_TYPE = (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The content type is not understood")
    INVALID_BODY = (HTTPStatus.BAD_REQUEST, "The body cannot be read")
    INVALID_HEADER = (HTTPStatus.BAD_REQUEST, "A header cannot be understood")
    INVALID_PARAMETER = (HTTPStatus.BAD_REQUEST, "A parameter cannot be understood")
    UNAUTHENTICATED = (HTTPStatus.UNAUTHORIZED, "Credentials are needed")
    INVALID_CREDENTIALS = (HTTPStatus.UNAUTHORIZED, "The credentials are not accepted")
    TOO_MANY_FAILURES = (HTTPStatus.TOO_MANY_REQUESTS, "Too many wrong credentials came from this address")
    KEY_SET_AWAY = (HTTPStatus.SERVICE_UNAVAILABLE, "The key set that signs tokens cannot be read")
    MODEL_FORBIDDEN = (HTTPStatus.FORBIDDEN, "This client may not use the model")
    CLASS_FORBIDDEN = (HTTPStatus.FORBIDDEN, "This client may not use the class")
    UNKNOWN_MODEL = (HTTPStatus.NOT_FOUND, "There is no such model")
    UNKNOWN_CLASS = (HTTPStatus.BAD_REQUEST, "There is no such class")
    NOT_FOUND = (HTTPStatus.NOT_FOUND, "There is nothing at this path")
    METHOD_NOT_ALLOWED = (HTTPStatus.METHOD_NOT_ALLOWED, "The path does not take this method")
    UNKNOWN_REQUEST = (HTTPStatus.NOT_FOUND, "There is no such request")
    GONE = (HTTPStatus.GONE, "The request ended, and its result is not kept any more")
    NOT_ACCEPTABLE = (HTTPStatus.NOT_ACCEPTABLE, "No accepted content type is available")
    RATE_LIMITED = (HTTPStatus.TOO_MANY_REQUESTS, "This client sends requests too fast")
    TOO_MANY_IN_FLIGHT = (HTTPStatus.TOO_MANY_REQUESTS, "This client has too many requests in flight")
    TOO_MANY_BYTES = (HTTPStatus.TOO_MANY_REQUESTS, "This client has too many bytes in flight")
    IDEMPOTENCY_KEY_INVALID = (HTTPStatus.BAD_REQUEST, "The idempotency key cannot be used")
    IDEMPOTENCY_KEY_REUSED = (HTTPStatus.UNPROCESSABLE_ENTITY, "The idempotency key belongs to another request")
    WEBHOOK_REFUSED = (HTTPStatus.BAD_REQUEST, "The webhook's URL is not allowed")
    OVER_BUDGET = (HTTPStatus.TOO_MANY_REQUESTS, "The wait would be longer than the class allows")
    DEADLINE_TOO_EARLY = (HTTPStatus.TOO_MANY_REQUESTS, "The wait would be longer than the request allows")
    FULL = (HTTPStatus.TOO_MANY_REQUESTS, "The gateway holds as many requests as it can")
    BROKER_AWAY = (HTTPStatus.SERVICE_UNAVAILABLE, "The broker cannot be reached")
    STORE_AWAY = (HTTPStatus.SERVICE_UNAVAILABLE, "The store of requests cannot be written")
    DRAINING = (HTTPStatus.SERVICE_UNAVAILABLE, "The gateway is stopping")
    INFERENCE_FAILED = (HTTPStatus.INTERNAL_SERVER_ERROR, "The inference failed")
    INPUT_REFUSED = (HTTPStatus.UNPROCESSABLE_ENTITY, "The model cannot process this input")
    EXPIRED = (HTTPStatus.GATEWAY_TIMEOUT, "The request's deadline passed before its result came")
    CANCELLED = (HTTPStatus.CONFLICT, "The request was cancelled")
    INVALID_HTTP = (HTTPStatus.BAD_REQUEST, "The request is not valid HTTP")
    HEADERS_TOO_LARGE = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large")
    HEADER_TIMEOUT = (HTTPStatus.REQUEST_TIMEOUT, "The headers did not arrive in time")
    TOO_MANY_CONNECTIONS = (HTTPStatus.SERVICE_UNAVAILABLE, "The gateway has as many connections as it can")
    INTERNAL = (HTTPStatus.INTERNAL_SERVER_ERROR, "The gateway has a fault")

    @property
    def status(self) -> HTTPStatus:
        """The status of the response."""
        return self.value[0]

    @property
    def title(self) -> str:
        """The sentence for people."""
        return self.value[1]


class Problem(InfertoolError):  # noqa: N818  (the name of RFC 9457)
    """A refusal.

    `retry_after_s`: another try makes sense after this time; None where none would help, or the time is unknown.
    `members` are further members of the problem document, and `headers` further headers of the response.
    """

    def __init__(
        self,
        reason: Reason,
        detail: str = "",
        *,
        retry_after_s: int | None = None,
        members: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail or reason.title)
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.members = members or {}
        self.headers = headers or {}

    def document(self) -> dict[str, Any]:
        """Return the members of the problem document."""
        found: dict[str, Any] = {
            "type": "about:blank",
            "title": self.reason.title,
            "status": self.reason.status.value,
            "reason": self.reason.name.lower(),
        }
        if self.detail:
            found["detail"] = self.detail
        if self.retry_after_s is not None:
            found["retry_after_s"] = self.retry_after_s
        return found | self.members
