"""The clock of this machine against those of servers: the HTTP header Date, and the time on a broker's message."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from infertool.app.doctor.result import Finding, fail, ok, skip, warn
from infertool.app.doctor.words import duration
from infertool.errors import InfertoolError
from infertool.models.loader import is_remote
from infertool.net.http_response import FinalResponse
from infertool.net.tls import client_context
from infertool.phoenix.dial import targets
from infertool.settings import Settings

_TIMEOUT_S: Final = 10.0
# A header Date is cut to whole seconds.
_DATE_ERROR_S: Final = 0.5
_NOTICEABLE_S, _HARMFUL_S = 2.0, 30.0


@dataclass(frozen=True, slots=True)
class Skew:
    """How far a server's clock is ahead of ours, in seconds, and by how much that may be wrong."""

    source: str
    seconds: float
    error_s: float

    def __str__(self) -> str:
        """Return it for people."""
        if abs(self.seconds) <= self.error_s:
            return f"within {duration(self.error_s)} of {self.source}"
        return f"{duration(abs(self.seconds))} {'behind' if self.seconds > 0 else 'ahead of'} {self.source}"


def judge(skews: Sequence[Skew]) -> Finding:
    """Return the finding of the largest difference."""
    if not skews:
        return skip("no server tells its time")
    largest = max(skews, key=lambda skew: max(0.0, abs(skew.seconds) - skew.error_s))
    value = "; ".join(map(str, skews))
    sure_s = max(0.0, abs(largest.seconds) - largest.error_s)
    hint = "set the clocks of both machines by NTP (timedatectl): ages, expiry times and certificates depend on them"
    found = fail if sure_s >= _HARMFUL_S else warn if sure_s >= _NOTICEABLE_S else None
    return found(value, hint, largest.seconds, "seconds") if found else ok(value, largest.seconds, "seconds")


def of_servers(settings: Settings) -> list[Skew]:
    """Ask the HTTP servers of the settings. One that does not answer, or tells no time, is left out."""
    return [skew for ask in _questions(settings) if (skew := _asked(ask))]


def _asked(ask: Callable[[], Skew | None]) -> Skew | None:
    with suppress(OSError, http.client.HTTPException, InfertoolError, ValueError, TypeError):
        return ask()
    return None


def _questions(settings: Settings) -> Iterator[Callable[[], Skew | None]]:
    if settings.publish.mode == "phoenix":
        with suppress(InfertoolError):
            for target in targets(settings.phoenix):
                group = ("phoenix", settings.phoenix) if target.secure else None
                yield _question("Phoenix", target.host, target.port, group)
    if settings.broker.management_url:
        yield from _of_url("the management API", settings.broker.management_url, ("broker", settings.broker))
    if is_remote(settings.model):
        yield from _of_url("the model server", settings.model.spec, ("model", settings.model))


def _of_url(name: str, url: str, group: tuple[str, object]) -> Iterator[Callable[[], Skew | None]]:
    with suppress(ValueError):
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        if parts.hostname:
            port = parts.port or (443 if secure else 80)
            yield _question(name, parts.hostname, port, group if secure else None)


def _question(name: str, host: str, port: int, tls: tuple[str, object] | None) -> Callable[[], Skew | None]:
    def ask() -> Skew | None:
        if tls:
            context = client_context(tls[0], tls[1])  # type: ignore[arg-type]  # one of three groups with TLS
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=_TIMEOUT_S, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        connection.response_class = FinalResponse
        with closing(connection):
            before = time.time()
            connection.request("HEAD", "/", headers={"User-Agent": "infertool-doctor"})
            date = connection.getresponse().getheader("Date")
            after = time.time()
        if date is None:
            return None
        theirs = parsedate_to_datetime(date).timestamp() + _DATE_ERROR_S
        return Skew(f"{name} ({host})", theirs - (before + after) / 2, _DATE_ERROR_S + (after - before) / 2)

    return ask
