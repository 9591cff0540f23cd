"""Connection pools of urllib3 whose connections return final responses (see `http_response`)."""

from __future__ import annotations

from typing import Any, Final

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
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
