"""The HTTP client of a model server: its address, kept connections, limits on time and size, errors by their cause."""

from __future__ import annotations

import logging
import math
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import quote, unquote, unquote_plus

import urllib3
from urllib3 import exceptions
from urllib3.exceptions import HTTPError, LocationParseError, ProtocolError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Url, parse_url

from infertool import __version__
from infertool.errors import InferenceError, ModelLoadError, ModelUnavailableError, SettingsError
from infertool.ipv6 import bracketed_url
from infertool.net import basic_auth, http_pool
from infertool.net.http_faults import hint, innermost, reason, wants_tls
from infertool.net.retry_after import seconds as retry_after_s
from infertool.net.tls import ClientTls, certificate_question, explain, openssl_reason
from infertool.secret import MASK, Secret, is_telling, mask_url
from infertool.settings.tree import ModelSettings
from infertool.text import json_text

_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An http(s) address. `query` may hold a key. `token` may come from a file, which `fresh` reads again."""

    origin: str
    path: str
    query: str = field(repr=False)
    token: Secret
    basic: Secret
    in_url: tuple[Secret, ...]

    @property
    def target(self) -> str:
        """The path with the query."""
        return f"{self.path}{self.query}"

    @property
    def shown(self) -> str:
        """The address with secrets masked."""
        return mask_url(f"{self.origin}{self.target}")

    @property
    def authorization(self) -> str:
        """The Authorization header's value, for the wire only; empty if none is sent."""
        if self.token:
            return f"Bearer {self.token.reveal()}"
        return f"Basic {self.basic.reveal()}" if self.basic else ""

    def fresh(self) -> Self:
        """Return the address with the current token, for one request. Raises `SettingsError`."""
        token = self.token.fixed()
        _check(token)
        return replace(self, token=token)

    def at(self, path: str) -> Self:
        """Return another path of the same server."""
        return replace(self, path=path)

    def masked(self, text: str) -> str:
        """Return `text`, which the server sent, with our secrets masked."""
        for secret in filter(None, (self.token, self.basic, *self.in_url)):
            for written in _spellings(secret.reveal()):
                text = text.replace(written, MASK)
        return text


def endpoint(settings: ModelSettings) -> Endpoint:
    """Return the address in `model.spec`, with `model.token` or the URL's user part. Raises `ModelLoadError`."""
    if meant := bracketed_url(settings.spec):
        what = "model.spec names an IPv6 address, which needs brackets"
        raise ModelLoadError(what, spec=meant, advice=f"write {meant}")
    try:
        url = parse_url(settings.spec)
    except LocationParseError:
        raise _error(settings.spec, "is no address") from None
    if not url.host:
        raise _error(settings.spec, "names no host")
    try:
        _check(settings.token)
    except SettingsError as error:
        raise _error(settings.spec, f"cannot be asked: {error.what}") from None
    return Endpoint(
        origin=f"{url.scheme}://{url.netloc}",
        path=url.path or "/",
        query=f"?{url.query}" if url.query else "",
        token=settings.token,
        basic=Secret(basic_auth.token(*basic_auth.in_url(url.auth)) if url.auth else ""),
        in_url=tuple(map(Secret, _in_url(url))),
    )


def _check(token: Secret) -> None:
    if not _HEADER_VALUE.fullmatch(token.reveal()):
        raise SettingsError("model.token holds what a header cannot carry", key="model.token")


def _in_url(url: Url) -> Iterator[str]:
    """Yield the secrets in an address, as written and decoded."""
    user, colon, password = (url.auth or "").partition(":")
    pairs = (pair.partition("=") for pair in (url.query or "").split("&"))
    in_query = (value for name, _, value in pairs if is_telling(name))
    for secret in (password if colon else user, *in_query):
        yield from {secret, unquote(secret), unquote_plus(secret)}


def _spellings(secret: str) -> tuple[str, ...]:
    """Return the forms in which a server may repeat `secret`: plain, URL-encoded, JSON with escaped slashes."""
    return secret, quote(secret, safe=""), secret.replace("/", "\\/")


