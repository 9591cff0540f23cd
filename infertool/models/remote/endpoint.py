"""A model server's address: what goes on the wire, and what may be shown of it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self
from urllib.parse import quote, unquote, unquote_plus

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from infertool.errors import ModelLoadError
from infertool.secret import MASK, Secret, is_telling, mask_url
from infertool.settings.tree import ModelSettings

_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An http(s) address. `query` may hold a key; `authorization` is the value of that header."""

    origin: str
    path: str
    query: str = field(repr=False)
    authorization: Secret
    secrets: tuple[Secret, ...]

    @property
    def target(self) -> str:
        """What is asked for at the origin."""
        return f"{self.path}{self.query}"

    @property
    def shown(self) -> str:
        """The address for people."""
        return mask_url(f"{self.origin}{self.target}")

    def at(self, path: str) -> Self:
        """Return another path of the same server."""
        return replace(self, path=path)

    def masked(self, text: str) -> str:
        """Return `text`, which the server wrote, without what it was told in confidence."""
        for secret in self.secrets:
            for written in _spellings(secret.reveal()):
                text = text.replace(written, MASK)
        return text


def endpoint(settings: ModelSettings) -> Endpoint:
    """Return the address that `model.spec` gives, with `model.token` or its user part. Raises `ModelLoadError`."""
    try:
        url = parse_url(settings.spec)
    except LocationParseError:
        raise _error(settings.spec, "is no address") from None
    if not url.host:
        raise _error(settings.spec, "names no host")
    token = settings.token.reveal()
    if not _HEADER_VALUE.fullmatch(token):
        raise _error(settings.spec, "cannot be asked: model.token holds what a header cannot carry")
    user = _basic(url.auth) if url.auth else ""
    return Endpoint(
        origin=f"{url.scheme}://{url.netloc}",
        path=url.path or "/",
        query=f"?{url.query}" if url.query else "",
        authorization=Secret(f"Bearer {token}" if token else f"Basic {user}" if user else ""),
        secrets=tuple(Secret(each) for each in (token, user, *_in_url(url)) if each),
    )


def _in_url(url: Url) -> Iterator[str]:
    """Yield what is secret in an address, as it stands there and as it is meant."""
    user, colon, password = (url.auth or "").partition(":")
    pairs = (pair.partition("=") for pair in (url.query or "").split("&"))
    in_query = (value for name, _, value in pairs if is_telling(name))
    for secret in (password if colon else user, *in_query):
        yield from {secret, unquote(secret), unquote_plus(secret)}


def _spellings(secret: str) -> tuple[str, ...]:
    """Return how servers write a text: as it is, in a URL, in JSON with each slash escaped."""
    return secret, quote(secret, safe=""), secret.replace("/", "\\/")


def _basic(auth: str) -> str:
    user, _, password = auth.partition(":")
    return base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()


def _error(url: str, what: str) -> ModelLoadError:
    return ModelLoadError(
        f"model {mask_url(url)} {what}", spec=mask_url(url), advice="write it as http://host:8080/path"
    )
