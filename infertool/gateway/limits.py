"""Limits of each client: rate, requests in flight, bytes in flight. For one event loop.

A client that has nothing in flight and a whole burst is forgotten: it is the same as one that never came. Each new
client looks at a few old ones, so a million addresses cost no more memory than those that are active. What cannot be
forgotten yet is limited in number, too: then the client that was away longest gets its burst back early.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from infertool.gateway.principal import ClientLimits, Principal
from infertool.gateway.problem import Problem, Reason
from infertool.gateway.rate import NANOSECONDS, Rate

MOST_IDLE: Final = 65_536
_LOOKS: Final = 3


@dataclass(frozen=True, slots=True)
class RateHeaders:
    """What a client is told of its limits: headers of the response."""

    headers: dict[str, str]


@dataclass(slots=True)
class _Client:
    rate: Rate | None = None
    full_at: int = 0
    in_flight: int = 0
    bytes: int = 0

    def is_forgettable(self, now_ns: int) -> bool:
        """Return True if it is the same as a client that never came."""
        return self.in_flight == 0 and (self.rate is None or self.rate.full_in_ns(self.full_at, now_ns) == 0)


class Limits:
    """What each client has of its limits."""

    def __init__(self, *, most_idle: int = MOST_IDLE) -> None:
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._accepted: dict[str, tuple[str, int]] = {}
        self._most_idle = most_idle

    def __len__(self) -> int:
        return len(self._clients)

    def take(self, principal: Principal, size: int, now: float) -> RateHeaders:
        """Count a request of `size` bytes, and return what is left. `now` is monotonic.

        Raises `Problem`, and counts nothing then. `release` takes the request out again, unless it was given to the
        engine: then `ended` does.
        """
        now_ns = int(now * NANOSECONDS)
        return self._take(principal.limits, self._client(principal, now_ns), 1, size, now_ns)

    def take_batch(self, principal: Principal, size: int, events: int, now: float, *, was: int) -> RateHeaders:
        """Count `events` of `size` bytes together, in place of the request of `was` bytes that brought them.

        Raises `Problem`: then that request is still in flight, and does not count in the rate.
        """
        now_ns = int(now * NANOSECONDS)
        client = self._client(principal, now_ns)
        if client.rate is not None:
            client.full_at = client.rate.given_back(client.full_at)
        client.in_flight -= 1
        client.bytes -= was
        try:
            return self._take(principal.limits, client, events, size, now_ns)
        except Problem:
            client.in_flight += 1
            client.bytes += was
            raise

    def _take(self, limits: ClientLimits, client: _Client, requests: int, size: int, now_ns: int) -> RateHeaders:
        """Count requests of `size` bytes together: all or none."""
        if why := _passes_never(limits, requests, size):
            raise Problem(Reason.BODY_TOO_LARGE, why, headers=_headers(limits, client, now_ns))
        if client.in_flight + requests > limits.max_in_flight:
            raise self._refusal(Reason.TOO_MANY_IN_FLIGHT, limits, client, now_ns)
        if client.bytes + size > limits.max_bytes_in_flight:
            raise self._refusal(Reason.TOO_MANY_BYTES, limits, client, now_ns)
        if limits.rate is not None:
            client.full_at, wait_ns = limits.rate.take(client.full_at, now_ns, requests)
            if wait_ns:
                raise self._refusal(Reason.RATE_LIMITED, limits, client, now_ns, wait_ns=wait_ns)
        client.in_flight += requests
        client.bytes += size
        return RateHeaders(_headers(limits, client, now_ns))

    def give(self, request_id: str, client: str, size: int) -> None:
        """Note, before the engine gets a request that was counted, its id: whoever says its end first takes it out."""
        self._accepted[request_id] = client, size

    def hold(self, client: str, size: int) -> None:
        """Count a request that no limit stops any more."""
        found = self._clients.setdefault(client, _Client())
        found.in_flight += 1
        found.bytes += size

    def resume(self, request_id: str, client: str, size: int) -> None:
        """Count a request that was accepted before a restart."""
        self.hold(client, size)
        self.give(request_id, client, size)

    def ended(self, request_id: str) -> None:
        """Take out a request that has ended, or that the engine refused; once, however often it is told."""
        if (found := self._accepted.pop(request_id, None)) is not None:
            self.release(*found)

    def release(self, client: str, size: int) -> None:
        """Take out a request that was refused after `take`."""
        found = self._clients.get(client)
        if found is None:
            return
        found.in_flight = max(0, found.in_flight - 1)
        found.bytes = max(0, found.bytes - size)
        if found.in_flight == 0:
            found.bytes = 0
            if found.rate is None:
                del self._clients[client]

    def in_flight(self, client: str) -> int:
        """Return the requests of a client that have not ended."""
        found = self._clients.get(client)
        return found.in_flight if found else 0

    def _client(self, principal: Principal, now_ns: int) -> _Client:
        found = self._clients.get(principal.client)
        if found is None:
            self._forget_some(now_ns)
            found = self._clients[principal.client] = _Client(rate=principal.limits.rate)
        else:
            self._clients.move_to_end(principal.client)
        if found.rate != principal.limits.rate:
            found.rate, found.full_at = principal.limits.rate, 0
        return found

    def _forget_some(self, now_ns: int) -> None:
        for _ in range(min(_LOOKS, len(self._clients))):
            name, client = next(iter(self._clients.items()))
            crowded = len(self._clients) >= self._most_idle and client.in_flight == 0
            if crowded or client.is_forgettable(now_ns):
                del self._clients[name]
            else:
                self._clients.move_to_end(name)

    def _refusal(
        self, reason: Reason, limits: ClientLimits, client: _Client, now_ns: int, *, wait_ns: int = 0
    ) -> Problem:
        """Return the refusal. Only the rate tells when another try passes: at `retry_after_ms`, and not before."""
        headers = _headers(limits, client, now_ns)
        if not wait_ns:
            return Problem(reason, _DETAILS[reason].format(limits), headers=headers)
        members = {"retry_after_ms": -(-wait_ns // 1_000_000)}
        return Problem(reason, retry_after_s=-(-wait_ns // NANOSECONDS), members=members, headers=headers)


_DETAILS: Final = {
    Reason.TOO_MANY_IN_FLIGHT: "at most {0.max_in_flight} unfinished requests",
    Reason.TOO_MANY_BYTES: "at most {0.max_bytes_in_flight} bytes in unfinished requests",
}


def _passes_never(limits: ClientLimits, requests: int, size: int) -> str:
    """Return why requests pass at no time, "" if they do at some: to come back would not help."""
    if size > limits.max_bytes_in_flight:
        return f"it has {size} bytes, and this client may have at most {limits.max_bytes_in_flight} in flight"
    if requests > limits.max_in_flight:
        return f"it has {requests} events, and this client may have at most {limits.max_in_flight} in flight"
    if limits.rate is not None and requests > limits.rate.burst:
        return f"it has {requests} events, and this client may send at most {limits.rate.burst} at once"
    return ""


def _headers(limits: ClientLimits, client: _Client, now_ns: int) -> dict[str, str]:
    in_flight = f'"in-flight";r={max(0, limits.max_in_flight - client.in_flight)}'
    if limits.rate is None:
        return {"RateLimit-Policy": _policy(limits), "RateLimit": in_flight}
    left = limits.rate.left(client.full_at, now_ns)
    reset = -(-limits.rate.full_in_ns(client.full_at, now_ns) // NANOSECONDS)
    return {
        "RateLimit-Policy": _policy(limits),
        "RateLimit": f'"rate";r={left};t={reset}, {in_flight}',
        "X-RateLimit-Limit": str(limits.rate.burst),
        "X-RateLimit-Remaining": str(left),
        "X-RateLimit-Reset": str(reset),
    }


@lru_cache(maxsize=1024)
def _policy(limits: ClientLimits) -> str:
    """Return the policies as draft-ietf-httpapi-ratelimit-headers spells them."""
    rate = f'"rate";q={limits.rate.burst};w={limits.rate.window_s}, ' if limits.rate else ""
    in_flight = f'"in-flight";q={limits.max_in_flight};qu="concurrent-requests"'
    return f'{rate}{in_flight}, "bytes";q={limits.max_bytes_in_flight};qu="content-bytes"'
