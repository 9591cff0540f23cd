"""HTTP POST for sinks: no redirects, bounded time, errors without secrets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import parse_url

from infertool.alerts.sinks.port import SinkError
from infertool.net import basic_auth
from infertool.net.http_faults import hint, reason, wants_tls
from infertool.net.http_pool import Pools, read_body
from infertool.secret import mask_url

_OK: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
# Bytes of an answer that are read, so that its connection can be used again.
_MOST_READ: Final = 65_536


class Poster:
    """Posts to `url`. The user part of the URL is sent as basic authorization.

    `setting` is the setting that names the server, `base` its value.
    """

    def __init__(self, url: str, timeout_s: float, *, setting: str, base: str) -> None:
        try:
            parsed = parse_url(url)
        except LocationParseError:
            raise SinkError(f"{mask_url(url)} is no address") from None
        self._shown = mask_url(url)
        self._timeout_s = timeout_s
        self._setting, self._base = setting, mask_url(base)
        # Until then the port may be one of another protocol.
        self._has_answered = False
        self._url = parsed._replace(auth=None, fragment=None).url
        self._headers = {"content-type": "application/json", "user-agent": "infertool"}
        if parsed.auth:
            self._headers |= basic_auth.header(*basic_auth.in_url(parsed.auth))
        self._pool = Pools(maxsize=1, retries=False, timeout=urllib3.Timeout(connect=timeout_s, read=timeout_s))

    def post(self, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send `body`. Raises `SinkError` if there is no answer of 2xx."""
        try:
            response = self._pool.request(
                "POST",
                self._url,
                body=body,
                headers={**self._headers, **(headers or {})},
                # A hook must not be led to an address inside our network.
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except HTTPError as error:
            if not self._has_answered and (instead := hint(error, self._base, self._setting)):
                raise SinkError("; ".join(instead)) from None
            raise SinkError(f"{self._shown} does not answer: {reason(error)}") from None
        if response.status == HTTPStatus.BAD_REQUEST and not self._has_answered:
            self._check_tls()
        self._has_answered = True
        try:
            if response.status not in _OK:
                note = "; redirects are not followed" if response.status in _REDIRECTS else ""
                raise SinkError(f"{self._shown} answered {response.status}{note}")
            if len(read_body(response, _MOST_READ, time.monotonic() + self._timeout_s)) <= _MOST_READ:
                response.release_conn()
        except HTTPError as error:
            raise SinkError(f"{self._shown} does not answer in full: {reason(error)}") from None
        finally:
            response.close()

    def _check_tls(self) -> None:
        if tls := wants_tls(self._base, self._setting):
            raise SinkError("; ".join(tls))

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()
