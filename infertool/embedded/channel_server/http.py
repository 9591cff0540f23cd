"""HTTP of the channel server: the dashboard's files, and the checks before a socket opens.

The checks (path, Origin, vsn, token) answer as Phoenix does: 403 with an empty body.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from websockets.datastructures import Headers

    from infertool.phoenix.frames import Vsn
    from infertool.secret import Secret


STATIC = files("infertool.embedded") / "static"
_HTML = "text/html; charset=utf-8"
_CSS = "text/css; charset=utf-8"
_SCRIPT = "text/javascript; charset=utf-8"
_FILES = {
    "/": ("index.html", _HTML),
    "/dashboard.css": ("dashboard.css", _CSS),
    "/vendor/phoenix.mjs": ("vendor/phoenix.mjs", _SCRIPT),
    **{f"/{file.name}": (file.name, _SCRIPT) for file in STATIC.iterdir() if file.name.endswith(".mjs")},
}
# Scripts, styles and sockets of this server only: an event's content can neither load nor run anything.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class Page:
    """A response body and its content type."""

    body: bytes
    content_type: str


def page(path: str) -> Page | None:
    """Return the file for a path, or None. Paths come from a fixed table; no other file is served."""
    entry = _FILES.get(path)
    if entry is None:
        return None
    name, content_type = entry
    return Page(STATIC.joinpath(name).read_bytes(), content_type)


SOCKET_PATH = "/socket/websocket"
SUBPROTOCOL = "phoenix"
_TOKEN_PREFIX = "base64url.bearer.phx."  # noqa: S105 - the name of a scheme
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, not bound
# Elixir's Version.match?(vsn, "~> 1.0.0"), and 2.0.0: no pre-release, no leading zero, all three parts.
_VSN = re.compile(r"([12])\.0\.(?:0|[1-9][0-9]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Admission:
    """A socket that may open. `authorized` is True if it presented the token, or none is required."""

    vsn: Vsn
    authorized: bool


class SocketRefused(Exception):  # noqa: N818 - it is an answer, not an error
    """The socket may not open. `status` is the HTTP status of the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def admit(path: str, headers: Headers, *, token: Secret, bind_host: str) -> Admission:
    """Return the socket's protocol version and whether it is authorized. Raises `SocketRefused`."""
    if not _origin_fits(headers, bind_host):
        raise SocketRefused(403)
    params = parse_qs(path.partition("?")[2], keep_blank_values=True)
    vsn = _vsn(params)
    presented = params.get("token", [None])[-1] or _bearer(offered_subprotocols(headers))
    if presented is None or not token:
        return Admission(vsn, authorized=not token)
    if not hmac.compare_digest(presented.encode(), token.reveal().encode()):
        raise SocketRefused(403)
    return Admission(vsn, authorized=True)


def offered_subprotocols(headers: Headers) -> list[str]:
    """Return the names in Sec-WebSocket-Protocol."""
    return [name.strip() for line in headers.get_all("Sec-WebSocket-Protocol") for name in line.split(",")]


def _vsn(params: dict[str, list[str]]) -> Vsn:
    if "vsn[]" in params:
        raise SocketRefused(403)
    match = _VSN.fullmatch(params.get("vsn", ["1.0.0"])[-1])
    if not match:
        raise SocketRefused(403)
    return "2.0.0" if match[1] == "2" else "1.0.0"


def _bearer(subprotocols: list[str]) -> str | None:
    """Return the token of Phoenix's socket option `auth_token: true`; 500 if it is not base64, as in Phoenix."""
    for name in subprotocols:
        if name.startswith(_TOKEN_PREFIX):
            try:
                return _from_base64(name.removeprefix(_TOKEN_PREFIX))
            except (binascii.Error, ValueError):
                raise SocketRefused(500) from None
    return None


def _from_base64(text: str) -> str:
    # The standard alphabet, as in Phoenix (Base.decode64!), although the prefix says base64url.
    padded = text + "=" * (-len(text) % 4)
    return base64.b64decode(padded, validate=True).decode()


def _origin_fits(headers: Headers, bind_host: str) -> bool:
    """Return True unless a page of another site opens this socket. Clients other than browsers send no Origin.

    On loopback the Host header is not trusted: an attacker's name may resolve to it. A server that listens on all
    addresses has no other name to compare with.
    """
    accepted = {*_LOOPBACK, bind_host}
    if bind_host in _WILDCARDS:
        accepted.update(_hostname(f"//{host}") for host in headers.get_all("Host"))
    return all(_hostname(origin) in accepted - {""} for origin in headers.get_all("Origin"))


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
