"""Bearer tokens: signed JWTs, checked as RFC 8725 says, and what their claims allow.

Claims that must be there: `iss` and `aud` as in the settings, `exp`, `sub`. `nbf` and `iat` count where they are there.
`infertool_models` and `infertool_classes`, lists or names with spaces between them, limit what the client may use.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from infertool.gateway.key_set import KeySet
from infertool.gateway.problem import Problem, Reason
from infertool.text import json_text

MODELS_CLAIM: Final = "infertool_models"
CLASSES_CLAIM: Final = "infertool_classes"
LONGEST: Final = 8192
LEEWAY_S: Final = 30.0
_LONGEST_NAME: Final = 255
_PARTS: Final = 3
_MOST_KNOWN: Final = 10_000


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says of its client. `models` and `classes` are None where it limits none."""

    subject: str
    models: frozenset[str] | None
    classes: frozenset[str] | None
    expires: float


class Tokens:
    """Checks tokens. For one event loop."""

    def __init__(self, keys: KeySet, *, issuer: str, audience: str, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        # A signature costs a hundred times as much as this look. A token is kept as its hash.
        self._known: OrderedDict[bytes, tuple[int, Claims]] = OrderedDict()

    async def check(self, token: str) -> Claims:
        """Return the claims of a token. Raises `Problem`, which never shows the token."""
        if len(token) > LONGEST:
            raise refusal(f"the token is longer than {LONGEST} characters")
        mark = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        generation, claims = self._known.get(mark, (-1, None))
        if claims is not None and generation == self._keys.generation:
            if claims.expires + LEEWAY_S <= self._clock():
                raise refusal("the token has expired")
            # A key that is withdrawn ends its tokens, also where no other ones come.
            self._keys.keep_fresh()
            self._known.move_to_end(mark)
            return claims
        claims = self._claims(await self._payload(token))
        self._known[mark] = (self._keys.generation, claims)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return claims

    async def _payload(self, token: str) -> dict[str, Any]:
        parts = token.split(".")
        header = _object(parts[0]) if len(parts) == _PARTS else None
        if header is None:
            raise refusal("this is no token")
        algorithm, kid = header.get("alg"), header.get("kid", "")
        if not isinstance(algorithm, str) or not isinstance(kid, str) or "crit" in header:
            raise refusal("the token's header cannot be used")
        if algorithm.lower() == "none" or algorithm.startswith("HS"):
            raise refusal("the token is not signed with a public key")
        key = await self._keys.find(kid, algorithm)
        if key is None:
            raise refusal("no key of the key set fits the token")
        payload = key.verified(token, algorithm)
        if payload is None:
            raise refusal("the token's signature is wrong")
        try:
            found = json_text.loads(payload)
        except json_text.JsonError:
            found = None
        if not isinstance(found, dict):
            raise refusal("the token has no claims")
        return found

    def _claims(self, claims: dict[str, Any]) -> Claims:
        now = self._clock()
        if claims.get("iss") != self._issuer:
            raise refusal("the token is of another issuer")
        audience = claims.get("aud")
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            raise refusal("the token is for another audience")
        expires = _time(claims, "exp")
        if expires is None:
            raise refusal("the token has no end (exp)")
        if expires + LEEWAY_S <= now:
            raise refusal("the token has expired")
        if max(_time(claims, "nbf") or 0.0, _time(claims, "iat") or 0.0) > now + LEEWAY_S:
            raise refusal("the token is not valid yet")
        subject = claims.get("sub")
        if not (isinstance(subject, str) and 0 < len(subject) <= _LONGEST_NAME and subject.isprintable()):
            raise refusal("the token has no subject (sub) that can be used")
        return Claims(subject, _names(claims, MODELS_CLAIM), _names(claims, CLASSES_CLAIM), expires)


def refusal(detail: str) -> Problem:
    """Return the refusal of credentials."""
    challenge = {"WWW-Authenticate": 'Bearer realm="infertool", error="invalid_token"'}
    return Problem(Reason.INVALID_CREDENTIALS, detail, headers=challenge)


def _object(part: str) -> dict[str, Any] | None:
    try:
        found = json_text.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _time(claims: dict[str, Any], name: str) -> float | None:
    found = claims.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise refusal(f"the token's {name} is no time")
    return float(found)


def _names(claims: dict[str, Any], name: str) -> frozenset[str] | None:
    found = claims.get(name)
    if found is None:
        # null is no list: it must not mean all.
        if name in claims:
            raise refusal(f"the token's {name} is no list of names")
        return None
    listed = found.split() if isinstance(found, str) else found
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise refusal(f"the token's {name} is no list of names")
    return frozenset(listed)