def _error(url: str, what: str) -> ModelLoadError:
    return ModelLoadError(
        f"model {mask_url(url)} {what}", spec=mask_url(url), advice="write it as http://host:8080/path"
    )


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


class RequestTooLargeError(InferenceError):
    """The server refuses a request for its size."""


def of_status(status: int, text: str, retry_after: str | None) -> InferenceError:
    """Return the error for an answer other than 2xx. `text` describes it; `retry_after` is that header."""
    asked_s = retry_after_s(retry_after)
    pause_s = None if asked_s is None else min(asked_s, LONGEST_PAUSE_S)
    if status in _REDIRECTS:
        return ModelUnavailableError(f"{text}; redirects are not followed: set model.spec", retry_after_s=0.0)
    if status in _UNAVAILABLE or (status >= _SERVER_ERROR and pause_s is not None):
        return ModelUnavailableError(text, retry_after_s=pause_s or 0.0)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return RequestTooLargeError(text, retryable=False)
    return InferenceError(text, retryable=status >= _SERVER_ERROR)


def of_error(error: exceptions.HTTPError, address: str, *, shown: bool) -> InferenceError:
    """Return the error for a missing or incomplete answer. `shown` is True if a client certificate was sent."""
    match error:
        case exceptions.NameResolutionError():
            return _unavailable(f"the host of {address} is not known")
        case exceptions.ConnectTimeoutError() if not isinstance(error, exceptions.NewConnectionError):
            return _unavailable(f"{address} did not take the connection in time (model.connect_timeout_s)")
        case exceptions.NewConnectionError():
            return _unavailable(f"{address} cannot be reached: {reason(error)}")
        case exceptions.SSLError():
            return _unavailable(_of_tls(innermost(error), address, shown=shown))
        case exceptions.ReadTimeoutError():
            return too_slow(address)
        case _:
            return InferenceError(f"{address} broke off: {reason(error)}")


def too_slow(address: str) -> InferenceError:
    """Return the error for an answer that took too long."""
    return InferenceError(f"{address} did not answer in time (model.timeout_s)")


def _of_tls(fault: BaseException, address: str, *, shown: bool) -> str:
    if not isinstance(fault, ssl.SSLError):
        return f"TLS with {address} failed: {reason(fault)}"
    if known := explain(fault, address, "model", shown=shown):
        return "; ".join(known)
    question = f"; {certificate_question('model', shown=shown)}?" if isinstance(fault, ssl.SSLEOFError) else ""
    return f"TLS with {address} failed: {openssl_reason(fault)}{question}"


def _unavailable(text: str) -> ModelUnavailableError:
    return ModelUnavailableError(text, retry_after_s=0.0)


# Maximum of kept connections; further concurrent calls use connections that are not kept.
MOST_KEPT = 256
# Maximum length of a server's answer that is quoted in an error. Characters.
LONGEST_EXCERPT = 200

