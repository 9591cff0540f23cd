"""Where lines go, and the headers that all of them have."""

from __future__ import annotations

import re
from typing import Final

from infertool import __version__
from infertool.errors import UsageError
from infertool.net.http_client import Target
from infertool.secret import Secret

# Where requests are asked for.
PATH: Final = "/v1/infer"
# Seconds that a gateway takes as a time-out.
_LEAST_S, _MOST_S = 0.001, 999_999_999.0
_VALUE: Final = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")


def target(url: str) -> Target:
    """Return the address of requests: `/v1/infer` below the gateway's. Raises `UsageError`."""
    found = Target.typed("--url", url)
    if "?" in found.path:
        raise UsageError(f"--url {found.shown} has a query", advice=f"write {found.origin}")
    base = found.path.rstrip("/").removesuffix(PATH)
    return Target(found.scheme, found.host, found.port, f"{base}{PATH}")


def request_headers(key: Secret, class_name: str | None, model: str | None, expires_s: float | None) -> dict[str, str]:
    """Return the headers of each request. Raises `UsageError` for what a header cannot carry."""
    given = {
        "Infertool-Class": ("--class", class_name),
        "Infertool-Model": ("--model", model),
        "Request-Timeout": ("--timeout", None if expires_s is None else _seconds(expires_s)),
        "Authorization": ("--key-file", f"Bearer {key.reveal()}" if key else None),
    }
    for option, value in given.values():
        if value is not None and not _VALUE.fullmatch(value):
            raise UsageError(f"{option}: its value cannot be sent as a header")
    return {
        "User-Agent": f"infertool-submit/{__version__}",
        **{name: value for name, (_, value) in given.items() if value is not None},
    }


def _seconds(number: float) -> str:
    """Return the nearest number of seconds that a gateway takes, as it reads it: without an exponent."""
    return f"{min(max(number, _LEAST_S), _MOST_S):.3f}".rstrip("0").rstrip(".")
