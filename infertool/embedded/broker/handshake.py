"""CONNECT: version, heartbeats, login. Source: STOMP 1.2, "Connecting", "Heart-beating"; texts are ActiveMQ's."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from infertool.embedded.broker.destinations import ProtocolError
from infertool.secret import Secret


@dataclass(frozen=True, slots=True)
class Login:
    """The login that CONNECT must carry; without a user and a password any is taken."""

    user: str = ""
    password: Secret = field(default_factory=Secret)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Login:
        """Read ACTIVEMQ_USER and ACTIVEMQ_PASSWORD."""
        return cls(environment.get("ACTIVEMQ_USER", ""), Secret(environment.get("ACTIVEMQ_PASSWORD", "")))

    def accepts(self, user: str, password: str) -> bool:
        """Compare in constant time."""
        if not self.user and not self.password:
            return True
        same_user = _same(user, self.user)
        same_password = _same(password, self.password.reveal())
        return same_user and same_password


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogateescape"), wanted.encode(errors="surrogateescape"))


# No timer runs for longer: a day is as good as never.
_LONGEST_BEAT_MS = 86_400_000
VERSIONS = ("1.2", "1.1", "1.0")


@dataclass(frozen=True, slots=True)
class Agreement:
    """What CONNECT and CONNECTED settled. `client_beats_s` and `server_beats_s` are 0 for none."""

    version: str
    client_beats_s: float
    server_beats_s: float
    connected: dict[str, str]


def agree(headers: dict[str, str], login: Login, session_id: str) -> Agreement:
    """Answer a CONNECT frame. Raises ProtocolError."""
    user = headers.get("login", "null")
    if not login.accepts(user, headers.get("passcode", "")):
        raise ProtocolError(f"User name [{user}] or password is invalid.", fatal=True)
    version = _version(headers.get("accept-version", "1.0"))
    promised, wanted = _beats(headers.get("heart-beat", "0,0"))
    connected = {
        "version": version,
        "server": "infertool-dev",
        "session": headers.get("client-id", session_id),
        # ActiveMQ mirrors the client's wish.
        "heart-beat": f"{wanted},{promised}",
    }
    if "receipt" in headers:
        connected |= {"receipt-id": headers["receipt"], "response-id": headers["receipt"]}
    return Agreement(version, _seconds(promised), _seconds(wanted), connected)


def _seconds(beat_ms: int) -> float:
    return min(beat_ms, _LONGEST_BEAT_MS) / 1000


def _version(accepted: str) -> str:
    offered = {version.strip() for version in accepted.split(",")}
    for version in VERSIONS:
        if version in offered:
            return version
    supported = ", ".join(VERSIONS)
    raise ProtocolError(f"Invalid Protocol version[{accepted}], supported versions are: [{supported}]", fatal=True)


def _beats(text: str) -> tuple[int, int]:
    first, _, second = text.partition(",")
    try:
        beats = int(first), int(second)
    except ValueError:
        raise ProtocolError(f"Invalid heart-beat header:{text}", fatal=True) from None
    if min(beats) < 0:
        raise ProtocolError(f"Invalid heart-beat header:{text}", fatal=True)
    return beats
