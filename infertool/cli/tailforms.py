"""The forms in which `tail` prints events."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import orjson

from infertool.cli import console, pretty
from infertool.cli.template import Template
from infertool.errors import UsageError
from infertool.feed import records
from infertool.feed.arrival import Arrival
from infertool.feed.encoding import encode, payload_text
from infertool.feed.paths import MISSING, Path, parse_path

Form = Callable[[Sequence[Arrival]], list[str]]


def form_of(output: str | None, *, fields: str | None, template: str | None, several: bool) -> Form:
    """Return what turns events into lines. `several` says that there is more than one source. Raises `UsageError`."""
    if template is not None:
        if output or fields:
            raise UsageError("--format says all about a line", advice="leave out -o and --fields")
        return _each(Template(template).line)
    output = output or ("pretty" if console.on_terminal() else "jsonl")
    return FORMS[output] if fields is None else _form_of_fields(output, fields, several=several)


def _form_of_fields(output: str, fields: str, *, several: bool) -> Form:
    paths = [parse_path(each.strip()) for each in fields.split(",")]
    if several:
        paths.insert(0, parse_path("source"))
    if output == "pretty":
        from infertool.cli.columns import Columns

        return Columns(paths).lines
    if output == "jsonl":
        return _each(lambda arrival: _chosen(paths, arrival))
    raise UsageError("--fields goes with -o pretty and -o jsonl", advice="raw is the payload alone")


def _each(line: Callable[[Arrival], str]) -> Form:
    return lambda arrivals: [line(arrival) for arrival in arrivals]


def _jsonl(arrival: Arrival) -> str:
    return records.line(arrival).decode()


def _raw(arrival: Arrival) -> str:
    return payload_text(arrival).decode()


def _chosen(paths: Sequence[Path], arrival: Arrival) -> str:
    found = {path.text: path.json(arrival) for path in paths}
    return encode({name: None if text is MISSING else orjson.Fragment(text) for name, text in found.items()}).decode()


FORMS: dict[str, Form] = {"pretty": _each(pretty.line), "jsonl": _each(_jsonl), "raw": _each(_raw)}
