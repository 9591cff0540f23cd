"""Text from outside: each parser returns a value that can be used, or raises the error that it promises."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertool import brokers
from infertool.alerts import condition
from infertool.brokers import registry, weighted_queues
from infertool.brokers.amqp import management
from infertool.brokers.headers import from_options
from infertool.brokers.kafka import client
from infertool.channels import event, recording
from infertool.cli.common import options
from infertool.cli.tail.run import parse_interval
from infertool.consumer import requests
from infertool.deadletters import selection
from infertool.deadletters.replay import editing, progress
from infertool.embedded.broker import destinations, selectors
from infertool.errors import ModelLoadError, SettingsError, UsageError
from infertool.filters import expression, regex
from infertool.gateway import ids, key_set, rate
from infertool.gateway.clients import TrustedProxies
from infertool.gateway.problem import Problem
from infertool.gateway.webhook_hosts import WebhookHosts
from infertool.load import arrivals, assertions, headers, payloads, shapes, template, traces
from infertool.message import BodyKind, Properties, TypedMessage
from infertool.models import simulated
from infertool.net import retry_after
from infertool.net.http_client import Target
from infertool.phoenix import dial
from infertool.settings import PhoenixSettings
from infertool.settings.keys import Entry, parsed, types
from infertool.settings.ranges import check
from infertool.telemetry import sampling, trace_context
from infertool.text import input as typed
from infertool.text import json_text

NOW = 1_700_000_000.0
_HOOKS = WebhookHosts(["hooks.example.com", "*.example.org", "[::1]:9000", "localhost:81"])


@dataclass(frozen=True, slots=True)
class Parser:
    """A parser, the errors that it may raise, pieces of texts that come near what it takes, and what holds of a value.

    A name of `pieces` is followed by others, so that each may be a prefix.
    """

    parse: Callable[[str], Any]
    errors: tuple[type[Exception], ...]
    pieces: Sequence[str]
    usable: Callable[[Any], bool] = lambda _value: True


def _is_time(value: float) -> bool:
    """Return True for what the system's clock and its waits take."""
    return math.isfinite(value) and 0 <= value < 2**33


def _setting(text: str) -> None:
    for key in types():
        try:
            check({key: parsed(key, text, "here")})
        except SettingsError as fault:
            assert fault.key == key  # noqa: PT017


def _url(text: str) -> Any:
    check({"broker.url": Entry(text, "here")})
    return registry.parse(text)


def _phoenix(text: str) -> Any:
    return dial.targets(PhoenixSettings(url=text))


def _deadline(text: str) -> float | None:
    asks = TypedMessage(
        "m", "in", {requests.DEADLINE: text}, b"", BodyKind.TEXT, False, 1, "t", known=Properties(reply_to="r")
    )
    return requests.deadline_ms(asks, NOW)


def _filled(text: str) -> Sequence[bytes]:
    fill = template.assignment(f"a={text}", random.Random(1)).fill  # sample data
    return [fill(number) for number in range(3)]


def _sized(text: str) -> Sequence[int]:
    size = payloads.size_function(text, random.Random(1))  # sample data
    return [size(number) for number in range(20)]


_USAGE, _SETTINGS = (UsageError,), (SettingsError,)
_KINDS = ("stomp", "amqp", "kafka")
_SAMPLER = {"OTEL_TRACES_SAMPLER": "traceidratio"}
_DIGITS = [
    "0", "1", "7", "9" * 400, "9" * 5000, "0" * 30, "1.5", "-1", "+1", "1e9", "1e400", "nan", "inf", "1_0", "٣", "²",
]  # fmt: skip
_UNITS = ["s", "ms", "m", "h", "/", ":", "/s", "x", " ", "=", ",", "%"]
_ISO = [
    "2026-01-31", "T03:00:00", "0001-01-01", "9999-12-31", "T23:59:59.999999", "Z", "+14:00", "-14:00",
    "+23:59:59.999999", "-W01-1", "1969-", "Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct ", "99999 07:28:00 +9999",
    " GMT",
]  # fmt: skip
_HOSTS = [
    "stomp", "amqp", "kafka", "ws", "wss", "http", "https", "memory", "://", "u:p@", "@", "[::1]", "[", "]", "::1",
    "%zz", "%00", "é", "host", "hooks.example.com", ".example.org", "1.2.3.4", "0x7f.1", ":", "61613", "0", "99999",
    "0" * 6 + "1", "/", "/queue/", "?", "#", "&", "=", "a=b", ",", ".", "*", ">", "\0", "\n", " ", "{trace_id}",
]  # fmt: skip
_CODE = [
    "a", "b.c", "queue.depth", "sent", "e2e.p99_ms", "1", "2.0", "9" * 400, "'x'", '"', "'", "(", ")", "[", "]", "{",
    "}", "==", ">", "<=", "&&", "||", "!", "-", "+", "/", "*", "%", "?", ":", ",", ".", " in ", " AND ", " OR ",
    "NOT ", " LIKE ", " BETWEEN ", " IS NULL", "true", "null", "\\", "\\u", "matches", "size(", "has(", "rate(", "1h",
    "\0", "\n", "é", "\ud800", "(a+)+$", "(" * 60, "!" * 300, "[" * 300,
]  # fmt: skip
_CALLS = [
    "int", "float", "normal", "choice", "counter", "text", "uuid", "now", "sequence", "(", ")", ",", "{", "}", "[",
    "]", '"', ":", *_DIGITS,
]  # fmt: skip

