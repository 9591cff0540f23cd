"""A cache of results by the content of events.

The key is a hash of the payload with sorted keys, without the fields in `model.cache_ignore`. Equal events that are in
progress at the same time all call the model: an event that waited for another one would share its failure. Failures
are not cached.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import orjson
from cachetools import TTLCache

from infertool.errors import InferenceError
from infertool.models.port import Cached, LoadedModel, Payload, PredictBatch
from infertool.text import json_text

_KEY_BYTES = 16
_MISS = object()
_by_kind = msgspec.msgpack.Encoder().encode


def cached(model: LoadedModel, *, entries: int, ttl_s: float, ignore: Sequence[str]) -> LoadedModel:
    """Return `model` behind a cache of at most `entries` results, each kept for `ttl_s` seconds."""
    store = _Store(entries, ttl_s, frozenset(ignore))

    def predict(payload: Payload) -> Any:
        key = store.key(payload)
        found = store.get(key)
        return found if found is not _MISS else store.put(key, model.predict(payload))

    return replace(model, predict=predict, predict_batch=_batches(store, model.predict_batch))


def _batches(store: _Store, ask: PredictBatch | None) -> PredictBatch | None:
    if ask is None:
        return None

    def predict_batch(payloads: Sequence[Payload]) -> list[Any]:
        keys = [store.key(payload) for payload in payloads]
        results = [store.get(key) for key in keys]
        missing = [place for place, result in enumerate(results) if result is _MISS]
        answers = list(ask([payloads[place] for place in missing])) if missing else []
        if len(answers) != len(missing):
            what = f"predict_batch returned {len(answers)} results for {len(missing)} events"
            raise InferenceError(what, retryable=False)
        for place, answer in zip(missing, answers, strict=True):
            results[place] = store.put(keys[place], answer)
        return results

    return predict_batch


class _Store:
    """Results by key, kept as JSON so that later changes of a returned result do not affect them."""

    def __init__(self, entries: int, ttl_s: float, ignore: frozenset[str]) -> None:
        self._ignore = ignore
        self._kept: TTLCache[bytes, bytes] = TTLCache(entries, ttl_s)
        self._lock = threading.Lock()

    def key(self, payload: Payload) -> bytes:
        content = payload
        if isinstance(payload, dict):
            content = {name: value for name, value in payload.items() if name not in self._ignore}
        try:
            written = json_text.dumps(content, option=orjson.OPT_SORT_KEYS)
        except TypeError:  # what only MessagePack holds: bytes, and keys that are no texts
            written = _by_kind(content)
        return hashlib.blake2b(written, digest_size=_KEY_BYTES).digest()

    def get(self, key: bytes) -> Any:
        with self._lock:
            kept = self._kept.get(key)
        return _MISS if kept is None else Cached(json_text.loads(kept))

    def put(self, key: bytes, result: Any) -> Any:
        """Keep `result` if it can be cached; return it."""
        if isinstance(result, BaseException):
            return result  # one event of a batch failed
        try:
            encoded = json_text.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY)
        except (TypeError, RecursionError):
            return result  # not JSON: the event will fail
        with self._lock:
            self._kept[key] = encoded
        return result
