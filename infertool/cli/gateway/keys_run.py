"""The work of `infertool gateway keys`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from infertool.cli.common import console
from infertool.errors import InfertoolError, NothingMatchedError, UsageError
from infertool.gateway import keys
from infertool.gateway.key_file import KeyFile
from infertool.gateway.keys import ApiKey
from infertool.text.input import parse_duration, parse_rate
from infertool.text.sanitize import aligned, clean, printable

_SHOWN_ONCE = "this is the only time that the key is shown; the file keeps a salted hash"
_TIME = "%Y-%m-%d %H:%M"
_TITLES = ("id", "name", "state", "expires", "models", "classes", "rate", "in flight", "bytes", "certificate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What `add` is asked for. `expires` is as typed."""

    models: tuple[str, ...] | None
    classes: tuple[str, ...] | None
    rate: str
    max_in_flight: int | None
    max_bytes_in_flight: int | None
    expires: str
    certificate: str


def add(path: Path, name: str, rights: Rights, *, as_json: bool) -> None:
    """Make a key and show it. Raises `InfertoolError` if an active one has the name."""
    keys.check_name(name)
    for option, texts in (
        ("--model", rights.models), ("--class", rights.classes), ("--certificate", (rights.certificate,)),
    ):  # fmt: skip
        if any(printable(text) != text for text in texts or ()):
            raise UsageError(f"{option} is not UTF-8: no request can name it")
    if rights.rate:
        parse_rate(rights.rate)
    now = _now()
    expires = _when(rights.expires, now) if rights.expires else None
    with KeyFile(path).changing() as found:
        if any(key.name == name and key.state(now) == "active" for key in found):
            raise InfertoolError(f"there is an active key of {name}", advice=f"infertool gateway keys rotate {name}")
        if rights.certificate and any(key.certificate == rights.certificate and key.revoked is None for key in found):
            raise InfertoolError(
                f"the certificate {rights.certificate!r} has rights already", advice="revoke them first"
            )
        salt, digest, secret = keys.new_secret() if not rights.certificate else (b"", b"", "")
        key = ApiKey(
            id=keys.new_id(each.id for each in found),
            name=name,
            created=now,
            expires=expires,
            models=rights.models,
            classes=rights.classes,
            rate=rights.rate,
            max_in_flight=rights.max_in_flight,
            max_bytes_in_flight=rights.max_bytes_in_flight,
            certificate=rights.certificate,
            salt=salt,
            hash=digest,
        )
        found.append(key)
    _tell(key, secret, now, as_json=as_json)


def rotate(path: Path, name: str, *, grace_s: float, as_json: bool) -> None:
    """Make a new key in the place of the newest one of `name`, and let the active ones end."""
    now = _now()
    end = now + timedelta(seconds=grace_s)
    with KeyFile(path).changing() as found:
        named = [key for key in found if key.name == name and not key.certificate]
        active = [key for key in named if key.state(now) == "active"]
        if not active:
            raise NothingMatchedError(f"there is no active key of {name}", advice="infertool gateway keys list")
        salt, digest, secret = keys.new_secret()
        key = msgspec.structs.replace(
            # The file is in the order in which they were made; by the clock two may be equal, or the other way round.
            # No rotation gave this one an end, even if it is revoked.
            named[-1],
            id=keys.new_id(each.id for each in found),
            created=now,
            revoked=None,
            salt=salt,
            hash=digest,
        )
        for each in active:
            found[found.index(each)] = msgspec.structs.replace(each, expires=min(each.expires or end, end))
        found.append(key)
    _tell(key, secret, now, as_json=as_json)


def revoke(path: Path, which: str, *, as_json: bool) -> None:
    """Revoke the key of an id, or all keys of a name."""
    now = _now()
    # A file that is not there is not made by a revocation.
    KeyFile(path).signature()
    with KeyFile(path).changing() as found:
        chosen = [key for key in found if key.id == which] or [key for key in found if key.name == which]
        ended = [msgspec.structs.replace(key, revoked=now) for key in chosen if key.revoked is None]
        if not ended:
            raise NothingMatchedError(
                f"there is no key {which} that is not revoked", advice="infertool gateway keys list"
            )
        by_id = {key.id: key for key in ended}
        found[:] = [by_id.get(key.id, key) for key in found]
    with console.reporting(f"{len(ended)} keys were revoked"):
        if as_json:
            console.emit_json({"revoked": [_document(key, now) for key in ended]})
        else:
            console.out(*(f"revoked {key.id} of {key.name}" for key in ended))


def show(path: Path, *, as_json: bool) -> None:
    """Show the keys of the file."""
    now = _now()
    found = KeyFile(path).read()
    if as_json:
        console.emit_json({"keys": [_document(key, now) for key in found]})
        return
    rows = [_TITLES, *(_row(key, now) for key in found)]
    console.out(*aligned([[clean(cell) or "-" for cell in row] for row in rows]))


def _tell(key: ApiKey, secret: str, now: datetime, *, as_json: bool) -> None:
    text = keys.text_of(key.id, secret) if secret else ""
    with console.reporting(f"the key {key.id} of {key.name} was made, and nobody has seen it: revoke it"):
        if as_json:
            console.emit_json(_document(key, now) | ({"key": text} if text else {}))
        elif text:
            console.out(text)
            ends = f", ends {key.expires:{_TIME}}" if key.expires else ""
            console.err(f"key {key.id} of {key.name}{ends}: {_SHOWN_ONCE}")
        else:
            console.out(f"{key.id}: certificates of {key.certificate} are the client {key.name}")


def _document(key: ApiKey, now: datetime) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(key)
    for hidden in ("salt", "hash"):
        document.pop(hidden, None)
    return document | {"state": key.state(now)}


def _row(key: ApiKey, now: datetime) -> tuple[str, ...]:
    return (
        key.id,
        key.name,
        key.state(now),
        f"{key.expires:{_TIME}}" if key.expires else "",
        "all" if key.models is None else ",".join(key.models),
        "all" if key.classes is None else ",".join(key.classes),
        key.rate,
        "" if key.max_in_flight is None else str(key.max_in_flight),
        "" if key.max_bytes_in_flight is None else str(key.max_bytes_in_flight),
        key.certificate,
    )


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _when(text: str, now: datetime) -> datetime:
    """Return the time that `text` names: a number of days, a duration, a date or a time. Raises `UsageError`."""
    try:
        if re.fullmatch(r"[0-9]{1,5}d", text):
            end = now + timedelta(days=int(text[:-1]))
        elif re.match(r"[0-9]{4}-", text):
            named = datetime.fromisoformat(text)
            end = named if named.tzinfo else named.replace(tzinfo=UTC)
        else:
            end = now + timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError, UsageError):
        raise UsageError(f"--expires {text!r} is no time", advice="write for example 90d, 12h or 2027-06-30") from None
    if end <= now:
        raise UsageError(f"--expires {text} is past")
    return end
