"""Connection pools of urllib3 whose connections return final responses (see `http_response`), and their bodies."""

from __future__ import annotations

import time
from typing import Any, Final

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import TimeoutError as HttpTimeout
from urllib3.response import BaseHTTPResponse
from urllib3.util import parse_url

from infertool.net.http_response import FinalResponse


class _Connection(HTTPConnection):
    response_class = FinalResponse


class _TlsConnection(HTTPSConnection):
    response_class = FinalResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS: Final = {"http": _Pool, "https": _TlsPool}


def pool(origin: str, **settings: Any) -> HTTPConnectionPool:
    """Return a pool of connections to the server at an http(s) address."""
    url = parse_url(origin)
    kind: type[HTTPConnectionPool] = _POOLS[url.scheme or "http"]
    return kind(url.host or "", url.port, **settings)


class Pools(PoolManager):
    """A pool for each server that is asked."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.pool_classes_by_scheme = _POOLS


_READ_BYTES: Final = 65_536


def read_body(response: BaseHTTPResponse, most_bytes: int, deadline: float) -> bytes:
    """Return the body; of a longer one a little more than `most_bytes`. Raises urllib3's `HTTPError`.

    The timeout of a connection is that of each read: a body that trickles needs `deadline`, in monotonic seconds.
    """
    content = bytearray()
    while len(content) <= most_bytes and (part := response.read1(_READ_BYTES)):
        content += part
        if time.monotonic() > deadline:
            raise HttpTimeout("timed out")
    return bytes(content)
