"""The HTTP client of a model server: kept connections, limits on time and size, JSON, and errors by their cause."""

from __future__ import annotations

import logging
import ssl
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import urllib3
from urllib3 import exceptions as u
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.response import BaseHTTPResponse

from infertool import __version__
from infertool.errors import InferenceError, ModelUnavailableError, SettingsError
from infertool.models.remote.endpoint import Endpoint
from infertool.net.tls import ClientTls, certificate_question, explain, openssl_reason
from infertool.settings.tree import ModelSettings
from infertool.text import json_text

# Limit on the pause that a server asks for. Seconds.
LONGEST_PAUSE_S = 600.0

_SERVER_ERROR = 500
_REDIRECTS = range(300, 400)
_UNAVAILABLE = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
    # Not the event's fault either: dead-lettering a whole queue would not repair a token.
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
}


def of_status(status: int, text: str, retry_after: str | None) -> InferenceError:
    """Return the error for an answer other than 2xx. `text` describes it; `retry_after` is that header."""
    pause_s = _pause_s(retry_after) if retry_after else None
    if status in _REDIRECTS:
        return ModelUnavailableError(f"{text}; redirects are not followed: set model.spec", retry_after_s=0.0)
    if status in _UNAVAILABLE or (status >= _SERVER_ERROR and pause_s is not None):
        return ModelUnavailableError(text, retry_after_s=pause_s or 0.0)
    return InferenceError(text, retryable=status >= _SERVER_ERROR)


def of_error(error: u.HTTPError, address: str, *, shown: bool) -> InferenceError:
    """Return the error for a missing or incomplete answer. `shown` is True if a client certificate was sent."""
    match error:
        case u.NameResolutionError():
            return _unavailable(f"the host of {address} is not known")
        case u.ConnectTimeoutError() if not isinstance(error, u.NewConnectionError):
            return _unavailable(f"{address} did not take the connection in time (model.connect_timeout_s)")
        case u.NewConnectionError():
            return _unavailable(f"{address} cannot be reached: {_reason(error)}")
        case u.SSLError():
            return _unavailable(_of_tls(_innermost(error), address, shown=shown))
        case u.ReadTimeoutError():
            return too_slow(address)
        case _:
            return InferenceError(f"{address} broke off: {_reason(error)}")


def too_slow(address: str) -> InferenceError:
    """Return the error for an answer that took too long."""
    return InferenceError(f"{address} did not answer in time (model.timeout_s)")


def _of_tls(fault: BaseException, address: str, *, shown: bool) -> str:
    if not isinstance(fault, ssl.SSLError):
        return f"TLS with {address} failed: {_told(fault)}"
    if known := explain(fault, address, "model", shown=shown):
        return "; ".join(known)
    question = f"; {certificate_question('model', shown=shown)}?" if isinstance(fault, ssl.SSLEOFError) else ""
    return f"TLS with {address} failed: {openssl_reason(fault)}{question}"


def _unavailable(text: str) -> ModelUnavailableError:
    return ModelUnavailableError(text, retry_after_s=0.0)


def _reason(error: BaseException) -> str:
    """Return the message of the operating system or TLS: urllib3 wraps it in object addresses."""
    return _told(_innermost(error))


def _innermost(error: BaseException) -> BaseException:
    inner = error.__cause__ or error.__context__ or next((a for a in error.args if isinstance(a, Exception)), None)
    return error if inner is None or inner is error else _innermost(inner)


