"""Parameters of a join, as they are given on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infertool import json_text
from infertool.errors import UsageError

_JSON_ADVICE = """write for example '{"room":"a"}'"""
_PAIR_ADVICE = "write for example --join-param room=a"


def parse_json(text: str) -> dict[str, Any]:
    """Return the parameters of `--join-params`, a JSON object. Raises `UsageError`, which does not show them."""
    try:
        params = json_text.loads(text)
    except json_text.JsonError as error:
        raise UsageError(f"--join-params is not JSON: {error}", advice=_JSON_ADVICE) from error
    if not isinstance(params, dict):
        raise UsageError("--join-params must be a JSON object", advice=_JSON_ADVICE)
    return params


def parse_pairs(pairs: Sequence[str]) -> dict[str, str]:
    """Return the parameters of `--join-param name=value`. Raises `UsageError`, which does not show them."""
    params: dict[str, str] = {}
    for number, pair in enumerate(pairs, 1):
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise UsageError(f"--join-param number {number} is no name=value", advice=_PAIR_ADVICE)
        if name in params:
            raise UsageError(f"--join-param gives {name} twice", advice="give each name once")
        params[name] = value
    return params
