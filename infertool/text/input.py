"""What people type: durations, sizes, and suggestions for misspelt names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from infertool.errors import UsageError
from infertool.ipv6 import bracketed, bracketed_url
from infertool.secret import mask_url

_FACTORS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d{1,15}(?:\.\d{1,20})?)(ms|s|m|h)?", re.ASCII)
_COUNT = re.compile(r"[1-9]\d{0,14}", re.ASCII)
# Waits of threads take 9e9 s at most. 1e9 s are 31 years.
_LONGEST_S = 1e9
_RATE = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,5})?([smh])(?::([1-9][0-9]{0,8}))?", re.ASCII)
_LISTEN = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:\s]*):)?(?P<port>[0-9]{1,5})", re.ASCII)
_LOOPBACK = "127.0.0.1"
_HIGHEST_PORT = 65_535


def parse_duration(text: str, option: str = "") -> float:
    """Return the seconds in `text`: "500ms", "10s", "2m", "1h"; a number without unit means seconds.

    Raises `UsageError` that names `option`.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{option} {text!r} is not a duration".lstrip(), advice="write for example 500ms, 10s, 2m or 1h"
        )
    seconds = float(match[1]) * _FACTORS[match[2] or "s"]
    if seconds > _LONGEST_S:
        raise UsageError(f"{option} {text!r} is too long".lstrip(), advice=f"write at most {_LONGEST_S:.0f}s")
    return seconds


def parse_capacity(text: str) -> tuple[int, float]:
    """Return the number of entries and their lifetime in seconds from `text` ("10000:5m"). Raises `UsageError`."""
    count, colon, duration = text.partition(":")
    seconds = parse_duration(duration) if colon else 0.0
    if not _COUNT.fullmatch(count) or seconds == 0:
        raise UsageError(f"{text!r} is no number of results and time to keep them", advice="write for example 10000:5m")
    return int(count), seconds


def parse_rate(text: str) -> tuple[int, int, int]:
    """Return count, seconds and burst of a rate: "100/s", "600/m", "5/10s", "100/s:20". Raises `UsageError`.

    The burst is the count unless given.
    """
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no rate", advice="write for example 100/s, 600/m, or 100/s:20 for bursts of 20")
    return int(match[1]), int(match[2] or 1) * int(_FACTORS[match[3]]), int(match[4] or match[1])


def parse_listen_address(text: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT, :PORT or PORT; the host is 127.0.0.1 unless given. Raises `UsageError`."""
    match = _LISTEN.fullmatch(text.strip())
    if meant := bracketed(text.strip()):
        raise UsageError(f"{text!r} is an IPv6 address, which needs brackets", advice=f"write {meant}")
    if match is None or int(match["port"]) > _HIGHEST_PORT:
        raise UsageError(f"{text!r} is no address to listen on", advice="write for example 127.0.0.1:9464, or 9464")
    return (match["host"] or _LOOPBACK).strip("[]"), int(match["port"])


def parse_stats_url(text: str) -> str:
    """Return the URL of a consumer's endpoint, without a path, of what `--stats-url` says. Raises `UsageError`."""
    url = text if "://" in text else f"http://{text}"
    if meant := bracketed_url(url):
        raise UsageError("--stats-url names an IPv6 address, which needs brackets", advice=f"write {meant}")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            f"--stats-url {mask_url(text)!r} is no address of a consumer", advice="write http://HOST:PORT, as --metrics"
        )
    return url.rstrip("/").removesuffix("/stats")


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return the valid name closest to `name`, ignoring case; "" if none is close."""
    from difflib import get_close_matches  # noqa: PLC0415 - needed in errors only

    by_lower = {candidate.lower(): candidate for candidate in valid}
    matches = get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[matches[0]] if matches else ""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return `did you mean 'X'?` for the closest valid name; "" if none is close."""
    match = nearest(name, valid)
    return f"did you mean {match!r}?" if match else ""


def home_path(text: str | Path) -> Path:
    """Return a path with its `~` or `~USER` expanded; that of an unknown user stays, so that no file is found there."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  (`Path.expanduser` raises RuntimeError over such a user)


def is_file(path: Path) -> bool:
    """Return True for a regular file; False also for what cannot be looked at, such as a name that is too long."""
    return os.path.isfile(path)  # noqa: PTH113  (`Path.is_file` raises OSError then)