def _told(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _pause_s(retry_after: str) -> float | None:
    """Return the seconds in a Retry-After header (number or date); None if it is invalid."""
    try:
        asked = float(retry_after) if retry_after.strip().isdecimal() else _until(retry_after)
    except (ValueError, OverflowError):
        return None
    return min(max(asked, 0.0), LONGEST_PAUSE_S)


def _until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() - time.time()


# Maximum of kept connections; further concurrent calls use connections that are not kept.
MOST_KEPT = 256
# Maximum length of a server's answer that is quoted in an error. Characters.
LONGEST_EXCERPT = 200

_READ_BYTES = 1 << 16


class Client:
    """Sends requests to the server at `origin`. Thread-safe. Errors show the masked address and never a secret."""

    def __init__(self, origin: str, settings: ModelSettings) -> None:
        self._timeout_s = settings.timeout_s
        self._max_bytes = settings.max_response_bytes
        # Its warnings would show whole URLs with their keys.
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        self._tls = ClientTls("model", settings) if origin.startswith("https:") else None
        self._shows_certificate = bool(settings.tls_cert_file)
        self._pool = urllib3.connection_from_url(
            origin,
            maxsize=MOST_KEPT,
            retries=False,
            timeout=urllib3.Timeout(connect=settings.connect_timeout_s, read=settings.timeout_s),
            **({"ssl_context": self._tls.context} if self._tls else {}),
        )
        if not settings.tls_verify:
            urllib3.disable_warnings()

    def close(self) -> None:
        """Close the kept connections."""
        self._pool.close()

    def post(self, endpoint: Endpoint, document: Any) -> Any:
        """POST `document` as JSON; return the decoded answer. Raises `InferenceError`."""
        return _decoded(endpoint, self._ask("POST", endpoint, json_text.dumps(document)))

    def get(self, endpoint: Endpoint) -> Any:
        """GET and return the decoded answer. Raises `InferenceError`."""
        return _decoded(endpoint, self._ask("GET", endpoint, None))

    def check(self, endpoint: Endpoint) -> None:
        """GET, and ignore the body of a 2xx answer. Raises `InferenceError`."""
        self._ask("GET", endpoint, None)

    def _ask(self, method: str, endpoint: Endpoint, body: bytes | None) -> bytes:
        endpoint = self._refreshed(endpoint)
        try:
            try:
                status, headers, content = self._exchange(method, endpoint, body)
            except ProtocolError as error:
                if not _closed_early(error):
                    raise
                # Mostly a kept connection that the server has just closed; a request may be repeated.
                status, headers, content = self._exchange(method, endpoint, body)
        except HTTPError as error:
            raise of_error(error, endpoint.shown, shown=self._shows_certificate) from None
        if not 200 <= status < 300:  # noqa: PLR2004  (2xx)
            text = f"{endpoint.shown} answered {status}{_excerpt(endpoint, content)}"
            raise of_status(status, text, headers.get("retry-after"))
        return content

    def _refreshed(self, endpoint: Endpoint) -> Endpoint:
        """Return `endpoint` with the current contents of the token file; reload changed TLS files.

        Raises `ModelUnavailableError` for an unusable file: the event waits instead of failing.
        """
        try:
            if self._tls and (tls := self._tls.fresh()) is not self._tls:
                # Kept connections stay; new ones present the new certificate.
                self._tls = tls
                self._pool.conn_kw["ssl_context"] = tls.context
            return endpoint.fresh()
        except SettingsError as error:
            raise ModelUnavailableError(str(error), retry_after_s=0.0) from None

    def _exchange(self, method: str, endpoint: Endpoint, body: bytes | None) -> tuple[int, Any, bytes]:
        deadline = time.monotonic() + self._timeout_s
        headers = {"Accept": "application/json", "User-Agent": f"infertool/{__version__}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if endpoint.authorization:
            headers["Authorization"] = endpoint.authorization
        response = self._pool.urlopen(
            method, endpoint.target, body=body, headers=headers, redirect=False, preload_content=False
        )
        try:
            content = self._read(response, endpoint, deadline)
        except BaseException:
            response.close()
            raise
        response.release_conn()
        return response.status, response.headers, content

    def _read(self, response: BaseHTTPResponse, endpoint: Endpoint, deadline: float) -> bytes:
        """Return the body. The deadline is checked between reads, each of which may take the whole timeout."""
        content = bytearray()
        while part := response.read1(_READ_BYTES):
            content += part
            if len(content) > self._max_bytes:
                what = f"{endpoint.shown} answered more than {self._max_bytes} bytes (model.max_response_bytes)"
                raise InferenceError(what, retryable=False)
            if time.monotonic() > deadline:
                raise too_slow(endpoint.shown)
        return bytes(content)


def _decoded(endpoint: Endpoint, content: bytes) -> Any:
    try:
        return json_text.loads(content)
    except json_text.JsonError:
        raise InferenceError(f"{endpoint.shown} answered what is no JSON{_excerpt(endpoint, content)}") from None


def _closed_early(error: ProtocolError) -> bool:
    """Return True if the connection ended before the answer began."""
    return any(isinstance(each, ConnectionError) for each in (*error.args, error.__cause__))


def _excerpt(endpoint: Endpoint, content: bytes) -> str:
    # Masked before it is cut, so that no part of a secret remains.
    excerpt = " ".join(endpoint.masked(content.decode("utf-8", "replace")).split())
    return f": {excerpt[:LONGEST_EXCERPT]}" if excerpt else ""
