"""Connection pools of urllib3 whose connections return final responses (see `http_response`), and their bodies."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import TimeoutError as HttpTimeout
from urllib3.response import BaseHTTPResponse
from urllib3.util import parse_url

from infertool.net.http_response import FinalResponse, WholeResponse


class _Connection(HTTPConnection):
    response_class = FinalResponse


class _TlsConnection(HTTPSConnection):
    response_class = FinalResponse


class _WholeConnection(HTTPConnection):
    response_class = WholeResponse


class _WholeTlsConnection(HTTPSConnection):
    response_class = WholeResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _WholePool(HTTPConnectionPool):
    ConnectionCls = _WholeConnection


class _WholeTlsPool(HTTPSConnectionPool):
    ConnectionCls = _WholeTlsConnection


_WHOLE_POOLS: Final[Mapping[str, type[HTTPConnectionPool]]] = {"http": _WholePool, "https": _WholeTlsPool}
_POOLS: Final[dict[str, type[HTTPConnectionPool]]] = {"http": _Pool, "https": _TlsPool}


def pool(origin: str, **settings: Any) -> HTTPConnectionPool:
    """Return a pool of connections to the server at an http(s) address."""
    return _pool(_POOLS, origin, settings)


def whole_pool(origin: str, **settings: Any) -> HTTPConnectionPool:
    """Return a pool whose responses have to arrive within the read timeout as a whole, not only their heads."""
    return _pool(_WHOLE_POOLS, origin, settings)


def _pool(
    kinds: Mapping[str, type[HTTPConnectionPool]], origin: str, settings: Mapping[str, Any]
) -> HTTPConnectionPool:
    url = parse_url(origin)
    return kinds[url.scheme or "http"](url.host or "", url.port, **settings)


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
