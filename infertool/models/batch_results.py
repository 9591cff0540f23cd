"""The results of `predict_batch`, matched with the events it was given."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from infertool.errors import InferenceError


class WrongResultsError(InferenceError):
    """The results of a batch cannot be matched with its events."""

    def __init__(self, what: str, *, retryable: bool = False) -> None:
        super().__init__(what, retryable=retryable)


def matched(results: Any, count: int) -> list[Any]:
    """Return one result for each of `count` events, in their order. Raises `WrongResultsError`."""
    # A table, as of pandas, polars or Arrow, iterates over its columns.
    if isinstance(results, Mapping | AbstractSet | str | bytes | None) or hasattr(results, "columns"):
        raise WrongResultsError(f"predict_batch returned {type(results).__name__}, not a list of results")
    found = list(results)
    if len(found) != count:
        raise WrongResultsError(f"predict_batch returned {len(found)} results for {count} events")
    return found
