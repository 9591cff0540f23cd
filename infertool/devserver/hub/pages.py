"""The few plain HTTP answers: the dashboard, its files, and `/health`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

STATIC = files("infertool.devserver") / "static"
_HTML = "text/html; charset=utf-8"
_CSS = "text/css; charset=utf-8"
_SCRIPT = "text/javascript; charset=utf-8"
_FILES = {
    "/": ("index.html", _HTML),
    "/dashboard.css": ("dashboard.css", _CSS),
    "/vendor/phoenix.mjs": ("vendor/phoenix.mjs", _SCRIPT),
    **{f"/{file.name}": (file.name, _SCRIPT) for file in STATIC.iterdir() if file.name.endswith(".mjs")},
}
# Scripts, styles and sockets of this server only: an event's content can never load or run anything.
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
    """A body and its type."""

    body: bytes
    content_type: str


def page(path: str) -> Page | None:
    """Return the file behind a path, or None. Paths come from a fixed table; nothing else of the disk is served."""
    entry = _FILES.get(path)
    if entry is None:
        return None
    name, content_type = entry
    return Page(STATIC.joinpath(name).read_bytes(), content_type)
