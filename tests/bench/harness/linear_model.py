"""A model whose call of n events takes a fixed time and a time for each, and holds the interpreter lock for a part."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any


def linear(
    fixed_s: float, each_s: float, held: float = 0.0, factor: Callable[[], float] = lambda: 1.0
) -> Callable[[Sequence[Any]], list[Any]]:
    """Return its `predict_batch`. `held` is the part of a call that computes; `factor` makes calls slower."""

    def predict_batch(payloads: Sequence[Any]) -> list[Any]:
        seconds = (fixed_s + each_s * len(payloads)) * factor()
        until = time.thread_time() + seconds * held
        while time.thread_time() < until:
            pass
        time.sleep(seconds * (1 - held))
        return [{"class": "A"}] * len(payloads)

    return predict_batch


class Linear:
    """The model by the environment's FIXED_S, EACH_S and HELD, for a consumer of its own."""

    def __init__(self) -> None:
        fixed_s, each_s, held = (float(os.environ.get(name, "0")) for name in ("FIXED_S", "EACH_S", "HELD"))
        self.predict_batch = linear(fixed_s, each_s, held)

    def predict(self, payload: Any) -> Any:
        """Work on one event."""
        return self.predict_batch([payload])[0]
