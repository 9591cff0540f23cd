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
from infertool.secret import mask_url

_MOST_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of an answer with status 200, the address that gave it, and the time it took."""

    body: bytes
    address: str
    took_s: float


def get(url: str, path: str, timeout_s: float, *, hint: str) -> Answer:
    """Get `path` below `url`, whose user part is sent as basic authorization.

    Raises `UnreachableError`, with `hint` as its advice, where there is no answer with status 200.
    """
    shown = mask_url(url)
    began = time.monotonic()
    try:
        parts = parse_url(url)
        base = (parts._replace(auth=None, query=None, fragment=None).url or "").rstrip("/")
        headers = urllib3.make_headers(basic_auth=parts.auth, user_agent="infertool-doctor")
        with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(timeout_s)) as pool:
            response = pool.request("GET", base + path, headers=headers, redirect=False, preload_content=False)
            body = response.read(_MOST_BYTES)
            response.close()
    except (HTTPError, LocationParseError) as fault:
        raise UnreachableError(f"{shown} does not answer: {_reason(fault)}", address=shown, advice=hint) from None
    if response.status != HTTPStatus.OK:
        raise UnreachableError(f"{shown} answered {response.status}", address=shown, advice=hint)
    return Answer(body, shown, time.monotonic() - began)


def _reason(fault: Exception) -> str:
    cause = getattr(fault, "reason", None) or fault
    return str(getattr(cause, "__cause__", None) or cause).rpartition(": ")[2]