_READ_BYTES = 1 << 16
_SETTING = "model.spec"
# The server is not asked what it speaks for this many times as long as the last question took.
_HINT_SHARE = 10.0
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Client:
    """Sends requests to the server at `origin`. Thread-safe. Errors show the masked address and never a secret."""

    def __init__(self, origin: str, settings: ModelSettings) -> None:
        self._timeout_s = settings.timeout_s
        self._max_bytes = settings.max_response_bytes
        # Its warnings would show whole URLs with their keys.
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        self._tls = ClientTls("model", settings) if origin.startswith("https:") else None
        self._shows_certificate = bool(settings.tls_cert_file)
        # Until then the port may be one of another protocol.
        self._has_answered = False
        self._hint: tuple[str, str] | None = None
        self._next_hint_at = 0.0
        # Endpoints have other paths.
        self._spec = mask_url(settings.spec)
        self._pool = http_pool.whole_pool(
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

    def post(self, endpoint: Endpoint, body: bytes) -> Any:
        """POST JSON; return the decoded answer. Raises `InferenceError`."""
        return self.exchange(endpoint, body, {})[1]

    def exchange(self, endpoint: Endpoint, body: bytes, headers: Mapping[str, str]) -> tuple[int, Any]:
        """POST JSON; return the status and the decoded answer. Raises `InferenceError`."""
        status, content = self._ask("POST", endpoint, body, headers)
        return status, _decoded(endpoint, content)

    def get(self, endpoint: Endpoint) -> Any:
        """GET and return the decoded answer. Raises `InferenceError`."""
        return _decoded(endpoint, self._ask("GET", endpoint, None)[1])

    def check(self, endpoint: Endpoint) -> None:
        """GET, and ignore the body of a 2xx answer. Raises `InferenceError`."""
        self._ask("GET", endpoint, None)

    def _ask(
        self, method: str, endpoint: Endpoint, body: bytes | None, more: Mapping[str, str] = _NO_HEADERS
    ) -> tuple[int, bytes]:
        endpoint = self._refreshed(endpoint)
        try:
            try:
                status, headers, content = self._exchange(method, endpoint, body, more)
            except ProtocolError as error:
                if not _closed_early(error):
                    raise
                # Mostly a kept connection that the server has just closed; a request may be repeated.
                status, headers, content = self._exchange(method, endpoint, body, more)
        except HTTPError as error:
            if instead := self._instead(error):
                raise _unavailable("; ".join(instead)) from None
            raise of_error(error, endpoint.shown, shown=self._shows_certificate) from None
        if status == HTTPStatus.BAD_REQUEST and not self._has_answered and (tls := wants_tls(self._spec, _SETTING)):
            raise _unavailable("; ".join(tls))
        self._has_answered = True
        if not 200 <= status < 300:  # noqa: PLR2004  (2xx)
            text = f"{endpoint.shown} answered {status}{excerpt_of(endpoint, content)}"
            raise of_status(status, text, headers.get("retry-after"))
        return status, content

    def _instead(self, error: HTTPError) -> tuple[str, str] | None:
        """Return what the server speaks in place of HTTP, as `hint`. To ask it takes a tenth of the time at most."""
        if self._has_answered:
            return None
        began = time.monotonic()
        if began >= self._next_hint_at:
            self._next_hint_at = math.inf  # one thread asks
            self._hint = hint(error, self._spec, _SETTING, self._tls.context if self._tls else None)
            now = time.monotonic()
            self._next_hint_at = now + _HINT_SHARE * (now - began)
        return self._hint

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

    def _exchange(
        self, method: str, endpoint: Endpoint, body: bytes | None, more: Mapping[str, str]
    ) -> tuple[int, Any, bytes]:
        deadline = time.monotonic() + self._timeout_s
        headers = {"Accept": "application/json", "User-Agent": f"infertool/{__version__}", **more}
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
        """Return the body. The deadline covers the connection and the request, too."""
        content = bytearray()
        while part := response.read1(_READ_BYTES):
            content += part
            if len(content) > self._max_bytes:
                what = f"{endpoint.shown} answered more than {self._max_bytes} bytes (model.max_response_bytes)"
                raise InferenceError(what, retryable=False)
            if time.monotonic() > deadline:
                raise too_slow(endpoint.shown)
        return bytes(content)


def as_json(document: Any) -> bytes:
    """Return the body of a request. Raises `InferenceError`: events of MessagePack, or nested deep, may be no JSON."""
    try:
        return json_text.dumps(document)
    except (TypeError, RecursionError) as error:
        raise InferenceError(f"the event cannot be sent as JSON: {error}", retryable=False) from None


def _decoded(endpoint: Endpoint, content: bytes) -> Any:
    try:
        return json_text.loads_exact(content)
    except json_text.JsonError:
        raise InferenceError(f"{endpoint.shown} answered what is no JSON{excerpt_of(endpoint, content)}") from None


def _closed_early(error: ProtocolError) -> bool:
    """Return True if the connection ended before the answer began."""
    return any(isinstance(each, ConnectionError) for each in (*error.args, error.__cause__))


def excerpt_of(endpoint: Endpoint, content: bytes) -> str:
    """Return the beginning of a server's words, to be appended to an error; empty if there are none."""
    # Masked before it is cut, so that no part of a secret remains.
    excerpt = " ".join(endpoint.masked(content.decode("utf-8", "replace")).split())
    return f": {excerpt[:LONGEST_EXCERPT]}" if excerpt else ""
