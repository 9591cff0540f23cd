"""The keys of a key set (JWKS) that verify tokens, each with the algorithms that fit its type.

The algorithms follow from the key, never from the token: a token cannot turn an RSA key into an HMAC secret, or ask for
no signature at all. This module imports joserfc, which takes a while: it is imported where the first set was fetched.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jwk, jws
from joserfc.errors import JoseError, SecurityWarning

from infertool.text import json_text

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final = {
    "P-256": frozenset({"ES256"}),
    "P-384": frozenset({"ES384"}),
    "P-521": frozenset({"ES512"}),
    "Ed25519": frozenset({"EdDSA", "Ed25519"}),
    "Ed448": frozenset({"EdDSA", "Ed448"}),
}
_PUBLIC: Final = ("kty", "kid", "use", "key_ops", "alg", "n", "e", "crv", "x", "y")
_LEAST_RSA_BITS: Final = 2048

# It warns of algorithm names that are to go, such as EdDSA, and of small keys, which are passed over here.
warnings.filterwarnings("ignore", category=SecurityWarning)


class _Registry(jws.JWSRegistry):
    max_header_length = 16_384
    max_payload_length = 16_384


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key, and the algorithms that tokens may use with it."""

    kid: str
    algorithms: frozenset[str]
    key: Any

    def verified(self, token: str, algorithm: str) -> bytes | None:
        """Return the payload of a token, or None if the signature is not this key's."""
        registry = _Registry(algorithms=[algorithm], strict_check_header=False)
        try:
            payload: bytes | None = jws.deserialize_compact(token, self.key, registry=registry).payload
        except (JoseError, ValueError, TypeError):
            return None
        return payload


def parse(document: bytes) -> list[SigningKey]:
    """Return the keys of a set that can verify tokens. Raises `ValueError` if there is none.

    Others are passed over: secrets (`oct`), keys for encryption, RSA keys below 2048 bits, unknown types.
    """
    found = json_text.loads(document)
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it is no key set: it has no list of keys")  # noqa: TRY004  (of what a server sent)
    keys = [key for each in listed if isinstance(each, dict) for key in _imported(each)]
    if not keys:
        raise ValueError("it has no key that can verify tokens")
    return keys


def _imported(entry: Mapping[str, Any]) -> Iterator[SigningKey]:
    algorithms = _algorithms(entry)
    if not algorithms:
        return
    try:
        key: Any = jwk.import_key({name: entry[name] for name in _PUBLIC if name in entry})
        if entry["kty"] == "RSA" and key.public_key.key_size < _LEAST_RSA_BITS:
            return
    except (JoseError, ValueError, TypeError, KeyError):
        return
    kid = entry.get("kid")
    yield SigningKey(kid if isinstance(kid, str) else "", algorithms, key)


def _algorithms(entry: Mapping[str, Any]) -> frozenset[str]:
    """Return the algorithms for which a key may be used; none for a key that verifies no tokens."""
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return frozenset()
    kind, curve = entry.get("kty"), str(entry.get("crv"))
    fit = _RSA if kind == "RSA" else frozenset[str]()
    if (kind == "EC" and curve in {"P-256", "P-384", "P-521"}) or (kind == "OKP" and curve in {"Ed25519", "Ed448"}):
        fit = _CURVES[curve]
    return fit & {entry["alg"]} if isinstance(entry.get("alg"), str) else fit
