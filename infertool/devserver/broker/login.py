"""Who may connect."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

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
