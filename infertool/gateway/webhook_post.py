"""One attempt to post a webhook: its name is resolved once, and the address that was checked is connected to."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from infertool import __version__
from infertool.gateway.webhook_hosts import WebhookHosts
from infertool.net.http_answer import Answer
from infertool.net.http_client import ExchangeError, HttpConnection, Target, connect, request_head, with_body

# For connecting, TLS, the request and the head of the response together. Seconds.
TIMEOUT_S: Final = 15.0
_MOST_RESOLVING: Final = 64
_REDIRECTS: Final = range(300, 400)
_OK: Final = range(200, 300)
Resolve = Callable[[str, int], Sequence[str]]


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name. Raises `OSError`. Blocks."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class Poster:
    """Posts, to the addresses that `hosts` allows."""

    def __init__(
        self,
        hosts: WebhookHosts,
        *,
        timeout_s: float = TIMEOUT_S,
        resolver: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts = hosts
        self._timeout_s = timeout_s
        self._resolver = resolver
        self._tls = tls
        # Not the loop's own: what resolves names there must not wait for a name server of a receiver.
        self._threads = ThreadPoolExecutor(_MOST_RESOLVING, thread_name_prefix="webhook-names")

    async def post(self, target: Target, headers: Mapping[str, str], body: bytes) -> tuple[int | None, str]:
        """Post once. Return the status, None without a response, and for other than 2xx what went wrong."""
        loop = asyncio.get_running_loop()
        try:
            # Not within the time limit: the thread works on, and the place of this attempt is its place.
            addresses = await loop.run_in_executor(self._threads, self._resolver, target.host, target.port)
        except OSError as fault:
            return None, f"{target.host} cannot be resolved: {fault.strerror or fault}"
        usable = self._hosts.usable(target, addresses)
        if not usable:
            return None, f"{target.host} resolves to no address that webhooks may go to"
        head = request_head("POST", target, {
            "User-Agent": f"infertool/{__version__}",
            "Content-Type": "application/json",
            "Connection": "close",
            **headers,
        })  # fmt: skip
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._exchange(target, usable, with_body(head, body))
        except TimeoutError:
            return None, f"{target.origin} did not answer within {self._timeout_s:g} s"
        except ExchangeError as error:
            return None, str(error)
        if answer.status in _OK:
            return answer.status, ""
        note = "; redirects are not followed" if answer.status in _REDIRECTS else ""
        return answer.status, f"{target.origin} answered {answer.status}{note}"

    def close(self) -> None:
        """Forget names that wait to be resolved."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _exchange(self, target: Target, addresses: Sequence[str], request: bytes) -> Answer:
        connection = await self._connected(target, addresses)
        try:
            return await connection.exchange(request)
        finally:
            connection.abort()

    async def _connected(self, target: Target, addresses: Sequence[str]) -> HttpConnection:
        if target.scheme == "https" and self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout_s
        for left in range(len(addresses), 0, -1):
            try:
                # An address that never answers must leave time for the next.
                async with asyncio.timeout((until - loop.time()) / left):
                    return await connect(target, max_body=None, tls=self._tls, address=addresses[-left])
            except (ExchangeError, TimeoutError):
                if left == 1:
                    raise
        raise ExchangeError("there is no address", connected=False)
