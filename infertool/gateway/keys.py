"""API keys: their form, the salted hash that is kept of each, and what a key allows.

A key is `ik_ID_SECRET`. The id finds its entry in one step; the secret is 256 random bits. A fast hash is right for
it: nobody can try 2**256 secrets, however fast the hash is. A slow one (bcrypt, Argon2) protects passwords that people
think of, and here would only let anyone who sends wrong keys keep the gateway busy.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Final

import msgspec

from infertool.errors import InfertoolError, UsageError
from infertool.text.input import parse_rate

PREFIX: Final = "ik_"
_FORM: Final = re.compile(r"ik_([a-z2-7]{10})_([a-z2-7]{52})", re.ASCII)
_SALT_BYTES: Final = 16
_SECRET_BYTES: Final = 32
_NAME: Final = r"\A[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z"

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Time = Annotated[datetime, msgspec.Meta(tz=True)]


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is kept of a key. The limits that are not set are those of the settings; `None` rights are all rights.

    An entry with `certificate` has no secret: it gives rights to clients that show a certificate of this name. A field
    that is not known is an error: it may be a restriction.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"\A[a-z2-7]{10}\Z")]
    name: Annotated[str, msgspec.Meta(pattern=_NAME)]
    created: Time
    expires: Time | None = None
    revoked: Time | None = None
    models: tuple[Text, ...] | None = None
    classes: tuple[Text, ...] | None = None
    rate: str = ""
    max_in_flight: Count | None = None
    max_bytes_in_flight: Count | None = None
    certificate: str = ""
    salt: bytes = b""
    hash: bytes = b""

    def __repr__(self) -> str:
        return f"ApiKey(id={self.id!r}, name={self.name!r})"

    def state(self, now: datetime) -> str:
        """Return active, expired or revoked."""
        if self.revoked is not None and self.revoked <= now:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


def new_secret() -> tuple[bytes, bytes, str]:
    """Return a salt, the hash, and the secret part of a new key."""
    salt, secret = secrets.token_bytes(_SALT_BYTES), _base32(secrets.token_bytes(_SECRET_BYTES))
    return salt, _digest(salt, secret), secret


def new_id(taken: Iterable[str]) -> str:
    """Return an id that is not taken."""
    known = set(taken)
    while (found := _base32(secrets.token_bytes(7))[:10]) in known:
        pass
    return found


def text_of(key_id: str, secret: str) -> str:
    """Return the key as its owner sends it."""
    return f"{PREFIX}{key_id}_{secret}"


def check_name(name: str) -> None:
    """Raise `UsageError` if a key cannot have this name."""
    if not re.search(_NAME, name):
        raise UsageError(
            f"{name!r} is no name of a key",
            advice="take letters, digits and . _ @ -, 64 at most, a letter or digit first",
        )


class KeyRing:
    """The keys of a file at one time, found by their ids."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        """Raise `InfertoolError` for entries that contradict each other or cannot be used."""
        self._by_id: dict[str, ApiKey] = {}
        self._by_certificate: dict[str, ApiKey] = {}
        named: list[str] = []
        for key in keys:
            _check(key)
            if key.id in self._by_id:
                raise InfertoolError(f"the id {key.id} is there twice")
            self._by_id[key.id] = key
            if key.certificate and key.revoked is None:
                named.append(key.certificate)
                self._by_certificate[key.certificate] = key
            elif key.certificate:
                # Kept: without it the certificate would have all rights again.
                self._by_certificate.setdefault(key.certificate, key)
        if len(named) != len(set(named)):
            raise InfertoolError("a certificate is there twice")

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, presented: str) -> ApiKey | None:
        """Return the key that was sent, also an expired or revoked one; None if there is none with that secret."""
        form = _FORM.fullmatch(presented)
        key = self._by_id.get(form[1]) if form else None
        if form is None or key is None or key.certificate:
            return None
        return key if hmac.compare_digest(_digest(key.salt, form[2]), key.hash) else None

    def of_certificate(self, name: str) -> ApiKey | None:
        """Return the entry for certificates of this name, also an expired or revoked one."""
        return self._by_certificate.get(name)


def _check(key: ApiKey) -> None:
    if bool(key.certificate) == bool(key.hash):
        raise InfertoolError(f"the entry {key.id} needs either a hash or a certificate")
    if key.hash and (len(key.hash) != hashlib.sha256().digest_size or len(key.salt) != _SALT_BYTES):
        raise InfertoolError(f"the hash or salt of the entry {key.id} has another length")
    try:
        parse_rate(key.rate or "1/s")
    except UsageError as error:
        raise InfertoolError(f"the entry {key.id}: {error.what}") from None


def _digest(salt: bytes, secret: str) -> bytes:
    return hashlib.sha256(salt + secret.encode()).digest()


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
