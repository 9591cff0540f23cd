"""A model server's address: the parts for the wire, and a form without secrets for display."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self
from urllib.parse import quote, unquote, unquote_plus

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from infertool.errors import ModelLoadError, SettingsError
from infertool.secret import MASK, Secret, is_telling, mask_url
from infertool.settings.tree import ModelSettings

_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An http(s) address. `query` may hold a key. `token` may come from a file, which `fresh` reads again."""

    origin: str
    path: str
    query: str = field(repr=False)
    token: Secret
    basic: Secret
    in_url: tuple[Secret, ...]

    @property
    def target(self) -> str:
        """The path with the query."""
        return f"{self.path}{self.query}"

    @property
    def shown(self) -> str:
        """The address with secrets masked."""
        return mask_url(f"{self.origin}{self.target}")

    @property
    def authorization(self) -> str:
        """The Authorization header's value, for the wire only; empty if none is sent."""
        if self.token:
            return f"Bearer {self.token.reveal()}"
        return f"Basic {self.basic.reveal()}" if self.basic else ""

    def fresh(self) -> Self:
        """Return the address with the current token, for one request. Raises `SettingsError`."""
        token = self.token.fixed()
        _check(token)
        return replace(self, token=token)

    def at(self, path: str) -> Self:
        """Return another path of the same server."""
        return replace(self, path=path)

    def masked(self, text: str) -> str:
        """Return `text`, which the server sent, with our secrets masked."""
        for secret in filter(None, (self.token, self.basic, *self.in_url)):
            for written in _spellings(secret.reveal()):
                text = text.replace(written, MASK)
        return text


def endpoint(settings: ModelSettings) -> Endpoint:
    """Return the address in `model.spec`, with `model.token` or the URL's user part. Raises `ModelLoadError`."""
    try:
        url = parse_url(settings.spec)
    except LocationParseError:
        raise _error(settings.spec, "is no address") from None
    if not url.host:
        raise _error(settings.spec, "names no host")
    try:
        _check(settings.token)
    except SettingsError as error:
        raise _error(settings.spec, f"cannot be asked: {error.what}") from None
    return Endpoint(
        origin=f"{url.scheme}://{url.netloc}",
        path=url.path or "/",
        query=f"?{url.query}" if url.query else "",
        token=settings.token,
        basic=Secret(_basic(url.auth) if url.auth else ""),
        in_url=tuple(map(Secret, _in_url(url))),
    )


def _check(token: Secret) -> None:
    if not _HEADER_VALUE.fullmatch(token.reveal()):
        raise SettingsError("model.token holds what a header cannot carry", key="model.token")


def _in_url(url: Url) -> Iterator[str]:
    """Yield the secrets in an address, as written and decoded."""
    user, colon, password = (url.auth or "").partition(":")
    pairs = (pair.partition("=") for pair in (url.query or "").split("&"))
    in_query = (value for name, _, value in pairs if is_telling(name))
    for secret in (password if colon else user, *in_query):
        yield from {secret, unquote(secret), unquote_plus(secret)}


def _spellings(secret: str) -> tuple[str, ...]:
    """Return the forms in which a server may repeat `secret`: plain, URL-encoded, JSON with escaped slashes."""
    return secret, quote(secret, safe=""), secret.replace("/", "\\/")


def _basic(auth: str) -> str:
    user, _, password = auth.partition(":")
    return base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()


def _error(url: str, what: str) -> ModelLoadError:
    return ModelLoadError(
        f"model {mask_url(url)} {what}", spec=mask_url(url), advice="write it as http://host:8080/path"
    )
