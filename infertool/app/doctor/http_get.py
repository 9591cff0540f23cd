"""One GET to a server of the settings: no redirects, a bounded answer, errors without secrets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import parse_url

from infertool.errors import UnreachableError
from infertool.net import basic_auth
from infertool.net.http_faults import hint, reason, wants_tls
from infertool.net.http_pool import Pools, read_body
from infertool.secret import mask_url

_MOST_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of an answer with status 200, the address that gave it, and the time it took."""

    body: bytes
    address: str
    took_s: float


def get(url: str, path: str, timeout_s: float, *, setting: str, advice: str) -> Answer:
    """Get `path` below `url`, whose user part is sent as basic authorization.

    Raises `UnreachableError`, with `advice`, where there is no answer with status 200.
    """
    shown = mask_url(url)
    began = time.monotonic()
    try:
        parts = parse_url(url)
        base = (parts._replace(auth=None, query=None, fragment=None).url or "").rstrip("/")
        login = basic_auth.header(*basic_auth.in_url(parts.auth)) if parts.auth else {}
        headers = {"user-agent": "infertool-doctor", **login}
        with Pools(retries=False, timeout=urllib3.Timeout(timeout_s)) as pool:
            response = pool.request("GET", base + path, headers=headers, redirect=False, preload_content=False)
            body = read_body(response, _MOST_BYTES, time.monotonic() + timeout_s)
            response.close()
    except LocationParseError:
        raise UnreachableError(f"{shown} is no address", address=shown, advice=advice) from None
    except HTTPError as fault:
        what, advice = hint(fault, shown, setting) or (f"{shown} does not answer: {reason(fault)}", advice)
        raise UnreachableError(what, address=shown, advice=advice) from None
    if response.status == HTTPStatus.BAD_REQUEST and (tls := wants_tls(shown, setting)):
        raise UnreachableError(tls[0], address=shown, advice=tls[1])
    if response.status != HTTPStatus.OK:
        raise UnreachableError(f"{shown} answered {response.status}", address=shown, advice=advice)
    return Answer(body, shown, time.monotonic() - began)