_JSON = [
    "{",
    "}",
    "[",
    "]",
    '"',
    '"a"',
    ":",
    ",",
    "1",
    "true",
    "null",
    "\\ud800",
    "\ud800",
    "\udcff",
    "[" * 2000,
    *_DIGITS,
]

PARSERS = {
    "duration": Parser(typed.parse_duration, _USAGE, [*_DIGITS, *_UNITS], _is_time),
    "capacity": Parser(typed.parse_capacity, _USAGE, [*_DIGITS, *_UNITS], lambda found: _is_time(found[1])),
    "rate": Parser(rate.Rate.parse, _USAGE, [*_DIGITS, *_UNITS]),
    "listen address": Parser(typed.parse_listen_address, _USAGE, [*_DIGITS, *_HOSTS]),
    "stats URL": Parser(typed.parse_stats_url, _USAGE, _HOSTS),
    "interval": Parser(parse_interval, _USAGE, [*_DIGITS, *_UNITS], _is_time),
    "time": Parser(lambda text: selection.parse_time(text, NOW), _USAGE, [*_DIGITS, *_UNITS, *_ISO], math.isfinite),
    "fields": Parser(selection.parse_fields, _USAGE, ["stage", "error", ",", " "]),
    "replay rate": Parser(progress.parse_rate, _USAGE, [*_DIGITS, *_UNITS], math.isfinite),
    "load rate": Parser(lambda text: shapes.parse_rate("--qps", text), _USAGE, [*_DIGITS, *_UNITS], math.isfinite),
    "load speed": Parser(arrivals.parse_speed, _USAGE, [*_DIGITS, *_UNITS], math.isfinite),
    "playback speed": Parser(recording.parse_speed, _USAGE, [*_DIGITS, *_UNITS, "max"], math.isfinite),
    "priorities": Parser(
        lambda text: headers.priorities(text, random.Random(1))(), _USAGE, ["high:", *_DIGITS, *_UNITS]
    ),
    "traces": Parser(lambda text: traces.of_option([text]), _USAGE, [*_DIGITS, *_UNITS]),
    "assignment": Parser(_filled, _USAGE, _CALLS),
    "size": Parser(_sized, _USAGE, _CALLS, lambda sizes: all(isinstance(each, int) for each in sizes)),
    "edit": Parser(lambda text: editing.parse([text], None), _USAGE, ["a", ".", "=", "{", "}", '"', "1", "\ud800"]),
    "assertion": Parser(lambda text: assertions.parse([text]), _USAGE, _CODE),
    "join parameters": Parser(options.parse_json, _USAGE, ["{", "}", '"a"', ":", "1", "[", "]", "\\ud800", *_DIGITS]),
    "JSON": Parser(json_text.loads, (json_text.JsonError,), _JSON),
    "JSON of any numbers": Parser(json_text.loads_written, (json_text.JsonError,), _JSON),
    "typed value": Parser(json_text.from_user_input, (), _JSON, json_text.is_json),
    "join pair": Parser(lambda text: options.parse_pairs("--join-param", [text], "room=a"), _USAGE, ["a", "=", "b"]),
    "path": Parser(event.parse_path, _USAGE, ["a", ".", "[", "]", *_DIGITS]),
    "weighted queues": Parser(weighted_queues.parse, _USAGE, [*_DIGITS, *_UNITS, *_HOSTS]),
    "header": Parser(
        lambda text: [from_options([text], brokers.conventions(f"{kind}://a"), (), "loadgen") for kind in _KINDS],
        _USAGE, ["a", "=", "CC", "priority", "timestamp", "\udcff", "x" * 256, *_DIGITS],
    ),
    "simulated model": Parser(
        lambda text: simulated.simulated(f"sim:{text}"), (ModelLoadError,),
        ["?", "&", "=", "min_ms", "max_ms", "failure_rate", "retryable", "classes", "seed", *_DIGITS, "%ff"],
    ),
    "broker URL": Parser(_url, _SETTINGS, _HOSTS, lambda url: all(0 <= port <= 65535 for _, port in url.hosts)),
    "broker URL alone": Parser(
        registry.parse, _SETTINGS, _HOSTS, lambda url: all(0 <= port <= 65535 for _, port in url.hosts)
    ),
    "Phoenix URL": Parser(_phoenix, _SETTINGS, _HOSTS),
    "HTTP URL": Parser(Target.of, (ValueError,), _HOSTS),
    "management URL": Parser(management._checked, _SETTINGS, _HOSTS),
    "key set": Parser(key_set.is_safe, (), _HOSTS),
    "trusted proxy": Parser(
        lambda text: TrustedProxies([text]), _SETTINGS, [*_HOSTS, "::ffff:1.2.3.4", "/8", "/129", "fe80::"]
    ),
    "webhook host": Parser(lambda text: WebhookHosts([text]), _SETTINGS, _HOSTS),
    "webhook URL": Parser(
        _HOOKS.check, (Problem,), _HOSTS, lambda target: 0 < target.port <= 65535 and target.path[0] == "/"
    ),
    "gateway id": Parser(ids.owner_of, (), ["0mfz3k2a1x7c0q9wd", "-", "a", "."]),
    "filter": Parser(expression.compile, (expression.FilterError,), _CODE),
    "pattern": Parser(regex.compile, (regex.PatternError,), _CODE),
    "alert condition": Parser(condition.compile, (condition.ConditionError,), _CODE),
    "selector": Parser(selectors.compile_selector, (selectors.SelectorError,), _CODE),
    "destination": Parser(destinations.parse, (destinations.DestinationError,), _HOSTS),
    "retry after": Parser(retry_after.seconds, (), [*_DIGITS, *_ISO], lambda found: found is None or _is_time(found)),
    "deadline": Parser(_deadline, (), [*_DIGITS, *_ISO], lambda found: found is None or math.isfinite(found)),
    "token": Parser(
        client._expiry, (), [".", "é", *(f"eyJleHAiOi{end}" for end in ("AxfQ", "AiaW5mIn0", "AxZTQwMH0", "BbXX0"))],
        math.isfinite,
    ),
    "traceparent": Parser(trace_context.parse, (), ["00-", "a" * 32, "-", "b" * 16, "-01"]),
    "sampler": Parser(
        lambda text: sampling.of_environment({**_SAMPLER, "OTEL_TRACES_SAMPLER_ARG": text}, print), (), _DIGITS
    ),
    "setting": Parser(_setting, _SETTINGS, [*_DIGITS, *_UNITS, *_HOSTS, "true", "{", "}", "[" * 5000, '"']),
}  # fmt: skip
FOUND = [
    ("duration", "9" * 400), ("duration", "99999999999h"), ("capacity", "9" * 5000), ("capacity", "10:" + "9" * 400),
    ("retry after", "9" * 400), ("deadline", "-1e306"), ("management URL", "http://[::1"), ("key set", "http://["),
    ("broker URL alone", "stomp://a:" + "0" * 6 + "99999"), ("path", f"a[{'9' * 5000}]"),
    ("size", "int(1,1" + "0" * 400 + ")"), ("size", "choice(1,a)"), ("setting", "stomp://a:" + "9" * 5000),
    ("setting", "1e300"), ("setting", "[" * 5000), ("setting", "-" + "9" * 4000), ("setting", "9" * 4000),
    ("priorities", "9" * 5000), ("JSON", "\ud800"), ("edit", "a=\udcff"), ("assignment", "\udcff"),
    ("token", "h.eyJleHAiOiAiaW5mIn0.s"),
]  # fmt: skip


def hold(parser: Parser, text: str) -> None:
    try:
        value = parser.parse(text)
    except parser.errors:
        return
    else:
        assert parser.usable(value)


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
def test_any_text_is_a_value_or_the_error_that_is_promised(name: str, data: st.DataObject) -> None:
    parser = PARSERS[name]
    pieces = st.sampled_from(parser.pieces) | st.text(max_size=4)
    hold(parser, "".join(data.draw(st.lists(pieces, max_size=8))))


@pytest.mark.parametrize(("name", "text"), FOUND, ids=[f"{name} {text[:20]}" for name, text in FOUND])
def test_what_was_found(name: str, text: str) -> None:
    hold(PARSERS[name], text)
