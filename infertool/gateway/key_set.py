"""The key set (JWKS) of whoever signs tokens: fetched beside the event loop, kept, and refreshed.

A set that was read once holds until a newer one comes: a server of keys that is away stops nobody whose key is known.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import math
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from infertool.gateway import off_loop
from infertool.gateway.problem import Problem, Reason
from infertool.net.http_response import FinalResponse
from infertool.secret import mask_url

if TYPE_CHECKING:
    from infertool.gateway.signing_keys import SigningKey

_log = logging.getLogger("infertool")

FETCH_S: Final = 5.0
LEAST_PAUSE_S: Final = 10.0
REFRESH_S: Final = 300.0
_SILENCE_S: Final = 3.0
_LARGEST: Final = 1_048_576


class KeySet:
    """The keys of a URL. For one event loop."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._keys: Sequence[SigningKey] | None = None
        self._tried_at = -math.inf
        self._fetching: asyncio.Future[Sequence[SigningKey]] | None = None
        self._fetch: _Fetch | None = None
        self.generation = 0
        self.fault = ""
        if not is_safe(url):
            _log.warning(
                "gateway.jwks_url %s is read without TLS: others on the network can forge tokens", mask_url(url)
            )

    @property
    def is_known(self) -> bool:
        """Return True if a set was read."""
        return self._keys is not None

    async def find(self, kid: str, algorithm: str) -> SigningKey | None:
        """Return the key that may verify a token, or None. Raises `Problem` if no set was ever read.

        An unknown `kid` has the set fetched again, at most each 10 s. A token without one is taken where one key fits.
        """
        if self._keys is None:
            await self._refresh()
            if self._keys is None:
                pause_s = max(1, math.ceil(self._tried_at + LEAST_PAUSE_S - self._clock()))
                raise Problem(Reason.KEY_SET_AWAY, retry_after_s=pause_s)
        self.keep_fresh()
        fitting = self._fitting(kid, algorithm)
        if not fitting and kid:
            await self._refresh()
            fitting = self._fitting(kid, algorithm)
        return fitting[0] if len(fitting) == 1 else None

    def keep_fresh(self) -> None:
        """Have the set fetched again if it is old. Returns at once."""
        if self._clock() - self._tried_at > REFRESH_S:
            self._begin()

    def _fitting(self, kid: str, algorithm: str) -> list[SigningKey]:
        return [key for key in self._keys or () if algorithm in key.algorithms and kid in {key.kid, ""}]

    async def _refresh(self) -> None:
        """Wait for the fetch under way, or for a new one if the last was long enough ago; not past its time."""
        self._begin()
        if self._fetching is not None:
            left_s = self._tried_at + FETCH_S - self._clock()
            if left_s > 0:
                await asyncio.wait({self._fetching}, timeout=left_s)
            elif self._fetch is not None:
                self._fetch.abort()

    def _begin(self) -> None:
        if self._fetching is not None or self._clock() - self._tried_at < LEAST_PAUSE_S:
            return
        self._tried_at = self._clock()
        self._fetch = _Fetch(self._url)
        self._fetching = off_loop.start(self._fetch.run, "gateway-key-set")
        self._fetching.add_done_callback(self._fetched)
        asyncio.get_running_loop().call_later(FETCH_S, self._fetch.abort)

    def _fetched(self, done: asyncio.Future[Sequence[SigningKey]]) -> None:
        self._fetching = self._fetch = None
        if done.cancelled():
            return
        if (fault := done.exception()) is None:
            if self.fault:
                _log.info("the key set %s was read again", mask_url(self._url))
            self._keys, self.fault = done.result(), ""
            self.generation += 1
            return
        what = str(fault) or type(fault).__name__
        if what != self.fault:
            held = "the last set that was read holds" if self.is_known else "tokens are refused until it can be read"
            _log.warning("the key set %s cannot be read: %s; %s", mask_url(self._url), what, held)
        self.fault = what


def is_safe(url: str) -> bool:
    """Return True unless others on the way can exchange the set: it comes by TLS, or from this machine."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "https" or parts.hostname == "localhost":
            return True
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def fetch(url: str) -> Sequence[SigningKey]:
    """Return the keys of a set, read now, on this thread. Raises `OSError` or `ValueError`."""
    return _Fetch(url).run()


class _Fetch:
    """One GET of the set. Redirects are not followed: the URL of the settings alone is trusted."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: http.client.HTTPConnection | None = None
        self._deadline = time.monotonic() + FETCH_S

    def run(self) -> Sequence[SigningKey]:
        """Return the keys. Raises `OSError` or `ValueError`."""
        body = self._get()
        from infertool.gateway import signing_keys  # noqa: PLC0415  (slow to import, so here, beside the loop)

        return signing_keys.parse(body)

    def abort(self) -> None:
        """End a fetch that takes too long: its thread must not stay in a read of a server that trickles."""
        if self._connection is not None and self._connection.sock is not None:
            with suppress(OSError):
                # Not the method of a TLS socket, which would take its state from under the reading thread.
                socket.socket.shutdown(self._connection.sock, socket.SHUT_RDWR)

    def _get(self) -> bytes:
        parts = urlsplit(self._url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=_SILENCE_S, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=_SILENCE_S)
        connection.response_class = FinalResponse
        self._connection = connection
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", path, headers={"Accept": "application/json", "User-Agent": "infertool"})
            answer = connection.getresponse()
            if answer.status != HTTPStatus.OK:
                raise ValueError(f"it answered {answer.status}")
            return self._body(answer)
        except http.client.HTTPException as error:
            raise ValueError(f"what answers does not speak HTTP: {type(error).__name__}") from None
        finally:
            connection.close()

    def _body(self, answer: http.client.HTTPResponse) -> bytes:
        body = bytearray()
        while part := answer.read1(65_536):
            body += part
            if len(body) > _LARGEST:
                raise ValueError(f"it is larger than {_LARGEST} bytes")
            if time.monotonic() > self._deadline:
                raise TimeoutError(f"it did not arrive within {FETCH_S:g} s")
        if answer.length or time.monotonic() > self._deadline:
            raise ValueError("it did not arrive as a whole")
        return bytes(body)
